"""The validation modes of CertValidationMode: what RFC 2459, 3280 and 5280 ask of a chain beyond signatures and dates.

For whoever verifies a peer: signatures, dates and trust anchors are checked by the TLS library, which knows one set of
rules only. `check` adds what a mode asks for, so that a policy that names a mode means the same here as on z/OS:

- RFC 2459: authorities are marked as such and may sign; a path length counts where it is given.
- RFC 3280: also no critical extension that nobody understands, and the key usage of the peer allows TLS.
- RFC 5280: also the extended key usage, where there is one, names the role that the peer plays.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from attls.errors import KeyringError
from attls.keyring import certificates


class Mode(enum.Enum):
    """CertValidationMode; ANY tries one standard after the other, MAX is the strictest."""

    ANY = "Any"
    RFC2459 = "RFC2459"
    RFC3280 = "RFC3280"
    RFC5280 = "RFC5280"
    MAX = "Max"


class Role(enum.Enum):
    """What the peer is in the handshake."""

    SERVER = "server"
    CLIENT = "client"


_WRONG_USAGE = 440
_NOT_VALID = 8

# Critical or not, these are looked at here or by the TLS library.
_UNDERSTOOD = frozenset(
    kind.oid
    for kind in (
        x509.BasicConstraints,
        x509.KeyUsage,
        x509.ExtendedKeyUsage,
        x509.SubjectAlternativeName,
        x509.NameConstraints,
        x509.CertificatePolicies,
        x509.PolicyConstraints,
        x509.InhibitAnyPolicy,
        x509.AuthorityKeyIdentifier,
        x509.SubjectKeyIdentifier,
        x509.CRLDistributionPoints,
    )
)


def check(chain: Sequence[bytes], role: Role, mode: Mode) -> None:
    """Return if `chain` (DER, the peer's certificate first, each signed by the next) satisfies `mode`.

    Raises KeyringError: 440 for a usage that does not allow it, 8 for anything else, with the certificate's name.
    """
    loaded = [certificates.load_certificate(one) for one in chain]
    if not loaded:
        raise KeyringError("the peer sent no certificate", 403)
    if mode is Mode.ANY:
        # RFC 2459 asks least, so whatever satisfies any of the three satisfies it.
        mode = Mode.RFC2459
    for below, authority in enumerate(loaded[1:]):
        _check_authority(authority, below=_counted(loaded[1 : below + 1]))
    if mode is Mode.RFC2459:
        return
    for certificate in loaded:
        _check_critical(certificate)
    _check_key_usage(loaded[0])
    if mode is not Mode.RFC3280:
        _check_extended_usage(loaded[0], role)


def _counted(authorities: Sequence[x509.Certificate]) -> int:
    # RFC 5280 4.2.1.9: authorities that issued themselves, as in a key change, do not lengthen the path.
    return sum(one.subject != one.issuer for one in authorities)


def _check_authority(certificate: x509.Certificate, *, below: int) -> None:
    name = certificates.common_name(certificate)
    constraints = certificates.extension_of(certificate, x509.BasicConstraints)
    # Version 1 roots know no extensions; they count where they are trusted as a root.
    version_one = certificate.version is x509.Version.v1 and certificates.is_self_signed(certificate)
    if constraints is None and version_one:
        return
    if constraints is None or not constraints.ca:
        raise KeyringError(f"'{name}' signed a certificate of the chain but is no authority", _NOT_VALID)
    usage = certificates.extension_of(certificate, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise KeyringError(f"the key usage of '{name}' does not allow it to sign certificates", _WRONG_USAGE)
    if constraints.path_length is not None and below > constraints.path_length:
        raise KeyringError(f"the chain is longer than '{name}' allows ({constraints.path_length} below it)", _NOT_VALID)


def _check_critical(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise KeyringError(
                f"'{certificates.common_name(certificate)}' has a critical extension that is not understood "
                f"({extension.oid.dotted_string})",
                _NOT_VALID,
            )


def _check_key_usage(certificate: x509.Certificate) -> None:
    usage = certificates.extension_of(certificate, x509.KeyUsage)
    if usage is None or usage.digital_signature or usage.key_encipherment or usage.key_agreement:
        return
    raise KeyringError(f"the key usage of '{certificates.common_name(certificate)}' does not allow TLS", _WRONG_USAGE)


def _check_extended_usage(certificate: x509.Certificate, role: Role) -> None:
    usages = certificates.extension_of(certificate, x509.ExtendedKeyUsage)
    wanted = {Role.SERVER: ExtendedKeyUsageOID.SERVER_AUTH, Role.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH}[role]
    if usages is None or wanted in usages or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages:
        return
    raise KeyringError(
        f"the extended key usage of '{certificates.common_name(certificate)}' does not allow a TLS {role.value}",
        _WRONG_USAGE,
    )
