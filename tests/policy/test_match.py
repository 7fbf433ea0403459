"""The tree that finds rules, held against the plain walk that defines what a match is."""

from __future__ import annotations

import pickle
from datetime import datetime
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attls.model import (
    UNKNOWN_OWNER,
    AddressRange,
    Conditions,
    Direction,
    Owner,
    PortRange,
    TimeCondition,
    Verdict,
)
from attls.policy.match import Matcher, Question, address_text, explain, wildcard
from attls.policy.rules import Rule

NOON = datetime(2026, 7, 31, 12, 0)
MORNING_ONLY = TimeCondition(daily=((0, 8 * 60),))

ports = st.tuples(st.integers(1, 40), st.integers(0, 5)).map(lambda pair: PortRange(pair[0], pair[0] + pair[1]))
small_addresses = st.tuples(st.sampled_from([4, 6]), st.integers(0, 40), st.integers(0, 9)).map(
    lambda item: AddressRange(item[0], item[1], item[1] + item[2])
)
names = st.sampled_from(["A", "AB", "ABC", "PAY1", "PAY2"])
patterns = st.one_of(st.none(), names, st.sampled_from(["A*", "PAY*", "*2", "P?Y1", "AB*C", "?"]))


def some(strategy: st.SearchStrategy[object], most: int = 2) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(strategy, max_size=most).map(tuple)


conditions = st.builds(
    Conditions,
    directions=st.sampled_from([frozenset({Direction.INBOUND}), frozenset({Direction.OUTBOUND}), frozenset(Direction)]),
    local_addresses=some(small_addresses),
    remote_addresses=some(small_addresses),
    local_ports=some(ports),
    remote_ports=some(ports),
    job=patterns,
    user=patterns,
    times=some(st.sampled_from([TimeCondition(), MORNING_ONLY]), 1),
)
rule_lists = st.lists(conditions, max_size=60).map(
    lambda many: [Rule(f"r{i}", 1, one, Verdict(f"r{i}", False)) for i, one in enumerate(many)]
)
maybe_address = st.one_of(
    st.none(),
    st.integers(0, 50).map(lambda n: ip_address(n)),
    st.integers(0, 50).map(lambda n: ip_address((n).to_bytes(16))),
)
maybe_port = st.one_of(st.none(), st.integers(1, 50))
questions = st.builds(
    Question,
    direction=st.sampled_from(list(Direction)),
    local_address=maybe_address,
    local_port=maybe_port,
    remote_address=maybe_address,
    remote_port=maybe_port,
)
owners = st.builds(Owner, user=st.one_of(st.none(), names.map(str.lower)), job=st.one_of(st.none(), names))


@settings(max_examples=200, deadline=None)
@given(rule_lists, st.lists(st.tuples(questions, owners), min_size=1, max_size=10))
def test_the_tree_finds_what_the_plain_walk_finds(rules: list[Rule], asked: list[tuple[Question, Owner]]) -> None:
    """For any rules and any connection the index answers exactly as looking at the rules one by one does."""
    matcher = Matcher(rules)
    for question, owner in asked:
        steps = list(explain(rules, question, owner, NOON))
        expected = len(steps) - 1 if steps and steps[-1].matched else None
        assert expected == matcher.find(question, owner, NOON)


@given(rule_lists)
@settings(max_examples=20, deadline=None)
def test_a_matcher_pickles(rules: list[Rule]) -> None:
    """A matcher sent to another process answers as it did here."""
    question = Question(Direction.INBOUND, ip_address("0.0.0.3"), 3, ip_address("0.0.0.4"), 4)
    matcher = Matcher(rules)
    copy = pickle.loads(pickle.dumps(matcher))
    assert matcher.find(question, UNKNOWN_OWNER, NOON) == copy.find(question, UNKNOWN_OWNER, NOON)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("PAY*", "PAYROLL", True),
        ("PAY*", "PAY", True),
        ("*ROLL", "PAYROLL", True),
        ("P*R?LL", "PAYROLL", True),
        ("P?Y", "PAY", True),
        ("P?Y", "PY", False),
        ("PAY", "PAYROLL", False),
        ("", "", True),
        ("*", "", True),
        ("*A*B*", "XXAYYBZZ", True),
        ("*A*B*", "XXBYYAZZ", False),
        ("[AB]", "A", False),
    ],
)
def test_wildcards(pattern: str, text: str, expected: bool) -> None:
    """`*` is any run of characters, `?` exactly one, and nothing else is special."""
    assert expected == wildcard(pattern, text)


def test_a_hostile_pattern_takes_no_exponential_time() -> None:
    """A pattern of many stars against a long name that almost fits is answered at once."""
    assert wildcard("*A" * 50 + "B", "A" * 2000) is False


def test_an_unknown_owner_matches_no_job_and_no_user_condition() -> None:
    """Where the process is gone, rules that ask about it are passed over, and the reason says so."""
    rules = [
        Rule("by-job", 2, Conditions(frozenset(Direction), job="A*"), Verdict("by-job")),
        Rule("by-user", 1, Conditions(frozenset(Direction), user="*"), Verdict("by-user")),
    ]
    question = Question(Direction.INBOUND)
    assert Matcher(rules).find(question, UNKNOWN_OWNER, NOON) is None
    assert ["Jobname A*: the job name is not known", "Userid *: the user is not known"] == [
        step.reason for step in explain(rules, question, UNKNOWN_OWNER, NOON)
    ]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (AddressRange(4, 0x0A000001, 0x0A000001), "10.0.0.1"),
        (AddressRange(4, 0x0A000000, 0x0AFFFFFF), "10.0.0.0/8"),
        (AddressRange(4, 0x0A000001, 0x0A000002), "10.0.0.1-10.0.0.2"),
        (AddressRange(6, 0, (1 << 128) - 1), "::/0"),
        (AddressRange(6, 1, 1), "::1"),
    ],
)
def test_ranges_are_written_as_short_as_they_go(item: AddressRange, expected: str) -> None:
    """One address, a prefix where it is one, first-last otherwise."""
    assert expected == address_text(item)


def test_a_rule_with_a_long_list_of_addresses_is_found() -> None:
    """A group of thousands of addresses, shared by many rules, is looked through quickly and correctly."""
    addresses = tuple(AddressRange(4, number * 4, number * 4 + 1) for number in range(5000))
    rules = [
        Rule(
            f"r{port}",
            1,
            Conditions(
                frozenset({Direction.INBOUND}), remote_addresses=addresses, local_ports=(PortRange(port, port),)
            ),
            Verdict(f"r{port}"),
        )
        for port in range(1, 301)
    ]
    matcher = Matcher(rules)
    for number, port, expected in ((4000, 7, 6), (4001, 7, 6), (4002, 7, None), (4000, 301, None), (19999, 1, None)):
        question = Question(Direction.INBOUND, None, port, ip_address(number), None)
        assert expected == matcher.find(question, UNKNOWN_OWNER, NOON)


@pytest.mark.parametrize("shape", ["single ports", "networks", "ranges inside each other"])
def test_a_look_up_checks_few_rules_however_many_there_are(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen times the rules cost a look-up a few more checks, not sixteen times as many."""
    checked = 0
    fits = Matcher._fits

    def counted(self: Matcher, *arguments: Any) -> bool:
        nonlocal checked
        checked += 1
        return fits(self, *arguments)

    monkeypatch.setattr(Matcher, "_fits", counted)
    most = []
    for count in (256, 4096):
        matcher = Matcher([Rule(f"r{n}", 1, _shaped(shape, n), Verdict(f"r{n}")) for n in range(count)])
        checks = []
        for n in range(0, count, count // 64):
            checked = 0
            question = Question(
                Direction.INBOUND, ip_address("192.0.2.1"), n + 1, ip_address(0x0A000000 + n * 256), 999
            )
            matcher.find(question, Owner(), NOON)
            checks.append(checked)
        most.append(max(checks))
    assert most[1] <= most[0] + 24


def _shaped(shape: str, n: int) -> Conditions:
    inbound = frozenset({Direction.INBOUND})
    if shape == "single ports":
        return Conditions(inbound, local_ports=(PortRange(n + 1, n + 1),))
    if shape == "networks":
        return Conditions(inbound, remote_addresses=(AddressRange(4, 0x0A000000 + n * 256, 0x0A0000FF + n * 256),))
    return Conditions(inbound, local_ports=(PortRange(5000 - n, 10000 + n),))
