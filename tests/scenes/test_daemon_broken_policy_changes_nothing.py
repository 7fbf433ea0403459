"""Whatever is wrong with what a refresh reads, all of it is reported and what was in force stays in force."""

from __future__ import annotations

import json
import signal

import pytest

from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import Load, client_context, echo, program, rule

pytestmark = pytest.mark.scene


def test_every_error_is_reported_and_the_old_policy_serves_on(stage: Stage) -> None:
    """Two mistakes, two diagnostics with file, line and column, exit code 1; connections under load see nothing."""
    daemon = stage.daemon.start(rule("web"))
    context = client_context(stage.rings)
    broken = rule("web").replace("HandshakeRole Server", "HandshakeRole Sever").replace("Inbound", "Sideways")

    def once() -> None:
        with context.wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as sock:
            assert echo(sock) == b"hello"

    with program(stage.host), Load(once) as load:
        daemon.policy.write_text(broken)
        done = daemon.ask("refresh")
        assert done.returncode == 1
        assert f"{daemon.policy}:4:13: error:" in done.stderr
        assert "did you mean 'Server'?" in done.stderr
        assert "nothing was changed" in done.stderr
        reply = json.loads(daemon.ask("refresh", "--json").stdout)
        assert not reply["ok"]
        assert [finding["severity"] for finding in reply["diagnostics"]] == ["error", "error"]
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.log.count("refresh failed; generation 1 stays in force") == 3)
    assert load.failures == []
    status = daemon.status()
    assert (status["generation"], status["rules"]) == (1, 1)
    assert "2 errors" in status["last_error"]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (rule("web", ring="SRV/NONE"), "rule web: "),
        (rule("web", ring="CLI/RING"), "rule web: "),
        (rule("web", extra="CertificateLabel nobody"), "nobody"),
    ],
)
def test_a_ring_that_cannot_serve_changes_nothing(stage: Stage, policy: str, said: str) -> None:
    """A missing ring, a ring without certificate and a missing label are found before anything is swapped."""
    daemon = stage.daemon.start(rule("web"))
    daemon.policy.write_text(policy)
    done = daemon.ask("refresh")
    assert done.returncode == 1
    assert said in done.stderr
    with program(stage.host), client_context(stage.rings).wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as sock:
        assert echo(sock) == b"hello"
    assert daemon.status()["generation"] == 1


def test_steering_that_the_kernel_refuses_rolls_the_workers_back(stage: Stage) -> None:
    """When nft takes the check but refuses the swap, workers judge by the old policy again."""
    tool = stage.daemon.folder / "bin" / "nft"
    tool.parent.mkdir()
    switch = stage.daemon.folder / "refuse"
    tool.write_text(
        f'#!/bin/sh\ncase "$*" in *--check*) exec /usr/sbin/nft "$@";; esac\n'
        f'[ -e {switch} ] && {{ echo "Error: out of sets" >&2; exit 1; }}\nexec /usr/sbin/nft "$@"\n'
    )
    tool.chmod(0o755)
    daemon = stage.daemon.start(rule("web"), wrapper=("env", f"PATH={tool.parent}:/usr/sbin:/usr/bin:/sbin:/bin"))
    switch.touch()
    daemon.policy.write_text(rule("other", port=7005))
    done = daemon.ask("refresh")
    assert done.returncode == 1
    assert "nft refused the table: Error: out of sets" in done.stderr
    with program(stage.host), client_context(stage.rings).wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as sock:
        assert echo(sock) == b"hello"
        (entry,) = daemon.connections()
        assert (entry["rule"], entry["stale"]) == ("web", False)
    switch.unlink()
    assert daemon.ask("refresh").returncode == 0
