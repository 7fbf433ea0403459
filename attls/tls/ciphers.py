"""Cipher suites: IANA code ↔ IANA name ↔ the name OpenSSL uses, for every suite that this OpenSSL can negotiate.

The codes are those of `V3CipherSuites4Char` (IANA TLS Cipher Suites registry). OpenSSL's names follow from the IANA
names by a rule for all suites before TLS 1.3 and are the same since.
"""

from __future__ import annotations

_CIPHERS = {
    "AES_128_CBC_SHA": "AES128-SHA",
    "AES_256_CBC_SHA": "AES256-SHA",
    "AES_128_CBC_SHA256": "AES128-SHA256",
    "AES_256_CBC_SHA256": "AES256-SHA256",
    "AES_256_CBC_SHA384": "AES256-SHA384",
    "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
    "NULL_SHA": "NULL-SHA",
    "NULL_SHA256": "NULL-SHA256",
}

NAMES: dict[str, str] = {
    "1301": "TLS_AES_128_GCM_SHA256",
    "1302": "TLS_AES_256_GCM_SHA384",
    "1303": "TLS_CHACHA20_POLY1305_SHA256",
    "0002": "TLS_RSA_WITH_NULL_SHA",
    "002F": "TLS_RSA_WITH_AES_128_CBC_SHA",
    "0033": "TLS_DHE_RSA_WITH_AES_128_CBC_SHA",
    "0035": "TLS_RSA_WITH_AES_256_CBC_SHA",
    "0039": "TLS_DHE_RSA_WITH_AES_256_CBC_SHA",
    "003B": "TLS_RSA_WITH_NULL_SHA256",
    "003C": "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "003D": "TLS_RSA_WITH_AES_256_CBC_SHA256",
    "0067": "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256",
    "006B": "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256",
    "009C": "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "009D": "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "009E": "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",
    "009F": "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384",
    "C006": "TLS_ECDHE_ECDSA_WITH_NULL_SHA",
    "C009": "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "C00A": "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "C010": "TLS_ECDHE_RSA_WITH_NULL_SHA",
    "C013": "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "C014": "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "C023": "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "C024": "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384",
    "C027": "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "C028": "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384",
    "C02B": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "C02C": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "C02F": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "C030": "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "CCA8": "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "CCA9": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "CCAA": "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
}


def _openssl_name(name: str) -> str:
    key_exchange, separator, cipher = name.removeprefix("TLS_").partition("_WITH_")
    if not separator:
        return name
    prefix = "" if key_exchange == "RSA" else key_exchange.replace("_", "-") + "-"
    return prefix + _CIPHERS[cipher]


OPENSSL_NAMES = {code: _openssl_name(name) for code, name in NAMES.items()}
_BY_OPENSSL_NAME = {openssl: (code, NAMES[code]) for code, openssl in OPENSSL_NAMES.items()}


def is_tls13(code: str) -> bool:
    """Say whether the four-character code names a TLS 1.3 suite (RFC 8446 appendix B.4)."""
    return code.startswith("13")


def identify(openssl_name: str) -> tuple[str, str]:
    """Return the four-character code and IANA name of a suite that OpenSSL negotiated.

    A suite outside our table, which no policy can have asked for, keeps OpenSSL's name and the code `0000`.
    """
    return _BY_OPENSSL_NAME.get(openssl_name, ("0000", openssl_name))
