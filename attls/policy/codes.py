"""The numbers behind the names: cipher suites, curves and groups, signature pairs.

Codes are those of the IANA registries as System SSL writes them: ciphers in hexadecimal, groups in *decimal* with
four digits, signature pairs as hash byte and signature byte in hexadecimal. What z/OS does not have but a modern
library does (ChaCha20 with TLS 1.2, post-quantum groups, Ed25519) is reachable by the same spelling rules.
"""

from __future__ import annotations

V2_CIPHERS: dict[str, str] = {
    "1": "TLS_RC4_128_WITH_MD5",
    "2": "TLS_RC4_128_EXPORT40_WITH_MD5",
    "3": "TLS_RC2_CBC_128_CBC_WITH_MD5",
    "4": "TLS_RC2_CBC_128_CBC_EXPORT40_WITH_MD5",
    "6": "TLS_DES_64_CBC_WITH_MD5",
    "7": "TLS_DES_192_EDE3_CBC_WITH_MD5",
}

CIPHERS: dict[str, str] = {
    "0000": "TLS_NULL_WITH_NULL_NULL",
    "0001": "TLS_RSA_WITH_NULL_MD5",
    "0002": "TLS_RSA_WITH_NULL_SHA",
    "0003": "TLS_RSA_EXPORT_WITH_RC4_40_MD5",
    "0004": "TLS_RSA_WITH_RC4_128_MD5",
    "0005": "TLS_RSA_WITH_RC4_128_SHA",
    "0006": "TLS_RSA_EXPORT_WITH_RC2_CBC_40_MD5",
    "0009": "TLS_RSA_WITH_DES_CBC_SHA",
    "000A": "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "000C": "TLS_DH_DSS_WITH_DES_CBC_SHA",
    "000D": "TLS_DH_DSS_WITH_3DES_EDE_CBC_SHA",
    "000F": "TLS_DH_RSA_WITH_DES_CBC_SHA",
    "0010": "TLS_DH_RSA_WITH_3DES_EDE_CBC_SHA",
    "0012": "TLS_DHE_DSS_WITH_DES_CBC_SHA",
    "0013": "TLS_DHE_DSS_WITH_3DES_EDE_CBC_SHA",
    "0015": "TLS_DHE_RSA_WITH_DES_CBC_SHA",
    "0016": "TLS_DHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "002F": "TLS_RSA_WITH_AES_128_CBC_SHA",
    "0030": "TLS_DH_DSS_WITH_AES_128_CBC_SHA",
    "0031": "TLS_DH_RSA_WITH_AES_128_CBC_SHA",
    "0032": "TLS_DHE_DSS_WITH_AES_128_CBC_SHA",
    "0033": "TLS_DHE_RSA_WITH_AES_128_CBC_SHA",
    "0035": "TLS_RSA_WITH_AES_256_CBC_SHA",
    "0036": "TLS_DH_DSS_WITH_AES_256_CBC_SHA",
    "0037": "TLS_DH_RSA_WITH_AES_256_CBC_SHA",
    "0038": "TLS_DHE_DSS_WITH_AES_256_CBC_SHA",
    "0039": "TLS_DHE_RSA_WITH_AES_256_CBC_SHA",
    "003B": "TLS_RSA_WITH_NULL_SHA256",
    "003C": "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "003D": "TLS_RSA_WITH_AES_256_CBC_SHA256",
    "003E": "TLS_DH_DSS_WITH_AES_128_CBC_SHA256",
    "003F": "TLS_DH_RSA_WITH_AES_128_CBC_SHA256",
    "0040": "TLS_DHE_DSS_WITH_AES_128_CBC_SHA256",
    "0067": "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256",
    "0068": "TLS_DH_DSS_WITH_AES_256_CBC_SHA256",
    "0069": "TLS_DH_RSA_WITH_AES_256_CBC_SHA256",
    "006A": "TLS_DHE_DSS_WITH_AES_256_CBC_SHA256",
    "006B": "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256",
    "009C": "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "009D": "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "009E": "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",
    "009F": "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384",
    "00A0": "TLS_DH_RSA_WITH_AES_128_GCM_SHA256",
    "00A1": "TLS_DH_RSA_WITH_AES_256_GCM_SHA384",
    "00A2": "TLS_DHE_DSS_WITH_AES_128_GCM_SHA256",
    "00A3": "TLS_DHE_DSS_WITH_AES_256_GCM_SHA384",
    "00A4": "TLS_DH_DSS_WITH_AES_128_GCM_SHA256",
    "00A5": "TLS_DH_DSS_WITH_AES_256_GCM_SHA384",
    "C001": "TLS_ECDH_ECDSA_WITH_NULL_SHA",
    "C002": "TLS_ECDH_ECDSA_WITH_RC4_128_SHA",
    "C003": "TLS_ECDH_ECDSA_WITH_3DES_EDE_CBC_SHA",
    "C004": "TLS_ECDH_ECDSA_WITH_AES_128_CBC_SHA",
    "C005": "TLS_ECDH_ECDSA_WITH_AES_256_CBC_SHA",
    "C006": "TLS_ECDHE_ECDSA_WITH_NULL_SHA",
    "C007": "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "C008": "TLS_ECDHE_ECDSA_WITH_3DES_EDE_CBC_SHA",
    "C009": "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "C00A": "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "C00B": "TLS_ECDH_RSA_WITH_NULL_SHA",
    "C00C": "TLS_ECDH_RSA_WITH_RC4_128_SHA",
    "C00D": "TLS_ECDH_RSA_WITH_3DES_EDE_CBC_SHA",
    "C00E": "TLS_ECDH_RSA_WITH_AES_128_CBC_SHA",
    "C00F": "TLS_ECDH_RSA_WITH_AES_256_CBC_SHA",
    "C010": "TLS_ECDHE_RSA_WITH_NULL_SHA",
    "C011": "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "C012": "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "C013": "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "C014": "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "C023": "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "C024": "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384",
    "C025": "TLS_ECDH_ECDSA_WITH_AES_128_CBC_SHA256",
    "C026": "TLS_ECDH_ECDSA_WITH_AES_256_CBC_SHA384",
    "C027": "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "C028": "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384",
    "C029": "TLS_ECDH_RSA_WITH_AES_128_CBC_SHA256",
    "C02A": "TLS_ECDH_RSA_WITH_AES_256_CBC_SHA384",
    "C02B": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "C02C": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "C02D": "TLS_ECDH_ECDSA_WITH_AES_128_GCM_SHA256",
    "C02E": "TLS_ECDH_ECDSA_WITH_AES_256_GCM_SHA384",
    "C02F": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "C030": "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "C031": "TLS_ECDH_RSA_WITH_AES_128_GCM_SHA256",
    "C032": "TLS_ECDH_RSA_WITH_AES_256_GCM_SHA384",
    "CCA8": "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "CCA9": "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "CCAA": "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "1301": "TLS_AES_128_GCM_SHA256",
    "1302": "TLS_AES_256_GCM_SHA384",
    "1303": "TLS_CHACHA20_POLY1305_SHA256",
}

GROUPS: dict[int, str] = {
    19: "secp192r1",
    21: "secp224r1",
    23: "secp256r1",
    24: "secp384r1",
    25: "secp521r1",
    26: "brainpoolP256r1",
    27: "brainpoolP384r1",
    28: "brainpoolP512r1",
    29: "X25519",
    30: "X448",
    256: "ffdhe2048",
    257: "ffdhe3072",
    258: "ffdhe4096",
    259: "ffdhe6144",
    260: "ffdhe8192",
    512: "MLKEM512",
    513: "MLKEM768",
    514: "MLKEM1024",
    4587: "SecP256r1MLKEM768",
    4588: "X25519MLKEM768",
    4589: "SecP384r1MLKEM1024",
}

SIGNATURE_PAIRS: dict[str, str] = {
    "0101": "TLS_SIGALG_MD5_WITH_RSA",
    "0201": "TLS_SIGALG_SHA1_WITH_RSA",
    "0202": "TLS_SIGALG_SHA1_WITH_DSA",
    "0203": "TLS_SIGALG_SHA1_WITH_ECDSA",
    "0301": "TLS_SIGALG_SHA224_WITH_RSA",
    "0302": "TLS_SIGALG_SHA224_WITH_DSA",
    "0303": "TLS_SIGALG_SHA224_WITH_ECDSA",
    "0401": "TLS_SIGALG_SHA256_WITH_RSA",
    "0402": "TLS_SIGALG_SHA256_WITH_DSA",
    "0403": "TLS_SIGALG_SHA256_WITH_ECDSA",
    "0501": "TLS_SIGALG_SHA384_WITH_RSA",
    "0503": "TLS_SIGALG_SHA384_WITH_ECDSA",
    "0601": "TLS_SIGALG_SHA512_WITH_RSA",
    "0603": "TLS_SIGALG_SHA512_WITH_ECDSA",
    "0804": "TLS_SIGALG_SHA256_WITH_RSASSA_PSS",
    "0805": "TLS_SIGALG_SHA384_WITH_RSASSA_PSS",
    "0806": "TLS_SIGALG_SHA512_WITH_RSASSA_PSS",
    "0807": "TLS_SIGALG_ED25519",
    "0808": "TLS_SIGALG_ED448",
}

# What z/OS itself offers when the policy is silent (printed by a 3.1 system).
ZOS_CLIENT_CURVES = (21, 23, 24, 25, 19)
ZOS_CLIENT_KEY_SHARES = (23,)
ZOS_SERVER_CURVES = (23, 24, 25, 21, 19)
ZOS_SERVER_KEY_SHARES = (23, 24, 25, 29, 30)
ZOS_SIGNATURE_PAIRS = (
    "0601",
    "0603",
    "0501",
    "0503",
    "0401",
    "0403",
    "0402",
    "0301",
    "0303",
    "0302",
    "0201",
    "0203",
    "0202",
)
ZOS_TLSV1_3_CURVE = 29
ZOS_TLSV1_3_PAIRS = ("0806", "0805", "0804")

# Suite B (RFC 6460 section 3, all of it TLS 1.2): cipher suites, curves, signature pairs.
_SUITE_B_128 = (("C02B",), (23,), ("0403",))
_SUITE_B_192 = (("C02C",), (24,), ("0503",))
_SUITE_B_BOTH = (("C02B", "C02C"), (23, 24), ("0403", "0503"))
SUITE_B = {
    "128": _SUITE_B_128,
    "128Min": _SUITE_B_BOTH,
    "192": _SUITE_B_192,
    "192Min": _SUITE_B_192,
    "All": _SUITE_B_BOTH,
}

LARGEST_NONCE = 128
"""Bytes of a nonce that responders have to take (RFC 9654 section 2.1)."""

# Signature pairs that sign TLS 1.3 handshakes: by RSA keys, and by others.
TLSV1_3_RSA_PAIRS = frozenset(ZOS_TLSV1_3_PAIRS)
TLSV1_3_OTHER_PAIRS = frozenset({"0403", "0503", "0603", "0807", "0808"})

TLSV1_3_CIPHERS = frozenset({"1301", "1302", "1303"})

# The cipher suites that the TLS library here can negotiate; it has no RC4, DES, 3DES, export, DSS or static DH ones.
NEGOTIABLE = frozenset(
    {
        "0002",
        "002F",
        "0033",
        "0035",
        "0039",
        "003B",
        "003C",
        "003D",
        "0067",
        "006B",
        "009C",
        "009D",
        "009E",
        "009F",
        "1301",
        "1302",
        "1303",
        "C006",
        "C009",
        "C00A",
        "C010",
        "C013",
        "C014",
        "C023",
        "C024",
        "C027",
        "C028",
        "C02B",
        "C02C",
        "C02F",
        "C030",
        "CCA8",
        "CCA9",
        "CCAA",
    }
)

# The smallest keys that the TLS library here takes from a peer; with the oldest protocols it takes any RSA key.
LEAST_RSA_BITS = 2048
LEAST_ECC_BITS = 256

# Groups and signature pairs that the TLS library here does not have, and those it uses with the oldest protocols alone.
MISSING_GROUPS = frozenset({19, 21})
MISSING_PAIRS = frozenset({"0101", "0202", "0302", "0402"})
OLD_PAIRS = frozenset({"0201", "0203"})
