"""The supervisor's steering and the clock, with a clock and a street of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import trio.testing

from attls.daemon import Options
from attls.daemon.generation import load
from attls.daemon.nest import Nest
from attls.daemon.supervisor import Street, Supervisor
from attls.errors import InterceptError
from attls.model import Defaults
from attls.policy import Rule
from tests.scenes.daemons import rule

NOON = datetime(2026, 7, 31, 12, 0)


class FakeStreet:
    """Remembers what was steered, the rules by name; refuses while `refuses` is set."""

    def __init__(self) -> None:
        self.steered: list[list[str]] = []
        self.refuses = False

    def steer(self, rules: Sequence[Rule]) -> None:
        if self.refuses:
            raise InterceptError("the kernel is not in the mood")
        self.steered.append([each.name for each in rules])


class Watch:
    """A wall clock that runs with trio's, and can be set."""

    def __init__(self, shows: datetime) -> None:
        self.set(shows)

    def set(self, shows: datetime) -> None:
        self._ahead = shows.timestamp() - trio.current_time()

    def __call__(self) -> float:
        return trio.current_time() + self._ahead


async def at_once(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do what a thread would do; a clock that jumps does not wait for threads."""
    return work(*arguments)


async def test_steering_follows_the_clock(
    tmp_path: Path, rings: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steered before the period begins, left alone after it ends, at once when the clock is set, again on failure."""
    monkeypatch.setattr("trio.to_thread.run_sync", at_once)
    path = tmp_path / "attls.policy"
    office = "  IpTimeConditionRef office\n  Direction"
    path.write_text(
        rule("always") + rule("office", port=7001).replace("  Direction", office)
        + "IpTimeCondition office\n{\n  TimeOfDayRange 12:10-13:00\n}\n"
    )  # fmt: skip
    street, watch = FakeStreet(), Watch(NOON)
    options = Options(policy=path, keyrings=rings, run_dir=tmp_path / "run", workers=1)
    supervisor = Supervisor(options, cast(Street, street), Nest(0), announce=print, clock=watch)
    generation = load(path, rings, defaults=Defaults.MODERN, number=1)
    supervisor._generation, supervisor._state = generation, "running"
    await supervisor._steer(generation)
    off, on = ["always"], ["always", "office"]
    assert [off] == street.steered
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor._follow_the_clock)
        await trio.sleep(8 * 60 - 5)
        assert [off] == street.steered
        await trio.sleep(10)
        assert [off, on] == street.steered
        await trio.sleep(timedelta(hours=2).total_seconds())
        assert [off, on, off] == street.steered
        watch.set(NOON + timedelta(days=1, minutes=30))  # asleep until the next day
        street.refuses = True
        await trio.sleep(30)
        assert "not in the mood" in supervisor._last_error
        assert [off, on, off] == street.steered
        street.refuses = False
        await trio.sleep(10)
        assert [off, on, off, on] == street.steered
        watch.set(NOON)
        await trio.sleep(2)
        assert [off, on, off, on, off] == street.steered
        nursery.cancel_scope.cancel()
