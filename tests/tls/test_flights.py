"""Both ways to walk through a handshake come to the same end, and the quick one is only taken where it works."""

from __future__ import annotations

from typing import Any

import pytest
from OpenSSL import SSL, _util

from attls.model import Demand, HandshakeRole
from attls.tls import Environment
from attls.tls.flights import Direct, Public, best
from tests.relay.street import TLS12, TLS13, ring, settings

KINDS = (Direct, Public)
SERVER = HandshakeRole.SERVER_WITH_CLIENT_AUTH


def meet(
    here: Public, client: SSL.Connection, there: Public, server: SSL.Connection
) -> list[tuple[str, bool | SSL.Error]]:
    """Let two engines shake hands; return what each step said, up to the first failure."""
    said: list[tuple[str, bool | SSL.Error]] = []
    while len(said) < 8:
        for name, flights, engine, other in (("client", here, client, server), ("server", there, server, client)):
            try:
                done: bool | SSL.Error = flights.step(engine)
            except SSL.Error as error:
                done = error
            said.append((name, done))
            flight = flights.take(engine)
            if flight:
                other.bio_write(flight)
            if isinstance(done, SSL.Error) or [("client", True), ("server", True)] == sorted(said[-2:], key=str):
                return said
    return said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocols", [TLS12, TLS13])
@pytest.mark.parametrize("demand", [Demand.OFF, Demand.REQUIRED])
def test_a_handshake_takes_its_steps(kind: type[Public], protocols: frozenset[Any], demand: Demand) -> None:
    """Either way both ends say of the same steps that they are done; so do engines that look, or ask who is there."""
    client = Environment(settings(HandshakeRole.CLIENT, protocols=protocols), ring("client.test"))
    server = Environment(
        settings(SERVER, protocols=protocols, server_extended_master_secret=demand), ring("server.test")
    )
    flights = kind()
    said = meet(flights, client.engine(("192.0.2.1", 443), 0.0), flights, server.engine(("192.0.2.2", 1), 0.0))
    public = Public()
    assert said == meet(public, client.engine(("192.0.2.1", 443), 0.0), public, server.engine(("192.0.2.2", 1), 0.0))
    assert [("client", True), ("server", True)] == sorted(said[-2:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_is_raised_and_the_alert_goes_out(kind: type[Public]) -> None:
    """A server that nobody vouches for is refused: the step raises, and what is to be sent is the alert."""
    client = Environment(settings(HandshakeRole.CLIENT), ring("client.test"))
    stranger = Environment(settings(HandshakeRole.SERVER), ring("server.test"))
    refusing = client.engine(("192.0.2.1", 443), 0.0)
    flights = kind()

    def never(*_: object) -> bool:
        return False

    refusing.set_verify(SSL.VERIFY_PEER, never)
    name, error = meet(flights, refusing, flights, stranger.engine(("192.0.2.2", 1), 0.0))[-1]
    assert ("client", True) == (name, isinstance(error, SSL.Error))


@pytest.mark.parametrize("protocols", [TLS12, TLS13])
def test_a_resumed_handshake_says_so(protocols: frozenset[Any]) -> None:
    """Both ends of the second connection know that it resumes the session of the first one, which resumed none."""
    client = Environment(settings(HandshakeRole.CLIENT, protocols=protocols), ring("client.test"))
    server = Environment(settings(protocols=protocols), ring("server.test"))
    flights = Direct()
    told = []
    for _ in range(2):
        here, there = client.engine(("192.0.2.1", 443), 0.0), server.engine(("192.0.2.2", 1), 0.0)
        meet(flights, here, flights, there)
        there.send(b"tickets go first")
        here.bio_write(flights.take(there))
        assert b"tickets go first" == here.recv(100)
        told.append((flights.resumed(here), flights.resumed(there)))
        for engine in (here, there):
            engine.shutdown()  # a session that was not ended in order cannot be resumed
        client.remember(here, ("192.0.2.1", 443), 0.0)
    assert [(False, False), (True, True)] == told


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 3 * 16384, 100_000])
def test_all_that_is_to_be_sent_is_taken(kind: type[Public], size: int) -> None:
    """However much an engine has to say, one call takes all of it, and the next one nothing."""
    engine = SSL.Connection(SSL.Context(SSL.TLS_METHOD))
    said = bytes(range(256)) * (size // 256 + 1)
    engine._into_ssl, engine._from_ssl = engine._from_ssl, engine._into_ssl  # what is written is to be sent
    engine.bio_write(said[:size])
    engine._into_ssl, engine._from_ssl = engine._from_ssl, engine._into_ssl
    flights = kind()
    assert (said[:size], b"") == (flights.take(engine), flights.take(engine))


def test_the_quick_way_is_taken_where_it_works() -> None:
    """With the pyOpenSSL at hand the library's own functions are called."""
    assert Direct is type(best())


@pytest.mark.parametrize("name", ["SSL_do_handshake", "SSL_session_reused"])
def test_a_changed_library_is_spoken_to_by_its_public_methods(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a name is gone, handshakes go the public way."""
    monkeypatch.delattr(_util.lib, name)
    assert Public is type(best())


@pytest.mark.parametrize("name", ["_verify_helper", "_ocsp_helper", "_alpn_select_helper"])
def test_a_changed_context_is_spoken_to_by_its_public_methods(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can tell any more whether a callback has failed, handshakes go the public way."""
    init = SSL.Context.__init__

    def without(self: SSL.Context, method: int) -> None:
        init(self, method)
        delattr(self, name)

    monkeypatch.setattr(SSL.Context, "__init__", without)
    if name == "_verify_helper":  # pyOpenSSL itself needs this one
        monkeypatch.setattr(SSL.Connection, "_verify_helper", None, raising=False)
        with pytest.raises(AttributeError):
            SSL.Connection(SSL.Context(SSL.TLS_METHOD))
    assert Public is type(best())
