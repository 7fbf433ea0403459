"""What all commands on the keyring store share: options, completion, refusals, reading files, printing.

Every such command takes `--keyrings DIR` and `--json`, makes one call into the keyring room, prints, and exits: 0 done,
1 the answer is no, 2 wrong usage, 3 could not. Secrets come from files or a prompt, never from arguments, which every
user of the machine can see.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from attls.errors import KeyringError
from attls.keyring import Store, certificates, files, names
from attls.keyring.store import StoredCertificate

# Shell completion --------------------------------------------------------------------------------------------------
# `eval "$(_ATTLS_COMPLETE=bash_source attls)"` in .bashrc (zsh_source, fish_source likewise) turns it on.


def _completing(look: Callable[[Store, click.Context], Iterable[str]]) -> Callable[..., list[str]]:
    """Turn a look into the store into a completer; while a line is half typed no problem is worth a message."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        directory = ctx.params.get("directory") or os.environ.get("ATTLS_KEYRINGS") or "keyrings"
        with contextlib.suppress(KeyringError, OSError):
            return [word for word in look(Store(directory), ctx) if word.startswith(incomplete)]
        return []

    return complete


def _labels(store: Store, ctx: click.Context) -> Iterable[str]:
    owner = ctx.params.get("owner")
    return [label for name in ([owner] if owner else store.owners()) for label in store.labels(name)]


complete_owner = _completing(lambda store, _: [*store.owners(), names.CERTAUTH, names.SITE])
complete_label = _completing(_labels)
complete_authority = _completing(lambda store, _: store.labels(names.CERTAUTH))
complete_ring = _completing(lambda store, _: [ring.reference for ring in store.rings()])
complete_filter = _completing(lambda store, ctx: [entry.label for entry in store.filters(ctx.params.get("user"))])
complete_filter_user = _completing(lambda store, _: sorted({entry.owner for entry in store.filters()}))
complete_criteria = _completing(lambda store, _: [one.pattern for one in store.criteria()])


class Refusal(click.ClickException):
    """A failure told in one sentence on standard error, with the exit code it deserves."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it on the class and reads it from the instance

    def show(self, file: Any = None) -> None:
        """Print the sentence."""
        click.echo(f"attls: {plain(self.message)}", err=True, file=file)


class RoomCommand(click.Command):
    """A command whose keyring errors become exit codes; `asks` says that "not there" is an answer, not a failure."""

    asks = False

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except names.InvalidNameError as error:
            raise Refusal(str(error), 2) from error
        except names.MissingError as error:
            raise Refusal(str(error), 1 if self.asks else 3) from error
        except KeyringError as error:
            raise Refusal(str(error), 3) from error
        except BrokenPipeError:
            raise  # click ends quietly when the reader of a pipe has gone
        except OSError as error:
            raise Refusal(f"{error.filename or 'the keyring store'}: {error.strerror}", 3) from error


class AskingCommand(RoomCommand):
    """A command that answers a question about the store."""

    asks = True


def store_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every command on the store has: `--keyrings`, `--passphrase-file` and `--json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text."),
        click.option(
            "--passphrase-file",
            type=click.Path(path_type=Path, dir_okay=False),
            envvar="ATTLS_PASSPHRASE_FILE",
            help="File with the passphrase of keys that are encrypted in the store.",
        ),
        click.option(
            "--keyrings",
            "directory",
            type=click.Path(path_type=Path, file_okay=False),
            envvar="ATTLS_KEYRINGS",
            default=Path("keyrings"),
            show_default="$ATTLS_KEYRINGS, else ./keyrings",
            help="Directory of the keyring store.",
        ),
    ):
        function = option(function)
    return function


owner_option = click.option(
    "--owner",
    required=True,
    metavar="USER",
    shell_complete=complete_owner,
    help="User, CERTAUTH or SITE that the certificate is of.",
)
label_option = click.option("--label", required=True, shell_complete=complete_label, help="Label of the certificate.")
any_owner_option = click.option(
    "--owner", metavar="USER", shell_complete=complete_owner, help="Owner; not needed where the label is unique."
)
password_file_option = click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File whose first line is the password of the file that is read or written.",
)


def open_store(directory: Path, passphrase_file: Path | None) -> Store:
    """Open the store; encrypted keys are opened with the passphrase of the file, of the environment, or of a prompt."""
    if passphrase_file is not None:
        return Store(directory, passphrase=lambda: files.read_password(passphrase_file))
    return Store(directory, passphrase=functools.cache(_prompt_for_passphrase))  # whoever is asked is asked once


def _prompt_for_passphrase() -> bytes | None:
    from attls.keyring.opening import ambient_passphrase

    found = ambient_passphrase()
    if found is None and sys.stdin.isatty():
        found = str(click.prompt("Passphrase of the keyring store", hide_input=True, err=True)).encode()
    return found


def current_time() -> datetime.datetime:
    """Return the time, with its zone."""
    return datetime.datetime.now(datetime.UTC)


def password_in(path: Path | None) -> bytes | None:
    """Return the password in the file `path`, None where there is none to read."""
    return files.read_password(path, secret=False) if path else None


# Printing ----------------------------------------------------------------------------------------------------------


def print_result(document: object, text: str, *, as_json: bool) -> None:
    """Print what a command did: the JSON document or the text, never both."""
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif text:
        click.echo(plain(text))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table for people; off a terminal it has neither colours nor cut lines."""
    # Off a terminal nothing is cut: scripts and logs get whole lines.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 400, no_color=not sys.stdout.isatty())
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_escaped(cell) for cell in row))
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()), color=sys.stdout.isatty())


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(one_line(text))


def certificate_document(store: Store, stored: StoredCertificate) -> dict[str, object]:
    """Return the `--json` form of a certificate of the store."""
    rings = [ring.reference for ring in store.rings_with(stored.owner, stored.label)]
    return {
        "owner": stored.shown_owner,
        "label": stored.label,
        "trust": stored.trust.value,
        "private_key": store.has_key(stored),
        "rings": rings,
        **certificates.summary(stored.certificate),
    }


def key_word(present: bool | None) -> str:
    """Say whether there is a private key; None means that this account may not look."""
    return {True: "yes", False: "no", None: "unreadable"}[present]


def days_left(certificate: certificates.Certificate) -> str:
    """Say how long a certificate is still valid."""
    return time_left(certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def time_left(begins: datetime.datetime, ends: datetime.datetime) -> str:
    """Say how long that is still valid which begins and ends then."""
    now = current_time()
    if now > ends:
        return "expired"
    return "not yet valid" if now < begins else f"{(ends - now).days} days"


def find_certificate(store: Store, owner: str | None, label: str) -> StoredCertificate:
    """Find a certificate by label alone where only one owner has it."""
    if owner is not None:
        return store.certificate(owner, label)
    owners = [name for name in store.owners() if store.has_certificate(name, label)]
    if len(owners) > 1:
        raise click.UsageError(f"'{label}' exists for {', '.join(owners)}; say which with --owner")
    if not owners:
        raise names.MissingError(f"no owner has a certificate labelled '{label}'", 407)
    return store.certificate(owners[0], label)


def read_contents(path: Path, password_file: Path | None) -> certificates.Contents:
    """Read the certificates and keys in a file (`-` is standard input), asking for the password on a terminal."""
    if str(path) == "-":
        data, name = sys.stdin.buffer.read(files.LARGEST_FILE + 1), "standard input"
        if len(data) > files.LARGEST_FILE:
            raise KeyringError(f"{name} is larger than {files.LARGEST_FILE >> 20} MiB; this is no file of certificates")
    else:
        data, name = _read_named(path), str(path)
    password = password_in(password_file)
    try:
        return certificates.read(data, password=password, name=name)
    except KeyringError as error:
        if error.code != 408 or password is not None:
            raise
        if not sys.stdin.isatty():
            raise KeyringError(f"{name} is protected by a password; give it with --password-file", 408) from error
    prompted = str(click.prompt(f"Password of {name}", hide_input=True, err=True))
    return certificates.read(data, password=prompted.encode(), name=name)


def _read_named(path: Path) -> bytes:
    try:
        return files.read_any(path)
    except OSError as error:
        raise KeyringError(f"cannot read {path}: {error.strerror}") from error


def write_out(path: Path, content: bytes, *, secret: bool) -> None:
    """Write what is exported to a file (`-` is standard output); with `secret` it gets mode 0600."""
    if str(path) == "-":
        sys.stdout.buffer.write(content)
    elif path.exists() and not path.is_file():
        path.write_bytes(content)  # a pipe or a device cannot be replaced by renaming
    else:
        files.replace(path, content, mode=0o600 if secret else 0o644)


def texts(value: object) -> list[str]:
    """Return the items of a list as texts, [] for anything else."""
    return [str(item) for item in value] if isinstance(value, list) else []


def counted(number: int, noun: str) -> str:
    """Count in words, e.g. `no keys`, `1 key`, `2 keys`."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def plain(text: str) -> str:
    """Take what could steer a terminal out of text that a foreign certificate has a part in."""
    return "\n".join(one_line(line) for line in text.split("\n"))


def one_line(text: str) -> str:
    """Take line ends out as well, where a foreign name must not begin a line of its own."""
    return "".join(character if character.isprintable() else "?" for character in text)
