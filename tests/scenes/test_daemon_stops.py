"""Orderly stops: live connections get their time, traffic is released or blocked, a second signal ends the patience."""

from __future__ import annotations

import signal
import socket
import subprocess
import time

import pytest

from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import client_context, echo, program, rule

pytestmark = pytest.mark.scene


def test_live_connections_may_finish(stage: Stage) -> None:
    """A live connection still echoes, new ones are released, and when the last has ended, so does the daemon."""
    daemon = stage.daemon.start(rule("web"))
    with program(stage.host):
        live = client_context(stage.rings).wrap_socket(stage.peer.connect("10.1.0.1", 7000))
        assert echo(live) == b"hello"
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: daemon.status()["state"] == "draining")
        assert echo(live, b"x" * 100_000) == b"x" * 100_000
        with stage.peer.connect("10.1.0.1", 7000) as plain:
            assert echo(plain) == b"hello"
        assert "the daemon is draining" in daemon.ask("refresh").stderr
        assert daemon.process is not None
        assert daemon.process.poll() is None
        live.close()
        assert daemon.wait(5) == 0
    assert "attls" not in stage.host.run("nft", "list", "tables")
    assert "77:" not in stage.host.run("ip", "rule")
    assert [path.name for path in daemon.run_dir.iterdir()] == ["attls.lock"]


def test_the_deadline_resets_what_is_left(stage: Stage) -> None:
    """A connection that does not end is reset when the drain time is over; both its ends see a reset."""
    daemon = stage.daemon.start(rule("web"), "--drain-seconds", "0.5")
    with program(stage.host):
        live = client_context(stage.rings).wrap_socket(stage.peer.connect("10.1.0.1", 7000))
        assert echo(live) == b"hello"
        started = time.monotonic()
        assert daemon.ask("stop").returncode == 0
        assert 0.4 < time.monotonic() - started < 8
        with pytest.raises(ConnectionResetError):
            socket.socket.recv(live, 1)  # below TLS, whose library takes a reset for an end
        live.close()
    assert daemon.wait() == 0
    assert "1 connection was reset, the time to end was over" in daemon.log


def test_a_second_signal_stops_at_once(stage: Stage) -> None:
    """Who does not want to wait for the drain time sends SIGTERM again."""
    daemon = stage.daemon.start(rule("web"), "--drain-seconds", "600")
    with program(stage.host):
        live = client_context(stage.rings).wrap_socket(stage.peer.connect("10.1.0.1", 7000))
        assert echo(live) == b"hello"
        daemon.signal(signal.SIGINT)
        wait_until(lambda: daemon.status()["state"] == "draining")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
        live.close()
    assert "attls" not in stage.host.run("nft", "list", "tables")


def test_on_exit_block_keeps_refusing(stage: Stage) -> None:
    """With --on-exit block what policy matches gets nowhere after the stop; other traffic is free."""
    daemon = stage.daemon.start(rule("web"), "--on-exit", "block")
    assert daemon.ask("stop").returncode == 0
    assert daemon.wait() == 0
    with program(stage.host), program(stage.host, port=7009):
        with pytest.raises(OSError):
            stage.peer.connect("10.1.0.1", 7000, timeout=1)
        with stage.peer.connect("10.1.0.1", 7009) as free:
            assert echo(free) == b"hello"
    daemon.start(rule("web"))
    assert daemon.ask("stop").returncode == 0
    assert "attls" not in stage.host.run("nft", "list", "tables")


def test_stop_waits_until_the_daemon_is_gone(stage: Stage) -> None:
    """When `attls stop` returns, the directory is free for the next daemon."""
    daemon = stage.daemon.start(rule("web"))
    assert daemon.ask("stop").returncode == 0
    daemon.start(rule("web"))
    assert daemon.ask("stop").returncode == 0
    done: subprocess.CompletedProcess[str] = daemon.ask("stop")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("attls: no attls daemon runs in ")
    assert done.stderr.count("\n") == 1
