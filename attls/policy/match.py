"""Rules and a connection to a verdict, and the same walk as an explanation.

The meaning of a match is the plain walk: rules in search order, the first whose conditions all hold. `explain` does
just that, in words. `Matcher` finds the same rule without looking at all of them: a tree in which each node looks at
one fact of the connection (a port, an address, a job, a user). A rule that asks about that fact hangs under the
values it accepts, the others under "whatever": so a look-up follows two branches per node, and the rules it then
really checks are the handful that could fit. A property test holds the two against each other.

Why not one table per port: policies in use pin a port in some rules, an address in others, a job in the rest, and
have wide ranges everywhere. Which fact a node looks at is chosen so that the values it can meet are least full.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from attls.model import Address, AddressRange, Conditions, Direction, Flow, Owner, PortRange
from attls.policy import times
from attls.policy.rules import Rule

_LEAF = 6  # rules that are cheaper to check one by one than to split further
_SPREAD = 4  # stretches of a number line that one rule hangs under each of; a wider one hangs in a segment tree
_MANY = 64  # a rule with more ranges than this for one fact hangs under "whatever": it fits nearly everywhere anyway
_V6 = 1 << 32  # where IPv6 begins on the number line of all addresses
_BEYOND = 1 << 130


@dataclass(frozen=True, slots=True)
class Question:
    """A connection as far as it is known: what is None matches no condition about it."""

    direction: Direction
    local_address: Address | None = None
    local_port: int | None = None
    remote_address: Address | None = None
    remote_port: int | None = None

    @classmethod
    def of(cls, flow: Flow) -> Question:
        """Ask about a connection; port 0 means not known."""
        return cls(
            flow.direction,
            flow.local.address,
            flow.local.port or None,
            flow.remote.address,
            flow.remote.port or None,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that was looked at: whether it fits, and the reason in words."""

    rule: str
    priority: int
    matched: bool
    reason: str


def wildcard(pattern: str, text: str) -> bool:
    """Say whether `text` fits `pattern`, in which `*` is any run of characters and `?` any one; both upper-cased."""
    head, stars, tail = pattern.partition("*")
    if "?" not in pattern and "*" not in tail:
        if not stars:
            return pattern == text
        return len(text) >= len(head) + len(tail) and text.startswith(head) and text.endswith(tail)
    # Greedy with one way back: time grows with the product of the lengths at worst, never exponentially.
    position = mark = at = 0
    star = -1
    while at < len(text):
        if position < len(pattern) and pattern[position] == "*":
            star, mark = position, at
            position += 1
        elif position < len(pattern) and pattern[position] in (text[at], "?"):
            position += 1
            at += 1
        elif star >= 0:
            mark += 1
            at, position = mark, star + 1
        else:
            return False
    return not pattern[position:].strip("*")


def explain(rules: Sequence[Rule], question: Question, owner: Owner, now: datetime) -> Iterator[Step]:
    """Walk the rules in search order up to the one that fits, saying of each why it does or does not."""
    now = times.local(now)
    for rule in rules:
        failed = _first_failure(rule.conditions, question, owner, now)
        if failed is None:
            yield Step(rule.name, rule.priority, True, _what_fits(rule.conditions, question, owner))
            return
        yield Step(rule.name, rule.priority, False, failed)


def _first_failure(conditions: Conditions, question: Question, owner: Owner, now: datetime) -> str | None:
    # The first condition that does not hold, in words; None when all do. The definition of a match.
    if question.direction not in conditions.directions:
        wanted = next(iter(conditions.directions)).value.capitalize()
        return f"Direction {wanted}: the connection is {question.direction.value}"
    for name, ranges, address in (
        ("LocalAddr", conditions.local_addresses, question.local_address),
        ("RemoteAddr", conditions.remote_addresses, question.remote_address),
    ):
        if ranges and (address is None or not _address_in(address, ranges)):
            return f"{name} {addresses_text(ranges)}: {_given(name[:-4].lower() + ' address', address)}"
    for name, ports, port in (
        ("LocalPortRange", conditions.local_ports, question.local_port),
        ("RemotePortRange", conditions.remote_ports, question.remote_port),
    ):
        if ports and (port is None or not any(item.first <= port <= item.last for item in ports)):
            return f"{name} {ports_text(ports)}: {_given(name[:-9].lower() + ' port', port)}"
    for name, pattern, value in (("Jobname", conditions.job, owner.job), ("Userid", conditions.user, owner.user)):
        if pattern is not None and (value is None or not wildcard(pattern, value.upper())):
            return f"{name} {pattern}: {_given('job name' if name == 'Jobname' else 'user', value)}"
    if conditions.times and not any(times.active(condition, now) for condition in conditions.times):
        return f"IpTimeCondition: not in force at {now:%Y-%m-%d %H:%M:%S}"
    return None


def _given(what: str, value: object) -> str:
    return f"the {what} is not known" if value is None else f"the {what} is {value}"


def _what_fits(conditions: Conditions, question: Question, owner: Owner) -> str:
    facts = [f"Direction {'Both' if len(conditions.directions) > 1 else question.direction.value.capitalize()}"]
    for side, ranges, ports in (
        ("Local", conditions.local_addresses, conditions.local_ports),
        ("Remote", conditions.remote_addresses, conditions.remote_ports),
    ):
        if ranges:
            facts.append(f"{side}Addr {addresses_text(ranges)}")
        if ports:
            facts.append(f"{side}PortRange {ports_text(ports)}")
    if conditions.job is not None:
        facts.append(f"Jobname {conditions.job} ({owner.job}, from {owner.job_source.value})")
    if conditions.user is not None:
        facts.append(f"Userid {conditions.user} ({owner.user})")
    if conditions.times:
        facts.append("IpTimeCondition in force")
    return "all conditions hold: " + ", ".join(facts)


def _address_in(address: Address, ranges: Iterable[AddressRange]) -> bool:
    number = int(address)
    return any(item.version == address.version and item.first <= number <= item.last for item in ranges)


def address_text(item: AddressRange) -> str:
    """Write a range of addresses as short as it goes: one address, a prefix, or first-last."""
    kind = IPv4Address if item.version == 4 else IPv6Address
    first = kind(item.first)
    if item.first == item.last:
        return str(first)
    size = item.last - item.first + 1
    if size & (size - 1) == 0 and item.first % size == 0:
        return f"{first}/{first.max_prefixlen - size.bit_length() + 1}"
    return f"{first}-{kind(item.last)}"


def addresses_text(ranges: Sequence[AddressRange], *, most: int = 4) -> str:
    """Write a list of address ranges for a message; long lists are cut."""
    shown = ", ".join(address_text(item) for item in ranges[:most])
    return shown if len(ranges) <= most else f"{shown} and {len(ranges) - most} more"


def ports_text(ports: Sequence[PortRange], *, most: int = 6) -> str:
    """Write a list of port ranges for a message; long lists are cut."""
    shown = ", ".join(
        str(item.first) if item.first == item.last else f"{item.first}-{item.last}" for item in ports[:most]
    )
    return shown if len(ports) <= most else f"{shown} and {len(ports) - most} more"


# The tree. Facts of a connection are numbers on a line (ports, addresses) or upper-cased words (job, user).

_Ranges = tuple[tuple[int, int], ...]
_NUMBERS = ("remote_port", "local_port", "remote_address", "local_address")
_WORDS = ("job", "user")
_ALL_FACTS = (*_NUMBERS, *_WORDS)


class _Facts:
    # What one rule accepts, in the form the tree and the final check use. None is "not looked at".
    # `numbers` and `words` list what is looked at, so that the check skips the rest.
    __slots__ = (
        "directions",
        "job",
        "local_address",
        "local_port",
        "numbers",
        "remote_address",
        "remote_port",
        "times",
        "user",
        "words",
    )

    def __init__(self, conditions: Conditions, known: dict[int, _Ranges | None]) -> None:
        self.directions = conditions.directions
        self.local_port = _ranges_of(conditions.local_ports, known)
        self.remote_port = _ranges_of(conditions.remote_ports, known)
        self.local_address = _ranges_of(conditions.local_addresses, known)
        self.remote_address = _ranges_of(conditions.remote_addresses, known)
        self.job = conditions.job
        self.user = conditions.user
        self.times = conditions.times
        self.numbers: tuple[tuple[str, _Ranges], ...] = tuple(
            (fact, ranges) for fact in _NUMBERS if (ranges := getattr(self, fact)) is not None
        )
        self.words: tuple[tuple[str, str], ...] = tuple(
            (fact, pattern) for fact in _WORDS if (pattern := getattr(self, fact)) is not None
        )


def _ranges_of(
    ranges: tuple[PortRange, ...] | tuple[AddressRange, ...], known: dict[int, _Ranges | None]
) -> _Ranges | None:
    # Rules that name the same group share one tuple of ranges, which may be long; `known` has it by identity.
    if id(ranges) not in known:
        merged: list[tuple[int, int]] = []
        plain: list[tuple[int, int]] = []
        for item in ranges:
            shift = _V6 if isinstance(item, AddressRange) and item.version == 6 else 0
            plain.append((item.first + shift, item.last + shift))
        for first, last in sorted(plain):
            if merged and first <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        known[id(ranges)] = tuple(merged) or None
    return known[id(ranges)]


class _Leaf:
    __slots__ = ("first", "rules")

    def __init__(self, rules: list[int]) -> None:
        self.first = rules[0]
        self.rules = rules


class _Line:
    # Splits by a number. `starts` cut the line into stretches, `parts` say what hangs under each. Rules whose range
    # takes up many stretches hang in `wide`, a segment tree over the stretches: node n covers nodes 2n and 2n+1, and
    # stretch s is node s + `size`, so what covers a stretch is found on its way up to the root.
    __slots__ = ("fact", "first", "parts", "rest", "size", "starts", "wide")

    def __init__(self, fact: str, first: int, starts: list[int]) -> None:
        self.fact = fact
        self.first = first
        self.starts = starts
        self.parts: list[_Node | None] = []
        self.wide: dict[int, _Node] = {}
        self.size = 1 << (len(starts) + 1).bit_length()
        self.rest: _Node | None = None


class _Words:
    # Splits by a word: whole words in `exact`, patterns by what stands before their first wildcard in `prefixes`.
    __slots__ = ("exact", "fact", "first", "lengths", "prefixes", "rest")

    def __init__(
        self, fact: str, first: int, exact: dict[str, _Node], prefixes: dict[str, _Node], rest: _Node | None
    ) -> None:
        self.fact = fact
        self.first = first
        self.exact = exact
        self.prefixes = prefixes
        self.lengths = sorted({len(prefix) for prefix in prefixes})
        self.rest = rest


_Known = dict[str, Any]  # what is known of a connection, by fact: a number, a word, or None
_Node = _Leaf | _Line | _Words  # `first` is the first rule that hangs under a node


def _below(node: _Node) -> list[_Node]:
    if isinstance(node, _Leaf):
        return []
    if isinstance(node, _Line):
        found = [*node.parts, *node.wide.values(), node.rest]
    else:
        found = [*node.exact.values(), *node.prefixes.values(), node.rest]
    return [each for each in found if each is not None]


class Matcher:
    """Finds the rule that the plain walk over `rules` would find; immutable, and it pickles."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        known: dict[int, _Ranges | None] = {}
        self._facts = [_Facts(rule.conditions, known) for rule in rules]
        self._roots = {
            direction: self._build(
                [index for index, facts in enumerate(self._facts) if direction in facts.directions], _ALL_FACTS
            )
            for direction in Direction
        }

    def pieces(self) -> Iterator[Sequence[object]]:
        """Yield what the matcher consists of, no piece before what it refers to, for whoever pickles it by and by."""
        yield self._facts
        nodes: list[_Node] = []
        waiting = [root for root in self._roots.values() if root is not None]
        while waiting:
            node = waiting.pop()
            nodes.append(node)
            waiting += _below(node)
        yield nodes[::-1]

    def find(self, question: Question, owner: Owner, now: datetime | None) -> int | None:
        """Return the index of the first rule whose conditions all hold at `now` (None: at any time), or None."""
        known = _known(question, owner)
        best = len(self._facts)
        waiting = self._start(question)
        while waiting:
            node = waiting.pop()
            if node.first >= best:
                continue
            if isinstance(node, _Leaf):
                for index in node.rules:
                    if index >= best:
                        break
                    if self._fits(index, known, now):
                        best = index
                        break
            else:
                _go_down(node, known[node.fact], waiting)
        return best if best < len(self._facts) else None

    def find_all(self, question: Question, owner: Owner, now: datetime | None, *, before: int) -> list[int]:
        """Return the indices below `before` of all rules whose conditions hold, in order; None means at any time."""
        known = _known(question, owner)
        found: set[int] = set()
        waiting = self._start(question)
        while waiting:
            node = waiting.pop()
            if node.first >= before:
                continue
            if isinstance(node, _Leaf):
                found.update(index for index in node.rules if index < before and self._fits(index, known, now))
            else:
                _go_down(node, known[node.fact], waiting)
        return sorted(found)

    def _start(self, question: Question) -> list[_Node]:
        root = self._roots[question.direction]
        return [] if root is None else [root]

    def _fits(self, index: int, known: _Known, now: datetime | None) -> bool:
        # Whether a rule that accepts the direction accepts everything else.
        facts = self._facts[index]
        for fact, ranges in facts.numbers:
            value = known[fact]
            if value is None:
                return False
            # The last range that begins at or before the value; the second number is beyond any end.
            place = bisect_right(ranges, (value, _BEYOND)) - 1 if len(ranges) > 1 else 0
            if place < 0 or not ranges[place][0] <= value <= ranges[place][1]:
                return False
        for fact, pattern in facts.words:
            word = known[fact]
            if word is None or not (pattern == word or wildcard(pattern, word)):
                return False
        return not facts.times or now is None or any(times.active(condition, now) for condition in facts.times)

    def _build(self, indices: list[int], facts: tuple[str, ...]) -> _Node | None:
        if not indices:
            return None
        if len(indices) <= _LEAF:
            return _Leaf(indices)
        best: tuple[float, str] | None = None
        for fact in facts:
            cost = self._cost(indices, fact)
            if cost < len(indices) and (best is None or cost < best[0]):
                best = (cost, fact)
        if best is None:
            return _Leaf(indices)
        fact = best[1]
        remaining = tuple(name for name in facts if name != fact)
        if fact in _WORDS:
            return self._build_words(indices, fact, remaining)
        return self._build_line(indices, fact, remaining)

    def _cost(self, indices: list[int], fact: str) -> float:
        # How many rules a look-up would still meet after splitting by `fact`: those that do not ask about it, and
        # those that accept the value which most of them accept. On a line that is halved with how many accept a
        # value on average, for ranges that all lie inside each other have a place that nothing separates.
        rest = 0
        if fact in _WORDS:
            crowds: dict[str, int] = {}
            for index in indices:
                pattern = getattr(self._facts[index], fact)
                prefix = "" if pattern is None else _literal_prefix(pattern)
                if prefix:
                    crowds[prefix] = crowds.get(prefix, 0) + 1
                else:
                    rest += 1
            return rest + max(crowds.values(), default=0)
        edges: list[tuple[int, int]] = []
        for index in indices:
            ranges = getattr(self._facts[index], fact)
            if ranges is None or len(ranges) > _MANY:
                rest += 1
            else:
                for first, last in ranges:
                    edges.append((first, 1))
                    edges.append((last + 1, -1))
        edges.sort()
        depth = deepest = total = 0
        for _, step in edges:
            depth += step
            deepest = max(deepest, depth)
            total += depth
        return rest + (deepest + total / (len(edges) or 1)) / 2

    def _build_words(self, indices: list[int], fact: str, remaining: tuple[str, ...]) -> _Node:
        exact: dict[str, list[int]] = {}
        prefixes: dict[str, list[int]] = {}
        rest: list[int] = []
        for index in indices:
            pattern = getattr(self._facts[index], fact)
            prefix = None if pattern is None else _literal_prefix(pattern)
            if not prefix:
                rest.append(index)
            elif prefix == pattern:
                exact.setdefault(prefix, []).append(index)
            else:
                prefixes.setdefault(prefix, []).append(index)
        return _Words(
            fact,
            indices[0],
            {word: node for word, some in exact.items() if (node := self._build(some, remaining)) is not None},
            {word: node for word, some in prefixes.items() if (node := self._build(some, remaining)) is not None},
            self._build(rest, remaining),
        )

    def _hanging(self, index: int, fact: str) -> _Ranges:
        # The ranges that a rule hangs under in a line for `fact`; none means that it hangs under "whatever".
        ranges: _Ranges | None = getattr(self._facts[index], fact)
        return () if ranges is None or len(ranges) > _MANY else ranges

    def _build_line(self, indices: list[int], fact: str, remaining: tuple[str, ...]) -> _Node:
        edges = {edge for index in indices for first, last in self._hanging(index, fact) for edge in (first, last + 1)}
        line = _Line(fact, indices[0], sorted(edges))
        crowds: list[list[int]] = [[] for _ in range(len(line.starts) + 1)]
        wide: dict[int, list[int]] = {}
        rest: list[int] = []
        for index in indices:
            ranges = self._hanging(index, fact)
            if not ranges:
                rest.append(index)
                continue
            for first, last in ranges:
                low, high = bisect_right(line.starts, first), bisect_left(line.starts, last + 1)
                if high - low < _SPREAD:
                    for stretch in range(low, high + 1):
                        crowds[stretch].append(index)
                else:
                    for cover in _cover(low + line.size, high + line.size):
                        wide.setdefault(cover, []).append(index)
        # Neighbouring stretches with the same rules share one node.
        built: dict[tuple[int, ...], _Node | None] = {}
        for crowd in crowds:
            key = tuple(crowd)
            if key not in built:
                built[key] = self._build(crowd, remaining)
            line.parts.append(built[key])
        for cover, some in wide.items():
            key = tuple(some)
            if key not in built:
                built[key] = self._build(some, remaining)
            node = built[key]
            assert node is not None
            line.wide[cover] = node
        line.rest = self._build(rest, remaining)
        return line


def _known(question: Question, owner: Owner) -> _Known:
    return {
        "local_port": question.local_port,
        "remote_port": question.remote_port,
        "local_address": _place_on_line(question.local_address),
        "remote_address": _place_on_line(question.remote_address),
        "job": None if owner.job is None else owner.job.upper(),
        "user": None if owner.user is None else owner.user.upper(),
    }


def _go_down(node: _Line | _Words, value: Any, waiting: list[_Node]) -> None:
    # Add the branches of `node` in which a rule that accepts `value` could hang.
    if node.rest is not None:
        waiting.append(node.rest)
    if value is None:
        return
    if isinstance(node, _Line):
        stretch = bisect_right(node.starts, value)
        part = node.parts[stretch]
        if part is not None:
            waiting.append(part)
        if node.wide:
            up = stretch + node.size
            while up:
                if (part := node.wide.get(up)) is not None:
                    waiting.append(part)
                up >>= 1
        return
    if (part := node.exact.get(value)) is not None:
        waiting.append(part)
    for length in node.lengths:
        if length > len(value):
            break
        if (part := node.prefixes.get(value[:length])) is not None:
            waiting.append(part)


def _cover(low: int, high: int) -> Iterator[int]:
    # The nodes of a segment tree that together cover its leaves `low` to `high`: at most two of each level.
    high += 1
    while low < high:
        if low & 1:
            yield low
            low += 1
        if high & 1:
            high -= 1
            yield high
        low >>= 1
        high >>= 1


def _literal_prefix(pattern: str) -> str:
    for position, letter in enumerate(pattern):
        if letter in "*?":
            return pattern[:position]
    return pattern


def _place_on_line(address: Address | None) -> int | None:
    if address is None:
        return None
    return int(address) if address.version == 4 else int(address) + _V6
