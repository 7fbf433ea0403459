"""Key exchange groups: what policy lists in the words of the library, and the Diffie-Hellman parameters of a server."""

from __future__ import annotations

import os
from collections.abc import Sequence

from OpenSSL import SSL

from attls.errors import Reason, TlsError
from attls.policy import codes

# By IANA numbers (TLS Supported Groups); the policy's names of groups are the library's.
_NAMES = {number: name for number, name in codes.GROUPS.items() if number not in codes.MISSING_GROUPS}
# What the library offers by itself; written out only to choose the key shares among them.
_USUAL = (4588, 29, 23, 30, 24, 25)


def of_client(wanted: Sequence[int], shares: Sequence[int]) -> str | None:
    """Return what a client offers in the library's words, None for the library's own list.

    `shares` are the groups for which a key share goes along with the first message; without one of them that is also
    in `wanted`, the library sends one for the first group. Raises TlsError when no group of the list exists.
    """
    if not wanted and not shares:
        return None
    return ":".join(("*" if group in shares else "") + _NAMES[group] for group in _existing(wanted or _USUAL))


def of_server(wanted: Sequence[int]) -> str | None:
    """Return what a server accepts in the library's words, None for the library's own list.

    Every group is a class of its own (`/`), so that the server's first counts even where the client has to be asked
    for another key share. Raises TlsError when no group of the list exists.
    """
    return "/".join(_NAMES[group] for group in _existing(wanted)) if wanted else None


def _existing(wanted: Sequence[int]) -> list[int]:
    existing = [group for group in wanted if group in _NAMES]
    if not existing:
        raise TlsError(Reason(402, "no-group", "the TLS library has none of the groups and curves that policy lists"))
    return existing


def set_dh(context: SSL.Context, bits: int) -> None:
    """Give a server context the group of RFC 7919 that is at least as strong as an RSA key of `bits` bits."""
    pem = _FFDHE[min((size for size in _FFDHE if size >= bits), default=4096)]
    # The library reads these only from a file; this one exists in memory alone.
    descriptor = os.memfd_create("dh")
    try:
        os.write(descriptor, pem)
        context.load_tmp_dh(f"/proc/self/fd/{descriptor}".encode())
    finally:
        os.close(descriptor)


# The groups ffdhe2048, ffdhe3072 and ffdhe4096 (RFC 7919 appendix A) by their size in bits.
_FFDHE = {
    2048: b"""-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
""",
    3072: b"""-----BEGIN DH PARAMETERS-----
MIIBiAKCAYEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEfz9zeNVs7ZRkDW7w09N75nAI4YbRvydbmyQd62R0mkff3
7lmMsPrBhtkcrv4TCYUTknC0EwyTvEN5RPT9RFLi103TZPLiHnH1S/9croKrnJ32
nuhtK8UiNjoNq8Uhl5sN6todv5pC1cRITgq80Gv6U93vPBsg7j/VnXwl5B0rZsYu
N///////////AgEC
-----END DH PARAMETERS-----
""",
    4096: b"""-----BEGIN DH PARAMETERS-----
MIICCAKCAgEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEfz9zeNVs7ZRkDW7w09N75nAI4YbRvydbmyQd62R0mkff3
7lmMsPrBhtkcrv4TCYUTknC0EwyTvEN5RPT9RFLi103TZPLiHnH1S/9croKrnJ32
nuhtK8UiNjoNq8Uhl5sN6todv5pC1cRITgq80Gv6U93vPBsg7j/VnXwl5B0rZp4e
8W5vUsMWTfT7eTDp5OWIV7asfV9C1p9tGHdjzx1VA0AEh/VbpX4xzHpxNciG77Qx
iu1qHgEtnmgyqQdgCpGBMMRtx3j5ca0AOAkpmaMzy4t6Gh25PXFAADwqTs6p+Y0K
zAqCkc3OyX3Pjsm1Wn+IpGtNtahR9EGC4caKAH5eZV9q//////////8CAQI=
-----END DH PARAMETERS-----
""",
}
