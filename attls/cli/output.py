"""How commands print: JSON documents, diagnostics with their source line, and options that many commands share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import click

from attls.daemon.rundir import default_run_dir
from attls.errors import Diagnostic


class _DataSet(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on
    # NAME=FILE
    name = "NAME=FILE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        name, equals, target = str(value).partition("=")
        if not equals or not name or not target:
            self.fail("write it as HLQ.NAME(MEMBER)=FILE", param, ctx)
        return name.strip("/'"), Path(target)


run_dir_option = click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_run_dir,
    show_default="ATTLS_RUN_DIR, else /run/attls",
    help="Directory of the daemon's sockets.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
dataset_option = click.option(
    "--dataset",
    "datasets",
    type=_DataSet(),
    multiple=True,
    help="The file that stands for an MVS data set named in a Policy Agent file.",
)


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
