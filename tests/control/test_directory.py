"""The directory of connections by the ends of the program's socket."""

from __future__ import annotations

import socket

from attls.daemon.switchboard import MOST_WAITING, Directory
from attls.model import Endpoint


def end(port: int, host: str = "192.0.2.1") -> Endpoint:
    return Endpoint.of((host, port))


def test_a_connection_is_found_by_its_ends_until_it_is_struck() -> None:
    """Before and after somebody has asked, by both ends and no other ones; the last entry counts."""
    directory = Directory()
    directory.add(1, end(80), end(4000))
    directory.add(2, end(80), end(4000, "192.0.2.2"))
    assert [1, 2, None] == [
        directory.find(end(80), end(4000, host)) for host in ("192.0.2.1", "192.0.2.2", "192.0.2.3")
    ]
    directory.add(3, end(80), end(4001))
    directory.add(1, end(80), end(4002))
    for connid in (2, 3):
        directory.remove(connid)
        directory.remove(connid)
    assert [None, None, None, 1] == [
        directory.find(end(80), there) for there in (end(4000), end(4000, "192.0.2.2"), end(4001), end(4002))
    ]
    assert 1 == len(directory)


def test_a_socket_stands_for_the_end_that_it_is() -> None:
    """An entry with a socket is found by that socket's own name; one whose socket was closed is found by nothing."""
    directory = Directory()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = Endpoint.of(listener.getsockname())
        with socket.create_connection(listener.getsockname()) as sock, socket.socket() as gone:
            gone.close()
            directory.add(1, place, sock)
            directory.add(2, place, gone)
            assert 1 == directory.find(place, Endpoint.of(sock.getsockname()))
    directory.remove(2)
    assert 1 == len(directory)


def test_few_entries_wait() -> None:
    """However many connections nobody asks about, what waits to be entered stays small, and all are found."""
    directory = Directory()
    most = 0
    for connid in range(3 * MOST_WAITING):
        directory.add(connid, end(80), end(1024 + connid))
        most = max(most, len(directory._waiting))
    assert (MOST_WAITING, 3 * MOST_WAITING) == (most, len(directory))
    assert [0, 3 * MOST_WAITING - 1] == [
        directory.find(end(80), end(1024 + connid)) for connid in (0, 3 * MOST_WAITING - 1)
    ]
