"""attls cert, keyring and map at the command line: output, JSON, exit codes."""

import datetime
import json
import os
import pty
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.x509.oid import NameOID

from attls.cli import main
from attls.keyring import Store, certificates

HOUSE = Path(__file__).resolve().parent.parent.parent
Attls = Callable[..., Result]
COMMANDS = [
    command
    for name in ("cert", "keyring", "map", "racdcert")
    if (command := main.get_command(click.Context(main), name)) is not None
]


@pytest.fixture
def attls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attls:
    """Run one attls command on a store of its own; an exit code other than the expected one fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATTLS_KEYRINGS", raising=False)

    def run(line: str, *, code: int = 0, given: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(main, shlex.split(line), input=given)
        assert code == result.exit_code, (line, result.output, result.exception)
        return result

    return run


@pytest.fixture
def demo(attls: Attls) -> Attls:
    """A store with an authority, a server certificate and the ring DEMO/SERVER."""
    attls("cert create-ca --label 'Demo CA' --cn 'The Demo CA'")
    attls("cert issue --owner DEMO --label server --cn server.demo --sign-with 'Demo CA' --san DNS:server.demo,IP:::1")
    attls("keyring create DEMO/SERVER")
    attls("keyring connect DEMO/SERVER --owner DEMO --label server --default")
    attls("keyring connect DEMO/SERVER --owner CERTAUTH --label 'Demo CA'")
    return attls


def document(result: Result) -> Any:
    """The one JSON document on standard output; nothing may be on standard error."""
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_the_documented_spelling_builds_a_working_ring(demo: Attls) -> None:
    """The commands of the manual, one after the other, give a ring with identity and anchor in ./keyrings."""
    ring = Store("keyrings").ring("demo/SERVER")
    assert ring.identity().label == "server"
    assert len(ring.trust_anchors()) == 1


def test_the_directory_comes_from_option_or_environment(attls: Attls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option wins."""
    monkeypatch.setenv("ATTLS_KEYRINGS", "from-environment")
    attls("cert create-ca --label A --cn A")
    attls("cert create-ca --label A --cn A --keyrings from-option")
    assert {"from-environment", "from-option"} == {path.name for path in Path().iterdir()}


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        (
            "cert list --json",
            {"owner", "label", "trust", "private_key", "rings", "subject", "issuer", "not_after", "san"},
        ),
        ("cert show --label server --json", {"chain", "chain_complete", "pem", "fingerprint", "serial", "key_type"}),
        ("keyring list --json", {"ring", "owner", "name", "entries"}),
        ("keyring list DEMO/SERVER --json", {"ring", "owner", "name", "entries"}),
        ("keyring verify --json", {"ok", "findings"}),
        ("cert renew --owner DEMO --label server --json", {"label", "not_after"}),
        ("cert trust --owner DEMO --label server --json", {"trust"}),
        ("cert export --label server --out x.pem --json", {"file", "format", "with_key"}),
        ("cert request --owner U --label L --cn x --json", {"request"}),
        ("cert delete --owner DEMO --label server --json", {"rings"}),
        ("cert rename --owner DEMO --label server --new-label s --json", {"label"}),
        ("keyring create U/R --json", {"ring"}),
        ("keyring delete DEMO/SERVER --json", {"ring"}),
        ("keyring remove DEMO/SERVER --owner DEMO --label server --json", {"entries"}),
        ("map add --user u --label l --subject O=E --json", {"user", "label", "subject", "issuer", "trust"}),
        ("map criterion APPLID=X --user u --json", {"criteria", "user"}),
    ],
)
def test_json_is_one_document_with_stable_keys(demo: Attls, line: str, keys: set[str]) -> None:
    """Nothing else is on standard output."""
    found = document(demo(line))
    found = found[0] if isinstance(found, list) else found
    assert keys <= set(found)


def test_lists_are_tables_with_whole_words(demo: Attls) -> None:
    """Off a terminal nothing is cut and nothing is coloured."""
    demo(f"cert issue --owner DEMO --label {'x' * 64} --cn {'y' * 60} --sign-with 'Demo CA'")
    printed = demo("cert list").stdout
    assert "x" * 64 in printed
    assert "y" * 60 in printed
    assert "\x1b" not in printed
    rows = demo("keyring list DEMO/SERVER").stdout.splitlines()
    assert rows[0].split() == ["LABEL", "OWNER", "USAGE", "DEFAULT", "TRUST", "KEY", "ENDS", "IN"]
    assert rows[1].split()[:6] == ["server", "DEMO", "PERSONAL", "yes", "TRUST", "yes"]


def test_empty_stores_list_as_empty(attls: Attls) -> None:
    """Asking what is there is no failure."""
    assert attls("cert list").stdout == "no certificates in keyrings\n"
    assert attls("keyring list").stdout == "no rings in keyrings\n"
    assert attls("map list").stdout == "no filters in keyrings\n"
    assert document(attls("cert list --json")) == []


@pytest.mark.parametrize(
    ("line", "code", "word"),
    [
        ("cert show --label nope", 1, "no owner has a certificate labelled 'nope'"),
        ("cert show --owner DEMO --label nope", 1, "it has 'server'"),
        ("keyring list DEMO/NOPE", 1, "it has 'SERVER'"),
        ("keyring verify DEMO/NOPE", 1, "it has 'SERVER'"),
        ("cert list --owner ../x", 2, "is no user name"),
        ("keyring create SERVER", 2, "write USER/RING"),
        ("keyring create ../../x", 2, "is no user name"),
        ("keyring create a/../b", 2, "must not contain"),
        ("cert create-ca --label X --cn x --owner a/b", 2, "is no user name"),
        ("cert create-ca --label '' --cn x", 2, "1 to 64"),
        ("cert create-ca --label X --cn ''", 2, "1 to 64"),
        ("cert create-ca --label X --cn x --subject nonsense", 2, "distinguished name"),
        ("cert create-ca --label X --cn x --days 0", 2, "--days"),
        ("cert create-ca --label X --cn x --key-type dsa", 2, "--key-type"),
        ("cert issue --owner U --label L --cn x --sign-with 'Demo CA' --san IP:x", 2, "is no alternative name"),
        ("cert issue --owner U --label L --cn x --sign-with NOPE", 3, "no certificate labelled 'NOPE'"),
        (
            "cert issue --owner U --label L --cn x --sign-with server --sign-with-owner DEMO",
            3,
            "no certificate authority",
        ),
        ("cert create-ca --label 'Demo CA' --cn x", 3, "already has"),
        ("cert delete --owner DEMO --label nope", 3, "it has 'server'"),
        ("cert import --owner U --label L nofile", 3, "cannot read nofile"),
        ("cert export --label server --out nodir/x", 3, "cannot write"),
        ("cert export --label server --format p12 --with-key --out x", 3, "--password-file"),
        ("cert export --label server --format der --with-key --out x", 2, "--format p12 or pem"),
        ("cert sign keyrings --sign-with 'Demo CA'", 3, "not a regular file"),
        ("cert trust --owner DEMO --label server --hightrust", 3, "only a CERTAUTH"),
        ("keyring create DEMO/SERVER", 3, "exists already"),
        ("keyring connect DEMO/SERVER --owner U --label L", 3, "it has none"),
        ("keyring remove DEMO/SERVER --owner DEMO --label nope", 3, "not connected"),
        ("map add --label l --subject O=E", 2, "--user or --criteria"),
        ("map add --user u --label l", 2, "--subject"),
        ("map add --user u --label l --subject E", 2, "write e.g."),
        ("map delete --user u --label l", 3, "no filter"),
        ("map test nofile", 3, "cannot read nofile"),
    ],
)
def test_failures_have_their_exit_code_and_one_sentence(demo: Attls, line: str, code: int, word: str) -> None:
    """1 for no, 2 for wrong usage, 3 for could not; on standard error only."""
    result = demo(line, code=code)
    assert result.stdout == ""
    assert word in result.stderr
    assert "Traceback" not in result.stderr


def test_an_exported_key_is_closed(demo: Attls) -> None:
    """Mode 0600 with the key, 0644 without."""
    demo("cert export --label server --out open.pem --chain")
    demo("cert export --label server --out closed.pem --with-key")
    assert [stat.S_IMODE(Path(name).stat().st_mode) for name in ("open.pem", "closed.pem")] == [0o644, 0o600]
    assert Path("open.pem").read_text().count("BEGIN CERTIFICATE") == 2
    assert demo("cert export --label server --out -").stdout.startswith("-----BEGIN CERTIFICATE-----")


def test_a_certificate_travels_by_pkcs12(demo: Attls) -> None:
    """Passwords come from a file; the sentence about the untrusted authority names the command."""
    Path("pw").write_text("secret\n")
    demo("cert export --label server --format p12 --with-key --password-file pw --out x.p12")
    assert (
        "give it with --password-file"
        in demo("cert import --owner bob --label s x.p12 --keyrings other", code=3).stderr
    )
    Path("wrong").write_text("guess\n")
    line = "cert import --owner bob --label s x.p12 --keyrings other --password-file"
    assert "password is wrong" in demo(f"{line} wrong", code=3).stderr
    printed = demo(f"{line} pw").stdout
    assert "attls cert trust --owner CERTAUTH --label 'The Demo CA'" in printed
    assert document(demo("cert show --label s --keyrings other --json"))["private_key"] is True


def test_certificate_and_key_come_from_two_files(demo: Attls) -> None:
    """And a mixed-up pair is refused."""
    demo("cert export --label server --out cert.pem")
    key = next(Path("keyrings/private/DEMO").glob("server.*"))
    demo(f"cert import --owner bob --label s cert.pem --key {key} --keyrings other")
    demo("cert issue --owner DEMO --label wrong --cn wrong --sign-with 'Demo CA'")
    wrong = next(Path("keyrings/private/DEMO").glob("wrong.*"))
    result = demo(f"cert import --owner bob --label t cert.pem --key {wrong} --keyrings other", code=3)
    assert "does not belong to the certificate" in result.stderr


def test_request_sign_and_import_meet(demo: Attls) -> None:
    """The way of a certificate from another authority, with SAN taken from the request."""
    demo("cert request --owner ann --label web --cn web.example --out web.csr --keyrings other")
    assert "requested" in demo("cert list --keyrings other").stdout
    printed = demo("cert sign web.csr --sign-with 'Demo CA' --out web.pem").stdout
    assert "DNS:web.example" in printed
    demo("cert import --owner ann --label web web.pem --keyrings other")
    assert document(demo("cert show --label web --keyrings other --json"))["private_key"] is True
    pem = demo("cert sign - --sign-with 'Demo CA'", given=Path("web.csr").read_bytes()).stdout
    assert pem.startswith("-----BEGIN CERTIFICATE-----")


def test_verify_answers_with_its_exit_code(demo: Attls) -> None:
    """0 in order, 1 with errors; a passing look after the mending command."""
    assert demo("keyring verify").stdout == "keyrings: no errors, no warnings\n"
    next(Path("keyrings/private/DEMO").glob("server.*")).chmod(0o644)
    result = demo("keyring verify", code=1)
    mend = next(line.strip() for line in result.stdout.splitlines() if line.startswith("    chmod"))
    assert os.system(mend) == 0
    demo("keyring verify")
    assert document(demo("keyring verify --expiring 400 --json"))["ok"] is True
    assert "expires in 396 days" in demo("keyring verify DEMO/SERVER --expiring 400").stdout


def test_map_test_explains_and_answers(demo: Attls) -> None:
    """Registered, by filter, nobody: the walk is printed, the exit code is the answer."""
    demo("cert export --label server --out c.pem")
    assert "user DEMO (registered)" in demo("map test c.pem").stdout
    assert "user DEMO (registered)" in demo("map test DEMO/server").stdout
    demo("cert delete --owner DEMO --label server")
    assert demo("map test c.pem", code=1).stdout.endswith("no user\n")
    demo("map add --user alice --label a --subject CN=server.demo --issuer 'CN=The Demo CA'")
    found = document(demo("map test c.pem --json"))
    assert (found["user"], found["way"], found["label"]) == ("alice", "filter", "a")
    assert [step["matched"] for step in found["trace"]] == [False, True]
    assert "alice" in demo("map list").stdout
    demo("map delete --user alice --label a")
    assert document(demo("map list --json")) == []


def test_a_model_certificate_names_the_rest(demo: Attls) -> None:
    """The filter holds everything from the given start on."""
    demo("cert issue --owner DEMO --label m --cn m --subject OU=Pay,O=Example --sign-with 'Demo CA'")
    demo("cert export --label m --out m.pem")
    found = document(demo("map add --user u --label l --subject OU=Pay --model m.pem --json"))
    assert found["subject"] == "OU=Pay.O=Example"


def test_what_virtual_rings_and_directories_stand_for_is_listed(demo: Attls) -> None:
    """As a policy would have them: certificates of an owner, authorities of store and system, files of a directory."""

    def labels(line: str) -> list[str]:
        return [entry["label"] for entry in document(demo(f"{line} --json"))["entries"]]

    assert labels("keyring list 'demo/*'") == ["server"]
    assert labels("keyring list '*AUTH*/*'") == ["Demo CA"]
    assert labels("keyring list '*SITE*/*'") == []
    demo("keyring settings --auth both")
    both = labels("keyring list '*auth*/*'")
    assert (both[0], len(both) > 50) == ("Demo CA", True)
    demo("keyring settings --auth system")
    assert labels("keyring list '*AUTH*/*'") == both[1:]
    Path("live").mkdir()
    demo("cert export --label server --chain --out live/fullchain.pem")
    demo("cert export --label server --with-key --out live/privkey.pem")
    table = demo("keyring list ./live").stdout.splitlines()
    assert "server.demo  FILE   PERSONAL  yes      TRUST  yes  396 days" == table[1]
    assert "cannot read the keyring file" in demo("keyring list ./nothing", code=3).stderr
    assert "no ring 'X'" in demo("keyring list demo/X", code=1).stderr


def test_criteria_are_listed_in_the_order_in_which_they_are_tried(attls: Attls) -> None:
    """A text without wildcards comes first."""
    assert attls("map criteria").stdout == "no criteria in keyrings\n"
    attls("map criterion 'APPLID=*' --user rest")
    attls("map criterion 'APPLID=PAY' --user pay")
    assert document(attls("map criteria --json")) == [
        {"criteria": "APPLID=PAY", "user": "PAY"},
        {"criteria": "APPLID=*", "user": "REST"},
    ]
    assert attls("map criteria").stdout.splitlines()[1].split() == ["APPLID=PAY", "PAY"]


def test_a_request_that_waits_is_told_from_a_certificate_that_is_not_there(demo: Attls) -> None:
    """With the command that brings its certificate in."""
    demo("cert request --owner carl --label 'my web' --cn web --out web.csr")
    said = demo("cert show --owner carl --label 'my web'", code=1).stderr
    assert "attls cert import --owner CARL --label 'my web' FILE" in said


def test_control_characters_of_a_foreign_certificate_do_not_reach_the_terminal(demo: Attls) -> None:
    """A subject may hold escape sequences; they are shown as question marks."""
    demo("cert issue --owner DEMO --label evil --cn evil --subject 'O=\\1b[2Jx' --sign-with 'Demo CA'")
    demo("cert export --label evil --out evil.pem")
    for line in ("cert list", "cert show --label evil", "map test evil.pem", "keyring verify"):
        assert "\x1b" not in demo(line).stdout


def test_control_characters_of_a_foreign_name_do_not_reach_the_terminal_in_an_error(demo: Attls) -> None:
    """The common name in a sentence is somebody else's text."""
    key = certificates.generate_key("ecdsa-p256")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x\x1b[2J\nattls: done")])
    now = datetime.datetime.now(datetime.UTC)
    profile = certificates.Profile(subject=name, days=1)
    certificate = certificates.build(profile, key.public_key(), signer=None, own_key=key, now=now)
    Path("evil.pem").write_bytes(certificates.pem(certificate))
    Path("other.key").write_bytes(certificates.private_key_pem(certificates.generate_key("ed25519")))
    said = demo("cert import --owner u --label l evil.pem --key other.key", code=3).stderr
    assert "'x?[2J?attls: done'" in said
    assert said.count("\n") == 1


def test_every_command_takes_the_two_common_options() -> None:
    """--keyrings and --json are everywhere."""
    for group in COMMANDS:
        for command in group.commands.values() if isinstance(group, click.Group) else (group,):
            options = {option for parameter in command.params for option in parameter.opts}
            assert {"--keyrings", "--json"} <= options
            assert command.help


def test_no_option_takes_a_secret_as_its_value() -> None:
    """Arguments are visible to every user of the machine."""
    for group in COMMANDS:
        for command in group.commands.values() if isinstance(group, click.Group) else (group,):
            for parameter in command.params:
                for option in parameter.opts:
                    assert "pass" not in option or option.endswith("-file"), option


def test_the_demo_rings_are_made_once(tmp_path: Path) -> None:
    """The recipe works on nothing, changes nothing the second time, and finishes what was interrupted."""
    script, store = HOUSE / "keyrings" / "make-demo-rings", tmp_path / "demo"

    def run() -> str:
        return subprocess.run([sys.executable, script, store], capture_output=True, text=True, check=True).stdout

    assert "created ring DEMO/SERVER" in run()
    before = Store(store).ring("DEMO/SERVER")
    assert run() == ""
    assert before == Store(store).ring("DEMO/SERVER")
    Store(store).delete_ring("DEMO", "CLIENT")
    assert run().count("\n") == 6
    client = Store(store).ring("DEMO/CLIENT")
    assert client.trust_anchors() == before.trust_anchors()
    names = certificates.summary(certificates.load_certificate(before.identity().certificate))["san"]
    assert names == ["DNS:redis.demo", "IP:10.77.0.2", "IP:fd77::2", "IP:127.0.0.1"]
    wrong = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (wrong.returncode, "usage" in wrong.stderr) == (2, True)


def test_keys_are_encrypted_and_decrypted(demo: Attls) -> None:
    """Passphrases come from files that must be closed; without one there is a sentence, not a prompt that hangs."""
    Path("phrase").write_text("long enough\n")
    line = "keyring encrypt --new-passphrase-file phrase"
    assert "chmod 600" in demo(line, code=3).stderr
    Path("phrase").chmod(0o600)
    assert demo(line).stdout == "encrypted 2 keys\n"
    assert "--new-passphrase-file" in demo("keyring encrypt --passphrase-file phrase", code=2).stderr
    export = "cert export --label server --with-key --out x.pem"
    assert "no passphrase was given" in demo(export, code=3).stderr
    demo(f"{export} --passphrase-file phrase")
    assert demo("keyring verify --passphrase-file phrase").stdout == "keyrings: no errors, no warnings\n"
    Path("wrong").write_text("wrong\n")
    Path("wrong").chmod(0o600)
    assert "give the right passphrase" in demo("keyring verify --passphrase-file wrong", code=1).stdout
    assert "2 encrypted private keys were not looked into" in demo("keyring verify").stdout
    assert demo("keyring decrypt --passphrase-file phrase").stdout == "decrypted 2 keys\n"
    demo(export)


def test_a_passphrase_is_asked_for_once_on_a_terminal(demo: Attls, tmp_path: Path) -> None:
    """Though two keys have to be opened; it is not shown, and a wrong one is refused."""
    Path("phrase").write_text("long enough\n")
    Path("phrase").chmod(0o600)
    demo("keyring encrypt --new-passphrase-file phrase")
    attls = [sys.executable, "-m", "attls", "cert", "renew", "--owner", "DEMO", "--label", "server"]

    def typed(text: bytes) -> tuple[int, bytes]:
        terminal, other_end = pty.openpty()
        process = subprocess.Popen(
            ["timeout", "--foreground", "60", *attls],
            stdin=other_end, stdout=other_end, stderr=other_end, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(HOUSE)},
        )  # fmt: skip
        os.close(other_end)
        shown = b""
        try:
            while True:
                shown += os.read(terminal, 4096)
                if shown.endswith(b"store: "):
                    os.write(terminal, text)
        except OSError:  # the terminal's other end is closed: the command has ended
            os.close(terminal)
        return process.wait(timeout=60), shown

    code, shown = typed(b"long enough\n")
    assert (code, shown.count(b"Passphrase of the keyring store: "), b"long" in shown) == (0, 1, False)
    code, shown = typed(b"wrong\n")
    assert (code, b"the passphrase is wrong or the key damaged" in shown) == (3, True)


def test_settings_and_grants(demo: Attls) -> None:
    """Shown, changed, listed; a grant before strict mode says that it does not count yet."""
    assert document(demo("keyring settings --json")) == {
        "strict": False,
        "auth": "store",
        "host_names": [],
        "encrypted": False,
    }
    assert "--strict" in demo("keyring grant DEMO/SERVER --user alice").stdout
    found = document(demo("keyring settings --strict --auth both --host-name here.example --json"))
    assert found == {"strict": True, "auth": "both", "host_names": ["here.example"], "encrypted": False}
    demo("keyring grant DEMO/SERVER --user alice --access update")
    assert document(demo("keyring grants --json")) == [{"ring": "DEMO/SERVER", "user": "ALICE", "access": "update"}]
    assert Store("keyrings").ring("DEMO/SERVER", "alice").identity().label == "server"
    demo("keyring revoke DEMO/SERVER --user alice")
    assert demo("keyring grants").stdout == "no grants in keyrings\n"
    assert "no grant" in demo("keyring revoke DEMO/SERVER --user alice", code=3).stderr
    assert document(demo("keyring settings --no-strict --reset-host-names --json"))["host_names"] == []


def test_racdcert_takes_one_command_or_a_procedure(demo: Attls) -> None:
    """From the command line or standard input, where SETROPTS does nothing and comments are left out."""
    assert "       >SERVER<" in demo('racdcert "RACDCERT ID(DEMO) LISTRING(*)"').stdout
    procedure = (
        "/* renew the ring */\n"
        "RACDCERT ID(DEMO) ADDRING(SECOND)\n"
        "RACDCERT ID(DEMO) CONNECT(LABEL('server') -\n    RING(SECOND) DEFAULT)\n"
        "SETROPTS RACLIST(DIGTCERT,DIGTRING) REFRESH\n"
        "RACDCERT ID(DEMO) EXPORT(LABEL('server')) DSN('x.p12') PASSWORD('secret')\n"
    )
    found = document(demo("racdcert --json", given=procedure))
    assert [step["command"].split()[2] for step in found] == [
        "ADDRING(SECOND)",
        "CONNECT(LABEL('server')",
        "REFRESH",
        "EXPORT(LABEL('server'))",
    ]
    assert "secret" not in json.dumps(found)
    assert Store("keyrings").ring("DEMO/SECOND").identity().label == "server"
    assert "needs a function" in demo("racdcert ''", code=2).stderr
    for line, code in (
        ("LISTRING(NOPE)", 1),
        ("NONSENSE", 2),
        ("ID(a/b) LIST", 2),
        ("ADDTOKEN(x)", 3),
        ("DELRING(NOPE)", 3),
    ):
        result = demo(f'racdcert --user DEMO "RACDCERT {line}"', code=code)
        assert (result.stdout, result.stderr.count("\n")) == ("", 1)
    assert (
        "command 2: " in demo("racdcert", code=3, given="RACDCERT ID(DEMO) LISTRING(*)\nRACDCERT ADDTOKEN(x)\n").stderr
    )
    assert "others" in demo("racdcert \"ID(DEMO) EXPORT(LABEL('server')) DSN('y') PASSWORD('x')\"", code=2).stderr


def test_certificates_are_revoked_and_listed(demo: Attls) -> None:
    """By label, or by serial number where the certificate is not in the store; the CRL says so."""
    assert "attls cert crl --label 'Demo CA'" in demo("cert revoke --label server --reason keyCompromise").stdout
    assert "revoked already" in demo("cert revoke --label server", code=3).stderr
    demo("cert revoke --serial 12:AB --issuer 'Demo CA'")
    assert "hexadecimal" in demo("cert revoke --serial xyz --issuer 'Demo CA'", code=2).stderr
    assert "--label, or --serial" in demo("cert revoke", code=2).stderr
    demo("cert crl --label 'Demo CA' --out ca.crl")
    found = certificates.read(Path("ca.crl").read_bytes()).crls[0]
    assert found.get_revoked_certificate_by_serial_number(0x12AB) is not None
    assert document(demo("cert crl --label 'Demo CA' --format der --out ca.der --json"))["revoked"] == 2


def test_a_file_is_looked_at_without_importing_it(demo: Attls) -> None:
    """Certificates, keys and requests, and whether they are known."""
    demo("cert export --label server --with-key --chain --out x.pem")
    found = document(demo("cert inspect x.pem --json"))
    assert [item["known_as"]["label"] for item in found["certificates"]] == ["server", "Demo CA"]
    assert found["private_keys"] == 1
    assert "not in the store" in demo("cert inspect x.pem --keyrings other").stdout
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("cert show --label s", ["server"]),
        ("cert show --owner D", ["DEMO"]),
        ("cert issue --sign-with D", ["Demo CA"]),
        ("keyring list DEMO/", ["DEMO/SERVER"]),
        ("keyring delete X", []),
        ("cert show --owner NOBODY --label s", []),
        ("cert renew --owner D", ["DEMO"]),
        ("map delete --user al", ["alice"]),
        ("map delete --user alice --label ", ["pay"]),
        ("map criterion APPLID=", ["APPLID=PAY"]),
    ],
)
def test_the_shell_completes_names_of_the_store(demo: Attls, words: str, expected: list[str]) -> None:
    """Labels, owners, authorities and rings; where nothing fits there is silence."""
    demo("map add --user alice --label pay --subject O=Example")
    demo("map criterion APPLID=PAY --user bob")
    *before, last = words.split(" ")
    completer = ShellComplete(main, {}, "attls", "_ATTLS_COMPLETE")
    assert [item.value for item in completer.get_completions(before, last)] == expected


def test_revocation_lists_at_the_command_line(demo: Attls) -> None:
    """Import for whom they fit, list with dates and rings, let go; the same import under `keyring`, too."""
    demo("cert revoke --label server")
    demo("cert crl --label 'Demo CA' --out ca.crl")
    assert "no revocation list is kept" in demo("cert list-crls").output
    said = demo("cert import-crl ca.crl").output
    assert "imported the list of 'Demo CA' of CERTAUTH: 1 revoked certificate, good until" in said
    (one,) = document(demo("keyring import-crl ca.crl --json"))
    assert ("Demo CA", 1, False, ["DEMO/SERVER"]) == (one["label"], one["revoked"], one["out_of_date"], one["rings"])
    assert [one] == document(demo("cert list-crls --json"))
    assert "DEMO/SERVER" in demo("cert list-crls").output
    assert "1 revoked certificate, good until" in demo("cert inspect ca.crl").output
    assert [1] == [each["revoked"] for each in document(demo("cert inspect ca.crl --json"))["revocation_lists"]]
    demo("cert delete-crl --label 'Demo CA'")
    assert [] == document(demo("cert list-crls --json"))
    demo("cert delete-crl --label 'Demo CA'", code=3)
    demo("cert import-crl ca.crl --label server", code=3)
    demo("cert export --owner DEMO --label server --out server.pem")
    assert "no revocation list in server.pem" in demo("cert import-crl server.pem", code=3).output
    assert "attls cert import-crl" in demo("cert import --owner DEMO --label x ca.crl", code=3).output


def test_a_bundle_brings_its_lists_along(demo: Attls) -> None:
    """An import takes in the lists in the same file, and says what it leaves out."""
    demo("cert crl --label 'Demo CA' --out ca.crl")
    demo("cert export --owner CERTAUTH --label 'Demo CA' --out ca.pem")
    Path("bundle.pem").write_bytes(Path("ca.pem").read_bytes() + Path("ca.crl").read_bytes())
    demo("cert delete --owner CERTAUTH --label 'Demo CA'")
    said = demo("cert import --owner CERTAUTH --label 'Demo CA' bundle.pem").output
    assert "also added the revocation list of 'Demo CA' of CERTAUTH" in said
    demo("cert create-ca --label other --cn other")
    demo("cert crl --label other --out other.crl")
    Path("bundle.pem").write_bytes(Path("ca.pem").read_bytes() + Path("other.crl").read_bytes())
    demo("cert delete --owner CERTAUTH --label other")
    said = demo("cert import --owner CERTAUTH --label 'Demo CA' bundle.pem").output
    assert "left out a revocation list" in said
