"""From a peer's certificate to a user id: registration, name filters, hostIdMappings, in that order.

Theory of operation. `UserMap` is a frozen value with everything the decision needs, so that a worker process can
decide without touching the store, and `UserMap.find` returns the answer together with the walk that led to it: the
explanation and the decision are one function. Names are compared part by part as the certificate encodes them, never
as joined text: a common name of `x.O=Example` must not pass for an organisation.

Order and specificity follow RACF (Security Administrator's Guide, certificate name filtering). What is not judged
here: dates, signatures up to the root and revocation; the handshake did that before anybody asks for a user.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from attls.errors import KeyringError
from attls.keyring import certificates, names
from attls.keyring.values import Trust

MULTIID = "MULTIID"
"""Owner of filters whose user comes from criteria."""

_LONGEST_FILTER = 255

_ATTRIBUTES = {
    "CN": NameOID.COMMON_NAME,
    "T": NameOID.TITLE,
    "TITLE": NameOID.TITLE,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "L": NameOID.LOCALITY_NAME,
    "SP": NameOID.STATE_OR_PROVINCE_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "S": NameOID.STATE_OR_PROVINCE_NAME,
    "C": NameOID.COUNTRY_NAME,
    "STREET": NameOID.STREET_ADDRESS,
    "PC": NameOID.POSTAL_CODE,
    "POSTALCODE": NameOID.POSTAL_CODE,
    "DC": NameOID.DOMAIN_COMPONENT,
    "UID": NameOID.USER_ID,
    "MAIL": NameOID.EMAIL_ADDRESS,
    "EMAIL": NameOID.EMAIL_ADDRESS,
    "E": NameOID.EMAIL_ADDRESS,
    "EMAILADDRESS": NameOID.EMAIL_ADDRESS,
    "SERIALNUMBER": NameOID.SERIAL_NUMBER,
    "DNQ": NameOID.DN_QUALIFIER,
    "DNQUALIFIER": NameOID.DN_QUALIFIER,
    "SN": NameOID.SURNAME,
    "SURNAME": NameOID.SURNAME,
    "GIVENNAME": NameOID.GIVEN_NAME,
}
_SHORT: dict[str, str] = {}
for _word, _oid in _ATTRIBUTES.items():
    _SHORT.setdefault(_oid.dotted_string, _word)

_KEYWORD = "|".join(sorted(_ATTRIBUTES, key=len, reverse=True)) + r"|OID\.[0-9.]+"
_COMMA = re.compile(rf"\s*,\s*(?=(?:{_KEYWORD})\s*=)", re.IGNORECASE)
_DOT = re.compile(rf"\.(?=(?:{_KEYWORD})\s*=)", re.IGNORECASE)
_PLUS = re.compile(rf"\s*\+\s*(?=(?:{_KEYWORD})\s*=)", re.IGNORECASE)

Part = frozenset[tuple[str, str]]
"""One relative distinguished name: attribute numbers (dotted) with their values."""


@dataclass(frozen=True, slots=True)
class NameFilter:
    """The end of a distinguished name, least specific part first, as certificates encode it."""

    parts: tuple[Part, ...]

    @classmethod
    def read(cls, text: str) -> NameFilter:
        """Read `OU=Pay.O=Example.C=DE` (as RACF writes it) or `OU=Pay,O=Example,C=DE`, most specific part first.

        Raises KeyringError when it is neither.
        """
        if not text.strip() or len(text) > _LONGEST_FILTER:
            raise KeyringError(f"a name filter has 1 to {_LONGEST_FILTER} characters, this one has {len(text)}")
        if not text.isprintable():
            raise KeyringError(f"name filter {text!r} holds characters that cannot be printed")
        pieces = _COMMA.split(text.strip())
        if len(pieces) == 1:
            pieces = _DOT.split(text.strip())
        return cls(tuple(_read_part(piece, text) for piece in reversed(pieces)))

    @classmethod
    def of(cls, name: x509.Name) -> NameFilter:
        """Return the filter that is exactly `name`."""
        return cls(tuple(frozenset((item.oid.dotted_string, _text(item.value)) for item in part) for part in name.rdns))

    @classmethod
    def from_items(cls, items: list[list[str]]) -> NameFilter:
        """Rebuild a filter from `items`. Raises KeyringError when one of them is malformed."""
        if not items or not all(isinstance(part, list) and part for part in items):
            raise KeyringError("a name filter is a list of lists such as [['OU=Pay'], ['O=Example']]")
        return cls(tuple(frozenset(_attribute(item) for item in part) for part in reversed(items)))

    def items(self) -> list[list[str]]:
        """Return the parts as lists of `ATTRIBUTE=value`, most specific first; unlike the text it cannot be misread."""
        return [
            sorted(f"{_SHORT.get(oid, f'OID.{oid}')}={value}" for oid, value in part) for part in reversed(self.parts)
        ]

    def matches(self, name: NameFilter) -> bool:
        """Tell whether `name` ends in this filter (the filter's parts are the least specific ones of the name)."""
        return name.parts[: len(self.parts)] == self.parts

    def __str__(self) -> str:
        """Write it as RACF does, most specific part first."""
        return ".".join("+".join(part) for part in self.items())


def _read_part(piece: str, text: str) -> Part:
    try:
        return frozenset(_read_item(item) for item in _PLUS.split(piece))
    except KeyringError as error:
        raise KeyringError(f"name filter '{text}': {error}") from error


def _read_item(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not value.strip():
        raise KeyringError(f"'{item}' is not like O=Example; write e.g. OU=Pay.O=Example.C=DE")
    return _attribute(f"{key.strip()}{equals}{value.strip()}")


def _attribute(item: str) -> tuple[str, str]:
    """Split `ATTRIBUTE=value`, where the value counts as it stands: a certificate may have blanks around it."""
    key, equals, value = item.partition("=")
    oid = _ATTRIBUTES.get(key.upper())
    try:
        oid = oid or x509.ObjectIdentifier(key.upper().removeprefix("OID."))
    except ValueError:
        oid = None
    if oid is None or not equals:
        raise KeyringError(f"'{item}' is not like O=Example; write e.g. OU=Pay.O=Example.C=DE")
    return oid.dotted_string, value


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


@dataclass(frozen=True, slots=True)
class MapFilter:
    """A rule that gives certificates with matching names a user; None as `user` means: look the criteria up.

    A filter on both names demands the whole issuer name, as on z/OS: otherwise any authority could say anything.
    """

    label: str
    user: str | None
    subject: NameFilter | None = None
    issuer: NameFilter | None = None
    trust: Trust = Trust.TRUST
    criteria: str | None = None

    @property
    def owner(self) -> str:
        """Say under which owner the filter is kept."""
        return self.user if self.user is not None else MULTIID

    def rank(self, subject: NameFilter, issuer: NameFilter) -> tuple[int, int, int] | None:
        """Return how specific the match is (lowest first), None when the names do not match."""
        if self.subject is not None and not self.subject.matches(subject):
            return None
        if self.issuer is not None and not self.issuer.matches(issuer):
            return None
        full_subject = self.subject is not None and self.subject == subject
        full_issuer = self.issuer is not None and self.issuer == issuer
        if self.subject is not None and self.issuer is not None:
            if not full_issuer:
                return None
            kind = 0 if full_subject else 1
        elif self.subject is not None:
            kind = 2 if full_subject else 3
        else:
            kind = 4 if full_issuer else 5
        lengths = (len(part.parts) if part else 0 for part in (self.subject, self.issuer))
        return kind, *(-length for length in lengths)  # type: ignore[return-value]


CLASSES = (
    "whole subject and whole issuer",
    "part of the subject and whole issuer",
    "whole subject",
    "part of the subject",
    "whole issuer",
    "part of the issuer",
)


class Way(Enum):
    """How a certificate came to its user."""

    REGISTERED = "registered"
    FILTER = "filter"
    HOST_ID = "host-id"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was looked at, whether it decided, and why or why not."""

    what: str
    matched: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The user a certificate stands for, None for nobody; how that was found; and the walk."""

    user: str | None
    way: Way
    label: str | None = None
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Registered:
    """A certificate of the store that belongs to a user; `fingerprint` is SHA-256."""

    fingerprint: bytes
    user: str
    label: str
    trust: Trust


@dataclass(frozen=True, slots=True)
class Criterion:
    """What a criteria text with its variables filled in stands for; `pattern` may hold `*` and `?`."""

    pattern: str
    user: str

    def fits(self, text: str) -> bool:
        """Tell whether the filled-in criteria `text` (upper case) fits the pattern."""
        parts = (re.escape(part) for part in re.split(r"([*?])", self.pattern.upper()))
        return re.fullmatch("".join(parts).replace(r"\*", ".*").replace(r"\?", "."), text, re.DOTALL) is not None


@dataclass(frozen=True, slots=True)
class UserMap:
    """All that turns certificates into users; `host_authorities` are DER of the HIGHTRUST authorities.

    `host_names` are the hosts whose hostIdMappings count here.
    """

    registered: tuple[Registered, ...] = ()
    filters: tuple[MapFilter, ...] = ()
    criteria: tuple[Criterion, ...] = ()
    host_authorities: tuple[bytes, ...] = ()
    host_names: frozenset[str] = frozenset()

    def find(self, certificate: bytes, *, job: str = "", system: str = "") -> Answer:
        """Return the user that `certificate` (DER) stands for.

        `job` and `system` fill the variables `&APPLID` and `&SYSID` of criteria. Raises KeyringError (103) when the
        bytes are no certificate.
        """
        loaded = certificates.load_certificate(certificate)
        steps: list[Step] = []
        print_ = loaded.fingerprint(hashes.SHA256())
        for entry in self.registered:
            if entry.fingerprint == print_:
                return self._registered(entry, steps)
        steps.append(
            Step("registration", False, f"none of the {len(self.registered)} registered certificates is this one")
        )
        found = self._filtered(loaded, steps, job=job, system=system)
        return found or self._host_id(loaded, steps)

    def _registered(self, entry: Registered, steps: list[Step]) -> Answer:
        what = f"registration '{entry.label}' of {entry.user}"
        if entry.trust is Trust.NOTRUST:
            steps.append(Step(what, True, "it is this very certificate, but marked NOTRUST: no user"))
            return Answer(None, Way.NONE, None, tuple(steps))
        steps.append(Step(what, True, "it is this very certificate"))
        return Answer(entry.user, Way.REGISTERED, entry.label, tuple(steps))

    def _filtered(self, certificate: x509.Certificate, steps: list[Step], *, job: str, system: str) -> Answer | None:
        subject, issuer = NameFilter.of(certificate.subject), NameFilter.of(certificate.issuer)
        ranked = [(entry.rank(subject, issuer), entry) for entry in self.filters]
        for rank, entry in ranked:
            if rank is None:
                steps.append(Step(_filter_name(entry), False, _why_not(entry, subject, issuer)))
        hits = sorted(
            ((rank, entry) for rank, entry in ranked if rank is not None), key=lambda hit: (hit[0], hit[1].label)
        )
        for rank, entry in hits:
            name, reason = _filter_name(entry), f"matches {CLASSES[rank[0]]}"
            if entry.trust is Trust.NOTRUST:
                steps.append(Step(name, False, f"{reason}, but is marked NOTRUST"))
                continue
            user = entry.user
            if user is None:
                text = _filled(entry.criteria or "", job=job, system=system)
                user = next((one.user for one in self.criteria if one.fits(text)), None)
                if user is None:
                    steps.append(Step(name, False, f"{reason}, but no criterion fits '{text}'"))
                    continue
                reason += f", and criterion '{text}' stands for {user}"
            steps.append(Step(name, True, reason))
            return Answer(user, Way.FILTER, entry.label, tuple(steps))
        return None

    def _host_id(self, certificate: x509.Certificate, steps: list[Step]) -> Answer:
        try:
            pairs = host_id_mappings(certificate)
        except KeyringError as error:
            steps.append(Step("hostIdMappings", False, str(error)))
            return Answer(None, Way.NONE, None, tuple(steps))
        if not pairs:
            steps.append(Step("hostIdMappings", False, "the certificate has no such extension"))
            return Answer(None, Way.NONE, None, tuple(steps))
        authorities = [certificates.load_certificate(one) for one in self.host_authorities]
        if not any(certificates.is_issued_by(certificate, authority) for authority in authorities):
            steps.append(
                Step("hostIdMappings", False, "the certificate's issuer is no HIGHTRUST authority of the store")
            )
            return Answer(None, Way.NONE, None, tuple(steps))
        for host, user in pairs:
            if host.casefold() in self.host_names:
                steps.append(Step("hostIdMappings", True, f"names {user} on {host}, from a HIGHTRUST authority"))
                return Answer(user, Way.HOST_ID, None, tuple(steps))
        hosts = ", ".join(host for host, _ in pairs)
        here = ", ".join(sorted(self.host_names)) or "none"
        steps.append(Step("hostIdMappings", False, f"it is for {hosts}; hosts that count here: {here}"))
        return Answer(None, Way.NONE, None, tuple(steps))


def _filter_name(entry: MapFilter) -> str:
    return f"filter '{entry.label}' of {entry.owner}"


def _why_not(entry: MapFilter, subject: NameFilter, issuer: NameFilter) -> str:
    if entry.subject is not None and not entry.subject.matches(subject):
        return f"the subject {subject} does not end in {entry.subject}"
    if entry.subject is not None and entry.issuer is not None and entry.issuer.matches(issuer):
        return f"beside a subject filter the issuer must match as a whole: {issuer} is more than {entry.issuer}"
    return f"the issuer {issuer} does not end in {entry.issuer}"


def _filled(criteria: str, *, job: str, system: str) -> str:
    text = re.sub(r"&APPLID\b", lambda _: job, criteria, flags=re.IGNORECASE)
    return re.sub(r"&SYSID\b", lambda _: system, text, flags=re.IGNORECASE).upper()


def check_filter(entry: MapFilter) -> None:
    """Raise KeyringError unless `entry` says something that can match."""
    names.check_label(entry.label)
    if entry.subject is None and entry.issuer is None:
        raise KeyringError("a filter needs a subject or an issuer, or it would match every certificate")
    if (entry.user is None) == (entry.criteria is None):
        raise KeyringError("a filter leads either to a user or to criteria")
    if entry.criteria is not None and not entry.criteria.isprintable():
        raise KeyringError(f"criteria {entry.criteria!r} hold characters that cannot be printed")
    if entry.trust is Trust.HIGHTRUST:
        raise KeyringError("a filter is TRUST or NOTRUST")
    if entry.user is not None and names.check_owner(entry.user) in {names.CERTAUTH, names.SITE, MULTIID}:
        raise KeyringError(f"{entry.user} is no user that a certificate could stand for")


def from_model(model: x509.Name, start: str) -> NameFilter:
    """Return the end of the model certificate's name `model` that begins with the text `start`.

    Raises KeyringError when the name does not hold `start`, as RACF does with IRRD141I.
    """
    wanted = NameFilter.read(start)
    whole = NameFilter.of(model)
    for length in range(len(whole.parts), 0, -1):
        part = whole.parts[:length]
        if part[len(part) - len(wanted.parts) :] == wanted.parts:
            return NameFilter(part)
    raise KeyringError(f"'{start}' does not occur in the model's name {whole}")


def local_host_names() -> frozenset[str]:
    """Return the names under which this machine knows itself, folded; no name server is asked."""
    name = socket.gethostname().casefold()
    return frozenset({name, name.partition(".")[0]} - {""})


# hostIdMappings ----------------------------------------------------------------------------------------------------
# HostIdMappings ::= SET OF SEQUENCE { hostName [1] IA5String, subjectId [2] IA5String, proof OPTIONAL }, implicit tags


def host_id_extension(pairs: list[tuple[str, str]]) -> x509.Extension[x509.ExtensionType]:
    """Build the extension that says: on host (first) the holder is user (second). Not critical, as IBM asks."""
    entries = sorted(
        _element(0x30, _element(0x81, host.encode("ascii")) + _element(0x82, user.encode("ascii")))
        for host, user in pairs
    )
    content = x509.UnrecognizedExtension(certificates.HOST_ID_MAPPINGS, _element(0x31, b"".join(entries)))
    return x509.Extension(certificates.HOST_ID_MAPPINGS, False, content)


def host_id_mappings(certificate: x509.Certificate) -> list[tuple[str, str]]:
    """Return host and user of each mapping in the certificate, [] without the extension.

    Raises KeyringError when the extension is damaged.
    """
    try:
        extension = certificate.extensions.get_extension_for_oid(certificates.HOST_ID_MAPPINGS)
    except x509.ExtensionNotFound:
        return []
    if not isinstance(extension.value, x509.UnrecognizedExtension):
        return []
    try:
        pairs = []
        for tag, mapping in _elements(_only(extension.value.value, 0x31)):
            if tag != 0x30:
                raise ValueError("no sequence")
            fields = dict(_elements(mapping))
            pairs.append((fields[0x81].decode("ascii"), fields[0x82].decode("ascii")))
    except (ValueError, KeyError, IndexError) as error:
        raise KeyringError("the hostIdMappings extension is damaged", 10) from error
    for host, user in pairs:
        names.check_owner(user)
        if not host.isprintable():
            raise KeyringError("the hostIdMappings extension is damaged", 10)
    return pairs


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        header, size = 2, data[1]
        if size & 0x80:
            count = size & 0x7F
            if not 1 <= count <= 3:
                raise ValueError("length")
            header, size = 2 + count, int.from_bytes(data[2 : 2 + count])
        if len(data) < header + size:
            raise ValueError("cut off")
        found.append((data[0], data[header : header + size]))
        data = data[header + size :]
    return found


def _only(data: bytes, tag: int) -> bytes:
    ((found, content),) = _elements(data)
    if found != tag:
        raise ValueError("tag")
    return content
