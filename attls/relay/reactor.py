"""The reactor: one edge-triggered epoll set that drives every relayed connection of a worker, inside one trio task.

Theory of operation. A trio task per connection would cost a scheduler round for every chunk of data. Instead all relay
sockets sit in one `epoll`, registered once and edge-triggered; its own descriptor is readable whenever one of them has
something to do (epoll descriptors nest), and a single task waits for that. It then drains events in a plain loop.
A round through trio's scheduler costs as much as a small request, so when nothing is left to do the reactor first waits
a moment in the kernel itself: on a busy worker the next event is there before the moment is over. Control goes back to
trio after a bounded time, and at once when another task that was woken asks for it (`give_way`), so that control
requests are not starved.

Three rules follow from edge triggering, and break silently when forgotten:
- who stops reading although more may be there (back-pressure, budget) must read again later without being told;
- a short read means that the socket is drained, unless the event also said that the peer has closed;
- an event may be about a descriptor that was closed and reused in the same batch, so a handler must survive being
  called for nothing.

Who is being served comes before who is new. A step of a handshake takes as long as dozens of small requests, and a
crowd that connects at once would keep everybody waiting for all of its handshakes. So events of newcomers (listeners,
dialling, handshakes) wait until those of the others are handled, and then a bounded time of each round is theirs.

A connection whose budget is used up goes on the list of hungry ones; the list is only ever filled while the reactor
runs, and the reactor does not sleep while somebody is on it.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Protocol

import trio

from attls import errors
from attls.errors import Reason
from attls.model import Direction
from attls.observe import Record
from attls.relay.clear import ClearRelay
from attls.relay.connection import Gate, Relay
from attls.relay.controlled import Controlled
from attls.relay.renewing import RenewingRelay
from attls.relay.secure import SecureRelay
from attls.tls import Environment, Inquiry

log = logging.getLogger(__name__)

EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_BATCH = 512  # events taken from the kernel at once
_URGENT = 0.0005  # seconds of work at most, but for one event, before urgent requests get a look
_TURN = 0.02  # seconds of work before other trio tasks get their turn, if none of them asks for it earlier
_NEWCOMERS = 0.002  # seconds of each round for newcomers: at full load that leaves them about half of the time
_LINGER = 0.001  # seconds to wait in the kernel for the next event before going to sleep in trio
_TICK = 0.25  # seconds between looks at the deadlines, while there are any


StartInquiry = Callable[[Inquiry, Callable[[Reason | None, str], None]], None]


class Descriptor(Protocol):
    """Anything that epoll can watch."""

    def fileno(self) -> int:
        """Return the descriptor's number."""


class Reactor:
    """All relayed connections of one worker.

    `clock` returns monotonic seconds. Not thread-safe: everything happens in the thread that runs `run`.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.connections: dict[int, Relay] = {}
        self.controls: dict[int, Controlled] = {}
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.hungry: list[Callable[[], None]] = []
        self.newcomers: set[int] = set()  # descriptors whose events take long and may wait for those of others
        self._waiting: dict[int, int] = {}  # newcomers that have an event, longest waiting first, and its mask
        # Carries out inquiries about revocation; whoever runs us sets it where a policy may ask.
        self.start_inquiry: StartInquiry | None = None
        self._epoll = select.epoll()
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.handlers[self._alarm] = _no_handler
        self._epoll.register(self._alarm, select.EPOLLIN | select.EPOLLET)
        self._deadlines: dict[float, dict[Relay, float]] = {}
        self._has_deadlines = trio.Event()
        self._others_wait = False
        self._urgent: Callable[[], None] | None = None

    def carry(
        self,
        accepted: socket.socket,
        record: Record,
        *,
        dial: Callable[[], socket.socket],
        environment: Environment | None,
        controlled: bool = False,
        gate: Gate | None = None,
    ) -> Relay:
        """Take over a connection until it ends; closes `accepted` and closes `record`, exactly once, whatever happens.

        `record.flow` says which end `accepted` is: the program's (outbound) or the network's (inbound). `dial` starts
        the connection to the other end and returns its socket, or raises OSError. Without `environment` bytes are
        relayed in clear; a `controlled` connection's program may ask for TLS later (`controls` finds it then).
        `gate` is told when the connection stands and when it is over.
        """
        if controlled:
            control = self.controls[record.connid] = Controlled(self, record, dial)
            relay: Relay = control.phase
        elif environment is None:
            relay = ClearRelay(self, record, dial)
        else:
            kind = RenewingRelay if environment.settings.reset_cipher_timer else SecureRelay
            relay = kind(self, record, dial, environment)
        relay.gate = gate
        self.connections[record.connid] = relay
        if record.flow.direction is Direction.OUTBOUND:
            relay.app = accepted
        else:
            relay.net = accepted
        self.guard(relay, relay.start)
        return relay

    def watch(self, sock: socket.socket, handler: Callable[[int], None], *, is_new: bool = False) -> None:
        """Call `handler(mask)` whenever `sock` becomes readable, writable or broken, until it is closed.

        Others come first while it `is_new`, until it is taken out of `newcomers`.
        """
        descriptor = sock.fileno()
        self.handlers[descriptor] = handler
        if is_new:
            self.newcomers.add(descriptor)
        else:
            self.newcomers.discard(descriptor)
        self._epoll.register(descriptor, EVENTS)

    def watch_urgent(self, descriptor: int, handler: Callable[[], None]) -> None:
        """Call `handler()` when `descriptor` (an epoll set) is readable, and every now and then while there is work.

        For small requests that must not queue behind all the traffic. The handler looks by itself whether there is
        anything to do.
        """
        self._urgent = handler
        self.handlers[descriptor] = _no_handler  # what there is to do is done behind every batch, or earlier
        self._epoll.register(descriptor, select.EPOLLIN)

    def unwatch_urgent(self, descriptor: int) -> None:
        """Call the handler of `watch_urgent` no more."""
        self._urgent = None
        if not self._epoll.closed:
            self.unwatch(descriptor)

    def watch_listener(self, listener: Descriptor, handler: Callable[[int], None]) -> None:
        """Call `handler(mask)` as long as there is something to take from `listener` (level-triggered)."""
        self.handlers[listener.fileno()] = handler
        self.newcomers.add(listener.fileno())
        self._epoll.register(listener.fileno(), select.EPOLLIN)

    def give_way(self) -> None:
        """Let other trio tasks have their turn as soon as what is being handled now is done."""
        self._others_wait = True

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor that stays open; closing one needs only `forget`."""
        if descriptor in self.handlers:
            self.forget(descriptor)
            self._epoll.unregister(descriptor)

    def forget(self, descriptor: int) -> None:
        """Drop the handler of a descriptor that is about to be closed (the kernel drops its registration)."""
        self.handlers.pop(descriptor, None)
        self.newcomers.discard(descriptor)
        self._waiting.pop(descriptor, None)

    def arm(self, relay: Relay, seconds: float) -> None:
        """Set the relay's only deadline: `relay.expired` is called when it passes. Arming again replaces it.

        Few different durations are in use, so each has a queue in which every new deadline belongs at the end.
        """
        queue = relay.deadlines
        if queue is not None:
            del queue[relay]
        queue = self._deadlines.get(seconds)
        if queue is None:
            queue = self._deadlines[seconds] = {}
        queue[relay] = self.clock() + seconds
        relay.deadlines = queue
        if not self._has_deadlines.is_set():
            self._has_deadlines.set()

    def disarm(self, relay: Relay) -> None:
        """Take the relay's deadline back, if it has one."""
        if relay.deadlines is not None:
            del relay.deadlines[relay]
            relay.deadlines = None

    def inquire(self, relay: Relay, inquiry: Inquiry, done: Callable[[Reason | None, str], None]) -> None:
        """Have `inquiry` carried out elsewhere and call `done`, on this thread, with what has come of it."""
        start = self.start_inquiry
        if start is None:
            done(errors.INTERNAL, "nobody here can ask about revocation")
            return

        def answered(reason: Reason | None, detail: str) -> None:
            self.guard(relay, lambda: done(reason, detail))
            self._wake_for_hungry()

        start(inquiry, answered)

    def _wake_for_hungry(self) -> None:
        """See to those who have become hungry outside of a drain: we may be asleep, and nothing else would wake us."""
        if self.hungry:
            os.eventfd_write(self._alarm, 1)

    def abort_all(self, reason: Reason) -> None:
        """Reset every connection, giving `reason`."""
        for relay in list(self.connections.values()):
            relay.abort(reason)

    async def run(self) -> None:
        """Serve until cancelled; then reset what is left, so that nothing is closed as if it had ended in order."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_deadlines)
                while True:
                    if self.hungry or self._waiting:
                        await trio.lowlevel.checkpoint()
                    else:
                        await trio.lowlevel.wait_readable(self._epoll.fileno())
                    self._drain()
        finally:
            self.abort_all(errors.STOPPED)
            self._epoll.close()
            os.close(self._alarm)

    def _drain(self) -> None:
        """Handle what is ready, and what becomes ready meanwhile, until it is quiet or others must have their turn."""
        poll = self._epoll.poll
        handlers = self.handlers
        newcomers, waiting = self.newcomers, self._waiting
        end = self.clock() + _TURN
        patience = 0.0
        self._others_wait = False
        while True:
            events = poll(patience, _BATCH)
            if not events and not self.hungry and not waiting:
                if patience:
                    return
                patience = _LINGER
                continue
            patience = 0.0
            look = self.clock() + _URGENT
            for descriptor, mask in events:
                if descriptor in newcomers:
                    waiting[descriptor] = waiting.get(descriptor, 0) | mask
                    continue
                handler = handlers.get(descriptor)
                if handler is not None:
                    try:
                        handler(mask)
                    except Exception:  # noqa: BLE001 - a bug of ours ends this one connection, never the worker
                        self._internal_error(handler)
                if self._urgent is not None and self.clock() > look:
                    self._serve_urgent(self._urgent)
                    look = self.clock() + _URGENT
            if self._urgent is not None:
                self._serve_urgent(self._urgent)
            if self.hungry:
                self._feed_hungry()
            if waiting:
                self._serve_newcomers()
            if self._others_wait or self.clock() > end:
                return

    def _serve_newcomers(self) -> None:
        """Handle what newcomers wait for, one at least, while their time lasts."""
        waiting = self._waiting
        until = self.clock() + _NEWCOMERS
        while waiting:
            descriptor = next(iter(waiting))
            mask = waiting.pop(descriptor)
            handler = self.handlers.get(descriptor)
            if handler is not None:
                try:
                    handler(mask)
                except Exception:  # noqa: BLE001 - as in _drain
                    self._internal_error(handler)
            if self._urgent is not None:  # one of these takes as long as many events
                self._serve_urgent(self._urgent)
            if self.clock() > until:
                return

    def _serve_urgent(self, handler: Callable[[], None]) -> None:
        try:
            handler()
        except Exception:  # noqa: BLE001 - as in _drain
            self._internal_error(handler)

    def _feed_hungry(self) -> None:
        hungry, self.hungry = self.hungry, []
        for resume in hungry:
            try:
                resume()
            except Exception:  # noqa: BLE001 - as in _drain
                self._internal_error(resume)
            if self._urgent is not None:  # one of these takes as long as many events
                self._serve_urgent(self._urgent)

    def guard(self, relay: Relay, action: Callable[[], None]) -> None:
        """Run one action of a relay; an unexpected error ends that connection only."""
        try:
            action()
        except Exception:  # as in _drain
            log.exception("attls: internal error in connection %08X", relay.record.connid)
            relay.abort(errors.INTERNAL)

    def _internal_error(self, method: Callable[..., None]) -> None:
        relay = getattr(method, "__self__", None)
        if isinstance(relay, Relay):
            log.exception("attls: internal error in connection %08X", relay.record.connid)
            relay.abort(errors.INTERNAL)
        else:
            log.exception("attls: internal error in an accept handler")

    async def _watch_deadlines(self) -> None:
        while True:
            if not any(self._deadlines.values()):
                self._has_deadlines = trio.Event()
                await self._has_deadlines.wait()
            await trio.sleep(_TICK)
            self.expire(self.clock())

    def expire(self, now: float) -> None:
        """Call `expired` on every relay whose deadline lies at or before `now`."""
        for queue in list(self._deadlines.values()):
            while queue:
                relay = next(iter(queue))
                if queue[relay] > now:
                    break
                self.disarm(relay)
                self.guard(relay, relay.expired)
        self._wake_for_hungry()


def _no_handler(_mask: int) -> None:
    return
