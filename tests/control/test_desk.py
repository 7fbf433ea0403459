"""Holding the descriptor is the permission; whatever else clients do costs themselves only."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attls import client
from attls.client import AttlsControlError, PolicyStatus
from attls.control import protocol, server
from attls.control.protocol import Ioctl, Junior, Request
from attls.control.server import Desk, Petition
from attls.daemon.mailroom import Mailroom
from attls.daemon.switchboard import Directory
from attls.errors import DaemonError
from attls.model import Endpoint, canonical_address
from tests.control.exchange import SECONDS, Exchange, controlled, in_thread, send


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    with Exchange(tmp_path, controlled()) as made:
        yield made


def outcome(exchange: Exchange, descriptors: list[int]) -> tuple[int, int]:
    reply = exchange.ask(descriptors, Ioctl().pack())
    return reply.errno, reply.junior


# Descriptors


def test_only_a_connected_tcp_socket_is_accepted(exchange: Exchange, tmp_path: Path) -> None:
    """Each wrong kind of descriptor has its errno."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        fresh = stack.enter_context(socket.socket())
        datagram = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        one, two = socket.socketpair()
        stack.enter_context(one)
        stack.enter_context(two)
        file = stack.enter_context((tmp_path / "file").open("w"))
        assert (errno.ENOTCONN, Junior.GET_CONNECTION) == outcome(exchange, [listening.fileno()])
        assert (errno.ENOTCONN, Junior.GET_CONNECTION) == outcome(exchange, [fresh.fileno()])
        assert errno.EPROTOTYPE == outcome(exchange, [datagram.fileno()])[0]
        assert errno.EPROTOTYPE == outcome(exchange, [one.fileno()])[0]
        assert errno.ENOTSOCK == outcome(exchange, [file.fileno()])[0]
        assert errno.EBADF == outcome(exchange, [])[0]
        assert (errno.EINVAL, Junior.SOCKET_CALL_PARAMETER) == outcome(exchange, [fresh.fileno(), fresh.fileno()])
        assert errno.EINVAL == outcome(exchange, [fresh.fileno()] * 100)[0]


def test_a_version_0_query_of_a_listening_socket_is_refused(exchange: Exchange) -> None:
    """What an early revision of a known program sent."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        reply = exchange.ask([listening.fileno()], bytes(56))
        assert errno.EINVAL == reply.errno or errno.ENOTCONN == reply.errno


def test_a_socket_with_the_addresses_of_another_connection_is_not_taken_for_it(exchange: Exchange) -> None:
    """The cookie decides: a socket with the same four-tuple elsewhere gets nothing of the connection carried here."""
    with exchange.inbound() as (program, _):
        assert PolicyStatus.APPLCNTRL == exchange.query(program).policy

        def disguise() -> None:
            for connid in exchange.switchboard._cookies:
                exchange.switchboard._cookies[connid] += 1

        exchange.call(disguise)
        assert PolicyStatus.OFF == exchange.query(program).policy
        with pytest.raises(AttlsControlError) as caught:
            exchange.start(program)
        assert errno.EOPNOTSUPP == caught.value.errno


def test_the_peer_of_our_own_leg_has_no_say(exchange: Exchange) -> None:
    """Our own sockets' addresses are not in the directory: only the program's end of a connection is."""
    with exchange.outbound() as (program, peer):
        assert PolicyStatus.APPLCNTRL == exchange.query(program).policy
        assert PolicyStatus.OFF == exchange.query(peer).policy


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packet=st.binary(min_size=1, max_size=400), count=st.integers(0, 6))
def test_any_packet_is_answered_and_leaks_nothing(exchange: Exchange, packet: bytes, count: int) -> None:
    """Whatever comes, with however many descriptors, there is an answer, and no descriptor stays behind."""
    with exchange.outbound() as (program, _):
        exchange.query(program)
        before = exchange.descriptors()
        reply = exchange.ask([program.fileno()] * count, packet)
        assert 0 != reply.errno
        wait_for(lambda: exchange.descriptors() <= before)


def wait_for(holds: object) -> None:
    deadline = time.monotonic() + SECONDS
    assert callable(holds)
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# Clients


def test_a_client_has_one_request_at_a_time(exchange: Exchange) -> None:
    """Asking again before the answer has come ends the client, not the request."""
    with exchange.inbound() as (program, _), exchange.raw() as sock:
        program.setblocking(True)
        packet = Ioctl(request=Request.INIT_CONNECTION).pack()
        send(sock, packet, [program.fileno()])
        send(sock, packet, [program.fileno()])
        sock.settimeout(SECONDS)
        with contextlib.suppress(ConnectionResetError):
            assert b"" == sock.recv(1000)
        program.setblocking(False)
        with pytest.raises(AttlsControlError) as caught:
            exchange.start(program)
        assert errno.EALREADY == caught.value.errno


def test_one_connection_serves_many_requests(exchange: Exchange) -> None:
    """A client may keep its connection and ask again."""
    with exchange.inbound() as (program, _), exchange.raw() as sock:
        sock.settimeout(SECONDS)
        for _ in range(100):
            send(sock, Ioctl().pack(), [program.fileno()])
            assert 0 == protocol.parse_reply(sock.recv(1000)).errno


def test_a_client_that_hangs_up_takes_its_question_along(exchange: Exchange) -> None:
    """Nothing waits for the handshake any more, and no descriptor stays."""
    with exchange.inbound() as (program, _):
        program.setblocking(True)
        exchange.query(program)
        before = exchange.descriptors()
        for _ in range(20):
            pending = client.begin(program, Request.INIT_CONNECTION, run_dir=exchange.run_dir)
            pending.close()
        wait_for(lambda: exchange.descriptors() <= before and not exchange.call(lambda: len(exchange.desk)))


def test_a_crowd_of_idle_clients_does_not_keep_others_out(exchange: Exchange) -> None:
    """One user may hold half of the places; the longest idle of its clients goes first."""
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(exchange.raw()) for _ in range(200)]
        program, _ = stack.enter_context(exchange.inbound())
        assert PolicyStatus.APPLCNTRL == exchange.query(program).policy
        assert exchange.call(lambda: len(exchange.desk)) <= 64
        crowd[0].settimeout(SECONDS)
        assert b"" == crowd[0].recv(1)


def test_a_crowd_of_waiting_clients_does_not_keep_others_out(exchange: Exchange) -> None:
    """Requests that wait for an outcome hold a place too; the oldest goes first, and nothing of any stays behind."""
    with exchange.inbound() as (program, _), exchange.inbound() as (other, _):
        program.setblocking(False)
        assert exchange.start(program).in_progress
        assert PolicyStatus.APPLCNTRL == exchange.query(other).policy
        before = exchange.descriptors()
        with contextlib.ExitStack() as stack:
            crowd = [
                stack.enter_context(client.begin(program, Request.QUERY_ONLY, run_dir=exchange.run_dir))
                for _ in range(300)
            ]
            assert PolicyStatus.APPLCNTRL == exchange.query(other).policy
            assert exchange.call(lambda: len(exchange.desk)) <= 64
            with pytest.raises(AttlsControlError, match="hung up"):
                crowd[0].result(SECONDS)
        wait_for(lambda: exchange.descriptors() <= before and not exchange.call(lambda: len(exchange.desk)))


def test_idle_clients_are_let_go(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without a request."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.0)
    with exchange.raw() as sock:
        wait_for(lambda: exchange.call(lambda: len(exchange.desk)))
        exchange.call(exchange.desk.expire)
        sock.settimeout(SECONDS)
        assert b"" == sock.recv(1)


def test_a_client_that_never_reads_costs_itself_only(exchange: Exchange) -> None:
    """When its answers do not fit any more, it is dropped; others are served all the time."""
    with exchange.inbound() as (program, _), exchange.raw() as sock:
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            for _ in range(20_000):
                send(sock, Ioctl().pack(), [program.fileno()])
        assert PolicyStatus.APPLCNTRL == exchange.query(program).policy
        wait_for(lambda: exchange.call(lambda: len(exchange.desk)) <= 1)


# Between workers


def test_a_request_finds_its_worker_around_the_ring(tmp_path: Path) -> None:
    """Passed on with the client; the one that knows answers, else the last one does."""
    room = Mailroom(tmp_path / "control.sock", 3)
    answers: list[tuple[int, bool]] = []

    def handler(number: int, knows: bool) -> object:
        def handle(petition: Petition) -> None:
            if not knows and petition.pass_on():
                return
            answers.append((number, knows))
            petition.answer(protocol.answer(petition.call, Ioctl(policy_status=4, connection_status=1)))

        return handle

    def desk(number: int, knows: bool) -> Desk:
        listener, inbox, neighbour = (socket.socket(fileno=os.dup(each)) for each in room.numbers(number))
        return Desk(
            handler(number, knows),  # type: ignore[arg-type]
            listener=listener,
            inbox=inbox,
            neighbour=neighbour,
            count=3,
            clock=time.monotonic,
        )

    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as sock:
        for knowing in ((False, False, True), (False, False, False)):
            desks = [desk(number, knows) for number, knows in enumerate(knowing)]
            before = len(list(Path("/proc/self/fd").iterdir()))
            asking = in_thread(lambda: client.query(sock, run_dir=tmp_path))
            deadline = time.monotonic() + SECONDS
            while not answers and time.monotonic() < deadline:
                for each in desks:
                    each.serve()
            assert PolicyStatus.ENABLED == asking().policy
            assert [(2, knowing[2])] == answers or not any(knowing)
            answers.clear()
            for each in desks:
                each.serve()
            assert len(list(Path("/proc/self/fd").iterdir())) <= before
            for each in desks:
                each.close()
    room.close()


def test_mode_and_group_of_the_socket_can_be_chosen(tmp_path: Path) -> None:
    """The socket's file has the mode and the group that were asked for; an unknown group is a sentence."""
    room = Mailroom(tmp_path / "one.sock", 1, mode=0o660, group=str(os.getgid()))
    found = (tmp_path / "one.sock").stat()
    room.close()
    assert (0o660, os.getgid()) == (found.st_mode & 0o777, found.st_gid)
    with pytest.raises(DaemonError, match="there is no group nobody-here"):
        Mailroom(tmp_path / "two.sock", 1, group="nobody-here")


def test_the_client_says_what_to_do_without_a_daemon(tmp_path: Path) -> None:
    """The errno of the connect, and a hint."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as sock:
        with pytest.raises(AttlsControlError, match="ATTLS_RUN_DIR") as caught:
            client.query(sock, run_dir=tmp_path)
        assert errno.ENOENT == caught.value.errno


def endpoint(text: str, port: int) -> Endpoint:
    return Endpoint(canonical_address(text), port)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.booleans()), max_size=40))
def test_the_directory_is_a_dictionary(steps: list[tuple[int, int, int, bool]]) -> None:
    """Entries come and go; what is found is what was entered last and not struck since."""
    directory = Directory()
    expected: dict[int, tuple[Endpoint, Endpoint]] = {}
    for connid, local, remote, add in steps:
        ends = (endpoint(f"10.0.0.{local}", local), endpoint("10.0.1.1", remote))
        if add:
            directory.add(connid, *ends)
            expected[connid] = ends
        else:
            directory.remove(connid)
            expected.pop(connid, None)
    assert len(expected) == len(directory)
    for ends in expected.values():
        found = directory.find(*ends)
        assert found is not None
        assert ends == expected[found]


# C


PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ezbztlsc.h"

static struct { struct TTLSHeader header; struct TTLSQuadruplet get[2]; char data[4096]; } buffer;

int main(int argc, char **argv)
{
    struct TTLS_IOCTL ioc;
    int fd = atoi(argv[1]);
    (void)argc;
    memset(&ioc, 0, sizeof ioc);
    ioc.TTLSi_Ver = TTLS_VERSION1;
    ioc.TTLSi_Req_Type = TTLS_QUERY_ONLY;
    if (ioctl(fd, SIOCTTLSCTL, (char *)&ioc) < 0) { perror("query"); return 1; }
    printf("%d %d %d %04x\n", ioc.TTLSi_Stat_Policy, ioc.TTLSi_Stat_Conn, ioc.TTLSi_Sec_Type, ioc.TTLSi_SSL_Prot);
    memset(&ioc, 0, sizeof ioc);
    ioc.TTLSi_Ver = TTLS_VERSION1;
    ioc.TTLSi_Req_Type = TTLS_ALLOW_HSTIMEOUT;
    if (ioctl(fd, SIOCTTLSCTL, &ioc) == 0) { puts("allowed"); return 1; }
    printf("%s %x\n", strerror(errno), __errno2());
    memset(&ioc, 0, sizeof ioc);
    ioc.TTLSi_Ver = TTLS_VERSION2;
    ioc.TTLSi_Req_Type = TTLS_INIT_CONNECTION;
    if (ioctl(fd, SIOCTTLSCTL, &ioc) < 0) { perror("init"); return 1; }
    memcpy(buffer.header.TTLSHeaderIdent, TTLSHeaderIdentifier, 8);
    buffer.header.TTLSHdr_GetCount = 2;
    buffer.get[0].TTLSQ_Key = TTLSK_TTLSRuleName;
    buffer.get[1].TTLSQ_Key = TTLSK_TTLSConnectionActionName;
    ioc.TTLSi_Req_Type = TTLS_QUERY_ONLY;
    ioc.TTLSi_BufferPtr = (char *)&buffer;
    ioc.TTLSi_BufferLen = sizeof buffer;
    if (ioctl(fd, SIOCTTLSCTL, &ioc) < 0) { perror("version 2"); return 1; }
    printf("%d %d.%d %.4s %s %u\n", ioc.TTLSi_Stat_Conn, ioc.TTLSi_Prot_Ver, ioc.TTLSi_Prot_Mod,
           ioc.TTLSi_Neg_Cipher4, (char *)&buffer + buffer.get[0].TTLSQ_Offset, buffer.get[1].TTLSQ_Offset);
    return 0;
}
"""


def test_a_c_program_queries_and_starts_tls(exchange: Exchange, tmp_path: Path) -> None:
    """Header and client compile without a warning, and every call answers as the Python client's."""
    from attls.c import DIRECTORY
    from tests.control.test_requests import opened, wrap

    (tmp_path / "program.c").write_text(PROGRAM)
    subprocess.run(
        ["gcc", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-DATTLS_REPLACE_IOCTL", f"-I{DIRECTORY}",
         "-o", "program", "program.c", f"{DIRECTORY}/attls_ioctl.c"],
        cwd=tmp_path, check=True, timeout=60,
    )  # fmt: skip
    with exchange.inbound() as (program, peer):
        program.setblocking(True)
        shaking = in_thread(lambda: wrap(peer))
        done = subprocess.run(
            [tmp_path / "program", str(program.fileno())],
            pass_fds=[program.fileno()],
            env={"ATTLS_RUN_DIR": str(exchange.run_dir)},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        shaking().close()
        opened.clear()
    assert [
        "5 1 2 0000",
        "Operation not permitted a9",
        "3 3.4 1302 rule 0",
    ] == done.stdout.splitlines(), done.stderr
