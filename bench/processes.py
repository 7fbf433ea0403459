"""Start and stop processes by their id, and read what they have used: CPU time and memory of whole process trees."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.network import BenchError

ROOT = Path(__file__).resolve().parent.parent
"""The repository: our own programs run as `python -m …` from here."""


OPEN_FILES = 32768
"""Descriptors that we would like every process to have; what the machine allows may be less."""


def raise_open_files() -> None:
    """Allow ourselves and all that we start as many descriptors as we may have, up to `OPEN_FILES` at least."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (max(OPEN_FILES, hard), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return
        except (ValueError, OSError):
            continue  # a container's root may not raise the hard limit


def open_files() -> int:
    """How many descriptors each process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def most_connections() -> int:
    """How many connections one proxy process can carry: two descriptors each, and some for itself."""
    return (open_files() - 600) // 2


class Process:
    """One program in a namespace, with all that it forked; its output goes to `log`. Close it with `stop`."""

    def __init__(self, command: Sequence[str], *, namespace: str, log: Path) -> None:
        """Start `command` in `namespace`. `ip netns exec` becomes the command itself, so the process id is its own."""
        self.command = command
        self.log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            )

    def pids(self) -> tuple[int, ...]:
        """The process and all its descendants, in a stable order; raises BenchError when it has ended."""
        if self.popen.poll() is not None:
            raise BenchError(f"{self.command[0]} ended with status {self.popen.returncode}: {self.last_words()}")
        try:
            children = psutil.Process(self.popen.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        return (self.popen.pid, *sorted(child.pid for child in children))

    def last_words(self) -> str:
        """The end of its output, for error messages."""
        return self.log.read_text(errors="replace")[-800:].strip() or "it said nothing"

    def has_said(self, beginning: str) -> bool:
        """Whether a line of its output begins so."""
        return any(line.startswith(beginning) for line in self.log.read_text(errors="replace").splitlines())

    def stop(self, patience: float = 10.0) -> None:
        """Ask it to end, wait `patience` seconds, then kill it and whatever it forked. Safe to call twice."""
        if self.popen.poll() is not None:
            return
        family = [psutil.Process(pid) for pid in self.pids() if psutil.pid_exists(pid)]
        self.popen.send_signal(signal.SIGTERM)
        try:
            self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        _, alive = psutil.wait_procs(family, timeout=2)
        for process in alive:  # psutil compares start times, so a reused process id is never hit
            process.kill()


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU seconds, user and system, that the processes have used so far, threads that have ended included.

    This is utime + stime of /proc/PID/stat, read through each process's CPU clock (clock_getcpuclockid(3)): the same
    count in nanoseconds instead of ticks of 10 ms. Children that ended and were waited for are added from the file.
    Raises BenchError when a process is gone.
    """
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            total += time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED of another process
        except OSError as error:
            raise BenchError(f"process {pid} of the proxy ended while it was measured: {error}") from error
        total += (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")  # cutime, cstime
    return total


def system_seconds(pids: Sequence[int]) -> float:
    """The part of `cpu_seconds` spent in the kernel, to 10 ms: which side of the system call to look at."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        total += int(fields[12]) + int(fields[14])  # stime, cstime
    return total / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuTime:
    """A reading of what processes have used: `total` CPU seconds, of which `system` in the kernel."""

    pids: tuple[int, ...]
    total: float
    system: float

    @classmethod
    def read(cls, pids: tuple[int, ...]) -> CpuTime:
        """Read now."""
        return cls(pids, cpu_seconds(pids), system_seconds(pids))

    @classmethod
    def settled(cls, pids: tuple[int, ...], *, patience: float = 2.0) -> CpuTime:
        """Read once the processes have gone quiet, or after `patience` seconds: closing costs count too."""
        until = time.monotonic() + patience
        before = cls.read(pids)
        while True:
            time.sleep(0.1)
            now = cls.read(pids)
            if now.total - before.total < 0.0005 or time.monotonic() > until:
                return now
            before = now


def resident_bytes(pids: Sequence[int]) -> int:
    """Memory in bytes, as the proportional set size: a page shared by several processes is counted once among them."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total
