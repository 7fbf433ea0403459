"""Revocation lists that the store keeps for authorities, and those in files and directories that serve as rings."""

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attls.errors import KeyringError
from attls.keyring import Trust, certificates, names, operations
from attls.keyring.inspection import inspect
from attls.keyring.revocation import Revocation, build_crl

from .workshop import NOW, Workshop

DAY = datetime.timedelta(days=1)


def crl(
    shop: Workshop, label: str = "Root", *, now: datetime.datetime = NOW, days: int = 7, revoked: int = 0
) -> x509.CertificateRevocationList:
    entries = [Revocation(serial, now) for serial in range(1, revoked + 1)]
    lifetime = datetime.timedelta(days=days)
    return build_crl(operations.signer(shop.store, label), entries, now=now, lifetime=lifetime, number=1)


def take_in(shop: Workshop, found: x509.CertificateRevocationList, **more: object) -> list[str]:
    wanted = {"owner": None, "label": None, "now": NOW, **more}
    return [one.label for one in operations.import_crl(shop.store, found, **wanted)]  # type: ignore[arg-type]


def der(found: x509.CertificateRevocationList) -> bytes:
    return found.public_bytes(certificates.DER_ENCODING)


def test_a_ring_has_the_lists_of_its_authorities(shop: Workshop) -> None:
    """A list is kept beside its authority; named rings and virtual ones have it, rings without the authority do not."""
    made = crl(shop)
    assert () == shop.store.ring("demo/SERVER").lists
    assert ["Root"] == take_in(shop, made)
    assert [("CERTAUTH", "Root")] == shop.store.crls()
    for reference in ("demo/SERVER", "*AUTH*/*"):
        assert (der(made),) == shop.store.ring(reference).lists
    shop.ring("ALONE")
    for reference in ("demo/ALONE", "demo/*", "*SITE*/*"):
        assert () == shop.store.ring(reference).lists
    shop.store.set_trust("CERTAUTH", "Root", Trust.NOTRUST)
    assert () == shop.store.ring("demo/SERVER").lists


def test_a_list_is_replaced_by_a_newer_one_only(shop: Workshop) -> None:
    """An old list would take revocations back; it needs a word more."""
    new, old = crl(shop, revoked=2), crl(shop, now=NOW - DAY, revoked=1)
    take_in(shop, new)
    with pytest.raises(KeyringError, match="is newer"):
        take_in(shop, old)
    assert der(new) == shop.store.ring("demo/SERVER").lists[0]
    take_in(shop, old, older=True)
    assert der(old) == shop.store.ring("demo/SERVER").lists[0]
    take_in(shop, new)
    assert der(new) == shop.store.ring("demo/SERVER").lists[0]


def test_whose_list_it_is_must_be_proved(shop: Workshop, tmp_path: Path) -> None:
    """Somebody else's list, one with a wrong signature, an old one and one of the future are refused."""
    other = Workshop(tmp_path / "other")
    other.authority("Stranger")
    other.authority("Root")
    for found, word, code in (
        (crl(other, "Stranger"), "import its certificate first", 435),
        (crl(other, "Root"), "the key of 'Root' of CERTAUTH did not sign it", 435),
        (crl(shop, now=NOW - 10 * DAY), "out of date", 436),
        (crl(shop, now=NOW + DAY), "from the future", 436),
    ):
        with pytest.raises(KeyringError, match=word) as caught:
            take_in(shop, found)
        assert code == caught.value.code
    with pytest.raises(KeyringError):
        take_in(shop, crl(shop), label="server")
    assert [] == shop.store.crls()


def test_a_list_goes_with_its_authority(shop: Workshop) -> None:
    """It follows a change of the label, stays when the authority is renewed, and goes when that is deleted."""
    made = crl(shop)
    take_in(shop, made)
    shop.store.relabel("CERTAUTH", "Root", "Old root")
    assert [("CERTAUTH", "Old root")] == shop.store.crls()
    assert (der(made),) == shop.store.ring("demo/SERVER").lists
    operations.renew(shop.store, owner="CERTAUTH", label="Old root", new_key=False, key_type=None, days=None, now=NOW)
    assert (der(made),) == shop.store.ring("demo/SERVER").lists
    shop.store.delete("CERTAUTH", "Old root")
    assert [] == shop.store.crls()


def test_a_list_can_be_let_go(shop: Workshop) -> None:
    """And what is not there cannot."""
    take_in(shop, crl(shop))
    shop.store.delete_crl("CERTAUTH", "Root")
    assert () == shop.store.ring("demo/SERVER").lists
    with pytest.raises(names.MissingError):
        shop.store.delete_crl("CERTAUTH", "Root")


def test_a_damaged_list_is_an_error_and_can_be_replaced(shop: Workshop) -> None:
    """A ring whose list cannot be read cannot be read: passing over it would let in whom it lists."""
    take_in(shop, crl(shop))
    path = shop.store.crl_path("CERTAUTH", "Root")
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(KeyringError, match="import-crl FILE") as caught:
        shop.store.ring("demo/SERVER")
    assert 436 == caught.value.code
    take_in(shop, crl(shop))
    assert 1 == len(shop.store.ring("demo/SERVER").lists)


@pytest.mark.parametrize(
    ("days", "severity", "word"),
    [(0, None, ""), (6.5, "warning", "ends at"), (8, "error", "ended at")],
)
def test_verify_names_a_list_that_ends(shop: Workshop, days: float, severity: str | None, word: str) -> None:
    """Soon over, over; with the command that brings in the next one."""
    take_in(shop, crl(shop))
    moment = NOW + datetime.timedelta(days=days)
    for ring in (None, shop.store.definition("demo", "SERVER")):
        found = [one for one in inspect(shop.store, now=moment, expiring_days=1, ring=ring) if "list of" in one.where]
        assert ([severity] if severity else []) == [one.severity for one in found]
        for one in found:
            assert word in one.problem
            assert "attls cert import-crl FILE --owner CERTAUTH --label Root" in one.mend


def test_verify_names_damage_and_lists_of_nobody(shop: Workshop) -> None:
    """A damaged list, one whose authority changed its key, and one whose authority is gone."""
    take_in(shop, crl(shop))
    operations.renew(shop.store, owner="CERTAUTH", label="Root", new_key=True, key_type=None, days=None, now=NOW)
    path = shop.store.crl_path("CERTAUTH", "Root")

    def problems() -> list[str]:
        return [one.problem for one in inspect(shop.store, now=NOW, expiring_days=1) if "list of" in one.where]

    assert ["the signature of the CRL is wrong"] == problems()
    path.write_bytes(b"-----BEGIN X509 CRL-----\n")
    assert ["damaged" in problem for problem in problems()] == [True]
    shop.store.certificate_path("CERTAUTH", "Root").unlink()
    path.write_bytes(crl_of_nobody())
    assert ["is kept for nobody"] == problems()


def crl_of_nobody() -> bytes:
    key = certificates.generate_key("ecdsa-p256")
    profile = certificates.Profile(subject=certificates.subject_name("Nobody"), days=9, is_authority=True)
    root = certificates.build(profile, key.public_key(), signer=None, own_key=key, now=NOW)
    made = build_crl(certificates.Signer(root, key), [], now=NOW, lifetime=DAY, number=1)
    return made.public_bytes(certificates.PEM_ENCODING)


def test_a_bundle_brings_its_lists(shop: Workshop, tmp_path: Path) -> None:
    """Blocks of X509 CRL in a PEM file that serves as a ring count."""
    root, made = shop.store.certificate("CERTAUTH", "Root").certificate, crl(shop)
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(certificates.pem(root) + made.public_bytes(certificates.PEM_ENCODING))
    assert (der(made),) == shop.store.ring(str(bundle)).lists


@pytest.mark.parametrize("name", ["ca.crl", "crl.pem"])
@pytest.mark.parametrize("encoding", [certificates.PEM_ENCODING, certificates.DER_ENCODING])
def test_a_directory_brings_its_list(shop: Workshop, tmp_path: Path, name: str, encoding: Encoding) -> None:
    """Beside the authority, under the names that others use; and inside the bundle of authorities."""
    root, made = shop.store.certificate("CERTAUTH", "Root").certificate, crl(shop)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(certificates.pem(root))
    (folder / name).write_bytes(made.public_bytes(encoding))
    assert (der(made),) == shop.store.ring(str(folder)).lists
    (folder / name).unlink()
    (folder / "ca.crt").write_bytes(certificates.pem(root) + made.public_bytes(certificates.PEM_ENCODING))
    assert (der(made),) == shop.store.ring(str(folder)).lists
