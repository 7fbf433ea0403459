"""`attls demo` end to end: it passes, several at once pass, it can be interrupted anywhere, and it leaves nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.exec import stage as stages

pytestmark = pytest.mark.scene

DEMO = (sys.executable, "-m", "attls", "demo")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give the demo a place for its temporary files that is ours alone, so that we see what it leaves there."""
    return {**os.environ, "TMPDIR": str(tmp_path)}


@pytest.fixture(autouse=True)
def leaves_nothing(tmp_path: Path) -> Iterator[None]:
    """After every test of this file: no file, no process, no interface, no rule, no route of the demo is left."""
    before = host()
    yield
    assert before == host()
    assert not list(tmp_path.iterdir())
    assert not processes_of(tmp_path)


def host() -> list[str]:
    """Take down every line of the host's network state that speaks of the demo's addresses, wire or table."""
    commands = ("ip -o link", "ip -o address", "ip rule", "ip route show table all", "ip -6 rule", "nft list ruleset")
    state = [subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout for command in commands]
    return [line for line in "".join(state).splitlines() if re.search(r"10\.77\.0|fd77:|wire|attls", line)]


def processes_of(directory: Path) -> list[str]:
    """List the processes whose TMPDIR is this directory, after giving those that are ending five seconds."""
    deadline = time.monotonic() + 5
    wanted = f"TMPDIR={directory}\0".encode()
    while True:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in process.joinpath("environ").read_bytes() and process.name != str(os.getpid()):
                    found.append(process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def run_demo(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([*DEMO, *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_demo_passes_and_tells_its_story(environment: dict[str, str]) -> None:
    """The story names rule, protocol and cipher, shows the secret where there is no TLS, and ends with PASS and 0."""
    code, told, errors = run_demo(environment)
    assert (0, "") == (code, errors), told
    _, first, second, third = re.split(r"^Act \d", told, flags=re.M)
    assert [True, False] == secret_on_wire(first)
    assert [True, True] == secret_on_wire(second)
    assert [False, False] == secret_on_wire(third)
    assert re.search(r"^    attls    redis-cli\[\d+\] .* rule demo-redis-client: TLSv1.3 TLS_", first, re.M)
    assert "TLSv1.3" in third
    assert "TLS_" in third
    assert "\x1b" not in told
    assert told.rstrip().splitlines()[-1].startswith("PASS: ")


def secret_on_wire(act: str) -> list[bool]:
    """Tell of each look at the wire in an act whether the secret could be read there."""
    return ["secret-" in line for line in act.splitlines() if line.startswith("    wire ")]


def test_two_demos_at_once_do_not_collide(environment: dict[str, str]) -> None:
    """Same addresses, same ports, same host: both pass, and --json is one document and nothing else."""
    demos = [
        subprocess.Popen([*DEMO, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    for each in demos:
        out, errors = each.communicate(timeout=60)
        document: dict[str, Any] = json.loads(out)
        assert (0, "", True) == (each.returncode, errors, document["ok"]), document
        assert all(check["holds"] for check in document["checks"])
        seen = {(entry["machine"], entry["family"], entry["protocol"]) for entry in document["connections"]}
        assert {(machine, family, "TLSv1.3") for machine in ("client", "server") for family in ("IPv4", "IPv6")} == seen


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "Both programs speak plaintext"),
        (signal.SIGTERM, "$ attls exec --policy policy/demo-client.policy"),
        (signal.SIGTERM, "Act 2"),
        (signal.SIGINT, "server $ attls run"),
        (signal.SIGHUP, "client $ attls run"),
    ],
)
def test_an_interrupted_demo_leaves_nothing(environment: dict[str, str], number: int, moment: str) -> None:
    """Ctrl-C, SIGTERM and a closed terminal end it at any moment, with a sentence and everything removed."""
    demo = subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**environment, "PYTHONUNBUFFERED": "1"}
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if moment in line:
            break
    demo.send_signal(number)
    _, errors = demo.communicate(timeout=30)
    assert (130, "the demo was interrupted; everything it made is removed\n") == (demo.returncode, errors)


@pytest.mark.parametrize("moment", ["$ attls exec --policy policy/demo-client.policy", "client $ attls run"])
def test_a_killed_demo_leaves_no_process(tmp_path: Path, environment: dict[str, str], moment: str) -> None:
    """SIGKILL leaves files, which nobody can help, but not one process or namespace."""
    demo = subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True, env={**environment, "PYTHONUNBUFFERED": "1"})
    assert demo.stdout is not None
    for line in demo.stdout:
        if moment in line:
            break
    demo.kill()
    demo.communicate(timeout=10)
    assert not processes_of(tmp_path)
    subprocess.run(["rm", "-r", *map(str, tmp_path.iterdir())], check=True)


def as_nobody(environment: dict[str, str], directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as nobody, which may write to `directory`."""
    os.chown(directory, 65534, 65534)
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)
    python = stages.ordinary_user()
    if not python:
        pytest.skip("nobody may not read this Python or this tree")
    command = [*python, "-m", "attls", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_without_root_it_plays_the_first_act(tmp_path: Path, environment: dict[str, str]) -> None:
    """An ordinary user sees `attls exec` pass, then one sentence with the way to the rest, and exit code 3."""
    done = as_nobody(environment, tmp_path)
    assert (3, 1) == (done.returncode, len(done.stderr.splitlines())), done
    assert "started by nobody" in done.stdout
    assert "PASS: 8 of 8 claims hold" in done.stdout
    assert "needs root" in done.stderr


def test_without_root_the_document_says_what_is_left_out(tmp_path: Path, environment: dict[str, str]) -> None:
    """--json is one document, not ok because not all of it, and names what is missing."""
    done = as_nobody(environment, tmp_path, "--json")
    document = json.loads(done.stdout)
    assert (3, False, {1}) == (done.returncode, document["ok"], {check["act"] for check in document["checks"]})
    assert all(check["holds"] for check in document["checks"])
    assert "needs root" in document["left_out"]


def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    """What is not installed is named, and what to type to install it; exit code 3."""
    done = subprocess.run(DEMO, capture_output=True, text=True, env={**os.environ, "PATH": str(tmp_path)}, check=False)
    assert (3, "") == (done.returncode, done.stdout)
    assert "apt-get install" in done.stderr
    assert "redis-server" in done.stderr
