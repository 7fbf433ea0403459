"""The front door: which command lives where, and what a failure looks like to whoever typed it.

Each module beside this one exports its commands as a tuple `COMMANDS`; it is imported only when one of them is used,
so that `attls netstat` does not wait for a TLS library. Exit codes: 0 fine, 1 the answer is "no", 2 wrong usage, 3 it
could not be done.
"""

from __future__ import annotations

import importlib
from typing import Any, NoReturn

import click

from attls import __version__
from attls.errors import AttlsError, PolicyError

# In the order in which `attls --help` lists them.
_HOMES = {
    "demo": "demo",
    "exec": "exec",
    "run": "daemon",
    "status": "daemon",
    "refresh": "daemon",
    "stop": "daemon",
    "netstat": "daemon",
    "query": "query",
    "policy": "policy",
    "keyring": "keyring",
    "cert": "cert",
    "map": "map",
    "racdcert": "racdcert",
}
NOT_DONE = 3
INTERRUPTED = 130


class Commands(click.Group):
    """A group whose commands are imported when they are asked for, and whose failures are one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, in the order of the help text."""
        return list(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and return the command."""
        home = _HOMES.get(cmd_name)
        if home is None:
            return None
        module = importlib.import_module(f"attls.cli.{home}")
        return {command.name: command for command in module.COMMANDS}.get(cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options in front of the command."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            _explain_usage(error, ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what we expect to go wrong ends in a sentence on standard error and an exit code."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _explain_usage(error, ctx)
        except PolicyError as error:
            from attls.cli.output import print_diagnostics

            print_diagnostics(error.diagnostics)
            ctx.exit(1)
        except AttlsError as error:
            click.echo(f"attls: {error}", err=True)
            ctx.exit(NOT_DONE)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _explain_usage(error: click.UsageError, ctx: click.Context) -> NoReturn:
    # One sentence, where click would print three lines around it; a group without a command shows its help.
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        raise error
    where = (error.ctx or ctx).command_path
    sentence = error.format_message().strip().rstrip(".")
    click.echo(f"attls: {sentence}; see `{where} --help`", err=True)
    ctx.exit(error.exit_code)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog="The manual is in docs/.")
@click.version_option(__version__, prog_name="attls")
def main() -> None:
    """AT-TLS for Linux: policy-driven TLS for programs that know nothing about TLS."""
