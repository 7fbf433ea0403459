"""`attls map`: which user a certificate stands for, and why."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from attls.cli.store import (
    AskingCommand,
    RoomCommand,
    complete_criteria,
    complete_filter,
    complete_filter_user,
    one_line,
    open_store,
    print_result,
    print_table,
    read_contents,
    store_options,
)
from attls.errors import KeyringError
from attls.keyring import Trust, certificates, mapping, names

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
@store_options
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
    store = open_store(directory, passphrase_file)
    pattern = read_contents(model, None).certificates if model else []
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
    print_result(_map_document(entry), f"certificates {_map_text(entry)} stand for {user or criteria}", as_json=as_json)


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
@click.option(
    "--user", metavar="USER", shell_complete=complete_filter_user, help="Only filters that lead to this user."
)
@store_options
def map_list(*, directory: Path, passphrase_file: Path | None, as_json: bool, user: str | None) -> None:
    """List the name filters."""
    store = open_store(directory, passphrase_file)
    found = store.filters(user)
    if as_json:
        print_result([_map_document(entry) for entry in found], "", as_json=True)
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
        print_table(("USER", "LABEL", "TRUST", "SUBJECT", "ISSUER"), rows)


@map_.command("delete", cls=RoomCommand)
@click.option(
    "--user",
    metavar="USER",
    default=mapping.MULTIID,
    shell_complete=complete_filter_user,
    help="User of the filter; not given: one with criteria.",
)
@click.option("--label", required=True, shell_complete=complete_filter, help="Label of the filter.")
@store_options
def map_delete(*, directory: Path, passphrase_file: Path | None, as_json: bool, user: str, label: str) -> None:
    """Delete a name filter."""
    open_store(directory, passphrase_file).delete_filter(user, label)
    print_result({"user": user, "label": label}, f"deleted filter '{label}' of {user}", as_json=as_json)


@map_.command("criterion", cls=RoomCommand)
@click.argument("criteria", shell_complete=complete_criteria)
@click.option("--user", metavar="USER", help="User that it stands for.")
@click.option("--delete", "forget", is_flag=True, help="Forget it.")
@store_options
def map_criterion(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, criteria: str, user: str | None, forget: bool
) -> None:
    """Say which user filled-in CRITERIA stand for, e.g. APPLID=PAYROLL.SYSID=* (wildcards * and ?)."""
    if (user is None) != forget:
        raise click.UsageError("give either --user or --delete")
    open_store(directory, passphrase_file).set_criterion(criteria, user)
    text = f"forgot '{criteria}'" if forget else f"'{criteria}' stands for {user}"
    print_result({"criteria": criteria, "user": user}, text, as_json=as_json)


@map_.command("criteria", cls=AskingCommand)
@store_options
def map_criteria(*, directory: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """List what filled-in criteria stand for, in the order in which they are tried."""
    found = open_store(directory, passphrase_file).criteria()
    if as_json:
        print_result([{"criteria": one.pattern, "user": one.user} for one in found], "", as_json=True)
    elif not found:
        click.echo(f"no criteria in {directory}")
    else:
        print_table(("CRITERIA", "USER"), [(one.pattern, one.user) for one in found])


@map_.command("test", cls=AskingCommand)
@click.argument("file", metavar="CERT", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--job", default="", help="Job name, for criteria with &APPLID.")
@click.option("--system", default=socket.gethostname, show_default="this host", help="System name, for &SYSID.")
@store_options
def map_test(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, file: Path, job: str, system: str
) -> None:
    """Say which user the certificate in the file CERT stands for, and why; exits with 1 when nobody.

    Instead of a file CERT may be OWNER/LABEL of a certificate in the store.
    """
    store = open_store(directory, passphrase_file)
    owner, slash, label = str(file).partition("/")
    if slash and not file.exists() and names.fold_owner(owner) in store.owners():
        certificate = store.certificate(owner, label).certificate
    else:
        found = read_contents(file, None).certificates
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
    print_result(document, "\n".join(one_line(line) for line in lines), as_json=as_json)
    if answer.user is None:
        raise click.exceptions.Exit(1)


COMMANDS = (map_,)
