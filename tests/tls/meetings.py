"""Handshakes in memory between an environment of ours and the standard library, for tests of what comes out."""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass, field
from typing import Any

from OpenSSL import SSL

from attls.errors import Reason
from attls.tls import EngineError, Environment, WantReadError
from tests.relay.street import client_context, server_context

HERE = ("192.0.2.1", 443)


@dataclass
class Meeting:
    """What came out of one handshake: both ends, why ours refused, what the other was told, what we sent first."""

    ours: SSL.Connection
    other: ssl.SSLObject
    reason: Reason | None = None
    complaint: str = ""
    first_flight: bytes = b""
    sent: list[bytes] = field(default_factory=list)

    @property
    def certificate(self) -> set[str]:
        """Return the DNS names of the certificate that the other end was shown."""
        shown: Any = self.other.getpeercert() or {}
        return {value for kind, value in shown.get("subjectAltName", ()) if kind == "DNS"}


def meet(
    environment: Environment,
    context: ssl.SSLContext | None = None,
    *,
    name: str | None = "server.test",
    session: ssl.SSLSession | None = None,
    now: float = 0.0,
    piece: int = 65536,
) -> Meeting:
    """Run a handshake with the standard library, which gets `context`; bytes for us come in pieces of `piece`."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    if environment.is_server:
        context = context or client_context()
        if name is None:
            context.check_hostname = False
        other = context.wrap_bio(incoming, outgoing, server_hostname=name, session=session)
    else:
        other = (context or server_context()).wrap_bio(incoming, outgoing, server_side=True)
    meeting = Meeting(environment.engine(HERE, now), other)
    for _ in range(12):
        try:
            other.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            meeting.complaint = str(error)
        received = outgoing.read()
        for start in range(0, len(received), piece):
            meeting.ours.bio_write(received[start : start + piece])
            _step(environment, meeting, incoming)
        _step(environment, meeting, incoming)
        if meeting.reason is not None:
            with contextlib.suppress(ssl.SSLWantReadError):
                try:
                    other.do_handshake()
                except ssl.SSLWantReadError:
                    raise
                except ssl.SSLError as error:
                    meeting.complaint = str(error)
            break
    if meeting.reason is None and not meeting.complaint:
        with contextlib.suppress(ssl.SSLWantReadError):
            other.read(1)  # takes in session tickets
        with contextlib.suppress(WantReadError):
            meeting.ours.recv(1)
    return meeting


def close(environment: Environment, meeting: Meeting, now: float = 0.0) -> None:
    """End a meeting in order, so that its session may be resumed."""
    with contextlib.suppress(ssl.SSLError):
        meeting.other.unwrap()
    meeting.ours.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
    environment.remember(meeting.ours, HERE, now)


def _step(environment: Environment, meeting: Meeting, incoming: ssl.MemoryBIO) -> None:
    if meeting.reason is not None:
        return
    try:
        meeting.ours.do_handshake()
    except WantReadError:
        pass
    except EngineError as error:
        meeting.reason, _ = environment.explain(meeting.ours, error)
    with contextlib.suppress(WantReadError):
        while True:
            sent = meeting.ours.bio_read(65536)
            meeting.first_flight = meeting.first_flight or sent
            meeting.sent.append(sent)
            incoming.write(sent)
