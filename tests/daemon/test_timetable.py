"""Which rules are steered at a moment, and when to look again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls.daemon.timetable import LONGEST, MARGIN, Timetable
from attls.model import Conditions, Direction, TimeCondition
from attls.policy import Rule, times

ALWAYS = Conditions(frozenset(Direction))


@dataclass(frozen=True)
class Timed:
    """As much of a rule as a timetable looks at."""

    conditions: Conditions


def timetable(*alternatives: TimeCondition) -> tuple[Timetable, Rule]:
    rule = cast(Rule, Timed(Conditions(frozenset(Direction), times=alternatives)))
    return Timetable([rule]), rule


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time with daylight saving, whatever the machine's own is."""
    with monkeypatch.context() as context:
        context.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


def test_rules_without_times_are_always_steered() -> None:
    """They need no clock, and the next look is the longest wait away."""
    rule = cast(Rule, Timed(ALWAYS))
    assert ((rule,), 1000.0 + LONGEST) == Timetable([rule]).at(1000.0)


def test_a_rule_is_steered_from_the_margin_to_its_end() -> None:
    """Not before, so that its time costs nothing else; from then on until its last second is over."""
    begins = datetime(2026, 7, 31, 12, 0, 0)
    table, rule = timetable(TimeCondition(begins=begins, ends=begins + timedelta(seconds=9)))
    moment = begins.timestamp()
    expected = {-MARGIN - 50: False, -MARGIN - 1: False, -MARGIN: True, -1: True, 0: True, 9.5: True, 10: False}
    assert expected == {offset: table.at(moment + offset)[0] == (rule,) for offset in expected}
    assert moment - MARGIN == table.at(moment - MARGIN - 20)[1]
    assert moment + 10 == table.at(moment + 3)[1]


def test_the_hour_that_daylight_saving_skips_takes_no_margin_away(berlin: None) -> None:
    """A rule from 3:00 is steered two minutes of real time before the clock jumps there from 2:00."""
    jump = datetime(2026, 3, 29, 3, 0).timestamp()
    assert datetime(2026, 3, 29, 1, 59, 59) == datetime.fromtimestamp(jump - 1)
    table, rule = timetable(TimeCondition(daily=((180, 240),)))
    expected = {-MARGIN - 1: (), -MARGIN + 1: (rule,), -1: (rule,), 0: (rule,), 3600: ()}
    assert expected == {offset: table.at(jump + offset)[0] for offset in expected}


MINUTES = st.integers(0, 1440)
CONDITIONS = st.builds(
    TimeCondition,
    weekdays=st.tuples(*[st.booleans()] * 7),
    daily=st.lists(st.tuples(MINUTES, MINUTES).filter(lambda w: w[0] != w[1]), min_size=1, max_size=2).map(tuple),
)


@given(st.lists(CONDITIONS, min_size=1, max_size=2), st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)))
def test_whoever_looks_when_told_is_never_late(alternatives: list[TimeCondition], start: datetime) -> None:
    """Between one look and the next no rule is in force that is not steered."""
    table, rule = timetable(*alternatives)
    moment = start.timestamp()
    for _ in range(4):
        rules, again = table.at(moment)
        assert moment < again <= moment + LONGEST
        if rules != (rule,):
            step = (again - moment) / 10
            moments = [datetime.fromtimestamp(moment + step * number) for number in range(11)]
            assert not any(times.any_active(alternatives, each) for each in moments)
        moment = again
