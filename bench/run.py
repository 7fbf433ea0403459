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
from dataclasses import dataclass
from pathlib import Path

from bench import backend, certificates
from bench.loads import Load, Negotiated, Sizes, probe
from bench.network import BenchError, networks
from bench.processes import raise_open_files
from bench.proxies import Proxy
from bench.report import Figures


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything up and running: the proxies by name, and how each greets a client."""

    proxies: dict[str, Proxy]
    backends: dict[str, backend.Backend]
    certificates: certificates.Certificates

    def ready(self, proxy: Proxy) -> bool:
        """Whether a careful client gets through."""
        return probe(proxy, self.certificates) is not None

    def start(self, proxy: Proxy) -> None:
        """Start a proxy and wait until it serves."""
        proxy.start(lambda: self.ready(proxy))

    def negotiated(self) -> dict[str, Negotiated]:
        """What each proxy agrees on with the same client; raises BenchError when one of them does not answer."""
        result = {}
        for name, proxy in self.proxies.items():
            answer = probe(proxy, self.certificates)
            if answer is None:
                raise BenchError(f"{proxy.label} no longer answers")
            result[name] = answer
        return result


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
        stages = stack.enter_context(networks([kind.name for kind in kinds]))
        files = certificates.make(directory, [network.server_address for network in stages.values()])
        large = backend.make_large_file(directory / "large")
        built = Stage({}, {}, files)
        for kind in kinds:
            own = directory / kind.name
            own.mkdir()
            (own / "backend").mkdir()
            behind = backend.Backend(stages[kind.name], own / "backend", large)
            stack.callback(behind.stop)
            built.backends[kind.name] = behind
            proxy = kind(stages[kind.name], own, files)
            stack.callback(proxy.stop)
            built.start(proxy)
            built.proxies[kind.name] = proxy
        yield built


def measure(
    built: Stage,
    loads: Sequence[Load],
    sizes: Sizes,
    *,
    rounds: int,
    limit: float,
    tell: Callable[[str], None],
) -> Figures:
    """Measure `rounds` rounds and return the figures. After `limit` seconds no new round starts, the first excepted.

    `tell` receives a line of progress for each sample. Raises BenchError when a load does not get through.
    """
    figures = Figures()
    started = time.monotonic()
    for number in range(rounds):
        if number and time.monotonic() - started > limit:
            tell(f"stopped after {number} of {rounds} rounds: the limit of {limit:.0f} s is reached")
            break
        for load in loads:
            names = list(built.proxies)
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                proxy = built.proxies[name]
                built.backends[name].check()
                if load.fresh:
                    proxy.stop()
                    built.start(proxy)
                sample = load.run(proxy, sizes)
                figures.add(load.name, name, sample)
                tell(
                    f"round {number + 1}/{rounds}  {load.name:<12} {name:<8} "
                    f"{sample.per_unit * load.scale:10.3f} {load.unit}"
                )
    return figures
