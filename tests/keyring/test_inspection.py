"""keyring verify: every kind of finding, each with what mends it."""

import datetime
import os
import shlex
from typing import Any

import pytest

from attls.errors import KeyringError
from attls.keyring import Trust, Usage, certificates, operations
from attls.keyring.inspection import Finding, inspect
from attls.keyring.store import Connection

from .workshop import NOW, Workshop


def look(shop: Workshop, **more: object) -> list[Finding]:
    return inspect(shop.store, now=more.pop("now", NOW), **more)  # type: ignore[arg-type]


def test_a_store_in_order_has_no_findings(shop: Workshop) -> None:
    """Nothing is reported that an administrator need not act on."""
    assert look(shop, expiring_days=10) == []


@pytest.mark.parametrize(
    ("days", "severity", "word"),
    [(-1, "error", "is not valid before"), (30, "warning", "expires in 19 days"), (60, "error", "expired on")],
)
def test_dates_are_judged(shop: Workshop, days: int, severity: str, word: str) -> None:
    """Too early, soon over, over; the renewal command is given since the authority is here."""
    found = look(shop, now=NOW + datetime.timedelta(days=days), expiring_days=25)
    about = [finding for finding in found if finding.where == "'server' of demo"]
    assert [severity] == [finding.severity for finding in about]
    assert word in about[0].problem
    if days > 0:
        assert about[0].mend == "attls cert renew --owner demo --label server"


def test_loose_permissions_come_with_the_exact_command(shop: Workshop) -> None:
    """And running the commands mends the store."""
    for path, mode in ((shop.key_file(), 0o644), (shop.key_file().parent, 0o755), (shop.directory / "rings", 0o777)):
        path.chmod(mode)
    found = look(shop, expiring_days=0)
    assert {"error"} == {finding.severity for finding in found}
    assert len(found) == 3
    for finding in found:
        assert os.system(finding.mend) == 0
    assert look(shop, expiring_days=0) == []


@pytest.mark.parametrize("odd", ["it's", "$(touch pwned)", "`touch pwned`; touch pwned", '" --force "', "two words"])
def test_a_command_that_mends_can_be_pasted_whatever_the_names_are(workshop: Workshop, odd: str) -> None:
    """A label may be the common name of a foreign certificate; the shell must take it as one word."""
    workshop.authority()
    workshop.leaf(odd)
    workshop.leaf("second")
    workshop.ring(odd.replace("*", ""), ("demo", odd, Usage.PERSONAL, False), ("demo", "second", Usage.PERSONAL, False))
    workshop.store.set_trust("demo", "second", Trust.NOTRUST)
    workshop.store.certificate_path("demo", "second").chmod(0o666)
    workshop.key_file(label="second").chmod(0o644)
    found = look(workshop, now=NOW + datetime.timedelta(days=60))
    assert len(found) > 4
    for finding in found:
        for mend in finding.mend.replace("attls cert trust", "\nattls cert trust").split(", "):
            known = {odd, f"demo/{odd}", "Root", "second"}
            words = shlex.split(mend)
            assert {word for word in words if odd in word} <= known
            assert "pwned" not in words


def test_a_damaged_certificate_is_mended_by_importing_it_again(shop: Workshop) -> None:
    """Under the same label, where its key and its place on rings are; another certificate does not get them."""
    before = shop.store.ring("demo/SERVER")
    good = shop.store.certificate("demo", "server")
    other = certificates.Contents(certificates=[shop.leaf("other").certificate])
    shop.store.certificate_path("demo", "server").write_text("garbage")
    (finding,) = [one for one in look(shop, expiring_days=0) if "server" in one.where]
    assert finding.mend.endswith("import it again: attls cert import --owner DEMO --label server FILE")
    more: dict[str, Any] = {"owner": "demo", "label": "server", "trust": None, "source": "f", "now": NOW}
    with pytest.raises(KeyringError, match="is not a certificate"):
        operations.import_certificate(shop.store, contents=other, **more)
    contents = certificates.Contents(certificates=[good.certificate])
    assert operations.import_certificate(shop.store, contents=contents, **more).renewed
    assert shop.store.ring("demo/SERVER") == before


def test_a_missing_intermediate_is_found_and_named(workshop: Workshop) -> None:
    """With the command that connects it when the store has it."""
    workshop.authority()
    workshop.authority("Middle", sign_with="Root")
    workshop.leaf(sign_with="Middle")
    workshop.ring("R", ("demo", "server", Usage.PERSONAL, True), ("CERTAUTH", "Root", Usage.CERTAUTH, False))
    (finding,) = look(workshop, expiring_days=0)
    assert (finding.severity, finding.where) == ("warning", "ring demo/R")
    assert finding.mend == "attls keyring connect demo/R --owner CERTAUTH --label Middle"


def test_problems_of_rings(shop: Workshop) -> None:
    """Default without key, nothing default, NOTRUST, empty, dangling."""
    shop.leaf("second")
    shop.leaf("keyless")
    shop.key_file(label="keyless").unlink()
    shop.ring("KEYLESS", ("demo", "keyless", Usage.PERSONAL, True), ("CERTAUTH", "Root", Usage.CERTAUTH, False))
    shop.ring("NODEFAULT", ("demo", "second", Usage.PERSONAL, False), ("CERTAUTH", "Root", Usage.CERTAUTH, False))
    shop.ring("EMPTY")
    shop.ring("ODD", ("CERTAUTH", "Root", Usage.CERTAUTH, True))
    shop.authority("Gone")
    shop.store.set_trust("CERTAUTH", "Gone", Trust.NOTRUST)
    shop.store.connect("demo", "SERVER", Connection("CERTAUTH", "Gone", Usage.CERTAUTH))
    problems = {finding.where: finding.problem for finding in look(shop, expiring_days=0)}
    assert problems == {
        "ring demo/KEYLESS": "its default certificate 'keyless' of demo has no private key",
        "ring demo/NODEFAULT": "has no default certificate; policies must name one",
        "ring demo/EMPTY": "is empty",
        "ring demo/ODD": "its default 'Root' of CERTAUTH is not connected as PERSONAL",
        "ring demo/SERVER": "'Gone' of CERTAUTH is NOTRUST and counts for nothing",
    }
    shop.store.certificate_path("CERTAUTH", "Gone").unlink()
    assert "which is not in the store" in str(look(shop, ring=shop.store.definition("demo", "SERVER")))


def test_damage_of_every_file_is_survived_and_reported(shop: Workshop) -> None:
    """One broken file does not hide the others."""
    shop.leaf("second")
    shop.leaf("third")
    shop.store.certificate_path("demo", "second").write_text("garbage")
    shop.key_file(label="third").write_text("garbage")
    shop.key_file().write_bytes(certificates.private_key_pem(certificates.generate_key("ed25519")))
    (shop.directory / "rings/DEMO/BROKEN.toml").write_text("garbage")
    (shop.directory / "store.toml").write_text("x = 1")
    (shop.directory / "certificates/DEMO/.new-1234").write_text("")
    (shop.directory / "private/DEMO/stray.0123456789abcdef.key").write_text("")
    (shop.directory / "private/DEMO/stray.0123456789abcdef.key").chmod(0o600)
    found = look(shop, expiring_days=0)
    text = "\n".join(f"{finding.where}: {finding.problem} -> {finding.mend}" for finding in found)
    for word in (
        "'second' of DEMO",
        "'third' of demo",
        "'server' of demo",
        "BROKEN",
        "store.toml",
        ".new-1234",
        "stray",
    ):
        assert word in text
    assert all(finding.mend for finding in found)


def test_weak_keys_are_reported(workshop: Workshop) -> None:
    """An RSA key that peers refuse."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    workshop.authority()
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    made = certificates.build(
        certificates.Profile(subject=certificates.subject_name("old"), days=3),
        key.public_key(),
        signer=None,
        own_key=key,
        now=NOW,
    )
    workshop.store.add("demo", "old", made, trust=Trust.TRUST, private_key=key)
    assert any("only 1024 bits" in finding.problem for finding in look(workshop))


def test_a_leaf_among_the_authorities_is_reported(shop: Workshop) -> None:
    """It can verify nothing."""
    shop.leaf("leaf", owner="CERTAUTH")
    assert any("says it is no authority" in finding.problem for finding in look(shop))


def test_a_store_that_is_not_there_is_said(workshop: Workshop) -> None:
    """Rather than "no findings"."""
    with pytest.raises(KeyringError, match="no keyring store"):
        look(workshop)
