"""A policy that names a ring without an owner gives every user of the host his own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from attls.cli import main
from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import make_rings, program, rule, server_context

pytestmark = pytest.mark.scene
SPEAK = (
    "import socket; sock = socket.create_connection(('10.1.0.2', 7001), 5); sock.sendall(b'hello'); print(sock.recv(5))"
)


def speak(stage: Stage, uid: int) -> str:
    """Have a program of user `uid` say hello to the peer; return what it printed, errors last."""
    command = ["setpriv", f"--reuid={uid}", "--clear-groups", sys.executable, "-c", SPEAK]
    with stage.host.inside():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr.splitlines()[-1] if done.stderr else done.stdout


def test_every_user_has_his_own(stage: Stage) -> None:
    """Who has such a ring is protected by it; who has none is refused, and gets in when a refresh follows the ring."""
    for user in ("nobody", "daemon"):
        CliRunner().invoke(main, ["keyring", "delete", f"{user}/OWN", "--keyrings", str(stage.rings)])

    def give(user: str) -> None:
        for command in (
            f"keyring create {user}/OWN",
            f"keyring connect {user}/OWN --owner CERTAUTH --label CA",
        ):
            done = CliRunner().invoke(main, [*command.split(), "--keyrings", str(stage.rings)])
            assert done.exit_code == 0, done.output

    give("nobody")
    daemon = stage.daemon.start(rule("own", direction="Outbound", port=7001, ring="OWN"))
    with program(stage.peer, port=7001, tls=server_context(stage.rings)):
        assert speak(stage, 65534) == "b'hello'\n"
        assert "ConnectionResetError" in speak(stage, 1)
        wait_until(lambda: "RC: 5006 Environment Init" in daemon.log)
        assert "DAEMON has no ring 'OWN'" in daemon.log
        give("daemon")
        assert daemon.ask("refresh").returncode == 0
        assert speak(stage, 1) == "b'hello'\n"
        assert speak(stage, 65534) == "b'hello'\n"


def test_strict_grants_hold_for_each_connection(stage: Stage, tmp_path: Path) -> None:
    """In a store that asks for grants the owner of a ring needs none, and another's key on it is 428 until granted."""
    store = tmp_path / "keyrings"
    make_rings(store)

    def attls(command: str) -> None:
        done = CliRunner().invoke(main, [*command.split(), "--keyrings", str(store)])
        assert done.exit_code == 0, done.output

    attls("keyring settings --strict")
    for user in ("nobody", "daemon"):
        attls(f"keyring create {user}/OWN")
        attls(f"keyring connect {user}/OWN --owner CERTAUTH --label CA")
    attls("keyring connect daemon/OWN --owner SRV --label server --default --usage personal")
    stage.daemon.rings = store
    policy = rule("own", direction="Outbound", port=7001, ring="OWN", extra="CertificateLabel server")
    daemon = stage.daemon.start(policy + rule("plain", direction="Outbound", port=7002, ring="OWN"))
    with program(stage.peer, port=7001, tls=server_context(store)):
        assert "ConnectionResetError" in speak(stage, 65534)
        wait_until(lambda: "no certificate labelled 'server'" in daemon.log)
        assert "(code 407)" in daemon.log
        assert "ConnectionResetError" in speak(stage, 1)
        wait_until(lambda: "needs UPDATE access to ring daemon/OWN" in daemon.log)
        assert "(code 428)" in daemon.log
        before = daemon.status()["generation"]
        attls("keyring grant daemon/OWN --user daemon --access update")
        wait_until(lambda: daemon.status()["generation"] > before, 10)
        assert speak(stage, 1) == "b'hello'\n"
