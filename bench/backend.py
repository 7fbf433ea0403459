"""What stands behind each proxy: nginx with a tiny and a large response, and the sink for uploads; not measured."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from bench.network import Network
from bench.processes import Process, open_files
from bench.proxies import BACKEND_REQUEST_PORT, BACKEND_UPLOAD_PORT
from bench.templates import render

LARGE_BYTES = 64 << 20


def missing() -> str | None:
    """A sentence when the backend cannot run here, else None."""
    return None if shutil.which("nginx") else "nginx, the backend of every proxy, is not installed (Debian: nginx)"


def make_large_file(path: Path) -> Path:
    """Write the large response; random bytes, so that nothing on the way could find a pattern in it."""
    with path.open("wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    return path


class Backend:
    """Both backend programs in one server namespace; `stop` ends them."""

    def __init__(self, network: Network, directory: Path, large: Path) -> None:
        """Start them; `directory` is for their configuration and logs, `large` the file to serve."""
        values: dict[str, object] = {
            "directory": directory,
            "request_port": BACKEND_REQUEST_PORT,
            "large": large,
            "open_files": open_files(),
        }
        config = render("backend.conf", values, directory / "backend.conf")
        web = ["nginx", "-p", str(directory), "-e", "stderr", "-c", str(config)]
        sink = [sys.executable, "-m", "bench.sink", str(BACKEND_UPLOAD_PORT)]
        self.processes = [
            Process(command, namespace=network.server, log=directory / f"{name}.log")
            for name, command in (("backend", web), ("sink", sink))
        ]

    def check(self) -> None:
        """Raise BenchError when one of them has ended."""
        for process in self.processes:
            process.pids()

    def stop(self) -> None:
        """End both; safe to call twice."""
        for process in self.processes:
            process.stop()
