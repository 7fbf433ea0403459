"""One run of the benchmark: build the stage, start everybody, measure in interleaved rounds, clear up.

Rounds are interleaved (every proxy once for each load, the order turning with the round), so that a neighbour's noise
or a warm-up falls on all alike; figures are medians over rounds.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench import backend, certificates
from bench.loads import Load, Negotiated, Sizes, probe
from bench.network import BenchError, Network, networks
from bench.processes import raise_open_files
from bench.proxies import Proxy
from bench.report import Figures


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything up and running: the proxies by name, what is behind them, and a network without any proxy."""

    directory: Path
    certificates: certificates.Certificates
    bare: Network
    remote: backend.Programs
    proxies: dict[str, Proxy] = field(default_factory=dict)
    backends: dict[str, backend.Programs] = field(default_factory=dict)

    def ready(self, proxy: Proxy) -> bool:
        """Whether a careful client gets through."""
        return probe(proxy, self.certificates) is not None

    def start(self, proxy: Proxy) -> float:
        """Start a proxy and wait until it serves; returns how many seconds that took."""
        seconds = proxy.start(lambda: self.ready(proxy))
        proxy.settle()
        return seconds

    def restart(self, proxy: Proxy, workers: int) -> float:
        """Start a proxy anew with so many workers; returns how many seconds that took."""
        proxy.stop()
        proxy.workers = workers
        return self.start(proxy)

    def check(self, name: str) -> None:
        """Raise BenchError when what is behind a proxy has ended."""
        self.backends[name].check()
        self.remote.check()

    def negotiated(self) -> dict[str, Negotiated]:
        """What each proxy agrees on with the same client; raises BenchError when one of them does not answer."""
        result = {}
        for name, proxy in self.proxies.items():
            answer = probe(proxy, self.certificates)
            if answer is None:
                raise BenchError(f"{proxy.label} no longer answers")
            result[name] = answer
        return result


BARE = "bare"


@contextmanager
def stage(kinds: Sequence[type[Proxy]]) -> Iterator[Stage]:
    """Build networks, certificates and backends and start every proxy; end and remove all of it afterwards.

    Raises BenchError for what is missing or does not start.
    """
    if not shutil.which("ip") or not shutil.which("openssl"):
        raise BenchError("ip and openssl are needed (Debian: iproute2, openssl)")
    if sentence := backend.missing():
        raise BenchError(sentence)
    raise_open_files()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attls-bench-")))
        stages = stack.enter_context(networks([*(kind.name for kind in kinds), BARE]))
        addresses = [address for network in stages.values() for address in network.server_addresses]
        files = certificates.make(directory, addresses)
        large = backend.make_large_file(directory / "large")

        def own(name: str) -> Path:
            path = directory / name
            path.mkdir()
            return path

        def behind(name: str) -> backend.Programs:
            programs = backend.backend(stages[name], own(f"{name}-backend"), large)
            stack.callback(programs.stop)
            return programs

        remote = backend.remote(stages[BARE].client, own("remote"), files.servers["p256"], large)
        stack.callback(remote.stop)
        built = Stage(directory, files, stages[BARE], remote)
        built.backends[BARE] = behind(BARE)
        for kind in kinds:
            built.backends[kind.name] = behind(kind.name)
            proxy = kind(stages[kind.name], own(kind.name), files, built.backends[kind.name], remote)
            proxy.start_again = partial(built.restart, proxy, 1)
            stack.callback(proxy.stop)
            built.start(proxy)
            built.proxies[kind.name] = proxy
        yield built


@dataclass(slots=True)
class Clock:
    """When to stop: no new round begins after `limit` seconds."""

    limit: float
    started: float = field(default_factory=time.monotonic)

    def is_over(self) -> bool:
        """Whether the limit is reached."""
        return time.monotonic() - self.started > self.limit


def measure(
    built: Stage,
    loads: Sequence[Load],
    sizes: Sizes,
    figures: Figures,
    *,
    rounds: int,
    clock: Clock,
    tell: Callable[[str], None],
) -> None:
    """Measure `rounds` rounds into `figures`. When the clock is over no new round starts, the first excepted.

    `tell` receives a line of progress for each sample. Raises BenchError when a load does not get through.
    """
    for number in range(rounds):
        if number and clock.is_over():
            tell(f"stopped after {number} of {rounds} rounds: the limit of {clock.limit:.0f} s is reached")
            break
        for load in loads:
            if load.rounds is not None and number >= load.rounds:
                continue
            names = [name for name, proxy in built.proxies.items() if proxy.entry(load.job) is not None]
            turn = number % len(names) if names else 0
            for name in names[turn:] + names[:turn]:
                proxy = built.proxies[name]
                built.check(name)
                if load.fresh or proxy.workers != load.workers:
                    built.restart(proxy, load.workers)
                for row, sample in load.run(proxy, sizes).items():
                    figures.add(row, name, sample)
                    tell(
                        f"round {number + 1}/{rounds}  {row.key:<20} {name:<8} "
                        f"{sample.per_unit * row.scale:10.3f} {row.unit}"
                    )
