"""`keyring verify`: what is wrong with a store, and the command that mends it.

Every other part of the room stops at the first problem; this one collects all of them, so it reads each file on its
own and survives any damage. An `error` makes something unusable or unsafe now, a `warning` will or may.
"""

from __future__ import annotations

import contextlib
import datetime
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from attls.errors import KeyringError
from attls.keyring import certificates, files, names, revocation
from attls.keyring.opening import Store
from attls.keyring.store import Ring, StoredCertificate, key_id
from attls.keyring.values import Trust, Usage

_RING_ADVICE = "attls keyring connect {ring} {options}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem: `severity` is `error` or `warning`, `where` names file, certificate or ring, `mend` says how."""

    severity: str
    where: str
    problem: str
    mend: str


def inspect(
    store: Store, *, now: datetime.datetime, expiring_days: int = 30, ring: Ring | None = None
) -> list[Finding]:
    """Look at the whole store, or at one ring and what is on it, and return all that is wrong."""
    if not store.directory.is_dir():
        raise names.MissingError(f"there is no keyring store at {store.directory}")
    if ring is not None:
        findings = [*_ring_findings(store, ring, now=now), *_locked_keys(store)]
        for line in ring.connections:
            with contextlib.suppress(KeyringError):
                stored = store.certificate(line.owner, line.label)
                findings += _certificate_findings(store, stored, now=now, expiring_days=expiring_days)
                if (stored.owner, stored.label) in store.crls():
                    findings += _crl_findings(store, stored.owner, stored.label, now=now)
        return findings
    findings = [*_file_findings(store), *_setting_findings(store), *_locked_keys(store)]
    certificates_found: list[StoredCertificate] = []
    for owner in store.owners():
        for label in store.labels(owner):
            try:
                stored = store.certificate(owner, label)
            except KeyringError as error:
                # A permission problem was reported with its file already.
                if "run: ch" not in str(error):
                    again = f"attls cert import {names.options(owner, label)} FILE"
                    mend = f"put it back from a backup, or import it again: {again}"
                    findings.append(_damage(f"'{label}' of {owner}", error, mend))
                continue
            certificates_found.append(stored)
            findings += _certificate_findings(store, stored, now=now, expiring_days=expiring_days)
    findings += _orphan_keys(store, certificates_found)
    findings += _rings(store, now=now)
    for owner, label in store.crls():
        findings += _crl_findings(store, owner, label, now=now)
    findings += _guarded(
        "user mapping", lambda: store.filters() and None, "correct the file, or delete it and add it again"
    )
    findings += _guarded("user mapping", lambda: store.criteria() and None, "correct the file, or delete it")
    findings += _guarded("grants.toml", lambda: store.grants() and None, "correct the file, or delete it")
    return findings


def _damage(where: str, error: KeyringError, mend: str) -> Finding:
    return Finding("error", where, str(error), mend)


def _guarded(where: str, look: Callable[[], object], mend: str) -> Iterator[Finding]:
    try:
        look()
    except KeyringError as error:
        if "run: ch" not in str(error):
            yield _damage(where, error, mend)


def _remove(path: Path) -> str:
    return f"rm {names.for_shell(str(path))}"


# Files -------------------------------------------------------------------------------------------------------------


def _file_findings(store: Store) -> Iterator[Finding]:
    private = store.directory / "private"
    yield from _permissions(store.directory, secret=False)
    for path in _walk(store.directory):
        secret = path == private or private in path.parents
        if path.name in {"README.md", ".gitignore", "make-demo-rings"} and path.parent == store.directory:
            continue
        if files.is_leftover(path):
            yield Finding("warning", str(path), "left behind by a command that was killed", _remove(path))
            continue
        yield from _permissions(path, secret=secret or path.name == ".lock")


def _walk(directory: Path) -> Iterator[Path]:
    try:
        children = sorted(directory.iterdir())
    except OSError:
        return  # whoever may not look there is told so by `_permissions`
    for path in children:
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _permissions(path: Path, *, secret: bool) -> Iterator[Finding]:
    try:
        status = path.stat()
    except OSError as error:
        yield Finding(
            "error", str(path), f"cannot be looked at: {error.strerror}", "use the account that owns the store"
        )
        return
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        yield Finding("error", str(path), "is neither a file nor a directory", _remove(path))
    problem = files.permission_problem(path, status, secret=secret)
    if problem:
        text, _, mend = problem.partition("; ")
        yield Finding("error", str(path), text, mend.rpartition("run: ")[2])


def _setting_findings(store: Store) -> Iterator[Finding]:
    try:
        settings = store.settings()
    except KeyringError as error:
        yield _damage("store.toml", error, "correct the line")
        return
    if settings.encrypt_keys:
        for path in store.key_files():
            with contextlib.suppress(KeyringError, OSError):
                if b"ENCRYPTED" not in files.read_secret(path):
                    yield Finding(
                        "warning", str(path), "is not encrypted, though the store says so", "attls keyring encrypt"
                    )


def _locked_keys(store: Store) -> Iterator[Finding]:
    """Say once that encrypted keys were not looked into, instead of calling each of them damaged."""
    locked = 0
    for path in store.key_files():
        with contextlib.suppress(KeyringError, OSError):
            locked += b"ENCRYPTED" in files.read_secret(path)
    if locked and not store.has_passphrase():
        problem = f"{locked} encrypted private keys were not looked into, because no passphrase was given"
        mend = "attls keyring verify --passphrase-file FILE"
        yield Finding("warning", str(store.directory / "private"), problem, mend)


def _orphan_keys(store: Store, found: list[StoredCertificate]) -> Iterator[Finding]:
    expected = {(one.owner, one.label, key_id(one.certificate)) for one in found}
    damaged = {(owner, label) for owner in store.owners() for label in store.labels(owner)} - {
        (one.owner, one.label) for one in found
    }
    waiting = set(store.requests())
    for path in store.key_files():
        stem, _, identifier = path.name.removesuffix(".key").rpartition(".")
        owner, label = names.from_file_name(path.parent.name), names.from_file_name(stem)
        if (owner, label) in waiting | damaged or (owner, label, identifier) in expected:
            continue
        yield Finding("warning", str(path), "is the key of no certificate in the store", _remove(path))


# Certificates ------------------------------------------------------------------------------------------------------


def _certificate_findings(
    store: Store, stored: StoredCertificate, *, now: datetime.datetime, expiring_days: int
) -> Iterator[Finding]:
    option = names.options(stored.shown_owner, stored.label)
    certificate = stored.certificate
    left = certificate.not_valid_after_utc - now
    if left < datetime.timedelta(0):
        ended = f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        yield Finding("error", stored.name, ended, _renewal(store, stored, option))
    elif left < datetime.timedelta(days=expiring_days):
        yield Finding("warning", stored.name, f"expires in {left.days} days", _renewal(store, stored, option))
    if now < certificate.not_valid_before_utc:
        starts = f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        yield Finding("error", stored.name, starts, "check the clock of this machine, or wait")
    yield from _strength(stored, option)
    try:
        store.private_key_pem(stored)
    except PermissionError:
        yield Finding(
            "warning", stored.name, "its private key cannot be read by this account", "run it as the store's owner"
        )
    except KeyringError as error:
        if "run: ch" not in str(error):  # loose permissions were reported with the file
            if error.code == 408 and store.has_passphrase():  # without one `_locked_keys` has told
                yield _damage(stored.name, error, "give the right passphrase with --passphrase-file")
            elif error.code != 408:
                yield _damage(
                    stored.name, error, f"import it again with its key: attls cert import {option} FILE --key KEY"
                )


def _renewal(store: Store, stored: StoredCertificate, option: str) -> str:
    own = certificates.is_self_signed(stored.certificate)
    issuers = [one for one in _readable(store) if certificates.is_issued_by(stored.certificate, one.certificate)]
    with contextlib.suppress(OSError):
        if any(store.has_key(one) for one in ([stored] if own else issuers)):
            return f"attls cert renew {option}"
    return f"get a new one from its issuer: attls cert request {option}, then attls cert import {option} FILE"


def _readable(store: Store) -> Iterator[StoredCertificate]:
    for owner in store.owners():
        for label in store.labels(owner):
            with contextlib.suppress(KeyringError):
                yield store.certificate(owner, label)


def _strength(stored: StoredCertificate, option: str) -> Iterator[Finding]:
    certificate = stored.certificate
    public = certificate.public_key()
    mend = f"replace it; if it is yours: attls cert renew {option} --new-key --key-type ecdsa-p256"
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < 2048:
        yield Finding("warning", stored.name, f"its RSA key has only {public.key_size} bits; peers refuse it", mend)
    weak = certificate.signature_hash_algorithm
    if isinstance(weak, hashes.SHA1 | hashes.MD5) and not certificates.is_self_signed(certificate):
        yield Finding("warning", stored.name, f"is signed with {weak.name}; peers refuse it", mend)
    if stored.owner == names.CERTAUTH and not certificates.is_authority(certificate):
        yield Finding(
            "warning",
            stored.name,
            "is kept as CERTAUTH but says it is no authority, so nothing can be verified with it",
            f"keep it as SITE: attls cert export {option} --out FILE, then attls cert import --owner SITE",
        )


def _crl_findings(store: Store, owner: str, label: str, *, now: datetime.datetime) -> Iterator[Finding]:
    where = f"revocation list of '{label}' of {owner}"
    again = f"get the current one, then: attls cert import-crl FILE {names.options(owner, label)}"
    try:
        crl = store.crl(owner, label)
        authority = store.certificate(owner, label)
    except names.MissingError:
        yield Finding("warning", where, "is kept for nobody", _remove(store.crl_path(owner, label)))
        return
    except KeyringError as error:
        if "run: ch" not in str(error):
            yield _damage(where, error, again)
        return
    if crl is None:
        return  # let go of since the names were read
    problem = revocation.crl_problem(crl, authority.certificate, now=now)
    ends = crl.next_update_utc
    if ends is not None and ends < now:
        problem = (
            f"ended at {ends:%Y-%m-%d %H:%M} UTC; unless RevocationSecurityLevel is Low, whom it is about is refused"
        )
    if problem is not None:
        yield Finding("error", where, problem, again)
    elif ends is not None and ends - now < min(datetime.timedelta(days=1), (ends - crl.last_update_utc) / 4):
        yield Finding("warning", where, f"ends at {ends:%Y-%m-%d %H:%M} UTC", again)


# Rings -------------------------------------------------------------------------------------------------------------


def _rings(store: Store, *, now: datetime.datetime) -> Iterator[Finding]:
    base = store.directory / "rings"
    for path in sorted(base.glob("*/*.toml")):
        owner, name = names.from_file_name(path.parent.name), names.from_file_name(path.stem)
        try:
            ring = store.definition(owner, name)
        except KeyringError as error:
            if "run: ch" not in str(error):
                yield _damage(
                    f"ring {owner}/{name}", error, f"attls keyring delete {names.for_shell(f'{owner}/{name}')}"
                )
            continue
        yield from _ring_findings(store, ring, now=now)


def _ring_findings(store: Store, ring: Ring, *, now: datetime.datetime) -> Iterator[Finding]:
    where, word = f"ring {ring.reference}", names.for_shell(ring.reference)
    present: list[x509.Certificate] = []
    personal: list[StoredCertificate] = []
    if not ring.connections:
        yield Finding("warning", where, "is empty", f"attls keyring connect {word} --owner USER --label LABEL")
    for line in ring.connections:
        off = f"attls keyring remove {word} {names.options(line.owner, line.label)}"
        try:
            stored = store.certificate(line.owner, line.label)
        except names.MissingError:
            yield Finding("error", where, f"connects '{line.label}' of {line.owner}, which is not in the store", off)
            continue
        except KeyringError:
            continue  # told with the certificate
        if stored.trust is Trust.NOTRUST:
            trust = f"attls cert trust {names.options(line.owner, line.label)}"
            yield Finding("warning", where, f"{stored.name} is NOTRUST and counts for nothing", f"{trust}, or {off}")
            continue
        present.append(stored.certificate)
        if line.usage is Usage.PERSONAL:
            personal.append(stored)
            if line.default and store.has_key(stored) is False:
                yield Finding(
                    "error",
                    where,
                    f"its default certificate {stored.name} has no private key",
                    f"attls cert import {names.options(line.owner, line.label)} FILE --key KEY",
                )
        elif line.default:
            again = _RING_ADVICE.format(ring=word, options=names.options(line.owner, line.label))
            yield Finding(
                "error",
                where,
                f"its default {stored.name} is not connected as PERSONAL",
                f"{again} --usage personal --default",
            )
    if personal and not any(line.default for line in ring.connections):
        again = _RING_ADVICE.format(ring=word, options=names.options(personal[0].owner, personal[0].label))
        yield Finding("warning", where, "has no default certificate; policies must name one", f"{again} --default")
    for stored in personal:
        yield from _chain_findings(store, ring, stored, present)


def _chain_findings(
    store: Store, ring: Ring, stored: StoredCertificate, present: list[x509.Certificate]
) -> Iterator[Finding]:
    chain = certificates.chain(stored.certificate, present)
    top = [stored.certificate, *chain][-1]
    if certificates.is_self_signed(top):
        return
    where, wanted = f"ring {ring.reference}", certificates.name_of(top.issuer)
    for other in _readable(store):
        if certificates.is_issued_by(top, other.certificate):
            mend = _RING_ADVICE.format(
                ring=names.for_shell(ring.reference), options=names.options(other.owner, other.label)
            )
            break
    else:
        mend = f"attls cert import {names.options(names.CERTAUTH, wanted)} FILE, then connect it to the ring"
    # A root may stay away: peers have it. Any other gap makes peers fail to verify.
    yield Finding(
        "warning", where, f"the chain of {stored.name} ends before '{wanted}', which is not on the ring", mend
    )
