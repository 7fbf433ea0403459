"""Which rules stand in front of others: one that covers another, several that do so together, two that overlap.

Rules are compared by their conditions alone, as sets of connections. That one rule covers another follows from each of
its conditions. That several do so together is found by taking connections away: the lowest one that is left is looked
up, whatever rule takes it is cut out of the rest, and so on, until nothing is left or a connection that nobody takes
turns up, which for nearly every rule is the first one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from itertools import islice, product

from attls.model import Address, AddressRange, Conditions, Direction, Owner, PortRange, TimeCondition
from attls.policy import times
from attls.policy.match import Matcher, Question, wildcard
from attls.policy.rules import Rule

_ANY = chr(0xFFFF)  # stands for "some character" where a pattern is asked about another
_MOST_PIECES = 64  # that a rule is compared in; one of more ranges is only compared with each other rule by itself
_MOST_CUTS = 256  # before we stop looking for rules that cover another together
_MOST_LOOKS = 3_000_000  # at rules, for those of one policy: some seconds

_Ranges = tuple[AddressRange, ...] | tuple[PortRange, ...]
_Stretch = tuple[int, int]
_Box = tuple[_Stretch, ...]  # local port, remote port, local address, remote address; both addresses of one version

_ALL_PORTS = ((1, 65535),)
_ALL_ADDRESSES = {4: ((0, (1 << 32) - 1),), 6: ((0, (1 << 128) - 1),)}


def covers(wider: Conditions, narrower: Conditions) -> bool:
    """Say whether every connection that `narrower` accepts at any time, `wider` accepts too."""
    return (
        wider.directions >= narrower.directions
        and _ranges_cover(wider.local_ports, narrower.local_ports)
        and _ranges_cover(wider.remote_ports, narrower.remote_ports)
        and _ranges_cover(wider.local_addresses, narrower.local_addresses)
        and _ranges_cover(wider.remote_addresses, narrower.remote_addresses)
        and _owners_and_times_cover(wider, narrower)
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


def is_possible(conditions: Conditions) -> bool:
    """Say whether there can be a connection at all with such addresses: both ends are IPv4 or both are IPv6."""
    return any(all(_sides(conditions, version)) for version in _ALL_ADDRESSES)


class Shadows:
    """Finds what stands in front of the rules of one policy; `matcher` is that of `rules`.

    Looking takes a bounded time in all. Once it is used up, only the first rule that takes a rule's lowest connection
    is asked whether it covers the whole, which still finds most; and when that has taken as long again, nothing more.
    """

    def __init__(self, rules: Sequence[Rule], matcher: Matcher) -> None:
        self._rules = rules
        self._matcher = matcher
        self._looks = _MOST_LOOKS
        # What a look-up by a name costs: patterns that begin with a wildcard are all tried.
        patterns = [text for rule in rules for text in (rule.conditions.job, rule.conditions.user) if text]
        tried = [text for text in patterns if text[0] in "*?"]
        self._plain = sum(text.count("*") == 1 and "?" not in text for text in tried)
        self._winding = sum(len(text) for text in tried) - self._plain

    @property
    def is_in_haste(self) -> bool:
        """Whether the time is used up, so that shadows may be missed from now on."""
        return self._looks <= 0

    def in_front(self, index: int) -> tuple[Rule, ...]:
        """Return the rules before number `index` that take all its connections: one, or several that do so together.

        Nothing is returned where a connection is left for the rule, or where it would take too long to tell.
        """
        conditions = self._rules[index].conditions
        size = sum(len(ranges) for ranges in (conditions.local_addresses, conditions.remote_addresses))
        takers: dict[int, None] = {}
        same_owners: dict[int, bool] = {}
        cuts = 0
        for direction, version in product(sorted(conditions.directions, key=lambda item: item.value), _ALL_ADDRESSES):
            waiting = _boxes(conditions, version)
            while waiting:
                if self._looks <= -_MOST_LOOKS:
                    return ()
                box = waiting.pop()
                earlier = self._that_take(_lowest(direction, version, box), conditions, index, same_owners)
                for number in earlier if not takers else ():
                    self._looks -= size
                    if covers(self._rules[number].conditions, conditions):
                        return (self._rules[number],)
                cuts += 1
                if not earlier or cuts > _MOST_CUTS or len(waiting) > _MOST_PIECES or self._looks <= 0:
                    return ()
                takers[earlier[0]] = None
                waiting += _rest(box, _around(self._rules[earlier[0]].conditions, version, box))
        return tuple(self._rules[number] for number in sorted(takers))

    def _that_take(
        self, connection: Question, conditions: Conditions, index: int, same_owners: dict[int, bool]
    ) -> list[int]:
        # The rules before `index` that take a connection whoever of those that `conditions` accept makes it, and when.
        owner = Owner(user=conditions.user, job=conditions.job)
        if self._looks > 0:
            found = self._matcher.find_all(connection, owner, None, before=index)
        else:
            first = self._matcher.find(connection, owner, None)
            found = [] if first is None or first >= index else [first]
        named = len(conditions.job or "") + len(conditions.user or "")
        self._looks -= 1 + len(found) + ((self._plain // 4 + named * self._winding // 64) if named else 0)
        for number in found:
            if number not in same_owners:
                self._looks -= 1 + named // 4
                same_owners[number] = _owners_and_times_cover(self._rules[number].conditions, conditions)
        return [number for number in found if same_owners[number]]


def _owners_and_times_cover(wider: Conditions, narrower: Conditions) -> bool:
    return (
        _pattern_covers(wider.job, narrower.job)
        and _pattern_covers(wider.user, narrower.user)
        and (
            not wider.times
            or any(condition == TimeCondition() for condition in wider.times)
            or (
                bool(narrower.times)
                and all(any(times.covers(mine, theirs) for mine in wider.times) for theirs in narrower.times)
            )
        )
    )


# Connections of one direction and one version as boxes of numbers.


def _sides(conditions: Conditions, version: int) -> tuple[tuple[_Stretch, ...], ...]:
    # What is accepted of each fact; nothing at all of an address whose ranges are all of the other version.
    def ports(ranges: tuple[PortRange, ...]) -> tuple[_Stretch, ...]:
        return tuple((item.first, item.last) for item in ranges) or _ALL_PORTS

    def addresses(ranges: tuple[AddressRange, ...]) -> tuple[_Stretch, ...]:
        if not ranges:
            return _ALL_ADDRESSES[version]
        return tuple((item.first, item.last) for item in ranges if item.version == version)

    return (
        ports(conditions.local_ports),
        ports(conditions.remote_ports),
        addresses(conditions.local_addresses),
        addresses(conditions.remote_addresses),
    )


def _boxes(conditions: Conditions, version: int) -> list[_Box]:
    # One more than we would look at is enough to know that there are too many.
    return list(islice(product(*_sides(conditions, version)), _MOST_PIECES + 2))


def _lowest(direction: Direction, version: int, box: _Box) -> Question:
    kind: type[Address] = IPv4Address if version == 4 else IPv6Address
    (local_port, _), (remote_port, _), (local, _), (remote, _) = box
    return Question(direction, kind(local), local_port, kind(remote), remote_port)


def _around(conditions: Conditions, version: int, box: _Box) -> list[_Stretch]:
    # Of each fact, the stretch that conditions accept around the lowest connection of `box`, which they do accept.
    return [
        next(stretch for stretch in stretches if stretch[0] <= lowest <= stretch[1])
        for stretches, (lowest, _) in zip(_sides(conditions, version), box, strict=True)
    ]


def _rest(box: _Box, taken: list[_Stretch]) -> Iterator[_Box]:
    # `box` without `taken`, which holds its lowest corner: what lies above it in one fact after the other.
    inside = list(box)
    for fact, (_, end) in enumerate(taken):
        first, last = inside[fact]
        if end < last:
            yield (*inside[:fact], (end + 1, last), *inside[fact + 1 :])
            inside[fact] = (first, end)


# Ranges and patterns.


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
