"""Worker processes on their way: started before it is known what they will be, and told by their channel later.

Python takes a third of a second to import all that a worker needs. So workers are started first of all, and import
while the supervisor does the same and reads policy and keys. Such a process knows nothing and holds nothing but its end
of the channel; the descriptors it needs follow over that, in front of the first order. Who is not needed is killed.
"""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import attls

_MOST_DESCRIPTORS = 253  # SCM_MAX_FD of the kernel


@dataclass(frozen=True, slots=True)
class Hatchling:
    """A worker process and our end of the channel to it; whoever takes it ends it."""

    child: subprocess.Popen[bytes]
    ours: socket.socket


def hatch() -> Hatchling:
    """Start a worker process; raises OSError. Call it in the main thread: the worker lives as long as that."""
    # Not trio's own way of starting processes: that uses a thread, and the death signal a worker asks for is sent
    # when the thread that started it ends.
    root = str(Path(attls.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    # Ctrl-C in a terminal is for the supervisor; imports would end in a traceback. What is blocked here is blocked
    # there. A session of its own would do as well, but the kernel schedules sessions against each other.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        child = subprocess.Popen(
            # -P: never import from the directory the daemon happens to be started in.
            [sys.executable, "-P", "-m", "attls.daemon.worker", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
    except OSError:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
    return Hatchling(child, ours)


def give(channel: socket.socket, descriptors: Iterable[int]) -> None:
    """Send copies of `descriptors` to a worker, which finds them by the numbers that they have here."""
    numbers = array.array("i", sorted(set(descriptors)))
    socket.send_fds(channel, [len(numbers).to_bytes(1, "big"), numbers.tobytes()], numbers)


def receive(channel: socket.socket) -> dict[int, int]:
    """Receive what `give` has sent: our descriptor for each number of the supervisor's. Raises EOFError."""
    count, descriptors, _, _ = socket.recv_fds(channel, 1, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    body = b""
    size = numbers.itemsize * int.from_bytes(count, "big")
    while len(body) < size or not count:
        chunk = channel.recv(size - len(body)) if count else b""
        if not chunk:
            raise EOFError("the supervisor has ended")
        body += chunk
    numbers.frombytes(body)
    return dict(zip(numbers, descriptors, strict=True))


class Nest:
    """Some workers, started at once and given away one by one; those left at the end are killed."""

    def __init__(self, count: int) -> None:
        self._hatchlings: list[Hatchling] = []
        with contextlib.suppress(OSError):  # who takes one finds out what the matter is
            for _ in range(count):
                self._hatchlings.append(hatch())

    def __enter__(self) -> Nest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for left in self._hatchlings:
            left.ours.close()
            left.child.kill()
            left.child.wait()
        self._hatchlings.clear()

    def take(self) -> Hatchling:
        """Return a worker that was started earlier, or a new one; raises OSError."""
        return self._hatchlings.pop() if self._hatchlings else hatch()
