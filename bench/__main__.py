"""`python -m bench`: run the comparison and print it.

Exit codes: 0 done, 1 over a bar (with --check), 2 wrong usage, 3 could not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path

from bench import control, machine, policy
from bench.loads import LOADS, QUICK, Load, Sizes
from bench.network import BenchError
from bench.proxies import PROXIES, Proxy
from bench.report import OURS, document, over_bar, table
from bench.run import measure, stage

LOAD_NAMES = [load.name for load in LOADS]
PROXY_NAMES = [kind.name for kind in PROXIES]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    result.add_argument("--rounds", type=int, metavar="N", help="rounds to measure (5; with --quick 1)")
    result.add_argument("--quick", action="store_true", help="one short round: does it all work?")
    result.add_argument("--idle", type=int, metavar="N", help=f"idle connections to hold ({Sizes().idle})")
    result.add_argument(
        "--json", type=Path, metavar="FILE", help="also write every sample to FILE ('-': standard output)"
    )
    result.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME[,NAME]",
        help=f"only these proxies ({', '.join(PROXY_NAMES)}) or loads ({', '.join(LOAD_NAMES)}); may be repeated",
    )
    result.add_argument(
        "--limit", type=float, default=900.0, metavar="SECONDS", help="start no new round after this (900)"
    )
    result.add_argument("--check", action="store_true", help="exit 1 when attls costs more than a bar allows")
    return result


def choose(only: list[str]) -> tuple[list[type[Proxy]], list[Load]]:
    """The proxies and loads that `--only` leaves; naming none of a sort keeps all of it. Raises ValueError."""
    names = {name for text in only for name in text.split(",") if name}
    if unknown := names.difference(PROXY_NAMES, LOAD_NAMES):
        raise ValueError(f"--only: no proxy and no load is called {', '.join(sorted(unknown))}")
    kinds = [kind for kind in PROXIES if kind.name in names] or list(PROXIES)
    loads = [load for load in LOADS if load.name in names] or list(LOADS)
    return kinds, loads


def main() -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args()
    try:
        kinds, loads = choose(options.only)
    except ValueError as error:
        parser().error(str(error))
    rounds = options.rounds if options.rounds is not None else (1 if options.quick else 5)
    sizes = QUICK if options.quick else Sizes()
    if options.idle:
        sizes = replace(sizes, idle=options.idle)
    if rounds < 1 or not 1 <= sizes.idle <= 25_000:
        parser().error("--rounds must be at least 1 and --idle between 1 and 25000")

    quiet = options.json is not None and str(options.json) == "-"

    def say(line: str) -> None:
        print(line, file=sys.stderr if quiet else sys.stdout, flush=True)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))  # clear up on the way out, as on Ctrl-C
    try:
        if os.geteuid() != 0:
            raise BenchError("the benchmark makes network namespaces: run it as root")
        present = []
        for kind in kinds:
            if sentence := kind.missing():
                tell(f"without {kind.label}: {sentence}")
            else:
                present.append(kind)
        if not present:
            raise BenchError("none of the proxies is here")
        facts = machine.describe()
        versions = {kind.name: kind.version() for kind in present}
        if OURS in versions:
            versions[OURS] += f" ({machine.attls_libraries()})"
        with stage(present) as built:
            negotiated = built.negotiated()
            disturbance = machine.Disturbance()
            figures = measure(built, loads, sizes, rounds=rounds, limit=options.limit, tell=tell)
            facts["during"] = disturbance.describe()
        large = channel = None
        if not options.only:
            large = policy.measure(policy.QUICK_RULES if options.quick else policy.RULES)
            channel = control.measure(control.QUICK if options.quick else control.Sizes())
    except BenchError as error:
        tell(f"bench: {error}")
        return 3
    except KeyboardInterrupt:
        tell("bench: interrupted")
        return 3

    for heading, text in {**facts, **versions}.items():
        say(f"{heading:<10} {text}")
    agreed = {f"{n.protocol} {n.cipher}, {n.key_exchange}, {n.certificates} certificates" for n in negotiated.values()}
    if len(agreed) == 1:
        say(f"{'TLS':<10} {agreed.pop()}, P-256; the same for all")
    else:
        for name, terms in negotiated.items():
            say(f"{'TLS':<10} {name}: {terms}")
        say("           NOT the same for all: the comparison is not fair")
    done = max(len(samples) for by_proxy in figures.samples.values() for samples in by_proxy.values())
    say(f"{'rounds':<10} {done}, medians; CPU time of the proxy's processes; ratio: attls to the best peer\n")
    say(table(figures, loads, {kind.name: kind.label for kind in present}))
    for section in (large, channel):
        if section is not None:
            say("\n" + "\n".join(section.lines()))
    if options.json is not None:
        text = json.dumps(
            {
                "machine": facts,
                "versions": versions,
                "negotiated": {name: asdict(terms) for name, terms in negotiated.items()},
                "sizes": asdict(sizes),
                "rounds": done,
                "figures": document(figures, loads),
                "policy": asdict(large) if large is not None else None,
                "control": asdict(channel) if channel is not None else None,
            },
            indent=2,
        )
        if quiet:
            print(text)
        else:
            options.json.write_text(text + "\n")
    failures = over_bar(figures, loads) + (channel.over_bar() if channel is not None else [])
    for sentence in failures if options.check else ():
        tell(f"bench: over the bar: {sentence}")
    return 1 if failures and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
