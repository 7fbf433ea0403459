"""Cipher suite names."""

from __future__ import annotations

from OpenSSL import SSL

from attls.tls.ciphers import NAMES, OPENSSL_NAMES, identify, is_tls13


def test_this_openssl_knows_every_suite_of_the_table() -> None:
    """Each name we derive is one that OpenSSL accepts; a typo would silently drop the suite from a list."""
    for code, name in OPENSSL_NAMES.items():
        context = SSL.Context(SSL.TLS_METHOD)
        if is_tls13(code):
            context.set_tls13_ciphersuites(name.encode())
        else:
            context.set_cipher_list(f"{name}:@SECLEVEL=0".encode())
            assert name in SSL.Connection(context, None).get_cipher_list()


def test_names_and_codes_lead_back_to_each_other() -> None:
    """identify() inverts the table, and says so of what it does not know."""
    assert {code: (code, name) for code, name in NAMES.items()} == {
        code: identify(openssl) for code, openssl in OPENSSL_NAMES.items()
    }
    assert ("0000", "NEW-SUITE") == identify("NEW-SUITE")
