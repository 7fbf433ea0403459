"""A store and the few things that nearly every test does with it; keys are P-256, which takes a millisecond."""

import datetime
from pathlib import Path

from cryptography import x509

from attls.keyring import Store, Usage, certificates, operations
from attls.keyring.store import Connection, StoredCertificate

NOW = datetime.datetime.now(datetime.UTC)


class Workshop:
    """A store and the few things that nearly every test does with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = Store(directory)

    def authority(self, label: str = "Root", **more: object) -> StoredCertificate:
        sign_with = more.pop("sign_with", None)
        now = more.pop("now", NOW)
        profile = certificates.Profile(
            subject=certificates.subject_name(label),
            days=100,
            is_authority=True,
            **more,  # type: ignore[arg-type]
        )
        return operations.create(
            self.store,
            owner="CERTAUTH",
            label=label,
            profile=profile,
            key_type="ecdsa-p256",
            signed_by=operations.signer(self.store, str(sign_with)) if sign_with else None,
            now=now,  # type: ignore[arg-type]
        )

    def leaf(
        self,
        label: str = "server",
        *,
        owner: str = "demo",
        sign_with: str = "Root",
        san: str = "DNS:server.example",
        key_type: str = "ecdsa-p256",
        subject: str | None = None,
        days: int = 50,
        now: datetime.datetime = NOW,
        extra: tuple[x509.Extension[x509.ExtensionType], ...] = (),
    ) -> StoredCertificate:
        profile = certificates.Profile(
            subject=certificates.subject_name(label, subject),
            days=days,
            names=certificates.alternative_names(san),
            extra=extra,
        )
        return operations.create(
            self.store,
            owner=owner,
            label=label,
            profile=profile,
            key_type=key_type,
            signed_by=operations.signer(self.store, sign_with),
            now=now,
        )

    def ring(self, name: str, *lines: tuple[str, str, Usage, bool], owner: str = "demo") -> None:
        self.store.create_ring(owner, name)
        for cert_owner, label, usage, default in lines:
            self.store.connect(owner, name, Connection(cert_owner.upper(), label, usage, default))

    def key_file(self, owner: str = "DEMO", label: str = "server") -> Path:
        return next((self.directory / "private" / owner).glob(f"{label}.*.key"))
