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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from attls.errors import Diagnostic
from attls.policy import codes

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
_KNOWN = frozenset(
    {
        "accept",
        "connect",
        "client",
        "cert",
        "key",
        "cafile",
        "capath",
        "verify",
        "verifychain",
        "verifypeer",
        "requirecert",
        "checkhost",
        "checkip",
        "checkemail",
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
        "session",
        "timeoutinit",
        "crlfile",
        "crlpath",
        "ocsp",
        "ocspaia",
        "ocspnonce",
        "include",
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


@dataclass(frozen=True, slots=True)
class Conversion:
    """The policy text, and what of the configuration it could not say."""

    policy: str
    diagnostics: tuple[Diagnostic, ...]


def from_stunnel(path: Path, text: str) -> Conversion:
    """Write the policy for a stunnel configuration; `path` is for messages and the commands in comments."""
    writer = _Writer(str(path))
    services = _read(text, writer)
    blocks = ["\n".join(writer.service(service)) for service in services]
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
    for number, raw in enumerate(text.splitlines(), 1):
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
        elif name in ("include", "crlpath", "checkip", "checkemail", "session", "capath"):
            writer.report(number, "warning", "left-out", f"'{name}' cannot be said in a policy and is left out")
        here.options.setdefault(name, []).append(value.strip())
        here.lines[name] = number
    return services


class _Writer:
    # Writes services as policy and collects what could not be written.

    def __init__(self, name: str) -> None:
        self._name = name
        self._names: set[str] = set()
        self.diagnostics: list[Diagnostic] = []

    def report(self, line: int, severity: str, code: str, message: str) -> None:
        self.diagnostics.append(Diagnostic(severity, self._name, line, 1, code, message))

    def service(self, service: _Service) -> Iterator[str]:
        name = self._unique(service.name)
        client = service.yes("client")
        place = service.one("connect" if client else "accept")
        yield f"# [{service.name}]"
        if place is None:
            what = "connect" if client else "accept"
            self.report(service.line, "error", "no-place", f"[{service.name}] has no '{what}', so it is left out")
            yield f"# left out: it has no '{what}'"
            return
        if len(service.options["connect" if client else "accept"]) > 1:
            self.report(
                service.line, "warning", "several-places", f"[{service.name}]: only the last place is converted"
            )
        host, port = _place(place)
        if port is None:
            self.report(
                service.lines["connect" if client else "accept"],
                "error",
                "no-place",
                f"[{service.name}]: '{place}' is no port and no host:port, so the service is left out",
            )
            yield f"# left out: {place} is no port"
            return
        ring = f"STUNNEL/{name.upper()[:237]}"
        yield from self._comments(service, client, host, port, ring)
        yield f"TTLSRule                          {name}"
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
        yield from self._environment(service, client, host, name, ring)
        yield ""

    def _comments(self, service: _Service, client: bool, host: str, port: int, ring: str) -> Iterator[str]:
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
        certificate = service.one("cert")
        if certificate is not None:
            key = service.one("key")
            yield (
                f"#   attls cert import --owner STUNNEL --label {ring[8:]} {certificate}"
                f"{f' --key {key}' if key is not None and key != certificate else ''}"
            )
            yield f"#   attls keyring connect {ring} --owner STUNNEL --label {ring[8:]} --usage personal --default"
        elif not client:
            self.report(
                service.line, "warning", "no-certificate", f"[{service.name}] names no cert for its server role"
            )
        if (authorities := service.one("cafile")) is not None:
            yield f"#   attls cert import --owner CERTAUTH --label {ring[8:]}-CA {authorities}"
            yield f"#   attls keyring connect {ring} --owner CERTAUTH --label {ring[8:]}-CA --usage certauth"

    def _conditions(self, service: _Service, client: bool, host: str, port: int) -> Iterator[str]:
        address = _address(host)
        if client:
            if address is not None:
                yield f"  RemoteAddr                      {address}"
            elif host:
                self.report(
                    service.lines["connect"],
                    "warning",
                    "host-name",
                    f"[{service.name}]: a rule asks about addresses, not names; it is about every connection to port "
                    f"{port} unless you add RemoteAddr",
                )
            yield f"  RemotePortRange                 {port}"
            yield "  Direction                       Outbound"
        else:
            if address is not None and not ipaddress.ip_address(address).is_unspecified:
                yield f"  LocalAddr                       {address}"
            yield f"  LocalPortRange                  {port}"
            yield "  Direction                       Inbound"

    def _environment(self, service: _Service, client: bool, host: str, name: str, ring: str) -> Iterator[str]:
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
        if level == "1" or (verifies and not service.yes("requirecert") and level is None):
            return "ServerWithClientAuth", "Full"
        return ("ServerWithClientAuth", "Required") if verifies else ("Server", None)

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
            switch = _NO_OPTIONS.get(option.upper().removeprefix("SSL_OP_"))
            if switch is not None:
                on[switch] = False
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
        wanted = service.one("sni") or (host if host and _address(host) is None else None)
        if wanted:
            yield "    ClientHandshakeSNI            Optional"
            yield "    ClientHandshakeSNIMatch       Optional"
            yield f"    ClientHandshakeSNIList        {wanted}"
        check = service.one("checkhost")
        if check:
            yield f"    HostReferenceIdDNS            {check}"

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


def _place(text: str) -> tuple[str, int | None]:
    # stunnel writes host:port or just port; an IPv6 address stands before the last colon.
    host, _, port = text.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else None
    return host.strip("[]"), number if number is not None and 1 <= number <= 65535 else None


def _address(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None
