"""The two ends of a load: the generator and the sink."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from bench import generator, sink


@pytest.mark.parametrize("sizes", [[0], [1, 5], [3 * (1 << 20) + 17]])
def test_the_sink_counts_what_it_throws_away(sizes: list[int]) -> None:
    """Each upload is answered with the number of bytes that came, and the next one can follow."""
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        thread = threading.Thread(target=sink.serve, args=(server,))
        thread.start()
        for size in sizes:
            client.sendall(sink.LENGTH.pack(size) + bytes(size))
            assert sink.LENGTH.pack(size) == client.recv(sink.LENGTH.size, socket.MSG_WAITALL)
        client.shutdown(socket.SHUT_WR)
        thread.join(10)
        assert not thread.is_alive()


class Pieces:
    """Stands for a TLS socket that delivers a response in the pieces given."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def recv(self, _: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi\n"


@pytest.mark.parametrize("cut", [1, 20, len(WHOLE) - 1])
def test_a_response_may_come_in_pieces(cut: int) -> None:
    """The generator reads on until the response is whole."""
    pieces = Pieces(WHOLE[:cut], WHOLE[cut:])
    generator.read_small(pieces)  # type: ignore[arg-type]
    assert [] == pieces.pieces


@pytest.mark.parametrize("response", [b"HTTP/1.1 502 Bad Gateway\r\n\r\n\n", WHOLE[:-1]])
def test_a_wrong_response_ends_the_load(response: bytes) -> None:
    """An error page or a response cut short is never counted as work done."""
    with pytest.raises(ValueError, match="response"):
        generator.read_small(Pieces(response))  # type: ignore[arg-type]


@pytest.fixture
def served() -> Iterator[int]:
    """The port of a server that answers three requests on each connection, and closes where it is asked to."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve(connection: socket.socket) -> None:
        with connection:
            while asked := connection.recv(4096):
                if b"/large" in asked:
                    last = int(asked.partition(b"bytes=0-")[2].split()[0])
                    head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n\r\n" % (last + 1)
                    connection.sendall(head + bytes(last + 1))
                else:
                    connection.sendall(WHOLE)
                if b"close" in asked:
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def plain(port: int, *, count: int, streams: int = 1) -> generator.Task:
    return generator.Task(port, ("127.0.0.1",), count, streams, tls=False)


def test_every_thread_opens_its_share(served: int) -> None:
    """Connections are shared out to the threads, and each is one unit."""
    assert {"units": 16, "resumed": 0} == generator.connections(plain(served, count=16))


@pytest.mark.parametrize("streams", [1, 5])
@pytest.mark.parametrize("count", [5 * 16384 * generator.TURN, 5 * 1_000_003])
def test_streams_bring_all_their_bytes(served: int, streams: int, count: int) -> None:
    """A download ends when every stream has had its share, also where the last piece ends a stream's turn."""
    assert {"units": count // streams * streams} == generator.download(plain(served, count=count, streams=streams))


class Records:
    """Stands for a TLS socket in which every read is one whole record, and none is left."""

    def __init__(self, records: int) -> None:
        self.left = records
        self.head = [b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n\r\n" % (records * 16384)]

    def sendall(self, _: bytes) -> None: ...

    def recv(self, _: int) -> bytes:
        return self.head.pop()

    def recv_into(self, _: memoryview, __: int) -> int:
        if not self.left:
            raise BlockingIOError
        self.left -= 1
        return 16384


def test_a_stream_never_waits_for_what_it_has() -> None:
    """When the last record of a body is the last of a turn, the stream is done and waits for nothing."""
    steps = generator.fetch(Records(generator.TURN), generator.TURN * 16384)  # type: ignore[arg-type]
    assert [] == list(steps)


def test_a_failure_in_a_thread_is_the_failure_of_the_load() -> None:
    """An exception in one thread is raised by the whole."""

    def work(number: int) -> int:
        if number == 2:
            raise ValueError("third")
        return 1

    with pytest.raises(ValueError, match="third"):
        generator.in_threads(4, work)
    add: Callable[[int], int] = partial(pow, exp=1)
    assert 6 == generator.in_threads(4, add)
