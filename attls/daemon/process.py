"""What a process of ours asks for itself: death signals, descriptors, no core dumps, readiness, few collections."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import signal
import socket
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_CAP_NET_ADMIN = 12
WANTED_DESCRIPTORS = 1_048_576

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def forbid_dumps() -> None:
    """Keep private keys out of core files and away from other processes of the same user."""
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when process `parent` ends; return False when that has already happened.

    Source: prctl(2). The signal is sent when the *thread* that made this process ends, so the parent must make us
    from its main thread.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def collect_rarely() -> None:
    """Have the collector look for garbage once in 50,000 allocations that stay, not in 700.

    Connections and policies free themselves. Each look walks all that live, thousands perhaps, and finds nothing.
    """
    gc.set_threshold(50_000, 20, 20)


def children() -> list[int]:
    """Return the process numbers of our children, those that have ended but were not waited for included."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ended meanwhile has left its children to another
            found += [int(number) for number in (task / "children").read_text().split()]
    return found


def may_administer_network() -> bool:
    """Tell whether we have CAP_NET_ADMIN, without which nothing can be intercepted."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return True


def raise_descriptor_limit() -> int:
    """Allow as many descriptors as the kernel lets us have; return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        ceiling = int(Path("/proc/sys/fs/nr_open").read_text())
        wanted = max(hard, min(WANTED_DESCRIPTORS, ceiling))
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))  # raising the hard limit needs CAP_SYS_RESOURCE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def notify_service_manager(state: str) -> None:
    """Tell systemd (sd_notify(3)) `state`, such as `READY=1`; does nothing when nobody asked."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.sendto(state.encode(), address)
