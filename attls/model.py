"""The nouns that every room uses: endpoints, flows, owners, rule conditions, TLS settings, verdicts.

Everything here is a frozen value without behaviour beyond reading itself. Addresses inside the house are always
canonical: an IPv4-mapped IPv6 address is turned into IPv4 once, at the edge, by `canonical_address`.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Known:
    # An address that comes back: its text and hash, for which each connection asks, are worked out once. Equal to, and
    # hashed like, the library's own.

    def __init__(self, address: object) -> None:
        super().__init__(address)  # type: ignore[call-arg]
        self._text = super().__str__()
        self._hash = super().__hash__()

    def __str__(self) -> str:
        return self._text

    def __hash__(self) -> int:
        return self._hash


class _KnownV4(_Known, ipaddress.IPv4Address):
    pass


class _KnownV6(_Known, ipaddress.IPv6Address):
    pass


@lru_cache(maxsize=4096)  # asked twice for every connection, and peers come back
def canonical_address(text: str) -> Address:
    """Return the address that `text` names, IPv4-mapped IPv6 turned into IPv4 and a zone id (`%eth0`) dropped.

    Raises ValueError when `text` is no IP address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return _KnownV4(address)
    return _KnownV6(address) if address.ipv4_mapped is None else _KnownV4(address.ipv4_mapped)


class Direction(enum.Enum):
    """Who opened the connection: `Inbound` came from accept, `Outbound` from connect."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"

    __hash__ = object.__hash__  # the enumeration's own is Python code, and every connection looks things up by this


class Defaults(enum.Enum):
    """What a silent policy means: today's TLS (`modern`) or exactly what z/OS does (`zos`)."""

    MODERN = "modern"
    ZOS = "zos"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a TCP connection; `port` is 0 where it is not known."""

    address: Address
    port: int

    def __str__(self) -> str:
        """Write `192.0.2.1:443` or `[2001:db8::1]:443`."""
        if self.address.version == 6:
            return f"[{self.address}]:{self.port}"
        return f"{self.address}:{self.port}"

    @classmethod
    def of(cls, name: tuple[Any, ...]) -> Endpoint:
        """Build an endpoint from a socket name such as `("::ffff:192.0.2.1", 443, 0, 0)`."""
        return cls(canonical_address(name[0]), name[1])


@dataclass(frozen=True, slots=True)
class Flow:
    """One connection as the local program sees it: its own end, the peer's end, who opened it."""

    direction: Direction
    local: Endpoint
    remote: Endpoint


class JobSource(enum.Enum):
    """Which fact a job name rests on; the first two come from the kernel and cannot be chosen by the program."""

    UNIT = "systemd unit"
    CONTAINER = "container"
    EXECUTABLE = "executable file"
    GIVEN = "given"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Owner:
    """The process behind a connection, as far as it could be told; `None` matches no condition.

    `inode` identifies the socket, `start_time` (seconds since the epoch) guards against a reused `pid`.
    """

    uid: int | None = None
    user: str | None = None
    pid: int | None = None
    job: str | None = None
    job_source: JobSource = JobSource.UNKNOWN
    start_time: float | None = None
    inode: int | None = None


UNKNOWN_OWNER = Owner()


@dataclass(frozen=True, slots=True, order=True)
class AddressRange:
    """An inclusive range of addresses of one IP version (4 or 6), ends as integers."""

    version: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """An inclusive range of TCP ports."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class TimeCondition:
    """One IpTimeCondition: every part must hold, in local time; masks are read as tuples of bools.

    `months`: 12, January first. `days_from_first` and `days_from_last`: 31 each; a day matches when either half names
    it. `weekdays`: 7, Sunday first. `daily`: windows in minutes after midnight, end exclusive; a window whose end lies
    before its start crosses midnight. `begins` and `ends`: validity period, naive local time, both inclusive.
    """

    months: tuple[bool, ...] = (True,) * 12
    days_from_first: tuple[bool, ...] = (True,) * 31
    days_from_last: tuple[bool, ...] = (True,) * 31
    weekdays: tuple[bool, ...] = (True,) * 7
    daily: tuple[tuple[int, int], ...] = ((0, 24 * 60),)
    begins: datetime | None = None
    ends: datetime | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a TTLSRule asks of a connection; `None` or an empty tuple means "not looked at".

    Values within one field are alternatives, fields must all hold. `job` and `user` are upper-cased patterns in which
    `*` and `?` are wildcards.
    """

    directions: frozenset[Direction]
    local_addresses: tuple[AddressRange, ...] = ()
    remote_addresses: tuple[AddressRange, ...] = ()
    local_ports: tuple[PortRange, ...] = ()
    remote_ports: tuple[PortRange, ...] = ()
    job: str | None = None
    user: str | None = None
    times: tuple[TimeCondition, ...] = ()


class HandshakeRole(enum.Enum):
    """Which side of the TLS handshake the local end plays, independent of who connected."""

    CLIENT = "Client"
    SERVER = "Server"
    SERVER_WITH_CLIENT_AUTH = "ServerWithClientAuth"


class ClientAuthType(enum.Enum):
    """What a ServerWithClientAuth end demands of the client certificate."""

    PASS_THRU = "PassThru"  # noqa: S105 - no password
    FULL = "Full"
    REQUIRED = "Required"
    SAF_CHECK = "SAFCheck"


class Demand(enum.Enum):
    """How far one end insists on an extension: not used, used if the peer can, or no handshake without it."""

    OFF = "Off"
    OPTIONAL = "Optional"
    REQUIRED = "Required"


class Protocol(enum.IntEnum):
    """Protocol versions by their number on the wire."""

    SSLV2 = 0x0200
    SSLV3 = 0x0300
    TLSV1 = 0x0301
    TLSV1_1 = 0x0302
    TLSV1_2 = 0x0303
    TLSV1_3 = 0x0304


def without_gap(protocols: Iterable[Protocol]) -> frozenset[Protocol]:
    """Return the newest of `protocols` down to the first that is missing: what a client here can offer.

    The TLS library offers everything from an oldest to a newest version; with a gap it would take the older part.
    """
    kept: set[Protocol] = set()
    for protocol in sorted(protocols, reverse=True):
        if kept and protocol + 1 not in kept:
            break
        kept.add(protocol)
    return frozenset(kept)


@dataclass(frozen=True, slots=True)
class Revocation:
    """How certificates are asked about: OCSP, lists by HTTP, lists by LDAP; times are seconds, sizes bytes.

    `level` says what happens when no source answers: Low accepts, Medium accepts if there is no list, High refuses.
    `ocsp_algorithms` and `list_algorithms` are the signature pairs that count, empty for any. Requests are signed with
    the certificate `ocsp_signer`, None for not at all. `staples` is about our own certificate: a server hands out what
    its responder says of it. Places are addresses that a certificate names.
    """

    ocsp_url: str | None = None
    ocsp_from_certificate: bool = False
    ocsp_url_first: bool = True
    ocsp_proxy: str | None = None
    ocsp_proxy_port: int = 80
    ocsp_by_get: bool = False
    ocsp_nonce: bool = False
    ocsp_nonce_required: bool = False
    ocsp_nonce_size: int = 8
    ocsp_timeout: int = 15
    ocsp_maximum_size: int = 20480
    ocsp_signer: str | None = None
    ocsp_signer_algorithm: str = "0401"
    ocsp_algorithms: tuple[str, ...] = ()
    ocsp_cache_size: int = 256
    ocsp_cache_size_each: int = 0
    staples: bool = False
    lists_by_http: bool = False
    http_proxy: str | None = None
    http_proxy_port: int = 80
    http_timeout: int = 15
    http_maximum_size: int = 204800
    list_algorithms: tuple[str, ...] = ()
    list_cache_size: int = 32
    list_cache_largest: int = 0
    ldap_servers: tuple[str, ...] = ()
    ldap_port: int = 389
    ocsp_first: bool = True
    places_each: int = 10
    places_in_all: int = 100
    level: str = "Medium"

    @property
    def asks(self) -> bool:
        """Whether some source is to be asked about the peer's certificates."""
        return bool(self.ocsp_url or self.ocsp_from_certificate or self.lists_by_http or self.ldap_servers)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Everything a rule's actions say about TLS, after connection over environment over group was applied.

    `ciphers` are four-character IANA codes in order of preference, empty for the library's default list.
    `certificate_label` is None for the ring's default certificate and `""` for "present no certificate".
    Groups and curves are IANA group numbers in preference order, signature pairs four-character codes; empty
    means the library's default. `certificate_curves` are the only kinds of key that certificates of both ends may have,
    empty for any. Times are seconds. `instance` holds the user-instance numbers, so that raising one
    makes the settings differ. `reset_cipher_timer` is in seconds too, 0 for never. `server_sni` pairs host names with
    certificate labels. A maximum fragment of 0 is the protocol's own. `revocation` is None where policy says nothing
    about it. Equal settings share one TLS environment.
    """

    role: HandshakeRole
    keyring: str
    protocols: frozenset[Protocol]
    keyring_password: str | None = field(default=None, repr=False)
    keyring_stash_file: str | None = None
    ciphers: tuple[str, ...] = ()
    certificate_label: str | None = None
    server_certificate_labels: tuple[str, ...] = ()
    client_auth: ClientAuthType = ClientAuthType.REQUIRED
    application_controlled: bool = False
    handshake_timeout: int = 10
    client_curves: tuple[int, ...] = ()
    client_key_share_groups: tuple[int, ...] = ()
    server_kex_curves: tuple[int, ...] = ()
    server_key_share_groups: tuple[int, ...] = ()
    signature_pairs: tuple[str, ...] = ()
    sni_names: tuple[str, ...] = ()
    sni_required: bool = False
    host_reference_dns: str | None = None
    host_reference_cn: str | None = None
    host_wildcards: bool = True
    peer_minimum_rsa_bits: int = 0
    peer_minimum_ecc_bits: int = 0
    session_timeout: int = 86400
    session_cache_size: int = 512
    client_tickets: bool = True
    server_tickets: bool = True
    server_ticket_count: int = 2
    secondary_map: bool = False
    instance: tuple[int | None, ...] = ()
    signature_pairs_cert: tuple[str, ...] = ()
    certificate_curves: tuple[int, ...] = ()
    middlebox_compat: bool = False
    reset_cipher_timer: int = 0
    renegotiation: str = "Default"
    renegotiation_indicator: str = "Optional"
    renegotiation_same_certificate: bool = False
    sni_match_required: bool = False
    server_sni: tuple[tuple[str, str], ...] = ()
    server_sni_demand: Demand = Demand.OFF
    server_sni_match_required: bool = False
    client_maximum_fragment: int = 0
    client_fragment_demand: Demand = Demand.OFF
    server_fragment_demand: Demand = Demand.OFF
    client_extended_master_secret: Demand = Demand.OPTIONAL
    server_extended_master_secret: Demand = Demand.OPTIONAL
    certificate_validation: str = "Any"
    peer_minimum_certificate_version: int = 1
    peer_minimum_dh_bits: int = 0
    peer_minimum_dsa_bits: int = 0
    client_dh_group: str = "Legacy"
    server_dh_group: str = "Legacy"
    triple_des_key_check: bool = False
    refuse_fallback: bool = False
    client_ticket_maximum_size: int = 8192
    client_tickets_kept: int | None = None
    server_ticket_algorithm: str = "AESCBC128"
    server_ticket_key_lifetime: int = 300
    server_ticket_lifetime: int = 300
    revocation: Revocation | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What policy says of one connection.

    `rule` is None where no rule matched. `settings` is set exactly when `enabled`, i.e. the rule's group action says
    TTLSEnabled On. `trace` is the effective Trace mask.
    """

    rule: str | None = None
    enabled: bool = False
    group: str | None = None
    environment: str | None = None
    connection: str | None = None
    trace: int = 2
    settings: TlsSettings | None = None

    @property
    def tls(self) -> str:
        """Say `on`, `off` or `no-rule`, the words of `policy explain`."""
        if self.rule is None:
            return "no-rule"
        return "on" if self.enabled else "off"


NO_RULE = Verdict()
