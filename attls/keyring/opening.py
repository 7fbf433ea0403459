"""From the `Keyring` value of a policy to the keyring it means.

The forms and their order of recognition: `*TOKEN*/name` (refused, see docs/decisions/0004), a path (absolute, or
starting with `./` or `../`), `*AUTH*/*` and `*SITE*/*`, `user/*`, `user/ring`, and a bare `ring` of the user who owns
the connection. What cannot be opened is return code 202, as on z/OS, unless a more telling code exists.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from attls.errors import KeyringError
from attls.keyring import certificates, files, grants, names
from attls.keyring.store import Connection, Files, Ring, StoredCertificate, default_usage
from attls.keyring.values import Entry, Keyring, Trust, Usage

_SYSTEM_TRUST = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Alpine, Arch
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # Fedora, RHEL
    Path("/var/lib/ca-certificates/ca-bundle.pem"),  # openSUSE
)


_VIRTUAL = {"*AUTH*": names.CERTAUTH, "*SITE*": names.SITE}
_ATTEMPTS = 5


class Store(Files):
    """A keyring store in `directory`, which need not exist yet.

    `passphrase` opens private keys that are encrypted at rest: the bytes, or a function that is asked when the first
    such key is met. When it is None the file named by ATTLS_PASSPHRASE_FILE or the systemd credential
    `attls-passphrase` is read, if there is one.
    """

    def __init__(self, directory: str | Path, *, passphrase: bytes | Callable[[], bytes | None] | None = None) -> None:
        super().__init__(Path(directory), _source(passphrase))

    def ring(
        self,
        reference: str,
        connection_user: str | None = None,
        *,
        password: str | bytes | None = None,
        stash_file: str | Path | None = None,
    ) -> Keyring:
        """Read the ring that a policy's `Keyring` value names, as it is on disk now.

        `connection_user` is the user who owns the connection, needed for the bare form. Where the store's settings ask
        for grants, they are checked for that user, or for the one who runs this process when it is None.
        `password` (or the first line of `stash_file`) opens a PKCS#12 file or an encrypted key in a PEM file. Raises
        KeyringError: 202 when the ring is missing or unreadable, 408 for a wrong password, 428 for a private key that
        others may read.
        """
        if reference.upper().startswith("*TOKEN*/"):
            raise KeyringError(
                f"{reference} is a PKCS #11 token, and the TLS library at hand cannot sign with a key that stays in a "
                "token; give this machine a certificate of its own in a ring (docs/keyrings.md says what it would take)"
            )
        if reference.startswith(("/", "./", "../")):
            if reference.lower().endswith(".kdb"):
                export = f"gskkyman -e -k {names.for_shell(reference)} -l LABEL -p FILE.p12"
                raise KeyringError(
                    f"{reference} is a key database of gskkyman, whose format is not published; export from it where "
                    f"gskkyman is ({export}), then name FILE.p12 here or import it into a ring"
                )
            path, secret = Path(reference), _password(password, stash_file)
            return read_directory_ring(path, secret) if path.is_dir() else read_file_ring(path, password=secret)
        if password is not None or stash_file is not None:
            raise KeyringError(
                f"{reference} comes with a password, so it must be the path of a PKCS#12 or PEM file, starting with '/'"
            )
        if "/" not in reference:
            if not connection_user:
                raise KeyringError(
                    f"ring '{reference}' belongs to the user of each connection, and this one has no user"
                )
            reference = f"{connection_user}/{reference}"
        return self._stored_ring(reference, connection_user)

    def watched(self, references: Iterable[str]) -> tuple[Path, ...]:
        """Return the directories in which any change can change what `references` (as in a policy) mean.

        For whoever watches them with inotify: files are replaced by renaming, so watching directories is enough, and a
        directory of the store that is made later shows up as a change in the directory above it. The path of any other
        file that counts, such as a stash file, may be given as well.
        """
        found: set[Path] = set()
        for reference in references:
            if reference.startswith(("/", "./", "../")):
                found |= _directories_of(Path(reference))
            else:
                found |= {self.directory, *(path for path in self.directory.rglob("*") if path.is_dir())}
                found |= {path.parent for path in _SYSTEM_TRUST} if reference.upper() == "*AUTH*/*" else set()
        return tuple(sorted(path for path in found if path.is_dir()))

    def _stored_ring(self, reference: str, user: str | None) -> Keyring:
        settings = self.settings()
        reader = self._reader(reference, user) if settings.grants else _EVERYTHING
        system: tuple[Entry, ...] = ()
        if reference.upper() == "*AUTH*/*" and settings.virtual_auth != "store":
            system = system_trust()
            if settings.virtual_auth == "system":
                return Keyring(reference, system)
        ring = self.connections(reference)
        for attempt in range(_ATTEMPTS):
            try:
                entries = tuple(self._entry(line, reader) for line in ring.connections)
                return Keyring(ring.reference, entries + system, self._lists(entries))
            except names.MissingError:
                # Somebody may just be renaming or deleting a certificate; the ring says so in a moment.
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.01)
                ring = self.connections(reference)
        raise AssertionError("the last attempt returns or raises")

    def connections(self, reference: str) -> Ring:
        """Return which certificates of the store `USER/RING`, `USER/*`, `*AUTH*/*` or `*SITE*/*` stands for.

        Raises MissingError (202) when there is no such ring.
        """
        owner, _, name = reference.partition("/")
        if name != "*":
            return self.definition(*names.split_ring(reference))
        canonical = _VIRTUAL.get(owner.upper()) or names.check_owner(owner)
        if not self.directory.is_dir():
            raise names.MissingError(f"there is no keyring store at {self.directory}")
        usage = default_usage(canonical)
        lines = tuple(Connection(canonical, label, usage) for label in self.labels(canonical))
        return Ring(canonical, owner, name, lines)

    def _lists(self, entries: Iterable[Entry]) -> tuple[bytes, ...]:
        """Return the revocation lists of the authorities among `entries`: whoever connects one has its list as well."""
        found = [self.crl(entry.owner, entry.label) for entry in entries if entry.is_trusted]
        return tuple(one.public_bytes(certificates.DER_ENCODING) for one in found if one is not None)

    def check_access(self, reference: str, user: str) -> None:
        """Return if `user` may read the ring `USER/RING` or a virtual one; always, unless the settings ask for grants.

        For a ring that was read once and serves many users. Raises KeyringError (202) when not.
        """
        if self.settings().grants:
            self._reader(reference, user)

    def _reader(self, reference: str, user: str | None) -> Reader:
        """Return what `user` may have of a ring under strict grants. Raises KeyringError (202) when nothing."""
        if user is None:
            user = _process_user()
        if not user:
            raise KeyringError(f"this store asks for grants, and nobody is known who wants to read ring {reference}")
        folded = names.check_owner(user)
        access = grants.access(self.grants(), user=folded, ring=grants.check_reference(reference))
        if access is None:
            raise KeyringError(
                f"{user} may not read ring {reference}; to allow it: "
                f"attls keyring grant {names.for_shell(reference)} --user {names.for_shell(user)}"
            )
        return Reader(folded, access, reference)

    def _entry(self, line: Connection, reader: Reader) -> Entry:
        for _ in range(3):
            stored = self.certificate(line.owner, line.label)
            key, problem = self._key(stored, line.usage, reader)
            # A renewal that happens right now takes the old key away after the new certificate stands: look again.
            if (
                key is not None
                or line.usage is not Usage.PERSONAL
                or stored == self.certificate(line.owner, line.label)
            ):
                break
        der = certificates.der(stored.certificate)
        return Entry(stored.shown_owner, stored.label, line.usage, line.default, stored.trust, der, key, problem)

    def _key(self, stored: StoredCertificate, usage: Usage, reader: Reader) -> tuple[bytes | None, str | None]:
        # Only a PERSONAL connection hands out its key, so we do not even read the others: an authority's key has no
        # business in the memory of a process that talks to the network.
        if usage is not Usage.PERSONAL:
            return None, None
        if (problem := reader.refusal(stored)) is not None:
            return None, problem
        try:
            key = self.private_key_pem(stored)
        except PermissionError:
            return None, f"user id {os.geteuid()} may not read it"
        return key, None if key else f"the store has none for {stored.name}"


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads a ring and how far; `user` None is the administrator, who may have everything."""

    user: str | None
    access: grants.Access
    reference: str

    def refusal(self, stored: StoredCertificate) -> str | None:
        """Say why this reader does not get the private key of `stored`, None when it does."""
        if self.user is None:
            return None
        needed = grants.needed_for_key(user=self.user, certificate_owner=stored.owner)
        if self.access >= needed:
            return None
        return (
            f"{self.user} needs {needed.name} access to ring {self.reference} for the key of {stored.name}; "
            f"to allow it: attls keyring grant {names.for_shell(self.reference)} --user {names.for_shell(self.user)} "
            f"--access {needed.name.lower()}"
        )


_EVERYTHING = Reader(None, grants.Access.CONTROL, "")


def read_file_ring(path: Path, *, password: bytes | None) -> Keyring:
    """Read a PEM bundle or PKCS#12 file as a ring: its identity is the default, roots in it are trusted.

    Raises KeyringError; an unencrypted private key in it makes the file one that only its owner may read.
    """
    try:
        data = files.read_trusted(path)
    except OSError as error:
        raise KeyringError(f"cannot read the keyring file {path}: {error.strerror}") from error
    contents = certificates.read(data, password=password, name=str(path))
    if contents.clear_key:
        files.read_secret(path)
    leaf, key, others = certificates.split_identity(contents, name=str(path))
    return Keyring(str(path), file_entries(leaf, key, others), _lists_in(contents))


def _directories_of(path: Path) -> set[Path]:
    # Links lead elsewhere: ACME clients renew in the directory that their links point into. And the directory itself
    # may be replaced by another of its name, which happens in the one above it.
    files_in_it = list(path.iterdir()) if path.is_dir() else []
    linked = {one.resolve().parent for one in (path, *files_in_it) if one.is_symlink()}
    return {path.parent, *linked} | ({path} if path.is_dir() else set())


# Certificate, key and authorities as others name them: Kubernetes and cert-manager; certbot and dehydrated; plain
# habit. Each name may be missing where the directory only carries trust. What ACME clients call chain.pem is part of
# fullchain.pem and no statement of trust.
_LAYOUTS = (
    ("tls.crt", "tls.key", "ca.crt"),
    ("fullchain.pem", "privkey.pem", ""),
    ("cert.pem", "key.pem", "ca.pem"),
)
# Revocation lists beside them, in any layout; a bundle of authorities may hold them as well.
_LISTS = ("ca.crl", "crl.pem")


def read_directory_ring(path: Path, password: bytes | None = None, *, attempts: int = 5) -> Keyring:
    """Read a directory as Kubernetes secrets or ACME clients lay it out: identity is the default, `ca` files trusted.

    A renewal that is just being written looks like a key that does not fit; it is read again, up to `attempts` times
    within half a second. Raises KeyringError when it stays so, or when others may read the key.
    """
    for attempt in range(attempts):
        try:
            return _read_directory_once(path, password)
        except KeyringError as error:
            if error.code != 428 or "does not belong" not in str(error) or attempt == attempts - 1:
                raise
            time.sleep(0.1)
    raise AssertionError("the last attempt returns or raises")


def _read_directory_once(path: Path, password: bytes | None) -> Keyring:
    # Kubernetes swaps the symbolic link `..data` between whole generations; following it once pins one of them.
    pinned = (path / "..data").resolve() if (path / "..data").exists() else path.resolve()
    for layout in (*_LAYOUTS, *_named_by_host(pinned)):
        present = [pinned / name for name in layout if name and (pinned / name).exists()]
        if present and present != [pinned / layout[1]]:
            break
    else:
        known = "; ".join(", ".join(filter(None, layout)) for layout in _LAYOUTS)
        raise KeyringError(f"there are no certificates in {path} under a known name ({known}; one NAME.crt, NAME.key)")
    contents = certificates.Contents()
    anchors: list[x509.Certificate] = []
    for file in [*present, *(pinned / name for name in _LISTS if (pinned / name).exists())]:
        try:
            files.check_directory(file.resolve().parent, secret=False)
            is_key = file.name == layout[1]
            read = certificates.read(files.read_trusted(file), password=password, name=str(path / file.name))
            if read.clear_key:
                files.read_secret(file.resolve())
        except OSError as error:
            raise KeyringError(f"cannot read {path / file.name}: {error.strerror}", 428 if is_key else 202) from error
        contents.keys += read.keys
        contents.crls += read.crls
        (anchors if file.name == layout[2] else contents.certificates).extend(read.certificates)
    if not contents.certificates:
        return Keyring(str(path), file_entries(None, None, (), anchors), _lists_in(contents))
    leaf, key, others = certificates.split_identity(contents, name=str(path))
    return Keyring(str(path), file_entries(leaf, key, others, anchors), _lists_in(contents))


def _lists_in(contents: certificates.Contents) -> tuple[bytes, ...]:
    return tuple(crl.public_bytes(certificates.DER_ENCODING) for crl in contents.crls)


def _named_by_host(directory: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the layouts of clients that name files by the host, where the directory holds one key and so one identity.

    Caddy and lego write NAME.crt with its chain beside NAME.key, acme.sh fullchain.cer.
    """
    keys = [path for path in directory.glob("*.key") if not path.name.startswith(".")]
    if len(keys) == 1:
        for certificate in (f"{keys[0].stem}.crt", "fullchain.cer"):
            if (directory / certificate).exists():
                yield certificate, keys[0].name, ""


def file_entries(
    leaf: x509.Certificate | None,
    key: certificates.PrivateKey | None,
    others: Iterable[x509.Certificate],
    anchors: Iterable[x509.Certificate] = (),
) -> tuple[Entry, ...]:
    """Turn what files held into ring entries, labelled by common name.

    Of the certificates beside an identity, those that lead from it to its root are sent along and trust nobody: whoever
    has a certificate of a public authority does not mean to let in everybody else who has one. Roots, authorities
    outside that chain and all `anchors` are trusted.
    """
    others = list(others)
    entries = []
    own_chain: list[x509.Certificate] = []
    if leaf is not None and key is not None:
        entries.append(_file_entry(leaf, Usage.PERSONAL, certificates.private_key_pem(key)))
        own_chain = [one for one in certificates.chain(leaf, others) if not certificates.is_self_signed(one)]
    elif leaf is not None:
        others.insert(0, leaf)
    # A certificate of somebody else without its key is neither an identity nor an authority: PERSONAL trusts nobody.
    for other in others:
        trusted = certificates.is_authority(other) and other not in own_chain
        entries.append(_file_entry(other, Usage.CERTAUTH if trusted else Usage.PERSONAL, None))
    for anchor in anchors:
        entries.append(_file_entry(anchor, Usage.CERTAUTH if certificates.is_authority(anchor) else Usage.SITE, None))
    return tuple(entries)


def _file_entry(certificate: x509.Certificate, usage: Usage, key: bytes | None) -> Entry:
    label = certificates.common_name(certificate)
    problem = None if key or usage is not Usage.PERSONAL else "the file has none for it"
    return Entry("FILE", label, usage, key is not None, Trust.TRUST, certificates.der(certificate), key, problem)


def system_trust() -> tuple[Entry, ...]:
    """Return the authorities that the distribution trusts, as ring entries. Raises KeyringError when there are none."""
    for path in _SYSTEM_TRUST:
        if path.is_file():
            found = certificates.read_bundle(files.read_trusted(path))
            return tuple(_file_entry(certificate, Usage.CERTAUTH, None) for certificate in found)
    raise KeyringError("this system has no trust store; install the package ca-certificates")


def _process_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _password(password: str | bytes | None, stash_file: str | Path | None) -> bytes | None:
    if password is not None:
        return password.encode() if isinstance(password, str) else password
    return files.read_password(Path(stash_file)) if stash_file is not None else None


def _source(passphrase: bytes | Callable[[], bytes | None] | None) -> Callable[[], bytes | None]:
    if passphrase is None:
        return ambient_passphrase
    if isinstance(passphrase, bytes):
        return lambda: passphrase
    return passphrase


def ambient_passphrase() -> bytes | None:
    """Return the passphrase that the environment offers: ATTLS_PASSPHRASE_FILE, or a systemd credential."""
    if path := os.environ.get("ATTLS_PASSPHRASE_FILE"):
        return files.read_password(Path(path))
    if directory := os.environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(directory) / "attls-passphrase"
        if credential.exists():
            return files.read_password(credential)
    return None
