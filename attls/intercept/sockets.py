"""Sockets at the edge: the listeners that steered connections arrive at, and the two ways to dial on.

Rule of the house: addresses become canonical here and nowhere else. Every function either returns a socket that the
caller then owns, or closes whatever it opened and raises. Nothing here waits.

The supervisor opens the listeners, one set per worker, and keeps them open: a dead worker's connections queue until its
successor takes the same descriptors, and the kernel's order of the group, by which clients are spread, stays the same.

Connections arrive by TPROXY (nft.py), outbound ones too: the accepted socket's own name *is* the real destination. Both
kinds of listener are transparent, which an ordinary program's socket cannot be, and lie below 1024, so that nobody can
take them over after a crash.

Towards the local program we use the client's address, but cannot use its port: that four-tuple exists already, as the
client's own connection. A port that the client uses for a *later* connection would be just as bad, since two
connections of one client would share a four-tuple. So we pick from the part of the port range that clients of this kind
do not use: Linux, Windows, BSD and macOS take 32768 and above. What still collides is reset by the steering table.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import random
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from attls.errors import LOOP, InterceptError, Reason
from attls.intercept.marks import MARKS, Marks
from attls.model import Address, Direction, Endpoint, Flow

# Linux names that Python's socket module lacks (include/uapi/linux/in.h, in6.h, asm-generic/socket.h)
IP_BIND_ADDRESS_NO_PORT = 24
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
IPV6_FREEBIND = 78
IP_FREEBIND = 15
SO_ATTACH_REUSEPORT_CBPF = 51

PORTS = range(1011, 1021)
BACKLOG = 65535  # the kernel cuts it to net.core.somaxconn
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
QUIET_PORTS = range(10240, 32768)
BUSY_PORTS = range(32768, 61000)
DIAL_ATTEMPTS = 16


# --------------------------------------------------------------------------------------------------------------------
# Listeners


@dataclass(frozen=True, slots=True)
class WorkerListeners:
    """One worker's listening sockets, non-blocking; the IPv6 ones are None where the kernel has no IPv6."""

    outbound4: socket.socket
    inbound4: socket.socket
    outbound6: socket.socket | None = None
    inbound6: socket.socket | None = None

    @property
    def outbound(self) -> tuple[socket.socket, ...]:
        """The listeners that connections of local programs arrive at."""
        return (self.outbound4,) if self.outbound6 is None else (self.outbound4, self.outbound6)

    @property
    def inbound(self) -> tuple[socket.socket, ...]:
        """The listeners that connections to local programs arrive at."""
        return (self.inbound4,) if self.inbound6 is None else (self.inbound4, self.inbound6)

    def numbers(self) -> tuple[int, ...]:
        """Return the descriptors for `pass_fds`, -1 where there is no IPv6."""
        return tuple(-1 if found is None else found.fileno() for found in self._sockets())

    @classmethod
    def of_numbers(cls, numbers: Sequence[int]) -> WorkerListeners:
        """Take over inherited descriptors, in the order of `numbers()`."""
        found = [None if number < 0 else socket.socket(fileno=number) for number in numbers]
        assert found[0] is not None
        assert found[1] is not None
        for listener in found:
            if listener is not None:
                listener.setblocking(False)
        return cls(found[0], found[1], found[2], found[3])

    def close(self) -> None:
        """Close them all."""
        for listener in self._sockets():
            if listener is not None:
                listener.close()

    def _sockets(self) -> tuple[socket.socket | None, ...]:
        return tuple(getattr(self, item.name) for item in fields(self))


@dataclass(frozen=True, slots=True)
class Listeners:
    """All listening sockets of the daemon; the supervisor owns and closes them."""

    outbound_port: int
    inbound_port: int
    workers: tuple[WorkerListeners, ...]

    def close(self) -> None:
        """Close every worker's sockets."""
        for worker in self.workers:
            worker.close()


def open_listeners(
    count: int, *, ports: Sequence[int] = PORTS, backlog: int = BACKLOG, marks: Marks = MARKS
) -> Listeners:
    """Open listening sockets for `count` workers on the first two free ports of `ports`, both families.

    Needs CAP_NET_ADMIN and CAP_NET_BIND_SERVICE. Raises InterceptError where that or a port is missing. The caller
    closes the result.
    """
    families = [socket.AF_INET]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM):
        families.append(socket.AF_INET6)
    with contextlib.ExitStack() as undo:
        groups: list[tuple[int, dict[socket.AddressFamily, list[socket.socket]]]] = []
        for port in ports:
            found: dict[socket.AddressFamily, list[socket.socket]] = {}
            try:
                for family in families:
                    _probe(family, port)
                for family in families:
                    found[family] = []
                    for _ in range(count):
                        listener = _listener(family, port, backlog)
                        undo.callback(listener.close)
                        found[family].append(listener)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise _cannot_listen(port, error) from error
            groups.append((port, found))
            if len(groups) == 2:
                break
        else:
            raise InterceptError(
                f"cannot listen for steered connections: two free ports are needed among {ports[0]}-{ports[-1]}; "
                "is another attls running?"
            )
        (outbound_port, outbound), (inbound_port, inbound) = groups
        for family in families:
            try:
                for listener in outbound[family]:  # inherited by accepted sockets, whose packets are told by it
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, marks.outbound)
                _spread_by_client(inbound[family][0], family, count)
            except OSError as error:
                raise _cannot_listen(inbound_port, error) from error
        both = len(families) == 2
        workers = tuple(
            WorkerListeners(
                outbound[socket.AF_INET][index],
                inbound[socket.AF_INET][index],
                outbound[socket.AF_INET6][index] if both else None,
                inbound[socket.AF_INET6][index] if both else None,
            )
            for index in range(count)
        )
        undo.pop_all()
        return Listeners(outbound_port, inbound_port, workers)


def _cannot_listen(port: int, error: OSError) -> InterceptError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return InterceptError(
            "cannot listen for steered connections: this needs root (CAP_NET_ADMIN); run attls as root"
        )
    return InterceptError(f"cannot listen for steered connections on port {port}: {error.strerror}")


def _probe(family: socket.AddressFamily, port: int) -> None:
    """Raise OSError where somebody listens: SO_REUSEPORT would let us join another daemon's group unnoticed."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        probe.bind((LOOPBACK[family], port))


def _listener(family: socket.AddressFamily, port: int, backlog: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        else:
            listener.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by accepted sockets
        listener.bind((LOOPBACK[family], port))
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


# Classic BPF (include/uapi/linux/bpf_common.h): operation, jump true, jump false, operand.
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_MULTIPLY = 0x24  # BPF_ALU | BPF_MUL | BPF_K
_SHIFT_RIGHT = 0x74  # BPF_ALU | BPF_RSH | BPF_K
_MODULO = 0x94  # BPF_ALU | BPF_MOD | BPF_K
_XOR_INDEX = 0xAC  # BPF_ALU | BPF_XOR | BPF_X
_TO_INDEX = 0x07  # BPF_MISC | BPF_TAX
_RETURN_A = 0x16  # BPF_RET | BPF_A
_NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF: offsets from here on count from the IP header
_GOLDEN = 0x9E3779B1  # 2**32 divided by the golden ratio: spreads neighbouring addresses


def client_spread(family: int, count: int) -> list[tuple[int, int, int, int]]:
    """Return the classic BPF program that picks one of `count` listeners by a hash of the client's address."""
    words = [12] if family == socket.AF_INET else [8, 12, 16, 20]
    program = [(_LOAD_WORD, 0, 0, _NETWORK_HEADER + words[0])]
    for offset in words[1:]:
        program += [(_TO_INDEX, 0, 0, 0), (_LOAD_WORD, 0, 0, _NETWORK_HEADER + offset), (_XOR_INDEX, 0, 0, 0)]
    program += [(_MULTIPLY, 0, 0, _GOLDEN), (_SHIFT_RIGHT, 0, 0, 16), (_MODULO, 0, 0, count), (_RETURN_A, 0, 0, 0)]
    return program


def _spread_by_client(listener: socket.socket, family: int, count: int) -> None:
    """Let a returning client meet the worker that holds its session; applies to the listener's whole group."""
    program = client_spread(family, count)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    filter_program = struct.pack("HP", len(program), ctypes.addressof(code))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, filter_program)


# --------------------------------------------------------------------------------------------------------------------
# Accepted connections


@dataclass(frozen=True, slots=True)
class Intercepted:
    """A steered connection as it arrived: the socket towards its opener, and the flow as the local program sees it."""

    sock: socket.socket
    flow: Flow


def intercepted(sock: socket.socket, direction: Direction, own_ports: Sequence[int]) -> Intercepted | Reason:
    """Tell what an accepted socket stands for, or errors.LOOP where somebody connected to our own port.

    `direction` is that of the listener, `own_ports` are all listeners' ports. OSError means that the connection is
    gone already. The caller keeps and closes `sock` in every case.
    """
    opener, destination = Endpoint.of(sock.getpeername()), Endpoint.of(sock.getsockname())
    if destination.port in own_ports and str(destination.address) in LOOPBACK.values():
        return LOOP
    if direction is Direction.OUTBOUND:
        return Intercepted(sock, Flow(direction, opener, destination))
    return Intercepted(sock, Flow(direction, destination, opener))


# --------------------------------------------------------------------------------------------------------------------
# Dialling


def dial_outbound(flow: Flow, *, marks: Marks = MARKS) -> socket.socket:
    """Start connecting to the real destination of an outbound flow, from the program's own address.

    Returns a non-blocking socket whose connect is under way; the caller closes it. Raises OSError.
    """
    sock = _marked(flow.remote.address, marks.network)
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)  # the port is chosen per destination, at connect
        try:
            sock.bind((str(flow.local.address), 0))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            # The program itself uses an address that this host does not have.
            _make_transparent(sock, flow.local.address)
            sock.bind((str(flow.local.address), 0))
        _start(sock, flow.remote)
    except BaseException:
        sock.close()
        raise
    return sock


def dial_inbound(flow: Flow, *, marks: Marks = MARKS) -> socket.socket:
    """Start connecting to the local program of an inbound flow, from the client's address.

    Returns a non-blocking socket whose connect is under way; the caller closes it. Raises OSError.
    """
    client = str(flow.remote.address)
    for port in _dial_ports(flow.remote.port):
        sock = _marked(flow.local.address, marks.program)
        try:
            _make_transparent(sock, flow.local.address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one port serves any number of programs
            sock.bind((client, port))
            _start(sock, flow.local)
        except OSError as error:
            sock.close()
            if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise OSError(errno.EADDRNOTAVAIL, f"no free port was found for client {client} of {flow.local}")


def _dial_ports(client_port: int) -> Iterator[int]:
    preferred, other = (QUIET_PORTS, BUSY_PORTS) if client_port not in QUIET_PORTS else (BUSY_PORTS, QUIET_PORTS)
    for attempt in range(DIAL_ATTEMPTS):
        # Not a secret: nothing rests on this port being hard to guess.
        yield random.choice(preferred if attempt < DIAL_ATTEMPTS * 3 // 4 else other)  # noqa: S311


def _marked(address: Address, mark: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _make_transparent(sock: socket.socket, address: Address) -> None:
    if address.version == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)


def _start(sock: socket.socket, destination: Endpoint) -> None:
    code = sock.connect_ex((str(destination.address), destination.port))
    if code not in (0, errno.EINPROGRESS):
        raise OSError(code, f"{errno.errorcode.get(code, code)} while connecting to {destination}")
