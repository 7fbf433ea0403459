"""A certificate authority that publishes what it revoked, for the scenes: nginx with a list, `openssl ocsp`, and lies.

The daemon's policy also catches every outbound connection, so that a lookup which passed through AT-TLS itself would
fail.
"""

from __future__ import annotations

import datetime
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attls.cli import main
from attls.keyring import Store, operations, revocation
from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import Daemon, client_context, echo, make_rings, rule

WEB, RESPONDER, PROXY = 7080, 7081, 7082
LEVELS = {"Low": 7010, "Medium": 7011, "High": 7012}
HTTP = "    TTLSGskHttpCdpParms\n    {\n      HttpCdpEnable On\n      HttpCdpResponseTimeout 1\n    }\n"
OCSP = "    TTLSGskOcspParms\n    {\n      OcspAiaEnable On\n      OcspResponseTimeout 1\n    }\n"


def attls(store: Path, command: str) -> str:
    """Run a command on the store and return what it printed."""
    done = CliRunner().invoke(main, [*command.split(), "--keyrings", str(store)])
    assert done.exit_code == 0, (command, done.output)
    return done.output


class Authority:
    """A store with clients `good` and `bad`, of which the second is revoked, and what publishes that on the peer.

    The clients' certificates name the list and the responder on the peer.
    """

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.folder = folder
        self.store = folder / "keyrings"
        self.site = folder / "site"
        self.site.mkdir()
        make_rings(self.store)
        for name in ("good", "bad"):
            attls(
                self.store,
                f"cert issue --owner SITE --label {name} --cn {name} --sign-with CA "
                f"--crl-url http://10.1.0.2:{WEB}/ca.crl --ocsp-url http://10.1.0.2:{RESPONDER}/",
            )
            attls(self.store, f"cert export --owner SITE --label {name} --with-key --out {self.store}/{name}.pem")
        attls(self.store, "cert revoke --label bad --owner SITE --reason keyCompromise")
        self.key = folder / "ca-key.pem"
        attls(self.store, f"cert export --owner CERTAUTH --label CA --with-key --out {self.key}")
        stage.daemon.rings = self.store

    def certificate(self, name: str, owner: str = "SITE") -> x509.Certificate:
        """Return a certificate of the store."""
        return Store(self.store).certificate(owner, name).certificate

    def crl(self, *, days_ago: float = 0, revoked: Sequence[str] = ("bad",), store: Path | None = None) -> bytes:
        """Return the list (DER) as it was some days ago; that of another store has another key behind the same name."""
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days_ago)
        entries = [
            revocation.Revocation(self.certificate(name).serial_number, now, x509.ReasonFlags.key_compromise)
            for name in revoked
        ]
        signer = operations.signer(Store(store or self.store), "CA")
        lifetime = datetime.timedelta(days=7)
        made = revocation.build_crl(signer, entries, now=now, lifetime=lifetime, number=1)
        return made.public_bytes(Encoding.DER)

    def publish(self, content: bytes | None) -> None:
        """Make `content` the list that the web server has; None for no list."""
        if content is None:
            (self.site / "ca.crl").unlink(missing_ok=True)
        else:
            (self.site / "ca.crl").write_bytes(content)

    def serve_web(self) -> subprocess.Popen[bytes]:
        """Run nginx on the peer: the list, and a proxy for whoever asks it."""
        (self.folder / "nginx.conf").write_text(
            f"daemon off; user root; pid {self.folder}/nginx.pid; error_log {self.folder}/nginx.err;\n"
            f"events {{}}\nhttp {{ access_log {self.folder}/nginx.log; root {self.site};\n"
            f"server {{ listen 0.0.0.0:{WEB}; }}\n"
            f"server {{ listen 0.0.0.0:{PROXY}; access_log {self.folder}/proxy.log;\n"
            "  location / { proxy_pass http://$http_host$request_uri; } } }\n"
        )
        return self.start_on_peer(["nginx", "-c", str(self.folder / "nginx.conf")], WEB)

    def serve_canned(self, status: int, answer: bytes) -> subprocess.Popen[bytes]:
        """Run nginx on the peer in the place of the responder: it gives one answer to whatever it is asked."""
        folder = self.folder / "canned"
        folder.mkdir(exist_ok=True)
        (folder / "answer").write_bytes(answer)
        what = f"return {status};" if status != 200 else "error_page 405 =200 /answer; rewrite ^ /answer break;"
        (folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.err; user root;\n"
            f"events {{}}\nhttp {{ access_log off; root {folder};\n"
            f"server {{ listen 0.0.0.0:{RESPONDER}; location = /answer {{ }} location / {{ {what} }} }} }}\n"
        )
        return self.start_on_peer(["nginx", "-c", str(folder / "nginx.conf")], RESPONDER)

    def serve_ocsp(self, signer: Path | None = None) -> subprocess.Popen[bytes]:
        """Run `openssl ocsp` on the peer; answers are signed with the key of `signer`, the authority's unless given."""
        ends, index = "350101000000Z", self.site / "index.txt"
        fine = (self.certificate("good"), self.certificate("server", "SRV"))
        index.write_text(
            "".join(f"V\t{ends}\t\t{one.serial_number:040X}\tunknown\t/CN={one.serial_number}\n" for one in fine)
            + f"R\t{ends}\t260101000000Z\t{self.certificate('bad').serial_number:040X}\tunknown\t/CN=bad\n"
        )
        key = str(signer or self.key)
        return self.start_on_peer(
            ["openssl", "ocsp", "-port", str(RESPONDER), "-index", str(index), "-CA", str(self.store / "ca.pem"),
             "-rsigner", key, "-rkey", key, "-ndays", "1"],
            RESPONDER,
        )  # fmt: skip

    def ocsp_answer(self, *, days_ago: float = 0) -> bytes:
        """Return what an honest responder said about `good` some days ago, without a nonce."""
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days_ago)
        signer = operations.signer(Store(self.store), "CA")
        leaf = self.certificate("good")
        request = revocation.ocsp_request(leaf, signer.certificate, nonce=b"another nonce")
        lifetime = datetime.timedelta(days=1)
        return revocation.answer_ocsp(
            request, issuer=signer.certificate, signer=signer, known={leaf.serial_number: None}, now=now,
            lifetime=lifetime,
        )  # fmt: skip

    def start_on_peer(self, command: Sequence[str], port: int) -> subprocess.Popen[bytes]:
        """Start a program on the peer and wait until it listens."""
        process: subprocess.Popen[bytes] = self.stage.peer.popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: f":{port} " in self.stage.peer.run("ss", "-Hltn"), 10)
        return process

    def stop_on_peer(self, process: subprocess.Popen[bytes], port: int) -> None:
        """End a program of `start_on_peer` and wait until nobody listens there."""
        process.terminate()
        process.wait(10)
        wait_until(lambda: f":{port} " not in self.stage.peer.run("ss", "-Hltn"), 10)

    def start(self, parameters: str, *, level: str = "Medium", beside: str = "") -> Daemon:
        """Start the daemon with a server on port 7000 that asks its clients for certificates, and asks about them.

        `beside` is the text of further rules.
        """
        return self.stage.daemon.start(_guarded("guarded", 7000, level, parameters) + _CATCH_ALL + beside)

    def start_levels(self, parameters: str) -> Daemon:
        """Start the daemon with three such servers, one for each security level, on the ports `LEVELS`."""
        rules = [_guarded(level.lower(), port, level, parameters) for level, port in LEVELS.items()]
        return self.stage.daemon.start("".join(rules) + _CATCH_ALL)

    def enters(self, name: str, port: int = 7000) -> bool:
        """Connect as a client; tell whether it gets in."""
        context = client_context(self.store)
        context.load_cert_chain(self.store / f"{name}.pem")
        try:
            with context.wrap_socket(self.stage.peer.connect("10.1.0.1", port)) as sock:
                return b"hello" == echo(sock)
        except (ssl.SSLError, OSError):
            return False


def _guarded(name: str, port: int, level: str, parameters: str) -> str:
    block = f"  TTLSGskAdvancedParms\n  {{\n    RevocationSecurityLevel {level}\n{parameters}  }}\n"
    text = rule(name, port=port)
    return text.replace("HandshakeRole Server\n", f"HandshakeRole ServerWithClientAuth\n{block}")


_CATCH_ALL = rule("catch-all", direction="Outbound", port=1).replace("RemotePortRange 1\n", "RemotePortRange 1-65535\n")
