"""The TLS relay between real sockets; the other end of TLS is the standard library's."""

from __future__ import annotations

import hashlib
import random
import select
import socket
import ssl
import threading
import time
from typing import Any

import pytest
import trio

from attls import errors
from attls.model import ClientAuthType, Direction, HandshakeRole
from attls.tls import Environment
from tests.relay.peers import Program, connect, duplex, echo, finish, how_it_ends, in_thread, receive_all, reset
from tests.relay.street import BOTH, TLS12, TLS13, client_context, ring, server_context, settings, street

VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
BULK = 20_000_000


def inbound(**changes: Any) -> Environment:
    return Environment(settings(**changes), ring("server.test"))


def outbound(**changes: Any) -> Environment:
    return Environment(settings(HandshakeRole.CLIENT, **changes), ring())


def exchange(address: tuple[str, int], context: ssl.SSLContext | None, data: bytes) -> bytes:
    """Send `data` and return everything that comes back."""
    with connect(address, context) as sock:
        return duplex(sock, data)


@VERSIONS
async def test_a_plain_program_serves_a_tls_peer(version: ssl.TLSVersion) -> None:
    """Inbound, bytes arrive unchanged and in order both ways, and the record says what TLS came out."""
    data = random.Random(1).randbytes(BULK)
    with Program(echo) as program:
        async with street(program.listener, environment=inbound()) as road:
            answer = await in_thread(exchange, road.address, client_context(version), data)
            (record,) = await road.ended()
    assert hashlib.sha256(data).digest() == hashlib.sha256(answer).digest()
    assert [] == program.failures
    assert (errors.DONE, BULK, BULK) == (record.reason, record.bytes_in, record.bytes_out)
    assert version.name.replace("_", ".") == str(record.protocol)
    assert record.cipher4 == ("1302" if version is ssl.TLSVersion.TLSv1_3 else "C02C")


@VERSIONS
async def test_a_plain_client_speaks_to_a_tls_server(version: ssl.TLSVersion) -> None:
    """Outbound, the program sends clear bytes and the server sees TLS from a client that verifies it."""
    data = random.Random(2).randbytes(BULK)
    with Program(echo, context=server_context(version)) as program:
        async with street(program.listener, direction=Direction.OUTBOUND, environment=outbound()) as road:
            answer = await in_thread(exchange, road.address, None, data)
            (record,) = await road.ended()
    assert hashlib.sha256(data).digest() == hashlib.sha256(answer).digest()
    assert ([], errors.DONE, "Client") == (program.failures, record.reason, record.role)


@VERSIONS
async def test_single_bytes_arrive_one_by_one(version: ssl.TLSVersion) -> None:
    """A program that writes byte by byte gets each answer before it writes the next."""

    def talk(address: tuple[str, int]) -> bytes:
        with connect(address, client_context(version)) as sock:
            answer = bytearray()
            for number in range(200):
                sock.sendall(bytes([number]))
                answer += sock.recv(10)
            return bytes(answer)

    with Program(echo) as program:
        async with street(program.listener, environment=inbound()) as road:
            assert bytes(range(200)) == await in_thread(talk, road.address)
            await road.ended()


@VERSIONS
async def test_half_close_of_the_peer_keeps_the_answer_coming(version: ssl.TLSVersion) -> None:
    """close_notify from the peer becomes FIN to the program, which still answers at length."""
    answer = b"a" * 3_000_000

    def serve(sock: socket.socket) -> bytes:
        request = receive_all(sock)
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_WR)
        return request

    def ask(address: tuple[str, int]) -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context(version).wrap_bio(incoming, outgoing, server_hostname="server.test")
        with connect(address) as sock:

            def turn(step: Any) -> Any:
                while True:
                    try:
                        result = step()
                    except ssl.SSLWantReadError:
                        sock.sendall(outgoing.read())
                        part = sock.recv(65536)
                        incoming.write(part) if part else incoming.write_eof()
                        continue
                    sock.sendall(outgoing.read())
                    return result

            turn(tls.do_handshake)
            turn(lambda: tls.write(b"question"))
            try:
                tls.unwrap()
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
            received = bytearray()
            # The standard library does not read data after its own close_notify, so we count what arrives.
            while part := sock.recv(65536):
                received += part
            return bytes(received)

    with Program(serve) as program:
        async with street(program.listener, environment=inbound()) as road:
            records = await in_thread(ask, road.address)
            (record,) = await road.ended()
    assert [b"question"] == program.results
    assert len(records) > len(answer)
    assert (errors.DONE, len(answer)) == (record.reason, record.bytes_out)


async def test_half_close_of_the_program_keeps_the_question_coming() -> None:
    """FIN from the program becomes close_notify to the peer, whose later data still reaches the program."""

    def serve(sock: socket.socket) -> bytes:
        sock.sendall(b"banner")
        sock.shutdown(socket.SHUT_WR)
        return receive_all(sock)

    def talk(address: tuple[str, int]) -> bytes:
        with connect(address, client_context(ssl.TLSVersion.TLSv1_3)) as sock:
            banner = receive_all(sock)
            sock.sendall(b"late data")
            assert isinstance(sock, ssl.SSLSocket)
            sock.unwrap().close()
            return banner

    with Program(serve) as program:
        async with street(program.listener, environment=inbound()) as road:
            assert b"banner" == await in_thread(talk, road.address)
            (record,) = await road.ended()
    assert ([b"late data"], errors.DONE) == (program.results, record.reason)


async def test_truncation_reaches_the_program_as_a_reset() -> None:
    """FIN without close_notify is not the end of the data, so the program sees a reset."""

    def talk(address: tuple[str, int]) -> None:
        sock = connect(address, client_context())
        sock.sendall(b"half a message")
        sock.shutdown(socket.SHUT_WR)  # on a TLS socket of the standard library: FIN alone
        assert "reset" == how_it_ends(sock)
        sock.close()

    with Program(receive_all) as program:
        async with street(program.listener, environment=inbound()) as road:
            await in_thread(talk, road.address)
            (record,) = await road.ended()
    assert [ConnectionResetError] == [type(failure) for failure in program.failures]
    assert record.reason is errors.TRUNCATED


async def test_a_reset_of_the_peer_resets_the_program() -> None:
    """RST travels inwards as RST."""

    def talk(address: tuple[str, int]) -> None:
        sock = connect(address, client_context())
        sock.sendall(b"x")
        time.sleep(0.1)
        reset(socket.socket(fileno=sock.detach()))

    with Program(receive_all) as program:
        async with street(program.listener, environment=inbound()) as road:
            await in_thread(talk, road.address)
            (record,) = await road.ended()
    assert [ConnectionResetError] == [type(failure) for failure in program.failures]
    assert record.reason is errors.PEER_RESET


async def test_a_reset_of_the_program_resets_the_peer() -> None:
    """RST travels outwards as RST."""

    def serve(sock: socket.socket) -> None:
        sock.recv(10)
        reset(sock)

    def talk(address: tuple[str, int]) -> str:
        with connect(address, client_context()) as sock:
            sock.sendall(b"x")
            return how_it_ends(sock)

    with Program(serve) as program:
        async with street(program.listener, environment=inbound()) as road:
            assert "reset" == await in_thread(talk, road.address)
            (record,) = await road.ended()
    assert record.reason is errors.APP_RESET


async def test_a_reader_that_sleeps_stops_the_writer_and_loses_nothing() -> None:
    """Back-pressure reaches through the relay in both directions, and memory stays bounded."""
    data = b"0123456789abcdef" * 1_000_000

    def serve(sock: socket.socket) -> tuple[str, str]:
        time.sleep(0.5)
        received = hashlib.sha256(receive_all(sock)).hexdigest()
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return received, hashlib.sha256(data).hexdigest()

    def talk(address: tuple[str, int]) -> str:
        with connect(address) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            time.sleep(0.5)
            return hashlib.sha256(receive_all(sock)).hexdigest()

    with Program(serve) as near:
        async with (
            street(near.listener, environment=inbound()) as server_side,
            street(server_side.listener, direction=Direction.OUTBOUND, environment=outbound()) as client_side,
        ):
            answer = await in_thread(talk, client_side.address)
            await client_side.ended()
            await server_side.ended()
    assert [(answer, answer)] == near.results


async def test_five_hundred_connections_at_once() -> None:
    """All of them are served, none is mixed up with another."""
    count = 500

    def talk(address: tuple[str, int]) -> list[bytes]:
        context = client_context()
        socks = [connect(address, context) for _ in range(count)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%d" % number)
        answers = [sock.recv(100) for sock in socks]
        for sock in socks:
            finish(sock)
        return answers

    def serve(sock: socket.socket) -> int:
        return echo(sock)

    with Program(serve) as program:
        async with street(program.listener, environment=inbound()) as road:
            answers = await in_thread(talk, road.address)
            records = await road.ended(count)
    assert [b"%d" % number for number in range(count)] == answers
    assert {errors.DONE} == {record.reason for record in records}


async def test_cleartext_on_a_tls_port_is_reset_and_named() -> None:
    """A peer that speaks plain text gets a reset, the program hears nothing, the reason is 5003."""

    def talk(address: tuple[str, int]) -> bytes:
        with connect(address) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return sock.recv(100)

    with Program(receive_all) as program:
        async with street(program.listener, environment=inbound()) as road:
            with pytest.raises(ConnectionResetError):
                await in_thread(talk, road.address)
            (record,) = await road.ended()
    assert (5003, [], []) == (record.reason and record.reason.code, program.results, program.failures)


async def test_a_server_that_answers_in_clear_is_named_too() -> None:
    """Outbound, a server that speaks first and in clear ends the connection with 5003."""

    def serve(sock: socket.socket) -> bytes:
        sock.sendall(b"220 welcome\r\n")
        return receive_all(sock)

    def talk(address: tuple[str, int]) -> bytes:
        with connect(address) as sock:
            sock.sendall(b"secret")
            return sock.recv(100)

    with Program(serve) as program:
        async with street(program.listener, direction=Direction.OUTBOUND, environment=outbound()) as road:
            with pytest.raises(ConnectionResetError):
                await in_thread(talk, road.address)
            (record,) = await road.ended()
    assert record.reason is errors.CLEARTEXT
    assert not any(b"secret" in result for result in program.results)


@pytest.mark.parametrize(
    ("opening", "reason"),
    [(b"", errors.HANDSHAKE_SILENT), (b"\x16\x03\x01\x02\x00\x01", errors.HANDSHAKE_SLOW)],
)
async def test_a_peer_that_does_not_finish_the_handshake_is_reset(opening: bytes, reason: errors.Reason) -> None:
    """HandshakeTimeout counts from accept to the first byte, and again from there to the end of the handshake."""
    now = [1000.0]
    with Program(receive_all) as program:
        async with street(program.listener, environment=inbound(), clock=lambda: now[0]) as road:
            sock = await in_thread(connect, road.address)
            sock.sendall(opening)
            while not road.records:
                await trio.sleep(0.01)
            await trio.sleep(0.1)
            now[0] += 6
            road.reactor.expire(now[0])
            assert road.records[0].reason is None
            now[0] += 6
            road.reactor.expire(now[0])
            (record,) = await road.ended()
            sock.close()
    assert (reason, []) == (record.reason, program.results)


async def test_the_side_that_spoke_first_waits_five_times_as_long() -> None:
    """A server that says nothing to our ClientHello is given up after five times HandshakeTimeout, with 5004."""
    now = [1000.0]
    asked = threading.Event()

    def listen(sock: socket.socket) -> bytes:
        opening = sock.recv(5)
        asked.set()
        while sock.recv(4096):
            pass
        return opening

    with Program(listen) as program:
        environment = outbound()
        async with street(
            program.listener, direction=Direction.OUTBOUND, environment=environment, clock=lambda: now[0]
        ) as road:
            sock = await in_thread(connect, road.address)
            assert await in_thread(asked.wait, 10)
            now[0] += 5 * environment.settings.handshake_timeout - 1
            road.reactor.expire(now[0])
            assert road.records[0].reason is None
            now[0] += 2
            road.reactor.expire(now[0])
            (record,) = await road.ended()
            sock.close()
    assert (errors.HANDSHAKE_SILENT, 5004) == (record.reason, errors.HANDSHAKE_SILENT.code)


async def test_an_untrusted_server_never_sees_the_programs_data() -> None:
    """A server whose CA is not on the ring is refused in the handshake, with an alert and reason 435."""
    import trustme

    stranger = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    stranger.issue_cert("server.test").configure_cert(context)

    def talk(address: tuple[str, int]) -> bytes:
        with connect(address) as sock:
            sock.sendall(b"secret")
            return sock.recv(100)

    with Program(receive_all, context=context) as program:
        async with street(program.listener, direction=Direction.OUTBOUND, environment=outbound()) as road:
            with pytest.raises(ConnectionResetError):
                await in_thread(talk, road.address)
            (record,) = await road.ended()
    assert (435, []) == (record.reason and record.reason.code, program.results)
    assert ["TLSV1_ALERT_UNKNOWN_CA"] == [getattr(failure, "reason", "") for failure in program.failures]


async def test_an_expired_server_is_refused() -> None:
    """A server certificate past its end date ends the connection with 401."""
    import datetime

    from tests.relay.street import authority

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    authority().issue_cert("server.test", not_after=past).configure_cert(context)
    with Program(receive_all, context=context) as program:
        async with street(program.listener, direction=Direction.OUTBOUND, environment=outbound()) as road:
            sock = await in_thread(connect, road.address)
            (record,) = await road.ended()
            sock.close()
    assert (401, []) == (record.reason and record.reason.code, program.results)


@pytest.mark.parametrize(("reference", "reason"), [("server.test", errors.DONE), ("other.test", errors.NAME_MISMATCH)])
async def test_the_host_reference_is_checked_in_the_handshake(reference: str, reason: errors.Reason) -> None:
    """HostReferenceIdDNS must be in the server's certificate."""

    def talk(address: tuple[str, int]) -> None:
        with connect(address) as sock:
            sock.shutdown(socket.SHUT_WR)
            try:
                sock.recv(1)
            except ConnectionResetError:
                return

    with Program(echo, context=server_context()) as program:
        async with street(
            program.listener, direction=Direction.OUTBOUND, environment=outbound(host_reference_dns=reference)
        ) as road:
            await in_thread(talk, road.address)
            (record,) = await road.ended()
    assert reason is record.reason


@VERSIONS
@pytest.mark.parametrize(
    ("kind", "identity", "code"),
    [
        (ClientAuthType.REQUIRED, None, 5001),
        (ClientAuthType.REQUIRED, "client.test", 0),
        (ClientAuthType.FULL, None, 0),
        (ClientAuthType.FULL, "client.test", 0),
        (ClientAuthType.PASS_THRU, None, 0),
        (ClientAuthType.PASS_THRU, "client.test", 0),
    ],
)
async def test_client_authentication_asks_for_what_policy_says(
    version: ssl.TLSVersion, kind: ClientAuthType, identity: str | None, code: int
) -> None:
    """ServerWithClientAuth: Required needs a certificate, Full and PassThru do not; the record shows whose it was."""
    environment = inbound(role=HandshakeRole.SERVER_WITH_CLIENT_AUTH, client_auth=kind)
    subjects: list[str | None] = []

    def talk(address: tuple[str, int]) -> bytes:
        with connect(address, client_context(version, identity=identity)) as sock:
            sock.sendall(b"hello")
            answer = sock.recv(10)
            finish(sock)
            return answer

    def serve(sock: socket.socket) -> int:
        for relay in road.reactor.connections.values():
            relay.describe()
            subjects.append(relay.record.peer_subject)
        return echo(sock)

    with Program(serve) as program:
        async with street(program.listener, environment=environment) as road:
            if code:
                with pytest.raises(OSError):
                    await in_thread(talk, road.address)
            else:
                assert b"hello" == await in_thread(talk, road.address)
            (record,) = await road.ended()
    assert code == (record.reason and record.reason.code)
    if not code:
        assert [identity is not None] == [subject is not None and "client.test" in subject for subject in subjects]


@pytest.mark.parametrize(
    ("changes", "version", "code"),
    [({"protocols": TLS13}, ssl.TLSVersion.TLSv1_2, 412), ({"ciphers": ("C02F",)}, ssl.TLSVersion.TLSv1_2, 402)],
)
async def test_nothing_in_common_is_named(changes: dict[str, Any], version: ssl.TLSVersion, code: int) -> None:
    """No common version is 412, no common cipher (an RSA suite for an ECDSA key) is 402."""
    with Program(receive_all) as program:
        async with street(program.listener, environment=inbound(**changes)) as road:
            with pytest.raises(ssl.SSLError):
                await in_thread(connect, road.address, client_context(version))
            (record,) = await road.ended()
    assert (code, []) == (record.reason and record.reason.code, program.results)


async def test_an_unreachable_program_resets_the_peer() -> None:
    """Where nobody listens any more, the peer is reset as soon as that is known."""
    gone = socket.create_server(("127.0.0.1", 0))
    address = gone.getsockname()
    gone.close()

    def dial() -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(address)
        return sock

    def talk(address: tuple[str, int]) -> str:
        with connect(address, client_context()) as sock:
            return how_it_ends(sock)

    async with street(dial, environment=inbound()) as road:
        assert "reset" == await in_thread(talk, road.address)
        (record,) = await road.ended()
    assert record.reason is errors.UNREACHABLE


@VERSIONS
async def test_a_returning_client_resumes_its_session(version: ssl.TLSVersion) -> None:
    """Both roles resume: the second connection of the client street to the server street is abbreviated."""

    def talk(address: tuple[str, int]) -> bytes:
        with connect(address) as sock:
            sock.sendall(b"x")
            answer = sock.recv(1)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)
            return answer

    protocols = TLS12 if version is ssl.TLSVersion.TLSv1_2 else TLS13
    with Program(echo) as program:
        async with street(program.listener, environment=inbound()) as server_side:
            client = outbound(protocols=protocols)
            async with street(server_side.listener, direction=Direction.OUTBOUND, environment=client) as client_side:
                # The cache is keyed by destination, which in the street is the client's own address: pin it.
                client.engine = _pinned(client.engine)  # type: ignore[method-assign]
                client.remember = _pinned_remember(client.remember)  # type: ignore[method-assign]
                for _ in range(2):
                    await in_thread(talk, client_side.address)
                    await client_side.ended()
                assert [False, True] == [record.resumed for record in await client_side.ended(2)]
                assert [False, True] == [record.resumed for record in await server_side.ended(2)]


def _pinned(engine: Any) -> Any:
    return lambda _destination, now, **more: engine(("192.0.2.1", 443), now, **more)


def _pinned_remember(remember: Any) -> Any:
    return lambda engine, _destination, now: remember(engine, ("192.0.2.1", 443), now)


async def test_stopping_resets_what_is_left() -> None:
    """A relay that stops must not look like an orderly end to the program."""
    with Program(receive_all) as program:
        async with street(program.listener, environment=inbound()) as road:
            sock = await in_thread(connect, road.address, client_context())
            while not road.records or road.records[0].status != "Secure" or not program._threads:
                await trio.sleep(0.01)
        assert road.records[0].reason is errors.STOPPED
        readable, _, _ = select.select([sock], [], [], 5)
        assert [sock] == readable
        with pytest.raises(OSError):
            sock.recv(1)
        sock.close()
    assert [ConnectionResetError] == [type(failure) for failure in program.failures]


async def test_an_error_of_ours_ends_one_connection_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in the byte path resets that connection with reason `internal`; the others go on."""
    from attls.relay import secure

    turn = secure.crossing.turn_inward

    def broken(*keys: Any) -> tuple[int, int, int, Any]:
        done = turn(*keys)
        if bytes(secure._made[:4]) == b"boom":
            raise RuntimeError("a bug")
        return done

    monkeypatch.setattr(secure.crossing, "turn_inward", broken)

    def say(sock: socket.socket, text: bytes) -> bytes:
        sock.sendall(text)
        return sock.recv(10)

    with Program(echo) as program:
        async with street(program.listener, environment=inbound()) as road:
            good = await in_thread(connect, road.address, client_context())
            bad = await in_thread(connect, road.address, client_context())
            with pytest.raises(OSError):
                await in_thread(say, bad, b"boom")
            assert b"fine" == await in_thread(say, good, b"fine")
            good.close()
            bad.close()
    assert errors.INTERNAL in [record.reason for record in road.records]
    assert "a bug" in caplog.text


def test_versions_are_what_the_settings_say() -> None:
    """The helper's default is both versions, so that the parametrised tests above choose at the peer."""
    assert BOTH == settings().protocols


@pytest.mark.parametrize("size", [1000, 100_000])
async def test_a_peer_that_asks_for_short_records_gets_everything(size: int) -> None:
    """max_fragment_length makes the engine take 512 bytes at a time; nothing of what the program wrote is lost."""
    answer = random.Random(3).randbytes(size)

    def serve(sock: socket.socket) -> None:
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_WR)
        receive_all(sock)

    with Program(serve) as program:
        async with street(program.listener, environment=inbound()) as road:
            host, port = road.address
            command = ["openssl", "s_client", "-connect", f"{host}:{port}", "-maxfraglen", "512", "-quiet"]
            done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
            (record,) = await road.ended()
    assert answer == done.stdout
    assert size == record.bytes_out
