"""A worker's control channel on loopback, without privileges: service, switchboard and desk in a thread of their own.

`Exchange.outbound()` gives a program's socket and its peer, `inbound()` likewise; the relay sits between them as it
would after interception. The peers are plain sockets, so a test can put any byte on the wire.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import errno
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio

from attls import client
from attls.control import protocol
from attls.control.server import Desk
from attls.daemon.service import Law, Service
from attls.daemon.switchboard import Switchboard
from attls.intercept import Owners
from attls.keyring import UserMap
from attls.model import UNKNOWN_OWNER, Direction, Endpoint, Flow, HandshakeRole, Owner, TlsSettings, Verdict
from attls.observe import Ledger, Record
from attls.relay import Reactor
from attls.tls import Environment
from tests.relay.street import ring, settings

SECONDS = 20.0
_names = itertools.count()


class Gate:
    """A listener of ours: what is accepted is a flow in `direction`; `targets` says where to dial for each."""

    def __init__(self, direction: Direction) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as our listeners do; accepted ones inherit it
        self.direction = direction
        self.target: tuple[str, int] = ("127.0.0.1", 9)

    def intercepted(self, accepted: socket.socket) -> Flow:
        here, there = Endpoint.of(accepted.getsockname()), Endpoint.of(accepted.getpeername())
        if self.direction is Direction.OUTBOUND:
            return Flow(self.direction, there, here)
        return Flow(self.direction, Endpoint.of(self.target), there)

    def dial(self, flow: Flow) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(self.target)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            raise OSError(code, os.strerror(code))
        return sock


class AnyOwner:
    """Says nobody and everybody; the cookies are the kernel's."""

    def __init__(self) -> None:
        self._owners = Owners()

    def of_outbound(self, flow: Flow, *, complete: bool = False) -> Owner:
        return UNKNOWN_OWNER

    def of_listener(self, flow: Flow, *, complete: bool = False) -> Owner | None:
        return UNKNOWN_OWNER

    def complete(self, owner: Owner) -> Owner:
        return owner

    def cookie(self, local: Endpoint, remote: Endpoint) -> int | None:
        return self._owners.cookie(local, remote)

    def close(self) -> None:
        self._owners.close()


class OneVerdict:
    """A policy with one answer."""

    def __init__(self, verdict: Verdict) -> None:
        self.rules = ()
        self.verdict = verdict

    def match(self, flow: Flow, owner: Owner, now: datetime) -> Verdict:
        return self.verdict


def verdict_of(wanted: TlsSettings | None, *, enabled: bool = True, rule: str | None = "rule") -> Verdict:
    if rule is None:
        return Verdict()
    return Verdict(rule, enabled, "group", "environment", None, 2, wanted)


class Exchange:
    """One worker; use it with `with`."""

    def __init__(self, path: Path, wanted: TlsSettings | None = None, *, verdict: Verdict | None = None) -> None:
        self.run_dir = path / f"run{next(_names)}"
        self.run_dir.mkdir()
        self.settings = wanted
        self.verdict = verdict if verdict is not None else verdict_of(wanted)
        self.gates = {direction: Gate(direction) for direction in Direction}
        self.records: list[Record] = []
        self._started = threading.Event()
        self._token: Any = None
        self._scope = trio.CancelScope()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Exchange:
        self._thread.start()
        assert self._started.wait(SECONDS)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        trio.from_thread.run_sync(self._scope.cancel, trio_token=self._token)
        self._thread.join(SECONDS)
        for gate in self.gates.values():
            gate.sock.close()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001 - raised by __exit__
            self._failure = error
        finally:
            self._started.set()

    async def _main(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(self.run_dir / "control.sock"))
        listener.listen(128)
        owners = AnyOwner()
        self.reactor = Reactor()
        self.ledger = Ledger()
        self.service = Service(
            self.ledger, self.reactor, owners, listeners=list(self.gates.values()), ask_ring=self._no_ring
        )
        generation = SimpleNamespace(number=1, policy=OneVerdict(self.verdict), users=UserMap())
        law = Law(generation)  # type: ignore[arg-type]
        if self.settings is not None:
            names = ("server.test",) if self.settings.role is not HandshakeRole.CLIENT else ()
            law.of_rule["rule"] = law.environments[self.settings] = Environment(self.settings, ring(*names))
        self.service.law = law
        self.switchboard = Switchboard(self.service, owners)
        self.ledger.on_change = self._changed
        desk = Desk(
            self.switchboard.handle, listener=listener, inbox=None, neighbour=None, clock=time.monotonic,
            most_clients=64,
        )  # fmt: skip
        self.desk = desk
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.service.run)
                await nursery.start(self.switchboard.run, desk)
                self.service.open()
                self._token = trio.lowlevel.current_trio_token()
                self._started.set()
                await trio.sleep_forever()
        owners.close()

    def _changed(self, record: Record) -> None:
        if record not in self.records:
            self.records.append(record)
        self.switchboard.changed(record)

    async def _no_ring(self, generation: int, reference: str, user: str) -> Any:
        raise AssertionError("no connection has a ring of its own here")

    def call(self, function: Callable[[], Any]) -> Any:
        """Run something in the worker's thread and return what it returns."""
        return trio.from_thread.run_sync(function, trio_token=self._token)

    # Connections

    @contextlib.contextmanager
    def outbound(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Yield the socket of a program that has connected, and its peer's."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(SECONDS)
            gate = self.gates[Direction.OUTBOUND]
            gate.target = server.getsockname()
            program = socket.create_connection(gate.sock.getsockname(), timeout=SECONDS)
            program.settimeout(None)
            peer, _ = server.accept()
        with program, peer:
            _prepare(program, peer)
            yield program, peer

    @contextlib.contextmanager
    def inbound(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Yield the socket of a program that has accepted, and its peer's."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(SECONDS)
            gate = self.gates[Direction.INBOUND]
            gate.target = server.getsockname()
            peer = socket.create_connection(gate.sock.getsockname(), timeout=SECONDS)
            program, _ = server.accept()
        with program, peer:
            _prepare(program, peer)
            yield program, peer

    def connection(self, direction: Direction) -> Any:
        """Return `inbound()` or `outbound()`."""
        return self.inbound() if direction is Direction.INBOUND else self.outbound()

    # Requests

    def ask(
        self,
        descriptors: list[int],
        packet: bytes,
        *,
        timeout: float = SECONDS,
    ) -> protocol.Reply:
        """Send one packet as it is, with any descriptors, and return the reply."""
        with self.raw() as sock:
            sock.settimeout(timeout)
            send(sock, packet, descriptors)
            return protocol.parse_reply(sock.recv(protocol.LARGEST_REPLY))

    def request(self, program: socket.socket, **fields: Any) -> protocol.Reply:
        """Make a version 1 request with these fields."""
        return self.ask([program.fileno()], protocol.Ioctl(**fields).pack())

    def raw(self) -> socket.socket:
        """Return a connection to the control socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(self.run_dir / "control.sock"))
        return sock

    def query(self, program: Any, **options: Any) -> client.Status:
        return client.query(program, run_dir=self.run_dir, **options)

    def start(self, program: Any, **options: Any) -> client.Status:
        return client.start_tls(program, run_dir=self.run_dir, **options)

    def stop(self, program: Any) -> client.Status:
        return client.stop_tls(program, run_dir=self.run_dir)

    def descriptors(self) -> int:
        """Return how many descriptors this process has open."""
        return len(list(Path("/proc/self/fd").iterdir()))


def send(sock: socket.socket, packet: bytes, descriptors: list[int]) -> None:
    """Send a packet with descriptors."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([packet], ancillary)


def _prepare(*socks: socket.socket) -> None:
    for sock in socks:
        sock.settimeout(SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def controlled(role: HandshakeRole = HandshakeRole.SERVER, **changes: Any) -> TlsSettings:
    """Return settings under application control."""
    return dataclasses.replace(settings(role), application_controlled=True, **changes)


def in_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    """Start a function in a thread; what is returned waits for it and gives its result, or raises what it raised."""
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            failure.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(SECONDS)
        assert not thread.is_alive(), "still busy"
        if failure:
            raise failure[0]
        return outcome[0]

    return result
