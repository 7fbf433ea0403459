"""When steering must follow the clock: which rules are in force now or very soon, and when that changes.

Workers judge every connection by the clock, so steering too much is harmless and steering too late is not: a rule is
steered `MARGIN` before its period begins. Time conditions speak of local time; the margin is real time, also across
the hour at which daylight saving begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from attls.model import TimeCondition
from attls.policy import Rule, times

MARGIN = 120.0
# The latest moment of the next look, whatever the calendar says.
LONGEST = 60.0

_Alternatives = tuple[TimeCondition, ...]


class Timetable:
    """The rules of a policy by time; moments are seconds since the epoch."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self._alternatives = {rule.conditions.times for rule in self._rules if rule.conditions.times}

    def at(self, moment: float) -> tuple[tuple[Rule, ...], float]:
        """Return the rules to steer from `moment` on, in search order, and when to ask again at the latest."""
        due = moment + LONGEST
        waiting: set[_Alternatives] = set()
        for alternatives in self._alternatives:
            steered, changes = _state(alternatives, moment)
            if not steered:
                waiting.add(alternatives)
            due = min(due, changes)
        return tuple(rule for rule in self._rules if rule.conditions.times not in waiting), due


def _state(alternatives: _Alternatives, moment: float) -> tuple[bool, float]:
    # Whether these are to be steered, and when that may change (too early does no harm).
    soonest = moment + LONGEST
    found = False
    for begin, end in _spans(moment):
        active = times.any_active(alternatives, begin)
        change = times.next_change(alternatives, begin, within_days=1)
        if active or (change is not None and change <= end):
            found = True
        if change is not None and (active or change > end):
            after = (change - (begin if active else end)).total_seconds()
            soonest = min(soonest, moment + after)
    return found, soonest


def _spans(moment: float) -> Iterator[tuple[datetime, datetime]]:
    # From `moment` to the end of the margin as the local clock shows it: two stretches if it is set in between.
    now, later = datetime.fromtimestamp(moment), datetime.fromtimestamp(moment + MARGIN)
    margin = timedelta(seconds=MARGIN)
    yield now, now + margin
    if later - now != margin:
        yield later - margin, later
