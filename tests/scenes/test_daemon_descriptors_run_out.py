"""More connections than descriptors: the surplus waits in the backlog, operators get answers."""

from __future__ import annotations

import ssl

import pytest

from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import client_context, echo, program, rule

pytestmark = pytest.mark.scene


def test_the_surplus_is_served_when_there_is_room_again(stage: Stage) -> None:
    """A worker that may hold few connections carries those, answers netstat, and takes the next ones when some end."""
    few = ("setpriv", "--bounding-set", "-sys_resource", "prlimit", "--nofile=128:128")
    daemon = stage.daemon.start(rule("web"), "--workers", "1", wrapper=few)
    context = client_context(stage.rings)
    with program(stage.host):
        carried: list[ssl.SSLSocket] = []
        while True:
            sock = stage.peer.connect("10.1.0.1", 7000, timeout=2)
            try:
                secure = context.wrap_socket(sock)
            except TimeoutError:
                sock.close()
                break
            assert echo(secure) == b"hello"
            carried.append(secure)
        assert 10 < len(carried) < 64
        assert len(daemon.connections()) == len(carried)
        assert daemon.ask("refresh").returncode == 0
        for secure in carried[:10]:
            secure.close()
        wait_until(lambda: len(daemon.connections()) <= len(carried) - 10)
        with context.wrap_socket(stage.peer.connect("10.1.0.1", 7000, timeout=5)) as late:
            assert echo(late) == b"hello"
        for secure in carried[10:]:
            assert echo(secure) == b"hello"
            secure.close()
    assert daemon.status()["restarts"] == 0
