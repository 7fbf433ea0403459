"""The keyring store on disk: certificates with owner, label and trust; their keys; rings that connect them.

Layout, all of it readable text (`docs/keyrings.md` shows one file of each kind):

    DIR/certificates/OWNER/LABEL.pem        certificate below lines that say owner, label and trust
    DIR/private/OWNER/LABEL.KEYID.key       its private key, PKCS#8; mode 0600 in directories of mode 0700
    DIR/rings/OWNER/RING.toml               what is connected, with usage and default
    DIR/requests/OWNER/LABEL.csr            a request that waits for its certificate
    DIR/maps/OWNER/LABEL.toml               a name filter that gives certificates a user
    DIR/criteria.toml                       what criteria of such filters stand for
    DIR/revoked/OWNER/LABEL.toml            what an authority has revoked
    DIR/crls/OWNER/LABEL.pem                the revocation list of an authority, ours or somebody else's
    DIR/grants.toml                         who may read which ring, if the settings ask for that
    DIR/store.toml                          settings; missing = defaults

Theory of operation. The one certificate file is what a change commits with: KEYID is taken from the public key, so a
new key is written beside the old one before the certificate that needs it is renamed into place, and the old key goes
last. A crash in between leaves a key too many, never a certificate with the wrong key. Owners are kept in upper case
because they compare without case; the spelling that was given is kept inside the files for display.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from attls.errors import KeyringError
from attls.keyring import certificates, files, names
from attls.keyring.certificates import PrivateKey
from attls.keyring.mapping import Registered, UserMap, local_host_names
from attls.keyring.tables import Tables, names_in, quoted
from attls.keyring.values import Trust, Usage


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """A certificate of the store; `owner` is canonical, `shown_owner` as it was given."""

    owner: str
    shown_owner: str
    label: str
    trust: Trust
    certificate: x509.Certificate

    @property
    def name(self) -> str:
        """Name it for people, e.g. `redis-server of DEMO`."""
        return f"'{self.label}' of {self.shown_owner}"


@dataclass(frozen=True, slots=True)
class Connection:
    """One line of a ring: the certificate `label` of `owner`, what it is for, and whether it is the default."""

    owner: str
    label: str
    usage: Usage
    default: bool = False


@dataclass(frozen=True, slots=True)
class Ring:
    """A ring as it is kept: names of certificates, in the order in which they were connected."""

    owner: str
    shown_owner: str
    name: str
    connections: tuple[Connection, ...] = ()

    @property
    def reference(self) -> str:
        """Name the ring the way a policy does."""
        return f"{self.shown_owner}/{self.name}"


class Files(Tables):
    """All files of the store; certificates, keys, requests and rings are kept here, the rest in its tables."""

    # Certificates

    def owners(self) -> list[str]:
        """Return the canonical names of all owners of certificates."""
        return names_in(self._kind("certificates"), "")

    def labels(self, owner: str) -> list[str]:
        """Return the labels of `owner`'s certificates in name order."""
        return names_in(self._kind("certificates") / names.file_name(names.check_owner(owner)), ".pem")

    def certificates(self, owner: str | None = None) -> list[StoredCertificate]:
        """Return all certificates, or those of one owner. Raises KeyringError when one of them is damaged."""
        owners = self.owners() if owner is None else [names.check_owner(owner)]
        return [self.certificate(name, label) for name in owners for label in self.labels(name)]

    def certificate(self, owner: str, label: str) -> StoredCertificate:
        """Return one certificate. Raises MissingError when there is none, KeyringError when it is damaged."""
        path = self.certificate_path(owner, label)
        owner = names.check_owner(owner)
        try:
            self._check_directories(path, secret=False)
            data = files.read_trusted(path)
        except FileNotFoundError:
            raise self._no_certificate(owner, label) from None
        except OSError as error:
            raise KeyringError(f"cannot read {path}: {error.strerror}", 102) from error
        head, begin, body = data.partition(b"-----BEGIN ")
        headers = dict(_header_lines(head))
        found = certificates.read(begin + body, name=str(path)).certificates
        try:
            trust = Trust(headers["Trust"])
            shown_owner, kept_label = headers["Owner"], headers["Label"]
        except (KeyError, ValueError) as error:
            raise KeyringError(
                f"{path} lacks a valid Owner, Label or Trust line; import the certificate again", 103
            ) from error
        if len(found) != 1 or names.fold_owner(shown_owner) != owner or kept_label != label:
            raise KeyringError(f"{path} does not hold the one certificate '{label}' of {owner}; import it again", 103)
        return StoredCertificate(owner, shown_owner, label, trust, found[0])

    def certificate_path(self, owner: str, label: str) -> Path:
        """Return where the certificate is kept."""
        owner_name = names.file_name(names.check_owner(owner))
        return self._kind("certificates") / owner_name / f"{names.file_name(names.check_label(label))}.pem"

    def has_certificate(self, owner: str, label: str) -> bool:
        """Tell whether a certificate of that name is there, damaged or not."""
        return self.certificate_path(owner, label).exists()

    def find_same(self, certificate: x509.Certificate) -> StoredCertificate | None:
        """Return the stored certificate that is the very same one, whoever owns it."""
        return next((stored for stored in self._intact() if stored.certificate == certificate), None)

    def _intact(self) -> Iterator[StoredCertificate]:
        # A damaged neighbour must not stop an administrator from adding or mending another certificate.
        for owner in self.owners():
            for label in self.labels(owner):
                with contextlib.suppress(KeyringError):
                    yield self.certificate(owner, label)

    def _no_certificate(self, owner: str, label: str) -> KeyringError:
        if self.request_path(owner, label).exists():
            return names.MissingError(
                f"'{label}' of {owner} is a request that waits for its certificate; bring that in with: "
                f"attls cert import {names.options(owner, label)} FILE",
                407,
            )
        others = self.labels(owner)
        known = f"it has {', '.join(repr(other) for other in others[:10])}" if others else "it has none"
        return names.MissingError(f"{owner} has no certificate labelled '{label}'; {known}", 407)

    def add(
        self,
        owner: str,
        label: str,
        certificate: x509.Certificate,
        *,
        trust: Trust,
        private_key: PrivateKey | None = None,
        replace: bool = False,
    ) -> StoredCertificate:
        """Keep a certificate, with its private key if given.

        Raises KeyringError for a duplicate label (unless `replace`), for a certificate that is already kept under
        another name, for a private key that does not belong to it, and for HIGHTRUST outside CERTAUTH.
        """
        canonical = names.check_owner(owner)
        path = self.certificate_path(owner, label)
        _check_trust(canonical, trust)
        if private_key is not None and not _belongs(private_key, certificate):
            raise KeyringError(f"the private key does not belong to the certificate '{label}' of {owner}", 428)
        with self.writing():
            if not replace and path.exists():
                raise KeyringError(
                    f"{canonical} already has a certificate labelled '{label}'; choose another or delete that one first"
                )
            same = self.find_same(certificate)
            if same is not None and (same.owner, same.label) != (canonical, label):
                raise KeyringError(f"this very certificate is already in the store as {same.name}")
            kept = self._certificate_file(StoredCertificate(canonical, owner, label, trust, certificate))
            files.replace_all([*([self._key_file(canonical, label, private_key)] if private_key else []), kept])
            self._drop_keys(canonical, label, keep=key_id(certificate))
            if (request := self.request_path(canonical, label)).exists():
                files.remove(request)
        return self.certificate(canonical, label)

    def set_trust(self, owner: str, label: str, trust: Trust) -> StoredCertificate:
        """Change whether a certificate is trusted."""
        with self.writing():
            stored = self.certificate(owner, label)
            _check_trust(stored.owner, trust)
            files.replace_all([self._certificate_file(dataclasses.replace(stored, trust=trust))])
        return self.certificate(owner, label)

    def relabel(self, owner: str, label: str, new_label: str, *, trust: Trust | None = None) -> StoredCertificate:
        """Give a certificate another label, on all rings too, and another trust if `trust` is given."""
        with self.writing():
            stored = self.certificate(owner, label)
            trust = trust or stored.trust
            _check_trust(stored.owner, trust)
            if self.has_certificate(owner, new_label):
                raise KeyringError(
                    f"{stored.owner} already has a certificate labelled '{new_label}'; choose another label"
                )
            changes = []
            key = self._key_path(stored.owner, label, stored.certificate)
            if key.exists():
                new_key = self._key_path(stored.owner, new_label, stored.certificate)
                changes.append(files.NewFile(new_key, files.read_secret(key), 0o600))
            changes.append(self._certificate_file(dataclasses.replace(stored, label=new_label, trust=trust)))
            if (crl := self.crl_path(owner, label)).exists():
                changes.append(files.NewFile(self.crl_path(owner, new_label), files.read_trusted(crl), 0o644))
            for ring in self.rings_with(stored.owner, label):
                changes.append(self._ring_file(_mapped(ring, stored.owner, label, new_label)))
            files.replace_all(changes)
            files.remove(self.certificate_path(owner, label))
            files.remove(crl)
            self._drop_keys(stored.owner, label)
        return self.certificate(owner, new_label)

    def delete(self, owner: str, label: str) -> list[Ring]:
        """Delete a certificate and its private key; return the rings that it was removed from."""
        with self.writing():
            canonical = names.check_owner(owner)
            path, request = self.certificate_path(owner, label), self.request_path(owner, label)
            if not path.exists() and not request.exists():
                raise self._no_certificate(canonical, label)
            touched = self.rings_with(canonical, label)
            files.replace_all(self._ring_file(_mapped(ring, canonical, label, None)) for ring in touched)
            files.remove(path)
            files.remove(self.crl_path(owner, label))
            if request.exists():
                files.remove(request)
            self._drop_keys(canonical, label)
        return touched

    def _certificate_file(self, stored: StoredCertificate) -> files.NewFile:
        certificate = stored.certificate
        head = (
            f"# Kept by attls; change it with the attls cert commands.\n"
            f"Owner: {stored.owner if stored.owner in _GROUPS else stored.shown_owner}\n"
            f"Label: {stored.label}\n"
            f"Trust: {stored.trust.value}\n"
            f"# Subject: {_one_line(certificate.subject.rfc4514_string())}\n"
            f"# Issuer: {_one_line(certificate.issuer.rfc4514_string())}\n"
            f"# Valid: {certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}\n"
        )
        path = self.certificate_path(stored.owner, stored.label)
        files.make_directory(path.parent, secret=False)
        return files.NewFile(path, head.encode() + certificates.pem(certificate), 0o644)

    # Private keys

    def has_key(self, stored: StoredCertificate) -> bool | None:
        """Tell whether the store has the private key; None when we may not look."""
        try:
            return self._key_path(stored.owner, stored.label, stored.certificate).exists()
        except PermissionError:
            return None

    def private_key_pem(self, stored: StoredCertificate) -> bytes | None:
        """Return the private key as unencrypted PEM, None when there is none.

        Raises KeyringError (428) when others may read its file, when it is damaged or belongs to another certificate,
        and PermissionError when we may not read it.
        """
        path = self._key_path(stored.owner, stored.label, stored.certificate)
        try:
            self._check_directories(path, secret=True)
            content = files.read_secret(path)
        except FileNotFoundError:
            return None
        except PermissionError:
            raise
        except OSError as error:
            raise KeyringError(f"cannot read {path}: {error.strerror}", 102) from error
        key = self._decrypt(path, content)
        if not _belongs(key, stored.certificate):
            raise KeyringError(
                f"the private key in {path} does not belong to the certificate {stored.name}; import both again", 428
            )
        return certificates.private_key_pem(key)

    def private_key(self, stored: StoredCertificate) -> PrivateKey:
        """Return the private key of a certificate to sign with. Raises KeyringError (428) when it cannot be had."""
        try:
            pem = self.private_key_pem(stored)
        except PermissionError as error:
            raise KeyringError(f"you may not read the private key of {stored.name}", 428) from error
        if pem is None:
            raise KeyringError(f"the store has no private key for {stored.name}", 428)
        return certificates.load_private_key(pem)

    def has_passphrase(self) -> bool:
        """Tell whether a passphrase for encrypted keys can be had; asks for it."""
        return bool(self._passphrase())

    def _decrypt(self, path: Path, content: bytes) -> PrivateKey:
        passphrase = self._passphrase() if b"ENCRYPTED" in content else None
        try:
            return certificates.load_private_key(content, passphrase)
        except KeyringError as error:
            raise KeyringError(f"{path}: {error}", error.code) from error

    def _key_path(self, owner: str, label: str, certificate: x509.Certificate) -> Path:
        return self._private(owner) / f"{names.file_name(label)}.{key_id(certificate)}.key"

    def _private(self, owner: str) -> Path:
        return self._kind("private") / names.file_name(owner)

    def _key_file(self, owner: str, label: str, key: PrivateKey) -> files.NewFile:
        directory = self._private(owner)
        files.make_directory(directory.parent, secret=True)
        files.make_directory(directory, secret=True)
        content = certificates.private_key_pem(key, self._passphrase_for_writing())
        return files.NewFile(directory / f"{names.file_name(label)}.{key_id(key)}.key", content, 0o600)

    def _passphrase_for_writing(self) -> bytes | None:
        if not self.settings().encrypt_keys:
            return None
        passphrase = self._passphrase()
        if not passphrase:
            raise KeyringError("this store encrypts its keys; give the passphrase with --passphrase-file", 408)
        # A typing error must not leave the store with two passphrases.
        for path in self.key_files():
            content = files.read_secret(path)
            if b"ENCRYPTED" in content:
                self._decrypt(path, content)
                break
        return passphrase

    def key_files(self) -> list[Path]:
        """Return all files of private keys."""
        return sorted(self._kind("private").glob("*/*.key"))

    def reencrypt(self, passphrase: bytes | None) -> int:
        """Encrypt all keys, and those to come, with a new passphrase, or none for None; return how many were rewritten.

        Raises KeyringError before anything is changed when a key cannot be read or decrypted.
        """
        with self.writing():
            keys = {path: self._decrypt(path, files.read_secret(path)) for path in self.key_files()}
            changes = [
                files.NewFile(path, certificates.private_key_pem(key, passphrase), 0o600) for path, key in keys.items()
            ]
            # Whatever stops us in between, a new key is not kept in clear beside encrypted ones.
            settings = dataclasses.replace(self.settings(), encrypt_keys=passphrase is not None)
            changes.insert(0 if settings.encrypt_keys else len(changes), self._settings_file(settings))
            files.replace_all(changes)
        return len(keys)

    def has_other_keys(self, owner: str, label: str, certificate: x509.Certificate) -> bool:
        """Tell whether keys are kept under this label that do not belong to `certificate`."""
        identifier = key_id(certificate)
        return any(other != identifier for other, _ in self._keys_of(names.check_owner(owner), label))

    def _drop_keys(self, owner: str, label: str, *, keep: str | None = None) -> None:
        for identifier, path in self._keys_of(owner, label):
            if identifier != keep:
                files.remove(path)

    def _keys_of(self, owner: str, label: str) -> list[tuple[str, Path]]:
        found = []
        for path in self._private(owner).glob("*.key"):
            stem, _, identifier = path.name.removesuffix(".key").rpartition(".")
            if stem == names.file_name(label):
                found.append((identifier, path))
        return found

    # Requests

    def request_path(self, owner: str, label: str) -> Path:
        """Return where the request that waits for its certificate is kept."""
        owner_name = names.file_name(names.check_owner(owner))
        return self._kind("requests") / owner_name / f"{names.file_name(names.check_label(label))}.csr"

    def add_request(
        self, owner: str, label: str, request: x509.CertificateSigningRequest, private_key: PrivateKey
    ) -> None:
        """Keep a new key and the request made with it until the certificate comes back."""
        canonical = names.check_owner(owner)
        path = self.request_path(owner, label)
        with self.writing():
            if path.exists() or self.has_certificate(owner, label):
                raise KeyringError(
                    f"{canonical} already has a certificate or request labelled '{label}'; choose another label"
                )
            files.make_directory(path.parent, secret=False)
            content = request.public_bytes(certificates.PEM_ENCODING)
            files.replace_all([self._key_file(canonical, label, private_key), files.NewFile(path, content, 0o644)])

    def requests(self) -> list[tuple[str, str]]:
        """Return owner and label of all waiting requests."""
        base = self._kind("requests")
        return [
            (owner, label) for owner in names_in(base, "") for label in names_in(base / names.file_name(owner), ".csr")
        ]

    def key_for_request(self, owner: str, label: str, certificate: x509.Certificate) -> PrivateKey | None:
        """Return the private key that waits for `certificate` under this label, None when there is none."""
        path = self._key_path(names.check_owner(owner), label, certificate)
        try:
            self._check_directories(path, secret=True)
            return self._decrypt(path, files.read_secret(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeyringError(f"cannot read {path}: {error.strerror}", 428) from error

    # Rings

    def rings(self, owner: str | None = None) -> list[Ring]:
        """Return all rings, or those of one owner."""
        base = self._kind("rings")
        owners = names_in(base, "") if owner is None else [names.check_owner(owner)]
        return [
            self.definition(name, ring) for name in owners for ring in names_in(base / names.file_name(name), ".toml")
        ]

    def definition(self, owner: str, name: str) -> Ring:
        """Return one ring. Raises MissingError (202) when there is none, KeyringError when it is damaged."""
        path = self.ring_path(owner, name)
        canonical = names.check_owner(owner)
        data = self._toml(path)
        if data is None:
            raise self._no_ring(canonical, name)
        try:
            shown, kept_name = str(data["owner"]), str(data["name"])
            connections = tuple(_connection(item) for item in data.get("entry", ()))
        except (KeyError, ValueError, TypeError, AttributeError, KeyringError) as error:
            raise KeyringError(f"{path} is damaged ({error}); correct it or create the ring again") from error
        if names.fold_owner(shown) != canonical or kept_name != name:
            raise KeyringError(f"{path} does not describe ring {canonical}/{name}; correct it or create the ring again")
        return Ring(canonical, shown, name, connections)

    def ring_path(self, owner: str, name: str) -> Path:
        """Return where the ring is kept."""
        owner_name = names.file_name(names.check_owner(owner))
        return self._kind("rings") / owner_name / f"{names.file_name(names.check_ring_name(name))}.toml"

    def rings_with(self, owner: str, label: str) -> list[Ring]:
        """Return the rings that a certificate is connected to."""
        canonical = names.check_owner(owner)
        return [
            ring
            for ring in self.rings()
            if any((line.owner, line.label) == (canonical, label) for line in ring.connections)
        ]

    def create_ring(self, owner: str, name: str) -> Ring:
        """Create an empty ring. Raises KeyringError when it exists."""
        canonical = names.check_owner(owner)
        if canonical in _GROUPS:
            raise KeyringError(f"a ring belongs to a user, not to {canonical}")
        path = self.ring_path(owner, name)
        with self.writing():
            if path.exists():
                raise KeyringError(f"ring {canonical}/{name} exists already")
            files.make_directory(path.parent, secret=False)
            self._write_ring(Ring(canonical, owner, name))
        return self.definition(owner, name)

    def delete_ring(self, owner: str, name: str) -> None:
        """Delete a ring; the certificates on it stay. Raises MissingError when there is none."""
        with self.writing():
            path = self.ring_path(owner, name)
            if not path.exists():
                raise self._no_ring(names.check_owner(owner), name)
            files.remove(path)

    def connect(self, owner: str, name: str, line: Connection) -> Ring:
        """Connect a certificate to a ring, or change how it is connected; a new default replaces the old one."""
        with self.writing():
            ring = self.definition(owner, name)
            self.certificate(line.owner, line.label)
            kept = [
                Connection(other.owner, other.label, other.usage, other.default and not line.default)
                for other in ring.connections
                if (other.owner, other.label) != (line.owner, line.label)
            ]
            self._write_ring(Ring(ring.owner, ring.shown_owner, name, (*kept, line)))
        return self.definition(owner, name)

    def disconnect(self, owner: str, name: str, *, certificate_owner: str, label: str) -> Ring:
        """Take a certificate off a ring. Raises MissingError (407) when it is not on it."""
        canonical = names.check_owner(certificate_owner)
        with self.writing():
            ring = self.definition(owner, name)
            mapped = _mapped(ring, canonical, label, None)
            if mapped.connections == ring.connections:
                raise names.MissingError(f"'{label}' of {canonical} is not connected to ring {ring.reference}", 407)
            self._write_ring(mapped)
        return self.definition(owner, name)

    def take_over(self, old: StoredCertificate, new: StoredCertificate) -> None:
        """Put `new` in the place of `old` on all rings, keeping usage and default, and delete the key of `old`."""
        with self.writing():
            changes = []
            for ring in self.rings_with(old.owner, old.label):
                lines = [line for line in ring.connections if (line.owner, line.label) != (new.owner, new.label)]
                without = Ring(ring.owner, ring.shown_owner, ring.name, tuple(lines))
                changes.append(self._ring_file(_mapped(without, old.owner, old.label, new.label)))
            files.replace_all(changes)
            self._drop_keys(old.owner, old.label)

    def _write_ring(self, ring: Ring) -> None:
        files.replace_all([self._ring_file(ring)])

    def _ring_file(self, ring: Ring) -> files.NewFile:
        pieces = [
            "# A key ring of attls; changed by: attls keyring connect, attls keyring remove\n"
            f"owner = {quoted(ring.shown_owner)}\n"
            f"name = {quoted(ring.name)}\n"
        ]
        pieces += [
            "\n[[entry]]\n"
            f"owner = {quoted(line.owner)}\n"
            f"label = {quoted(line.label)}\n"
            f"usage = {quoted(line.usage.value.lower())}\n"
            f"default = {str(line.default).lower()}\n"
            for line in ring.connections
        ]
        return files.NewFile(self.ring_path(ring.owner, ring.name), "".join(pieces).encode(), 0o644)

    def _no_ring(self, owner: str, name: str) -> KeyringError:
        if not self.directory.is_dir():
            return names.MissingError(
                f"there is no keyring store at {self.directory}; create one with: attls cert create-ca"
            )
        others = names_in(self._kind("rings") / names.file_name(owner), ".toml")
        alike = [other for other in others if other.casefold() == name.casefold()]
        if alike:
            return names.MissingError(
                f"{owner} has no ring '{name}'; did you mean '{alike[0]}'? Ring names distinguish case"
            )
        known = f"it has {', '.join(repr(other) for other in others[:10])}" if others else "it has none"
        return names.MissingError(f"{owner} has no ring '{name}' in {self.directory}; {known}")

    # Who a certificate stands for

    def user_map(self) -> UserMap:
        """Return all that turns certificates into users, as it is on disk now; a value that outlives the store."""
        stored = self.certificates()
        hosts = self.settings().host_names
        return UserMap(
            tuple(
                Registered(one.certificate.fingerprint(hashes.SHA256()), one.shown_owner, one.label, one.trust)
                for one in stored
                if one.owner not in _GROUPS
            ),
            tuple(self.filters()),
            tuple(self.criteria()),
            tuple(certificates.der(one.certificate) for one in stored if one.trust is Trust.HIGHTRUST),
            frozenset(host.casefold() for host in hosts) if hosts else local_host_names(),
        )


_GROUPS = frozenset({names.CERTAUTH, names.SITE})


def key_id(holder: x509.Certificate | x509.CertificateSigningRequest | PrivateKey) -> str:
    """Return the identifier of a public key that its private key's file is named by."""
    return hashlib.sha256(certificates.public_key_bytes(holder)).hexdigest()[:16]


def default_usage(owner: str) -> Usage:
    """Return the usage that a certificate of `owner` is connected with when none is given."""
    return {names.CERTAUTH: Usage.CERTAUTH, names.SITE: Usage.SITE}.get(names.fold_owner(owner), Usage.PERSONAL)


def _belongs(key: PrivateKey, certificate: x509.Certificate) -> bool:
    return certificates.public_key_bytes(key) == certificates.public_key_bytes(certificate)


def _check_trust(owner: str, trust: Trust) -> None:
    if trust is Trust.HIGHTRUST and owner != names.CERTAUTH:
        raise KeyringError(f"only a CERTAUTH certificate can be HIGHTRUST, not one of {owner}")


def _mapped(ring: Ring, owner: str, label: str, new_label: str | None) -> Ring:
    """Return `ring` with a certificate's label changed, or with the certificate gone when `new_label` is None."""
    lines = []
    for line in ring.connections:
        if (line.owner, line.label) != (owner, label):
            lines.append(line)
        elif new_label is not None:
            lines.append(Connection(line.owner, new_label, line.usage, line.default))
    return Ring(ring.owner, ring.shown_owner, ring.name, tuple(lines))


def _connection(item: dict[str, object]) -> Connection:
    default = item.get("default", False)
    if not isinstance(default, bool):
        raise ValueError("default is true or false")
    owner, label = names.check_owner(str(item["owner"])), names.check_label(str(item["label"]))
    return Connection(owner, label, Usage(str(item["usage"]).upper()), default)


def _header_lines(head: bytes) -> Iterator[tuple[str, str]]:
    for line in head.decode("utf-8", "replace").splitlines():
        key, colon, value = line.partition(": ")
        if colon and not line.startswith("#"):
            yield key, value


def _one_line(text: str) -> str:
    # A subject may hold line ends, which would let a certificate write its own Trust line.
    return "".join(character if character.isprintable() else "?" for character in text)
