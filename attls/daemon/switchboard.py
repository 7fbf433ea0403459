"""What a program's request does to its connection: finds the connection, judges the request, carries it out, answers.

The rules are those of the SIOCTTLSCTL ioctl; which requests exclude each other was decided before (control.protocol).
A query is answered at once, in the middle of the relay's work; what has to wait does so in a task of its own, without
the program's socket, which must not outlive the program's own copy.

Which connection a socket belongs to is told by its two addresses and proven by the kernel's cookie of the socket, so
that a socket with the same addresses in another network namespace is never taken for it. A connection that we do not
carry is judged by the policy in force, as the ioctl does when it comes before everything else.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import trio

from attls import errors
from attls.control import protocol, status
from attls.control.protocol import CONTROLLING, EMVSERR, Junior, Request
from attls.control.server import Desk, Petition
from attls.errors import AttlsError
from attls.model import Direction, Endpoint, Flow, HandshakeRole, Owner, TlsSettings
from attls.observe import HANDSHAKE, NOT_SECURE, SECURE, Record
from attls.relay import Controlled, NotEstablishedError
from attls.tls import Environment

if TYPE_CHECKING:
    from attls.daemon.service import Law, Service

# A program that does not wait gets its answer after this much at the latest; it keeps a poll loop from spinning.
PATIENCE_SECONDS = 0.01
SETTLE_SECONDS = 0.001
EXPIRE_SECONDS = 5.0
MOST_WAITING = 512  # connections whose entry waits until somebody asks

_log = logging.getLogger("attls.control")


class OwnersAndSockets(Protocol):
    """Asks the kernel for facts about one socket, and whose it is."""

    def cookie(self, local: Endpoint, remote: Endpoint) -> int | None:
        """Return the cookie of the socket with these ends, None where there is none; raises OSError."""

    def of_outbound(self, flow: Flow, *, complete: bool = False) -> Owner:
        """Return the program whose socket has the ends of `flow`."""

    def of_listener(self, flow: Flow, *, complete: bool = False) -> Owner | None:
        """Return the program that listens where `flow` wants to go, None where nobody does."""


class Directory:
    """Connections by the two ends of the program's socket.

    Most connections come and go without anybody asking about them, so an entry waits until somebody asks; what waits
    is bounded.
    """

    def __init__(self) -> None:
        self._by_ports: dict[int, list[tuple[int, Endpoint, Endpoint]]] = {}
        self._ports: dict[int, int] = {}
        self._waiting: dict[int, tuple[Endpoint, Endpoint | socket.socket]] = {}

    def __len__(self) -> int:
        return len(self._ports) + len(self._waiting)

    def add(self, connid: int, local: Endpoint, remote: Endpoint | socket.socket) -> None:
        """Enter connection `connid`, whose program's socket has these ends; the last entry counts.

        Instead of the far end it may be the socket that has it as its own name, for as long as that is open.
        """
        if connid in self._ports:
            self.remove(connid)
        self._waiting[connid] = (local, remote)
        if len(self._waiting) > MOST_WAITING:
            self._enter()

    def _enter(self) -> None:
        for connid, (local, remote) in self._waiting.items():
            if isinstance(remote, socket.socket):
                try:
                    remote = Endpoint.of(remote.getsockname())
                except OSError:
                    continue  # closed, and about to be struck
            ports = local.port << 16 | remote.port
            self._by_ports.setdefault(ports, []).append((connid, local, remote))
            self._ports[connid] = ports
        self._waiting.clear()

    def remove(self, connid: int) -> None:
        """Strike connection `connid`, if it is there."""
        if self._waiting.pop(connid, None) is not None:
            return
        ports = self._ports.pop(connid, None)
        if ports is not None:
            entries = [entry for entry in self._by_ports[ports] if entry[0] != connid]
            if entries:
                self._by_ports[ports] = entries
            else:
                del self._by_ports[ports]

    def find(self, local: Endpoint, remote: Endpoint) -> int | None:
        """Return the connection whose program's socket has these ends."""
        if self._waiting:
            self._enter()
        for connid, here, there in self._by_ports.get(local.port << 16 | remote.port, ()):
            if here == local and there == remote:
                return connid
        return None


class Switchboard:
    """Answers the programs of one worker's connections; `desk` is set once there is a control socket.

    The service tells of every connection that it admits and dials, the ledger of every change.
    """

    def __init__(
        self,
        service: Service,
        owners: OwnersAndSockets,
        *,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.directory = Directory()
        self.desk: Desk | None = None
        self._service = service
        self._owners = owners
        self._now = now
        self._laws: dict[int, Law] = {}
        self._cookies: dict[int, int] = {}
        self._events: dict[int, trio.Event] = {}
        self._nursery: trio.Nursery | None = None
        service.ledger.on_change = self.changed
        service.switchboard = self

    async def run(self, desk: Desk, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer requests until cancelled; closes the desk."""
        self.desk = desk
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._service.reactor.watch_urgent(desk.fileno(), desk.serve)
                task_status.started()
                while True:
                    await trio.sleep(EXPIRE_SECONDS)
                    desk.expire()
        finally:
            self._service.reactor.unwatch_urgent(desk.fileno())
            desk.close()

    # What the service tells

    def admitted(self, record: Record, law: Law) -> None:
        """Note a new connection; `law` is what it was judged by, and stays its own."""
        flow = record.flow
        if flow.direction is Direction.OUTBOUND:
            self.directory.add(record.connid, flow.local, flow.remote)
        settings = record.verdict.settings
        if settings is not None and settings.application_controlled:
            self._laws[record.connid] = law

    def dialed(self, record: Record, sock: socket.socket) -> None:
        """Note the socket on which an inbound connection goes to its program."""
        if record.flow.direction is Direction.INBOUND:
            self.directory.add(record.connid, record.flow.local, sock)

    def changed(self, record: Record) -> None:
        """Wake whoever waits for this connection; forget it when it has ended."""
        if record.reason is not None:
            self.directory.remove(record.connid)
            self._laws.pop(record.connid, None)
            self._cookies.pop(record.connid, None)
            self._service.closed(record)
        if self._events and (event := self._events.pop(record.connid, None)) is not None:
            event.set()
            self._service.reactor.give_way()

    # Requests

    def handle(self, petition: Petition) -> None:
        """Answer a request, or see to it that it is answered."""
        record = self._find(petition)
        if record is None:
            # It may be so new that nobody has accepted it yet.
            self._service.accept_waiting()
            record = self._find(petition)
        if record is None:
            # Where there are primaries it may be on its way to another worker, which then has it in the second round.
            if not petition.pass_on(rounds=2 if self._service.primaries else 1):
                self._answer_unknown(petition)
            return
        if petition.call.bits & CONTROLLING:
            self._control(petition, record)
        elif self._is_pending(record):
            self._later(self._answer_pending, petition, record)
        else:
            self._report(petition, record)

    def _find(self, petition: Petition) -> Record | None:
        connid = self.directory.find(petition.local, petition.remote)
        record = self._service.ledger.records.get(connid) if connid is not None else None
        if record is None or connid is None:
            return None
        known = self._cookies.get(connid)
        if known is None:
            try:
                known = self._owners.cookie(petition.local, petition.remote)
            except OSError:
                return None
            if known is None:
                return None
            self._cookies[connid] = known
        return record if known == petition.cookie else None

    def _later(
        self, work: Callable[[Petition, Record], trio.abc.AsyncResource | object], petition: Petition, record: Record
    ) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._guarded, work, petition, record)
        self._service.reactor.give_way()

    async def _guarded(self, work: Callable[..., object], petition: Petition, record: Record) -> None:
        with trio.CancelScope() as scope:
            petition.when_abandoned = scope.cancel
            try:
                await work(petition, record)  # type: ignore[misc]
            except Exception:  # noqa: BLE001 - a bug of ours ends this request, never the worker
                _log.exception("internal error while answering the program of connection %08X", record.connid)
                petition.refuse(EMVSERR, Junior.UNEXPECTED_ERROR)

    # Queries

    def _is_pending(self, record: Record) -> bool:
        """Tell whether a handshake is under way, or about to start by itself, whose outcome a query waits for."""
        if record.reason is not None:
            return False
        if record.status == HANDSHAKE:
            return True
        settings = record.verdict.settings
        if settings is None or record.status == SECURE:
            return False
        if not settings.application_controlled:
            return True
        control = self._service.reactor.controls.get(record.connid)
        return control is not None and control.busy == "start"

    async def _answer_pending(self, petition: Petition, record: Record) -> None:
        petition.let_socket_go()
        with trio.move_on_after(float("inf") if petition.waits else PATIENCE_SECONDS):
            await self._until(record, lambda: not self._is_pending(record))
        if self._is_pending(record):
            petition.refuse(errno.EWOULDBLOCK)
        elif record.reason is not None:
            petition.refuse(errno.ECONNRESET, Junior.HANDSHAKE_FAILED)
        else:
            self._report(petition, record)

    async def _until(self, record: Record, done: Callable[[], bool]) -> None:
        while not done() and record.reason is None:
            await self._events.setdefault(record.connid, trio.Event()).wait()

    def _report(self, petition: Petition, record: Record, number: int = 0, junior: int = Junior.OK) -> None:
        call = petition.call
        relay = self._service.reactor.connections.get(record.connid)
        settings = record.verdict.settings
        if relay is not None and (
            call.wants_certificate or (settings is not None and settings.role is HandshakeRole.SERVER_WITH_CLIENT_AUTH)
        ):
            relay.describe()
        petition.answer(
            protocol.answer(
                call,
                status.outputs(record),
                number=number,
                junior=junior,
                certificate=record.peer_certificate if record.status == SECURE else None,
                items=status.items(record) if call.gets is not None else None,
            )
        )

    def _answer_unknown(self, petition: Petition) -> None:
        """Judge a connection that we do not carry by the policy in force, and say that it is not protected."""
        law = self._service.law
        if law is None:
            petition.refuse(EMVSERR, Junior.UNEXPECTED_ERROR)
            return
        inbound = Flow(Direction.INBOUND, petition.local, petition.remote)
        outbound = Flow(Direction.OUTBOUND, petition.local, petition.remote)
        flow = inbound if self._owners.of_listener(inbound) is not None else outbound
        owner: Owner = self._owners.of_outbound(outbound, complete=law.wants_job(flow))
        verdict = law.generation.policy.match(flow, owner, self._now())
        number = errno.EOPNOTSUPP if petition.call.bits & CONTROLLING else 0
        outputs, items = status.verdict_only(verdict), status.names_only(verdict)
        petition.answer(protocol.answer(petition.call, outputs, number=number, items=items))

    def query(self, local: Endpoint, remote: Endpoint) -> dict[str, Any] | None:
        """Return what the program with these ends would learn, as plain JSON values; for operators and scripts.

        The remote end of an inbound connection may be given as the network knows it too.
        """
        self._service.accept_waiting()
        records = self._service.ledger.records
        record = records.get(self.directory.find(local, remote) or 0)
        if record is None:
            ends = (local, remote)
            record = next((each for each in records.values() if (each.flow.local, each.flow.remote) == ends), None)
        if record is None:
            return None
        relay = self._service.reactor.connections.get(record.connid)
        if relay is not None:
            relay.describe()
        return status.plain(record)

    # Control

    def _control(self, petition: Petition, record: Record) -> None:
        """Judge a controlling request and carry it out."""
        settings = record.verdict.settings
        if settings is None:
            self._report(petition, record, errno.EOPNOTSUPP)
            return
        if not settings.application_controlled:
            self._report(petition, record, errno.EACCES, Junior.DENIED_BY_POLICY)
            return
        control = self._service.reactor.controls.get(record.connid)
        if control is None or not control.is_open:
            self._report(petition, record, errno.EPIPE)
            return
        request = petition.call.request
        if control.busy is not None and not (request & Request.INIT_CONNECTION and control.busy == "start"):
            self._later(self._control_once_free, petition, record)
        elif request & Request.INIT_CONNECTION:
            self._start(petition, record, control, settings)
        elif request & Request.STOP_CONNECTION:
            self._stop(petition, record, control)
        else:
            self._refresh(petition, record, control)

    async def _control_once_free(self, petition: Petition, record: Record) -> None:
        """Another request is being carried out: wait for its end, or tell a program that does not wait."""

        def is_free() -> bool:
            control = self._service.reactor.controls.get(record.connid)
            return control is None or control.busy is None

        with trio.move_on_after(float("inf") if petition.waits else PATIENCE_SECONDS):
            await self._until(record, is_free)
        if record.reason is not None:
            petition.refuse(errno.ECONNRESET, Junior.HANDSHAKE_FAILED)
        elif not is_free():
            petition.refuse(errno.EWOULDBLOCK)
        else:
            self._control(petition, record)

    def _start(self, petition: Petition, record: Record, control: Controlled, settings: TlsSettings) -> None:
        if control.busy is not None or record.status != NOT_SECURE:
            self._report(petition, record, errno.EALREADY, Junior.ALREADY_ACTIVE)
            return
        allow = bool(petition.call.request & Request.ALLOW_HSTIMEOUT)
        if allow and (settings.role is HandshakeRole.CLIENT or not settings.handshake_timeout):
            self._report(petition, record, errno.EPROTO)
            return
        law = self._laws[record.connid]
        control.changed = lambda: self.changed(record)
        try:
            control.start(petition.take_socket(), allow_timeout=allow)
        except NotEstablishedError:
            self._report(petition, record, errno.EPIPE)
            return
        petition.let_socket_go()
        environment = law.of_rule.get(record.verdict.rule or "")
        if environment is not None:
            control.supply(environment)
        else:
            assert self._nursery is not None
            self._nursery.start_soon(self._supply, law, settings, record, control)
        if petition.waits or not control.is_settled():
            self._later(self._answer_started, petition, record)
        else:
            self._in_progress(petition, record)

    async def _supply(self, law: Law, settings: TlsSettings, record: Record, control: Controlled) -> None:
        """Get the environment over the ring of the connection's own user."""
        try:
            environment: Environment = await self._service.environment_of_user(law, settings, record.owner.user)
        except AttlsError as error:
            control.refuse(errors.ENVIRONMENT, str(error))
        except Exception:  # noqa: BLE001 - a bug of ours ends this connection, never the worker
            _log.exception("internal error while starting TLS on connection %08X", record.connid)
            control.refuse(errors.INTERNAL, "")
        else:
            control.supply(environment)

    async def _answer_started(self, petition: Petition, record: Record) -> None:
        control = self._service.reactor.controls.get(record.connid)
        pause = SETTLE_SECONDS
        while control is not None and not control.is_settled():
            await trio.sleep(pause)
            pause = min(pause * 2, 0.05)
            control.settle()
        if petition.waits:
            await self._until(record, lambda: control is None or control.busy is None)
            if record.reason is not None:
                petition.refuse(errno.ECONNRESET, Junior.HANDSHAKE_FAILED)
            else:
                self._report(petition, record)
        elif record.reason is not None:
            petition.refuse(errno.ECONNRESET, Junior.HANDSHAKE_FAILED)
        else:
            self._in_progress(petition, record)

    def _in_progress(self, petition: Petition, record: Record) -> None:
        """Tell a program that does not wait: it has been started. The outcome may be there already."""
        if record.reason is not None:
            petition.refuse(errno.ECONNRESET, Junior.HANDSHAKE_FAILED)
            return
        outputs = status.outputs(record)
        if outputs.connection_status == protocol.ConnectionStatus.NOTSECURE:
            outputs = protocol.in_progress(outputs)
        petition.answer(protocol.answer(petition.call, outputs, number=errno.EINPROGRESS))

    def _stop(self, petition: Petition, record: Record, control: Controlled) -> None:
        if not control.ever_started:
            self._report(petition, record, errno.EPROTO)
            return
        if record.status != SECURE:
            self._report(petition, record, errno.EALREADY, Junior.ALREADY_ACTIVE)
            return
        try:
            pending = control.stop(petition.take_socket())
        except NotEstablishedError:
            self._report(petition, record, errno.EPIPE)
            return
        petition.let_socket_go()
        if pending is not None:
            junior = Junior.STOP_READ_DATA_PENDING if pending == "read" else Junior.STOP_WRITE_DATA_PENDING
            self._report(petition, record, errno.EPROTO, junior)
        elif petition.waits:
            self._later(self._answer_stopped, petition, record)
        else:
            petition.answer(protocol.answer(petition.call, status.outputs(record), number=errno.EINPROGRESS))

    async def _answer_stopped(self, petition: Petition, record: Record) -> None:
        controls = self._service.reactor.controls
        await self._until(record, lambda: record.connid not in controls or controls[record.connid].busy is None)
        if record.reason is not None:
            petition.refuse(errno.ECONNRESET, Junior.CONTROL_DATA_FAILED)
        else:
            self._report(petition, record)

    def _refresh(self, petition: Petition, record: Record, control: Controlled) -> None:
        """Carry out the requests that leave TLS up: forget the session, renew keys, send a ticket."""
        request = petition.call.request
        is_tls13 = record.protocol == "TLSv1.3"
        server = record.role != HandshakeRole.CLIENT.value
        if not control.ever_started:
            self._report(petition, record, errno.EPROTO)
            return
        if request & (Request.RESET_CIPHER | Request.RESET_WRITE_CIPHER | Request.SEND_SESSION_TICKET) and (
            record.status != SECURE
            or (request & Request.RESET_WRITE_CIPHER and not is_tls13)
            or (request & Request.SEND_SESSION_TICKET and not (is_tls13 and server))
        ):
            self._report(petition, record, errno.EPROTO)
            return
        if request & Request.RESET_SESSION:
            control.reset_session()
        for bit, junior in (
            (Request.SEND_SESSION_TICKET, Junior.SEND_SESSION_TICKET_FAILED),
            (Request.RESET_WRITE_CIPHER, Junior.RESET_WRITE_CIPHER_FAILED),
            (Request.RESET_CIPHER, Junior.RESET_CIPHER_FAILED),
        ):
            if request & bit and (bit is not Request.RESET_CIPHER or is_tls13):
                _log.warning(
                    "connection %08X: %s refused: %s",
                    record.connid,
                    bit.name,
                    protocol.reason(errno.EOPNOTSUPP, junior),
                )
                self._report(petition, record, errno.EOPNOTSUPP, junior)
                return
        if request & Request.RESET_CIPHER:
            control.changed = lambda: self.changed(record)
            control.renew()
            if petition.waits:
                petition.let_socket_go()
                self._later(self._answer_renewed, petition, record)
                return
        self._report(petition, record)

    async def _answer_renewed(self, petition: Petition, record: Record) -> None:
        controls = self._service.reactor.controls
        await self._until(record, lambda: record.connid not in controls or controls[record.connid].busy is None)
        if record.reason is not None:
            petition.refuse(errno.ECONNRESET, Junior.RESET_CIPHER_FAILED)
        else:
            self._report(petition, record)
