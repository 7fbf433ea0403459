"""What the store keeps in tables: settings, grants, revocations, name filters and criteria; and the ground under them.

Rule of the file: a table is one TOML file, or one for each entry, that is read whole and replaced whole; the revocation
list of an authority is one, too, though in the form that its maker gave it. What is
damaged or says something unknown is a KeyringError with the file's path, never a default.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from attls.errors import KeyringError
from attls.keyring import files, names
from attls.keyring.grants import Access, Grant, check_reference
from attls.keyring.mapping import Criterion, MapFilter, NameFilter, check_filter
from attls.keyring.revocation import UNDECIDED, Revocation, read_crl
from attls.keyring.values import Trust

PassphraseSource = Callable[[], bytes | None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What `store.toml` says; see `docs/keyrings.md`."""

    virtual_auth: str = "store"
    encrypt_keys: bool = False
    grants: bool = False
    host_names: tuple[str, ...] = ()


class Tables:
    """The store's tables, one method per thing that can be read or changed; changes take the writer's lock themselves.

    `passphrase` is asked for the passphrase of encrypted keys when one is needed. Nothing is kept open.
    """

    def __init__(self, directory: Path, passphrase: PassphraseSource) -> None:
        self.directory = directory
        self._passphrase = passphrase

    # Settings

    def settings(self) -> Settings:
        """Read `store.toml`. Raises KeyringError when it is damaged or says something unknown."""
        path = self.directory / "store.toml"
        data = self._toml(path)
        if data is None:
            return Settings()
        values: dict[str, Any] = {}
        for key, value in data.items():
            if not isinstance(value, _SETTING_TYPES.get(key, ())) or (isinstance(value, list) and not _all_text(value)):
                raise KeyringError(f"{path} says {key} = {value!r}, which means nothing here; correct the line")
            values[key] = tuple(value) if isinstance(value, list) else value
        settings = Settings(**values)
        if settings.virtual_auth not in {"store", "system", "both"}:
            raise KeyringError(f"{path}: virtual_auth is 'store', 'system' or 'both', not '{settings.virtual_auth}'")
        return settings

    def set_settings(self, settings: Settings) -> None:
        """Write `store.toml`."""
        with self.writing():
            files.replace_all([self._settings_file(settings)])

    def _settings_file(self, settings: Settings) -> files.NewFile:
        text = (
            "# Settings of this keyring store; docs/keyrings.md explains them.\n"
            f"virtual_auth = {quoted(settings.virtual_auth)}\n"
            f"encrypt_keys = {str(settings.encrypt_keys).lower()}\n"
            f"grants = {str(settings.grants).lower()}\n"
            f"host_names = [{', '.join(quoted(host) for host in settings.host_names)}]\n"
        )
        return files.NewFile(self.directory / "store.toml", text.encode(), 0o644)

    # Revocation

    def revocations(self, owner: str, label: str) -> list[Revocation]:
        """Return what the authority `label` of `owner` has revoked."""
        path = self._revocation_path(owner, label)
        data = self._toml(path) or {}
        try:
            return [
                Revocation.of(int(str(item["serial"]), 16), _moment(item["when"]), str(item["reason"]))
                for item in data.get("revoked", [])
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise KeyringError(f"{path} is damaged ({error}); correct it") from error

    def revoke(self, owner: str, label: str, revocation: Revocation) -> None:
        """Remember that the authority `label` of `owner` revoked a certificate; once revoked stays revoked."""
        path = self._revocation_path(owner, label)
        with self.writing():
            before = self.revocations(owner, label)
            if any(one.serial == revocation.serial for one in before):
                raise KeyringError(f"certificate {revocation.serial:X} of '{label}' is revoked already")
            text = f"# What the authority {label} has revoked; changed by: attls cert revoke\n" + "".join(
                f'\n[[revoked]]\nserial = "{one.serial:X}"\nwhen = {one.when:%Y-%m-%dT%H:%M:%SZ}\n'
                f'reason = "{one.reason.value}"\n'
                for one in (*before, revocation)
            )
            files.make_directory(path.parent, secret=False)
            files.replace(path, text.encode(), mode=0o644)

    def _revocation_path(self, owner: str, label: str) -> Path:
        owner_name = names.file_name(names.check_owner(owner))
        return self._kind("revoked") / owner_name / f"{names.file_name(names.check_label(label))}.toml"

    # Revocation lists of authorities, ours or others'

    def crls(self) -> list[tuple[str, str]]:
        """Return owner and label of all authorities whose revocation list is kept."""
        base = self._kind("crls")
        return [
            (owner, label) for owner in names_in(base, "") for label in names_in(base / names.file_name(owner), ".pem")
        ]

    def crl(self, owner: str, label: str) -> x509.CertificateRevocationList | None:
        """Return the list of the authority `label` of `owner`, None when none is kept."""
        path = self.crl_path(owner, label)
        try:
            self._check_directories(path, secret=False)
            return read_crl(files.read_trusted(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeyringError(f"cannot read {path}: {error.strerror}", UNDECIDED) from error
        except KeyringError as error:
            again = f"attls cert import-crl FILE {names.options(owner, label)}"
            advice = "" if "run: ch" in str(error) else f"; import it again: {again}"
            raise KeyringError(f"{path}: {error}{advice}", error.code) from error

    def set_crl(self, owner: str, label: str, crl: x509.CertificateRevocationList) -> None:
        """Keep `crl` as the list of the authority `label` of `owner`, in the place of the one before."""
        ends = f"{crl.next_update_utc:%Y-%m-%d %H:%M} UTC" if crl.next_update_utc else "nobody knows when"
        head = (
            f"# The revocation list of {label}; replaced by: attls cert import-crl\n"
            f"# From {crl.last_update_utc:%Y-%m-%d %H:%M} UTC to {ends}\n"
        )
        content = head.encode() + crl.public_bytes(serialization.Encoding.PEM)
        if len(content) > files.LARGEST_FILE:
            raise KeyringError(
                f"the list is larger than {files.LARGEST_FILE >> 20} MiB; have it fetched instead: HttpCdpEnable On"
            )
        path = self.crl_path(owner, label)
        with self.writing():
            files.make_directory(path.parent, secret=False)
            files.replace(path, content, mode=0o644)

    def delete_crl(self, owner: str, label: str) -> None:
        """Keep no list of the authority `label` of `owner` any more. Raises MissingError when there is none."""
        path = self.crl_path(owner, label)
        with self.writing():
            if not path.exists():
                raise names.MissingError(f"no revocation list of '{label}' of {owner} is kept")
            files.remove(path)

    def crl_path(self, owner: str, label: str) -> Path:
        """Return where the revocation list is kept."""
        owner_name = names.file_name(names.check_owner(owner))
        return self._kind("crls") / owner_name / f"{names.file_name(names.check_label(label))}.pem"

    # Grants

    def grants(self) -> list[Grant]:
        """Return who may read which ring where the settings ask for grants."""
        path = self.directory / "grants.toml"
        data = self._toml(path) or {}
        try:
            return [
                Grant(
                    check_reference(str(item["ring"])),
                    names.check_owner(str(item["user"])),
                    Access[str(item["access"]).upper()],
                )
                for item in data.get("grant", [])
            ]
        except (KeyError, TypeError, KeyringError) as error:
            raise KeyringError(f"{path} is damaged ({error}); correct it") from error

    def set_grant(self, ring: str, user: str, access: Access | None) -> None:
        """Let `user` read `ring`, or with None no longer. Raises MissingError when there is nothing to take away."""
        ring, user = check_reference(ring), names.check_owner(user)
        with self.writing():
            before = self.grants()
            after = [one for one in before if (one.ring, one.user) != (ring, user)]
            if access is None and len(after) == len(before):
                raise names.MissingError(f"{user} has no grant for {ring}")
            if access is not None:
                after.append(Grant(ring, user, access))
            text = "# Who may read which ring; changed by: attls keyring grant, attls keyring revoke\n" + "".join(
                f"\n[[grant]]\nring = {quoted(one.ring)}\nuser = {quoted(one.user)}\n"
                f"access = {quoted(one.access.name.lower())}\n"
                for one in after
            )
            files.replace(self.directory / "grants.toml", text.encode(), mode=0o644)

    # User mapping

    def filters(self, owner: str | None = None) -> list[MapFilter]:
        """Return all name filters, or those of one owner. Raises KeyringError when one of them is damaged."""
        base = self._kind("maps")
        owners = names_in(base, "") if owner is None else [names.check_owner(owner)]
        return [
            self._filter(base / names.file_name(name) / f"{names.file_name(label)}.toml")
            for name in owners
            for label in names_in(base / names.file_name(name), ".toml")
        ]

    def _filter(self, path: Path) -> MapFilter:
        data = self._toml(path) or {}
        try:
            subject, issuer = data.get("subject"), data.get("issuer")
            found = MapFilter(
                str(data["label"]),
                data.get("user"),
                NameFilter.from_items(subject) if subject else None,
                NameFilter.from_items(issuer) if issuer else None,
                Trust(data["trust"]),
                data.get("criteria"),
            )
            check_filter(found)
        except (KeyError, ValueError, TypeError, AttributeError, KeyringError) as error:
            raise KeyringError(f"{path} is damaged ({error}); correct it or add the filter again") from error
        return found

    def add_filter(self, entry: MapFilter) -> None:
        """Keep a name filter. Raises KeyringError for a duplicate label or a filter that exists under another one."""
        check_filter(entry)
        owner = names.check_owner(entry.owner)
        path = self._kind("maps") / names.file_name(owner) / f"{names.file_name(entry.label)}.toml"
        with self.writing():
            if path.exists():
                raise KeyringError(f"{owner} already has a filter labelled '{entry.label}'; choose another label")
            for other in self.filters():
                if (other.subject, other.issuer) == (entry.subject, entry.issuer):
                    raise KeyringError(
                        f"filter '{other.label}' of {other.owner} already says what these names stand for"
                    )
            lines = ["# A name filter of attls; changed by: attls map\n", f"label = {quoted(entry.label)}\n"]
            if entry.user is not None:
                lines.append(f"user = {quoted(entry.user)}\n")
            if entry.criteria is not None:
                lines.append(f"criteria = {quoted(entry.criteria)}\n")
            lines.append(f"trust = {quoted(entry.trust.value)}\n")
            for key, part in (("subject", entry.subject), ("issuer", entry.issuer)):
                if part is not None:
                    rows = ", ".join("[" + ", ".join(quoted(item) for item in row) + "]" for row in part.items())
                    lines.append(f"{key} = [{rows}]\n")
            files.make_directory(path.parent, secret=False)
            files.replace(path, "".join(lines).encode(), mode=0o644)

    def replace_filter(self, old: MapFilter, new: MapFilter) -> None:
        """Put `new` in the place of `old`; on an error the old one stays."""
        check_filter(new)
        with self.writing():
            self.delete_filter(old.owner, old.label)
            try:
                self.add_filter(new)
            except KeyringError:
                self.add_filter(old)
                raise

    def delete_filter(self, owner: str, label: str) -> None:
        """Delete a name filter. Raises MissingError when there is none."""
        canonical = names.check_owner(owner)
        path = self._kind("maps") / names.file_name(canonical) / f"{names.file_name(names.check_label(label))}.toml"
        with self.writing():
            if not path.exists():
                raise names.MissingError(f"{canonical} has no filter labelled '{label}'")
            files.remove(path)

    def criteria(self) -> list[Criterion]:
        """Return what criteria stand for, in the order in which they are tried."""
        path = self.directory / "criteria.toml"
        data = self._toml(path) or {}
        try:
            found = [
                Criterion(str(item["criteria"]), names.check_owner(str(item["user"]))) for item in data["criterion"]
            ]
        except KeyError as error:
            if not data:
                return []
            raise KeyringError(f"{path} is damaged (no {error}); correct it") from error
        except (TypeError, KeyringError) as error:
            raise KeyringError(f"{path} is damaged ({error}); correct it") from error
        # A text without wildcards first, then the longer pattern, as RACF picks among generic profiles.
        return sorted(found, key=lambda one: ("*" in one.pattern or "?" in one.pattern, -len(one.pattern), one.pattern))

    def set_criterion(self, pattern: str, user: str | None) -> None:
        """Say which user `pattern` stands for; None forgets it. Raises MissingError when there is none to forget."""
        if not pattern.isprintable() or not pattern:
            raise names.InvalidNameError("criteria are printable text such as APPLID=PAYROLL.SYSID=*")
        with self.writing():
            kept = [one for one in self.criteria() if one.pattern.upper() != pattern.upper()]
            if user is None and len(kept) == len(self.criteria()):
                raise names.MissingError(f"there is no criterion '{pattern}'")
            if user is not None:
                kept.append(Criterion(pattern, names.check_owner(user)))
            text = "# What the criteria of MULTIID filters stand for; changed by: attls map criterion\n" + "".join(
                f"\n[[criterion]]\ncriteria = {quoted(one.pattern)}\nuser = {quoted(one.user)}\n" for one in kept
            )
            files.replace(self.directory / "criteria.toml", text.encode(), mode=0o644)

    # The ground they stand on

    def _kind(self, kind: str) -> Path:
        return self.directory / kind

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock; nests. Raises KeyringError when another writer does not finish."""
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        try:
            if not self.directory.is_dir():
                files.make_directory(self.directory, secret=False)
                # So that a store can be put under git as it is, without its secrets.
                files.replace(self.directory / ".gitignore", b"/private/\n/.lock\n.new-*\n", mode=0o644)
            files.check_directory(self.directory, secret=False)
        except OSError as error:
            raise KeyringError(f"cannot create the keyring store {self.directory}: {error.strerror}") from error
        with files.writer_lock(self.directory):
            self._depth = 1
            try:
                yield
            finally:
                self._depth = 0

    _depth = 0

    def _check_directories(self, path: Path, *, secret: bool) -> None:
        files.check_directory(self.directory, secret=False)
        files.check_directory(path.parent.parent, secret=secret)
        files.check_directory(path.parent, secret=secret)

    def _toml(self, path: Path) -> dict[str, Any] | None:
        try:
            files.check_directory(self.directory, secret=False)
            files.check_directory(path.parent, secret=False)
            return tomllib.loads(files.read_trusted(path).decode())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeyringError(f"cannot read {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise KeyringError(f"{path} is damaged ({error}); correct it") from error


_SETTING_TYPES: dict[str, type] = {"virtual_auth": str, "encrypt_keys": bool, "grants": bool, "host_names": list}


def _moment(value: object) -> datetime.datetime:
    if not isinstance(value, datetime.datetime) or value.tzinfo is None:
        raise ValueError("when is a time with its zone, e.g. 2026-01-31T12:00:00Z")
    return value


def _all_text(values: list[object]) -> bool:
    return all(isinstance(value, str) and value.isprintable() for value in values)


def names_in(directory: Path, suffix: str) -> list[str]:
    """Return the names that the files in `directory` ending in `suffix` stand for, in name order."""
    try:
        found = [path.name for path in directory.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise KeyringError(f"cannot read {directory}: {error.strerror}") from error
    return sorted(
        names.from_file_name(name.removesuffix(suffix)) for name in found if name.endswith(suffix) and name[0] != "."
    )


def quoted(text: str) -> str:
    """Write a TOML basic string, which is a JSON string but for one control character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
