"""Real daemons in namespaces of their own, programs behind them, and peers in front of them, for the scenes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from click.testing import CliRunner

from attls.cli import main
from tests.namespaces import Namespace, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
READY_SECONDS = 30.0


def make_rings(store: Path) -> None:
    """Make a CA, a certificate for a server, and the rings SRV/RING and CLI/RING."""
    for command in (
        "cert create-ca --label CA --cn Scene-CA",
        "cert issue --owner SRV --label server --cn server --sign-with CA --san IP:10.1.0.1,IP:10.1.0.2",
        "keyring create SRV/RING",
        "keyring connect SRV/RING --owner SRV --label server --default",
        "keyring connect SRV/RING --owner CERTAUTH --label CA",
        "keyring create CLI/RING",
        "keyring connect CLI/RING --owner CERTAUTH --label CA",
        f"cert export --owner CERTAUTH --label CA --out {store}/ca.pem",
        f"cert export --owner SRV --label server --with-key --out {store}/server.pem",
    ):
        done = CliRunner().invoke(main, [*command.split(), "--keyrings", str(store)])
        assert done.exit_code == 0, (command, done.output)


def rule(
    name: str,
    *,
    direction: str = "Inbound",
    port: int = 7000,
    ring: str = "",
    trace: int = 7,
    enabled: bool = True,
    extra: str = "",
) -> str:
    """Return the text of one rule with its actions: server for inbound, client for outbound; `extra` is advanced."""
    inbound = direction == "Inbound"
    ring = ring or ("SRV/RING" if inbound else "CLI/RING")
    role = "Server" if inbound else "Client"
    reference = f"  TTLSEnvironmentActionRef {name}-env\n" if enabled else ""
    text = f"""\
TTLSRule {name}
{{
  {"Local" if inbound else "Remote"}PortRange {port}
  Direction {direction}
  TTLSGroupActionRef {name}-grp
{reference}}}
TTLSGroupAction {name}-grp
{{
  TTLSEnabled {"On" if enabled else "Off"}
  Trace {trace}
}}
"""
    if not enabled:
        return text
    return f"""{text}TTLSEnvironmentAction {name}-env
{{
  HandshakeRole {role}
  TTLSKeyringParms
  {{
    Keyring {ring}
  }}
  TTLSEnvironmentAdvancedParms
  {{
    {extra}
  }}
}}
"""


class Daemon:
    """One `attls run` in a namespace; `folder` takes its policy, run directory and log. Ends with the namespace."""

    def __init__(self, where: Namespace, folder: Path, *, rings: Path) -> None:
        self.where = where
        self.folder = folder
        self.rings = rings
        self.policy = folder / "attls.policy"
        self.run_dir = folder / "run"
        self.process: subprocess.Popen[str] | None = None

    def start(self, policy: str, *arguments: str, wrapper: Sequence[str] = ()) -> Self:
        """Start it under `policy` and wait until it is ready."""
        self.launch(policy, *arguments, wrapper=wrapper)
        process = self.process
        assert process is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready "), self.log
        return self

    def launch(self, policy: str, *arguments: str, wrapper: Sequence[str] = (), **environment: str) -> None:
        """Start it and do not wait."""
        self.policy.write_text(policy)
        with (self.folder / "log").open("a") as log:
            self.process = self.where.popen(
                [*wrapper, sys.executable, "-m", "attls", "run", "--policy", str(self.policy),
                 "--keyrings", str(self.rings), "--run-dir", str(self.run_dir), "--workers", "2", *arguments],
                stdout=subprocess.PIPE, stderr=log, text=True, env={**_environment(), **environment},
            )  # fmt: skip

    def fails(self, policy: str, *arguments: str, wrapper: Sequence[str] = (), **environment: str) -> tuple[int, str]:
        """Start it, expecting that it cannot; return exit code and what it wrote to standard error."""
        self.policy.write_text(policy)
        with self.where.inside():
            done = subprocess.run(
                [*wrapper, sys.executable, "-m", "attls", "run", "--policy", str(self.policy),
                 "--keyrings", str(self.rings), "--run-dir", str(self.run_dir), "--workers", "1", *arguments],
                capture_output=True, text=True, env={**_environment(), **environment}, timeout=60, check=False,
            )  # fmt: skip
        assert done.stdout == ""
        return done.returncode, done.stderr

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an operator's command against it."""
        return subprocess.run(
            [sys.executable, "-m", "attls", *arguments, "--run-dir", str(self.run_dir)],
            capture_output=True, text=True, env=_environment(), timeout=120, check=False,
        )  # fmt: skip

    @property
    def log(self) -> str:
        """What it wrote to standard error."""
        return (self.folder / "log").read_text()

    @property
    def pid(self) -> int:
        """The supervisor's process number, from its pid file."""
        return int((self.run_dir / "attls.pid").read_text())

    def workers(self) -> dict[int, int]:
        """Return the process number of each worker."""
        return {int(number): pid for number, pid in self.status()["worker_processes"].items()}

    def status(self) -> dict[str, Any]:
        """Return what `attls status --json` says."""
        status: dict[str, Any] = json.loads(self.ask("status", "--json").stdout)
        return status

    def connections(self) -> list[dict[str, Any]]:
        """Return what `attls netstat --json` says."""
        entries: list[dict[str, Any]] = json.loads(self.ask("netstat", "--json").stdout)
        return entries

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 30.0) -> int:
        """Wait for its end and return the exit code."""
        assert self.process is not None
        return self.process.wait(seconds)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


class Program:
    """A legacy program: listens on a port of its namespace and echoes every connection until its end."""

    def __init__(self, listener: socket.socket, wrap: Callable[[socket.socket], socket.socket] | None = None) -> None:
        self.listener = listener
        self.peers: list[str] = []
        self._wrap = wrap
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, name = self.listener.accept()
                self.peers.append(name[0])
                threading.Thread(target=self._echo, args=(accepted,), daemon=True).start()

    def _echo(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError), accepted:
            stream = self._wrap(accepted) if self._wrap is not None else accepted
            with stream:
                while data := stream.recv(65536):
                    stream.sendall(data)


@contextlib.contextmanager
def program(
    where: Namespace, address: str = "0.0.0.0", port: int = 7000, *, tls: ssl.SSLContext | None = None
) -> Iterator[Program]:
    """Run an echo program, with TLS of its own if `tls` is given."""
    wrap = (lambda sock: tls.wrap_socket(sock, server_side=True)) if tls is not None else None
    with where.listen(address, port, backlog=512) as listener:
        yield Program(listener, wrap)
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept()


def client_context(rings: Path) -> ssl.SSLContext:
    """Return a TLS client that trusts the scene's CA; names are not its business."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(rings / "ca.pem")
    return context


def server_context(rings: Path) -> ssl.SSLContext:
    """Return a TLS server with the scene's server certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(rings / "server.pem")
    return context


def echo(sock: socket.socket, data: bytes = b"hello") -> bytes:
    """Send `data` and read as much back."""
    sock.sendall(data)
    return receive(sock, len(data))


def ends(sock: socket.socket) -> bool:
    """Tell whether the connection is over, by a reset or an end, before it has echoed a hundred times."""
    try:
        return any(echo(sock) != b"hello" for _ in range(100))
    except OSError:
        return True


def receive(sock: socket.socket, count: int) -> bytes:
    """Read exactly `count` bytes, less at the end of the stream."""
    parts = b""
    while len(parts) < count:
        part = sock.recv(count - len(parts))
        if not part:
            break
        parts += part
    return parts


class Load:
    """Threads that keep making connections; `failures` says what went wrong, `done` counts those that went well."""

    def __init__(self, once: Callable[[], None], threads: int = 4) -> None:
        self.done = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._once = once
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._once()
                self.done += 1
            except Exception as error:  # noqa: BLE001 - a failure is what the scene looks for
                self.failures.append(repr(error))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.done > 3 or self.failures, 20)
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
