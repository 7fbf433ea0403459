"""Who is being served comes before who is new, and nobody waits for ever."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable

import trio

from attls.relay import Reactor


async def until_handled(reactor: Reactor, seen: list[str], count: int) -> None:
    """Run the reactor until `count` events were handled."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run)
            while len(seen) < count:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


async def test_others_come_between_two_newcomers() -> None:
    """When the time of newcomers is up after each of them, whoever else has something is served before the next."""
    tick = itertools.count()
    reactor = Reactor(clock=lambda: float(next(tick)))
    pairs = [socket.socketpair() for _ in range(4)]
    seen: list[str] = []

    def handler(name: str, ours: socket.socket, then: Callable[[], object]) -> Callable[[int], None]:
        def handle(_mask: int) -> None:
            ours.recv(100)
            seen.append(name)
            then()

        return handle

    try:
        for ours, theirs in pairs:
            ours.setblocking(False)
            theirs.send(b"x")
        old, old_peer = pairs[0]
        for number, (ours, _) in enumerate(pairs[1:]):
            new = handler(f"new {number}", ours, lambda: old_peer.send(b"x"))
            reactor.watch(ours, new, is_new=True)
        reactor.watch(old, handler("old", old, lambda: None))
        await until_handled(reactor, seen, 7)
        assert ["old", "new 0", "old", "new 1", "old", "new 2", "old"] == seen
    finally:
        for sock in itertools.chain(*pairs):
            sock.close()


async def test_what_was_forgotten_while_it_waited_is_not_called() -> None:
    """A newcomer whose socket another one closes meanwhile gets no event any more."""
    tick = itertools.count()
    reactor = Reactor(clock=lambda: float(next(tick)))
    pairs = [socket.socketpair() for _ in range(3)]
    seen: list[str] = []

    def first(_mask: int) -> None:
        seen.append("first")
        reactor.forget(pairs[1][0].fileno())
        pairs[1][0].close()

    try:
        for (ours, theirs), handle in zip(
            pairs, (first, lambda _: seen.append("second"), lambda _: seen.append("third")), strict=True
        ):
            ours.setblocking(False)
            theirs.send(b"x")
            reactor.watch(ours, handle, is_new=True)
        await until_handled(reactor, seen, 2)
        assert ["first", "third"] == seen
    finally:
        for sock in itertools.chain(*pairs):
            sock.close()
