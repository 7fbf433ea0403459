"""`attls cert`, `attls keyring` and `attls map`: the keyring room at the command line.

Every command takes `--keyrings DIR` and `--json`, makes one call into the room, prints, and exits: 0 done, 1 the
answer is no, 2 wrong usage, 3 could not. Secrets come from files or a prompt, never from arguments, which every user
of the machine can see.
"""

from __future__ import annotations

import contextlib
import datetime
import getpass
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
from rich.console import Console
from rich.table import Table

from attls.errors import KeyringError
from attls.keyring import (
    Store,
    Trust,
    Usage,
    certificates,
    files,
    inspection,
    mapping,
    names,
    operations,
    racdcert,
    revocation,
)
from attls.keyring.grants import Access
from attls.keyring.store import Connection, Ring, StoredCertificate, default_usage

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Decorator = Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]


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


_complete_owner = _completing(lambda store, _: [*store.owners(), names.CERTAUTH, names.SITE])
_complete_label = _completing(_labels)
_complete_authority = _completing(lambda store, _: store.labels(names.CERTAUTH))
_complete_ring = _completing(lambda store, _: [ring.reference for ring in store.rings()])


class Refusal(click.ClickException):
    """A failure told in one sentence on standard error, with the exit code it deserves."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it on the class and reads it from the instance

    def show(self, file: Any = None) -> None:
        """Print the sentence."""
        click.echo(f"attls: {self.message}", err=True, file=file)


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


def _store_options(function: Callable[..., Any]) -> Callable[..., Any]:
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


def _trust_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for flag, value in (("--hightrust", "HIGHTRUST"), ("--notrust", "NOTRUST"), ("--trust", "TRUST")):
        function = click.option(flag, "trust", flag_value=value, help=f"Mark the certificate {value}.")(function)
    return function


_owner = click.option(
    "--owner", required=True, metavar="USER", help="User, CERTAUTH or SITE that the certificate is of."
)
_label = click.option("--label", required=True, shell_complete=_complete_label, help="Label of the certificate.")
_any_owner = click.option(
    "--owner", metavar="USER", shell_complete=_complete_owner, help="Owner; not needed where the label is unique."
)
_san = click.option(
    "--san", multiple=True, metavar="NAMES", help="Alternative names: DNS:host,IP:addr,EMAIL:a@b,URI:u (repeatable)."
)
_key_type = click.option(
    "--key-type",
    type=click.Choice(certificates.KEY_TYPES, case_sensitive=False),
    default="ecdsa-p256",
    show_default=True,
    help="Kind of key.",
)
_subject = click.option(
    "--subject", metavar="DN", help="Further parts of the subject, e.g. OU=Payments,O=Example,C=DE."
)
_purpose = click.option(
    "--purpose",
    type=click.Choice(["both", "server", "client"]),
    default="both",
    show_default=True,
    help="What TLS may use the certificate for (extended key usage).",
)
_urls = (
    click.option("--crl-url", multiple=True, help="Where the authority's CRL is found (repeatable)."),
    click.option("--ocsp-url", multiple=True, help="Where the authority's OCSP responder is found (repeatable)."),
)


def _with_urls(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in _urls:
        function = option(function)
    return function


_sign_with = click.option(
    "--sign-with",
    metavar="CALABEL",
    required=True,
    shell_complete=_complete_authority,
    help="Label of the authority that signs.",
)
_signer_owner = click.option(
    "--sign-with-owner", default=names.CERTAUTH, show_default=True, help="Owner of that authority."
)
_password_file = click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File whose first line is the password of the file that is read or written.",
)


def _open(directory: Path, passphrase_file: Path | None) -> Store:
    if passphrase_file is not None:
        return Store(directory, passphrase=lambda: files.read_password(passphrase_file))
    return Store(directory, passphrase=_prompt_for_passphrase)


def _prompt_for_passphrase() -> bytes | None:
    from attls.keyring.opening import ambient_passphrase

    found = ambient_passphrase()
    if found is None and sys.stdin.isatty():
        found = str(click.prompt("Passphrase of the keyring store", hide_input=True, err=True)).encode()
    return found


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _alternative(san: Iterable[str]) -> tuple[certificates.GeneralName, ...]:
    try:
        return tuple(name for text in san for name in certificates.alternative_names(text))
    except KeyringError as error:
        raise click.BadParameter(str(error), param_hint="--san") from error


def _subject_of(common_name: str | None, others: str | None) -> certificates.Name:
    try:
        return certificates.subject_name(common_name, others)
    except KeyringError as error:
        raise click.UsageError(str(error)) from error


def _purposes(word: str) -> tuple[str, ...]:
    return ("server", "client") if word == "both" else (word,)


def _password(path: Path | None) -> bytes | None:
    return files.read_password(path, secret=False) if path else None


# Printing ----------------------------------------------------------------------------------------------------------


def _print(document: object, text: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif text:
        click.echo(text)


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
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

    return escape("".join(character if character.isprintable() else "?" for character in text))


def _document(store: Store, stored: StoredCertificate) -> dict[str, object]:
    rings = [ring.reference for ring in store.rings_with(stored.owner, stored.label)]
    return {
        "owner": stored.shown_owner,
        "label": stored.label,
        "trust": stored.trust.value,
        "private_key": store.has_key(stored),
        "rings": rings,
        **certificates.summary(stored.certificate),
    }


def _key_word(present: bool | None) -> str:
    return {True: "yes", False: "no", None: "unreadable"}[present]


def _days_left(certificate: certificates.Certificate) -> str:
    now = _now()
    if now > certificate.not_valid_after_utc:
        return "expired"
    if now < certificate.not_valid_before_utc:
        return "not yet valid"
    return f"{(certificate.not_valid_after_utc - now).days} days"


def _find(store: Store, owner: str | None, label: str) -> StoredCertificate:
    """Find a certificate by label alone where only one owner has it."""
    if owner is not None:
        return store.certificate(owner, label)
    owners = [name for name in store.owners() if store.has_certificate(name, label)]
    if len(owners) > 1:
        raise click.UsageError(f"'{label}' exists for {', '.join(owners)}; say which with --owner")
    if not owners:
        raise names.MissingError(f"no owner has a certificate labelled '{label}'", 407)
    return store.certificate(owners[0], label)


# Certificates ------------------------------------------------------------------------------------------------------


@click.group()
def cert() -> None:
    """Make, sign, import, export and keep certificates."""


@cert.command("create-ca", cls=RoomCommand)
@_label
@click.option("--cn", required=True, help="Common name of the authority.")
@click.option("--owner", default=names.CERTAUTH, show_default=True, metavar="USER", help="Owner of the certificate.")
@_key_type
@click.option(
    "--days", type=click.IntRange(1), default=certificates.AUTHORITY_DAYS, show_default=True, help="Validity."
)
@_subject
@click.option("--sign-with", metavar="CALABEL", help="Make an intermediate authority signed by this one.")
@_signer_owner
@click.option("--path-length", type=click.IntRange(0), help="How many further authorities may follow below this one.")
@_with_urls
@_store_options
def create_ca(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    label: str,
    cn: str,
    owner: str,
    key_type: str,
    days: int,
    subject: str | None,
    sign_with: str | None,
    sign_with_owner: str,
    path_length: int | None,
    crl_url: tuple[str, ...],
    ocsp_url: tuple[str, ...],
) -> None:
    """Create a certificate authority."""
    store = _open(directory, passphrase_file)
    profile = certificates.Profile(
        subject=_subject_of(cn, subject),
        days=days,
        is_authority=True,
        path_length=path_length,
        crl_urls=crl_url,
        ocsp_urls=ocsp_url,
    )
    stored = operations.create(
        store,
        owner=owner,
        label=label,
        profile=profile,
        key_type=key_type,
        signed_by=operations.signer(store, sign_with, sign_with_owner) if sign_with else None,
        now=_now(),
    )
    _made(store, stored, days, as_json=as_json)


def _made(store: Store, stored: StoredCertificate, days: int, *, as_json: bool) -> None:
    ends = stored.certificate.not_valid_after_utc
    text = f"created {stored.name}, valid until {ends:%Y-%m-%d}"
    if ends < _now() + datetime.timedelta(days=days - 1):
        text += f" (not {days} days, because the authority that signed it ends then)"
    _print(_document(store, stored), text, as_json=as_json)


@cert.command("issue", cls=RoomCommand)
@_owner
@_label
@click.option("--cn", required=True, help="Common name.")
@_sign_with
@_signer_owner
@_san
@_key_type
@click.option("--days", type=click.IntRange(1), default=certificates.LEAF_DAYS, show_default=True, help="Validity.")
@_subject
@_purpose
@_with_urls
@_store_options
def issue(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    owner: str,
    label: str,
    cn: str,
    sign_with: str,
    sign_with_owner: str,
    san: tuple[str, ...],
    key_type: str,
    days: int,
    subject: str | None,
    purpose: str,
    crl_url: tuple[str, ...],
    ocsp_url: tuple[str, ...],
) -> None:
    """Make a key and a certificate for it, signed by an authority of the store.

    Without --san a common name that is a host name or an address becomes the alternative name.
    """
    store = _open(directory, passphrase_file)
    profile = certificates.Profile(
        subject=_subject_of(cn, subject),
        days=days,
        names=_alternative(san) or certificates.implied_names(cn),
        purposes=_purposes(purpose),
        crl_urls=crl_url,
        ocsp_urls=ocsp_url,
    )
    stored = operations.create(
        store,
        owner=owner,
        label=label,
        profile=profile,
        key_type=key_type,
        signed_by=operations.signer(store, sign_with, sign_with_owner),
        now=_now(),
    )
    _made(store, stored, days, as_json=as_json)


@cert.command("import", cls=RoomCommand)
@_owner
@_label
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--key", type=click.Path(path_type=Path), help="File of the private key, if it is not in FILE.")
@_password_file
@_trust_options
@click.option("--no-chain", is_flag=True, help="Leave out the authorities that FILE brings along.")
@_store_options
def import_(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    owner: str,
    label: str,
    file: Path,
    key: Path | None,
    password_file: Path | None,
    trust: str | None,
    no_chain: bool,
) -> None:
    """Bring in a certificate from a PEM, DER, PKCS#7 or PKCS#12 file, with its key if there is one.

    Authorities in the same file are kept as CERTAUTH: trusted if the store already trusts who signed them, or if
    --trust is given.
    """
    store = _open(directory, passphrase_file)
    contents = _read_contents(file, password_file)
    if key is not None:
        contents.keys += _read_contents(key, password_file).keys
        if not contents.keys:
            raise KeyringError(f"there is no private key in {key}", 428)
    done = operations.import_certificate(
        store,
        owner=owner,
        label=label,
        contents=contents,
        trust=Trust(trust) if trust else None,
        source=str(file) if key is None else f"{file} and {key}",
        now=_now(),
        with_chain=not no_chain,
    )
    lines = [f"{'renewed' if done.renewed else 'imported'} {done.stored.name}, {done.stored.trust.value}"]
    for authority in done.authorities:
        lines.append(f"also added the authority {authority.name}, {authority.trust.value}")
        if authority.trust is Trust.NOTRUST:
            lines.append(f"  to trust it: attls cert trust --owner CERTAUTH --label '{authority.label}'")
    document = _document(store, done.stored)
    document["renewed"] = done.renewed
    document["authorities"] = [
        {"owner": authority.owner, "label": authority.label, "trust": authority.trust.value}
        for authority in done.authorities
    ]
    _print(document, "\n".join(lines), as_json=as_json)


def _read_contents(path: Path, password_file: Path | None) -> certificates.Contents:
    if str(path) == "-":
        data, name = sys.stdin.buffer.read(files.LARGEST_FILE + 1), "standard input"
    else:
        data, name = _read_named(path), str(path)
    password = _password(password_file)
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


@cert.command("export", cls=RoomCommand)
@_any_owner
@_label
@click.option(
    "--format",
    "form",
    type=click.Choice(operations.EXPORT_FORMATS),
    default="pem",
    show_default=True,
    help="File format.",
)
@click.option("--with-key", is_flag=True, help="Include the private key (PEM and PKCS#12).")
@click.option("--chain", is_flag=True, help="Include the issuers (always so in PKCS#7 and PKCS#12).")
@click.option(
    "--out", type=click.Path(path_type=Path, allow_dash=True), required=True, help="File to write, - for stdout."
)
@_password_file
@_store_options
def export(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    owner: str | None,
    label: str,
    form: str,
    with_key: bool,
    chain: bool,
    out: Path,
    password_file: Path | None,
) -> None:
    """Write a certificate to a file; with its key the file gets mode 0600."""
    store = _open(directory, passphrase_file)
    stored = _find(store, owner, label)
    password = _password(password_file)
    if form == "p12" and with_key and password is None and sys.stdin.isatty():
        prompt = f"Password for {out}"
        password = str(click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)).encode()
    content = operations.export(store, stored, form=form, with_key=with_key, with_chain=chain, password=password)
    _write_out(out, content, secret=with_key)
    document = {"owner": stored.shown_owner, "label": label, "format": form, "with_key": with_key, "file": str(out)}
    text = f"wrote {stored.name} to {out}{' with its private key' if with_key else ''}"
    if str(out) != "-":
        _print(document, text, as_json=as_json)


def _write_out(path: Path, content: bytes, *, secret: bool) -> None:
    if str(path) == "-":
        sys.stdout.buffer.write(content)
    elif path.exists() and not path.is_file():
        path.write_bytes(content)  # a pipe or a device cannot be replaced by renaming
    else:
        files.replace(path, content, mode=0o600 if secret else 0o644)


@cert.command("list", cls=AskingCommand)
@click.option("--owner", metavar="USER", help="Only certificates of this owner.")
@_store_options
def list_(*, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str | None) -> None:
    """List the certificates of the store."""
    store = _open(directory, passphrase_file)
    found = store.certificates(owner)
    if as_json:
        _print([_document(store, stored) for stored in found], "", as_json=True)
        return
    waiting = [(name, label) for name, label in store.requests() if owner is None or names.fold_owner(owner) == name]
    if not found and not waiting:
        click.echo(f"no certificates in {directory}" + (f" for {owner}" if owner else ""))
        return
    rows = [
        (
            stored.shown_owner,
            stored.label,
            stored.trust.value,
            _key_word(store.has_key(stored)),
            certificates.key_type(stored.certificate.public_key()),
            _days_left(stored.certificate),
            certificates.common_name(stored.certificate),
        )
        for stored in found
    ]
    rows += [(name, label, "-", "yes", "-", "requested", "-") for name, label in waiting]
    _table(("OWNER", "LABEL", "TRUST", "KEY", "KEY TYPE", "ENDS IN", "COMMON NAME"), rows)


@cert.command("show", cls=AskingCommand)
@_any_owner
@_label
@_store_options
def show(*, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str | None, label: str) -> None:
    """Show one certificate and the chain of its issuers."""
    store = _open(directory, passphrase_file)
    stored = _find(store, owner, label)
    issuers = operations.issuers(store, stored.certificate)
    top = [stored.certificate, *issuers][-1]
    complete = certificates.is_self_signed(top)
    document = _document(store, stored)
    document["chain"] = [certificates.summary(issuer)["subject"] for issuer in issuers]
    document["chain_complete"] = complete
    document["pem"] = certificates.pem(stored.certificate).decode()
    rows = [
        ("Owner", stored.shown_owner),
        ("Label", stored.label),
        ("Trust", stored.trust.value),
        ("Private key", _key_word(store.has_key(stored))),
        ("Subject", str(document["subject"])),
        ("Issuer", str(document["issuer"])),
        ("Serial number", str(document["serial"])),
        ("Valid from", f"{stored.certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC"),
        (
            "Valid until",
            f"{stored.certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC ({_days_left(stored.certificate)})",
        ),
        ("Alternative names", ", ".join(_words(document["san"])) or "none"),
        ("Key type", str(document["key_type"])),
        ("Authority", "yes" if document["is_ca"] else "no"),
        ("Key usage", ", ".join(_words(document["key_usage"])) or "any"),
        ("Extended usage", ", ".join(_words(document["extended_key_usage"])) or "any"),
        ("Signature", str(document["signature"])),
        ("Fingerprint", str(document["fingerprint"])),
        ("Chain", " <- ".join(certificates.common_name(issuer) for issuer in [stored.certificate, *issuers])),
        (
            "Chain complete",
            "yes" if complete else f"no: {certificates.name_of(top.issuer)} is not among the trusted authorities",
        ),
        ("Rings", ", ".join(_words(document["rings"])) or "none"),
    ]
    _print(document, "\n".join(_plain(f"{name + ':':<19}{value}") for name, value in rows), as_json=as_json)


@cert.command("inspect", cls=RoomCommand)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@_password_file
@_store_options
def inspect_(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, file: Path, password_file: Path | None
) -> None:
    """Show what a file holds, and whether the store has it, without importing anything."""
    store = _open(directory, passphrase_file)
    contents = _read_contents(file, password_file)
    items: list[dict[str, object]] = []
    for certificate in contents.certificates:
        known = store.find_same(certificate)
        name = {"owner": known.shown_owner, "label": known.label} if known else None
        items.append({"known_as": name, **certificates.summary(certificate)})
    document = {"certificates": items, "private_keys": len(contents.keys), "requests": len(contents.requests)}
    lines = []
    for item, certificate in zip(items, contents.certificates, strict=True):
        known = store.find_same(certificate)
        lines.append(f"certificate {item['subject']}")
        lines.append(f"  issued by {item['issuer']}{', an authority' if item['is_ca'] else ''}")
        lines.append(
            f"  ends in {_days_left(certificate)}, {item['key_type']}, {', '.join(_words(item['san'])) or 'no names'}"
        )
        lines.append(f"  {f'in the store as {known.name}' if known else 'not in the store'}")
    for asked in contents.requests:
        lines.append(f"request for {asked.subject.rfc4514_string()}")
    lines.append(f"{_count(len(contents.keys), 'private key')}")
    _print(document, "\n".join(_plain(line) for line in lines), as_json=as_json)


def _words(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


@cert.command("renew", cls=RoomCommand)
@_owner
@_label
@click.option("--new-key", is_flag=True, help="Make a new key too (else the key stays).")
@click.option(
    "--key-type",
    type=click.Choice(certificates.KEY_TYPES, case_sensitive=False),
    help="Kind of the new key; implies --new-key.",
)
@click.option("--days", type=click.IntRange(1), help="Validity; as long as before if not given.")
@click.option("--sign-with", metavar="CALABEL", help="Have it signed by another authority than before.")
@_signer_owner
@_store_options
def renew(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    owner: str,
    label: str,
    new_key: bool,
    key_type: str | None,
    days: int | None,
    sign_with: str | None,
    sign_with_owner: str,
) -> None:
    """Replace a certificate by one with new dates; all rings it is on have the new one at once."""
    store = _open(directory, passphrase_file)
    stored = operations.renew(
        store,
        owner=owner,
        label=label,
        new_key=new_key or key_type is not None,
        key_type=key_type,
        days=days,
        now=_now(),
        signed_by=operations.signer(store, sign_with, sign_with_owner) if sign_with else None,
    )
    text = f"renewed {stored.name}, valid until {stored.certificate.not_valid_after_utc:%Y-%m-%d}"
    _print(_document(store, stored), text, as_json=as_json)


@cert.command("rollover", cls=RoomCommand)
@_owner
@_label
@click.option("--new-label", required=True, help="Label of the certificate that takes over.")
@_store_options
def rollover(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str, label: str, new_label: str
) -> None:
    """Put another certificate in the place of this one on all rings, and delete this one's private key."""
    store = _open(directory, passphrase_file)
    stored = operations.rollover(store, owner=owner, label=label, new_label=new_label, now=_now())
    rings = [ring.reference for ring in store.rings_with(stored.owner, stored.label)]
    text = f"{stored.name} took the place of '{label}' on {', '.join(rings) or 'no ring'}"
    _print(_document(store, stored), text, as_json=as_json)


@cert.command("delete", cls=RoomCommand)
@_owner
@_label
@_store_options
def delete(*, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str, label: str) -> None:
    """Delete a certificate and its private key, and take it off all rings."""
    store = _open(directory, passphrase_file)
    rings = [ring.reference for ring in store.delete(owner, label)]
    text = f"deleted '{label}' of {owner}" + (f", also from {', '.join(rings)}" if rings else "")
    _print({"owner": owner, "label": label, "rings": rings}, text, as_json=as_json)


@cert.command("rename", cls=RoomCommand)
@_owner
@_label
@click.option("--new-label", required=True, help="The new label.")
@_store_options
def rename(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str, label: str, new_label: str
) -> None:
    """Give a certificate another label, on all rings too."""
    store = _open(directory, passphrase_file)
    stored = store.relabel(owner, label, new_label)
    _print(_document(store, stored), f"'{label}' is now {stored.name}", as_json=as_json)


@cert.command("request", cls=RoomCommand)
@_owner
@_label
@click.option("--cn", help="Common name; not needed for a certificate that is in the store.")
@_san
@_key_type
@_subject
@click.option("--out", type=click.Path(path_type=Path, allow_dash=True), default=Path("-"), help="File to write.")
@_store_options
def request(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    owner: str,
    label: str,
    cn: str | None,
    san: tuple[str, ...],
    key_type: str,
    subject: str | None,
    out: Path,
) -> None:
    """Write a signing request (PKCS#10) for another authority; then import its answer under the same label."""
    store = _open(directory, passphrase_file)
    made = operations.request(
        store,
        owner=owner,
        label=label,
        subject=_subject_of(cn, subject) if cn or subject else None,
        alternative=_alternative(san) or certificates.implied_names(cn),
        key_type=key_type,
    )
    content = made.public_bytes(certificates.PEM_ENCODING)
    document = {"owner": owner, "label": label, "request": content.decode(), "file": str(out)}
    if str(out) != "-":
        _write_out(out, content, secret=False)
    text = content.decode().rstrip() if str(out) == "-" else f"wrote the request for '{label}' of {owner} to {out}"
    _print(document, text, as_json=as_json)


@cert.command("sign", cls=RoomCommand)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@_sign_with
@_signer_owner
@click.option("--cn", help="Common name instead of the one that is requested.")
@_san
@click.option("--days", type=click.IntRange(1), default=certificates.LEAF_DAYS, show_default=True, help="Validity.")
@_subject
@_purpose
@click.option("--ca", is_flag=True, help="Make it an authority.")
@_with_urls
@click.option("--owner", metavar="USER", help="Keep the certificate in the store too, under this owner.")
@click.option("--label", help="Label to keep it under.")
@click.option("--out", type=click.Path(path_type=Path, allow_dash=True), default=Path("-"), help="File to write.")
@_store_options
def sign(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    file: Path,
    sign_with: str,
    sign_with_owner: str,
    cn: str | None,
    san: tuple[str, ...],
    days: int,
    subject: str | None,
    purpose: str,
    ca: bool,
    crl_url: tuple[str, ...],
    ocsp_url: tuple[str, ...],
    owner: str | None,
    label: str | None,
    out: Path,
) -> None:
    """Sign the request (PKCS#10) in FILE; names come from the request unless given here."""
    if (owner is None) != (label is None):
        raise click.UsageError("--owner and --label go together")
    store = _open(directory, passphrase_file)
    requests = _read_contents(file, None).requests
    if len(requests) != 1:
        raise KeyringError(f"{file} holds {len(requests) or 'no'} signing requests; exactly one is needed")
    profile = certificates.Profile(
        subject=_subject_of(cn, subject) if cn or subject else certificates.EMPTY_NAME,
        days=days,
        names=_alternative(san),
        is_authority=ca,
        purposes=_purposes(purpose),
        crl_urls=crl_url,
        ocsp_urls=ocsp_url,
    )
    authority = operations.signer(store, sign_with, sign_with_owner)
    certificate = operations.sign_request(requests[0], signed_by=authority, profile=profile, now=_now())
    if owner is not None and label is not None:
        store.add(owner, label, certificate, trust=Trust.TRUST)
    content = certificates.pem(certificate)
    if str(out) != "-":
        _write_out(out, content, secret=False)
    summary = certificates.summary(certificate)
    document = {**summary, "pem": content.decode(), "file": str(out)}
    text = content.decode().rstrip()
    if str(out) != "-":
        text = f"signed {summary['subject']} ({', '.join(_words(summary['san'])) or 'no alternative names'}) into {out}"
    _print(document, text, as_json=as_json)


@cert.command("revoke", cls=RoomCommand)
@_any_owner
@click.option("--label", help="Label of the certificate.")
@click.option("--serial", metavar="HEX", help="Instead: serial number of a certificate that is not in the store.")
@click.option("--issuer", metavar="CALABEL", help="Authority that issued it; needed with --serial.")
@click.option(
    "--reason",
    type=click.Choice(revocation.REASONS),
    default="unspecified",
    show_default=True,
    help="Why.",
)
@_store_options
def revoke(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    owner: str | None,
    label: str | None,
    serial: str | None,
    issuer: str | None,
    reason: str,
) -> None:
    """Take a certificate back; the authority's next CRL (attls cert crl) says so to everybody."""
    store = _open(directory, passphrase_file)
    if (label is None) == (serial is None) or (serial is not None and issuer is None):
        raise click.UsageError("give either --label, or --serial and --issuer")
    if label is not None:
        stored = _find(store, owner, label)
        authority, number = operations.authority_of(store, stored), stored.certificate.serial_number
        what = stored.name
    else:
        authority = store.certificate(names.CERTAUTH, str(issuer))
        try:
            number = int(str(serial).replace(":", ""), 16)
        except ValueError as error:
            raise click.BadParameter(f"{serial} is no hexadecimal number", param_hint="--serial") from error
        what = f"certificate {number:X}"
    store.revoke(authority.owner, authority.label, revocation.Revocation.of(number, _now(), reason))
    document = {"serial": f"{number:X}", "issuer": authority.label, "reason": reason}
    text = f"revoked {what}; now publish a new list: attls cert crl --label '{authority.label}' --out FILE"
    _print(document, text, as_json=as_json)


@cert.command("crl", cls=RoomCommand)
@_label
@click.option("--owner", default=names.CERTAUTH, show_default=True, metavar="USER", help="Owner of the authority.")
@click.option("--days", type=click.IntRange(1), default=7, show_default=True, help="Validity.")
@click.option(
    "--format", "form", type=click.Choice(["pem", "der"]), default="pem", show_default=True, help="File format."
)
@click.option("--out", type=click.Path(path_type=Path, allow_dash=True), required=True, help="File to write.")
@_store_options
def crl(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    label: str,
    owner: str,
    days: int,
    form: str,
    out: Path,
) -> None:
    """Write the list of certificates that an authority has revoked (CRL)."""
    store = _open(directory, passphrase_file)
    revoked, now = store.revocations(owner, label), _now()
    made = revocation.build_crl(
        operations.signer(store, label, owner),
        revoked,
        now=now,
        lifetime=datetime.timedelta(days=days),
        number=int(now.timestamp() * 1000),  # grows from list to list without being kept anywhere
    )
    encoding = certificates.PEM_ENCODING if form == "pem" else certificates.DER_ENCODING
    _write_out(out, made.public_bytes(encoding), secret=False)
    document = {"issuer": label, "revoked": len(revoked), "file": str(out)}
    if str(out) != "-":
        _print(
            document, f"wrote the CRL of '{label}' with {_count(len(revoked), 'certificate')} to {out}", as_json=as_json
        )


@cert.command("trust", cls=RoomCommand)
@_owner
@_label
@_trust_options
@_store_options
def trust_(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str, label: str, trust: str | None
) -> None:
    """Say whether a certificate is trusted; TRUST if nothing else is given."""
    store = _open(directory, passphrase_file)
    stored = store.set_trust(owner, label, Trust(trust or "TRUST"))
    _print(_document(store, stored), f"{stored.name} is now {stored.trust.value}", as_json=as_json)


# Rings -------------------------------------------------------------------------------------------------------------


@click.group()
def keyring() -> None:
    """Make rings and connect certificates to them."""


_ring = click.argument("ring", metavar="USER/RING", shell_complete=_complete_ring)


@keyring.command("create", cls=RoomCommand)
@_ring
@_store_options
def keyring_create(*, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str) -> None:
    """Create an empty ring."""
    store = _open(directory, passphrase_file)
    _, name = names.split_ring(ring)
    made = store.create_ring(ring.partition("/")[0], name)
    _print(_ring_document(store, made), f"created ring {made.reference}", as_json=as_json)


@keyring.command("connect", cls=RoomCommand)
@_ring
@_owner
@_label
@click.option(
    "--usage",
    type=click.Choice(["personal", "certauth", "site"], case_sensitive=False),
    help="What it is for; by its owner if not given.",
)
@click.option("--default", "is_default", is_flag=True, help="Make it the ring's default certificate.")
@_store_options
def keyring_connect(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    ring: str,
    owner: str,
    label: str,
    usage: str | None,
    is_default: bool,
) -> None:
    """Connect a certificate to a ring, or change how it is connected."""
    store = _open(directory, passphrase_file)
    chosen = Usage(usage.upper()) if usage else default_usage(owner)
    changed = store.connect(*names.split_ring(ring), Connection(names.check_owner(owner), label, chosen, is_default))
    stored = store.certificate(owner, label)
    text = f"connected {stored.name} to {changed.reference} as {chosen.value}{', default' if is_default else ''}"
    if stored.trust is Trust.NOTRUST:
        text += f"\nnote: it is NOTRUST and so counts for nothing; attls cert trust --owner {owner} --label '{label}'"
    if chosen is Usage.PERSONAL and store.has_key(stored) is False:
        text += "\nnote: the store has no private key for it, so it cannot be presented to a peer"
    _print(_ring_document(store, changed), text, as_json=as_json)


@keyring.command("remove", cls=RoomCommand)
@_ring
@_owner
@_label
@_store_options
def keyring_remove(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str, owner: str, label: str
) -> None:
    """Take a certificate off a ring; it stays in the store."""
    store = _open(directory, passphrase_file)
    changed = store.disconnect(*names.split_ring(ring), certificate_owner=owner, label=label)
    _print(_ring_document(store, changed), f"removed '{label}' of {owner} from {changed.reference}", as_json=as_json)


@keyring.command("delete", cls=RoomCommand)
@_ring
@_store_options
def keyring_delete(*, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str) -> None:
    """Delete a ring; the certificates on it stay in the store."""
    store = _open(directory, passphrase_file)
    store.delete_ring(*names.split_ring(ring))
    _print({"ring": ring}, f"deleted ring {ring}", as_json=as_json)


@keyring.command("list", cls=AskingCommand)
@click.argument("ring", metavar="[USER/RING]", required=False, shell_complete=_complete_ring)
@_store_options
def keyring_list(*, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str | None) -> None:
    """List the rings, or what is connected to one; USER/ lists the rings of one user."""
    store = _open(directory, passphrase_file)
    if ring is not None and ring.partition("/")[2]:
        _show_ring(store, store.definition(*names.split_ring(ring)), as_json=as_json)
        return
    found = store.rings(ring.partition("/")[0] if ring else None)
    if as_json:
        _print([_ring_document(store, one) for one in found], "", as_json=True)
    elif not found:
        click.echo(f"no rings in {directory}" + (f" for {ring.partition('/')[0]}" if ring else ""))
    else:
        rows = []
        for one in found:
            default = next((line.label for line in one.connections if line.default), "-")
            rows.append((one.reference, str(len(one.connections)), default))
        _table(("RING", "CERTIFICATES", "DEFAULT"), rows)


def _show_ring(store: Store, ring: Ring, *, as_json: bool) -> None:
    if as_json:
        _print(_ring_document(store, ring), "", as_json=True)
        return
    if not ring.connections:
        click.echo(f"ring {ring.reference} is empty")
        return
    rows = []
    for line in ring.connections:
        try:
            stored = store.certificate(line.owner, line.label)
            facts = stored.trust.value, _key_word(store.has_key(stored)), _days_left(stored.certificate)
        except KeyringError:
            facts = "missing", "-", "-"
        rows.append((line.label, line.owner, line.usage.value, "yes" if line.default else "no", *facts))
    _table(("LABEL", "OWNER", "USAGE", "DEFAULT", "TRUST", "KEY", "ENDS IN"), rows)


def _ring_document(store: Store, ring: Ring) -> dict[str, object]:
    entries = []
    for line in ring.connections:
        entry: dict[str, object] = {
            "owner": line.owner,
            "label": line.label,
            "usage": line.usage.value.lower(),
            "default": line.default,
        }
        try:
            stored = store.certificate(line.owner, line.label)
            entry["trust"] = stored.trust.value
            entry["private_key"] = store.has_key(stored)
            entry["subject"] = stored.certificate.subject.rfc4514_string()
            entry["not_after"] = stored.certificate.not_valid_after_utc.isoformat()
        except KeyringError as error:
            entry["problem"] = str(error)
        entries.append(entry)
    return {"ring": ring.reference, "owner": ring.shown_owner, "name": ring.name, "entries": entries}


@keyring.command("verify", cls=AskingCommand)
@click.argument("ring", metavar="[USER/RING]", required=False, shell_complete=_complete_ring)
@click.option(
    "--expiring", type=click.IntRange(0), default=30, show_default=True, metavar="DAYS", help="Warn this early."
)
@_store_options
def keyring_verify(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str | None, expiring: int
) -> None:
    """Find damage, loose permissions, missing chains and certificates about to expire, and say how to mend each.

    Exits with 1 when something is unusable or unsafe now; warnings alone leave it at 0.
    """
    store = _open(directory, passphrase_file)
    one = store.definition(*names.split_ring(ring)) if ring else None
    findings = inspection.inspect(store, now=_now(), expiring_days=expiring, ring=one)
    failed = any(finding.severity == "error" for finding in findings)
    if as_json:
        items = [
            {"severity": one.severity, "where": one.where, "problem": one.problem, "mend": one.mend} for one in findings
        ]
        _print({"ok": not failed, "findings": items}, "", as_json=True)
    else:
        for finding in findings:
            click.echo(f"{finding.severity}: {finding.where}: {finding.problem}\n    {finding.mend}")
        errors = sum(finding.severity == "error" for finding in findings)
        click.echo(f"{ring or directory}: {_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}")
    if failed:
        raise click.exceptions.Exit(1)


@keyring.command("encrypt", cls=RoomCommand)
@click.option(
    "--new-passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File whose first line is the new passphrase; asked for when not given.",
)
@_store_options
def keyring_encrypt(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, new_passphrase_file: Path | None
) -> None:
    """Encrypt all private keys of the store, now and in future, or change their passphrase.

    The daemon finds the passphrase in the file named by ATTLS_PASSPHRASE_FILE or in the systemd credential
    attls-passphrase. A change of passphrase that was interrupted leaves some keys under the old one; run it again
    on a backup then.
    """
    store = _open(directory, passphrase_file)
    if new_passphrase_file is not None:
        passphrase = files.read_password(new_passphrase_file)
    elif sys.stdin.isatty():
        prompt = "New passphrase of the keyring store"
        passphrase = str(click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)).encode()
    else:
        raise click.UsageError("give the new passphrase with --new-passphrase-file")
    count = store.reencrypt(passphrase)
    _print({"encrypted": True, "keys": count}, f"encrypted {_count(count, 'key')}", as_json=as_json)


@keyring.command("decrypt", cls=RoomCommand)
@_store_options
def keyring_decrypt(*, directory: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Keep all private keys of the store unencrypted again, protected by their file permissions alone."""
    count = _open(directory, passphrase_file).reencrypt(None)
    _print({"encrypted": False, "keys": count}, f"decrypted {_count(count, 'key')}", as_json=as_json)


@keyring.command("settings", cls=RoomCommand)
@click.option("--strict/--no-strict", "strict", default=None, help="Whether reading a ring takes a grant.")
@click.option(
    "--auth",
    type=click.Choice(["store", "system", "both"]),
    help="What *AUTH*/* means: authorities of the store, of the system, or both.",
)
@click.option(
    "--host-name", multiple=True, help="Host whose hostIdMappings count here (repeatable); none given: this one."
)
@click.option("--reset-host-names", is_flag=True, help="Only this machine's own name counts again.")
@_store_options
def keyring_settings(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    strict: bool | None,
    auth: str | None,
    host_name: tuple[str, ...],
    reset_host_names: bool,
) -> None:
    """Show the settings of the store, or change them."""
    store = _open(directory, passphrase_file)
    settings = before = store.settings()
    if strict is not None:
        settings = replace(settings, grants=strict)
    if auth is not None:
        settings = replace(settings, virtual_auth=auth)
    if host_name or reset_host_names:
        settings = replace(settings, host_names=host_name)
    if settings != before:
        store.set_settings(settings)
    document = {
        "strict": settings.grants,
        "auth": settings.virtual_auth,
        "host_names": list(settings.host_names),
        "encrypted": settings.encrypt_keys,
    }
    lines = [
        f"reading a ring takes a grant:  {'yes' if settings.grants else 'no'}",
        f"*AUTH*/* means authorities of: {settings.virtual_auth}",
        f"hostIdMappings count for:      {', '.join(settings.host_names) or 'this machine'}",
        f"new keys are encrypted:        {'yes' if settings.encrypt_keys else 'no'}",
    ]
    _print(document, "\n".join(lines), as_json=as_json)


@keyring.command("grant", cls=RoomCommand)
@_ring
@click.option("--user", required=True, metavar="USER", help="Who may read it.")
@click.option(
    "--access",
    type=click.Choice(["read", "update", "control"]),
    default="read",
    show_default=True,
    help="read: the ring and one's own keys; update: keys of other users; control: keys of CERTAUTH and SITE.",
)
@_store_options
def keyring_grant(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str, user: str, access: str
) -> None:
    """Let a user read a ring (USER/RING, USER/* or *AUTH*/*); counts when the settings are strict."""
    store = _open(directory, passphrase_file)
    store.set_grant(ring, user, Access[access.upper()])
    text = f"{user} may read {ring} ({access})"
    if not store.settings().grants:
        text += "\nnote: grants are not asked for yet; attls keyring settings --strict"
    _print({"ring": ring, "user": user, "access": access}, text, as_json=as_json)


@keyring.command("revoke", cls=RoomCommand)
@_ring
@click.option("--user", required=True, metavar="USER", help="Who may no longer read it.")
@_store_options
def keyring_revoke(*, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str, user: str) -> None:
    """Take a grant back."""
    _open(directory, passphrase_file).set_grant(ring, user, None)
    _print({"ring": ring, "user": user}, f"{user} has no grant for {ring} any more", as_json=as_json)


@keyring.command("grants", cls=AskingCommand)
@_store_options
def keyring_grants(*, directory: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """List who was granted which ring."""
    found = _open(directory, passphrase_file).grants()
    if as_json:
        _print(
            [{"ring": one.ring, "user": one.user, "access": one.access.name.lower()} for one in found], "", as_json=True
        )
    elif not found:
        click.echo(f"no grants in {directory}")
    else:
        _table(("RING", "USER", "ACCESS"), [(one.ring, one.user, one.access.name.lower()) for one in found])


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


# User mapping ------------------------------------------------------------------------------------------------------


@click.group("map")
def map_() -> None:
    """Say which user a certificate stands for."""


_model = click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Certificate that names are taken from; the filters then say where in its names to start.",
)


@map_.command("add", cls=RoomCommand)
@click.option("--user", metavar="USER", help="User that matching certificates stand for.")
@click.option("--label", required=True, help="Label of the filter.")
@click.option("--subject", metavar="FILTER", help="End of the subject, e.g. OU=Pay.O=Example.C=DE.")
@click.option("--issuer", metavar="FILTER", help="End of the issuer; beside --subject the whole issuer.")
@_model
@click.option("--criteria", metavar="TEXT", help="Instead of --user: e.g. APPLID=&APPLID.SYSID=&SYSID.")
@click.option("--notrust", is_flag=True, help="Keep the filter, but do not use it.")
@_store_options
def map_add(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    user: str | None,
    label: str,
    subject: str | None,
    issuer: str | None,
    model: Path | None,
    criteria: str | None,
    notrust: bool,
) -> None:
    """Add a name filter: certificates whose names end like this stand for the user."""
    if (user is None) == (criteria is None):
        raise click.UsageError("give either --user or --criteria")
    if subject is None and issuer is None:
        raise click.UsageError("give --subject, --issuer or both; a filter without names would match everybody")
    store = _open(directory, passphrase_file)
    pattern = _read_contents(model, None).certificates if model else []
    if model is not None and not pattern:
        raise KeyringError(f"there is no certificate in {model}")
    entry = mapping.MapFilter(
        names.check_label(label),
        user,
        _name_filter(subject, pattern[0].subject if pattern else None),
        _name_filter(issuer, pattern[0].issuer if pattern else None),
        Trust.NOTRUST if notrust else Trust.TRUST,
        criteria,
    )
    store.add_filter(entry)
    _print(_map_document(entry), f"certificates {_map_text(entry)} stand for {user or criteria}", as_json=as_json)


def _name_filter(text: str | None, model: certificates.Name | None) -> mapping.NameFilter | None:
    if text is None:
        return None
    try:
        return mapping.from_model(model, text) if model is not None else mapping.NameFilter.read(text)
    except KeyringError as error:
        raise click.UsageError(str(error)) from error


def _map_text(entry: mapping.MapFilter) -> str:
    parts = [
        f"with subject {entry.subject}" if entry.subject else "",
        f"issued by {entry.issuer}" if entry.issuer else "",
    ]
    return " ".join(part for part in parts if part)


def _map_document(entry: mapping.MapFilter) -> dict[str, object]:
    return {
        "user": entry.user,
        "label": entry.label,
        "subject": str(entry.subject) if entry.subject else None,
        "issuer": str(entry.issuer) if entry.issuer else None,
        "criteria": entry.criteria,
        "trust": entry.trust.value,
    }


@map_.command("list", cls=AskingCommand)
@click.option("--user", metavar="USER", help="Only filters that lead to this user.")
@_store_options
def map_list(*, directory: Path, passphrase_file: Path | None, as_json: bool, user: str | None) -> None:
    """List the name filters."""
    store = _open(directory, passphrase_file)
    found = store.filters(user)
    if as_json:
        _print([_map_document(entry) for entry in found], "", as_json=True)
    elif not found:
        click.echo(f"no filters in {directory}" + (f" for {user}" if user else ""))
    else:
        rows = [
            (
                entry.user or f"by criteria {entry.criteria}",
                entry.label,
                entry.trust.value,
                str(entry.subject or "-"),
                str(entry.issuer or "-"),
            )
            for entry in found
        ]
        _table(("USER", "LABEL", "TRUST", "SUBJECT", "ISSUER"), rows)


@map_.command("delete", cls=RoomCommand)
@click.option(
    "--user", metavar="USER", default=mapping.MULTIID, help="User of the filter; not given: one with criteria."
)
@click.option("--label", required=True, help="Label of the filter.")
@_store_options
def map_delete(*, directory: Path, passphrase_file: Path | None, as_json: bool, user: str, label: str) -> None:
    """Delete a name filter."""
    _open(directory, passphrase_file).delete_filter(user, label)
    _print({"user": user, "label": label}, f"deleted filter '{label}' of {user}", as_json=as_json)


@map_.command("criterion", cls=RoomCommand)
@click.argument("criteria")
@click.option("--user", metavar="USER", help="User that it stands for.")
@click.option("--delete", "forget", is_flag=True, help="Forget it.")
@_store_options
def map_criterion(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, criteria: str, user: str | None, forget: bool
) -> None:
    """Say which user filled-in CRITERIA stand for, e.g. APPLID=PAYROLL.SYSID=* (wildcards * and ?)."""
    if (user is None) != forget:
        raise click.UsageError("give either --user or --delete")
    _open(directory, passphrase_file).set_criterion(criteria, user)
    text = f"forgot '{criteria}'" if forget else f"'{criteria}' stands for {user}"
    _print({"criteria": criteria, "user": user}, text, as_json=as_json)


@map_.command("test", cls=AskingCommand)
@click.argument("file", metavar="CERT", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--job", default="", help="Job name, for criteria with &APPLID.")
@click.option("--system", default=socket.gethostname, show_default="this host", help="System name, for &SYSID.")
@_store_options
def map_test(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, file: Path, job: str, system: str
) -> None:
    """Say which user the certificate in the file CERT stands for, and why; exits with 1 when nobody.

    Instead of a file CERT may be OWNER/LABEL of a certificate in the store.
    """
    store = _open(directory, passphrase_file)
    owner, slash, label = str(file).partition("/")
    if slash and not file.exists() and owner and store.has_certificate(owner, label):
        certificate = store.certificate(owner, label).certificate
    else:
        found = _read_contents(file, None).certificates
        if not found:
            raise KeyringError(f"there is no certificate in {file}")
        certificate = found[0]
    answer = store.user_map().find(certificates.der(certificate), job=job, system=system)
    document = {
        "user": answer.user,
        "way": answer.way.value,
        "label": answer.label,
        "subject": str(mapping.NameFilter.of(certificate.subject)),
        "issuer": str(mapping.NameFilter.of(certificate.issuer)),
        "trace": [{"step": step.what, "matched": step.matched, "reason": step.reason} for step in answer.steps],
    }
    lines = [f"subject {document['subject']}", f"issuer  {document['issuer']}"]
    lines += [f"  {'yes' if step.matched else 'no ':<4} {step.what}: {step.reason}" for step in answer.steps]
    lines.append(f"user {answer.user} ({answer.way.value})" if answer.user else "no user")
    _print(document, _plain("\n".join(lines)), as_json=as_json)
    if answer.user is None:
        raise click.exceptions.Exit(1)


def _plain(text: str) -> str:
    """Take what could steer a terminal out of text that a foreign certificate has a part in."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


# The z/OS spelling --------------------------------------------------------------------------------------------------


@click.command("racdcert", cls=RoomCommand)
@click.argument("words", metavar="[COMMAND]", nargs=-1)
@click.option(
    "--user", metavar="USER", default=getpass.getuser, show_default="you", help="Owner where COMMAND names none."
)
@_password_file
@_store_options
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
    store = _open(directory, passphrase_file)
    session = racdcert.Session(store, user, _now, _password(password_file))
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
        _print(done, "", as_json=True)


def _commands(text: str) -> list[str]:
    """Split input into commands; comments, empty lines and SETROPTS (nothing needs a refresh here) are left out."""
    joined = re.sub(r"[ \t]*[-+][ \t]*\n\s*", " ", re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL))
    lines = (line.strip() for line in joined.splitlines())
    return [line for line in lines if line and not line.upper().startswith(("SETROPTS ", "SETR "))]


COMMANDS = (cert, keyring, map_, racdcert_)
