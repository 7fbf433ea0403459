"""`attls cert`: make, sign, import, export and keep certificates."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from attls.cli.crl import delete_crl, import_crl, list_crls
from attls.cli.store import (
    AskingCommand,
    RoomCommand,
    any_owner_option,
    certificate_document,
    complete_authority,
    complete_label,
    complete_owner,
    counted,
    current_time,
    days_left,
    find_certificate,
    key_word,
    label_option,
    one_line,
    open_store,
    owner_option,
    password_file_option,
    password_in,
    print_result,
    print_table,
    read_contents,
    store_options,
    texts,
    write_out,
)
from attls.errors import KeyringError
from attls.keyring import Store, Trust, certificates, names, operations, revocation
from attls.keyring.store import StoredCertificate


def _trust_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for flag, value in (("--hightrust", "HIGHTRUST"), ("--notrust", "NOTRUST"), ("--trust", "TRUST")):
        function = click.option(flag, "trust", flag_value=value, help=f"Mark the certificate {value}.")(function)
    return function


_days = click.IntRange(1, certificates.MOST_DAYS)
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
    shell_complete=complete_authority,
    help="Label of the authority that signs.",
)
_signer_owner = click.option(
    "--sign-with-owner", default=names.CERTAUTH, show_default=True, help="Owner of that authority."
)


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


# Certificates ------------------------------------------------------------------------------------------------------


@click.group()
def cert() -> None:
    """Make, sign, import, export and keep certificates."""


@cert.command("create-ca", cls=RoomCommand)
@label_option
@click.option("--cn", required=True, help="Common name of the authority.")
@click.option("--owner", default=names.CERTAUTH, show_default=True, metavar="USER", help="Owner of the certificate.")
@_key_type
@click.option("--days", type=_days, default=certificates.AUTHORITY_DAYS, show_default=True, help="Validity.")
@_subject
@click.option("--sign-with", metavar="CALABEL", help="Make an intermediate authority signed by this one.")
@_signer_owner
@click.option("--path-length", type=click.IntRange(0), help="How many further authorities may follow below this one.")
@_with_urls
@store_options
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
    store = open_store(directory, passphrase_file)
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
        now=current_time(),
    )
    _made(store, stored, days, as_json=as_json)


def _made(store: Store, stored: StoredCertificate, days: int, *, as_json: bool) -> None:
    ends = stored.certificate.not_valid_after_utc
    text = f"created {stored.name}, valid until {ends:%Y-%m-%d}"
    if ends < current_time() + datetime.timedelta(days=days - 1):
        text += f" (not {days} days, because the authority that signed it ends then)"
    print_result(certificate_document(store, stored), text, as_json=as_json)


@cert.command("issue", cls=RoomCommand)
@owner_option
@label_option
@click.option("--cn", required=True, help="Common name.")
@_sign_with
@_signer_owner
@_san
@_key_type
@click.option("--days", type=_days, default=certificates.LEAF_DAYS, show_default=True, help="Validity.")
@_subject
@_purpose
@_with_urls
@store_options
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
    store = open_store(directory, passphrase_file)
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
        now=current_time(),
    )
    _made(store, stored, days, as_json=as_json)


@cert.command("import", cls=RoomCommand)
@owner_option
@label_option
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--key", type=click.Path(path_type=Path), help="File of the private key, if it is not in FILE.")
@password_file_option
@_trust_options
@click.option("--no-chain", is_flag=True, help="Leave out the authorities that FILE brings along.")
@store_options
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
    store = open_store(directory, passphrase_file)
    contents = read_contents(file, password_file)
    if key is not None:
        contents.keys += read_contents(key, password_file).keys
        if not contents.keys:
            raise KeyringError(f"there is no private key in {key}", 428)
    done = operations.import_certificate(
        store,
        owner=owner,
        label=label,
        contents=contents,
        trust=Trust(trust) if trust else None,
        source=str(file) if key is None else f"{file} and {key}",
        now=current_time(),
        with_chain=not no_chain,
        chain_trust=Trust(trust) if trust else None,
    )
    lines = [f"{'renewed' if done.renewed else 'imported'} {done.stored.name}, {done.stored.trust.value}"]
    for authority in done.authorities:
        lines.append(f"also added the authority {authority.name}, {authority.trust.value}")
        if authority.trust is Trust.NOTRUST:
            lines.append(f"  to trust it: attls cert trust {names.options(names.CERTAUTH, authority.label)}")
    lists = []
    for crl in contents.crls:
        try:
            for authority in operations.import_crl(store, crl, owner=None, label=None, now=current_time()):
                lists.append({"owner": authority.owner, "label": authority.label})
                lines.append(f"also added the revocation list of {authority.name}")
        except KeyringError as error:
            lines.append(f"left out a revocation list: {error}")
    document = certificate_document(store, done.stored)
    document["renewed"] = done.renewed
    document["authorities"] = [
        {"owner": authority.owner, "label": authority.label, "trust": authority.trust.value}
        for authority in done.authorities
    ]
    document["revocation_lists"] = lists
    print_result(document, "\n".join(lines), as_json=as_json)


@cert.command("export", cls=RoomCommand)
@any_owner_option
@label_option
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
@password_file_option
@store_options
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
    if with_key and form in ("der", "p7b"):
        raise click.UsageError(f"{form} holds no private keys; use --format p12 or pem with --with-key")
    store = open_store(directory, passphrase_file)
    stored = find_certificate(store, owner, label)
    password = password_in(password_file)
    if form == "p12" and with_key and password is None and sys.stdin.isatty():
        prompt = f"Password for {out}"
        password = str(click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)).encode()
    content = operations.export(store, stored, form=form, with_key=with_key, with_chain=chain, password=password)
    write_out(out, content, secret=with_key)
    document = {"owner": stored.shown_owner, "label": label, "format": form, "with_key": with_key, "file": str(out)}
    text = f"wrote {stored.name} to {out}{' with its private key' if with_key else ''}"
    if str(out) != "-":
        print_result(document, text, as_json=as_json)


@cert.command("list", cls=AskingCommand)
@click.option("--owner", metavar="USER", shell_complete=complete_owner, help="Only certificates of this owner.")
@store_options
def list_(*, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str | None) -> None:
    """List the certificates of the store."""
    store = open_store(directory, passphrase_file)
    found = store.certificates(owner)
    if as_json:
        print_result([certificate_document(store, stored) for stored in found], "", as_json=True)
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
            key_word(store.has_key(stored)),
            certificates.key_type(stored.certificate.public_key()),
            days_left(stored.certificate),
            certificates.common_name(stored.certificate),
        )
        for stored in found
    ]
    rows += [(name, label, "-", "yes", "-", "requested", "-") for name, label in waiting]
    print_table(("OWNER", "LABEL", "TRUST", "KEY", "KEY TYPE", "ENDS IN", "COMMON NAME"), rows)


@cert.command("show", cls=AskingCommand)
@any_owner_option
@label_option
@store_options
def show(*, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str | None, label: str) -> None:
    """Show one certificate and the chain of its issuers."""
    store = open_store(directory, passphrase_file)
    stored = find_certificate(store, owner, label)
    issuers = operations.issuers(store, stored.certificate)
    top = [stored.certificate, *issuers][-1]
    complete = certificates.is_self_signed(top)
    document = certificate_document(store, stored)
    document["chain"] = [certificates.summary(issuer)["subject"] for issuer in issuers]
    document["chain_complete"] = complete
    document["pem"] = certificates.pem(stored.certificate).decode()
    rows = [
        ("Owner", stored.shown_owner),
        ("Label", stored.label),
        ("Trust", stored.trust.value),
        ("Private key", key_word(store.has_key(stored))),
        ("Subject", str(document["subject"])),
        ("Issuer", str(document["issuer"])),
        ("Serial number", str(document["serial"])),
        ("Valid from", f"{stored.certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC"),
        (
            "Valid until",
            f"{stored.certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC ({days_left(stored.certificate)})",
        ),
        ("Alternative names", ", ".join(texts(document["san"])) or "none"),
        ("Key type", str(document["key_type"])),
        ("Authority", "yes" if document["is_ca"] else "no"),
        ("Key usage", ", ".join(texts(document["key_usage"])) or "any"),
        ("Extended usage", ", ".join(texts(document["extended_key_usage"])) or "any"),
        ("Signature", str(document["signature"])),
        ("Fingerprint", str(document["fingerprint"])),
        ("Chain", " <- ".join(certificates.common_name(issuer) for issuer in [stored.certificate, *issuers])),
        (
            "Chain complete",
            "yes" if complete else f"no: {certificates.name_of(top.issuer)} is not among the trusted authorities",
        ),
        ("Rings", ", ".join(texts(document["rings"])) or "none"),
    ]
    print_result(document, "\n".join(one_line(f"{name + ':':<19}{value}") for name, value in rows), as_json=as_json)


@cert.command("inspect", cls=RoomCommand)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@password_file_option
@store_options
def inspect_(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, file: Path, password_file: Path | None
) -> None:
    """Show what a file holds, and whether the store has it, without importing anything."""
    store = open_store(directory, passphrase_file)
    contents = read_contents(file, password_file)
    items: list[dict[str, object]] = []
    for certificate in contents.certificates:
        known = store.find_same(certificate)
        name = {"owner": known.shown_owner, "label": known.label} if known else None
        items.append({"known_as": name, **certificates.summary(certificate)})
    document = {
        "certificates": items,
        "private_keys": len(contents.keys),
        "requests": len(contents.requests),
        "revocation_lists": [certificates.crl_summary(crl) for crl in contents.crls],
    }
    lines = []
    for item, certificate in zip(items, contents.certificates, strict=True):
        known = store.find_same(certificate)
        lines.append(f"certificate {item['subject']}")
        lines.append(f"  issued by {item['issuer']}{', an authority' if item['is_ca'] else ''}")
        lines.append(
            f"  ends in {days_left(certificate)}, {item['key_type']}, {', '.join(texts(item['san'])) or 'no names'}"
        )
        lines.append(f"  {f'in the store as {known.name}' if known else 'not in the store'}")
    for asked in contents.requests:
        lines.append(f"request for {asked.subject.rfc4514_string()}")
    for crl in contents.crls:
        said = certificates.crl_summary(crl)
        lines.append(f"revocation list of {said['issuer']}")
        lines.append(f"  {counted(len(crl), 'revoked certificate')}, good until {said['next_update']}")
    lines.append(f"{counted(len(contents.keys), 'private key')}")
    print_result(document, "\n".join(one_line(line) for line in lines), as_json=as_json)


@cert.command("renew", cls=RoomCommand)
@owner_option
@label_option
@click.option("--new-key", is_flag=True, help="Make a new key too (else the key stays).")
@click.option(
    "--key-type",
    type=click.Choice(certificates.KEY_TYPES, case_sensitive=False),
    help="Kind of the new key; implies --new-key.",
)
@click.option("--days", type=_days, help="Validity; as long as before if not given.")
@click.option("--sign-with", metavar="CALABEL", help="Have it signed by another authority than before.")
@_signer_owner
@store_options
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
    store = open_store(directory, passphrase_file)
    stored = operations.renew(
        store,
        owner=owner,
        label=label,
        new_key=new_key or key_type is not None,
        key_type=key_type,
        days=days,
        now=current_time(),
        signed_by=operations.signer(store, sign_with, sign_with_owner) if sign_with else None,
    )
    text = f"renewed {stored.name}, valid until {stored.certificate.not_valid_after_utc:%Y-%m-%d}"
    print_result(certificate_document(store, stored), text, as_json=as_json)


@cert.command("rollover", cls=RoomCommand)
@owner_option
@label_option
@click.option(
    "--new-label", required=True, shell_complete=complete_label, help="Label of the certificate that takes over."
)
@store_options
def rollover(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str, label: str, new_label: str
) -> None:
    """Put another certificate in the place of this one on all rings, and delete this one's private key."""
    store = open_store(directory, passphrase_file)
    stored = operations.rollover(store, owner=owner, label=label, new_label=new_label, now=current_time())
    rings = [ring.reference for ring in store.rings_with(stored.owner, stored.label)]
    text = f"{stored.name} took the place of '{label}' on {', '.join(rings) or 'no ring'}"
    print_result(certificate_document(store, stored), text, as_json=as_json)


@cert.command("delete", cls=RoomCommand)
@owner_option
@label_option
@store_options
def delete(*, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str, label: str) -> None:
    """Delete a certificate and its private key, and take it off all rings."""
    store = open_store(directory, passphrase_file)
    rings = [ring.reference for ring in store.delete(owner, label)]
    text = f"deleted '{label}' of {owner}" + (f", also from {', '.join(rings)}" if rings else "")
    print_result({"owner": owner, "label": label, "rings": rings}, text, as_json=as_json)


@cert.command("rename", cls=RoomCommand)
@owner_option
@label_option
@click.option("--new-label", required=True, help="The new label.")
@store_options
def rename(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str, label: str, new_label: str
) -> None:
    """Give a certificate another label, on all rings too."""
    store = open_store(directory, passphrase_file)
    stored = store.relabel(owner, label, new_label)
    print_result(certificate_document(store, stored), f"'{label}' is now {stored.name}", as_json=as_json)


@cert.command("request", cls=RoomCommand)
@owner_option
@label_option
@click.option("--cn", help="Common name; not needed for a certificate that is in the store.")
@_san
@_key_type
@_subject
@click.option("--out", type=click.Path(path_type=Path, allow_dash=True), default=Path("-"), help="File to write.")
@store_options
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
    store = open_store(directory, passphrase_file)
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
        write_out(out, content, secret=False)
    text = content.decode().rstrip() if str(out) == "-" else f"wrote the request for '{label}' of {owner} to {out}"
    print_result(document, text, as_json=as_json)


@cert.command("sign", cls=RoomCommand)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@_sign_with
@_signer_owner
@click.option("--cn", help="Common name instead of the one that is requested.")
@_san
@click.option("--days", type=_days, default=certificates.LEAF_DAYS, show_default=True, help="Validity.")
@_subject
@_purpose
@click.option("--ca", is_flag=True, help="Make it an authority.")
@_with_urls
@click.option("--owner", metavar="USER", help="Keep the certificate in the store too, under this owner.")
@click.option("--label", help="Label to keep it under.")
@click.option("--out", type=click.Path(path_type=Path, allow_dash=True), default=Path("-"), help="File to write.")
@store_options
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
    store = open_store(directory, passphrase_file)
    requests = read_contents(file, None).requests
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
    certificate = operations.sign_request(requests[0], signed_by=authority, profile=profile, now=current_time())
    if owner is not None and label is not None:
        store.add(owner, label, certificate, trust=Trust.TRUST)
    content = certificates.pem(certificate)
    if str(out) != "-":
        write_out(out, content, secret=False)
    summary = certificates.summary(certificate)
    document = {**summary, "pem": content.decode(), "file": str(out)}
    text = content.decode().rstrip()
    if str(out) != "-":
        text = f"signed {summary['subject']} ({', '.join(texts(summary['san'])) or 'no alternative names'}) into {out}"
    print_result(document, text, as_json=as_json)


@cert.command("revoke", cls=RoomCommand)
@any_owner_option
@click.option("--label", shell_complete=complete_label, help="Label of the certificate.")
@click.option("--serial", metavar="HEX", help="Instead: serial number of a certificate that is not in the store.")
@click.option("--issuer", metavar="CALABEL", help="Authority that issued it; needed with --serial.")
@click.option(
    "--reason",
    type=click.Choice(revocation.REASONS),
    default="unspecified",
    show_default=True,
    help="Why.",
)
@store_options
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
    store = open_store(directory, passphrase_file)
    if (label is None) == (serial is None) or (serial is not None and issuer is None):
        raise click.UsageError("give either --label, or --serial and --issuer")
    if label is not None:
        stored = find_certificate(store, owner, label)
        authority, number = operations.authority_of(store, stored), stored.certificate.serial_number
        what = stored.name
    else:
        authority = store.certificate(names.CERTAUTH, str(issuer))
        try:
            number = int(str(serial).replace(":", ""), 16)
        except ValueError as error:
            raise click.BadParameter(f"{serial} is no hexadecimal number", param_hint="--serial") from error
        what = f"certificate {number:X}"
    store.revoke(authority.owner, authority.label, revocation.Revocation.of(number, current_time(), reason))
    document = {"serial": f"{number:X}", "issuer": authority.label, "reason": reason}
    text = (
        f"revoked {what}; now publish a new list: attls cert crl --label {names.for_shell(authority.label)} --out FILE"
    )
    print_result(document, text, as_json=as_json)


@cert.command("crl", cls=RoomCommand)
@label_option
@click.option("--owner", default=names.CERTAUTH, show_default=True, metavar="USER", help="Owner of the authority.")
@click.option("--days", type=_days, default=7, show_default=True, help="Validity.")
@click.option(
    "--format", "form", type=click.Choice(["pem", "der"]), default="pem", show_default=True, help="File format."
)
@click.option("--out", type=click.Path(path_type=Path, allow_dash=True), required=True, help="File to write.")
@store_options
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
    store = open_store(directory, passphrase_file)
    revoked, now = store.revocations(owner, label), current_time()
    made = revocation.build_crl(
        operations.signer(store, label, owner),
        revoked,
        now=now,
        lifetime=datetime.timedelta(days=days),
        number=int(now.timestamp() * 1000),  # grows from list to list without being kept anywhere
    )
    encoding = certificates.PEM_ENCODING if form == "pem" else certificates.DER_ENCODING
    write_out(out, made.public_bytes(encoding), secret=False)
    document = {"issuer": label, "revoked": len(revoked), "file": str(out)}
    if str(out) != "-":
        print_result(
            document,
            f"wrote the CRL of '{label}' with {counted(len(revoked), 'certificate')} to {out}",
            as_json=as_json,
        )


@cert.command("trust", cls=RoomCommand)
@owner_option
@label_option
@_trust_options
@store_options
def trust_(
    *, directory: Path, passphrase_file: Path | None, as_json: bool, owner: str, label: str, trust: str | None
) -> None:
    """Say whether a certificate is trusted; TRUST if nothing else is given."""
    store = open_store(directory, passphrase_file)
    stored = store.set_trust(owner, label, Trust(trust or "TRUST"))
    print_result(certificate_document(store, stored), f"{stored.name} is now {stored.trust.value}", as_json=as_json)


for _command in (import_crl, list_crls, delete_crl):
    cert.add_command(_command)

COMMANDS = (cert,)
