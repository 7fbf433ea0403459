"""Noticing changes in directories."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from attls.daemon import watching
from attls.daemon.watching import Watch


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(watching, "LONGEST_SECONDS", 0.5)


async def nothing_comes(watch: Watch) -> bool:
    with trio.move_on_after(0.2):
        await watch.changed()
        return False
    return True


async def test_a_burst_is_noticed_once(tmp_path: Path) -> None:
    """Many writes are one change, seen when they are over; reading is none."""
    with Watch() as watch:
        assert watch.follow([tmp_path])
        assert not watch.follow([tmp_path])
        for number in range(20):
            (tmp_path / str(number)).write_text("x")
        with trio.fail_after(5):
            await watch.changed()
        (tmp_path / "1").read_text()
        assert await nothing_comes(watch)


@pytest.mark.parametrize("change", ["replace", "delete", "link", "mode"])
async def test_every_way_to_change_a_file_counts(tmp_path: Path, change: str) -> None:
    """Renaming into place, deleting, swapping a link, changing permissions."""
    (tmp_path / "here").mkdir()
    old = tmp_path / "here" / "file"
    old.write_text("x")
    (tmp_path / "new").write_text("y")
    with Watch() as watch:
        watch.follow([tmp_path / "here"])
        if change == "replace":
            (tmp_path / "new").replace(old)
        elif change == "delete":
            old.unlink()
        elif change == "link":
            (tmp_path / "here" / "link").symlink_to("file")
        else:
            old.chmod(0o600)
        with trio.fail_after(5):
            await watch.changed()


async def test_who_never_stops_is_not_waited_for(tmp_path: Path) -> None:
    """A directory that is written to all the time is looked at now and then all the same."""

    async def write() -> None:
        while True:
            (tmp_path / "busy").write_text("x")
            await trio.sleep(0.01)

    with Watch() as watch:
        watch.follow([tmp_path])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            with trio.fail_after(5):
                await watch.changed()
            nursery.cancel_scope.cancel()


async def test_only_what_is_followed_counts(tmp_path: Path) -> None:
    """A directory that is no longer followed, or never existed, is silent."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with Watch() as watch:
        assert watch.follow([one, tmp_path / "missing"])
        assert watch.follow([two])
        assert not await nothing_comes(watch)  # that we stopped to follow is an event too; it costs one look
        (one / "x").write_text("x")
        assert await nothing_comes(watch)
