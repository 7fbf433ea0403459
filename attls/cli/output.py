"""How commands print: JSON documents, diagnostics with their source line, and options that many commands share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import click

from attls.daemon.rundir import default_run_dir
from attls.errors import Diagnostic

run_dir_option = click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_run_dir,
    show_default="ATTLS_RUN_DIR, else /run/attls",
    help="Directory of the daemon's sockets.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


def print_json(document: object) -> None:
    """Print one JSON document on standard output."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_diagnostics(diagnostics: Iterable[Diagnostic]) -> None:
    """Print diagnostics on standard error; colours only on a terminal."""
    for diagnostic in diagnostics:
        click.echo(diagnostic_text(diagnostic), err=True)


def diagnostic_text(diagnostic: Diagnostic) -> str:
    """Write `PATH:LINE:COL: error: sentence`, then the source line with a caret below what is meant."""
    colour = "red" if diagnostic.severity == "error" else "yellow"
    place = f"{diagnostic.file}:{diagnostic.line}:{diagnostic.column}"
    severity = click.style(diagnostic.severity, fg=colour, bold=True)
    lines = [f"{place}: {severity}: {diagnostic.message}"]
    if diagnostic.source is not None:
        number = str(diagnostic.line)
        # Tabs before the caret are kept, so that it stands where the editor shows the word.
        before = "".join("\t" if letter == "\t" else " " for letter in diagnostic.source[: diagnostic.column - 1])
        caret = click.style("^" * max(diagnostic.length, 1), fg=colour, bold=True)
        hint = f" {diagnostic.hint}" if diagnostic.hint else ""
        lines += [f"{number:>6} | {diagnostic.source}", f"       | {before}{caret}{hint}"]
    elif diagnostic.hint:
        lines.append(f"       {diagnostic.hint}")
    return "\n".join(lines)
