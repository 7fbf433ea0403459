"""The held system calls of one program under `attls exec`: what each is answered with, and when.

Theory of operation. `Calls.take` handles one held call, and never waits: a call that cannot be answered at once becomes
a `Held` with a duplicate of the socket in the reactor's epoll set, so a slow connect holds up nobody else.

connect: policy decides. Not covered: the kernel's own connect, made by us on the duplicate. Covered: the program's
socket is put in SYN_SENT at our doorway, the reactor carries a connection to the real destination, and when its TLS is
done the two are joined (`attls.intercept.doorway`). A blocking call is answered then; a non-blocking one was answered
EINPROGRESS at once, and its socket becomes writable then.

listen and accept: see `attls.daemon.exec_listeners`.

getpeername, getsockname and the address accept fills in come from the books, by socket cookie; all other sockets
get the kernel's own answer.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from attls import errors
from attls.daemon.exec_books import Books, Report, Truth
from attls.daemon.exec_control import Petition
from attls.daemon.exec_law import Law
from attls.daemon.exec_listeners import Listeners, loopback
from attls.errors import AttlsError
from attls.intercept import doorway, seccomp
from attls.intercept.doorway import Doorway
from attls.intercept.reach import Programs, has_signal, process_of
from attls.intercept.seccomp import Architecture, Call, Notification
from attls.intercept.unprivileged import (
    NonBlocking,
    Notifications,
    connect,
    connect_at_once,
    is_multipath,
    is_tcp,
    listen,
)
from attls.intercept.unprivileged_owner import command_of, owner_of
from attls.model import Direction, Endpoint, Flow, Owner, Verdict, canonical_address
from attls.observe import Ledger
from attls.relay import Reactor
from attls.relay.connection import Relay
from attls.tls import Environment

ERESTARTSYS = 512  # the kernel's own word for "a signal came": restarts the call, or EINTR, as the handler was set up
_LONGEST_ADDRESS = 128  # sizeof(struct sockaddr_storage)
_LOOK_SECONDS = 0.1  # how often held calls are looked at: has the program been killed, does a signal wait?
_DECIDED = select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP
_UNDER_WAY = (errno.EINPROGRESS, errno.EALREADY)
_MOST_FAILURES = 1024
_MOST_NAMES = 4096
_NOWHERE = {host: Endpoint(canonical_address(host), 0) for host in ("0.0.0.0", "::")}  # noqa: S104 - nobody binds it
_MOST_PLACES = 4096

_log = logging.getLogger("attls.exec")


class Held:
    """A call that waits for `sock`, our duplicate of the program's socket; everything is closed by `let_go`."""

    __slots__ = ("deadline", "late", "notification", "petition", "sock", "taken")

    def __init__(
        self, notification: Notification, sock: socket.socket | None, *, wait: float, late: int, now: float
    ) -> None:
        self.notification = notification
        self.sock = sock
        self.petition: Petition | None = None
        self.taken = now
        self.deadline = now + wait if wait else None
        self.late = late  # the errno when the socket's own timeout passes


class Attempt:
    """A connect under TLS, from the first packet until the program's socket stands or fails."""

    __slots__ = ("_calls", "blocking", "cookie", "ours", "sock", "standing")

    def __init__(self, calls: Calls, cookie: int, sock: socket.socket, ours: socket.socket, *, blocking: bool) -> None:
        self._calls = calls
        self.cookie = cookie
        self.sock = sock
        self.ours = ours
        self.blocking = blocking
        self.standing = False

    def opened(self, relay: Relay) -> None:
        """Join our end with the program's socket, which becomes writable now."""
        if not self.standing:
            Doorway.open(self.sock, self.ours)
            self.standing = True
            self._calls.finish(self, 0)
        self._calls.books.say(relay.record)

    def ended(self, relay: Relay) -> None:
        """Tell the program if it is still waiting; a connection that stood has told it by itself."""
        if self.standing:
            return
        reason = relay.record.reason
        number = (relay.error or errno.ETIMEDOUT) if reason == errors.UNREACHABLE else errno.ECONNRESET
        self._calls.finish(self, number)
        self._calls.books.say(relay.record)


class Calls:
    """Answers what `notifications` brings. `report` gets a line for people about each connection.

    `clock` returns monotonic seconds. Everything happens in the thread that runs the reactor.
    """

    def __init__(
        self,
        machine: Architecture,
        notifications: Notifications,
        law: Law,
        *,
        ledger: Ledger,
        reactor: Reactor,
        report: Report | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.programs = Programs(machine)
        self.clock = clock
        self.deserted = trio.Event()
        self._machine = machine
        self._notifications = notifications
        self.books = Books(law, ledger, reactor, report)
        self._reactor = reactor
        self._doorway = Doorway()
        self._attempts: dict[int, Attempt] = {}
        self._held: dict[int, Held] = {}
        self._failures: OrderedDict[int, int] = OrderedDict()
        self._names: OrderedDict[int, tuple[Any, ...]] = OrderedDict()
        self._free: dict[bytes, bool] = {}  # by sockaddr: whether no rule can protect what goes there
        self._listeners = Listeners(self.books, self.programs, reactor, clock=clock)
        self._wakeup = trio.Event()
        handlers: dict[Call, Callable[[Notification], None]] = {
            Call.CONNECT: self._connect,
            Call.LISTEN: self._listen,
            Call.ACCEPT: partial(self._accept, flags=False),
            Call.ACCEPT4: partial(self._accept, flags=True),
            Call.GETPEERNAME: partial(self._name, peer=True),
            Call.GETSOCKNAME: partial(self._name, peer=False),
            Call.GETSOCKOPT: self._error,
            Call.IOCTL: self._control,
        }
        self._handlers = {machine.calls[call]: handler for call, handler in handlers.items()}

    async def run(self) -> None:
        """Answer calls until cancelled; then every call that is held, or made later, fails."""
        try:
            async with trio.open_nursery() as nursery:
                # First the board, whose nursery the very first call may need; then the calls.
                await nursery.start(self.books.board.stand_by)
                self._reactor.watch_listener(self._notifications, self.take)
                while True:
                    await self._wakeup.wait()
                    await trio.sleep(_LOOK_SECONDS)
                    self._look(self.clock())
                    if not self._held:
                        self._wakeup = trio.Event()
        finally:
            for held in list(self._held.values()):
                self._let_go(held)
            self._reactor.forget(self._notifications.fileno())
            self._notifications.close()
            self._listeners.close()
            self._doorway.close()
            self.programs.close()

    def take(self, mask: int) -> None:
        """Handle one held call, or learn that no process is left that could make one."""
        if not mask & select.EPOLLIN:
            self._reactor.unwatch(self._notifications.fileno())
            self.deserted.set()
            return
        notification = self._notifications.receive()
        if notification is None:
            return
        identifier = notification.identifier
        try:
            if notification.audit != self._machine.audit:
                self._refuse_foreign(notification)
            else:
                self._handlers[notification.number](notification)
        except OSError as error:
            if error.errno == errno.EPERM:
                _log.warning(
                    "%s may not be looked into (not dumpable, or another user's); its network call fails",
                    _name_of(notification.thread),
                )
            self._notifications.answer(identifier, error=error.errno or errno.EIO)
        except Exception:  # noqa: BLE001 - a bug of ours ends this one call, never the program's other connections
            _log.exception("internal error in a held call")
            self._notifications.answer(identifier, error=errno.EIO)

    def _refuse_foreign(self, notification: Notification) -> None:
        _log.warning(
            "%s uses the system calls of another processor mode (a 32-bit program?), which attls exec refuses",
            _name_of(notification.thread),
        )
        self._notifications.answer(notification.identifier, error=errno.EACCES)

    def _duplicate(self, notification: Notification, *, kind: int = 0) -> socket.socket | None:
        """Return our duplicate of the socket a call is about; None (and the call let through) if it is not TCP.

        With `kind` a call about another sort of socket fails with that errno instead.

        Letting through rests on the kind of the descriptor alone, not on memory. A Unix socket's connect has to be the
        program's own: path, credentials and all.
        """
        descriptor = self.programs.duplicate(notification.thread, notification.signed(0))
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:  # no socket at all
            os.close(descriptor)
            raise
        if is_tcp(sock):
            return sock
        sock.close()
        if kind:
            self._notifications.answer(notification.identifier, error=kind)
        else:
            self._notifications.let_through(notification.identifier)
        return None

    # connect

    def _connect(self, notification: Notification) -> None:
        sock = self._duplicate(notification)
        if sock is None:
            return
        keep = False
        try:
            length = notification.signed(2)
            if not 0 <= length <= _LONGEST_ADDRESS:
                raise OSError(errno.EINVAL, "the length of the address")
            raw = self.programs.read(notification.thread, notification.arguments[1], length)
            if self._notifications.is_valid(notification.identifier):
                if self._is_of_no_concern(sock, raw):
                    keep = self._connect_natively(notification, sock, raw)
                else:
                    keep = self._decide_connect(notification, sock, raw)
        finally:
            if not keep:
                sock.close()

    def _is_of_no_concern(self, sock: socket.socket, raw: bytes) -> bool:
        """Tell whether a connect to `raw` is the kernel's own whoever makes it, with nothing to be noted or told.

        Most connects of most programs are of this sort, and the less is done for one of them the better: between two
        of them our code has left the processor's caches.
        """
        known = self._free.get(raw)
        if known is None:
            destination = seccomp.endpoint(raw)
            known = destination is not None and _reached(destination) not in self.books.law.destinations
            if len(self._free) >= _MOST_PLACES:
                self._free.clear()
            self._free[raw] = known
        if not known or self.books.is_attentive:
            return False
        if not (self._attempts or self._failures or self._names or self.books.has_truths):
            return True
        cookie = doorway.cookie(sock)
        seen = cookie in self._attempts or cookie in self._failures or cookie in self._names
        return not seen and self.books.truth(cookie) is None

    def _decide_connect(self, notification: Notification, sock: socket.socket, raw: bytes) -> bool:
        """Answer, or begin what will; True where `sock` is kept for that."""
        cookie = doorway.cookie(sock)
        self._failures.pop(cookie, None)
        if cookie in self._attempts:
            return self._connect_again(notification, sock, raw, self._attempts[cookie])
        destination = seccomp.endpoint(raw)
        if destination is None:
            self.books.forget(cookie)
            return self._connect_natively(notification, sock, raw)
        destination = _reached(destination)
        # After a failed connect a socket still shows the port that it had, which is no longer its own.
        name = self._names.get(cookie) or sock.getsockname()
        flow = self._flow(sock, raw, destination, name)
        process = self.programs.process(notification.thread)
        owner = owner_of(process, sock, complete=self.books.law.wants_job(flow))
        owner, verdict = self.books.judge(flow, owner)
        if not verdict.enabled:
            self.books.say_clear(flow, owner, verdict)
            self.books.forget(cookie)
            return self._connect_natively(notification, sock, raw)
        if owner.job is None:
            owner = replace(owner_of(process, sock, complete=True), user=owner.user)
        return self._connect_protected(notification, sock, raw, flow, owner, verdict, cookie=cookie)

    def _flow(self, sock: socket.socket, raw: bytes, destination: Endpoint, name: tuple[Any, ...]) -> Flow:
        """Tell the flow as far as it is known before the first packet; only rules that ask make us find out more."""
        local = Endpoint.of(name) if name[1] or name[0] not in _NOWHERE else _NOWHERE[name[0]]
        if self.books.law.asks_source_port and not local.port:
            source = doorway.source_of(sock, raw) or local
            place = source if local.address.is_unspecified else local
            sock.bind((_spelled(place.address, sock.family), 0))
            local = Endpoint.of(sock.getsockname())
        elif self.books.wants_source and local.address.is_unspecified:
            source = doorway.source_of(sock, raw) or local
            local = Endpoint(source.address, local.port)
        return Flow(Direction.OUTBOUND, local, destination)

    def _connect_natively(self, notification: Notification, sock: socket.socket, raw: bytes) -> bool:
        number, waits = connect_at_once(sock, raw)
        if not waits or number not in _UNDER_WAY:
            self._notifications.answer(notification.identifier, error=number)
            return False
        held = self._hold(notification, sock, socket.SO_SNDTIMEO, errno.EINPROGRESS)

        def written(mask: int) -> None:
            if mask & _DECIDED and (number := connect_at_once(sock, raw)[0]) not in _UNDER_WAY:
                self._let_go(held, error=number)

        self._reactor.watch(sock, written)
        return True

    def _connect_again(self, notification: Notification, sock: socket.socket, raw: bytes, attempt: Attempt) -> bool:
        """Answer a program that asks again meanwhile: after a signal, or to find out how far we are."""
        if raw[:2] == seccomp.UNSPECIFIED[:2]:
            return self._connect_natively(notification, sock, raw)
        with NonBlocking(sock) as mode:
            number = connect(sock, raw)  # goes nowhere: the kernel only tells how the connect in progress stands
        if number == errno.EALREADY and mode.was_blocking:
            attempt.blocking = True
            self._hold(notification, sock, socket.SO_SNDTIMEO, errno.EALREADY)
            return True
        self._notifications.answer(notification.identifier, error=number)
        return False

    def _connect_protected(
        self,
        notification: Notification,
        sock: socket.socket,
        raw: bytes,
        flow: Flow,
        owner: Owner,
        verdict: Verdict,
        *,
        cookie: int,
    ) -> bool:
        identifier = notification.identifier
        environment: Environment | None = None
        settings = verdict.settings
        assert settings is not None
        if is_multipath(sock) or not doorway.shares_our_network(sock):
            why = "the socket is a Multipath TCP one, or in another network namespace"
            self.books.turn_away(flow, owner, verdict, errors.UNREACHABLE, why)
            self._notifications.answer(identifier, error=errno.ENETUNREACH)
            return False
        if not settings.application_controlled:
            try:
                environment = self.books.law.environment_of(verdict, owner.user)
            except AttlsError as error:
                self.books.turn_away(flow, owner, verdict, errors.ENVIRONMENT, str(error))
                self._notifications.answer(identifier, error=errno.ECONNRESET)
                return False
        name = self._names.get(cookie) or sock.getsockname()
        number, ours = self._doorway.hold(sock, flow.remote)
        if ours is None:
            self._notifications.answer(identifier, error=number)
            return False
        self._names[cookie] = name
        if len(self._names) > _MOST_NAMES:
            self._names.popitem(last=False)
        number, network = doorway.dial(sock, raw, name=name)
        if network is None:
            ours.close()
            doorway.take_back(sock)
            self.books.turn_away(flow, owner, verdict, errors.UNREACHABLE, os.strerror(number))
            self._notifications.answer(identifier, error=number)
            return False
        local = Endpoint.of(network.getsockname())
        record = self.books.open(replace(flow, local=local), owner, verdict)
        self.books.learn(cookie, Truth(local, flow.remote, record, seccomp.scope(raw)))
        blocking = NonBlocking(sock).was_blocking
        attempt = self._attempts[cookie] = Attempt(self, cookie, sock, ours, blocking=blocking)
        if blocking:
            self._hold(notification, sock, socket.SO_SNDTIMEO, errno.EINPROGRESS)
        else:
            self._notifications.answer(identifier, error=errno.EINPROGRESS)
        self._reactor.carry(
            ours,
            record,
            dial=lambda: network,
            environment=environment,
            controlled=settings.application_controlled,
            gate=attempt,
        )
        return True

    def finish(self, attempt: Attempt, number: int) -> None:
        """Tell the program how its connect ended, errno `number` or 0, and let go of its socket."""
        self._attempts.pop(attempt.cookie, None)
        waiting = [held for held in self._held.values() if held.sock is attempt.sock or self._is_of(held, attempt)]
        try:
            if number and waiting:
                doorway.take_back(attempt.sock)
            elif number:
                self._failures[attempt.cookie] = number
                if len(self._failures) > _MOST_FAILURES:
                    self._failures.popitem(last=False)
                doorway.fail(attempt.sock, number)
        except OSError as error:
            _log.warning("cannot tell the program that its connect failed: %s", error)
        if number:
            self.books.forget(attempt.cookie)
        else:
            self._names.pop(attempt.cookie, None)
        for held in waiting:
            self._let_go(held, error=number)
        attempt.sock.close()

    @staticmethod
    def _is_of(held: Held, attempt: Attempt) -> bool:
        return held.sock is not None and held.late != errno.EAGAIN and doorway.cookie(held.sock) == attempt.cookie

    # listen and accept

    def _listen(self, notification: Notification) -> None:
        """Carry out the program's listen, and learn of arrivals from then on."""
        sock = self._duplicate(notification)
        if sock is None:
            return
        with sock:
            number = listen(sock, notification.signed(1))
            if not number:
                self._watch(notification, sock)
            self._notifications.answer(notification.identifier, error=number)

    def _watch(self, notification: Notification, listener: socket.socket) -> None:
        if self.books.law.may_cover(Endpoint.of(listener.getsockname())):
            process = self.programs.process(notification.thread)
            self._listeners.watch(listener, process, notification.signed(0))

    def _accept(self, notification: Notification, *, flags: bool) -> None:
        listener = self._duplicate(notification)
        if listener is None:
            return
        wanted = notification.signed(3) if flags else 0
        keep = False
        try:
            if wanted & ~(socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK):
                raise OSError(errno.EINVAL, "unknown flags")
            if self._accept_now(notification, listener, wanted):
                return
            self._watch(notification, listener)  # in case it was made before the filter was
            if not NonBlocking(listener).was_blocking:
                self._notifications.answer(notification.identifier, error=errno.EAGAIN)
                return
            held = self._hold(notification, listener, socket.SO_RCVTIMEO, errno.EAGAIN)
            keep = True
            self._reactor.watch_listener(listener, lambda _mask: self._accept_later(held, wanted))
        finally:
            if not keep:
                listener.close()

    def _accept_later(self, held: Held, wanted: int) -> None:
        if held.notification.identifier not in self._held:
            return
        if not self._notifications.is_valid(held.notification.identifier):
            self._drop(held)
            return
        try:
            assert held.sock is not None
            done = self._accept_now(held.notification, held.sock, wanted)
        except OSError as error:
            self._let_go(held, error=error.errno or errno.EIO)
            return
        if done:
            self._drop(held)

    def _accept_now(self, notification: Notification, listener: socket.socket, wanted: int) -> bool:
        """Give the program its next connection; False where there is none.

        Raises OSError with what the program's own accept would have failed with.
        """
        found = self._listeners.take(listener, self.programs.process(notification.thread))
        if found is None:
            return False
        accepted, truth = found
        number = self._give(notification, accepted, truth, wanted)
        if number in (0, errno.EFAULT):
            accepted.close()
        else:
            self._listeners.give_back(listener, found)
        if number and number != errno.ENOENT:
            raise OSError(number, "the connection cannot be given to the program")
        return True

    def _give(self, notification: Notification, accepted: socket.socket, truth: Truth | None, wanted: int) -> int:
        """Hand an accepted socket to the program; return 0 or the errno for which it was not done."""
        accepted.setblocking(not wanted & socket.SOCK_NONBLOCK)
        if notification.arguments[1]:
            try:
                raw = self._spelled_name(accepted, truth, peer=True)
                self._write_name(notification, raw)
            except OSError as error:
                return error.errno or errno.EFAULT
        return self._notifications.hand_over(
            notification.identifier, accepted.fileno(), close_on_exec=bool(wanted & socket.SOCK_CLOEXEC)
        )

    # getpeername and getsockname

    def _name(self, notification: Notification, *, peer: bool) -> None:
        sock = self._duplicate(notification)
        if sock is None:
            return
        with sock:
            truth = self.books.truth(doorway.cookie(sock))
            if truth is None:
                self._notifications.let_through(notification.identifier)
                return
            if peer:
                sock.getpeername()  # raises what the program would be told of a socket that is not connected (any more)
            self._write_name(notification, self._spelled_name(sock, truth, peer=peer))
            self._notifications.answer(notification.identifier)

    @staticmethod
    def _spelled_name(sock: socket.socket, truth: Truth | None, *, peer: bool) -> bytes:
        if truth is not None:
            place, interface = (truth.remote if peer else truth.local), truth.interface
        else:
            name = sock.getpeername() if peer else sock.getsockname()
            place, interface = Endpoint.of(name), _interface(name)
        return seccomp.address(place, sock.family, interface=interface)

    def _write_name(self, notification: Notification, raw: bytes) -> None:
        """Fill in a sockaddr and its length as the kernel does: cut to the room there is, the full length told."""
        _, place, size = notification.arguments[:3]
        (room,) = struct.unpack("=i", self.programs.read(notification.thread, size, 4))
        if room < 0:
            raise OSError(errno.EINVAL, "a negative length")
        if not self._notifications.is_valid(notification.identifier):
            raise OSError(errno.EINTR, "the call is gone")
        self.programs.write(notification.thread, place, raw[:room])
        self.programs.write(notification.thread, size, struct.pack("=i", len(raw)))

    # getsockopt with SO_ERROR

    def _error(self, notification: Notification) -> None:
        """Tell a program, once, how a connect failed that it does not wait for."""
        sock = self._duplicate(notification)
        if sock is None:
            return
        with sock:
            cookie = doorway.cookie(sock)
            number = self._failures.get(cookie)
            if number is None:
                self._notifications.let_through(notification.identifier)
                return
            _, _, _, place, size, _ = notification.arguments
            (room,) = struct.unpack("=i", self.programs.read(notification.thread, size, 4))
            if room < 0:
                raise OSError(errno.EINVAL, "a negative length")
            if self._notifications.is_valid(notification.identifier):
                self.programs.write(notification.thread, place, struct.pack("=i", number)[:room])
                self.programs.write(notification.thread, size, struct.pack("=i", min(room, 4)))
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                del self._failures[cookie]
                self._notifications.answer(notification.identifier)

    # ioctl

    def _control(self, notification: Notification) -> None:
        """Have the control channel's own code answer; the call is held until it does."""
        sock = self._duplicate(notification, kind=errno.EPROTOTYPE)
        if sock is None:
            return
        truth = self.books.truth(doorway.cookie(sock))
        petition = Petition(self, notification, sock, self.programs)
        if not self._notifications.is_valid(notification.identifier):
            petition.let_socket_go()
            return
        held = Held(notification, None, wait=0, late=0, now=self.clock())
        held.petition = petition
        self._held[notification.identifier] = held
        self._wakeup.set()
        self.books.board.answer(petition, truth.record if truth is not None else None)

    def is_held(self, petition: Petition) -> bool:
        """Tell whether the thread that made a held ioctl still waits for its answer."""
        return self._notifications.is_valid(petition.notification.identifier)

    def settle(self, petition: Petition, number: int) -> None:
        """Answer a held ioctl; its structure has been filled in."""
        held = self._held.get(petition.notification.identifier)
        if held is not None:
            self._let_go(held, error=number)

    # Calls that wait

    def _hold(self, notification: Notification, sock: socket.socket, option: int, late: int) -> Held:
        seconds, microseconds = struct.unpack("@ll", sock.getsockopt(socket.SOL_SOCKET, option, 16))
        held = Held(notification, sock, wait=seconds + microseconds / 1e6, late=late, now=self.clock())
        self._held[notification.identifier] = held
        self._wakeup.set()
        return held

    def _drop(self, held: Held) -> None:
        """Forget a held call that has been answered or is gone; close the duplicate unless an attempt needs it."""
        if self._held.pop(held.notification.identifier, None) is None:
            return
        if held.petition is not None:
            held.petition.abandoned()
        if held.sock is None or any(attempt.sock is held.sock for attempt in self._attempts.values()):
            return
        if held.sock.fileno() >= 0:
            # Not `forget`: the program's socket lives on when ours is closed, and so would the epoll registration.
            self._reactor.unwatch(held.sock.fileno())
            held.sock.close()

    def _let_go(self, held: Held, *, error: int = errno.ENOSYS) -> None:
        if held.notification.identifier in self._held:
            self._drop(held)
            self._notifications.answer(held.notification.identifier, error=error)

    def _look(self, now: float) -> None:
        """Look at the held calls: is one gone, or too late, or wanted for a signal."""
        for held in list(self._held.values()):
            if not self._notifications.is_valid(held.notification.identifier):
                self._drop(held)
            elif held.deadline is not None and held.deadline <= now:
                self._let_go(held, error=held.late)
            elif has_signal(held.notification.thread):
                # A request to start TLS must not be made twice: that one is interrupted, as on z/OS.
                self._let_go(held, error=ERESTARTSYS if held.petition is None else errno.EINTR)


def _reached(destination: Endpoint) -> Endpoint:
    """Return where a connect to `destination` goes: the unspecified address is this host to the kernel."""
    if destination.address.is_unspecified:
        return Endpoint(loopback(destination), destination.port)
    return destination


def _spelled(address: object, family: int) -> str:
    text = str(address)
    return f"::ffff:{text}" if family == socket.AF_INET6 and ":" not in text else text


def _interface(name: tuple[Any, ...]) -> int:
    """Return the interface that a socket name of IPv6 may carry, 0 where it does not."""
    return int(name[3]) if len(name) > 3 else 0


def _name_of(thread: int) -> str:
    try:
        process = process_of(thread)
    except OSError:
        return f"thread {thread}"
    return f"{command_of(process) or 'process'}[{process}]"
