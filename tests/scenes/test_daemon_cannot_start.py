"""What keeps `attls run` from starting is one sentence and an exit code; the host is untouched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenes.conftest import Stage
from tests.scenes.daemons import client_context, echo, program, rule

pytestmark = pytest.mark.scene


@pytest.fixture(autouse=True)
def host_stays_untouched(stage: Stage) -> Iterator[None]:
    """Compare tables and routing rules before and after."""
    before = [stage.host.run("nft", "list", "ruleset"), stage.host.run("ip", "rule")]
    yield
    assert before == [stage.host.run("nft", "list", "ruleset"), stage.host.run("ip", "rule")]


def one_sentence(said: str) -> str:
    """Return the only line, or fail."""
    (line,) = said.splitlines()
    assert line.startswith("attls: ")
    return line


def test_a_second_daemon_on_the_same_directory(stage: Stage) -> None:
    """It names the process that holds the directory."""
    stage.daemon.start(rule("web"))
    code, said = stage.daemon.fails(rule("web"))
    assert code == 3
    assert f"another attls daemon (process {stage.daemon.pid}) holds" in one_sentence(said)
    assert stage.daemon.ask("stop").returncode == 0


def test_a_second_daemon_in_the_same_network(stage: Stage, tmp_path: Path) -> None:
    """Another run directory is not another network: the first daemon's steering is not taken from it."""
    stage.daemon.start(rule("web"))
    for _ in range(3):
        code, said = stage.daemon.fails(rule("web"), "--run-dir", str(tmp_path / "other"))
        assert code == 3
        assert f"another attls daemon (process {stage.daemon.pid}) steers this network already" in one_sentence(said)
    with program(stage.host), client_context(stage.rings).wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as sock:
        assert echo(sock) == b"hello"
    assert stage.daemon.ask("stop").returncode == 0


def test_a_squatter_keeps_nobody_from_starting(stage: Stage) -> None:
    """A program of an ordinary user that sits on the name daemons find each other by is ignored, with a warning."""
    squat = (
        "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('\\0attls-steering'); s.listen(0)\n"
        "print(flush=True); time.sleep(60)"
    )
    command = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", squat]
    squatter = stage.host.popen(command, stdout=subprocess.PIPE)
    assert squatter.stdout is not None
    squatter.stdout.readline()
    stage.daemon.start(rule("web"))
    assert "user id 65534 sits on the name attls-steering" in stage.daemon.log
    assert stage.daemon.ask("stop").returncode == 0


def test_a_run_directory_that_cannot_be_written(stage: Stage) -> None:
    """Even root cannot write everywhere."""
    code, said = stage.daemon.fails(rule("web"), "--run-dir", "/proc/attls")
    assert code == 3
    assert "cannot use the run directory /proc/attls" in one_sentence(said)


def test_nft_is_missing(stage: Stage) -> None:
    """It names the package to install."""
    code, said = stage.daemon.fails(rule("web"), PATH="/nowhere")
    assert code == 3
    assert "install the package nftables" in one_sentence(said)


def test_nft_is_refused(stage: Stage) -> None:
    """Without the capability the kernel refuses, and the sentence says what is needed."""
    code, said = stage.daemon.fails(rule("web"), wrapper=("setpriv", "--bounding-set", "-net_admin"))
    assert code == 3
    assert "needs root" in one_sentence(said)


def test_no_root(stage: Stage) -> None:
    """An ordinary user is told so before anything else, whatever else he may not read or write."""
    code, said = stage.daemon.fails(
        rule("web"), "--run-dir", "/proc/attls", wrapper=("setpriv", "--reuid", "65534", "--clear-groups")
    )
    assert code == 3
    assert "needs root" in one_sentence(said)


def test_a_policy_with_errors(stage: Stage) -> None:
    """All diagnostics with file, line and column, exit code 1."""
    code, said = stage.daemon.fails(rule("web").replace("Server", "Sever").replace("Inbound", "Sideways"))
    assert code == 1
    assert said.count(": error: ") == 2
    assert f"{stage.daemon.policy}:4:13: error: " in said


def test_a_policy_that_is_not_there(stage: Stage) -> None:
    """A wrong path is a sentence, not a traceback."""
    code, said = stage.daemon.fails(rule("web"), "--policy", "/nowhere/attls.policy")
    assert code in (1, 3)
    assert "/nowhere/attls.policy" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (rule("web", ring="SRV/NONE"), "SRV has no ring 'NONE'"),
        (rule("web", ring="CLI/RING"), "certificate"),
        (rule("web", extra="CertificateLabel nobody"), "nobody"),
        (rule("web", ring="SRV/NONE") + rule("two", port=7001, ring="NOBODY/RING"), "NOBODY has no ring 'RING'"),
    ],
)
def test_a_ring_that_cannot_serve(stage: Stage, policy: str, words: str) -> None:
    """Missing ring, ring without certificate, missing label: each named with its rule before anything is steered."""
    code, said = stage.daemon.fails(policy)
    assert code == 3
    assert "rule web" in said
    assert words in said
    assert "Traceback" not in said
