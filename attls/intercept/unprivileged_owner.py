"""Who makes a held call: exact, because the program stands still while we look.

User and inode are those of the socket (its owner stays the one who made it, whoever uses it now); process and job name
are those of the caller.
"""

from __future__ import annotations

import os
import socket
import time
from functools import cache
from pathlib import Path

import psutil

from attls.intercept.owner import INTERPRETERS, job_of_cgroup, job_of_command, user_name
from attls.model import JobSource, Owner

_USER_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")
_users: dict[int, tuple[float, str | None]] = {}


def owner_of(process: int, sock: socket.socket, *, complete: bool) -> Owner:
    """Return the owner of `sock` as `process` uses it; with `complete` also its job name."""
    status = os.fstat(sock.fileno())
    job, source, started = None, JobSource.UNKNOWN, None
    if complete:
        job, source, started = _job(process)
    return Owner(
        uid=status.st_uid,
        user=_user(status.st_uid),
        pid=process,
        job=job,
        job_source=source,
        start_time=started,
        inode=status.st_ino,
    )


def command_of(process: int) -> str:
    """Return the name of the executable file of `process`, for a line in the log; empty where it cannot be told."""
    try:
        return Path(os.readlink(f"/proc/{process}/exe")).name  # noqa: PTH115 - the name, not a path of ours
    except OSError:
        return ""


def _user(uid: int) -> str | None:
    now = time.monotonic()
    known = _users.get(uid)
    if known is None or now - known[0] > _USER_SECONDS:
        known = _users[uid] = (now, user_name(uid))
    return known[1]


def _job(process: int) -> tuple[str | None, JobSource, float | None]:
    """Name the job after the cgroup if that has a name, else after the executable or script; add the start time."""
    folder = f"/proc/{process}"
    try:
        with open(f"{folder}/stat", "rb") as file:  # noqa: PTH123 - this runs for each connection
            ticks = int(file.read().rpartition(b")")[2].split()[19])  # proc(5): field 22, counted behind the name
        started = _booted() + ticks / _TICKS
        with open(f"{folder}/cgroup") as file:  # noqa: PTH123
            paths = [line.rstrip("\n").split(":", 2)[2] for line in file]
        named = next(filter(None, map(job_of_cgroup, paths)), None)
        if named is not None:
            return *named, started
        executable = os.readlink(f"{folder}/exe")  # noqa: PTH115
        arguments: list[str] = []
        if INTERPRETERS.fullmatch(Path(executable.removesuffix(" (deleted)")).name):
            with open(f"{folder}/cmdline", "rb") as file:  # noqa: PTH123
                arguments = file.read().decode(errors="replace").rstrip("\0").split("\0")
    except (OSError, ValueError, IndexError):
        return None, JobSource.UNKNOWN, None
    job = job_of_command(executable, arguments)
    return job, JobSource.EXECUTABLE if job else JobSource.UNKNOWN, started


@cache
def _booted() -> float:
    return psutil.boot_time()
