"""What comes in at a program's listeners under `attls exec`, and how it gets to the program.

Theory of operation. We accept before the program does. A connection that no rule covers is given to it as it is. Any
other goes to the reactor for its handshake, after which we *knock*: we connect to the program's listener ourselves.
What the program accepts next is the other end of that, a child of its own listener like any other, and its poll and
epoll have been told of it by the kernel. Knocks are known by their two addresses, which nobody else can have meanwhile.

A client need not wait for the program's accept, as it would not without us: from listen on we are told of arrivals by
an epoll set of our own. It watches without holding (a registration lives as long as the program's own listener does,
after our duplicate is closed), so that a listener is gone when its program closes it. To accept, we fetch a duplicate
anew. What we take off a listener there and then, and is not for us, is kept, and a knock brings the program to it.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from attls import errors
from attls.daemon.exec_books import Books, Truth
from attls.daemon.service import reset
from attls.errors import AttlsError
from attls.intercept import doorway, seccomp
from attls.intercept.reach import Programs, holders_of
from attls.intercept.unprivileged import NonBlocking, Watch, connect
from attls.intercept.unprivileged_owner import owner_of
from attls.model import Address, Direction, Endpoint, Flow, Owner, Verdict, canonical_address
from attls.relay import Reactor
from attls.relay.connection import Relay
from attls.tls import Environment

GRACE_SECONDS = 60.0  # how long the end of a knock is remembered that nobody has accepted
MOST_EARLY = 256  # handshakes in flight up to which we take more than the program asks for
_log = logging.getLogger("attls.exec")

Accepted = tuple[socket.socket, Truth | None]


class Arrival:
    """A connection that came in and is not with the program yet; told by the reactor how it goes."""

    __slots__ = ("_books", "_clock", "knocked", "over")

    def __init__(self, books: Books, clock: Callable[[], float]) -> None:
        self._books = books
        self._clock = clock
        self.knocked = False
        self.over: float | None = None

    def opened(self, relay: Relay) -> None:
        """Note it in the log: the program will find it at its listener."""
        self._books.say(relay.record)

    def ended(self, relay: Relay) -> None:
        """Remember when it was over, so that its knock is not taken for a stranger."""
        if not self.knocked:
            self._books.say(relay.record)
        self.over = self._clock()


@dataclass(slots=True)
class _Knock:
    """What the program gets for a knock: the accepted socket itself (`truth` says what it is), or `kept`."""

    listener: int
    truth: Truth | None
    arrival: Arrival | None = None
    kept: socket.socket | None = None
    ours: socket.socket | None = None


@dataclass(slots=True)
class _Watched:
    """A listener as it was when we saw it: whose, under which number, and its socket's inode."""

    cookie: int
    inode: int
    process: int
    number: int


class Listeners:
    """Everything between the network and the program's accept. `clock` returns monotonic seconds."""

    def __init__(self, books: Books, programs: Programs, reactor: Reactor, *, clock: Callable[[], float]) -> None:
        self._books = books
        self._programs = programs
        self._reactor = reactor
        self._clock = clock
        self._watch = Watch()
        self._watched: dict[int, _Watched] = {}
        self._tokens: dict[int, int] = {}
        self._next = 0
        self._knocks: dict[tuple[Endpoint, Endpoint], _Knock] = {}
        self._waiting: dict[int, int] = {}
        self._most_handshakes = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        reactor.watch_listener(self._watch, self._arrived)

    def close(self) -> None:
        """Watch no more; what is kept for programs is reset."""
        self._reactor.forget(self._watch.fileno())
        self._watch.close()
        for knock in self._knocks.values():
            self._discard(knock)
        self._knocks.clear()

    # Watching

    def watch(self, listener: socket.socket, process: int, number: int) -> None:
        """Learn of arrivals at `listener`, our duplicate of descriptor `number` of `process`; it may be closed after.

        Harmless for one that is watched already; does nothing for one that shares its port. Raises OSError.
        """
        if listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            return  # the kernel spreads knocks over such a group, so that they cannot be told by their listener
        cookie = doorway.cookie(listener)
        token = self._tokens.get(cookie)
        if token is None:
            self._next = self._next % 0x7FFFFFFF + 1
            token = self._tokens[cookie] = self._next
            self._watch.add(listener, token)
        self._watched[token] = _Watched(cookie, os.fstat(listener.fileno()).st_ino, process, number)

    def _arrived(self, _mask: int) -> None:
        for token in self._watch.poll():
            watched = self._watched.get(token)
            if watched is None:
                continue
            listener = self._fetch(watched)
            if listener is None:
                self._forget(token)
                continue
            with listener:
                try:
                    self._take_early(watched, listener)
                except OSError as error:
                    _log.warning("cannot accept for the program: %s", error.strerror)

    def _fetch(self, watched: _Watched) -> socket.socket | None:
        """Return a duplicate of a watched listener, from whoever has it now; None where nobody does."""
        known = (watched.process, watched.number)
        for process, number in chain((known,), holders_of(watched.inode, watched.process)):
            try:
                descriptor = self._programs.duplicate(process, number)
            except OSError:
                continue
            try:
                sock = socket.socket(fileno=descriptor)
            except OSError:
                os.close(descriptor)
                continue
            if doorway.cookie(sock) == watched.cookie:
                watched.process, watched.number = process, number
                return sock
            sock.close()
        return None

    def _forget(self, token: int) -> None:
        watched = self._watched.pop(token, None)
        if watched is not None:
            self._tokens.pop(watched.cookie, None)
            self._waiting.pop(watched.cookie, None)
        self._expire()

    def _take_early(self, watched: _Watched, listener: socket.socket) -> None:
        """Take strangers off the listener while nothing waits there for the program.

        Where something does, what comes behind it is left: the program will come, and `take` sees to the rest.
        """
        while not self._waiting.get(watched.cookie) and self._books.ledger.handshakes < MOST_EARLY:
            taken = self._accept(listener)
            if taken is None:
                return
            accepted, name = taken
            knock = self._knocks.pop(name, None)
            if knock is not None:
                self._answered(knock)
                found = self._open(knock, accepted)
            else:
                found = self._judge(watched.process, listener, accepted)
            if found is not None:
                self._keep(listener, watched.cookie, found)

    def _keep(self, listener: socket.socket, cookie: int, found: Accepted) -> None:
        """Keep a connection that is the program's, and knock to have it come for it."""
        sock, truth = found
        name = listener.getsockname()
        place = _reachable(Endpoint.of(name), Endpoint.of(sock.getsockname()))
        knock = _Knock(cookie, truth, kept=sock)
        try:
            knock.ours = self._knock(knock, place, _interface(name))
        except OSError:
            reset(sock)

    # Accepting

    def take(self, listener: socket.socket, process: int) -> Accepted | None:
        """Return the next connection for the program, which `process` accepts at `listener`; None where there is none.

        The truth is None for a connection that is what it seems. The socket is the caller's, who gives it to the
        program or calls `give_back`. Raises OSError with what the program's own accept would have failed with.
        """
        while True:
            taken = self._accept(listener)
            if taken is None:
                return None
            accepted, name = taken
            knock = self._knocks.pop(name, None)
            if knock is not None:
                self._answered(knock)
                found = self._open(knock, accepted)
            else:
                found = self._judge(process, listener, accepted)
            if found is not None:
                return found

    def give_back(self, listener: socket.socket, found: Accepted) -> None:
        """Keep a connection that the program could not take (it has no descriptors left) for its next accept."""
        self._keep(listener, doorway.cookie(listener), found)

    @staticmethod
    def _accept(listener: socket.socket) -> tuple[socket.socket, tuple[Endpoint, Endpoint]] | None:
        """Accept one connection; return it with its peer's and its own name, or None where there is none."""
        while True:
            try:
                with NonBlocking(listener):
                    descriptor, name = listener._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return None
            accepted = socket.socket(fileno=descriptor)
            return accepted, (Endpoint.of(name), Endpoint.of(accepted.getsockname()))

    def _open(self, knock: _Knock, accepted: socket.socket) -> Accepted | None:
        """Return what a knock stands for, None where that is over."""
        if knock.kept is not None:
            accepted.close()
            if knock.ours is not None:
                knock.ours.close()
            if knock.truth is not None:
                self._books.learn(doorway.cookie(knock.kept), knock.truth)
            return knock.kept, knock.truth
        assert knock.truth is not None
        if knock.arrival is not None and knock.arrival.over is not None:
            accepted.close()
            return None
        self._books.learn(doorway.cookie(accepted), knock.truth)
        return accepted, knock.truth

    def _answered(self, knock: _Knock) -> None:
        left = self._waiting.get(knock.listener, 0) - 1
        if left > 0:
            self._waiting[knock.listener] = left
        else:
            self._waiting.pop(knock.listener, None)

    # Strangers

    def _judge(self, process: int, listener: socket.socket, accepted: socket.socket) -> Accepted | None:
        """Return a connection that is left alone; one that policy covers goes to the reactor, and None comes back."""
        try:
            flow = Flow(Direction.INBOUND, Endpoint.of(accepted.getsockname()), Endpoint.of(accepted.getpeername()))
            law = self._books.law
            owner = owner_of(process, listener, complete=law.wants_job(flow))
            owner, verdict = self._books.judge(flow, owner)
            if not verdict.enabled:
                self._books.say_clear(flow, owner, verdict)
                return accepted, None
            if owner.job is None:
                owner = replace(owner_of(process, listener, complete=True), user=owner.user)
        except OSError:  # its peer has gone already, or the program has
            reset(accepted)
            return None
        self._protect(listener, accepted, flow, owner, verdict)
        return None

    def _protect(
        self, listener: socket.socket, accepted: socket.socket, flow: Flow, owner: Owner, verdict: Verdict
    ) -> None:
        books, settings = self._books, verdict.settings
        assert settings is not None
        problem, environment = None, None
        try:
            if books.ledger.handshakes >= self._most_handshakes:
                problem = errors.OVERLOAD, ""
            elif not doorway.shares_our_network(listener):
                problem = errors.UNREACHABLE, "the listener is in another network namespace"
            elif not settings.application_controlled:
                environment = books.law.environment_of(verdict, owner.user)
        except AttlsError as error:
            problem = errors.ENVIRONMENT, str(error)
        if problem is not None:
            reset(accepted)
            books.turn_away(flow, owner, verdict, *problem)
            return
        self._carry(listener, accepted, flow, owner, verdict, environment=environment)

    def _carry(
        self,
        listener: socket.socket,
        accepted: socket.socket,
        flow: Flow,
        owner: Owner,
        verdict: Verdict,
        *,
        environment: Environment | None,
    ) -> None:
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        record = self._books.open(flow, owner, verdict)
        arrival = Arrival(self._books, self._clock)
        name = listener.getsockname()
        truth = Truth(flow.local, flow.remote, record, _interface(accepted.getpeername()))
        knock = _Knock(doorway.cookie(listener), truth, arrival)
        place = _reachable(Endpoint.of(name), flow.local)
        self._reactor.carry(
            accepted,
            record,
            dial=partial(self._knock, knock, place, _interface(name)),
            environment=environment,
            controlled=environment is None,
            gate=arrival,
        )

    def _knock(self, knock: _Knock, place: Endpoint, interface: int) -> socket.socket:
        """Connect to the program's listener, so that it accepts; return our end. Raises OSError."""
        self._expire()
        family = socket.AF_INET if place.address.version == 4 else socket.AF_INET6
        ours = socket.socket(family, socket.SOCK_STREAM)
        try:
            ours.setblocking(False)
            ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = connect(ours, seccomp.address(place, family, interface=interface))
            if number not in (0, errno.EINPROGRESS):
                raise OSError(number, os.strerror(number))
            self._knocks[Endpoint.of(ours.getsockname()), place] = knock
        except OSError:
            ours.close()
            raise
        self._waiting[knock.listener] = self._waiting.get(knock.listener, 0) + 1
        if knock.arrival is not None:
            knock.arrival.knocked = True
        return ours

    def _expire(self) -> None:
        """Forget knocks that will never be answered; a few each time, oldest first, are enough."""
        old = self._clock() - GRACE_SECONDS
        for name, knock in list(self._knocks.items())[:16]:
            if knock.arrival is not None:
                is_old = knock.arrival.over is not None and knock.arrival.over < old
            else:
                is_old = knock.ours is None or _is_dead(knock.ours)
            if is_old:
                del self._knocks[name]
                self._answered(knock)
                self._discard(knock)

    @staticmethod
    def _discard(knock: _Knock) -> None:
        if knock.kept is not None:
            reset(knock.kept)
        if knock.ours is not None:
            knock.ours.close()


def _is_dead(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


def loopback(place: Endpoint) -> Address:
    """Return this host's own address in the family of `place`."""
    return canonical_address("127.0.0.1" if place.address.version == 4 else "::1")


def _reachable(listener: Endpoint, reached: Endpoint) -> Endpoint:
    """Return where we can connect to a listener; `reached` is where its client came in."""
    return listener if not listener.address.is_unspecified else Endpoint(loopback(reached), listener.port)


def _interface(name: tuple[Any, ...]) -> int:
    """Return the interface that a socket name of IPv6 may carry, 0 where it does not."""
    return int(name[3]) if len(name) > 3 else 0
