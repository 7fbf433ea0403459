"""Configuration files are templates in `config/`: `${name}` is replaced, everything else stands as it is."""

from __future__ import annotations

from pathlib import Path
from string import Template

CONFIG = Path(__file__).parent / "config"


def render(name: str, values: dict[str, object], into: Path) -> Path:
    """Fill the template `name` and write it to `into`; returns `into`. Raises KeyError for a value nobody gave."""
    into.write_text(Template((CONFIG / name).read_text()).substitute(values))
    return into
