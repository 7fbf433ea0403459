"""A stage for `attls exec`: rings, a policy, peers on loopback that speak TLS, and how to start a program under it.

Nothing here needs privileges. Ports are the kernel's choice, so several runs do not disturb each other; the policy is
written around them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attls.cli import main

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 60
RECIPE = (
    "cert create-ca --label CA --cn Stage-CA",
    "cert issue --owner T --label server --cn localhost --sign-with CA --san DNS:localhost,IP:127.0.0.1,IP:::1",
    "cert create-ca --label Other --cn Other-CA",
    "cert issue --owner T --label stranger --cn localhost --sign-with Other --san DNS:localhost,IP:127.0.0.1",
    "keyring create T/SERVER",
    "keyring create T/CLIENT",
    "keyring create T/STRANGER",
    "keyring connect T/SERVER --owner T --label server --default",
    "keyring connect T/SERVER --owner CERTAUTH --label CA",
    "keyring connect T/CLIENT --owner CERTAUTH --label CA",
    "keyring connect T/STRANGER --owner T --label stranger --default",
    "keyring connect T/STRANGER --owner CERTAUTH --label Other",
)
ACTIONS = """
TTLSGroupAction On
{
  TTLSEnabled On
}
TTLSGroupAction Off
{
  TTLSEnabled Off
}
TTLSEnvironmentAction Client
{
  HandshakeRole Client
  TTLSKeyringParms
  {
    Keyring T/CLIENT
  }
}
TTLSEnvironmentAction Server
{
  HandshakeRole Server
  TTLSKeyringParms
  {
    Keyring T/SERVER
  }
}
TTLSEnvironmentAction Primary
{
  HandshakeRole Client
  TTLSKeyringParms
  {
    Keyring T/CLIENT
  }
  TTLSEnvironmentAdvancedParms
  {
    SecondaryMap On
  }
}
TTLSEnvironmentAction Controlled
{
  HandshakeRole Client
  TTLSKeyringParms
  {
    Keyring T/CLIENT
  }
  TTLSEnvironmentAdvancedParms
  {
    ApplicationControlled On
  }
}
"""


def rule(name: str, direction: str, port: int, *, environment: str = "", group: str = "On", more: str = "") -> str:
    """Write a rule for one port: the remote one outbound, the local one inbound."""
    which = "RemotePortRange" if direction == "Outbound" else "LocalPortRange"
    action = f"  TTLSEnvironmentActionRef {environment}\n" if environment else ""
    return (
        f"TTLSRule {name}\n{{\n  {which} {port}\n  Direction {direction}\n  TTLSGroupActionRef {group}\n"
        f"{action}{more}}}\n"
    )


def outbound(port: int) -> str:
    """Write a rule: what goes to `port` is TLS, as its client."""
    return rule(f"out-{port}", "Outbound", port, environment="Client")


def inbound(port: int) -> str:
    """Write a rule: what comes in at `port` is TLS, as its server."""
    return rule(f"in-{port}", "Inbound", port, environment="Server")


def free_port(host: str = "127.0.0.1", family: int = socket.AF_INET) -> int:
    """Return a port that nobody uses at this moment."""
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


@dataclass(frozen=True)
class Stage:
    """A directory with `rings`, `ca.pem`, and keys for peers; readable for everybody, as the programs may be nobody."""

    directory: Path
    python: tuple[str, ...] = (sys.executable,)

    @property
    def rings(self) -> Path:
        """The keyring store."""
        return self.directory / "rings"

    @property
    def ca(self) -> Path:
        """The authority that the client's ring trusts."""
        return self.directory / "ca.pem"

    def key(self, name: str = "server") -> Path:
        """A certificate with its key: `server`, or `stranger`, which nobody trusts."""
        return self.directory / f"{name}.pem"

    def policy(self, *rules: str, name: str = "test") -> Path:
        """Write a policy and return its path."""
        path = self.directory / f"{name}-{time.monotonic_ns()}.policy"
        path.write_text("".join(rules) + ACTIONS)
        return path

    def command(self, policy: Path, *program: str | Path, options: Sequence[str] = ()) -> list[str]:
        """Return the command line that starts `program` under `policy`."""
        words = [*self.python, "-m", "attls", "exec", "--policy", policy, "--keyrings", self.rings]
        return [str(word) for word in (*words, *options, "--", *program)]

    def run(self, policy: Path, *program: str | Path, options: Sequence[str] = (), **more: object) -> Done:
        """Run a program to its end and return what came out."""
        done = subprocess.run(  # type: ignore[call-overload]
            self.command(policy, *program, options=options),
            **{"capture_output": True, "text": True, "timeout": SECONDS, "env": environment(), "check": False, **more},
        )
        return Done(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def start(
        self, policy: Path, *program: str | Path, options: Sequence[str] = (), **more: object
    ) -> Iterator[subprocess.Popen[str]]:
        """Run a program in the background; it is killed at the end if it still runs."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        process = subprocess.Popen(  # type: ignore[call-overload]
            self.command(policy, *program, options=options), **{"text": True, "env": environment(), **pipes, **more}
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def client_context(self) -> ssl.SSLContext:
        """Return a context that trusts the stage's authority."""
        return ssl.create_default_context(cafile=str(self.ca))

    def server_context(self, name: str = "server") -> ssl.SSLContext:
        """Return a context that presents a certificate of the stage."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.key(name))
        return context


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    code: int
    output: str
    errors: str


def environment() -> dict[str, str]:
    """Return an environment in which `python -m attls` is this tree."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def ordinary_user() -> tuple[str, ...]:
    """Return the words that run Python as nobody with this tree, empty where nobody can: files are not readable."""
    packages = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    for python in (sys.executable, "/usr/bin/python3"):
        words = ("runuser", "-u", "nobody", "--", "env", f"PYTHONPATH={ROOT}{os.pathsep}{packages}", python)
        with contextlib.suppress(OSError):
            if not subprocess.run(
                [*words, "-c", "import attls.daemon.exec"], capture_output=True, check=False
            ).returncode:
                return words
    return ()


def build(directory: Path) -> Stage:
    """Make the rings and keys."""
    stage = Stage(directory)
    directory.chmod(0o755)

    def attls(*words: str) -> None:
        with contextlib.redirect_stdout(None):
            main([*words, "--keyrings", str(stage.rings)], standalone_mode=False)

    for line in RECIPE:
        attls(*line.split())
    attls(*f"cert export --owner CERTAUTH --label CA --out {stage.ca}".split())
    for name in ("server", "stranger"):
        attls(*f"cert export --owner T --label {name} --with-key --out {stage.key(name)}".split())
    return stage


@dataclass
class Peer:
    """A server that ends TLS on loopback and echoes what it gets, upper case; `seen` has its clients and their words.

    `handshake_after` puts the handshake off by that many seconds. Without `context` it speaks clear text.
    """

    context: ssl.SSLContext | None
    handshake_after: float = 0.0
    host: str = "127.0.0.1"
    answer: Callable[[bytes], bytes] = bytes.upper
    seen: list[tuple[tuple[object, ...], bytes]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def __enter__(self) -> Peer:
        self._listener = socket.create_server(
            (self.host, 0), family=socket.AF_INET6 if ":" in self.host else socket.AF_INET, backlog=128
        )
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                accepted, name = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(accepted, name), daemon=True).start()

    def _serve(self, accepted: socket.socket, name: tuple[object, ...]) -> None:
        words = b""
        try:
            with accepted:
                accepted.settimeout(SECONDS)
                time.sleep(self.handshake_after)
                sock = self.context.wrap_socket(accepted, server_side=True) if self.context else accepted
                with sock:
                    while chunk := sock.recv(65536):
                        words += chunk
                        sock.sendall(self.answer(chunk))
                    if isinstance(sock, ssl.SSLSocket):
                        sock.unwrap()  # without close_notify the end would be a truncation
        except OSError as error:
            self.failures.append(type(error).__name__)
        self.seen.append((name, words))
