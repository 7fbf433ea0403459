"""The steering table: rules rendered as nftables text, and the few calls that hand such text to the kernel.

Rule of the house: `render` is a pure function; only `check`, `apply`, `remove` and `installed` run the `nft` tool, and
they feed it one transaction, so the host is never half-configured. What one connection is worth is decided elsewhere;
here we only choose which connections some rule *could* match. Too many costs time, too few would leak.

Theory of operation
-------------------
*One table, one fact per connection.* The first SYN of a connection is judged by `outbound_rules` (hook output) or
`inbound_rules` (hook prerouting). If it is steered, the connection gets a conntrack mark, and every later packet is
treated by that mark alone. So a new table leaves living connections as they are, and connections older than the first
table are never touched: they have no mark, and only a SYN is ever judged.

*Outbound.* A program's packets are marked in a `route` chain and so, by an `ip rule` and a table that calls every
address local (routes.py), turned round to this host; on `lo` TPROXY assigns them to our transparent listener. Nothing
is rewritten: the program's view (getpeername) stays true, and our socket's own name is the real destination. A redirect
by NAT would do the same at first sight, but two connections from one port to two destinations look alike behind it, so
conntrack gives one of them another source port, and its owner is not found any more.

*Inbound.* TPROXY likewise, without the detour. All packets of a connection take that way, not only those for which a
socket exists: the ACK that answers a SYN cookie has no socket yet and would otherwise reach the program's own listener.

Where TPROXY finds nobody of ours, the next rule ends it: the daemon is dead, and dead must not mean clear text. A SYN
is dropped (its sender tries again, and finds us restarted), anything else is reset.

*The program leg.* Towards the local program we bind the client's own address. The program's answers would leave for the
network, in clear, so they are turned round like outbound packets and find our socket here.

*From outside* nothing may enter the legs that stay on this host: packets that come by another interface than `lo` and
fit one of them are guesses at its ports and sequence numbers, and are dropped.

*Loopback.* One packet is outbound for its sender and inbound for its receiver. Our own network leg is therefore exempt
from the outbound rules only, our program leg from both. Exempt means mark *and* uid, for neither alone is proof.

*Other people's NAT* (container ports, service addresses) would change the destination after we judged it, so steered
connections are bound to the destination they have, before anybody else's chain (priority -105).

*When conntrack forgets.* After `conntrack -F`, an idle timeout, or for a packet it takes for invalid, the mark is gone,
and a packet of a protected program would go to the real destination in clear. So the table keeps a memory of its own:
each steered connection's four-tuple, as the program's packets show it, is in a set (`steered`, `program`). A packet
that is no SYN and that conntrack knows nothing about is looked up there, and goes on as before if it is found. Not
found means older than the table: none of our business. The sets survive `render`'s transaction, and with it a reload
and a restart. Entries fade ten minutes after FIN or RST. When a set is full, new connections are refused rather than
steered without being remembered; so are those that conntrack is told not to track.

*Last line.* In postrouting, whatever must stay on this host must leave by `lo`. If somebody deletes our routing rule
(network managers do), packets are dropped there instead of leaving in clear. A socket that its program binds to a
network interface cannot be turned round; its steered connections are not made at all.

*Taking it away.* Without the table a program that still holds a steered socket would send to the real destination in
clear. So `remove` first stops steering, then has the kernel abort the program's socket of every remembered connection
that is left, and only then deletes the table.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from operator import attrgetter
from typing import Any, Protocol

from attls.errors import InterceptError
from attls.intercept import boxes
from attls.intercept.boxes import Box
from attls.intercept.marks import MARKS, Marks
from attls.intercept.netlink import SocketDiagnosis
from attls.model import AddressRange, Conditions, Direction, Endpoint, PortRange

TABLE = "attls"

Ranges = tuple[tuple[int, int], ...]


class SteeringVerdict(Protocol):
    """The part of a verdict that steering looks at."""

    @property
    def enabled(self) -> bool:
        """Whether the rule asks for TLS."""


class SteeringRule(Protocol):
    """The part of a policy rule that steering looks at."""

    @property
    def name(self) -> str:
        """The rule's name; it becomes a comment in the table."""

    @property
    def conditions(self) -> Conditions:
        """What the rule asks of a connection."""

    @property
    def verdict(self) -> SteeringVerdict:
        """What the rule decides."""


# --------------------------------------------------------------------------------------------------------------------
# From rules to matches


@dataclass(frozen=True, slots=True)
class Match:
    """What a packet filter can see of a rule; None means "not looked at". Ranges are sorted, disjoint, inclusive.

    `version` is 4 or 6 where addresses are looked at.
    """

    version: int | None = None
    local: Ranges | None = None
    remote: Ranges | None = None
    local_ports: Ranges | None = None
    remote_ports: Ranges | None = None
    uids: frozenset[int] | None = None


EVERYTHING = Match()
RANGE_FIELDS = ("remote_ports", "local_ports", "remote", "local")
FIELDS = ("uids", *RANGE_FIELDS)
_Row = tuple[Any, ...]  # the fields of a match, in order
_COLUMNS = tuple(Match.__slots__)
_ROW = attrgetter(*_COLUMNS)
# A match whose fields multiply to more elements than MOST_ELEMENTS stays a line with one set for each field; so do all
# further ones when a step has MOST_ELEMENTS_OF_STEP already. The kernel's time to fill an interval set grows with the
# square of its size, so large ones are divided. What overlaps too often to fit into MOST_SETS is a line each again.
MOST_ELEMENTS = 1024
MOST_ELEMENTS_OF_STEP = 200_000
MOST_ELEMENTS_OF_SET = 8192
MOST_SETS = 16
MOST_OUTLINE = 32
# Each step costs a new connection a few look-ups.
MOST_STEPS = 32


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the same numbers as sorted, disjoint ranges, neighbours joined."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def matches_of(rule: SteeringRule, direction: Direction, uids_of: Callable[[str], frozenset[int]]) -> tuple[Match, ...]:
    """Say what of `rule` a packet filter can see: a superset for a rule that asks for TLS, else exactly it or nothing.

    A rule without TLS that also looks at a job, a time, or a user the kernel cannot judge here gives no match at all:
    its connections are left to later rules, and where one of those steers them, the full rule is applied to them.
    """
    conditions = rule.conditions
    if direction not in conditions.directions:
        return ()
    exact = conditions.job is None and not conditions.times
    uids: frozenset[int] | None = None
    if conditions.user is not None:
        wildcard = "*" in conditions.user or "?" in conditions.user
        if direction is Direction.OUTBOUND and not wildcard:
            uids = uids_of(conditions.user) or None  # nobody of that name now; there may be one later
        exact = exact and uids is not None
    if not exact and not rule.verdict.enabled:
        return ()
    local_ports, remote_ports = _ports(conditions.local_ports), _ports(conditions.remote_ports)
    if () in (local_ports, remote_ports):
        return ()  # port 0 and nothing else
    if not conditions.local_addresses and not conditions.remote_addresses:
        return (Match(None, None, None, local_ports, remote_ports, uids),)
    found = []
    for version in (4, 6):
        local = _addresses(conditions.local_addresses, version)
        remote = _addresses(conditions.remote_addresses, version)
        if local != () and remote != ():
            found.append(Match(version, local, remote, local_ports, remote_ports, uids))
    return tuple(found)


def _ports(ranges: tuple[PortRange, ...]) -> Ranges | None:
    """Return None where every port fits; port 0 is on no packet."""
    if not ranges:
        return None
    joined = union([(max(item.first, 1), item.last) for item in ranges if item.last > 0])
    return None if joined == ((1, 65535),) else joined


def _addresses(ranges: tuple[AddressRange, ...], version: int) -> Ranges | None:
    """Return None where every address of `version` fits, and an empty tuple where none does."""
    if not ranges:
        return None
    joined = union([(item.first, item.last) for item in ranges if item.version == version])
    return None if joined == ((0, 2 ** (32 if version == 4 else 128) - 1),) else joined


@dataclass(frozen=True, slots=True)
class Step:
    """Matches that lead to the same verdict, in any order; `names` tells the rule of a match that is one rule's own."""

    steers: bool
    matches: tuple[Match, ...]
    names: dict[Match, str]


def steps(
    rules: Iterable[SteeringRule], direction: Direction, uids_of: Callable[[str], frozenset[int]]
) -> Iterator[Step]:
    """Reduce ordered rules to ordered steps; the first step with a match decides, no match means "not steered".

    Matches of different verdicts change places where they do not overlap, so that there are few steps. Where rules with
    and without TLS take turns more than MOST_STEPS times, the later ones without TLS are left to the full policy.
    """
    judged: list[tuple[Match, bool, str]] = []
    for rule in rules:
        judged += [(match, rule.verdict.enabled, rule.name) for match in matches_of(rule, direction, uids_of)]
        if judged and judged[-1][0] == EVERYTHING:
            break  # nothing behind it can be reached
    if len({enabled for _, enabled, _ in judged}) < 2:
        found: list[int | None] = [0] * len(judged)
    else:
        found = boxes.levels(((_outline(match), enabled) for match, enabled, _ in judged), MOST_STEPS)
    members: dict[int, list[tuple[Match, bool, str]]] = {}
    for level, item in zip(found, judged, strict=True):
        if level is not None:
            members.setdefault(level, []).append(item)
    for _, level_members in sorted(members.items()):
        matches = merged([match for match, _, _ in level_members])
        names = {match: name for match, _, name in reversed(level_members)}
        yield Step(level_members[0][1], tuple(matches), names)


def merged(matches: Sequence[Match]) -> list[Match]:
    """Join matches of one verdict that differ in a single field; their order does not matter among themselves."""
    if EVERYTHING in matches:
        return [EVERYTHING]
    # Plain tuples: ten thousand rules make a hundred thousand of these, and a dataclass takes ten times as long.
    found = list(dict.fromkeys(map(_ROW, matches)))
    for name in (*RANGE_FIELDS, "uids"):
        column = _COLUMNS.index(name)
        groups: dict[_Row, list[Any]] = {}
        for row in found:
            groups.setdefault((*row[:column], None, *row[column + 1 :]), []).append(row[column])
        found = []
        for rest, values in groups.items():
            if None in values:  # one of them does not look at this field, so all of them need not
                found.append(rest)
                continue
            value = values[0]
            if len(values) > 1:
                value = frozenset().union(*values) if name == "uids" else union(chain.from_iterable(values))
            found.append((*rest[:column], value, *rest[column + 1 :]))
    return [Match(*row) for row in found]


def _fields(match: Match) -> tuple[str, ...]:
    """Name the fields that `match` looks at, in the order of a look-up."""
    return tuple(name for name in FIELDS if getattr(match, name) is not None)


def _field_ranges(match: Match, name: str) -> Ranges:
    value = getattr(match, name)
    if name == "uids":
        return tuple((uid, uid) for uid in sorted(value))  # never joined: the kernel cannot compare them in a look-up
    ranges: Ranges = value
    return ranges


def _count(match: Match) -> int:
    """Return of how many boxes `match` consists."""
    return math.prod(len(_field_ranges(match, name)) for name in _fields(match))


def _boxes_of(match: Match) -> Iterator[Box]:
    """Yield the boxes of `match`: the address family, then one range for each field."""
    family = None if match.version is None else (match.version, match.version)
    choices = [(None,) if getattr(match, name) is None else _field_ranges(match, name) for name in FIELDS]
    return ((family, *ranges) for ranges in product(*choices))


def _outline(match: Match) -> list[Box]:
    """Return boxes that cover `match`: its own if they are few, else one around all of it."""
    if _count(match) <= MOST_OUTLINE:
        return list(_boxes_of(match))
    family = None if match.version is None else (match.version, match.version)
    spans = []
    for name in FIELDS:
        ranges = () if getattr(match, name) is None else _field_ranges(match, name)
        spans.append((ranges[0][0], ranges[-1][1]) if ranges else None)
    return [(family, *spans)]


# --------------------------------------------------------------------------------------------------------------------
# From matches to text

OUTBOUND_WORDS = {"local": "saddr", "remote": "daddr", "local_ports": "sport", "remote_ports": "dport"}
INBOUND_WORDS = {"local": "daddr", "remote": "saddr", "local_ports": "dport", "remote_ports": "sport"}


def rule_lines(
    rules: Iterable[SteeringRule],
    direction: Direction,
    uids_of: Callable[[str], frozenset[int]],
) -> Iterator[str]:
    """Yield the lines of `outbound_rules` or `inbound_rules`: first match wins, as in the policy."""
    outbound = direction is Direction.OUTBOUND
    words = OUTBOUND_WORDS if outbound else INBOUND_WORDS
    for step in steps(rules, direction, uids_of):
        target = ("goto outbound_steer" if outbound else "goto inbound_steer") if step.steers else "return"
        found, plain = lookups(step)
        for lookup in found:
            yield f"{_lookup_text(lookup, words)} {target}"
        for match in plain:
            comment = _comment(step.names.get(match))
            yield f"{_condition(match, words)}{_users(match)} {target}{comment}".strip()


def secondary_lines(
    rules: Iterable[SteeringRule],
    direction: Direction,
    uids_of: Callable[[str], frozenset[int]],
    secondary: Callable[[SteeringRule], bool],
) -> Iterator[str]:
    """Yield the lines that steer what may follow a connection, and remember between whom one is steered.

    These rules are looked at one by one and before all others: too much is remembered, never too little. Where nothing
    more can be remembered, the connection itself is refused.
    """
    followed = [rule for rule in rules if rule.verdict.enabled and secondary(rule)]
    if not followed:
        return
    outbound = direction is Direction.OUTBOUND
    words = OUTBOUND_WORDS if outbound else INBOUND_WORDS
    target = "goto outbound_steer" if outbound else "goto inbound_steer"
    for rule in followed:
        for match in matches_of(rule, direction, uids_of):
            condition = f"{_condition(match, words)}{_users(match)}".strip()
            for version, family in ((4, "ip"), (6, "ip6")):
                if match.version in (None, version):
                    pair = f"{family} {words['local']} . {family} {words['remote']}"
                    yield f"{condition} update @pairs{version} {{ {pair} }}".strip()
                    yield f"{condition} {pair} != @pairs{version} drop".strip()
    for version, family in ((4, "ip"), (6, "ip6")):
        yield f"{family} {words['local']} . {family} {words['remote']} @pairs{version} {target}"


def _never(_rule: SteeringRule) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Lookup:
    """Many boxes as the elements of one set: `fields` are looked up together, of packets of `version` if that is given.

    The elements are either all exact values, or do not overlap; the kernel takes no others.
    """

    version: int | None
    fields: tuple[str, ...]
    elements: tuple[Ranges, ...]


def lookups(step: Step) -> tuple[list[Lookup], list[Match]]:
    """Divide a step's matches into look-ups of many and lines of their own, so that its cost does not grow with them.

    Exact values go into hash sets, ranges into interval sets. Together they match what the step matches.
    """
    groups: dict[tuple[int | None, tuple[str, ...]], list[Match]] = {}
    plain = []
    room = MOST_ELEMENTS_OF_STEP
    for match in step.matches:
        fields, count = _fields(match), _count(match)
        if len(fields) < 2 or count > MOST_ELEMENTS or count > room:
            plain.append(match)
        else:
            room -= count
            groups.setdefault((match.version, fields), []).append(match)
    found = []
    for (version, fields), members in groups.items():
        if len(members) == 1:
            plain += members
            continue
        points: dict[Box, None] = {}
        wide: list[Box] = []
        for box in (box for match in members for box in _boxes_of(match)):
            if all(ends is None or ends[0] == ends[1] for ends in box[1:]):
                points[box] = None
            else:
                wide.append(box)
        sets, left = boxes.disjoint(wide, MOST_SETS)
        for some in ([*points], *sets):
            for start in range(0, len(some), MOST_ELEMENTS_OF_SET):
                part = some[start : start + MOST_ELEMENTS_OF_SET]
                found.append(Lookup(version, fields, tuple(_element(box) for box in part)))
        plain += [_match_of(box) for box in left]
    return found, plain


def _element(box: Box) -> Ranges:
    return tuple(ends for ends in box[1:] if ends is not None)


def _match_of(box: Box) -> Match:
    family, uids, *ranges = box
    named = {name: None if ends is None else (ends,) for name, ends in zip(RANGE_FIELDS, ranges, strict=True)}
    users = None if uids is None else frozenset(range(uids[0], uids[1] + 1))
    return Match(version=None if family is None else family[0], uids=users, **named)


def _lookup_text(lookup: Lookup, words: dict[str, str]) -> str:
    version = lookup.version
    keys = " . ".join(_word(name, version, words) for name in lookup.fields)
    elements = ", ".join(
        " . ".join(_range(name, version, ends) for name, ends in zip(lookup.fields, element, strict=True))
        for element in lookup.elements
    )
    family = "" if version is None else f"meta nfproto ipv{version} "
    return f"{family}meta l4proto tcp {keys} {{ {elements} }}"


def _condition(match: Match, words: dict[str, str]) -> str:
    parts = []
    if match.version is not None and match.local is None and match.remote is None:
        parts.append(f"meta nfproto ipv{match.version}")
    for name in ("remote", "local", "remote_ports", "local_ports"):
        ranges: Ranges | None = getattr(match, name)
        if ranges is not None:
            texts = [_range(name, match.version, item) for item in ranges]
            value = texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"
            parts.append(f"{_word(name, match.version, words)} {value}")
    return " ".join(parts)


def _users(match: Match) -> str:
    if match.uids is None:
        return ""
    texts = ", ".join(str(uid) for uid in sorted(match.uids))
    return f" meta skuid {texts}" if len(match.uids) == 1 else f" meta skuid {{ {texts} }}"


def _word(name: str, version: int | None, words: dict[str, str]) -> str:
    if name == "uids":
        return "meta skuid"
    if name.endswith("ports"):
        return f"tcp {words[name]}"
    return f"{'ip' if version == 4 else 'ip6'} {words[name]}"


def _value(name: str, version: int | None, number: int) -> str:
    if name not in ("remote", "local"):
        return str(number)
    if version == 6:
        return str(ipaddress.IPv6Address(number))
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _range(name: str, version: int | None, ends: tuple[int, int]) -> str:
    first, last = ends
    if first == last:
        return _value(name, version, first)
    size = last - first + 1
    if name in ("remote", "local") and size & (size - 1) == 0 and first % size == 0:
        return f"{_value(name, version, first)}/{(32 if version == 4 else 128) - size.bit_length() + 1}"
    return f"{_value(name, version, first)}-{_value(name, version, last)}"


def _comment(name: str | None) -> str:
    if name is None:
        return ""
    harmless = re.sub(r"[^A-Za-z0-9_.~ -]", "_", name)
    return f' comment "{harmless[:100]}"'


SETS = """\
	set {name}4 {{
		typeof ip saddr . tcp sport . ip daddr . tcp dport
		size 1048576
		flags dynamic,timeout
		timeout 365d
	}}
	set {name}6 {{
		typeof ip6 saddr . tcp sport . ip6 daddr . tcp dport
		size 1048576
		flags dynamic,timeout
		timeout 365d
	}}
"""

# Hosts between which a connection of a rule with SecondaryMap was steered: local address first. Whatever is new between
# them is steered as well, and the daemon tells what follows such a connection. Entries fade when nothing new comes.
PAIR_SETS = """\
	set pairs4 {
		typeof ip saddr . ip daddr
		size 65536
		flags dynamic,timeout
		timeout 30d
	}
	set pairs6 {
		typeof ip6 saddr . ip6 daddr
		size 65536
		flags dynamic,timeout
		timeout 30d
	}
"""

# `SENT4` is the four-tuple of the packet at hand, `BACK4` that of a packet in the other direction. Our mark is taken
# off packets to the program, or its socket would inherit it where the host sets net.ipv4.tcp_fwmark_accept.
CHAINS = """\
	chain output {
		type route hook output priority mangle; policy accept;
		meta l4proto != tcp accept
		meta mark & MASK == NETWORK meta skuid OWNUID goto network_leg
		meta mark & MASK == PROGRAM meta skuid OWNUID goto program_leg
		ct mark & MASK == OUTBOUND goto outbound_leg
		ct mark & MASK == PROGRAM meta mark & MASK != PROGRAM goto program_answer
		SYN goto outbound_new
		ct state new,invalid,untracked goto outbound_lost
	}
	chain output_nat {
		type nat hook output priority -105; policy accept;
		ct mark & MASK == { OUTBOUND, PROGRAM } goto keep_destination
	}
	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;
		meta l4proto != tcp accept
		ct mark & MASK == INBOUND ct direction original goto inbound_listener
		iif != lo ct mark & MASK == { OUTBOUND, PROGRAM } drop
		ct mark & MASK == OUTBOUND meta mark & MASK == HOME goto outbound_listener
		ct mark & MASK == OUTBOUND accept
		ct mark & MASK == PROGRAM meta mark set meta mark & KEEP accept
		SYN fib daddr type local goto inbound_rules
		iif != lo ct state new,invalid,untracked goto stray
	}
	chain prerouting_nat {
		type nat hook prerouting priority -105; policy accept;
		ct mark & MASK == INBOUND goto keep_destination
	}
	chain postrouting {
		type filter hook postrouting priority raw; policy accept;
		oif != lo ct mark & MASK == { OUTBOUND, PROGRAM } drop
		oif != lo meta mark & MASK == HOME drop
	}
	chain keep_destination {
		meta nfproto ipv4 dnat ip to ip daddr
		meta nfproto ipv6 dnat ip6 to ip6 daddr
	}
	chain network_leg {
		SYN ct mark & MASK == OUTBOUND ct mark set ct mark & KEEP
		SYN goto outbound_forget
	}
	chain program_leg {
		SYN goto program_new
		ct mark & MASK != PROGRAM ct mark set ct mark & KEEP | PROGRAM
		tcp flags & rst != 0 update @program4 { BACK4 timeout 10m }
		tcp flags & rst != 0 update @program6 { BACK6 timeout 10m }
	}
	chain program_new {
		ct state invalid,untracked drop
		ct mark & MASK != { 0, PROGRAM } meta l4proto tcp reject with tcp reset
		update @program4 { BACK4 }
		update @program6 { BACK6 }
		ct mark set ct mark & KEEP | PROGRAM
		BACK4 @program4 accept
		BACK6 @program6 accept
		drop
	}
	chain program_answer {
		tcp flags & (fin | rst) != 0 update @program4 { SENT4 timeout 10m }
		tcp flags & (fin | rst) != 0 update @program6 { SENT6 timeout 10m }
		meta mark set meta mark & KEEP | HOME accept
	}
	chain outbound_new {
		jump outbound_rules
		goto outbound_forget
	}
	chain outbound_rules {
OUTBOUND_RULES
	}
	chain outbound_steer {
		ct state invalid,untracked drop
		update @steered4 { SENT4 }
		update @steered6 { SENT6 }
		ct mark set ct mark & KEEP | OUTBOUND
		meta mark set meta mark & KEEP | HOME
		SENT4 @steered4 accept
		SENT6 @steered6 accept
		drop
	}
	chain outbound_forget {
		delete @steered4 { SENT4 }
		delete @steered6 { SENT6 }
	}
	chain outbound_leg {
		meta mark & MASK == OUTBOUND tcp flags & rst != 0 update @steered4 { BACK4 timeout 10m }
		meta mark & MASK == OUTBOUND tcp flags & rst != 0 update @steered6 { BACK6 timeout 10m }
		meta mark & MASK == OUTBOUND accept
		SYN goto outbound_steer
		tcp flags & (fin | rst) != 0 update @steered4 { SENT4 timeout 10m }
		tcp flags & (fin | rst) != 0 update @steered6 { SENT6 timeout 10m }
		meta mark set meta mark & KEEP | HOME
	}
	chain outbound_lost {
		meta mark & MASK == OUTBOUND BACK4 @steered4 ct mark set ct mark & KEEP | OUTBOUND accept
		meta mark & MASK == OUTBOUND BACK6 @steered6 ct mark set ct mark & KEEP | OUTBOUND accept
		SENT4 @steered4 goto outbound_again
		SENT6 @steered6 goto outbound_again
		SENT4 @program4 goto program_again
		SENT6 @program6 goto program_again
	}
	chain outbound_again {
		ct mark set ct mark & KEEP | OUTBOUND
		meta mark set meta mark & KEEP | HOME
	}
	chain program_again {
		ct mark set ct mark & KEEP | PROGRAM
		meta mark set meta mark & KEEP | HOME
	}
	chain outbound_listener {
		meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:OUTPORT accept
		meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:OUTPORT accept
		BACK4 @steered4 accept comment "from the kernel to the program, such as the reset below"
		BACK6 @steered6 accept
		SYN drop
		meta l4proto tcp reject with tcp reset
	}
	chain inbound_rules {
INBOUND_RULES
	}
	chain inbound_steer {
		ct state invalid,untracked drop
		ct mark set ct mark & KEEP | INBOUND
		goto inbound_listener
	}
	chain inbound_listener {
		meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:INPORT accept
		meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:INPORT accept
		SYN drop
		meta l4proto tcp reject with tcp reset
	}
	chain stray {
		SYN accept
		BACK4 @steered4 drop
		BACK6 @steered6 drop
		BACK4 @program4 drop
		BACK6 @program6 drop
	}
"""
CHAIN_NAMES = tuple(line.split()[1] for line in CHAINS.splitlines() if line.startswith("\tchain "))


def render(
    rules: Iterable[SteeringRule],
    *,
    outbound_port: int,
    inbound_port: int,
    own_uid: int,
    uids_of: Callable[[str], frozenset[int]],
    secondary: Callable[[SteeringRule], bool] = _never,
    marks: Marks = MARKS,
) -> str:
    """Return the whole steering table as one transaction that installs it or replaces the one in force.

    `rules` come in search order. The ports are those of our listeners on 127.0.0.1 and ::1, `own_uid` is the uid of
    the worker processes. `uids_of` gives the uids of the local accounts with a name, ignoring case. `secondary` tells
    the rules whose connections others may follow (SecondaryMap).
    """
    rules = tuple(rules)
    values = {
        "OUTBOUND_RULES": _indented(
            [
                *secondary_lines(rules, Direction.OUTBOUND, uids_of, secondary),
                *rule_lines(rules, Direction.OUTBOUND, uids_of),
            ]
        ),
        "INBOUND_RULES": _indented(
            [
                *secondary_lines(rules, Direction.INBOUND, uids_of, secondary),
                *rule_lines(rules, Direction.INBOUND, uids_of),
            ]
        ),
        "OUTPORT": str(outbound_port),
        "INPORT": str(inbound_port),
        "OWNUID": str(own_uid),
        "MASK": f"{marks.mask:#x}",
        "KEEP": f"{marks.mask ^ 0xFFFFFFFF:#x}",
        "NETWORK": f"{marks.network:#x}",
        "PROGRAM": f"{marks.program:#x}",
        "HOME": f"{marks.home:#x}",
        "OUTBOUND": f"{marks.outbound:#x}",
        "INBOUND": f"{marks.inbound:#x}",
        "SENT4": "ip saddr . tcp sport . ip daddr . tcp dport",
        "SENT6": "ip6 saddr . tcp sport . ip6 daddr . tcp dport",
        "BACK4": "ip daddr . tcp dport . ip saddr . tcp sport",
        "BACK6": "ip6 daddr . tcp dport . ip6 saddr . tcp sport",
        "SYN": "tcp flags & (fin | syn | rst | ack) == syn",
    }
    lines = []
    for line in CHAINS.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(indent + " ".join(_filled(word, values) for word in line.split()))
    # Chains are declared, then deleted with all their rules, then built anew: that works whatever was there before,
    # and, unlike deleting the table, keeps the two sets that remember steered connections.
    sets = SETS.format(name="steered") + SETS.format(name="program") + PAIR_SETS
    declared = "\n".join(f"\tchain {name} {{\n\t}}" for name in CHAIN_NAMES)
    deleted = "\n".join(f"delete chain inet {TABLE} {name}" for name in CHAIN_NAMES)
    built = "\n".join(lines)
    return (
        f"table inet {TABLE} {{\n{sets}{declared}\n}}\n"
        f"flush table inet {TABLE}\n{deleted}\n"
        f"table inet {TABLE} {{\n{built}\n}}\n"
    )


def _filled(word: str, values: dict[str, str]) -> str:
    prefix = ":" if ":" in word and word.endswith("PORT") else ""
    if prefix:
        host, _, name = word.rpartition(":")
        return f"{host}:{values[name]}"
    comma = "," if word.endswith(",") else ""
    return values.get(word.removesuffix(","), word.removesuffix(",")) + comma


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"\t\t{line}" for line in lines)


# --------------------------------------------------------------------------------------------------------------------
# The nft tool

# Ten thousand rules take well under a second.
NFT_SECONDS = 60.0


def check(text: str) -> None:
    """Ask the kernel whether it would take `text`, changing nothing; raises InterceptError."""
    _run(["--check", "--file", "-"], text)


def apply(text: str) -> None:
    """Put the rendered table `text` in force in one transaction; raises InterceptError and changes nothing then."""
    _run(["--file", "-"], text)


def remove(*, patience: float = 3.0) -> None:
    """Take the table away, or do nothing where there is none; raises InterceptError, and then the table is still there.

    Connections that are still steered are aborted: the programs see a reset. `patience` is how many seconds sockets
    may take to go that no process holds any more, which older kernels do not abort.
    """
    if not installed():
        return
    empty = f"table inet {TABLE} {{\n\tchain outbound_rules {{\n\t}}\n\tchain inbound_rules {{\n\t}}\n}}\n"
    flush = f"flush chain inet {TABLE} outbound_rules\nflush chain inet {TABLE} inbound_rules\n"
    _run(["--file", "-"], empty + flush)
    _end_steered(patience)
    _run(["--file", "-"], f"delete table inet {TABLE}\n")


def remembered() -> tuple[tuple[Endpoint, Endpoint], ...]:
    """List the steered connections that the table remembers, the program's end first; raises InterceptError.

    Connections that ended in the last ten minutes are among them.
    """
    listing = json.loads(_run(["--json", "list", "table", "inet", TABLE], ""))["nftables"]
    found = []
    for item in listing:
        for element in item.get("set", {}).get("elem", ()):
            here, here_port, there, there_port = element["elem"]["val"]["concat"]
            found.append((Endpoint.of((here, here_port)), Endpoint.of((there, there_port))))
    return tuple(found)


def _end_steered(patience: float) -> None:
    left = remembered()
    deadline = time.monotonic() + patience
    kernel = SocketDiagnosis()
    try:
        while True:
            try:
                left = tuple(pair for pair in left if kernel.abort(*pair) and kernel.connection(*pair) is not None)
            except OSError as error:
                raise InterceptError(
                    f"cannot stop steering: the kernel aborts no connection ({error.strerror})"
                ) from error
            if not left:
                return
            if time.monotonic() > deadline:
                raise InterceptError(
                    f"cannot stop steering: {len(left)} steered connection(s) still hold unsent data; end their "
                    "programs, or try again later"
                )
            time.sleep(0.05)
    finally:
        kernel.close()


def installed() -> bool:
    """Say whether a table of ours is in force in this network namespace; raises InterceptError."""
    return f"table inet {TABLE}" in _run(["list", "tables", "inet"], "").splitlines()


def _run(arguments: list[str], text: str) -> str:
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, check=False, timeout=NFT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise InterceptError(
            f"cannot steer connections: 'nft' did not finish within {NFT_SECONDS:.0f} s and was ended; see whether "
            "another program holds the firewall, or the machine is out of memory, and try again"
        ) from None
    except FileNotFoundError:
        raise InterceptError(
            "cannot steer connections: the program 'nft' was not found; install the package nftables"
        ) from None
    except PermissionError as error:
        raise InterceptError(f"cannot steer connections: 'nft' may not be run ({error.strerror})") from error
    if done.returncode == 0:
        return done.stdout
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    first = said[0] if said else f"exit code {done.returncode}"
    if "Operation not permitted" in done.stderr or "must be root" in done.stderr:
        raise InterceptError("cannot steer connections: this needs root (CAP_NET_ADMIN); run attls as root")
    raise InterceptError(f"cannot steer connections: nft refused the table: {first}")
