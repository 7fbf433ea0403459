"""A `stunnel.conf` to a policy, for people who come from there.

stunnel stands between two sockets, we stand in the program's own connection: there is no second port. So a server
service becomes an inbound rule on the port that clients know (stunnel's `accept`), on which the program itself listens
from now on, and a client service an outbound rule to the place that stunnel connected to, to which the program connects
itself. The policy's comments say so, service by service, with the commands that bring the certificates along. What
cannot be said in policy is reported, never dropped silently.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attls.errors import Diagnostic
from attls.policy import codes
from attls.policy.values import is_host

_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_VERSIONS = {"SSLv3": 0, "TLSv1": 1, "TLSv1.1": 2, "TLSv1.2": 3, "TLSv1.3": 4}
_SWITCHES = ("SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_NO_OPTIONS = {
    "NO_SSLV3": "SSLv3",
    "NO_TLSV1": "TLSv1",
    "NO_TLSV1.1": "TLSv1.1",
    "NO_TLSV1_1": "TLSv1.1",
    "NO_TLSV1.2": "TLSv1.2",
    "NO_TLSV1_2": "TLSv1.2",
    "NO_TLSV1.3": "TLSv1.3",
    "NO_TLSV1_3": "TLSv1.3",
}
# Options that say something about stunnel as a program, or whose effect we have anyway.
_WITHOUT_MEANING = frozenset(
    {
        "foreground",
        "pid",
        "output",
        "log",
        "syslog",
        "debug",
        "setuid",
        "setgid",
        "chroot",
        "fips",
        "engine",
        "rndfile",
        "rndbytes",
        "rndoverwrite",
        "compression",
        "delay",
        "failover",
        "socket",
        "transparent",
        "retry",
        "reset",
        "renegotiation",
        "timeoutbusy",
        "timeoutclose",
        "timeoutconnect",
        "timeoutidle",
        "logid",
        "service",
        "iconactive",
        "iconerror",
        "iconidle",
        "taskbar",
        "local",
        "libwrap",
    }
)
# What has no place in a policy, and why that is no harm or what to do.
_LEFT_OUT = {
    "include": "convert those files by themselves",
    "crlpath": "bring the lists in with: attls cert import-crl",
    "checkip": "certificates are checked by name here: code HostReferenceIdDNS",
    "checkemail": "certificates are checked by name here: code HostReferenceIdDNS",
    "session": "sessions are kept as each end can",
    "capath": "put the authorities of that directory on the ring yourself",
    "exec": "nothing starts the program here: it has to listen by itself, or behind inetd or a socket unit of systemd",
    "execargs": "it goes with exec",
    "pty": "it goes with exec",
    "redirect": "whoever brings no good certificate is refused",
    "psksecrets": "there are no pre-shared keys here: give the server a certificate",
    "pskidentity": "there are no pre-shared keys here: give the server a certificate",
}
_KNOWN = frozenset(
    {
        *_LEFT_OUT,
        "accept",
        "connect",
        "client",
        "cert",
        "key",
        "cafile",
        "verify",
        "verifychain",
        "verifypeer",
        "requirecert",
        "checkhost",
        "sni",
        "sslversion",
        "sslversionmin",
        "sslversionmax",
        "options",
        "ciphers",
        "ciphersuites",
        "curve",
        "curves",
        "protocol",
        "sessioncachesize",
        "sessioncachetimeout",
        "timeoutinit",
        "crlfile",
        "ocsp",
        "ocspaia",
        "ocspnonce",
    }
)


@dataclass(slots=True)
class _Service:
    # One [section]: its options in lower case, each with all its values and the line of the last.
    name: str
    line: int
    options: dict[str, list[str]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def one(self, name: str) -> str | None:
        values = self.options.get(name)
        return values[-1] if values else None

    def yes(self, name: str) -> bool:
        return (self.one(name) or "no").lower() == "yes"

    @property
    def is_part_of(self) -> str | None:
        """The service that this one only adds a server name to (`sni = service:name`), if so."""
        if self.yes("client") or "accept" in self.options or ":" not in (self.one("sni") or ""):
            return None
        return (self.one("sni") or "").partition(":")[0].strip()


@dataclass(frozen=True, slots=True)
class _Part:
    # What a service that adds a name to another one adds: commands for its certificate, and the name with its label.
    comments: tuple[str, ...]
    pair: str | None


@dataclass(frozen=True, slots=True)
class Conversion:
    """The policy text, and what of the configuration it could not say."""

    policy: str
    diagnostics: tuple[Diagnostic, ...]


def from_stunnel(path: Path, text: str, *, port_of: Callable[[str], int | None] = lambda _: None) -> Conversion:
    """Write the policy for a stunnel configuration; `path` is for messages and the commands in comments.

    `port_of` knows the ports that services have by name (`pop3s`), None for those it does not know.
    """
    writer = _Writer(str(path), port_of)
    # A character that ends lines of a policy must not end its comments, which quote this text.
    services = _read(text.removeprefix("\ufeff").replace("\x85", " "), writer)
    parts: dict[str, list[_Service]] = {service.name: [] for service in services}
    for service in services:
        if (whole := service.is_part_of) in parts:
            parts[whole].append(service)
    blocks = [
        "\n".join(writer.service(service, parts[service.name]))
        for service in services
        if service.is_part_of not in parts
    ]
    if not blocks:
        writer.report(1, "error", "no-services", "the file has no [service] sections, so there is nothing to protect")
    head = [
        f"# Converted from {path} by `attls policy convert`. Read the comments: in some places the",
        "# program listens or connects elsewhere from now on, because there is no second port any more.",
    ]
    return Conversion("\n".join([*head, "", *blocks]) + "\n", tuple(writer.diagnostics))


def _read(text: str, writer: _Writer) -> list[_Service]:
    # Options before the first section count for every service.
    common = _Service("", 1)
    here = common
    services: list[_Service] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line[0] in ";#":
            continue
        if line.startswith("[") and line.endswith("]"):
            here = _Service(line[1:-1].strip(), number, {name: list(some) for name, some in common.options.items()})
            here.lines = dict(common.lines)
            services.append(here)
            continue
        name, equals, value = line.partition("=")
        if not equals:
            writer.report(number, "error", "no-option", f"'{line[:60]}' is neither a [service] nor an option = value")
            continue
        name = name.strip().lower()
        if name not in _KNOWN and name not in _WITHOUT_MEANING:
            writer.report(number, "warning", "unknown-option", f"'{name[:40]}' is not understood and left out")
        elif name in _LEFT_OUT:
            writer.report(number, "warning", "left-out", f"'{name}' has no place in a policy: {_LEFT_OUT[name]}")
        here.options.setdefault(name, []).append(value.strip())
        here.lines[name] = number
    return services


class _Writer:
    # Writes services as policy and collects what could not be written.

    def __init__(self, name: str, port_of: Callable[[str], int | None]) -> None:
        self._name = name
        self._port_of = port_of
        self._names: set[str] = set()
        self.diagnostics: list[Diagnostic] = []

    def report(self, line: int, severity: str, code: str, message: str) -> None:
        self.diagnostics.append(Diagnostic(severity, self._name, line, 1, code, message))

    def service(self, service: _Service, parts: list[_Service]) -> Iterator[str]:
        name = self._unique(service.name)
        client = service.yes("client")
        what = "connect" if client else "accept"
        yield f"# [{service.name}]"
        places = list(self._places(service, what))
        if not places:
            yield "# left out: see the messages"
            return
        ring = f"STUNNEL/{name.upper()[:237]}"
        yield from self._comments(service, client, places[0], ring)
        names = [self._names_of_part(part, ring) for part in parts]
        for part in names:
            yield from part.comments
        for number, (host, port) in enumerate(places):
            yield f"TTLSRule                          {name if number == 0 else self._unique(service.name)}"
            yield "{"
            yield from self._conditions(service, client, host, port)
            yield f"  TTLSGroupActionRef              {name}"
            yield f"  TTLSEnvironmentActionRef        {name}"
            yield "}"
            yield ""
        yield f"TTLSGroupAction                   {name}"
        yield "{"
        yield "  TTLSEnabled                     On"
        yield "}"
        yield ""
        pairs = [part.pair for part in names if part.pair is not None]
        yield from self._environment(service, client, places[0][0], name, ring, pairs)
        yield ""

    def _places(self, service: _Service, what: str) -> Iterator[tuple[str, int]]:
        texts = service.options.get(what, [])
        if not texts:
            self.report(service.line, "error", "no-place", f"[{service.name}] has no '{what}', so it is left out")
        if what == "accept" and len(texts) > 1:
            self.report(
                service.line, "warning", "several-places", f"[{service.name}]: only the last place is converted"
            )
            texts = texts[-1:]
        for text in dict.fromkeys(texts):
            host, port = self._place(text)
            if port is not None:
                yield host, port
                continue
            self.report(
                service.lines[what],
                "error",
                "no-place",
                f"[{service.name}]: '{text}' is no port and no host:port, so it is left out",
            )

    def _place(self, text: str) -> tuple[str, int | None]:
        # stunnel writes host:port or just port; an IPv6 address stands before the last colon.
        host, _, port = text.rpartition(":")
        known = port.isascii() and port.isdigit() and len(port) < 6
        number = int(port) if known else self._port_of(port)
        return host.strip("[]"), number if number is not None and 1 <= number <= 65535 else None

    def _comments(self, service: _Service, client: bool, place: tuple[str, int], ring: str) -> Iterator[str]:
        host, port = place
        if client:
            yield f"# The program connects to {host or 'the server'} port {port} itself, no longer to stunnel's"
            yield f"# {service.one('accept') or 'accept port'}; TLS is put on that connection."
        else:
            behind = service.one("connect") or "a port"
            yield f"# The program listens on port {port} itself, no longer behind stunnel on {behind};"
            yield "# it sees clear text and its clients' own addresses."
        if (protocol := service.one("protocol")) is not None:
            self.report(
                service.lines["protocol"],
                "warning",
                "protocol",
                f"[{service.name}]: protocol = {protocol} makes stunnel speak {protocol} before TLS. Only the program "
                "itself can do that here: ApplicationControlled is On, and the program must ask for TLS",
            )
        yield f"#   attls keyring create {ring}"
        if service.one("cert") is not None:
            yield from _import_commands(service, ring, ring[8:], default=True)
        elif not client:
            self.report(
                service.line, "warning", "no-certificate", f"[{service.name}] names no cert for its server role"
            )
        if (authorities := service.one("cafile")) is not None:
            yield f"#   attls cert import --owner CERTAUTH --label {ring[8:]}-CA {shlex.quote(authorities)}"
            yield f"#   attls keyring connect {ring} --owner CERTAUTH --label {ring[8:]}-CA --usage certauth"
            yield "#   (of several authorities in that file, trust and connect each: attls cert list says their labels)"

    def _names_of_part(self, part: _Service, ring: str) -> _Part:
        # A service that only adds a name to another one: its certificate, chosen by the name that clients ask for.
        whole, _, host = (item.strip() for item in (part.one("sni") or "").partition(":"))
        if not is_host(host) or part.one("cert") is None:
            self.report(
                part.line, "error", "no-name", f"[{part.name}] has no server name and cert of its own: it is left out"
            )
            return _Part((), None)
        self.report(
            part.line,
            "warning",
            "same-program",
            f"[{part.name}]: clients that ask for {host} get its certificate, but the program and all other settings "
            f"of [{whole}]",
        )
        label = self._unique(part.name).upper()[:237]
        return _Part(tuple(_import_commands(part, ring, label, default=False)), f"{host} {label}")

    def _conditions(self, service: _Service, client: bool, host: str, port: int) -> Iterator[str]:
        side, option = ("Remote", "connect") if client else ("Local", "accept")
        address = _address(host)
        if address is None and host not in ("", "*"):
            self.report(
                service.lines[option],
                "warning",
                "host-name",
                f"[{service.name}]: a rule asks about addresses, not names; it is about every connection to port "
                f"{port} unless you add {side}Addr",
            )
        elif address is not None and (client or not ipaddress.ip_address(address).is_unspecified):
            yield f"  {side}Addr                      {address}"
        yield f"  {side}PortRange                 {port}"
        yield f"  Direction                       {'Outbound' if client else 'Inbound'}"

    def _environment(
        self, service: _Service, client: bool, host: str, name: str, ring: str, pairs: list[str]
    ) -> Iterator[str]:
        role, authentication = self._verification(service, client)
        yield f"TTLSEnvironmentAction             {name}"
        yield "{"
        yield f"  HandshakeRole                   {role}"
        yield "  TTLSKeyringParms"
        yield "  {"
        yield f"    Keyring                       {ring}"
        yield "  }"
        yield from self._ciphers(service)
        yield from self._curves(service)
        yield "  TTLSEnvironmentAdvancedParms"
        yield "  {"
        for switch, on in self._versions(service).items():
            yield f"    {switch:<29} {'On' if on else 'Off'}"
        if authentication is not None:
            yield f"    ClientAuthType                {authentication}"
        if service.one("protocol") is not None:
            yield "    ApplicationControlled         On"
        if (timeout := service.one("timeoutinit")) is not None and timeout.isdigit():
            yield f"    HandshakeTimeout              {min(int(timeout[:9]), 600)}"
        if client:
            yield from self._names_of_server(service, host)
        elif pairs:
            yield "    ServerHandshakeSNI            Optional"
            yield "    ServerHandshakeSNIMatch       Optional"
            yield from (f"    ServerHandshakeSNIList        {pair}" for pair in pairs)
        yield "  }"
        yield from self._session(service)
        yield "}"

    def _verification(self, service: _Service, client: bool) -> tuple[str, str | None]:
        level = service.one("verify")
        verifies = service.yes("verifychain") or service.yes("verifypeer") or (level or "0") not in ("0", "1")
        if service.yes("verifypeer") or level in ("3", "4"):
            self.report(
                service.line,
                "warning",
                "pinned-peer",
                f"[{service.name}] accepts only certificates that are in CAfile themselves: connect those with --usage "
                "site and no authority to the ring",
            )
        if client:
            if not verifies:
                self.report(
                    service.line,
                    "warning",
                    "verifies-now",
                    f"[{service.name}] did not verify the server. AT-TLS always does: put the server's authority on "
                    "the ring",
                )
            return "Client", None
        if not verifies:
            if level == "1":
                return "ServerWithClientAuth", "Full"
            if not service.yes("requirecert"):
                return "Server", None
            self.report(
                service.lines["requirecert"],
                "warning",
                "verifies-now",
                f"[{service.name}] took any certificate of a client without verifying it. AT-TLS verifies those it "
                "requires: put the clients' authority on the ring",
            )
        # verifyChain and verifyPeer imply requireCert, unless it is taken back behind them.
        said = max((service.lines.get(option, 0) for option in ("verify", "verifychain", "verifypeer")), default=0)
        taken_back = (service.one("requirecert") or "").lower() == "no" and service.lines["requirecert"] > said
        return "ServerWithClientAuth", "Full" if taken_back else "Required"

    def _versions(self, service: _Service) -> dict[str, bool]:
        exactly = service.one("sslversion")
        lowest, highest = 3, 4  # what we take where stunnel leaves it to its library
        if exactly is not None and exactly.lower() != "all":
            lowest = highest = self._version(service, "sslversion")
        if service.one("sslversionmin") is not None:
            lowest = self._version(service, "sslversionmin")
        if service.one("sslversionmax") is not None:
            highest = self._version(service, "sslversionmax", highest=True)
        on = {switch: lowest <= _VERSIONS[switch] <= highest for switch in _SWITCHES}
        for option in service.options.get("options", ()):
            # A dash in front takes an option back.
            switch = _NO_OPTIONS.get(option.upper().removeprefix("-").removeprefix("SSL_OP_"))
            if switch is not None:
                on[switch] = option.startswith("-") and lowest <= _VERSIONS[switch] <= highest
        if on["SSLv3"]:
            self.report(service.line, "warning", "no-ssl3", f"[{service.name}]: there is no SSL 3 here; it is left off")
            on["SSLv3"] = False
        return on

    def _version(self, service: _Service, option: str, *, highest: bool = False) -> int:
        text = service.one(option) or ""
        for name, number in _VERSIONS.items():
            if name.lower() == text.lower():
                return number
        if text.lower() != "all":
            self.report(service.lines[option], "warning", "unknown-version", f"'{text[:40]}' is no protocol version")
        return 4 if highest else 3

    def _ciphers(self, service: _Service) -> Iterator[str]:
        listed: list[str] = []
        for option in ("ciphersuites", "ciphers"):
            for name in re.split(r"[:, ]+", service.one(option) or ""):
                if not name:
                    continue
                code = cipher_code(name)
                if code is None:
                    self.report(
                        service.lines[option],
                        "warning",
                        "unknown-cipher",
                        f"'{name[:60]}' is not the name of one cipher suite; write out those you mean",
                    )
                else:
                    listed.append(code)
        if not listed:
            return
        # stunnel has a list for TLS 1.3 and one for the rest, each with a default; a policy has one list for all.
        on = self._versions(service)
        if on["TLSv1.3"] and not codes.TLSV1_3_CIPHERS.intersection(listed):
            listed = ["1302", "1303", "1301", *listed]
        if any(on[switch] for switch in _SWITCHES[:-1]) and codes.TLSV1_3_CIPHERS.issuperset(listed):
            listed += ["C02C", "C030", "CCA9", "CCA8", "C02B", "C02F"]
        lines = [f"    V3CipherSuites                {codes.CIPHERS[code]}" for code in dict.fromkeys(listed)]
        yield from ("  TTLSCipherParms", "  {", *lines, "  }")

    def _curves(self, service: _Service) -> Iterator[str]:
        known = {name.upper(): name for name in codes.GROUPS.values()}
        known |= {"P-256": "secp256r1", "P-384": "secp384r1", "P-521": "secp521r1", "PRIME256V1": "secp256r1"}
        text = service.one("curves") or service.one("curve")
        names = []
        for word in re.split(r"[:, ]+", text or ""):
            if word and (name := known.get(word.upper())) is not None:
                names.append(name)
            elif word:
                self.report(service.line, "warning", "unknown-curve", f"'{word[:40]}' is no curve or group known here")
        if names:
            yield "  TTLSSignatureParms"
            yield "  {"
            for parameter in ("ClientECurves", "ServerKexECurves", "ServerKeyShareGroups"):
                yield from (f"    {parameter:<29} {name}" for name in names)
            yield "  }"

    def _names_of_server(self, service: _Service, host: str) -> Iterator[str]:
        wanted = service.one("sni")
        if wanted is None and host and _address(host) is None:
            wanted = host
        checks = list(dict.fromkeys(service.options.get("checkhost", ())))
        for name in [wanted, *checks]:
            if name and not is_host(name):
                self.report(service.line, "error", "no-name", f"[{service.name}]: '{name[:60]}' is no host name")
        if wanted and is_host(wanted):
            yield "    ClientHandshakeSNI            Optional"
            yield "    ClientHandshakeSNIMatch       Optional"
            yield f"    ClientHandshakeSNIList        {wanted}"
        if len(checks) > 1:
            self.report(
                service.lines["checkhost"],
                "warning",
                "several-names",
                f"[{service.name}]: a rule checks one name; servers that have only another one than {checks[-1]} are "
                "refused now",
            )
        if checks:
            # What is no name is said all the same: a policy that does not load is better than one that checks nothing.
            yield f"    HostReferenceIdDNS            {checks[-1]}"

    def _session(self, service: _Service) -> Iterator[str]:
        lines = []
        timeout, size = service.one("sessioncachetimeout"), service.one("sessioncachesize")
        if timeout is not None and timeout.isdigit():
            lines.append(f"    GSK_V3_SESSION_TIMEOUT        {min(int(timeout[:9]), 86400)}")
        if size is not None and size.isdigit():
            lines.append(f"    GSK_V3_SIDCACHE_SIZE          {min(int(size[:9]), 64000)}")
        yield from self._revocation(service, lines)

    def _revocation(self, service: _Service, lines: list[str]) -> Iterator[str]:
        url = service.one("ocsp")
        if url and not url.lower().startswith("http://"):
            self.report(
                service.lines["ocsp"], "warning", "left-out", f"[{service.name}]: responders are asked by http:// alone"
            )
            url = None
        responder = service.yes("ocspaia")
        if service.one("crlfile") is not None:
            self.report(
                service.lines["crlfile"],
                "warning",
                "left-out",
                f"[{service.name}]: CRLfile has no place in a policy; bring the list in with: attls cert import-crl",
            )
        if not (lines or url or responder):
            return
        yield "  TTLSGskAdvancedParms"
        yield "  {"
        yield from lines
        if url or responder:
            yield "    TTLSGskOcspParms"
            yield "    {"
            if url:
                yield f"      OcspUrl                     {url}"
            if responder:
                yield "      OcspAiaEnable               On"
            yield "    }"
        yield "  }"

    def _unique(self, service: str) -> str:
        name = base = (_NAME.sub("-", service).strip("-") or "service")[:28]
        number = 1
        while name in self._names:
            number += 1
            name = f"{base}-{number}"
        self._names.add(name)
        return name


def cipher_code(openssl_name: str) -> str | None:
    """Return the code of a cipher suite by the name that OpenSSL (or IANA) has for it, or None."""
    name = openssl_name.upper().replace("_", "-")
    return _BY_OPENSSL_NAME.get(name) or _BY_IANA_NAME.get(name)


def _openssl_name(iana: str) -> str:
    # TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 is ECDHE-RSA-AES128-GCM-SHA256 there; plain RSA has no prefix.
    exchange, _, cipher = iana.removeprefix("TLS_").partition("_WITH_")
    cipher = cipher.replace("AES_128_CBC", "AES128").replace("AES_256_CBC", "AES256")
    cipher = cipher.replace("AES_128", "AES128").replace("AES_256", "AES256")
    cipher = cipher.replace("3DES_EDE_CBC", "DES-CBC3").replace("DES_CBC_SHA", "DES-CBC-SHA").replace("RC4_128", "RC4")
    if cipher.startswith("CHACHA20"):
        cipher = "CHACHA20-POLY1305"
    prefix = "" if exchange == "RSA" else f"{exchange}-"
    return f"{prefix}{cipher}".replace("_", "-")


_BY_IANA_NAME = {name.replace("_", "-"): code for code, name in codes.CIPHERS.items()}
_BY_OPENSSL_NAME = {_openssl_name(name): code for code, name in codes.CIPHERS.items() if "_WITH_" in name}


def _import_commands(service: _Service, ring: str, label: str, *, default: bool) -> Iterator[str]:
    certificate, key = service.one("cert") or "", service.one("key")
    with_key = f" --key {shlex.quote(key)}" if key is not None and key != certificate else ""
    yield f"#   attls cert import --owner STUNNEL --label {label} {shlex.quote(certificate)}{with_key}"
    yield (
        f"#   attls keyring connect {ring} --owner STUNNEL --label {label} --usage personal"
        f"{' --default' if default else ''}"
    )


def _address(host: str) -> str | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
