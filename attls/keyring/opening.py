"""From the `Keyring` value of a policy to the keyring it means.

The forms and their order of recognition: `*TOKEN*/name` (refused), `*AUTH*/*` and `*SITE*/*`, a path (absolute, or
starting with `./` or `../`), `user/*`, `user/ring`, and a bare `ring` of the user who owns the connection. What cannot
be opened is return code 202, as on z/OS, unless a more telling code exists.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from attls.errors import KeyringError
from attls.keyring import certificates, files, names
from attls.keyring.store import Connection, Files, StoredCertificate, default_usage
from attls.keyring.values import Entry, Keyring, Trust, Usage

_SYSTEM_TRUST = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Alpine, Arch
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # Fedora, RHEL
    Path("/var/lib/ca-certificates/ca-bundle.pem"),  # openSUSE
)


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

        `connection_user` is the user who owns the connection, needed for the bare form; `password` (or the first line
        of `stash_file`) opens a PKCS#12 file or an encrypted key in a PEM file. Raises KeyringError: 202 when the ring
        is missing or unreadable, 408 for a wrong password, 428 for a private key that others may read.
        """
        if reference.upper().startswith("*TOKEN*/"):
            raise KeyringError(
                f"{reference}: PKCS #11 tokens cannot be used, because the TLS library at hand takes private keys as "
                "files only; export the certificate to a ring, or put a PKCS #11 provider for OpenSSL in front"
            )
        if reference.upper() == "*AUTH*/*":
            return self._virtual_auth(reference)
        if reference.upper() == "*SITE*/*":
            return self._virtual(reference, names.SITE)
        if reference.startswith(("/", "./", "../")):
            return read_file_ring(Path(reference), password=_password(password, stash_file))
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
        owner, _, name = reference.partition("/")
        if name == "*":
            return self._virtual(reference, owner)
        ring = self.definition(*names.split_ring(reference))
        return Keyring(ring.reference, tuple(self._entry(line) for line in ring.connections))

    def _virtual(self, reference: str, owner: str) -> Keyring:
        canonical = names.check_owner(owner)
        usage = default_usage(canonical)
        found = self.certificates(canonical)
        if not found and not self.directory.is_dir():
            raise names.MissingError(f"there is no keyring store at {self.directory}")
        return Keyring(reference, tuple(self._stored_entry(stored, usage, default=False) for stored in found))

    def _virtual_auth(self, reference: str) -> Keyring:
        source = self.settings().virtual_auth
        own = self._virtual(reference, names.CERTAUTH).entries if source != "system" else ()
        return Keyring(reference, own + (system_trust() if source != "store" else ()))

    def _entry(self, line: Connection) -> Entry:
        return self._stored_entry(self.certificate(line.owner, line.label), line.usage, default=line.default)

    def _stored_entry(self, stored: StoredCertificate, usage: Usage, *, default: bool) -> Entry:
        key, problem = None, None
        # Only a PERSONAL connection hands out its key, so we do not even read the others: an authority's key has no
        # business in the memory of a process that talks to the network.
        if usage is Usage.PERSONAL:
            try:
                key = self.private_key_pem(stored)
                problem = None if key else f"the store has none for {stored.name}"
            except PermissionError:
                problem = f"user id {os.geteuid()} may not read it"
        der = certificates.der(stored.certificate)
        return Entry(stored.shown_owner, stored.label, usage, default, stored.trust, der, key, problem)


def read_file_ring(path: Path, *, password: bytes | None) -> Keyring:
    """Read a PEM bundle or PKCS#12 file as a ring: its identity is the default, authorities in it are trusted.

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
    return Keyring(str(path), file_entries(leaf, key, others))


def file_entries(
    leaf: x509.Certificate,
    key: certificates.PrivateKey | None,
    others: list[x509.Certificate],
) -> tuple[Entry, ...]:
    """Turn what a file held into ring entries, labelled by common name."""
    entries = []
    for certificate in (leaf, *others) if key is None else others:
        # Without its key a certificate of somebody else is neither an identity nor an authority: it is left as
        # PERSONAL, which trusts nothing.
        usage = Usage.CERTAUTH if certificates.is_authority(certificate) else Usage.PERSONAL
        entries.append(_file_entry(certificate, usage, None))
    if key is not None:
        entries.insert(0, _file_entry(leaf, Usage.PERSONAL, certificates.private_key_pem(key)))
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
