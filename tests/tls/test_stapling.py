"""What a server staples: fetched ahead, renewed in time, handed out beside the right certificate and no other."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from attls.keyring.certificates import Signer
from attls.keyring.revocation import Answer, Revocation, Standing, answer_ocsp
from attls.model import Demand, HandshakeRole, Protocol
from attls.model import Revocation as Settings
from attls.tls import Engine, Environment, Question, Reply, Staples, WantReadError
from attls.tls.inquiry import Inquiries
from attls.tls.stapling import AGAIN, RARELY
from tests.relay.street import TLS12, TLS13, authority, der, leaf, ring, settings

URL = "http://responder.test/"
LIFE = timedelta(hours=8)
STAPLING = Settings(ocsp_url=URL, staples=True)
CERTIFICATE = der(leaf("server.test").cert_chain_pems[0].bytes())
ISSUER = der(authority().cert_pem.bytes())


def signer() -> Signer:
    key = load_pem_private_key(authority().private_key_pem.bytes(), None)
    return Signer(x509.load_der_x509_certificate(ISSUER), key)  # type: ignore[arg-type]


def serial(name: str) -> int:
    return x509.load_pem_x509_certificate(leaf(name).cert_chain_pems[0].bytes()).serial_number


class Responder:
    """Answers as the CA of the session; `now` and `revoked` may be changed, and None for `now` means it is away."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.now = now
        self.away = False
        self.revoked = False
        self.asked = 0

    def __call__(self, question: Question) -> Reply:
        self.asked += 1
        if self.away:
            return Answer(Standing.UNREACHABLE, "nobody there")
        assert question.body is not None
        now = self.now()
        known = {
            serial(name): Revocation(serial(name), now) if self.revoked else None
            for name in ("server.test", "other.test")
        }
        return answer_ocsp(question.body, issuer=signer().certificate, signer=signer(), known=known, now=now,
                           lifetime=LIFE)  # fmt: skip

    def serve(self, staples: Staples) -> None:
        """Carry out one renewal."""
        renewal = staples.renewal()
        try:
            question = next(renewal)
            while True:
                question = renewal.send(self(question))
        except StopIteration:
            return


class Clock:
    """A time of day that tests move."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def kept(clock: Clock) -> Staples:
    return Staples("TEST/RING", {CERTIFICATE: ISSUER}, Inquiries(STAPLING, clock=clock), clock=clock)


def stapled(server: Environment, client: Environment, name: bytes = b"") -> tuple[bytes, bytes]:
    """Run a handshake; return the certificate and the answer that the client was shown."""
    ours, theirs = server.engine(("192.0.2.1", 1), 0.0), client.engine(("192.0.2.1", 1), 0.0)
    if name:
        theirs.set_tlsext_host_name(name)
    for _ in range(6):
        step(theirs, ours)
        step(ours, theirs)
    shown, _ = client.peer(theirs)
    assert shown is not None
    return shown, theirs.get_app_data().staple


def step(one: Engine, other: Engine) -> None:
    with contextlib.suppress(WantReadError):
        one.do_handshake()
    with contextlib.suppress(WantReadError):
        other.bio_write(one.bio_read(65536))


@pytest.mark.parametrize("protocols", [TLS12, TLS13])
def test_a_handshake_brings_the_answer_that_is_there(protocols: frozenset[Protocol]) -> None:
    """Before it was fetched nothing comes along; afterwards the client is satisfied with what does."""
    server = Environment(settings(revocation=STAPLING, protocols=protocols), ring("server.test"))
    asking = settings(HandshakeRole.CLIENT, revocation=Settings(ocsp_url=URL, level="High"))
    client = Environment(asking, ring())
    assert server.staples is not None
    assert (CERTIFICATE, b"") == stapled(server, client)
    Responder().serve(server.staples)
    shown, answer = stapled(server, client)
    assert CERTIFICATE == shown
    assert answer
    with pytest.raises(StopIteration):  # no question is left
        next(Inquiries(Settings(ocsp_url=URL, level="High")).ask((shown, ISSUER), answer))


def test_each_certificate_has_its_own() -> None:
    """The name that the client asks for chooses the certificate, and the answer goes with it."""
    named = settings(revocation=STAPLING, server_sni=(("other.test", "other.test"),), server_sni_demand=Demand.OPTIONAL)
    server = Environment(named, ring("server.test", "other.test"))
    client = Environment(settings(HandshakeRole.CLIENT, revocation=Settings(ocsp_url=URL)), ring())
    assert server.staples is not None
    Responder().serve(server.staples)
    answers = {}
    for name in (b"server.test", b"other.test"):
        shown, answer = stapled(server, client, name)
        assert server.staples.of(shown) == answer
        answers[shown] = answer
    assert 2 == len(set(answers.values()) - {b""})


def test_only_who_is_told_to_staples() -> None:
    """A client has no answers about itself, and a server without the parameter fetches none."""
    assert Environment(settings(), ring("server.test")).staples is None
    assert Environment(settings(revocation=Settings(ocsp_url=URL)), ring("server.test")).staples is None
    assert Environment(settings(HandshakeRole.CLIENT, revocation=STAPLING), ring()).staples is None


def test_without_its_authority_nothing_can_be_asked(caplog: pytest.LogCaptureFixture) -> None:
    """The ring lacks the authority: the log says what to connect, and the server works without."""
    whole = ring("server.test")
    alone = dataclasses.replace(whole, entries=whole.entries[:1])
    assert Environment(settings(revocation=STAPLING), alone).staples is None
    assert ["connect the authority" in line for line in caplog.messages] == [True]


def test_an_answer_is_renewed_in_the_middle_of_its_life() -> None:
    """Half of the time is left when it is asked again, so that the responder may be away for the other half."""
    clock = Clock()
    staples, responder = kept(clock), Responder(clock)
    assert 0 == staples.due_in()
    responder.serve(staples)
    first = staples.of(CERTIFICATE)
    assert LIFE.total_seconds() / 2 == staples.due_in()
    clock.now += LIFE / 2
    responder.serve(staples)
    assert b"" != staples.of(CERTIFICATE) != first
    assert 2 == responder.asked


def test_a_responder_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """The old answer is handed out until it ends and no longer; attempts become rarer, and the log tells each."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    staples, responder = kept(clock), Responder(clock)
    responder.serve(staples)
    clock.now += LIFE / 2
    responder.away = True
    waits = []
    for _ in range(9):
        responder.serve(staples)
        waits.append(staples.due_in())
        assert bool(staples.of(CERTIFICATE)) == ("still good" in caplog.messages[-1])
        clock.now += timedelta(seconds=staples.due_in())
    assert [AGAIN.total_seconds() * 2**number for number in range(6)] == waits[:6]
    assert [RARELY.total_seconds()] * 3 == waits[6:]
    assert "nobody there" in caplog.messages[-1]
    clock.now += LIFE
    assert b"" == staples.of(CERTIFICATE)
    responder.away = False
    responder.serve(staples)
    assert staples.of(CERTIFICATE)
    assert "works again" in caplog.messages[-1]


def test_what_does_not_say_good_is_not_handed_out(caplog: pytest.LogCaptureFixture) -> None:
    """A revoked certificate is no secret, but we do not announce it either; the log does."""
    clock = Clock()
    staples, responder = kept(clock), Responder(clock)
    responder.revoked = True
    responder.serve(staples)
    assert b"" == staples.of(CERTIFICATE)
    assert "revoked" in caplog.messages[-1]
