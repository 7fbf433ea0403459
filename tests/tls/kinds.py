"""Certificates with keys of any kind and size, good or not, each signed by an authority with a key of the same kind."""

from __future__ import annotations

import datetime
import ssl
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from attls.keyring import Entry, Keyring, Trust, Usage

_CURVES = {"P-224": ec.SECP224R1(), "P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
_HASHES: dict[str, hashes.SHA384 | hashes.SHA512] = {"P-384": hashes.SHA384(), "P-521": hashes.SHA512()}


@cache
def certificates(kind: str) -> tuple[bytes, bytes, bytes]:
    """Return an authority's certificate, one that it has signed (PEM), and the key of that, all of one `kind`."""
    above, key = (
        ec.generate_private_key(_CURVES[kind])
        if kind in _CURVES
        else rsa.generate_private_key(65537, int(kind.partition("-")[2]))
        for _ in range(2)
    )
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    root, name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (f"CA {kind}", "server.test"))
    found = []
    for subject, public, authority in ((root, above.public_key(), True), (name, key.public_key(), False)):
        builder = x509.CertificateBuilder(root, subject, public, x509.random_serial_number())
        builder = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=30))
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("server.test")]), critical=False)
        found.append(builder.sign(above, _HASHES.get(kind, hashes.SHA256())))
    pem = [one.public_bytes(Encoding.PEM) for one in found]
    return pem[0], pem[1], key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def ring(kind: str, role: str) -> Keyring:
    """Return the ring of one end in `role`: the authority, and but for a client the certificate."""
    authority, own, key = certificates(kind)
    der = [x509.load_pem_x509_certificate(one).public_bytes(Encoding.DER) for one in (authority, own)]
    entries = (
        Entry("CERTAUTH", "CA", Usage.CERTAUTH, False, Trust.TRUST, der[0]),
        Entry("A", "own", Usage.PERSONAL, True, Trust.TRUST, der[1], key),
    )
    return Keyring("A/B", entries[:1] if role == "Client" else entries)


def other_end(folder: Path, kind: str, *, server: bool) -> ssl.SSLContext:
    """Return the standard library's context for the other end, which has the certificate if it is the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    authority, own, key = certificates(kind)
    if server:
        context.set_ciphers("ALL:@SECLEVEL=0")  # it has no opinion of its own about keys
        (folder / "own.pem").write_bytes(own + key)
        context.load_cert_chain(folder / "own.pem")
    else:
        context.load_verify_locations(cadata=authority.decode())
    return context
