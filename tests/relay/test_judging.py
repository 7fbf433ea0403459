"""Between the handshake and the first byte: a peer whose certificates are asked about waits, and so does everybody."""

from __future__ import annotations

import datetime
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from attls import errors
from attls.errors import Reason
from attls.keyring.certificates import Signer
from attls.keyring.revocation import Revocation, answer_ocsp, ocsp_request
from attls.model import Direction, HandshakeRole
from attls.model import Revocation as Settings
from attls.relay import Reactor
from attls.tls import Environment, Inquiry
from tests.namespaces import wait_until
from tests.relay.peers import Program, connect, duplex, echo, in_thread
from tests.relay.street import Street, authority, client_context, der, leaf, ring, server_context, settings, street

VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
REVOKED = Reason(431, "revoked", "a certificate of the peer is revoked")
ASKING = Settings(ocsp_url="http://127.0.0.1:1/", level="High")
Done = Callable[[Reason | None, str], None]


class Asker:
    """Keeps the inquiries that a reactor hands out; the test answers them."""

    def __init__(self, reactor: Reactor) -> None:
        self.came = trio.Event()
        self.done: list[Done] = []
        self.inquiries: list[Inquiry] = []
        reactor.start_inquiry = self.start

    def start(self, inquiry: Inquiry, done: Done) -> None:
        self.inquiries.append(inquiry)
        self.done.append(done)
        self.came.set()


def speak(road: Street, context: ssl.SSLContext | None) -> bytes:
    with connect(road.address, context) as sock:
        return duplex(sock, b"hello" * 100_000)


def guarded() -> Environment:
    return Environment(settings(HandshakeRole.SERVER_WITH_CLIENT_AUTH, revocation=ASKING), ring("server.test"))


@VERSIONS
@pytest.mark.parametrize("direction", list(Direction))
async def test_nothing_passes_before_the_answer(version: ssl.TLSVersion, direction: Direction) -> None:
    """Inbound the program is not even dialled, outbound the server gets no byte; then everything arrives."""
    if direction is Direction.INBOUND:
        environment, context = guarded(), client_context(version, identity="alice.test")
        program, own = Program(echo), context
    else:
        environment = Environment(settings(HandshakeRole.CLIENT, revocation=ASKING), ring())
        program, own = Program(echo, context=server_context(version)), None
    answers: list[bytes] = []

    async def talk(road: Street) -> None:
        answers.append(await in_thread(speak, road, own))

    with program:
        async with street(program.listener, direction=direction, environment=environment) as road:
            asker = Asker(road.reactor)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk, road)
                with trio.fail_after(10):
                    await asker.came.wait()
                await trio.sleep(0.2)
                (record,) = road.records
                assert ("Handshake", 0, 0) == (record.status, record.bytes_in, record.bytes_out)
                assert len(program._threads) == (direction is Direction.OUTBOUND)
                asker.done[0](None, "")
            await road.ended()
    assert [b"hello" * 100_000] == answers
    assert errors.DONE == record.reason


@VERSIONS
async def test_who_is_refused_is_reset(version: ssl.TLSVersion) -> None:
    """The record gets the reason of the inquiry, and the program never hears of the client."""
    with Program(echo) as program:
        async with street(program.listener, environment=guarded()) as road:
            asker = Asker(road.reactor)
            async with trio.open_nursery() as nursery:

                async def talk() -> None:
                    with pytest.raises(OSError):
                        await in_thread(speak, road, client_context(version, identity="alice.test"))

                nursery.start_soon(talk)
                with trio.fail_after(10):
                    await asker.came.wait()
                asker.done[0](REVOKED, "why")
            (record,) = await road.ended()
    assert (REVOKED, "why", []) == (record.reason, record.detail, program.results)


async def test_an_answer_that_comes_too_late_hurts_nobody() -> None:
    """The connection may have ended while it was asked about."""
    with Program(echo) as program:
        async with street(program.listener, environment=guarded()) as road:
            asker = Asker(road.reactor)
            sock = await in_thread(connect, road.address, client_context(identity="alice.test"))
            with trio.fail_after(10):
                await asker.came.wait()
            road.reactor.abort_all(errors.STOPPED)
            asker.done[0](None, "")
            (record,) = await road.ended()
            sock.close()
    assert errors.STOPPED == record.reason


async def test_nobody_to_ask_means_no() -> None:
    """A reactor without anybody who could ask lets nobody through."""
    with Program(echo) as program:
        async with street(program.listener, environment=guarded()) as road:
            with pytest.raises(OSError):
                await in_thread(speak, road, client_context(identity="alice.test"))
            (record,) = await road.ended()
    assert errors.INTERNAL == record.reason


@VERSIONS
async def test_where_revocation_counts_nothing_is_resumed(version: ssl.TLSVersion) -> None:
    """A resumed handshake has no chain to be asked about, so there is a full one each time."""
    context = client_context(version, identity="alice.test")

    def twice(road: Street) -> list[bool | None]:
        session, reused = None, []
        for _ in range(2):
            with connect(road.address, context, session=session) as sock:
                sock.sendall(b"hello")
                assert b"hello" == sock.recv(5)
                assert isinstance(sock, ssl.SSLSocket)
                session = sock.session
                reused.append(sock.session_reused)
                sock.unwrap().close()
        return reused

    with Program(echo) as program:
        async with street(program.listener, environment=guarded()) as road:
            road.reactor.start_inquiry = lambda _, done: done(None, "")
            assert [False, False] == await in_thread(twice, road)


@pytest.mark.parametrize(("revoked", "code"), [(False, 0), (True, 431)])
async def test_a_stapled_answer_is_judged(tmp_path: Path, revoked: bool, code: int) -> None:
    """What `openssl s_server` staples spares the question, or ends the connection."""
    certificate = x509.load_der_x509_certificate(der(leaf("server.test").cert_chain_pems[0].bytes()))
    root = x509.load_der_x509_certificate(der(authority().cert_pem.bytes()))
    key = load_pem_private_key(authority().private_key_pem.bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    staple = answer_ocsp(
        ocsp_request(certificate, root),
        issuer=root,
        signer=Signer(root, key),  # type: ignore[arg-type]
        known={certificate.serial_number: Revocation(certificate.serial_number, now) if revoked else None},
        now=now,
        lifetime=datetime.timedelta(days=1),
    )
    (tmp_path / "staple").write_bytes(staple)
    leaf("server.test").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    server = subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(tmp_path / "server.pem"),
         "-status_file", str(tmp_path / "staple"), "-rev", "-quiet"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def dial() -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), 5)
        sock.setblocking(False)
        return sock

    def talk(road: Street) -> bytes:
        with connect(road.address) as sock:
            sock.sendall(b"olleh\n")
            return sock.recv(6)

    def settle(inquiry: Inquiry, done: Done) -> None:
        try:
            next(inquiry)
        except StopIteration:
            done(None, "")
        except Exception as error:  # noqa: BLE001 - the refusal is what the test looks at
            done(getattr(error, "reason", errors.INTERNAL), str(error))
        else:
            done(errors.UNREACHABLE, "the staple was not enough")

    try:
        wait_until(lambda: is_open(port), 10)
        environment = Environment(settings(HandshakeRole.CLIENT, revocation=ASKING), ring())
        async with street(dial, direction=Direction.OUTBOUND, environment=environment) as road:
            road.reactor.start_inquiry = settle
            if code:
                with pytest.raises(OSError):
                    await in_thread(talk, road)
            else:
                assert b"hello\n" == await in_thread(talk, road)
            (record,) = await road.ended()
            assert record.reason is not None
            assert record.reason.code in ({code} if code else {0, 420})
    finally:
        server.kill()
        server.wait()


def is_open(port: int) -> bool:
    """Tell whether somebody listens there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
