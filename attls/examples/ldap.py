"""An empty directory: LDAP with the StartTLS extended operation (RFC 4511 section 4.14) by AT-TLS.

    python -m attls.examples.ldap 0.0.0.0 389

Knows bind, search, unbind and StartTLS; without TLS every other request is refused (confidentialityRequired).
"""

from __future__ import annotations

import socket

from attls import client
from attls.examples.serving import exactly, run

START_TLS = b"1.3.6.1.4.1.1466.20037"
SUCCESS, CONFIDENTIALITY_REQUIRED, PROTOCOL_ERROR = 0, 13, 2
BIND, UNBIND, SEARCH, EXTENDED = 0x60, 0x42, 0x63, 0x77
ANSWERS = {BIND: 0x61, SEARCH: 0x65, EXTENDED: 0x78}
LARGEST = 65_536


def element(tag: int, body: bytes) -> bytes:
    """Return one BER element."""
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes(4)
    return bytes([tag, 0x84]) + length + body


def split(data: bytes) -> tuple[int, bytes, bytes]:
    """Return tag and body of the first element of `data`, and the rest; raises ValueError."""
    if len(data) < 2:
        raise ValueError("an element that is cut")
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start])
    return data[0], data[start : start + length], data[start + length :]


def read(sock: socket.socket) -> bytes:
    """Read the body of one LDAP message, and not a byte of the next one."""
    head = exactly(sock, 2)
    length = head[1]
    if length & 0x80:
        length = int.from_bytes(exactly(sock, length & 0x7F))
    if length > LARGEST:
        raise ValueError("a message that is too long")
    return exactly(sock, length)


def talk(sock: socket.socket) -> None:
    """Hold one conversation."""
    secure = False
    while True:
        _, number, rest = split(read(sock))
        kind, body, _ = split(rest)
        if kind == UNBIND or kind not in ANSWERS:
            return
        starts = kind == EXTENDED and split(body)[1] == START_TLS
        if starts:
            code = PROTOCOL_ERROR if secure else SUCCESS
        else:
            code = SUCCESS if secure and kind != EXTENDED else CONFIDENTIALITY_REQUIRED
        result = element(0x0A, bytes([code])) + element(0x04, b"") + element(0x04, b"")
        sock.sendall(element(0x30, element(0x02, number) + element(ANSWERS[kind], result)))
        if starts and code == SUCCESS:
            secure = client.start_tls(sock).is_secure


if __name__ == "__main__":
    run(talk)
