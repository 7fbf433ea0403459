"""How a program's own socket comes to be connected to us, at a moment we choose, without being replaced.

The program may have registered its socket with epoll, set options, duplicated it: it must stay the same socket. So it
is connected, but to us. First to a listener whose queue is full, for then the kernel drops what comes and says nothing;
that leaves it in SYN_SENT: to the program a connect in progress, for as long as TLS takes. Then we bind a socket of our
own to the very address of that listener and connect *it* to the program's socket. Two ends that connect to each other
are a connection (simultaneous open, RFC 9293 section 3.5); over loopback it stands before our call returns, and that is
when the program's socket becomes writable. (A socket filter would drop packets as well, but since Linux 6.17 an
ordinary user may not put one on a TCP socket.)

Nobody else can be the other end: the address is taken, and shared (SO_REUSEPORT) only among sockets of one user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import time
from typing import Any

from attls.intercept import seccomp
from attls.intercept.unprivileged import NonBlocking, connect
from attls.model import Endpoint, canonical_address

_SO_COOKIE = 57
_SO_NETNS_COOKIE = 71
_TCP_FASTOPEN_CONNECT = 30
_WAITING = struct.Struct("=I")  # tcpi_unacked, at 24: for a listener the length of its queue
_PATIENCE = 1000
_HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

# What a program may have set on its socket that the network, not the program, is to notice.
_TRAITS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    (socket.IPPROTO_TCP, socket.TCP_SYNCNT),
    (socket.SOL_SOCKET, socket.SO_PRIORITY),
    (socket.SOL_SOCKET, socket.SO_MARK),
    (socket.IPPROTO_IP, socket.IP_TOS),
    (socket.IPPROTO_IP, socket.IP_TTL),
    (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
    (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
    (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
)


class Doorway:
    """The listeners that hold programs' sockets in SYN_SENT, one per family; opened when first needed."""

    def __init__(self) -> None:
        self._listeners: dict[int, socket.socket] = {}
        self._fillers: list[socket.socket] = []

    def close(self) -> None:
        """Close the listeners: what waits at them is refused."""
        for sock in (*self._listeners.values(), *self._fillers):
            sock.close()
        self._fillers.clear()
        self._listeners.clear()

    def hold(self, sock: socket.socket, destination: Endpoint) -> tuple[int, socket.socket | None]:
        """Put the program's `sock` in SYN_SENT, as on its way to `destination`.

        Returns 0 and our end, bound but not connected, for `open` and for the caller to close; or None and what the
        program's own connect would have returned: an errno, or 0 where it had been connected all the time.
        """
        family = socket.AF_INET if destination.address.version == 4 else socket.AF_INET6
        with contextlib.suppress(OSError):
            # Such a socket would put off its SYN until the first write, and be writable before.
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 0)
        try:
            place = Endpoint.of(self._listener(family).getsockname())
            ours = self._partner(family)
        except OSError as error:
            return error.errno or errno.EIO, None
        with NonBlocking(sock):
            number = connect(sock, seccomp.address(place, sock.family))
        if number != errno.EINPROGRESS:
            ours.close()
            return number, None
        return 0, ours

    @staticmethod
    def open(sock: socket.socket, ours: socket.socket) -> None:
        """Connect the two ends. Raises OSError where the program's socket is no longer waiting."""
        name = sock.getsockname()
        place = Endpoint.of(name)
        if not place.port:
            raise OSError(errno.ECONNABORTED, "the program took its connect back")
        number = connect(ours, seccomp.address(place, ours.family))
        if number not in (0, errno.EINPROGRESS):
            raise OSError(number, os.strerror(number))

    def _listener(self, family: int) -> socket.socket:
        known = self._listeners.get(family)
        if known is None:
            known = socket.socket(family, socket.SOCK_STREAM)
            try:
                known.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                known.bind((_HOSTS[socket.AddressFamily(family)], 0))
                known.listen(0)  # has room for one: this one, which nobody will ever accept
                self._fillers.append(socket.create_connection(known.getsockname()[:2]))
                _wait_until_full(known)
            except OSError:
                known.close()
                raise
            self._listeners[family] = known
        return known

    def _partner(self, family: int) -> socket.socket:
        ours = socket.socket(family, socket.SOCK_STREAM)
        try:
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ours.bind(self._listener(family).getsockname())
        except OSError:
            ours.close()
            raise
        return ours


def _wait_until_full(listener: socket.socket) -> None:
    """Wait for the listener's queue: its one connection stands for the other end a moment earlier than for this one."""
    for _ in range(_PATIENCE):
        (waiting,) = _WAITING.unpack_from(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28), 24)
        if waiting:
            return
        time.sleep(0.001)
    raise OSError(errno.EAGAIN, "the doorway does not close")


def take_back(sock: socket.socket) -> None:
    """Make the program's socket one that was never connected, with no error left in it."""
    connect(sock, seccomp.UNSPECIFIED)
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def fail(sock: socket.socket, number: int) -> None:
    """End a connect in progress of the program's socket with an error, as near to the errno `number` as can be.

    A socket cannot simply be told its error, it must happen to it: a reset comes from shutting it down, a refusal from
    connecting it where nobody listens, and what else went wrong becomes a refusal too. For the moment between the end
    of the first connect and the refusal the error is a reset. Who asks for SO_ERROR is told `number` by us.
    """
    if number == errno.ECONNRESET:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        return
    family = socket.AF_INET if sock.family == socket.AF_INET or _is_mapped(sock) else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as nobody, NonBlocking(sock):
        nobody.bind((_HOSTS[socket.AddressFamily(family)], 0))
        place = seccomp.address(Endpoint.of(nobody.getsockname()), sock.family)
        connect(sock, seccomp.UNSPECIFIED)
        connect(sock, place)


def _is_mapped(sock: socket.socket) -> bool:
    return canonical_address(str(sock.getsockname()[0])).version == 4


def dial(sock: socket.socket, destination: bytes, *, name: tuple[Any, ...]) -> tuple[int, socket.socket | None]:
    """Start the connection that the program asked for on a socket of ours, as much like the program's as can be.

    `destination` is the sockaddr the program gave, `name` what its socket was bound to before `hold`. Returns 0 and the
    connecting socket, for the caller to close; or the errno that the program's own connect would have had at once, and
    None.
    """
    ours = socket.socket(sock.family, socket.SOCK_STREAM)
    try:
        ours.setblocking(False)
        copy_traits(sock, ours)
        if name[1] or not canonical_address(str(name[0])).is_unspecified:
            _bind_beside(sock, ours, name)
        number = connect(ours, destination)
    except OSError as error:
        number = error.errno or errno.EIO
    if number in (0, errno.EINPROGRESS):
        return 0, ours
    ours.close()
    return number, None


def copy_traits(sock: socket.socket, ours: socket.socket) -> None:
    """Give `ours` what the program set on `sock` and the network can notice; data is sent at once in any case."""
    for level, option in _TRAITS:
        with contextlib.suppress(OSError):
            wanted = sock.getsockopt(level, option)
            if ours.getsockopt(level, option) != wanted:
                ours.setsockopt(level, option, wanted)
    with contextlib.suppress(OSError):
        device = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
        if device.strip(b"\0"):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _bind_beside(sock: socket.socket, ours: socket.socket, name: tuple[Any, ...]) -> None:
    """Bind to the name that the program's socket has; both may have it, since they connect to different places."""
    shared = sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if not shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        ours.bind(name)
    finally:
        if not shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def source_of(sock: socket.socket, destination: bytes) -> Endpoint | None:
    """Return where the kernel would connect from, None where there is no route. Sends nothing."""
    with socket.socket(sock.family, socket.SOCK_DGRAM) as scout:
        if connect(scout, destination) != 0:
            return None
        return Endpoint(canonical_address(str(scout.getsockname()[0])), 0)


def cookie(sock: socket.socket) -> int:
    """Return the number that names this socket and no other as long as the host runs (SO_COOKIE)."""
    return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0])


def shares_our_network(sock: socket.socket) -> bool:
    """Tell whether the program's socket lives in our network namespace; before Linux 5.14 that is taken for granted."""
    with socket.socket(sock.family, socket.SOCK_STREAM) as ours:
        try:
            return sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8) == ours.getsockopt(
                socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8
            )
        except OSError:
            return True
