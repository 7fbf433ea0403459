"""Controlling programs on a steered host: STARTTLS and its end, in both directions, and nothing in clear in between."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from attls import client
from attls.client import AttlsControlError, ConnectionStatus, PolicyStatus, SecurityType
from tests.control.exchange import in_thread
from tests.namespaces import Sniffer
from tests.scenes.conftest import Stage
from tests.scenes.daemons import client_context, receive, rule, server_context

pytestmark = pytest.mark.scene

SECRET = b"what nobody on the wire may read"


@pytest.fixture
def sniffer(stage: Stage) -> Iterator[Sniffer]:
    made = Sniffer(stage.host, "veth1a")
    yield made
    made.close()


def conversation(program: socket.socket, peer: socket.socket, wrap: Any, run_dir: Any) -> None:
    """Clear, TLS, clear: the program's side asks the daemon, the peer's has TLS of its own."""

    def talk() -> None:
        assert b"220 go\r\n" == receive(peer, 8)
        with wrap(peer) as tls:
            assert SECRET == receive(tls, len(SECRET))
            tls.sendall(SECRET)
            with tls.unwrap() as bare:
                bare.sendall(b"clear again")
                assert b"and so am I" == receive(bare, 11)

    talking = in_thread(talk)
    program.sendall(b"220 go\r\n")
    status = client.start_tls(program, run_dir=run_dir)
    assert ConnectionStatus.SECURE is status.connection
    program.sendall(SECRET)
    assert SECRET == receive(program, len(SECRET))
    client.stop_tls(program, run_dir=run_dir)
    assert b"clear again" == receive(program, 11)
    program.sendall(b"and so am I")
    talking()


@pytest.mark.parametrize("version", [4, 6])
def test_a_server_starts_and_stops_tls(stage: Stage, sniffer: Sniffer, version: int) -> None:
    """Inbound: the program's own socket, whose peer port is ours, finds its connection in either worker."""
    stage.daemon.start(rule("in", extra="ApplicationControlled On"))
    with stage.host.listen(stage.host.addresses[version], 7000) as listener:
        for _ in range(10):
            with stage.peer.connect(stage.host.addresses[version], 7000) as peer:
                program, _ = listener.accept()
                with program:
                    before = client.query(program, run_dir=stage.daemon.run_dir)
                    assert (PolicyStatus.APPLCNTRL, ConnectionStatus.NOTSECURE, SecurityType.SERVER, "in") == (
                        before.policy, before.connection, before.security_type, before.rule,
                    )  # fmt: skip
                    context = client_context(stage.rings)
                    conversation(program, peer, context.wrap_socket, stage.daemon.run_dir)
    seen = sniffer.seen()
    assert b"clear again" in seen
    assert SECRET not in seen


@pytest.mark.parametrize("version", [4, 6])
def test_a_client_starts_and_stops_tls(stage: Stage, sniffer: Sniffer, version: int) -> None:
    """Outbound, with a query as the very first thing after connect."""
    stage.daemon.start(rule("out", direction="Outbound", extra="ApplicationControlled On"))
    with stage.peer.listen(stage.peer.addresses[version], 7000) as listener:
        for _ in range(10):
            with stage.host.connect(stage.peer.addresses[version], 7000) as program:
                status = client.query(program, run_dir=stage.daemon.run_dir)
                assert PolicyStatus.APPLCNTRL is status.policy
                peer, _ = listener.accept()
                wrap = partial(server_context(stage.rings).wrap_socket, server_side=True)
                conversation(program, peer, wrap, stage.daemon.run_dir)
    seen = sniffer.seen()
    assert b"clear again" in seen
    assert SECRET not in seen


def test_an_aware_client_knows_at_once(stage: Stage) -> None:
    """A blocking query right behind connect returns the final status of a basic connection."""
    stage.daemon.start(rule("out", direction="Outbound"))
    context = server_context(stage.rings)
    with stage.peer.listen("10.1.0.2", 7000) as listener:
        for _ in range(10):
            with stage.host.connect("10.1.0.2", 7000) as program:
                accepting = in_thread(lambda: context.wrap_socket(listener.accept()[0], server_side=True))
                status = client.query(program, run_dir=stage.daemon.run_dir, certificate=True)
                assert (PolicyStatus.ENABLED, ConnectionStatus.SECURE) == (status.policy, status.connection)
                assert status.certificate is not None
                accepting().close()


def test_what_is_not_steered_has_no_policy(stage: Stage) -> None:
    """A connection on another port: no policy, no control; one older than the daemon: AT-TLS was off."""
    with stage.peer.listen("10.1.0.2", 7000) as listener, stage.peer.listen("10.1.0.2", 7001) as other:
        with stage.host.connect("10.1.0.2", 7000) as old, stage.host.connect("10.1.0.2", 7001) as program:
            stage.daemon.start(rule("out", direction="Outbound", extra="ApplicationControlled On"))
            assert PolicyStatus.NO_POLICY is client.query(program, run_dir=stage.daemon.run_dir).policy
            assert PolicyStatus.OFF is client.query(old, run_dir=stage.daemon.run_dir).policy
            with pytest.raises(AttlsControlError, match="not enabled"):
                client.start_tls(old, run_dir=stage.daemon.run_dir)
        assert listener
        assert other


def test_attls_query_for_scripts(stage: Stage) -> None:
    """By the program's addresses, as JSON and as text; exit code 1 for a connection that is not there."""
    stage.daemon.start(rule("in"))
    with stage.host.listen("10.1.0.1", 7000) as listener, stage.peer.connect("10.1.0.1", 7000) as peer:
        tls = client_context(stage.rings).wrap_socket(peer)
        program, name = listener.accept()
        with tls, program:
            done = stage.daemon.ask("query", "--local", "10.1.0.1:7000", "--remote", f"{name[0]}:{name[1]}", "--json")
            found = json.loads(done.stdout)
            assert ("ENABLED", "SECURE", "SERVER", "TLSv1.3", "in") == tuple(
                found[key] for key in ("policy", "connection", "security_type", "protocol", "rule")
            )
            there = tls.getsockname()
            done = stage.daemon.ask("query", "--local", "10.1.0.1:7000", "--remote", f"{there[0]}:{there[1]}")
            assert "SECURE" in done.stdout
            done = stage.daemon.ask("query", "--local", "10.1.0.1:7000", "--remote", "10.9.9.9:1", "--json")
            assert (1, "null\n") == (done.returncode, done.stdout)


def test_a_program_without_privileges_may_ask(stage: Stage) -> None:
    """Holding the descriptor is enough; nobody else's connection can be reached."""
    stage.daemon.start(rule("in"))
    with stage.host.listen("10.1.0.1", 7000) as listener, stage.peer.connect("10.1.0.1", 7000) as peer:
        tls = client_context(stage.rings).wrap_socket(peer)
        program, _ = listener.accept()
        with tls, program, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            probe.connect(str(stage.daemon.run_dir / "control.sock"))
            assert 0o666 == (stage.daemon.run_dir / "control.sock").stat().st_mode & 0o777
            assert client.query(program, run_dir=stage.daemon.run_dir).is_secure
