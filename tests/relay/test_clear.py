"""The clear relay between real sockets."""

from __future__ import annotations

import hashlib
import random
import socket
import time
from pathlib import Path

import pytest

from attls import errors
from attls.model import Direction
from tests.relay.peers import Program, connect, duplex, echo, in_thread, receive_all, reset
from tests.relay.street import street

DIRECTIONS = pytest.mark.parametrize("direction", list(Direction))


def descriptors() -> int:
    """Count the open descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def exchange(address: tuple[str, int], data: bytes) -> bytes:
    with connect(address) as sock:
        return duplex(sock, data)


@DIRECTIONS
async def test_bytes_pass_unchanged(direction: Direction) -> None:
    """Both directions are counted and nothing is lost or reordered."""
    data = random.Random(3).randbytes(30_000_000)
    with Program(echo) as program:
        async with street(program.listener, direction=direction, environment=None) as road:
            answer = await in_thread(exchange, road.address, data)
            (record,) = await road.ended()
    assert hashlib.sha256(data).digest() == hashlib.sha256(answer).digest()
    assert (errors.DONE, len(data), len(data)) == (record.reason, record.bytes_in, record.bytes_out)


async def test_a_slow_reader_stops_the_writer_and_loses_nothing() -> None:
    """Back-pressure reaches through the kernel pipe."""
    data = b"0123456789abcdef" * 1_000_000

    def serve(sock: socket.socket) -> int:
        time.sleep(0.5)
        return len(receive_all(sock))

    def talk(address: tuple[str, int]) -> None:
        with connect(address) as sock:
            sock.sendall(data)

    with Program(serve) as program:
        async with street(program.listener, environment=None) as road:
            await in_thread(talk, road.address)
            await road.ended()
    assert [len(data)] == program.results


@DIRECTIONS
async def test_a_reset_stays_a_reset(direction: Direction) -> None:
    """RST on one side is RST on the other."""

    def talk(address: tuple[str, int]) -> None:
        sock = connect(address)
        sock.sendall(b"x")
        time.sleep(0.1)
        reset(sock)

    with Program(receive_all) as program:
        async with street(program.listener, direction=direction, environment=None) as road:
            await in_thread(talk, road.address)
            (record,) = await road.ended()
    assert [ConnectionResetError] == [type(failure) for failure in program.failures]
    assert record.reason in (errors.PEER_RESET, errors.APP_RESET)


async def test_an_idle_connection_holds_no_pipe_and_none_leaks() -> None:
    """Descriptors are lent for bytes in flight only, and all come back."""

    def talk(address: tuple[str, int]) -> None:
        for _ in range(20):
            exchange(address, b"x" * 100_000)

    with Program(echo) as program:
        async with street(program.listener, environment=None) as road:
            await in_thread(exchange, road.address, b"warm up")
            await road.ended()
            before = descriptors()
            await in_thread(talk, road.address)
            await road.ended(21)
            sock = await in_thread(connect, road.address)
            sock.sendall(b"x")
            assert b"x" == await in_thread(sock.recv, 1)
            # The client's, ours to it, ours to the program, and the program's own: four sockets, no pipe.
            assert before + 4 == descriptors()
            sock.close()
            await road.ended(22)
