"""Peers for relay tests, each run in a thread: small programs that do one thing over a blocking socket."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

import trio

SECONDS = 20


class Program:
    """A listening program whose every connection is served by `serve` in a thread; errors are kept in `failures`."""

    def __init__(self, serve: Callable[[socket.socket], Any], *, context: ssl.SSLContext | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.results: list[Any] = []
        self.failures: list[BaseException] = []
        self._serve = serve
        self._context = context
        self._threads: list[threading.Thread] = []
        self._last: object = None  # the address of the connection behind which no other comes
        self._main = threading.Thread(target=self._accept)
        self._main.start()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        # Through the front door, behind whoever still waits there to be accepted.
        with socket.socket() as last:
            last.bind(("127.0.0.1", 0))
            self._last = last.getsockname()
            last.connect(self.listener.getsockname())
            self._main.join(SECONDS)
        self.listener.close()
        for thread in self._threads:
            thread.join(SECONDS)

    def _accept(self) -> None:
        while True:
            sock, peer = self.listener.accept()
            if peer == self._last:
                sock.close()
                return
            thread = threading.Thread(target=self._one, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _one(self, sock: socket.socket) -> None:
        sock.settimeout(SECONDS)
        with sock:
            try:
                if self._context is not None:
                    sock = self._context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
                with sock:
                    self.results.append(self._serve(sock))
            except OSError as error:
                self.failures.append(error)


def receive_all(sock: socket.socket) -> bytes:
    """Read until the end of the stream."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def echo(sock: socket.socket) -> int:
    """Send everything back, then end; returns the number of bytes."""
    count = 0
    while part := sock.recv(65536):
        count += len(part)
        sock.sendall(part)
    finish(sock)
    return count


def finish(sock: socket.socket) -> None:
    """End our direction: close_notify where there is TLS, then FIN."""
    if isinstance(sock, ssl.SSLSocket):
        sock.unwrap().close()
    else:
        sock.shutdown(socket.SHUT_WR)


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def how_it_ends(sock: socket.socket) -> str:
    """Read the bare bytes below TLS until the stream ends; say `reset` or `end`.

    The standard library reports a reset under TLS as an unexpected end, so TLS must be looked under.
    """
    with socket.socket(fileno=os.dup(sock.fileno())) as bare:
        bare.settimeout(SECONDS)
        try:
            receive_all(bare)
        except ConnectionResetError:
            return "reset"
        return "end"


def connect(
    address: tuple[str, int], context: ssl.SSLContext | None = None, *, name: str = "server.test", **options: Any
) -> socket.socket:
    """Connect, with TLS where a context is given."""
    sock = socket.create_connection(address, timeout=SECONDS)
    if context is None:
        return sock
    return context.wrap_socket(sock, server_hostname=name, suppress_ragged_eofs=False, **options)


def duplex(sock: socket.socket, data: bytes) -> bytes:
    """Send `data` while receiving, from one thread, until as much has come back; then end in order."""
    sock.setblocking(False)
    view = memoryview(data)
    got = bytearray()
    while len(got) < len(data):
        select.select([sock], [sock] if view else [], [], SECONDS)
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while view:
                view = view[sock.send(view[:65536]) :]
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while part := sock.recv(65536):
                got += part
            assert len(got) == len(data), "the stream ended early"
    sock.settimeout(SECONDS)
    finish(sock)
    return bytes(got)


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Run a blocking function in a thread, with a deadline."""
    with trio.fail_after(2 * SECONDS):
        return await trio.to_thread.run_sync(function, *args)
