"""What is measured: each load drives one proxy from the client namespace and returns one sample of what it cost.

A cost is CPU seconds of the proxy's processes, read before the load starts and again when the proxy has gone quiet
after it, so that accepting, closing and clearing up all count; or, for idle connections, bytes of memory. The load's
own programs are started and stopped inside the measurement, but they are not the proxy's.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from bench.certificates import SERVER_NAME, Certificates
from bench.network import BenchError
from bench.processes import ROOT, resident_bytes, settled_cpu_seconds, system_seconds
from bench.proxies import Proxy

TIMEOUT = 120.0
"""Seconds that one load may take before the benchmark gives up: a bound, far from any real figure."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each load: seconds of requests, connections opened, bytes carried each way, connections held."""

    seconds: int = 3
    connections: int = 1600
    bulk_bytes: int = 1_000_000_000
    idle: int = 2000


QUICK = Sizes(seconds=1, connections=400, bulk_bytes=256_000_000, idle=300)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: `cost` (CPU seconds, or bytes) for `units`, which took `seconds` on the clock.

    `base` is what an idle proxy holds before the first connection, in bytes; only memory has it. `system` is the part
    of the cost spent in the kernel; only CPU has it.
    """

    cost: float
    units: float
    seconds: float
    base: float | None = None
    system: float | None = None

    @property
    def per_unit(self) -> float:
        """Cost of one unit."""
        return self.cost / self.units


class Load(ABC):
    """One row of the comparison. `bar`: the highest ratio to the best peer that attls is allowed."""

    name: str
    label: str
    unit: str
    scale: float
    """What to multiply cost per unit with to get `unit`."""
    rate_unit: str
    rate_scale = 1.0
    bar: float
    fresh = False
    """Whether the proxy must be started anew: memory that an earlier load has freed would hide what this one takes."""

    @abstractmethod
    def run(self, proxy: Proxy, sizes: Sizes) -> Sample:
        """Drive the load once; raises BenchError when it does not get through."""


def client_command(proxy: Proxy, *command: str) -> list[str]:
    """The command as it runs in the client namespace."""
    return ["ip", "netns", "exec", proxy.network.client, *command]


def generator_command(proxy: Proxy, load: str, port: int, count: int) -> list[str]:
    """The command of our own generator for `load`."""
    arguments = [load, proxy.network.server_address, str(port), str(count)]
    return client_command(proxy, sys.executable, "-m", "bench.generator", *arguments)


def _run(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{what}: not done after {TIMEOUT:.0f} s") from error
    if done.returncode:
        raise BenchError(f"{what}: the load generator failed: {(done.stdout + done.stderr).strip()[-800:]}")
    return done.stdout


class CpuLoad(Load):
    """A load whose cost is CPU time of the proxy."""

    @abstractmethod
    def drive(self, proxy: Proxy, sizes: Sizes) -> tuple[float, float]:
        """Run the generator; returns units done and seconds taken."""

    def run(self, proxy: Proxy, sizes: Sizes) -> Sample:
        pids = proxy.pids()
        before, system_before = settled_cpu_seconds(pids), system_seconds(pids)
        units, seconds = self.drive(proxy, sizes)
        after = settled_cpu_seconds(pids)
        if proxy.pids() != pids:
            raise BenchError(f"{proxy.label} replaced one of its processes during {self.label!r}; the figure is void")
        return Sample(after - before, units, seconds, system=system_seconds(pids) - system_before)


def parse_wrk(output: str) -> tuple[float, float]:
    """Requests done and seconds taken, from wrk's report; raises BenchError when any of them failed."""
    found = re.search(r"(\d+) requests in ([0-9.]+)(us|ms|s|m)", output)
    errors = re.search(r"Socket errors: .*|Non-2xx.*", output)
    if found is None or errors is not None:
        raise BenchError(f"wrk: {errors.group() if errors else output.strip()[-400:]}")
    scale = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[found.group(3)]
    return float(found.group(1)), float(found.group(2)) * scale


class Requests(CpuLoad):
    """Small requests, one in flight on each of 64 kept connections. The 64 handshakes at the start are in the cost."""

    name = "requests"
    label = "small request, 64 keep-alive connections"
    unit = "us"
    scale = 1e6
    rate_unit = "requests/s"
    bar = 2.0

    def drive(self, proxy: Proxy, sizes: Sizes) -> tuple[float, float]:
        if shutil.which("wrk"):
            url = f"https://{proxy.network.server_address}:{proxy.request_port}/small"
            command = client_command(proxy, "wrk", "-t1", "-c64", f"-d{sizes.seconds}s", "--timeout", "10s", url)
            return parse_wrk(_run(command, f"{proxy.label}, {self.label}"))
        return drive_generator(proxy, self, proxy.request_port, sizes.seconds)


def drive_generator(proxy: Proxy, load: Load, port: int, count: int) -> tuple[float, float]:
    """Run our generator's load of the same name; returns units done and seconds taken."""
    figures = json.loads(_run(generator_command(proxy, load.name, port, count), f"{proxy.label}, {load.label}"))
    return float(figures["units"]), float(figures["seconds"])


class Connections(CpuLoad):
    """New connections, eight at a time, no resumption: full handshake, one small request, orderly close."""

    name = "connections"
    label = "new connection, full handshake, one request"
    unit = "us"
    scale = 1e6
    rate_unit = "connections/s"
    bar = 1.2

    def drive(self, proxy: Proxy, sizes: Sizes) -> tuple[float, float]:
        return drive_generator(proxy, self, proxy.request_port, sizes.connections)


class Download(CpuLoad):
    """Bulk from server to client on one connection."""

    name = "download"
    label = "bulk, server to client"
    unit = "s/GB"
    scale = 1e9
    rate_unit = "MB/s"
    rate_scale = 1e-6
    bar = 1.2

    def drive(self, proxy: Proxy, sizes: Sizes) -> tuple[float, float]:
        return drive_generator(proxy, self, proxy.request_port, sizes.bulk_bytes)


class Upload(CpuLoad):
    """Bulk from client to server on one connection."""

    name = "upload"
    label = "bulk, client to server"
    unit = "s/GB"
    scale = 1e9
    rate_unit = "MB/s"
    rate_scale = 1e-6
    bar = 1.2

    def drive(self, proxy: Proxy, sizes: Sizes) -> tuple[float, float]:
        return drive_generator(proxy, self, proxy.upload_port, sizes.bulk_bytes)


class Idle(Load):
    """Memory of kept connections that have carried one request and now carry nothing; measured on a fresh proxy."""

    name = "idle"
    label = "memory per idle connection"
    unit = "KiB"
    scale = 1 / 1024
    rate_unit = "connections/s"
    bar = 1.2
    fresh = True
    warm_connections = 16
    """Opened and closed first: code and tables that the first connection pulls in are not the price of each."""

    def run(self, proxy: Proxy, sizes: Sizes) -> Sample:
        base = resident_bytes(proxy.pids())
        self.hold(proxy, self.warm_connections)
        before = resident_bytes(proxy.pids())
        after, seconds = self.hold(proxy, sizes.idle)
        return Sample(after - before, sizes.idle, seconds, base=base)

    def hold(self, proxy: Proxy, count: int) -> tuple[int, float]:
        """Hold `count` connections for a moment; returns the proxy's memory meanwhile, and the seconds to open them."""
        what = f"{proxy.label}, {self.label}"
        started = time.monotonic()
        generator = subprocess.Popen(
            generator_command(proxy, self.name, proxy.request_port, count),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with generator:
            assert generator.stdout is not None
            try:
                if generator.stdout.readline() != "holding\n":
                    _, errors = generator.communicate(timeout=TIMEOUT)
                    raise BenchError(f"{what}: the load generator failed: {errors.strip()[-800:]}")
                seconds = time.monotonic() - started
                settled_cpu_seconds(proxy.pids())
                memory = resident_bytes(proxy.pids())
                generator.communicate(timeout=TIMEOUT)  # closes its standard input, so it lets go
            except subprocess.TimeoutExpired as error:
                raise BenchError(f"{what}: the load generator does not end") from error
            finally:
                if generator.poll() is None:
                    generator.kill()
        settled_cpu_seconds(proxy.pids())
        return memory, seconds


LOADS: tuple[Load, ...] = (Idle(), Requests(), Connections(), Download(), Upload())
"""Memory first: it starts the proxy anew."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What a client and a proxy agreed on; the comparison is only fair when it is the same for all."""

    protocol: str
    cipher: str
    key_exchange: str
    certificates: int


def parse_s_client(output: str) -> Negotiated | None:
    """Read `openssl s_client`'s report; None when the handshake did not end well."""
    session = re.search(r"New, (TLSv[0-9.]+), Cipher is (\S+)", output)
    group = re.search(r"Server Temp Key: ([^,\s]+)(?:, ([^,\s]+),)?", output)
    verified = re.search(r"Verif(?:y return code: 0|ication: OK)", output)
    if session is None or group is None or verified is None:
        return None
    key_exchange = group.group(2) if group.group(1) == "ECDH" and group.group(2) else group.group(1)
    sent = len(re.findall(r"^ *\d+ s:", output, re.MULTILINE))
    return Negotiated(session.group(1), session.group(2), key_exchange, sent)


def probe(proxy: Proxy, certificates: Certificates) -> Negotiated | None:
    """Connect once as a careful client: chain and host name verified. None when that does not work (yet)."""
    where = f"{proxy.network.server_address}:{proxy.request_port}"
    checks = ["-CAfile", str(certificates.root), "-verify_return_error", "-verify_hostname", SERVER_NAME]
    command = client_command(proxy, "openssl", "s_client", "-connect", where, "-servername", SERVER_NAME, *checks)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return parse_s_client(done.stdout) if done.returncode == 0 else None
