"""`attls keyring`: rings and what is on them, the check of the whole store, its settings and grants."""

from __future__ import annotations

import datetime
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from attls.cli.crl import import_crl
from attls.cli.store import (
    AskingCommand,
    RoomCommand,
    complete_ring,
    counted,
    current_time,
    key_word,
    label_option,
    open_store,
    owner_option,
    plain,
    print_result,
    print_table,
    store_options,
    time_left,
)
from attls.errors import KeyringError
from attls.keyring import Keyring, Store, Trust, Usage, certificates, files, inspection, names
from attls.keyring.grants import Access
from attls.keyring.opening import system_trust
from attls.keyring.store import Connection, Ring, default_usage

# Rings -------------------------------------------------------------------------------------------------------------


@click.group()
def keyring() -> None:
    """Make rings and connect certificates to them."""


_ring = click.argument("ring", metavar="USER/RING", shell_complete=complete_ring)


@keyring.command("create", cls=RoomCommand)
@_ring
@store_options
def keyring_create(*, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str) -> None:
    """Create an empty ring."""
    store = open_store(directory, passphrase_file)
    _, name = names.split_ring(ring)
    made = store.create_ring(ring.partition("/")[0], name)
    print_result(_ring_document(store, made), f"created ring {made.reference}", as_json=as_json)


@keyring.command("connect", cls=RoomCommand)
@_ring
@owner_option
@label_option
@click.option(
    "--usage",
    type=click.Choice(["personal", "certauth", "site"], case_sensitive=False),
    help="What it is for; by its owner if not given.",
)
@click.option("--default", "is_default", is_flag=True, help="Make it the ring's default certificate.")
@store_options
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
    store = open_store(directory, passphrase_file)
    chosen = Usage(usage.upper()) if usage else default_usage(owner)
    changed = store.connect(*names.split_ring(ring), Connection(names.check_owner(owner), label, chosen, is_default))
    stored = store.certificate(owner, label)
    text = f"connected {stored.name} to {changed.reference} as {chosen.value}{', default' if is_default else ''}"
    if stored.trust is Trust.NOTRUST:
        text += f"\nnote: it is NOTRUST and so counts for nothing; attls cert trust {names.options(owner, label)}"
    if chosen is Usage.PERSONAL and store.has_key(stored) is False:
        text += "\nnote: the store has no private key for it, so it cannot be presented to a peer"
    print_result(_ring_document(store, changed), text, as_json=as_json)


@keyring.command("remove", cls=RoomCommand)
@_ring
@owner_option
@label_option
@store_options
def keyring_remove(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str, owner: str, label: str
) -> None:
    """Take a certificate off a ring; it stays in the store."""
    store = open_store(directory, passphrase_file)
    changed = store.disconnect(*names.split_ring(ring), certificate_owner=owner, label=label)
    print_result(
        _ring_document(store, changed), f"removed '{label}' of {owner} from {changed.reference}", as_json=as_json
    )


@keyring.command("delete", cls=RoomCommand)
@_ring
@store_options
def keyring_delete(*, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str) -> None:
    """Delete a ring; the certificates on it stay in the store."""
    store = open_store(directory, passphrase_file)
    store.delete_ring(*names.split_ring(ring))
    print_result({"ring": ring}, f"deleted ring {ring}", as_json=as_json)


@keyring.command("list", cls=AskingCommand)
@click.argument("ring", metavar="[USER/RING]", required=False, shell_complete=complete_ring)
@store_options
def keyring_list(*, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str | None) -> None:
    """List the rings, or what is on one; USER/ lists the rings of one user.

    Also of a virtual ring (USER/*, *AUTH*/*, *SITE*/*), and of a file or directory that a policy may name by its path.
    """
    store = open_store(directory, passphrase_file)
    if ring is not None and ring.startswith(("/", "./", "../")):
        _show_ring(_opened_document(store.ring(ring)), as_json=as_json)
        return
    if ring is not None and ring.partition("/")[2]:
        document = _ring_document(store, store.connections(ring))
        if ring.upper() == "*AUTH*/*":
            document["entries"] = _authorities(store, document["entries"])
        _show_ring(document, as_json=as_json)
        return
    found = store.rings(ring.partition("/")[0] if ring else None)
    if as_json:
        print_result([_ring_document(store, one) for one in found], "", as_json=True)
    elif not found:
        click.echo(f"no rings in {directory}" + (f" for {ring.partition('/')[0]}" if ring else ""))
    else:
        rows = []
        for one in found:
            default = next((line.label for line in one.connections if line.default), "-")
            rows.append((one.reference, str(len(one.connections)), default))
        print_table(("RING", "CERTIFICATES", "DEFAULT"), rows)


def _show_ring(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_result(document, "", as_json=True)
        return
    if not document["entries"]:
        click.echo(f"ring {document['ring']} is empty")
        return
    rows = []
    for entry in document["entries"]:
        facts = ["missing", "-", "-"]
        if "problem" not in entry:
            ends = datetime.datetime.fromisoformat(entry["not_after"])
            starts = datetime.datetime.fromisoformat(entry["not_before"])
            facts = [entry["trust"], key_word(entry["private_key"]), time_left(starts, ends)]
        default = "yes" if entry["default"] else "no"
        rows.append((entry["label"], entry["owner"], entry["usage"].upper(), default, *facts))
    print_table(("LABEL", "OWNER", "USAGE", "DEFAULT", "TRUST", "KEY", "ENDS IN"), rows)


def _ring_document(store: Store, ring: Ring) -> dict[str, Any]:
    entries = []
    for line in ring.connections:
        entry = _entry_document(line.owner, line.label, line.usage, is_default=line.default)
        try:
            stored = store.certificate(line.owner, line.label)
            entry |= _entry_facts(stored.certificate, stored.trust, store.has_key(stored))
        except KeyringError as error:
            entry["problem"] = str(error)
        entries.append(entry)
    return {"ring": ring.reference, "owner": ring.shown_owner, "name": ring.name, "entries": entries}


def _opened_document(ring: Keyring) -> dict[str, Any]:
    entries = []
    for one in ring.entries:
        entry = _entry_document(one.owner, one.label, one.usage, is_default=one.default)
        certificate = certificates.load_certificate(one.certificate)
        entries.append(entry | _entry_facts(certificate, one.trust, one.private_key is not None))
    return {"ring": ring.name, "owner": None, "name": ring.name, "entries": entries}


def _authorities(store: Store, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # What *AUTH*/* means by the settings of the store.
    wanted = store.settings().virtual_auth
    others = _opened_document(Keyring("", system_trust()))["entries"] if wanted != "store" else []
    return others if wanted == "system" else own + others


def _entry_document(owner: str, label: str, usage: Usage, *, is_default: bool) -> dict[str, Any]:
    return {"owner": owner, "label": label, "usage": usage.value.lower(), "default": is_default}


def _entry_facts(certificate: certificates.Certificate, trust: Trust, private_key: bool | None) -> dict[str, Any]:
    return {
        "trust": trust.value,
        "private_key": private_key,
        "subject": certificate.subject.rfc4514_string(),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
    }


@keyring.command("verify", cls=AskingCommand)
@click.argument("ring", metavar="[USER/RING]", required=False, shell_complete=complete_ring)
@click.option(
    "--expiring", type=click.IntRange(0), default=30, show_default=True, metavar="DAYS", help="Warn this early."
)
@store_options
def keyring_verify(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str | None, expiring: int
) -> None:
    """Find damage, loose permissions, missing chains and certificates about to expire, and say how to mend each.

    Exits with 1 when something is unusable or unsafe now; warnings alone leave it at 0.
    """
    store = open_store(directory, passphrase_file)
    one = store.definition(*names.split_ring(ring)) if ring else None
    findings = inspection.inspect(store, now=current_time(), expiring_days=expiring, ring=one)
    failed = any(finding.severity == "error" for finding in findings)
    if as_json:
        items = [
            {"severity": one.severity, "where": one.where, "problem": one.problem, "mend": one.mend} for one in findings
        ]
        print_result({"ok": not failed, "findings": items}, "", as_json=True)
    else:
        for finding in findings:
            click.echo(plain(f"{finding.severity}: {finding.where}: {finding.problem}\n    {finding.mend}"))
        errors = sum(finding.severity == "error" for finding in findings)
        click.echo(f"{ring or directory}: {counted(errors, 'error')}, {counted(len(findings) - errors, 'warning')}")
    if failed:
        raise click.exceptions.Exit(1)


@keyring.command("encrypt", cls=RoomCommand)
@click.option(
    "--new-passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File whose first line is the new passphrase; asked for when not given.",
)
@store_options
def keyring_encrypt(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, new_passphrase_file: Path | None
) -> None:
    """Encrypt all private keys of the store, now and in future, or change their passphrase.

    The daemon finds the passphrase in the file named by ATTLS_PASSPHRASE_FILE or in the systemd credential
    attls-passphrase. A change of passphrase that was interrupted leaves some keys under the old one; run it again
    on a backup then.
    """
    store = open_store(directory, passphrase_file)
    if new_passphrase_file is not None:
        passphrase = files.read_password(new_passphrase_file)
    elif sys.stdin.isatty():
        prompt = "New passphrase of the keyring store"
        passphrase = str(click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)).encode()
    else:
        raise click.UsageError("give the new passphrase with --new-passphrase-file")
    count = store.reencrypt(passphrase)
    print_result({"encrypted": True, "keys": count}, f"encrypted {counted(count, 'key')}", as_json=as_json)


@keyring.command("decrypt", cls=RoomCommand)
@store_options
def keyring_decrypt(*, directory: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Keep all private keys of the store unencrypted again, protected by their file permissions alone."""
    count = open_store(directory, passphrase_file).reencrypt(None)
    print_result({"encrypted": False, "keys": count}, f"decrypted {counted(count, 'key')}", as_json=as_json)


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
@store_options
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
    store = open_store(directory, passphrase_file)
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
    print_result(document, "\n".join(lines), as_json=as_json)


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
@store_options
def keyring_grant(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str, user: str, access: str
) -> None:
    """Let a user read a ring (USER/RING, USER/* or *AUTH*/*); counts when the settings are strict."""
    store = open_store(directory, passphrase_file)
    store.set_grant(ring, user, Access[access.upper()])
    text = f"{user} may read {ring} ({access})"
    if not store.settings().grants:
        text += "\nnote: grants are not asked for yet; attls keyring settings --strict"
    print_result({"ring": ring, "user": user, "access": access}, text, as_json=as_json)


@keyring.command("revoke", cls=RoomCommand)
@_ring
@click.option("--user", required=True, metavar="USER", help="Who may no longer read it.")
@store_options
def keyring_revoke(*, directory: Path, passphrase_file: Path | None, as_json: bool, ring: str, user: str) -> None:
    """Take a grant back."""
    open_store(directory, passphrase_file).set_grant(ring, user, None)
    print_result({"ring": ring, "user": user}, f"{user} has no grant for {ring} any more", as_json=as_json)


@keyring.command("grants", cls=AskingCommand)
@store_options
def keyring_grants(*, directory: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """List who was granted which ring."""
    found = open_store(directory, passphrase_file).grants()
    if as_json:
        print_result(
            [{"ring": one.ring, "user": one.user, "access": one.access.name.lower()} for one in found], "", as_json=True
        )
    elif not found:
        click.echo(f"no grants in {directory}")
    else:
        print_table(("RING", "USER", "ACCESS"), [(one.ring, one.user, one.access.name.lower()) for one in found])


keyring.add_command(import_crl)  # where it is looked for as often as among the certificates

COMMANDS = (keyring,)
