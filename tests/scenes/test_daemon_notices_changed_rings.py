"""A ring that changes is put in force without anybody asking; one that breaks is not."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner

from attls.cli import main
from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import client_context, echo, make_rings, program, rule

pytestmark = pytest.mark.scene


def attls(store: Path, command: str) -> None:
    """Run a command on the store."""
    done = CliRunner().invoke(main, [*command.split(), "--keyrings", str(store)])
    assert done.exit_code == 0, (command, done.output)


def presented(stage: Stage, store: Path) -> bytes:
    """Connect, say hello and return the certificate that the host presents."""
    raw = stage.peer.connect("10.1.0.1", 7000)
    with client_context(store).wrap_socket(raw) as sock:
        assert b"hello" == echo(sock)
        return sock.getpeercert(binary_form=True) or b""


def file_of(store: Path) -> Path:
    """Return the file of the server's certificate."""
    return store / "certificates" / "SRV" / "server.pem"


def test_renewal(stage: Stage, tmp_path: Path) -> None:
    """A renewed certificate serves the next connection; a broken or deleted ring is reported and goes on as it was.

    A half-edited policy is not taken along. A live connection keeps what it has.
    """
    store = tmp_path / "keyrings"
    make_rings(store)
    stage.daemon.rings = store
    daemon = stage.daemon.start(rule("watched"))
    with program(stage.host):
        first = presented(stage, store)
        assert ssl.DER_cert_to_PEM_cert(first).strip() in file_of(store).read_text()
        daemon.policy.write_text("TTLSRule half {")
        with client_context(store).wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as live:
            assert b"hello" == echo(live)
            attls(store, "cert renew --owner SRV --label server --new-key")
            wait_until(lambda: daemon.status()["generation"] > 1, 10)
            second = presented(stage, store)
            assert second != first
            assert ssl.DER_cert_to_PEM_cert(second).strip() in file_of(store).read_text()
            assert b"hello" == echo(live)
        good = file_of(store).read_text()
        file_of(store).write_text(good.replace("MII", "XXX"))
        wait_until(lambda: daemon.status()["last_error"], 10)
        assert "rule watched: " in daemon.status()["last_error"]
        assert second == presented(stage, store)
        file_of(store).write_text(good)
        attls(store, "cert renew --owner SRV --label server")
        wait_until(lambda: daemon.status()["last_error"] is None, 10)
        third = presented(stage, store)
        assert third not in (first, second)
        attls(store, "keyring delete SRV/RING")
        wait_until(lambda: "SRV has no ring 'RING'" in (daemon.status()["last_error"] or ""), 10)
        assert third == presented(stage, store)


def test_nothing_has_come_of_a_change(stage: Stage, tmp_path: Path) -> None:
    """What does not concern the rings in use makes no new generation; `--no-watch` notices nothing at all."""
    store = tmp_path / "keyrings"
    make_rings(store)
    stage.daemon.rings = store
    daemon = stage.daemon.start(rule("calm"))
    attls(store, "cert create-ca --label Other --cn Other")
    attls(store, "cert renew --owner SRV --label server")
    wait_until(lambda: daemon.status()["generation"] > 1, 10)
    assert daemon.status()["generation"] == 2
    assert daemon.ask("stop").returncode == 0
    daemon = stage.daemon.start(rule("blind"), "--no-watch")
    attls(store, "cert renew --owner SRV --label server")
    with program(stage.host):
        old = presented(stage, store)
        assert ssl.DER_cert_to_PEM_cert(old).strip() not in file_of(store).read_text()
        assert daemon.ask("refresh").returncode == 0
        assert presented(stage, store) != old
