"""Signed OCSP requests and the pairs that name signatures; the openssl command is the other side."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.x509 import ocsp

from attls.errors import KeyringError
from attls.keyring import certificates
from attls.keyring.certificates import Profile, Signer, build, generate_key, subject_name
from attls.keyring.revocation import ocsp_request
from attls.keyring.signatures import check_pair, pair_of, sign_request

from .workshop import NOW


def make(name: str, key_type: str, signer: Signer | None = None, *, authority: bool = False) -> Signer:
    key = generate_key(key_type)
    profile = Profile(subject=subject_name(name), days=30, is_authority=authority)
    return Signer(build(profile, key.public_key(), signer=signer, own_key=key, now=NOW), key)


ROOT = make("Root", "ecdsa-p256", authority=True)
LEAF = make("leaf", "ecdsa-p256", ROOT)
REQUEST = ocsp_request(LEAF.certificate, ROOT.certificate, nonce=b"12345678")


def test_openssl_writes_the_same_request(tmp_path: Path) -> None:
    """With RSA, whose signatures are not random, a signed request is byte for byte what the openssl command makes."""
    asking = make("who asks", "rsa-2048", ROOT)
    for name, content in (
        ("root.pem", certificates.pem(ROOT.certificate)),
        ("leaf.pem", certificates.pem(LEAF.certificate)),
        ("asking.pem", certificates.pem(asking.certificate) + certificates.private_key_pem(asking.private_key)),
    ):
        (tmp_path / name).write_bytes(content)
    for more in ([], ["-sign_other", "root.pem"]):
        subprocess.run(
            ["openssl", "ocsp", "-issuer", "root.pem", "-cert", "leaf.pem", "-signer", "asking.pem", "-no_nonce",
             *more, "-reqout", "request.der"],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
        theirs = (tmp_path / "request.der").read_bytes()
        others = [certificates.der(ROOT.certificate)] if more else []
        assert theirs == sign_request(ocsp_request(LEAF.certificate, ROOT.certificate), asking, others, "0401")


@pytest.mark.parametrize(
    ("key_type", "pair", "word"),
    [
        ("rsa-2048", "0401", "sha256WithRSAEncryption"),
        ("rsa-2048", "0601", "sha512WithRSAEncryption"),
        ("rsa-2048", "0201", "sha1WithRSAEncryption"),
        ("rsa-2048", "0804", "rsassaPss"),
        ("rsa-2048", "0806", "rsassaPss"),
        ("ecdsa-p256", "0403", "ecdsa-with-SHA256"),
        ("ecdsa-p384", "0503", "ecdsa-with-SHA384"),
        ("ed25519", "0807", "ED25519"),
    ],
)
def test_signatures_verify(tmp_path: Path, key_type: str, pair: str, word: str) -> None:
    """Every pair makes a signature that its public key verifies, and the openssl command reads the request."""
    asking = make("who asks", key_type, ROOT)
    made = sign_request(REQUEST, asking, (), pair)
    (tmp_path / "request.der").write_bytes(made)
    text = openssl(tmp_path, "ocsp", "-reqin", "request.der", "-req_text", "-noverify")
    assert f"Signature Algorithm: {word}" in text
    assert "Requestor Name: DirName:CN = who asks" in text
    assert "OCSP Nonce" in text
    body, signature = parts(tmp_path, made)
    verify(asking.certificate, pair, signature, body)
    # What is asked is what was asked before.
    loaded = ocsp.load_der_ocsp_request(made)
    assert LEAF.certificate.serial_number == loaded.serial_number


def test_the_key_must_fit_the_pair() -> None:
    """A pair that the key cannot make is refused with 428, before anything is asked."""
    for key_type, pair in (("rsa-2048", "0403"), ("ecdsa-p256", "0401"), ("ed25519", "0804"), ("ecdsa-p256", "0402")):
        with pytest.raises(KeyringError) as caught:
            check_pair(pair, make("x", key_type, ROOT).certificate)
        assert 428 == caught.value.code


def test_pairs_of_certificates() -> None:
    """The pair of a signature is found from its algorithm; one that has no pair has none."""
    assert "0403" == pair_of(LEAF.certificate.signature_algorithm_oid, LEAF.certificate.signature_hash_algorithm)
    pss = x509.oid.SignatureAlgorithmOID.RSASSA_PSS
    assert ["0804", None] == [pair_of(pss, kind()) for kind in (hashes.SHA256, hashes.SHA3_256)]
    assert pair_of(x509.ObjectIdentifier("1.2.3"), None) is None


def openssl(folder: Path, *words: str) -> str:
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def parts(folder: Path, request: bytes) -> tuple[bytes, bytes]:
    """Take a signed request apart: what is signed, and the signature, as the openssl command finds them."""
    found = re.findall(
        r"^ *(\d+):d=(\d+) +hl=(\d+) +l= *(\d+) +\w+: (.*?) *$",
        openssl(folder, "asn1parse", "-inform", "DER", "-in", "request.der"),
        re.M,
    )
    pieces = [
        (kind, int(depth), request[int(at) : int(at) + int(head) + int(size)], int(head))
        for at, depth, head, size, kind in found
    ]
    body = next(piece for kind, depth, piece, _ in pieces if depth == 1 and kind == "SEQUENCE")
    signature = next(piece[head + 1 :] for kind, depth, piece, head in pieces if depth == 3 and kind == "BIT STRING")
    return body, signature


def verify(certificate: x509.Certificate, pair: str, signature: bytes, body: bytes) -> None:
    chosen: hashes.HashAlgorithm = {
        "02": hashes.SHA1(),
        "05": hashes.SHA384(),
        "06": hashes.SHA512(),
        "0806": hashes.SHA512(),
    }.get(pair if pair[:2] == "08" else pair[:2], hashes.SHA256())
    match certificate.public_key():
        case rsa.RSAPublicKey() as key if pair[:2] == "08":
            key.verify(signature, body, padding.PSS(padding.MGF1(chosen), chosen.digest_size), chosen)
        case rsa.RSAPublicKey() as key:
            key.verify(signature, body, padding.PKCS1v15(), chosen)
        case ec.EllipticCurvePublicKey() as key:
            key.verify(signature, body, ec.ECDSA(chosen))
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey() as key:
            key.verify(signature, body)
        case other:
            raise AssertionError(other)
