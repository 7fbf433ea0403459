"""The two ends of a load: the generator and the sink."""

from __future__ import annotations

import socket
import threading

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
