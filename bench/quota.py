"""Hold processes to a share of a core, each by itself, with control groups of our own: version 1 or 2."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PERIOD = 20_000  # microseconds; short, so that whoever is held back is not away for long
ROOTS = (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup"))


def root() -> Path | None:
    """Where control groups that limit CPU time can be made; None when they cannot."""
    for place in ROOTS:
        if (place / "cpu.shares").exists():
            return place
        controllers = place / "cgroup.subtree_control"
        if controllers.exists() and "cpu" in controllers.read_text().split():
            return place
    return None


def missing() -> str | None:
    """A sentence when processes cannot be held back here, else None."""
    place = root()
    if place is None:
        return "there is no control group for CPU time"
    return None if os.access(place, os.W_OK) else "control groups cannot be made"


def limit(group: Path, share: float) -> tuple[Path, str]:
    """The file that holds a group's limit and what to write for `share` of a core."""
    if (group / "cpu.max").exists():
        return group / "cpu.max", f"{int(PERIOD * share)} {PERIOD}"
    (group / "cpu.cfs_period_us").write_text(str(PERIOD))
    return group / "cpu.cfs_quota_us", str(int(PERIOD * share))


@contextmanager
def held_to(pids: Sequence[int], share: float) -> Iterator[None]:
    """Hold each of the processes to `share` of a core in the body; afterwards they are back where they were."""
    place = root()
    assert place is not None
    made: list[tuple[int, Path]] = []
    try:
        for pid in pids:
            group = place / f"attls-bench-{os.getpid()}-{pid}"
            group.mkdir()
            made.append((pid, group))
            file, text = limit(group, share)
            file.write_text(text)
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for pid, group in made:
            (place / "cgroup.procs").write_text(str(pid))
            group.rmdir()
