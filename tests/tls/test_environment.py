"""Building environments from settings and rings."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from attls.errors import KeyringError, TlsError
from attls.keyring import Keyring, Usage
from attls.model import HandshakeRole, Protocol
from attls.tls import Environment
from tests.relay.street import TLS13, ring, settings


def test_a_server_needs_a_certificate() -> None:
    """A ring without a personal certificate cannot serve: 7, before any connection is made."""
    with pytest.raises(KeyringError) as caught:
        Environment(settings(), ring())
    assert 7 == caught.value.code


def test_an_empty_label_means_no_certificate_which_a_server_cannot_do() -> None:
    """CertificateLabel "" is a client's way to stay anonymous."""
    with pytest.raises(KeyringError):
        Environment(settings(certificate_label=""), ring("server.test"))
    Environment(settings(HandshakeRole.CLIENT, certificate_label=""), ring("client.test"))


def test_a_missing_label_is_named() -> None:
    """407 is what System SSL says of a label that is not on the ring."""
    with pytest.raises(KeyringError, match="other") as caught:
        Environment(settings(certificate_label="other"), ring("server.test"))
    assert 407 == caught.value.code


def test_a_client_needs_something_to_trust() -> None:
    """A ring without a CA verifies nobody, so the environment is refused: 109."""
    bare = Keyring("TEST/BARE", tuple(entry for entry in ring().entries if entry.usage is not Usage.CERTAUTH))
    with pytest.raises(KeyringError) as caught:
        Environment(settings(HandshakeRole.CLIENT), bare)
    assert 109 == caught.value.code


def test_a_key_that_does_not_match_is_refused() -> None:
    """Certificate and key are compared when the environment is built."""
    mine, other = ring("server.test").entries[0], ring("other.test").entries[0]
    mixed = Keyring("TEST/MIXED", (dataclasses.replace(mine, private_key=other.private_key),))
    with pytest.raises((TlsError, KeyringError)):
        Environment(settings(), mixed)


@pytest.mark.parametrize(
    "changes",
    [
        {"protocols": frozenset()},
        {"protocols": frozenset({Protocol.SSLV2})},
        {"ciphers": ("0004",)},
        {"protocols": TLS13, "ciphers": ("C02F",)},
    ],
)
def test_settings_that_leave_nothing_are_refused(changes: dict[str, Any]) -> None:
    """No protocol, no known cipher, or ciphers that fit no protocol: an error now, not a silent fallback."""
    with pytest.raises(TlsError):
        Environment(settings(**changes), ring("server.test"))
