"""Signature pairs as AT-TLS names them (hash byte, signature byte), and OCSP requests that are signed with one.

The library builds OCSP requests but does not sign them, so the few lines of DER that a signature adds are written here
(RFC 6960 section 4.1.1). Pairs are those of TLS (RFC 5246 section 7.4.1.4.1, RFC 8446 section 4.2.3) and name, here,
what signs lists, answers and requests about revocation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

from attls.errors import KeyringError
from attls.keyring import certificates
from attls.keyring.certificates import Signer

_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "01": hashes.MD5,
    "02": hashes.SHA1,
    "03": hashes.SHA224,
    "04": hashes.SHA256,
    "05": hashes.SHA384,
    "06": hashes.SHA512,
}
_PAIRS: dict[x509.ObjectIdentifier, str] = {
    SignatureAlgorithmOID.RSA_WITH_MD5: "0101",
    SignatureAlgorithmOID.RSA_WITH_SHA1: "0201",
    SignatureAlgorithmOID.DSA_WITH_SHA1: "0202",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "0203",
    SignatureAlgorithmOID.RSA_WITH_SHA224: "0301",
    SignatureAlgorithmOID.DSA_WITH_SHA224: "0302",
    SignatureAlgorithmOID.ECDSA_WITH_SHA224: "0303",
    SignatureAlgorithmOID.RSA_WITH_SHA256: "0401",
    SignatureAlgorithmOID.DSA_WITH_SHA256: "0402",
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: "0403",
    SignatureAlgorithmOID.RSA_WITH_SHA384: "0501",
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: "0503",
    SignatureAlgorithmOID.RSA_WITH_SHA512: "0601",
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: "0603",
    SignatureAlgorithmOID.ED25519: "0807",
    SignatureAlgorithmOID.ED448: "0808",
}
_OIDS = {pair: oid for oid, pair in _PAIRS.items()}
_PSS: dict[str, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {
    "0804": hashes.SHA256,
    "0805": hashes.SHA384,
    "0806": hashes.SHA512,
}

# Tags of DER (X.690): of the universal class, then of the context with its number added.
_BIT_STRING, _NULL, _OID, _SEQUENCE, _CONTEXT = 0x03, 0x05, 0x06, 0x30, 0xA0


def pair_of(algorithm: x509.ObjectIdentifier, hash_algorithm: hashes.HashAlgorithm | None) -> str | None:
    """Return the pair of a signature on a certificate, list or answer, None for one that has no pair."""
    if algorithm == SignatureAlgorithmOID.RSASSA_PSS:
        return next((pair for pair, kind in _PSS.items() if isinstance(hash_algorithm, kind)), None)
    return _PAIRS.get(algorithm)


def check_pair(pair: str, certificate: x509.Certificate) -> None:
    """Return if the key of `certificate` can make a signature of this kind. Raises KeyringError (428)."""
    key = certificate.public_key()
    kind = {"01": rsa.RSAPublicKey, "03": ec.EllipticCurvePublicKey}.get(pair[2:])
    if pair in _PSS:
        kind = rsa.RSAPublicKey
    elif pair == "0807":
        kind = ed25519.Ed25519PublicKey
    elif pair == "0808":
        kind = ed448.Ed448PublicKey
    if kind is None or not isinstance(key, kind):
        raise KeyringError(
            f"'{certificates.common_name(certificate)}' has a key of type {certificates.key_type(key)}, which makes no "
            f"signatures of the pair {pair}; name another pair in OcspRequestSigalg",
            428,
        )


def sign_request(request: bytes, signer: Signer, chain: Sequence[bytes], pair: str) -> bytes:
    """Return the unsigned OCSP `request` (DER) with the signer's name and its signature of the kind `pair`.

    `chain` holds the intermediates (DER) that go along with the signer's certificate. Raises KeyringError (428) when
    the key cannot make such signatures.
    """
    check_pair(pair, signer.certificate)
    unsigned = _content(_content(request))
    # Who signs shall say so (RFC 6960 section 4.1.2): requestorName [1], a directory name, which is choice [4]. It
    # comes before the list of requests; the version, which would come first, is left out by whoever writes version 1.
    name = _tlv(_CONTEXT | 1, _tlv(_CONTEXT | 4, signer.certificate.subject.public_bytes()))
    body = _tlv(_SEQUENCE, name + unsigned)
    sent = b"".join((certificates.der(signer.certificate), *chain))
    signature = (
        _algorithm(pair)
        + _tlv(_BIT_STRING, b"\0" + _sign(signer, pair, body))
        + _tlv(_CONTEXT | 0, _tlv(_SEQUENCE, sent))
    )
    return _tlv(_SEQUENCE, body + _tlv(_CONTEXT | 0, _tlv(_SEQUENCE, signature)))


def _sign(signer: Signer, pair: str, data: bytes) -> bytes:
    match signer.private_key:
        case rsa.RSAPrivateKey() as key if pair in _PSS:
            chosen = _PSS[pair]()
            return key.sign(data, padding.PSS(padding.MGF1(chosen), chosen.digest_size), chosen)
        case rsa.RSAPrivateKey() as key:
            return key.sign(data, padding.PKCS1v15(), _HASHES[pair[:2]]())
        case ec.EllipticCurvePrivateKey() as key:
            return key.sign(data, ec.ECDSA(_HASHES[pair[:2]]()))
        case ed25519.Ed25519PrivateKey() | ed448.Ed448PrivateKey() as key:
            return key.sign(data)
    raise AssertionError("check_pair lets no other key pass")


def _algorithm(pair: str) -> bytes:
    """Write an AlgorithmIdentifier."""
    if pair in _PSS:
        # RFC 4055 section 3.1: hash [0], mask generation [1] with the same hash, length of the salt [2].
        chosen = _PSS[pair]()
        digest = _tlv(_SEQUENCE, _oid(_DIGESTS[chosen.name]) + _tlv(_NULL, b""))
        mask = _tlv(_SEQUENCE, _oid("1.2.840.113549.1.1.8") + digest)
        salt = _tlv(0x02, bytes((chosen.digest_size,)))
        parameters = _tlv(_SEQUENCE, _tlv(_CONTEXT, digest) + _tlv(_CONTEXT | 1, mask) + _tlv(_CONTEXT | 2, salt))
        return _tlv(_SEQUENCE, _oid(SignatureAlgorithmOID.RSASSA_PSS.dotted_string) + parameters)
    # With RSA the parameters are NULL, with the others they are absent (RFC 4055 section 5, RFC 5758, RFC 8410).
    return _tlv(_SEQUENCE, _oid(_OIDS[pair].dotted_string) + (_tlv(_NULL, b"") if pair[2:] == "01" else b""))


_DIGESTS = {"sha256": "2.16.840.1.101.3.4.2.1", "sha384": "2.16.840.1.101.3.4.2.2", "sha512": "2.16.840.1.101.3.4.2.3"}


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    content = b""
    for number in (40 * first + second, *rest):
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return _tlv(_OID, content)


def _tlv(tag: int, content: bytes) -> bytes:
    """Write one element of DER with its definite length."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


def _content(element: bytes) -> bytes:
    """Return what is inside an element that the library wrote."""
    return element[2 + (element[1] & 0x7F if element[1] & 0x80 else 0) :]
