"""A proxy for tests: takes steered connections and relays them, one thread per direction.

In place of TLS it turns over the bits of every byte towards the network, so that a clear byte on the wire is a leak.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from attls.errors import Reason
from attls.intercept import Owners, Routes, dial_inbound, dial_outbound, intercepted, local_uids, nft, open_listeners
from attls.model import Conditions, Direction, Flow, Owner, PortRange
from tests.namespaces import Namespace

_TURNED = bytes(number ^ 0x55 for number in range(256))


def turned(data: bytes) -> bytes:
    """Return what `data` looks like on the network, and the other way round."""
    return data.translate(_TURNED)


def reset(sock: socket.socket) -> None:
    """Close a connection with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


@dataclass(frozen=True)
class Ruling:
    """A verdict reduced to what steering looks at."""

    enabled: bool = True


@dataclass(frozen=True)
class Rule:
    """A policy rule reduced to what steering looks at."""

    conditions: Conditions
    verdict: Ruling = Ruling()
    name: str = "rule"


EVERYTHING = Rule(Conditions(frozenset(Direction)), name="everything")


def rule(
    *,
    port: int,
    direction: Direction,
    enabled: bool = True,
    user: str | None = None,
) -> Rule:
    """Build a rule on the server's port: the remote one outbound, the local one inbound."""
    ports = (PortRange(port, port),)
    return Rule(
        Conditions(
            directions=frozenset({direction}),
            local_ports=ports if direction is Direction.INBOUND else (),
            remote_ports=ports if direction is Direction.OUTBOUND else (),
            user=user,
        ),
        Ruling(enabled),
    )


@dataclass
class TurningProxy:
    """Runs in a namespace until `close`; `flows` and `owners` tell what came by, `loops` counts what was refused."""

    where: Namespace
    rules: Iterable[Rule]
    workers: int = 1
    flows: list[Flow] = field(default_factory=list)
    owners: list[Owner | None] = field(default_factory=list)
    by_worker: list[int] = field(default_factory=list)
    refused: list[Reason] = field(default_factory=list)
    nobody: list[Flow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._stopping = False
        with self.where.inside():
            self.listeners = open_listeners(self.workers)
            self.routes = Routes()
            self.routes.install()
            self.load(self.rules)
            for number, worker in enumerate(self.listeners.workers):
                for listener in (*worker.outbound, *worker.inbound):
                    direction = Direction.OUTBOUND if listener in worker.outbound else Direction.INBOUND
                    listener.settimeout(0.1)
                    self._start(self._accept, listener, direction, number)

    def load(self, rules: Iterable[Rule]) -> None:
        """Put other rules in force."""
        with self.where.inside():
            nft.apply(self.text(rules))

    def text(self, rules: Iterable[Rule]) -> str:
        """Render rules for this proxy's ports."""
        return nft.render(
            tuple(rules),
            outbound_port=self.listeners.outbound_port,
            inbound_port=self.listeners.inbound_port,
            own_uid=0,
            uids_of=local_uids,
        )

    def die(self) -> None:
        """End as if killed: every socket is closed, the table and the routes stay."""
        self._stopping = True
        for thread in [thread for thread in self._threads if thread.name == "_accept"]:
            thread.join()
        self.listeners.close()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for data
        for thread in self._threads:
            thread.join()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def close(self) -> None:
        """End and take the table and the routes away."""
        self.die()
        with self.where.inside():
            nft.remove()
            self.routes.remove()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name=target.__name__, daemon=True)  # type: ignore
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, direction: Direction, worker: int) -> None:
        owners = Owners()
        while not self._stopping:
            try:
                accepted, _ = listener.accept()
            except OSError:
                continue
            accepted.settimeout(None)
            ports = (self.listeners.outbound_port, self.listeners.inbound_port)
            found = intercepted(accepted, direction, ports)
            if isinstance(found, Reason):
                self.refused.append(found)
                accepted.close()
                continue
            self.flows.append(found.flow)
            self.by_worker.append(worker)
            if direction is Direction.OUTBOUND:
                owner: Owner | None = owners.of_outbound(found.flow, complete=True)
            else:
                owner = owners.of_listener(found.flow, complete=True)
            self.owners.append(owner)
            if owner is None:
                self.nobody.append(found.flow)
                reset(accepted)
                continue
            try:
                upstream = (dial_outbound if direction is Direction.OUTBOUND else dial_inbound)(found.flow)
            except OSError:
                reset(accepted)
                continue
            upstream.settimeout(None)
            self._sockets |= {accepted, upstream}
            self._start(self._pump, accepted, upstream)
            self._start(self._pump, upstream, accepted)
        owners.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            source.send(b"")  # waits for the connect
            while data := source.recv(65536):
                sink.sendall(turned(data))
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for sock in (source, sink):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def turning_proxy(where: Namespace, *rules: Rule, workers: int = 1) -> Iterator[TurningProxy]:
    """Run a proxy for the length of a test."""
    proxy = TurningProxy(where, rules, workers)
    try:
        yield proxy
    finally:
        proxy.close()
