"""The images and the compose file name only what is there; they are built and run by hand, see docker/README.md."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"


def test_the_image_copies_what_exists() -> None:
    """Every source of a COPY is in the tree, and no directory that holds keys is copied whole."""
    copies = [
        line.split()[1:-1] for line in (DOCKER / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")
    ]
    sources = [source for copy in copies for source in copy]
    assert sources
    assert [] == [source for source in sources if not (ROOT / source).exists()]
    assert not {".", "keyrings", "keyrings/"} & set(sources)


def test_the_compose_file_names_what_the_image_holds() -> None:
    """Every path below the image's source tree that a container uses is a file that we ship."""
    text = (DOCKER / "compose.yaml").read_text()
    paths = re.findall(r"/opt/attls/([\w./-]+)", text)
    assert {"policy/demo-server.policy", "policy/demo-client.policy", "keyrings/make-demo-rings"} <= set(paths)
    assert [] == [path for path in paths if not (ROOT / path).is_file()]
    targets = set(re.findall(r"target: (\w+)", text))
    assert targets == set(re.findall(r"^FROM \S+ AS (\w+)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE))


def test_the_build_steps_are_those_of_make() -> None:
    """What the image runs are the scripts that `make` runs, with words they know."""
    runs = "".join(line for line in (DOCKER / "Dockerfile").read_text().splitlines(True) if line.startswith("RUN "))
    steps = re.findall(r"\.ci/(packages|environment) (\w+)", runs)
    assert {("packages", "run"), ("packages", "compile"), ("packages", "legacy"), ("environment", "run")} == set(steps)
    for script, word in steps:
        usage = subprocess.run([ROOT / ".ci" / script, "--help"], capture_output=True, text=True, check=False)
        assert 2 == usage.returncode
        assert word in re.split(r"[\s|]+", usage.stderr)
