"""The street before the house: what supervisor and worker need of interception, over the doors of `attls.intercept`.

The supervisor's half, `HostStreet`, opens listeners and steers; the worker's half, `Listener`, takes connections and
dials on. Tests put a street of their own in their place.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import operator
import os
import socket
import struct
from collections.abc import Callable, Sequence

import trio

from attls.errors import InterceptError
from attls.intercept import (
    Intercepted,
    Listeners,
    Routes,
    WorkerListeners,
    dial_inbound,
    dial_outbound,
    local_uids,
    nft,
    open_listeners,
)
from attls.intercept import intercepted as intercepted_at
from attls.model import Direction, Flow
from attls.policy import Rule

CLAIM = "\0attls-steering"
CLAIM_BACKLOG = 1024
CREDENTIALS = struct.Struct("3i")

_log = logging.getLogger("attls.daemon")


class HostStreet:
    """Steering of this host (or of the network namespace we run in).

    Every method may block and raises InterceptError; a method that fails has changed nothing.
    """

    def __init__(self) -> None:
        self._routes = Routes()
        self._listeners: Listeners | None = None
        self._claim: socket.socket | None = None
        self._checked: tuple[Sequence[Rule], str] | None = None  # the last rules that were checked, and their table

    def open(self, workers: int) -> Sequence[tuple[int, ...]]:
        """Open the listeners of all workers; return the descriptors of each worker's, to be inherited by it."""
        self._claim = claim_network()
        self._listeners = open_listeners(workers)
        return [worker.numbers() for worker in self._listeners.workers]

    def check(self, rules: Sequence[Rule]) -> None:
        """Have `nft` check the steering that `rules` need, without applying it."""
        table = self._table(rules)
        nft.check(table)
        self._checked = (rules, table)
        self._routes.get_ready()

    def steer(self, rules: Sequence[Rule]) -> None:
        """Steer what `rules` could match, and nothing else, in one transaction."""
        self._routes.install()
        nft.apply(self._just_checked(rules) or self._table(rules))

    def stop_steering(self) -> None:
        """Steer no new connection; those that are carried go on."""
        nft.apply(self._table(()))

    def close(self) -> None:
        """Close the listeners; what is still steered to them is refused from then on."""
        if self._listeners is not None:
            self._listeners.close()
            self._listeners = None

    def release(self) -> None:
        """Take away all we put on the host; every step is tried, then the first failure is raised."""
        failures = []
        for step in (nft.remove, self._routes.remove):
            try:
                step()
            except InterceptError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def keep_claim(self) -> None:
        """Answer whoever asks who steers this network (the connection itself is the answer), until cancelled."""
        claim = self._claim
        while claim is not None:
            await trio.lowlevel.wait_readable(claim)
            with contextlib.suppress(OSError):
                claim.accept()[0].close()
            await trio.sleep(0.01)

    def leave(self) -> None:
        """Let another daemon have this network."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _just_checked(self, rules: Sequence[Rule]) -> str | None:
        """Return the table of these very rules as it was checked; once only, for later its users may be others."""
        checked, self._checked = self._checked, None
        if checked is None or len(checked[0]) != len(rules) or not all(map(operator.is_, checked[0], rules)):
            return None
        return checked[1]

    def _table(self, rules: Sequence[Rule]) -> str:
        listeners = self._listeners
        return nft.render(
            rules,
            # With the listeners closed any two ports do: the table then only says what is refused.
            outbound_port=listeners.outbound_port if listeners is not None else 1011,
            inbound_port=listeners.inbound_port if listeners is not None else 1012,
            own_uid=os.geteuid(),
            uids_of=functools.cache(local_uids),
            secondary=_is_followed,
        )


def claim_network() -> socket.socket | None:
    """Claim this network namespace for one daemon; the claim ends when the returned socket is closed, or with us.

    There is one steering table in a network namespace. Two daemons with different run directories would take it from
    each other and leave the connections of one unprotected. Names of abstract sockets belong to the network namespace,
    so one of them serves as the lock. Raises InterceptError when another daemon holds it. Somebody else's program that
    sits on the name gets no say: then there is no claim, and None is returned.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        claim.setblocking(False)
        claim.bind(CLAIM)
        claim.listen(CLAIM_BACKLOG)
    except OSError:
        claim.close()
    else:
        return claim
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as other:
        other.setblocking(False)
        try:
            other.connect(CLAIM)
            pid, uid, _ = CREDENTIALS.unpack(other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
        except OSError as error:
            _log.warning(
                "somebody sits on the name %s and does not answer (%s); it is ignored", CLAIM[1:], error.strerror
            )
            return None
    if uid not in (0, os.geteuid()):
        _log.warning("process %d of user id %d sits on the name %s; it is ignored", pid, uid, CLAIM[1:])
        return None
    raise InterceptError(
        f"another attls daemon (process {pid}) steers this network already; stop it first, or run this one in a "
        "network namespace of its own"
    )


def _is_followed(rule: nft.SteeringRule) -> bool:
    return isinstance(rule, Rule) and rule.verdict.settings is not None and rule.verdict.settings.secondary_map


class Listener:
    """One of a worker's listening sockets; `own_ports` are those that nobody should connect to directly."""

    def __init__(self, sock: socket.socket, direction: Direction, own_ports: Sequence[int]) -> None:
        self.sock = sock
        self.direction = direction
        self._own_ports = own_ports
        self._dial: Callable[[Flow], socket.socket] = dial_outbound if direction is Direction.OUTBOUND else dial_inbound

    def intercepted(self, accepted: socket.socket) -> Flow:
        """Tell which flow `accepted` is; raises InterceptError for one made to attls itself, OSError if it is gone."""
        found = intercepted_at(accepted, self.direction, self._own_ports)
        if not isinstance(found, Intercepted):
            raise InterceptError(found.text)
        return found.flow

    def dial(self, flow: Flow) -> socket.socket:
        """Start the connection to the flow's other end; returns its socket, connecting, or raises OSError."""
        return self._dial(flow)


def adopt(numbers: Sequence[int]) -> list[Listener]:
    """Take over a worker's inherited descriptors, as `HostStreet.open` described them."""
    worker = WorkerListeners.of_numbers(numbers)
    by_direction = {Direction.OUTBOUND: worker.outbound, Direction.INBOUND: worker.inbound}
    own_ports = [sockets[0].getsockname()[1] for sockets in by_direction.values()]
    return [Listener(sock, direction, own_ports) for direction, sockets in by_direction.items() for sock in sockets]
