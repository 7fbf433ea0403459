"""Time conditions: when they hold, when that changes, and whether they ever can."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attls.model import TimeCondition
from attls.policy.times import active, any_active, can_be_active, covers, in_words, local, next_change

NONE = (False,) * 31
FRIDAY = datetime(2026, 7, 31, 23, 0)  # the last day of its month


def week(digits: str) -> tuple[bool, ...]:
    return tuple(digit == "1" for digit in digits)


def test_the_test_day_is_a_friday() -> None:
    """The examples below count on it."""
    assert 4 == FRIDAY.weekday()


@pytest.mark.parametrize(
    ("condition", "moment", "expected"),
    [
        (TimeCondition(), FRIDAY, True),
        (TimeCondition(weekdays=week("0000010")), FRIDAY, True),
        (TimeCondition(weekdays=week("0000010")), FRIDAY + timedelta(days=1), False),
        (TimeCondition(weekdays=week("1000000")), FRIDAY + timedelta(days=2), True),
        (TimeCondition(months=week("000000100000")), FRIDAY, True),
        (TimeCondition(months=week("000000100000")), FRIDAY + timedelta(days=1), False),
        (TimeCondition(days_from_first=(*NONE[:30], True), days_from_last=NONE), FRIDAY, True),
        (TimeCondition(days_from_first=NONE, days_from_last=(True, *NONE[1:])), FRIDAY, True),
        (TimeCondition(days_from_first=NONE, days_from_last=(True, *NONE[1:])), datetime(2024, 2, 29), True),
        (TimeCondition(days_from_first=NONE, days_from_last=(True, *NONE[1:])), datetime(2024, 2, 28), False),
        (TimeCondition(days_from_first=(True, *NONE[1:]), days_from_last=(True, *NONE[1:])), FRIDAY, True),
        (TimeCondition(daily=((22 * 60, 23 * 60),)), FRIDAY, False),  # the end is not part of the window
        (TimeCondition(daily=((23 * 60, 24 * 60),)), FRIDAY, True),
        (TimeCondition(daily=((0, 60), (22 * 60, 24 * 60))), FRIDAY, True),
        (TimeCondition(begins=FRIDAY, ends=FRIDAY), FRIDAY, True),  # both ends are
        (TimeCondition(begins=FRIDAY, ends=FRIDAY), FRIDAY + timedelta(milliseconds=900), True),
        (TimeCondition(begins=FRIDAY, ends=FRIDAY), FRIDAY + timedelta(seconds=1), False),
        (TimeCondition(begins=FRIDAY), FRIDAY - timedelta(seconds=1), False),
        (TimeCondition(ends=datetime(9999, 12, 31, 23, 59, 59)), FRIDAY, True),
    ],
)
def test_a_condition_holds(condition: TimeCondition, moment: datetime, expected: bool) -> None:
    """All parts of a condition must hold; a day matches by either half of its mask."""
    assert expected == active(condition, moment)


def test_a_window_across_midnight_belongs_to_the_day_it_starts_on() -> None:
    """Friday 22:00-02:00 covers the first hours of Saturday, and not those of Friday."""
    night = TimeCondition(weekdays=week("0000010"), daily=((22 * 60, 2 * 60),))
    held = [hour for hour in range(72) if active(night, datetime(2026, 7, 30) + timedelta(hours=hour))]
    assert [46, 47, 48, 49] == held


def test_alternatives_are_ored() -> None:
    """A rule with several conditions is in force when one of them holds, one without any always."""
    never = TimeCondition(weekdays=week("0000000"))
    assert any_active((never, TimeCondition()), FRIDAY)
    assert any_active((), FRIDAY)
    assert not any_active((never,), FRIDAY)


masks = st.lists(st.booleans(), min_size=31, max_size=31).map(tuple)
conditions = st.builds(
    TimeCondition,
    weekdays=st.lists(st.booleans(), min_size=7, max_size=7).map(tuple),
    months=st.lists(st.booleans(), min_size=12, max_size=12).map(tuple),
    days_from_first=masks,
    days_from_last=masks,
    daily=st.lists(
        st.tuples(st.integers(0, 1439), st.integers(0, 1440)).filter(lambda pair: pair[0] != pair[1]),
        min_size=1,
        max_size=2,
    ).map(tuple),
    begins=st.one_of(st.none(), st.just(FRIDAY - timedelta(days=2, hours=3))),
    ends=st.one_of(st.none(), st.just(FRIDAY + timedelta(days=3, hours=5))),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(conditions, max_size=2), st.integers(0, 10**6))
def test_nothing_changes_before_the_next_change(alternatives: list[TimeCondition], seed: int) -> None:
    """Between now and the moment that `next_change` names the answer stays, and there it turns over."""
    state = any_active(alternatives, FRIDAY)
    change = next_change(alternatives, FRIDAY)
    end = change or FRIDAY + timedelta(days=8)
    chance = random.Random(seed)
    for _ in range(50):
        moment = FRIDAY + timedelta(seconds=chance.randrange(max(1, int((end - FRIDAY).total_seconds()))))
        assert state == any_active(alternatives, moment)
    if change is not None:
        assert state != any_active(alternatives, change)


@given(conditions, conditions, st.integers(0, 10**6))
def test_covering_is_never_contradicted(wider: TimeCondition, narrower: TimeCondition, minute: int) -> None:
    """If one condition covers another, it holds whenever the other does; and every condition covers itself."""
    assert covers(narrower, narrower)
    both = replace(wider, weekdays=narrower.weekdays, daily=narrower.daily, days_from_first=narrower.days_from_first)
    moment = FRIDAY + timedelta(minutes=minute)
    for one in (wider, both):
        if covers(one, narrower) and active(narrower, moment):
            assert active(one, moment)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (TimeCondition(), "at all times"),
        (TimeCondition(weekdays=week("0111110")), "on Monday-Friday"),
        (TimeCondition(weekdays=week("1000011"), daily=((360, 1200), (1320, 60))), "at 06:00-20:00 and 22:00-01:00 "
         "on Sunday, Friday-Saturday"),
        (TimeCondition(months=week("111000000001")), "in January-March, December"),
        (TimeCondition(days_from_first=(True, True, *NONE[2:]), days_from_last=NONE), "on day 1-2 of the month"),
        (TimeCondition(days_from_first=NONE, days_from_last=(True, *NONE[1:])), "on day 1 from the end of the month"),
        (TimeCondition(days_from_first=NONE, days_from_last=NONE), "on no day"),
        (TimeCondition(begins=FRIDAY, ends=FRIDAY), "from 2026-07-31 23:00:00 to 2026-07-31 23:00:00"),
    ],
)  # fmt: skip
def test_conditions_in_words(condition: TimeCondition, expected: str) -> None:
    """Masks and windows are said the way people say them."""
    assert expected == in_words([condition])


def test_rules_that_can_never_be_in_force() -> None:
    """No moment fits the 31st of June; one does for the 29th of February, however far away."""
    june = TimeCondition(months=week("000001000000"), days_from_first=(*NONE[:30], True), days_from_last=NONE)
    leap_day = TimeCondition(
        months=week("010000000000"),
        days_from_first=(*NONE[:28], True, *NONE[29:]),
        days_from_last=NONE,
        weekdays=week("1000000"),
    )
    short = TimeCondition(begins=datetime(2026, 8, 1, 10), ends=datetime(2026, 8, 1, 11), daily=((0, 600),))
    assert not can_be_active(june)
    assert can_be_active(leap_day)
    assert not can_be_active(short)
    assert can_be_active(TimeCondition(begins=datetime(1, 1, 1), ends=datetime(9999, 12, 31)))
    assert can_be_active(TimeCondition(begins=datetime(9999, 12, 31), ends=datetime(9999, 12, 31)))


@given(conditions, st.integers(0, 3 * 366 * 24 * 60))
def test_what_is_in_force_can_be(condition: TimeCondition, minute: int) -> None:
    """A condition that holds at some moment is never said to hold at none."""
    if active(condition, FRIDAY + timedelta(minutes=minute)):
        assert can_be_active(condition)


def test_a_moment_with_a_zone_is_turned_into_local_time() -> None:
    """Naive times are local already."""
    assert FRIDAY == local(FRIDAY)
    assert datetime.fromtimestamp(0) == local(datetime.fromtimestamp(0, UTC))
