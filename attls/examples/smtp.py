"""A mail server that accepts mail and drops it: SMTP with STARTTLS (RFC 3207) by AT-TLS.

    python -m attls.examples.smtp 0.0.0.0 25

STARTTLS is offered only where policy lets us start TLS, and mail is taken only under TLS.
"""

from __future__ import annotations

import socket

from attls import client
from attls.client import PolicyStatus
from attls.examples.serving import Lines, run


def talk(sock: socket.socket) -> None:
    """Hold one SMTP conversation."""
    lines = Lines(sock)
    may_start = client.query(sock).policy is PolicyStatus.APPLCNTRL
    secure = False
    lines.write("220 attls example ESMTP")
    while True:
        verb, _, rest = lines.read().partition(" ")
        verb = verb.upper()
        if verb == "EHLO":
            extensions = ["STARTTLS"] if may_start and not secure else []
            words = ["example", "8BITMIME", *extensions]
            lines.write(*[f"250-{word}" for word in words[:-1]], f"250 {words[-1]}")
        elif verb == "HELO":
            lines.write("250 example")
        elif verb == "STARTTLS":
            if rest or not may_start or secure:
                lines.write("454 TLS is not available now")
                continue
            lines.write("220 go ahead")
            secure = client.start_tls(sock).is_secure
        elif verb == "QUIT":
            lines.write("221 bye")
            return
        elif verb in ("NOOP", "RSET"):
            lines.write("250 ok")
        elif not secure:
            lines.write("530 say STARTTLS first")
        elif verb in ("MAIL", "RCPT"):
            lines.write("250 ok")
        elif verb == "DATA":
            lines.write("354 end with a dot")
            while lines.read() != ".":
                pass
            status = client.query(sock)
            lines.write(f"250 taken over {status.protocol} {status.cipher}")
        else:
            lines.write("502 not here")


if __name__ == "__main__":
    run(talk)
