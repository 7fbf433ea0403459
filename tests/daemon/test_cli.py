"""The operators' commands: exit codes, one sentence for a failure, and a quick start."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from attls.cli import main
from attls.model import Direction, Endpoint, Flow, Owner, Verdict, canonical_address
from attls.observe import Ledger, display

FLOW = Flow(Direction.INBOUND, Endpoint(canonical_address("::1"), 7000), Endpoint(canonical_address("::2"), 5))


class FakeDaemon:
    """Answers every request on admin.sock with what `answer` says, and keeps the requests."""

    def __init__(self, path: Path) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: dict[str, Any] = {}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path / "admin.sock"))
        self.listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self.listener.accept()
            except OSError:
                return
            with accepted, accepted.makefile("rw") as stream:
                self.requests.append(json.loads(stream.readline()))
                stream.write(json.dumps(self.answer) + "\n")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path)
    yield daemon
    daemon.listener.shutdown(socket.SHUT_RDWR)
    daemon.listener.close()


@pytest.fixture
def connection() -> dict[str, Any]:
    record = Ledger().open(FLOW, Owner(user="srv"), Verdict("web", trace=0), generation=0)
    return record.snapshot()


def attls(tmp_path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--run-dir", str(tmp_path)])


def test_a_connection_is_shown_or_is_not_there(tmp_path: Path, daemon: FakeDaemon, connection: dict[str, Any]) -> None:
    """CONNID is hexadecimal; a connection that does not exist is the answer "no", exit code 1."""
    daemon.answer = {"ok": True, "missing": 0, "connections": [connection]}
    done = attls(tmp_path, "netstat", "0000001")
    assert (done.exit_code, done.stdout) == (0, display.connection(connection) + "\n")
    assert daemon.requests[-1]["connid"] == 1
    daemon.answer["connections"] = []
    done = attls(tmp_path, "netstat", "AB")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "attls: there is no connection 000000AB\n")


def test_json_is_one_document_and_nothing_else(tmp_path: Path, daemon: FakeDaemon, connection: dict[str, Any]) -> None:
    """Also when a worker did not answer: that goes to standard error."""
    daemon.answer = {"ok": True, "missing": 1, "connections": [connection]}
    done = attls(tmp_path, "netstat", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, [connection])
    assert "1 workers did not answer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("netstat", "xyz"), 2),
        (("netstat", "1", "--group"), 2),
        (("netstat", "--nonsense"), 2),
        (("run",), 2),
        (("run", "--policy", "p", "--keyrings", "k", "--workers", "0"), 2),
        (("run", "--policy", "p", "--keyrings", "k", "--on-exit", "explode"), 2),
        (("nonsense",), 2),
        (("status",), 3),
        (("refresh",), 3),
        (("stop",), 3),
        (("netstat",), 3),
    ],
)
def test_exit_codes(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    """2 for wrong usage, 3 where no daemon runs, each told on standard error and nowhere else."""
    done = attls(tmp_path, *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    if code == 3:
        advice = "start one with `attls run`, or name its directory with --run-dir"
        assert done.stderr == f"attls: no attls daemon runs in {tmp_path}; {advice}\n"


def test_a_failed_refresh_prints_every_finding(tmp_path: Path, daemon: FakeDaemon) -> None:
    """Diagnostics with their place, problems as sentences, exit code 1."""
    finding = {
        "severity": "error", "file": "a.policy", "line": 3, "column": 5, "code": "x", "message": "no such thing",
        "hint": None, "source": "    thing", "length": 5,
    }  # fmt: skip
    daemon.answer = {"ok": False, "problems": ["rule web: no ring"], "diagnostics": [finding]}
    done = attls(tmp_path, "refresh")
    assert done.exit_code == 1
    assert "a.policy:3:5: error: no such thing" in done.stderr
    assert "attls: rule web: no ring" in done.stderr


def test_what_the_daemon_refuses_is_told(tmp_path: Path, daemon: FakeDaemon) -> None:
    """An error of the daemon's is a sentence and exit code 3."""
    daemon.answer = {"ok": False, "error": "only root may ask this daemon"}
    done = attls(tmp_path, "status")
    assert (done.exit_code, done.stderr) == (3, "attls: only root may ask this daemon\n")


def test_the_environment_names_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ATTLS_RUN_DIR is what --run-dir is when it is not given."""
    monkeypatch.setenv("ATTLS_RUN_DIR", str(tmp_path / "elsewhere"))
    assert f"no attls daemon runs in {tmp_path}/elsewhere;" in CliRunner().invoke(main, ["status"]).stderr


def test_netstat_does_not_wait_for_tls_libraries(tmp_path: Path) -> None:
    """The operators' commands import neither trio nor OpenSSL nor the policy language."""
    code = (
        "import sys; from attls.cli import main\n"
        "try: main(['netstat'])\n"
        "finally: print(*({'trio', 'OpenSSL', 'cryptography', 'attls.policy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"ATTLS_RUN_DIR": str(tmp_path)}, check=False
    )
    assert (done.returncode, done.stdout) == (3, "\n")
