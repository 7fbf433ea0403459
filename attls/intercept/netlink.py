"""Asking the kernel about one TCP socket: sock_diag over netlink, by exact four-tuple.

Rule of the house: one request, one answer, no list of all sockets; that makes it some 20 us instead of 20 ms. The
packing and unpacking of messages are plain functions; only `SocketDiagnosis` holds a socket. See sock_diag(7) and
include/uapi/linux/inet_diag.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from attls.errors import InterceptError
from attls.model import Endpoint

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
SOCK_DESTROY = 21
NLM_F_REQUEST = 1
NLM_F_ACK = 4
NLMSG_ERROR = 2
INET_DIAG_CGROUP_ID = 21
ANY_COOKIE = 0xFFFFFFFFFFFFFFFF  # INET_DIAG_NOCOOKIE, twice
LISTEN = 10  # TCP_LISTEN, include/net/tcp_states.h
LOOPBACK_INDEX = 1  # `lo` is the first interface of every network namespace

# In one piece each, since they are packed and read for every connection; ports are in network order, so bytes.
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_IDENTITY = "2s2s16s16sIII"  # struct inet_diag_sockid: two ports, two addresses, interface, cookie in two words
_REQUEST = struct.Struct("=IHHII BBBBI" + _IDENTITY)  # the header, struct inet_diag_req_v2
_ANSWER = struct.Struct("=IHHII BBBB" + _IDENTITY + "IIIII")  # the header, struct inet_diag_msg: …, uid and inode last
_ATTRIBUTE = struct.Struct("=HH")
_ANYBODY = {4: Endpoint(IPv4Address(0), 0), 6: Endpoint(IPv6Address(0), 0)}


@dataclass(frozen=True, slots=True)
class SocketFacts:
    """What the kernel says of one socket. `cookie` is unique as long as the host runs; `cgroup` is the cgroup's id.

    `inode` is 0 for a socket that no process holds any more. `ends` is how the kernel writes `local` and `remote`,
    which are read only when somebody asks: a family, two ports, two addresses.
    """

    state: int
    ends: tuple[int, bytes, bytes, bytes, bytes]
    uid: int
    inode: int
    cookie: int
    cgroup: int | None

    @property
    def local(self) -> Endpoint:
        """The socket's own end."""
        family, port, _, address, _ = self.ends
        return _endpoint(family, port, address)

    @property
    def remote(self) -> Endpoint:
        """The other end."""
        family, _, port, _, address = self.ends
        return _endpoint(family, port, address)


def _endpoint(family: int, port: bytes, address: bytes) -> Endpoint:
    size = 4 if family == socket.AF_INET else 16
    return Endpoint.of((socket.inet_ntop(family, address[:size]), int.from_bytes(port)))


def request(
    local: Endpoint, remote: Endpoint, *, sequence: int, interface: int = 0, cookie: int | None = None
) -> bytes:
    """Return the netlink message that asks for the socket with exactly these ends.

    Where no connection has them, the kernel answers with the listener that would take such a connection. With
    `cookie` the message asks to abort that socket, provided it is still the same.
    """
    family = socket.AF_INET if local.address.version == 4 else socket.AF_INET6
    kind, flags = (SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST) if cookie is None else (SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK)
    number = ANY_COOKIE if cookie is None else cookie
    return _REQUEST.pack(
        _REQUEST.size,
        kind,
        flags,
        sequence,
        0,
        family,
        socket.IPPROTO_TCP,
        0,
        0,
        0xFFFFFFFF,
        local.port.to_bytes(2),
        remote.port.to_bytes(2),
        local.address.packed,  # pack() fills up with zeros
        remote.address.packed,
        interface,
        number & 0xFFFFFFFF,
        number >> 32,
    )


def answer(message: bytes, sequence: int) -> SocketFacts | int | None:
    """Read one netlink message: facts, an errno, or None where it answers something else."""
    length, kind, _, number, _ = _HEADER.unpack_from(message)
    if number != sequence:
        return None
    if kind == NLMSG_ERROR:
        (code,) = struct.unpack_from("=i", message, _HEADER.size)
        return -int(code)
    if kind != SOCK_DIAG_BY_FAMILY:
        return None
    found = _ANSWER.unpack_from(message)
    family, state, _, _, local_port, remote_port, local, remote, _, low, high, _, _, _, uid, inode = found[5:]
    return SocketFacts(
        state,
        (family, local_port, remote_port, local, remote),
        uid,
        inode,
        low | high << 32,
        _cgroup(message, _ANSWER.size, length),
    )


def _cgroup(message: bytes, offset: int, end: int) -> int | None:
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(message, offset)
        if length < _ATTRIBUTE.size:
            break
        if kind == INET_DIAG_CGROUP_ID and length >= _ATTRIBUTE.size + 8:
            return int.from_bytes(message[offset + _ATTRIBUTE.size : offset + _ATTRIBUTE.size + 8], sys.byteorder)
        offset += (length + 3) & ~3
    return None


class SocketDiagnosis:
    """A netlink socket to ask over; use it from one thread, close it at the end."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        except OSError as error:
            raise InterceptError(f"cannot tell the owners of connections: no sock_diag ({error.strerror})") from error
        self._sequence = 0

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()

    def connection(self, local: Endpoint, remote: Endpoint) -> SocketFacts | None:
        """Return the facts of the connection with these ends, or None where there is none; raises OSError."""
        found = self._ask(local, remote, 0)
        return found if found is not None and found.state != LISTEN else None

    def listener(self, local: Endpoint) -> SocketFacts | None:
        """Return the socket that takes connections to `local` from this host, or None where nobody listens.

        The kernel chooses as it would for a SYN, so a specific address beats a wildcard, and an IPv6 socket that
        takes IPv4 too is found. A socket bound to another interface than `lo` is not: it could not be reached from
        here either. Raises OSError.
        """
        anybody = _ANYBODY[local.address.version]  # port 0 rules out every established connection
        found = self._ask(local, anybody, LOOPBACK_INDEX)
        return found if found is not None and found.state == LISTEN else None

    def abort(self, local: Endpoint, remote: Endpoint) -> bool:
        """Abort the connection with these ends, as a reset would; False where there is none. Raises OSError."""
        facts = self.connection(local, remote)
        if facts is None:
            return False
        # By its cookie: had the connection gone meanwhile, the kernel would take the program's listener instead.
        found = self._exchange(local, remote, cookie=facts.cookie)
        if isinstance(found, int) and found not in (0, errno.ENOENT, errno.ESTALE):
            raise OSError(found, os.strerror(found))
        return found == 0

    def _ask(self, local: Endpoint, remote: Endpoint, interface: int) -> SocketFacts | None:
        found = self._exchange(local, remote, interface=interface)
        if isinstance(found, SocketFacts):
            return found
        if found == errno.ENOENT:
            return None
        raise OSError(found, f"sock_diag: {os.strerror(found)}")

    def _exchange(
        self, local: Endpoint, remote: Endpoint, *, interface: int = 0, cookie: int | None = None
    ) -> SocketFacts | int:
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        self._socket.send(request(local, remote, sequence=self._sequence, interface=interface, cookie=cookie))
        while True:
            found = answer(self._socket.recv(8192), self._sequence)
            if found is not None:
                return found
