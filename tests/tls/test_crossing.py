"""Both ways into an engine and out of it carry the same bytes, and the quick one is only taken where it works."""

from __future__ import annotations

import contextlib
import random

import pytest
from OpenSSL import SSL, _util

from attls.model import HandshakeRole
from attls.tls import Environment
from attls.tls.crossing import RECORD, SWITCH, Compiled, Direct, Public, best
from tests.relay.street import ring, settings

SIZE = 256 * 1024
DATA = random.Random(11).randbytes(SIZE)
WAYS = [Compiled, Direct, Public]


def pair() -> tuple[SSL.Connection, SSL.Connection]:
    """Return two engines that have shaken hands."""
    client = Environment(settings(HandshakeRole.CLIENT), ring()).engine(("192.0.2.1", 443), 0.0)
    server = Environment(settings(), ring("server.test")).engine(("192.0.2.2", 50000), 0.0)
    for _ in range(3):
        for engine, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                engine.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(engine.bio_read(1 << 16))
    return client, server


@pytest.mark.parametrize("count", [1, RECORD, RECORD + 1, SIZE])
@pytest.mark.parametrize("opening", WAYS)
@pytest.mark.parametrize("sealing", WAYS)
def test_what_one_seals_the_other_opens(sealing: type[Public], opening: type[Public], count: int) -> None:
    """Records of up to a whole read come out as they went in, whichever way each end takes."""
    client, server = pair()
    here, there = sealing(SIZE), opening(2 * SIZE)
    here.received[:count] = DATA[:count]
    end = here.seal(client, count)
    there.received[:end] = here.made[:end]
    there.feed(server, 0, end)
    total = 0
    while total < count:
        total += there.open(server, total)
    assert DATA[:count] == there.made[:total]


@pytest.mark.parametrize("kind", WAYS)
def test_an_engine_with_nothing_to_say_wants_more(kind: type[Public]) -> None:
    """Part of a record, or none, raises what the engine raises."""
    client, server = pair()
    crossing = kind(SIZE)
    crossing.received[:4] = b"part"
    end = crossing.seal(client, 4)
    crossing.received[:end] = crossing.made[:end]
    crossing.feed(server, 0, end - 1)
    with pytest.raises(SSL.WantReadError):
        crossing.open(server, 0)
    crossing.feed(server, end - 1, end)
    assert 4 == crossing.open(server, 0)
    assert b"part" == bytes(crossing.made[:4])


def test_nothing_is_written_behind_the_buffer() -> None:
    """Where the buffer has no room for a whole record the quick way refuses, as the public one would."""
    client, server = pair()
    crossing = Direct(SIZE)
    crossing.received[:4] = b"last"
    end = crossing.seal(client, 4)
    crossing.received[:end] = crossing.made[:end]
    crossing.feed(server, 0, end)
    room = len(crossing.made)
    with pytest.raises(IndexError):
        crossing.open(server, room - RECORD + 1)
    assert 4 == crossing.open(server, room - RECORD)


@pytest.mark.parametrize("kind", WAYS)
def test_settling_loses_nothing_that_waits(kind: type[Public]) -> None:
    """A settled engine goes on; one that holds bytes in either direction keeps them."""
    client, server = pair()
    crossing = kind(SIZE)
    for word, settles in ((b"before", False), (b"behind", True)):
        crossing.received[:6] = word
        end = crossing.seal(client, 6)
        crossing.received[:end] = crossing.made[:end]
        crossing.feed(server, 0, end)
        if settles:
            server.send(word)
        crossing.settle(client)
        crossing.settle(server)
        assert 6 == crossing.open(server, 0)
        assert word == bytes(crossing.made[:6])
        crossing.settle(server)
    client.bio_write(server.bio_read(RECORD))
    assert b"behind" == client.recv(RECORD)


@pytest.mark.parametrize("kind", WAYS)
def test_what_is_no_record_is_an_error(kind: type[Public]) -> None:
    """Garbage raises the engine's error, with the library's reason in it."""
    _, server = pair()
    crossing = kind(SIZE)
    crossing.received[:5] = b"GET /"
    crossing.feed(server, 0, 5)
    with pytest.raises(SSL.Error) as caught:
        crossing.open(server, 0)
    assert caught.value.args[0]


def test_the_quick_way_is_taken_where_it_works() -> None:
    """With the pyOpenSSL at hand the library's own functions are called."""
    assert isinstance(best(SIZE), Direct)


@pytest.mark.parametrize("name", ["SSL_read", "BIO_write"])
def test_a_changed_library_is_spoken_to_by_its_public_methods(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a private name is gone, bytes go the public way."""
    monkeypatch.delattr(_util.lib, name)
    assert type(best(SIZE)) is Public


def test_a_changed_engine_is_spoken_to_by_its_public_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where engines no longer hold what they held, bytes go the public way."""
    monkeypatch.setattr(SSL.Connection, "_into_ssl", property(lambda _: object(), lambda *_: None), raising=False)
    assert type(best(SIZE)) is Public
