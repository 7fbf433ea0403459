"""systemd hears when the daemon is ready, reloads and stops, at the right moments."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.scenes.conftest import Stage
from tests.scenes.daemons import rule

pytestmark = pytest.mark.scene


def test_ready_reloading_stopping(stage: Stage, tmp_path: Path) -> None:
    """READY=1 comes once steering is in force, and again after a reload, whether it went well or not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)

        def heard() -> list[str]:
            return manager.recv(4096).decode().splitlines()

        daemon = stage.daemon
        daemon.launch(rule("web"), NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert heard()[:2] == ["READY=1", f"MAINPID={daemon.pid}"]
        assert "table inet attls" in stage.host.run("nft", "list", "tables")
        for policy in (rule("web"), "nonsense"):
            daemon.policy.write_text(policy)
            daemon.ask("refresh")
            reloading, moment = heard()
            assert reloading == "RELOADING=1"
            assert moment.startswith("MONOTONIC_USEC=")
            assert heard() == ["READY=1"]
        assert daemon.ask("stop").returncode == 0
        assert heard() == ["STOPPING=1"]
