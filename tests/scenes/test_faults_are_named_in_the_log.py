"""Each way a handshake can fail ends with a reset, delivers nothing, and leaves one line with rule and return code."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Callable
from functools import partial

import pytest
import trustme

from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import client_context, program, rule

pytestmark = pytest.mark.scene

PORTS = {"plain": 7001, "silent": 7002, "protocol": 7003, "cipher": 7004, "certificate": 7005}
OUT = {"untrusted": 7101, "clear": 7103, "unreachable": 7104, "hangup": 7105}


def codes(log: str, name: str) -> list[int]:
    """Return the return codes that the log has for a rule."""
    return [int(found) for found in re.findall(rf"EZD1286I .*RULE: {name} RC: +(\d+)", log)]


def ends_with_reset(sock: socket.socket) -> bool:
    """Read until the end; tell whether it was a reset."""
    sock.settimeout(20)
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        return True
    return False


def test_inbound(stage: Stage) -> None:
    """Peers that speak plain text, nothing, the wrong version, the wrong cipher, or have no certificate."""
    stage.daemon.start(
        rule("plain", port=PORTS["plain"])
        + rule("silent", port=PORTS["silent"], extra="HandshakeTimeout 1")
        + rule("protocol", port=PORTS["protocol"], extra="TLSv1.2 Off\n TLSv1.3 On")
        + rule("cipher", port=PORTS["cipher"], extra="TLSv1.2 On\n TLSv1.3 Off").replace(
            " TTLSEnvironmentAdv", " TTLSCipherParms {\n V3CipherSuites4Char C02C\n }\n TTLSEnvironmentAdv"
        )
        + rule("certificate", port=PORTS["certificate"]).replace("Role Server", "Role ServerWithClientAuth")
    )  # fmt: skip
    old = client_context(stage.rings)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    other = client_context(stage.rings)
    other.maximum_version = ssl.TLSVersion.TLSv1_2
    other.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    received: list[str] = []

    def plain(sock: socket.socket) -> None:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert ends_with_reset(sock)

    def silent(sock: socket.socket) -> None:
        assert ends_with_reset(sock)

    def shakes(context: ssl.SSLContext) -> Callable[[socket.socket], None]:
        def shake(sock: socket.socket) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(sock) as secure:
                secure.sendall(b"x")
                received.append(repr(secure.recv(1)))

        return shake

    def logged(name: str) -> bool:
        return bool(codes(stage.daemon.log, name))

    acts: dict[str, tuple[int, Callable[[socket.socket], None]]] = {
        "plain": (5003, plain),
        "silent": (5004, silent),
        "protocol": (412, shakes(old)),
        "cipher": (402, shakes(other)),
        "certificate": (5001, shakes(client_context(stage.rings))),
    }
    for name, (code, act) in acts.items():
        with program(stage.host, port=PORTS[name]) as legacy:
            with stage.peer.connect("10.1.0.1", PORTS[name]) as sock:
                act(sock)
            wait_until(partial(logged, name))
            assert [code] == codes(stage.daemon.log, name), stage.daemon.log
            assert [] == legacy.peers
    assert [] == received


def test_outbound(stage: Stage) -> None:
    """Servers that are not trusted, speak plain text, hang up, or are not there."""
    stage.daemon.start("".join(rule(name, direction="Outbound", port=port) for name, port in OUT.items()))
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("10.1.0.2").configure_cert(stranger)

    def reset(name: str) -> None:
        with stage.host.connect("10.1.0.2", OUT[name], timeout=20) as sock:
            sock.sendall(b"secret")
            assert ends_with_reset(sock)
        wait_until(lambda: codes(stage.daemon.log, name))

    with program(stage.peer, port=OUT["untrusted"], tls=stranger):
        reset("untrusted")
    assert [435] == codes(stage.daemon.log, "untrusted")
    with stage.peer.listen("0.0.0.0", OUT["clear"]) as listener, stage.host.connect("10.1.0.2", OUT["clear"]) as sock:
        server, _ = listener.accept()
        with server:
            server.sendall(b"220 plain text\r\n")
            assert ends_with_reset(sock)
    wait_until(lambda: codes(stage.daemon.log, "clear"))
    assert [5003] == codes(stage.daemon.log, "clear")
    with stage.peer.listen("0.0.0.0", OUT["hangup"]) as listener, stage.host.connect("10.1.0.2", OUT["hangup"]) as sock:
        server, _ = listener.accept()
        server.recv(5)
        server.shutdown(socket.SHUT_WR)
        assert ends_with_reset(sock)
        server.close()
    wait_until(lambda: codes(stage.daemon.log, "hangup"))
    assert codes(stage.daemon.log, "hangup")[0] in (406, 420)
    reset("unreachable")
    assert "could not be reached: Connection refused" in stage.daemon.log
