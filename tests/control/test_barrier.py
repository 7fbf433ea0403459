"""The switch between clear and TLS happens at one byte in each direction, whatever races with it.

Each race runs many times with another timing; ATTLS_TEST_PROFILE=deep multiplies the rounds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from attls import client
from attls.client import AttlsControlError, Request
from attls.control.protocol import Junior
from attls.model import Direction, HandshakeRole
from tests.control.exchange import SECONDS, Exchange, controlled, in_thread
from tests.relay.street import authority, client_context, leaf

SERVER, CLIENT = HandshakeRole.SERVER, HandshakeRole.CLIENT
ROUNDS = 500 if os.environ.get("ATTLS_TEST_PROFILE") != "deep" else 5000
authority(), leaf("server.test")


class Wire:
    """A TLS client whose bytes the test puts on the wire itself."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server: bool = False) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server else "server.test"
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server, server_hostname=name)

    def hello(self) -> bytes:
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def drive(self, action: Any) -> Any:
        """Repeat `action` until it has what it needs from the socket."""
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self.flush()
                chunk = self.sock.recv(65536)
                if not chunk:
                    raise EOFError from None
                self.incoming.write(chunk)
            else:
                self.flush()
                return result

    def flush(self) -> None:
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def shake(self) -> None:
        self.drive(self.tls.do_handshake)

    def write(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()

    def read(self, count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            part = self.drive(partial(self.tls.read, count - len(parts)))
            if not part:
                raise EOFError
            parts += part
        return parts

    def end(self) -> None:
        """Read the other side's close_notify and answer it."""
        assert b"" == self.drive(lambda: self.tls.read(1))
        self.drive(self.tls.unwrap)


def exactly(sock: socket.socket, count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        part = sock.recv(count - len(parts))
        assert part, "the stream ended early"
        parts += part
    return parts


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    with Exchange(tmp_path, controlled()) as made:
        yield made


def pause(generator: random.Random) -> None:
    """Wait for nothing, or a moment: another timing each time."""
    if generator.random() < 0.5:
        time.sleep(generator.random() * 0.002)


@pytest.mark.parametrize("direction", list(Direction))
def test_a_hello_that_overtakes_the_request_is_not_lost(exchange: Exchange, direction: Direction) -> None:
    """The ClientHello comes in one segment with the last clear bytes, or in pieces, before or around the request."""
    generator = random.Random(5)
    context = client_context()
    for _ in range(ROUNDS):
        with exchange.connection(direction) as (program, peer):
            wire = Wire(peer, context)
            hello = wire.hello()
            cut = generator.randrange(len(hello) + 1)
            peer.sendall(b"STARTTLS\r\n" + hello[:cut])
            assert b"STARTTLS\r\n" == exactly(program, 10)
            program.sendall(b"220 go\r\n")

            def rest(wire: Wire = wire, rest: bytes = hello[cut:]) -> bytes:
                answer = exactly(wire.sock, 8)
                pause(generator)
                if rest:
                    wire.sock.sendall(rest)
                wire.shake()
                wire.write(b"question")
                return answer + wire.read(6)

            talking = in_thread(rest)
            pause(generator)
            assert exchange.start(program).is_secure
            assert b"question" == exactly(program, 8)
            program.sendall(b"answer")
            assert b"220 go\r\nanswer" == talking()


@pytest.mark.parametrize("blocking", [True, False])
def test_what_is_written_around_the_request_goes_clear_before_and_protected_after(
    exchange: Exchange, blocking: bool
) -> None:
    """A program writes right up to the request and right behind it: the first is read in clear, the rest from TLS."""
    generator = random.Random(7)
    context = client_context()
    for number in range(ROUNDS):
        with exchange.inbound() as (program, peer):
            before = generator.randbytes(generator.choice([1, 7, 1000, 70_000, 300_000]))
            after = b"protected" * generator.choice([1, 3000])

            def talk(
                peer: socket.socket = peer, size: int = len(before), rest: int = len(after)
            ) -> tuple[bytes, bytes]:
                clear = exactly(peer, size)
                wire = Wire(peer, context)
                wire.tls  # noqa: B018 - made before the handshake starts
                wire.shake()
                return clear, wire.read(rest)

            talking = in_thread(talk)
            if generator.random() < 0.3:
                for start in range(min(len(before), 100)):  # a slow writer, byte by byte
                    program.sendall(before[start : start + 1])
                program.sendall(before[100:])
            else:
                program.sendall(before)
            if blocking:
                program.setblocking(True)
                exchange.start(program)
            else:
                program.setblocking(False)
                assert exchange.start(program).in_progress, number
                program.setblocking(True)
            program.sendall(after)
            assert (before, after) == talking()


def test_writers_in_other_threads_have_one_place_of_change(exchange: Exchange) -> None:
    """Threads write numbered blocks while another starts TLS: in clear comes a prefix, in TLS exactly what follows."""
    context = client_context()
    for round_number in range(max(10, ROUNDS // 10)):
        with exchange.inbound() as (program, peer):
            count = 2000
            blocks = [f"{number:07d}".encode() for number in range(count)]

            def write(program: socket.socket = program, blocks: list[bytes] = blocks) -> None:
                for block in blocks:
                    program.sendall(block)

            def read(peer: socket.socket = peer, total: int = count * 7) -> tuple[bytes, bytes]:
                clear = b""
                # The stream turns into TLS where the server's answer to the ClientHello begins; it is sent in clear
                # until then. The peer sends its ClientHello at once, so that nothing else tells it the place.
                wire = Wire(peer, context)
                peer.sendall(wire.hello())
                while b"\x16\x03" not in clear:
                    clear += peer.recv(65536)
                clear, mark, rest = clear.partition(b"\x16\x03")
                wire.incoming.write(mark + rest)
                wire.shake()
                return clear, wire.read(total - len(clear))

            reading, writing = in_thread(read), in_thread(write)
            time.sleep(0.0003 * (round_number % 10))
            program.settimeout(SECONDS)
            with client.begin(program, Request.INIT_CONNECTION, run_dir=exchange.run_dir) as pending:
                assert pending.result(SECONDS).is_secure
            writing()
            clear, protected = reading()
            assert b"".join(blocks) == clear + protected


@pytest.mark.parametrize("role", [SERVER, CLIENT])
@pytest.mark.parametrize("blocking", [True, False])
def test_injected_cleartext_is_never_delivered(tmp_path: Path, role: HandshakeRole, blocking: bool) -> None:
    """Commands behind STARTTLS (or its answer), in the same segment or later: 5003 and a reset, never data."""
    generator = random.Random(11)
    with Exchange(tmp_path, controlled(role)) as exchange:
        told: set[int] = set()
        for _ in range(ROUNDS):
            with exchange.inbound() as (program, peer):
                together = generator.random() < 0.6
                peer.sendall(b"STARTTLS\r\n" + (b"MAIL FROM:<evil>\r\n" if together else b""))
                assert b"STARTTLS\r\n" == exactly(program, 10)
                rest = b"" if together else b"MAIL FROM:<evil>\r\n"
                injecting = in_thread(partial(peer.sendall, rest))
                program.setblocking(blocking)
                try:
                    status = exchange.start(program)
                    assert not blocking, status
                    assert status.in_progress
                except AttlsControlError as error:
                    # Blocking: told so. Not blocking: the injected bytes were there already, which ended it at once.
                    told.add(error.errno)
                with contextlib.suppress(ConnectionError):  # it may have been over by then
                    injecting()
                program.settimeout(SECONDS)
                with pytest.raises(ConnectionResetError):
                    assert b"never" == program.recv(100)
        assert told <= {errno.ECONNRESET}
        codes = {record.reason.code for record in exchange.records if record.reason is not None}
        assert {5003} == codes


def test_injected_bytes_that_look_like_tls_do_not_pass_either(exchange: Exchange) -> None:
    """What begins like a record meets the engine, which ends the connection."""
    with exchange.inbound() as (program, peer):
        peer.sendall(b"\x16\x03\x01\x00\x10MAIL FROM:<evil>")
        with pytest.raises(AttlsControlError) as caught:
            exchange.start(program)
        assert errno.ECONNRESET == caught.value.errno


def test_a_flood_before_the_request_ends_the_connection(exchange: Exchange) -> None:
    """Nobody has to hold more than a ClientHello's worth of unread bytes."""
    with exchange.inbound() as (program, peer):
        peer.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                peer.send(b"\x16\x03\x01" * 10_000)
        with pytest.raises(AttlsControlError) as caught:
            exchange.start(program)
        assert errno.ECONNRESET == caught.value.errno


def test_many_starts_and_stops_keep_every_byte_in_place(exchange: Exchange) -> None:
    """Clear, TLS, clear, TLS …, each phase with data up to both edges."""
    context = client_context()
    with exchange.inbound() as (program, peer):
        for number in range(max(50, ROUNDS // 3)):
            clear, protected = f"clear {number:05}".encode(), f"protected {number:05}".encode()

            def talk(clear: bytes = clear, protected: bytes = protected) -> bytes:
                assert clear == exactly(peer, len(clear))
                wire = Wire(peer, context)
                wire.shake()
                wire.write(protected)
                assert protected == wire.read(len(protected))
                wire.end()
                # What the peer says in clear goes right behind its close_notify.
                peer.sendall(clear)
                return wire.incoming.read()

            talking = in_thread(talk)
            program.sendall(clear)
            exchange.start(program)
            assert protected == exactly(program, len(protected))
            program.sendall(protected)  # right before the end of TLS
            exchange.stop(program)
            assert b"" == talking()
            assert clear == exactly(program, len(clear))


def test_stop_loses_nothing_that_is_on_its_way(exchange: Exchange) -> None:
    """Data that races with STOP makes it fail (EPROTO) or is read behind it; clear bytes come last."""
    generator = random.Random(13)
    context = client_context()
    for _ in range(ROUNDS // 2):
        with exchange.inbound() as (program, peer):
            wire = Wire(peer, context)
            shaking = in_thread(wire.shake)
            exchange.start(program)
            shaking()

            def talk(wire: Wire = wire) -> None:
                pause(generator)
                wire.write(b"late data")
                wire.end()
                wire.sock.sendall(b"clear")

            talking = in_thread(talk)
            pause(generator)
            found = b""
            while True:
                try:
                    exchange.stop(program)
                except AttlsControlError as error:
                    assert (errno.EPROTO, Junior.STOP_READ_DATA_PENDING) == (error.errno, error.junior)
                    found += program.recv(100)
                else:
                    break
            assert b"late dataclear" == found + exactly(program, 14 - len(found))
            talking()


def test_clear_bytes_in_one_segment_with_close_notify_are_kept(exchange: Exchange) -> None:
    """The engine never gets what follows the peer's close_notify."""
    with exchange.inbound() as (program, peer):
        wire = Wire(peer, client_context())
        shaking = in_thread(wire.shake)
        exchange.start(program)
        shaking()
        wire.write(b"last protected")
        assert b"last protected" == exactly(program, 14)
        with pytest.raises(ssl.SSLWantReadError):
            wire.tls.unwrap()
        peer.sendall(wire.outgoing.read() + b"first clear")
        exchange.stop(program)
        assert b"first clear" == exactly(program, 11)


def test_a_slow_peer_sends_its_handshake_byte_by_byte(exchange: Exchange) -> None:
    """Records are put together from any pieces, in the handshake and behind it."""
    with exchange.inbound() as (program, peer):
        wire = Wire(peer, client_context())

        def talk() -> None:
            def trickle() -> None:
                for byte in wire.outgoing.read():
                    peer.sendall(bytes([byte]))

            wire.flush = trickle  # type: ignore[method-assign]
            wire.shake()
            wire.write(b"one by one")

        talking = in_thread(talk)
        exchange.start(program)
        assert b"one by one" == exactly(program, 10)
        talking()


def test_two_requests_at_once_have_one_winner(exchange: Exchange) -> None:
    """Several threads say INIT: one does it, the others hear EALREADY; then several say STOP."""
    with exchange.inbound() as (program, peer):
        wire = Wire(peer, client_context())

        def outcome(request: Any) -> Any:
            try:
                request(program)
            except AttlsControlError as error:
                return error.errno, error.junior
            return 0

        starting = [in_thread(lambda: outcome(exchange.start)) for _ in range(5)]
        shaking = in_thread(wire.shake)
        found = sorted((each() for each in starting), key=str)
        shaking()
        assert [(errno.EALREADY, Junior.ALREADY_ACTIVE)] * 4 + [0] == found
        stopping = [in_thread(lambda: outcome(exchange.stop)) for _ in range(5)]
        wire.end()
        assert 1 == [each() for each in stopping].count(0)


def test_a_forked_child_may_start_tls(exchange: Exchange) -> None:
    """The request is about the socket, not about the process that opened it."""
    with exchange.inbound() as (program, peer):
        wire = Wire(peer, client_context())
        shaking = in_thread(wire.shake)
        code = f"from attls import client; client.start_tls({program.fileno()}, run_dir={str(exchange.run_dir)!r})"
        subprocess.run([sys.executable, "-c", code], check=True, pass_fds=[program.fileno()], timeout=SECONDS)
        shaking()
        wire.write(b"for the parent")
        assert b"for the parent" == exactly(program, 14)


def test_closing_the_socket_during_the_handshake_ends_the_connection(exchange: Exchange) -> None:
    """We hold no copy of the program's socket that would keep it open."""
    for _ in range(20):
        with exchange.inbound() as (program, peer):
            program.setblocking(False)
            exchange.start(program)
            program.close()
            wire = Wire(peer, client_context())
            try:
                wire.shake()
                with pytest.raises(EOFError):
                    wire.read(1)
            except (ConnectionError, EOFError):
                pass
        deadline = time.monotonic() + SECONDS
        while exchange.call(lambda: len(exchange.reactor.connections)):
            assert time.monotonic() < deadline
            time.sleep(0.001)


def test_cycles_leave_nothing_behind(exchange: Exchange) -> None:
    """Descriptors and memory stay where they are over many INIT and STOP on one connection."""
    context = client_context()
    cycles = max(60, ROUNDS // 3) if ROUNDS < 1000 else 10_000
    with exchange.inbound() as (program, peer):

        def play() -> None:
            for _ in range(cycles):
                wire = Wire(peer, context)
                wire.shake()
                wire.end()

        threading.Thread(target=play, daemon=True).start()
        counts = []
        for _ in range(cycles):
            exchange.start(program)
            exchange.stop(program)
            counts.append(exchange.descriptors())
        # What is just being closed may count for a moment; what is left behind counts from then on.
        assert min(counts[-20:]) <= max(counts[:20])
        assert 1 == exchange.call(lambda: len(exchange.reactor.controls))
        assert {} == exchange.call(lambda: dict(exchange.switchboard._events))
