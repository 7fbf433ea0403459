"""From what OpenSSL says to the one `Reason` that log, metrics and displays share.

OpenSSL reports a failed handshake as a list of (library, function, reason) texts. The first whose reason text we know
decides; certificate failures carry the X.509 verification error, which says more and is asked first.
"""

from __future__ import annotations

from collections.abc import Sequence

from attls import errors
from attls.errors import Reason

WEAK_KEY = Reason(405, "weak-key", "the key of a certificate of the peer is too small")
OLD_CERTIFICATE = Reason(405, "old-certificate", "the X.509 version of the peer's certificate is too old")
OTHER_CERTIFICATE = Reason(434, "other-certificate", "the peer came with another certificate when keys were renewed")
OTHER_SIGNATURE = Reason(
    413, "other-signature", "a certificate of the peer is signed in a way that policy does not list"
)
WRONG_USAGE = Reason(440, "certificate-usage", "the peer's certificate must not be used for this role")
UNVERIFIED = Reason(8, "certificate", "the peer's certificate could not be verified")

# X.509 verification errors (OpenSSL x509_vfy.h) → System SSL return codes.
_VERIFY = {
    2: Reason(435, "unknown-ca", "the peer's certificate was issued by a CA that is not on the key ring"),
    7: Reason(413, "bad-certificate-signature", "the signature of a certificate of the peer is wrong"),
    9: Reason(401, "certificate-dates", "a certificate of the peer is not yet valid"),
    10: Reason(401, "certificate-dates", "a certificate of the peer has expired"),
    18: Reason(417, "self-signed", "the peer's certificate is self-signed and not on the key ring"),
    19: Reason(435, "unknown-ca", "the root of the peer's certificate chain is not on the key ring"),
    20: Reason(435, "unknown-ca", "the peer's certificate was issued by a CA that is not on the key ring"),
    21: Reason(435, "unknown-ca", "the peer's certificate chain is incomplete"),
    23: Reason(431, "revoked", "a certificate of the peer is revoked"),
    26: WRONG_USAGE,
    66: WEAK_KEY,
    67: Reason(435, "weak-key", "the key of a CA of the peer is too small"),
    68: Reason(413, "weak-signature", "a certificate of the peer is signed with a digest that is too weak"),
}

_NO_CIPHERS = Reason(402, "no-cipher", "the two sides have no cipher suite in common")
_NO_PROTOCOL = Reason(412, "no-protocol", "the two sides have no TLS version in common")
_REFUSED = Reason(402, "handshake-refused", "the peer refused the handshake (no common parameters)")

# OpenSSL reason texts (ssl/ssl_err.c). "alert" in a text means that the peer sent it.
_REASONS = {
    "no shared cipher": _NO_CIPHERS,
    "no ciphers available": _NO_CIPHERS,
    "no cipher match": _NO_CIPHERS,
    "no suitable signature algorithm": Reason(402, "no-cipher", "the two sides have no signature algorithm in common"),
    "no suitable key share": Reason(402, "no-group", "the two sides have no key exchange group in common"),
    "no suitable groups": Reason(402, "no-group", "the two sides have no key exchange group in common"),
    "unsupported protocol": _NO_PROTOCOL,
    "no protocols available": _NO_PROTOCOL,
    "wrong ssl version": _NO_PROTOCOL,
    "version too low": _NO_PROTOCOL,
    "alert protocol version": _NO_PROTOCOL,
    "alert handshake failure": _REFUSED,
    "alert insufficient security": _REFUSED,
    "peer did not return a certificate": errors.NO_CLIENT_CERTIFICATE,
    "alert certificate required": Reason(403, "certificate-required", "the peer requires a certificate"),
    "wrong version number": errors.CLEARTEXT,
    "http request": errors.CLEARTEXT,
    "https proxy request": errors.CLEARTEXT,
    "unknown ca": Reason(435, "unknown-ca", "the peer does not know the CA of our certificate"),
    "alert unknown ca": Reason(435, "refused-ca", "the peer does not know the CA of our certificate"),
    "bad certificate": Reason(414, "refused-certificate", "the peer rejected our certificate"),
    "certificate unknown": Reason(414, "refused-certificate", "the peer rejected our certificate"),
    "unsupported certificate": Reason(414, "refused-certificate", "the peer does not support our certificate"),
    "certificate expired": Reason(401, "refused-dates", "the peer says that our certificate has expired"),
    "certificate revoked": Reason(431, "refused-revoked", "the peer says that our certificate is revoked"),
    "decryption failed or bad record mac": errors.BAD_MAC,
    "bad record mac": errors.BAD_MAC,
    "no renegotiation": Reason(432, "no-renegotiation", "the peer refuses to renew the session keys"),
    "alert internal error": Reason(438, "peer-internal-error", "the peer reports an internal error"),
    "tlsv1 unrecognized name": Reason(447, "unrecognized-name", "the server does not serve the name we asked for"),
    "unrecognized name": Reason(447, "unrecognized-name", "the server does not serve the name we asked for"),
    "unexpected eof while reading": errors.PEER_CLOSED_HANDSHAKE,
}


_PROTOCOLS = ("ssl/tls alert ", "tls alert ", "sslv3 alert ", "tlsv1 alert ", "tlsv13 alert ")


def of_verification(error: int) -> Reason:
    """Return the reason for an X.509 verification error number."""
    return _VERIFY.get(error, UNVERIFIED)


def of_openssl(failures: Sequence[Sequence[str]]) -> tuple[Reason, str]:
    """Return the reason for OpenSSL's error list, with OpenSSL's own words as detail."""
    texts = [failure[-1] for failure in failures if failure and failure[-1]]
    detail = "; ".join(texts)
    for text in texts:
        plain = text.lower()
        if plain in _REASONS:
            return _REASONS[plain], detail
        # The name of the protocol in front of "alert" changes from one version of OpenSSL to the next.
        alert = plain[plain.find("alert ") :] if plain.startswith(_PROTOCOLS) else plain
        for shorter in (alert, alert.removeprefix("alert ")):
            if shorter in _REASONS:
                return _REASONS[shorter], detail
    return errors.PROTOCOL, detail
