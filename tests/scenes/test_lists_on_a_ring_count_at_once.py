"""A revocation list that is brought in while the daemon runs counts for the next connection, resumed or not."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.namespaces import wait_until
from tests.scenes.authority import Authority, attls
from tests.scenes.conftest import Stage
from tests.scenes.daemons import Daemon, client_context, echo, ends, program, rule, server_context

pytestmark = pytest.mark.scene
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Client:
    """A client with a certificate, which tries to go on with the session it had before."""

    def __init__(self, authority: Authority, name: str, version: ssl.TLSVersion) -> None:
        self._peer = authority.stage.peer
        self._context = client_context(authority.store)
        self._context.maximum_version = version
        self._context.load_cert_chain(authority.store / f"{name}.pem")
        self._session: ssl.SSLSession | None = None

    def enters(self) -> str:
        """Connect; return `new` or `resumed`, or nothing when it was refused."""
        try:
            sock = self._context.wrap_socket(self._peer.connect("10.1.0.1", 7000), session=self._session)
            with sock:
                if echo(sock) != b"hello":
                    return ""
                self._session = sock.session
                return "resumed" if sock.session_reused else "new"
        except (ssl.SSLError, OSError):
            return ""


def bring_in(authority: Authority, daemon: Daemon, content: bytes) -> None:
    """Import a list and wait until the daemon goes by it."""
    number = daemon.status()["generation"]
    (authority.folder / "ca.crl").write_bytes(content)
    attls(authority.store, f"cert import-crl {authority.folder}/ca.crl")
    wait_until(lambda: daemon.status()["generation"] > number, 20)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_from_before_is_not_resumed(stage: Stage, tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Whose certificate the new list names is refused, also with a session from when it was good; others get in."""
    authority = Authority(stage, tmp_path)
    text = rule("guarded").replace("HandshakeRole Server\n", "HandshakeRole ServerWithClientAuth\n")
    daemon = stage.daemon.start(text, "--workers", "1")
    good, bad = (Client(authority, name, version) for name in ("good", "bad"))
    with program(stage.host) as server:
        assert [("new", "new"), ("resumed", "resumed")] == [(good.enters(), bad.enters()) for _ in range(2)]
        bring_in(authority, daemon, authority.crl())
        before = len(server.peers)
        assert ("new", "") == (good.enters(), bad.enters())
        assert ("new", "") == (good.enters(), bad.enters())  # nothing is resumed any more
        assert before + 2 == len(server.peers)
        wait_until(lambda: "RC:  431 " in daemon.log)


def test_a_server_on_the_list(stage: Stage, tmp_path: Path) -> None:
    """On the way out as well: a program's server whose certificate the list names is not reached."""
    authority = Authority(stage, tmp_path)
    daemon = stage.daemon.start(rule("out", direction="Outbound"))
    with program(stage.peer, "10.1.0.2", tls=server_context(authority.store)):
        with stage.host.connect("10.1.0.2", 7000) as sock:
            assert b"hello" == echo(sock)
        number = daemon.status()["generation"]
        attls(authority.store, "cert revoke --label server --owner SRV")
        attls(authority.store, f"cert crl --label CA --out {tmp_path}/own.crl")
        attls(authority.store, f"cert import-crl {tmp_path}/own.crl")
        wait_until(lambda: daemon.status()["generation"] > number, 20)
        with stage.host.connect("10.1.0.2", 7000) as sock:
            assert ends(sock)
        wait_until(lambda: "RC:  431 " in daemon.log)
