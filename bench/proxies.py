"""The proxies, one small class each: write its configuration, say which command runs it and where clients find it.

All do the same job with one process (one worker, or one thread where the proxy has those): end TLS in front of the same
backend, as their manuals advise for speed. attls is the only one that a client cannot name: it connects to the
backend's own port, and the kernel hands the connection to attls.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from bench.certificates import Certificates
from bench.network import BenchError, Network
from bench.processes import ROOT, Process, open_files
from bench.templates import render

BACKEND_REQUEST_PORT = 8080
BACKEND_UPLOAD_PORT = 8081
REQUEST_PORT = 8443
UPLOAD_PORT = 8444


class Proxy(ABC):
    """A proxy in front of the backend of its own network. Stop it with `stop`, or its processes stay."""

    name: str
    label: str
    request_port = REQUEST_PORT
    """Where clients reach the web server of the backend."""
    upload_port = UPLOAD_PORT
    """Where clients reach the sink of the backend."""

    def __init__(self, network: Network, directory: Path, certificates: Certificates) -> None:
        """Take what `start` needs: `directory` is this proxy's own, made and removed by the caller."""
        self.network = network
        self.directory = directory
        self.certificates = certificates
        self.process: Process | None = None

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """A sentence when this machine does not have it, else None."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Its version in a few words; call only when it is not missing."""

    @abstractmethod
    def command(self) -> list[str]:
        """Write the configuration and return the command that runs it in the foreground."""

    def values(self) -> dict[str, object]:
        """What the configuration templates may name."""
        return {
            "directory": self.directory,
            "open_files": open_files(),
            "half_open_files": open_files() // 2 - 100,
            "chain": self.certificates.chain,
            "key": self.certificates.key,
            "bundle": self.certificates.bundle,
            "listen_request": f"0.0.0.0:{self.request_port}",
            "listen_upload": f"0.0.0.0:{self.upload_port}",
            "backend_request": f"127.0.0.1:{BACKEND_REQUEST_PORT}",
            "backend_upload": f"127.0.0.1:{BACKEND_UPLOAD_PORT}",
        }

    def start(self, ready: Callable[[], bool], patience: float = 30.0) -> None:
        """Run it and wait until `ready` says that a client gets through; raises BenchError when that never happens."""
        self.process = Process(self.command(), namespace=self.network.server, log=self.directory / f"{self.name}.log")
        until = time.monotonic() + patience
        while not ready():
            self.process.pids()
            if time.monotonic() > until:
                words = self.process.last_words()
                self.stop()
                raise BenchError(f"{self.label} lets no client through after {patience:.0f} s: {words}")
            time.sleep(0.1)

    def pids(self) -> tuple[int, ...]:
        """All its processes."""
        assert self.process is not None
        return self.process.pids()

    def stop(self) -> None:
        """End its processes; safe to call twice."""
        if self.process is not None:
            self.process.stop()
            self.process = None


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().partition("\n")[0]


def _nginx_modules() -> Path:
    return Path("/usr/lib/nginx/modules/ngx_stream_module.so")


class Nginx(Proxy):
    """nginx, a `stream` server."""

    name = "nginx"
    label = "nginx stream"

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("nginx") is None:
            return "nginx is not installed"
        if not _nginx_modules().exists() and "--with-stream " not in _first_line("sh", "-c", "nginx -V 2>&1 | tail -1"):
            return "nginx has no stream module (Debian: libnginx-mod-stream)"
        return None

    @classmethod
    def version(cls) -> str:
        return _first_line("nginx", "-v").removeprefix("nginx version: ")

    def command(self) -> list[str]:
        module = _nginx_modules()
        load = f"load_module {module};" if module.exists() else ""
        config = render("nginx.conf", {**self.values(), "load_module": load}, self.directory / "nginx.conf")
        return ["nginx", "-p", str(self.directory), "-e", "stderr", "-c", str(config)]


class HAProxy(Proxy):
    """HAProxy, mode tcp."""

    name = "haproxy"
    label = "haproxy"

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("haproxy") else "haproxy is not installed"

    @classmethod
    def version(cls) -> str:
        return " ".join(_first_line("haproxy", "-v").split()[:3])

    def command(self) -> list[str]:
        config = render("haproxy.cfg", self.values(), self.directory / "haproxy.cfg")
        return ["haproxy", "-db", "-f", str(config)]


class Stunnel(Proxy):
    """stunnel."""

    name = "stunnel"
    label = "stunnel"

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("stunnel") else "stunnel is not installed (Debian: stunnel4)"

    @classmethod
    def version(cls) -> str:
        lines = subprocess.run(["stunnel", "-version"], capture_output=True, text=True, check=False).stderr.splitlines()
        return next((line.partition(" on ")[0] for line in lines if line.startswith("stunnel ")), "stunnel")

    def command(self) -> list[str]:
        return ["stunnel", str(render("stunnel.conf", self.values(), self.directory / "stunnel.conf"))]


class Attls(Proxy):
    """attls, inbound, one worker under its supervisor; both are counted."""

    name = "attls"
    label = "attls"
    request_port = BACKEND_REQUEST_PORT
    upload_port = BACKEND_UPLOAD_PORT
    keyring = "BENCH/BENCHRING"

    @classmethod
    def missing(cls) -> str | None:
        if importlib.util.find_spec("attls.cli") is None:
            return "attls cannot be imported by this Python"
        return None if shutil.which("nft") else "nft is not installed (Debian: nftables)"

    @classmethod
    def version(cls) -> str:
        import attls

        return f"attls {attls.__version__}"

    @staticmethod
    def program(*arguments: str) -> list[str]:
        """The command line of `attls` as this Python runs it."""
        return [sys.executable, "-m", "attls", *arguments]

    def _make_keyring(self, keyrings: Path) -> None:
        user = self.keyring.partition("/")[0]
        files = self.certificates
        store = ["--keyrings", str(keyrings)]
        for arguments in (
            ["cert", "import", "--owner", "CERTAUTH", "--label", "root", str(files.root), "--trust"],
            ["cert", "import", "--owner", "CERTAUTH", "--label", "intermediate", str(files.intermediate), "--trust"],
            ["cert", "import", "--owner", user, "--label", "server", str(files.server), "--key", str(files.key)],
            ["keyring", "create", self.keyring],
            ["keyring", "connect", self.keyring, "--owner", "CERTAUTH", "--label", "root"],
            ["keyring", "connect", self.keyring, "--owner", "CERTAUTH", "--label", "intermediate"],
            ["keyring", "connect", self.keyring, "--owner", user, "--label", "server", "--default"],
        ):
            command = self.program(*arguments, *store)
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BenchError(
                    f"attls {' '.join(arguments[:2])} failed: {(done.stdout + done.stderr).strip()[-800:]}"
                )

    def command(self) -> list[str]:
        keyrings = self.directory / "keyrings"
        if not keyrings.exists():
            keyrings.mkdir(mode=0o700)
            self._make_keyring(keyrings)
        values = {"first_port": self.request_port, "last_port": self.upload_port, "keyring": self.keyring}
        policy = render("attls.policy", values, self.directory / "attls.policy")
        options = ["--policy", str(policy), "--keyrings", str(keyrings), "--run-dir", str(self.directory / "run")]
        return self.program("run", *options, "--workers", "1")


PROXIES: tuple[type[Proxy], ...] = (Attls, Nginx, HAProxy, Stunnel)
