"""The clear relay: bytes go from socket to socket through a kernel pipe and never enter this process.

It carries what interception caught and policy leaves alone: rules with TTLSEnabled Off that the kernel's table could
not decide by itself, connections that no rule matched after all, and connections under application control before the
program asks for TLS. Pipes are lent from a pool only while bytes are in flight (splice(2) needs one between two
sockets), so an idle connection holds two descriptors, not six.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from attls import errors
from attls.observe import Record
from attls.relay.connection import READABLE, Relay, shut
from attls.relay.lifecycle import CLEAR, Event

if TYPE_CHECKING:
    from attls.relay.reactor import Reactor

_CHUNK = 128 * 1024
_TURNS = 16
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_POOLED = 64

_pool: list[tuple[int, int]] = []


class _Way:
    """One direction: `pipe` is lent while `held` bytes are in it; `ready` means the source is to be read again."""

    __slots__ = ("ended", "held", "pipe", "ready")

    def __init__(self) -> None:
        self.pipe: tuple[int, int] | None = None
        self.held = 0
        self.ready = False
        self.ended = False


class ClearRelay(Relay):
    """A connection whose network side is not protected."""

    __slots__ = ("inward", "outward")

    def __init__(self, reactor: Reactor, record: Record, dial: Callable[[], socket.socket]) -> None:
        super().__init__(reactor, record, dial, CLEAR)
        self.inward = _Way()
        self.outward = _Way()

    def relay(self) -> None:
        """Start both directions."""
        assert self.app is not None
        assert self.net is not None
        for sock, handler in ((self.net, self.on_net), (self.app, self.on_app)):
            if self.over:
                return  # the first one has ended it
            if sock.fileno() in self.reactor.handlers:
                self.reactor.handlers[sock.fileno()] = handler
                handler(self.dialed)
            else:
                self.reactor.watch(sock, handler)

    def on_net(self, mask: int) -> None:
        """Handle an event of the network socket."""
        if mask & select.EPOLLOUT and self.outward.held:
            self._pump_out()
        if mask & READABLE and not self.over:
            self.inward.ready = True
            if not self.inward.held:
                self._pump_in()
            elif mask & select.EPOLLERR:
                self.abort(errors.PEER_RESET)

    def on_app(self, mask: int) -> None:
        """Handle an event of the program's socket."""
        if mask & select.EPOLLOUT and self.inward.held:
            self._pump_in()
        if mask & READABLE and not self.over:
            self.outward.ready = True
            if not self.outward.held:
                self._pump_out()
            elif mask & select.EPOLLERR:
                self.abort(errors.APP_RESET)

    def _pump_in(self) -> None:
        if self.over:
            return
        moved, drained = self._pump(self.net, self.app, self.inward, Event.NET_CLOSED)
        self.record.bytes_in += moved
        if not drained:
            self.reactor.hungry.append(self._pump_in)

    def _pump_out(self) -> None:
        if self.over:
            return
        moved, drained = self._pump(self.app, self.net, self.outward, Event.APP_CLOSED)
        self.record.bytes_out += moved
        if not drained:
            self.reactor.hungry.append(self._pump_out)

    def _pump(
        self, source: socket.socket | None, sink: socket.socket | None, way: _Way, closed: Event
    ) -> tuple[int, bool]:
        """Move bytes until the source is drained or the sink is full; returns bytes moved and "nothing more to do"."""
        assert source is not None
        assert sink is not None
        moved = 0
        inward = way is self.inward
        for _ in range(_TURNS):
            if way.held:
                assert way.pipe is not None
                try:
                    count = os.splice(way.pipe[0], sink.fileno(), way.held, flags=_FLAGS)
                except BlockingIOError:
                    return moved, True
                except OSError as error:
                    self.abort(errors.APP_RESET if inward else errors.PEER_RESET, error.strerror or "")
                    return moved, True
                way.held -= count
                moved += count
                continue
            if way.ended or not way.ready:
                break
            if way.pipe is None:
                way.pipe = lend()
            try:
                way.held = os.splice(source.fileno(), way.pipe[1], _CHUNK, flags=_FLAGS)
            except BlockingIOError:
                way.ready = False
                break
            except OSError as error:
                self.abort(errors.PEER_RESET if inward else errors.APP_RESET, error.strerror or "")
                return moved, True
            if not way.held:
                way.ended = True
                self._give_back(way)
                self.happened(closed)
                return moved, True
        else:
            return moved, False
        self._give_back(way)
        return moved, True

    def end_net(self) -> None:
        """Pass the program's FIN on; everything before it has left the pipe."""
        shut(self.net)
        self.finish_if_drained()

    def end_app(self) -> None:
        """Pass the network's FIN on; everything before it has left the pipe."""
        shut(self.app)
        self.finish_if_drained()

    def drained(self) -> bool:
        """Say whether both pipes are empty."""
        return not self.inward.held and not self.outward.held

    def closed(self) -> None:
        """Give the pipes back; one that still holds bytes is closed, never reused."""
        for way in (self.inward, self.outward):
            self._give_back(way)

    @staticmethod
    def _give_back(way: _Way) -> None:
        pipe, way.pipe = way.pipe, None
        if pipe is None:
            return
        if way.held or len(_pool) >= _POOLED:
            os.close(pipe[0])
            os.close(pipe[1])
        else:
            _pool.append(pipe)


def lend() -> tuple[int, int]:
    """Return an empty pipe, non-blocking; whoever takes it gives it back or closes it."""
    return _pool.pop() if _pool else os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
