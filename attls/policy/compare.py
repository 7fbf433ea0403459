"""Two policies and the connections that change between them, in words.

Comparing texts says little: a rule can move, be renamed or be split and nothing changes, and one new rule can take the
connections of ten others. So the connections of each rule of either policy are cut into pieces where any other rule
begins or ends, and for each piece a witness that fits it and nothing more goes through both policies. Connections for
which only the rule's name differs have not changed.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from attls.model import Address, AddressRange, Conditions, Direction, Owner, TimeCondition, Verdict
from attls.policy import PolicySet, Rule, times
from attls.policy.language import Value
from attls.policy.match import Question, addresses_text, ports_text
from attls.policy.show import as_value
from attls.policy.values import merge_addresses, merge_ports

# Names of actions and instance numbers are how a policy is organised, not what it does.
_NOT_A_CHANGE = ("Trace", "SyslogFacility", "CtraceClearText")
_Rules = tuple[tuple[object, ...], tuple[object, ...]]  # those before and those after, with their times


@dataclass(frozen=True, slots=True)
class Change:
    """Connections that get something else: which, what before, what after, and which parameters differ.

    `parameters` maps an AT-TLS name to its effective value before and after, None where it has none.
    """

    connections: str
    before: str
    after: str
    parameters: dict[str, tuple[object, object]]
    old_rule: str | None
    new_rule: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changes, in the new policy's order; there may be more where it is not `complete`, for want of time."""

    changes: tuple[Change, ...]
    complete: bool


def compare(old: PolicySet, new: PolicySet) -> Comparison:
    """Find what changes for the connections that some rule of either policy is about."""
    edges = _edges((*old.rules, *new.rules))
    found: list[Change] = []
    complete = True
    told: set[str] = set()
    left = _MOST_CELLS
    for rule, direction in _rules_that_differ(old, new):
        outcomes: dict[_Rules, list[Conditions]] = {}
        rulings: dict[_Rules, tuple[_Ruling, _Ruling]] = {}
        whole = replace(rule.conditions, directions=frozenset({direction}))
        cells, all_cut = _cells(whole, edges, max(_FEW_CELLS, min(left, _MOST_CELLS_AT_ONCE)))
        complete = complete and all_cut
        for cell in cells:
            question, owner = witness(cell, direction)
            before, looked = _ruling_of(old, question, owner)
            after, looked_again = _ruling_of(new, question, owner)
            left -= looked + looked_again
            key = (_rules_of(before), _rules_of(after))
            outcomes.setdefault(key, []).append(cell)
            rulings[key] = (before, after)
        for key, alike in outcomes.items():
            before, after = rulings[key]
            if _outcomes(before) == _outcomes(after):
                continue
            for conditions in _joined(alike):
                connections = describe(conditions, direction)
                if connections in told:
                    continue
                told.add(connections)
                found.append(
                    Change(
                        connections,
                        _in_words(before),
                        _in_words(after),
                        next(filter(None, _all_differences(old, before, new, after)), {}),
                        before[0].verdict.rule,
                        after[0].verdict.rule,
                    )
                )
    return Comparison(tuple(found), complete)


def describe(conditions: Conditions, direction: Direction) -> str:
    """Say in words which connections of one direction conditions are about."""
    words = [f"{direction.value} connections"]
    if conditions.job is not None:
        words.append(f"of job {conditions.job}")
    if conditions.user is not None:
        words.append(f"of user {conditions.user}")
    for side, preposition, ranges, ports in (
        ("local", "on", conditions.local_addresses, conditions.local_ports),
        (
            "remote",
            "with" if direction is Direction.INBOUND else "to",
            conditions.remote_addresses,
            conditions.remote_ports,
        ),
    ):
        if ranges:
            words.append(f"{preposition} {side} address {addresses_text(ranges)}")
        if ports:
            words.append(f"{preposition if not ranges else ''} {side} port {ports_text(ports)}".strip())
    return " ".join(words) if len(words) > 1 else f"all other {words[0]}"


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


def _rules_that_differ(old: PolicySet, new: PolicySet) -> Iterator[tuple[Rule, Direction]]:
    # Connections that no such rule is about meet the same rules in the same order as before.
    def facts(rule: Rule) -> tuple[object, ...]:
        return rule.name, rule.priority, rule.conditions, _outcome(rule.verdict)

    same = set(map(facts, old.rules)).intersection(map(facts, new.rules))
    for policy in (new, old):
        for rule in policy.rules:
            if facts(rule) not in same:
                for direction in sorted(rule.conditions.directions, key=lambda item: item.value):
                    yield rule, direction


@dataclass(frozen=True, slots=True)
class _Step:
    # What a connection gets at some times, or always where there are none.
    verdict: Verdict
    times: tuple[TimeCondition, ...] = ()

    @property
    def outcome(self) -> tuple[object, bool]:
        return _outcome(self.verdict)


def _outcome(verdict: Verdict) -> tuple[object, bool]:
    return verdict.settings, verdict.tls == "on"


_Ruling = tuple[_Step, ...]  # in search order; the last one holds at all times


def _ruling_of(policy: PolicySet, question: Question, owner: Owner) -> tuple[_Ruling, int]:
    # Whatever the hour: the rules that apply at some time, up to the first that always does; and how many were found.
    first = policy.matcher.find(question, owner, None)
    if first is None:
        return (_Step(Verdict()),), 1
    if not policy.rules[first].conditions.times:
        return (_Step(policy.rules[first].verdict),), 1
    steps: list[_Step] = []
    found = policy.matcher.find_all(question, owner, None, before=len(policy.rules))
    for index in found:
        rule = policy.rules[index]
        steps.append(_Step(rule.verdict, rule.conditions.times))
        if not rule.conditions.times:
            break
    else:
        steps.append(_Step(Verdict()))
    # A rule that says at times what would hold anyway says nothing, and neighbours that say the same are one.
    kept: list[tuple[Verdict, dict[TimeCondition, None]]] = [(steps.pop().verdict, {})]
    for step in reversed(steps):
        verdict, when = kept[-1]
        if step.outcome != _outcome(verdict):
            kept.append((step.verdict, dict.fromkeys(step.times)))
        elif len(kept) > 1:
            kept[-1] = (step.verdict, when)
            when.update(dict.fromkeys(step.times))
    return tuple(_Step(verdict, tuple(when)) for verdict, when in reversed(kept)), len(found)


def _rules_of(ruling: _Ruling) -> tuple[object, ...]:
    return tuple((step.verdict.rule, step.times) for step in ruling)


def _outcomes(ruling: _Ruling) -> list[tuple[object, ...]]:
    # The times of a rule are part of what it does, though not of which connections it is about.
    return [(*step.outcome, frozenset(step.times)) for step in ruling]


def _first_address(ranges: tuple[AddressRange, ...]) -> Address | None:
    if not ranges:
        return None
    return IPv4Address(ranges[0].first) if ranges[0].version == 4 else IPv6Address(ranges[0].first)


# A rule's connections are cut where any other rule begins or ends, so that each piece has one outcome in each policy.

_FACTS = ("local_ports", "remote_ports", "local_addresses", "remote_addresses")
# Pieces that the rules of two policies are cut into: a rule of more is not cut by the facts that make it too many.
_MOST_CELLS = 300_000  # in all; one counts as often as there are rules that fit it
_MOST_CELLS_AT_ONCE = 20_000  # of one rule
_FEW_CELLS = 12  # of each rule when those are used up
_Edges = dict[str, list[tuple[int, int]]]


def _edges(rules: Iterable[Rule]) -> _Edges:
    # For each fact, every (version, number) at which some rule's range begins, or has just ended.
    found: dict[str, set[tuple[int, int]]] = {fact: set() for fact in _FACTS}
    for rule in rules:
        for fact in _FACTS:
            for item in getattr(rule.conditions, fact):
                version = getattr(item, "version", 0)
                found[fact].update(((version, item.first), (version, item.last + 1)))
    return {fact: sorted(edges) for fact, edges in found.items()}


def _cells(conditions: Conditions, edges: _Edges, most: int) -> tuple[list[Conditions], bool]:
    # The pieces, and whether they were cut by every fact.
    cells, all_cut = [conditions], True
    for fact in _FACTS:
        pieces = _pieces(getattr(conditions, fact), edges[fact], most // len(cells))
        if pieces is None:
            all_cut = False
        elif len(pieces) > 1:
            cells = [_with(cell, {fact: (piece,)}) for cell in cells for piece in pieces]
    return cells, all_cut


def _with(conditions: Conditions, facts: dict[str, Any]) -> Conditions:
    return replace(conditions, **facts)


def _pieces(ranges: tuple[Any, ...], edges: list[tuple[int, int]], most: int) -> list[Any] | None:
    # None where there would be more than `most`.
    pieces: list[Any] = []
    for item in ranges:
        version = getattr(item, "version", 0)
        low = bisect_right(edges, (version, item.first))
        high = bisect_left(edges, (version, item.last + 1))
        if len(pieces) + high - low >= most:
            return None
        starts = [item.first, *(number for _, number in edges[low:high])]
        pieces += [
            replace(item, first=start, last=end - 1)
            for start, end in zip(starts, [*starts[1:], item.last + 1], strict=True)
        ]
    return pieces


def _joined(cells: list[Conditions]) -> list[Conditions]:
    # Cells of one outcome put together again, if what comes out is a plain "these ports, these addresses".
    values = {fact: {getattr(cell, fact) for cell in cells} for fact in _FACTS}
    if len(cells) != math.prod(len(some) for some in values.values()):
        return cells
    joined: dict[str, Any] = {}
    for fact, some in values.items():
        ranges = [item for piece in some for item in piece]
        joined[fact] = merge_ports(ranges) if fact.endswith("ports") else merge_addresses(ranges)
    return [_with(cells[0], joined)]


def _in_words(ruling: _Ruling) -> str:
    return ", else ".join(_step_in_words(step) for step in ruling)


def _step_in_words(step: _Step) -> str:
    verdict = step.verdict
    if verdict.rule is None:
        text = "in the clear (no rule)"
    elif verdict.settings is None:
        text = f"in the clear (rule {verdict.rule}, TTLSEnabled Off)"
    else:
        settings = verdict.settings
        text = f"TLS as {settings.role.value} with key ring {settings.keyring or '(none)'} (rule {verdict.rule})"
    return f"{text} {times.in_words(step.times)}" if step.times else text


def _all_differences(
    old: PolicySet, before: _Ruling, new: PolicySet, after: _Ruling
) -> Iterator[dict[str, tuple[object, object]]]:
    for was, will_be in zip(before, after, strict=False):
        if was.outcome != will_be.outcome:
            yield _differences(old, was.verdict, new, will_be.verdict)


def _differences(old: PolicySet, before: Verdict, new: PolicySet, after: Verdict) -> dict[str, tuple[object, object]]:
    # Going from clear to TLS or back, every parameter "differs"; that says nothing.
    if before.settings is None or after.settings is None:
        return {}
    had, has = old.effective(before), new.effective(after)
    names = [*had, *(name for name in has if name not in had)]
    return {
        name: (_shown(name, had), _shown(name, has))
        for name in names
        if had.get(name) != has.get(name) and name not in _NOT_A_CHANGE
    }


def _shown(name: str, effective: dict[str, Value]) -> object:
    return as_value(name, effective[name]) if name in effective else None
