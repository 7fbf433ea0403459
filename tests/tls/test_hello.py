"""Reading TLS bytes without keys."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls.tls.hello import looks_like_tls, resumes
from tests.relay.street import client_context, server_context


def flights(
    version: ssl.TLSVersion, session: ssl.SSLSession | None, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> tuple[bytes, ssl.SSLObject]:
    """Run a handshake in memory; return the server's first flight and the client."""
    server_in, server_out, client_in, client_out = (ssl.MemoryBIO() for _ in range(4))
    client = contexts[0].wrap_bio(client_in, client_out, server_hostname="server.test", session=session)
    server = contexts[1].wrap_bio(server_in, server_out, server_side=True)
    first = b""
    for _ in range(4):
        for engine, outgoing, incoming in ((client, client_out, server_in), (server, server_out, client_in)):
            with contextlib.suppress(ssl.SSLWantReadError):
                engine.do_handshake()
            sent = outgoing.read()
            if engine is server:
                first = first or sent
            incoming.write(sent)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.read(1)
    assert version.name.replace("_", ".") == client.version()
    return first, client


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_resumption_shows_in_the_servers_first_flight(version: ssl.TLSVersion) -> None:
    """A full handshake is told from a resumed one, in both versions, and the library agrees."""
    contexts = client_context(version), server_context(version)
    flight, client = flights(version, None, contexts)
    assert resumes(flight) is False
    again, returning = flights(version, client.session, contexts)
    assert returning.session_reused
    assert resumes(again) is True


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_garbage_never_raises(flight: bytes, tail: bytes) -> None:
    """Any bytes get an answer, with a plausible record header in front or not."""
    for candidate in (flight, b"\x16\x03\x03\x00\x40\x02\x00\x00\x3c" + flight + tail):
        assert resumes(candidate) in (True, False, None)


def test_only_a_handshake_or_an_alert_opens_tls() -> None:
    """Text protocols and SSLv2 hellos do not."""
    assert [21, 22] == [byte for byte in range(256) if looks_like_tls(byte)]
