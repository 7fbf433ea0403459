"""Revocation lists in the store: bring one in for an authority, list them, let go of one. Commands of `attls cert`."""

from __future__ import annotations

from pathlib import Path

import click

from attls.cli.store import (
    RoomCommand,
    any_owner_option,
    complete_authority,
    counted,
    current_time,
    find_certificate,
    open_store,
    print_result,
    print_table,
    read_contents,
    store_options,
)
from attls.errors import KeyringError
from attls.keyring import Store, certificates, names, operations


@click.command("import-crl", cls=RoomCommand)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--owner", metavar="USER", help="Only for an authority of this owner; else wherever the list fits.")
@click.option("--label", shell_complete=complete_authority, help="Only for the authority of this label.")
@click.option("--older", is_flag=True, help="Take a list that is older than the one that is kept.")
@store_options
def import_crl(
    *,
    directory: Path,
    passphrase_file: Path | None,
    as_json: bool,
    file: Path,
    owner: str | None,
    label: str | None,
    older: bool,
) -> None:
    """Bring in a revocation list (CRL, PEM or DER) for the authority that made it.

    Every ring that the authority is on has the list from then on; a running daemon goes by it for the next connection.
    A list that is kept already is replaced.
    """
    store = open_store(directory, passphrase_file)
    found = read_contents(file, None).crls
    if not found:
        raise KeyringError(f"there is no revocation list in {file}", 103)
    documents, lines = [], []
    with store.writing():
        for crl in found:
            for authority in operations.import_crl(
                store, crl, owner=owner, label=label, now=current_time(), older=older
            ):
                document = _document(store, authority.owner, authority.label)
                documents.append(document)
                held = counted(len(crl), "revoked certificate")
                lines.append(f"imported the list of {authority.name}: {held}, good until {document['next_update']}")
    print_result(documents, "\n".join(lines), as_json=as_json)


@click.command("list-crls", cls=RoomCommand)
@store_options
def list_crls(*, directory: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """List the revocation lists that are kept, and until when they count."""
    store = open_store(directory, passphrase_file)
    documents = [_document(store, owner, label) for owner, label in store.crls()]
    if as_json:
        print_result(documents, "", as_json=True)
    elif documents:
        print_table(
            ["OWNER", "LABEL", "REVOKED", "FROM", "UNTIL", "RINGS"],
            (
                [
                    str(one["owner"]),
                    str(one["label"]),
                    str(one["revoked"]),
                    str(one["last_update"]),
                    f"{one['next_update']}{' (out of date)' if one['out_of_date'] else ''}",
                    ", ".join(one["rings"]) if isinstance(one["rings"], list) else "",
                ]
                for one in documents
            ),
        )
    else:
        print_result(None, "no revocation list is kept", as_json=False)


@click.command("delete-crl", cls=RoomCommand)
@any_owner_option
@click.option("--label", required=True, shell_complete=complete_authority, help="Label of the authority.")
@store_options
def delete_crl(*, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str | None, label: str) -> None:
    """Keep no revocation list of an authority any more."""
    store = open_store(directory, passphrase_file)
    authority = find_certificate(store, owner, label)
    store.delete_crl(authority.owner, authority.label)
    document = {"owner": authority.owner, "label": authority.label}
    print_result(document, f"the list of {authority.name} is kept no more", as_json=as_json)


def _document(store: Store, owner: str, label: str) -> dict[str, object]:
    crl = store.crl(owner, label)
    if crl is None:  # gone since the names were read
        raise names.MissingError(f"no revocation list of '{label}' of {owner} is kept")
    ends = crl.next_update_utc
    return {
        "owner": owner,
        "label": label,
        **certificates.crl_summary(crl),
        "out_of_date": ends is None or ends < current_time(),
        "rings": [ring.reference for ring in store.rings_with(owner, label)],
    }
