"""The house rules that no linter knows: who may import whom, one door per room, nothing secret or local in the tree.

The table is the plan of the house as data. When it is in the way, change the table and say why in the same commit.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ROOT / "attls"

CELLAR = ("model", "errors")
GROUND_FLOOR = (*CELLAR, "policy", "keyring", "observe")
FIRST_FLOOR = (*GROUND_FLOOR, "tls")

# Room → the rooms below it that it may use. Rooms on one floor do not know each other.
MAY_USE_ROOMS: dict[str, tuple[str, ...]] = {
    "model": (),
    "errors": ("model",),
    "policy": CELLAR,
    "keyring": CELLAR,
    "observe": CELLAR,
    "tls": GROUND_FLOOR,
    "intercept": FIRST_FLOOR,
    "relay": FIRST_FLOOR,
    "control": FIRST_FLOOR,
    # Applications import this one: it must not pull the house in after it. `control.protocol` is stdlib only.
    "client": ("errors", "control"),
    "c": (),
    "examples": ("client",),
    "daemon": (*FIRST_FLOOR, "intercept", "relay", "control"),
    "cli": (*FIRST_FLOOR, "intercept", "relay", "control", "client", "daemon"),
    "__main__": ("cli",),
}

# Library → the rooms, or single modules, that may use it. What is not named here is not a dependency of ours.
MAY_USE_LIBRARY: dict[str, tuple[str, ...]] = {
    "OpenSSL": ("tls",),
    "cryptography": ("keyring", "tls"),
    "psutil": ("intercept",),
    "pyroute2": ("intercept",),
    "trio": ("intercept", "relay", "control.server", "daemon", "cli"),
    "h11": ("daemon.lookups",),
    "click": ("cli",),
    "rich": ("cli",),
}

SECRET = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/]")
# A path into somebody's own directories means nothing to the next reader.
LOCAL_PATH = re.compile(rb"(?<![\w.])/(?:work|home/\w+|root|Users)/[\w.-]")


class Import(NamedTuple):
    """One import statement: the module that makes it, what it asks for, and where."""

    importer: str
    imported: str
    place: str


def modules(house: Path) -> Iterator[tuple[str, Path]]:
    """Yield every module below `house` as its name without the leading package (`policy.match`) and its file."""
    for file in sorted(house.rglob("*.py")):
        parts = file.relative_to(house).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), file


def imports_of(module: str, file: Path, package: str = "attls") -> Iterator[Import]:
    """Yield every import of one file, those inside functions and TYPE_CHECKING blocks too, relative ones resolved."""
    is_package = file.name == "__init__.py"
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        place = f"{file.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, place)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = [package, *filter(None, module.split("."))]
                above = here[: len(here) - node.level + is_package]
                base = ".".join([*above, base]) if base else ".".join(above)
            if base == package:  # `from attls import policy` names the room in the list
                for alias in node.names:
                    yield Import(module, f"{package}.{alias.name}", place)
            else:
                yield Import(module, base, place)


def complaint(item: Import) -> str | None:
    """Say what is wrong with an import, or None when the plan allows it."""
    room = item.importer.partition(".")[0]
    top, _, rest = item.imported.partition(".")
    if top in sys.stdlib_module_names:
        return None
    if top == "attls":
        target = rest.partition(".")[0]
        if not room or target in {"", "__version__", room} or target in MAY_USE_ROOMS.get(room, ()):
            return None
        return f"{item.importer} ({item.place}) imports {item.imported}, and {room} may not know {target}"
    allowed = MAY_USE_LIBRARY.get(top)
    if allowed is None:
        return f"{item.importer} ({item.place}) imports {top}, which is no dependency of ours"
    if any(item.importer == place or item.importer.startswith(place + ".") for place in allowed):
        return None
    return f"{item.importer} ({item.place}) imports {top}, which belongs to {', '.join(allowed)}"


def tracked_files() -> list[Path]:
    """List the files that git keeps, or every file outside the usual caches where there is no git."""
    try:
        listing = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True).stdout
        names = listing.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        skip = {".git", ".venv", ".state", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"}
        names = [
            str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if not skip & set(path.relative_to(ROOT).parts)
        ]
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_imports_go_downwards() -> None:
    """No room imports a room above or beside it, and no library is used outside the rooms that own it."""
    found = [complaint(item) for module, file in modules(HOUSE) for item in imports_of(module, file)]
    assert not [text for text in found if text is not None]


def test_every_room_is_on_the_plan() -> None:
    """A new room is a decision: it gets a line in the table first."""
    rooms = {module.partition(".")[0] for module, _ in modules(HOUSE)} - {""}
    assert not rooms - set(MAY_USE_ROOMS)


def test_every_room_has_one_door_that_says_what_it_is_for() -> None:
    """Every folder of the house is a package whose `__init__` opens with a paragraph; every file opens with one."""
    folders = {file.parent for _, file in modules(HOUSE)}
    assert not [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").is_file()]
    silent = [name or "attls" for name, file in modules(HOUSE) if not ast.get_docstring(ast.parse(file.read_text()))]
    assert not silent


def test_rooms_are_two_levels_deep() -> None:
    """The house is flat: attls/room/module.py and no deeper."""
    assert not [module for module, _ in modules(HOUSE) if module.count(".") > 1]


def test_no_private_key_is_kept_in_the_tree() -> None:
    """Keys are made on first use; a private key in the tree is everybody's key."""
    assert not [str(file.relative_to(ROOT)) for file in tracked_files() if SECRET.search(file.read_bytes())]


def test_no_file_speaks_of_a_place_on_one_machine() -> None:
    """No text names a path in somebody's own directories; the next reader does not have them."""
    texts = {
        file: file.read_bytes()
        for file in tracked_files()
        if file != Path(__file__) and "valid" not in file.parts and "invalid" not in file.parts
    }
    found = {str(file.relative_to(ROOT)): LOCAL_PATH.findall(text) for file, text in texts.items()}
    assert not {name: places for name, places in found.items() if places}


def test_shell_scripts_stop_at_the_first_failure_and_may_run() -> None:
    """Every shell script sets -u and a strict mode, and is executable."""
    scripts = [file for file in tracked_files() if file.read_bytes()[:64].startswith(b"#!") and file.suffix != ".py"]
    assert scripts
    lax = [
        str(file.relative_to(ROOT))
        for file in scripts
        if b"bash" in file.read_bytes().partition(b"\n")[0]
        and not re.search(rb"^set -e?uo? ?", file.read_bytes(), re.M)
    ]
    assert not lax
    assert not [str(file.relative_to(ROOT)) for file in scripts if not file.stat().st_mode & 0o100]


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("policy.match", "import attls.daemon", "may not know daemon"),
        ("relay.reactor", "from ..control import server", "may not know control"),
        ("relay.reactor", "from attls import control", "may not know control"),
        ("tls.engine", "def f():\n    from .. import relay", "may not know relay"),
        ("policy.text", "import trio", "trio, which belongs to"),
        ("control.protocol", "import trio", "trio, which belongs to"),
        ("keyring.store", "from OpenSSL import SSL", "OpenSSL, which belongs to tls"),
        ("daemon.service", "import requests", "no dependency of ours"),
    ],
)
def test_the_walk_catches_what_it_should(tmp_path: Path, module: str, source: str, words: str) -> None:
    """Each way to break the plan is found, in its own words."""
    file = tmp_path / "example.py"
    file.write_text(source)
    (found,) = [text for item in imports_of(module, file) if (text := complaint(item)) is not None]
    assert words in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("policy.match", "from attls.model import Flow\nfrom .text import read\nimport re"),
        ("control.server", "import trio\nfrom attls.control.protocol import decode"),
        ("daemon.service", "from attls import policy, relay\nfrom attls.intercept import nft"),
        ("cli.demo", "import click\nfrom attls.daemon import service"),
        ("", "from attls.cli import main"),
    ],
)
def test_the_walk_lets_pass_what_it_should(tmp_path: Path, module: str, source: str) -> None:
    """What the plan allows is not complained about."""
    file = tmp_path / "example.py"
    file.write_text(source)
    assert not [text for item in imports_of(module, file) if (text := complaint(item)) is not None]


def test_links_in_our_pages_lead_somewhere() -> None:
    """Every relative link in a page of ours names a file or folder that is there."""
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in tracked_files()
        if page.suffix == ".md"
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken
