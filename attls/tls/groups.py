"""Key exchange groups: what policy lists, what can be set here, and the Diffie-Hellman parameters of a server.

The library can be told one NIST curve or left to its own list. So a server hears the ClientHello first and then takes
a context whose only curve is the one that policy prefers among those the client offers. Where the groups of a list
cannot be set (X25519, the post-quantum ones), the library's list is used and the outcome is judged instead.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

_CURVES: dict[int, type[ec.EllipticCurve]] = {23: ec.SECP256R1, 24: ec.SECP384R1, 25: ec.SECP521R1}
_NAMES = {
    "secp256r1": 23,
    "prime256v1": 23,
    "secp384r1": 24,
    "secp521r1": 25,
    "x25519": 29,
    "x448": 30,
    "ffdhe2048": 256,
    "ffdhe3072": 257,
    "ffdhe4096": 258,
    "ffdhe6144": 259,
    "ffdhe8192": 260,
    "mlkem512": 512,
    "mlkem768": 513,
    "mlkem1024": 514,
    "secp256r1mlkem768": 4587,
    "x25519mlkem768": 4588,
    "secp384r1mlkem1024": 4589,
}
# A hybrid does the classical exchange too, so it satisfies a policy that asks for that.
_CLASSICAL_PART = {4587: 23, 4588: 29, 4589: 24}
# Curves that the library does not have and that are no stronger than what it has instead. Stronger ones that it lacks
# stay in a list, so that what it takes instead is refused.
_UNAVAILABLE = frozenset({19, 21, 26})
# About 128 bits or less: no stronger than the weakest group of the library's own list.
_ORDINARY = frozenset({19, 21, 23, 26, 29, 256, 257})


def listed(wanted: Sequence[int], group: int) -> bool:
    """Say whether `group` (IANA number) is in the list, itself or as the classical part of a hybrid."""
    return group in wanted or _CLASSICAL_PART.get(group) in wanted


def number(name: str | None) -> int:
    """Return the IANA number of a group as the library names it, 0 for none or one we do not know."""
    return _NAMES.get((name or "").lower(), 0)


def choose(wanted: Sequence[int], offered: Container[int]) -> int | None:
    """Return the curve that a server has to be held to for a client that offers `offered`; None: the library chooses.

    What the library chooses by itself must then be judged by `listed`. Without a common group the first curve of the
    list is returned: the library will find that out and refuse, or use a cipher suite without a curve.
    """
    available = [group for group in wanted if group not in _UNAVAILABLE]
    for group in available:
        if group in offered or any(part == group and hybrid in offered for hybrid, part in _CLASSICAL_PART.items()):
            return group if group in _CURVES else None
    return next((group for group in available if group in _CURVES), None)


def of_server(wanted: Sequence[int]) -> tuple[int, ...]:
    """Return the groups of a server's list that exist here; empty leaves the choice to the library."""
    return tuple(group for group in wanted if group not in _UNAVAILABLE)


def of_client(wanted: Sequence[int]) -> tuple[int | None, bool]:
    """Return the one curve that a client offers (None: the library's list), and whether the outcome must be judged.

    A list is never answered with less security than it asks for: the library's list, none of whose groups is weaker
    than P-256, stands in only for lists that admit as much.
    """
    if len(wanted) == 1 and wanted[0] in _CURVES:
        return wanted[0], False
    if not wanted or any(group in _ORDINARY for group in wanted):
        return None, False
    if all(group in _CURVES for group in wanted):
        return wanted[0], False
    return None, True


def hold(context: SSL.Context, curve: int | None) -> None:
    """Leave `context` only the named curve; None keeps the library's list."""
    if curve is not None:
        context.set_tmp_ecdh(_CURVES[curve]())


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
