"""An FTP server over one directory: AUTH TLS, PROT P and CCC (RFC 4217) by AT-TLS.

    python -m attls.examples.ftp 10.0.0.1 21 DIRECTORY FIRST-LAST

FIRST-LAST are the ports for passive data connections. The policy says ApplicationControlled On for the control port,
and for the data ports as well unless SecondaryMap takes them along. Everybody is let in; nothing outside the directory
is served.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

from attls import client
from attls.client import AttlsControlError, PolicyStatus
from attls.examples.serving import IDLE_SECONDS, Lines, serve


class Session:
    """One control connection and its data connections."""

    def __init__(self, sock: socket.socket, directory: Path, ports: range) -> None:
        self.sock = sock
        self.lines = Lines(sock)
        self.directory = directory
        self.ports = ports
        self.secure = False
        self.protect = False
        self.listener: socket.socket | None = None
        self.invitation: int | None = None

    def hold(self) -> None:
        """Answer commands until QUIT."""
        self.lines.write("220 attls example")
        while True:
            verb, _, rest = self.lines.read().partition(" ")
            action = getattr(self, f"do_{verb.lower()}", None) if verb.isalpha() else None
            if verb.upper() == "QUIT":
                self.lines.write("221 bye")
                return
            if action is None:
                self.lines.write("502 not here")
            else:
                action(rest)

    # The control connection

    def do_auth(self, mechanism: str) -> None:
        """AUTH TLS: everything behind the answer is TLS."""
        if mechanism.upper() != "TLS" or client.query(self.sock).policy is not PolicyStatus.APPLCNTRL or self.secure:
            self.lines.write("534 no")
            return
        self.lines.write("234 begin TLS now")
        self.secure = client.start_tls(self.sock).is_secure

    def do_ccc(self, _: str) -> None:
        """CCC: back to clear commands, protected data stays so."""
        if not self.secure:
            self.lines.write("533 there is no TLS to end")
            return
        self.lines.write("200 ending TLS")
        client.stop_tls(self.sock)
        self.secure = False

    def do_pbsz(self, _: str) -> None:
        """PBSZ 0 means nothing with TLS."""
        self.lines.write("200 PBSZ=0")

    def do_prot(self, level: str) -> None:
        """PROT P protects data connections, PROT C does not."""
        if level.upper() not in ("P", "C"):
            self.lines.write("536 P or C")
            return
        self.protect = level.upper() == "P"
        self.lines.write("200 ok")

    def do_feat(self, _: str) -> None:
        """Tell what is here."""
        self.lines.write("211-here is", " AUTH TLS", " PBSZ", " PROT", " CCC", " EPSV", " EPRT", " SIZE", "211 end")

    def do_user(self, _: str) -> None:
        """Let everybody in."""
        self.lines.write("230 welcome")

    def do_pass(self, _: str) -> None:
        """Let everybody in."""
        self.lines.write("230 welcome")

    def do_syst(self, _: str) -> None:
        """Tell the system."""
        self.lines.write("215 UNIX Type: L8")

    def do_opts(self, _: str) -> None:
        """Take any option."""
        self.lines.write("200 ok")

    do_type = do_opts
    do_noop = do_opts

    def do_pwd(self, _: str) -> None:
        """There is one directory."""
        self.lines.write('257 "/" is where you are')

    def do_cwd(self, where: str) -> None:
        """There is one directory."""
        self.lines.write("250 ok" if where in ("/", ".", "") else "550 there is no other directory")

    def do_size(self, name: str) -> None:
        """Tell a file's size."""
        path = self.path(name)
        self.lines.write(f"213 {path.stat().st_size}" if path is not None and path.is_file() else "550 no such file")

    # Data connections

    def do_epsv(self, _: str) -> None:
        """Open a port for the next data connection."""
        self.listen()
        assert self.listener is not None
        self.lines.write(f"229 come (|||{self.listener.getsockname()[1]}|)")

    def do_pasv(self, _: str) -> None:
        """Open a port for the next data connection, the old way."""
        self.listen()
        assert self.listener is not None
        address, port = self.listener.getsockname()[:2]
        self.lines.write(f"227 come ({address.replace('.', ',')},{port >> 8},{port & 255})")

    def do_eprt(self, where: str) -> None:
        """Connect to the client for the next data connection (RFC 2428)."""
        self.invite(where.rpartition(where[:1])[0].rpartition(where[:1])[2])

    def do_port(self, where: str) -> None:
        """Connect to the client for the next data connection, the old way."""
        high, _, low = where.rpartition(",")
        self.invite(str(int(high.rpartition(",")[2]) * 256 + int(low)))

    def invite(self, port: str) -> None:
        """Note where to connect to: a port of the client itself, never of anybody else."""
        self.invitation = int(port)
        self.forget_listener()
        self.lines.write("200 ok")

    def forget_listener(self) -> None:
        """Listen no more."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None

    def listen(self) -> None:
        """Listen on the first port that is free."""
        self.forget_listener()
        self.invitation = None
        for port in self.ports:
            with contextlib.suppress(OSError):
                self.listener = socket.create_server((self.sock.getsockname()[0], port), family=self.sock.family)
                self.listener.settimeout(IDLE_SECONDS)
                return
        raise OSError("all data ports are in use")

    def data(self) -> socket.socket | None:
        """Return the data connection, under TLS if it is to be; None where that did not work."""
        if self.listener is None and self.invitation is None:
            self.lines.write("425 say EPSV or EPRT first")
            return None
        self.lines.write("150 here it comes")
        if self.listener is not None:
            sock, _ = self.listener.accept()
            self.forget_listener()
        else:
            address = (self.sock.getpeername()[0], self.invitation)
            sock = socket.create_connection(address, IDLE_SECONDS, (self.sock.getsockname()[0], 0))
        sock.settimeout(IDLE_SECONDS)
        if self.protect:
            try:
                client.start_tls(sock)
            except AttlsControlError as error:
                sock.close()
                self.lines.write(f"425 no TLS for the data: {error}")
                return None
        return sock

    def path(self, name: str) -> Path | None:
        """Return the place of a file of ours, None for every other one."""
        plain = name.lstrip("/")
        return self.directory / plain if plain and "/" not in plain and plain not in (".", "..") else None

    def do_list(self, _: str) -> None:
        """List the directory."""
        sock = self.data()
        if sock is not None:
            with sock:
                for path in sorted(self.directory.iterdir()):
                    size = path.stat().st_size
                    sock.sendall(f"-rw-r--r-- 1 ftp ftp {size:12} Jan 01 00:00 {path.name}\r\n".encode())
            self.lines.write("226 done")

    def do_nlst(self, _: str) -> None:
        """List names."""
        sock = self.data()
        if sock is not None:
            with sock:
                sock.sendall("".join(f"{path.name}\r\n" for path in sorted(self.directory.iterdir())).encode())
            self.lines.write("226 done")

    def do_retr(self, name: str) -> None:
        """Send a file."""
        path = self.path(name)
        if path is None or not path.is_file():
            self.lines.write("550 no such file")
            return
        sock = self.data()
        if sock is not None:
            with sock, path.open("rb") as file:
                sock.sendfile(file)
            self.lines.write("226 done")

    def do_stor(self, name: str) -> None:
        """Take a file."""
        path = self.path(name)
        if path is None:
            self.lines.write("553 not there")
            return
        sock = self.data()
        if sock is not None:
            with sock, path.open("wb") as file:
                while part := sock.recv(65536):
                    file.write(part)
            self.lines.write("226 done")


def main() -> None:
    """Serve what the command line says."""
    if len(sys.argv) != 5:
        sys.exit(f"usage: {sys.argv[0]} ADDRESS PORT DIRECTORY FIRST-LAST")
    address, port, directory, ports = sys.argv[1:]
    first, _, last = ports.partition("-")
    data_ports = range(int(first), int(last) + 1)
    with contextlib.suppress(KeyboardInterrupt):
        serve(address, int(port), lambda sock: Session(sock, Path(directory), data_ports).hold())


if __name__ == "__main__":
    main()
