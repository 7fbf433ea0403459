"""What attls alone is asked: figures that have no peer, in sections that each set up what they need.

A section returns facts; `SECTIONS` at the end lists them in the order they run. Those that need the stage of the
comparison start attls anew, as they want it, and leave it running.
"""

from __future__ import annotations

import json
import re
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import cpu_count

from bench import control, exec, policy, ports, quota  # noqa: A004 - named after the command that it measures
from bench.generator import THREADS
from bench.loads import (
    TIMEOUT,
    Requests,
    Sizes,
    await_steady,
    cpu_row,
    expect,
    finish,
    generator_command,
    holding,
    read_wrk,
    started,
    wrk_commands,
)
from bench.network import BenchError, Network
from bench.processes import CpuTime
from bench.proxies import Attls, Entry, Job
from bench.report import Fact
from bench.run import BARE, Stage


@dataclass(frozen=True, slots=True)
class Setting:
    """What a section may use: the stage with attls on it, how much of everything, and how many rules are many."""

    stage: Stage
    sizes: Sizes
    rules: int = policy.RULES
    repeats: int = 3

    @property
    def is_quick(self) -> bool:
        """Whether this is only to see that everything works."""
        return self.rules < policy.RULES

    @property
    def attls(self) -> Attls:
        """The proxy."""
        proxy = self.stage.proxies[Attls.name]
        assert isinstance(proxy, Attls)
        return proxy

    def restart(self, *, workers: int = 1, more_rules: str = "") -> Attls:
        """Start attls anew; returns it."""
        self.attls.more_rules = more_rules
        self.stage.restart(self.attls, workers)
        return self.attls

    def entry(self, job: Job) -> Entry:
        """Where the load of a job goes in."""
        entry = self.attls.entry(job)
        assert entry is not None
        return entry


@dataclass(frozen=True, slots=True)
class Section:
    """A named part of the run that needs no peer."""

    name: str
    title: str
    measure: Callable[[Setting], list[Fact]]


CORES = max(2, cpu_count() or 1)
GROWTH = 1.8


def many_rules(rules: int, *, mark: int = 0) -> str:
    """Policy text of so many rules that fit none of the benchmark's connections; `mark` makes a difference."""
    text = policy.policy_text(rules, keyring="BENCH/trust", kinds=policy.BY_ADDRESS, direction="Both")
    return text + policy.one_rule(mark)


# --------------------------------------------------------------------------------------------------------------------
# Start and refresh


def start(setting: Setting) -> list[Fact]:
    """From the command to the line `ready`, with the few rules of the comparison and with many."""
    facts = []
    for rules in (0, setting.rules):
        setting.attls.more_rules = many_rules(rules) if rules else ""
        times = []
        for _ in range(setting.repeats):
            setting.attls.stop()
            setting.attls.workers = 1
            times.append(setting.attls.start(setting.attls.is_ready, patience=TIMEOUT))
        facts.append(Fact(f"from start to ready, {rules or 'a few'} rules", sorted(times)[len(times) // 2], "s"))
    return facts


@contextmanager
def asking(setting: Setting, connections: int) -> Iterator[Callable[[], dict[str, float]]]:
    """Keep some connections busy in the body; yields a function that tells the longest wait since it was last asked."""
    what = "attls, longest wait"
    command = generator_command("waits", setting.entry(Job.REQUEST), count=1, streams=connections)
    with started([command]) as (process,):
        expect(process, "holding", what)
        assert process.stdin is not None
        assert process.stdout is not None
        ask, answer = process.stdin, process.stdout

        def waits() -> dict[str, float]:
            ask.write("\n")
            ask.flush()
            line = answer.readline()
            if not line:
                finish(process, what)
            result: dict[str, float] = json.loads(line)
            return result

        yield waits
        finish(process, what)


def refresh(setting: Setting) -> list[Fact]:
    """Put a policy of many rules in force while connections are busy: how long the unluckiest request waits."""
    attls = setting.restart(more_rules=many_rules(setting.rules))
    calm: list[float] = []
    stalls: list[float] = []
    took: list[float] = []
    with asking(setting, 16) as waits:
        for number in range(setting.repeats):
            waits()
            time.sleep(setting.sizes.seconds)
            calm.append(waits()["longest"])
            attls.more_rules = many_rules(setting.rules, mark=number + 1)
            attls.write_policy()
            waits()
            begun = time.monotonic()
            attls.run("refresh", "--run-dir", str(attls.run_dir))
            took.append(time.monotonic() - begun)
            stalls.append(waits()["longest"])
    rules = f"{setting.rules} rules"
    return [
        Fact(f"refresh with {rules} under load takes", max(took), "s"),
        Fact("longest wait of a request, 16 busy connections, meanwhile", max(stalls) * 1e3, "ms"),
        Fact("the same without a refresh", max(calm) * 1e3, "ms"),
    ]


# --------------------------------------------------------------------------------------------------------------------
# Traffic that no rule matches


def _unruled(network: Network, server_pids: tuple[int, ...], seconds: float, *, new: bool) -> tuple[float, float]:
    """CPU seconds of client and server together per request to a port without a rule, and requests per second."""
    entry = Entry(network.client, network.server_addresses, ports.BACKEND_UNRULED, tls=False)
    commands = wrk_commands(entry, clients=16, seconds=seconds, header="Connection: close" if new else "")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    before = CpuTime.read(server_pids)
    with started(commands) as (process,):
        done = read_wrk(finish(process, "traffic without a rule"))
    after = CpuTime.read(server_pids)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    client = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return (after.total - before.total + client) / done["requests"], done["requests"] / done["seconds"]


def steering(setting: Setting) -> list[Fact]:
    """What traffic that no rule matches pays for attls being there: the CPU time of its two ends, nothing else."""
    stage = setting.stage
    places = {
        "without attls": (stage.bare, stage.backends[BARE].pids()),
        f"past attls with {setting.rules} rules": (setting.attls.network, stage.backends[Attls.name].pids()),
    }
    attls = setting.restart(more_rules=many_rules(setting.rules))
    before = CpuTime.settled(attls.pids())
    facts = []
    for label, new in (("request", False), ("connection", True)):
        costs: dict[str, list[float]] = {place: [] for place in places}
        for _ in range(setting.repeats):
            for place, (network, pids) in places.items():
                costs[place].append(_unruled(network, pids, setting.sizes.seconds, new=new)[0])
        medians = {place: sorted(each)[len(each) // 2] for place, each in costs.items()}
        facts += [
            Fact(f"no rule matches: a {label}, both ends, {place}", median * 1e6, "us")
            for place, median in medians.items()
        ]
    used = CpuTime.settled(attls.pids()).total - before.total
    return [*facts, Fact("no rule matches: CPU time of attls meanwhile", used * 1e3, "ms", bar=100.0)]


# --------------------------------------------------------------------------------------------------------------------
# Many at once, returning clients, more workers


def crowd(setting: Setting) -> list[Fact]:
    """Very many idle and many busy connections at once, on all cores, without an error."""
    attls = setting.restart(workers=CORES)
    entry, sizes = setting.entry(Job.REQUEST), setting.sizes
    with holding(entry, sizes.idle, "attls, idle connections of the crowd") as (idle, _):
        with started(wrk_commands(entry, clients=sizes.crowd, spread=True)) as processes:
            await_steady(attls.server(Job.REQUEST), sizes.idle + sizes.crowd, processes, "attls, crowd")
            time.sleep(2 * sizes.seconds)
            done = Requests.interrupt(processes, read_wrk, "attls, crowd")
        assert idle.stdin is not None
        idle.stdin.write("\n")
        idle.stdin.flush()
        expect(idle, "alive", "attls, idle connections of the crowd")
    errors = sum(each["errors"] for each in done)
    rate = sum(each["requests"] / each["seconds"] for each in done)
    return [
        Fact("idle connections held and asked once more at the end", sizes.idle, "connections"),
        Fact("connections busy at the same time", sizes.crowd, "connections"),
        Fact("requests that they got through", rate, "requests/s"),
        Fact("errors among all of them", errors, "errors", bar=0.0),
    ]


SAMPLE = re.compile(r"^(attls_connections_secured_total|attls_sessions_resumed_total)(?:\{.*\})? (\d+)$", re.MULTILINE)


def resumed_share(before: str, after: str) -> float:
    """The share of handshakes that resumed a session between two texts of `attls status --metrics`."""
    counts = []
    for text in (before, after):
        found: dict[str, int] = {}
        for name, value in SAMPLE.findall(text):
            found[name] = found.get(name, 0) + int(value)
        counts.append(found)
    secured, resumed = (
        counts[1].get(name, 0) - counts[0].get(name, 0)
        for name in ("attls_connections_secured_total", "attls_sessions_resumed_total")
    )
    return resumed / secured if secured else 0.0


def resumption(setting: Setting) -> list[Fact]:
    """Clients that return to several workers, while a refresh leaves their action unchanged, find their sessions."""
    attls = setting.restart(workers=CORES, more_rules=policy.one_rule(0))
    metrics = ["status", "--metrics", "--run-dir", str(attls.run_dir)]
    before = attls.run(*metrics)
    command = generator_command("connections", setting.entry(Job.REQUEST), count=setting.sizes.connections, resume=True)
    refreshed: list[BenchError] = []

    def change() -> None:
        attls.more_rules = policy.one_rule(1)
        attls.write_policy()
        try:
            attls.run("refresh", "--run-dir", str(attls.run_dir))
        except BenchError as error:
            refreshed.append(error)

    with started([command]) as (process,):
        secured = sum(int(n) for name, n in SAMPLE.findall(before) if name.startswith("attls_connections_secured"))
        _await_handshakes(attls, metrics, secured + setting.sizes.connections // 4)
        refresher = threading.Thread(target=change)
        refresher.start()
        figures = json.loads(finish(process, "attls, returning clients"))
        refresher.join()
    for error in refreshed:
        raise error
    share = resumed_share(before, attls.run(*metrics))
    offered = figures["units"] - THREADS  # the first connection of each of the generator's threads has nothing to offer
    hits = 100 * figures["resumed"] / offered
    return [
        Fact(f"sessions resumed of those offered, {CORES} workers, one refresh", hits, "%", bar=99.0, least=True),
        Fact("hit rate by the metrics of attls, first connections included", 100 * share, "%"),
    ]


def _await_handshakes(attls: Attls, metrics: list[str], count: int) -> None:
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        found = SAMPLE.findall(attls.run(*metrics))
        if sum(int(n) for name, n in found if name.startswith("attls_connections_secured")) >= count:
            return
    raise BenchError(f"attls: no {count} handshakes after {TIMEOUT:.0f} s")


def scaling(setting: Setting) -> list[Fact]:
    """Throughput from one worker to two where the machine leaves room: each worker is held to a share of a core.

    On a machine with few cores, load generator and backend take what a second worker would need. A limit on each
    worker leaves them room, and what keeps two workers from doing twice the work of one would still show.
    """
    if sentence := quota.missing():
        return [Fact(f"growth from 1 worker to 2 not measured: {sentence}", 0.0, "")]
    rates: dict[int, dict[str, float]] = {}
    for workers in (1, 2):
        attls = setting.restart(workers=workers)
        with quota.held_to(attls.worker_pids(), 0.2):
            rates[workers] = {
                "new connections, full handshake": _generated_rate(
                    setting, "connections", Job.REQUEST, setting.sizes.connections
                ),
                "small requests, 64 connections": _request_rate(setting),
                "bulk to the client, 32 streams": _generated_rate(
                    setting, "download", Job.REQUEST, setting.sizes.bulk_bytes // 4, streams=32
                ),
            }
    label = "growth from 1 worker to 2, each held to a fifth of a core"
    return [
        Fact(f"{label}: {load}", rates[2][load] / rate, "x", bar=GROWTH, least=True) for load, rate in rates[1].items()
    ]


def _generated_rate(setting: Setting, load: str, job: Job, count: int, *, streams: int = 1) -> float:
    with started([generator_command(load, setting.entry(job), count=count, streams=streams)]) as (process,):
        figures = json.loads(finish(process, f"attls, scaling of {load}"))
    return float(figures["units"]) / float(figures["seconds"])


def _request_rate(setting: Setting) -> float:
    row = cpu_row("scaling-requests", "scaling", "small request, 64 connections", "requests/s")
    sizes = replace(setting.sizes, seconds=2 * setting.sizes.seconds)
    sample = Requests(Job.REQUEST, 64, row, spread=True).run(setting.attls, sizes)[row]
    return sample.units / sample.seconds


# --------------------------------------------------------------------------------------------------------------------
# A large policy


def large_policy(setting: Setting) -> list[Fact]:
    """Load, render and ask a policy of many rules, inside this process."""
    return policy.measure(setting.rules).facts()


# --------------------------------------------------------------------------------------------------------------------
# Programs that ask and command; one program under exec


def control_channel(setting: Setting) -> list[Fact]:
    """What a query and a STARTTLS cost a program, in networks of their own."""
    return control.measure(control.QUICK if setting.is_quick else control.Sizes()).facts()


def one_program(setting: Setting) -> list[Fact]:
    """What `attls exec` adds to the calls of a program, and what its helper uses for data."""
    rows = exec.measure(count=200, pauses=10, fresh=5, gigabytes=0.05) if setting.is_quick else exec.measure()
    return exec.facts(rows)


SECTIONS: tuple[Section, ...] = (
    Section("start", "Start", start),
    Section("refresh", "Refresh under load", refresh),
    Section("steering", "Traffic that no rule matches", steering),
    Section("crowd", "Very many connections at once", crowd),
    Section("resumption", "Returning clients", resumption),
    Section("scaling", "More workers", scaling),
    Section("policy", "A large policy", large_policy),
    Section("control", "Programs that ask and command", control_channel),
    Section("exec", "One program under attls exec", one_program),
)
