"""What a compiler would say about a policy that is correct: names nobody uses, rules that never get their turn.

Nothing here changes what a policy means and nothing here is an error. It runs only where somebody asked to be told
everything (`policy check`), because comparing rules with each other costs more than loading them. Each finding stands
at the statement to change, and names the other one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from attls.model import (
    Address,
    AddressRange,
    Conditions,
    Defaults,
    Direction,
    HandshakeRole,
    Owner,
    PortRange,
    Protocol,
    TimeCondition,
)
from attls.policy import codes, times
from attls.policy.language import EFFECTIVE, Value
from attls.policy.match import Matcher, Question, wildcard
from attls.policy.resolve import ACTIONS, Resolver
from attls.policy.rules import Rule
from attls.policy.text import Statement

# Pairs of rules that are compared for partial shadows before we stop looking: a second or two.
_MOST_PAIRS = 1_000_000
_PROTOCOL_SWITCHES = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_ANY = chr(0xFFFF)  # stands for "some character" where a pattern is asked about another


def examine(resolver: Resolver, rules: Sequence[Rule], matcher: Matcher, now: datetime) -> None:
    """Report everything worth knowing about `rules` to the resolver's findings; `now` is local time."""
    _unused_names(resolver)
    _never_in_force(resolver, rules, now)
    _shadowed_rules(resolver, rules, matcher)
    _partly_switched_off(resolver, rules)
    _settings(resolver, rules)
    _own_traffic(resolver, rules, matcher, now)


def covers(wider: Conditions, narrower: Conditions) -> bool:
    """Say whether every connection that `narrower` accepts at any time, `wider` accepts too."""
    return (
        wider.directions >= narrower.directions
        and _ranges_cover(wider.local_ports, narrower.local_ports)
        and _ranges_cover(wider.remote_ports, narrower.remote_ports)
        and _ranges_cover(wider.local_addresses, narrower.local_addresses)
        and _ranges_cover(wider.remote_addresses, narrower.remote_addresses)
        and _pattern_covers(wider.job, narrower.job)
        and _pattern_covers(wider.user, narrower.user)
        and (not wider.times or wider.times == narrower.times or TimeCondition() in wider.times)
    )


def meet(one: Conditions, other: Conditions) -> bool:
    """Say whether some connection could be accepted by both, times aside."""
    return (
        not one.directions.isdisjoint(other.directions)
        and _ranges_meet(one.local_ports, other.local_ports)
        and _ranges_meet(one.remote_ports, other.remote_ports)
        and _ranges_meet(one.local_addresses, other.local_addresses)
        and _ranges_meet(one.remote_addresses, other.remote_addresses)
        and _patterns_meet(one.job, other.job)
        and _patterns_meet(one.user, other.user)
    )


def witness(conditions: Conditions, direction: Direction) -> tuple[Question, Owner]:
    """Return a connection that fits `conditions` and no more: what they do not ask about is not known.

    So a rule that also fits it asks about nothing else, which makes it a candidate for covering `conditions`.
    """
    return (
        Question(
            direction,
            _first_address(conditions.local_addresses),
            conditions.local_ports[0].first if conditions.local_ports else None,
            _first_address(conditions.remote_addresses),
            conditions.remote_ports[0].first if conditions.remote_ports else None,
        ),
        Owner(user=conditions.user, job=conditions.job),
    )


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
    for index, rule in enumerate(rules):
        # Every rule that covers this one fits the witness of each of its directions.
        question, owner = witness(rule.conditions, min(rule.conditions.directions, key=lambda item: item.value))
        for earlier in matcher.find_all(question, owner, None, before=index):
            above = rules[earlier]
            if covers(above.conditions, rule.conditions):
                why = (
                    f"the priority of '{above.name}' is higher ({above.priority} over {rule.priority})"
                    if above.priority > rule.priority
                    else f"both have priority {rule.priority}, and '{above.name}' comes first by name"
                )
                resolver.findings.warning(
                    _node(resolver, rule),
                    "shadowed-rule",
                    f"TTLSRule '{rule.name}' can never match: '{above.name}' ({above.file}:{above.line}) takes all its "
                    f"connections; {why}",
                    word=1,
                )
                break


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
        _companions(resolver, rule, node, names)


def _profiles(resolver: Resolver, rule: Rule, node: Statement, names: tuple[str | None, ...]) -> None:
    coded = _coded(resolver, names)
    silent = [
        parameter
        for parameter in EFFECTIVE
        if parameter.name in _PROTOCOL_SWITCHES
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
    if message is not None:
        resolver.findings.warning(node, "cannot-meet", f"TTLSRule '{rule.name}' {message}", word=1)


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


def _own_traffic(resolver: Resolver, rules: Sequence[Rule], matcher: Matcher, now: datetime) -> None:
    # Checking for revocation makes connections of its own. Ours are exempt from interception, but the same rule would
    # break every other program that asks the same responder in the clear.
    asked: set[tuple[str, Rule]] = set()
    for rule in rules:
        revocation = rule.verdict.settings.revocation if rule.verdict.settings is not None else None
        if revocation is None:
            continue
        places = [(revocation.ocsp_url, 80)] if revocation.ocsp_url is not None else []
        places += [(f"ldap://{server}", revocation.ldap_port) for server in revocation.ldap_servers]
        if revocation.lists_by_http or revocation.ocsp_from_certificate:
            places.append(("http://", 80))
        for place, default_port in places:
            host, port = _host_and_port(place, default_port)
            index = matcher.find(Question(Direction.OUTBOUND, None, None, host, port), Owner(), now)
            if index is None or not rules[index].verdict.enabled or (place, rules[index]) in asked:
                continue
            asked.add((place, rules[index]))
            what = place if len(place) > 7 else "responders on port 80"
            resolver.findings.warning(
                _node(resolver, rules[index]),
                "revocation-traffic",
                f"TTLSRule '{rules[index].name}' would put TLS on connections to {what}, which rule '{rule.name}' asks "
                "about revocation in the clear",
                word=1,
            )


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


def _first_address(ranges: tuple[AddressRange, ...]) -> Address | None:
    if not ranges:
        return None
    return IPv4Address(ranges[0].first) if ranges[0].version == 4 else IPv6Address(ranges[0].first)


_Ranges = tuple[AddressRange, ...] | tuple[PortRange, ...]


def _ranges_cover(wider: _Ranges, narrower: _Ranges) -> bool:
    # Ranges are sorted and merged, so each can only be covered by the one that begins last before it.
    if not wider:
        return True
    if not narrower:
        return False
    starts = [_start(item) for item in wider]
    for item in narrower:
        index = bisect_right(starts, _start(item)) - 1
        if index < 0 or starts[index][0] != _start(item)[0] or item.last > wider[index].last:
            return False
    return True


def _ranges_meet(one: _Ranges, other: _Ranges) -> bool:
    if not one or not other:
        return True
    # Walk both in step: whichever range ends first cannot meet anything further on.
    i = j = 0
    while i < len(one) and j < len(other):
        left, right = one[i], other[j]
        if (kind := _start(left)[0]) == (another := _start(right)[0]):
            if left.first <= right.last and right.first <= left.last:
                return True
            i, j = (i + 1, j) if left.last < right.last else (i, j + 1)
        else:
            i, j = (i + 1, j) if kind < another else (i, j + 1)
    return False


def _start(item: AddressRange | PortRange) -> tuple[int, int]:
    return (item.version if isinstance(item, AddressRange) else 0, item.first)


def _pattern_covers(wider: str | None, narrower: str | None) -> bool:
    if wider is None:
        return True
    if narrower is None:
        return False
    # A character that occurs in no pattern stands for "any": only a wildcard of the wider one can take it.
    long_run = _ANY * (len(wider) + 1)
    return all(wildcard(wider, narrower.replace("?", _ANY).replace("*", run)) for run in ("", long_run))


def _patterns_meet(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return True
    # Positions in both patterns that can be reached together by some common text.
    reached = {(0, 0)}
    waiting = [(0, 0)]
    while waiting:
        i, j = waiting.pop()
        if i == len(one) and j == len(other):
            return True
        steps = []
        left, right = one[i : i + 1], other[j : j + 1]
        if left == "*":
            steps.append((i + 1, j))
            if right and right != "*":
                steps.append((i, j + 1))
        if right == "*":
            steps.append((i, j + 1))
            if left and left != "*":
                steps.append((i + 1, j))
        if left and right and "*" not in (left, right) and (left == right or "?" in (left, right)):
            steps.append((i + 1, j + 1))
        for step in steps:
            if step not in reached:
                reached.add(step)
                waiting.append(step)
    return False
