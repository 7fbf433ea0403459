"""A connection goes to the worker of its primary, or stays where it is; nothing is lost and nothing kept twice."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from attls.daemon.handover import Handover
from attls.daemon.mailroom import Mailroom
from attls.model import Direction


def worker(room: Mailroom, number: int) -> Handover:
    inbox, *outlets = (socket.socket(fileno=os.dup(each)) for each in room.handover(number))
    return Handover(inbox, outlets)


def close(*handovers: Handover) -> None:
    for each in handovers:
        for sock in (each.inbox, *each._outlets):
            sock.close()


def test_a_connection_arrives_with_its_direction(tmp_path: Path) -> None:
    """Each worker takes what was given to it, in order, also what came before it was there."""
    room = Mailroom(tmp_path / "control.sock", 3)
    first = worker(room, 0)
    for direction in Direction:
        accepted, other = socket.socketpair()
        assert first.give(2, direction, accepted)
        assert -1 == accepted.fileno()
        other.sendall(direction.value.encode())
        other.close()
    successor = worker(room, 2)
    assert None is first.take()
    for direction in Direction:
        handed = successor.take()
        assert handed is not None
        found, sock = handed
        with sock:
            assert (direction, direction.value.encode()) == (found, sock.recv(100))
    assert None is successor.take()
    close(first, successor)
    room.close()


def test_a_full_inbox_leaves_the_connection_with_us(tmp_path: Path) -> None:
    """A worker that takes nothing makes others serve its connections themselves."""
    room = Mailroom(tmp_path / "control.sock", 2)
    first, second = worker(room, 0), worker(room, 1)
    given = 0
    while True:
        accepted, other = socket.socketpair()
        other.close()
        if not first.give(1, Direction.INBOUND, accepted):
            break
        given += 1
    assert accepted.fileno() >= 0
    accepted.close()
    while (handed := second.take()) is not None:
        handed[1].close()
        given -= 1
    assert 0 == given
    close(first, second)
    room.close()
