"""X.509 without files: keys made, certificates built and signed, any format read, chains put in order.

Rule of the file: bytes, library objects and a clock reading in, library objects and plain values out. Where a
certificate is kept, and whether it is trusted, is the store's business.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime
import hashlib
import ipaddress
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from attls.errors import KeyringError

# For those who pass such objects on without being able to look into them.
Certificate = x509.Certificate
GeneralName = x509.GeneralName
Name = x509.Name
EMPTY_NAME = x509.Name([])

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
PUBLIC_KEY_CLASSES = (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey

Extension = TypeVar("Extension", bound=x509.ExtensionType)

KEY_TYPES = ("ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "rsa-3072", "rsa-4096", "ed25519")
AUTHORITY_DAYS = 3650
LEAF_DAYS = 397
"""Days; what browsers and most verifiers accept for a server certificate."""

HOST_ID_MAPPINGS = x509.ObjectIdentifier("1.3.18.0.2.18.1")

PEM_ENCODING = serialization.Encoding.PEM
DER_ENCODING = serialization.Encoding.DER

UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for input that is malformed or beyond it."""

_LONGEST_CHAIN = 10
_MOST_CERTIFICATES = 2000
MOST_DAYS = 36525
# Peers whose clock is a little slow must not refuse a certificate that was made a moment ago.
_BACKDATE = datetime.timedelta(minutes=5)
# No certificate was made with this program before; an earlier clock was never set.
_EARLIEST_CLOCK = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_LATEST_CLOCK = datetime.datetime(2200, 1, 1, tzinfo=datetime.UTC)


# Keys --------------------------------------------------------------------------------------------------------------


def generate_key(kind: str) -> PrivateKey:
    """Make a private key of one of `KEY_TYPES`."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("rsa-"):
        return rsa.generate_private_key(public_exponent=65537, key_size=int(kind.removeprefix("rsa-")))
    curves = {"ecdsa-p256": ec.SECP256R1(), "ecdsa-p384": ec.SECP384R1(), "ecdsa-p521": ec.SECP521R1()}
    return ec.generate_private_key(curves[kind])


def key_type(key: PublicKey | object) -> str:
    """Name the kind of a public key the way `--key-type` spells it, e.g. `ecdsa-p256` or `rsa-2048`."""
    match key:
        case rsa.RSAPublicKey():
            return f"rsa-{key.key_size}"
        case ec.EllipticCurvePublicKey():
            names = {"secp256r1": "ecdsa-p256", "secp384r1": "ecdsa-p384", "secp521r1": "ecdsa-p521"}
            return names.get(key.curve.name, f"ecdsa-{key.curve.name}")
        case ed25519.Ed25519PublicKey():
            return "ed25519"
        case ed448.Ed448PublicKey():
            return "ed448"
        case dsa.DSAPublicKey():
            return f"dsa-{key.key_size}"
    return type(key).__name__


def same_key_type(certificate: x509.Certificate) -> str:
    """Return the `--key-type` to make a new key of the kind that `certificate` has. Raises KeyringError if none is."""
    kind = key_type(certificate.public_key())
    if kind not in KEY_TYPES:
        raise KeyringError(f"the certificate's key is {kind}; choose the type of the new key with --key-type")
    return kind


def public_key_bytes(holder: x509.Certificate | x509.CertificateSigningRequest | PrivateKey) -> bytes:
    """Return the SubjectPublicKeyInfo (DER) of a certificate, request or private key; equal bytes, equal key."""
    public = holder.public_key()
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def private_key_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """Write a private key as PKCS#8 PEM, encrypted when a passphrase is given."""
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        protection = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


_MOST_PROVEN = 1024
_proven: dict[bytes, None] = {}  # digests of key files that were found sound, oldest first


def load_private_key(pem: bytes, passphrase: bytes | None = None) -> PrivateKey:
    """Read one private key from PEM. Raises KeyringError: 408 missing or wrong passphrase, 428 broken key.

    That the numbers of an RSA key are sound is proven when this process first meets the key, not at every refresh.
    """
    proof = hashlib.sha256(pem).digest()
    try:
        key = serialization.load_pem_private_key(pem, passphrase, unsafe_skip_rsa_key_validation=proof in _proven)
    except TypeError as error:
        if passphrase is None:
            raise KeyringError("the private key is encrypted and no passphrase was given", 408) from error
        return load_private_key(pem)  # a passphrase for a key that needs none is no mistake worth failing for
    except (ValueError, UnsupportedAlgorithm) as error:
        if passphrase is not None:
            raise KeyringError(
                "the private key cannot be decrypted; the passphrase is wrong or the key damaged", 408
            ) from error
        raise KeyringError(
            "the private key cannot be read; it is damaged or of a kind that is not supported", 428
        ) from error
    supported = _supported(key)
    _proven[proof] = None
    while len(_proven) > _MOST_PROVEN:
        _proven.pop(next(iter(_proven)), None)
    return supported


def _supported(key: object) -> PrivateKey:
    if isinstance(
        key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
    ):
        return key
    raise KeyringError("the private key is of a kind that TLS does not use here; use RSA, ECDSA or Ed25519", 428)


# Building ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a certificate is to say; `days` of validity, `purposes` out of `server`, `client` and `ocsp`.

    `begins` and `ends` (aware) replace what `days` from now would be; `usages` adds key usages by their name in
    X.509, e.g. `content_commitment`. `extra` holds further extensions as they are, e.g. hostIdMappings.
    """

    subject: x509.Name
    days: int
    names: tuple[x509.GeneralName, ...] = ()
    is_authority: bool = False
    path_length: int | None = None
    purposes: tuple[str, ...] = ("server", "client")
    crl_urls: tuple[str, ...] = ()
    ocsp_urls: tuple[str, ...] = ()
    begins: datetime.datetime | None = None
    ends: datetime.datetime | None = None
    usages: tuple[str, ...] = ()
    extra: tuple[x509.Extension[x509.ExtensionType], ...] = ()


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: the authority's certificate and private key."""

    certificate: x509.Certificate
    private_key: PrivateKey = field(repr=False)


def subject_name(common_name: str | None, others: str | None = None) -> x509.Name:
    """Build a subject from a common name and further parts such as `OU=Payments,O=Example,C=DE` (RFC 4514 text).

    Raises KeyringError when a part is too long or malformed.
    """
    try:
        parts = list(x509.Name.from_rfc4514_string(others).rdns) if others else []
    except ValueError as error:
        raise KeyringError(f"'{others}' is no distinguished name; write it like OU=Payments,O=Example,C=DE") from error
    if common_name is not None:
        # X.520 counts characters, the library bytes; what both accept is safe.
        if not common_name.isprintable() or not 1 <= len(common_name.encode()) <= 64:
            raise KeyringError(f"a common name (CN) has 1 to 64 printable characters, '{common_name[:80]}' does not")
        parts.append(x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
    if not parts:
        raise KeyringError("a certificate needs a subject; give a common name")
    return x509.Name(parts)


def alternative_names(text: str) -> tuple[x509.GeneralName, ...]:
    """Read `DNS:host,IP:addr,EMAIL:a@b,URI:u`; an item without prefix is an address if it looks like one, else a host.

    Raises KeyringError that names the item in error.
    """
    return tuple(_alternative_name(item.strip()) for item in text.split(",") if item.strip())


def _alternative_name(item: str) -> x509.GeneralName:
    kind, colon, value = item.partition(":")
    kind = kind.upper()
    if not colon or kind not in {"DNS", "IP", "EMAIL", "URI"}:
        kind, value = ("IP", item) if _is_address(item) else ("DNS", item)
    try:
        if kind == "IP":
            return x509.IPAddress(ipaddress.ip_address(value.strip("[]")))
        if kind == "EMAIL":
            if not re.fullmatch(r"[^@\s]+@[^@\s]+", value):
                raise ValueError("no mail address")
            return x509.RFC822Name(value)
        if kind == "URI":
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:\S+", value):
                raise ValueError("no URI")
            return x509.UniformResourceIdentifier(value)
        return x509.DNSName(host_name(value))
    except ValueError as error:
        raise KeyringError(
            f"'{item}' is no alternative name; write DNS:host, IP:address, EMAIL:a@b or URI:…"
        ) from error


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def host_name(text: str) -> str:
    """Return `text` as a host name in ASCII, a leading `*.` allowed. Raises ValueError when it is none."""
    star, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    ascii_name = name.rstrip(".").encode("idna").decode("ascii") if not name.isascii() else name.rstrip(".")
    labels = ascii_name.split(".")
    if len(ascii_name) > 253 or not all(
        re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", part) for part in labels
    ):
        raise ValueError(f"{text!r} is no host name")
    return star + ascii_name


def implied_names(common_name: str | None) -> tuple[x509.GeneralName, ...]:
    """Return the alternative name that a common name stands for: an address, a dotted host name, or nothing.

    Verifiers look at alternative names only (RFC 9525), so a server called `db.example` without them is useless.
    """
    if common_name is None:
        return ()
    if _is_address(common_name):
        return (x509.IPAddress(ipaddress.ip_address(common_name)),)
    if "." in common_name or common_name == "localhost":
        try:
            return (x509.DNSName(host_name(common_name)),)
        except ValueError:
            return ()
    return ()


def build(
    profile: Profile,
    public_key: PublicKey,
    *,
    signer: Signer | None,
    own_key: PrivateKey | None,
    now: datetime.datetime,
) -> x509.Certificate:
    """Make a certificate for `public_key`, signed by `signer`, or by `own_key` itself when there is no signer.

    A certificate never outlives the one that signs it. Raises KeyringError when the signer is no authority, is not
    valid now, or when the clock cannot be right.
    """
    check_clock(now)
    if not 1 <= profile.days <= MOST_DAYS:
        raise KeyringError(f"a certificate is valid for 1 to {MOST_DAYS} days, not {profile.days}")
    begins = (profile.begins or now - _BACKDATE).replace(microsecond=0)
    ends = (profile.ends or now + datetime.timedelta(days=profile.days)).replace(microsecond=0)
    if signer is None:
        if own_key is None:
            raise KeyringError("a certificate is signed by an authority or by its own key; neither was given")
        signing_key, issuer_name, issuer_public = own_key, profile.subject, public_key
    else:
        check_signer(signer.certificate, now=now, for_authority=profile.is_authority)
        begins = max(begins, signer.certificate.not_valid_before_utc)
        ends = min(ends, signer.certificate.not_valid_after_utc)
        signing_key, issuer_name = signer.private_key, signer.certificate.subject
        issuer_public = signer.private_key.public_key()
    if ends <= begins:
        raise KeyringError(
            f"the certificate would end ({ends:%Y-%m-%d %H:%M}) before it begins ({begins:%Y-%m-%d %H:%M})"
        )
    builder = (
        x509.CertificateBuilder()
        .subject_name(profile.subject)
        .issuer_name(issuer_name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    for extension, critical in _extensions(profile, public_key):
        builder = builder.add_extension(extension, critical=critical)
    issuer_id = extension_of(signer.certificate, x509.SubjectKeyIdentifier) if signer else None
    authority_id = (
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id)
        if issuer_id
        else x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public)
    )
    builder = builder.add_extension(authority_id, critical=False)
    for extra in profile.extra:
        builder = builder.add_extension(extra.value, critical=extra.critical)
    return builder.sign(signing_key, signature_hash(signing_key))


def _extensions(profile: Profile, public_key: PublicKey) -> Iterable[tuple[x509.ExtensionType, bool]]:
    yield x509.BasicConstraints(ca=profile.is_authority, path_length=profile.path_length), True
    # Key encipherment is what RSA key exchange of TLS 1.2 asks for; other key types cannot do it.
    enciphers = isinstance(public_key, rsa.RSAPublicKey) and not profile.is_authority
    yield (
        x509.KeyUsage(
            digital_signature=True,
            content_commitment="content_commitment" in profile.usages,
            key_encipherment=enciphers,
            data_encipherment="data_encipherment" in profile.usages,
            key_agreement="key_agreement" in profile.usages,
            key_cert_sign=profile.is_authority,
            crl_sign=profile.is_authority,
            encipher_only=False,
            decipher_only=False,
        ),
        True,
    )
    if not profile.is_authority:
        yield x509.ExtendedKeyUsage([_PURPOSES[purpose] for purpose in profile.purposes]), False
    yield x509.SubjectKeyIdentifier.from_public_key(public_key), False
    if profile.names:
        yield x509.SubjectAlternativeName(profile.names), False
    if profile.crl_urls:
        points = [
            x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None) for url in profile.crl_urls
        ]
        yield x509.CRLDistributionPoints(points), False
    if profile.ocsp_urls:
        yield (
            x509.AuthorityInformationAccess(
                [
                    x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url))
                    for url in profile.ocsp_urls
                ]
            ),
            False,
        )


_PURPOSES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "ocsp": ExtendedKeyUsageOID.OCSP_SIGNING,
}


def check_clock(now: datetime.datetime) -> None:
    """Raise KeyringError when the machine's clock was obviously never set: what we sign now would be useless."""
    if not _EARLIEST_CLOCK < now < _LATEST_CLOCK:
        raise KeyringError(
            f"the clock of this machine says {now:%Y-%m-%d}, which cannot be; set it before signing certificates"
        )


def check_signer(authority: x509.Certificate, *, now: datetime.datetime, for_authority: bool = False) -> None:
    """Raise KeyringError unless `authority` may sign certificates at `now`."""
    name = common_name(authority)
    constraints = extension_of(authority, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise KeyringError(f"'{name}' is no certificate authority; sign with one made by: attls cert create-ca", 440)
    usage = extension_of(authority, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise KeyringError(f"the key usage of '{name}' does not allow it to sign certificates", 440)
    if for_authority and constraints.path_length == 0:
        raise KeyringError(f"'{name}' may not sign further authorities (path length 0)", 440)
    if now < authority.not_valid_before_utc:
        raise KeyringError(
            f"'{name}' becomes valid at {authority.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, "
            "later than this machine's clock; is the clock right?",
            401,
        )
    if now > authority.not_valid_after_utc:
        raise KeyringError(
            f"'{name}' expired at {authority.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it first", 401
        )


def signature_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None:
    """Choose the hash that fits the strength of a signing key; None where the algorithm brings its own."""
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 384:
        return hashes.SHA512()
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        return hashes.SHA384()
    return hashes.SHA256()


def build_request(
    subject: x509.Name, names: Sequence[x509.GeneralName], key: PrivateKey
) -> x509.CertificateSigningRequest:
    """Make a PKCS#10 request that proves possession of `key`."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, signature_hash(key))


def renewed_profile(old: x509.Certificate, days: int | None = None) -> Profile:
    """Return the profile that makes a certificate saying what `old` says, valid for `days`, or for as long as `old`."""
    constraints = extension_of(old, x509.BasicConstraints)
    usages = extension_of(old, x509.ExtendedKeyUsage)
    words = {oid: word for word, oid in _PURPOSES.items()}
    usage = extension_of(old, x509.KeyUsage)
    names = extension_of(old, x509.SubjectAlternativeName)
    made_by_us = {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectKeyIdentifier.oid,
        x509.AuthorityKeyIdentifier.oid,
        x509.SubjectAlternativeName.oid,
    }
    lifetime = old.not_valid_after_utc - old.not_valid_before_utc
    return Profile(
        subject=old.subject,
        days=days or min(max(1, lifetime.days), MOST_DAYS),
        names=tuple(names) if names else (),
        is_authority=bool(constraints and constraints.ca),
        path_length=constraints.path_length if constraints else None,
        purposes=tuple(words[usage] for usage in usages if usage in words) if usages else ("server", "client"),
        usages=tuple(_usage_words(usage)) if usage else (),
        extra=tuple(extension for extension in old.extensions if extension.oid not in made_by_us),
    )


# Reading -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Contents:
    """What was found in a file, in file order."""

    certificates: list[x509.Certificate] = field(default_factory=list)
    keys: list[PrivateKey] = field(default_factory=list)
    requests: list[x509.CertificateSigningRequest] = field(default_factory=list)
    crls: list[x509.CertificateRevocationList] = field(default_factory=list)
    clear_key: bool = False
    """A private key lay in the file unencrypted, so the file itself is a secret."""


_PEM_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----")
_PEM_CERTIFICATE = {"CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"}
_SHROUDED_KEY_BAG = bytes.fromhex("060b2a864886f70d010c0a0102")
_PKCS7 = bytes.fromhex("06092a864886f70d0107")


def read(data: bytes, *, password: bytes | None = None, name: str = "the file") -> Contents:
    """Read certificates, keys and requests from PEM (ASCII or EBCDIC), DER, PKCS#7 or PKCS#12 in any mixture.

    `password` opens PKCS#12 and encrypted keys; `name` is how errors call the input. Raises KeyringError: 408 for a
    missing or wrong password, 103 for anything damaged or unknown.
    """
    contents = Contents()
    try:
        _read_into(contents, data, password, name)
    except UNREADABLE as error:
        raise KeyringError(f"{name} is damaged: {first_line(error)}", 103) from error
    if len(contents.certificates) > _MOST_CERTIFICATES:
        raise KeyringError(f"{name} holds more than {_MOST_CERTIFICATES} certificates; split it", 103)
    return contents


def _read_into(contents: Contents, data: bytes, password: bytes | None, name: str) -> None:
    if data.lstrip(b"\x40\x15\x25\x0d").startswith(b"\x60" * 5):  # "-----" in EBCDIC: copied from z/OS as binary
        data = data.decode("cp037").replace("\x85", "\n").encode("ascii", "replace")
    if _PEM_BEGIN.search(data):
        _read_pem(contents, data, password, name)
    elif data[:1] == b"\x30":
        _read_der(contents, data, password, name)
    elif re.fullmatch(rb"[A-Za-z0-9+/=\s]{64,}", data):
        try:
            decoded = base64.b64decode(b"".join(data.split()), validate=True)
        except binascii.Error as error:
            raise KeyringError(f"{name} is damaged: {error}", 103) from error
        if decoded[:1] != b"\x30":
            raise KeyringError(f"{name} is not a certificate, key, PKCS#7 or PKCS#12 file", 103)
        _read_der(contents, decoded, password, name)
    else:
        raise KeyringError(
            f"{name} is not a certificate, key, PKCS#7 or PKCS#12 file "
            "(a gskkyman .kdb cannot be read: export from it as PKCS#12)",
            103,
        )


def _read_pem(contents: Contents, data: bytes, password: bytes | None, name: str) -> None:
    position = 0
    while begin := _PEM_BEGIN.search(data, position):
        kind = begin[1].decode()
        tail = b"-----END " + begin[1] + b"-----"
        end = data.find(tail, begin.end())
        following = _PEM_BEGIN.search(data, begin.end())
        if end < 0 or (following and following.start() < end):
            raise KeyringError(f"{name} is cut off: the {kind} that starts at byte {begin.start()} has no end", 103)
        position = end + len(tail)
        block = data[begin.start() : position] + b"\n"
        if kind in _PEM_CERTIFICATE:
            body = base64.b64decode(b"".join(data[begin.end() : end].split()))
            if len(contents.certificates) > _MOST_CERTIFICATES:
                break  # `read` refuses them; reading on would be work for nothing
            contents.certificates.append(
                _leading_certificate(body) if kind.startswith("TRUSTED") else load_certificate(body)
            )
        elif kind.endswith("PRIVATE KEY"):
            contents.clear_key |= not (kind.startswith("ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in block)
            contents.keys.append(load_private_key(block, password))
        elif kind.endswith("CERTIFICATE REQUEST"):
            contents.requests.append(x509.load_pem_x509_csr(block.replace(b" NEW CERT", b" CERT")))
        elif kind in {"PKCS7", "PKCS #7 SIGNED DATA", "CMS"}:
            contents.certificates += _read_pkcs7(base64.b64decode(b"".join(data[begin.end() : end].split())))
        elif kind == "X509 CRL":
            contents.crls.append(x509.load_pem_x509_crl(block))
        elif kind == "PKCS12":
            _read_der(contents, base64.b64decode(b"".join(data[begin.end() : end].split())), password, name)
        # Parameters of curves and Diffie-Hellman groups often lie beside keys and say nothing to us.


def read_bundle(data: bytes) -> list[x509.Certificate]:
    """Read a PEM bundle of somebody else's making, leaving out what cannot be read instead of failing for it."""
    found = []
    for match in re.finditer(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----", data):
        with contextlib.suppress(KeyringError):
            found += read(match[0]).certificates
    return found


def _leading_certificate(body: bytes) -> x509.Certificate:
    # OpenSSL's "trusted certificate" is a certificate followed by trust settings of its own; ours count instead.
    length = _der_length(body)
    return load_certificate(body[:length])


def _der_length(data: bytes) -> int:
    if len(data) < 2:
        raise ValueError("too short")
    first = data[1]
    if first < 0x80:
        return 2 + first
    count = first & 0x7F
    return 2 + count + int.from_bytes(data[2 : 2 + count])


def _read_der(contents: Contents, data: bytes, password: bytes | None, name: str) -> None:
    header = 2 + (data[1] & 0x7F if len(data) > 1 and data[1] & 0x80 else 0)
    inside = data[header : header + 16]
    if inside.startswith(b"\x02\x01\x03"):
        _read_pkcs12(contents, data, password, name)
    elif inside.startswith(_PKCS7):
        contents.certificates += _read_pkcs7(data)
    elif inside.startswith(b"\x02"):
        contents.clear_key = True
        contents.keys.append(_supported(serialization.load_der_private_key(data, None)))
    else:
        _read_der_signed(contents, data, password)


def _read_der_signed(contents: Contents, data: bytes, password: bytes | None) -> None:
    try:
        contents.certificates.append(load_certificate(data))
        return
    except KeyringError as error:
        problem = error
    try:
        contents.requests.append(x509.load_der_x509_csr(data))
        return
    except UNREADABLE:
        pass
    try:
        contents.crls.append(x509.load_der_x509_crl(data))
        return
    except UNREADABLE:
        pass
    try:
        contents.keys.append(_supported(serialization.load_der_private_key(data, password)))
        return
    except TypeError as error:
        raise KeyringError("the private key is encrypted and no passphrase was given", 408) from error
    except UNREADABLE:
        raise problem from None


def _read_pkcs7(data: bytes) -> list[x509.Certificate]:
    with warnings.catch_warnings():
        # OpenSSL keeps the order in which files were given, which is no valid order of a DER set; we do not mind.
        warnings.simplefilter("ignore", UserWarning)
        found = pkcs7.load_der_pkcs7_certificates(data)
    return [load_certificate(der(certificate)) for certificate in found]


def _read_pkcs12(contents: Contents, data: bytes, password: bytes | None, name: str) -> None:
    if data.count(_SHROUDED_KEY_BAG) > 1:
        # The library would quietly take one of them, and perhaps not the one the administrator means.
        raise KeyringError(f"{name} holds several private keys; export one identity per PKCS#12 file", 103)
    for attempt in (password, b"") if password is None else (password,):
        try:
            found = pkcs12.load_pkcs12(data, attempt)
            break
        except ValueError as error:
            problem = error
    else:
        what = "the password is wrong, or the file is damaged" if password is not None else "it needs a password"
        raise KeyringError(f"{name} cannot be opened: {what}", 408) from problem
    if found.key is not None:
        contents.clear_key |= not password
        contents.keys.append(_supported(found.key))
    if found.cert is not None:
        contents.certificates.append(load_certificate(der(found.cert.certificate)))
    contents.certificates += [load_certificate(der(extra.certificate)) for extra in found.additional_certs]


def load_certificate(der: bytes) -> x509.Certificate:
    """Read one DER certificate; its extensions and key are readable too. Raises KeyringError (103) otherwise."""
    try:
        with warnings.catch_warnings():
            # Old roots in every trust store have serial number 0; the warning is for their makers.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
            certificate.public_key()
            _ = certificate.extensions, certificate.subject, certificate.issuer
    except UNREADABLE as error:
        raise KeyringError(f"a certificate cannot be read: {first_line(error)}", 103) from error
    return certificate


def first_line(error: BaseException) -> str:
    """Return what a library says is wrong, as part of a sentence."""
    return (str(error).splitlines() or ["unreadable"])[0].rstrip(".")[:200]


def split_identity(
    contents: Contents, *, name: str
) -> tuple[x509.Certificate, PrivateKey | None, list[x509.Certificate]]:
    """Pick out of `contents` the certificate that it is about, its key if there is one, and the other certificates.

    The certificate is the one whose key is present, else the first one that issued none of the others (PKCS#7 keeps
    no order). Raises KeyringError when there is no certificate, when there are several keys, or when the key fits
    none of the certificates.
    """
    if not contents.certificates:
        hint = "; it holds a revocation list, which is brought in by: attls cert import-crl" if contents.crls else ""
        raise KeyringError(f"there is no certificate in {name}{hint}", 103)
    if len(contents.keys) > 1:
        raise KeyringError(f"{name} holds several private keys; keep one identity per file", 103)
    key = contents.keys[0] if contents.keys else None
    leaf = next(
        (one for one in contents.certificates if not _issued_any(one, contents.certificates)), contents.certificates[0]
    )
    if key is not None:
        public = public_key_bytes(key)
        owners = [candidate for candidate in contents.certificates if public_key_bytes(candidate) == public]
        if not owners:
            raise KeyringError(
                f"the private key does not belong to the certificate '{common_name(leaf)}' in {name}; "
                "find the key that the certificate was requested with",
                428,
            )
        leaf = owners[0]
    seen = {leaf}
    others = [other for other in contents.certificates if not (other in seen or seen.add(other))]  # type: ignore[func-returns-value]
    return leaf, key, others


def _issued_any(certificate: x509.Certificate, others: list[x509.Certificate]) -> bool:
    # Names are enough to choose by; signatures are checked where trust is at stake.
    return any(other.issuer == certificate.subject and other != certificate for other in others)


# Chains ------------------------------------------------------------------------------------------------------------


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Tell whether `certificate` is signed with its own key."""
    return certificate.issuer == certificate.subject and is_issued_by(certificate, certificate)


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether `certificate` says it is a certificate authority."""
    constraints = extension_of(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether the signature on `certificate` was made by `issuer` (names, key identifiers and signature agree)."""
    if certificate.issuer != issuer.subject:
        return False
    wanted = extension_of(certificate, x509.AuthorityKeyIdentifier)
    present = extension_of(issuer, x509.SubjectKeyIdentifier)
    if wanted and present and wanted.key_identifier and wanted.key_identifier != present.digest:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def chain(leaf: x509.Certificate, candidates: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """Return the issuers of `leaf` found among `candidates`, nearest first, up to the root if it is there."""
    pool = [candidate for candidate in candidates if is_authority(candidate)]
    found: list[x509.Certificate] = []
    current = leaf
    while len(found) < _LONGEST_CHAIN and not is_self_signed(current):
        issuers = [
            issuer for issuer in pool if issuer not in found and issuer != leaf and is_issued_by(current, issuer)
        ]
        if not issuers:
            break
        # Of a root and its cross-signed twin take the root: the chain ends there. Else the one that lasts longest.
        current = max(issuers, key=lambda issuer: (is_self_signed(issuer), issuer.not_valid_after_utc))
        found.append(current)
    return found


def intermediates(leaf: bytes, candidates: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the DER certificates to send after `leaf`: its issuers among `candidates`, without the root."""
    issuers = chain(load_certificate(leaf), [load_certificate(candidate) for candidate in candidates])
    return tuple(der(issuer) for issuer in issuers if not is_self_signed(issuer))


# Telling -----------------------------------------------------------------------------------------------------------


def der(certificate: x509.Certificate) -> bytes:
    """Return the DER form."""
    return certificate.public_bytes(serialization.Encoding.DER)


def pem(certificate: x509.Certificate) -> bytes:
    """Return the PEM form."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def pem_body(text: bytes) -> bytes:
    """Return the DER inside one PEM block."""
    return base64.b64decode(b"".join(line for line in text.splitlines() if not line.startswith(b"-----")))


def pem_wrapped(body: bytes, kind: str) -> bytes:
    """Wrap DER as a PEM block of the given kind."""
    encoded = base64.b64encode(body)
    lines = [encoded[start : start + 64] for start in range(0, len(encoded), 64)]
    return b"\n".join([f"-----BEGIN {kind}-----".encode(), *lines, f"-----END {kind}-----".encode(), b""])


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 fingerprint in upper-case hexadecimal with colons."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def extension_of(
    certificate: x509.Certificate | x509.CertificateSigningRequest, kind: type[Extension]
) -> Extension | None:
    """Return the certificate's extension of class `kind`, or None where it has none."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def common_name(certificate: x509.Certificate) -> str:
    """Return the last common name of the subject, or the whole subject where it has none."""
    return name_of(certificate.subject)


def name_of(name: x509.Name) -> str:
    """Return the last common name in `name`, or all of it as RFC 4514 text."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = str(found[-1].value) if found else name.rfc4514_string() or "(empty name)"
    # Whoever made the certificate chose this text, and it is shown on terminals and in logs.
    return "".join(character if character.isprintable() else "?" for character in text)


def general_name(name: x509.GeneralName) -> str:
    """Write an alternative name the way `--san` reads it."""
    match name:
        case x509.DNSName():
            return f"DNS:{name.value}"
        case x509.IPAddress():
            return f"IP:{name.value}"
        case x509.RFC822Name():
            return f"EMAIL:{name.value}"
        case x509.UniformResourceIdentifier():
            return f"URI:{name.value}"
    return f"OTHER:{name!r}"


def crl_number(crl: x509.CertificateRevocationList) -> int | None:
    """Return the number of a revocation list, None where it has none."""
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (x509.ExtensionNotFound, *UNREADABLE):
        return None


def crl_summary(crl: x509.CertificateRevocationList) -> dict[str, object]:
    """Describe a revocation list with plain values."""
    ends = crl.next_update_utc
    return {
        "issuer": crl.issuer.rfc4514_string(),
        "number": crl_number(crl),
        "revoked": len(crl),
        "last_update": crl.last_update_utc.isoformat(),
        "next_update": ends.isoformat() if ends else None,
    }


def summary(certificate: x509.Certificate) -> dict[str, object]:
    """Describe a certificate with plain values: the `--json` form of `cert show` and `cert list`."""
    names = extension_of(certificate, x509.SubjectAlternativeName)
    usages = extension_of(certificate, x509.ExtendedKeyUsage)
    usage = extension_of(certificate, x509.KeyUsage)
    words = {oid: word for word, oid in _PURPOSES.items()}
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:X}",
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "san": [general_name(name) for name in names] if names else [],
        "key_type": key_type(certificate.public_key()),
        "is_ca": is_authority(certificate),
        "self_signed": is_self_signed(certificate),
        "key_usage": _usage_words(usage) if usage else [],
        "extended_key_usage": [words.get(oid, oid.dotted_string) for oid in usages] if usages else [],
        "signature": _signature_word(certificate),
        "fingerprint": fingerprint(certificate),
    }


def _usage_words(usage: x509.KeyUsage) -> list[str]:
    words = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    )
    return [word for word in words.split() if getattr(usage, word)]


def _signature_word(certificate: x509.Certificate) -> str:
    return getattr(certificate.signature_algorithm_oid, "_name", certificate.signature_algorithm_oid.dotted_string)
