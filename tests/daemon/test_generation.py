"""Loading policy and rings as one whole."""

from __future__ import annotations

import getpass
import pickle
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12

from attls.cli import main
from attls.daemon.generation import Generation, GenerationError, load, renew
from attls.errors import KeyringError, PolicyError
from attls.keyring import Store
from attls.model import Defaults
from tests.scenes.daemons import rule


def loaded(tmp_path: Path, rings: Path, policy: str, previous: Generation | None = None) -> Generation:
    path = tmp_path / "attls.policy"
    path.write_text(policy)
    number = previous.number + 1 if previous else 1
    return load(path, rings, defaults=Defaults.MODERN, number=number, previous=previous)


def test_every_ring_is_read_once_and_bare_names_are_left(tmp_path: Path, rings: Path) -> None:
    """Two rules over one ring read it once; the ring of a connection's own user cannot be read beforehand."""
    policy = rule("a") + rule("b", port=7001) + rule("c", port=7002, ring="OWN")
    generation = loaded(tmp_path, rings, policy)
    assert [key[0] for key in generation.rings] == ["SRV/RING"]
    assert generation.groups == ("a-grp", "b-grp", "c-grp")


def test_it_travels_to_workers(tmp_path: Path, rings: Path) -> None:
    """A generation is equal to itself after pickling, private keys included."""
    generation = loaded(tmp_path, rings, rule("a"))
    copy = pickle.loads(pickle.dumps(generation))
    assert generation.rings == copy.rings
    assert generation.policy.rules == copy.policy.rules


def test_all_missing_rings_are_named_at_once(tmp_path: Path, rings: Path) -> None:
    """One sentence for each ring, with the rule that asks for it and the System SSL code."""
    policy = rule("a", ring="NO/ONE") + rule("b", port=7001, ring="NO/TWO") + rule("c", port=7002, ring="NO/TWO")
    with pytest.raises(GenerationError) as caught:
        loaded(tmp_path, rings, policy)
    first, second = caught.value.problems
    assert "rule a: " in first
    assert "rule b: " in second
    assert "(code 202)" in first


def test_policy_errors_come_before_rings(tmp_path: Path, rings: Path) -> None:
    """A policy that does not read is a PolicyError with its diagnostics."""
    with pytest.raises(PolicyError):
        loaded(tmp_path, rings, rule("a", ring="NO/ONE").replace("Server", "Sever"))


def test_a_policy_path_that_cannot_be_read_is_a_sentence(
    tmp_path: Path, rings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is missing or forbidden, nobody sees a traceback."""
    with pytest.raises(PolicyError):
        load(tmp_path / "missing.policy", rings, defaults=Defaults.MODERN, number=1)

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("attls.policy.load", forbidden)
    with pytest.raises(GenerationError, match=r"cannot read the policy .*: Permission denied"):
        loaded(tmp_path, rings, rule("a"))


def test_actions_keep_their_numbers_across_refreshes(tmp_path: Path, rings: Path) -> None:
    """GRPID and ENVID in the log mean the same action before and after, also when it was away for a while."""
    first = loaded(tmp_path, rings, rule("a") + rule("b", port=7001))
    second = loaded(tmp_path, rings, rule("b", port=7001) + rule("c", port=7002), first)
    third = loaded(tmp_path, rings, rule("a") + rule("c", port=7002), second)
    assert first.group_identifiers == {"a-grp": 1, "b-grp": 2}
    assert third.group_identifiers == {"a-grp": 1, "b-grp": 2, "c-grp": 3}
    assert third.groups == ("a-grp", "c-grp")


def test_only_keys_that_are_presented_travel(tmp_path: Path, rings: Path) -> None:
    """A rule that names one certificate gets its key and no other; a client that presents none gets no key at all."""
    store = tmp_path / "keyrings"
    shutil.copytree(rings, store)
    for command in (
        "cert issue --owner SRV --label spare --cn spare --sign-with CA",
        "keyring connect SRV/RING --owner SRV --label spare",
    ):
        assert CliRunner().invoke(main, [*command.split(), "--keyrings", str(store)]).exit_code == 0

    def keys(policy: str) -> set[str]:
        (ring,) = loaded(tmp_path, store, policy).rings.values()
        return {entry.label for entry in ring.entries if entry.private_key is not None}

    assert keys(rule("default")) == {"server"}
    assert keys(rule("named", extra="CertificateLabel spare")) == {"spare"}
    assert keys(rule("a") + rule("b", port=7001, extra="CertificateLabel spare")) == {"server", "spare"}
    assert keys(rule("silent", direction="Outbound", ring="SRV/RING", extra='CertificateLabel ""')) == set()


def test_rings_are_renewed_under_the_policy_in_force(tmp_path: Path, rings: Path) -> None:
    """What the policy's file says meanwhile does not matter."""
    first = loaded(tmp_path, rings, rule("a"))
    (tmp_path / "attls.policy").write_text("TTLSRule half {")
    second, problems = renew(first, rings, number=2)
    assert (first.policy, first.rings, 2, ()) == (second.policy, second.rings, second.number, problems)


def test_a_ring_that_cannot_be_renewed_stays_and_holds_up_no_other(tmp_path: Path, rings: Path) -> None:
    """There is a sentence about it; at a load it would be a refusal."""
    store = tmp_path / "keyrings"
    shutil.copytree(rings, store)
    first = loaded(tmp_path, store, rule("a") + rule("b", port=7001, direction="Outbound"))
    (store / "rings/SRV/RING.toml").write_text("garbage")
    (store / "rings/CLI/RING.toml").write_text('owner = "CLI"\nname = "RING"\n')
    second, (problem,) = renew(first, store, number=2)
    old, new = ({key[0]: ring for key, ring in one.rings.items()} for one in (first, second))
    assert (old["SRV/RING"], ()) == (new["SRV/RING"], new["CLI/RING"].entries)
    assert old["CLI/RING"].entries
    assert problem.startswith("rule a: ")
    with pytest.raises(GenerationError, match="rule a: "):
        loaded(tmp_path, store, rule("a"))


def test_strict_grants_are_asked_for_at_load(tmp_path: Path, rings: Path) -> None:
    """Rings named with an owner are read by who runs the daemon: 202 without a grant; the key costs more than READ."""
    store = tmp_path / "keyrings"
    shutil.copytree(rings, store)

    def attls(command: str) -> None:
        done = CliRunner().invoke(main, [*command.split(), "--keyrings", str(store)])
        assert done.exit_code == 0, done.output

    attls("keyring settings --strict")
    with pytest.raises(GenerationError, match=r"rule a: .* may not read ring SRV/RING; .*\(code 202\)"):
        loaded(tmp_path, store, rule("a"))
    user = getpass.getuser()
    attls(f"keyring grant SRV/RING --user {user}")
    (ring,) = loaded(tmp_path, store, rule("a")).rings.values()
    with pytest.raises(KeyringError, match="needs UPDATE access") as caught:
        ring.identity()
    assert 428 == caught.value.code
    attls(f"keyring grant SRV/RING --user {user} --access update")
    (ring,) = loaded(tmp_path, store, rule("a")).rings.values()
    assert "server" == ring.identity().label


@pytest.mark.parametrize("agent", [False, True])
def test_links_in_a_circle_are_a_diagnostic(tmp_path: Path, rings: Path, agent: bool) -> None:
    """Whether the policy itself is one or a file that names it, the reader says that it cannot be read."""
    loop = tmp_path / "loop.policy"
    loop.symlink_to(loop)
    path = loop
    if agent:
        path = tmp_path / "pagent.conf"
        path.write_text(f"TTLSConfig {loop}\n")
    with pytest.raises(PolicyError) as caught:
        load(path, rings, defaults=Defaults.MODERN, number=1)
    assert [str(loop) in finding.message for finding in caught.value.diagnostics] == [True]


def test_a_data_set_is_read_from_the_file_that_stands_for_it(tmp_path: Path, rings: Path) -> None:
    """The mapping reaches the reader."""
    (tmp_path / "member").write_text(rule("a"))
    path = tmp_path / "pagent.conf"
    path.write_text("TTLSConfig //'HLQ.POLICY(TTLS)'\n")
    datasets = {"HLQ.POLICY(TTLS)": tmp_path / "member"}
    generation = load(path, rings, defaults=Defaults.MODERN, number=1, datasets=datasets)
    assert [each.name for each in generation.policy.rules] == ["a"]


@pytest.mark.parametrize(
    ("lines", "code"),
    [("KeyringPw secret", None), ("KeyringStashFile STASH", None), ("KeyringPw wrong", 408),
     ("KeyringPw secret\nKeyringStashFile /nowhere", None), ("", 408)],
)  # fmt: skip
def test_a_key_database_is_opened_by_what_the_policy_says(
    tmp_path: Path, rings: Path, lines: str, code: int | None
) -> None:
    """KeyringPw, or else the first line of KeyringStashFile."""
    stash = tmp_path / "stash"
    stash.write_text("secret\n")
    stash.chmod(0o600)
    database = tmp_path / "keys.p12"
    entry = Store(rings).ring("SRV/RING").identity()
    database.write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"server",
            load_pem_private_key(entry.private_key, None),  # type: ignore[arg-type]
            x509.load_der_x509_certificate(entry.certificate),
            None,
            BestAvailableEncryption(b"secret"),
        )
    )
    database.chmod(0o600)
    text = rule("a", ring=str(database))
    (line,) = (each for each in text.splitlines() if each.split()[:1] == ["Keyring"])
    text = text.replace(line, f"{line}\n{lines.replace('STASH', str(stash))}")
    if code is not None:
        with pytest.raises(GenerationError, match=rf"\(code {code}\)"):
            loaded(tmp_path, rings, text)
        return
    (ring,) = loaded(tmp_path, rings, text).rings.values()
    assert entry.certificate == ring.identity().certificate
