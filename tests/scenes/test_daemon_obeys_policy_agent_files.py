"""The options of a Policy Agent's files: how often they are read again, and what is left when the daemon stops."""

from __future__ import annotations

import pytest

from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import client_context, echo, program, rule

pytestmark = pytest.mark.scene

MAIN = "TcpImage TCPIP image.conf FLUSH {purge} 1\n"


def test_changed_files_are_put_in_force_and_nopurge_keeps_protecting(stage: Stage) -> None:
    """With an interval nobody needs to ask for a refresh; after a stop with NOPURGE the protected port is refused."""
    (stage.daemon.folder / "image.conf").write_text("TTLSConfig stack.policy\n")
    policy = stage.daemon.folder / "stack.policy"
    policy.write_text(rule("one"))
    daemon = stage.daemon.start(MAIN.format(purge="NOPURGE"))
    policy.write_text(rule("one") + rule("two", port=7001))
    wait_until(lambda: daemon.status()["rules"] == 2, 10)
    policy.write_text("TTLSRule broken\n")
    wait_until(lambda: "refresh failed" in daemon.log, 10)
    context = client_context(stage.rings)
    with (
        program(stage.host, port=7001),
        context.wrap_socket(stage.peer.connect("10.1.0.1", 7001)) as sock,
    ):
        assert echo(sock) == b"hello"
    status = daemon.status()
    assert (2, "block") == (status["generation"], status["on_exit"])
    assert daemon.ask("stop").returncode == 0
    with program(stage.host, port=7001), pytest.raises(OSError):
        stage.peer.connect("10.1.0.1", 7001, timeout=1)
    assert 1 == daemon.log.count("refresh failed")


def test_purge_and_the_option_decide_what_a_stop_leaves(stage: Stage) -> None:
    """PURGE releases what was protected; --on-exit counts more than the file."""
    (stage.daemon.folder / "image.conf").write_text("TTLSConfig stack.policy\n")
    (stage.daemon.folder / "stack.policy").write_text(rule("one"))
    for purge, arguments, expected in (
        ("PURGE", [], "release"),
        ("NOPURGE", ["--on-exit", "release"], "release"),
        ("PURGE", ["--on-exit", "block"], "block"),
    ):
        daemon = stage.daemon.start(MAIN.format(purge=purge), *arguments)
        assert expected == daemon.status()["on_exit"]
        assert daemon.ask("stop").returncode == 0
        tables = stage.host.run("nft", "list", "tables")
        assert (expected == "block") == ("attls" in tables)
