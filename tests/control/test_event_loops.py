"""Programs that live in an event loop start TLS, ask, and stop it, without ever holding up their loop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from attls import client
from attls.client import AttlsControlError, ConnectionStatus, Pending, Request, Status
from tests.control.exchange import Exchange, controlled, in_thread
from tests.control.test_barrier import Wire
from tests.relay.street import client_context


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    with Exchange(tmp_path, controlled()) as made:
        yield made


def play(peer: socket.socket) -> bytes:
    """Be the peer: handshake, question, answer, end of TLS, and what comes in clear behind it."""
    wire = Wire(peer, client_context())
    wire.shake()
    wire.write(b"question")
    answer = wire.read(6)
    wire.end()
    return answer + peer.recv(100)


def test_asyncio(exchange: Exchange) -> None:
    """The loop waits for the `Pending` with a reader of its own; other tasks run meanwhile."""

    async def outcome(pending: Pending) -> Status:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(pending.fileno(), ready.set_result, None)
        try:
            await ready
        finally:
            loop.remove_reader(pending.fileno())
        return pending.result()

    async def converse(program: socket.socket, peer: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with client.begin(program, Request.INIT_CONNECTION, run_dir=exchange.run_dir) as pending:
            waiting = asyncio.ensure_future(outcome(pending))
            await asyncio.sleep(0)
            assert not waiting.done()  # nobody has shaken hands yet
            playing = in_thread(lambda: play(peer))
            assert (await waiting).is_secure
        assert b"question" == await loop.sock_recv(program, 100)
        await loop.sock_sendall(program, b"answer")
        with client.begin(program, Request.STOP_CONNECTION, run_dir=exchange.run_dir) as pending:
            assert ConnectionStatus.NOTSECURE is (await outcome(pending)).connection
        await loop.sock_sendall(program, b" in clear")
        assert b"answer in clear" == await asyncio.to_thread(playing)

    with exchange.inbound() as (program, peer):
        program.setblocking(False)
        asyncio.run(converse(program, peer))


def test_trio(exchange: Exchange) -> None:
    """A task waits until the `Pending` is readable and can be cancelled while it does."""

    async def outcome(pending: Pending) -> Status:
        await trio.lowlevel.wait_readable(pending)
        return pending.result()

    async def converse(program: trio.socket.SocketType, peer: socket.socket) -> None:
        with client.begin(program, Request.INIT_CONNECTION, run_dir=exchange.run_dir) as pending:
            with trio.move_on_after(0.01) as scope:
                await outcome(pending)
            assert scope.cancelled_caught  # the request goes on all the same
            playing = in_thread(lambda: play(peer))
            assert (await outcome(pending)).is_secure
        assert b"question" == await program.recv(100)
        await program.send(b"answer")
        with client.begin(program, Request.STOP_CONNECTION, run_dir=exchange.run_dir) as pending:
            assert ConnectionStatus.NOTSECURE is (await outcome(pending)).connection
        await program.send(b" in clear")
        assert b"answer in clear" == await trio.to_thread.run_sync(playing)

    with exchange.inbound() as (program, peer):
        trio.run(converse, trio.socket.from_stdlib_socket(program), peer)


def test_a_poll_loop(exchange: Exchange) -> None:
    """As on z/OS: INIT is in progress, queries say EWOULDBLOCK until there is an outcome, then the status."""
    with exchange.inbound() as (program, peer):
        program.setblocking(False)
        assert exchange.start(program).in_progress
        with pytest.raises(AttlsControlError) as caught:
            exchange.query(program)
        assert errno.EWOULDBLOCK == caught.value.errno
        playing = in_thread(lambda: play(peer))
        while True:
            try:
                status = exchange.query(program)
            except AttlsControlError as error:
                assert errno.EWOULDBLOCK == error.errno
            else:
                break
        assert status.is_secure
        program.setblocking(True)
        assert b"question" == program.recv(100)
        program.sendall(b"answer")
        exchange.stop(program)
        program.sendall(b" in clear")
        assert b"answer in clear" == playing()
