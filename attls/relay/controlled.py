"""A connection whose program decides when TLS starts and ends: the switch between clear and TLS at one exact byte.

Theory of operation. Such a connection goes through phases: `ClearPhase` carries bytes as they are, `TlsPhase` carries
TLS, and `Controlled` stays the same from birth to close and changes from one to the other. A change is exact in both
directions because the request brings the program's own socket along:

- outward, the kernel tells in one snapshot how many bytes the program has written so far (TCP_INFO). So many we carry
  in the old way, whatever its other threads write meanwhile; the next byte goes the new way;
- inward, we stop reading from the network and *read back*, through the program's descriptor, what the program has not
  read yet. Together with what is under way between us, and then with what the network still brings, that belongs to
  the TLS engine. A ClientHello that overtook the request is not lost, and cleartext that somebody smuggled in behind
  STARTTLS meets the engine instead of the program: the connection ends (5003).

Ending TLS is exact by itself, because close_notify marks the place in the stream. What follows the peer's close_notify
is clear and waits here until the program asks for the end of TLS too; a record is therefore given to the engine only
when it is whole, one at a time, so that the engine never swallows bytes that are not TLS. The peer's close_notify alone
does not tell whether it ends TLS or the connection. The program gets `GRACE_SECONDS` to say STOP; then it is an
ordinary end of the stream. A connection that follows another (FTP data) ends at once: nobody takes TLS off one of
those, and servers that wait for our close_notify before they close would make every transfer last that long.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING

from attls import errors
from attls.errors import Reason
from attls.observe import NOT_SECURE, Record
from attls.relay.clear import ClearRelay, lend
from attls.relay.connection import ENDED, READABLE, Relay
from attls.relay.lifecycle import CLEAR, CONTROLLED, Event, Lifecycle, State
from attls.relay.renewing import RenewingRelay
from attls.relay.secure import crossing
from attls.tls import RECORD, Engine, EngineError, Environment, Turn, WantReadError, ZeroReturnError, looks_like_tls

if TYPE_CHECKING:
    from attls.relay.reactor import Reactor

BARRIER_SECONDS = 30.0  # how long everything written before the switch may take to leave
GRACE_SECONDS = 3.0  # how long after the peer's close_notify the program may still ask for the end of TLS
STOP_SECONDS = 10.0  # how long the peer may take to answer our close_notify, where the policy sets no time
MOST_READ_BACK = 128 * 1024  # more than any peer sends before it has heard from us
_CHUNK = 64 * 1024  # what follows a close_notify must fit into one pipe
_LONGEST_RECORD = 5 + RECORD + 2048
_ESTABLISHED = 1  # include/net/tcp_states.h
_BYTES_SENT = struct.Struct("=QQ")  # struct tcp_info: tcpi_bytes_sent, tcpi_bytes_retrans, at 200
_NOT_SENT = struct.Struct("=I")  # tcpi_notsent_bytes, at 144

_received = crossing.received


class NotEstablishedError(Exception):
    """The program's socket is no longer, or only half, connected."""


def position(sock: socket.socket) -> int:
    """Return how many bytes the program has written to its socket so far; raises NotEstablishedError.

    One system call, so that the answer is exact even while other threads write.
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if info[0] != _ESTABLISHED:
        raise NotEstablishedError
    sent, again = _BYTES_SENT.unpack_from(info, 200)
    (waiting,) = _NOT_SENT.unpack_from(info, 144)
    return int(sent - again + waiting)


def _count(sock: socket.socket, request: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock, request, b"\0\0\0\0"))[0])


def unread(sock: socket.socket) -> int:
    """Return how many bytes the program could read now."""
    return _count(sock, termios.FIONREAD)


def unacknowledged(sock: socket.socket) -> int:
    """Return how many bytes we have written to the program that its socket does not have yet."""
    return _count(sock, termios.TIOCOUTQ)


class Controlled:
    """One application-controlled connection from birth to close.

    `changed` is called whenever a request may have come to its end: TLS is up, TLS has ended, a timer was allowed to
    pass. `phase` is the relay at work. `busy` says what is under way: `start`, `stop`, `renew` or nothing.
    """

    __slots__ = (
        "allow_timeout",
        "busy",
        "changed",
        "ever_started",
        "forget_session",
        "phase",
        "reactor",
        "record",
    )

    def __init__(self, reactor: Reactor, record: Record, dial: Callable[[], socket.socket]) -> None:
        self.reactor = reactor
        self.record = record
        self.phase: ClearPhase | TlsPhase = ClearPhase(self, dial)
        self.busy: str | None = None
        self.ever_started = False
        self.forget_session = False
        self.allow_timeout = False
        self.changed: Callable[[], None] = _nothing

    @property
    def over(self) -> bool:
        """Whether the connection has ended."""
        return self.phase.over

    @property
    def is_open(self) -> bool:
        """Whether both directions are open, or on their way to be."""
        return not self.phase.over and self.phase.life.state in (
            State.NEW,
            State.DIALING,
            State.HANDSHAKE,
            State.JUDGING,
            State.OPEN,
        )

    # Starting TLS

    def start(self, descriptor: socket.socket, *, allow_timeout: bool = False) -> None:
        """Fix the place in both directions where TLS starts; `supply` then gives the environment for it.

        `descriptor` is the program's own socket, closed here as soon as it is of no more use. Raises
        NotEstablishedError, and then nothing has changed. Only for a connection in clear that is not busy.
        """
        phase = self.phase
        assert isinstance(phase, ClearPhase)
        assert self.busy is None
        try:
            place = position(descriptor)
        except BaseException:
            descriptor.close()
            raise
        self.busy = "start"
        self.ever_started = True
        self.allow_timeout = allow_timeout
        phase.freeze(descriptor, place)

    def supply(self, environment: Environment) -> None:
        """Give the environment that TLS is to start with."""
        phase = self.phase
        if isinstance(phase, ClearPhase) and not phase.over:
            phase.environment = environment
            self.reactor.guard(phase, phase.settle)

    def refuse(self, reason: Reason, detail: str) -> None:
        """End the connection because there is no environment to start TLS with."""
        self.phase.abort(reason, detail)

    def is_settled(self) -> bool:
        """Say whether nothing that the program had not read is left on its side of the connection.

        Only then may the program hear that TLS is starting: whatever it reads from now on comes out of the engine.
        """
        return not isinstance(self.phase, ClearPhase) or self.phase.over or self.phase.descriptor is None

    def settle(self) -> None:
        """Look again whether everything is in place; for whoever waits for `is_settled`, now and then."""
        phase = self.phase
        if isinstance(phase, ClearPhase) and not phase.over:
            self.reactor.guard(phase, phase.settle)

    def begin_tls(self, old: ClearPhase, leftover: bytes) -> None:
        """Change from clear to TLS; `leftover` is what the network has brought and the program has not read."""
        assert old.environment is not None
        new = TlsPhase(self, old, old.environment, leftover)
        self.phase = new
        new.happened(Event.STARTED)

    def started(self) -> None:
        """Note that TLS is up."""
        self.busy = None
        self.changed()

    # Ending TLS

    def stop(self, descriptor: socket.socket) -> str | None:
        """End TLS behind everything the program has written; closes `descriptor`.

        Returns None, or `read` or `write` where data is pending that way, and then nothing has changed. Raises
        NotEstablishedError. Only for a secure connection that is not busy.
        """
        phase = self.phase
        assert isinstance(phase, TlsPhase)
        assert self.busy is None
        with contextlib.closing(descriptor):
            place = position(descriptor)
            # The kernel may hold back the acknowledgement of what the program has long read; this makes it send it.
            descriptor.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            assert phase.app is not None
            if unread(descriptor) or phase.app_unsent or unacknowledged(phase.app):
                return "read"
            if phase.net_unsent:
                return "write"
        self.busy = "stop"
        self.reactor.guard(phase, lambda: phase.stop_at(place))
        return None

    def begin_clear(self, old: TlsPhase, leftover: bytes) -> None:
        """Change from TLS to clear; `leftover` is what the network has sent behind its close_notify."""
        record = self.record
        record.protocol = record.cipher = record.cipher4 = record.key_share = None
        record.peer_certificate = record.peer_subject = record.cert_user = None
        record.resumed = False
        record.status = NOT_SECURE
        new = ClearPhase(self, old.dial)
        new.take_over(old, State.OPEN)
        self.phase = new
        self.busy = None
        new.resume(leftover)
        self.changed()

    # Sessions and keys

    def reset_session(self) -> None:
        """See to it that no later connection resumes the session of this one."""
        self.forget_session = True
        if isinstance(self.phase, TlsPhase):
            self.phase.environment.forget(self.phase.destination)

    def renew(self) -> bool:
        """Start a new handshake on the live connection; False where the TLS library cannot (TLS 1.3)."""
        phase = self.phase
        assert isinstance(phase, TlsPhase)
        if self.record.protocol == "TLSv1.3" or phase.engine is None:
            return False
        self.busy = "renew"
        self.reactor.guard(phase, phase.renew)
        return True


def _nothing() -> None:
    return


class ClearPhase(ClearRelay):
    """The connection in clear; once frozen, it carries what was written before the switch and then hands over."""

    __slots__ = ("control", "descriptor", "environment", "frozen", "leftover", "place", "unsent")

    def __init__(self, control: Controlled, dial: Callable[[], socket.socket]) -> None:
        super().__init__(control.reactor, control.record, dial)
        self.control = control
        self.frozen = False
        self.place = 0
        self.unsent = b""
        self.leftover = b""
        self.descriptor: socket.socket | None = None
        self.environment: Environment | None = None

    def take_over(self, old: Relay, state: State) -> None:
        """Continue with the sockets of `old`, which is not told of their end."""
        _take_over(self, old)
        self.life = Lifecycle(CLEAR)
        self.life.state = state

    def resume(self, leftover: bytes) -> None:
        """Carry on in clear after TLS; `leftover` goes to the program before everything else."""
        if leftover:
            self.inward.pipe = lend()
            self.inward.held = os.write(self.inward.pipe[1], leftover)
            assert self.inward.held == len(leftover)
        self.dialed = select.EPOLLIN | select.EPOLLOUT
        self.relay()

    def relay(self) -> None:
        """Start both directions, or what the switch left of them."""
        if not self.frozen:
            super().relay()
            return
        # The program asked for TLS while we were still dialling.
        for sock in (self.net, self.app):
            assert sock is not None
            if sock.fileno() not in self.reactor.handlers:
                self.reactor.watch(sock, self._on_event)
        self._wait()

    def _pump_in(self) -> None:
        if not self.frozen:
            super()._pump_in()

    def _pump_out(self) -> None:
        if not self.frozen:
            super()._pump_out()

    def freeze(self, descriptor: socket.socket, place: int) -> None:
        """Carry the program's bytes up to `place` and nothing more; nothing at all to the program."""
        self.frozen = True
        self.place = place
        self.descriptor = descriptor
        if self.life.state is State.OPEN:
            self._wait()

    def _wait(self) -> None:
        for sock in (self.net, self.app):
            assert sock is not None
            self.reactor.handlers[sock.fileno()] = self._on_event
        self.reactor.arm(self, BARRIER_SECONDS)
        self.settle()

    def _on_event(self, mask: int) -> None:
        if mask & select.EPOLLERR:
            net = self.net
            broken = net is None or net.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.abort(errors.PEER_RESET if broken else errors.APP_RESET)
        else:
            self.settle()

    def settle(self) -> None:
        """Do what can be done now, and hand over once nothing is left and the environment is there."""
        if self.over or not self.frozen or (self.descriptor is not None and not self._read_back()):
            return
        if self.life.state is State.OPEN and self._carry_rest() and self.environment is not None:
            self.control.begin_tls(self, self.leftover)

    def _read_back(self) -> bool:
        """Take back what the program has not read; False while something is still on its way to it."""
        descriptor, app = self.descriptor, self.app
        assert descriptor is not None
        parts = [self.leftover]
        size = len(self.leftover)
        for look in range(3):
            # Order matters: once nothing is under way any more, one more read sees all there is.
            settled = app is None or not unacknowledged(app)
            with contextlib.suppress(OSError):  # EAGAIN; any other error comes up on our own end
                while size <= MOST_READ_BACK and (part := descriptor.recv(65536, socket.MSG_DONTWAIT)):
                    parts.append(part)
                    size += len(part)
            if settled or size > MOST_READ_BACK:
                break
            if look == 0:
                # Makes the kernel send an acknowledgement that it was holding back.
                descriptor.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        else:
            self.leftover = b"".join(parts)
            return False
        self.descriptor = None
        descriptor.close()
        self.record.bytes_in -= size  # the program never had them
        if self.inward.held and self.inward.pipe is not None:
            parts.append(os.read(self.inward.pipe[0], self.inward.held))
            size += self.inward.held
            self.inward.held = 0
        self.leftover = b"".join(parts)
        if size > MOST_READ_BACK or (self.leftover and not looks_like_tls(self.leftover[0])):
            self.abort(errors.CLEARTEXT, "behind the request to start TLS")
            return False
        return True

    def _carry_rest(self) -> bool:
        """Send what the program wrote before the switch; False while the network does not take it."""
        app, net, record, way = self.app, self.net, self.record, self.outward
        assert app is not None
        assert net is not None
        try:
            while way.held:
                assert way.pipe is not None
                moved = os.splice(way.pipe[0], net.fileno(), way.held, flags=os.SPLICE_F_NONBLOCK)
                way.held -= moved
                record.bytes_out += moved
            while self.unsent:
                sent = net.send(self.unsent)
                self.unsent = self.unsent[sent:]
        except BlockingIOError:
            return False
        except OSError as error:
            self.abort(errors.PEER_RESET, error.strerror or "")
            return False
        while record.bytes_out < self.place:
            try:
                part = app.recv(min(self.place - record.bytes_out, 65536))
            except BlockingIOError:
                return False
            except OSError as error:
                self.abort(errors.APP_RESET, error.strerror or "")
                return False
            if not part:
                self.abort(errors.APP_RESET, "the program ended the connection while TLS was starting")
                return False
            record.bytes_out += len(part)
            try:
                sent = net.send(part)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.abort(errors.PEER_RESET, error.strerror or "")
                return False
            if sent < len(part):
                self.unsent = part[sent:]
                return False
        return True

    def expired(self) -> None:
        """Judge a passed deadline."""
        if self.frozen and self.life.state is State.OPEN:
            self.abort(errors.HANDSHAKE_SLOW, "what was written before TLS could not be sent")
        else:
            super().expired()

    def closed(self) -> None:
        """Give everything back, the program's descriptor first of all."""
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            descriptor.close()
        super().closed()


def _take_over(new: Relay, old: Relay) -> None:
    """Move the sockets of a living connection from one relay to another."""
    new.app, new.net, old.app, old.net = old.app, old.net, None, None
    new.gate = old.gate
    new.reactor.disarm(old)
    old.over = True
    new.reactor.connections[new.record.connid] = new


class TlsPhase(RenewingRelay):
    """The connection under TLS that its program has asked for; it knows where a record ends and clear bytes begin."""

    most = _CHUNK

    __slots__ = ("control", "end_place", "notified", "peer_stopped", "unfed")

    def __init__(self, control: Controlled, old: ClearPhase, environment: Environment, leftover: bytes) -> None:
        super().__init__(control.reactor, control.record, old.dial, environment)
        self.life = Lifecycle(CONTROLLED)
        self.control = control
        self.unfed = leftover  # bytes from the network that the engine has not got: the start of a record, or clear
        self.end_place = -1  # the program's byte at which TLS ends
        self.notified = False  # our close_notify is written
        self.peer_stopped = False  # the peer's close_notify has come
        old.closed()
        _take_over(self, old)
        assert self.app is not None
        assert self.net is not None
        self.reactor.handlers[self.app.fileno()] = self._on_app_early
        self.dialed = select.EPOLLIN

    # The handshake

    def _on_app_early(self, mask: int) -> None:
        """Note what the program does during the handshake; what it writes waits in the kernel."""
        if mask & select.EPOLLERR:
            self.abort(errors.APP_RESET)

    def shake_hands(self) -> None:
        """Start the handshake, first with what the network has sent already."""
        if not self.unfed:
            super().shake_hands()
            return
        self.dialed = 0  # not yet: what came first is fed first
        super().shake_hands()
        self.dialed = select.EPOLLIN
        if not self.over and self._heard_from_peer(self.unfed):
            self._feed_handshake()
            if not self.over and self.life.state is State.HANDSHAKE:
                self._on_handshake(select.EPOLLIN)

    def _on_handshake(self, mask: int) -> None:
        if mask & select.EPOLLOUT and self.net_unsent:
            self._flush_net()
        if not mask & READABLE:
            return
        while self.life.state is State.HANDSHAKE and not self.over:
            net = self.net
            assert net is not None
            try:
                chunk = net.recv(RECORD)
            except BlockingIOError:
                return
            except OSError as error:
                self.abort(errors.PEER_RESET, error.strerror or "")
                return
            if not chunk:
                self.abort(errors.PEER_CLOSED_HANDSHAKE)
                return
            self.unfed += chunk
            if not self._heard_from_peer(chunk):
                return
            self._feed_handshake()

    def _heard_from_peer(self, chunk: bytes) -> bool:
        """Look at what the peer has sent; False when it is no TLS and the connection has ended."""
        if not self.heard:
            self.heard = True
            if not looks_like_tls(chunk[0]):
                self.abort(errors.CLEARTEXT)
                return False
            self._arm_handshake(1)
        if not self.environment.is_server:
            self._judge_resumption(chunk)
        return True

    def _feed_handshake(self) -> None:
        """Give whole records to the engine, one by one, as long as the handshake lasts."""
        engine = self.engine
        while self.life.state is State.HANDSHAKE and not self.over and engine is not None:
            record, rest = _split(self.unfed)
            if not record:
                return
            self.unfed = rest
            engine.bio_write(record)
            self._step_handshake()

    def _accept(self) -> None:
        super()._accept()
        if not self.over:
            self.control.started()

    def relay(self) -> None:
        """Start both byte loops, first with what came behind the handshake."""
        app, net = self.app, self.net
        assert app is not None
        assert net is not None
        self.reactor.handlers[net.fileno()] = self.on_net
        self.reactor.handlers[app.fileno()] = self.on_app
        self.app_ready = True
        assert self.engine is not None
        self.engine_key, self.net_key, self.app_key = crossing.keys(net, app, self.engine)
        if self.unfed:
            count = len(self.unfed)
            _received[:count] = self.unfed
            if not self._passed_in(*self._take_records(app, self.engine, count)):
                self.net_ready = True
        if not self.over and not self.app_unsent:
            self._pump_net()
        if not self.over and self.app_ready:
            self._pump_app()

    # Carrying bytes

    def on_net(self, mask: int) -> None:
        """Handle an event of the network socket."""
        super().on_net(mask)
        if self.notified and not self.over:
            self._finish_stop()

    @property
    def has_heard_the_end(self) -> bool:
        """Whether the peer's close_notify has come; what follows it is for the program's next request."""
        return self.peer_stopped or self.app_ended

    def _pump_net(self, mask: int = ENDED) -> None:
        if self.peer_stopped and not self.over and not self.app_unsent:
            self._look_behind_close_notify()
        else:
            super()._pump_net(mask)

    def _turn_inward(self, net: socket.socket, app: socket.socket | None, engine: Engine) -> Turn:
        """Read behind what the engine has not got yet, and take the whole records."""
        start = len(self.unfed)
        _received[:start] = self.unfed
        received = crossing.receive(net, start, _CHUNK)
        if received <= 0 or self.app_ended:  # nothing counts once the program has been told of the end
            return received, 0, 0, None
        return start + received, *self._take_records(app, engine, start + received)

    def _take_records(
        self, app: socket.socket | None, engine: Engine, size: int
    ) -> tuple[int, int, EngineError | None]:
        """Decrypt the whole records among the first `size` received bytes, up to a close_notify; forward the bytes."""
        position = made = 0
        ending: EngineError | None = None
        try:
            while not self.peer_stopped and position + 5 <= size:
                end = position + 5 + (_received[position + 3] << 8 | _received[position + 4])
                if end > size:
                    if end - position <= _LONGEST_RECORD:
                        break
                    end = size  # no record is so long: let the engine say so
                crossing.feed(engine, position, end)
                position = end
                try:
                    made += crossing.open(engine, made)  # one record, so there is nothing behind it
                except WantReadError as error:
                    ending = error
                except ZeroReturnError:
                    self.peer_stopped = True
                    ending = WantReadError()  # whether the stream ends with it is not said yet
        except EngineError as error:
            ending = error
        self.unfed = bytes(_received[position:size])
        return made, crossing.hand_on(app, made) if app is not None else 0, ending

    def _passed_in(self, made: int, sent: int, ending: EngineError | None) -> bool:
        more = super()._passed_in(made, sent, ending)
        if self.over or self.engine is None:
            return False
        self._look_at_handshake()
        if self.peer_stopped and not self.over:
            self._peer_has_stopped()
            return False
        return more

    def _pump_app(self, mask: int = ENDED) -> None:
        if self.renewing or self.notified:
            self.app_ready = True
        elif self.end_place < 0:
            super()._pump_app(mask)
        else:
            self._pump_rest()

    # Ending TLS, keeping the connection

    def _peer_has_stopped(self) -> None:
        """Decide whether the peer's close_notify is the end of TLS or of the stream."""
        self.net_ready = True
        if self.end_place >= 0:
            self._finish_stop()
        elif self.life.state is State.APP_DONE:
            self._end_of_stream()
        elif self.record.map_type == "Secondary":
            self._grace_is_over()
        else:
            self.reactor.arm(self, GRACE_SECONDS)
            self._look_behind_close_notify()

    def _look_behind_close_notify(self) -> None:
        """End the stream if nothing but its end follows; what else follows waits for the program's request."""
        if self.unfed or self.end_place >= 0 or self.net is None or self.app_ended:
            return
        self.net_ready = True
        with contextlib.suppress(BlockingIOError, ConnectionError):
            if not self.net.recv(1, socket.MSG_PEEK):
                self._end_of_stream()

    def _end_of_stream(self) -> None:
        if not self.app_ended:
            self.reactor.disarm(self)
            self.happened(Event.NET_CLOSED)

    def stop_at(self, place: int) -> None:
        """End TLS after the program's byte number `place`."""
        self.end_place = place
        self._arm_stop()
        self._pump_rest()

    def _arm_stop(self) -> None:
        self.reactor.arm(self, float(self.environment.settings.handshake_timeout) or STOP_SECONDS)

    def _pump_rest(self) -> None:
        """Encrypt what is left up to the end of TLS, then say close_notify."""
        engine, record = self.engine, self.record
        if self.over or self.notified or engine is None:
            return
        if self.net_unsent or self.renewing:
            self.app_ready = True
            return
        while record.bytes_out < self.end_place:
            most = min(RECORD, self.end_place - record.bytes_out)
            received, made, sent, failure = self._turn_outward(engine, most=most)
            if received < 0:
                self._stumbled(errors.APP_RESET, received)
                return
            if not received:
                self.abort(errors.APP_RESET, "the program ended the connection while TLS was ending")
                return
            record.bytes_out += received
            if not self._passed_out(made, sent, failure):
                return
        self.notified = True
        try:
            engine.shutdown()
        except EngineError as error:
            self._fail(error)
            return
        self.net_unsent += self._take_from_engine()
        self._flush_net()
        self._finish_stop()

    def _finish_stop(self) -> None:
        if self.peer_stopped and self.notified and not self.over and not self.net_unsent and not self.app_unsent:
            leftover, self.unfed = self.unfed, b""
            self.closed()
            self.control.begin_clear(self, leftover)

    def on_app(self, mask: int) -> None:
        """Handle an event of the program's socket."""
        super().on_app(mask)
        if self.notified and not self.over:
            self._finish_stop()

    # Fresh keys

    def _renewed(self) -> None:
        super()._renewed()
        if self.control.busy == "renew":
            self.control.started()
        if self.end_place >= 0:
            self._arm_stop()

    # Ending

    def end_net(self) -> None:
        """End our direction; if the peer has said close_notify before, the other one is over as well."""
        super().end_net()
        if self.peer_stopped and not self.over:
            self._end_of_stream()

    def expired(self) -> None:
        """Judge a passed deadline."""
        if self.over:
            return
        if self.life.state is State.HANDSHAKE and not self.heard and self.control.allow_timeout:
            self._back_to_clear()
        elif self.end_place >= 0:
            self.abort(errors.STOP_SLOW)
        elif self.peer_stopped and not self.renewing and self.life.state is State.OPEN:
            self._grace_is_over()
        else:
            super().expired()

    def _grace_is_over(self) -> None:
        """End the stream: the program has not asked for the end of TLS, so clear bytes would be a fault."""
        with contextlib.suppress(OSError):
            assert self.net is not None
            if self.unfed or self.net.recv(1, socket.MSG_PEEK):
                self.abort(errors.CLEARTEXT, "behind the end of TLS")
                return
        self._end_of_stream()

    def _back_to_clear(self) -> None:
        """Go on in clear: the peer has said nothing at all, and the program allowed for that."""
        assert self.app is not None
        if unread(self.app):
            self.abort(errors.HANDSHAKE_SILENT, "and the program had already written what was meant for TLS")
            return
        self.engine = None
        self.control.begin_clear(self, b"")

    def keep_session(self) -> None:
        """Keep a client's session, unless the program asked for it to be forgotten."""
        if not self.control.forget_session:
            super().keep_session()


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return the first TLS record of `data` and the rest; an empty record while it is not whole."""
    if len(data) < 5:
        return b"", data
    end = 5 + (data[3] << 8 | data[4])
    if end > _LONGEST_RECORD:
        return data, b""  # no record is so long: let the engine say so
    return (data[:end], data[end:]) if len(data) >= end else (b"", data)


__all__ = ["Controlled", "NotEstablishedError", "position", "unread"]
