"""What every relayed connection does, whether it carries TLS or clear bytes: dial, close each direction, end once.

The byte loops live in `secure` and `clear`; this class holds the two sockets, walks the lifecycle table and makes sure
that the connection ends in exactly one way with exactly one reason.

The program's socket lingers with time zero while the connection lives: should this process die, the kernel resets it.
A program must never take our crash for the end of its peer's data.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from attls import errors
from attls.errors import Reason
from attls.model import Direction
from attls.observe import Record
from attls.relay.lifecycle import Command, Event, Lifecycle, Moves, State

if TYPE_CHECKING:
    from attls.relay.reactor import Reactor

DIAL_SECONDS = 130.0  # a little more than the kernel itself tries to connect (net.ipv4.tcp_syn_retries = 6)
IDLE_SECONDS = 600.0  # how long a half-closed connection may be silent

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
CLOSE_IN_ORDER = struct.pack("ii", 0, 0)
BROKEN = select.EPOLLERR | select.EPOLLHUP
READABLE = select.EPOLLIN | select.EPOLLRDHUP | BROKEN
ENDED = select.EPOLLRDHUP | BROKEN


class Gate(Protocol):
    """Somebody who wants to know when a connection stands, just before its first byte is carried, and when it is over.

    An outbound connection's `app` may be a socket that is not connected yet: `opened` is the moment to connect it.
    """

    def opened(self, relay: Relay) -> None:
        """Learn that dialling and handshake are done; an OSError ends the connection.

        A controlled connection stands once in clear, and again each time its program has started TLS.
        """

    def ended(self, relay: Relay) -> None:
        """Learn that all is over; `relay.error` is the errno of a dial that failed, the record tells the reason."""


class Relay:
    """One connection between a program (`app`) and the network (`net`); both sockets are owned and closed here.

    Subclasses provide `moves`, `relay` (start the byte loops), `end_net` and `end_app` (end one direction once
    everything before it was delivered) and `drained` (nothing is left to deliver).
    """

    __slots__ = (
        "app",
        "deadlines",
        "dial",
        "dialed",
        "dialing",
        "error",
        "gate",
        "last_count",
        "life",
        "net",
        "over",
        "reactor",
        "record",
    )

    def __init__(self, reactor: Reactor, record: Record, dial: Callable[[], socket.socket], moves: Moves) -> None:
        self.reactor = reactor
        self.record = record
        self.dial = dial
        self.life = Lifecycle(moves)
        self.app: socket.socket | None = None
        self.net: socket.socket | None = None
        self.dialing: socket.socket | None = None
        self.dialed = 0  # the event mask that told us the dialled socket was connected: data may have come with it
        self.deadlines: dict[Relay, float] | None = None  # the reactor's queue that our deadline is in
        self.last_count = -1
        self.over = False
        self.error = 0  # the errno with which dialling failed
        self.gate: Gate | None = None

    # The lifecycle

    def start(self) -> None:
        """Begin: the accepted socket is in place."""
        if self.app is not None:
            self.app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.happened(Event.STARTED)

    def happened(self, event: Event) -> None:
        """Take one step of the lifecycle and do what it asks for."""
        command = self.life.advance(event)
        if command is Command.RELAY:
            self.reactor.disarm(self)
            self._open()
        elif command is Command.DIAL:
            self._start_dialing()
        elif command is Command.SHAKE_HANDS:
            self.shake_hands()
        elif command is Command.JUDGE:
            self.reactor.disarm(self)  # whoever asks has deadlines of his own
            self.judge()
        else:
            if command is Command.END_NET or command is Command.FINISH_NET:
                self.end_net()
            else:
                self.end_app()
            if not self.over:
                self.reactor.arm(self, IDLE_SECONDS)

    def _open(self) -> None:
        if self.gate is not None:
            try:
                self.gate.opened(self)
            except OSError as error:
                self.abort(errors.APP_RESET, error.strerror or "")
                return
        self.relay()

    def _start_dialing(self) -> None:
        try:
            self.dialing = self.dial()
        except OSError as error:
            self.error = error.errno or 0
            self.abort(errors.UNREACHABLE, error.strerror or str(error))
            return
        self.reactor.arm(self, DIAL_SECONDS)
        self.reactor.watch(self.dialing, self._dialed, is_new=True)

    def _dialed(self, mask: int) -> None:
        dialing = self.dialing
        if dialing is None:
            return
        if mask & BROKEN:
            self.error = error = dialing.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.abort(errors.UNREACHABLE, os.strerror(error) if error else "the connection broke")
            return
        if not mask & select.EPOLLOUT:
            return
        self.dialing = None
        self.dialed = mask
        self.reactor.newcomers.discard(dialing.fileno())
        if self.record.flow.direction is Direction.OUTBOUND:
            self.net = dialing
        else:
            self.app = dialing
            dialing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.happened(Event.DIALED)

    def finish_if_drained(self) -> None:
        """Close both sockets in order once both directions have ended and everything is delivered to the kernel."""
        if self.life.state is State.CLOSED and not self.over and self.drained() and self.app is not None:
            self.app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSE_IN_ORDER)
            self._close(errors.DONE, "")

    def abort(self, reason: Reason, detail: str = "") -> None:
        """End at once: reset both ends and close the record with `reason`. Harmless when already ended."""
        for sock in (self.app, self.net, self.dialing):
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._close(reason, detail)

    def _close(self, reason: Reason, detail: str) -> None:
        if self.over:
            return
        self.over = True
        self.reactor.disarm(self)
        self.reactor.connections.pop(self.record.connid, None)
        self.reactor.controls.pop(self.record.connid, None)
        for sock in (self.app, self.net, self.dialing):
            if sock is not None:
                self.reactor.forget(sock.fileno())
                sock.close()
        self.closed()
        self.record.close(reason, detail)
        if self.gate is not None:
            self.gate.ended(self)

    def expired(self) -> None:
        """Judge a passed deadline by what was being waited for."""
        if self.life.state is State.DIALING:
            self.abort(errors.UNREACHABLE, "no answer to the connection request")
            return
        count = self.record.bytes_in + self.record.bytes_out
        if count == self.last_count:
            self.abort(errors.IDLE)
        else:
            self.last_count = count
            self.reactor.arm(self, IDLE_SECONDS)

    # What subclasses fill in

    def shake_hands(self) -> None:
        """Start the TLS handshake."""
        raise AssertionError("a clear connection has no handshake")

    def judge(self) -> None:
        """Have the peer's certificates asked about."""
        raise AssertionError("a clear connection has no certificates")

    def relay(self) -> None:
        """Start carrying bytes in both directions."""
        raise NotImplementedError

    def end_net(self) -> None:
        """Tell the network that the program will send no more, after everything before it."""
        raise NotImplementedError

    def end_app(self) -> None:
        """Tell the program that the network will send no more, after everything before it."""
        raise NotImplementedError

    def drained(self) -> bool:
        """Say whether everything received has been handed to the kernel."""
        raise NotImplementedError

    def closed(self) -> None:
        """Release what the subclass holds; both sockets are closed already."""

    def describe(self) -> None:
        """Fill in the parts of the record that only displays want (the peer's certificate)."""


def shut(sock: socket.socket | None) -> None:
    """Send FIN; a socket that is no longer connected has nothing to end."""
    if sock is not None and sock.fileno() >= 0:
        try:  # noqa: SIM105 - contextlib.suppress costs more than the system call
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
