"""A 3270 host of one screen: TELNET with the START_TLS option, or TLS at once, by AT-TLS.

    python -m attls.examples.tn3270 0.0.0.0 23 secure|negotiate|any

What the last word means is what CONNTYPE means to the TN3270E server of z/OS. `secure`: TLS at once; a client that says
nothing for the time of HandshakeTimeout is asked by TELNET whether it can start TLS, and shown the door if it cannot.
`negotiate`: it is asked at once. `any`: as `secure`, but a client that cannot is served in clear. The server speaks
first, which is why a silent client must not cost the connection (ALLOW_HSTIMEOUT).

Sources: RFC 854 and 855 (TELNET), RFC 1576 (3270 over TELNET), draft-altman-telnet-starttls (START_TLS).
"""

from __future__ import annotations

import contextlib
import socket
import sys

from attls import client
from attls.client import PolicyStatus
from attls.examples.serving import exactly, serve

IAC, DO, WONT, WILL, SB, SE, EOR = 255, 253, 252, 251, 250, 240, 239
BINARY, TERMINAL_TYPE, END_OF_RECORD, START_TLS = 0, 24, 25, 46
SEND, FOLLOWS = 1, 1
WRITE, START_SCREEN = 0xF5, 0xC3  # erase and write; reset the keyboard and the modified fields
SET_ADDRESS, START_FIELD, INSERT_CURSOR, PROTECTED, INPUT = 0x11, 0x1D, 0x13, 0x60, 0x40
CLEAR, PF3 = 0x6D, 0xF3
ROWS = (0x4040, 0xC150, 0xC260)  # buffer addresses of the first rows, in the 3270's own digits
LAST_ROW = 0xC3F0
LONGEST = 4096


class Telnet:
    """One TELNET connection; reads no byte more than it returns."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def say(self, *words: int) -> None:
        """Send a command."""
        self.sock.sendall(bytes([IAC, *words]))

    def tell(self, option: int, *words: int) -> None:
        """Send a subnegotiation."""
        self.sock.sendall(bytes([IAC, SB, option, *words, IAC, SE]))

    def hear(self) -> bytes:
        """Return what comes next: a command (WILL and its option, …), SB and what it tells, or EOR and a record."""
        data = b""
        while len(data) < LONGEST:
            byte = exactly(self.sock, 1)[0]
            if byte != IAC:
                data += bytes([byte])
                continue
            word = exactly(self.sock, 1)[0]
            if word == IAC:
                data += b"\xff"
            elif word == SB:
                data = b""
            elif word == SE:
                return bytes([SB]) + data
            elif word == EOR:
                return bytes([EOR]) + data
            elif word > SB:
                return bytes([word]) + exactly(self.sock, 1)
        raise ValueError("a record that is too long")

    def hear_all(self, *expected: bytes) -> None:
        """Wait until each of `expected` has come, in any order; others are passed over."""
        missing = set(expected)
        while missing:
            missing.discard(self.hear())


def agree_on_tls(telnet: Telnet) -> bool:
    """Ask the client whether it can start TLS; when it returns True, TLS is next."""
    telnet.say(DO, START_TLS)
    while (answer := telnet.hear())[1:] != bytes([START_TLS]):
        pass
    if answer[0] != WILL:
        return False
    telnet.tell(START_TLS, FOLLOWS)
    telnet.hear_all(bytes([SB, START_TLS, FOLLOWS]))
    return True


def begin(sock: socket.socket, kind: str) -> bool:
    """Start TLS as `kind` says; False where the client may not stay."""
    if kind != "negotiate" and client.start_tls(sock, allow_handshake_timeout=True).is_secure:
        return True
    if not agree_on_tls(Telnet(sock)):
        return kind == "any"
    return client.start_tls(sock).is_secure


def negotiate_3270(telnet: Telnet) -> str:
    """Agree on 3270 records; return the model of the terminal."""
    telnet.say(DO, TERMINAL_TYPE)
    telnet.hear_all(bytes([WILL, TERMINAL_TYPE]))
    telnet.tell(TERMINAL_TYPE, SEND)
    while not (answer := telnet.hear()).startswith(bytes([SB, TERMINAL_TYPE])):
        pass
    for option in (END_OF_RECORD, BINARY):
        telnet.say(DO, option)
        telnet.say(WILL, option)
    telnet.hear_all(*(bytes([verb, option]) for option in (END_OF_RECORD, BINARY) for verb in (DO, WILL)))
    return answer[3:].decode("ascii", "replace")


def screen(*lines: str) -> bytes:
    """Return the record that shows up to three protected lines, and a field to type into."""
    body = bytes([WRITE, START_SCREEN])
    for place, line in zip(ROWS, lines, strict=False):
        body += bytes([SET_ADDRESS]) + place.to_bytes(2) + bytes([START_FIELD, PROTECTED]) + line.encode("cp037")
    body += bytes([SET_ADDRESS]) + LAST_ROW.to_bytes(2) + bytes([START_FIELD, INPUT, INSERT_CURSOR])
    return body.replace(b"\xff", b"\xff\xff") + bytes([IAC, EOR])


def talk(sock: socket.socket, kind: str) -> None:
    """Hold one conversation: show who is there and how it is protected, again for each key, until CLEAR or PF3."""
    if client.query(sock).policy is not PolicyStatus.APPLCNTRL or not begin(sock, kind):
        return
    telnet = Telnet(sock)
    model = negotiate_3270(telnet)
    key = 0
    while key not in (CLEAR, PF3):
        status = client.query(sock)
        how = f"{status.protocol} {status.cipher}" if status.is_secure else "in clear"
        sock.sendall(screen("ATTLS EXAMPLE", model, how))
        key = (telnet.hear() + b"\0")[1]


def main() -> None:
    """Serve what the command line says."""
    if len(sys.argv) != 4 or not sys.argv[2].isdecimal() or sys.argv[3] not in ("secure", "negotiate", "any"):
        sys.exit(f"usage: {sys.argv[0]} ADDRESS PORT secure|negotiate|any")
    with contextlib.suppress(KeyboardInterrupt):
        serve(sys.argv[1], int(sys.argv[2]), lambda sock: talk(sock, sys.argv[3]))


if __name__ == "__main__":
    main()
