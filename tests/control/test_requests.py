"""Every request on a live connection: what it answers and does, on blocking and on non-blocking sockets."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attls import client
from attls.client import AttlsControlError, ConnectionStatus, PolicyStatus, SecurityType
from attls.control import protocol
from attls.control.protocol import Junior, Request
from attls.model import ClientAuthType, Direction, HandshakeRole, Verdict
from attls.relay import controlled as controlled_module
from tests.control.exchange import Exchange, controlled, in_thread, verdict_of
from tests.relay.street import TLS12, authority, client_context, der, leaf, server_context, settings

SERVER, CLIENT, AUTH = HandshakeRole.SERVER, HandshakeRole.CLIENT, HandshakeRole.SERVER_WITH_CLIENT_AUTH
# Made beforehand, so that no handshake waits for a key.
authority(), leaf("server.test"), leaf("client.test")


opened: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _close_everything() -> Iterator[None]:
    """Close what tests have made of the peers' sockets: wrapping one in TLS moves it into another object."""
    yield
    while opened:
        opened.pop().close()


def kept(sock: ssl.SSLSocket | socket.socket) -> Any:
    """Have `sock` closed after the test."""
    opened.append(sock)
    return sock


def wrap(peer: socket.socket, **options: Any) -> ssl.SSLSocket:
    """Do the client's handshake on the peer's side."""
    context = client_context(**options)
    tls: ssl.SSLSocket = kept(context.wrap_socket(peer, server_hostname="server.test", suppress_ragged_eofs=False))
    return tls


def serve(peer: socket.socket) -> ssl.SSLSocket:
    """Do the server's handshake on the peer's side."""
    tls: ssl.SSLSocket = kept(server_context().wrap_socket(peer, server_side=True, suppress_ragged_eofs=False))
    return tls


def secured(exchange: Exchange, program: socket.socket, peer: socket.socket, **options: Any) -> ssl.SSLSocket:
    """Start TLS with the peer as client; return the peer's TLS socket."""
    shaking = in_thread(lambda: wrap(peer, **options))
    exchange.start(program)
    found: ssl.SSLSocket = shaking()
    return found


def failure(request: Any, *arguments: Any) -> tuple[int, int]:
    with pytest.raises(AttlsControlError) as caught:
        request(*arguments)
    return caught.value.errno, caught.value.junior


def echo(program: socket.socket, peer: socket.socket) -> None:
    """Show that both directions work."""
    peer.sendall(b"to the program")
    assert b"to the program" == program.recv(100)
    program.sendall(b"to the peer")
    assert b"to the peer" == peer.recv(100)


# Queries


@pytest.mark.parametrize(
    ("verdict", "policy", "kind"),
    [
        (Verdict(), PolicyStatus.NO_POLICY, SecurityType.UNKNOWN),
        (verdict_of(None, enabled=False), PolicyStatus.NOT_ENABLED, SecurityType.UNKNOWN),
        (verdict_of(controlled()), PolicyStatus.APPLCNTRL, SecurityType.SERVER),
        (verdict_of(controlled(CLIENT)), PolicyStatus.APPLCNTRL, SecurityType.CLIENT),
        *(
            (verdict_of(controlled(AUTH, client_auth=each)), PolicyStatus.APPLCNTRL, kind)
            for each, kind in [
                (ClientAuthType.PASS_THRU, SecurityType.SRV_CA_PASS),
                (ClientAuthType.FULL, SecurityType.SRV_CA_FULL),
                (ClientAuthType.REQUIRED, SecurityType.SRV_CA_REQD),
                (ClientAuthType.SAF_CHECK, SecurityType.SRV_CA_SAFCHK),
            ]
        ),
    ],
)
def test_a_query_tells_what_policy_says(
    tmp_path: Path, verdict: Verdict, policy: PolicyStatus, kind: SecurityType
) -> None:
    """Each kind of policy has its status and security type, before anything is secure."""
    with Exchange(tmp_path, verdict=verdict) as exchange, exchange.outbound() as (program, _):
        status = exchange.query(program)
        assert (policy, ConnectionStatus.NOTSECURE, kind) == (status.policy, status.connection, status.security_type)
        assert (None, None, None) == (status.protocol, status.cipher, status.key_share)


def test_a_query_of_a_secure_connection_tells_everything(tmp_path: Path) -> None:
    """Protocol, ciphers in two and four characters, key share, names, certificate, in both versions."""
    with Exchange(tmp_path, controlled(AUTH)) as exchange, exchange.inbound() as (program, peer):
        secured(exchange, program, peer, identity="client.test")
        certificate = der(leaf("client.test").cert_chain_pems[0].bytes())
        status = exchange.query(program, certificate=True)
        assert ("TLSv1.3", "1302", "rule", "group", "environment", None) == (
            status.protocol,
            status.cipher,
            status.rule,
            status.group_action,
            status.environment_action,
            status.connection_action,
        )
        assert certificate == status.certificate
        reply = exchange.request(program, request=Request.RETURN_CERTIFICATE, buffer=1, buffer_length=10_000)
        assert (0, certificate, len(certificate)) == (reply.errno, reply.contents, reply.ioctl.certificate_length)
        assert (0x0304, "4X", "1302") == (reply.ioctl.protocol, reply.ioctl.cipher, reply.ioctl.cipher4)
        assert len(reply.ioctl.key_share) == 4
        reply = exchange.request(program, request=Request.RETURN_CERTIFICATE, buffer=1, buffer_length=100)
        assert (errno.ENOBUFS, Junior.BUFFER_TOO_SMALL, len(certificate), b"") == (
            reply.errno,
            reply.junior,
            reply.ioctl.certificate_length,
            reply.contents,
        )


def test_a_version_2_buffer_may_be_too_small(tmp_path: Path) -> None:
    """ENOBUFS with BytesNeeded, and the status counts all the same."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, _):
        packet = protocol.Ioctl(version=2, buffer=1, buffer_length=60).pack() + protocol.build_header([1])
        reply = exchange.ask([program.fileno()], packet)
        assert errno.ENOBUFS == reply.errno
        assert PolicyStatus.APPLCNTRL == reply.ioctl.policy_status
        assert protocol.bytes_needed(reply.contents) > 60


def test_tls12_has_a_two_character_cipher_and_no_key_share(tmp_path: Path) -> None:
    """Neg_Cipher is filled where the suite has two characters; Neg_KeyShare only for TLS 1.3."""
    wanted = controlled(protocols=TLS12, ciphers=("C02B", "009C"))
    with Exchange(tmp_path, wanted) as exchange, exchange.inbound() as (program, peer):
        secured(exchange, program, peer)
        reply = exchange.request(program)
        assert (0x0303, "C02B", "4X", "") == (
            reply.ioctl.protocol,
            reply.ioctl.cipher4,
            reply.ioctl.cipher,
            reply.ioctl.key_share,
        )


def test_a_blocking_query_waits_for_the_handshake_of_a_basic_connection(tmp_path: Path) -> None:
    """Right after connect the answer is final already."""
    wanted = settings(CLIENT)
    with Exchange(tmp_path, wanted) as exchange, exchange.outbound() as (program, peer):
        shaking = in_thread(lambda: serve(peer))
        status = exchange.query(program, certificate=True)
        assert (PolicyStatus.ENABLED, ConnectionStatus.SECURE) == (status.policy, status.connection)
        assert der(leaf("server.test").cert_chain_pems[0].bytes()) == status.certificate
        assert status.host_matched is False
        shaking()


def test_a_query_that_does_not_block_says_so_during_a_handshake(tmp_path: Path) -> None:
    """EWOULDBLOCK, and later the answer."""
    with Exchange(tmp_path, settings(CLIENT)) as exchange, exchange.outbound() as (program, peer):
        program.setblocking(False)
        assert errno.EWOULDBLOCK == failure(exchange.query, program)[0]
        serve(peer)
        with client.begin(program, Request.QUERY_ONLY, run_dir=exchange.run_dir) as pending:
            assert pending.result(10).is_secure


def test_a_blocking_query_learns_that_the_handshake_failed(tmp_path: Path) -> None:
    """ECONNRESET with JRTtlsHandshakeFailed."""
    with Exchange(tmp_path, settings(CLIENT)) as exchange, exchange.outbound() as (program, peer):
        asking = in_thread(lambda: failure(exchange.query, program))
        while not exchange.call(lambda: len(exchange.desk)):
            time.sleep(0.001)
        peer.recv(1)
        peer.sendall(b"220 this is no TLS\r\n")
        assert (errno.ECONNRESET, Junior.HANDSHAKE_FAILED) == asking()
        assert errno.ENOTCONN == failure(exchange.query, program)[0]


def test_a_connection_that_is_not_carried_is_judged_by_the_policy_in_force(tmp_path: Path) -> None:
    """Matched, but older than the steering: AT-TLS was off; not matched: no policy; control is not to be had."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        with Exchange(tmp_path, verdict=Verdict()) as exchange:
            assert PolicyStatus.NO_POLICY == exchange.query(sock).policy
        with Exchange(tmp_path, verdict=verdict_of(None, enabled=False)) as exchange:
            assert PolicyStatus.NOT_ENABLED == exchange.query(sock).policy
        with Exchange(tmp_path, controlled()) as exchange:
            assert PolicyStatus.OFF == exchange.query(sock).policy
            assert errno.EOPNOTSUPP == failure(exchange.start, sock)[0]


# Who may not


@pytest.mark.parametrize(
    "bit",
    [
        Request.INIT_CONNECTION,
        Request.STOP_CONNECTION,
        Request.RESET_SESSION,
        Request.RESET_CIPHER,
        Request.RESET_WRITE_CIPHER,
        Request.SEND_SESSION_TICKET,
    ],
)
def test_control_needs_a_policy_that_grants_it(tmp_path: Path, bit: Request) -> None:
    """EOPNOTSUPP without AT-TLS, EACCES without ApplicationControlled; the status comes along."""
    with Exchange(tmp_path, verdict=verdict_of(None, enabled=False)) as exchange, exchange.inbound() as (program, _):
        reply = exchange.request(program, request=bit)
        assert (errno.EOPNOTSUPP, PolicyStatus.NOT_ENABLED) == (reply.errno, reply.ioctl.policy_status)
    with Exchange(tmp_path, settings(CLIENT)) as exchange, exchange.outbound() as (program, _):
        reply = exchange.request(program, request=bit)
        assert (errno.EACCES, Junior.DENIED_BY_POLICY, PolicyStatus.ENABLED) == (
            reply.errno,
            reply.junior,
            reply.ioctl.policy_status,
        )


@pytest.mark.parametrize(
    "bit",
    [
        Request.STOP_CONNECTION,
        Request.RESET_SESSION,
        Request.RESET_CIPHER,
        Request.RESET_WRITE_CIPHER,
        Request.SEND_SESSION_TICKET,
    ],
)
def test_there_is_nothing_to_control_before_init(tmp_path: Path, bit: Request) -> None:
    """EPROTO."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, _):
        assert errno.EPROTO == exchange.request(program, request=bit).errno


# INIT_CONNECTION


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_init_on_a_blocking_socket_returns_the_final_status(
    tmp_path: Path, direction: Direction, role: HandshakeRole
) -> None:
    """Both roles, whoever connected: when the call returns, the connection is secure and carries data."""
    with Exchange(tmp_path, controlled(role)) as exchange, exchange.connection(direction) as (program, peer):
        echo(program, peer)
        program.setblocking(True)
        shaking = in_thread(lambda: wrap(peer) if role is SERVER else serve(peer))
        status = exchange.start(program, certificate=True)
        assert (ConnectionStatus.SECURE, False, role is CLIENT) == (
            status.connection,
            status.in_progress,
            status.certificate is not None,
        )
        echo(program, shaking())


def test_init_on_a_non_blocking_socket_is_in_progress(tmp_path: Path) -> None:
    """EINPROGRESS with HS_INPROGRESS; while it lasts, queries say EWOULDBLOCK and another INIT says EALREADY."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        program.setblocking(False)
        reply = exchange.request(program, request=Request.INIT_CONNECTION)
        assert (errno.EINPROGRESS, Junior.OK, ConnectionStatus.HS_INPROGRESS) == (
            reply.errno,
            reply.junior,
            reply.ioctl.connection_status,
        )
        assert errno.EWOULDBLOCK == failure(exchange.query, program)[0]
        assert (errno.EALREADY, Junior.ALREADY_ACTIVE) == failure(exchange.start, program)
        assert errno.EWOULDBLOCK == failure(exchange.stop, program)[0]
        tls = wrap(peer)
        with client.begin(program, Request.QUERY_ONLY, run_dir=exchange.run_dir) as pending:
            assert pending.result(10).is_secure
        program.setblocking(True)
        echo(program, tls)


def test_init_of_a_socket_with_a_timeout_waits_that_long(tmp_path: Path) -> None:
    """To its program such a socket is blocking, so the call returns the outcome, or ETIMEDOUT."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        program.settimeout(0.2)
        assert errno.ETIMEDOUT == failure(exchange.start, program)[0]
        tls = wrap(peer)
        program.settimeout(10)
        assert exchange.query(program).is_secure
        echo(program, tls)


def test_init_twice_is_refused(tmp_path: Path) -> None:
    """EALREADY on a secure connection, which stays as it is."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        tls = secured(exchange, program, peer)
        reply = exchange.request(program, request=Request.INIT_CONNECTION)
        assert (errno.EALREADY, Junior.ALREADY_ACTIVE, ConnectionStatus.SECURE) == (
            reply.errno,
            reply.junior,
            reply.ioctl.connection_status,
        )
        echo(program, tls)


@pytest.mark.parametrize("end", ["program", "peer"])
def test_init_needs_both_directions(tmp_path: Path, end: str) -> None:
    """EPIPE once one side has ended."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        if end == "program":
            program.shutdown(socket.SHUT_WR)
            assert b"" == peer.recv(1)
        else:
            peer.shutdown(socket.SHUT_WR)
            assert b"" == program.recv(1)
        assert errno.EPIPE == failure(exchange.start, program)[0]


@pytest.mark.parametrize("blocking", [True, False])
def test_a_failed_handshake_resets_the_connection(tmp_path: Path, blocking: bool) -> None:
    """Blocking: ECONNRESET with JRTtlsHandshakeFailed; both: the program reads a reset, the record says 5003."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        program.setblocking(blocking)
        peer.sendall(b"EHLO again\r\n")
        if blocking:
            assert (errno.ECONNRESET, Junior.HANDSHAKE_FAILED) == failure(exchange.start, program)
        else:
            with contextlib.suppress(AttlsControlError):
                while True:
                    exchange.start(program)
        program.settimeout(10)
        with pytest.raises(ConnectionResetError):
            program.recv(1)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        assert [5003] == exchange.call(lambda: [record.reason.code for record in exchange.records if record.reason])


def test_a_client_that_never_starts_the_handshake_is_reset(tmp_path: Path) -> None:
    """RC 5004 after HandshakeTimeout."""
    with Exchange(tmp_path, controlled(handshake_timeout=1)) as exchange, exchange.inbound() as (program, _):
        assert errno.ECONNRESET == failure(exchange.start, program)[0]
        assert [5004] == exchange.call(lambda: [record.reason.code for record in exchange.records if record.reason])


# ALLOW_HSTIMEOUT


def test_a_silent_client_may_stay_in_clear(tmp_path: Path) -> None:
    """Nothing heard within HandshakeTimeout: the call succeeds, NOTSECURE, and INIT may come again."""
    with Exchange(tmp_path, controlled(handshake_timeout=1)) as exchange, exchange.inbound() as (program, peer):
        program.setblocking(True)
        status = exchange.start(program, allow_handshake_timeout=True)
        assert (ConnectionStatus.NOTSECURE, False) == (status.connection, status.in_progress)
        echo(program, peer)
        echo(program, secured(exchange, program, peer))


def test_a_client_that_began_and_stopped_is_reset(tmp_path: Path) -> None:
    """Once a byte has come, a timeout is a failure, allowed or not."""
    with Exchange(tmp_path, controlled(handshake_timeout=1)) as exchange, exchange.inbound() as (program, peer):
        peer.sendall(b"\x16")
        with pytest.raises(AttlsControlError) as caught:
            exchange.start(program, allow_handshake_timeout=True)
        assert errno.ECONNRESET == caught.value.errno


def test_what_was_written_for_tls_never_goes_in_clear(tmp_path: Path) -> None:
    """A program that does not wait and writes at once: the timeout resets instead of passing it on in clear."""
    with Exchange(tmp_path, controlled(handshake_timeout=1)) as exchange, exchange.inbound() as (program, peer):
        program.setblocking(False)
        exchange.start(program, allow_handshake_timeout=True)
        program.sendall(b"secret")
        with pytest.raises(ConnectionResetError):
            assert b"" == peer.recv(100)


@pytest.mark.parametrize(("role", "timeout"), [(CLIENT, 10), (SERVER, 0)])
def test_allow_hstimeout_is_for_servers_with_a_timeout(tmp_path: Path, role: HandshakeRole, timeout: int) -> None:
    """EPROTO for clients and for HandshakeTimeout 0."""
    wanted = controlled(role, handshake_timeout=timeout)
    with Exchange(tmp_path, wanted) as exchange, exchange.outbound() as (program, peer):
        with pytest.raises(AttlsControlError) as caught:
            exchange.start(program, allow_handshake_timeout=True)
        assert errno.EPROTO == caught.value.errno
        echo(program, peer)


# STOP_CONNECTION


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_stop_and_init_can_alternate(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """TLS ends with close_notify both ways, the connection goes on in clear, and can be secured again."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        for _ in range(3):
            tls = secured(exchange, program, peer, version=version)
            echo(program, tls)
            unwrapping = in_thread(tls.unwrap)
            status = exchange.stop(program)
            assert (ConnectionStatus.NOTSECURE, None, PolicyStatus.APPLCNTRL) == (
                status.connection,
                status.protocol,
                status.policy,
            )
            peer = kept(unwrapping())
            echo(program, peer)


def test_the_peer_may_stop_first(tmp_path: Path) -> None:
    """Its close_notify and clear bytes wait for the program's own STOP."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        tls = secured(exchange, program, peer)
        unwrapping = in_thread(lambda: kept(tls.unwrap()))
        time.sleep(0.05)
        exchange.stop(program)
        echo(program, unwrapping())


def test_stop_on_a_non_blocking_socket_is_in_progress(tmp_path: Path) -> None:
    """EINPROGRESS; when it is done the query says NOTSECURE."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        tls = secured(exchange, program, peer)
        program.setblocking(False)
        assert exchange.stop(program).in_progress
        raw = kept(tls.unwrap())
        while exchange.query(program).is_secure:
            time.sleep(0.001)
        program.settimeout(10)
        echo(program, raw)


def test_stop_needs_all_data_to_be_read(tmp_path: Path) -> None:
    """EPROTO with JRTTLSStopReadDataPending; after reading it works."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        tls = secured(exchange, program, peer)
        tls.sendall(b"unread")
        while not controlled_module.unread(program):
            time.sleep(0.001)
        assert (errno.EPROTO, Junior.STOP_READ_DATA_PENDING) == failure(exchange.stop, program)
        assert b"unread" == program.recv(100)
        unwrapping = in_thread(lambda: kept(tls.unwrap()))
        exchange.stop(program)
        echo(program, unwrapping())


def test_stop_needs_the_network_to_take_what_was_written(tmp_path: Path) -> None:
    """EPROTO with JRTTLSStopWriteDataPending while the peer does not read."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        secured(exchange, program, peer)
        program.setblocking(False)
        while not exchange.call(
            lambda: any(getattr(each.phase, "net_unsent", b"") for each in exchange.reactor.controls.values())
        ):
            with contextlib.suppress(BlockingIOError):
                program.send(bytes(65536))
        assert (errno.EPROTO, Junior.STOP_WRITE_DATA_PENDING) == failure(exchange.stop, program)


def test_stop_twice_is_refused(tmp_path: Path) -> None:
    """EALREADY once TLS has ended."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        tls = secured(exchange, program, peer)
        unwrapping = in_thread(lambda: kept(tls.unwrap()))
        exchange.stop(program)
        unwrapping()
        assert (errno.EALREADY, Junior.ALREADY_ACTIVE) == failure(exchange.stop, program)


def test_a_peer_that_does_not_answer_stop_is_reset(tmp_path: Path) -> None:
    """ECONNRESET after the time that policy gives to handshakes."""
    with Exchange(tmp_path, controlled(handshake_timeout=1)) as exchange, exchange.inbound() as (program, peer):
        secured(exchange, program, peer)
        assert (errno.ECONNRESET, Junior.CONTROL_DATA_FAILED) == failure(exchange.stop, program)


def test_cleartext_instead_of_close_notify_is_never_delivered(tmp_path: Path) -> None:
    """A peer that answers STOP with cleartext at once: reset."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        tls = secured(exchange, program, peer)
        with socket.socket(fileno=tls.detach()) as bare:
            bare.sendall(b"USER root\r\n")
            assert failure(exchange.stop, program)[0] in (errno.ECONNRESET, errno.ENOTCONN)
            with pytest.raises(ConnectionResetError):
                program.recv(100)


@pytest.mark.parametrize("clear", [b"", b"clear, but nobody asked for it"])
def test_close_notify_without_stop_is_the_end_of_the_stream(
    tmp_path: Path, clear: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the grace the program reads the end; clear bytes behind it are a reset."""
    monkeypatch.setattr(controlled_module, "GRACE_SECONDS", 0.5)
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        tls = secured(exchange, program, peer)
        tls.sendall(b"last")
        tls.settimeout(0.2)
        with pytest.raises(TimeoutError):
            tls.unwrap()
        with socket.socket(fileno=tls.detach()) as bare:
            bare.sendall(clear)
            assert b"last" == program.recv(100)
            if clear:
                with pytest.raises(ConnectionResetError):
                    program.recv(100)
            else:
                assert b"" == program.recv(100)


def test_close_notify_on_a_second_connection_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes TLS off FTP data, and a server may wait for our close_notify before it closes."""
    monkeypatch.setattr(controlled_module, "GRACE_SECONDS", 1000.0)
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        tls = secured(exchange, program, peer)
        exchange.call(lambda: exchange.records[-1].follow(None))
        ending = in_thread(tls.unwrap)
        assert b"" == program.recv(100)
        program.close()
        ending().close()


# RESET_…


def resumes(exchange: Exchange, context: ssl.SSLContext, session: Any) -> tuple[bool, Any]:
    """Make one connection with `session`; return whether it was resumed, and the new session."""
    with exchange.inbound() as (program, peer):
        shaking = in_thread(
            lambda: kept(
                context.wrap_socket(peer, server_hostname="server.test", session=session, suppress_ragged_eofs=False)
            )
        )
        exchange.start(program)
        tls = shaking()
        program.sendall(b"x")
        tls.recv(1)
        return tls.session_reused, tls.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_reset_session_ends_resumption(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Before RESET_SESSION a client resumes its session, afterwards it does not; new ones can be resumed again."""
    with Exchange(tmp_path, controlled()) as exchange:
        context = client_context(version)
        _, session = resumes(exchange, context, None)
        resumed, session = resumes(exchange, context, session)
        assert resumed
        with exchange.inbound() as (program, peer):
            secured(exchange, program, peer)
            client.reset_session(program, run_dir=exchange.run_dir)
        resumed, session = resumes(exchange, context, session)
        assert not resumed
        resumed, _ = resumes(exchange, context, session)
        assert resumed


def test_reset_session_of_a_client(tmp_path: Path) -> None:
    """The next connection to the same place makes a full handshake."""
    context = server_context()
    with Exchange(tmp_path, controlled(CLIENT)) as exchange:

        def connect(*, forget: bool) -> bool:
            with exchange.outbound() as (program, peer):
                shaking = in_thread(
                    lambda: kept(context.wrap_socket(peer, server_side=True, suppress_ragged_eofs=False))
                )
                exchange.start(program)
                tls = shaking()
                echo(program, tls)
                if forget:
                    client.reset_session(program, run_dir=exchange.run_dir)
                reused = bool(tls.session_reused)
                program.close()
                tls.unwrap().close()
                return reused

        # Sessions are kept by destination, and the destination is what the program dialled: our gate's address.
        assert [False, True, True, False] == [
            connect(forget=False),
            connect(forget=False),
            connect(forget=True),
            connect(forget=False),
        ]


def test_reset_cipher_renegotiates_tls12(tmp_path: Path) -> None:
    """New keys on the live connection, and data on both sides of it."""
    wanted = controlled(protocols=TLS12)
    with Exchange(tmp_path, wanted) as exchange, exchange.inbound() as (program, peer):
        tls = secured(exchange, program, peer)
        echo(program, tls)
        before = tls.get_channel_binding("tls-unique")
        # The peer's TLS library renegotiates while it reads.
        reading = in_thread(lambda: tls.recv(100))
        program.setblocking(True)
        client.reset_cipher(program, run_dir=exchange.run_dir)
        program.sendall(b"under new keys")
        assert b"under new keys" == reading()
        assert before != tls.get_channel_binding("tls-unique")
        echo(program, tls)


@pytest.mark.parametrize(
    ("bit", "junior"),
    [
        (Request.RESET_CIPHER, Junior.RESET_CIPHER_FAILED),
        (Request.RESET_WRITE_CIPHER, Junior.RESET_WRITE_CIPHER_FAILED),
        (Request.SEND_SESSION_TICKET, Junior.SEND_SESSION_TICKET_FAILED),
    ],
)
def test_what_the_tls_library_cannot_do_is_said(
    tmp_path: Path, bit: Request, junior: Junior, caplog: pytest.LogCaptureFixture
) -> None:
    """EOPNOTSUPP with the junior of the request, a line in the log, and the connection goes on."""
    with Exchange(tmp_path, controlled()) as exchange, exchange.inbound() as (program, peer):
        tls = secured(exchange, program, peer)
        reply = exchange.request(program, request=bit)
        assert (errno.EOPNOTSUPP, junior) == (reply.errno, reply.junior)
        assert bit.name is not None
        assert bit.name in caplog.text
        echo(program, tls)


@pytest.mark.parametrize("bit", [Request.RESET_WRITE_CIPHER, Request.SEND_SESSION_TICKET])
def test_key_update_and_tickets_are_for_tls13(tmp_path: Path, bit: Request) -> None:
    """EPROTO on TLS 1.2."""
    wanted = controlled(protocols=TLS12)
    with Exchange(tmp_path, wanted) as exchange, exchange.inbound() as (program, peer):
        secured(exchange, program, peer)
        assert errno.EPROTO == exchange.request(program, request=bit).errno


def test_results_are_values() -> None:
    """A status is frozen."""
    status = client.Status(PolicyStatus.ENABLED, ConnectionStatus.SECURE, SecurityType.CLIENT)
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.user = "root"  # type: ignore[misc]
