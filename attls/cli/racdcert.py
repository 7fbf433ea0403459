"""`attls racdcert`: the same operations in the spelling of z/OS."""

from __future__ import annotations

import getpass
import re
import sys
from pathlib import Path

import click

from attls.cli.store import (
    Refusal,
    RoomCommand,
    current_time,
    open_store,
    password_file_option,
    password_in,
    print_result,
    store_options,
)
from attls.errors import KeyringError
from attls.keyring import names, racdcert, tso

_PASSWORD = re.compile(r"\b(PASS[A-Z]*\s*)\(\s*(?:'(?:[^']|'')*'|[^)]*)\s*\)", re.IGNORECASE)


@click.command("racdcert", cls=RoomCommand)
@click.argument("words", metavar="[COMMAND]", nargs=-1)
@click.option(
    "--user", metavar="USER", default=getpass.getuser, show_default="you", help="Owner where COMMAND names none."
)
@password_file_option
@store_options
def racdcert_(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    words: tuple[str, ...],
    user: str,
    password_file: Path | None,
) -> None:
    """Carry out a RACDCERT command as it is written on z/OS; what is a data set there is a file here.

    Without COMMAND, a procedure is read from standard input, with JCL around it or not; it stops at the first failure.
    Example: attls racdcert "RACDCERT ID(DEMO) LISTRING(*)"
    """
    store = open_store(directory, passphrase_file)
    session = racdcert.Session(store, user, current_time, password_in(password_file))
    given = " ".join(words)
    lines = [given] if words else tso.commands(sys.stdin.read())
    done = []
    for number, line in enumerate(lines, 1):
        place = "" if words else f"command {number}: "
        try:
            printed = session.run(line, secrets_allowed=not words)
        except tso.CommandError as error:
            raise Refusal(f"{place}{error}", 2) from error
        except KeyringError as error:
            code = 2 if isinstance(error, names.InvalidNameError) else 3
            no = isinstance(error, names.MissingError) and session.asks
            raise Refusal(f"{place}{error}", 1 if no else code) from error
        done.append({"command": _PASSWORD.sub(r"\1(***)", line), "output": printed})
        if not as_json and printed:
            click.echo(printed)
    if as_json:
        print_result(done, "", as_json=True)


COMMANDS = (racdcert_,)
