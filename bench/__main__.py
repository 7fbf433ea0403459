"""`python -m bench`: run the comparison and print it.

Exit codes: 0 done, 1 over a bar (with --check), 2 wrong usage, 3 could not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from bench import machine, policy
from bench.loads import LOADS, QUICK, Load, Negotiated, Sizes
from bench.network import BenchError
from bench.proxies import PROXIES, Proxy
from bench.report import OURS, Fact, Figures, columns, document, fact_cells, growth, over_bar, table
from bench.run import Clock, Stage, measure, stage
from bench.sections import SECTIONS, Section, Setting

LOAD_NAMES = [load.name for load in LOADS]
GROUP_NAMES = list(dict.fromkeys(load.group for load in LOADS))
PROXY_NAMES = [kind.name for kind in PROXIES]
SECTION_NAMES = [section.name for section in SECTIONS]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    result.add_argument("--rounds", type=int, metavar="N", help="rounds to measure (3; with --quick 1)")
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
        help=f"only these proxies ({', '.join(PROXY_NAMES)}), groups ({', '.join(GROUP_NAMES)}), loads "
        f"({', '.join(LOAD_NAMES)}) or sections about attls alone ({', '.join(SECTION_NAMES)}); may be repeated",
    )
    result.add_argument(
        "--limit", type=float, default=900.0, metavar="SECONDS", help="start no new round after this (900)"
    )
    result.add_argument("--check", action="store_true", help="exit 1 when attls costs more than a bar allows")
    return result


def choose(only: list[str]) -> tuple[list[type[Proxy]], list[Load], list[Section]]:
    """The proxies, loads and sections that `--only` leaves. Raises ValueError.

    Naming no proxy keeps them all; naming neither load nor section keeps all of both.
    """
    names = {name for text in only for name in text.split(",") if name}
    if unknown := names.difference(PROXY_NAMES, LOAD_NAMES, GROUP_NAMES, SECTION_NAMES):
        raise ValueError(f"--only: no proxy, group, load or section is called {', '.join(sorted(unknown))}")
    kinds = [kind for kind in PROXIES if kind.name in names] or list(PROXIES)
    loads = [load for load in LOADS if names & {load.name, load.group}]
    sections = [section for section in SECTIONS if section.name in names]
    if not loads and not sections:
        loads, sections = list(LOADS), list(SECTIONS)
    return kinds, loads, sections


def present(kinds: list[type[Proxy]], tell: Callable[[str], None]) -> list[type[Proxy]]:
    """The proxies that this machine has; says which are left out. Raises BenchError when none is left."""
    result = []
    for kind in kinds:
        if sentence := kind.missing():
            tell(f"without {kind.label}: {sentence}")
        else:
            result.append(kind)
    if not result:
        raise BenchError("none of the proxies is here")
    return result


def terms(negotiated: dict[str, Negotiated]) -> list[str]:
    """What clients and proxies agreed on, in lines; says so when it is not the same for all."""
    agreed = {f"{n.protocol} {n.cipher}, {n.key_exchange}, {n.certificates} certificates" for n in negotiated.values()}
    if len(agreed) == 1:
        return [f"{agreed.pop()}; the same for all"]
    return [*(f"{name}: {term}" for name, term in negotiated.items()), "NOT the same for all: not fair"]


def measure_sections(
    built: Stage, sections: list[Section], setting: Setting, tell: Callable[[str], None]
) -> dict[str, list[Fact]]:
    """The facts of each section by its title; a section that could not be measured is said, and the others go on."""
    result: dict[str, list[Fact]] = {}
    if OURS not in built.proxies:
        return result
    for section in sections:
        tell(f"section {section.name}")
        try:
            result[section.title] = section.measure(setting)
        except BenchError as error:
            tell(f"bench: section {section.name}: {error}")
            sentence = str(error).partition("\n")[0][:100]
            result[section.title] = [Fact(f"not measured: {sentence}", 1.0, "failure", bar=0.0)]
    return result


def main() -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args()
    try:
        kinds, loads, sections = choose(options.only)
    except ValueError as error:
        parser().error(str(error))
    rounds = options.rounds if options.rounds is not None else (1 if options.quick else 3)
    sizes = QUICK if options.quick else Sizes()
    if options.idle:
        sizes = replace(sizes, idle=options.idle)
    if rounds < 1 or not 1 <= sizes.idle <= 25_000:
        parser().error("--rounds must be at least 1 and --idle between 1 and 25000")

    quiet = options.json is not None and str(options.json) == "-"

    def say(line: str = "") -> None:
        print(line, file=sys.stderr if quiet else sys.stdout, flush=True)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))  # clear up on the way out, as on Ctrl-C
    figures = Figures()
    try:
        if os.geteuid() != 0:
            raise BenchError("the benchmark makes network namespaces: run it as root")
        kinds = present(kinds, tell)
        facts = machine.describe()
        versions = {kind.name: kind.version() for kind in kinds}
        if OURS in versions:
            versions[OURS] += f" ({machine.attls_libraries()})"
        with stage(kinds) as built:
            negotiated = built.negotiated()
            disturbance = machine.Disturbance()
            clock = Clock(options.limit)
            measure(built, loads, sizes, figures, rounds=rounds, clock=clock, tell=tell)
            setting = Setting(built, sizes, *((policy.QUICK_RULES, 1) if options.quick else ()))
            alone = measure_sections(built, sections, setting, tell)
            facts["during"] = disturbance.describe()
    except BenchError as error:
        tell(f"bench: {error}")
        return 3
    except KeyboardInterrupt:
        tell("bench: interrupted")
        return 3

    for heading, text in {**facts, **versions}.items():
        say(f"{heading:<10} {text}")
    for line in terms(negotiated):
        say(f"{'TLS':<10} {line}")
    done = max((len(each) for by_proxy in figures.samples.values() for each in by_proxy.values()), default=0)
    if done:
        say(f"{'rounds':<10} {done}, medians; CPU time of the proxy's processes; ratio: attls to the best peer")
    labels = {kind.name: kind.label for kind in kinds}
    for rows in figures.groups().values():
        for cells in [*table(figures, rows, labels), *growth(figures, rows, labels)]:
            say("\n" + "\n".join(columns(cells)))
    for title, found in alone.items():
        say(f"\n{title}\n" + "\n".join(columns(fact_cells(found))))
    if options.json is not None:
        text = json.dumps(
            {
                "machine": facts,
                "versions": versions,
                "negotiated": {name: asdict(term) for name, term in negotiated.items()},
                "terms": terms(negotiated),
                "sizes": asdict(sizes),
                "rounds": done,
                "labels": labels,
                "figures": document(figures),
                "alone": {title: [asdict(fact) for fact in found] for title, found in alone.items()},
            },
            indent=2,
        )
        if quiet:
            print(text)
        else:
            options.json.write_text(text + "\n")
    failures = over_bar(figures, [fact for found in alone.values() for fact in found])
    for sentence in failures:
        tell(f"bench: over the bar: {sentence}")
    return 1 if failures and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
