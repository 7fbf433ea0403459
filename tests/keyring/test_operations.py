"""Issuing, importing, exporting, renewing and rolling over."""

import datetime
from pathlib import Path

import pytest
from cryptography import x509

from attls.errors import KeyringError
from attls.keyring import Store, Trust, Usage, certificates, operations
from attls.keyring.certificates import Profile

from .workshop import NOW, Workshop


def take(
    store: Store,
    label: str,
    data: bytes,
    *,
    trust: Trust | None = None,
    owner: str = "bob",
    password: bytes | None = None,
) -> operations.Imported:
    contents = certificates.read(data, password=password)
    return operations.import_certificate(
        store,
        owner=owner,
        label=label,
        contents=contents,
        trust=trust,
        chain_trust=trust,
        source="the file",
        now=NOW,
    )


@pytest.mark.parametrize("form", ["pem", "p12"])
def test_what_is_exported_can_be_imported_elsewhere(shop: Workshop, tmp_path: Path, form: str) -> None:
    """Certificate, key and chain arrive; the unknown root comes untrusted."""
    stored = shop.store.certificate("demo", "server")
    data = operations.export(shop.store, stored, form=form, with_key=True, with_chain=True, password=b"pw")
    other = Store(tmp_path / "other")
    done = take(other, "copy", data, password=b"pw")
    assert stored.certificate == done.stored.certificate
    assert other.has_key(done.stored)
    assert [(one.label, one.trust) for one in done.authorities] == [("Root", Trust.NOTRUST)]


def test_authorities_beside_a_certificate_earn_their_trust(shop: Workshop, tmp_path: Path) -> None:
    """An intermediate is trusted when its root already is; --trust trusts all, --notrust none."""
    shop.authority("Middle", sign_with="Root")
    leaf = shop.leaf("below", sign_with="Middle")
    data = operations.export(shop.store, leaf, form="p7b", with_key=False, with_chain=True, password=None)
    root = shop.store.certificate("CERTAUTH", "Root").certificate
    found = {}
    for trust in (None, Trust.TRUST, Trust.NOTRUST):
        other = Store(tmp_path / str(trust))
        if trust is None:
            other.add("CERTAUTH", "The Root", root, trust=Trust.TRUST)
        found[trust] = {one.label: one.trust for one in take(other, "x", data, trust=trust).authorities}
    assert found == {
        None: {"Middle": Trust.TRUST},
        Trust.TRUST: {"Middle": Trust.TRUST, "Root": Trust.TRUST},
        Trust.NOTRUST: {"Middle": Trust.NOTRUST, "Root": Trust.NOTRUST},
    }


def test_a_certificate_without_end_is_renewed_for_as_long_as_possible(shop: Workshop) -> None:
    """RFC 5280 writes "no end" as the last second of 9999, which is no validity that anybody may ask for."""
    key = certificates.generate_key("ed25519")
    never = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    profile = certificates.Profile(subject=certificates.subject_name("x"), days=1, ends=never)
    made = certificates.build(profile, key.public_key(), signer=None, own_key=key, now=NOW)
    shop.store.add("demo", "device", made, trust=Trust.TRUST, private_key=key)
    renewed = operations.renew(
        shop.store, owner="demo", label="device", new_key=False, key_type=None, days=None, now=NOW
    ).certificate
    assert certificates.MOST_DAYS - 1 == (renewed.not_valid_after_utc - NOW).days


def test_an_import_for_the_same_key_renews(shop: Workshop) -> None:
    """Label, key, trust and rings stay; another key under the same label is refused."""
    old = shop.store.certificate("demo", "server")
    key = shop.store.private_key(old)
    signer = operations.signer(shop.store, "Root")
    fresh = certificates.build(
        Profile(subject=old.certificate.subject, days=9), key.public_key(), signer=signer, own_key=None, now=NOW
    )
    shop.store.set_trust("demo", "server", Trust.NOTRUST)
    done = take(shop.store, "server", certificates.pem(fresh), owner="demo")
    assert (done.renewed, done.stored.trust) == (True, Trust.NOTRUST)
    assert shop.store.has_key(done.stored)
    other = shop.leaf("other").certificate
    shop.store.delete("demo", "other")
    with pytest.raises(KeyringError, match="already has a certificate labelled"):
        take(shop.store, "server", certificates.pem(other), owner="demo")


def test_several_keys_in_one_file_are_refused(shop: Workshop) -> None:
    """Nobody could tell which identity is meant."""
    stored = shop.store.certificate("demo", "server")
    pem = operations.export(shop.store, stored, form="pem", with_key=True, with_chain=False, password=None)
    second = certificates.private_key_pem(certificates.generate_key("ed25519"))
    with pytest.raises(KeyringError, match="several private keys"):
        take(shop.store, "x", pem + second)


def test_renewing_keeps_what_the_certificate_says(shop: Workshop) -> None:
    """Subject, names, purposes and ring membership; new dates and serial number, the same key."""
    old = shop.store.certificate("demo", "server")
    later = NOW + datetime.timedelta(days=20)
    new = operations.renew(shop.store, owner="DEMO", label="server", new_key=False, key_type=None, days=None, now=later)
    before, after = certificates.summary(old.certificate), certificates.summary(new.certificate)
    changed = {key for key in before if before[key] != after[key]}
    assert {"serial", "not_before", "not_after", "fingerprint"} == changed
    assert certificates.public_key_bytes(old.certificate) == certificates.public_key_bytes(new.certificate)
    assert certificates.der(new.certificate) == shop.store.ring("demo/SERVER").identity().certificate
    assert new.shown_owner == "demo"


def test_renewing_with_a_new_key_leaves_one_key(shop: Workshop) -> None:
    """The old key is gone when the new certificate stands."""
    old = shop.store.certificate("demo", "server")
    new = operations.renew(shop.store, owner="demo", label="server", new_key=True, key_type="rsa-2048", days=3, now=NOW)
    assert certificates.public_key_bytes(old.certificate) != certificates.public_key_bytes(new.certificate)
    assert len(list((shop.directory / "private/DEMO").iterdir())) == 1
    assert b"PRIVATE KEY" in shop.store.ring("demo/SERVER").identity().private_key


def test_an_authority_renewed_with_its_key_keeps_its_children_valid(shop: Workshop) -> None:
    """Nobody has to issue anything again."""
    leaf = shop.store.certificate("demo", "server").certificate
    new = operations.renew(shop.store, owner="CERTAUTH", label="Root", new_key=False, key_type=None, days=400, now=NOW)
    assert certificates.is_self_signed(new.certificate)
    assert certificates.is_issued_by(leaf, new.certificate)


def test_what_a_stranger_signed_cannot_be_renewed_here(shop: Workshop, tmp_path: Path) -> None:
    """The sentence names the way over a request."""
    other = Workshop(tmp_path / "other")
    other.authority("Stranger")
    leaf = other.leaf("foreign", sign_with="Stranger")
    shop.store.add("demo", "foreign", leaf.certificate, trust=Trust.TRUST, private_key=other.store.private_key(leaf))
    with pytest.raises(KeyringError, match="attls cert request"):
        operations.renew(shop.store, owner="demo", label="foreign", new_key=False, key_type=None, days=None, now=NOW)


def test_rollover_takes_the_place_on_all_rings(shop: Workshop) -> None:
    """Usage and default move over, the old private key is deleted, the old certificate stays."""
    shop.leaf("next")
    shop.ring("SECOND", ("demo", "server", Usage.SITE, False), ("demo", "next", Usage.PERSONAL, False))
    operations.rollover(shop.store, owner="demo", label="server", new_label="next", now=NOW)
    lines = {
        ring.name: [(line.label, line.usage, line.default) for line in ring.connections] for ring in shop.store.rings()
    }
    assert lines == {
        "SERVER": [("next", Usage.PERSONAL, True), ("Root", Usage.CERTAUTH, False)],
        "SECOND": [("next", Usage.SITE, False)],
    }
    assert not shop.store.has_key(shop.store.certificate("demo", "server"))


def test_rollover_to_what_cannot_serve_is_refused(shop: Workshop) -> None:
    """No key, no trust, not valid: the old one stays in place."""
    shop.leaf("next", days=1)
    shop.store.set_trust("demo", "next", Trust.NOTRUST)
    with pytest.raises(KeyringError, match="NOTRUST"):
        operations.rollover(shop.store, owner="demo", label="server", new_label="next", now=NOW)
    shop.store.set_trust("demo", "next", Trust.TRUST)
    with pytest.raises(KeyringError, match="not valid now"):
        operations.rollover(
            shop.store, owner="demo", label="server", new_label="next", now=NOW + datetime.timedelta(days=3)
        )
    shop.key_file(label="next").unlink()
    with pytest.raises(KeyringError, match="no private key"):
        operations.rollover(shop.store, owner="demo", label="server", new_label="next", now=NOW)
    assert shop.store.ring("demo/SERVER").identity().label == "server"


def test_a_request_cannot_make_itself_an_authority(shop: Workshop) -> None:
    """Only subject, alternative names and key of a request count."""
    key = certificates.generate_key("ecdsa-p256")
    asked = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(certificates.subject_name("x"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example")]), critical=False)
        .sign(key, certificates.signature_hash(key))
    )
    made = operations.sign_request(
        asked,
        signed_by=operations.signer(shop.store, "Root"),
        profile=Profile(subject=x509.Name([]), days=3),
        now=NOW,
    )
    summary = certificates.summary(made)
    assert (summary["is_ca"], summary["san"], summary["subject"]) == (False, ["DNS:a.example"], "CN=x")


def test_keys_leave_only_in_formats_that_can_hold_them_and_protected_in_pkcs12(shop: Workshop) -> None:
    """DER and PKCS#7 hold none, PKCS#12 asks for a password."""
    stored = shop.store.certificate("demo", "server")
    for form in ("der", "p7b", "p12"):
        with pytest.raises(KeyringError):
            operations.export(shop.store, stored, form=form, with_key=True, with_chain=False, password=None)
    pem = operations.export(shop.store, stored, form="pem", with_key=True, with_chain=False, password=b"pw")
    assert b"ENCRYPTED PRIVATE KEY" in pem


def test_labels_of_certificates_without_one_come_from_their_names(shop: Workshop) -> None:
    """Numbered where the name is taken, a plain word where it cannot be a label."""
    root = shop.store.certificate("CERTAUTH", "Root").certificate
    assert operations.free_label(shop.store, "CERTAUTH", root) == "Root 2"
    assert operations.free_label(shop.store, "SITE", root) == "Root"
