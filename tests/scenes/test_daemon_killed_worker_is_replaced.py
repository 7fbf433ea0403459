"""A worker dies: its connections end with a reset, everybody else's go on, and a new worker takes its place."""

from __future__ import annotations

import os
import signal
import ssl

import pytest

from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import client_context, echo, ends, program, rule

pytestmark = pytest.mark.scene


def test_others_never_notice(stage: Stage) -> None:
    """The killed worker's connection is reset, the other's still echoes, and the same client is served again."""
    daemon = stage.daemon.start(rule("web"))
    context = client_context(stage.rings)
    secure: dict[int, ssl.SSLSocket] = {}
    with program(stage.host):
        for number in range(10, 250):  # clients are spread over the workers by their address
            source = f"10.1.0.{number}"
            stage.peer.run("ip", "address", "add", f"{source}/24", "dev", "veth1b")
            sock = context.wrap_socket(stage.peer.connect("10.1.0.1", 7000, source=source, timeout=20))
            assert echo(sock) == b"hello"
            (worker,) = (each["worker"] for each in daemon.connections() if each["remote"].startswith(f"{source}:"))
            if worker in secure:
                sock.close()
            secure.setdefault(worker, sock)
            if len(secure) == 2:
                break
        before = daemon.workers()
        source = secure[0].getsockname()[0]
        os.kill(before[0], signal.SIGKILL)
        assert ends(secure[0])
        assert echo(secure[1]) == b"hello"

        again = context.wrap_socket(stage.peer.connect("10.1.0.1", 7000, source=source, timeout=20))
        assert echo(again) == b"hello"
        wait_until(lambda: len(daemon.workers()) == 2)
        assert daemon.workers()[0] != before[0]
        assert daemon.workers()[1] == before[1]
        assert daemon.status()["restarts"] == 1
        assert "worker 0 ended" in daemon.log
        for sock in (*secure.values(), again):
            sock.close()


def test_a_connection_in_the_backlog_waits_for_the_successor(stage: Stage) -> None:
    """Who connects while a worker is dead is served by its successor instead of being turned away."""
    daemon = stage.daemon.start(rule("web"))
    context = client_context(stage.rings)
    with program(stage.host):
        workers = daemon.workers().values()
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        waiting = [stage.peer.connect("10.1.0.1", 7000, timeout=20) for _ in range(5)]
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        for sock in waiting:
            with context.wrap_socket(sock) as secure:
                assert echo(secure) == b"hello"
