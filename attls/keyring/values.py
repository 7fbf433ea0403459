"""What a ring is once it was read: frozen values that can be sent to a worker process.

A `Keyring` holds bytes only (DER certificates, PEM keys), never library objects, so that it pickles and compares by
content. Whether a certificate has expired is not judged here but in the handshake, with the clock of that moment.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from attls.errors import KeyringError
from attls.keyring import certificates, names


class Trust(enum.Enum):
    """Whether a certificate may be used: NOTRUST is as good as absent, HIGHTRUST also vouches for user ids."""

    TRUST = "TRUST"
    NOTRUST = "NOTRUST"
    HIGHTRUST = "HIGHTRUST"


class Usage(enum.Enum):
    """What a certificate is on a ring for: our own identity, a certificate authority, or a trusted site."""

    PERSONAL = "PERSONAL"
    CERTAUTH = "CERTAUTH"
    SITE = "SITE"


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate connected to a ring; `certificate` is DER, `private_key` unencrypted PKCS#8 PEM or None.

    `key_problem` says why the private key is None where there should be one.
    """

    owner: str
    label: str
    usage: Usage
    default: bool
    trust: Trust
    certificate: bytes = field(repr=False)
    private_key: bytes | None = field(default=None, repr=False)
    key_problem: str | None = None

    @property
    def is_trusted(self) -> bool:
        """Tell whether the entry counts at all."""
        return self.trust is not Trust.NOTRUST


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate to present: DER, its private key as PEM, and the intermediates that follow it, nearest first.

    `chain` holds neither the certificate itself nor the root: a peer that trusts the root has it already.
    """

    owner: str
    label: str
    certificate: bytes = field(repr=False)
    private_key: bytes = field(repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Keyring:
    """The content of one ring at one moment; `name` is the ring as displays show it.

    `lists` are revocation lists (CRLs, DER) of the authorities on it.
    """

    name: str
    entries: tuple[Entry, ...] = ()
    lists: tuple[bytes, ...] = field(default=(), repr=False)

    def identity(self, label: str | None = None) -> Identity:
        """Return the certificate labelled `label`, or the ring's default one when `label` is None.

        Raises KeyringError with the System SSL code: 407 no such label, 441 several, 7 no default certificate,
        428 no usable private key.
        """
        entry = self._default() if label is None else self._labelled(label)
        what = f"certificate '{entry.label}' of {entry.owner} on ring {self.name}"
        if not entry.is_trusted:
            raise KeyringError(
                f"{what} is marked NOTRUST; run: attls cert trust {names.options(entry.owner, entry.label)}", 407
            )
        if entry.usage is not Usage.PERSONAL:
            raise KeyringError(
                f"{what} is connected as {entry.usage.value}, so its private key is not used; "
                "connect it with --usage personal",
                428,
            )
        if entry.private_key is None:
            raise KeyringError(f"{what} has no private key: {entry.key_problem or 'the store has none'}", 428)
        helpers = [other.certificate for other in self.entries if other.is_trusted]
        return Identity(
            entry.owner,
            entry.label,
            entry.certificate,
            entry.private_key,
            certificates.intermediates(entry.certificate, helpers),
        )

    def trust_anchors(self) -> tuple[bytes, ...]:
        """Return the certificates that a peer may be verified against: trusted ones of usage CERTAUTH or SITE, DER."""
        return tuple(
            entry.certificate for entry in self.entries if entry.is_trusted and entry.usage is not Usage.PERSONAL
        )

    def issuer(self, certificate: bytes) -> bytes | None:
        """Return the certificate (DER) of the authority that signed `certificate`, None where it is not on the ring."""
        found = certificates.chain(
            certificates.load_certificate(certificate),
            [certificates.load_certificate(entry.certificate) for entry in self.entries if entry.is_trusted],
        )
        return certificates.der(found[0]) if found else None

    def narrowed(self, labels: Iterable[str | None]) -> Keyring:
        """Return this ring without the private keys that the identities `labels` (None: the default) do not need.

        What a worker process gets should be this: keys only where they are served.
        """
        wanted = set(labels)
        return replace(
            self,
            entries=tuple(
                entry
                if entry.label in wanted or (entry.default and None in wanted)
                else replace(entry, private_key=None, key_problem="it was not asked for")
                for entry in self.entries
            ),
        )

    def _default(self) -> Entry:
        for entry in self.entries:
            if entry.default:
                return entry
        raise KeyringError(
            f"ring {self.name} has no default certificate; "
            "name one with CertificateLabel, or connect one with --default",
            7,
        )

    def _labelled(self, label: str) -> Entry:
        found = [entry for entry in self.entries if entry.label == label]
        if not found:
            known = ", ".join(f"'{entry.label}'" for entry in self.entries) or "nothing"
            raise KeyringError(
                f"no certificate labelled '{label}' is connected to ring {self.name}; it holds {known}", 407
            )
        usable = [entry for entry in found if entry.private_key is not None and entry.usage is Usage.PERSONAL]
        if len(usable) > 1:
            owners = ", ".join(entry.owner for entry in usable)
            raise KeyringError(
                f"ring {self.name} holds several certificates labelled '{label}' (owners {owners}); remove all but one",
                441,
            )
        return (usable or found)[0]
