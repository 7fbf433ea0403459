"""A sniffer on the wire looks for the program's bytes while everything that can break is broken.

The same program speaks all the time: it connects, sends a marker, and tries again, whatever answer it gets. Not one
marker may cross the network in clear, in either direction, before, during or after the fault.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.namespaces import Namespace, Sniffer, wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import program, receive, rule, server_context

pytestmark = pytest.mark.scene

MARKER = b"TOP-SECRET-PAYROLL-0123456789"
PORT = 7000


class Chatter:
    """A legacy client that never gives up; `served` counts its connections that were answered."""

    def __init__(self, where: Namespace, address: str) -> None:
        self.served = 0
        self.refused = 0
        self._where = where
        self._address = address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._where.connect(self._address, PORT, timeout=0.5) as sock:
                    sock.settimeout(0.5)
                    for _ in range(5):
                        sock.sendall(MARKER)
                        if receive(sock, len(MARKER)) != MARKER:
                            break
                        self.served += 1
            except OSError:
                self.refused += 1
                time.sleep(0.01)

    def close(self) -> None:
        """Stop and wait for the threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)


@contextlib.contextmanager
def conversation(stage: Stage, version: int) -> Iterator[tuple[Chatter, Sniffer]]:
    """Run a TLS server on the peer, the daemon and the chatting client on the host, the sniffer on the wire."""
    address = stage.peer.addresses[version]
    listen = "0.0.0.0" if version == 4 else "::"
    with contextlib.closing(Sniffer(stage.peer, "veth1b")) as sniffer:
        with program(stage.peer, listen, PORT, tls=server_context(stage.rings)):
            stage.daemon.start(rule("out", direction="Outbound"))
            with contextlib.closing(Chatter(stage.host, address)) as chatter:
                wait_until(lambda: chatter.served > 20, 20)
                yield chatter, sniffer
        seen = sniffer.seen()
    assert b"\x16\x03" in seen  # the sniffer was at the right place
    assert MARKER not in seen


def more(chatter: Chatter) -> None:
    """Wait until the client is served again."""
    before = chatter.served
    wait_until(lambda: chatter.served > before + 10, 30)


VERSIONS = pytest.mark.parametrize("version", [4, 6])


@VERSIONS
def test_when_the_daemon_is_killed_and_started_again(stage: Stage, version: int) -> None:
    """SIGKILL to the supervisor: connections are reset and new ones refused, until a new daemon takes over."""
    with conversation(stage, version) as (chatter, _):
        stage.daemon.signal(signal.SIGKILL)
        stage.daemon.wait()
        served = chatter.served
        refused = chatter.refused
        wait_until(lambda: chatter.refused > refused + 5, 20)
        assert chatter.served - served < 20  # what was under way, nothing new
        stage.daemon.start(rule("out", direction="Outbound"))
        more(chatter)


def test_when_a_worker_is_killed(stage: Stage) -> None:
    """SIGKILL to every worker, several times."""
    with conversation(stage, 4) as (chatter, _):
        for _ in range(3):
            for pid in stage.daemon.workers().values():
                os.kill(pid, signal.SIGKILL)
            more(chatter)


def test_when_all_of_it_stands_still(stage: Stage) -> None:
    """SIGSTOP to all processes of the daemon: connections hang, nothing passes around it, and it goes on later."""
    with conversation(stage, 4) as (chatter, _):
        pids = [*stage.daemon.workers().values(), stage.daemon.pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        more(chatter)


def test_when_descriptors_run_out(stage: Stage) -> None:
    """With no descriptor to spare in the workers, connections wait or are refused; afterwards all is well."""
    with conversation(stage, 4) as (chatter, _):
        workers = stage.daemon.workers().values()
        limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in workers}
        for pid in workers:
            in_use = max(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()) + 1
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (in_use, limits[pid][1]))
        time.sleep(2)
        for pid in workers:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits[pid])
        more(chatter)


def test_while_the_policy_is_reloaded_again_and_again(stage: Stage) -> None:
    """Twenty refreshes, every other one broken, under load."""
    with conversation(stage, 4) as (chatter, _):
        for number in range(20):
            text = rule("out", direction="Outbound", trace=number % 7)
            stage.daemon.policy.write_text(text if number % 2 else text.replace("HandshakeRole", "HandshakeRule"))
            done = stage.daemon.ask("refresh")
            assert done.returncode == (0 if number % 2 else 1), done.stderr
        more(chatter)


def test_when_the_ring_breaks(stage: Stage) -> None:
    """A ring that vanishes keeps the old environment in force; without it a start is refused, not served in clear."""
    with conversation(stage, 4) as (chatter, _):
        stage.daemon.policy.write_text(rule("out", direction="Outbound", ring="CLI/GONE"))
        done = stage.daemon.ask("refresh")
        assert (done.returncode, "GONE" in done.stderr) == (1, True)
        more(chatter)


def test_when_the_peer_is_not_to_be_trusted(stage: Stage) -> None:
    """A server that speaks plain text gets a ClientHello and nothing else."""
    stage.daemon.start(rule("out", direction="Outbound"))
    with contextlib.closing(Sniffer(stage.peer, "veth1b")) as sniffer:
        with program(stage.peer), contextlib.closing(Chatter(stage.host, stage.peer.addresses[4])) as chatter:
            wait_until(lambda: chatter.refused > 10, 20)
        assert MARKER not in sniffer.seen()
        assert chatter.served == 0
