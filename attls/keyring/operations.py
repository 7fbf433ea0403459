"""What people do with certificates: make an authority, issue, request, sign, import, export, renew, roll over.

One function per wish, shared by `attls cert` and `attls racdcert`. Each works on a `Store`, takes the time as a
parameter, changes nothing when it raises, and leaves asking and printing to the command line.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from attls.errors import KeyringError
from attls.keyring import certificates, names, revocation
from attls.keyring.certificates import PrivateKey, Profile, Signer
from attls.keyring.opening import Store
from attls.keyring.store import StoredCertificate
from attls.keyring.values import Trust

EXPORT_FORMATS = ("pem", "der", "p7b", "p12")


def signer(store: Store, label: str, owner: str = names.CERTAUTH) -> Signer:
    """Return the authority kept under `owner` and `label`, ready to sign. Raises KeyringError when it cannot."""
    stored = store.certificate(owner, label)
    return Signer(stored.certificate, store.private_key(stored))


def create(
    store: Store,
    *,
    owner: str,
    label: str,
    profile: Profile,
    key_type: str,
    signed_by: Signer | None,
    now: datetime.datetime,
) -> StoredCertificate:
    """Make a key and a certificate for it, signed by `signed_by` or by itself, and keep both, trusted."""
    names.check_owner(owner)
    names.check_label(label)
    if store.has_certificate(owner, label):  # before the work of making a key; `add` checks again under the lock
        raise KeyringError(f"{owner} already has a certificate labelled '{label}'; choose another label")
    key = certificates.generate_key(key_type)
    certificate = certificates.build(profile, key.public_key(), signer=signed_by, own_key=key, now=now)
    return store.add(owner, label, certificate, trust=Trust.TRUST, private_key=key)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: the certificate asked for, whether it renewed one, and authorities that came with it."""

    stored: StoredCertificate
    renewed: bool = False
    authorities: tuple[StoredCertificate, ...] = ()


def import_certificate(
    store: Store,
    *,
    owner: str,
    label: str,
    contents: certificates.Contents,
    trust: Trust | None,
    source: str,
    now: datetime.datetime,
    with_chain: bool = True,
    chain_trust: Trust | None = None,
) -> Imported:
    """Keep the certificate in `contents`, its key if present, and the authorities beside it as CERTAUTH.

    A certificate for the same key as the one already kept under this label renews it, and mends it where its file is
    damaged. `trust` None means TRUST, or for a renewal what it was. The authorities are HIGHTRUST never, and where
    `chain_trust` is None what `earned_trust` says. Raises KeyringError.
    """
    leaf, key, others = certificates.split_identity(contents, name=source)
    if key is None:
        key = store.key_for_request(owner, label, leaf)
    renewed = False
    if store.has_certificate(owner, label):
        try:
            old = store.certificate(owner, label)
        except KeyringError as error:
            # Of a damaged file the name is what is left, and the key that waits beside it says what was in there.
            if error.code != 103 or store.has_other_keys(owner, label, leaf):
                raise
            renewed = True
        else:
            renewed = certificates.public_key_bytes(old.certificate) == certificates.public_key_bytes(leaf)
            if renewed and trust is None:
                trust = old.trust
    stored = store.add(owner, label, leaf, trust=trust or Trust.TRUST, private_key=key, replace=renewed)
    added = []
    for other in others if with_chain else ():
        if certificates.is_authority(other) and store.find_same(other) is None:
            status = Trust.NOTRUST if chain_trust is Trust.NOTRUST else Trust.TRUST
            if chain_trust is None:
                status = earned_trust(store, other, [*others, leaf], now=now)
            added.append(store.add(names.CERTAUTH, free_label(store, names.CERTAUTH, other), other, trust=status))
    return Imported(stored, renewed, tuple(added))


def earned_trust(
    store: Store, certificate: x509.Certificate, beside: Iterable[x509.Certificate], *, now: datetime.datetime
) -> Trust:
    """Return TRUST when `certificate` leads to an authority that the store already trusts and is valid now."""
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        return Trust.NOTRUST
    trusted = [stored.certificate for stored in store.certificates(names.CERTAUTH) if stored.trust is not Trust.NOTRUST]
    issuers = certificates.chain(certificate, [*trusted, *beside])
    return Trust.TRUST if any(issuer in trusted for issuer in issuers) else Trust.NOTRUST


def free_label(store: Store, owner: str, certificate: x509.Certificate) -> str:
    """Return a label for a certificate that came without one: its common name, numbered when that is taken."""
    base = certificates.common_name(certificate)[:48].strip()
    try:
        names.check_label(base)
    except KeyringError:
        base = "certificate"
    candidates = itertools.chain([base], (f"{base} {number}" for number in itertools.count(2)))
    return next(label for label in candidates if not store.has_certificate(owner, label))


def request(
    store: Store,
    *,
    owner: str,
    label: str,
    subject: x509.Name | None,
    alternative: tuple[x509.GeneralName, ...],
    key_type: str,
) -> x509.CertificateSigningRequest:
    """Make a signing request: for the key of the certificate kept under this label, else with a new key.

    A new key waits in the store until the signed certificate is imported under the same owner and label.
    """
    if store.has_certificate(owner, label):
        stored = store.certificate(owner, label)
        present = certificates.extension_of(stored.certificate, x509.SubjectAlternativeName)
        wanted = alternative or (tuple(present) if present else ())
        return certificates.build_request(subject or stored.certificate.subject, wanted, store.private_key(stored))
    if subject is None:
        raise KeyringError(f"{owner} has no certificate '{label}' yet, so the request needs a common name")
    key = certificates.generate_key(key_type)
    made = certificates.build_request(subject, alternative, key)
    store.add_request(owner, label, made, key)
    return made


def sign_request(
    asked: x509.CertificateSigningRequest,
    *,
    signed_by: Signer,
    profile: Profile,
    now: datetime.datetime,
) -> x509.Certificate:
    """Sign a request of somebody else; subject and alternative names are the request's where `profile` has none.

    Nothing else in the request counts: it cannot make itself an authority.
    """
    if not asked.is_signature_valid:
        raise KeyringError("the request's own signature is wrong; it was changed or damaged on the way", 413)
    present = certificates.extension_of(asked, x509.SubjectAlternativeName)
    wanted = profile.names or (tuple(present) if present else ())
    filled = replace(profile, names=wanted, subject=profile.subject if profile.subject.rdns else asked.subject)
    public = asked.public_key()
    if not isinstance(public, certificates.PUBLIC_KEY_CLASSES):
        raise KeyringError("the request's key is of a kind that TLS does not use here; use RSA, ECDSA or Ed25519", 405)
    return certificates.build(filled, public, signer=signed_by, own_key=None, now=now)


def renew(
    store: Store,
    *,
    owner: str,
    label: str,
    new_key: bool,
    key_type: str | None,
    days: int | None,
    now: datetime.datetime,
    signed_by: Signer | None = None,
) -> StoredCertificate:
    """Replace a certificate by one that says the same with new dates, signed by the same authority.

    It keeps its label, so every ring it is on has the new one. With `new_key` it gets a new key (of `key_type`, else
    of the same type). Raises KeyringError when the authority's key is not in the store.
    """
    old = store.certificate(owner, label)
    fresh_key = certificates.generate_key(key_type or certificates.same_key_type(old.certificate)) if new_key else None
    with store.writing():  # whoever deletes or renews it at the same time comes before or after, not in between
        return _renewed(store, store.certificate(owner, label), fresh_key, days=days, now=now, signed_by=signed_by)


def _renewed(
    store: Store,
    old: StoredCertificate,
    fresh_key: PrivateKey | None,
    *,
    days: int | None,
    now: datetime.datetime,
    signed_by: Signer | None,
) -> StoredCertificate:
    profile = certificates.renewed_profile(old.certificate, days)
    key = fresh_key or store.private_key(old)
    if signed_by is None and not certificates.is_self_signed(old.certificate):
        signed_by = issuer_of(store, old)
    fresh = certificates.build(profile, key.public_key(), signer=signed_by, own_key=key, now=now)
    return store.add(old.shown_owner, old.label, fresh, trust=old.trust, private_key=key, replace=True)


def issuer_of(store: Store, stored: StoredCertificate) -> Signer:
    """Return the authority in the store that signed a certificate. Raises KeyringError when it cannot sign again."""
    candidates = [
        other for other in store.certificates() if certificates.is_issued_by(stored.certificate, other.certificate)
    ]
    for candidate in candidates:
        if store.has_key(candidate):
            return Signer(candidate.certificate, store.private_key(candidate))
    if not candidates:
        # A renewed authority keeps its name, and with a new key is no longer the one that signed this certificate.
        for other in store.certificates():
            if other.certificate.subject == stored.certificate.issuer and store.has_key(other):
                return Signer(other.certificate, store.private_key(other))
    raise KeyringError(
        f"the authority that signed {stored.name} ({certificates.name_of(stored.certificate.issuer)}) has no key in "
        "this store; make a request with: attls cert request, have it signed, and import the result"
    )


def authority_of(store: Store, stored: StoredCertificate) -> StoredCertificate:
    """Return the authority in the store that signed a certificate. Raises KeyringError when it is not there."""
    for candidate in store.certificates():
        if certificates.is_issued_by(stored.certificate, candidate.certificate) and certificates.is_authority(
            candidate.certificate
        ):
            return candidate
    issuer = certificates.name_of(stored.certificate.issuer)
    raise KeyringError(f"the authority that signed {stored.name} ({issuer}) is not in this store; ask there", 435)


def import_crl(
    store: Store,
    crl: x509.CertificateRevocationList,
    *,
    owner: str | None,
    label: str | None,
    now: datetime.datetime,
    older: bool = False,
) -> list[StoredCertificate]:
    """Keep a revocation list for the authority that made it, or for all certificates of that authority in the store.

    With `owner` or `label` only those count. Raises KeyringError when nobody in the store made the list (435), when it
    says nothing that counts now (436), and, unless `older`, when a newer list is kept already.
    """
    candidates = [
        stored
        for stored in store.certificates(owner)
        if (label is None or stored.label == label) and certificates.is_authority(stored.certificate)
    ]
    found = [one for one in candidates if one.certificate.subject == crl.issuer]
    signed = [one for one in found if revocation.is_signed_by(crl, one.certificate)]
    if not signed:
        issuer = certificates.name_of(crl.issuer)
        why = f"the key of {found[0].name} did not sign it" if found else "import its certificate first"
        raise KeyringError(f"the list comes from '{issuer}', but from no such authority in this store: {why}", 435)
    for authority in signed:
        problem = revocation.crl_problem(crl, authority.certificate, now=now)
        if problem is not None:
            raise KeyringError(f"the list says nothing that counts: {problem}", revocation.UNDECIDED)
        kept = None
        with contextlib.suppress(KeyringError):  # a damaged one is about to be replaced
            kept = store.crl(authority.owner, authority.label)
        if kept is not None and not older and kept.last_update_utc > crl.last_update_utc:
            raise KeyringError(
                f"the list of {authority.name} that is kept is newer ({kept.last_update_utc:%Y-%m-%d %H:%M} UTC over "
                f"{crl.last_update_utc:%Y-%m-%d %H:%M} UTC); --older takes the old one all the same"
            )
    for authority in signed:
        store.set_crl(authority.owner, authority.label, crl)
    return signed


def rollover(
    store: Store,
    *,
    owner: str,
    label: str,
    new_label: str,
    now: datetime.datetime,
) -> StoredCertificate:
    """Let the certificate `new_label` take the place of `label` on all rings, and delete the old private key.

    The old certificate stays in the store, so that what it signed or protected can still be checked. Raises
    KeyringError when the new one has no key, is not trusted or not valid.
    """
    old, new = store.certificate(owner, label), store.certificate(owner, new_label)
    if not store.has_key(new):
        raise KeyringError(f"the store has no private key for {new.name}, so it cannot take over", 428)
    if new.trust is Trust.NOTRUST:
        raise KeyringError(f"{new.name} is marked NOTRUST, so it cannot take over; trust it first")
    if not new.certificate.not_valid_before_utc <= now <= new.certificate.not_valid_after_utc:
        raise KeyringError(f"{new.name} is not valid now, so it cannot take over", 401)
    store.take_over(old, new)
    return new


def issuers(store: Store, certificate: x509.Certificate) -> list[x509.Certificate]:
    """Return the issuers of `certificate` among the trusted authorities of the store, nearest first."""
    pool = [stored.certificate for stored in store.certificates(names.CERTAUTH) if stored.trust is not Trust.NOTRUST]
    return certificates.chain(certificate, pool)


def export(
    store: Store,
    stored: StoredCertificate,
    *,
    form: str,
    with_key: bool,
    with_chain: bool,
    password: bytes | None,
) -> bytes:
    """Write a certificate in one of `EXPORT_FORMATS`; PKCS#7 and PKCS#12 always bring their issuers.

    Raises KeyringError when the format cannot hold a key or the key cannot be had.
    """
    key: PrivateKey | None = store.private_key(stored) if with_key else None
    chain = issuers(store, stored.certificate)
    if form == "der":
        if key is not None:
            raise KeyringError("DER holds the certificate only; use --format p12 or pem to export the private key")
        return certificates.der(stored.certificate)
    if form == "p7b":
        if key is not None:
            raise KeyringError("PKCS#7 holds certificates only; use --format p12 or pem to export the private key")
        return pkcs7.serialize_certificates([stored.certificate, *chain], serialization.Encoding.PEM)
    if form == "p12":
        protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            protection = serialization.BestAvailableEncryption(password)
        elif key is not None:
            raise KeyringError("a PKCS#12 file with a private key needs a password; give one with --password-file", 408)
        if isinstance(key, ed448.Ed448PrivateKey):
            raise KeyringError("an Ed448 key cannot be written as PKCS#12; use --format pem")
        return pkcs12.serialize_key_and_certificates(
            stored.label.encode(), key, stored.certificate, chain or None, protection
        )
    pieces = [certificates.pem(stored.certificate)]
    if with_chain:
        pieces += [certificates.pem(issuer) for issuer in chain]
    if key is not None:
        pieces.append(certificates.private_key_pem(key, password))
    return b"".join(pieces)
