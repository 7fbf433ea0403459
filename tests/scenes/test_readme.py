"""The README's five minutes, typed in as they stand: what it promises is what happens."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from attls.cli.demo_stage import Machine

pytestmark = pytest.mark.scene

ROOT = Path(__file__).resolve().parents[2]


def test_the_first_five_minutes_work_as_written(tmp_path: Path) -> None:
    """Every command succeeds on a machine of its own, and clear text is refused where TLS is asked for."""
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("## Secure your first program")[2].partition("\n## ")[0]
    commands = "\n".join(re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
    assert "attls run" in commands
    attls = tmp_path / "bin" / "attls"  # this very source tree, whether or not it is installed
    attls.parent.mkdir()
    attls.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m attls "$@"\n')
    attls.chmod(0o755)
    script = tmp_path / "first.sh"
    script.write_text(commands.replace("$PWD/.venv/bin", str(attls.parent)).replace("/tmp/first", str(tmp_path)))
    with Machine("beginner") as machine:
        said = machine.run("bash", "-euc", f"cd {ROOT}; . {script} 2>&1", timeout=60)
    assert "1 rule, 0 errors" in said
    assert "rule web → protect / server" in said
    assert "the payroll of May\n" in said
    assert "Connection reset by peer" in said
    assert "RC: 5003 Initial Handshake - the peer sent cleartext" in said
    assert "Steering:     on" in said
    assert "BytePath:     compiled" in said
