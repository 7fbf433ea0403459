"""Is a certificate revoked? CRLs and OCSP answers judged and built, without touching the network.

Rule of the file: bytes and a clock reading in, an `Answer` out. Fetching, proxies and waiting belong to whoever has a
network; what came back is handed in here. Anything doubtful is UNKNOWN, never GOOD: an answer counts only when its
signature, its dates, its scope and the certificate it is about have all been checked. `decide` then weighs the answers
as RevocationSecurityLevel says. Sources: RFC 5280 section 6.3, RFC 6960 section 3.2, RFC 9654 (nonces).
"""

from __future__ import annotations

import datetime
import enum
from collections import Counter, OrderedDict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from attls.errors import KeyringError
from attls.keyring import certificates
from attls.keyring.certificates import Signer
from attls.keyring.signatures import pair_of

REVOKED = 431
UNREACHABLE = 427
UNDECIDED = 436
OUT_OF_DATE = "the CRL is out of date"

REASONS = tuple(flag.value for flag in x509.ReasonFlags if flag is not x509.ReasonFlags.remove_from_crl)
"""Why a certificate can be revoked, as RFC 5280 spells it; taking it off a list again is no reason."""

# Clocks of responder and verifier may differ by this much.
_SKEW = datetime.timedelta(minutes=5)
_MOST_ISSUERS = 16  # authorities of one name, with keys of their own
# An OCSP answer without nextUpdate says "ask again any time"; it still is no answer for ever.
_WITHOUT_END = datetime.timedelta(days=1)


class Standing(enum.Enum):
    """What a source says; UNREACHABLE and ABSENT are for whoever fetches: no connection, or no list there."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    ABSENT = "absent"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one source says of one certificate, why, and until when that may be remembered (None: not at all)."""

    standing: Standing
    reason: str
    until: datetime.datetime | None = None


class Level(enum.Enum):
    """RevocationSecurityLevel: what to do when there is no definite answer."""

    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"


def decide(level: Level, answers: Iterable[Answer]) -> None:
    """Return if the connection may go on after the `answers` of all sources that were asked.

    LOW goes on unless a source says revoked; MEDIUM also wants every chance of an answer taken: a source that cannot
    be reached, or answers doubtfully, ends it, a list that does not exist does not; HIGH wants a definite "good".
    Raises KeyringError: 431 revoked, 427 unreachable, 436 undecided.
    """
    found = list(answers)
    for answer in found:
        if answer.standing is Standing.REVOKED:
            raise KeyringError(f"the certificate is revoked: {answer.reason}", REVOKED)
    if any(answer.standing is Standing.GOOD for answer in found) or level is Level.LOW:
        return
    if level is Level.MEDIUM and all(answer.standing is Standing.ABSENT for answer in found):
        return
    why = "; ".join(answer.reason for answer in found) or "the certificate names no source"
    unreachable = bool(found) and all(answer.standing is Standing.UNREACHABLE for answer in found)
    raise KeyringError(
        f"whether the certificate is revoked cannot be told ({why}), and the security level is {level.value}",
        UNREACHABLE if unreachable else UNDECIDED,
    )


class Cache:
    """Answers remembered until they end: at most `size` of them, the ones least recently used go first.

    At most `each` of them come from one source; 0 means no limit. A `size` of 0 remembers nothing.
    """

    def __init__(self, size: int, *, each: int = 0) -> None:
        self._size = size
        self._each = each
        self._answers: OrderedDict[tuple[str, Hashable], Answer] = OrderedDict()
        self._counts: Counter[str] = Counter()

    def get(self, source: str, about: Hashable, now: datetime.datetime) -> Answer | None:
        """Return what `source` said about a certificate, None when that is not known or has ended."""
        answer = self._answers.get((source, about))
        if answer is None:
            return None
        if answer.until is None or now >= answer.until:
            self._drop((source, about))
            return None
        self._answers.move_to_end((source, about))
        return answer

    def put(self, source: str, about: Hashable, answer: Answer) -> None:
        """Remember a definite answer; doubtful ones are worth another try."""
        if answer.until is None or answer.standing not in {Standing.GOOD, Standing.REVOKED} or self._size <= 0:
            return
        key = (source, about)
        if key in self._answers:
            self._drop(key)
        self._answers[key] = answer
        self._counts[source] += 1
        if 0 < self._each < self._counts[source]:
            self._drop(next(oldest for oldest in self._answers if oldest[0] == source))
        while len(self._answers) > self._size:
            self._drop(next(iter(self._answers)))

    def _drop(self, key: tuple[str, Hashable]) -> None:
        del self._answers[key]
        self._counts[key[0]] -= 1
        if not self._counts[key[0]]:
            del self._counts[key[0]]

    def __len__(self) -> int:
        return len(self._answers)


# Where to ask ------------------------------------------------------------------------------------------------------


def crl_urls(certificate: x509.Certificate) -> list[str]:
    """Return the HTTP addresses of the distribution points that the certificate names."""
    points = certificates.extension_of(certificate, x509.CRLDistributionPoints)
    return [
        name.value
        for point in points or ()
        if point.crl_issuer is None and point.reasons is None
        for name in point.full_name or ()
        if isinstance(name, x509.UniformResourceIdentifier) and name.value.lower().startswith(("http://", "https://"))
    ]


def ocsp_urls(certificate: x509.Certificate) -> list[str]:
    """Return the addresses of the OCSP responders that the certificate names."""
    access = certificates.extension_of(certificate, x509.AuthorityInformationAccess)
    return [
        one.access_location.value
        for one in access or ()
        if one.access_method == AuthorityInformationAccessOID.OCSP
        and isinstance(one.access_location, x509.UniformResourceIdentifier)
        and one.access_location.value.lower().startswith(("http://", "https://"))
    ]


# CRLs --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revoked serial number, since when, and the reason flag of RFC 5280."""

    serial: int
    when: datetime.datetime
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified

    @classmethod
    def of(cls, serial: int, when: datetime.datetime, reason: str) -> Revocation:
        """Build one from a reason out of `REASONS`."""
        return cls(serial, when, x509.ReasonFlags(reason))


def build_crl(
    signer: Signer, revoked: Iterable[Revocation], *, now: datetime.datetime, lifetime: datetime.timedelta, number: int
) -> x509.CertificateRevocationList:
    """Make the list of an authority, valid for `lifetime`; `number` must grow from list to list."""
    certificates.check_clock(now)
    issuer_id = certificates.extension_of(signer.certificate, x509.SubjectKeyIdentifier)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(now - _SKEW)
        .next_update(now + lifetime)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id)
            if issuer_id
            else x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.private_key.public_key()),
            critical=False,
        )
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(one.when)
        if one.reason is not x509.ReasonFlags.unspecified:
            entry = entry.add_extension(x509.CRLReason(one.reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(signer.private_key, certificates.signature_hash(signer.private_key))


def read_crl(data: bytes) -> x509.CertificateRevocationList:
    """Read one CRL, DER or PEM. Raises KeyringError (436) when it is none."""
    try:
        return x509.load_der_x509_crl(data) if data[:1] == b"\x30" else x509.load_pem_x509_crl(data)
    except certificates.UNREADABLE as error:
        raise KeyringError(f"it is no CRL, or a damaged one ({certificates.first_line(error)})", UNDECIDED) from error


def is_list_of(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Tell whether `crl` says that it comes from `issuer`; the signature is another matter.

    Authorities that changed their key have one name and two lists; where list and authority name keys, those count.
    """
    if crl.issuer != issuer.subject:
        return False
    try:
        wanted = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (x509.ExtensionNotFound, *certificates.UNREADABLE):
        return True
    present = certificates.extension_of(issuer, x509.SubjectKeyIdentifier)
    return wanted is None or present is None or wanted == present.digest


def is_signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Tell whether the key of `issuer` made the signature of `crl`."""
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


@dataclass(slots=True)
class HeldList:
    """A list that many connections are judged by: its signature is verified once, for a long list takes its time."""

    crl: x509.CertificateRevocationList
    _verified: dict[bytes, bool] = field(default_factory=dict)

    def is_genuine(self, issuer: x509.Certificate) -> bool:
        """Tell whether the key of `issuer` made its signature."""
        key = certificates.public_key_bytes(issuer)
        if key not in self._verified:
            if len(self._verified) >= _MOST_ISSUERS:
                self._verified.clear()
            self._verified[key] = is_signed_by(self.crl, issuer)
        return self._verified[key]


def judge_crl(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    held: HeldList,
    *,
    now: datetime.datetime,
    algorithms: Collection[str] = (),
) -> Answer:
    """Say what a list says of `certificate`, which `issuer` signed.

    `algorithms` are the signature pairs that count on lists, empty for any.
    """
    crl = held.crl
    if not certificates.is_issued_by(certificate, issuer):
        return Answer(Standing.UNKNOWN, "the certificate was signed by another authority")
    problem = _crl_problem(held, issuer, now=now)
    if problem is None or problem == OUT_OF_DATE:
        problem = _pair_problem("CRL", _crl_pair(crl), algorithms) or _scope_problem(certificate, crl) or problem
    if problem and problem != OUT_OF_DATE:
        return Answer(Standing.UNKNOWN, problem)
    entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    if entry is None:
        good = Answer(Standing.GOOD, "the CRL does not list it", crl.next_update_utc)
        return Answer(Standing.UNKNOWN, problem) if problem else good
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except (x509.ExtensionNotFound, *certificates.UNREADABLE):
        reason = x509.ReasonFlags.unspecified
    if problem and reason in (x509.ReasonFlags.certificate_hold, x509.ReasonFlags.remove_from_crl):
        return Answer(Standing.UNKNOWN, problem)
    # A list that is out of date still tells the truth about what it lists: but for a hold, nothing comes back.
    text = f"the CRL lists it since {entry.revocation_date_utc:%Y-%m-%d} ({reason.value})"
    return Answer(Standing.REVOKED, text, None if problem else crl.next_update_utc)


def crl_problem(crl: x509.CertificateRevocationList, issuer: x509.Certificate, *, now: datetime.datetime) -> str | None:
    """Say why `crl` is no list of what `issuer` revoked that counts at `now`, None when it is one."""
    return _crl_problem(HeldList(crl), issuer, now=now)


def _crl_problem(held: HeldList, issuer: x509.Certificate, *, now: datetime.datetime) -> str | None:
    try:
        return _crl_fault(held, issuer, now=now)
    except certificates.UNREADABLE as error:  # an extension of the list that cannot be decoded
        return f"the CRL is damaged: {error}"


def _crl_fault(held: HeldList, issuer: x509.Certificate, *, now: datetime.datetime) -> str | None:
    crl = held.crl
    if crl.issuer != issuer.subject:
        return "the CRL is of another authority"
    usage = certificates.extension_of(issuer, x509.KeyUsage)
    if usage is not None and not usage.crl_sign:
        return "the authority's key usage does not allow it to sign CRLs"
    if not held.is_genuine(issuer):
        return "the signature of the CRL is wrong"
    if crl.last_update_utc > now + _SKEW:
        return f"the CRL is from the future ({crl.last_update_utc:%Y-%m-%d %H:%M} UTC); check the clock"
    known = {x509.IssuingDistributionPoint.oid, x509.AuthorityKeyIdentifier.oid, x509.CRLNumber.oid}
    for extension in crl.extensions:
        if isinstance(extension.value, x509.DeltaCRLIndicator):
            return "the CRL holds changes only (a delta CRL)"
        if extension.critical and extension.oid not in known:
            return f"the CRL has a critical extension that is not understood ({extension.oid.dotted_string})"
    scope = _scope(crl)
    if scope is not None and (scope.indirect_crl or scope.only_some_reasons or scope.only_contains_attribute_certs):
        return "the CRL is indirect or partial"
    if crl.next_update_utc is None or crl.next_update_utc < now:
        return OUT_OF_DATE
    return None


def _scope(crl: x509.CertificateRevocationList) -> x509.IssuingDistributionPoint | None:
    try:
        return crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return None


def _crl_pair(crl: x509.CertificateRevocationList) -> str | None:
    try:
        return pair_of(crl.signature_algorithm_oid, crl.signature_hash_algorithm)
    except UnsupportedAlgorithm:
        return None


def _pair_problem(what: str, pair: str | None, algorithms: Collection[str]) -> str | None:
    if not algorithms or pair in algorithms:
        return None
    return f"the {what} is signed with {pair or 'an algorithm without a pair'}, which the policy does not list"


def _scope_problem(certificate: x509.Certificate, crl: x509.CertificateRevocationList) -> str | None:
    scope = _scope(crl)
    if scope is None:
        return None
    authority = certificates.is_authority(certificate)
    if (scope.only_contains_ca_certs and not authority) or (scope.only_contains_user_certs and authority):
        return "the CRL does not cover this kind of certificate"
    if scope.full_name:
        points = certificates.extension_of(certificate, x509.CRLDistributionPoints) or ()
        named = {name for point in points for name in point.full_name or ()}
        if not named & set(scope.full_name):
            return "the CRL is for another distribution point"
    return None


# OCSP --------------------------------------------------------------------------------------------------------------


def ocsp_request(certificate: x509.Certificate, issuer: x509.Certificate, *, nonce: bytes | None = None) -> bytes:
    """Ask (DER) about `certificate`, which `issuer` signed; with a `nonce` the answer cannot be an old one."""
    # SHA-1 names the authority here and protects nothing; it is the one hash that all responders know (RFC 5019).
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA1())  # noqa: S303
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(serialization.Encoding.DER)


def judge_ocsp(
    response: bytes,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    *,
    now: datetime.datetime,
    nonce: bytes | None = None,
    nonce_required: bool = False,
    algorithms: Collection[str] = (),
) -> Answer:
    """Say what the OCSP `response` (DER, fetched or stapled) says of `certificate`, which `issuer` signed.

    `nonce` is what was sent: another one in the response makes it doubtful, and with `nonce_required` none does too.
    `algorithms` are the signature pairs that count on answers, empty for any.
    """
    try:
        loaded = ocsp.load_der_ocsp_response(response)
        if loaded.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return Answer(Standing.UNKNOWN, f"the OCSP responder answered {loaded.response_status.name.lower()}")
        problem = (
            _signature_problem(loaded, issuer, now=now)
            or _pair_problem(
                "OCSP response", pair_of(loaded.signature_algorithm_oid, loaded.signature_hash_algorithm), algorithms
            )
            or _nonce_problem(loaded, nonce, nonce_required=nonce_required)
        )
        if problem:
            return Answer(Standing.UNKNOWN, problem)
        single = next((one for one in loaded.responses if _is_about(one, certificate, issuer)), None)
        if single is None:
            return Answer(Standing.UNKNOWN, "the OCSP response is about another certificate")
        return _judge_single(single, now=now)
    except (*certificates.UNREADABLE, TypeError) as error:
        return Answer(Standing.UNKNOWN, f"the OCSP response is damaged: {error}")


def _judge_single(single: ocsp.OCSPSingleResponse, *, now: datetime.datetime) -> Answer:
    begins, ends = single.this_update_utc, single.next_update_utc
    if begins > now + _SKEW:
        return Answer(Standing.UNKNOWN, "the OCSP response is from the future; check the clock")
    if (ends or begins + _WITHOUT_END) < now - _SKEW:
        return Answer(Standing.UNKNOWN, "the OCSP response is out of date")
    if single.certificate_status is ocsp.OCSPCertStatus.GOOD:
        return Answer(Standing.GOOD, "the OCSP responder says good", ends)
    if single.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        reason = single.revocation_reason.value if single.revocation_reason else "no reason given"
        when = single.revocation_time_utc
        since = f" since {when:%Y-%m-%d}" if when else ""
        return Answer(Standing.REVOKED, f"the OCSP responder says revoked{since} ({reason})", ends)
    return Answer(Standing.UNKNOWN, "the OCSP responder does not know the certificate")


def _is_about(single: ocsp.OCSPSingleResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if single.serial_number != certificate.serial_number:
        return False
    asked = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, single.hash_algorithm).build()
    return (asked.issuer_name_hash, asked.issuer_key_hash) == (single.issuer_name_hash, single.issuer_key_hash)


def _nonce_problem(response: ocsp.OCSPResponse, nonce: bytes | None, *, nonce_required: bool) -> str | None:
    if nonce is None:
        return None
    try:
        found = response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return "the OCSP response lacks the nonce that was sent" if nonce_required else None
    return None if found == nonce else "the OCSP response carries another nonce than was sent; it may be replayed"


def _signature_problem(response: ocsp.OCSPResponse, issuer: x509.Certificate, *, now: datetime.datetime) -> str | None:
    responder = _responder(response, issuer, now=now)
    if responder is None:
        return "the OCSP response is signed by somebody whom the authority did not appoint"
    public = responder.public_key()
    algorithm = response.signature_hash_algorithm
    try:
        match public:
            case rsa.RSAPublicKey() if algorithm:
                public.verify(response.signature, response.tbs_response_bytes, padding.PKCS1v15(), algorithm)
            case ec.EllipticCurvePublicKey() if algorithm:
                public.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(algorithm))
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                public.verify(response.signature, response.tbs_response_bytes)
            case _:
                return "the OCSP response is signed with an algorithm that is not supported"
    except InvalidSignature:
        return "the signature of the OCSP response is wrong"
    return None


def _responder(
    response: ocsp.OCSPResponse, issuer: x509.Certificate, *, now: datetime.datetime
) -> x509.Certificate | None:
    """Find who signed: the authority itself, or somebody it certified for OCSP signing and nobody else."""
    if _names(response, issuer):
        return issuer
    for candidate in response.certificates:
        usages = certificates.extension_of(candidate, x509.ExtendedKeyUsage)
        if (
            _names(response, candidate)
            and usages is not None
            and ExtendedKeyUsageOID.OCSP_SIGNING in usages
            and candidate.not_valid_before_utc <= now + _SKEW
            and now <= candidate.not_valid_after_utc
            and certificates.is_issued_by(candidate, issuer)
        ):
            return candidate
    return None


def _names(response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    if response.responder_name is not None:
        return response.responder_name == certificate.subject
    digest = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
    return response.responder_key_hash == digest


def answer_ocsp(
    request: bytes,
    *,
    issuer: x509.Certificate,
    signer: Signer,
    known: Mapping[int, Revocation | None],
    now: datetime.datetime,
    lifetime: datetime.timedelta | None,
) -> bytes:
    """Answer an OCSP request (DER) as the responder of `issuer`; the answer (DER) may be sent or stapled.

    `signer` is the authority itself or a responder it certified; `known` maps the serial numbers it issued to their
    revocation or None. A request that cannot be read or is about another authority is answered as RFC 6960 says.
    """
    try:
        asked = ocsp.load_der_ocsp_request(request)
        about = _as_asked(asked, issuer)
        _ = asked.extensions
    except certificates.UNREADABLE:
        return _failure(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
    if not about:
        return _failure(ocsp.OCSPResponseStatus.UNAUTHORIZED)
    revocation = known.get(asked.serial_number)
    status = ocsp.OCSPCertStatus.GOOD
    if asked.serial_number not in known:
        status = ocsp.OCSPCertStatus.UNKNOWN
    elif revocation is not None:
        status = ocsp.OCSPCertStatus.REVOKED
    builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
        issuer_name_hash=asked.issuer_name_hash,
        issuer_key_hash=asked.issuer_key_hash,
        serial_number=asked.serial_number,
        algorithm=asked.hash_algorithm,
        cert_status=status,
        this_update=now,
        next_update=now + lifetime if lifetime else None,
        revocation_time=revocation.when if revocation else None,
        revocation_reason=revocation.reason if revocation else None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    if signer.certificate != issuer:
        builder = builder.certificates([signer.certificate])
    try:
        nonce = asked.extensions.get_extension_for_class(x509.OCSPNonce)
        builder = builder.add_extension(nonce.value, critical=False)
    except x509.ExtensionNotFound:
        pass
    made = builder.sign(signer.private_key, certificates.signature_hash(signer.private_key))
    return made.public_bytes(serialization.Encoding.DER)


def _as_asked(asked: ocsp.OCSPRequest, issuer: x509.Certificate) -> bool:
    expected = (
        ocsp.OCSPRequestBuilder()
        .add_certificate(issuer, issuer, asked.hash_algorithm)  # only the hashes of the authority are compared
        .build()
    )
    return (expected.issuer_name_hash, expected.issuer_key_hash) == (asked.issuer_name_hash, asked.issuer_key_hash)


def _failure(status: ocsp.OCSPResponseStatus) -> bytes:
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(serialization.Encoding.DER)


def responder_profile(subject: x509.Name, days: int) -> certificates.Profile:
    """Return the profile of a certificate that may answer OCSP requests for the authority that signs it."""
    return certificates.Profile(
        subject=subject,
        days=days,
        purposes=("ocsp",),
        # RFC 6960 4.2.2.2.1: nobody shall ask whether the responder itself is revoked.
        extra=(x509.Extension(x509.OCSPNoCheck.oid, False, x509.OCSPNoCheck()),),
    )


def first_definite(answers: Sequence[Answer]) -> Answer | None:
    """Return the first answer that settles the matter, None when none does; later sources need not be asked."""
    return next((one for one in answers if one.standing in {Standing.GOOD, Standing.REVOKED}), None)
