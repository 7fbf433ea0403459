"""Real TLS clients (openssl, curl) reach programs that know nothing of TLS: nginx, redis-server and nc."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces import Namespace, wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import rule

pytestmark = pytest.mark.scene

VERSIONS = pytest.mark.parametrize("version", [4, 6])
PROTOCOLS = pytest.mark.parametrize("protocol", ["tls1_2", "tls1_3"])


def listens(where: Namespace, port: int) -> None:
    """Wait until a program listens on `port`."""
    wait_until(lambda: f":{port} " in where.run("ss", "-Hltn"), 10)


def speak(where: Namespace, command: list[str], text: bytes, expected: bytes) -> bytes:
    """Give a program `text` on its standard input, wait until it has printed `expected`, and end it."""
    process: subprocess.Popen[Any] = where.popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(text)
    seen = b""
    end = time.monotonic() + 20
    while expected not in seen and time.monotonic() < end:
        part = process.stdout.read(65536)
        if not part:
            break
        seen += part
    process.stdin.close()
    process.wait(20)
    return seen


def at(address: str, port: int) -> str:
    """Write an address and port as openssl and URLs do."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@VERSIONS
@PROTOCOLS
def test_openssl_speaks_to_redis(stage: Stage, version: int, protocol: str, tmp_path: Path) -> None:
    """`openssl s_client` verifies the chain, speaks the wanted version, and redis-server answers in its own words."""
    address = stage.host.addresses[version]
    stage.host.popen(
        ["redis-server", "--port", "7000", "--bind", address, "--save", "", "--protected-mode", "no",
         "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    listens(stage.host, 7000)
    stage.daemon.start(rule("redis"))
    seen = speak(
        stage.peer,
        ["openssl", "s_client", "-connect", at(address, 7000), f"-{protocol}", "-CAfile", str(stage.rings / "ca.pem"),
         "-verify_return_error", "-nocommands"],
        b"SET place vault\r\nGET place\r\nCLIENT LIST\r\n",
        b"cmd=client",
    )  # fmt: skip
    assert b"Verify return code: 0 (ok)" in seen
    assert {"tls1_2": b"TLSv1.2", "tls1_3": b"TLSv1.3"}[protocol] in seen
    assert b"+OK\r\n$5\r\nvault\r\n" in seen
    assert f"addr={at(stage.peer.addresses[version], 0)[:-1]}".encode() in seen  # redis sees the client, not us


@VERSIONS
def test_curl_reads_from_nginx(stage: Stage, version: int, tmp_path: Path) -> None:
    """An https URL works against an nginx that serves plain http, with keep-alive and a large body."""
    address = stage.host.addresses[version]
    (tmp_path / "big").write_bytes(b"0123456789abcdef" * 500_000)
    (tmp_path / "nginx.conf").write_text(
        f"user root; daemon off; worker_processes 1; pid {tmp_path}/pid; error_log stderr;\n"
        f"events {{}} http {{ access_log off; server {{ listen {at(address, 7000)}; root {tmp_path};\n"
        "location = /who { return 200 \"$remote_addr $server_addr:$server_port\"; } } }\n"
    )  # fmt: skip
    stage.host.popen(["nginx", "-c", str(tmp_path / "nginx.conf")], stderr=subprocess.DEVNULL)
    listens(stage.host, 7000)
    stage.daemon.start(rule("web"))
    url = f"https://{at(address, 7000)}"
    # The certificate carries IPv4 addresses only; the chain is verified either way.
    verify = ["--cacert", str(stage.rings / "ca.pem")] if version == 4 else ["--insecure"]
    who = stage.peer.run("curl", "-sS", *verify, f"{url}/who")
    assert f"{stage.peer.addresses[version]} {address}:7000" == who
    out = tmp_path / "got"
    stage.peer.run("curl", "-sS", *verify, f"{url}/big", "-o", str(out), f"{url}/big", "-o", str(out))
    assert (tmp_path / "big").read_bytes() == out.read_bytes()


def test_netcat_is_a_server_too(stage: Stage) -> None:
    """The smallest of legacy programs: what the peer says over TLS comes out of nc, and its end is the end."""
    server = stage.host.popen(
        ["nc", "-l", "-N", "10.1.0.1", "7000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    listens(stage.host, 7000)
    stage.daemon.start(rule("nc"))
    client = stage.peer.popen(
        ["openssl", "s_client", "-connect", "10.1.0.1:7000", "-quiet", "-no_ign_eof",
         "-CAfile", str(stage.rings / "ca.pem")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
    )  # fmt: skip
    assert client.stdin is not None
    assert server.stdout is not None
    client.stdin.write(b"hello netcat\n")
    assert b"hello netcat\n" == server.stdout.readline()
    client.stdin.close()
    assert b"" == server.stdout.read()
    assert 0 == server.wait(20)
    client.wait(20)
