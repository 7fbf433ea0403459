"""A worker process: takes orders from the supervisor over an inherited socket, and runs one `Service`.

Started as `python -m attls.daemon.worker CHANNEL SUPERVISOR`: the descriptor of our end of the channel and the process
number of the supervisor. All other descriptors come over the channel (see nest). A worker never outlives its
supervisor, because nobody would then tell it about a new policy; the steering in the kernel stays, so that what it
served is refused, not passed.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

import trio

from attls.control.server import Desk
from attls.daemon.channel import (
    Channel,
    ChannelClosedError,
    Commit,
    Configure,
    Dismiss,
    Drain,
    Introduce,
    Known,
    Query,
    Report,
    RingReply,
    RollBack,
    Settle,
    worker_end,
)
from attls.daemon.handover import Handover
from attls.daemon.lookups import Lookups
from attls.daemon.nest import receive
from attls.daemon.portions import Assembly, Prepare
from attls.daemon.process import collect_rarely, die_with_parent, forbid_dumps
from attls.daemon.secondary import Primary
from attls.daemon.service import Service
from attls.daemon.street import adopt
from attls.daemon.switchboard import Switchboard
from attls.errors import KeyringError
from attls.intercept import MARKS, Owners
from attls.keyring import Keyring
from attls.observe import Ledger
from attls.observe.messages import configure_log
from attls.relay import BYTE_PATH, Reactor

# A worker that does not listen for so long does not accept anything either.
INTRODUCE_SECONDS = 5.0

_log = logging.getLogger("attls.worker")


class Worker:
    """The worker's side of the channel: carries out orders, asks for rings."""

    def __init__(self, channel: Channel, order: Configure) -> None:
        self._channel = channel
        self._requests = 0
        self._rings: dict[int, tuple[trio.Event, list[RingReply]]] = {}
        owners = Owners()
        self.service = Service(
            Ledger(order.worker, first=order.first),
            Reactor(),
            owners,
            listeners=adopt(order.listeners),
            ask_ring=self._ask_ring,
        )
        self.switchboard = Switchboard(self.service, owners)
        reactor = self.service.reactor
        self.lookups = Lookups(mark=MARKS.network, wake=reactor.give_way)
        reactor.start_inquiry = self.lookups.start
        self.service.keep_staples = self.lookups.keep
        self._unknown: dict[int, trio.Event] = {}
        self._assembly = Assembly()
        if order.handover and order.workers > 1:
            inbox, *outlets = (socket.socket(fileno=number) for number in order.handover)
            self.service.handover = Handover(inbox, outlets)
        if order.workers > 1:
            self.service.introduce = self._introduce
            self.service.dismiss = self._dismiss

    def desk(self, order: Configure) -> Desk:
        """Return our place at the control socket."""
        listener, inbox, neighbour = (socket.socket(fileno=number) for number in order.control)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return Desk(
            self.switchboard.handle,
            listener=listener,
            inbox=inbox,
            neighbour=neighbour,
            count=order.workers,
            clock=time.monotonic,
            most_clients=max(16, min(limit // 16, 8192)),
        )

    async def obey(self, stop: trio.CancelScope) -> None:
        """Carry out orders one after the other until the supervisor is gone or has us drain, then cancel `stop`."""
        service = self.service
        async with trio.open_nursery() as nursery:
            while True:
                order = await self._channel.receive()
                if isinstance(order, Prepare):
                    await self._prepare(order)
                elif isinstance(order, Commit):
                    service.commit(order.number)
                    service.open()
                    await self._say(kind="committed", number=order.number)
                elif isinstance(order, RollBack):
                    service.roll_back(order.number)
                elif isinstance(order, Settle):
                    service.settle()
                elif isinstance(order, RingReply):
                    self._ring_came(order)
                elif isinstance(order, Report):
                    nursery.start_soon(self._report, order)
                elif isinstance(order, Introduce):
                    for primary in order.primaries:
                        service.primaries.add(primary)
                    await self._say(kind="introduced", request=order.request)
                elif isinstance(order, Dismiss):
                    if order.connid is None:
                        service.primaries.forget(order.worker)
                    else:
                        service.primaries.remove(order.worker, order.connid)
                elif isinstance(order, Known):
                    known = self._unknown.pop(order.connid, None)
                    if known is not None:
                        known.set()
                elif isinstance(order, Query):
                    found = self.switchboard.query(order.local, order.remote)
                    await self._say(kind="query", request=order.request, connection=found)
                elif isinstance(order, Drain):
                    nursery.start_soon(self._drain, order.seconds, stop)

    async def _prepare(self, order: Prepare) -> None:
        if order.is_first:
            # What comes now lives until the next refresh: collections would walk it, for a tenth of a second in the
            # end, and find nothing. Only what is young by then is looked at once more, since freezing keeps it too.
            gc.collect(0)
            gc.disable()
        generation = self._assembly.add(order)
        if generation is None:
            await trio.lowlevel.checkpoint()  # connections have their turn between two portions
            return
        problems = await self.service.prepare(generation)
        gc.freeze()
        gc.enable()
        await self._say(kind="prepared", number=generation.number, problems=problems)

    async def _report(self, order: Report) -> None:
        report = await self.service.report(connections=order.connections, connid=order.connid, detail=order.detail)
        await self._say(kind="report", request=order.request, **report)

    async def _drain(self, seconds: float, stop: trio.CancelScope) -> None:
        self.service.stop_accepting()
        await self._say(kind="draining")
        await self.service.drain(seconds)
        stop.cancel()

    async def _introduce(self, primary: Primary) -> None:
        """Return when every worker knows `primary`."""
        known = self._unknown[primary.connid] = trio.Event()
        await self._say(
            kind="primary",
            connid=primary.connid,
            pid=primary.pid,
            local=str(primary.local),
            remote=str(primary.remote),
            rule=primary.rule,
            user=primary.user,
        )
        with trio.move_on_after(INTRODUCE_SECONDS):
            await known.wait()
        self._unknown.pop(primary.connid, None)

    async def _dismiss(self, connid: int) -> None:
        await self._say(kind="primary-gone", connid=connid)

    async def _ask_ring(self, generation: int, reference: str, user: str) -> Keyring:
        self._requests += 1
        request = self._requests
        came, replies = self._rings[request] = (trio.Event(), [])
        try:
            await self._say(kind="ring", request=request, generation=generation, reference=reference, user=user)
            await came.wait()
        finally:
            del self._rings[request]
        reply = replies[0]
        if reply.keyring is None:
            raise KeyringError(reply.problem, reply.code)
        return reply.keyring

    def _ring_came(self, reply: RingReply) -> None:
        waiting = self._rings.get(reply.request)
        if waiting is not None:
            came, replies = waiting
            replies.append(reply)
            came.set()

    async def _say(self, **message: Any) -> None:
        await self._channel.send(message)


async def serve(ours: socket.socket, descriptors: Mapping[int, int]) -> None:
    """Serve until the supervisor orders the end or is gone.

    `descriptors` has ours for each number that the supervisor's first order names.
    """
    channel = worker_end(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
    with contextlib.ExitStack() as stack:
        try:
            order = await channel.receive()
            assert isinstance(order, Configure)
            order = order.with_descriptors(descriptors)
            stack.callback(configure_log(journal=order.journal).close)
            if BYTE_PATH != "compiled":
                _log.info(
                    "worker %d moves bytes the slower way: byte path %s (docs/operations.md)", order.worker, BYTE_PATH
                )
            worker = Worker(channel, order)
            async with trio.open_nursery() as nursery:
                await nursery.start(worker.lookups.run)
                await nursery.start(worker.service.run)
                await nursery.start(worker.switchboard.run, worker.desk(order))
                await channel.send({"kind": "ready", "pid": os.getpid()})
                nursery.start_soon(worker.obey, nursery.cancel_scope)
        except* ChannelClosedError:
            # The supervisor is gone. Not one more byte is carried: ending resets every connection.
            os._exit(1)


def main() -> None:
    """Run the worker that the command line describes."""
    descriptor, supervisor = (int(argument) for argument in sys.argv[1:])
    os.umask(0o077)
    # Ctrl-C in a terminal reaches us as well; when to stop is the supervisor's word alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if not die_with_parent(supervisor):
        sys.exit(1)
    forbid_dumps()
    gc.freeze()  # what start-up has left behind lives as long as we do; collections need not walk it
    collect_rarely()
    ours = socket.socket(fileno=descriptor)
    try:
        descriptors = receive(ours)
    except EOFError:
        sys.exit(1)
    trio.run(serve, ours, descriptors)


if __name__ == "__main__":
    main()
