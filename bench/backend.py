"""What stands behind the proxies: nginx with a tiny and a large response, and the sink for uploads; not measured.

`Backend` is the plaintext server behind a proxy, `Remote` the TLS server that proxies in the client role connect to.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from bench import ports
from bench.certificates import Server
from bench.network import Network
from bench.processes import Process, open_files
from bench.templates import render

LARGE_BYTES = 64 << 20
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
"""Where Debian's package puts it; other builds of nginx have it inside."""


def missing() -> str | None:
    """A sentence when the backend cannot run here, else None."""
    return None if shutil.which("nginx") else "nginx, the backend of every proxy, is not installed (Debian: nginx)"


def load_module() -> str:
    """The line of an nginx configuration that brings in the stream module where it is a file of its own."""
    return f"load_module {STREAM_MODULE};" if STREAM_MODULE.exists() else ""


def make_large_file(path: Path) -> Path:
    """Write the large response; random bytes, so that nothing on the way could find a pattern in it."""
    with path.open("wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    return path


@dataclass(frozen=True, slots=True)
class Served:
    """What a web server has done so far: connections that are open now, requests answered since it started."""

    connections: int
    requests: int


def parse_status(page: str) -> Served:
    """Read nginx's stub_status page; raises ValueError when it is something else."""
    found = re.search(r"Active connections: (\d+)\s.*?\n *\d+ +\d+ +(\d+)", page, re.DOTALL)
    if found is None:
        raise ValueError(f"not a status page: {page[:200]!r}")
    return Served(int(found.group(1)), int(found.group(2)))


class Programs:
    """nginx with one configuration and a sink, in one namespace; `stop` ends them."""

    def __init__(
        self, config: str, values: dict[str, object], sinks: tuple[int, ...], *, namespace: str, directory: Path
    ) -> None:
        """Start them; `directory` is for their configuration and logs."""
        self.status = directory / "status.sock"
        file = render(
            config, {**values, "directory": directory, "open_files": open_files()}, directory / "backend.conf"
        )
        web = ["nginx", "-p", str(directory), "-e", "stderr", "-c", str(file)]
        sink = [sys.executable, "-m", "bench.sink", *map(str, sinks)]
        self.processes = [
            Process(command, namespace=namespace, log=directory / f"{name}.log")
            for name, command in (("backend", web), ("sink", sink))
        ]

    def check(self) -> None:
        """Raise BenchError when one of them has ended."""
        self.pids()

    def pids(self) -> tuple[int, ...]:
        """All their processes."""
        return tuple(pid for process in self.processes for pid in process.pids())

    def served(self) -> Served:
        """What nginx has done so far, its answer to this question included."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.status))
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return parse_status(b"".join(iter(lambda: connection.recv(4096), b"")).decode())

    def stop(self) -> None:
        """End both; safe to call twice."""
        for process in self.processes:
            process.stop()


def backend_values(large: Path) -> dict[str, object]:
    """What the backend's configuration names."""
    return {"listen": " ".join(f"listen {port} backlog=4096;" for port in ports.BACKEND_WEB), "large": large}


def backend(network: Network, directory: Path, large: Path) -> Programs:
    """Start the plaintext server of one server namespace; `large` is the file to serve."""
    return Programs(
        "backend.conf", backend_values(large), ports.BACKEND_SINK, namespace=network.server, directory=directory
    )


def remote_values(server: Server, large: Path) -> dict[str, object]:
    """What the remote server's configuration names."""
    return {
        "load_module": load_module(),
        "large": large,
        "chain": server.chain,
        "key": server.key,
        "resuming_port": ports.REMOTE_RESUMING,
        "full_port": ports.REMOTE_FULL,
        "upload_port": ports.REMOTE_UPLOAD,
        "sink_port": ports.REMOTE_SINK,
    }


def remote(namespace: str, directory: Path, server: Server, large: Path) -> Programs:
    """Start the TLS server for proxies in the client role, in the client namespace."""
    return Programs(
        "remote.conf", remote_values(server, large), (ports.REMOTE_SINK,), namespace=namespace, directory=directory
    )
