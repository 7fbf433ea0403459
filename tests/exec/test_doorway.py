"""How a socket that wants to connect is held and let in, on loopback, with nothing around it."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Iterator

import pytest

from attls.intercept import doorway, seccomp
from attls.intercept.doorway import Doorway
from attls.model import Endpoint

PLACES = {socket.AF_INET: ("192.0.2.1", 443), socket.AF_INET6: ("2001:db8::1", 443)}
FAMILIES = pytest.mark.parametrize("family", PLACES, ids=lambda family: family.name)


@pytest.fixture
def door() -> Iterator[Doorway]:
    """A doorway."""
    made = Doorway()
    yield made
    made.close()


def events(sock: socket.socket) -> int:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    found = poll.poll(20)
    return found[0][1] if found else 0


@FAMILIES
def test_a_held_socket_waits_until_it_is_let_in(door: Doorway, family: socket.AddressFamily) -> None:
    """It is neither writable nor in error while held, and connected the moment we say so; bytes flow both ways."""
    with socket.socket(family) as sock:
        sock.setblocking(False)
        number, ours = door.hold(sock, Endpoint.of(PLACES[family]))
        assert (0, 0) == (number, events(sock))
        assert ours is not None
        with ours:
            Doorway.open(sock, ours)
            assert select.POLLOUT == events(sock)
            assert 0 == sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            sock.sendall(b"out")
            ours.sendall(b"in")
            assert (b"out", b"in") == (ours.recv(10), sock.recv(10))


@FAMILIES
@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH])
def test_a_held_socket_can_be_told_that_it_failed(door: Doorway, family: socket.AddressFamily, number: int) -> None:
    """SO_ERROR says refused or reset, once; what no socket can be told becomes a refusal."""
    with socket.socket(family) as sock:
        sock.setblocking(False)
        _, ours = door.hold(sock, Endpoint.of(PLACES[family]))
        assert ours is not None
        ours.close()
        doorway.fail(sock, number)
        assert events(sock) & (select.POLLERR | select.POLLHUP)
        expected = number if number == errno.ECONNRESET else errno.ECONNREFUSED
        assert expected == sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert 0 == sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def test_a_blocking_socket_is_held_without_waiting_and_stays_blocking(door: Doorway) -> None:
    """Holding takes no time, the mode is what it was, and taking the connect back leaves no trace."""
    with socket.socket() as sock:
        began = time.monotonic()
        number, ours = door.hold(sock, Endpoint.of(PLACES[socket.AF_INET]))
        assert ours is not None
        ours.close()
        assert (0, True) == (number, sock.getblocking())
        doorway.take_back(sock)
        assert time.monotonic() - began < 1
        assert 0 == sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            sock.connect(listener.getsockname())


def test_a_socket_that_is_connected_already_is_told_so(door: Doorway) -> None:
    """Holding a connected socket changes nothing and says what connect would."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
        sock.connect(listener.getsockname())
        assert (errno.EISCONN, None) == door.hold(sock, Endpoint.of(PLACES[socket.AF_INET]))


def test_our_socket_takes_after_the_programs() -> None:
    """Its binding, keep-alive and type of service are the program's; the program's own stay as they were."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)
        sock.bind(("127.0.0.1", 0))
        raw = seccomp.address(Endpoint.of(listener.getsockname()), socket.AF_INET)
        number, ours = doorway.dial(sock, raw, name=sock.getsockname())
        assert ours is not None
        with ours:
            assert 0 == number
            assert sock.getsockname() == ours.getsockname()
            assert 77 == ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            assert 0x10 == ours.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)
            assert 0 == sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
