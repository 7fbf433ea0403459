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
    """Write a diagnostic with its source line and caret, the severity in colour."""
    from attls.policy import render  # here, because most commands never need it

    colour = "red" if diagnostic.severity == "error" else "yellow"
    severity = f": {diagnostic.severity}: "
    return render(diagnostic).replace(severity, click.style(severity, fg=colour, bold=True), 1)
