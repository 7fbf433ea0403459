"""What the example servers share: a listener, a thread for each connection, and lines of text.

`Lines` reads no byte more than it returns. That matters: what a program has not read when it asks for TLS belongs to
TLS, and what it has read ahead would be lost to it.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable

from attls.client import AttlsControlError

LONGEST_LINE = 4096
IDLE_SECONDS = 120.0


class Lines:
    """A connection of lines; raises EOFError at its end and ValueError for a line that never ends."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def read(self) -> str:
        """Return the next line without its end, taking nothing behind it from the socket."""
        line = b""
        while not line.endswith(b"\n"):
            ahead = self.sock.recv(LONGEST_LINE - len(line), socket.MSG_PEEK)
            if not ahead:
                raise EOFError
            end = ahead.find(b"\n")
            line += self.sock.recv(end + 1 if end >= 0 else len(ahead))
            if len(line) >= LONGEST_LINE:
                raise ValueError("a line that is too long")
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def write(self, *lines: str) -> None:
        """Send lines."""
        self.sock.sendall("".join(f"{line}\r\n" for line in lines).encode())


def exactly(sock: socket.socket, count: int) -> bytes:
    """Read `count` bytes; raises EOFError when the stream ends before."""
    parts = b""
    while len(parts) < count:
        part = sock.recv(count - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts


def serve(address: str, port: int, talk: Callable[[socket.socket], None]) -> None:
    """Listen and have `talk` hold each conversation in a thread of its own, until interrupted."""

    def one(accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(EOFError, ValueError, OSError):
            accepted.settimeout(IDLE_SECONDS)
            try:
                talk(accepted)
            except AttlsControlError as error:
                print(f"connection ended: {error}", file=sys.stderr)

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=128) as listener:
        print(f"listening on {address} port {port}", flush=True)
        while True:
            accepted, _ = listener.accept()
            threading.Thread(target=one, args=(accepted,), daemon=True).start()


def run(talk: Callable[[socket.socket], None]) -> None:
    """Serve on the address and port of the command line."""
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal():
        sys.exit(f"usage: {sys.argv[0]} ADDRESS PORT")
    with contextlib.suppress(KeyboardInterrupt):
        serve(sys.argv[1], int(sys.argv[2]), talk)
