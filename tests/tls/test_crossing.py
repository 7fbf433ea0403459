"""Both ways into an engine and out of it carry the same bytes, and the quick one is only taken where it works."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from OpenSSL import SSL, _util

from attls.model import HandshakeRole, Protocol
from attls.tls import Environment, Turn
from attls.tls.crossing import RECORD, SWITCH, Compiled, Direct, Public, best
from tests.relay.street import BOTH, TLS12, ring, settings

SIZE = 256 * 1024
DATA = random.Random(11).randbytes(SIZE)
WAYS = [Compiled, Direct, Public]


def pair(protocols: frozenset[Protocol] = BOTH, *, controlled: bool = False) -> tuple[SSL.Connection, SSL.Connection]:
    """Return two engines that have shaken hands."""
    client = Environment(settings(HandshakeRole.CLIENT, protocols=protocols), ring()).engine(("192.0.2.1", 443), 0.0)
    there = settings(protocols=protocols, application_controlled=controlled)
    server = Environment(there, ring("server.test")).engine(("192.0.2.2", 50000), 0.0)
    for _ in range(3):
        for engine, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                engine.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(engine.bio_read(1 << 16))
    return client, server


def inward(crossing: Public, net: socket.socket, app: socket.socket, engine: Any) -> Turn:
    """Make one turn from the network to the program."""
    received, made, sent, ending = crossing.turn_inward(*crossing.keys(net, app, engine))
    return received, made, sent, crossing.explain(ending, engine)


def outward(
    crossing: Public, app: socket.socket, net: socket.socket, engine: Any, flags: int = 0, most: int = 1 << 30
) -> Turn:
    """Make one turn from the program to the network."""
    key, there, here = crossing.keys(net, app, engine)
    received, made, sent, failure = crossing.turn_outward(key, here, there, flags, most)
    return received, made, sent, crossing.explain(failure, engine)


@pytest.mark.parametrize("count", [1, RECORD, RECORD + 1, SIZE])
@pytest.mark.parametrize("opening", WAYS)
@pytest.mark.parametrize("sealing", WAYS)
def test_what_one_seals_the_other_opens(sealing: type[Public], opening: type[Public], count: int) -> None:
    """Records of up to a whole read come out as they went in, whichever way each end takes."""
    client, server = pair()
    here, there = sealing(SIZE), opening(2 * SIZE)
    here.received[:count] = DATA[:count]
    end = here.seal(client, count)
    there.received[:end] = here.made[:end]
    there.feed(server, 0, end)
    total = 0
    while total < count:
        total += there.open(server, total)
    assert DATA[:count] == there.made[:total]


@pytest.mark.parametrize("kind", WAYS)
def test_an_engine_with_nothing_to_say_wants_more(kind: type[Public]) -> None:
    """Part of a record, or none, raises what the engine raises."""
    client, server = pair()
    crossing = kind(SIZE)
    crossing.received[:4] = b"part"
    end = crossing.seal(client, 4)
    crossing.received[:end] = crossing.made[:end]
    crossing.feed(server, 0, end - 1)
    with pytest.raises(SSL.WantReadError):
        crossing.open(server, 0)
    crossing.feed(server, end - 1, end)
    assert 4 == crossing.open(server, 0)
    assert b"part" == bytes(crossing.made[:4])


def test_nothing_is_written_behind_the_buffer() -> None:
    """Where the buffer has no room for a whole record the quick way refuses, as the public one would."""
    client, server = pair()
    crossing = Direct(SIZE)
    crossing.received[:4] = b"last"
    end = crossing.seal(client, 4)
    crossing.received[:end] = crossing.made[:end]
    crossing.feed(server, 0, end)
    room = len(crossing.made)
    with pytest.raises(IndexError):
        crossing.open(server, room - RECORD + 1)
    assert 4 == crossing.open(server, room - RECORD)


def test_the_compiled_part_writes_nothing_behind_its_buffer() -> None:
    """Where there is no room for a whole record it refuses; what is sealed and has no room waits for the next turn."""
    from attls.tls import _crossing

    client, server = pair()
    crossing = Compiled(SIZE)
    small = memoryview(bytearray(RECORD - 1))
    turns = _crossing.Crossing(crossing.received, small, 1000, crossing._functions)
    crossing.settle(client)
    crossing.settle(server)
    with sockets() as (program, app), sockets() as (net, far):
        ours, there, here = crossing.keys(net, app, client)
        program.sendall(DATA[:RECORD])
        assert (RECORD, RECORD - 1, RECORD - 1, None) == turns.outward(ours, here, there, 0, SIZE)
        program.sendall(b"x")
        assert 1 == turns.outward(ours, here, there, 0, SIZE)[0]
        with pytest.raises(IndexError):
            turns.inward(*crossing.keys(far, app, server))


@pytest.mark.parametrize("kind", WAYS)
def test_settling_loses_nothing_that_waits(kind: type[Public]) -> None:
    """A settled engine goes on; one that holds bytes in either direction keeps them."""
    client, server = pair()
    crossing = kind(SIZE)
    for word, settles in ((b"before", False), (b"behind", True)):
        crossing.received[:6] = word
        end = crossing.seal(client, 6)
        crossing.received[:end] = crossing.made[:end]
        crossing.feed(server, 0, end)
        if settles:
            server.send(word)
        crossing.settle(client)
        crossing.settle(server)
        assert 6 == crossing.open(server, 0)
        assert word == bytes(crossing.made[:6])
        crossing.settle(server)
    client.bio_write(server.bio_read(RECORD))
    assert b"behind" == client.recv(RECORD)


@pytest.mark.parametrize("kind", WAYS)
def test_what_is_no_record_is_an_error(kind: type[Public]) -> None:
    """Garbage raises the engine's error, with the library's reason in it."""
    _, server = pair()
    crossing = kind(SIZE)
    crossing.received[:5] = b"GET /"
    crossing.feed(server, 0, 5)
    with pytest.raises(SSL.Error) as caught:
        crossing.open(server, 0)
    assert caught.value.args[0]


def test_the_quick_way_is_taken_where_it_works() -> None:
    """With the pyOpenSSL at hand and a compiler when it was installed, a turn is one call."""
    assert type(best(SIZE)) is Compiled


@pytest.mark.parametrize("kind", WAYS)
def test_the_environment_says_which_way_is_quick_enough(kind: type[Public], monkeypatch: pytest.MonkeyPatch) -> None:
    """ATTLS_CROSSING names the quickest way that may be taken."""
    monkeypatch.setenv(SWITCH, kind.name)
    assert type(best(SIZE)) is kind


def test_without_the_compiled_part_single_calls_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no compiler was at hand, the library's functions are called one by one."""
    monkeypatch.setitem(sys.modules, "attls.tls._crossing", None)
    monkeypatch.delattr("attls.tls._crossing", raising=False)
    assert type(best(SIZE)) is Direct


def test_the_compiled_part_is_not_made_for_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library cannot say which object its functions are in, single calls are made."""
    monkeypatch.setattr(_util.lib, "SSL_read", lambda *_: 0)
    assert type(best(SIZE)) is Direct


@contextlib.contextmanager
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield the two ends of a non-blocking stream."""
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        yield here, there


@pytest.mark.parametrize("kind", WAYS)
def test_a_turn_carries_from_socket_to_socket(kind: type[Public]) -> None:
    """What the program writes comes out at the other program; with nothing to read a turn says EAGAIN, at the end 0."""
    client, server = pair()
    crossing = kind(SIZE)
    with sockets() as (program, app), sockets() as (net, far), sockets() as (other, peer):
        assert (-errno.EAGAIN, 0, 0, None) == outward(crossing, app, net, client)
        program.sendall(b"to the other side")
        received, made, sent, failure = outward(crossing, app, net, client, 0, 6)
        assert (6, made, made, None) == (received, made, sent, failure)
        assert (11, None) == outward(crossing, app, net, client)[::3]
        assert (17, 17, None) == inward(crossing, far, other, server)[1:]
        assert b"to the other side" == peer.recv(100)
        assert -errno.EAGAIN == inward(crossing, far, other, server)[0]
        net.close()
        assert (0, 0, 0, None) == inward(crossing, far, other, server)
        program.sendall(b"too late")
        far.close()
        assert -errno.EBADF == outward(crossing, app, net, client)[2]


@pytest.mark.parametrize("kind", WAYS)
def test_a_turn_says_what_a_slow_receiver_has_not_taken(kind: type[Public]) -> None:
    """What was made and not sent is at the start of the buffer, behind what was; no receiver, no signal."""
    client, server = pair()
    crossing = kind(SIZE)
    with sockets() as (net, far), sockets() as (app, peer):
        app.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        net.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        crossing.received[:SIZE] = DATA
        end = crossing.seal(client, SIZE)
        for start in range(0, end, 50_000):
            net.sendall(crossing.made[start : min(start + 50_000, end)])
        taken = b""
        plain = b""
        while len(plain) < SIZE:
            received, made, sent, ending = inward(crossing, far, app, server)
            assert received > 0
            assert ending is None or isinstance(ending, SSL.WantReadError)
            plain += crossing.made[:made]
            with contextlib.suppress(BlockingIOError):
                taken += peer.recv(1 << 20)
            assert plain[: len(taken)] == taken
            assert sent <= made
            while sent < made:
                rest = plain[len(plain) - made + sent :]
                with contextlib.suppress(BlockingIOError):
                    sent += app.send(rest)
                taken += peer.recv(1 << 20)
        with contextlib.suppress(BlockingIOError):
            taken += peer.recv(1 << 20)
        assert DATA == taken == plain
        peer.close()
        crossing.received[:1] = b"x"
        net.sendall(crossing.made[: crossing.seal(client, 1)])
        assert (1, -errno.EPIPE) == inward(crossing, far, app, server)[1:3]


@pytest.mark.parametrize("kind", WAYS)
def test_a_turn_says_how_the_stream_ends_for_the_library(kind: type[Public]) -> None:
    """Data before a close_notify or before garbage is handed on, and then said what followed."""
    for ending, expected in ((None, SSL.ZeroReturnError), (b"GET / HTTP/1.1", SSL.Error)):
        client, server = pair()
        crossing = kind(SIZE)
        with sockets() as (net, far), sockets() as (app, peer):
            client.send(b"last words")
            if ending is None:
                client.shutdown()
            net.sendall(client.bio_read(RECORD) + (ending or b""))
            _, made, sent, failure = inward(crossing, far, app, server)
            assert (10, 10, expected) == (made, sent, type(failure))
            assert b"last words" == peer.recv(100)


@pytest.mark.parametrize(("kind", "data"), [*((kind, b"") for kind in WAYS), (Compiled, b"data"), (Direct, b"data")])
def test_a_turn_says_that_the_library_has_an_answer(kind: type[Public], data: bytes) -> None:
    """A peer that asks for a new handshake must be answered, with data before its wish or without."""
    client, server = pair(TLS12, controlled=True)
    crossing = kind(SIZE)
    with sockets() as (net, far), sockets() as (app, _peer):
        if data:
            server.send(data)
        server.renegotiate()
        with contextlib.suppress(SSL.WantReadError):
            server.do_handshake()
        net.sendall(server.bio_read(RECORD))
        _, made, sent, ending = inward(crossing, far, app, client)
        assert (len(data), len(data), SSL.WantReadError) == (made, sent, type(ending))
        assert client.bio_read(RECORD)
        net.sendall(b"\x17\x03\x03")
        assert (3, 0, 0) == inward(crossing, far, app, client)[:3]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((b"", 0, 0), ValueError),
        ((bytes(24), 0, 0), ValueError),
        ((None, 0, 0), TypeError),
        ((b"\1" * 24, 1 << 40, 0), OverflowError),
        ((b"\1" * 24, "0", 0), TypeError),
        ((b"\1" * 24, 0), TypeError),
    ],
)
def test_the_compiled_part_refuses_what_it_cannot_use(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    """Arguments that are no engine and no descriptors raise, before anything is read."""
    crossing: Any = Compiled(SIZE)
    with pytest.raises(error):
        crossing.turn_inward(*arguments)
    with pytest.raises(error):
        crossing.turn_outward(*arguments, *(0, 1)[: len(arguments) - 1])
    with pytest.raises(ValueError):
        crossing.turn_outward(b"\1" * 24, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        (b"read only", bytearray(1), 1, (1,) * 8),
        (bytearray(1), bytearray(1), 0, (1,) * 8),
        (bytearray(1), bytearray(1), 1, (1,) * 7),
        (bytearray(1), bytearray(1), 1, (0,) * 8),
        (bytearray(1), bytearray(1), 1, ("recv",) * 8),
        (),
    ],
)
def test_the_compiled_part_is_not_made_of_nonsense(arguments: tuple[Any, ...]) -> None:
    """Buffers that cannot be written and addresses that are none raise."""
    from attls.tls import _crossing

    with pytest.raises((BufferError, TypeError, ValueError)):
        _crossing.Crossing(*arguments)


def test_buffers_cannot_go_away_under_the_compiled_part() -> None:
    """As long as it lives, its buffers keep their size."""
    from attls.tls import _crossing

    received, made = bytearray(SIZE), bytearray(SIZE)
    turns = _crossing.Crossing(memoryview(received), memoryview(made), 1, (1,) * 8)
    with pytest.raises(BufferError):
        received.clear()
    del turns
    received.clear()
    assert b"" == received


@pytest.mark.parametrize("name", ["SSL_read", "BIO_write"])
def test_a_changed_library_is_spoken_to_by_its_public_methods(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a private name is gone, bytes go the public way."""
    monkeypatch.delattr(_util.lib, name)
    assert type(best(SIZE)) is Public


def test_a_changed_engine_is_spoken_to_by_its_public_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where engines no longer hold what they held, bytes go the public way."""
    monkeypatch.setattr(SSL.Connection, "_into_ssl", property(lambda _: object(), lambda *_: None), raising=False)
    assert type(best(SIZE)) is Public
