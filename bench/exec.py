"""`python -m bench.exec`: what `attls exec` costs a program whose connections no rule covers.

The same small program runs twice, without us and under `attls exec` with a policy that makes all calls be held, and
times each of its own calls: connect and accept over loopback, the name calls, and calls that are never held. Medians,
because a shared machine has outliers. Exit code 1 when an uncovered connect costs more than the bar, with --check.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

BAR = 150.0  # microseconds that a connect which no rule covers may cost more than without us
COUNT = 2000
POLICY = """
TTLSRule Elsewhere
{
  RemotePortRange 1
  Direction Outbound
  TTLSGroupActionRef Off
}
TTLSRule Elsewhere_too
{
  LocalPortRange 1
  Direction Inbound
  TTLSGroupActionRef Off
}
TTLSGroupAction Off
{
  TTLSEnabled Off
}
"""
PROGRAM = """
import json, os, select, socket, statistics, sys, time

count = int(sys.argv[1])
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
print(json.dumps({name: statistics.median(each) for name, each in times.items()}))
"""


def run(command: list[str]) -> dict[str, float]:
    """Run the program and return its medians, microseconds by name."""
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": root})
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.exec", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help=f"connections ({COUNT})")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--check", action="store_true", help="exit 1 when an uncovered connect costs more than the bar")
    options = parser.parse_args()
    program = [sys.executable, "-c", PROGRAM, str(options.count)]
    with tempfile.TemporaryDirectory() as directory:
        policy = Path(directory) / "policy"
        policy.write_text(POLICY)
        wrapped = [sys.executable, "-m", "attls", "exec", "--policy", str(policy), "--keyrings", directory, "--"]
        without = run(program)
        within = run([*wrapped, *program])
    if options.json:
        print(json.dumps({name: {"without": without[name], "within": within[name]} for name in without}, indent=2))
    else:
        print(f"{'microseconds, median':28} {'without':>9} {'attls exec':>11} {'more':>9}")
        for name, before in without.items():
            print(f"{name:28} {before:9.1f} {within[name]:11.1f} {within[name] - before:9.1f}")
    cost = max(within[name] - without[name] for name in without if name.startswith("connect"))
    return 1 if options.check and cost > BAR else 0


if __name__ == "__main__":
    sys.exit(main())
