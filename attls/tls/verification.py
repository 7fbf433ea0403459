"""What is asked of a peer's certificate beyond what OpenSSL checks by itself: key sizes, validation modes, a user.

`Peer` is the memory of one connection's verification. It hangs on the engine, is filled by the callback that OpenSSL
calls for each certificate from the root down, and is read when the handshake is over.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from attls.errors import KeyringError, Reason
from attls.keyring import UserMap
from attls.keyring.signatures import pair_of
from attls.keyring.validation import Mode, Role, check
from attls.model import HandshakeRole, TlsSettings
from attls.policy import codes
from attls.tls import reasons

_INVALID_PURPOSE = 26  # X509_V_ERR_INVALID_PURPOSE
_EC, _ED25519, _ED448 = 408, 1087, 1088  # NID_X9_62_id_ecPublicKey and the Edwards curves (openssl/obj_mac.h)
_SYSTEM = socket.gethostname().partition(".")[0].upper()


class RefusedError(Exception):
    """The peer is not accepted, for `reason`; `detail` says what is particular to it."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason.text)


class Peer:
    """What is known of one connection's peer; `reason` stays None while it has not been refused.

    `user` counts once `user_known` is set. `job` names the program that the connection belongs to. `staple` is the
    OCSP answer that the server sent along, empty for none. `certificate` is the SHA-256 of the certificate that the
    peer came with first, where it might come with another one later.
    """

    __slots__ = (
        "_certificates",
        "certificate",
        "detail",
        "job",
        "reason",
        "staple",
        "user",
        "user_known",
        "why_nobody",
    )

    def __init__(self, job: str = "") -> None:
        self.job = job
        self.reason: Reason | None = None
        self.detail = ""
        self.user: str | None = None
        self.user_known = False
        self.why_nobody = ""
        self.staple = b""
        self.certificate = b""
        self._certificates: dict[int, crypto.X509] = {}

    def refuse(self, reason: Reason, detail: str) -> None:
        """Note why the peer is refused."""
        self.reason = reason
        self.detail = detail

    def is_as_before(self, certificate: crypto.X509 | None) -> bool:
        """Tell whether the peer's own `certificate`, None for none, is what it came with first; the first one is."""
        digest = b"none" if certificate is None else certificate.digest("sha256")
        self.certificate = self.certificate or digest
        return digest == self.certificate

    def note(self, depth: int, certificate: crypto.X509) -> None:
        """Keep a certificate of the verified chain; depth 0 is the peer's own."""
        self._certificates[depth] = certificate

    def chain(self) -> tuple[bytes, ...]:
        """Return the verified chain as DER, the peer's certificate first."""
        found = self._certificates
        return tuple(found[depth].to_cryptography().public_bytes(Encoding.DER) for depth in sorted(found))

    def look_up(self, users: UserMap, certificate: bytes) -> None:
        """Find the user whom `certificate` (DER) stands for."""
        try:
            answer = users.find(certificate, job=self.job, system=_SYSTEM)
        except KeyringError as error:
            self.why_nobody = str(error)
        else:
            self.user = answer.user
            if answer.user is None:
                decisive = [step for step in answer.steps if step.matched] or answer.steps
                self.why_nobody = "; ".join(f"{step.what}: {step.reason}" for step in decisive[-3:])
        self.user_known = True


def is_for_mode_to_judge(error: int, mode: str) -> bool:
    """Tell whether the X.509 verification `error` is about what `check_mode` judges otherwise than OpenSSL.

    RFC 2459 and RFC 3280, where a policy names them, do not ask that an extended key usage fits the role.
    """
    return error == _INVALID_PURPOSE and mode in (Mode.RFC2459.value, Mode.RFC3280.value)


def check_key(certificate: crypto.X509, settings: TlsSettings) -> None:
    """Raise RefusedError when the peer's key is smaller, or its certificate older, than policy allows."""
    key = certificate.get_pubkey()
    kind, bits = key.type(), key.bits()
    name, least = {
        crypto.TYPE_RSA: ("RSA", settings.peer_minimum_rsa_bits),
        crypto.TYPE_DSA: ("DSA", settings.peer_minimum_dsa_bits),
        crypto.TYPE_DH: ("DH", settings.peer_minimum_dh_bits),
        _EC: ("ECC", settings.peer_minimum_ecc_bits),
        _ED25519: ("ECC", settings.peer_minimum_ecc_bits),
        _ED448: ("ECC", settings.peer_minimum_ecc_bits),
    }.get(kind, ("", 0))
    if bits < least:
        raise RefusedError(reasons.WEAK_KEY, f"{name} with {bits} bits, policy asks for {least}")
    if not has_curve(certificate.to_cryptography(), settings.certificate_curves):
        raise RefusedError(reasons.WEAK_KEY, f"{name or 'this kind of'} key, policy asks for another curve")
    if certificate.get_version() + 1 < settings.peer_minimum_certificate_version:
        version = certificate.get_version() + 1
        raise RefusedError(
            reasons.OLD_CERTIFICATE, f"version {version}, policy asks for {settings.peer_minimum_certificate_version}"
        )


def has_curve(certificate: x509.Certificate, curves: Sequence[int]) -> bool:
    """Tell whether the key of `certificate` lies on one of `curves` (IANA group numbers); none asks for nothing."""
    if not curves:
        return True
    key = certificate.public_key()
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in {codes.GROUPS[curve] for curve in curves}


def check_mode(chain: Sequence[bytes], settings: TlsSettings) -> None:
    """Raise RefusedError when `chain` (DER, the peer's first) does not satisfy the policy's CertValidationMode."""
    role = Role.SERVER if settings.role is HandshakeRole.CLIENT else Role.CLIENT
    try:
        check(chain, role, Mode(settings.certificate_validation))
    except KeyringError as error:
        reason = reasons.WRONG_USAGE if error.code == reasons.WRONG_USAGE.code else reasons.UNVERIFIED
        raise RefusedError(reason, str(error)) from error


def check_signatures(chain: Sequence[bytes], pairs: frozenset[str]) -> None:
    """Raise RefusedError when a certificate of `chain` (DER, the peer's first) is signed by none of `pairs`.

    The last one is the anchor on our own ring, whose signature proves nothing and is not looked at.
    """
    for certificate in map(x509.load_der_x509_certificate, chain[:-1]):
        try:
            pair = pair_of(certificate.signature_algorithm_oid, certificate.signature_hash_algorithm)
        except UnsupportedAlgorithm:
            pair = None
        if pair not in pairs:
            name = certificate.subject.rfc4514_string()
            raise RefusedError(reasons.OTHER_SIGNATURE, f"{name} is signed by {pair or 'an unknown algorithm'}")
