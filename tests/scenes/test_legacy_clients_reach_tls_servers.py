"""Programs that know nothing of TLS (nc, curl, redis-cli) reach real TLS servers: openssl s_server, nginx, redis."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.scenes.conftest import Stage
from tests.scenes.daemons import rule
from tests.scenes.test_tls_peers_reach_legacy_servers import PROTOCOLS, VERSIONS, at, listens, speak

pytestmark = pytest.mark.scene


@VERSIONS
@PROTOCOLS
def test_plain_http_reaches_openssl_s_server(stage: Stage, version: int, protocol: str) -> None:
    """curl asks http://, s_server answers over the wanted TLS version and says so."""
    address = stage.peer.addresses[version]
    stage.peer.popen(
        ["openssl", "s_server", "-accept", at(address, 7000), "-cert", str(stage.rings / "server.pem"), f"-{protocol}",
         "-www", "-quiet"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    listens(stage.peer, 7000)
    stage.daemon.start(rule("out", direction="Outbound"))
    page = stage.host.run("curl", "-sS", f"http://{at(address, 7000)}/")
    assert {"tls1_2": "TLSv1.2", "tls1_3": "TLSv1.3"}[protocol] in page


@VERSIONS
def test_plain_http_reaches_nginx_with_tls(stage: Stage, version: int, tmp_path: Path) -> None:
    """A large body comes back unchanged, and nginx sees the true client address."""
    address = stage.peer.addresses[version]
    (tmp_path / "big").write_bytes(b"fedcba9876543210" * 500_000)
    (tmp_path / "nginx.conf").write_text(
        f"user root; daemon off; worker_processes 1; pid {tmp_path}/pid; error_log stderr;\n"
        f"events {{}} http {{ access_log off; server {{ listen {at(address, 7000)} ssl; root {tmp_path};\n"
        "ssl_protocols TLSv1.2 TLSv1.3;\n"
        f"ssl_certificate {stage.rings}/server.pem; ssl_certificate_key {stage.rings}/server.pem;\n"
        'location = /who { return 200 "$remote_addr $ssl_protocol"; } } }\n'
    )
    stage.peer.popen(["nginx", "-c", str(tmp_path / "nginx.conf")], stderr=subprocess.DEVNULL)
    listens(stage.peer, 7000)
    stage.daemon.start(rule("out", direction="Outbound"))
    url = f"http://{at(address, 7000)}"
    assert f"{stage.host.addresses[version]} TLSv1.3" == stage.host.run("curl", "-sS", f"{url}/who")
    out = tmp_path / "got"
    stage.host.run("curl", "-sS", f"{url}/big", "-o", str(out))
    assert (tmp_path / "big").read_bytes() == out.read_bytes()


def test_plain_redis_cli_reaches_redis_with_tls(stage: Stage, tmp_path: Path) -> None:
    """redis-cli without --tls works against a redis-server that accepts nothing but TLS."""
    pem = str(stage.rings / "server.pem")
    stage.peer.popen(
        ["redis-server", "--port", "0", "--tls-port", "7000", "--tls-cert-file", pem, "--tls-key-file", pem,
         "--tls-ca-cert-file", str(stage.rings / "ca.pem"), "--tls-auth-clients", "no", "--save", "",
         "--protected-mode", "no", "--bind", "10.1.0.2", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    listens(stage.peer, 7000)
    stage.daemon.start(rule("out", direction="Outbound"))
    assert "PONG\n" == stage.host.run("redis-cli", "-h", "10.1.0.2", "-p", "7000", "PING")


def test_netcat_speaks_to_s_server(stage: Stage) -> None:
    """nc sends a line, `s_server -rev` turns it round; both ends run unmodified."""
    stage.peer.popen(
        ["openssl", "s_server", "-accept", "10.1.0.2:7000", "-cert", str(stage.rings / "server.pem"), "-rev", "-quiet"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    listens(stage.peer, 7000)
    stage.daemon.start(rule("out", direction="Outbound"))
    assert b"olleh\n" == speak(stage.host, ["nc", "-N", "10.1.0.2", "7000"], b"hello\n", b"olleh\n")
