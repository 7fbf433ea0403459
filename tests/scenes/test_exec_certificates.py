"""What `attls exec` asks of certificates: whether they are revoked, and whose they are."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from attls.cli import main
from attls.keyring import Store
from tests.exec.conftest import stage
from tests.exec.stage import Peer, Stage, build, free_port, outbound, rule
from tests.namespaces import wait_until

__all__ = ["stage"]
TALK = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"hello")
print(sock.recv(100).decode())
"""
ASKS = """
TTLSEnvironmentAction Asks
{{
  HandshakeRole Client
  TTLSKeyringParms
  {{
    Keyring T/CLIENT
  }}
  TTLSGskAdvancedParms
  {{
    RevocationSecurityLevel {level}
    TTLSGskOcspParms
    {{
      OcspUrl http://127.0.0.1:{port}/
    }}
  }}
}}
"""
GUARDED = """
TTLSEnvironmentAction Guarded
{
  HandshakeRole ServerWithClientAuth
  TTLSKeyringParms
  {
    Keyring T/SERVER
  }
  TTLSEnvironmentAdvancedParms
  {
    ClientAuthType SAFCheck
  }
}
"""
SERVE = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while True:
    sock, _ = listener.accept()
    sock.sendall(sock.recv(100).upper())
    sock.close()
"""


@pytest.mark.parametrize(("level", "output"), [("Low", "HELLO\n"), ("Medium", ""), ("High", "")])
def test_a_responder_that_is_down(stage: Stage, level: str, output: str) -> None:
    """The security level decides, as under the daemon; refused means that not a byte has reached the server."""
    with Peer(stage.server_context()) as peer:
        action = ASKS.format(level=level, port=free_port())
        policy = stage.policy(rule("out", "Outbound", peer.port, environment="Asks"), action)
        done = stage.run(policy, sys.executable, "-c", TALK, str(peer.port), options=["--verbose"])
        assert output == done.output, done
        if not output:
            assert not any(words for _, words in peer.seen)


STAPLES = """
TTLSEnvironmentAction Staples
{{
  HandshakeRole Server
  TTLSKeyringParms
  {{
    Keyring T/SERVER
  }}
  TTLSGskAdvancedParms
  {{
    TTLSGskOcspParms
    {{
      OcspServerStapling EndEntity
      OcspUrl http://127.0.0.1:{port}/
    }}
  }}
}}
"""


def test_a_list_on_the_ring(tmp_path: Path) -> None:
    """The server whose certificate it names is not reached, without any parameter."""
    (tmp_path / "own").mkdir()
    own = build(tmp_path / "own")
    with Peer(own.server_context()) as peer:
        policy = own.policy(outbound(peer.port))
        words = (sys.executable, "-c", TALK, str(peer.port))
        assert "HELLO\n" == own.run(policy, *words).output
        for line in (
            "cert revoke --owner T --label server",
            f"cert crl --label CA --out {tmp_path}/ca.crl",
            f"cert import-crl {tmp_path}/ca.crl",
        ):
            main([*line.split(), "--keyrings", str(own.rings)], standalone_mode=False)
        assert "" == own.run(policy, *words).output


def test_stapling(stage: Stage, tmp_path: Path) -> None:
    """A server program hands out what `openssl ocsp` said of its certificate."""
    folder, responder, port = stage.directory, free_port(), free_port()
    key = tmp_path / "ca-key.pem"
    words = f"cert export --owner CERTAUTH --label CA --with-key --out {key} --keyrings {stage.rings}"
    main(words.split(), standalone_mode=False)
    serial = Store(stage.rings).certificate("T", "server").certificate.serial_number
    (tmp_path / "index").write_text(f"V\t350101000000Z\t\t{serial:040X}\tunknown\t/CN=localhost\n")
    keys = f"-CA {folder}/ca.pem -rsigner {key} -rkey {key}"
    command = f"openssl ocsp -port {responder} -index {tmp_path}/index {keys} -ndays 1"
    policy = stage.policy(rule("in", "Inbound", port, environment="Staples"), STAPLES.format(port=responder))
    server = subprocess.Popen(command.split(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with stage.start(policy, sys.executable, "-c", SERVE, str(port)) as process:
            assert process.stdout is not None
            assert "ready\n" == process.stdout.readline()
            asking = f"openssl s_client -connect 127.0.0.1:{port} -CAfile {folder}/ca.pem -status"

            def said() -> bytes:
                return subprocess.run(asking.split(), input=b"", capture_output=True, check=False).stdout

            wait_until(lambda: b"Cert Status: good" in said(), 20)
    finally:
        server.kill()
        server.wait()


def test_safcheck(stage: Stage) -> None:
    """A registered certificate is let in; one of the same authority that nobody knows is not."""
    port = free_port()
    # The stage's server certificate is registered for user T; a stranger's comes from elsewhere.
    policy = stage.policy(rule("in", "Inbound", port, environment="Guarded"), GUARDED)
    with stage.start(policy, sys.executable, "-c", SERVE, str(port)) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        assert b"HELLO" == speak(stage, port, "server")
        folder = stage.directory
        unknown = folder / "unknown.pem"
        command = (
            f"openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=unknown "
            f"-keyout {folder}/unknown.key -out {folder}/unknown.csr"
        )
        subprocess.run(command.split(), check=True, capture_output=True)
        words = f"cert export --owner CERTAUTH --label CA --with-key --out {folder}/ca-key.pem --keyrings {stage.rings}"
        main(words.split(), standalone_mode=False)
        command = (
            f"openssl x509 -req -in {folder}/unknown.csr -CA {folder}/ca-key.pem -CAkey {folder}/ca-key.pem "
            f"-days 1 -out {unknown}"
        )
        subprocess.run(command.split(), check=True, capture_output=True)
        unknown.write_text(unknown.read_text() + (folder / "unknown.key").read_text())
        with pytest.raises((ssl.SSLError, OSError)):
            speak(stage, port, "unknown")


def speak(stage: Stage, port: int, name: str) -> bytes:
    """Say hello to the server with a certificate of one's own."""
    context = stage.client_context()
    context.load_cert_chain(stage.key(name))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as sock,
    ):
        sock.sendall(b"hello")
        return sock.recv(100)
