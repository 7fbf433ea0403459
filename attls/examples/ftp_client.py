"""An FTP client: AUTH TLS, PROT P and CCC (RFC 4217) by AT-TLS, with passive and active data connections.

    FTP_PASSWORD=… python -m attls.examples.ftp_client [--active] [--ccc] HOST PORT USER get|put|list [NAME]

`get` writes the file NAME into the current directory, `put` sends it from there. The policy says ApplicationControlled
On and SecondaryMap On for the server's control port; data connections need no rule. They resume the control
connection's session, which many servers insist on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from attls import client
from attls.client import AttlsControlError, PolicyStatus
from attls.examples.serving import IDLE_SECONDS, Lines


class FtpError(Exception):
    """The server said no, or something that is not FTP."""


class Ftp:
    """A control connection under TLS; close it with `with`.

    Raises FtpError when the server refuses, and before a word is said when policy does not let us start TLS.
    """

    def __init__(self, host: str, port: int, *, active: bool = False) -> None:
        self.sock = socket.create_connection((host, port), timeout=IDLE_SECONDS)
        self.lines = Lines(self.sock)
        self.active = active
        try:
            if client.query(self.sock).policy is not PolicyStatus.APPLCNTRL:
                raise FtpError(f"policy does not let us start TLS to {host} port {port} (ApplicationControlled On)")
            self.hear("220")
            self.say("AUTH TLS", "234")
            client.start_tls(self.sock)
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    # The control connection

    def say(self, command: str, *expected: str) -> str:
        """Send a command; return the last line of the answer, or raise FtpError."""
        self.lines.write(command)
        return self.hear(*expected)

    def hear(self, *expected: str) -> str:
        """Return the last line of an answer that begins with one of `expected`, or raise FtpError."""
        line = self.lines.read()
        if line[3:4] == "-":
            code = line[:3]
            while not line.startswith(f"{code} "):
                line = self.lines.read()
        if not line.startswith(expected):
            raise FtpError(f"the server said: {line}")
        return line

    def login(self, user: str, password: str) -> None:
        """Log in, and have data connections protected."""
        if self.say(f"USER {user}", "230", "331").startswith("331"):
            self.say(f"PASS {password}", "230")
        self.say("PBSZ 0", "200")
        self.say("PROT P", "200")
        self.say("TYPE I", "200")

    def clear_commands(self) -> None:
        """CCC: commands go in clear from here on, so that a firewall can read them; data stays protected."""
        self.say("CCC", "200")
        client.stop_tls(self.sock)

    def quit(self) -> None:
        """Take leave."""
        self.say("QUIT", "221")

    # Data connections

    def get(self, name: str) -> bytes:
        """Return a file."""
        with self.data(f"RETR {name}") as sock:
            found = everything(sock)
        self.hear("226", "250")
        return found

    def list(self) -> str:
        """Return the directory as the server shows it."""
        with self.data("LIST") as sock:
            found = everything(sock)
        self.hear("226", "250")
        return found.decode("utf-8", "replace")

    def put(self, name: str, content: bytes) -> None:
        """Store a file."""
        with self.data(f"STOR {name}") as sock:
            sock.sendall(content)
        self.hear("226", "250")

    @contextlib.contextmanager
    def data(self, command: str) -> Iterator[socket.socket]:
        """Yield the data connection of `command`, under TLS."""
        with self.invited(command) if self.active else self.passive(command) as sock:
            sock.settimeout(IDLE_SECONDS)
            client.start_tls(sock)
            yield sock

    def passive(self, command: str) -> socket.socket:
        """Connect to where the server listens."""
        answer = self.say("EPSV", "229")
        found = re.search(r"\(\|\|\|(\d+)\|\)", answer)
        if found is None:
            raise FtpError(f"the server said: {answer}")
        sock = socket.create_connection((self.sock.getpeername()[0], int(found[1])), timeout=IDLE_SECONDS)
        try:
            self.say(command, "150", "125")
        except BaseException:
            sock.close()
            raise
        return sock

    def invited(self, command: str) -> socket.socket:
        """Listen, and let the server connect."""
        here = self.sock.getsockname()[0]
        with socket.create_server((here, 0), family=self.sock.family) as listener:
            listener.settimeout(IDLE_SECONDS)
            kind = 2 if self.sock.family == socket.AF_INET6 else 1
            self.say(f"EPRT |{kind}|{here}|{listener.getsockname()[1]}|", "200")
            self.say(command, "150", "125")
            sock, _ = listener.accept()
        return sock


def everything(sock: socket.socket) -> bytes:
    """Read to the end; what is cut raises ConnectionResetError instead of looking complete."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def main() -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m attls.examples.ftp_client", description=__doc__)
    parser.add_argument("--active", action="store_true", help="let the server connect for data")
    parser.add_argument("--ccc", action="store_true", help="send commands in clear after logging in")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("user")
    parser.add_argument("action", choices=["get", "put", "list"])
    parser.add_argument("name", nargs="?", default="")
    options = parser.parse_args()
    path = Path(options.name)
    if options.action != "list" and not path.name:
        parser.error(f"{options.action} needs a NAME")
    try:
        with Ftp(options.host, options.port, active=options.active) as ftp:
            ftp.login(options.user, os.environ.get("FTP_PASSWORD", ""))
            if options.ccc:
                ftp.clear_commands()
            if options.action == "list":
                print(ftp.list(), end="")
            elif options.action == "get":
                path.write_bytes(ftp.get(path.name))
            else:
                ftp.put(path.name, path.read_bytes())
            ftp.quit()
    except (AttlsControlError, FtpError, EOFError, OSError) as error:
        print(f"{parser.prog}: {error or 'the server hung up'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
