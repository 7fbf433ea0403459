"""The policy is replaced again and again while connections come and go: nobody fails, nothing passes in clear."""

from __future__ import annotations

import signal
import ssl

import pytest

from tests.namespaces import Sniffer, wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import Load, client_context, echo, program, rule, server_context

pytestmark = pytest.mark.scene
SECRET = b"the secret that must not be seen on the wire"


def test_new_connections_never_fail(stage: Stage) -> None:
    """Ten refreshes under load: no connection fails, the old one lives on and is marked stale, new ones are not."""
    daemon = stage.daemon.start(rule("web"))
    context = client_context(stage.rings)

    def once() -> None:
        with context.wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as sock:
            assert echo(sock) == b"hello"

    with program(stage.host), context.wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as old:
        assert echo(old) == b"hello"
        with Load(once) as load:
            for number in range(10):
                daemon.policy.write_text(rule("web", trace=number % 8) + rule("more", port=7100 + number))
                done = daemon.ask("refresh")
                assert (done.returncode, done.stderr) == (0, "")
                assert f"generation {number + 2} is in force, 2 rules" in done.stdout
        assert load.failures == []
        assert load.done > 20
        assert echo(old) == b"hello"
        wait_until(lambda: len(daemon.connections()) == 1)
        (entry,) = daemon.connections()
        assert entry["stale"]
        with context.wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as new:
            assert echo(new) == b"hello"
            assert [False, True] == sorted(each["stale"] for each in daemon.connections())
            assert "stale" in daemon.ask("netstat", entry["connid"]).stdout


def test_nothing_passes_in_clear_while_policies_change(stage: Stage) -> None:
    """A program keeps sending its secret while the rule that protects it is replaced; the wire never shows it."""
    first, second = (rule(name, direction="Outbound", port=7001) for name in ("one", "two"))
    daemon = stage.daemon.start(first)
    sniffer = Sniffer(stage.peer, "veth1b")

    def once() -> None:
        with stage.host.connect("10.1.0.2", 7001) as sock:
            assert echo(sock, SECRET) == SECRET

    with program(stage.peer, port=7001, tls=server_context(stage.rings)), Load(once) as load:
        for number in range(10):
            daemon.policy.write_text(second if number % 2 == 0 else first)
            before = daemon.status()["generation"]
            daemon.signal(signal.SIGHUP)
            wait_until(lambda before=before: daemon.status()["generation"] == before + 1, 20)  # type: ignore[misc]
    assert load.failures == []
    assert SECRET not in sniffer.seen()
    sniffer.close()


def test_only_connections_whose_actions_changed_are_stale(stage: Stage) -> None:
    """A rule that comes elsewhere, and a ring read again, leave no mark; a raised user instance and a deletion do."""
    raised = rule("web").replace("TTLSEnabled On\n", "TTLSEnabled On\n  GroupUserInstance 1\n")
    daemon = stage.daemon.start(rule("web"))
    context = client_context(stage.rings)
    with program(stage.host), context.wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as old:
        assert echo(old) == b"hello"
        found = []
        for policy in (
            rule("web") + rule("more", port=7100),
            rule("web"),
            raised,
            rule("web"),
            rule("more", port=7100),
        ):
            daemon.policy.write_text(policy)
            assert daemon.ask("refresh").returncode == 0
            (entry,) = daemon.connections()
            found.append((entry["stale"], daemon.status()["stale"]))
            assert echo(old) == b"hello"
    assert found == [(False, 0), (False, 0), (True, 1), (False, 0), (True, 1)]


def test_a_rule_that_comes_by_refresh_protects_at_once(stage: Stage) -> None:
    """Before the refresh a port is not our business, after it every new connection is TLS, and back again."""
    daemon = stage.daemon.start(rule("web"))
    context = client_context(stage.rings)
    with program(stage.host, port=7002):
        with stage.peer.connect("10.1.0.1", 7002) as plain:
            assert echo(plain) == b"hello"
        daemon.policy.write_text(rule("web") + rule("more", port=7002))
        assert daemon.ask("refresh").returncode == 0
        with context.wrap_socket(stage.peer.connect("10.1.0.1", 7002)) as secure:
            assert echo(secure) == b"hello"
        daemon.policy.write_text(rule("web"))
        assert daemon.ask("refresh").returncode == 0
        with stage.peer.connect("10.1.0.1", 7002) as plain:
            assert echo(plain) == b"hello"


def test_sessions_outlive_a_refresh_that_leaves_their_action_as_it_is(stage: Stage) -> None:
    """A client resumes after an unrelated change; not after its action has changed or its user instance has risen.

    With two workers it comes back to the one that holds its session, and the metrics count each session resumed.
    """
    instance = rule("web").replace("HandshakeRole Server\n", "HandshakeRole Server\n  EnvironmentUserInstance 2\n")
    daemon = stage.daemon.start(rule("web"))
    context = client_context(stage.rings)

    def connect(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
        raw = stage.peer.connect("10.1.0.1", 7000)
        with context.wrap_socket(raw, session=session) as sock:
            assert echo(sock) == b"hello"
            return sock.session, sock.session_reused

    with program(stage.host):
        session, resumed = connect(None)
        assert not resumed
        found = []
        for policy in (rule("web"), rule("web") + rule("more", port=7100), instance, rule("web", extra="TLSv1.2 Off")):
            daemon.policy.write_text(policy)
            assert daemon.ask("refresh").returncode == 0
            session, resumed = connect(session)
            found.append(resumed)
        assert found == [True, True, False, False]
        assert connect(session)[1]
    metrics = daemon.ask("status", "--metrics").stdout.splitlines()
    assert "attls_sessions_resumed_total 3" in metrics
