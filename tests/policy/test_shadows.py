"""The laws behind shadowing: what is said of rules that stand in front of others, no connection can contradict."""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attls.model import AddressRange, Conditions, Direction, Owner, PortRange, TimeCondition, Verdict
from attls.policy import shadows
from attls.policy.compare import witness
from attls.policy.match import Matcher, Question, explain
from attls.policy.rules import Rule
from attls.policy.shadows import Shadows, covers, is_possible, meet

NOW = datetime(2026, 7, 31, 12, 0)

ports = st.lists(
    st.tuples(st.integers(1, 12), st.integers(0, 4)).map(lambda pair: PortRange(pair[0], pair[0] + pair[1])), max_size=1
).map(tuple)
ranges = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 4)).map(lambda pair: AddressRange(4, pair[0], pair[0] + pair[1])),
    max_size=1,
).map(tuple)
patterns = st.one_of(st.none(), st.text("AB*?", min_size=1, max_size=4))
some_conditions = st.builds(
    Conditions,
    directions=st.sampled_from([frozenset({Direction.INBOUND}), frozenset(Direction)]),
    local_ports=ports,
    remote_addresses=ranges,
    job=patterns,
)


def fits(conditions: Conditions, question: Question, owner: Owner) -> bool:
    return next(explain([Rule("r", 1, conditions, Verdict("r"))], question, owner, NOW)).matched


@settings(max_examples=300, deadline=None)
@given(
    some_conditions,
    some_conditions,
    st.sampled_from(list(Direction)),
    st.integers(1, 16),
    st.integers(0, 16),
    st.one_of(st.none(), st.text("ABC", max_size=5)),
)
def test_covering_is_never_contradicted(
    wider: Conditions, narrower: Conditions, direction: Direction, port: int, address: int, job: str | None
) -> None:
    """If one set of conditions covers another, whatever fits the second fits the first; and the two meet."""
    question = Question(direction, None, port, ip_address(address), None)
    owner = Owner(job=job)
    both = fits(wider, question, owner) and fits(narrower, question, owner)
    if covers(wider, narrower) and fits(narrower, question, owner):
        assert both
    if both:
        assert meet(wider, narrower)


def test_times_decide_covering() -> None:
    """A rule that is in force only sometimes covers nothing but a rule of the same times, or of fewer."""
    night = (TimeCondition(daily=((0, 60),)),)
    always = Conditions(frozenset(Direction))
    sometimes = Conditions(frozenset(Direction), times=night)
    assert covers(always, sometimes)
    assert covers(sometimes, sometimes)
    assert not covers(sometimes, always)
    sundays = TimeCondition(daily=((0, 30),), weekdays=(True, *(False,) * 6))
    assert covers(sometimes, Conditions(frozenset(Direction), times=(sundays,)))
    assert not covers(sometimes, Conditions(frozenset(Direction), times=(sundays, TimeCondition(daily=((50, 70),)))))


@given(some_conditions, some_conditions)
def test_a_covering_rule_fits_the_witness(wider: Conditions, narrower: Conditions) -> None:
    """The witness of a rule fits it and every rule that covers it, so no shadow is missed."""
    for direction in narrower.directions:
        question, owner = witness(narrower, direction)
        assert fits(narrower, question, owner)
        if covers(wider, narrower):
            assert fits(wider, question, owner)


def rules_of(several: list[Conditions]) -> list[Rule]:
    return [Rule(f"rule{number}", 1, conditions, Verdict(f"rule{number}")) for number, conditions in enumerate(several)]


def names_in_front(*several: Conditions) -> list[str]:
    rules = rules_of(list(several))
    return [rule.name for rule in Shadows(rules, Matcher(rules)).in_front(len(rules) - 1)]


INBOUND = frozenset({Direction.INBOUND})
NETWORK = AddressRange(4, 1 << 24, (1 << 25) - 1)


def test_several_rules_cover_another_together() -> None:
    """Two halves of a range of ports, addresses or directions leave nothing of the whole; one half alone does."""
    low, high = (PortRange(1, 500),), (PortRange(501, 65535),)
    assert ["rule0", "rule1"] == names_in_front(
        Conditions(INBOUND, local_ports=low), Conditions(INBOUND, local_ports=high), Conditions(INBOUND)
    )
    assert ["rule0", "rule1"] == names_in_front(
        Conditions(INBOUND, local_ports=low),
        Conditions(frozenset({Direction.OUTBOUND})),
        Conditions(frozenset(Direction), local_ports=low),
    )
    v4, v6 = (AddressRange(4, 0, (1 << 32) - 1),), (AddressRange(6, 0, (1 << 128) - 1),)
    assert ["rule0", "rule1"] == names_in_front(
        Conditions(INBOUND, local_addresses=v4), Conditions(INBOUND, remote_addresses=v6), Conditions(INBOUND)
    )
    assert [] == names_in_front(Conditions(INBOUND, local_ports=high), Conditions(INBOUND))


def test_looking_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time for a policy is used up, shadows go unsaid."""
    rules = rules_of([Conditions(INBOUND, job="*A*"), Conditions(INBOUND, job="*BAB*")])
    assert [rules[0]] == list(Shadows(rules, Matcher(rules)).in_front(1))
    monkeypatch.setattr(shadows, "_MOST_LOOKS", 1)
    tired = Shadows(rules, Matcher(rules))
    assert [(rules[0],), ()] == [tired.in_front(1), tired.in_front(1)]


def test_one_rule_that_covers_is_named_alone() -> None:
    """Where one rule takes everything, the others that take a part of it are not worth naming."""
    assert ["rule1"] == names_in_front(
        Conditions(INBOUND, remote_addresses=(NETWORK,)), Conditions(INBOUND), Conditions(INBOUND)
    )


def test_rules_of_other_owners_or_times_cover_nothing() -> None:
    """A half that only some jobs, users or hours have leaves connections over."""
    low, high = (PortRange(1, 500),), (PortRange(501, 65535),)
    night = (TimeCondition(daily=((0, 60),)),)
    rest = Conditions(INBOUND, local_ports=low)
    for half in (
        Conditions(INBOUND, local_ports=high, job="A*"),
        Conditions(INBOUND, local_ports=high, user="B"),
        Conditions(INBOUND, local_ports=high, times=night),
    ):
        assert [] == names_in_front(rest, half, Conditions(INBOUND))
    assert ["rule0", "rule1"] == names_in_front(
        Conditions(INBOUND, local_ports=low, job="A*"),
        Conditions(INBOUND, local_ports=high, times=night),
        Conditions(INBOUND, job="AB", times=night),
    )


def test_addresses_of_both_versions_fit_no_connection() -> None:
    """A rule for IPv4 here and IPv6 there can never match, and nobody stands in front of it."""
    mixed = Conditions(INBOUND, local_addresses=(NETWORK,), remote_addresses=(AddressRange(6, 2, 2),))
    assert not is_possible(mixed)
    assert is_possible(Conditions(INBOUND, local_addresses=(NETWORK,)))
    assert [] == names_in_front(Conditions(INBOUND), mixed)[1:]


@settings(max_examples=300, deadline=None)
@given(st.lists(some_conditions, min_size=2, max_size=6))
def test_whatever_stands_in_front_leaves_nothing_and_nothing_else_is_left_out(several: list[Conditions]) -> None:
    """A rule has others in front of it exactly if no connection, tried where any range begins, is left for it.

    Which is how it must be where no rule asks about jobs; where rules do, only the first half is promised.
    """
    rules = rules_of(several)
    index = len(rules) - 1
    last = rules[index].conditions
    edges = {1, 65535} | {edge for each in several for item in each.local_ports for edge in (item.first, item.last + 1)}
    places = {0, (1 << 32) - 1} | {
        edge for each in several for item in each.remote_addresses for edge in (item.first, item.last + 1)
    }
    jobs = [None, "A", "AB", "ABBA"] if any(each.job for each in several) else [None]
    left = [
        (direction, port, place, job)
        for direction, port, place, job in product(last.directions, edges, places, jobs)
        if [step.matched for step in explain(rules, question(direction, port, place), Owner(job=job), NOW)]
        == [False] * index + [True]
    ]
    above = Shadows(rules, Matcher(rules)).in_front(index)
    if above:
        assert [] == left
    elif jobs == [None]:
        assert left


def question(direction: Direction, port: int, place: int) -> Question:
    return Question(direction, ip_address("192.0.2.1"), port, ip_address(place), 1)
