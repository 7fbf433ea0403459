"""The daemon is killed with SIGKILL: what policy protects is refused, never passed, and a new start takes over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.namespaces import Sniffer, wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import Load, client_context, echo, ends, program, rule, server_context

pytestmark = pytest.mark.scene
SECRET = b"the secret that must not be seen on the wire"


def runs(pid: int) -> bool:
    """Tell whether any thread still lives: the last one to go closes the listeners, the first may go before."""
    try:
        states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return runs(pid)  # one has just ended
    return any(state not in "ZX" for state in states)


def test_killed_means_refused_not_passed(stage: Stage) -> None:
    """Workers die with their supervisor, live connections break, new ones get nowhere, and no secret is on the wire."""
    daemon = stage.daemon.start(rule("out", direction="Outbound", port=7001) + rule("web"))
    workers = daemon.workers()
    tls = server_context(stage.rings)
    with (
        contextlib.closing(Sniffer(stage.peer, "veth1b")) as sniffer,
        program(stage.peer, port=7001, tls=tls),
        program(stage.host),
    ):
        with stage.host.connect("10.1.0.2", 7001) as live:
            assert echo(live, SECRET) == SECRET
            daemon.signal(signal.SIGKILL)
            daemon.wait()
            wait_until(lambda: not any(runs(pid) for pid in workers.values()))
            assert ends(live)
        with pytest.raises(OSError):
            stage.host.connect("10.1.0.2", 7001, timeout=1)
        with pytest.raises(OSError):
            stage.peer.connect("10.1.0.1", 7000, timeout=1)
        assert SECRET not in sniffer.seen()
    assert "table inet attls" in stage.host.run("nft", "list", "tables")


def test_a_new_start_takes_over(stage: Stage) -> None:
    """Stale pid file, sockets and steering are no obstacle; traffic is protected again, a stop cleans up."""
    daemon = stage.daemon.start(rule("web"))
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    assert "no attls daemon runs in" in daemon.ask("status").stderr
    daemon.start(rule("web"))
    with program(stage.host), client_context(stage.rings).wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as sock:
        assert echo(sock) == b"hello"
    assert daemon.ask("stop").returncode == 0
    assert "attls" not in stage.host.run("nft", "list", "tables")


def test_a_start_that_fails_leaves_the_steering_of_the_dead(stage: Stage) -> None:
    """A killed daemon's steering goes on refusing while its successor cannot start."""
    daemon = stage.daemon.start(rule("web"))
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    assert daemon.fails(rule("web", ring="SRV/NONE"))[0] == 3
    with program(stage.host), pytest.raises(OSError):
        stage.peer.connect("10.1.0.1", 7000, timeout=1)


def test_kill_and_restart_under_load_never_shows_the_secret(stage: Stage) -> None:
    """A program that keeps trying through three kills and restarts fails meanwhile, but never speaks in clear."""
    daemon = stage.daemon
    sniffer = Sniffer(stage.peer, "veth1b")

    def once() -> None:
        with stage.host.connect("10.1.0.2", 7001, timeout=1) as sock:
            echo(sock, SECRET)

    policy = rule("out", direction="Outbound", port=7001)
    daemon.start(policy)
    with program(stage.peer, port=7001, tls=server_context(stage.rings)), Load(once) as load:
        for _ in range(3):
            daemon.signal(signal.SIGKILL)
            daemon.wait()
            daemon.start(policy)
            done = load.done
            wait_until(lambda done=done: load.done > done + 3, 20)  # type: ignore[misc]
    assert SECRET not in sniffer.seen()
    sniffer.close()


def test_a_stopped_supervisor_does_not_stop_the_workers(stage: Stage) -> None:
    """Workers carry on while the supervisor hangs; only operators wait."""
    daemon = stage.daemon.start(rule("web"))
    pid = daemon.pid
    os.kill(pid, signal.SIGSTOP)
    with program(stage.host), client_context(stage.rings).wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as sock:
        assert echo(sock) == b"hello"
        sock.shutdown(socket.SHUT_WR)
    os.kill(pid, signal.SIGCONT)
    assert daemon.ask("status").returncode == 0
