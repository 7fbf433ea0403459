"""The seccomp filter around one program, and the messages it makes the kernel send us: plain bytes in and out.

The filter holds a handful of socket calls and asks us what to do (SECCOMP_RET_USER_NOTIF); all else runs at native
speed, for the kernel remembers which calls a filter always allows. Three roads around `connect` are closed on the way,
because data would leave unseen on them: TCP Fast Open by a flag of `send…` (a program then connects as if the kernel
had it switched off), io_uring, and the system calls of other processor modes (a 32-bit program's, which are held too,
only to be refused with a line in the log). A filter looks at registers only, never at memory.

Sources: seccomp(2), seccomp_unotify(2), include/uapi/linux/{seccomp,filter,audit}.h and the kernel's call tables.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from attls.model import Endpoint

SIOCTTLSCTL = 0xC038D90B
MSG_FASTOPEN = 0x20000000
X32_BIT = 0x40000000

RECEIVE = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV
SEND = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND
IS_VALID = 0x40082102  # SECCOMP_IOCTL_NOTIF_ID_VALID
ADD_DESCRIPTOR = 0x40182103  # SECCOMP_IOCTL_NOTIF_ADDFD
SET_FLAGS = 0x40082104  # SECCOMP_IOCTL_NOTIF_SET_FLAGS
SYNC_WAKE_UP = 1  # SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
ADD_AND_SEND = 2  # SECCOMP_ADDFD_FLAG_SEND
FILTER_NEW_LISTENER = 1 << 3
FILTER_WAIT_KILLABLE = 1 << 5

_ALLOW, _NOTIFY, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_RESPONSE = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_ADDITION = struct.Struct("=QIIII")  # struct seccomp_notif_addfd
NOTIFICATION_SIZE = _NOTIFICATION.size


class Call(enum.Enum):
    """The system calls that are held."""

    CONNECT = "connect"
    LISTEN = "listen"
    ACCEPT = "accept"
    ACCEPT4 = "accept4"
    GETPEERNAME = "getpeername"
    GETSOCKNAME = "getsockname"
    GETSOCKOPT = "getsockopt"
    IOCTL = "ioctl"


_CLOSER_LOOKS = {Call.IOCTL: "control", Call.GETSOCKOPT: "option"}


@dataclass(frozen=True, slots=True)
class Architecture:
    """A processor as the kernel numbers it: `audit` is its AUDIT_ARCH word, `calls` the numbers of the held calls.

    `sends` maps each call that can carry MSG_FASTOPEN to the place of its flags among the arguments. `foreign` holds
    the other modes the same kernel may run, by AUDIT_ARCH word, with the numbers of their calls that reach a network.
    """

    audit: int
    calls: Mapping[Call, int]
    sends: Mapping[int, int]
    pidfd_open: int = 434
    pidfd_getfd: int = 438
    seccomp: int = 277
    io_uring_setup: int = 425
    has_x32: bool = False
    foreign: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


_GENERIC = {
    Call.CONNECT: 203,
    Call.LISTEN: 201,
    Call.ACCEPT: 202,
    Call.ACCEPT4: 242,
    Call.GETPEERNAME: 205,
    Call.GETSOCKNAME: 204,
    Call.GETSOCKOPT: 209,
    Call.IOCTL: 29,
}
_GENERIC_SENDS = {206: 3, 211: 2, 269: 3}

# By the name that uname(1) gives the machine. Of the foreign modes: socketcall, socket, connect, accept, accept4,
# sendto, sendmsg, sendmmsg, io_uring_setup, as far as each has them.
ARCHITECTURES = {
    "x86_64": Architecture(
        0xC000003E,
        {
            Call.CONNECT: 42,
            Call.LISTEN: 50,
            Call.ACCEPT: 43,
            Call.ACCEPT4: 288,
            Call.GETPEERNAME: 52,
            Call.GETSOCKNAME: 51,
            Call.GETSOCKOPT: 55,
            Call.IOCTL: 16,
        },
        {44: 3, 46: 2, 307: 3},
        seccomp=317,
        has_x32=True,
        foreign={0x40000003: (102, 359, 362, 364, 369, 370, 345, 425)},
    ),
    "aarch64": Architecture(
        0xC00000B7, _GENERIC, _GENERIC_SENDS, foreign={0x40000028: (281, 283, 285, 366, 290, 296, 374, 425)}
    ),
    "riscv64": Architecture(0xC00000F3, _GENERIC, _GENERIC_SENDS),
}


# --------------------------------------------------------------------------------------------------------------------
# The filter


def program(architecture: Architecture, calls: Collection[Call]) -> bytes:
    """Return the filter that holds `calls` as an array of struct sock_filter.

    ioctl is held only with SIOCTTLSCTL, getsockopt only with SO_ERROR.
    """
    code: list[tuple[int, int, str, str]] = []  # opcode, value, label when true, label when false; "" is "next"
    labels: dict[str, int] = {}

    def put(opcode: int, value: int, true: str = "", false: str = "") -> None:
        code.append((opcode, value, true, false))

    def argument(index: int) -> int:
        return _ARGUMENTS + 8 * index  # the low half of the register: all machines above are little-endian

    put(_LOAD, _ARCHITECTURE)
    for audit in architecture.foreign:
        put(_EQUAL, audit, f"mode {audit}")
    put(_EQUAL, architecture.audit, "", "missing")
    put(_LOAD, _NUMBER)
    if architecture.has_x32:
        put(_AT_LEAST, X32_BIT, "missing")
    for call in calls:
        put(_EQUAL, architecture.calls[call], _CLOSER_LOOKS.get(call, "notify"))
    for number in architecture.sends:
        put(_EQUAL, number, f"send {number}")
    put(_EQUAL, architecture.io_uring_setup, "missing")
    put(_RETURN, _ALLOW)
    if Call.GETSOCKOPT in calls:
        labels["option"] = len(code)
        put(_LOAD, argument(1))
        put(_EQUAL, socket.SOL_SOCKET, "", "allow")
        put(_LOAD, argument(2))
        put(_EQUAL, socket.SO_ERROR, "notify", "allow")
    if Call.IOCTL in calls:
        labels["control"] = len(code)
        put(_LOAD, argument(1))
        put(_EQUAL, SIOCTTLSCTL, "notify", "allow")
    for number, place in architecture.sends.items():
        labels[f"send {number}"] = len(code)
        put(_LOAD, argument(place))
        put(_ANY_BIT, MSG_FASTOPEN, "unsupported", "allow")
    for audit, numbers in architecture.foreign.items():
        labels[f"mode {audit}"] = len(code)
        put(_LOAD, _NUMBER)
        for number in numbers:
            put(_EQUAL, number, "notify")
        put(_RETURN, _ALLOW)
    for label, verdict in (
        ("allow", _ALLOW),
        ("notify", _NOTIFY),
        ("missing", _ERRNO | errno.ENOSYS),
        ("unsupported", _ERRNO | errno.EOPNOTSUPP),
    ):
        labels[label] = len(code)
        put(_RETURN, verdict)

    def distance(here: int, label: str) -> int:
        return labels[label] - here - 1 if label else 0

    return b"".join(
        _INSTRUCTION.pack(opcode, distance(here, true), distance(here, false), value)
        for here, (opcode, value, true, false) in enumerate(code)
    )


# --------------------------------------------------------------------------------------------------------------------
# Messages


class Notification(NamedTuple):
    """A held system call: `thread` made it (a thread id), `arguments` are its six registers."""

    identifier: int
    thread: int
    number: int
    audit: int
    arguments: tuple[int, ...]

    def signed(self, index: int) -> int:
        """Return an argument as the C `int` that the call takes."""
        value = self.arguments[index] & 0xFFFFFFFF
        return value - (1 << 32) if value & 0x80000000 else value


def parse(message: bytes | bytearray) -> Notification:
    """Read a struct seccomp_notif."""
    fields = _NOTIFICATION.unpack(message)
    return Notification(fields[0], fields[1], fields[3], fields[4], fields[6:])


def response(identifier: int, *, value: int = 0, error: int = 0, flags: int = 0) -> bytes:
    """Return a struct seccomp_notif_resp: the call returns `value`, or fails with errno `error` where that is set."""
    return _RESPONSE.pack(identifier, 0 if error else value, -error, flags)


def addition(identifier: int, descriptor: int, *, flags: int = 0, close_on_exec: bool = False) -> bytes:
    """Return a struct seccomp_notif_addfd that puts our `descriptor` into the program at the next free number."""
    return _ADDITION.pack(identifier, flags, descriptor, 0, 0o2000000 if close_on_exec else 0)


# --------------------------------------------------------------------------------------------------------------------
# Socket addresses

_IN = struct.Struct("=H2s4s8x")
_IN6 = struct.Struct("=H2sI16sI")
UNSPECIFIED = struct.pack("=H14x", socket.AF_UNSPEC)
_MAPPED = bytes(10) + b"\xff\xff"


def endpoint(address: bytes) -> Endpoint | None:
    """Read a sockaddr; None for what names no TCP endpoint (another family, or too short)."""
    if len(address) < 2:
        return None
    (family,) = struct.unpack_from("=H", address)
    if family == socket.AF_INET and len(address) >= _IN.size:
        _, port, host = _IN.unpack_from(address)
        return Endpoint(IPv4Address(host), int.from_bytes(port, "big"))
    if family == socket.AF_INET6 and len(address) >= _IN6.size - 4:
        _, port, _, host, _ = _IN6.unpack_from(address.ljust(_IN6.size, b"\0"))
        wide = IPv6Address(host)
        return Endpoint(wide.ipv4_mapped or wide, int.from_bytes(port, "big"))
    return None


def scope(address: bytes) -> int:
    """Return the interface index in an IPv6 sockaddr, 0 where there is none."""
    if len(address) < _IN6.size or struct.unpack_from("=H", address)[0] != socket.AF_INET6:
        return 0
    return int(_IN6.unpack_from(address)[4])


def address(place: Endpoint, family: int, *, interface: int = 0) -> bytes:
    """Write `place` as a sockaddr of `family`; an IPv4 address in an AF_INET6 socket is written mapped."""
    port, host = place.port.to_bytes(2, "big"), place.address.packed
    if family == socket.AF_INET:
        return _IN.pack(family, port, host)
    return _IN6.pack(family, port, 0, host if len(host) == 16 else _MAPPED + host, interface)
