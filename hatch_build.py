"""Compiles the one C file of the package where that can be done: a compiler and Python's headers are at hand.

Where it cannot, the package is complete without it, and `attls status` says which way bytes go (attls/tls/crossing.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path(__file__).parent / "attls" / "tls" / "_crossing.c"
NAME = "_crossing.abi3.so"  # one for all Pythons from 3.11 on: the file keeps to the stable interface
FLAGS = ("-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2")


def compile_crossing(target: Path, *more: str) -> str | None:
    """Compile the C file into `target`, with `more` flags; returns None, or what the compiler had to say."""
    # The one that made this Python may be gone, or may never have been on this machine.
    names = (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc")
    compiler = next((name for text in names if text and shutil.which(name := text.split()[0])), "cc")
    command = [compiler, *FLAGS, *more, f"-I{sysconfig.get_path('include')}", str(SOURCE), "-o", str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    return done.stderr if done.returncode else None


class CustomBuildHook(BuildHookInterface[Any]):
    """Puts the compiled file into the wheel, or beside its source for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together."""
        self._directory = tempfile.TemporaryDirectory(prefix="attls-build-")
        made = Path(self._directory.name) / NAME
        problem = compile_crossing(made)
        if version == "editable":
            problem = _replace(SOURCE.parent / NAME, made) or problem
        elif problem is None:
            build_data["force_include"][str(made)] = f"attls/tls/{NAME}"
        if problem is not None:
            last = problem.strip().rpartition("\n")[2]
            self.app.display_warning(f"attls is built without its C part, and works more slowly: {last}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clear up when the wheel stands."""
        self._directory.cleanup()


def _replace(target: Path, made: Path) -> str | None:
    """Put `made`, if it is there, in the place of an older one; returns what went wrong, if anything did."""
    try:
        target.unlink(missing_ok=True)  # never written over: a running daemon has it mapped
        if made.exists():
            target.write_bytes(made.read_bytes())
    except OSError as error:
        return str(error)
    return None
