"""Plain programs on both ends, a daemon on each machine: large, tiny and many connections arrive as they were sent."""

from __future__ import annotations

import hashlib
import random
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenes.conftest import Stage
from tests.scenes.daemons import Daemon, program, receive, rule

pytestmark = pytest.mark.scene

MEBIBYTES = 200


@pytest.fixture
def both(stage: Stage, tmp_path: Path) -> Iterator[Stage]:
    """A daemon for the client on the host, another for the server on the peer."""
    folder = tmp_path / "server"
    folder.mkdir()
    Daemon(stage.peer, folder, rings=stage.rings).start(rule("in"))
    stage.daemon.start(rule("out", direction="Outbound"))
    with program(stage.peer, "0.0.0.0", 7000), program(stage.peer, "::", 7000):
        yield stage


@pytest.mark.parametrize("version", [4, 6])
def test_two_hundred_mebibytes_each_way_at_the_same_time(both: Stage, version: int) -> None:
    """The echo program returns every byte, both directions full at once, and the hashes agree."""
    block = random.Random(version).randbytes(1024 * 1024)
    expected, seen = hashlib.sha256(), hashlib.sha256()
    with both.host.connect(both.peer.addresses[version], 7000, timeout=60) as sock:

        def send() -> None:
            for number in range(MEBIBYTES):
                piece = number.to_bytes(4) + block[4:]
                expected.update(piece)
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        count = 0
        while part := sock.recv(1024 * 1024):
            seen.update(part)
            count += len(part)
        sender.join()
    assert (MEBIBYTES * 1024 * 1024, expected.hexdigest()) == (count, seen.hexdigest())


def test_single_bytes_keep_their_order(both: Stage) -> None:
    """A thousand one-byte writes, each answered before the next."""
    with both.host.connect("10.1.0.2", 7000, timeout=30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer = bytearray()
        for number in range(1000):
            sock.sendall(bytes([number % 251]))
            answer += sock.recv(16)
    assert bytes(number % 251 for number in range(1000)) == bytes(answer)


def test_five_hundred_connections_at_once(both: Stage) -> None:
    """All are open at the same time, each gets its own answer, and netstat knows them all."""
    socks = [both.host.connect("10.1.0.2", 7000, timeout=60) for _ in range(500)]
    try:
        for number, sock in enumerate(socks):
            sock.sendall(b"%06d" % number)
        assert [b"%06d" % number for number in range(500)] == [receive(sock, 6) for sock in socks]
        entries = both.daemon.connections()
        assert 500 == len(entries)
        assert {("Secure", "TLSv1.3", "out")} == {(each["status"], each["protocol"], each["rule"]) for each in entries}
        assert sorted(f"10.1.0.1:{sock.getsockname()[1]}" for sock in socks) == sorted(
            each["local"] for each in entries
        )
    finally:
        for sock in socks:
            sock.close()


def test_an_end_in_one_direction_keeps_the_other(both: Stage) -> None:
    """A client that finishes sending still gets its whole answer, through two daemons."""
    with both.host.connect("10.1.0.2", 7000, timeout=30) as sock:
        sock.sendall(b"x" * 3_000_000)
        sock.shutdown(socket.SHUT_WR)
        count = 0
        while part := sock.recv(65536):
            count += len(part)
    assert 3_000_000 == count


def test_the_peer_meets_tls_and_nothing_else(both: Stage) -> None:
    """Who connects to the server without TLS is reset before the program hears of it."""
    with both.peer.connect("10.1.0.2", 7000) as local:
        local.sendall(b"plain words")
        readable, _, _ = select.select([local], [], [], 10)
        assert [local] == readable
        with pytest.raises(ConnectionResetError):
            local.recv(10)
