"""What a compiler would say about a policy that is correct: names nobody uses, rules that never get their turn.

Nothing here changes what a policy means and nothing here is an error. It runs only where somebody asked to be told
everything (`policy check`), because comparing rules with each other costs more than loading them. Each finding stands
at the statement to change, and names the other one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from attls.model import (
    Address,
    Defaults,
    Direction,
    HandshakeRole,
    Owner,
    Protocol,
    Revocation,
    without_gap,
)
from attls.policy import codes, times
from attls.policy.language import EFFECTIVE, Value
from attls.policy.match import Matcher, Question
from attls.policy.resolve import ACTIONS, PROTOCOLS, Resolver
from attls.policy.rules import Rule
from attls.policy.shadows import Shadows, is_possible, meet
from attls.policy.text import Statement

# Pairs of rules that are compared for partial shadows before we stop looking: a second or two.
_MOST_PAIRS = 1_000_000
_SWITCHES = {protocol: name for name, protocol in PROTOCOLS.items()}
_OF_SESSIONS = ("GSK_V3_SESSION_TIMEOUT", "GSK_V3_SIDCACHE_SIZE", "GSK_SESSION_TICKET_SERVER_TIMEOUT")


def examine(resolver: Resolver, rules: Sequence[Rule], matcher: Matcher, now: datetime) -> None:
    """Report everything worth knowing about `rules` to the resolver's findings; `now` is local time."""
    _unused_names(resolver)
    _never_in_force(resolver, rules, now)
    _shadowed_rules(resolver, rules, matcher)
    _partly_switched_off(resolver, rules)
    _settings(resolver, rules)
    _own_traffic(resolver, rules, matcher)


def _unused_names(resolver: Resolver) -> None:
    for kind, blocks in resolver.blocks.items():
        if kind == "TTLSRule":
            continue
        for name, block in blocks.items():
            if (kind, name) not in resolver.referenced:
                resolver.findings.warning(block.node, "unused-name", f"{kind} '{name}' is not used by anything", word=1)


def _never_in_force(resolver: Resolver, rules: Sequence[Rule], now: datetime) -> None:
    possible = lru_cache(maxsize=None)(times.can_be_active)
    for rule in rules:
        conditions = rule.conditions.times
        if not conditions:
            continue
        node = _node(resolver, rule)
        if not any(possible(condition) for condition in conditions):
            resolver.findings.warning(
                node, "never-in-force", f"TTLSRule '{rule.name}' can never be in force: no moment fits its times"
            )
        elif all(condition.ends is not None and condition.ends < now for condition in conditions):
            last = max(condition.ends for condition in conditions if condition.ends is not None)
            resolver.findings.warning(
                node, "never-in-force", f"TTLSRule '{rule.name}' is over: its time ended on {last:%Y-%m-%d %H:%M}"
            )


def _shadowed_rules(resolver: Resolver, rules: Sequence[Rule], matcher: Matcher) -> None:
    shadows = Shadows(rules, matcher)
    told = False
    for index, rule in enumerate(rules):
        node = _node(resolver, rule)
        if shadows.is_in_haste and not told:
            told = True
            _say_what_is_missed(resolver, rule, "which of them can never match is not told for all")
        if not is_possible(rule.conditions):
            resolver.findings.warning(
                node,
                "never-matches",
                f"TTLSRule '{rule.name}' can never match: one of its addresses is IPv4 where the other is IPv6",
                word=1,
            )
            continue
        above = shadows.in_front(index)
        if above:
            shown = [f"'{item.name}' ({item.file}:{item.line})" for item in above[:4]]
            if above[4:]:
                shown.append(f"{len(above) - 4} more")
            takes = "takes" if len(above) == 1 else "together take"
            resolver.findings.warning(
                node,
                "shadowed-rule",
                f"TTLSRule '{rule.name}' can never match: {_and(shown)} {takes} all its connections; "
                f"{_why(rule, above)}",
                word=1,
            )


def _say_what_is_missed(resolver: Resolver, rule: Rule, what: str) -> None:
    resolver.findings.warning(
        _node(resolver, rule),
        "not-looked-at",
        f"there are too many rules to compare all: from TTLSRule '{rule.name}' on, {what}",
        word=1,
    )


def _why(rule: Rule, above: Sequence[Rule]) -> str:
    if len(above) > 1:
        return "all of them come first, by priority or by name"
    if above[0].priority > rule.priority:
        return f"the priority of '{above[0].name}' is higher ({above[0].priority} over {rule.priority})"
    return f"both have priority {rule.priority}, and '{above[0].name}' comes first by name"


def _and(parts: Sequence[str]) -> str:
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else parts[0]


def _partly_switched_off(resolver: Resolver, rules: Sequence[Rule]) -> None:
    # A rule that says "in the clear" in front of one that says "TLS" for some of the same connections. Often meant;
    # always worth a look.
    pairs = 0
    for index, off in enumerate(rules):
        if off.verdict.enabled:
            continue
        names: list[str] = []
        for on in rules[index + 1 :]:
            if not on.verdict.enabled:
                continue
            pairs += 1 + (len(off.conditions.remote_addresses) + len(on.conditions.remote_addresses)) // 8
            if pairs > _MOST_PAIRS:
                _say_what_is_missed(resolver, off, "which of them leave in the clear what others protect is not told")
                return
            if on.priority <= off.priority and meet(off.conditions, on.conditions):
                names.append(on.name)
        if names:
            shown = ", ".join(f"'{name}'" for name in names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            resolver.findings.warning(
                _node(resolver, off),
                "switched-off",
                f"TTLSRule '{off.name}' (TTLSEnabled Off, priority {off.priority}) leaves connections in the clear "
                f"that {shown} would protect",
                word=1,
            )


def _settings(resolver: Resolver, rules: Sequence[Rule]) -> None:
    # What the actions say together, once for each combination of actions that some rule names.
    seen: set[tuple[str | None, ...]] = set()
    for rule in rules:
        settings = rule.verdict.settings
        if settings is None:
            continue
        node = _node(resolver, rule)
        verifies = settings.host_reference_dns is not None or settings.host_reference_cn is not None
        if settings.role is HandshakeRole.CLIENT and not verifies:
            resolver.findings.warning(
                node,
                "no-host-name",
                f"TTLSRule '{rule.name}' is a TLS client that checks no host name: any server with a certificate from "
                "a trusted authority is accepted",
                word=1,
                hint="code HostReferenceIdDNS",
            )
        names = (rule.verdict.group, rule.verdict.environment, rule.verdict.connection)
        if names in seen:
            continue
        seen.add(names)
        if settings.role is not HandshakeRole.CLIENT and verifies:
            resolver.findings.warning(
                node, "no-effect", f"TTLSRule '{rule.name}': a host reference has no effect in the server role", word=1
            )
        _profiles(resolver, rule, node, names)
        _protocols(resolver, rule, node)
        _signatures(resolver, rule, node)
        _companions(resolver, rule, node, names)
        _no_resumption(resolver, rule, node, names)


def _profiles(resolver: Resolver, rule: Rule, node: Statement, names: tuple[str | None, ...]) -> None:
    coded = _coded(resolver, names)
    silent = [
        parameter
        for parameter in EFFECTIVE
        if parameter.name in PROTOCOLS
        and parameter.name not in coded
        and parameter.silent(Defaults.MODERN) != parameter.silent(Defaults.ZOS)
    ]
    if silent:
        modern = ", ".join(f"{item.name} {item.silent(Defaults.MODERN)}" for item in silent)
        zos = ", ".join(f"{item.name} {item.silent(Defaults.ZOS)}" for item in silent)
        environment = resolver.blocks["TTLSEnvironmentAction"].get(names[1] or "")
        resolver.findings.warning(
            node if environment is None else environment.node,
            "profiles-differ",
            f"rule '{rule.name}' does not say {' or '.join(item.name for item in silent)}: "
            f"--defaults modern means {modern}; --defaults zos means {zos}",
            hint="code the protocol switches",
        )


def _protocols(resolver: Resolver, rule: Rule, node: Statement) -> None:
    settings = rule.verdict.settings
    assert settings is not None
    usable = {protocol for protocol in settings.protocols if protocol >= Protocol.TLSV1}
    new, old = Protocol.TLSV1_3 in usable, bool(usable - {Protocol.TLSV1_3})
    ciphers = set(settings.ciphers)
    negotiable = ciphers & codes.NEGOTIABLE
    message = None
    if not usable:
        message = "has no protocol switched on that this system speaks, so no handshake can succeed"
    elif ciphers:
        new_ciphers, old_ciphers = ciphers & codes.TLSV1_3_CIPHERS, ciphers - codes.TLSV1_3_CIPHERS
        if new and not old and not new_ciphers:
            message = "speaks only TLS 1.3 but lists no cipher of TLS 1.3 (1301, 1302, 1303): nothing can be agreed on"
        elif old and not new and not old_ciphers:
            message = "lists only ciphers of TLS 1.3, which is switched off: nothing can be agreed on"
        elif new and not new_ciphers:
            message = "has TLS 1.3 on but lists none of its ciphers (1301, 1302, 1303), so it is never used"
        elif old and not old_ciphers:
            message = "lists only ciphers of TLS 1.3, so the older protocols that are on are never used"
        elif not negotiable:
            message = "lists only ciphers that the TLS library here does not have: nothing can be agreed on"
        elif usable <= {Protocol.TLSV1, Protocol.TLSV1_1} and not any(map(_fits_tls_1_0, negotiable)):
            message = "lists only ciphers that need TLS 1.2, which is switched off: nothing can be agreed on"
    offered = without_gap(usable)
    if settings.role is HandshakeRole.CLIENT and offered != usable:
        left_out = ", ".join(_SWITCHES[protocol] for protocol in sorted(usable - offered))
        resolver.findings.warning(
            node,
            "no-effect",
            f"TTLSRule '{rule.name}': as a client it never uses {left_out}, because a version between those that are "
            "on is off, and the TLS library here offers no gap",
            word=1,
            hint=f"code {left_out} Off" if len(usable - offered) == 1 else "switch them off, or the gap on",
        )
    if message is not None:
        resolver.findings.warning(node, "cannot-meet", f"TTLSRule '{rule.name}' {message}", word=1)


def _fits_tls_1_0(code: str) -> bool:
    # Suites with a hash of their own in the name are defined for TLS 1.2 and newer alone (RFC 5246 appendix A.5).
    return codes.CIPHERS[code].endswith(("_SHA", "_MD5"))


def _signatures(resolver: Resolver, rule: Rule, node: Statement) -> None:
    # TLS 1.3 knows no PKCS#1 signatures in a handshake (RFC 8446 section 4.2.3), and ends do not fall back for that.
    settings = rule.verdict.settings
    assert settings is not None
    pairs = set(settings.signature_pairs)
    if not pairs or Protocol.TLSV1_3 not in settings.protocols or pairs & codes.TLSV1_3_RSA_PAIRS:
        return
    usable = bool(pairs & codes.TLSV1_3_OTHER_PAIRS)
    who = "with an RSA certificate nobody can use it" if usable else "nobody can use it"
    resolver.findings.warning(
        node,
        "cannot-meet",
        f"TTLSRule '{rule.name}' has TLS 1.3 on, but {who}: SignaturePairs lists none of "
        f"{', '.join(sorted(codes.TLSV1_3_RSA_PAIRS))}",
        word=1,
        hint="add them, or code TLSv1.3 Off",
    )


def _no_resumption(resolver: Resolver, rule: Rule, node: Statement, names: tuple[str | None, ...]) -> None:
    settings = rule.verdict.settings
    if settings is None or settings.revocation is None or not settings.revocation.asks:
        return
    if settings.role is HandshakeRole.SERVER:  # asks its clients for nothing
        return
    coded = [name for name in _coded(resolver, names) if name in _OF_SESSIONS]
    if coded:
        resolver.findings.warning(
            node,
            "no-effect",
            f"TTLSRule '{rule.name}': {', '.join(sorted(coded))} without effect: no session is resumed where "
            "certificates are asked about, for a resumed handshake brings none",
            word=1,
        )


def _companions(resolver: Resolver, rule: Rule, node: Statement, names: tuple[str | None, ...]) -> None:
    # Parameters that mean nothing without another one.
    coded = _coded(resolver, names)
    for switch, needed, server in (
        ("ClientHandshakeSNI", "ClientHandshakeSNIList", False),
        ("ServerHandshakeSNI", "ServerHandshakeSNIList", True),
    ):
        if coded.get(switch, "Off") != "Off" and needed not in coded:
            settings = rule.verdict.settings
            assert settings is not None
            if (settings.role is not HandshakeRole.CLIENT) == server:
                resolver.findings.warning(
                    node,
                    "missing-companion",
                    f"TTLSRule '{rule.name}': {switch} has no effect without {needed}",
                    word=1,
                )


def _own_traffic(resolver: Resolver, rules: Sequence[Rule], matcher: Matcher) -> None:
    # Checking for revocation makes connections of its own. Ours are exempt from interception, but the same rule would
    # break every other program that asks the same responder in the clear.
    asked: set[tuple[str, Rule]] = set()
    for rule in rules:
        revocation = rule.verdict.settings.revocation if rule.verdict.settings is not None else None
        if revocation is None:
            continue
        for place, default_port, what in _asked_places(revocation):
            host, port = _host_and_port(place, default_port)
            catching = _first_with_tls(rules, matcher, Question(Direction.OUTBOUND, None, None, host, port))
            if catching is None or (place, catching) in asked:
                continue
            asked.add((place, catching))
            resolver.findings.warning(
                _node(resolver, catching),
                "revocation-traffic",
                f"TTLSRule '{catching.name}' would put TLS on connections to {what}, which rule '{rule.name}' asks "
                "about revocation in the clear",
                word=1,
            )


def _asked_places(asked: Revocation) -> Iterator[tuple[str, int, str]]:
    # Where connections about revocation go: as a URL, with the port if that says none, and in words. Where there is a
    # proxy they go there.
    by_ocsp = asked.ocsp_url is not None or asked.ocsp_from_certificate
    for asks, proxy, port in (
        (by_ocsp, asked.ocsp_proxy, asked.ocsp_proxy_port),
        (asked.lists_by_http, asked.http_proxy, asked.http_proxy_port),
    ):
        if asks and proxy is not None:
            yield f"http://{proxy}", port, f"the proxy {proxy} port {port}"
    if asked.ocsp_url is not None and asked.ocsp_proxy is None:
        yield asked.ocsp_url, 80, asked.ocsp_url
    for server in asked.ldap_servers:
        yield f"ldap://{server}", asked.ldap_port, f"ldap://{server}"
    if (asked.lists_by_http and asked.http_proxy is None) or (asked.ocsp_from_certificate and asked.ocsp_proxy is None):
        yield "http://", 80, "responders on port 80"


def _first_with_tls(rules: Sequence[Rule], matcher: Matcher, question: Question) -> Rule | None:
    # The rule that puts TLS on such a connection of a program that is not known, at whatever time.
    for index in matcher.find_all(question, Owner(), None, before=len(rules)):
        if rules[index].verdict.enabled:
            return rules[index]
        if not rules[index].conditions.times:
            return None
    return None


def _host_and_port(place: str, default_port: int) -> tuple[Address | None, int]:
    authority = place.partition("://")[2].partition("/")[0]
    host, _, port = authority.rpartition(":") if authority.count(":") == 1 else (authority, "", "")
    try:
        address = IPv6Address(host.strip("[]")) if ":" in host else IPv4Address(host)
    except ValueError:
        address = None
    return address, int(port) if port.isascii() and port.isdigit() and len(port) < 6 else default_port


def _coded(resolver: Resolver, names: tuple[str | None, ...]) -> dict[str, Value]:
    coded: dict[str, Value] = {}
    for kind, name in zip(ACTIONS, names, strict=True):
        if name is not None:
            coded.update(resolver.coded(kind, name))
    return coded


def _node(resolver: Resolver, rule: Rule) -> Statement:
    return resolver.blocks["TTLSRule"][rule.name].node
