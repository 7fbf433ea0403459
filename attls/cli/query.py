"""`attls query`: what AT-TLS says of a connection, as its program would learn it, for scripts."""

from __future__ import annotations

from pathlib import Path

import click

from attls.cli.output import json_option, print_json, run_dir_option
from attls.daemon import client
from attls.daemon.rundir import RunDirectory
from attls.errors import DaemonError
from attls.model import Endpoint, canonical_address


def _endpoint(ctx: click.Context, param: click.Parameter, value: str) -> Endpoint:
    """Read one end of a connection; raises BadParameter."""
    address, _, port = value.rpartition(":")
    try:
        found = Endpoint(canonical_address(address.removeprefix("[").removesuffix("]")), int(port))
    except ValueError:
        found = None  # said below
    if found is None or not 0 < found.port < 65536:
        raise click.BadParameter(f"{value!r} is no ADDRESS:PORT such as 192.0.2.1:21 or [2001:db8::1]:21", ctx, param)
    return found


@click.command("query")
@click.option(
    "--local",
    required=True,
    metavar="ADDRESS:PORT",
    callback=_endpoint,
    help="The program's own end of the connection.",
)
@click.option(
    "--remote",
    required=True,
    metavar="ADDRESS:PORT",
    callback=_endpoint,
    help="The peer's end, as the program or the network sees it.",
)
@json_option
@run_dir_option
@click.pass_context
def query_command(ctx: click.Context, *, local: Endpoint, remote: Endpoint, as_json: bool, run_dir: Path) -> None:
    """Say what AT-TLS knows of one connection: policy, status, protocol, cipher, partner, user.

    Asks the operators' socket, because a script does not hold the connection's descriptor; so it needs root.
    """
    reply = client.ask(RunDirectory(run_dir), {"command": "query", "local": str(local), "remote": str(remote)})
    if "error" in reply:
        raise DaemonError(reply["error"])
    found = reply["connection"]
    if as_json:
        print_json(found)
    elif found is not None:
        for key, value in found.items():
            if value is not None:
                click.echo(f"{key.replace('_', ' ') + ':':18} {value}")
    if found is None:
        click.echo(f"attls: no connection between {local} and {remote} is under AT-TLS", err=True)
        ctx.exit(1)


COMMANDS = (query_command,)
