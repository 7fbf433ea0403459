"""`attls demo`: the whole story on two private machines, told to a person and judged by a witness of its own.

Act 1 lets a plaintext client talk to a plaintext server and reads their secret off the wire. Act 2 starts `attls run`
on both machines, lets the *same* programs talk again, and asks three parties what happened: the wire (our sniffer,
which shares no code with the TLS engine), the daemons (`attls netstat`), and the programs themselves (whom do they
believe to be talking to?). Every claim becomes a `Check`; the demo passes when all of them hold.

The stage is in `demo_stage`, the reading of packets in `demo_capture`; this file is the play.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

import attls
from attls.cli import demo_capture
from attls.cli.demo_capture import Stream
from attls.cli.demo_stage import TOOLS, Conversation, Machine, Sniffer, join, missing_tools, wait_for_line
from attls.cli.output import json_option, print_json
from attls.errors import AttlsError
from attls.model import Endpoint

SHARE = Path(attls.__file__).resolve().parent.parent  # policy/ and keyrings/ lie beside the package
ATTLS = (sys.executable, "-m", "attls")
WIRE = "wire"
PORT = 6379
KEY = "payroll:4711"
FAMILIES = {"IPv4": ("10.77.0.1", "10.77.0.2"), "IPv6": ("fd77::1", "fd77::2")}  # name → client's, server's address
TLS_1_3 = 0x0304
LOG_LINES = 30

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Check:
    """One claim of the demo, whether it holds, and what was found."""

    act: int
    family: str | None
    claim: str
    holds: bool
    found: str


@dataclass(slots=True)
class Report:
    """What the demo found out, in the order in which it did."""

    checks: list[Check] = field(default_factory=list)
    connections: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there was something to judge and every claim held."""
        return bool(self.checks) and all(check.holds for check in self.checks)


class DemoBrokenOffError(AttlsError):
    """The play came to a stop: something that had to answer did not. The sentence says who, and what it said."""


@click.command()
@json_option
def demo(as_json: bool) -> None:
    """Show the whole story in private network namespaces.

    A plaintext redis server and a plaintext client talk over a sniffed wire, first as they are, then with AT-TLS on
    both sides. Needs root; nothing on this machine is changed, and all of it is removed again, also after Ctrl-C.
    """
    began = time.monotonic()
    report = Report()
    try:
        with _interruptible():
            _play(report, _silent if as_json else _aloud)
    except DemoBrokenOffError as error:
        report.checks.append(Check(2, None, "the play came to its end", False, str(error)))
    except KeyboardInterrupt:
        click.echo("the demo was interrupted; everything it made is removed", err=True)
        raise
    seconds = time.monotonic() - began
    if not report.ok:  # whoever looks for the cause needs the daemons' words, which are gone with their machines
        for name, log in report.logs.items():
            click.echo("".join(f"{name}: {line}\n" for line in log.splitlines()[-LOG_LINES:]), err=True, nl=False)
    if as_json:
        document = {
            "ok": report.ok,
            "seconds": round(seconds, 1),
            "checks": [asdict(check) for check in report.checks],
            "connections": report.connections,
        }
        print_json(document)
    else:
        _tell_result(report, seconds)
    sys.exit(0 if report.ok else 1)


COMMANDS = (demo,)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into KeyboardInterrupt; later ones are ignored, tidying up ends soon."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _play(report: Report, tell: Tell) -> None:
    """Set the stage, play both acts and take the stage down again, whatever happens in between.

    Raises AttlsError when there can be no play here, DemoBrokenOffError when it had to be broken off.
    """
    if os.geteuid() != 0:
        raise AttlsError("the demo makes network namespaces, which needs root: run `sudo attls demo`")
    complaint = missing_tools({**TOOLS, "redis-server": "redis-server", "redis-cli": "redis-tools"})
    if complaint is not None:
        raise AttlsError(complaint)
    for needed in ("policy/demo-client.policy", "policy/demo-server.policy", "keyrings/make-demo-rings"):
        if not (SHARE / needed).is_file():
            raise AttlsError(f"the demo needs {SHARE / needed}; run it from a clone of the project with `make demo`")

    with contextlib.ExitStack() as stack:
        # Removed in the opposite order: first the machines with all their programs, then the files those programs had.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attls-demo-")))
        client = stack.enter_context(Machine("client"))
        server = stack.enter_context(Machine("server"))
        join(
            client,
            server,
            interface=WIRE,
            left_addresses=("10.77.0.1/24", "fd77::1/64"),
            right_addresses=("10.77.0.2/24", "fd77::2/64"),
        )
        sniffer = stack.enter_context(contextlib.closing(Sniffer(server, WIRE)))
        _tell_stage(client, server, tell)
        _start_redis(server, directory)
        _first_act(client, server, sniffer, report, tell)
        try:
            _second_act(client, server, sniffer, directory, report, tell)
        finally:
            report.logs = {log.stem: log.read_text(errors="replace") for log in sorted(directory.glob("*.log"))}


def _tell_stage(client: Machine, server: Machine, tell: Tell) -> None:
    versions = {
        "client": client.run("redis-cli", "--version").split()[1],
        "server": re.sub(r".*v=(\S+).*", r"\1", server.run("redis-server", "--version").strip()),
    }
    tell("AT-TLS for Linux, shown on two private machines inside this one. The host itself stays as it is.")
    tell("")
    tell("    client                              the wire                              server")
    programs = (f"redis-cli {versions['client']}", f"redis-server {versions['server']}")
    tell(f"    {programs[0]:22}           sniffed by us           {programs[1]:>22}")
    for ours, theirs in FAMILIES.values():
        tell(f"    {ours:12} ─────────────────────────────────────────────────────── {theirs:>11}")
    tell("")
    tell("Both programs speak plaintext. They know nothing about TLS, and never will.")


def _start_redis(server: Machine, directory: Path) -> None:
    """Start the legacy server as it would have been started in 2012; it runs through both acts."""
    data = directory / "redis"
    data.mkdir()
    process = server.spawn(
        "redis-server", "--port", str(PORT), "--bind", *(theirs for _, theirs in FAMILIES.values()), "--protected-mode",
        "no", "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(data), "--logfile", "",
    )  # fmt: skip
    wait_for_line(process, "Ready to accept connections", timeout=15)


@dataclass(frozen=True, slots=True)
class Talk:
    """One conversation of client and server: what came back, and whom each side believes to be talking to."""

    family: str
    secret: str
    answer: str
    seen_by_server: str
    seen_by_client: str


def _first_act(client: Machine, server: Machine, sniffer: Sniffer, report: Report, tell: Tell) -> None:
    tell("")
    tell(_headline("Act 1: without AT-TLS"))
    for family in FAMILIES:
        talk = _talk(client, server, family, tell)
        streams, _ = sniffer.streams()
        _tell_wire(streams, talk, tell)
        readable = sum(talk.secret.encode() in stream.data for stream in streams)
        judge = _Judge(report, tell, 1, family)
        judge("the secret can be read on the wire", readable == 2, f"in {readable} of {len(streams)} streams")


def _second_act(
    client: Machine, server: Machine, sniffer: Sniffer, directory: Path, report: Report, tell: Tell
) -> None:
    tell("")
    tell(_headline("Act 2: the same programs, with AT-TLS on both machines"))
    rings = _make_rings(directory)
    for machine in (server, client):
        _start_attls(machine, rings, directory, tell)
    for family in FAMILIES:
        entries: dict[str, dict[str, Any]] = {}

        def ask_the_daemons(family: str = family, entries: dict[str, dict[str, Any]] = entries) -> None:
            """Look while the connection lives; afterwards it is history."""
            for machine in (client, server):
                entries[machine.name] = _netstat(machine, family, directory)

        talk = _talk(client, server, family, tell, meanwhile=ask_the_daemons)
        report.connections += [{"machine": name, "family": family, **entry} for name, entry in entries.items()]
        streams, lost = sniffer.streams()
        _tell_wire(streams, talk, tell)
        for name, entry in entries.items():
            tell(f"    {name}   rule {entry['rule']}, {entry['protocol']}, {entry['cipher']}")
        judge = _Judge(report, tell, 2, family)
        _hear_the_wire(judge, streams, lost, talk, entries)
        _hear_the_programs(judge, talk)
    for machine in (client, server):
        machine.run(*ATTLS, "stop", "--run-dir", str(directory / machine.name))


def _make_rings(directory: Path) -> Path:
    """Make the keys and certificates of both machines, in a place of this run's own."""
    rings = directory / "keyrings"
    try:
        subprocess.run(
            [sys.executable, str(SHARE / "keyrings" / "make-demo-rings"), str(rings)], check=True, capture_output=True,
            text=True, timeout=60, start_new_session=True,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise DemoBrokenOffError(f"keyrings/make-demo-rings failed: {(error.stderr or error.stdout).strip()}") from None
    return rings


def _start_attls(machine: Machine, rings: Path, directory: Path, tell: Tell) -> None:
    """Start `attls run` on one machine and wait until it says that connections are protected."""
    policy = f"policy/demo-{machine.name}.policy"
    log = directory / f"{machine.name}.log"
    process = machine.spawn(
        *ATTLS, "run", "--policy", str(SHARE / policy), "--keyrings", str(rings),
        "--run-dir", str(directory / machine.name), "--workers", "1", stderr=log,
    )  # fmt: skip
    try:
        line = wait_for_line(process, "^ready", timeout=30)
    except AttlsError as error:
        said = log.read_text(errors="replace").strip() or str(error)
        if process.poll() == 3:  # its own words for "this machine cannot do it", which then is our answer too
            raise AttlsError(f"`attls run` could not start on the {machine.name}: {said}") from None
        raise DemoBrokenOffError(f"`attls run` did not become ready on the {machine.name}: {said}") from None
    tell(f"    {machine.name} $ attls run --policy {policy} --keyrings …")
    tell(click.style(f"             {line}", dim=True))


def _talk(
    client: Machine, server: Machine, family: str, tell: Tell, *, meanwhile: Callable[[], None] | None = None
) -> Talk:
    """Let redis-cli store a new secret and read it back; ask both ends who the other one is.

    `meanwhile` is called while the connection stands; at the return it has ended on both machines. Raises
    DemoBrokenOffError when the two cannot talk.
    """
    _, theirs = FAMILIES[family]
    secret = f"secret-{secrets.token_hex(6)}"
    tell("")
    tell(f"    client $ redis-cli -h {theirs} SET {KEY} {click.style(secret, bold=True)}")
    conversation = Conversation(client.spawn("redis-cli", "-h", theirs, "-p", str(PORT)), marker="ECHO")
    try:
        conversation.ask(f"SET {KEY} {secret}")
        answer = conversation.ask(f"GET {KEY}")
        client_list = conversation.ask("CLIENT LIST")
        sockets = client.run("ss", "-H", "-t", "-n", "-p", "state", "established")
        if meanwhile is not None:
            meanwhile()
    except DemoBrokenOffError:
        raise
    except AttlsError as error:
        raise DemoBrokenOffError(f"{family}: client and server could not talk: {error}") from None
    finally:
        conversation.close()
    _wait_for_silence(client, server)
    by_server = re.search(r"\baddr=(\S+)", client_list)
    by_client = re.search(r"^\s*\d+\s+\d+\s+\S+\s+(\S+)\s+users:\(\(\"redis-cli\"", sockets, re.MULTILINE)
    return Talk(
        family,
        secret,
        answer,
        seen_by_server=by_server.group(1) if by_server else "nobody",
        seen_by_client=by_client.group(1) if by_client else "nobody",
    )


def _wait_for_silence(*machines: Machine, patience: float = 5.0) -> None:
    """Wait up to `patience` seconds until no connection to the server's port is left, so that no byte is under way."""
    deadline = time.monotonic() + patience
    for machine in machines:
        while f":{PORT}" in machine.run("ss", "-H", "-t", "-n", "exclude", "listening", "exclude", "time-wait"):
            if time.monotonic() > deadline:
                return  # whoever judges the capture will see whether that did harm
            time.sleep(0.02)


def _netstat(machine: Machine, family: str, directory: Path, patience: float = 5.0) -> dict[str, Any]:
    """Ask a machine's daemon for the connection of this family; waits up to `patience` seconds for it to show up."""
    deadline = time.monotonic() + patience
    while True:
        entries = json.loads(machine.run(*ATTLS, "netstat", "--json", "--run-dir", str(directory / machine.name)))
        for entry in entries:
            if _server_end(family) in (entry["local"], entry["remote"]) and entry["protocol"]:
                return dict(entry)
        if time.monotonic() > deadline:
            raise DemoBrokenOffError(f"{family}: `attls netstat` on the {machine.name} shows no secured connection")
        time.sleep(0.1)


def _server_end(family: str) -> str:
    return str(Endpoint(ipaddress.ip_address(FAMILIES[family][1]), PORT))


@dataclass(frozen=True, slots=True)
class _Judge:
    """Writes claims about one conversation into the report, and tells them."""

    report: Report
    tell: Tell
    act: int
    family: str

    def __call__(self, claim: str, holds: bool, found: str) -> None:
        self.report.checks.append(Check(self.act, self.family, claim, holds, found))
        mark = click.style("✓", fg="green") if holds else click.style("✗", fg="red", bold=True)
        self.tell(f"    {mark} {claim:40} {click.style(found, dim=True)}")


def _hear_the_wire(
    judge: _Judge, streams: list[Stream], lost: int, talk: Talk, entries: dict[str, dict[str, Any]]
) -> None:
    """Hear the witness: what the sniffer saw of one conversation, and whether the daemons say the same."""
    whole = not lost and not any(stream.missing for stream in streams) and len(streams) == 2
    amount = sum(len(stream.data) for stream in streams)
    judge("the sniffer saw all of it", whole, f"{amount:,} bytes in {len(streams)} streams, {lost} packets lost")

    places = [stream.source for stream in streams if talk.secret.encode() in stream.data]
    found = f"sent by {places[0]}" if places else "not found"
    judge("the secret is nowhere on the wire", bool(streams) and not places, found)

    clear = [stream.source for stream in streams if demo_capture.records_of(stream.data) is None]
    found = f"clear text from {clear[0]}" if clear else "no byte outside a TLS record"
    judge("all that crossed the wire was TLS", bool(streams) and not clear, found)

    opened = any(demo_capture.is_client_hello(stream.data) for stream in streams)
    hellos = [hello for stream in streams if (hello := demo_capture.server_hello(stream.data)) is not None]
    chosen = hellos[0] if hellos else demo_capture.Hello(0, 0)
    found = f"ServerHello chose version {chosen.version:#06x}, cipher {chosen.cipher:04X}"
    judge("a TLS 1.3 handshake opened it", opened and chosen.version == TLS_1_3, found)

    ciphers = {entry["cipher4"].upper() for entry in entries.values()}
    found = f"cipher {', '.join(sorted(ciphers))} in `attls netstat`"
    judge("both daemons report what the wire shows", ciphers == {f"{chosen.cipher:04X}"}, found)


def _hear_the_programs(judge: _Judge, talk: Talk) -> None:
    """Hear the programs: nothing may have changed for them."""
    ours, _ = FAMILIES[talk.family]
    judge("the client got its data back unchanged", talk.answer == talk.secret, talk.answer)
    holds = talk.seen_by_server.rpartition(":")[0].strip("[]") == ours
    judge("the server sees the client's address", holds, f"{talk.seen_by_server} in its CLIENT LIST")
    holds = talk.seen_by_client == _server_end(talk.family)
    judge("the client sees the server's address", holds, f"{talk.seen_by_client} as its socket's peer")


def _tell_wire(streams: list[Stream], talk: Talk, tell: Tell) -> None:
    """Show what an eavesdropper reads: the place of the secret where it can be found, else how the talk begins."""
    for stream in streams:
        position = stream.data.find(talk.secret.encode())
        if position >= 0:
            excerpt = stream.data[max(0, position - 38) :]
            before, secret, after = demo_capture.printable(excerpt, 72).partition(talk.secret)
            tell(f"    wire     {before}{click.style(secret, fg='red', bold=True)}{after}")
            return
    for stream in streams[:1]:
        tell(f"    wire     {demo_capture.printable(stream.data, 72)}")


def _headline(text: str) -> str:
    return click.style(f"{text}\n{'─' * len(text)}", bold=True)


def _tell_result(report: Report, seconds: float) -> None:
    click.echo("")
    for check in report.checks:
        if not check.holds:
            click.echo(f"FAIL: {f'{check.family}: ' if check.family else ''}{check.claim}: {check.found}")
    kept = sum(check.holds for check in report.checks)
    word = click.style("PASS", fg="green", bold=True) if report.ok else click.style("FAIL", fg="red", bold=True)
    click.echo(f"{word}: {kept} of {len(report.checks)} claims hold, in {seconds:.1f} seconds.", nl=False)
    click.echo(" Machines, wire and keys are removed.")


def _aloud(line: str) -> None:
    click.echo(line)


def _silent(line: str) -> None:
    """Say nothing: with --json the document is all there is."""
