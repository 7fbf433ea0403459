"""The command `exec`: one program under AT-TLS, as whoever starts it."""

from __future__ import annotations

from pathlib import Path

import click

from attls.daemon.exec import ExecOptions, run
from attls.model import Defaults


@click.command("exec", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("--policy", required=True, type=click.Path(path_type=Path), help="Policy file or directory.")
@click.option("--keyrings", required=True, type=click.Path(path_type=Path), help="Directory of the keyring store.")
@click.option("--log", type=click.Path(path_type=Path, dir_okay=False), help="Append what we log to this file.")
@click.option("--verbose", is_flag=True, help="Print a line for each connection on standard error.")
@click.option(
    "--defaults",
    type=click.Choice([each.value for each in Defaults]),
    default=Defaults.MODERN.value,
    show_default=True,
    help="What a silent policy means.",
)
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def exec_(
    *,
    policy: Path,
    keyrings: Path,
    log: Path | None,
    verbose: bool,
    defaults: str,
    program: str,
    arguments: tuple[str, ...],
) -> None:
    """Run one program, and all that it starts, under the policy.

    Needs no privileges and touches nothing but this program. Its output, exit status and signals are its own.
    """
    run(
        ExecOptions(
            policy=policy,
            keyrings=keyrings,
            command=(program, *arguments),
            defaults=Defaults(defaults),
            log=log,
            verbose=verbose,
        )
    )


COMMANDS = (exec_,)
