"""Workers that are started before they are needed: they get their descriptors later, and none is left behind."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from attls.daemon.channel import Configure
from attls.daemon.nest import Nest, give, receive
from attls.daemon.process import children


def test_descriptors_are_found_by_the_numbers_they_had(tmp_path: Path) -> None:
    """An order that names descriptors of the supervisor names, once translated, copies of the same files."""
    paths = [tmp_path / name for name in "abc"]
    theirs = [os.open(path, os.O_CREAT | os.O_RDWR) for path in paths]
    above, below = socket.socketpair()
    with above, below:
        order = Configure(0, 1, (theirs[2], -1, theirs[0]), False, control=(theirs[1],), handover=(theirs[0],))
        give(above, order.descriptors())
        above.sendall(b"the first order")
        own = order.with_descriptors(receive(below))
        assert b"the first order" == below.recv(100)
    named = [own.listeners[0], own.listeners[2], *own.control, *own.handover]
    assert [paths[index].stat().st_ino for index in (2, 0, 1, 0)] == [os.fstat(number).st_ino for number in named]
    assert -1 == own.listeners[1]
    for number in {*named, *theirs}:
        os.close(number)


def test_a_supervisor_that_has_ended_gives_nothing() -> None:
    """Whoever waits for descriptors learns that none will come."""
    above, below = socket.socketpair()
    above.close()
    with below, pytest.raises(EOFError):
        receive(below)


def test_who_is_not_taken_is_ended() -> None:
    """Leaving the nest ends the workers in it, and not the one that was taken; one more can be had at any time."""
    before = set(children())
    with Nest(2) as nest:
        taken = nest.take()
        (left,) = set(children()) - before - {taken.child.pid}
    assert left not in children()
    more = nest.take()
    for each in (taken, more):
        assert each.child.poll() is None
        each.ours.close()
        assert 1 == each.child.wait(timeout=30)  # it has read the end of its channel
