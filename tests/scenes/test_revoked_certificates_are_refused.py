"""Revocation is asked about for real: a list from a web server, `openssl ocsp` as responder, and what goes wrong there.

The daemon's policy also catches outbound connections to the ports of both, so that a lookup which passed through
AT-TLS itself would fail.
"""

from __future__ import annotations

import datetime
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attls.cli import main
from attls.keyring import Store, operations, revocation
from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import Daemon, client_context, echo, make_rings, program, rule

pytestmark = pytest.mark.scene

LIST, RESPONDER = 7080, 7081


def attls(store: Path, command: str) -> None:
    """Run a command on the store."""
    done = CliRunner().invoke(main, [*command.split(), "--keyrings", str(store)])
    assert done.exit_code == 0, (command, done.output)


class Authority:
    """A store with clients `good` and `bad`, of which the second is revoked, and what publishes that on the peer."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.store = folder / "keyrings"
        self.site = folder / "site"
        self.site.mkdir()
        make_rings(self.store)
        self.urls = f"--crl-url http://10.1.0.2:{LIST}/ca.crl --ocsp-url http://10.1.0.2:{RESPONDER}/"
        for name in ("good", "bad"):
            self.issue(name)
        attls(self.store, "cert revoke --label bad --owner SITE --reason keyCompromise")
        attls(self.store, f"cert export --owner CERTAUTH --label CA --with-key --out {folder}/ca-key.pem")
        self.key = folder / "ca-key.pem"
        stage.daemon.rings = self.store

    def issue(self, name: str) -> None:
        """Make a client's certificate that names both sources."""
        attls(self.store, f"cert issue --owner SITE --label {name} --cn {name} --sign-with CA {self.urls}")
        attls(self.store, f"cert export --owner SITE --label {name} --with-key --out {self.store}/{name}.pem")

    def serial(self, name: str) -> int:
        """Return the serial number of a client's certificate."""
        return Store(self.store).certificate("SITE", name).certificate.serial_number

    def publish(self, *, days_ago: int = 0) -> None:
        """Publish the list of revoked certificates, as it was some days ago."""
        store = Store(self.store)
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days_ago)
        entry = revocation.Revocation(self.serial("bad"), now, x509.ReasonFlags.key_compromise)
        signer = operations.signer(store, "CA")
        lifetime = datetime.timedelta(days=7)
        made = revocation.build_crl(signer, [entry], now=now, lifetime=lifetime, number=1)
        (self.site / "ca.crl").write_bytes(made.public_bytes(Encoding.DER))

    def serve_list(self) -> None:
        """Run a web server on the peer."""
        self.stage.peer.popen(
            [sys.executable, "-m", "http.server", "-d", str(self.site), str(LIST)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        listens(self.stage, LIST)

    def serve_ocsp(self, key: Path | None = None) -> subprocess.Popen[bytes]:
        """Run `openssl ocsp` on the peer; answers are signed with `key`, which is the authority's unless given."""
        ends, index = "350101000000Z", self.site / "index.txt"
        index.write_text(
            f"V\t{ends}\t\t{self.serial('good'):040X}\tunknown\t/CN=good\n"
            f"R\t{ends}\t260101000000Z\t{self.serial('bad'):040X}\tunknown\t/CN=bad\n"
        )
        signer = str(key or self.key)
        process: subprocess.Popen[bytes] = self.stage.peer.popen(
            ["openssl", "ocsp", "-port", str(RESPONDER), "-index", str(index), "-CA", str(self.store / "ca.pem"),
             "-rsigner", signer, "-rkey", signer, "-ndays", "1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        listens(self.stage, RESPONDER)
        return process

    def start(self, parameters: str, *, level: str = "Medium", beside: str = "") -> Daemon:
        """Start the daemon with a server that asks its clients for certificates, and asks about them.

        `beside` is the text of further rules.
        """
        block = f"  TTLSGskAdvancedParms\n  {{\n    RevocationSecurityLevel {level}\n{parameters}  }}\n"
        served = rule("guarded").replace("HandshakeRole Server\n", f"HandshakeRole ServerWithClientAuth\n{block}")
        trap = [rule(f"trap{port}", direction="Outbound", port=port) for port in (LIST, RESPONDER)]
        return self.stage.daemon.start(served + "".join(trap) + beside)

    def enters(self, name: str) -> bool:
        """Connect as a client; tell whether it gets in."""
        context = client_context(self.store)
        context.load_cert_chain(self.store / f"{name}.pem")
        try:
            with context.wrap_socket(self.stage.peer.connect("10.1.0.1", 7000)) as sock:
                return b"hello" == echo(sock)
        except (ssl.SSLError, OSError):
            return False


def listens(stage: Stage, port: int) -> None:
    """Wait until somebody listens on the peer."""
    wait_until(lambda: f":{port} " in stage.peer.run("ss", "-Hltn"), 10)


HTTP = "    TTLSGskHttpCdpParms\n    {\n      HttpCdpEnable On\n      HttpCdpResponseTimeout 2\n    }\n"
OCSP = "    TTLSGskOcspParms\n    {\n      OcspAiaEnable On\n      OcspResponseTimeout 2\n    }\n"


@pytest.fixture
def authority(stage: Stage, tmp_path: Path) -> Authority:
    """An authority of the scene's own."""
    return Authority(stage, tmp_path)


def test_a_list_from_a_web_server(authority: Authority) -> None:
    """Who is on the list is refused with 431 before the program hears of him; the others get in."""
    authority.publish()
    authority.serve_list()
    daemon = authority.start(HTTP, level="High")
    with program(authority.stage.host) as server:
        assert authority.enters("good")
        assert not authority.enters("bad")
        wait_until(lambda: "RC:  431 Initial Handshake - a certificate of the peer is revoked" in daemon.log)
        assert "keyCompromise" in daemon.log
        assert 1 == len(server.peers)


def test_a_list_that_is_out_of_date(authority: Authority) -> None:
    """An old list says nothing any more: 436 under Medium."""
    authority.publish(days_ago=20)
    authority.serve_list()
    daemon = authority.start(HTTP)
    with program(authority.stage.host):
        assert not authority.enters("good")
        wait_until(lambda: "RC:  436 " in daemon.log)
        assert "out of date" in daemon.log


@pytest.mark.parametrize("get", ["On", "Off"])
def test_openssl_answers(authority: Authority, get: str) -> None:
    """`openssl ocsp` says good of one and revoked of the other, asked by GET and by POST, with a nonce."""
    authority.serve_ocsp()
    more = f"OcspRetrieveViaGet {get}\n      OcspNonceGenEnable On\n      OcspNonceSize 16\n      OcspAiaEnable On"
    daemon = authority.start(OCSP.replace("OcspAiaEnable On", more), level="High")
    with program(authority.stage.host):
        assert authority.enters("good"), daemon.log
        assert not authority.enters("bad")
        wait_until(lambda: "RC:  431 " in daemon.log)


def test_a_responder_whom_nobody_appointed(authority: Authority) -> None:
    """An answer signed by a certificate of the same authority that is not for this is no answer."""
    authority.serve_ocsp(authority.store / "bad.pem")
    daemon = authority.start(OCSP)
    with program(authority.stage.host):
        assert not authority.enters("good")
        wait_until(lambda: "RC:  436 " in daemon.log)
        assert "whom the authority did not appoint" in daemon.log


@pytest.mark.parametrize(("level", "enters"), [("Low", True), ("Medium", False), ("High", False)])
def test_a_responder_that_is_down(authority: Authority, level: str, enters: bool) -> None:
    """Low goes on, the others refuse with 427."""
    daemon = authority.start(OCSP + HTTP, level=level)
    with program(authority.stage.host):
        assert enters is authority.enters("good")
        if not enters:
            wait_until(lambda: "RC:  427 " in daemon.log)


def test_the_next_source_helps_out(authority: Authority) -> None:
    """A responder that is down does not matter where the list answers."""
    authority.publish()
    authority.serve_list()
    authority.start(OCSP + HTTP, level="High")
    with program(authority.stage.host):
        assert authority.enters("good")
        assert not authority.enters("bad")


def test_a_slow_responder_holds_up_nobody_else(authority: Authority) -> None:
    """While one connection waits for an answer that does not come, others work as ever, and the wait has an end."""
    stage = authority.stage
    slow = OCSP.replace("Timeout 2", "Timeout 4")
    daemon = authority.start(slow, beside=rule("beside", port=7001))
    results: list[bool] = []
    waiting = threading.Thread(target=lambda: results.append(authority.enters("good")))
    # It listens and takes no connection: the kernel does, and nobody ever answers.
    with program(stage.host), program(stage.host, port=7001), stage.peer.listen("0.0.0.0", RESPONDER):
        waiting.start()
        wait_until(lambda: [each["status"] for each in daemon.connections()] == ["Handshake"], 10)
        for _ in range(20):  # on both workers
            started = time.monotonic()
            with client_context(authority.store).wrap_socket(stage.peer.connect("10.1.0.1", 7001)) as sock:
                assert b"hello" == echo(sock)
            assert time.monotonic() - started < 1
        assert [] == results
        waiting.join(20)
        assert [False] == results
        wait_until(lambda: "did not answer within 4 s" in daemon.log)
        assert "RC:  427 " in daemon.log
