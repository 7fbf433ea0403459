"""The kernel's side of `attls exec`: installs the filter, receives held calls, does on our duplicates what they ask.

What is done is done on our own duplicate of the program's descriptor, after its memory was read once, so that nothing
the program changes meanwhile can turn a decision around. After reading, `Notifications.is_valid` tells whether the
answer was still about that call (seccomp_unotify(2)). How to get at descriptors and memory: `attls.intercept.reach`.
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
from collections.abc import Collection

from attls.errors import InterceptError
from attls.intercept import seccomp
from attls.intercept.seccomp import ARCHITECTURES, Architecture, Call, Notification

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_CHILD_SUBREAPER = 36
_SECCOMP_SET_MODE_FILTER = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.connect.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.syscall.restype = ctypes.c_long
_type_of = socket.SocketType.type.__get__  # as numbers; enumerations take their time
_family_of = socket.SocketType.family.__get__
_IPPROTO_MPTCP = 262
_IDENTIFIER = struct.Struct("=Q")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


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
        self._message = bytearray(self._empty)
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
        message = self._message
        message[:] = self._empty  # the kernel insists
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
            fcntl.ioctl(self.descriptor, seccomp.IS_VALID, _IDENTIFIER.pack(identifier))
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


def is_tcp(sock: socket.socket) -> bool:
    """Tell whether a socket speaks TCP (or Multipath TCP) over IPv4 or IPv6."""
    return (
        sock.proto in (socket.IPPROTO_TCP, _IPPROTO_MPTCP)
        and _type_of(sock) == socket.SOCK_STREAM
        and _family_of(sock) in (socket.AF_INET, socket.AF_INET6)
    )


def is_multipath(sock: socket.socket) -> bool:
    """Tell whether a socket speaks Multipath TCP."""
    return sock.proto == _IPPROTO_MPTCP


def connect(sock: socket.socket, address: bytes) -> int:
    """Connect `sock` to a raw sockaddr; return 0 or the errno."""
    if _libc.connect(sock.fileno(), address, len(address)) == 0:
        return 0
    return ctypes.get_errno()


def connect_at_once(sock: socket.socket, address: bytes) -> tuple[int, bool]:
    """Connect `sock` without waiting; return 0 or the errno, and whether a connect by the program would wait.

    For a socket that waits, ask again later while it is EALREADY; the answer is what the program's call would return.
    """
    descriptor = sock.fileno()
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if flags & os.O_NONBLOCK:
        return connect(sock, address), False
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NONBLOCK)  # see `NonBlocking`
    try:
        number = connect(sock, address)
        if number == errno.EINPROGRESS:
            number = connect(sock, address)  # over loopback it stands already, and the kernel has to be told we know
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    return number, True


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
