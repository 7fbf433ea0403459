"""The two settings of the TLS library that pyOpenSSL has no name for: lists of groups and of signature algorithms.

They are the C functions `SSL_CTX_set1_curves_list` and `SSL_CTX_set1_sigalgs_list`, which the bindings that pyOpenSSL
stands on do have; docs/decisions/0006 says why they are worth it. Where they are missing, a policy that needs them is
refused.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

from attls.errors import Reason, TlsError

_SIGNATURES = {"0804": "rsa_pss_rsae_sha256", "0805": "rsa_pss_rsae_sha384", "0806": "rsa_pss_rsae_sha512",
               "0807": "ed25519", "0808": "ed448"}  # fmt: skip
_HASHES = {"02": "SHA1", "03": "SHA224", "04": "SHA256", "05": "SHA384", "06": "SHA512"}
_KEYS = {"01": "RSA", "02": "DSA", "03": "ECDSA"}


def hold_to_groups(context: SSL.Context, names: str | None) -> None:
    """Let `context` use these groups only, as OpenSSL writes such a list; None leaves its own. Raises TlsError."""
    if names is not None:
        _set(context, "SSL_CTX_set1_curves_list", names)


def hold_to_signatures(context: SSL.Context, pairs: tuple[str, ...]) -> None:
    """Let both ends of `context` sign by these signature pairs only; none leaves the library's own list.

    Pairs that the library does not have are left out. Raises TlsError when it has none of them.
    """
    if not pairs:
        return
    names = [name for name in map(_signature, pairs) if name]
    if not names:
        raise TlsError(
            Reason(402, "no-signature", "the TLS library has none of the signature algorithms that policy lists")
        )
    _set(context, "SSL_CTX_set1_sigalgs_list", ":".join(names))


def _signature(pair: str) -> str | None:
    if pair in _SIGNATURES:
        return _SIGNATURES[pair]
    digest, key = _HASHES.get(pair[:2]), _KEYS.get(pair[2:])
    return f"{key}+{digest}" if key and digest else None


def _set(context: SSL.Context, function: str, names: str) -> None:
    library: Any = Binding.lib
    if not hasattr(library, function):
        raise TlsError(Reason(5006, "library", f"the cryptography package has no {function}; install version 47 to 50"))
    inner: Any = context._context
    if getattr(library, function)(inner, names.encode("ascii")) != 1:
        while library.ERR_get_error():  # what is left there would be taken for the next call's
            pass
        raise TlsError(Reason(5006, "library", f"OpenSSL refuses the list {names}"))
