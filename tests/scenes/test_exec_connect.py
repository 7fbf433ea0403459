"""Outbound: a plain client under `attls exec`, a TLS peer, and everything a program may do around connect."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.exec.conftest import stage
from tests.exec.stage import ROOT, Peer, Stage, free_port, outbound
from tests.namespaces import wait_until

__all__ = ["stage"]
CLIENT = ROOT / "tests" / "exec" / "client.py"


def check(stage: Stage, name: str, *arguments: object, ports: tuple[int, ...], options: tuple[str, ...] = ()) -> Any:
    """Run one check of the client under a policy that covers `ports`, and return what it saw."""
    policy = stage.policy(*map(outbound, ports))
    done = stage.run(policy, sys.executable, CLIENT, name, *map(str, arguments), options=options)
    assert (0, "") == (done.code, done.errors), done.errors
    return json.loads(done.output)


def test_a_blocking_connect_returns_when_tls_is_done(stage: Stage) -> None:
    """The peer sees TLS from the very address the program believes to have; half-close arrives; names are true."""
    with Peer(stage.server_context(), handshake_after=0.3) as peer:
        saw = check(stage, "blocking", peer.port, ports=(peer.port,))
    ((name, words),) = peer.seen
    assert ["127.0.0.1", peer.port] == saw["peer"]
    assert list(name) == saw["own"]
    assert ("HELLO", "", b"hello") == (saw["answer"], saw["rest"], words)
    assert 0.25 < saw["took"] < 5


def test_a_nonblocking_connect_becomes_writable_when_tls_is_done(stage: Stage) -> None:
    """EINPROGRESS at once, EALREADY meanwhile, nothing to be seen by an epoll set made before, then writable."""
    with Peer(stage.server_context(), handshake_after=0.5) as peer:
        saw = check(stage, "nonblocking", peer.port, ports=(peer.port,))
    assert ("EINPROGRESS", [], "EALREADY") == (saw["first"], saw["early"], saw["second"])
    assert (True, False, 0, 0) == (saw["writable"], saw["broken"], saw["status"], saw["third"])
    assert saw["took"] > 0.2
    assert ("HELLO", ["127.0.0.1", peer.port]) == (saw["answer"], saw["peer"])


def test_a_refused_connect_is_refused(stage: Stage) -> None:
    """ECONNREFUSED is what both kinds of connect see, and the socket may be used for another try."""
    port = free_port()
    saw = check(stage, "failing", port, ports=(port,))
    assert ("ECONNREFUSED", "ECONNREFUSED", 0) == (saw["blocking"], saw["again"], saw["left"])
    assert ("EINPROGRESS", "ECONNREFUSED", 0) == (saw["first"], saw["status"], saw["status again"])


def test_a_failed_handshake_is_a_reset(stage: Stage) -> None:
    """A certificate that nobody trusts: ECONNRESET from connect, and not a byte of data for that peer."""
    with Peer(stage.server_context("stranger")) as peer:
        saw = check(stage, "failing", peer.port, ports=(peer.port,))
    assert ("ECONNRESET", "ECONNRESET", 0) == (saw["blocking"], saw["again"], saw["left"])
    assert ("EINPROGRESS", "ECONNRESET") == (saw["first"], saw["status"])
    assert {b""} == {words for _, words in peer.seen}


def test_both_families_and_every_spelling_are_covered(stage: Stage) -> None:
    """IPv6, IPv4-mapped, the wildcard address and a socket bound beforehand all go out as TLS."""
    with Peer(stage.server_context()) as peer, Peer(stage.server_context(), host="::1") as peer6:
        saw = check(stage, "families", peer.port, peer6.port, ports=(peer.port, peer6.port))
    assert ["HELLO", ["::1", peer6.port]] == saw["ipv6"]
    assert ["HELLO", ["::ffff:127.0.0.1", peer.port]] == saw["mapped"]
    assert ["HELLO", ["127.0.0.1", peer.port]] == saw["any"]
    assert ["HELLO", True] == saw["bound"]
    assert not peer.failures + peer6.failures


def test_a_connection_survives_dup_fork_exec_and_passing(stage: Stage) -> None:
    """It is an ordinary socket: whoever holds it uses it, and its names stay true everywhere under the filter."""
    with Peer(stage.server_context()) as peer:
        saw = check(stage, "sharing", peer.port, ports=(peer.port,))
    assert {
        "dup": ["HELLO", True],
        "fork": "CHILD",
        "passed": ["HELLO", True],
        "exec": [str(("127.0.0.1", peer.port)), "EXECUTED"],
    } == saw


def test_threads_do_not_hold_each_other_up(stage: Stage) -> None:
    """24 threads whose peer takes its time connect side by side."""
    with Peer(stage.server_context(), handshake_after=0.3) as peer:
        saw = check(stage, "threads", peer.port, ports=(peer.port,))
    assert sorted(f"THREAD {index}" for index in range(24)) == saw["answers"]
    assert saw["took"] < 24 * 0.3 / 2


def test_signals_reach_a_program_whose_connect_is_held(stage: Stage) -> None:
    """EINTR or a restart as the handler was set up, the socket's own timeout, and the connect that goes on."""
    with Peer(stage.server_context(), handshake_after=0.6) as peer:
        saw = check(stage, "signals", peer.port, ports=(peer.port,))
    assert ([-1, "EINTR"], 2) == (saw["interrupted"], saw["caught"])
    assert saw["took"] < 0.5
    assert (True, "HELLO", 0, "HELLO") == (saw["writable"], saw["answer"], saw["restarted"], saw["again"])
    assert [-1, "EINPROGRESS"] == saw["late"]


def test_all_else_is_the_kernels_own_answer(stage: Stage, tmp_path: Path) -> None:
    """UDP, Unix sockets, uncovered TCP, bad pointers and descriptors; roads around connect are closed."""
    port = free_port()
    saw = check(stage, "others", port, tmp_path / "socket", ports=(port,))
    assert {
        "udp": True,
        "unix": "unix",
        "fault": "EFAULT",
        "short": "EINVAL",
        "negative": "EINVAL",
        "family": "EAFNOSUPPORT",
        "uncovered": True,
        "own": True,
        "descriptor": "EBADF",
        "no socket": "ENOTSOCK",
        "fast open": errno.errorcode[errno.EOPNOTSUPP],
        "io_uring": "ENOSYS",
    } == saw


@pytest.mark.parametrize(("how", "code"), [("exit", 5), ("exec", 6)])
def test_a_program_may_leave_while_its_call_is_held(stage: Stage, how: str, code: int) -> None:
    """It ends, or becomes another program, at once; the helper ends as well, and the peer gets no byte of data."""
    with Peer(stage.server_context(), handshake_after=1.0) as peer:
        policy = stage.policy(outbound(peer.port))
        done = stage.run(policy, sys.executable, CLIENT, "leaving", str(peer.port), how, timeout=30)
        assert (code, "", "") == (done.code, done.output, done.errors)
        wait_until(lambda: peer.seen, 20)
        assert [b""] == [words for _, words in peer.seen]
    pattern = ["pgrep", "-f", f"attls exec.*{policy}"]
    wait_until(lambda: not subprocess.run(pattern, capture_output=True, check=False).stdout, 20)


def test_an_address_that_changes_under_the_call_is_read_once(stage: Stage) -> None:
    """A thread that swaps the destination all the time: what arrives at the covered one is TLS, without exception."""
    with Peer(stage.server_context()) as peer, Peer(None) as clear:
        saw = check(stage, "racing", peer.port, clear.port, ports=(peer.port,))
    assert (60, True, True) == (sum(saw.values()), saw["covered"] > 0, saw["clear"] > 0)
    assert [] == peer.failures
    assert {b"covered"} == {words for _, words in peer.seen}
    assert {b"clear"} == {words for _, words in clear.seen}


@pytest.mark.parametrize("victim", ["helper", "front"])
def test_a_killed_process_of_ours_resets_everything(stage: Stage, victim: str) -> None:
    """Whichever of our two processes is killed, connections are reset and nothing gets out any more."""
    with Peer(stage.server_context()) as peer:
        policy = stage.policy(outbound(peer.port))
        with stage.start(policy, sys.executable, CLIENT, "hold", str(peer.port)) as process:
            assert process.stdout is not None
            helper = int(process.stdout.readline())
            assert helper != process.pid
            if victim == "helper":
                os.kill(helper, signal.SIGKILL)
                output, errors = process.communicate(timeout=20)
                saw = json.loads(output)
                assert ("HELLO", "ECONNRESET", "ENOSYS") == (saw["before"], saw["stood"], saw["after"])
                assert "helper process died (signal 9)" in errors
                assert 0 == process.returncode
            else:
                process.kill()
                output, _ = process.communicate(timeout=20)
                assert ("", -9) == (output, process.returncode)
    assert 1 == peer.connections


def test_an_error_that_is_known_at_once_comes_from_connect_itself(stage: Stage) -> None:
    """A destination no route leads to: the errno that the kernel gives without us, and the socket stays usable."""
    place = ("255.255.255.255", 9)
    with socket.socket() as sock:
        expected = sock.connect_ex(place)
    code = f"import socket; s = socket.socket(); s.settimeout(5); print(s.connect_ex({place}), s.connect_ex({place}))"
    done = stage.run(stage.policy(outbound(9)), sys.executable, "-c", code)
    assert (f"{expected} {expected}", "") == (done.output.strip(), done.errors)
