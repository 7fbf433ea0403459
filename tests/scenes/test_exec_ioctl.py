"""A statically linked C program that calls the real SIOCTTLSCTL ioctl under `attls exec`."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.exec.conftest import stage
from tests.exec.stage import ROOT, Peer, Stage, free_port, inbound, outbound, rule

__all__ = ["stage"]


@pytest.fixture(scope="module")
def aware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, compiled with the header that we ship."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc to compile the aware program with")
    program = tmp_path_factory.mktemp("aware") / "aware"
    source = ROOT / "tests" / "exec" / "aware.c"
    subprocess.run(["gcc", "-static", "-Wall", "-I", ROOT / "attls" / "c", "-o", program, source], check=True)
    return program


def test_an_aware_program_learns_of_its_tls(stage: Stage, aware: Path) -> None:
    """Policy, status, protocol, cipher and certificate; and the errno of each request that it may not make."""
    with Peer(stage.server_context()) as peer:
        done = stage.run(stage.policy(outbound(peer.port)), aware, "query", str(peer.port))
    lines = done.output.splitlines()
    assert (0, "") == (done.code, done.errors)
    told = "policy=4 conn=3 sec=1 prot=0304 cipher4=1302"
    assert f"query errno=0 {told} cert=0" == lines[2]
    assert lines[3].startswith(f"certificate errno=0 {told} cert=")
    assert [
        "der=3082" if lines[4] == "der=3082" else "der=3081",
        "small errno=1 needed=1",
        "init errno=13",
        "alone errno=1",
        "version errno=1",
        "pointer errno=1",
        "said hello heard HELLO",
    ] == lines[4:]
    assert ["unconnected errno=1", "udp errno=1"] == lines[:2]


def test_an_aware_server_learns_of_its_tls(stage: Stage, aware: Path) -> None:
    """What accept yields is a connection whose TLS is done, and the ioctl on it says so."""
    port = free_port()
    with stage.start(stage.policy(inbound(port)), aware, "serve", str(port)) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
            stage.client_context().wrap_socket(raw, server_hostname="localhost") as sock,
        ):
            sock.sendall(b"hello")
            assert b"hello" == sock.recv(100)
        output, errors = process.communicate(timeout=20)
    assert (0, "") == (process.returncode, errors)
    assert ["query errno=0 policy=4 conn=3 sec=2 prot=0304 cipher4=1302 cert=0", "heard hello"] == output.splitlines()


def test_an_aware_program_learns_that_no_rule_fits(stage: Stage, aware: Path) -> None:
    """A connection in clear: NO_POLICY, not secure; the program talks on."""
    with Peer(None) as peer:
        done = stage.run(stage.policy(outbound(1)), aware, "query", str(peer.port))
    lines = done.output.splitlines()
    assert lines[2].startswith("query errno=0 policy=2 conn=1 sec=0 prot=0000")
    assert "said hello heard HELLO" == lines[-1]


def test_a_controlling_program_starts_and_stops_tls(stage: Stage, aware: Path) -> None:
    """Clear, TLS and clear again on one connection, each at the byte where the program asks for it."""
    heard = []

    def serve(listener: socket.socket) -> None:
        raw, _ = listener.accept()
        heard.append(raw.recv(100))
        raw.sendall(b"CLEAR")
        sock = stage.server_context().wrap_socket(raw, server_side=True)
        heard.append(sock.recv(100))
        sock.sendall(b"SECRET")
        assert b"" == sock.recv(100)
        with sock.unwrap() as raw:
            heard.append(raw.recv(100))
            raw.sendall(b"AGAIN")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = threading.Thread(target=serve, args=(listener,), daemon=True)
        server.start()
        policy = stage.policy(rule("Start", "Outbound", port, environment="Controlled"))
        done = stage.run(policy, aware, "start", str(port), options=["--verbose"])
        server.join(20)
    assert [b"clear", b"secret", b"again"] == heard, done
    assert [
        "query errno=0 policy=5 conn=1 sec=1 prot=0000 cipher4= cert=0",
        "said clear heard CLEAR",
        "start errno=0 policy=5 conn=3 sec=1 prot=0304 cipher4=1302 cert=0",
        "said secret heard SECRET",
        "stop errno=0 policy=5 conn=1 sec=1 prot=0000 cipher4= cert=0",
        "said again heard AGAIN",
    ] == done.output.replace("\0", "").splitlines()[2:]
    assert "rule Start: TLSv1.3 TLS_AES_256_GCM_SHA384" in done.errors
