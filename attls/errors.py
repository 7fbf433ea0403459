"""The whole family of errors on one screen, and the reason every failed connection is given.

Rule of the house: an operator reads the sentence, a program reads the number, and both come from `Reason`. The
numbers are those of AT-TLS (5001-5999) and System SSL (below 5000), so that existing run books keep working.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Reason:
    """Why a connection ended: `code` as AT-TLS numbers it, `word` for metrics and logs, `text` for people.

    Reasons are compared by identity; those with a name of their own are the constants below.
    """

    code: int
    word: str
    text: str


DONE = Reason(0, "done", "both sides closed in order")
STOPPED = Reason(0, "stopped", "attls was stopped")
APP_RESET = Reason(0, "program-reset", "the program reset the connection")
PEER_RESET = Reason(420, "peer-reset", "the peer reset the connection")
TRUNCATED = Reason(420, "truncated", "the peer ended the connection without close_notify; data may be missing")
IDLE = Reason(0, "idle", "the half-closed connection was idle for too long")
CLEARTEXT = Reason(5003, "cleartext", "the peer sent cleartext where TLS was expected")
HANDSHAKE_SILENT = Reason(5004, "handshake-silent", "the peer did not start the TLS handshake in time")
HANDSHAKE_SLOW = Reason(5005, "handshake-slow", "the peer did not finish the TLS handshake in time")
STOP_SLOW = Reason(5005, "stop-slow", "the peer did not answer the end of TLS in time")
ENVIRONMENT = Reason(5006, "environment", "the TLS environment could not be initialised")
NO_CLIENT_CERTIFICATE = Reason(5001, "no-client-certificate", "the client sent no certificate")
NO_USER = Reason(5002, "no-user", "the client certificate maps to no user")
UNREACHABLE = Reason(0, "unreachable", "the destination could not be reached")
NO_LISTENER = Reason(0, "no-listener", "no program listens on the destination")
LOOP = Reason(0, "loop", "the connection was made to attls itself")
OVERLOAD = Reason(0, "overload", "too many connections at once, or too few descriptors or too little memory left")
INTERNAL = Reason(6001, "internal", "an error inside attls; please report the traceback in the log")
PEER_CLOSED_HANDSHAKE = Reason(406, "peer-closed", "the peer closed the connection during the handshake")
NAME_MISMATCH = Reason(414, "name-mismatch", "the server certificate does not carry the name that policy asks for")
PROTOCOL = Reason(410, "protocol", "the peer broke the TLS protocol")
NO_SERVER_NAME = Reason(447, "no-server-name", "the client asked for no host name, and policy requires one")
UNKNOWN_SERVER_NAME = Reason(447, "unknown-server-name", "the client asked for a host name that policy does not list")
UNCONFIRMED_NAME = Reason(447, "unconfirmed-name", "the server did not confirm the host name it was asked for")
NO_MASTER_SECRET = Reason(462, "no-master-secret", "the peer has no extended master secret, and policy requires it")
NO_INDICATION = Reason(434, "no-renegotiation-info", "the client does not indicate secure renegotiation")
NO_FRAGMENT = Reason(448, "no-fragment-length", "the client asks for no record length, and policy requires one")
BAD_HELLO = Reason(410, "bad-hello", "the peer's first message is no ClientHello that could be read")
BAD_MAC = Reason(411, "bad-mac", "a TLS record did not decrypt")


class AttlsError(Exception):
    """Anything we expect to go wrong; `str()` is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding in a policy text: `severity` is `error` or `warning`; line and column count from 1."""

    severity: str
    file: str
    line: int
    column: int
    code: str
    message: str
    hint: str | None = None
    source: str | None = None
    length: int = 1


class PolicyError(AttlsError):
    """A policy that cannot be used; `diagnostics` holds every finding, errors and warnings, in file order."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        count = sum(finding.severity == "error" for finding in self.diagnostics)
        super().__init__(f"the policy has {count} error{'' if count == 1 else 's'}")


class KeyringError(AttlsError):
    """A ring, certificate or key that cannot be used; `code` is the System SSL return code (202, 407, 428 …)."""

    def __init__(self, text: str, code: int = 202) -> None:
        self.code = code
        super().__init__(text)


class InterceptError(AttlsError):
    """The kernel or a system tool refused what interception needs."""


class DaemonError(AttlsError):
    """The daemon could not start, or could not be reached."""


class AttlsControlError(AttlsError):
    """A request on the control channel that was not carried out: `errno` and `junior` as ioctl would tell them."""

    def __init__(self, number: int, reason: str, junior: int = 0) -> None:
        self.errno = number
        self.reason = reason
        self.junior = junior
        super().__init__(reason)


class TlsError(AttlsError):
    """A TLS failure of one connection, already turned into the `reason` that every display shows."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason.text)
