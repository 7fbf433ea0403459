"""The real SIOCTTLSCTL ioctl under `attls exec`: held calls become petitions of the control channel, and back.

What a request means, and what it does to a connection, is the switchboard's to know; the wire format of the control
channel is the structure and the buffer that the program's memory holds. So this is a matter of copying: the request out
of the program's memory, once, and the reply into it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol, cast

import trio

from attls.control import protocol, status
from attls.control.protocol import CONTROLLING, IOCTL_SIZE, LARGEST_BUFFER, Call, Ioctl, Junior, RefusalError
from attls.daemon.exec_law import Law
from attls.daemon.secondary import Primaries
from attls.daemon.switchboard import Switchboard
from attls.intercept import doorway
from attls.intercept.reach import Programs
from attls.intercept.seccomp import Notification
from attls.intercept.unprivileged_owner import owner_of
from attls.model import Direction, Endpoint, Flow, TlsSettings
from attls.observe import Ledger, Record
from attls.relay import Reactor
from attls.tls import Environment


class Settles(Protocol):
    """Answers held calls."""

    def is_held(self, petition: Petition) -> bool:
        """Tell whether the thread of `petition` still waits; if not, its number may be another one's by now."""

    def settle(self, petition: Petition, number: int) -> None:
        """Have the call of `petition` return 0 or fail with errno `number`."""


class Petition:
    """One held ioctl, as the switchboard wants to see a request (`attls.control.server.Petition`).

    Owns `sock`, our duplicate of the program's socket. Raises OSError where the structure cannot be read, or the socket
    is not connected; nothing is left open then.
    """

    def __init__(self, calls: Settles, notification: Notification, sock: socket.socket, programs: Programs) -> None:
        self._calls = calls
        self._programs = programs
        self._answered = False
        self.notification = notification
        self.sock = sock
        self.seen = 0
        self.when_abandoned: Callable[[], None] | None = None
        try:
            self.packet = self._read()
            self.cookie = doorway.cookie(sock)
            self.local = Endpoint.of(sock.getsockname())
            self.remote = Endpoint.of(sock.getpeername())
            self.waits = os.get_blocking(sock.fileno())
            self.process = programs.process(notification.thread)
        except OSError:
            sock.close()
            raise
        self.call: Call = Call(Ioctl(), protocol.Request.QUERY_ONLY)

    def parse(self) -> None:
        """Hold the request against the rules that need no connection. Raises RefusalError."""
        self.call = protocol.parse_request(self.packet)

    def _read(self) -> bytes:
        thread = self.notification.thread
        packet = self._programs.read(thread, self.notification.arguments[2], IOCTL_SIZE)
        ioctl = Ioctl.unpack(packet)
        if ioctl.version == protocol.VERSION2 and ioctl.buffer and ioctl.buffer_length:
            packet += self._programs.read(thread, ioctl.buffer, min(ioctl.buffer_length, LARGEST_BUFFER))
        return packet

    def take_socket(self) -> socket.socket:
        """Return the program's socket, which the caller then owns."""
        return socket.socket(fileno=os.dup(self.sock.fileno()))

    def let_socket_go(self) -> None:
        """Close our copy of the program's socket before the answer: it must not outlive the program's own."""
        self.sock.close()

    def pass_on(self, *, rounds: int = 1) -> bool:
        """There is nobody else to ask."""
        return False

    def refuse(self, number: int, junior: int = Junior.OK) -> None:
        """Answer with an errno and no output."""
        self.answer(protocol.refuse(self.packet, RefusalError(number, junior)))

    def answer(self, packet: bytes) -> None:
        """Put the reply into the program's memory and let the call return."""
        self.sock.close()
        if self._answered:
            return
        self._answered = True
        reply = protocol.parse_reply(packet)
        thread, number = self.notification.thread, reply.errno
        if self._calls.is_held(self):
            try:
                if reply.contents:
                    self._programs.write(thread, Ioctl.unpack(self.packet).buffer, reply.contents)
                self._programs.write(thread, self.notification.arguments[2], reply.ioctl.pack())
            except OSError as error:
                number = error.errno or errno.EFAULT
        self._calls.settle(self, number)

    def abandoned(self) -> None:
        """Note that the call is over: answered, or gone with its thread."""
        self.sock.close()
        if not self._answered:
            self._answered = True
            if self.when_abandoned is not None:
                self.when_abandoned()


class _Office:
    """What the switchboard knows of a service, for a program alone."""

    def __init__(self, law: Law, ledger: Ledger, reactor: Reactor) -> None:
        self.law = law
        self.ledger = ledger
        self.reactor = reactor
        self.switchboard: Switchboard | None = None
        self.primaries = Primaries()

    def closed(self, record: Record) -> None:
        """Forget a primary that has ended; harmless for any other connection."""
        self.primaries.remove(record.worker, record.connid)

    def accept_waiting(self) -> None:
        """Do nothing: a connection is known from its first moment."""

    async def environment_of_user(self, law: Law, settings: TlsSettings, user: str | None) -> Environment:
        """Return the environment for `settings`; raises KeyringError or TlsError."""
        await trio.lowlevel.checkpoint()
        return law.environment(settings, user)


class Board(Switchboard):
    """The switchboard of one program; connections are found by socket cookie beforehand."""

    def __init__(self, law: Law, ledger: Ledger, reactor: Reactor) -> None:
        office = _Office(law, ledger, reactor)
        super().__init__(cast(Any, office), cast(Any, None))
        self.primaries = office.primaries
        self._law = law
        self._record: Record | None = None

    async def stand_by(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run what requests have to wait for, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def admitted(self, record: Record, law: Any = None) -> None:
        """Note a new connection."""
        super().admitted(record, cast(Any, law or self._law))

    def answer(self, petition: Petition, record: Record | None) -> None:
        """Answer `petition`, which is about the connection `record`, or see to it that it is answered."""
        self._record = record
        try:
            petition.parse()
            self.handle(cast(Any, petition))
        except RefusalError as refusal:
            petition.answer(protocol.refuse(petition.packet, refusal))
        finally:
            self._record = None

    def _find(self, petition: Any) -> Record | None:
        return self._record

    def _answer_unknown(self, petition: Any) -> None:
        """Judge a connection that we do not carry by the policy, whichever side opened it."""
        flow = Flow(Direction.OUTBOUND, petition.local, petition.remote)
        owner = owner_of(petition.process, petition.sock, complete=self._law.wants_job(flow))
        verdict = self._law.match(flow, owner)
        if verdict.rule is None:
            verdict = self._law.match(Flow(Direction.INBOUND, petition.local, petition.remote), owner)
        number = errno.EOPNOTSUPP if petition.call.request & CONTROLLING else 0
        outputs, items = status.verdict_only(verdict), status.names_only(verdict)
        petition.answer(protocol.answer(petition.call, outputs, number=number, items=items))
