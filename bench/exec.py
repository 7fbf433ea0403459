"""`python -m bench.exec`: what `attls exec` costs a program, call by call, and its helper for data under TLS.

The same small programs run twice, without us and under `attls exec`, and time their own calls over loopback: in a loop,
where all code is in the processor's caches; after a pause, where it is not; and the first of a fresh process. The
policy holds every call there is, and protects only one port, that of a sink, to which bulk data and small requests go
for the last two rows: processor time of the helper, to be held against the same rows of `attls run` in `make bench`.

Exit code 1 when an uncovered connect in a loop costs more than the bar, with --check.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from attls.cli import main as attls
from bench.report import Fact

BAR = 150.0  # microseconds that a connect which no rule covers may cost more than without us
COUNT = 2000
PAUSES = 60
FRESH = 25
GIGABYTES = 0.5
REQUESTS = 10_000
ROOT = Path(__file__).resolve().parent.parent
RECIPE = (
    "cert create-ca --label CA --cn Bench-CA",
    "cert issue --owner BENCH --label sink --cn localhost --sign-with CA --san DNS:localhost,IP:127.0.0.1",
    "keyring create BENCH/CLIENT",
    "keyring connect BENCH/CLIENT --owner CERTAUTH --label CA",
)
POLICY = """
TTLSRule Sink
{{
  RemotePortRange {port}
  Direction Outbound
  TTLSGroupActionRef On
  TTLSEnvironmentActionRef Client
}}
TTLSRule Elsewhere
{{
  LocalPortRange 1
  Direction Inbound
  TTLSGroupActionRef Off
}}
TTLSGroupAction On
{{
  TTLSEnabled On
}}
TTLSGroupAction Off
{{
  TTLSEnabled Off
}}
TTLSEnvironmentAction Client
{{
  HandshakeRole Client
  TTLSKeyringParms
  {{
    Keyring BENCH/CLIENT
  }}
}}
"""
CALLS = """
import json, os, select, socket, subprocess, sys, time

count, pauses, fresh = map(int, sys.argv[1:])
listener = socket.create_server(("127.0.0.1", 0), backlog=16)
place = listener.getsockname()
times = {}

def timed(name, action):
    began = time.perf_counter_ns()
    result = action()
    times.setdefault(name, []).append((time.perf_counter_ns() - began) / 1000)
    return result

for index in range(count):
    sock = socket.socket()
    if index % 2:
        timed("connect, blocking", lambda: sock.connect(place))
    else:
        sock.setblocking(False)
        timed("connect, non-blocking", lambda: sock.connect_ex(place))
        select.select([], [sock], [])
        timed("getsockopt SO_ERROR", lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    accepted = timed("accept", listener._accept)[0]
    timed("getpeername", sock.getpeername)
    timed("send and receive 1 byte", lambda: (sock.send(b"x"), os.read(accepted, 1)))
    timed("getsockopt TCP_NODELAY", lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    os.close(accepted)
    sock.close()
for _ in range(pauses):
    time.sleep(0.05)
    sock = socket.socket()
    timed("connect, 50 ms after the last", lambda: sock.connect(place))
    sock.close()
    os.close(listener._accept()[0])
first = (
    "import socket, sys, time; s = socket.socket(); p = ('127.0.0.1', int(sys.argv[1])); t = time.perf_counter_ns(); "
    "s.connect(p); print((time.perf_counter_ns() - t) / 1000)"
)
for _ in range(fresh):
    command = [sys.executable, "-c", first, str(place[1])]
    times.setdefault("connect, first of a process", []).append(float(subprocess.check_output(command)))
    os.close(listener._accept()[0])
print(json.dumps(times))
"""
DATA = """
import json, os, socket, sys

port, size, requests = map(int, sys.argv[1:])
ticks = os.sysconf("SC_CLK_TCK")

def helpers_seconds():
    with open(f"/proc/{os.getppid()}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / ticks  # proc(5): utime and stime

sock = socket.create_connection(("127.0.0.1", port))
began = helpers_seconds()
chunk = bytes(262144)
for _ in range(size // len(chunk)):
    sock.sendall(chunk)
bulk = helpers_seconds() - began
sock = socket.create_connection(("127.0.0.1", port))
began = helpers_seconds()
for _ in range(requests):
    sock.sendall(b"?" * 100)
    sock.recv(1000)
print(json.dumps([bulk, helpers_seconds() - began]))
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: median and 99th percentile, without us (None where there is nothing to compare) and under exec."""

    name: str
    unit: str
    within: float
    within_p99: float | None = None
    without: float | None = None
    without_p99: float | None = None
    bar: float | None = None

    @property
    def more(self) -> float:
        """What it costs more under `attls exec`."""
        return self.within - (self.without or 0.0)

    @property
    def is_over(self) -> bool:
        """Whether it costs more than its bar allows."""
        return self.bar is not None and self.more > self.bar


def measure(*, count: int = COUNT, pauses: int = PAUSES, fresh: int = FRESH, gigabytes: float = GIGABYTES) -> list[Row]:
    """Run the programs without us and under `attls exec`, and return the figures. Needs no privileges."""
    calls = [sys.executable, "-c", CALLS, *map(str, (count, pauses, fresh))]
    with tempfile.TemporaryDirectory() as directory:
        rings = Path(directory) / "rings"
        with contextlib.redirect_stdout(None):
            for line in RECIPE:
                attls([*line.split(), "--keyrings", str(rings)], standalone_mode=False)
            key = f"{directory}/sink.pem"
            words = f"cert export --owner BENCH --label sink --with-key --out {key} --keyrings {rings}"
            attls(words.split(), standalone_mode=False)
        with _sink(key) as port:
            policy = Path(directory) / "policy"
            policy.write_text(POLICY.format(port=port))
            exec_ = [sys.executable, "-m", "attls", "exec", "--policy", str(policy), "--keyrings", str(rings), "--"]
            without: dict[str, list[float]] = json.loads(_output(calls))
            within: dict[str, list[float]] = json.loads(_output([*exec_, *calls]))
            data = [sys.executable, "-c", DATA, *map(str, (port, int(gigabytes * 1e9), REQUESTS))]
            bulk, small = json.loads(_output([*exec_, *data]))
    rows = [_row(name, without[name], times) for name, times in within.items()]
    rows.append(Row("helper, bulk out under TLS", "s/GB", bulk / gigabytes))
    rows.append(Row("helper, small request under TLS", "us", small / REQUESTS * 1e6))
    return rows


def _row(name: str, without: Sequence[float], within: Sequence[float]) -> Row:
    bar = BAR if name in ("connect, blocking", "connect, non-blocking") else None
    return Row(
        name, "us", statistics.median(within), _p99(within), statistics.median(without), _p99(without), bar
    )  # fmt: skip


def facts(rows: Sequence[Row]) -> list[Fact]:
    """Return what each call costs more under exec, and what the helper uses, as figures without peers."""
    return [
        Fact(f"{row.name}: {'more' if row.without is not None else 'CPU'} (median)", row.more, row.unit, row.bar)
        for row in rows
    ]


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[min(len(times) - 1, len(times) * 99 // 100)]


def _output(command: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@contextlib.contextmanager
def _sink(key: str) -> Iterator[int]:
    """A TLS server that answers 100 bytes with 1000 and swallows what is longer; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(key)

    def serve(accepted: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True) as sock:
            buffer = bytearray(65536)
            while length := sock.recv_into(buffer):
                if length == 100:
                    sock.sendall(bytes(1000))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def lines(rows: Sequence[Row]) -> list[str]:
    """Write the figures for people."""

    def text(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    heading = ("attls exec", "", "without", "p99", "within", "p99", "more", "bar")
    table = [heading] + [
        (
            row.name, row.unit, text(row.without), text(row.without_p99), text(row.within), text(row.within_p99),
            text(row.more) if row.without is not None else "", text(row.bar),
        )
        for row in rows
    ]  # fmt: skip
    return [f"{name:32} {unit:>4}" + "".join(f" {cell:>9}" for cell in cells) for name, unit, *cells in table]


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.exec", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help=f"connections in a loop ({COUNT})")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit 1 when an uncovered connect costs more than the bar")
    options = parser.parse_args()
    rows = measure(count=options.count)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print("\n".join(lines(rows)))
    return 1 if options.check and any(row.is_over for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
