"""Whatever the network and the program do between two calls, the bytes that come out are those that went in."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import random
import select
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from OpenSSL import SSL

from attls import errors
from attls.model import UNKNOWN_OWNER, Direction, Endpoint, Flow, HandshakeRole, Protocol, Verdict
from attls.observe import Ledger
from attls.relay import Reactor, secure
from attls.relay.secure import SecureRelay
from attls.tls import Environment
from attls.tls.crossing import Compiled, Public
from tests.relay.street import TLS12, TLS13, ring, settings
from tests.tls.test_crossing import WAYS

DATA = random.Random(7).randbytes(1 << 20)
PLENTY = 1 << 30

HERE, THERE = Endpoint.of(("192.0.2.1", 443)), Endpoint.of(("192.0.2.2", 50000))


WIRES: dict[int, Wire] = {}  # the latest of each number, for those who know only that


class Wire:
    """A socket as the relay sees it: what has arrived, and how much the other end takes before it pushes back."""

    def __init__(self, number: int) -> None:
        self.number = number
        WIRES[number] = self
        self.arrived = bytearray()
        self.ended = False
        self.room = PLENTY
        self.blocked = False
        self.taken = bytearray()
        self.finished = False

    def fileno(self) -> int:
        return self.number

    def recv_into(self, buffer: memoryview, size: int = 0) -> int:
        count = min(size or len(buffer), len(self.arrived))
        if not count and not self.ended:
            raise BlockingIOError
        buffer[:count] = self.arrived[:count]
        del self.arrived[:count]
        return count

    def send(self, data: bytes, _flags: int = 0) -> int:
        assert not self.finished
        count = min(self.room, len(data))
        self.blocked = count < len(data)
        if not count:
            raise BlockingIOError
        self.room -= count
        self.taken += data[:count]
        return count

    def sendmsg(self, parts: list[bytes], _ancillary: object = (), flags: int = 0) -> int:
        return self.send(b"".join(parts), flags)

    def shutdown(self, _how: int) -> None:
        self.finished = True

    def getsockopt(self, *_: object) -> int:
        return 0

    def setsockopt(self, *_: object) -> None:
        pass

    def close(self) -> None:
        self.number = -1


class Stillness(Reactor):
    """A reactor without a kernel: the test says what happens and when."""

    def watch(self, sock: Any, handler: Callable[[int], None], *, is_new: bool = False) -> None:
        self.handlers[sock.fileno()] = handler

    def tell(self, wire: Wire, *, writable: bool = False) -> None:
        """Report an edge: everything that is true of `wire` now, as epoll does."""
        mask = select.EPOLLIN if wire.arrived or wire.ended else 0
        mask |= select.EPOLLRDHUP if wire.ended else 0
        mask |= select.EPOLLOUT if writable or not wire.blocked else 0
        handler = self.handlers.get(wire.number)
        if handler is not None:
            handler(mask)

    def turn(self) -> None:
        """Let those go on whose budget was used up."""
        self._feed_hungry()


class Scene:
    """A relayed connection between a peer's TLS engine and a program, with the handshake done."""

    def __init__(self, role: HandshakeRole, protocols: frozenset[Protocol], flight: int) -> None:
        inbound = role is HandshakeRole.SERVER
        direction = Direction.INBOUND if inbound else Direction.OUTBOUND
        self.reactor = Stillness()
        self.net, self.app = Wire(1001), Wire(1002)
        record = Ledger().open(Flow(direction, HERE, THERE), UNKNOWN_OWNER, Verdict("rule", True), generation=0)
        dialled = self.app if inbound else self.net
        self.relay = SecureRelay(self.reactor, record, cast(Any, lambda: dialled), environment(role, protocols))
        self.peer = opposite(role, protocols)
        self.outbox = bytearray()  # what the peer has sent and the network has not delivered
        self.heard = bytearray()  # what the peer has decrypted
        if inbound:
            self.relay.net = cast(Any, self.net)
        else:
            self.relay.app = cast(Any, self.app)
        self.relay.start()
        if not inbound:
            self.reactor.tell(self.net, writable=True)
        while not self._shake(flight):
            pass
        if inbound:
            self.reactor.tell(self.app, writable=True)

    def close(self) -> None:
        self.relay.abort(errors.STOPPED)
        self.reactor._epoll.close()
        os.close(self.reactor._alarm)

    def _shake(self, flight: int) -> bool:
        self._peer_reads()
        done = True
        try:
            self.peer.do_handshake()
        except SSL.WantReadError:
            done = False
        self._collect()
        while self.outbox:
            self.deliver(flight)
        return done and self.relay.record.status == "Secure"

    def _collect(self) -> None:
        with contextlib.suppress(SSL.WantReadError):
            while True:
                self.outbox += self.peer.bio_read(1 << 16)

    def _peer_reads(self) -> None:
        if self.net.taken:
            self.peer.bio_write(bytes(self.net.taken))
            self.net.taken.clear()

    def deliver(self, count: int) -> None:
        """Let `count` bytes of what the peer has sent arrive."""
        if self.outbox:
            self.net.arrived += self.outbox[:count]
            del self.outbox[:count]
            self.reactor.tell(self.net)

    def peer_says(self, data: bytes) -> None:
        """Have the peer encrypt `data`; it does not arrive yet."""
        while data:
            data = data[self.peer.send(data) :]
        self._collect()

    def program_says(self, data: bytes) -> None:
        """Have the program write `data`."""
        self.app.arrived += data
        self.reactor.tell(self.app)

    def take(self, wire: Wire, count: int) -> None:
        """Let the receiver at the end of `wire` take `count` bytes more."""
        wire.room += count
        if wire.blocked:
            self.reactor.tell(wire, writable=True)

    def settle(self) -> None:
        """Deliver everything and take everything."""
        while self.outbox or self.net.blocked or self.app.blocked or self.reactor.hungry:
            self.deliver(PLENTY)
            for wire in (self.net, self.app):
                self.take(wire, PLENTY)
            self.reactor.turn()

    def finish(self) -> None:
        """End both directions in order and read what is left."""
        self.settle()
        self.app.ended = True
        self.reactor.tell(self.app)
        self.settle()
        self._peer_reads()
        with contextlib.suppress(SSL.ZeroReturnError):
            while True:
                self.heard += self.peer.recv(1 << 16)
        self.peer.shutdown()
        self._collect()
        self.net.arrived += self.outbox
        self.net.ended = True
        self.reactor.tell(self.net)


@cache
def environment(role: HandshakeRole, protocols: frozenset[Protocol]) -> Environment:
    """Return an environment of the relay, or of a peer in the same role."""
    names = ("server.test",) if role is HandshakeRole.SERVER else ()
    return Environment(settings(role, protocols=protocols, session_cache_size=0), ring(*names))


def opposite(role: HandshakeRole, protocols: frozenset[Protocol]) -> SSL.Connection:
    """Return an engine for the other end of a connection in which we play `role`."""
    other = HandshakeRole.CLIENT if role is HandshakeRole.SERVER else HandshakeRole.SERVER
    return environment(other, protocols).engine(("192.0.2.1", 443), 0.0)


RECORD = 16_384 + 22  # a full record of TLS 1.3 as it crosses the network
SIZES = st.one_of(
    st.integers(1, 64),
    st.builds(lambda records, more: records * RECORD + more, st.integers(0, 20), st.integers(1, 8)),  # cuts a header
    st.integers(1, 400_000),
)
MOVES = st.sampled_from(["peer says", "arrives", "program says", "network takes", "program takes", "turn"])


SOCKET_CALL = ctypes.CFUNCTYPE(
    ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, use_errno=True
)
INTERRUPTED = itertools.cycle((True, False))


def carried(move: Callable[[], int]) -> int:
    """Do what a socket call does, with its errno; every other one is interrupted."""
    if next(INTERRUPTED):
        ctypes.set_errno(errno.EINTR)
        return -1
    try:
        return move()
    except BlockingIOError:
        ctypes.set_errno(errno.EAGAIN)
    except Exception:  # noqa: BLE001 - nobody would catch it on the other side
        ctypes.set_errno(errno.EIO)
    return -1


def receive(number: int, into: int, most: int, _flags: int) -> int:
    """The C library's recv, over the wire of that number."""
    return carried(lambda: WIRES[number].recv_into(memoryview((ctypes.c_char * most).from_address(into)).cast("B")))


def send(number: int, start: int, count: int, _flags: int) -> int:
    """The C library's send, over the wire of that number."""
    return carried(lambda: WIRES[number].send(ctypes.string_at(start, count)))


@contextlib.contextmanager
def by(kind: type[Public]) -> Iterator[None]:
    """Have the relay move its bytes by `kind`."""
    if kind is Compiled:
        calls = SOCKET_CALL(receive), SOCKET_CALL(send)
        at, there = (ctypes.cast(call, ctypes.c_void_p).value or 0 for call in calls)
        crossing: Public = Compiled(secure._READ, sockets=(at, there))
    else:
        crossing = kind(secure._READ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secure, "crossing", crossing)
        patch.setattr(secure, "_received", crossing.received)
        patch.setattr(secure, "_made", crossing.made)
        yield


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("role", [HandshakeRole.SERVER, HandshakeRole.CLIENT])
@pytest.mark.parametrize("protocols", [TLS12, TLS13])
@profile(max_examples=50)
@given(
    flight=st.integers(1, 5000),
    rooms=st.tuples(SIZES, SIZES),
    moves=st.lists(st.tuples(MOVES, SIZES), max_size=30),
)
def test_any_interleaving_delivers_the_bytes_unchanged(
    kind: type[Public],
    role: HandshakeRole,
    protocols: frozenset[Protocol],
    flight: int,
    rooms: tuple[int, int],
    moves: list[tuple[str, int]],
) -> None:
    """Partial reads, partial writes, back-pressure and used-up budgets in any order lose, add and change nothing."""
    with by(kind):
        scene = Scene(role, protocols, flight)
        scene.net.room, scene.app.room = rooms
        to_program = to_peer = b""
        try:
            for move, size in moves:
                if move == "peer says":
                    to_program += DATA[:size]
                    scene.peer_says(DATA[:size])
                elif move == "arrives":
                    scene.deliver(size)
                elif move == "program says":
                    to_peer += DATA[-size:]
                    scene.program_says(DATA[-size:])
                elif move == "network takes":
                    scene.take(scene.net, size)
                elif move == "program takes":
                    scene.take(scene.app, size)
                else:
                    scene.reactor.turn()
            scene.finish()
            assert to_program == scene.app.taken
            assert to_peer == scene.heard
            assert scene.relay.record.reason is errors.DONE
        finally:
            scene.close()
