"""The C part compiles without a warning, holds under the sanitizers, and goes into the wheel where it can be made."""

from __future__ import annotations

import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from hatch_build import NAME, compile_crossing

ROOT = Path(__file__).parent.parent.parent
# Runs the tests that are named on a compiled part that lies elsewhere.
RUN = """
import importlib.machinery, importlib.util, sys
import attls.tls
loader = importlib.machinery.ExtensionFileLoader("attls.tls._crossing", sys.argv[1])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("attls.tls._crossing", loader))
loader.exec_module(module)
sys.modules["attls.tls._crossing"] = attls.tls._crossing = module
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    """The compiler finds nothing to say with all of its usual warnings as errors."""
    assert None is compile_crossing(tmp_path / NAME, "-Werror")


def test_it_holds_under_the_sanitizers(tmp_path: Path) -> None:
    """The tests of the crossing and the interleavings find no access out of bounds and nothing undefined."""
    target = tmp_path / NAME
    assert None is compile_crossing(
        target, "-Werror", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-U_FORTIFY_SOURCE"
    )
    library = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    done = subprocess.run(
        [sys.executable, "-c", RUN, target, "tests/tls/test_crossing.py", "tests/relay/test_interleaving.py", "-k",
         "compiled or Compiled"],
        cwd=ROOT,
        env={"LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert (0, "") == (done.returncode, done.stderr), done.stdout


@pytest.mark.parametrize(
    ("path", "ending", "inside"),
    [("/usr/bin:/bin", f"-cp311-abi3-linux_{platform.machine()}.whl", True), ("", "-py3-none-any.whl", False)],
)
def test_a_wheel_has_it_where_a_compiler_is(
    path: str, ending: str, inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler the wheel is for this platform, without one it is for all, and complete but for the C part."""
    monkeypatch.setenv("PATH", path)
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.endswith(ending)
    assert inside == (f"attls/tls/{NAME}" in names)
    assert {"attls/tls/crossing.py", "attls/tls/_crossing.c"} <= set(names)
