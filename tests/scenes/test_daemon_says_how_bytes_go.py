"""Without the compiled part, or with it switched off, everything works, and the operator is told."""

from __future__ import annotations

import pytest

from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import client_context, echo, program, rule

pytestmark = pytest.mark.scene


def test_a_slower_byte_path_is_said_in_status_and_log(stage: Stage) -> None:
    """Under ATTLS_CROSSING=direct a connection is carried all the same; status and each worker's log line say how."""
    daemon = stage.daemon
    daemon.launch(rule("web"), ATTLS_CROSSING="direct")
    wait_until(lambda: "Steering:     on\nBytePath:     direct" in daemon.ask("status").stdout)
    with (
        program(stage.host),
        client_context(stage.rings).wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as sock,
    ):
        assert echo(sock, b"x" * 100_000) == b"x" * 100_000
    assert 2 == daemon.log.count("moves bytes the slower way: byte path direct")
