"""A client's certificate says who its user is: mapped ones get in and are named, unmapped ones are refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from attls.cli import main
from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import make_rings, program, rule

pytestmark = pytest.mark.scene


def attls(store: Path, command: str) -> None:
    """Run a command on the store."""
    done = CliRunner().invoke(main, [*command.split(), "--keyrings", str(store)])
    assert done.exit_code == 0, (command, done.output)


def make_client(store: Path, name: str, unit: str) -> Path:
    """Make a certificate for a client outside the host; return its file, the key in it."""
    attls(store, f"cert issue --owner SITE --label {name} --cn {name} --subject OU={unit} --sign-with CA")
    attls(store, f"cert export --owner SITE --label {name} --with-key --out {store}/{name}.pem")
    return store / f"{name}.pem"


def dial(stage: Stage, certificate: Path) -> subprocess.Popen[bytes]:
    """Start `openssl s_client` with a certificate on the peer."""
    process: subprocess.Popen[bytes] = stage.peer.popen(
        ["openssl", "s_client", "-connect", "10.1.0.1:7000", "-quiet", "-cert", str(certificate), "-key",
         str(certificate), "-CAfile", str(certificate.parent / "ca.pem")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(b"hello\n")
    return process


def test_safcheck(stage: Stage, tmp_path: Path) -> None:
    """SAFCheck lets the mapped certificate in as its user, refuses the other with an alert, and a refresh maps it too.

    `netstat` shows the user. The program hears of nobody who was refused.
    """
    store = tmp_path / "keyrings"
    make_rings(store)
    alice, mallory = make_client(store, "alice", "Pay"), make_client(store, "mallory", "Other")
    attls(store, "map add --user alice --label pay --subject OU=Pay")
    stage.daemon.rings = store
    policy = rule("users").replace("HandshakeRole Server\n", "HandshakeRole ServerWithClientAuth\n")
    daemon = stage.daemon.start(policy.replace("{\n    \n  }", "{\n    ClientAuthType SAFCheck\n  }"))
    with program(stage.host) as server:
        known = dial(stage, alice)
        assert known.stdout is not None
        assert b"hello\n" == known.stdout.readline()
        (entry,) = daemon.connections()
        assert "alice" == entry["cert_user"]
        unknown = dial(stage, mallory)
        assert unknown.stderr is not None
        assert b"alert" in unknown.stderr.read()
        wait_until(lambda: "RC: 5002 Initial Handshake - the client certificate maps to no user" in daemon.log)
        assert 1 == len(server.peers)
        attls(store, "map add --user mallory --label other --subject OU=Other")
        assert 0 == daemon.ask("refresh").returncode
        mapped = dial(stage, mallory)
        assert mapped.stdout is not None
        assert b"hello\n" == mapped.stdout.readline()
        assert {"alice", "mallory"} == {each["cert_user"] for each in daemon.connections()}
