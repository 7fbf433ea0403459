"""The TLS side of the relay: plain bytes of the program on one socket, TLS records on the other.

The loops are written for few system calls and few objects. One read takes up to 256 KiB into a buffer that all
connections of the worker share; it goes into the engine's memory BIO, comes out as plain bytes in a second shared
buffer, and leaves with one send. Only what a slow receiver did not take is kept, per connection and direction, and
while something is kept the other side is not read: that is the back-pressure, and it bounds memory to one buffer each
way.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from attls import errors
from attls.errors import Reason, TlsError
from attls.model import Direction, Protocol
from attls.observe import HANDSHAKE, SECURE, Record
from attls.relay.connection import ENDED, READABLE, Relay, shut
from attls.relay.lifecycle import INBOUND, OUTBOUND, Event, State
from attls.tls import (
    Engine,
    EngineError,
    Environment,
    Turn,
    WantReadError,
    ZeroReturnError,
    best,
    best_flights,
    identify,
    looks_like_tls,
    resumes,
)

if TYPE_CHECKING:
    from attls.relay.reactor import Reactor

_READ = 256 * 1024
_HELLO = 16384  # bytes read at once while the peer has not proven itself
_BUT_WRITABLE = ~select.EPOLLOUT  # of what the kernel announces
_TURNS = 4  # full reads of one connection before others get their turn

# Shared by all connections of the process: filled and emptied within one call, never kept.
crossing = best(_READ)
_received = crossing.received
_made = crossing.made
_flights = best_flights()


class SecureRelay(Relay):
    """A connection whose network side is TLS."""

    most = _READ  # what one turn reads at most of the network's side

    __slots__ = (
        "app_ended",
        "app_key",
        "app_ready",
        "app_unsent",
        "engine",
        "engine_key",
        "environment",
        "heard",
        "judged",
        "net_ended",
        "net_key",
        "net_ready",
        "net_unsent",
    )

    def __init__(
        self, reactor: Reactor, record: Record, dial: Callable[[], socket.socket], environment: Environment
    ) -> None:
        outbound = record.flow.direction is Direction.OUTBOUND
        super().__init__(reactor, record, dial, OUTBOUND if outbound else INBOUND)
        self.environment = environment
        self.engine: Engine | None = None
        self.heard = False  # the peer has sent its first byte
        self.judged = _flights.tells_resumption  # it is known, or will be, whether the handshake resumes a session
        self.app_unsent: bytes = b""  # plain bytes that the program has not taken yet
        self.net_unsent: bytes = b""  # TLS bytes that the network has not taken yet
        self.app_ready = False  # the program's socket had something while we were not reading it
        self.net_ready = False
        self.app_ended = False  # FIN is due, or sent, to the program
        # What `crossing` wants of the three, once bytes are carried.
        self.engine_key = self.net_key = self.app_key = None
        self.net_ended = False  # close_notify is written; FIN is due, or sent, to the network

    # The handshake

    def shake_hands(self) -> None:
        """Start the handshake on the network socket."""
        assert self.net is not None
        environment = self.environment
        if self.record.primary is not None:
            self._share_session(self.record.primary)
        self.engine = environment.engine(self.destination, self.reactor.clock(), job=self.record.owner.job or "")
        self.record.status = HANDSHAKE
        self._arm_handshake(1 if environment.is_server else 5)
        if self.net.fileno() in self.reactor.handlers:
            self.reactor.handlers[self.net.fileno()] = self._on_handshake
            self.reactor.newcomers.add(self.net.fileno())
        else:
            self.reactor.watch(self.net, self._on_handshake, is_new=True)
        if not environment.is_server:
            self._step_handshake()
        if self.dialed & READABLE and not self.over:
            self._on_handshake(self.dialed)

    @property
    def destination(self) -> tuple[str, int]:
        """Where the connection goes, as sessions are kept by; one that follows another goes where that one does."""
        remote = (self.record.primary or self.record).flow.remote
        return str(remote.address), remote.port

    def _share_session(self, primary: Record) -> None:
        """Let a connection that follows a living one resume its session: FTP servers want that of data connections."""
        relay = self.reactor.connections.get(primary.connid)
        if isinstance(relay, SecureRelay) and relay.environment is self.environment:
            relay.keep_session()

    def _arm_handshake(self, factor: int) -> None:
        # The side that spoke first waits longer: its peer may be a busy server. ioctl reference, "Failure and timeout".
        seconds = self.environment.settings.handshake_timeout * factor
        if seconds:
            self.reactor.arm(self, seconds)
        else:
            self.reactor.disarm(self)

    def _on_handshake(self, mask: int) -> None:
        if mask & select.EPOLLOUT and self.net_unsent:
            self._flush_net()
        if not mask & READABLE or self.over:
            return
        engine, net = self.engine, self.net
        assert engine is not None
        assert net is not None
        while True:
            try:
                count = net.recv_into(_received, _HELLO)
            except BlockingIOError:
                return
            except OSError as error:
                self.abort(errors.PEER_RESET, error.strerror or "")
                return
            if not count:
                self.abort(errors.PEER_CLOSED_HANDSHAKE)
                return
            if not self.heard:
                self.heard = True
                if not looks_like_tls(_received[0]):
                    self.abort(errors.CLEARTEXT)
                    return
                self._arm_handshake(1)
            if not self.judged and not self.environment.is_server:
                self._judge_resumption(bytes(_received[:count]))
            # What else has come, data or the end of the stream, is the byte loop's: nobody will announce it again.
            more = self.net_ready = count == _HELLO or bool(mask & ENDED)
            if type(engine) is Engine:
                crossing.feed(engine, 0, count)
            else:  # it looks at what it is given
                engine.bio_write(_received[:count])
            self._step_handshake()
            if not more or self.life.state is not State.HANDSHAKE or self.over:
                return

    def _judge_resumption(self, flight: bytes) -> None:
        """Learn from the server's first flight whether it resumes a session."""
        answer = resumes(flight)
        self.judged = answer is not None
        self.record.resumed = bool(answer)

    def _step_handshake(self) -> None:
        engine = self.engine
        assert engine is not None
        done = False
        failure: tuple[Reason, str] | None = None
        try:
            done = _flights.step(engine)
        except EngineError as error:
            failure = self.environment.explain(engine, error)
        flight = _flights.take(engine)
        if flight:
            if not self.judged and self.environment.is_server:
                self._judge_resumption(flight)
            self.net_unsent += flight
            # A TLS 1.3 server has only tickets to send then, which nobody waits for: they go with the first answer.
            tickets = done and self.environment.is_server and engine.get_protocol_version() == Protocol.TLSV1_3
            self._flush_net(socket.MSG_MORE if tickets else 0)
        if failure is not None:
            self.abort(*failure)
        elif done and not self.over:
            self._secured(engine)

    def _secured(self, engine: Engine) -> None:
        record = self.record
        record.protocol = engine.get_protocol_version_name()
        record.cipher4, record.cipher = identify(engine.get_cipher_name() or "")
        record.key_share = engine.get_group_name()
        if _flights.tells_resumption:
            record.resumed = _flights.resumed(engine)
        if self.environment.knows_users:
            try:
                record.cert_user = self.environment.user(engine)
            except TlsError as error:  # a session from before the map was changed
                self.abort(error.reason)
                return
        self.reactor.disarm(self)
        assert self.net is not None
        self.reactor.handlers[self.net.fileno()] = self._on_net_early
        self.reactor.newcomers.discard(self.net.fileno())
        if self.environment.asks_about_revocation:
            self.happened(Event.PROVEN)
        else:
            self._accept()

    def judge(self) -> None:
        """Have the peer's certificates asked about; until then nothing is dialled and nothing passed on."""
        engine = self.engine
        assert engine is not None
        self.reactor.inquire(self, self.environment.inquiry(engine), self._judged)

    def _judged(self, reason: Reason | None, detail: str) -> None:
        if self.over:
            return
        if reason is not None:
            self.abort(reason, detail)
        else:
            self._accept()

    def _accept(self) -> None:
        """Go on: the peer is who it should be."""
        self.record.status = SECURE
        self.happened(Event.SECURED)

    def _on_net_early(self, mask: int) -> None:
        """Note what the network does while the program is being dialled; its data waits in the kernel."""
        if mask & READABLE:
            self.net_ready = True
        if mask & select.EPOLLOUT and self.net_unsent:
            self._flush_net()
        if mask & select.EPOLLERR:
            self.abort(errors.PEER_RESET)

    def _take_from_engine(self) -> bytes:
        engine = self.engine
        assert engine is not None
        return _flights.take(engine)

    # Carrying bytes

    def relay(self) -> None:
        """Start both byte loops; the engine may already hold data that came with the handshake."""
        assert self.app is not None
        assert self.net is not None
        self.reactor.handlers[self.net.fileno()] = self.on_net
        if self.app.fileno() in self.reactor.handlers:
            self.reactor.handlers[self.app.fileno()] = self.on_app
            self.app_ready = bool(self.dialed & READABLE)
        else:
            self.reactor.watch(self.app, self.on_app)
        assert self.engine is not None
        more = self._passed_in(*crossing.rest(self.app, self.engine))
        if not self.over:
            crossing.settle(self.engine)
            self.engine_key, self.net_key, self.app_key = crossing.keys(self.net, self.app, self.engine)
        if more and self.net_ready:
            self._pump_net()
        if self.app_ready and not self.over:
            self._pump_app()

    def on_net(self, mask: int) -> None:
        """Handle an event of the network socket; this is where most of the time goes, so the usual comes first."""
        if mask & _BUT_WRITABLE == select.EPOLLIN and not (self.app_unsent or self.net_unsent or self.app_ended):
            received, made, sent, ending = crossing.turn_inward(self.engine_key, self.net_key, self.app_key)
            if 0 < received < _READ and sent == made and ending is None:
                self.record.bytes_in += made
            elif self._took_in(received, made, sent, crossing.explain(ending, self.engine), mask):
                self._pump_net(mask)
        else:
            self._handle_net(mask)

    def _handle_net(self, mask: int) -> None:
        if mask & select.EPOLLOUT and self.net_unsent:
            self._resume_app()
        if mask & READABLE and not self.over:
            if self.app_unsent:
                self.net_ready = True
                if mask & select.EPOLLERR:
                    self.abort(errors.PEER_RESET)
            else:
                self._pump_net(mask)

    def on_app(self, mask: int) -> None:
        """Handle an event of the program's socket."""
        if mask & _BUT_WRITABLE == select.EPOLLIN and not (self.net_unsent or self.app_unsent):
            received, made, sent, failure = crossing.turn_outward(self.engine_key, self.app_key, self.net_key, 0, _READ)
            if 0 < received < _READ and sent == made and failure is None:
                self.record.bytes_out += received
            elif self._took_out(received, made, sent, crossing.explain(failure, self.engine), mask):
                self._pump_app(mask)
        else:
            self._handle_app(mask)

    def _handle_app(self, mask: int) -> None:
        if mask & select.EPOLLOUT and self.app_unsent:
            self._resume_net()
        if mask & READABLE and not self.over:
            if self.net_unsent:
                self.app_ready = True
                if mask & select.EPOLLERR:
                    self.abort(errors.APP_RESET)
            else:
                self._pump_app(mask)

    def _pump_net(self, mask: int = ENDED) -> None:
        """Network → program: read, decrypt, forward until the socket is drained or the program does not keep up.

        `mask` is what the kernel has announced: with the end of the stream in it a short read is not the last one.
        """
        net, app, engine = self.net, self.app, self.engine
        if self.app_unsent or net is None or app is None or engine is None:
            self.net_ready = True
            return
        self.net_ready = False
        for _ in range(_TURNS):
            if not self._took_in(*self._turn_inward(net, app, engine), mask):
                return
        self.reactor.hungry.append(self._pump_net)

    def _took_in(self, received: int, made: int, sent: int, ending: EngineError | None, mask: int) -> bool:
        """Do what a turn inward calls for; True means that there may be more to read."""
        if received > 0:
            if sent == made and ending is None:
                self.record.bytes_in += made
            elif not self._passed_in(made, sent, ending):
                return False
            return received >= self.most or bool(mask & ENDED)
        if received:
            self._stumbled(errors.PEER_RESET, received)
        elif not self.app_ended:
            self.abort(errors.TRUNCATED)
        return False

    def _turn_inward(self, net: socket.socket, app: socket.socket | None, engine: Engine) -> Turn:
        """Read, open and hand on once; without `app` nothing is handed on."""
        if self.app_ended:  # nothing counts after close_notify (RFC 8446 section 6.1)
            return crossing.receive(net), 0, 0, None
        if app is not None:
            received, made, sent, ending = crossing.turn_inward(self.engine_key, self.net_key, self.app_key)
            return received, made, sent, crossing.explain(ending, engine)
        received = crossing.receive(net)
        if received <= 0:
            return received, 0, 0, None
        made, ending = crossing.open_received(engine, received)
        return received, made, 0, ending

    def _passed_in(self, made: int, sent: int, ending: EngineError | None) -> bool:
        """Note what the program has got of what was made, keep the rest, do what is due; False means "stop reading"."""
        self.record.bytes_in += made
        if sent < 0:
            self._stumbled(errors.APP_RESET, sent)
        elif sent < made:
            self.app_unsent = bytes(_made[sent:made])
            self.net_ready = True
        if ending is None or self.over:
            return sent == made
        if isinstance(ending, WantReadError):
            self._send_answers()
        elif not isinstance(ending, ZeroReturnError):
            self._fail(ending)
        elif not self.app_ended:
            self.happened(Event.NET_CLOSED)
        return sent == made and not self.over

    def _stumbled(self, reason: Reason, outcome: int) -> None:
        """End the connection for the error of a socket that a turn has met, unless there was only nothing to read."""
        if outcome != -errno.EAGAIN:
            self.abort(reason, os.strerror(-outcome))

    def _pump_app(self, mask: int = ENDED) -> None:
        """Program → network: read, encrypt, send until the socket is drained or the network does not keep up."""
        app, net, engine = self.app, self.net, self.engine
        if self.net_unsent or engine is None or app is None or net is None:
            self.app_ready = True
            return
        self.app_ready = False
        # Where nothing but the end follows, the data waits for close_notify and FIN: one packet, not three.
        flags = socket.MSG_MORE if mask & ENDED == select.EPOLLRDHUP else 0
        for _ in range(_TURNS):
            if not self._took_out(*self._turn_outward(engine, flags), mask):
                return
        self.reactor.hungry.append(self._pump_app)

    def _turn_outward(self, engine: Engine, flags: int = 0, most: int = _READ) -> Turn:
        """Read `most` bytes of the program, seal them and send the records, once."""
        key, app, net = self.engine_key, self.app_key, self.net_key
        received, made, sent, failure = crossing.turn_outward(key, app, net, flags, most)
        return received, made, sent, crossing.explain(failure, engine)

    def _took_out(self, received: int, made: int, sent: int, failure: EngineError | None, mask: int) -> bool:
        """Do what a turn outward calls for; True means that there may be more to read."""
        if received > 0:
            self.record.bytes_out += received
            if (sent != made or failure is not None) and not self._passed_out(made, sent, failure):
                return False
            return received >= _READ or bool(mask & ENDED)
        if received:
            self._stumbled(errors.APP_RESET, received)
        elif not self.net_ended:
            self.happened(Event.APP_CLOSED)
        return False

    def _passed_out(self, made: int, sent: int, failure: EngineError | None) -> bool:
        """Keep what the network has not got of what was made; False means "stop reading"."""
        if failure is not None:
            self._fail(failure)
        elif sent < 0:
            self._stumbled(errors.PEER_RESET, sent)
        elif sent < made:
            self.net_unsent = bytes(_made[sent:made])
            self.app_ready = True
        return failure is None and sent == made

    def _send(self, records: bytes | memoryview, flags: int = 0) -> bool:
        """Send TLS bytes, keeping what does not fit; False means that the network does not keep up.

        With MSG_MORE in `flags` the kernel may wait for what comes next, 200 ms at most.
        """
        net = self.net
        assert net is not None
        try:
            sent = net.send(records, flags)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.abort(errors.PEER_RESET, error.strerror or "")
            return False
        if sent < len(records):
            self.net_unsent = bytes(records[sent:])
            self.app_ready = True
            return False
        return True

    def _send_answers(self) -> None:
        """Send what the engine wants to say by itself (KeyUpdate, alerts), if anything, behind what is unsent."""
        answers = self._take_from_engine()
        if answers:
            self.net_unsent += answers
            self._flush_net()

    def _flush_net(self, flags: int = 0) -> bool:
        """Try to send what the network had not taken; True when nothing is left."""
        unsent = self.net_unsent
        self.net_unsent = b""
        return self._send(unsent, flags) if unsent else True

    def _resume_app(self) -> None:
        """Send the rest now that the network takes bytes again; end the direction if that was due, or read on."""
        if self._flush_net():
            if self.net_ended:
                self._shut_net()
            elif self.app_ready:
                self._pump_app()

    def _resume_net(self) -> None:
        """Send the rest now that the program takes bytes again; end the direction if that was due, or read on."""
        app = self.app
        assert app is not None
        try:
            sent = app.send(self.app_unsent)
        except BlockingIOError:
            return
        except OSError as error:
            self.abort(errors.APP_RESET, error.strerror or "")
            return
        self.app_unsent = self.app_unsent[sent:]
        if not self.app_unsent:
            if self.app_ended:
                self._shut_app()
            elif self.net_ready:
                self._pump_net()

    # Ending

    def end_net(self) -> None:
        """Write close_notify behind all data and end the network's side of the stream once it is sent."""
        engine = self.engine
        assert engine is not None
        self.net_ended = True
        try:
            engine.shutdown()
        except EngineError as error:
            self._fail(error)
            return
        self.net_unsent += self._take_from_engine()
        if self._flush_net(socket.MSG_MORE):  # FIN goes with it
            self._shut_net()

    def end_app(self) -> None:
        """End the program's side of the stream once it has taken everything."""
        self.app_ended = True
        if not self.app_unsent:
            self._shut_app()

    def _shut_net(self) -> None:
        shut(self.net)
        self.finish_if_drained()

    def _shut_app(self) -> None:
        if self.life.state is not State.CLOSED or not self.drained():  # else closing it says the same
            shut(self.app)
        self.finish_if_drained()

    def drained(self) -> bool:
        """Say whether both directions have been handed to the kernel completely."""
        return not self.app_unsent and not self.net_unsent

    def _fail(self, error: EngineError) -> None:
        """End a connection whose TLS broke: the alert goes out, then both ends are reset."""
        engine = self.engine
        assert engine is not None
        reason, detail = self.environment.explain(engine, error)
        self._send_answers()
        self.abort(reason, detail)

    def expired(self) -> None:
        """Judge a passed deadline; in the handshake it depends on whether the peer has said anything."""
        if self.life.state is State.HANDSHAKE:
            self.abort(errors.HANDSHAKE_SLOW if self.heard else errors.HANDSHAKE_SILENT)
        else:
            super().expired()

    def closed(self) -> None:
        """Keep a client's session for the next connection to the same place; let go of the engine."""
        self.keep_session()
        self.engine = self.engine_key = None

    def keep_session(self) -> None:
        """Have the next connection to the same place resume the session of this one; servers have no say in that."""
        if self.engine is not None and self.record.status == SECURE and not self.environment.is_server:
            self.environment.remember(self.engine, self.destination, self.reactor.clock())

    def describe(self) -> None:
        """Fill in the peer's certificate."""
        if self.engine is not None and self.record.peer_certificate is None:
            self.record.peer_certificate, self.record.peer_subject = self.environment.peer(self.engine)
