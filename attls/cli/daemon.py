"""The commands around a running daemon: run, status, refresh, stop, netstat."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from attls.cli.output import dataset_option, diagnostic_text, json_option, print_json, run_dir_option
from attls.daemon import OnExit, Options, client, run
from attls.daemon.rundir import RunDirectory
from attls.errors import DaemonError, Diagnostic
from attls.model import Defaults
from attls.observe import display

MOST_WORKERS = 128
REFRESH_SECONDS = 300.0  # ten thousand rules take their time


def _ask(run_dir: Path, command: str, *, seconds: float = 60.0, **wishes: Any) -> dict[str, Any]:
    """Ask the daemon, or raise DaemonError with what it objects to."""
    reply = client.ask(RunDirectory(run_dir), {"command": command, **wishes}, seconds=seconds)
    if "error" in reply:
        raise DaemonError(reply["error"])
    return reply


def _mode(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Read a file mode; raises BadParameter."""
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise click.BadParameter(f"{value!r} is no file mode such as 0660", ctx, param)
    return mode


@click.command("run")
@click.option("--policy", required=True, type=click.Path(path_type=Path), help="Policy file or directory.")
@click.option("--keyrings", required=True, type=click.Path(path_type=Path), help="Directory of the keyring store.")
@run_dir_option
@click.option(
    "--workers",
    type=click.IntRange(1, MOST_WORKERS),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="one per processor",
    help="Worker processes.",
)
@click.option(
    "--defaults",
    type=click.Choice([each.value for each in Defaults]),
    default=Defaults.MODERN.value,
    show_default=True,
    help="What a silent policy means.",
)
@click.option(
    "--on-exit",
    type=click.Choice([each.value for each in OnExit]),
    show_default="what PURGE or NOPURGE of a Policy Agent file says, else release",
    help="After an orderly stop, let matching traffic go unprotected (release) or refuse it (block).",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0, 86400),
    default=30.0,
    show_default=True,
    help="How long an orderly stop waits for live connections.",
)
@click.option(
    "--control-mode",
    callback=_mode,
    default="0666",
    show_default=True,
    help="File mode of the control socket; what permits a request is the connection's own descriptor.",
)
@click.option("--control-group", metavar="GROUP", help="Group that owns the control socket.")
@click.option(
    "--watch/--no-watch", default=True, show_default=True, help="Put changed key rings in force by themselves."
)
@dataset_option
def run_command(
    *,
    policy: Path,
    keyrings: Path,
    run_dir: Path,
    workers: int,
    defaults: str,
    on_exit: str | None,
    drain_seconds: float,
    control_mode: int,
    control_group: str | None,
    watch: bool,
    datasets: tuple[tuple[str, Path], ...],
) -> None:
    """Put this host under the policy, in the foreground, until SIGTERM or `attls stop`.

    Needs root. Prints one line `ready ...` once connections are really protected. SIGHUP re-reads policy and rings.
    """
    run(
        Options(
            policy=policy,
            keyrings=keyrings,
            run_dir=run_dir,
            workers=workers,
            defaults=Defaults(defaults),
            on_exit=None if on_exit is None else OnExit(on_exit),
            drain_seconds=drain_seconds,
            control_mode=control_mode,
            control_group=control_group,
            watch=watch,
            datasets=dict(datasets),
        )
    )


@click.command("status")
@run_dir_option
@json_option
@click.option("--metrics", is_flag=True, help="Print counters in the Prometheus text format.")
def status_command(*, run_dir: Path, as_json: bool, metrics: bool) -> None:
    """Say what the daemon does: policy, workers, connections."""
    values = _ask(run_dir, "status")
    if metrics:
        click.echo(values["metrics"], nl=False)
        return
    del values["metrics"]
    if as_json:
        del values["ok"]
        print_json(values)
    else:
        click.echo(display.status(values))


@click.command("refresh")
@run_dir_option
@json_option
@click.pass_context
def refresh_command(ctx: click.Context, *, run_dir: Path, as_json: bool) -> None:
    """Read policy, rules and key rings again; on any error what was in force stays, and the exit code is 1."""
    reply = _ask(run_dir, "refresh", seconds=REFRESH_SECONDS)
    if as_json:
        print_json(reply)
    else:
        for finding in reply["diagnostics"]:
            click.echo(diagnostic_text(Diagnostic(**finding)), err=True)
        for problem in reply["problems"]:
            click.echo(f"attls: {problem}", err=True)
        if reply["ok"]:
            click.echo(f"generation {reply['generation']} is in force, {reply['rules']} rules")
        else:
            click.echo("attls: nothing was changed; what was in force stays in force", err=True)
    if not reply["ok"]:
        ctx.exit(1)


@click.command("stop")
@run_dir_option
def stop_command(*, run_dir: Path) -> None:
    """Stop the daemon in order and wait until it is gone."""
    reply = _ask(run_dir, "stop")
    if not client.wait_until_gone(RunDirectory(run_dir), reply["drain_seconds"] + 10):
        raise DaemonError(f"the daemon in {run_dir} did not end in time; send it SIGTERM once more to stop it at once")


@click.command("netstat")
@click.argument("connid", required=False)
@click.option("--detail", is_flag=True, help="Show owner, bytes and effective values as well.")
@click.option("--group", is_flag=True, help="Show group actions instead of connections.")
@json_option
@run_dir_option
@click.pass_context
def netstat_command(
    ctx: click.Context, *, connid: str | None, detail: bool, group: bool, as_json: bool, run_dir: Path
) -> None:
    """Show the connections under AT-TLS, or one of them by its CONNID (8 hexadecimal digits)."""
    number = None
    if connid is not None:
        try:
            number = int(connid, 16)
        except ValueError:
            raise click.BadParameter(f"{connid!r} is no hexadecimal number", param_hint="CONNID") from None
        if group:
            raise click.UsageError("--group shows all groups; leave CONNID or --group out")
    reply = _ask(run_dir, "netstat", connid=number, detail=detail, group=group)
    if reply["missing"]:
        click.echo(f"attls: {reply['missing']} workers did not answer; their connections are missing here", err=True)
    entries = reply["groups"] if group else reply["connections"]
    if as_json:
        print_json(entries)
    elif group:
        click.echo(display.groups(entries, detail=detail))
    elif number is not None or detail:
        click.echo("\n\n".join(display.connection(entry, detail=detail) for entry in entries), nl=bool(entries))
    else:
        click.echo(display.connections(entries))
    if number is not None and not entries:
        click.echo(f"attls: there is no connection {number:08X}", err=True)
        ctx.exit(1)


COMMANDS = (run_command, status_command, refresh_command, stop_command, netstat_command)
