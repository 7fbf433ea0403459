"""For aware and controlling programs: ask about TLS on a connection of your own, start it, stop it.

The connection may be a `socket.socket`, a descriptor, or anything with `fileno()`. Nothing is linked, nothing is
wrapped: the program goes on reading and writing its own socket. Only the standard library is used.

    status = attls.client.query(sock)             # who is at the other end, under which policy?
    status = attls.client.start_tls(sock)         # STARTTLS has been agreed: from this byte on it is TLS

On a blocking socket a call returns the final outcome. On a non-blocking one `start_tls` and `stop_tls` return at once
with `status.in_progress`; an event loop uses `begin` instead and waits until the `Pending` is readable:

    with attls.client.begin(sock, attls.client.Request.INIT_CONNECTION) as pending:
        await trio.lowlevel.wait_readable(pending)
        status = pending.result()
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from attls.control import protocol
from attls.control.protocol import ConnectionStatus, Key, PolicyStatus, Request, SecurityType
from attls.errors import AttlsControlError

__all__ = [
    "AttlsControlError",
    "ConnectionStatus",
    "Pending",
    "PolicyStatus",
    "Request",
    "SecurityType",
    "Status",
    "begin",
    "query",
    "reset_cipher",
    "reset_session",
    "start_tls",
    "stop_tls",
]

DEFAULT_RUN_DIR = "/run/attls"
_BUFFER = 16 * 1024
_ASK_ALL = protocol.build_header(tuple(Key))
_ASK = protocol.build_header(tuple(key for key in Key if key is not Key.CERTIFICATE))


class HasFileno(Protocol):
    """Anything with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


Connection = HasFileno | int


@dataclass(frozen=True, slots=True)
class Status:
    """What AT-TLS knows of a connection.

    `policy` and `connection` always count. `security_type` is set where a policy is mapped; `protocol` (`TLSv1.3`),
    `cipher` (four hex digits) and `key_share` (four digits) where the connection is secure. `user` is the user that the
    partner's certificate maps to. `certificate` is that certificate (DER). `rule`, `group_action`,
    `environment_action` and `connection_action` are names from the policy. `host_matched` says of a client connection
    whether the server's certificate was held against a name that the policy gives. `in_progress` means that the
    request has been started on a non-blocking socket: wait until it is writable, then query.
    """

    policy: PolicyStatus
    connection: ConnectionStatus
    security_type: SecurityType
    protocol: str | None = None
    cipher: str | None = None
    key_share: str | None = None
    user: str | None = None
    certificate: bytes | None = None
    rule: str | None = None
    group_action: str | None = None
    environment_action: str | None = None
    connection_action: str | None = None
    host_matched: bool | None = None
    in_progress: bool = False

    @property
    def is_secure(self) -> bool:
        """Whether the connection is protected now."""
        return self.connection is ConnectionStatus.SECURE


_PROTOCOLS = {
    0x0200: "SSLv2",
    0x0300: "SSLv3",
    0x0301: "TLSv1",
    0x0302: "TLSv1.1",
    0x0303: "TLSv1.2",
    0x0304: "TLSv1.3",
}


class Pending:
    """A request under way; `fileno()` becomes readable when `result` has an answer. Close it, best with `with`."""

    def __init__(self, sock: socket.socket, request: Request) -> None:
        self._sock = sock
        self._request = request

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._sock.fileno()

    def result(self, timeout: float | None = None) -> Status:
        """Return the outcome, waiting for it at most `timeout` seconds (None: as long as it takes).

        Raises AttlsControlError with the errno of the request; ETIMEDOUT when there is no answer in time.
        """
        try:
            if timeout is not None:
                _wait(self._sock, timeout)
            packet = self._sock.recv(protocol.LARGEST_REPLY)
        except OSError as error:
            raise AttlsControlError(
                error.errno or errno.EIO, f"no answer from the attls daemon: {error.strerror}"
            ) from error
        return _status(packet)

    def close(self) -> None:
        """Wait no longer; a request that has been accepted goes on."""
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def query(connection: Connection, *, certificate: bool = False, run_dir: str | Path | None = None) -> Status:
    """Return the status of a connection, with the partner's certificate if asked for.

    Raises AttlsControlError: EWOULDBLOCK while the handshake of a non-blocking socket runs, ENOTCONN, ….
    """
    return _ask(connection, Request.QUERY_ONLY, run_dir, certificate=certificate)


def start_tls(
    connection: Connection,
    *,
    allow_handshake_timeout: bool = False,
    certificate: bool = False,
    run_dir: str | Path | None = None,
) -> Status:
    """Start TLS: what was written before goes in clear, everything after it is protected.

    With `allow_handshake_timeout` (servers only) a client that sends nothing at all leaves the connection in clear;
    look at the status. Raises AttlsControlError: ECONNRESET when the handshake failed, EACCES when the policy does not
    give control, EALREADY, EOPNOTSUPP, ….
    """
    request = Request.INIT_CONNECTION
    if allow_handshake_timeout:
        request |= Request.ALLOW_HSTIMEOUT
    return _ask(connection, request, run_dir, certificate=certificate)


def stop_tls(connection: Connection, *, run_dir: str | Path | None = None) -> Status:
    """End TLS and keep the connection; both sides must have agreed on it.

    Raises AttlsControlError: EPROTO when data is still to be read or sent, EALREADY when there is no TLS, ….
    """
    return _ask(connection, Request.STOP_CONNECTION, run_dir)


def reset_session(connection: Connection, *, run_dir: str | Path | None = None) -> Status:
    """Have no later connection resume this one's session; raises AttlsControlError."""
    return _ask(connection, Request.RESET_SESSION, run_dir)


def reset_cipher(connection: Connection, *, run_dir: str | Path | None = None) -> Status:
    """Renew the keys of a live connection (TLS 1.2 and older); raises AttlsControlError, EOPNOTSUPP for TLS 1.3."""
    return _ask(connection, Request.RESET_CIPHER, run_dir)


def begin(
    connection: Connection, request: Request, *, certificate: bool = False, run_dir: str | Path | None = None
) -> Pending:
    """Make a request whose final outcome comes through the `Pending`, whatever mode the socket is in.

    The connection must stay open until then. Raises AttlsControlError when the daemon cannot be reached.
    """
    return _begin(connection, request, run_dir, certificate=certificate, flags=protocol.FLAG_WAIT)


def _ask(connection: Connection, request: Request, run_dir: str | Path | None, *, certificate: bool = False) -> Status:
    # A socket with a timeout looks blocking to its program, but is not to the kernel.
    timeout = connection.gettimeout() if isinstance(connection, socket.socket) else None
    flags = protocol.FLAG_WAIT if timeout else 0
    with _begin(connection, request, run_dir, certificate=certificate, flags=flags) as pending:
        return pending.result(timeout or None)


def _begin(
    connection: Connection, request: Request, run_dir: str | Path | None, *, certificate: bool, flags: int
) -> Pending:
    descriptor = connection if isinstance(connection, int) else connection.fileno()
    ioctl = protocol.Ioctl(
        version=protocol.VERSION2, request=request.value, flags=flags, buffer=1, buffer_length=_BUFFER
    )
    path = f"{run_dir or os.environ.get('ATTLS_RUN_DIR') or DEFAULT_RUN_DIR}/control.sock"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(path)
        sock.sendmsg(
            [ioctl.pack() + (_ASK_ALL if certificate else _ASK)],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))],
        )
    except OSError as error:
        sock.close()
        hint = "is the daemon running, and is ATTLS_RUN_DIR right?"
        if error.errno == errno.EACCES:
            hint = "you may not use it; see `attls run --control-group`"
        raise AttlsControlError(
            error.errno or errno.EIO, f"cannot ask attls at {path}: {error.strerror}; {hint}"
        ) from error
    return Pending(sock, request)


def _wait(sock: socket.socket, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        if time.monotonic() >= deadline:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def _status(packet: bytes) -> Status:
    try:
        reply = protocol.parse_reply(packet)
        items = protocol.read_header(reply.contents) if reply.contents else {}
    except protocol.MalformedError as error:
        raise AttlsControlError(errno.EIO, "the attls daemon hung up without an answer; its log says why") from error
    if reply.errno not in (0, errno.EINPROGRESS):
        raise AttlsControlError(reply.errno, protocol.reason(reply.errno, reply.junior), reply.junior)
    found = reply.ioctl

    def name(key: Key) -> str | None:
        item = items.get(key)
        return item.decode(errors="replace") if item is not None else None

    host = items.get(Key.HOST_STATUS)
    return Status(
        policy=PolicyStatus(found.policy_status),
        connection=ConnectionStatus(found.connection_status),
        security_type=SecurityType(found.security_type),
        protocol=_PROTOCOLS.get(found.protocol),
        cipher=found.cipher4 or None,
        key_share=found.key_share or None,
        user=name(Key.USER),
        certificate=items.get(Key.CERTIFICATE),
        rule=name(Key.RULE_NAME),
        group_action=name(Key.GROUP_ACTION_NAME),
        environment_action=name(Key.ENVIRONMENT_ACTION_NAME),
        connection_action=name(Key.CONNECTION_ACTION_NAME),
        host_matched=None if host is None else any(host),
        in_progress=reply.errno == errno.EINPROGRESS,
    )
