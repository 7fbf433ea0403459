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
from attls.keyring import (
    names,
    racdcert,
)

# The z/OS spelling --------------------------------------------------------------------------------------------------


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

    Without COMMAND, commands are read from standard input, one per line (- or + continues a line); they stop at the
    first failure. Example: attls racdcert "RACDCERT ID(DEMO) LISTRING(*)"
    """
    store = open_store(directory, passphrase_file)
    session = racdcert.Session(store, user, current_time, password_in(password_file))
    given = " ".join(words)
    lines = [given] if given else _commands(sys.stdin.read())
    done = []
    for number, line in enumerate(lines, 1):
        place = "" if given else f"command {number}: "
        try:
            printed = session.run(line, secrets_allowed=not given)
        except racdcert.CommandError as error:
            raise Refusal(f"{place}{error}", 2) from error
        except KeyringError as error:
            code = 2 if isinstance(error, names.InvalidNameError) else 3
            asking = any(word.startswith(tuple(racdcert.ASKING)) for word in line.upper().split())
            raise Refusal(f"{place}{error}", 1 if isinstance(error, names.MissingError) and asking else code) from error
        done.append({"command": re.sub(r"(?i)(PASSWORD\s*)\([^)]*\)", r"\1(***)", line), "output": printed})
        if not as_json and printed:
            click.echo(printed)
    if as_json:
        print_result(done, "", as_json=True)


def _commands(text: str) -> list[str]:
    """Split input into commands; comments, empty lines and SETROPTS (nothing needs a refresh here) are left out."""
    joined = re.sub(r"[ \t]*[-+][ \t]*\n\s*", " ", re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL))
    lines = (line.strip() for line in joined.splitlines())
    return [line for line in lines if line and not line.upper().startswith(("SETROPTS ", "SETR "))]


COMMANDS = (racdcert_,)
