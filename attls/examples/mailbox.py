"""An empty mailbox, served as IMAP (STARTTLS, RFC 9051) or POP3 (STLS, RFC 2595) with TLS by AT-TLS.

    python -m attls.examples.mailbox 0.0.0.0 143

A port that ends in 10 speaks POP3, every other one IMAP. Nobody logs in without TLS.
"""

from __future__ import annotations

import socket
import sys

from attls import client
from attls.examples.serving import Lines, run


def imap(sock: socket.socket) -> None:
    """Hold one IMAP conversation."""
    lines = Lines(sock)
    secure = False
    lines.write("* OK attls example")
    while True:
        tag, _, command = lines.read().partition(" ")
        verb = command.partition(" ")[0].upper()
        if verb == "CAPABILITY":
            lines.write(f"* CAPABILITY IMAP4rev1 {'AUTH=PLAIN' if secure else 'STARTTLS LOGINDISABLED'}")
            lines.write(f"{tag} OK done")
        elif verb == "STARTTLS" and not secure:
            lines.write(f"{tag} OK begin TLS now")
            secure = client.start_tls(sock).is_secure
        elif verb == "LOGIN":
            lines.write(f"{tag} OK welcome" if secure else f"{tag} NO [PRIVACYREQUIRED] start TLS first")
        elif verb == "AUTHENTICATE" and secure:
            lines.write("+ ")
            lines.read()
            lines.write(f"{tag} OK welcome")
        elif verb in ("SELECT", "EXAMINE"):
            lines.write("* 0 EXISTS", f"{tag} OK [READ-ONLY] empty")
        elif verb == "NOOP":
            lines.write(f"{tag} OK done")
        elif verb == "LOGOUT":
            lines.write("* BYE see you", f"{tag} OK done")
            return
        else:
            lines.write(f"{tag} BAD not here")


def pop3(sock: socket.socket) -> None:
    """Hold one POP3 conversation."""
    lines = Lines(sock)
    secure = False
    lines.write("+OK attls example")
    while True:
        verb = lines.read().partition(" ")[0].upper()
        if verb == "CAPA":
            lines.write("+OK", "USER" if secure else "STLS", ".")
        elif verb == "STLS" and not secure:
            lines.write("+OK begin TLS now")
            secure = client.start_tls(sock).is_secure
        elif verb == "QUIT":
            lines.write("+OK bye")
            return
        elif not secure:
            lines.write("-ERR say STLS first")
        elif verb in ("USER", "PASS", "NOOP"):
            lines.write("+OK")
        elif verb == "STAT":
            lines.write("+OK 0 0")
        elif verb in ("LIST", "UIDL"):
            lines.write("+OK", ".")
        else:
            lines.write("-ERR not here")


if __name__ == "__main__":
    run(pop3 if sys.argv[-1].endswith("10") else imap)
