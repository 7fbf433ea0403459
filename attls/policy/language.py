"""The vocabulary of the policy language as one table: a row for every parameter of every statement.

Reading, checking, defaults, displays and the documentation page all take what they know from here, so a parameter is
added by adding its row. A row says what the parameter is called, how its value is written, what silence means on
z/OS and under our own `modern` defaults, how often it may be coded, and what it does. Where this system cannot do
what z/OS does, the row says what happens instead, and whether that would weaken security (then it is refused).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from attls.model import Defaults
from attls.policy import codes

Value = str | int | tuple[str, ...] | tuple[int, ...]


class Kind(enum.Enum):
    """How the value of a parameter is written; the text is the one in the documentation."""

    BLOCK = "block"
    REF = "name of a statement"
    CHOICE = "one word of"
    NUMBER = "number"
    ADDRESSES = "address, address/prefix, first-last or All"
    ADDRESS = "address"
    ADDRESS_PREFIX = "address/prefix"
    ADDRESS_RANGE = "first-last"
    PORTS = "port or first-last, 1-65535"
    PATTERN = "name with `*` and `?` as wildcards"
    TEXT = "text without blanks"
    LABEL = "certificate label, in double quotes if it has blanks"
    EMPTY_LABEL = "certificate label, or nothing"
    HOST = "host name"
    NAME_AND_LABEL = "host name and certificate label"
    URL = "http URL"
    V2_CIPHERS = "1-character codes or one name"
    CIPHERS = "2-character codes or one name"
    CIPHERS_4 = "4-character codes or one name"
    GROUPS = "4-digit codes or one name"
    CLIENT_GROUPS = "4-digit codes, one name, or Any"
    PAIRS = "4-digit pairs or one name"
    PAIR = "one 4-digit pair or name"
    MONTHS = "12 digits 0 or 1, January first"
    DAYS = "31 or 62 digits 0 or 1"
    WEEKDAYS = "7 digits 0 or 1, Sunday first"
    DAILY = "hh:mm-hh:mm, more windows after commas"
    PERIOD = "yyyymmddhhmmss:yyyymmddhhmmss"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row of the vocabulary.

    `default` is what z/OS takes when nothing is coded, `modern` what our own profile takes where that differs.
    `slot` names what may be said only once although several parameters can say it (LocalAddr, LocalAddrRef …).
    `target` is the statement that a block or a Ref leads to. `instead` is what this system does with a value other
    than those in `honoured`; `refused` makes such a value an error, because ignoring it would weaken security.
    With `depends` it is the settings of a rule together that decide (`limits`).
    """

    name: str
    kind: Kind
    meaning: str
    default: Value | None = None
    modern: Value | None = None
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 4294967295
    many: bool = False
    required: bool = False
    slot: str = ""
    target: str = ""
    since: str = "V1R7"
    unit: str = ""
    instead: str = ""
    honoured: tuple[Value, ...] = ()
    refused: bool = False
    depends: bool = False

    def silent(self, defaults: Defaults) -> Value | None:
        """Return what counts under `defaults` when the parameter is not coded."""
        return self.modern if self.modern is not None and defaults is Defaults.MODERN else self.default


class Statement:
    """One block statement: its parameters by lower-cased name, and where it may stand."""

    def __init__(
        self, name: str, meaning: str, parameters: tuple[Parameter, ...], *, inside: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.meaning = meaning
        self.parameters = parameters
        self.inside = inside
        self.by_keyword = {parameter.name.lower(): parameter for parameter in parameters}
        self.slots: dict[str, tuple[str, ...]] = {}
        for parameter in parameters:
            if parameter.slot:
                self.slots[parameter.slot] = (*self.slots.get(parameter.slot, ()), parameter.name)


ON_OFF = ("On", "Off")
_LEVELS = ("Required", "Optional", "Off")


def _choice(name: str, choices: tuple[str, ...], default: str | None, meaning: str, **more: object) -> Parameter:
    return Parameter(name, Kind.CHOICE, meaning, default, choices=choices, **more)  # type: ignore[arg-type]


def _switch(name: str, default: str | None, meaning: str, **more: object) -> Parameter:
    return _choice(name, ON_OFF, default, meaning, **more)


def _number(name: str, low: int, high: int, default: int | None, meaning: str, **more: object) -> Parameter:
    return Parameter(name, Kind.NUMBER, meaning, default, low=low, high=high, **more)  # type: ignore[arg-type]


def _block(target: str, meaning: str, *, required: bool = False, many: bool = False) -> tuple[Parameter, Parameter]:
    # A nested statement always comes as a pair: written in place, or named.
    return (
        Parameter(target, Kind.BLOCK, meaning, slot=target, target=target, required=required, many=many),
        Parameter(f"{target}Ref", Kind.REF, "The same by name.", slot=target, target=target, many=many),
    )


def _ref(name: str, target: str, slot: str, meaning: str, *, required: bool = False) -> Parameter:
    return Parameter(name, Kind.REF, meaning, slot=slot, target=target, required=required)


def _side(side: str) -> tuple[Parameter, ...]:
    # Addresses and ports of one side of the connection.
    lower = side.lower()
    address, port = f"{lower} address", f"{lower} port"
    return (
        Parameter(f"{side}Addr", Kind.ADDRESSES, f"The {address} of the connection.", "All", slot=address),
        _ref(f"{side}AddrRef", "IpAddr", address, f"The {address}, by name."),
        _ref(f"{side}AddrSetRef", "IpAddrSet", address, f"A prefix or range for the {address}, by name."),
        _ref(f"{side}AddrGroupRef", "IpAddrGroup", address, f"A list for the {address}, by name."),
        Parameter(f"{side}PortRange", Kind.PORTS, f"The {port} of the connection.", slot=port),
        _ref(f"{side}PortRangeRef", "PortRange", port, f"The {port}, by name."),
        _ref(f"{side}PortGroupRef", "PortGroup", port, f"A list for the {port}, by name."),
    )


_RULE = Statement(
    "TTLSRule",
    "Which connections get which actions. The rule of the highest priority whose conditions all hold wins; within "
    "one priority the names decide, compared as ASCII.",
    (
        *_side("Local"),
        *_side("Remote"),
        Parameter(
            "Jobname",
            Kind.PATTERN,
            "Job name of the program that owns the socket: its systemd unit, container or executable file.",
        ),
        Parameter("Userid", Kind.PATTERN, "User that owns the socket."),
        _choice(
            "Direction",
            ("Inbound", "Outbound", "Both"),
            None,
            "Inbound: the program accepted the connection. Outbound: it made the connection.",
            required=True,
        ),
        _number("Priority", 1, 2000000000, 1, "Rules of a higher priority are looked at first."),
        _ref("TTLSGroupActionRef", "TTLSGroupAction", "TTLSGroupAction", "Whether there is TLS at all.", required=True),
        _ref(
            "TTLSEnvironmentActionRef",
            "TTLSEnvironmentAction",
            "TTLSEnvironmentAction",
            "Role, key ring and TLS settings; needed when the group says TTLSEnabled On.",
        ),
        _ref(
            "TTLSConnectionActionRef",
            "TTLSConnectionAction",
            "TTLSConnectionAction",
            "Settings for just these connections, over those of the environment.",
        ),
        *_block("IpTimeCondition", "When the rule is in force; several are alternatives.", many=True),
    ),
)

_TRACE = _number(
    "Trace",
    0,
    255,
    None,
    "What is logged, a sum: 1 and 2 errors, 4 one message per connection, 8 events, 16 the start of each handshake.",
    instead="bits above 16 write nothing here: neither handshake messages nor data are ever logged",
    depends=True,
)
_CTRACE = _switch(
    "CtraceClearText",
    None,
    "Whether traces above the TLS layer may show cleartext.",
    honoured=("Off",),
    instead="there is no component trace here, so it never shows cleartext",
)

_GROUP = Statement(
    "TTLSGroupAction",
    "Whether the connections of a rule are protected, and what is common to many rules.",
    (
        _switch("TTLSEnabled", None, "Off leaves the connection in the clear and ends the search.", required=True),
        replace(_CTRACE, default="Off"),
        replace(_TRACE, default=2),
        _choice(
            "FIPS140",
            (*ON_OFF, "Level1", "Level2", "Level3"),
            "Off",
            "Use only FIPS 140 approved cryptography.",
            honoured=("Off",),
            instead="the cryptographic library of this system has no FIPS provider",
            refused=True,
        ),
        _number("GroupUserInstance", 0, 65535, None, "Changing the number makes the action a new one at refresh."),
        *_block("TTLSGroupAdvancedParms", "More settings of the group."),
    ),
)

_SECONDARY_MAP = _switch(
    "SecondaryMap",
    None,
    "Later connections of the same process between the same addresses (FTP data) follow this rule.",
)

_GROUP_ADVANCED = Statement(
    "TTLSGroupAdvancedParms",
    "More settings of a group action.",
    (
        replace(_SECONDARY_MAP, default="Off"),
        _choice(
            "SyslogFacility",
            ("Daemon", "Auth"),
            "Daemon",
            "Facility of the log messages.",
            honoured=("Daemon",),
            instead="messages go to standard error, where the journal gives them the facility of the whole service "
            "(SyslogFacility= in its unit)",
        ),
        Parameter(
            "Envfile",
            Kind.TEXT,
            "File of GSK_… environment variables.",
        ),
    ),
    inside=("TTLSGroupAction",),
)

_ROLES = ("Client", "Server", "ServerWithClientAuth")

_ENVIRONMENT = Statement(
    "TTLSEnvironmentAction",
    "Handshake role, key ring and TLS settings; connections of one environment share its session cache.",
    (
        *_block("TTLSKeyringParms", "The key ring.", required=True),
        _choice(
            "HandshakeRole",
            _ROLES,
            None,
            "Which side of the TLS handshake the local end plays, whoever made the connection.",
            required=True,
        ),
        _choice(
            "SuiteBProfile",
            ("Off", "128", "128Min", "192", "192Min", "All"),
            "Off",
            "The ciphers, curves and signatures of Suite B (RFC 6460) in place of those coded, with TLS 1.2 alone. "
            "128 and 192 stand for one level each, 128Min and All for both, 192Min for the higher one.",
            since="V2R1",
            instead="a profile speaks TLS 1.2 alone and has ciphers, curves and signature pairs of its own",
            depends=True,
        ),
        *_block("TTLSCipherParms", "Cipher suites."),
        *_block("TTLSSignatureParms", "Curves, groups and signature algorithms."),
        _CTRACE,
        _TRACE,
        *_block("TTLSEnvironmentAdvancedParms", "More settings of the environment."),
        *_block("TTLSGskAdvancedParms", "Session cache, tickets and revocation."),
        _number(
            "EnvironmentUserInstance",
            0,
            65535,
            None,
            "Changing the number makes the action a new one at refresh, which reads the key ring again.",
        ),
    ),
)

# Parameters that stand at both levels; on a connection action none of them has a default of its own.
_AT_BOTH_LEVELS = (
    _switch(
        "SSLv2",
        "Off",
        "SSL 2.",
        honoured=("Off",),
        instead="no library here speaks SSL 2; it stays off",
    ),
    _switch("SSLv3", "Off", "SSL 3.", honoured=("Off",), instead="the TLS library here has no SSL 3; it stays off"),
    _switch("TLSv1", "On", "TLS 1.0; a client offers it only if every version up to the newest is on.", modern="Off"),
    _switch("TLSv1.1", "On", "TLS 1.1; a client offers it only if every version up to the newest is on.", modern="Off"),
    _switch("TLSv1.2", "Off", "TLS 1.2.", modern="On", since="V2R1"),
    _switch("TLSv1.3", "Off", "TLS 1.3.", modern="On", since="V2R4"),
    _switch(
        "MiddleBoxCompatMode",
        "Off",
        "TLS 1.3 in the disguise that old middle boxes let through.",
        since="V2R4",
        honoured=("On",),
        instead="the TLS library here always wears the disguise, which no peer minds",
    ),
    _switch(
        "ApplicationControlled",
        "Off",
        "On: the connection starts in the clear and the program says when TLS begins.",
    ),
    _number("HandshakeTimeout", 0, 600, 10, "How long a handshake may take; 0 is no limit.", unit="seconds"),
    _number(
        "ResetCipherTimer",
        0,
        1440,
        0,
        "After this time the next read or write renews the session keys by a new handshake; 0 is never. A server "
        "can only ask its client, who may pass over it; where a peer refuses outright, the connection ends (432).",
        unit="minutes",
        instead="keys can be renewed up to TLS 1.2 alone, by renegotiation; they would live as long as the connection",
        depends=True,
    ),
    Parameter(
        "CertificateLabel",
        Kind.EMPTY_LABEL,
        "Certificate to present instead of the ring's default; empty presents none.",
    ),
    Parameter(
        "ServerCertificateLabel",
        Kind.LABEL,
        "Certificates for the server role, for example one RSA and one ECDSA; the one that fits is used, "
        "and of several with the same kind of key the first.",
        many=True,
        since="V2R4",
    ),
    _SECONDARY_MAP,
    _choice(
        "TruncatedHMAC",
        _LEVELS,
        "Off",
        "The TLS extension truncated_hmac.",
        since="V2R1",
        honoured=("Off",),
        instead="the TLS library here has no truncated HMAC; whole ones are used",
    ),
    _choice(
        "ClientMaxSSLFragment",
        _LEVELS,
        "Off",
        "Ask the server for shorter records (max_fragment_length).",
        since="V2R1",
        honoured=("Off",),
        instead="the TLS library here cannot ask; records of any length are taken",
    ),
    _choice(
        "ClientMaxSSLFragmentLength",
        ("512", "1024", "2048", "4096"),
        None,
        "Record length to ask for.",
        since="V2R1",
        unit="bytes",
        instead="the TLS library here cannot ask; records of any length are taken",
    ),
    _choice(
        "ServerMaxSSLFragment",
        _LEVELS,
        "Off",
        "Grant or demand shorter records as server.",
        since="V2R1",
        honoured=("Optional", "Required"),
        instead="the TLS library here always grants shorter records to clients that ask",
    ),
    _choice(
        "ClientHandshakeSNI",
        _LEVELS,
        "Off",
        "Send the server's name; Required refuses a server that does not confirm it.",
        since="V2R2",
        instead="with TLS 1.3 the server's confirmation cannot be seen; a host reference checks who the server is",
        depends=True,
    ),
    _choice(
        "ClientHandshakeSNIMatch",
        ("Required", "Optional"),
        None,
        "Whether a server that does not know the name is refused.",
        since="V2R2",
    ),
    Parameter(
        "ClientHandshakeSNIList",
        Kind.HOST,
        "The name to send.",
        many=True,
        since="V2R2",
        instead="a client can send one name (RFC 6066 section 3)",
        depends=True,
    ),
    _choice(
        "ServerHandshakeSNI", _LEVELS, "Off", "Choose the certificate by the name that clients ask for.", since="V2R2"
    ),
    _choice(
        "ServerHandshakeSNIMatch",
        ("Required", "Optional"),
        None,
        "Whether clients that ask for another name are refused.",
        since="V2R2",
    ),
    Parameter(
        "ServerHandshakeSNIList",
        Kind.NAME_AND_LABEL,
        "A name and the label of its certificate, one pair a line; `*.` before a name stands for one label.",
        many=True,
        since="V2R2",
    ),
    Parameter(
        "HostReferenceIdDNS",
        Kind.HOST,
        "DNS name, or IP address, that the server's certificate must carry.",
        since="3.1",
    ),
    Parameter("HostReferenceIdCN", Kind.TEXT, "Common name that the server's certificate must carry.", since="3.1"),
    _switch("HostRefWildcardValidation", "On", "Whether `*` in the certificate's name may match.", since="3.1"),
)

_ENVIRONMENT_ADVANCED = Statement(
    "TTLSEnvironmentAdvancedParms",
    "More settings of an environment action.",
    (
        *_AT_BOTH_LEVELS,
        _choice(
            "ClientAuthType",
            ("PassThru", "Full", "Required", "SAFCheck"),
            "Required",
            "What ServerWithClientAuth demands: nothing is checked, checked if sent, must be sent, must map to a user.",
        ),
        _choice(
            "Renegotiation",
            ("Default", "Disabled", "All", "Abbreviated"),
            "Default",
            "Which renegotiations are allowed up to TLS 1.2.",
            since="V2R1",
            honoured=("Disabled",),
            instead="no peer may ask for it here, as with Disabled; a timer or an ApplicationControlled program may",
        ),
        _choice(
            "RenegotiationIndicator",
            ("Optional", "Client", "Server", "Both"),
            "Optional",
            "Which role insists on secure renegotiation (RFC 5746) in the first handshake.",
            since="V2R1",
            honoured=("Client", "Server", "Both"),
            instead="a client insists on it all the same",
        ),
        _switch(
            "RenegotiationCertCheck",
            "Off",
            "On: the peer may not come with another certificate when keys are renewed.",
            since="V2R1",
            honoured=("On",),
            instead="the peer may not change its certificate all the same",
        ),
        _choice(
            "CertValidationMode",
            ("Any", "RFC2459", "RFC3280", "RFC5280"),
            "Any",
            "Rules by which certificates are checked.",
            since="V2R1",
        ),
        _switch(
            "3DesKeyCheck",
            "Off",
            "Refuse triple-DES keys whose parts repeat; there is no triple DES here.",
            since="V2R3",
        ),
        _choice(
            "ClientEDHGroupSize",
            ("Legacy", "2048"),
            "Legacy",
            "Smallest DHE group as client. With TLS 1.0 or 1.1 on, 2048 leaves the DHE suites out.",
            since="V2R3",
            honoured=("2048",),
            instead="groups below 2048 bits are refused all the same, unless TLS 1.0 or 1.1 is on",
        ),
        _choice(
            "ServerEDHGroupSize",
            ("Legacy", "2048", "Match"),
            "Legacy",
            "DHE group as server; Match takes one as strong as the RSA key, up to 4096 bits.",
            since="V2R3",
            honoured=("2048", "Match"),
            instead="a group of 2048 bits is used all the same",
        ),
        _choice("PeerMinCertVersion", ("3", "Any"), "Any", "X.509 version of the peer's certificate.", since="V2R3"),
        _number(
            "PeerMinDHKeySize",
            0,
            2048,
            1024,
            "Smallest DH key in the peer's certificate; no suite here uses one.",
            unit="bits",
            since="V2R3",
        ),
        _number(
            "PeerMinDsaKeySize", 0, 2048, 1024, "Smallest DSA key in the peer's certificate.", unit="bits", since="V2R3"
        ),
        _number(
            "PeerMinECCKeySize",
            0,
            521,
            192,
            "Smallest EC key in the peer's certificate.",
            unit="bits",
            since="V2R3",
            instead="the TLS library here has no smaller curves",
            depends=True,
        ),
        _number(
            "PeerMinRsaKeySize",
            0,
            4096,
            1024,
            "Smallest RSA key in the peer's certificate.",
            unit="bits",
            since="V2R3",
            instead="the TLS library takes smaller ones only where TLS 1.0, TLS 1.1 or a NULL cipher is on",
            depends=True,
        ),
        _switch(
            "ServerScsv",
            "Off",
            "Refuse a client that fell back to an older protocol.",
            since="V2R3",
            honoured=("On",),
            instead="such clients are refused all the same",
        ),
        _choice(
            "ClientExtendedMasterSecret",
            (*ON_OFF, "Required"),
            "On",
            "Extended master secret (RFC 7627) as client.",
            since="3.1",
        ),
        _choice(
            "ServerExtendedMasterSecret",
            (*ON_OFF, "Required"),
            "On",
            "Extended master secret (RFC 7627) as server.",
            since="3.1",
        ),
    ),
    inside=("TTLSEnvironmentAction",),
)

_CONNECTION = Statement(
    "TTLSConnectionAction",
    "Settings for some of the connections of an environment.",
    (
        _choice("HandshakeRole", _ROLES, None, "The role, instead of the environment's."),
        *_block("TTLSCipherParms", "Cipher suites, instead of the environment's."),
        *_block("TTLSSignatureParms", "Curves, groups and signatures, each instead of the environment's."),
        _CTRACE,
        _TRACE,
        *_block("TTLSConnectionAdvancedParms", "More settings, each instead of the environment's."),
        _number("ConnectionUserInstance", 0, 65535, None, "Changing the number makes the action a new one at refresh."),
    ),
)

_CONNECTION_ADVANCED = Statement(
    "TTLSConnectionAdvancedParms",
    "More settings of a connection action; what is not coded comes from the environment.",
    tuple(replace(parameter, default=None, modern=None) for parameter in _AT_BOTH_LEVELS),
    inside=("TTLSConnectionAction",),
)

_KEYRING = Statement(
    "TTLSKeyringParms",
    "The key ring that certificates and trust come from.",
    (
        Parameter(
            "Keyring",
            Kind.TEXT,
            "`user/ring`, or `ring` for the ring of that name of the connection's own user; a path is a key database.",
            required=True,
            high=1023,
        ),
        Parameter("KeyringPw", Kind.TEXT, "Password of a key database.", high=128),
        Parameter("KeyringStashFile", Kind.TEXT, "File that holds the password of a key database.", high=1023),
    ),
    inside=("TTLSEnvironmentAction",),
)

_CIPHER = Statement(
    "TTLSCipherParms",
    "Cipher suites in order of preference; without any, the library's own list.",
    (
        Parameter(
            "V2CipherSuites",
            Kind.V2_CIPHERS,
            "Ciphers of SSL 2.",
            many=True,
            instead="there is no SSL 2 here, so its ciphers are never used",
        ),
        Parameter(
            "V3CipherSuites",
            Kind.CIPHERS,
            "Ciphers of SSL 3 to TLS 1.3. A server chooses by its own order.",
            many=True,
            instead="the TLS library here has no RC4, DES, triple-DES, export, DSS, static DH or static ECDH suites; "
            "they are left out",
            depends=True,
        ),
        Parameter(
            "V3CipherSuites4Char", Kind.CIPHERS_4, "The same list in 4-character codes.", many=True, since="V2R1"
        ),
    ),
    inside=("TTLSEnvironmentAction", "TTLSConnectionAction"),
)

_MISSING_GROUPS = "0019 and 0021 do not exist here; they are left out, and a list of nothing else is an error"
_MISSING_PAIRS = (
    "MD5 and DSA do not exist here, nor SHA-1 unless TLS 1.0 or 1.1 is on; they are left out, and a list of nothing "
    "else is an error"
)

_SIGNATURE = Statement(
    "TTLSSignatureParms",
    "Curves, groups and signature algorithms in order of preference.",
    (
        Parameter(
            "ClientECurves",
            Kind.CLIENT_GROUPS,
            "Curves and groups that a client offers, in this order; with TLS 1.3 on, z/OS adds 0029 to its default.",
            codes.ZOS_CLIENT_CURVES,
            (),
            many=True,
            since="V2R1",
            instead=_MISSING_GROUPS,
            depends=True,
        ),
        Parameter(
            "ClientKeyShareGroups",
            Kind.GROUPS,
            "Groups for which a TLS 1.3 client sends a key share at once, in the order of ClientECurves. If there is "
            "none, the first group of ClientECurves; a server that wants another asks for it with one more round trip.",
            codes.ZOS_CLIENT_KEY_SHARES,
            (),
            many=True,
            since="V2R4",
            instead="a share is sent only for groups that exist here and stand in ClientECurves",
            depends=True,
        ),
        Parameter(
            "ServerKexECurves",
            Kind.GROUPS,
            "Curves that a server uses up to TLS 1.2; the first that the client has too.",
            codes.ZOS_SERVER_CURVES,
            (),
            many=True,
            since="V2R5",
            instead=_MISSING_GROUPS,
            depends=True,
        ),
        Parameter(
            "ServerKeyShareGroups",
            Kind.GROUPS,
            "Groups that a TLS 1.3 server accepts; the first that the client has too, also if its key share is then "
            "asked for with one more round trip.",
            codes.ZOS_SERVER_KEY_SHARES,
            (),
            many=True,
            since="V2R4",
            instead=_MISSING_GROUPS,
            depends=True,
        ),
        Parameter(
            "SignaturePairs",
            Kind.PAIRS,
            "Signature algorithms of both ends, from TLS 1.2 on; with TLS 1.3 on, z/OS adds the RSA-PSS ones to its "
            "default, and never to a list of yours: without them RSA keys cannot sign there.",
            codes.ZOS_SIGNATURE_PAIRS,
            (),
            many=True,
            since="V2R1",
            instead=_MISSING_PAIRS,
            depends=True,
        ),
        Parameter(
            "SignaturePairsCert",
            Kind.PAIRS,
            "Signature algorithms in the peer's certificates up to the anchor on the ring; silent, SignaturePairs. "
            "Others are refused; the peer is not told beforehand.",
            many=True,
            since="V2R4",
            instead=_MISSING_PAIRS,
            depends=True,
        ),
    ),
    inside=("TTLSEnvironmentAction", "TTLSConnectionAction"),
)

_GSK = Statement(
    "TTLSGskAdvancedParms",
    "Session cache, session tickets and revocation.",
    (
        *_block("TTLSGskLdapParms", "Revocation lists by LDAP."),
        *_block("TTLSGskOcspParms", "OCSP."),
        *_block("TTLSGskHttpCdpParms", "Revocation lists by HTTP."),
        _switch(
            "GSK_SYSPLEX_SIDCACHE",
            "Off",
            "Share sessions with other systems.",
            honoured=("Off",),
            instead="sessions are not shared between systems; other systems make a full handshake",
        ),
        _switch(
            "GSK_SYSPLEX_SESSION_TICKET_CACHE",
            "Off",
            "Share TLS 1.3 tickets with other systems.",
            since="V2R5",
            honoured=("Off",),
            instead="tickets are not shared between systems; other systems make a full handshake",
        ),
        _number(
            "GSK_V2_SESSION_TIMEOUT",
            0,
            100,
            100,
            "Lifetime of an SSL 2 session.",
            unit="seconds",
            instead="there is no SSL 2 here, so it has no sessions",
        ),
        _number(
            "GSK_V2_SIDCACHE_SIZE",
            0,
            32000,
            256,
            "SSL 2 sessions kept.",
            instead="there is no SSL 2 here, so it has no sessions",
        ),
        _number(
            "GSK_V3_SESSION_TIMEOUT",
            0,
            86400,
            86400,
            "Lifetime of a session; 0 is no resumption.",
            unit="seconds",
            instead="in a server with TLS 1.3 on, the shorter of this and GSK_SESSION_TICKET_SERVER_TIMEOUT counts for "
            "all sessions",
            depends=True,
        ),
        _number(
            "GSK_V3_SIDCACHE_SIZE",
            0,
            64000,
            512,
            "Sessions kept; 0 is none.",
            instead="a server that keeps sessions keeps up to 20480; most clients hold theirs themselves, in tickets",
            depends=True,
        ),
        _switch("GSK_SESSION_TICKET_CLIENT_ENABLE", "On", "Keep and offer TLS 1.3 tickets.", since="V2R4"),
        _number(
            "GSK_SESSION_TICKET_CLIENT_MAXSIZE",
            0,
            2147483647,
            8192,
            "Larger tickets are not kept; 0 keeps none.",
            unit="bytes",
            since="V2R4",
            honoured=(0,),
            instead="tickets are kept whatever their size",
        ),
        _number("GSK_SESSION_TICKET_CLIENT_MAXCACHED", 0, 2147483647, None, "Tickets kept.", since="V2R5"),
        _switch(
            "GSK_SESSION_TICKET_SERVER_ENABLE",
            "On",
            "Issue TLS 1.3 tickets.",
            since="V2R4",
            instead="with TLS 1.3 and an older protocol on, Off ends the resumption of older sessions too",
            depends=True,
        ),
        _choice(
            "GSK_SESSION_TICKET_SERVER_ALGORITHM",
            ("AESCBC128", "AESCBC256"),
            "AESCBC128",
            "Encryption of tickets.",
            since="V2R4",
            honoured=("AESCBC256",),
            instead="the TLS library here encrypts tickets its own way, with AES-256",
        ),
        _number(
            "GSK_SESSION_TICKET_SERVER_COUNT",
            0,
            16,
            2,
            "Tickets sent after a full handshake; 0 is the same as GSK_SESSION_TICKET_SERVER_ENABLE Off.",
            since="V2R4",
            honoured=(0, 2),
            instead="two tickets are sent",
        ),
        _number(
            "GSK_SESSION_TICKET_SERVER_KEY_REFRESH",
            1,
            604800,
            300,
            "Lifetime of a ticket key.",
            unit="seconds",
            since="V2R4",
        ),
        _number(
            "GSK_SESSION_TICKET_SERVER_TIMEOUT",
            1,
            604800,
            300,
            "Lifetime of a ticket.",
            unit="seconds",
            since="V2R4",
            instead="the shorter of this and GSK_V3_SESSION_TIMEOUT counts for all sessions",
            depends=True,
        ),
        _switch("AIACDPPriority", "On", "On: responders named in certificates before list locations.", since="V2R2"),
        _number("MaxSrcRevExtLocValues", 0, 256, 10, "Locations tried per extension; 0 is as 256.", since="V2R2"),
        _number("MaxValidRevExtLocValues", 0, 1024, 100, "Locations tried per validation; 0 is as 1024.", since="V2R2"),
        _choice(
            "RevocationSecurityLevel",
            ("Low", "Medium", "High"),
            "Medium",
            "What happens when no revocation source answers.",
            since="V2R2",
            instead="without a source switched on, only certificates are asked about whose ring has a revocation list",
            depends=True,
        ),
        Parameter(
            "CrlSigAlgPairs",
            Kind.PAIRS,
            "Signature algorithms allowed on revocation lists; silent, all.",
            many=True,
            since="3.1",
        ),
    ),
    inside=("TTLSEnvironmentAction",),
)

_NO_LDAP = "revocation lists in LDAP directories are not fetched"

_LDAP = Statement(
    "TTLSGskLdapParms",
    "Revocation lists from an LDAP server.",
    (
        Parameter(
            "GSK_LDAP_SERVER",
            Kind.TEXT,
            "Host, or host:port.",
            many=True,
            instead=f"{_NO_LDAP}; refused with no other source, or at level Low, because a list would be missed. Use "
            "HttpCdpEnable, OCSP, or a list on the ring (attls cert import-crl)",
            depends=True,
        ),
        _number("GSK_LDAP_SERVER_PORT", 1, 65535, 389, "Port.", instead=_NO_LDAP),
        Parameter("GSK_LDAP_USER", Kind.TEXT, "Distinguished name to bind with.", instead=_NO_LDAP),
        Parameter("GSK_LDAP_USER_PW", Kind.TEXT, "Its password.", instead=_NO_LDAP),
        _number("GSK_CRL_CACHE_TIMEOUT", 0, 720, 24, "How long lists are kept.", unit="hours", instead=_NO_LDAP),
        _choice(
            "GSK_CRL_SECURITY_LEVEL",
            ("Low", "Medium", "High"),
            "Medium",
            "What happens when no list can be had.",
            instead=f"{_NO_LDAP}; RevocationSecurityLevel counts for all sources",
        ),
        _number("CRLCacheSize", -1, 32000, -1, "Lists kept; -1 is no limit.", instead=_NO_LDAP),
        _number(
            "CRLCacheEntryMaxsize",
            0,
            2147483647,
            0,
            "Largest list kept; 0 is no limit.",
            unit="bytes",
            instead=_NO_LDAP,
        ),
        _switch("CRLCacheExtended", "Off", "Keep lists by their own expiry.", instead=_NO_LDAP),
        _switch("CRLCacheTempCRL", "Off", "Remember that a list could not be had.", instead=_NO_LDAP),
        _number("CRLCacheTempCRLTimeout", 0, 720, 24, "For how long.", unit="hours", instead=_NO_LDAP),
        _number(
            "LDAPResponseTimeout", 0, 43200, 15, "How long to wait for an answer.", unit="seconds", instead=_NO_LDAP
        ),
    ),
    inside=("TTLSGskAdvancedParms",),
)

_SIXTY = "0 means 60 seconds, because the peer is waiting meanwhile"
_LARGEST = "0 means 64 MiB, because what is larger would take the memory of everybody else"

_OCSP = Statement(
    "TTLSGskOcspParms",
    "Revocation by asking a responder (OCSP).",
    (
        Parameter("OcspUrl", Kind.URL, "Responder to ask.", since="V2R2", high=2083),
        _switch("OcspAiaEnable", "Off", "Ask the responders that certificates name.", since="V2R2"),
        _switch("OcspUrlPriority", "On", "On: OcspUrl before the responders of certificates.", since="V2R2"),
        Parameter("OcspProxyServerName", Kind.TEXT, "HTTP proxy.", since="V2R2"),
        _number("OcspProxyServerPort", 1, 65535, 80, "Its port.", since="V2R2"),
        _switch("OcspRetrieveViaGet", "Off", "GET instead of POST for short requests.", since="V2R2"),
        Parameter("OcspRequestSigkeylabel", Kind.LABEL, "Certificate that signs requests.", since="V2R2"),
        Parameter("OcspRequestSigalg", Kind.PAIR, "Signature algorithm of requests.", "0401", since="V2R2"),
        Parameter(
            "OcspResponseSigAlgPairs",
            Kind.PAIRS,
            "Signature algorithms allowed on answers; silent, all.",
            many=True,
            since="3.1",
        ),
        _choice(
            "OcspServerStapling",
            ("Off", "Any", "EndEntity"),
            "Off",
            "Staple answers as server.",
            since="V2R3",
            honoured=("Off", "EndEntity"),
            instead="as EndEntity, because the TLS library staples one answer, the one about the server itself",
        ),
        _number("OcspClientCacheSize", 0, 32000, 256, "Answers kept.", since="V2R2"),
        _number("OcspCliCacheEntryMaxsize", 0, 32000, 0, "Answers kept per responder; 0 is no limit.", since="V2R2"),
        _switch("OcspNonceGenEnable", "Off", "Send a nonce.", since="V2R2"),
        _switch("OcspNonceCheckEnable", "Off", "Insist on the nonce in the answer; sends one, too.", since="V2R2"),
        _number(
            "OcspNonceSize",
            8,
            256,
            8,
            "Length of the nonce.",
            unit="bytes",
            since="V2R2",
            instead="responders need not take longer ones (RFC 9654)",
            depends=True,
        ),
        _number(
            "OcspResponseTimeout",
            0,
            43200,
            15,
            "How long to wait for an answer.",
            unit="seconds",
            since="V2R2",
            instead=_SIXTY,
            depends=True,
        ),
        _number(
            "OcspMaxResponseSize",
            0,
            2147483647,
            20480,
            "Largest answer.",
            unit="bytes",
            since="V2R2",
            instead=_LARGEST,
            depends=True,
        ),
    ),
    inside=("TTLSGskAdvancedParms",),
)

_HTTP_CDP = Statement(
    "TTLSGskHttpCdpParms",
    "Revocation lists from the HTTP locations in certificates.",
    (
        _switch("HttpCdpEnable", "Off", "Fetch them.", since="V2R2"),
        Parameter("HttpCdpProxyServerName", Kind.TEXT, "HTTP proxy.", since="V2R2"),
        _number("HttpCdpProxyServerPort", 1, 65535, 80, "Its port.", since="V2R2"),
        _number(
            "HttpCdpResponseTimeout",
            0,
            43200,
            15,
            "How long to wait.",
            unit="seconds",
            since="V2R2",
            instead=_SIXTY,
            depends=True,
        ),
        _number(
            "HttpCdpMaxResponseSize",
            0,
            2147483647,
            204800,
            "Largest list.",
            unit="bytes",
            since="V2R2",
            instead=_LARGEST,
            depends=True,
        ),
        _number("HttpCdpCacheSize", 0, 32000, 32, "Lists kept.", since="V2R2"),
        _number(
            "HttpCdpCacheEntryMaxsize",
            0,
            2147483647,
            0,
            "Largest list kept; 0 is no limit.",
            unit="bytes",
            since="V2R2",
        ),
    ),
    inside=("TTLSGskAdvancedParms",),
)

_BUILDING_BLOCKS = (
    Statement(
        "IpAddr",
        "One address.",
        (Parameter("Addr", Kind.ADDRESS, "The address.", required=True),),
        inside=("IpAddrGroup",),
    ),
    Statement(
        "IpAddrSet",
        "One prefix or one range of addresses.",
        (
            Parameter("Prefix", Kind.ADDRESS_PREFIX, "All addresses of a network.", slot="prefix or range"),
            Parameter("Range", Kind.ADDRESS_RANGE, "All addresses from one to another.", slot="prefix or range"),
        ),
        inside=("IpAddrGroup",),
    ),
    Statement(
        "IpAddrGroup",
        "A list of addresses; one of them must fit.",
        (*_block("IpAddr", "A member.", many=True), *_block("IpAddrSet", "Many members.", many=True)),
    ),
    Statement(
        "PortRange",
        "One port or one range.",
        (Parameter("Port", Kind.PORTS, "The ports.", required=True),),
        inside=("PortGroup",),
    ),
    Statement("PortGroup", "A list of ports; one of them must fit.", _block("PortRange", "A member.", many=True)),
    Statement(
        "IpTimeCondition",
        "When a rule is in force, in local time; all its lines must hold.",
        (
            Parameter("ConditionTimeRange", Kind.PERIOD, "From when to when at all."),
            Parameter("MonthOfYearMask", Kind.MONTHS, "The months.", "1" * 12),
            Parameter(
                "DayOfMonthMask",
                Kind.DAYS,
                "The days: 31 digits from the first of the month, 31 more from the last backwards.",
                "1" * 62,
            ),
            Parameter("DayOfWeekMask", Kind.WEEKDAYS, "The days of the week.", "1" * 7),
            Parameter("TimeOfDayRange", Kind.DAILY, "The hours of the day; may cross midnight.", "00:00-24:00"),
        ),
        inside=("TTLSRule",),
    ),
)

_ALL = (
    _RULE,
    _GROUP,
    _GROUP_ADVANCED,
    _ENVIRONMENT,
    _KEYRING,
    _ENVIRONMENT_ADVANCED,
    _CIPHER,
    _SIGNATURE,
    _GSK,
    _LDAP,
    _OCSP,
    _HTTP_CDP,
    _CONNECTION,
    _CONNECTION_ADVANCED,
    *_BUILDING_BLOCKS,
)

STATEMENTS: dict[str, Statement] = {statement.name: statement for statement in _ALL}
BY_KEYWORD: dict[str, Statement] = {statement.name.lower(): statement for statement in _ALL}

# Where each parameter belongs, for whoever wrote it in the wrong place.
PLACES: dict[str, tuple[str, ...]] = {}
for _statement in _ALL:
    for _parameter in _statement.parameters:
        PLACES[_parameter.name.lower()] = (*PLACES.get(_parameter.name.lower(), ()), _statement.name)

# Lines of a Policy Agent main or image file that matter here, with their form, and those that do not.
AGENT_LINES: dict[str, tuple[str, str]] = {
    "tcpimage": (
        "TcpImage stack [file] [FLUSH|NOFLUSH] [PURGE|NOPURGE] [seconds]",
        "A stack and its image file. NOPURGE: after an orderly stop, what the policy protects is refused instead of "
        "left in the clear (`--on-exit` counts more). FLUSH always holds: a start or a refresh puts in force exactly "
        "what the files say. Every so many seconds the files are looked at, and changed ones put in force; 0 or none "
        "is never.",
    ),
    "pepinstance": ("PEPInstance …", "The same as TcpImage."),
    "commonttlsconfig": ("CommonTTLSConfig file", "Policy read before that of the stack."),
    "ttlsconfig": (
        "TTLSConfig [file] [FLUSH|NOFLUSH] [PURGE|NOPURGE]",
        "The AT-TLS policy of the stack; its options count more than those of TcpImage.",
    ),
    "loglevel": ("LogLevel number", "What the Policy Agent logs; not used here."),
    "codepage": ("Codepage name", "Code page of policy files; files here are UTF-8."),
}
OTHER_AGENT_STATEMENTS = frozenset(
    {
        "automonitorapps",
        "automonitorparms",
        "clientconnection",
        "commonidsconfig",
        "commonipsecconfig",
        "commonroutingconfig",
        "defaultcodepage",
        "dynamicconfigpolicyload",
        "idsconfig",
        "ipsecconfig",
        "policyaction",
        "policyperfmonitorforsdr",
        "policyperformancecollection",
        "policyrule",
        "policyserver",
        "qosconfig",
        "readfromdirectory",
        "routingconfig",
        "serverconnection",
        "servicesconnection",
        "setsubnetpriotosmask",
    }
)


def effective_parameters() -> tuple[Parameter, ...]:
    """Every parameter that the actions of a rule can set, blocks left out, in the order of displays."""
    rows: dict[str, Parameter] = {}
    for statement in (
        _GROUP,
        _GROUP_ADVANCED,
        _ENVIRONMENT,
        _KEYRING,
        _ENVIRONMENT_ADVANCED,
        _CIPHER,
        _SIGNATURE,
        _GSK,
        _LDAP,
        _OCSP,
        _HTTP_CDP,
        _CONNECTION,
    ):
        for parameter in statement.parameters:
            if parameter.kind not in (Kind.BLOCK, Kind.REF):
                rows.setdefault(parameter.name, parameter)
    return tuple(rows.values())


EFFECTIVE = effective_parameters()
PARAMETERS: dict[str, Parameter] = {parameter.name: parameter for parameter in EFFECTIVE}
