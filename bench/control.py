"""`python -m bench.control`: what a query and a STARTTLS cost, on an idle daemon and under full load.

One server namespace with attls and a program, one client namespace with the program's peers, as for the comparison.
The program measures with its own clock, as it would wait: a query of one connection while nothing else happens, then
while every worker relays as much as it can; INIT on fresh connections, beside the same handshake of a basic connection
as the peer sees it; many INIT and STOP on one connection, with the workers' memory and descriptors before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attls import client
from bench.network import BenchError, networks
from bench.report import Fact, Figures, columns, fact_cells, over_bar

ROOT = Path(__file__).resolve().parent.parent
BASIC, CONTROLLED = 7000, 7001
CONNECTIONS = 32  # that keep the workers busy, each with one small request after the other
IDLE_BAR, LOADED_BAR, INIT_BAR = 300.0, 3000.0, 2000.0  # microseconds
MORE_MEMORY = 1024  # KiB that a worker's memory may grow by, over all the cycles


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many queries, handshakes of each kind, and INIT and STOP on one connection."""

    queries: int = 3000
    handshakes: int = 200
    cycles: int = 10_000


QUICK = Sizes(queries=300, handshakes=30, cycles=200)


@dataclass(frozen=True, slots=True)
class ControlFigures:
    """What was measured, in seconds; `before` and `after` the cycles: memory (KiB) and descriptors of each worker."""

    sizes: Sizes
    query_idle: list[float]
    query_loaded: list[float]
    handshake: list[float]
    init: list[float]
    before: list[tuple[int, int]]
    after: list[tuple[int, int]]

    @property
    def init_beyond(self) -> float:
        """What INIT takes beyond the handshake itself, as medians."""
        return statistics.median(self.init) - statistics.median(self.handshake)

    def facts(self) -> list[Fact]:
        """Return the figures with their bars, in microseconds, KiB and descriptors."""
        facts = []
        for label, seconds, median_bar, late_bar in (
            ("query, nothing else to do", self.query_idle, IDLE_BAR, None),
            (f"query, {CONNECTIONS} busy connections", self.query_loaded, None, LOADED_BAR),
            ("handshake of a basic connection, as its peer sees it", self.handshake, None, None),
            ("INIT on a blocking socket", self.init, None, None),
        ):
            facts += [
                Fact(f"{label}: median", statistics.median(seconds) * 1e6, "us", median_bar),
                Fact(f"{label}: 99th percentile", percentile99(seconds) * 1e6, "us", late_bar),
            ]
        cycles = f"after {self.sizes.cycles} INIT and STOP on one connection"
        pairs = list(zip(self.before, self.after, strict=True))
        return [
            *facts,
            Fact("INIT beyond the handshake itself, medians", self.init_beyond * 1e6, "us", INIT_BAR),
            Fact(f"{cycles}, memory of a worker grew by", max(b[0] - a[0] for a, b in pairs), "KiB", MORE_MEMORY),
            Fact(f"{cycles}, descriptors of a worker grew by", max(b[1] - a[1] for a, b in pairs), "", 0.0),
        ]


def percentile99(seconds: list[float]) -> float:
    """Return what one in a hundred exceeds."""
    return sorted(seconds)[int(len(seconds) * 0.99)]


def attls(*arguments: str) -> list[str]:
    """The command line of the attls that this file belongs to."""
    return [sys.executable, "-m", "attls", *arguments]


def policy(port: int, name: str, controlled: str) -> str:
    """One inbound rule with a server certificate."""
    return f"""
TTLSRule {name}
{{
  LocalPortRange {port}
  Direction Inbound
  TTLSGroupActionRef group
  TTLSEnvironmentActionRef {name}-environment
}}
TTLSEnvironmentAction {name}-environment
{{
  HandshakeRole Server
  TTLSKeyringParms
  {{
    Keyring SRV/RING
  }}
  TTLSEnvironmentAdvancedParms
  {{
    ApplicationControlled {controlled}
  }}
}}
"""


def prepare(directory: Path) -> None:
    """Write policy and rings."""
    group = "TTLSGroupAction group\n{\n  TTLSEnabled On\n  Trace 0\n}\n"
    text = group + policy(BASIC, "basic", "Off") + policy(CONTROLLED, "controlled", "On")
    (directory / "bench.policy").write_text(text)
    for command in (
        "cert create-ca --label CA --cn Bench-CA",
        "cert issue --owner SRV --label server --cn server --sign-with CA --san DNS:server",
        "keyring create SRV/RING",
        "keyring connect SRV/RING --owner SRV --label server --default",
        f"cert export --owner CERTAUTH --label CA --out {directory}/ca.pem",
    ):
        subprocess.run(
            [*attls(*command.split()), "--keyrings", str(directory / "rings")],
            check=True,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )


# The peers, in the client namespace


def peer(address: str, directory: Path, sizes: Sizes) -> None:
    """Do what the program asks for over a line of text, one order after the other."""
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))

    def wrap(sock: socket.socket) -> ssl.SSLSocket:
        return context.wrap_socket(sock, server_hostname="server")

    with wrap(socket.create_connection((address, BASIC))) as orders:
        orders.sendall(b"O")
        for line in orders.makefile("rb"):
            order = line.decode().strip()
            result: Any = None
            if order == "load":
                loader = multiprocessing.Process(target=load, args=(address, context.get_ca_certs(True)), daemon=True)
                loader.start()
            elif order == "rest":
                loader.kill()
                loader.join()
            elif order == "basic":
                result = []
                for _ in range(sizes.handshakes):
                    sock = socket.create_connection((address, BASIC))
                    start = time.perf_counter()
                    with wrap(sock):
                        result.append(time.perf_counter() - start)
            elif order == "init":
                for _ in range(sizes.handshakes):
                    sock = socket.create_connection((address, CONTROLLED))
                    sock.recv(2)
                    with wrap(sock) as tls:
                        tls.recv(1)
            elif order == "cycle":
                sock = socket.create_connection((address, CONTROLLED))
                for _ in range(sizes.cycles):
                    tls = wrap(sock)
                    tls.recv(1)
                    sock = tls.unwrap()
            orders.sendall(json.dumps(result).encode() + b"\n")


def load(address: str, authorities: list[bytes]) -> None:
    """Keep connections busy with small requests, as many as go through."""
    context = ssl.create_default_context(cadata=b"".join(authorities))
    socks = [
        context.wrap_socket(socket.create_connection((address, BASIC)), server_hostname="server")
        for _ in range(CONNECTIONS)
    ]
    for sock in socks:
        sock.sendall(b"E" + bytes(1023))
    while True:
        for sock in socks:
            sock.recv(4096)
            sock.sendall(b"E" + bytes(1023))


# The program, in the server namespace


def echo(accepted: socket.socket, rest: list[socket.socket]) -> None:
    """Serve connections that are handed over, in a process of its own, as an echo."""
    import select

    epoll = select.epoll()
    socks = {accepted.fileno(): accepted}
    epoll.register(accepted, select.EPOLLIN)
    while True:
        for descriptor, _ in epoll.poll():
            sock = socks[descriptor]
            if sock is accepted:
                with contextlib.suppress(BlockingIOError):
                    new, _ = sock.accept()
                    socks[new.fileno()] = new
                    epoll.register(new, select.EPOLLIN)
            else:
                data = b""
                with contextlib.suppress(ConnectionError):
                    data = sock.recv(65536)
                    sock.sendall(data)
                if not data:
                    epoll.unregister(sock)
                    socks.pop(descriptor).close()


def program(directory: Path, sizes: Sizes, workers: list[int]) -> dict[str, Any]:
    """Measure; returns the figures."""
    run_dir = directory / "run"
    basic = socket.create_server(("0.0.0.0", BASIC), backlog=512)
    controlled = socket.create_server(("0.0.0.0", CONTROLLED), backlog=512)
    print("listening", flush=True)
    orders, _ = basic.accept()
    assert orders.recv(1) == b"O"
    replies = orders.makefile("rb")

    def ask(order: str) -> None:
        orders.sendall(order.encode() + b"\n")

    def answer() -> Any:
        return json.loads(replies.readline())

    figures: dict[str, Any] = {}
    figures["query_idle"] = timed(lambda: client.query(orders, run_dir=run_dir), sizes.queries)
    basic.setblocking(False)
    serving = multiprocessing.Process(target=echo, args=(basic, []), daemon=True)
    serving.start()
    ask("load")
    answer()
    time.sleep(1.0)
    figures["query_loaded"] = timed(lambda: client.query(orders, run_dir=run_dir), sizes.queries)
    ask("rest")
    answer()
    ask("basic")
    figures["handshake"] = answer()
    serving.kill()
    serving.join()

    ask("init")
    figures["init"] = []
    for _ in range(sizes.handshakes):
        sock, _ = controlled.accept()
        with sock:
            sock.sendall(b"go")
            start = time.perf_counter()
            client.start_tls(sock, run_dir=run_dir)
            figures["init"].append(time.perf_counter() - start)
            sock.sendall(b".")
    answer()

    ask("cycle")
    sock, _ = controlled.accept()
    with sock:
        for number in range(sizes.cycles):
            if number == min(100, sizes.cycles // 2):
                figures["before"] = [footprint(pid) for pid in workers]
            client.start_tls(sock, run_dir=run_dir)
            sock.sendall(b".")
            client.stop_tls(sock, run_dir=run_dir)
        figures["after"] = [footprint(pid) for pid in workers]
    answer()
    return figures


def timed(action: Callable[[], Any], count: int) -> list[float]:
    """Return how long each of `count` runs took, in seconds."""
    for _ in range(count // 10):
        action()
    found = []
    for _ in range(count):
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return found


def footprint(pid: int) -> tuple[int, int]:
    """Return a process's resident memory in KiB and its number of descriptors."""
    status = Path(f"/proc/{pid}/status").read_text()
    memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return memory, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def measure(sizes: Sizes) -> ControlFigures:
    """Set the stage, have the program measure, and return the figures. Raises BenchError."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        raise BenchError("the benchmark makes network namespaces: run it as root, with iproute2")
    with tempfile.TemporaryDirectory() as name, networks(["control"]) as made, contextlib.ExitStack() as stack:
        directory, network = Path(name), made["control"]
        prepare(directory)

        def start(namespace: str, *command: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *command],
                cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        def line(process: subprocess.Popen[str]) -> str:
            assert process.stdout is not None
            return process.stdout.readline()

        run_dir = str(directory / "run")
        daemon = start(
            network.server, *attls("run", "--policy", str(directory / "bench.policy"), "--keyrings"),
            str(directory / "rings"), "--run-dir", run_dir, "--workers", "2",
        )  # fmt: skip
        if not line(daemon).startswith("ready"):
            raise BenchError("attls did not start; its words are above")
        status = subprocess.run(
            attls("status", "--json", "--run-dir", run_dir), check=True, capture_output=True, cwd=ROOT
        )
        workers = [str(pid) for pid in json.loads(status.stdout)["worker_processes"].values()]
        measuring = start(
            network.server,
            sys.executable,
            "-m",
            "bench.control",
            "--program",
            name,
            json.dumps(asdict(sizes)),
            *workers,
        )
        if line(measuring) != "listening\n":
            raise BenchError("the program did not start; its words are above")
        start(
            network.client, sys.executable, "-m", "bench.control", "--peer", name, json.dumps(asdict(sizes)),
            network.server_address,
        )  # fmt: skip
        text = line(measuring)
        if not text:
            raise BenchError("the program gave up; its words are above")
        return ControlFigures(sizes, **json.loads(text))


def main() -> int:
    """Run the command; returns the exit code: 0 done, 1 over a bar (with --check), 3 could not."""
    parser = argparse.ArgumentParser(prog="python -m bench.control", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer of everything: does it all work?")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure is over its bar")
    parser.add_argument("--program", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--peer", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        name, sizes, *workers = options.program
        print(json.dumps(program(Path(name), Sizes(**json.loads(sizes)), [int(each) for each in workers])))
        return 0
    if options.peer:
        name, sizes, address = options.peer
        peer(address, Path(name), Sizes(**json.loads(sizes)))
        return 0
    try:
        figures = measure(QUICK if options.quick else Sizes())
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    facts = figures.facts()
    print("\n".join(columns(fact_cells(facts))))
    failures = over_bar(Figures(), facts)
    for sentence in failures if options.check else ():
        print(f"bench: over the bar: {sentence}", file=sys.stderr)
    return 1 if failures and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
