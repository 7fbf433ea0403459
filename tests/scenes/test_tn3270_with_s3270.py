"""s3270, a real 3270 terminal, against our small controlling host: TLS at once, negotiated, and refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import ROOT, rule

pytestmark = [
    pytest.mark.scene,
    pytest.mark.skipif(shutil.which("s3270") is None, reason="s3270 is not installed"),
]
PORTS = {"secure": 2301, "negotiate": 2302, "any": 2303}


def terminal(stage: Stage, where: str, *options: str) -> str:
    """Have a terminal connect, wait for the screen and print it; return all that it said."""
    script = f"Connect({where})\nWait(10,InputField)\nAscii()\nQuit()\n"
    with stage.peer.inside():
        done = subprocess.run(
            ["s3270", "-accepthostname", "any", "-cafile", str(stage.rings / "ca.pem"), *options],
            input=script, capture_output=True, text=True, errors="replace", timeout=60, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    return done.stdout + done.stderr


def test_a_terminal_gets_tls_the_way_the_port_says(stage: Stage) -> None:
    """As CONNTYPE: `secure` with TLS at once or after silence, `negotiate`, and only `any` serves in clear."""
    controlled = "ApplicationControlled On\n    HandshakeTimeout 1"
    stage.daemon.start("".join(rule(kind, port=port, extra=controlled) for kind, port in PORTS.items()))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATTLS_RUN_DIR": str(stage.daemon.run_dir)}
    for kind, port in PORTS.items():
        stage.host.popen(
            [sys.executable, "-m", "attls.examples.tn3270", "10.1.0.1", str(port), kind],
            stdout=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
    wait_until(lambda: all(f":{port} " in stage.host.run("ss", "-Hltn") for port in PORTS.values()), 10)
    refuses = ("-set", "startTls=false")
    for where, options, expected in (
        ("L:10.1.0.1:2301", (), "TLSv1.3 1302"),
        ("10.1.0.1:2301", (), "TLSv1.3 1302"),
        ("10.1.0.1:2302", (), "TLSv1.3 1302"),
        ("10.1.0.1:2303", refuses, "in clear"),
    ):
        shown = terminal(stage, where, *options)
        assert "ATTLS EXAMPLE" in shown, shown
        assert expected in shown, shown
    for port in (2301, 2302):
        assert "ATTLS EXAMPLE" not in terminal(stage, f"10.1.0.1:{port}", *refuses)
