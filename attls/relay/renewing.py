"""Fresh keys for a connection that lives on: a new handshake inside the old protection, up to TLS 1.2 (RFC 5746).

It begins when policy's ResetCipherTimer has passed and the next data has gone through, when the program asks for it
(`controlled`), or when the peer does. A client begins by itself. A server can only ask its client, who may pass over
that: then the old keys stay until the timer has passed again.

The program's data waits from the moment of asking until the handshake is over. The library seals nothing in between,
and clients take it for an error if data comes while they begin. Data from the network goes on, for the peer may have
sent some before it heard of the handshake.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from attls import errors
from attls.observe import Record
from attls.relay.connection import ENDED, IDLE_SECONDS, READABLE
from attls.relay.lifecycle import State
from attls.relay.secure import SecureRelay
from attls.tls import EngineError, Environment, WantReadError

if TYPE_CHECKING:
    from attls.relay.reactor import Reactor

RENEWAL_SECONDS = 10.0  # how long a new handshake may take, where the policy sets no time
PATIENCE_SECONDS = 2.0  # how long the program's data waits for a client to begin one, when only the timer asks
MOST_KEPT = 4 << 20  # bytes kept for a program that does not read while its peer is in a handshake
_AT_REST = b"SSL negotiation finished successfully"  # what the library says of an engine that is in no handshake


class RenewingRelay(SecureRelay):
    """A connection under TLS whose keys may be renewed while it lasts."""

    __slots__ = ("asking", "due", "renewing")

    def __init__(
        self, reactor: Reactor, record: Record, dial: Callable[[], socket.socket], environment: Environment
    ) -> None:
        super().__init__(reactor, record, dial, environment)
        self.renewing = False  # the program's data waits for a handshake
        self.asking = False  # and that is for the client to begin, who need not
        self.due = float("inf")  # when the keys have served for as long as policy lets them

    def _accept(self) -> None:
        self._wind()
        super()._accept()

    def _wind(self) -> None:
        seconds = self.environment.settings.reset_cipher_timer
        if seconds:
            self.due = self.reactor.clock() + seconds

    def on_net(self, mask: int) -> None:
        """Handle an event of the network socket; a handshake goes on although the program does not keep up."""
        if self.renewing and self.app_unsent and mask & READABLE and not mask & select.EPOLLERR:
            if mask & select.EPOLLOUT and self.net_unsent:
                self._resume_app()
            self._pump_net(mask)
        else:
            self._handle_net(mask)

    def on_app(self, mask: int) -> None:
        """Handle an event of the program's socket."""
        self._handle_app(mask)

    def _pump_net(self, mask: int = ENDED) -> None:
        if self.renewing and self.app_unsent:
            self._read_on()
        else:
            super()._pump_net(mask)
        self._look_at_handshake()
        self._renew_if_due()

    @property
    def has_heard_the_end(self) -> bool:
        """Whether the peer has said that it will send no more under TLS."""
        return self.app_ended

    def _read_on(self) -> None:
        """Read what the handshake waits for; data that comes with it is kept behind what the program has not taken.

        The program may be waiting for us to take what it writes, and will not read before: so we must not wait for it.
        """
        self.net_ready = True
        while len(self.app_unsent) < MOST_KEPT and not self.over and not self.has_heard_the_end:
            net, engine = self.net, self.engine
            assert net is not None
            assert engine is not None
            received, made, sent, ending = self._turn_inward(net, None, engine)
            if received < 0:
                self.net_ready = False
                self._stumbled(errors.PEER_RESET, received)
                return
            if not received:
                self.abort(errors.TRUNCATED)
                return
            kept, self.app_unsent = self.app_unsent, b""
            self._passed_in(made, sent, ending)
            self.app_unsent = kept + self.app_unsent

    def _pump_app(self, mask: int = ENDED) -> None:
        if self.renewing:
            self.app_ready = True
        else:
            super()._pump_app(mask)
            self._renew_if_due()

    def _renew_if_due(self) -> None:
        idle = not self.renewing and not self.over
        if idle and self.life.state is State.OPEN and self.reactor.clock() >= self.due:
            self.renew()
            if self.environment.is_server and not self.over:
                self.asking = True
                self.reactor.arm(self, PATIENCE_SECONDS)

    def renew(self) -> None:
        """Start a new handshake, which the program's data waits for, as it does for a client to begin."""
        self._wait()
        self._begin_handshake()

    def _begin_handshake(self) -> None:
        engine = self.engine
        assert engine is not None
        try:
            self.environment.renew(engine)
            engine.do_handshake()
        except WantReadError:
            pass
        except EngineError as error:
            self._fail(error)
            return
        self._send_answers()

    def _look_at_handshake(self) -> None:
        """Have the program's data wait while a handshake is under way, whoever began it, and go on when it is over."""
        engine = self.engine
        if self.over or engine is None or self.record.protocol == "TLSv1.3":  # that has no second handshake
            return
        if engine.get_state_string() != _AT_REST:
            if self.asking or not self.renewing:
                self._wait()
            return
        nobody_will_begin = self.asking and self.has_heard_the_end
        if self.renewing and (nobody_will_begin or not engine.renegotiate_pending()):
            self._renewed()

    def _wait(self) -> None:
        self.renewing, self.asking = True, False
        self.reactor.arm(self, float(self.environment.settings.handshake_timeout * 10) or RENEWAL_SECONDS)
        if self.app_unsent and self.net_ready:
            self.reactor.hungry.append(self._pump_net)

    def _renewed(self) -> None:
        self.renewing = self.asking = False
        if self.life.state is State.OPEN:
            self.reactor.disarm(self)
        else:  # one direction has ended meanwhile, and what is left may not be silent for ever
            self.reactor.arm(self, IDLE_SECONDS)
        self._wind()
        if self.app_ready:
            self.reactor.hungry.append(self._pump_app)

    def expired(self) -> None:
        """Judge a passed deadline."""
        if self.asking:
            self._renewed()
        elif self.renewing and not self.over:
            self.abort(errors.HANDSHAKE_SLOW)
        else:
            super().expired()
