"""Which rule a program under `attls exec` gets and what it leaves behind."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.exec.conftest import stage
from tests.exec.stage import Peer, Stage, free_port, inbound, outbound, rule

__all__ = ["stage"]
TALK = """
import socket, sys
port, source = int(sys.argv[1]), int(sys.argv[2])
sock = socket.socket()
if source:
    sock.bind(("127.0.0.1", source))
sock.connect((sys.argv[3], port))
sock.sendall(b"hello")
print(sock.recv(100).decode(), *sock.getsockname(), *sock.getpeername())
"""


def talk(stage: Stage, policy: Path, port: int, *, source: int = 0, host: str = "127.0.0.1") -> str:
    done = stage.run(policy, sys.executable, "-c", TALK, str(port), str(source), host, options=["--verbose"])
    assert 0 == done.code, done
    assert done.output.startswith("HELLO")
    found = re.search(r"(rule \S+|no rule): (in clear|TLSv1\.3)", done.errors)
    assert found is not None, done
    return found[0]


def test_rules_may_ask_for_the_local_end_and_the_owner(stage: Stage) -> None:
    """Local port, local address, job name and user are known exactly when the decision is made."""
    source = free_port()
    with Peer(stage.server_context()) as secure, Peer(None) as clear:
        job = f"  Jobname {Path(os.path.realpath(sys.executable)).name[:8]}*\n"
        for more, expected in (
            (f"  LocalPortRange {source}\n", True),
            ("  LocalAddr 127.0.0.1\n", True),
            ("  LocalAddr 127.0.0.2\n", False),
            (job, True),
            ("  Jobname ELSE\n  Userid nobody\n", False),
        ):
            peer = secure if expected else clear
            policy = stage.policy(rule("Wanted", "Outbound", peer.port, environment="Client", more=more))
            bound = source if "LocalPort" in more else 0
            wanted = "rule Wanted: TLSv1.3" if expected else "no rule: in clear"
            assert wanted == talk(stage, policy, peer.port, source=bound), more


def test_another_address_of_this_host_is_reached_from_where_the_kernel_would(stage: Stage) -> None:
    """Source and destination are those of the route, not of the loopback by which the program reaches us."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as scout:
        try:
            scout.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        host = scout.getsockname()[0]
    with Peer(stage.server_context(), host=host) as peer:
        done = stage.run(stage.policy(outbound(peer.port)), sys.executable, "-c", TALK, str(peer.port), "0", host)
    ((name, _),) = peer.seen
    assert f"HELLO {name[0]} {name[1]} {host} {peer.port}" == done.output.strip()


FOLLOW = """
import socket, sys, time
for port in map(int, sys.argv[1:]):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(b"hello")
    print(sock.recv(100).decode())
    keep = globals().get("keep") or sock  # the first one stays
keep.close()
time.sleep(0.5)  # until the peer has ended it too
sock = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
sock.sendall(b"hello")
"""


def test_a_connection_follows_its_primary(stage: Stage, tmp_path: Path) -> None:
    """SecondaryMap: no rule fits the second connection, but a primary lives; the log tells all of it."""
    with Peer(stage.server_context()) as first, Peer(stage.server_context()) as second:
        policy = stage.policy(rule("First", "Outbound", first.port, environment="Primary"))
        log = tmp_path / "log"
        done = stage.run(
            policy, sys.executable, "-c", FOLLOW, str(first.port), str(second.port), options=["--log", str(log)]
        )
    assert (0, "HELLO\nHELLO\n", "") == (done.code, done.output, done.errors)
    lines = [line for line in log.read_text().splitlines() if f":{second.port} " in line]
    assert "rule First: TLSv1.3" in lines[0]
    assert "no rule: in clear" in lines[-1]


DAEMON = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
if os.fork():
    os._exit(4)
os.setsid()
for number in range(3):
    os.dup2(os.open(os.devnull, os.O_RDWR), number)
sock, _ = listener.accept()
sock.sendall(sock.recv(100).upper())
"""


def test_a_daemon_that_is_left_behind_stays_under_the_policy(stage: Stage) -> None:
    """The command ends with the program; its child is served until it ends too, and then nothing is left."""
    port = free_port()
    done = stage.run(stage.policy(inbound(port)), sys.executable, "-c", DAEMON, str(port))
    assert (4, "", "") == (done.code, done.output, done.errors)
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        stage.client_context().wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        sock.sendall(b"hello")
        assert b"HELLO" == sock.recv(100)
    pattern = str(stage.directory)
    deadline = time.monotonic() + 10
    while subprocess.run(["pgrep", "-f", f"attls exec.*{pattern}"], capture_output=True, check=False).stdout:
        assert time.monotonic() < deadline, "the helper is still there"
        time.sleep(0.05)


def test_what_was_written_before_the_end_arrives(stage: Stage) -> None:
    """A program that writes much and ends at once: the peer gets every byte."""
    count = 5_000_000
    code = f"import socket, sys\nsocket.create_connection(('127.0.0.1', int(sys.argv[1]))).sendall(bytes({count}))"
    with Peer(stage.server_context(), answer=lambda _: b"") as peer:
        done = stage.run(stage.policy(outbound(peer.port)), sys.executable, "-c", code, str(peer.port))
        deadline = time.monotonic() + 20
        while not peer.seen and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (0, [count], []) == (done.code, [len(words) for _, words in peer.seen], peer.failures)


def test_a_policy_with_errors_starts_nothing(stage: Stage) -> None:
    """Exit code 1 and the diagnostics, as with every other command."""
    policy = stage.directory / "broken.policy"
    policy.write_text("TTLSRule\n{\n}\n")
    done = stage.run(policy, "echo", "ran")
    assert (1, "") == (done.code, done.output)
    assert "error:" in done.errors
