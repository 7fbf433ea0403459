"""The certificates of one run, made on the fly: a P-256 root, an intermediate, and server certificates of several keys.

The same files serve every proxy: as PEM files for those that read files, imported into key rings for attls.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_NAME = "bench.example"


KEYS = ("p256", "rsa2048", "rsa4096")
"""The keys of the server certificates."""

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Server:
    """Paths of PEM files. `chain` is server then intermediate, `bundle` is chain and key in one file."""

    certificate: Path
    key: Path
    chain: Path
    bundle: Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files; `servers` has one server certificate for each of `KEYS`."""

    root: Path
    intermediate: Path
    servers: dict[str, Server]


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _make_key(name: str) -> Key:
    if name == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, int(name.removeprefix("rsa")))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def make(directory: Path, addresses: list[str]) -> Certificates:
    """Write the certificates for `SERVER_NAME` and `addresses` into `directory`, the keys with mode 0600."""
    now = datetime.datetime.now(datetime.UTC)

    def build(
        subject: str, key: Key, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, *, ca: bool
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not ca,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=ca,
                    crl_sign=ca,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if not ca:
            names: list[x509.GeneralName] = [x509.DNSName(SERVER_NAME)]
            names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    def write(name: str, content: bytes) -> Path:
        path = directory / f"{name}.pem"
        path.touch(mode=0o600)
        path.write_bytes(content)
        return path

    root_key, intermediate_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = build("Bench Root", root_key, "Bench Root", root_key, ca=True)
    intermediate = _pem(build("Bench Intermediate", intermediate_key, "Bench Root", root_key, ca=True))
    servers = {}
    for name in KEYS:
        key = _make_key(name)
        certificate = _pem(build(SERVER_NAME, key, "Bench Intermediate", intermediate_key, ca=False))
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        servers[name] = Server(
            certificate=write(f"{name}-server", certificate),
            key=write(f"{name}-key", key_pem),
            chain=write(f"{name}-chain", certificate + intermediate),
            bundle=write(f"{name}-bundle", certificate + intermediate + key_pem),
        )
    return Certificates(write("root", _pem(root)), write("intermediate", intermediate), servers)
