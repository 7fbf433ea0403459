"""A street for relay tests: a reactor on loopback between a peer and a program, both played by the test.

`Street` relays every connection made to `address` to the listener the test names, inbound (TLS from the peer) or
outbound (TLS to the peer), or in clear. Certificates come from a session-wide CA; the other end of TLS is the standard
library's ssl, so two implementations must agree.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache

import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attls.keyring import Entry, Keyring, Trust, Usage
from attls.model import (
    UNKNOWN_OWNER,
    Direction,
    Endpoint,
    Flow,
    HandshakeRole,
    Protocol,
    TlsSettings,
    Verdict,
)
from attls.observe import Ledger, Record
from attls.relay import Reactor
from attls.tls import Environment

TLS12 = frozenset({Protocol.TLSV1_2})
TLS13 = frozenset({Protocol.TLSV1_3})
BOTH = TLS12 | TLS13


@cache
def authority() -> trustme.CA:
    """Return the CA of this test session."""
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@cache
def leaf(name: str) -> trustme.LeafCert:
    """Return a certificate for `name` issued by the session's CA."""
    return authority().issue_cert(name, common_name=name, key_type=trustme.KeyType.ECDSA)


def der(pem: bytes) -> bytes:
    """Return the DER encoding of a PEM certificate."""
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def ring(*names: str, ca: trustme.CA | None = None) -> Keyring:
    """Return a ring with the CA and a certificate for each name, the first one being the default."""
    anchor = ca or authority()
    entries = [
        Entry("TEST", name, Usage.PERSONAL, index == 0, Trust.TRUST, der(leaf(name).cert_chain_pems[0].bytes()),
              leaf(name).private_key_pem.bytes())
        for index, name in enumerate(names)
    ]  # fmt: skip
    entries.append(Entry("CERTAUTH", "CA", Usage.CERTAUTH, False, Trust.TRUST, der(anchor.cert_pem.bytes())))
    return Keyring("TEST/RING", tuple(entries))


def settings(role: HandshakeRole = HandshakeRole.SERVER, **changes: object) -> TlsSettings:
    """Return settings for a role, TLS 1.2 and 1.3, with `changes` applied."""
    plain = TlsSettings(role=role, keyring="TEST/RING", protocols=BOTH)
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def server_context(version: ssl.TLSVersion | None = None, name: str = "server.test") -> ssl.SSLContext:
    """Return a standard library server context with the CA and a certificate for `name`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    leaf(name).configure_cert(context)
    authority().configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def client_context(version: ssl.TLSVersion | None = None, *, identity: str | None = None) -> ssl.SSLContext:
    """Return a standard library client context that trusts the CA."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    if identity is not None:
        leaf(identity).configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class Street:
    """A reactor with one listener in front of `target`; `records` holds every connection's record, oldest first."""

    def __init__(self, reactor: Reactor, listener: socket.socket, ledger: Ledger) -> None:
        self.reactor = reactor
        self.listener = listener
        self.ledger = ledger
        self.records: list[Record] = []
        self.address: tuple[str, int] = listener.getsockname()[:2]

    async def ended(self, count: int = 1) -> list[Record]:
        """Wait until `count` connections have been carried and all are closed; return their records."""
        with trio.fail_after(30):
            while len(self.records) < count or self.reactor.connections:
                await trio.sleep(0.01)
        return self.records


@asynccontextmanager
async def street(
    target: Callable[[], socket.socket] | socket.socket,
    *,
    direction: Direction = Direction.INBOUND,
    environment: Environment | None,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[Street]:
    """Relay connections to `target`, a listening socket or a dial function, until the block is left."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    reactor = Reactor(clock=clock) if clock else Reactor()
    ledger = Ledger()
    made = Street(reactor, listener, ledger)

    def dial() -> socket.socket:
        if not isinstance(target, socket.socket):
            return target()
        sock = socket.socket()
        sock.setblocking(False)
        code = sock.connect_ex(target.getsockname())
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            raise OSError(code, "refused")
        return sock

    def accepted(_mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, peer = listener.accept()
                sock.setblocking(False)
                flow = Flow(direction, Endpoint.of(sock.getsockname()), Endpoint.of(peer))
                verdict = Verdict(
                    "rule", True, "group", "environment", None, 2, environment.settings if environment else None
                )
                record = ledger.open(flow, UNKNOWN_OWNER, verdict, generation=0)
                made.records.append(record)
                reactor.carry(sock, record, dial=dial, environment=environment)

    reactor.watch_listener(listener, accepted)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run)
            yield made
            nursery.cancel_scope.cancel()
    finally:
        listener.close()
