"""A database that knows one thing, how it is reached: PostgreSQL's protocol with SSLRequest answered by AT-TLS.

    python -m attls.examples.postgres 0.0.0.0 5432

Every query returns one row: user, protocol, cipher. The protocol: https://www.postgresql.org/docs/current/protocol.html
"""

from __future__ import annotations

import socket
import struct

from attls import client
from attls.client import PolicyStatus
from attls.examples.serving import exactly, run

SSL_REQUEST, GSS_REQUEST, VERSION3 = 80877103, 80877104, 196608
TEXT = 25
LARGEST = 10_000


def message(kind: bytes, body: bytes) -> bytes:
    """Return one message of the server."""
    return kind + struct.pack("!I", len(body) + 4) + body


def row(*values: str) -> bytes:
    """Return a result of one row and three columns."""
    names = ("user", "protocol", "cipher")
    fields = b"".join(name.encode() + b"\0" + struct.pack("!IHIhiH", 0, 0, TEXT, -1, -1, 0) for name in names)
    cells = b"".join(struct.pack("!I", len(value)) + value.encode() for value in values)
    return (
        message(b"T", struct.pack("!H", len(names)) + fields)
        + message(b"D", struct.pack("!H", len(values)) + cells)
        + message(b"C", b"SELECT 1\0")
    )


def talk(sock: socket.socket) -> None:
    """Hold one conversation with a database client."""
    secure = False
    while True:
        length, code = struct.unpack("!II", exactly(sock, 8))
        rest = exactly(sock, min(length - 8, LARGEST))
        if code == VERSION3:
            break
        may_start = code == SSL_REQUEST and not secure and client.query(sock).policy is PolicyStatus.APPLCNTRL
        sock.sendall(b"S" if may_start else b"N")
        if may_start:
            secure = client.start_tls(sock).is_secure
    words = rest.split(b"\0")
    settings = dict(zip(words[::2], words[1::2], strict=False))
    if not secure:
        sock.sendall(message(b"E", b"SFATAL\0C28000\0Mthis server wants sslmode=require\0\0"))
        return
    sock.sendall(message(b"R", struct.pack("!I", 0)) + message(b"S", b"server_version\x0015.0\0") + message(b"Z", b"I"))
    while True:
        kind, length = struct.unpack("!cI", exactly(sock, 5))
        exactly(sock, min(length - 4, LARGEST))
        if kind == b"X":
            return
        if kind == b"Q":
            status = client.query(sock)
            found = row(settings.get(b"user", b"").decode(), status.protocol or "", status.cipher or "")
            sock.sendall(found + message(b"Z", b"I"))


if __name__ == "__main__":
    run(talk)
