"""Clients of five protocols that agree on TLS in clear and start it by AT-TLS; each shows what the server says then.

    python -m attls.examples.ask smtp|imap|pop3|ldap|postgres HOST PORT [USER]

The policy of the port says ApplicationControlled On. USER is the database user (postgres) and logs in without a
password. What a negotiation looks like: RFC 3207 (SMTP), RFC 9051 section 6.2.1 (IMAP), RFC 2595 section 4 (POP3), RFC
4511 section 4.14 (LDAP), https://www.postgresql.org/docs/current/protocol-flow.html (PostgreSQL).
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable

from attls import client
from attls.client import AttlsControlError, PolicyStatus
from attls.examples.ldap import EXTENDED, START_TLS, element, read, split
from attls.examples.postgres import SSL_REQUEST, VERSION3
from attls.examples.serving import IDLE_SECONDS, Lines, exactly


class RefusedError(Exception):
    """The server does not start TLS, or does not say what its protocol wants."""


def expect(line: str, *beginnings: str) -> str:
    """Return `line` if it begins as it should, or raise RefusedError."""
    if not line.startswith(beginnings):
        raise RefusedError(f"the server said: {line}")
    return line


def start(sock: socket.socket) -> None:
    """Start TLS and tell what came of it."""
    status = client.start_tls(sock)
    print(f"{status.protocol} {status.cipher}, rule {status.rule}")


def smtp(sock: socket.socket, _user: str) -> str:
    """STARTTLS, and what EHLO says under TLS."""
    lines = Lines(sock)

    def hear(code: str) -> list[str]:
        answer = [expect(lines.read(), code)]
        while answer[-1][3:4] == "-":
            answer.append(expect(lines.read(), code))
        return answer

    hear("220")
    lines.write("EHLO example")
    hear("250")
    lines.write("STARTTLS")
    hear("220")
    start(sock)
    lines.write("EHLO example")
    answer = hear("250")
    lines.write("QUIT")
    hear("221")
    return "\n".join(answer)


def imap(sock: socket.socket, _user: str) -> str:
    """STARTTLS, and the capabilities under TLS."""
    lines = Lines(sock)

    def command(text: str) -> list[str]:
        lines.write(f"a {text}")
        answer = [lines.read()]
        while not answer[-1].startswith("a "):
            answer.append(lines.read())
        expect(answer[-1], "a OK")
        return answer

    expect(lines.read(), "* OK")
    command("STARTTLS")
    start(sock)
    answer = command("CAPABILITY")
    command("LOGOUT")
    return "\n".join(answer)


def pop3(sock: socket.socket, _user: str) -> str:
    """STLS, and the capabilities under TLS."""
    lines = Lines(sock)
    expect(lines.read(), "+OK")
    lines.write("STLS")
    expect(lines.read(), "+OK")
    start(sock)
    lines.write("CAPA")
    answer = [expect(lines.read(), "+OK")]
    while answer[-1] != ".":
        answer.append(lines.read())
    lines.write("QUIT")
    expect(lines.read(), "+OK")
    return "\n".join(answer)


def ldap(sock: socket.socket, _user: str) -> str:
    """StartTLS, and an anonymous bind under TLS."""

    def request(number: int, tag: int, body: bytes) -> int:
        sock.sendall(element(0x30, element(0x02, bytes([number])) + element(tag, body)))
        _, _, rest = split(read(sock))
        _, answer, _ = split(rest)
        return split(answer)[1][0]

    code = request(1, EXTENDED, element(0x80, START_TLS))
    if code:
        raise RefusedError(f"StartTLS ended with result code {code}")
    start(sock)
    code = request(2, 0x60, element(0x02, b"\x03") + element(0x04, b"") + element(0x80, b""))
    return f"anonymous bind: result code {code}"


def postgres(sock: socket.socket, user: str) -> str:
    """SSLRequest, and what the server knows of the TLS it sees."""
    sock.sendall(struct.pack("!II", 8, SSL_REQUEST))
    if exactly(sock, 1) != b"S":
        raise RefusedError("the server has TLS switched off")
    start(sock)
    words = f"user\0{user}\0database\0postgres\0\0".encode()
    sock.sendall(struct.pack("!II", len(words) + 8, VERSION3) + words)
    query = b"select ssl, version, cipher from pg_stat_ssl where pid = pg_backend_pid()\0"
    asked = False
    while True:
        kind, length = struct.unpack("!cI", exactly(sock, 5))
        body = exactly(sock, length - 4)
        if kind == b"E":
            raise RefusedError(f"the server said: {body.decode('utf-8', 'replace')}")
        if kind == b"Z" and not asked:
            sock.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
            asked = True
        elif kind == b"D":
            sock.sendall(b"X" + struct.pack("!I", 4))
            return " ".join(columns(body))


def columns(row: bytes) -> list[str]:
    """Return the values of a DataRow message."""
    (count,) = struct.unpack_from("!H", row)
    place, found = 2, []
    for _ in range(count):
        (length,) = struct.unpack_from("!I", row, place)
        found.append(row[place + 4 : place + 4 + length].decode())
        place += 4 + length
    return found


PROTOCOLS: dict[str, Callable[[socket.socket, str], str]] = {
    each.__name__: each for each in (smtp, imap, pop3, ldap, postgres)
}


def main() -> int:
    """Ask what the command line says; returns the exit code."""
    if len(sys.argv) not in (4, 5) or sys.argv[1] not in PROTOCOLS or not sys.argv[3].isdecimal():
        print(f"usage: {sys.argv[0]} {'|'.join(PROTOCOLS)} HOST PORT [USER]", file=sys.stderr)
        return 2
    name, host, port, *user = sys.argv[1:]
    try:
        with socket.create_connection((host, int(port)), timeout=IDLE_SECONDS) as sock:
            if client.query(sock).policy is not PolicyStatus.APPLCNTRL:
                raise RefusedError("policy does not let us start TLS here (ApplicationControlled On)")
            words = PROTOCOLS[name](sock, "".join(user))
            print(words)
    except (AttlsControlError, RefusedError, EOFError, ValueError, OSError) as error:
        print(f"{sys.argv[0]}: {error or 'the server hung up'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
