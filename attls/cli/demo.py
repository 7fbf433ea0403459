"""`attls demo`: the whole story, told to a person and judged by witnesses of its own.

Act 1 (`demo_exec`) runs two plaintext programs of this machine under `attls exec`, which takes no privileges. The rest
needs root, for it plays on two private machines: act 2 lets a plaintext client talk to a plaintext server and reads
their secret off the wire; act 3 starts `attls run` on both machines, lets the *same* programs talk again, and asks
three parties what happened: the wire (our sniffer, which shares no code with the TLS engine), the daemons (`attls
netstat`), and the programs themselves (whom do they believe to be talking to?). Every claim becomes a `Check`; the demo
passes when all of them hold.

The stage is in `demo_stage`, the reading of packets in `demo_capture`, the judging in `demo_report`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import pwd
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

import attls
from attls.cli import demo_exec
from attls.cli.demo_capture import Stream
from attls.cli.demo_report import (
    Check,
    DemoBrokenOffError,
    Judge,
    Report,
    Tell,
    headline,
    hear_the_wire,
    tell_wire,
)
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
LOG_LINES = 30


@click.command()
@json_option
def demo(as_json: bool) -> None:
    """Show the whole story, first as yourself, then in private network namespaces.

    A plaintext redis server and a plaintext client talk over a wire that we listen to, first as they are, then under
    TLS: started by `attls exec`, which anybody may do; then on two private machines that run AT-TLS, which needs root.
    Nothing on this machine is changed, and all of it is removed again, also after Ctrl-C.
    """
    began = time.monotonic()
    report = Report()
    try:
        with _interruptible():
            _play(report, _silent if as_json else _aloud)
    except DemoBrokenOffError as error:
        act = max((check.act for check in report.checks), default=1)
        report.checks.append(Check(act, None, "the play came to its end", False, str(error)))
    except KeyboardInterrupt:
        click.echo("the demo was interrupted; everything it made is removed", err=True)
        raise
    seconds = time.monotonic() - began
    if not report.ok:  # whoever looks for the cause needs the daemons' words, which are gone with their machines
        for name, log in report.logs.items():
            click.echo("".join(f"{name}: {line}\n" for line in log.splitlines()[-LOG_LINES:]), err=True, nl=False)
    if as_json:
        document = {
            "ok": report.ok and report.left_out is None,
            "seconds": round(seconds, 1),
            "checks": [asdict(check) for check in report.checks],
            "connections": report.connections,
            "left_out": report.left_out,
        }
        print_json(document)
    else:
        _tell_result(report, seconds)
    if report.ok and report.left_out is not None:
        raise AttlsError(report.left_out)
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
    """Play what may be played here, and leave nothing behind, whatever happens in between.

    Raises AttlsError when there can be no play here, DemoBrokenOffError when it had to be broken off.
    """
    is_root = os.geteuid() == 0
    tools = {"redis-server": "redis-server", "redis-cli": "redis-tools", "setpriv": "util-linux"}
    complaint = missing_tools({**TOOLS, **tools} if is_root else tools)
    if complaint is not None:
        raise AttlsError(complaint)
    for needed in ("policy/demo-client.policy", "policy/demo-server.policy", "keyrings/make-demo-rings"):
        if not (SHARE / needed).is_file():
            raise AttlsError(f"the demo needs {SHARE / needed}; run it from a clone of the project with `make demo`")

    with tempfile.TemporaryDirectory(prefix="attls-demo-") as name:
        directory = Path(name)
        rings = _make_rings(directory)
        tell("AT-TLS for Linux. Both programs speak plaintext. They know nothing about TLS, and never will.")
        try:
            demo_exec.play(report, directory, rings, SHARE / "policy", _user(), tell)
        except DemoBrokenOffError:
            raise
        except AttlsError as error:
            if not is_root:
                raise
            tell(f"    left out: {error}")
        if is_root:
            _play_on_machines(report, directory, rings, tell)
        else:
            report.left_out = "acts 2 and 3 make network namespaces, which needs root: run `sudo attls demo`"


def _user() -> str:
    uid = os.geteuid()
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"user {uid}"


def _play_on_machines(report: Report, directory: Path, rings: Path, tell: Tell) -> None:
    """Set the stage, play acts 2 and 3 and take the stage down again. Raises as `_play`."""
    with contextlib.ExitStack() as stack:
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
        tell("")
        tell(headline("Act 2: two machines, without AT-TLS"))
        _tell_stage(client, server, tell)
        _start_redis(server, directory)
        _second_act(client, server, sniffer, report, tell)
        try:
            _third_act(client, server, sniffer, directory, rings, report, tell)
        finally:
            report.logs = {log.stem: log.read_text(errors="replace") for log in sorted(directory.glob("*.log"))}


def _tell_stage(client: Machine, server: Machine, tell: Tell) -> None:
    versions = {
        "client": client.run("redis-cli", "--version").split()[1],
        "server": re.sub(r".*v=(\S+).*", r"\1", server.run("redis-server", "--version").strip()),
    }
    tell("    Two private machines inside this one; the host itself stays as it is.")
    tell("")
    tell("    client                              the wire                              server")
    programs = (f"redis-cli {versions['client']}", f"redis-server {versions['server']}")
    tell(f"    {programs[0]:22}           sniffed by us           {programs[1]:>22}")
    for ours, theirs in FAMILIES.values():
        tell(f"    {ours:12} ─────────────────────────────────────────────────────── {theirs:>11}")


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


def _second_act(client: Machine, server: Machine, sniffer: Sniffer, report: Report, tell: Tell) -> None:
    for family in FAMILIES:
        talk = _talk(client, server, family, tell)
        streams, _ = sniffer.streams()
        tell_wire(streams, talk.secret, tell)
        readable = sum(talk.secret.encode() in stream.data for stream in streams)
        judge = Judge(report, tell, 2, family)
        judge("the secret can be read on the wire", readable == 2, f"in {readable} of {len(streams)} streams")


def _third_act(
    client: Machine, server: Machine, sniffer: Sniffer, directory: Path, rings: Path, report: Report, tell: Tell
) -> None:
    tell("")
    tell(headline("Act 3: the same programs, with AT-TLS on both machines"))
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
        tell_wire(streams, talk.secret, tell)
        for name, entry in entries.items():
            tell(f"    {name}   rule {entry['rule']}, {entry['protocol']}, {entry['cipher']}")
        judge = Judge(report, tell, 3, family)
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


def _hear_the_wire(
    judge: Judge, streams: list[Stream], lost: int, talk: Talk, entries: dict[str, dict[str, Any]]
) -> None:
    """Hear the witness: what the sniffer saw of one conversation, and whether the daemons say the same."""
    whole = not lost and not any(stream.missing for stream in streams) and len(streams) == 2
    amount = sum(len(stream.data) for stream in streams)
    judge("the sniffer saw all of it", whole, f"{amount:,} bytes in {len(streams)} streams, {lost} packets lost")

    chosen = hear_the_wire(judge, streams, talk.secret)
    ciphers = {entry["cipher4"].upper() for entry in entries.values()}
    found = f"cipher {', '.join(sorted(ciphers))} in `attls netstat`"
    judge("both daemons report what the wire shows", ciphers == {f"{chosen.cipher:04X}"}, found)


def _hear_the_programs(judge: Judge, talk: Talk) -> None:
    """Hear the programs: nothing may have changed for them."""
    ours, _ = FAMILIES[talk.family]
    judge("the client got its data back unchanged", talk.answer == talk.secret, talk.answer)
    holds = talk.seen_by_server.rpartition(":")[0].strip("[]") == ours
    judge("the server sees the client's address", holds, f"{talk.seen_by_server} in its CLIENT LIST")
    holds = talk.seen_by_client == _server_end(talk.family)
    judge("the client sees the server's address", holds, f"{talk.seen_by_client} as its socket's peer")


def _tell_result(report: Report, seconds: float) -> None:
    click.echo("")
    for check in report.checks:
        if not check.holds:
            click.echo(f"FAIL: {f'{check.family}: ' if check.family else ''}{check.claim}: {check.found}")
    kept = sum(check.holds for check in report.checks)
    word = click.style("PASS", fg="green", bold=True) if report.ok else click.style("FAIL", fg="red", bold=True)
    click.echo(f"{word}: {kept} of {len(report.checks)} claims hold, in {seconds:.1f} seconds.", nl=False)
    click.echo(" Machines, wires and keys are removed.")


def _aloud(line: str) -> None:
    click.echo(line)


def _silent(line: str) -> None:
    """Say nothing: with --json the document is all there is."""
