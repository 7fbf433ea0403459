"""Reaching into the processes whose calls are held: duplicates of their descriptors, their memory, what /proc says.

All of it works for an ordinary user, as long as the program is ours to trace (same user, dumpable, our descendant where
Yama asks for that). Numbers of threads are only ever used while their call is held; a number that was reused gives a
pidfd that does not know the descriptor, or a notification that is no longer valid.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from attls.errors import InterceptError
from attls.intercept.seccomp import Architecture

_PIDFD_THREAD = os.O_EXCL  # Linux 6.9: a pidfd of one thread, which may have a descriptor table of its own
_MOST_PIDFDS = 256
_ROOM = 128  # of a buffer that is used again and again; sizeof(struct sockaddr_storage)

_libc = ctypes.CDLL(None, use_errno=True)
_call = _libc.syscall  # with numbers alone
_call.argtypes = (ctypes.c_long,) * 4
_call.restype = ctypes.c_long

_Result = TypeVar("_Result")


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_vectors = (ctypes.c_long, ctypes.POINTER(_Vector), ctypes.c_ulong, ctypes.POINTER(_Vector), ctypes.c_ulong)
for _function in (_libc.process_vm_readv, _libc.process_vm_writev):
    _function.argtypes = (*_vectors, ctypes.c_ulong)
    _function.restype = ctypes.c_ssize_t


def _failure() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


class Programs:
    """Reaches into processes whose calls are held: duplicates of their descriptors, their memory. One thread only."""

    def __init__(self, machine: Architecture) -> None:
        self._machine = machine
        self._pidfds: dict[int, int] = {}
        self._processes: dict[int, int] = {}
        self._thread_flag = _PIDFD_THREAD
        self._memory: _Memory = _ByCall()

    def close(self) -> None:
        """Close what is kept open."""
        for pidfd in self._pidfds.values():
            os.close(pidfd)
        self._pidfds.clear()

    def duplicate(self, thread: int, number: int) -> int:
        """Return a duplicate of descriptor `number` of `thread`, close-on-exec, for the caller to close.

        Raises OSError: EBADF where the thread has no such descriptor, ESRCH where it is gone, EPERM where we may not.
        """
        for attempt in range(2):
            found: int = _call(self._machine.pidfd_getfd, self.pidfd(thread), number, 0)
            if found >= 0:
                return found
            if ctypes.get_errno() != errno.ESRCH or attempt:
                break
            self.forget(thread)  # a pidfd of somebody who ended; the number is another thread's now
        raise _failure()

    def pidfd(self, thread: int) -> int:
        """Return a pidfd of `thread`, kept open until `forget`; readable once the thread has ended. Raises OSError."""
        known = self._pidfds.get(thread)
        if known is not None:
            return known
        pidfd = self._open(thread)
        if len(self._pidfds) >= _MOST_PIDFDS:
            self.forget(next(iter(self._pidfds)))
        self._pidfds[thread] = pidfd
        return pidfd

    def process(self, thread: int) -> int:
        """Return the process that `thread` belongs to, one whose descriptor was just duplicated. Raises OSError."""
        known = self._processes.get(thread)
        if known is None:
            known = self._processes[thread] = process_of(thread)
        return known

    def forget(self, thread: int) -> None:
        """Close the pidfd of `thread`, if there is one."""
        self._processes.pop(thread, None)
        pidfd = self._pidfds.pop(thread, None)
        if pidfd is not None:
            os.close(pidfd)

    def _open(self, thread: int) -> int:
        call = self._machine.pidfd_open
        if self._thread_flag:
            pidfd: int = _call(call, thread, self._thread_flag, 0)
            if pidfd >= 0:
                return pidfd
            if ctypes.get_errno() != errno.EINVAL:
                raise _failure()
            self._thread_flag = 0
        pidfd = _call(call, process_of(thread), 0, 0)
        if pidfd < 0:
            raise _failure()
        return pidfd

    # Memory: by the system call for it, or, where a profile forbids that (Podman's does), by the file in /proc, which
    # asks the kernel for the same permission.

    def read(self, thread: int, address: int, size: int) -> bytes:
        """Return `size` bytes of the program's memory. Raises OSError: EFAULT where there are none."""
        try:
            return self._memory.read(thread, address, size)
        except OSError as error:
            if not self._takes_the_file(thread, error):
                raise
        return self._memory.read(thread, address, size)

    def write(self, thread: int, address: int, data: bytes) -> None:
        """Put `data` into the program's memory. Raises OSError: EFAULT where it may not be written."""
        try:
            self._memory.write(thread, address, data)
        except OSError as error:
            if not self._takes_the_file(thread, error):
                raise
            self._memory.write(thread, address, data)

    def _takes_the_file(self, thread: int, error: OSError) -> bool:
        """Tell whether memory is reached by file from now on, after the call for it failed with `error`."""
        if error.errno not in (errno.EPERM, errno.ENOSYS) or not isinstance(self._memory, _ByCall):
            return False
        try:
            os.close(_ByFile.open(thread))
        except OSError:
            return False  # it is this program that may not be looked into
        self._memory = _ByFile()
        return True


class _Memory(Protocol):
    """A way to another process's memory."""

    def read(self, thread: int, address: int, size: int) -> bytes: ...

    def write(self, thread: int, address: int, data: bytes) -> None: ...


class _ByCall:
    """process_vm_readv(2) and process_vm_writev(2). One thread only: small things go through one buffer."""

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(_ROOM)
        self._ours, self._theirs = _Vector(), _Vector()
        self._references = ctypes.byref(self._ours), ctypes.byref(self._theirs)

    def read(self, thread: int, address: int, size: int) -> bytes:
        buffer = self._buffer if size <= _ROOM else ctypes.create_string_buffer(size)
        self._move(_libc.process_vm_readv, thread, buffer, address, size)
        return ctypes.string_at(buffer, size)

    def write(self, thread: int, address: int, data: bytes) -> None:
        self._move(_libc.process_vm_writev, thread, ctypes.create_string_buffer(data, len(data)), address, len(data))

    def _move(self, function: Any, thread: int, buffer: ctypes.Array[ctypes.c_char], address: int, size: int) -> None:
        self._ours.base, self._theirs.base = ctypes.addressof(buffer), address
        self._ours.length = self._theirs.length = size
        ours, theirs = self._references
        moved = function(thread, ours, 1, theirs, 1, 0)
        if moved < 0:
            raise _failure()
        if moved != size:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))


class _ByFile:
    """/proc/PID/mem, in which an address is an offset; the kernel says EIO of a place that is not there."""

    @staticmethod
    def open(thread: int) -> int:
        try:
            return os.open(f"/proc/{thread}/mem", os.O_RDWR | os.O_CLOEXEC)
        except PermissionError as error:
            raise OSError(errno.EPERM, error.strerror) from None

    def read(self, thread: int, address: int, size: int) -> bytes:
        data = self._at(thread, address, lambda descriptor: os.pread(descriptor, size, address))
        if len(data) != size:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        return data

    def write(self, thread: int, address: int, data: bytes) -> None:
        if self._at(thread, address, lambda descriptor: os.pwrite(descriptor, data, address)) != len(data):
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    def _at(self, thread: int, address: int, action: Callable[[int], _Result]) -> _Result:
        if address >= 1 << 63:  # no offset, and no address of a program either
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        descriptor = self.open(thread)
        try:
            return action(descriptor)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT)) from None
        finally:
            os.close(descriptor)


def process_of(thread: int) -> int:
    """Return the process that `thread` belongs to. Raises OSError where it is gone."""
    with open(f"/proc/{thread}/status", "rb") as file:  # noqa: PTH123 - this runs per held call
        for line in file:
            if line.startswith(b"Tgid:"):
                return int(line[5:])
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def has_signal(thread: int) -> bool:
    """Tell whether a signal waits for `thread`, neither blocked nor ignored: one that would interrupt a call."""
    masks: dict[bytes, int] = {}
    try:
        with open(f"/proc/{thread}/status", "rb") as file:  # noqa: PTH123 - this runs per held call
            for line in file:
                name, _, value = line.partition(b":")
                if name in (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn"):
                    masks[name] = int(value, 16)
    except OSError:
        return False
    pending = masks.get(b"SigPnd", 0) | masks.get(b"ShdPnd", 0)
    return bool(pending & ~masks.get(b"SigBlk", 0) & ~masks.get(b"SigIgn", 0))


def probe(programs: Programs, thread: int, descriptor: int) -> None:
    """Find out whether we may reach into `thread`, which holds `descriptor`. Raises InterceptError saying what forbids.

    What is tried is what every held call needs: a duplicate of a descriptor, and a byte of memory.
    """
    what = "pidfd_open"
    try:
        programs.pidfd(thread)
        what = "pidfd_getfd"
        os.close(programs.duplicate(thread, descriptor))
        what = "process_vm_readv and /proc/PID/mem"
        # Any mapped page will do: this very buffer lies at the same place in a process forked from us.
        programs.read(thread, ctypes.addressof(_page), 1)
    except OSError as error:
        raise InterceptError(_why_not(what, error)) from error


_page = ctypes.create_string_buffer(1)


def _why_not(what: str, error: OSError) -> str:
    reason = f"the container's security profile forbids it; allow {what} there (Docker: --cap-add SYS_PTRACE)"
    if error.errno == errno.ENOSYS:
        reason = "attls exec needs Linux 5.9 or later, and a container whose security profile allows this call"
    with contextlib.suppress(OSError, ValueError):
        if int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text()) > 1:
            reason = "the sysctl kernel.yama.ptrace_scope forbids it; set it to 1 or 0"
    return f"attls exec may not look into the program it starts ({what}: {error.strerror}): {reason}"


def holders_of(inode: int, process: int) -> Iterator[tuple[int, int]]:
    """Yield process and descriptor number of each that has the socket `inode` open; of `process` first, then of all."""
    wanted = f"socket:[{inode}]"
    for each in (str(process), *os.listdir("/proc")):  # noqa: PTH208 - numbers, not paths
        if not each.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it ended, or is not ours to look at
            for number in os.listdir(f"/proc/{each}/fd"):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{each}/fd/{number}") == wanted and int(each) != os.getpid():  # noqa: PTH115
                        yield int(each), int(number)
