"""What one worker of attls spends its time on under a load: `python -m bench.profile [LOAD]`.

Sets the benchmark's stage with attls alone, drives the load over and over, and meanwhile watches the busiest of attls's
processes with py-spy (Python functions, printed as a table, or as a flame graph with --svg) or with strace (system
calls). Both tools slow the worker down: the shares are what counts, not the rates.
"""

from __future__ import annotations

import argparse
import collections
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from bench.loads import LOADS, Load, Sizes
from bench.network import BenchError
from bench.processes import cpu_seconds
from bench.proxies import Attls, Proxy
from bench.report import columns
from bench.run import stage


class Driver(threading.Thread):
    """Drives a load again and again until told to stop; what went wrong is in `error`."""

    def __init__(self, load: Load, proxy: Proxy, sizes: Sizes) -> None:
        super().__init__(daemon=True)
        self.load, self.proxy, self.sizes = load, proxy, sizes
        self.enough = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self.enough.is_set():
                self.load.run(self.proxy, self.sizes)
        except BenchError as error:
            self.error = error


def busiest(proxy: Proxy, seconds: float = 1.0) -> int:
    """The process of `proxy` that used most CPU time during the next `seconds`."""
    before = {pid: cpu_seconds([pid]) for pid in proxy.pids()}
    time.sleep(seconds)
    return max(before, key=lambda pid: cpu_seconds([pid]) - before[pid])


def top_functions(raw: str, count: int, *, by_callees: bool = False) -> str:
    """py-spy's raw output (`outer;inner COUNT` a line) as a table: time in the function itself and below it.

    Sorted by a function's own time, or by its own and its callees' together.
    """
    own: collections.Counter[str] = collections.Counter()
    below: collections.Counter[str] = collections.Counter()
    for line in raw.splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(samples)
        for frame in dict.fromkeys(frames):  # once each, in an order that does not depend on hashing
            below[frame] += int(samples)
    total = sum(own.values()) or 1
    rows = [["function", "own", "with callees"]]
    for frame, _ in (below if by_callees else own).most_common(count):
        rows.append([frame, f"{own[frame] / total:.1%}", f"{below[frame] / total:.1%}"])
    return "\n".join(columns(rows))


def watch(tool: str, pid: int, seconds: int, *, svg: Path | None, native: bool, by_callees: bool) -> str:
    """Run py-spy or strace on `pid` for `seconds`; returns the text to print. Raises BenchError when the tool fails."""
    with tempfile.TemporaryDirectory(prefix="attls-bench-") as directory:
        out = svg if svg is not None else Path(directory, "profile")
        if tool == "strace":
            command = ["timeout", "-s", "INT", str(seconds), "strace", "-c", "-f", "-S", "calls", "-o", str(out)]
            command += ["-p", str(pid)]
        else:
            command = ["py-spy", "record", "-r", "500", "-d", str(seconds), "-p", str(pid), "-o", str(out)]
            command += ["-f", "flamegraph" if svg is not None else "raw", "-F"] + (["-n"] if native else [])
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
        if not out.exists():
            raise BenchError(f"{tool} failed: {(done.stdout + done.stderr).strip()[-800:]}")
        if tool == "strace":
            return out.read_text()
        return f"flame graph in {svg}" if svg is not None else top_functions(out.read_text(), 60, by_callees=by_callees)


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("load", nargs="?", default="requests-64", choices=[load.name for load in LOADS])
    parser.add_argument("--seconds", type=int, default=5, help="how long to watch (5)")
    parser.add_argument("--tool", choices=["py-spy", "strace"], default="py-spy")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a flame graph instead of a table (py-spy)")
    parser.add_argument("--callees", action="store_true", help="sort by time with callees instead of own time")
    parser.add_argument("--native", action="store_true", help="show functions in C as well (py-spy)")
    options = parser.parse_args()
    load = next(load for load in LOADS if load.name == options.load)
    try:
        if os.geteuid() != 0:
            raise BenchError("profiling makes network namespaces: run it as root")
        if shutil.which(options.tool) is None:
            raise BenchError(f"{options.tool} is not installed (py-spy: pip install py-spy; strace: Debian's package)")
        if sentence := Attls.missing():
            raise BenchError(sentence)
        with stage([Attls]) as built:
            proxy = built.proxies[Attls.name]
            sizes = replace(Sizes(), seconds=options.seconds + 3)
            driver = Driver(load, proxy, sizes)
            driver.start()
            time.sleep(1)
            text = watch(
                options.tool,
                busiest(proxy),
                options.seconds,
                svg=options.svg,
                native=options.native,
                by_callees=options.callees,
            )
            print(text)
            driver.enough.set()
            driver.join()
            if driver.error is not None:
                raise driver.error
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
