"""When a rule is in force: IpTimeCondition as a pure question about a moment in local time.

Moments are naive local times, as the Policy Agent's are; daylight saving is whatever the local clock shows. A window
that crosses midnight belongs to the day on which it starts, so Friday 22:00-02:00 covers the first hours of Saturday.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from attls.model import TimeCondition

_DAY = 24 * 60
_ALWAYS = TimeCondition()
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_NUMBERS = tuple(str(number) for number in range(1, 32))


def local(moment: datetime) -> datetime:
    """Turn a moment with a time zone into naive local time; a naive one is local already."""
    return moment if moment.tzinfo is None else moment.astimezone().replace(tzinfo=None)


def active(condition: TimeCondition, now: datetime) -> bool:
    """Say whether `condition` holds at `now`, a naive local time."""
    if condition == _ALWAYS:
        return True
    if condition.begins is not None and now < condition.begins:
        return False
    if condition.ends is not None and now.replace(microsecond=0) > condition.ends:
        return False
    minute = now.hour * 60 + now.minute
    today = _day_fits(condition, now)
    for start, end in condition.daily:
        if start < end:
            if today and start <= minute < end:
                return True
        elif (today and minute >= start) or (minute < end and _day_fits(condition, now - timedelta(days=1))):
            return True
    return False


def any_active(conditions: Iterable[TimeCondition], now: datetime) -> bool:
    """Say whether a rule with these alternatives is in force; a rule without any always is."""
    conditions = tuple(conditions)
    return not conditions or any(active(condition, now) for condition in conditions)


def in_words(conditions: Iterable[TimeCondition]) -> str:
    """Say when a rule with these alternatives is in force."""
    return " or ".join(_in_words(condition) for condition in conditions)


def covers(wider: TimeCondition, narrower: TimeCondition) -> bool:
    """Say whether `wider` holds whenever `narrower` does, judging part by part: False where that is not enough."""
    if wider == narrower:
        return True
    # What is quickly compared comes first: whoever looks for shadows asks this of very many pairs.
    return (
        (wider.begins is None or (narrower.begins is not None and wider.begins <= narrower.begins))
        and (wider.ends is None or (narrower.ends is not None and narrower.ends <= wider.ends))
        and _has_all(wider.weekdays, narrower.weekdays)
        and _has_all(wider.months, narrower.months)
        and _has_all(wider.days_from_first, narrower.days_from_first)
        and _has_all(wider.days_from_last, narrower.days_from_last)
        and (
            wider.daily == narrower.daily
            or all(any(_within(window, other) for other in wider.daily) for window in narrower.daily)
        )
    )


def _has_all(mask: Sequence[bool], other: Sequence[bool]) -> bool:
    return mask == other or all(mine or not theirs for mine, theirs in zip(mask, other, strict=True))


def next_change(conditions: Iterable[TimeCondition], now: datetime, *, within_days: int = 8) -> datetime | None:
    """Return the first moment after `now` at which a rule with these alternatives starts or stops being in force.

    Looks `within_days` days ahead (whoever waits for it asks again then) and returns None when nothing changes.
    """
    conditions = tuple(conditions)
    state = any_active(conditions, now)
    for moment in sorted(_edges(conditions, now, within_days)):
        if any_active(conditions, moment) != state:
            return moment
    return None


def can_be_active(condition: TimeCondition) -> bool:
    """Say whether there is any moment at all at which `condition` holds."""
    # The calendar repeats every 28 years within a century. Moments near the ends of time are brought to where
    # they can be calculated with.
    begins = min(max(condition.begins or datetime(2000, 1, 1), datetime(1900, 1, 1)), datetime(9960, 1, 1))
    ends = min(condition.ends or datetime.max, begins + timedelta(days=366 * 28))
    first = begins.replace(hour=0, minute=0, second=0) - timedelta(days=1)  # a window may have begun the day before
    dates = {leap: _dates(condition, leap=leap) for leap in (False, True)}
    for year in range(first.year, ends.year + 1):
        for month, number in dates[calendar.isleap(year)]:
            day = datetime(year, month, number)
            if day > ends:
                return False
            if day < first or not condition.weekdays[(day.weekday() + 1) % 7]:
                continue
            for start, end in condition.daily:
                opens = day + timedelta(minutes=start)
                closes = day + timedelta(minutes=end if end > start else end + _DAY)
                if opens <= ends and closes > begins:
                    return True
    return False


def _dates(condition: TimeCondition, *, leap: bool) -> list[tuple[int, int]]:
    # The months and days of a year that fit, weekdays aside.
    found = []
    for month in range(1, 13):
        days = calendar.monthrange(2000 if leap else 2001, month)[1] if condition.months[month - 1] else 0
        for day in range(1, days + 1):
            if condition.days_from_first[day - 1] or condition.days_from_last[days - day]:
                found.append((month, day))
    return found


def _within(window: tuple[int, int], other: tuple[int, int]) -> bool:
    # Whether a daily window lies in another; one that crosses midnight lasts into the next day.
    (start, end), (first, last) = window, other
    return first <= start and (end if end > start else end + _DAY) <= (last if last > first else last + _DAY)


def _in_words(condition: TimeCondition) -> str:
    parts = []
    if condition.daily != _ALWAYS.daily:
        windows = (f"{_clock(start)}-{_clock(end)}" for start, end in condition.daily)
        parts.append(f"at {' and '.join(windows)}")
    if not all(condition.weekdays):
        parts.append(f"on {_listed(condition.weekdays, _WEEKDAYS)}")
    if not all(condition.days_from_first) and not all(condition.days_from_last):
        days = []
        if any(condition.days_from_first):
            days.append(f"day {_listed(condition.days_from_first, _NUMBERS)} of the month")
        if any(condition.days_from_last):
            days.append(f"day {_listed(condition.days_from_last, _NUMBERS)} from the end of the month")
        parts.append(f"on {' or '.join(days) or 'no day'}")
    if not all(condition.months):
        parts.append(f"in {_listed(condition.months, _MONTHS)}")
    if condition.begins is not None and condition.ends is not None:
        parts.append(f"from {condition.begins:%Y-%m-%d %H:%M:%S} to {condition.ends:%Y-%m-%d %H:%M:%S}")
    return " ".join(parts) or "at all times"


def _listed(mask: Sequence[bool], names: Sequence[str]) -> str:
    # Neighbours that are set become a range.
    runs: list[list[str]] = []
    for number, name in enumerate(names):
        if mask[number]:
            if number and mask[number - 1]:
                runs[-1][1:] = [name]
            else:
                runs.append([name])
    return ", ".join("-".join(run) for run in runs) or "none"


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _day_fits(condition: TimeCondition, day: datetime) -> bool:
    days_in_month = calendar.monthrange(day.year, day.month)[1]
    return (
        condition.months[day.month - 1]
        and condition.weekdays[(day.weekday() + 1) % 7]
        and (condition.days_from_first[day.day - 1] or condition.days_from_last[days_in_month - day.day])
    )


def _edges(conditions: Iterable[TimeCondition], now: datetime, within_days: int) -> set[datetime]:
    # Every moment at which an answer could change: window edges of each day, midnights, ends of validity.
    horizon = now + timedelta(days=within_days)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    edges: set[datetime] = set()
    for condition in conditions:
        minutes = {0, *(edge for window in condition.daily for edge in window)}
        for day in range(within_days + 1):
            edges.update(midnight + timedelta(days=day, minutes=minute) for minute in minutes)
        if condition.begins is not None:
            edges.add(condition.begins)
        if condition.ends is not None and condition.ends < horizon:
            edges.add(condition.ends + timedelta(seconds=1))
    return {edge for edge in edges if now < edge <= horizon}
