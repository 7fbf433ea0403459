"""The demo's first act: two plaintext programs under `attls exec`, started by whoever you are, on this very machine.

There is no wire between two programs of one machine that an ordinary user may listen to. So we lay one: a `Tap`, which
passes on what the client sends to it, to the server and back, and keeps a copy. It shares no code with the TLS engine;
reading its copies is `demo_capture`'s part, as in the other acts.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import click

from attls.cli.demo_capture import Stream
from attls.cli.demo_report import DemoBrokenOffError, Judge, Report, Tell, headline, hear_the_wire, tell_wire
from attls.cli.demo_stage import Conversation, wait_for_line
from attls.errors import AttlsError
from attls.model import Endpoint

ATTLS = (sys.executable, "-m", "attls")
HOST = "127.0.0.1"
POLICY_PORT = "6379"  # in the demo's policies; here each program has a port that is free
CIPHERS = {0x1301: "TLS_AES_128_GCM_SHA256", 0x1302: "TLS_AES_256_GCM_SHA384", 0x1303: "TLS_CHACHA20_POLY1305_SHA256"}
SECONDS = 15.0


class Tap:
    """A piece of wire on loopback: what comes in at `port` goes to `server` and back, and `streams` has copies of it.

    The maker closes it, which ends what runs through it.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self.client = "nobody"  # the server's latest client as the server must see it: our own end
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._streams: list[tuple[Endpoint, Endpoint, bytearray]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # of a listener that was closed
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection((HOST, self._server), SECONDS)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                self.client = str(Endpoint.of(far.getsockname()))
                self._sockets += (near, far)
                for source, target in ((near, far), (far, near)):
                    copy = bytearray()
                    self._streams.append((Endpoint.of(source.getpeername()), Endpoint.of(target.getpeername()), copy))
                    thread = threading.Thread(target=self._carry, args=(source, target, copy), daemon=True)
                    self._threads.append(thread)
                    thread.start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket, copy: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                copy += data
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def streams(self) -> list[Stream]:
        """Return what was said since the last call, after waiting for the end of it."""
        for thread in self._threads:
            thread.join(SECONDS)
        taken, self._streams = self._streams, []
        return [Stream(source, target, bytes(copy), 0) for source, target, copy in taken if copy]

    def close(self) -> None:
        """End what runs through it."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def play(report: Report, directory: Path, rings: Path, policies: Path, user: str, tell: Tell) -> None:
    """Play the act in `directory`, with the demo's rings and the demo's policies from the folder `policies`.

    Raises AttlsError where `attls exec` cannot work, DemoBrokenOffError when the play had to be broken off.
    """
    tell("")
    tell(headline("Act 1: one program at a time, no privileges"))
    tell(f"    redis-server and redis-cli on this machine, started by {user}; we listen between them.")
    tell("    The policies are those of act 3, with ports that are free here.")
    tell("")
    port = _free_port()
    server = ("redis-server", "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--dir",
              str(directory), "--logfile", "")  # fmt: skip
    with Tap(port) as tap:
        client = ("redis-cli", "-h", HOST, "-p", str(tap.port))
        with _server(server, directory):
            secret, answer, _ = _talk(client, directory, tell)
        streams = tap.streams()
        tell_wire(streams, secret, tell)
        judge = Judge(report, tell, 1)
        readable = sum(secret.encode() in stream.data for stream in streams)
        judge("the secret can be read on the wire", readable == 2, f"in {readable} of {len(streams)} streams")

        under = {}
        for role, place in (("server", port), ("client", tap.port)):
            policy = directory / f"{role}.policy"
            policy.write_text((policies / f"demo-{role}.policy").read_text().replace(POLICY_PORT, str(place)))
            under[role] = (*ATTLS, "exec", "--policy", str(policy), "--keyrings", str(rings), "--verbose", "--")
        tell("")
        tell(f"    $ attls exec --policy {_short('server')} --keyrings … -- redis-server")
        with _server((*under["server"], *server), directory):
            secret, answer, seen_by_server = _talk((*under["client"], *client), directory, tell)
            line = _verbose(directory / "client.err")
            streams = tap.streams()
            refused = subprocess.run(
                ("redis-cli", "-h", HOST, "-p", str(port), "GET", "payroll"), capture_output=True, text=True,
                timeout=SECONDS, check=False,
            )  # fmt: skip
    tell_wire(streams, secret, tell)
    tell(f"    attls    {line or 'said nothing'}")
    chosen = hear_the_wire(judge, streams, secret)
    name = CIPHERS.get(chosen.cipher, "an unknown cipher")
    judge("attls exec reports what the wire shows", f": TLSv1.3 {name}" in line, f"{name} in its line of --verbose")
    judge("the client got its data back unchanged", answer == secret, answer)
    judge("the server sees the client's address", seen_by_server == tap.client, f"{seen_by_server} in its CLIENT LIST")
    said = " ".join((refused.stdout + refused.stderr).split())
    judge("who speaks clear text is refused", secret not in said and "rror" in said, said or "nothing was said")


def _short(role: str) -> str:
    return f"policy/demo-{role}.policy"


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def _program(command: Sequence[str], errors: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program, out of reach of the terminal's Ctrl-C; it ends with the block, or with us, however we end."""
    with errors.open("w") as file:
        process = subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", "--", *command), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=file, text=True, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextlib.contextmanager
def _server(command: Sequence[str], directory: Path) -> Iterator[None]:
    """Run the server; the block begins when it accepts connections."""
    errors = directory / "server.err"
    with _program(command, errors) as process:
        try:
            wait_for_line(process, "Ready to accept connections", SECONDS)
        except AttlsError as error:
            said = errors.read_text(errors="replace").strip()
            if process.wait(5) == 3 and said.startswith("attls: "):  # its own words for "not on this machine"
                raise AttlsError(said.removeprefix("attls: ")) from None
            raise DemoBrokenOffError(f"redis-server did not start: {said or error}") from None
        yield


def _talk(command: Sequence[str], directory: Path, tell: Tell) -> tuple[str, str, str]:
    """Let the client store a new secret; return it, what it reads back, and its address as the server sees it."""
    secret = f"secret-{secrets.token_hex(6)}"
    prefix = f"attls exec --policy {_short('client')} --keyrings … --verbose -- " if command[0] != "redis-cli" else ""
    tell(f"    $ {prefix}redis-cli SET payroll {click.style(secret, bold=True)}")
    with _program(command, directory / "client.err") as process:
        conversation = Conversation(process, marker="ECHO")
        try:
            conversation.ask(f"SET payroll {secret}")
            answer = conversation.ask("GET payroll")
            clients = re.search(r"\baddr=(\S+)", conversation.ask("CLIENT LIST"))
        except AttlsError as error:
            said = (directory / "client.err").read_text(errors="replace").strip()
            raise DemoBrokenOffError(f"client and server could not talk: {error} {said}") from None
        finally:
            conversation.close()
    return secret, answer, clients[1] if clients else "nobody"


def _verbose(errors: Path) -> str:
    """Return the line that `attls exec --verbose` wrote of the connection; it can still be on its way."""
    lines = [line for line in errors.read_text(errors="replace").splitlines() if line.startswith("attls: ")]
    return lines[-1].removeprefix("attls: ") if lines else ""
