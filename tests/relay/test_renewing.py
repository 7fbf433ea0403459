"""Session keys are renewed by time up to TLS 1.2, in both roles, and no byte is lost by it."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from attls import errors
from attls.model import Direction, HandshakeRole
from attls.relay.controlled import unread
from attls.relay.lifecycle import State
from attls.relay.renewing import PATIENCE_SECONDS, RenewingRelay
from attls.tls import Environment
from tests.relay.peers import SECONDS, Program, connect, duplex, echo, finish, in_thread, receive_all
from tests.relay.street import TLS12, client_context, ring, server_context, settings, street

ALLOW_CLIENT_RENEGOTIATION = 0x100  # an OpenSSL option that the standard library has no name for
V12 = ssl.TLSVersion.TLSv1_2


def environment(role: HandshakeRole = HandshakeRole.SERVER, **changes: Any) -> Environment:
    names = () if role is HandshakeRole.CLIENT else ("server.test",)
    changes = {"reset_cipher_timer": 60, **changes}
    return Environment(settings(role, protocols=TLS12, **changes), ring(*names))


def willing_server() -> ssl.SSLContext:
    """Return a server that lets its clients renew their keys; by default OpenSSL does not."""
    context = server_context(V12)
    context.options |= ALLOW_CLIENT_RENEGOTIATION
    return context


def keys(sock: socket.socket) -> bytes | None:
    """Tell one handshake from another (RFC 5929 section 3)."""
    assert isinstance(sock, ssl.SSLSocket)
    return sock.get_channel_binding("tls-unique")


def talk(sock: socket.socket, now: list[float], look: Callable[[], Any]) -> list[Any]:
    """Have six short messages echoed, 25 seconds apart; return what `look` saw after each."""
    seen = []
    for number in range(6):
        sock.sendall(b"message %d" % number)
        assert b"message %d" % number == sock.recv(100)
        seen.append(look())
        now[0] += 25
    return seen


async def test_a_client_renews_the_keys_with_the_data_after_the_timer() -> None:
    """Not before the time has passed, then with the next data, and after that not until it has passed again."""
    now = [0.0]
    seen: list[bytes | None] = []

    def ask(address: tuple[str, int]) -> None:
        with connect(address) as sock:
            talk(sock, now, lambda: None)

    with Program(lambda sock: echo_noting(sock, seen), context=willing_server()) as program:
        client = environment(HandshakeRole.CLIENT)
        async with street(
            program.listener, direction=Direction.OUTBOUND, environment=client, clock=lambda: now[0]
        ) as road:
            await in_thread(ask, road.address)
            await road.ended()
    assert (6, 2) == (len(seen), len(set(seen)))
    assert seen[0] == seen[2] != seen[4] == seen[5]


async def test_a_server_asks_its_client_to_renew_the_keys() -> None:
    """The client begins when it next reads, and the data that crosses with it arrives."""
    now = [0.0]

    def ask(address: tuple[str, int]) -> list[bytes | None]:
        with connect(address, client_context(V12)) as sock:
            return talk(sock, now, lambda: keys(sock))

    with Program(echo) as program:
        async with street(program.listener, environment=environment(), clock=lambda: now[0]) as road:
            seen = await in_thread(ask, road.address)
            await road.ended()
    assert 2 == len(set(seen))
    assert seen[0] == seen[2] != seen[5]


async def test_a_client_that_does_not_begin_holds_up_the_program_for_a_moment_only() -> None:
    """It may pass over what a server asks, and then goes on under the old keys; here it does not even read it."""
    now = [0.0]

    def ask(address: tuple[str, int]) -> tuple[int, int]:
        def wait_for_more(than: int) -> int:
            while (found := unread(sock)) <= than:
                select.select([], [], [], 0.01)
            return found

        with connect(address, client_context(V12)) as sock:
            sock.sendall(b"before")
            assert b"before" == sock.recv(100)
            now[0] += 61
            sock.sendall(b"after")
            asked = wait_for_more(0)
            now[0] += PATIENCE_SECONDS
            answered = wait_for_more(asked)
            assert b"after" == sock.recv(100)
            return asked, answered

    with Program(echo) as program:
        async with street(program.listener, environment=environment(), clock=lambda: now[0]) as road:
            asked, answered = await in_thread(ask, road.address)
            await road.ended()
    assert 0 < asked < answered


@pytest.mark.parametrize("role", [HandshakeRole.CLIENT, HandshakeRole.SERVER])
async def test_a_peer_that_refuses_new_keys_ends_the_connection(role: HandshakeRole) -> None:
    """Policy wants fresh keys, so old ones do not go on for ever; the reason says what happened."""
    now = [0.0]
    refusing = server_context(V12) if role is HandshakeRole.CLIENT else client_context(V12)
    refusing.options |= ssl.OP_NO_RENEGOTIATION
    outward = role is HandshakeRole.CLIENT

    def ask(address: tuple[str, int]) -> None:
        with pytest.raises((OSError, AssertionError)), connect(address, None if outward else refusing) as sock:
            talk(sock, now, lambda: None)

    with Program(echo, context=refusing if outward else None) as program:
        async with street(
            program.listener,
            direction=Direction.OUTBOUND if outward else Direction.INBOUND,
            environment=environment(role),
            clock=lambda: now[0],
        ) as road:
            await in_thread(ask, road.address)
            (record,) = await road.ended()
    assert record.reason is not None
    assert (432, True) == (record.reason.code, now[0] > 50)


@pytest.mark.parametrize("role", [HandshakeRole.CLIENT, HandshakeRole.SERVER])
async def test_bulk_in_both_directions_outlives_many_renewals(role: HandshakeRole) -> None:
    """Whatever a handshake meets on its way, the bytes arrive unchanged.

    A server's client takes turns: one that writes megabytes before it reads cannot begin a handshake in between.
    """
    data = random.Random(7).randbytes(20_000_000)
    outward = role is HandshakeRole.CLIENT
    seen: list[bytes | None] = []

    def serve(sock: socket.socket) -> int:
        count = echo_noting(sock, seen) if outward else echo(sock)
        assert count == len(data)
        return count

    def ask(address: tuple[str, int]) -> bytes:
        with connect(address, None if outward else client_context(V12)) as sock:
            return duplex(sock, data) if outward else take_turns(sock, data, seen)

    with Program(serve, context=willing_server() if outward else None) as program:
        async with street(
            program.listener,
            direction=Direction.OUTBOUND if outward else Direction.INBOUND,
            environment=environment(role, reset_cipher_timer=0.02),
        ) as road:
            answer = await in_thread(ask, road.address)
            (record,) = await road.ended()
    assert answer == data
    assert [] == program.failures
    assert (errors.DONE, len(data), len(data)) == (record.reason, record.bytes_in, record.bytes_out)
    assert len(set(seen)) > 2


async def test_the_end_of_the_stream_is_heard_while_keys_are_renewed() -> None:
    """A peer may say close_notify while the program does not read and a handshake is due; nothing is lost by that."""
    data = random.Random(8).randbytes(12_000_000)
    may_read, may_end = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> bytes:
        may_read.wait(SECONDS)
        received = receive_all(sock)
        may_end.wait(SECONDS)
        return received

    def say(address: tuple[str, int]) -> None:
        with connect(address, client_context(V12)) as sock:
            sock.sendall(data)
            sock.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                sock.unwrap()  # type: ignore[attr-defined]
            with socket.socket(fileno=sock.detach()) as bare:
                bare.settimeout(SECONDS)
                bare.shutdown(socket.SHUT_WR)
                receive_all(bare)

    with Program(serve) as program:
        async with street(program.listener, environment=environment()) as road:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(in_thread, say, road.address)
                relay: Any = None
                while relay is None or not relay.app_unsent:
                    await trio.sleep(0.01)
                    relay = next(iter(road.reactor.connections.values()), None)
                    relay = relay if isinstance(relay, RenewingRelay) and relay.life.state is State.OPEN else None
                relay.due = 0.0
                relay._renew_if_due()
                assert relay.asking
                await trio.sleep(0.1)
                may_read.set()
                while not relay.app_ended or relay.renewing:
                    await trio.sleep(0.01)
                assert relay.deadlines is not None  # half-closed and silent, it does not live for ever
                may_end.set()
            (record,) = await road.ended()
    assert [data] == program.results
    assert errors.DONE == record.reason


def take_turns(sock: socket.socket, data: bytes, seen: list[bytes | None]) -> bytes:
    """Send a piece of `data` and wait until it has come back, then the next; end in order."""
    answer = bytearray()
    for start in range(0, len(data), 65536):
        sock.sendall(data[start : start + 65536])
        while len(answer) < min(start + 65536, len(data)):
            answer += sock.recv(65536)
        seen.append(keys(sock))
    finish(sock)
    return bytes(answer)


def echo_noting(sock: socket.socket, seen: list[bytes | None]) -> int:
    """Send everything back, and note under which keys it came."""
    count = 0
    while part := sock.recv(65536):
        count += len(part)
        seen.append(keys(sock))
        sock.sendall(part)
    sock.unwrap().close()  # type: ignore[attr-defined]
    return count
