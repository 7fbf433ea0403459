"""The kernel's side of `attls exec`: installs the filter, receives held calls, reaches into the program that made them.

All of it works for an ordinary user, as long as the program is ours to trace (same user, dumpable, our descendant where
Yama asks for that). Rule of the house: memory of the program is read once, and a descriptor of it is duplicated once;
what is then done is done on our duplicate, so that nothing the program changes meanwhile can turn a decision around.
After reading, `Notifications.is_valid` tells whether the answer was still about that call (seccomp_unotify(2)).

Numbers of threads are only ever used while their call is held; a number that was reused gives a pidfd that does not
know the descriptor, or a notification that is no longer valid.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

from attls.errors import InterceptError
from attls.intercept import seccomp
from attls.intercept.seccomp import ARCHITECTURES, Architecture, Call, Notification

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_CHILD_SUBREAPER = 36
_SECCOMP_SET_MODE_FILTER = 1
_PIDFD_THREAD = os.O_EXCL  # Linux 6.9: a pidfd of one thread, which may have a descriptor table of its own
_MOST_PIDFDS = 256

_libc = ctypes.CDLL(None, use_errno=True)
_libc.connect.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.syscall.restype = ctypes.c_long


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


_vectors = (ctypes.c_long, ctypes.POINTER(_Vector), ctypes.c_ulong, ctypes.POINTER(_Vector), ctypes.c_ulong)
for _function in (_libc.process_vm_readv, _libc.process_vm_writev):
    _function.argtypes = (*_vectors, ctypes.c_ulong)
    _function.restype = ctypes.c_ssize_t


def _failure() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def architecture() -> Architecture:
    """Return what this machine calls its system calls. Raises InterceptError for a machine we do not know."""
    found = ARCHITECTURES.get(platform.machine())
    if found is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise InterceptError(
            f"attls exec does not know the system calls of {platform.machine()}; use attls run, which needs root"
        )
    return found


def become_subreaper() -> None:
    """Have orphans below this process become its children, so that it stays their ancestor (prctl(2))."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0) != 0:
        raise _failure()


def install(machine: Architecture, calls: Collection[Call]) -> int:
    """Put this process, and all that it will start, under the filter; return the descriptor that held calls come to.

    There is no way back. Raises InterceptError with what the kernel objects to.
    """
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0) != 0:
        raise InterceptError(f"the kernel refuses no_new_privs: {_failure().strerror}")
    instructions = seccomp.program(machine, calls)
    filter_ = _Program(len(instructions) // 8, instructions)
    # WAIT_KILLABLE (Linux 5.19) keeps an ordinary signal from tearing a call away that we are working on.
    for flags in (seccomp.FILTER_NEW_LISTENER | seccomp.FILTER_WAIT_KILLABLE, seccomp.FILTER_NEW_LISTENER):
        listener = _libc.syscall(
            ctypes.c_long(machine.seccomp), ctypes.c_long(_SECCOMP_SET_MODE_FILTER), ctypes.c_long(flags),
            ctypes.byref(filter_),
        )  # fmt: skip
        if listener >= 0:
            return int(listener)
        if ctypes.get_errno() != errno.EINVAL:
            break
    raise InterceptError(refusal(ctypes.get_errno()))


def refusal(number: int) -> str:
    """Say what errno `number` from seccomp(2) means for somebody who wants to use `attls exec`."""
    if number == errno.EBUSY:
        return (
            "a seccomp supervisor is around this process already (another attls exec, or a container manager), "
            "and the kernel allows only one"
        )
    if number in (errno.EPERM, errno.EACCES):
        return "a security profile (the container's seccomp profile, most likely) forbids seccomp filters here"
    if number in (errno.ENOSYS, errno.EINVAL):
        return "this kernel has no seccomp user notification; attls exec needs Linux 5.9 or later"
    return f"the kernel refuses the seccomp filter: {os.strerror(number)}"


class Notifications:
    """The descriptor that held calls come to; readable when one waits, hung up when no process is left under it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._empty = bytes(seccomp.NOTIFICATION_SIZE)
        self._can_add_and_send = True
        with contextlib.suppress(OSError):  # Linux 6.6: caller and helper take turns, and need not be woken up afar
            fcntl.ioctl(descriptor, seccomp.SET_FLAGS, seccomp.SYNC_WAKE_UP)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.descriptor

    def close(self) -> None:
        """Close it: from then on every held call fails with ENOSYS."""
        os.close(self.descriptor)

    def receive(self) -> Notification | None:
        """Return the next held call, None where it is gone already; waits unless the descriptor is readable."""
        message = bytearray(self._empty)
        try:
            fcntl.ioctl(self.descriptor, seccomp.RECEIVE, message, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        return seccomp.parse(message)

    def is_valid(self, identifier: int) -> bool:
        """Tell whether the call is still held."""
        try:
            fcntl.ioctl(self.descriptor, seccomp.IS_VALID, struct.pack("=Q", identifier))
        except OSError:
            return False
        return True

    def answer(self, identifier: int, value: int = 0, *, error: int = 0) -> bool:
        """Have the call return `value`, or fail with errno `error`; False where it is gone."""
        return self._send(seccomp.response(identifier, value=value, error=error))

    def let_through(self, identifier: int) -> bool:
        """Have the kernel carry out the call as if it had never been held; False where it is gone.

        Only for what is harmless whatever it turns out to do, since the program may change its arguments until then.
        """
        return self._send(seccomp.response(identifier, flags=seccomp.CONTINUE))

    def _send(self, message: bytes) -> bool:
        try:
            fcntl.ioctl(self.descriptor, seccomp.SEND, message)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINPROGRESS):
                return False
            raise
        return True

    def hand_over(self, identifier: int, descriptor: int, *, close_on_exec: bool) -> int:
        """Put our `descriptor` into the program and have the call return its number there.

        Returns 0, or the errno for which it was not done: ENOENT where the call is gone; else it is still held.
        """
        flags = seccomp.ADD_AND_SEND if self._can_add_and_send else 0
        message = seccomp.addition(identifier, descriptor, flags=flags, close_on_exec=close_on_exec)
        try:
            number = fcntl.ioctl(self.descriptor, seccomp.ADD_DESCRIPTOR, bytearray(message), True)
        except OSError as error:
            if error.errno == errno.EINVAL and self._can_add_and_send:  # Linux before 5.14
                self._can_add_and_send = False
                return self.hand_over(identifier, descriptor, close_on_exec=close_on_exec)
            return error.errno or errno.EIO
        if not self._can_add_and_send:
            self.answer(identifier, number)
        return 0


class Programs:
    """Reaches into processes whose calls are held: duplicates of their descriptors, their memory. One thread only."""

    def __init__(self, machine: Architecture) -> None:
        self._machine = machine
        self._pidfds: dict[int, int] = {}
        self._processes: dict[int, int] = {}
        self._thread_flag = _PIDFD_THREAD

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
            pidfd = self.pidfd(thread)
            found = _libc.syscall(
                ctypes.c_long(self._machine.pidfd_getfd), ctypes.c_long(pidfd), ctypes.c_long(number), ctypes.c_long(0)
            )
            if found >= 0:
                return int(found)
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
        call = ctypes.c_long(self._machine.pidfd_open)
        if self._thread_flag:
            pidfd = _libc.syscall(call, ctypes.c_long(thread), ctypes.c_long(self._thread_flag))
            if pidfd >= 0:
                return int(pidfd)
            if ctypes.get_errno() != errno.EINVAL:
                raise _failure()
            self._thread_flag = 0
        pidfd = _libc.syscall(call, ctypes.c_long(process_of(thread)), ctypes.c_long(0))
        if pidfd < 0:
            raise _failure()
        return int(pidfd)

    def read(self, thread: int, address: int, size: int) -> bytes:
        """Return `size` bytes of the program's memory. Raises OSError: EFAULT where there are none."""
        if not size:
            return b""
        buffer = ctypes.create_string_buffer(size)
        self._move(_libc.process_vm_readv, thread, buffer, address, size)
        return buffer.raw

    def write(self, thread: int, address: int, data: bytes) -> None:
        """Put `data` into the program's memory. Raises OSError: EFAULT where it may not be written."""
        if data:
            buffer = ctypes.create_string_buffer(data, len(data))
            self._move(_libc.process_vm_writev, thread, buffer, address, len(data))

    @staticmethod
    def _move(function: object, thread: int, buffer: ctypes.Array[ctypes.c_char], address: int, size: int) -> None:
        ours = _Vector(ctypes.addressof(buffer), size)
        theirs = _Vector(address, size)
        moved = function(thread, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)  # type: ignore[operator]
        if moved < 0:
            raise _failure()
        if moved != size:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))


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


def connect(sock: socket.socket, address: bytes) -> int:
    """Connect `sock` to a raw sockaddr; return 0 or the errno."""
    if _libc.connect(sock.fileno(), address, len(address)) == 0:
        return 0
    return ctypes.get_errno()


def listen(sock: socket.socket, backlog: int) -> int:
    """Have `sock` listen with exactly this backlog, which the kernel reads as it likes; return 0 or the errno."""
    return 0 if _libc.listen(sock.fileno(), backlog) == 0 else ctypes.get_errno()


class NonBlocking:
    """Within it `sock` is non-blocking, afterwards what it was; `was_blocking` says which.

    The flag belongs to the open file, which the program shares: it can see the change for some microseconds, in
    another thread that uses the same socket at that very moment. The alternative, a thread of ours that blocks for
    as long as the program would, cannot be called off.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._descriptor = sock.fileno()
        self._flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        self.was_blocking = not self._flags & os.O_NONBLOCK

    def __enter__(self) -> NonBlocking:
        if self.was_blocking:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, self._flags | os.O_NONBLOCK)
        return self

    def __exit__(self, *_: object) -> None:
        if self.was_blocking:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, self._flags)


def probe(programs: Programs, thread: int, descriptor: int) -> None:
    """Find out whether we may reach into `thread`, which holds `descriptor`. Raises InterceptError saying what forbids.

    What is tried is what every held call needs: a duplicate of a descriptor, and a byte of memory.
    """
    try:
        os.close(programs.duplicate(thread, descriptor))
        # Any mapped page will do: this very buffer lies at the same place in a process forked from us.
        programs.read(thread, ctypes.addressof(_page), 1)
    except OSError as error:
        raise InterceptError(_why_not(error)) from error


_page = ctypes.create_string_buffer(1)


def _why_not(error: OSError) -> str:
    if error.errno == errno.ENOSYS:
        return "this kernel or container offers no pidfd_getfd; attls exec needs Linux 5.9 or later"
    yama = ""
    with contextlib.suppress(OSError, ValueError):
        if int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text()) > 1:
            yama = "the sysctl kernel.yama.ptrace_scope forbids it; set it to 1 or 0"
    reason = yama or (
        "the container's security profile forbids it; start the container with --cap-add SYS_PTRACE, or with a profile "
        "that allows pidfd_getfd and process_vm_readv"
    )
    return f"attls exec may not look into the program it starts ({error.strerror}): {reason}"


class _Event(ctypes.Structure):
    if platform.machine() == "x86_64":
        _pack_ = 1  # include/uapi/linux/eventpoll.h
    _fields_ = (("events", ctypes.c_uint32), ("token", ctypes.c_int32), ("rest", ctypes.c_uint32))


class Watch:
    """An epoll set that tells of sockets we do not hold: each is known by a token, not by a descriptor of ours.

    A registration belongs to the open file, and so ends when the last process has closed that; ours not being among
    them, the set must never be asked by descriptor number.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()

    def fileno(self) -> int:
        """Return the descriptor, readable when there is something to tell."""
        return self._epoll.fileno()

    def add(self, sock: socket.socket, token: int) -> None:
        """Tell of `token` whenever something new can be read from `sock`, which may be closed afterwards."""
        event = _Event(select.EPOLLIN | select.EPOLLET, token, 0)
        if _libc.epoll_ctl(self._epoll.fileno(), 1, sock.fileno(), ctypes.byref(event)) != 0:
            raise _failure()

    def poll(self) -> list[int]:
        """Return the tokens of those sockets that have something new."""
        return [token for token, _ in self._epoll.poll(0, 64)]

    def close(self) -> None:
        """Tell of nothing more."""
        self._epoll.close()


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
