"""What is measured: each load drives one proxy and returns one sample for each row of the comparison that it fills.

A cost is CPU seconds of the proxy's processes, read before the load starts and again when the proxy has gone quiet
after it, so that accepting, closing and clearing up all count; or bytes of memory; or seconds that a client waits. The
load's own programs are started and stopped inside the measurement, but they are not the proxy's.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import cpu_count
from typing import TypeVar

from bench.backend import Programs
from bench.certificates import SERVER_NAME, Certificates
from bench.network import BenchError
from bench.processes import ROOT, CpuTime, most_connections, resident_bytes
from bench.proxies import Entry, Job, Proxy
from bench.templates import CONFIG

TIMEOUT = 120.0
"""Seconds that one load may take before the benchmark gives up: a bound, far from any real figure."""


WAITS = ("p50", "p99", "p999", "max")
"""How wrk's report names what requests waited: percentiles and the longest."""

Report = TypeVar("Report")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each load: seconds of requests, connections opened, bytes carried, connections held."""

    seconds: int = 2
    connections: int = 1200
    bulk_bytes: int = 640 << 20
    idle: int = 10_000
    crowd: int = 2_000


QUICK = Sizes(seconds=1, connections=160, bulk_bytes=128 << 20, idle=300, crowd=200)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison: what it is called, in which unit, and how dear attls may be.

    `scale` turns the cost of a unit (seconds or bytes) into `unit`; `rate_unit` is empty where a rate says nothing;
    `bar` is the highest ratio to the best peer that attls is allowed, None where the row is for information.
    """

    key: str
    group: str
    label: str
    unit: str
    scale: float
    rate_unit: str = ""
    rate_scale: float = 1.0
    bar: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: `cost` (CPU seconds, bytes, seconds waited) for `units`, which took `seconds` on the clock.

    `system` is the part of the cost spent in the kernel; only CPU has it.
    """

    cost: float
    units: float
    seconds: float
    system: float | None = None

    @property
    def per_unit(self) -> float:
        """Cost of one unit."""
        return self.cost / self.units


@dataclass(frozen=True, slots=True)
class Done:
    """What a generator did: units, seconds taken, and how long single ones took, in seconds by name."""

    units: float
    seconds: float
    waits: dict[str, float]


class Load(ABC):
    """One way to drive a proxy. `rows` are the lines that it fills, the first one its main figure."""

    fresh = False
    """Whether the proxy must be started anew: memory that an earlier load has freed would hide what this one takes."""
    workers = 1
    """How many workers the proxy has meanwhile."""
    rounds: int | None = None
    """Rounds that are enough, where the figure scatters little and the load takes long."""

    def __init__(self, job: Job, *rows: Row) -> None:
        self.job = job
        self.rows = rows

    @property
    def name(self) -> str:
        """Its name on the command line: the key of its main row."""
        return self.rows[0].key

    @property
    def group(self) -> str:
        """The group of its rows."""
        return self.rows[0].group

    @abstractmethod
    def run(self, proxy: Proxy, sizes: Sizes) -> dict[Row, Sample]:
        """Drive the load once; raises BenchError when it does not get through."""

    def entry(self, proxy: Proxy) -> Entry:
        """Where this load goes in; only for a proxy that can do its job."""
        entry = proxy.entry(self.job)
        assert entry is not None
        return entry


def inside(namespace: str, *command: str) -> list[str]:
    """The command of a client as it runs in a namespace."""
    return ["ip", "netns", "exec", namespace, "env", f"OPENSSL_CONF={CONFIG / 'client.cnf'}", *command]


def generator_command(load: str, entry: Entry, *, count: int, streams: int = 1, resume: bool = False) -> list[str]:
    """The command of our own generator."""
    options = ["--count", str(count), "--streams", str(streams)]
    options += [] if entry.tls else ["--plain"]
    options += ["--resume"] if resume else []
    return inside(
        entry.namespace,
        *[sys.executable, "-m", "bench.generator", *options, load, str(entry.port), *entry.addresses],
    )


def finish(process: subprocess.Popen[str], what: str) -> str:
    """Wait for a generator and return its output; raises BenchError when it failed or does not end."""
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{what}: not done after {TIMEOUT:.0f} s") from error
    if process.returncode:
        raise BenchError(f"{what}: the load generator failed: {(output + errors).strip()[-800:]}")
    return output


@contextmanager
def started(commands: Sequence[list[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Run commands side by side, with pipes; whoever still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []
    pipe = subprocess.PIPE
    try:
        for command in commands:
            processes.append(subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


def read_wrk(output: str) -> dict[str, float]:
    """Read the report of `config/latency.lua`: requests, seconds, the number of errors, waits in seconds by name.

    Raises BenchError where there is none.
    """
    found = re.search(r"^REPORT (\{.*\})$", output, re.MULTILINE)
    if found is None:
        raise BenchError(f"wrk: {output.strip()[-400:]}")
    report = json.loads(found.group(1))
    waits = {name: report[name] / 1e6 for name in WAITS}
    errors = sum(report["errors"].values())
    return {"requests": report["requests"], "seconds": report["microseconds"] / 1e6, "errors": errors, **waits}


def parse_wrk(output: str) -> Done:
    """Read wrk's report; raises BenchError when any request failed: a figure would flatter the proxy that failed it."""
    report = read_wrk(output)
    if report["errors"]:
        raise BenchError(f"wrk: {report['errors']} requests failed: {output.strip()[-400:]}")
    return Done(report["requests"], report["seconds"], {name: report[name] for name in WAITS})


def wrk_commands(
    entry: Entry, *, clients: int, spread: bool = False, seconds: float = TIMEOUT, header: str = ""
) -> list[list[str]]:
    """wrk's commands: one for the first address, or with `spread` one for each address, which share the clients.

    They run for `seconds` or until they are interrupted.
    """
    if not shutil.which("wrk"):
        raise BenchError("wrk, which drives the small requests, is not installed (Debian: wrk)")
    addresses = entry.addresses if spread else entry.addresses[:1]
    each = clients // len(addresses)
    options = ["-t1", f"-c{each}", f"-d{seconds:.0f}s", "--timeout", "20s", "-s", str(CONFIG / "latency.lua")]
    options += ["-H", header] if header else []
    scheme = "https" if entry.tls else "http"
    return [
        inside(entry.namespace, "wrk", *options, f"{scheme}://{address}:{entry.port}/small") for address in addresses
    ]


def together(parts: Sequence[Done]) -> Done:
    """What generators that ran side by side did as one: units add up, the longest time and the worst waits count."""
    waits = {name: max(part.waits[name] for part in parts) for name in parts[0].waits}
    return Done(sum(part.units for part in parts), max(part.seconds for part in parts), waits)


def cpu_sample(proxy: Proxy, before: CpuTime, after: CpuTime, units: float, seconds: float, what: str) -> Sample:
    """What the proxy used between two readings of its CPU time."""
    if proxy.pids() != before.pids:
        raise BenchError(f"{what}: the proxy replaced one of its processes meanwhile; the figure is void")
    return Sample(after.total - before.total, units, seconds, after.system - before.system)


class Requests(Load):
    """Small requests, one in flight on each of some kept connections.

    The figure begins once all connections stand, and counts what the backend answers from then on. Rows after the
    first are latencies: the key of each begins with the name of a percentile.
    """

    def __init__(self, job: Job, clients: int, *rows: Row, spread: bool = False, times: int = 1) -> None:
        """`times`: how many times longer it takes than others, so that the crowded beginning counts less."""
        super().__init__(job, *rows)
        self.times = times
        self.clients = clients
        self.spread = spread

    def run(self, proxy: Proxy, sizes: Sizes) -> dict[Row, Sample]:
        what = f"{proxy.label}, {self.name}"
        server, pids = proxy.server(self.job), proxy.pids()
        with started(wrk_commands(self.entry(proxy), clients=self.clients, spread=self.spread)) as processes:
            await_steady(server, self.clients, processes, what)
            before, served = CpuTime.read(pids), server.served()
            begun = time.monotonic()
            time.sleep(sizes.seconds * self.times)
            after, served_after = CpuTime.read(pids), server.served()
            seconds = time.monotonic() - begun
            done = together(self.interrupt(processes, parse_wrk, what))
        units = served_after.requests - served.requests - 1  # the question itself was one
        main, *others = self.rows
        samples = {main: cpu_sample(proxy, before, after, units, seconds, what)}
        for row in others:
            samples[row] = Sample(done.waits[row.key.partition("-")[0]], 1, done.seconds)
        return samples

    @staticmethod
    def interrupt(processes: Sequence[subprocess.Popen[str]], read: Callable[[str], Report], what: str) -> list[Report]:
        """Have wrk end and report now; returns what `read` makes of each report."""
        for process in processes:
            process.send_signal(signal.SIGINT)
        return [read(finish(process, what)) for process in processes]


def await_steady(server: Programs, clients: int, processes: Sequence[subprocess.Popen[str]], what: str) -> None:
    """Wait until all connections stand at the server and have asked; raises BenchError when a client ends before."""
    until = time.monotonic() + TIMEOUT
    first = server.served()
    while True:
        now = server.served()  # the one that asks is counted too
        if now.connections > clients and now.requests - first.requests > 2 * clients:
            return
        for process in processes:
            if process.poll() is not None:
                finish(process, what)
        if time.monotonic() > until:
            raise BenchError(f"{what}: {clients} connections do not stand after {TIMEOUT:.0f} s")
        time.sleep(0.05)


class Generated(Load):
    """A load of our own generator: new connections, or bytes carried on `streams` connections at a time.

    The figure begins before the first connection and ends when the proxy has gone quiet.
    """

    def __init__(
        self,
        job: Job,
        what: str,
        row: Row,
        *,
        streams: int = 1,
        resume: bool = False,
        spread: bool = False,
        divisor: int = 1,
    ) -> None:
        """`divisor`: how many times fewer units are enough, where each of them takes long."""
        super().__init__(job, row)
        self.divisor = divisor
        self.what = what
        self.streams = streams
        self.resume = resume
        self.spread = spread

    def run(self, proxy: Proxy, sizes: Sizes) -> dict[Row, Sample]:
        entry, pids = self.entry(proxy), proxy.pids()
        if not self.spread:
            entry = replace(entry, addresses=entry.addresses[:1])
        count = sizes.connections if self.what == "connections" else sizes.bulk_bytes
        count //= self.divisor
        command = generator_command(self.what, entry, count=count, streams=self.streams, resume=self.resume)
        what = f"{proxy.label}, {self.name}"
        before = CpuTime.settled(pids)
        with started([command]) as (process,):
            figures = json.loads(finish(process, what))
        after = CpuTime.settled(pids)
        units, resumed = figures["units"], figures.get("resumed", 0)
        if entry.tls and self.what == "connections" and resumed < 0.9 * units * self.resume:
            raise BenchError(f"{what}: only {resumed} of {units} connections resumed a session")
        if resumed and not self.resume:
            raise BenchError(f"{what}: {resumed} of {units} connections resumed a session that nobody offered")
        return {self.rows[0]: cpu_sample(proxy, before, after, units, figures["seconds"], what)}


class Idle(Load):
    """Memory of kept connections that have carried one request and now carry nothing; measured on a fresh proxy.

    The second row is what the proxy holds before the first connection.
    """

    fresh = True
    rounds = 1
    warm_connections = 16
    """Opened and closed first: code and tables that the first connection pulls in are not the price of each."""

    def run(self, proxy: Proxy, sizes: Sizes) -> dict[Row, Sample]:
        idle, base = self.rows
        at_rest = resident_bytes(proxy.pids())
        with self.hold(proxy, self.warm_connections):
            pass
        before = resident_bytes(proxy.pids())
        count = min(sizes.idle, most_connections())
        with self.hold(proxy, count) as seconds:
            after = resident_bytes(proxy.pids())
        return {idle: Sample(after - before, count, seconds), base: Sample(at_rest, 1, seconds)}

    @contextmanager
    def hold(self, proxy: Proxy, count: int) -> Iterator[float]:
        """Hold `count` connections in the body, once the proxy has gone quiet; yields the seconds to open them."""
        with holding(self.entry(proxy), count, f"{proxy.label}, {self.name}") as (_, seconds):
            CpuTime.settled(proxy.pids())
            yield seconds
        CpuTime.settled(proxy.pids())


class Start(Load):
    """From the command to the first client that is served, whose own start is in the figure for all alike."""

    def run(self, proxy: Proxy, sizes: Sizes) -> dict[Row, Sample]:
        assert proxy.start_again is not None
        seconds = proxy.start_again()
        return {self.rows[0]: Sample(seconds, 1, seconds)}


@contextmanager
def holding(entry: Entry, count: int, what: str) -> Iterator[tuple[subprocess.Popen[str], float]]:
    """Hold `count` idle connections in the body; yields the generator and the seconds it took to open them.

    Raises BenchError when they cannot be opened or closed in order.
    """
    begun = time.monotonic()
    with started([generator_command("idle", entry, count=count)]) as (process,):
        expect(process, "holding", what)
        yield process, time.monotonic() - begun
        finish(process, what)


def expect(process: subprocess.Popen[str], word: str, what: str) -> None:
    """Read the generator's next line; raises BenchError when it is not `word`."""
    assert process.stdout is not None
    if process.stdout.readline().strip() != word:
        _, errors = process.communicate(timeout=TIMEOUT)
        raise BenchError(f"{what}: the load generator failed: {errors.strip()[-800:]}")


def cpu_row(key: str, group: str, label: str, rate: str, bar: float | None = None) -> Row:
    """A row in CPU microseconds per unit."""
    return Row(key, group, label, "us", 1e6, rate, 1.0, bar)


def bulk_row(key: str, group: str, label: str, bar: float | None = None) -> Row:
    """A row in CPU seconds per 10^9 bytes."""
    return Row(key, group, label, "s/GB", 1e9, "MB/s", 1e-6, bar)


def wait_rows(suffix: str, group: str, clients: str, p99_bar: float | None = None) -> tuple[Row, ...]:
    """Rows of latency percentiles, in microseconds."""
    return tuple(
        Row(f"{key}-{suffix}", group, f"{label} of a small request, {clients}", "us", 1e6, bar=bar)
        for key, label, bar in (("p50", "p50", None), ("p99", "p99", p99_bar), ("p999", "p99.9", None))
    )


BULK, FULL, RESUMED, SMALL, MEMORY, P99 = 0.75, 1.0, 1.1, 1.3, 1.0, 1.5
"""The bars."""


def _requests(job: Job, group: str, prefix: str, clients: int, bar: float | None, p99_bar: float | None) -> Requests:
    title = f"{clients:,} connection{'s' if clients > 1 else ''}"
    row = cpu_row(f"{prefix}requests-{clients}", group, f"small request, {title}", "requests/s", bar)
    waits = wait_rows(f"{prefix}{clients}", group, title, p99_bar)
    return Requests(job, clients, row, *waits, times=2 if clients > 1 else 1)


SERVER: tuple[Load, ...] = (
    _requests(Job.REQUEST, "requests", "", 1, None, None),
    _requests(Job.REQUEST, "requests", "", 64, SMALL, P99),
    _requests(Job.REQUEST, "requests", "", 1000, None, None),
    Generated(
        Job.REQUEST,
        "connections",
        cpu_row("full-p256", "connections", "new connection, full handshake, P-256", "connections/s", FULL),
    ),
    Generated(
        Job.RSA2048,
        "connections",
        cpu_row("full-rsa2048", "connections", "new connection, full handshake, RSA-2048", "connections/s", FULL),
    ),
    Generated(
        Job.REQUEST,
        "connections",
        cpu_row("resumed", "connections", "new connection, resumed", "connections/s", RESUMED),
        resume=True,
    ),
    Generated(Job.REQUEST, "download", bulk_row("download-1", "bulk", "bulk, server to client, 1 stream", BULK)),
    Generated(
        Job.REQUEST,
        "download",
        bulk_row("download-32", "bulk", "bulk, server to client, 32 streams", BULK),
        streams=32,
    ),
    Generated(Job.UPLOAD, "upload", bulk_row("upload-1", "bulk", "bulk, client to server, 1 stream", BULK)),
    Generated(
        Job.UPLOAD,
        "upload",
        bulk_row("upload-32", "bulk", "bulk, client to server, 32 streams", BULK),
        streams=32,
    ),
)
CLIENT: tuple[Load, ...] = (
    _requests(Job.CLIENT, "client", "client-", 64, SMALL, P99),
    Generated(
        Job.CLIENT_FULL,
        "connections",
        cpu_row("client-full", "client", "new connection, full handshake, P-256", "connections/s", FULL),
    ),
    Generated(
        Job.CLIENT,
        "connections",
        cpu_row("client-resumed", "client", "new connection, resumed", "connections/s", RESUMED),
    ),
    Generated(Job.CLIENT, "download", bulk_row("client-download", "client", "bulk, server to client, 1 stream", BULK)),
    Generated(
        Job.CLIENT_UPLOAD, "upload", bulk_row("client-upload", "client", "bulk, client to server, 1 stream", BULK)
    ),
)
PLAIN: tuple[Load, ...] = (
    Requests(
        Job.PLAIN,
        64,
        cpu_row("plain-requests", "plain", "small request, 64 connections", "requests/s"),
        *wait_rows("plain", "plain", "64 connections"),
    ),
    Generated(Job.PLAIN, "connections", cpu_row("plain-connections", "plain", "new connection", "connections/s")),
    Generated(Job.PLAIN, "download", bulk_row("plain-download", "plain", "bulk, server to client, 1 stream")),
    Generated(Job.PLAIN_UPLOAD, "upload", bulk_row("plain-upload", "plain", "bulk, client to server, 1 stream")),
)
MEMORY_LOADS: tuple[Load, ...] = (
    Idle(
        Job.REQUEST,
        Row("idle", "memory", "memory per idle connection", "KiB", 1 / 1024, "connections/s", 1.0, MEMORY),
        Row("base", "memory", "memory before the first connection", "MiB", 1 / (1 << 20)),
    ),
)


def _cores(workers: int, name: str) -> tuple[Load, ...]:
    title = f"{workers} worker{'s' if workers > 1 else ''}"
    loads = (
        Requests(
            Job.REQUEST,
            64,
            cpu_row(f"{name}-requests", "cores", f"small request, 64 connections, {title}", "requests/s"),
            spread=True,
        ),
        Generated(
            Job.REQUEST,
            "connections",
            cpu_row(f"{name}-full", "cores", f"new connection, full handshake, P-256, {title}", "connections/s"),
            spread=True,
        ),
        Generated(
            Job.RSA4096,
            "connections",
            cpu_row(f"{name}-rsa4096", "cores", f"new connection, full handshake, RSA-4096, {title}", "connections/s"),
            spread=True,
            divisor=4,
        ),
        Generated(
            Job.REQUEST,
            "download",
            bulk_row(f"{name}-download", "cores", f"bulk, server to client, 32 streams, {title}"),
            streams=32,
            spread=True,
        ),
    )
    for load in loads:
        load.workers = workers
    return loads


CORES: tuple[Load, ...] = (*_cores(1, "one"), *_cores(max(2, cpu_count() or 1), "all"))
"""The same loads from several client addresses, with one worker and with one for each core."""

START: tuple[Load, ...] = (
    Start(Job.REQUEST, Row("start", "start", "from start to the first client served", "ms", 1e3)),
)

LOADS: tuple[Load, ...] = (*START, *MEMORY_LOADS, *SERVER, *CLIENT, *PLAIN, *CORES)
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
    entry = proxy.entry(Job.REQUEST)
    assert entry is not None
    where = f"{entry.addresses[0]}:{entry.port}"
    checks = ["-CAfile", str(certificates.root), "-verify_return_error", "-verify_hostname", SERVER_NAME]
    command = inside(entry.namespace, "openssl", "s_client", "-connect", where, "-servername", SERVER_NAME, *checks)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return parse_s_client(done.stdout) if done.returncode == 0 else None
