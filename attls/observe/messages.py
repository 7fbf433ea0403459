"""The EZD128xI messages, as operators and their log scanners know them; pure text, decided by the Trace mask.

Which bit writes what: 1 and 2 write failures (EZD1287I for the console, EZD1286I for the log), 4 writes the mapping of
a connection to its rule (EZD1281I), 8 writes events (EZD1282I when one starts, EZD1283I when it is over). Nothing in
a message comes from application data, and whatever a program could choose (its name, for one) is made printable
first, so that nobody forges a log line.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
from typing import TextIO

from attls.errors import BAD_MAC, CLEARTEXT, ENVIRONMENT, PEER_RESET, TRUNCATED, UNREACHABLE, Reason
from attls.model import Direction, Endpoint, Flow, Owner, Verdict

CONSOLE_ERROR, ERROR, INFO, EVENT, FLOW, DATA = 1, 2, 4, 8, 16, 32
NOT_AVAILABLE = "**N/A**"

INITIAL_HANDSHAKE = "Initial Handshake"
CONNECTION_CLOSE = "Connection Close"
POLICY_MAPPING = "Policy Mapping"

_TYPES = {Direction.INBOUND: "InBound", Direction.OUTBOUND: "OutBound"}
# Syslog severities; journald reads a leading <n> on a line of stderr as the line's priority.
_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


def socket_name(endpoint: Endpoint) -> str:
    """Write an endpoint as netstat does, `9.42.104.21..1026`."""
    return f"{endpoint.address}..{endpoint.port}"


def printable(text: str) -> str:
    """Return `text` with everything that could end or forge a log line escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _or_missing(text: str | None) -> str:
    return printable(text) if text else NOT_AVAILABLE


def _actions(verdict: Verdict) -> str:
    return " ".join(map(_or_missing, (verdict.group, verdict.environment, verdict.connection)))


def policy_status(verdict: Verdict) -> str:
    """Say how policy treats the connection: `Enabled`, `Not Enabled` or `Appl Control`."""
    if not verdict.enabled:
        return "Not Enabled"
    if verdict.settings is not None and verdict.settings.application_controlled:
        return "Appl Control"
    return "Enabled"


def mapped(connid: int, flow: Flow, owner: Owner, *, verdict: Verdict) -> str:
    """EZD1281I: the connection matched a rule."""
    return (
        f"EZD1281I TTLS Map CONNID: {connid:08X} LOCAL: {socket_name(flow.local)} REMOTE: {socket_name(flow.remote)} "
        f"JOBNAME: {_or_missing(owner.job)} USERID: {_or_missing(owner.user)} TYPE: {_TYPES[flow.direction]} "
        f"STATUS: {policy_status(verdict)} RULE: {_or_missing(verdict.rule)} ACTIONS: {_actions(verdict)}"
    )


def started(connid: int, event: str, *, verdict: Verdict, identifiers: tuple[int, int], detail: str = "") -> str:
    """EZD1282I: an event begins; `identifiers` are those of the group and the environment, 0 for none."""
    group, environment = identifiers
    text = (
        f"EZD1282I TTLS Start GRPID: {group:08X} ENVID: {environment:08X} CONNID: {connid:08X} "
        f"{event} ACTIONS: {_actions(verdict)}"
    )
    return f"{text} {printable(detail)}" if detail else text


def finished(connid: int, event: str, *, code: int, identifiers: tuple[int, int], detail: str = "") -> str:
    """EZD1283I: an event is over, with return code `code`."""
    group, environment = identifiers
    text = f"EZD1283I TTLS Event GRPID: {group:08X} ENVID: {environment:08X} CONNID: {connid:08X} RC: {code:4} {event}"
    return f"{text} {printable(detail)}" if detail else text


def failed(
    connid: int,
    flow: Flow,
    owner: Owner,
    *,
    verdict: Verdict,
    identifiers: tuple[int, int],
    reason: Reason,
    event: str,
    detail: str = "",
) -> str:
    """EZD1286I: a failure, on one line, for the log; ends with the reason in words."""
    group, environment = identifiers
    explanation = f"{reason.text}: {detail}" if detail else reason.text
    return (
        f"EZD1286I TTLS Error GRPID: {group:08X} ENVID: {environment:08X} CONNID: {connid:08X} "
        f"LOCAL: {socket_name(flow.local)} REMOTE: {socket_name(flow.remote)} JOBNAME: {_or_missing(owner.job)} "
        f"USERID: {_or_missing(owner.user)} RULE: {_or_missing(verdict.rule)} RC: {reason.code:4} {event} "
        f"- {printable(explanation)}"
    )


def failed_console(
    connid: int,
    flow: Flow,
    owner: Owner,
    *,
    verdict: Verdict,
    identifiers: tuple[int, int],
    reason: Reason,
    event: str,
) -> str:
    """EZD1287I: the same failure as the console block of five lines."""
    group, environment = identifiers
    return (
        f"EZD1287I TTLS Error RC: {reason.code:4} {event}\n"
        f"   LOCAL: {socket_name(flow.local)}\n"
        f"   REMOTE: {socket_name(flow.remote)}\n"
        f"   JOBNAME: {_or_missing(owner.job)} RULE: {_or_missing(verdict.rule)}\n"
        f"   USERID: {_or_missing(owner.user)} GRPID: {group:08X} ENVID: {environment:08X} CONNID: {connid:08X}"
    )


def is_failure(reason: Reason, status: str) -> bool:
    """Tell failures from the ordinary ways in which connections end.

    A reset by the peer of a connection that was up is ordinary; during the handshake it is not. A destination that
    cannot be reached has no return code, for on z/OS the program's own connect fails; here only the log can tell.
    """
    if reason == PEER_RESET:
        return status == "Handshake"
    return reason.code != 0 or reason == UNREACHABLE


def event_of(reason: Reason, status: str) -> str:
    """Name the event in which `reason` struck a connection that was in `status`."""
    if reason == ENVIRONMENT:
        return "Environment Init"
    if status == "Secure" and reason in (BAD_MAC, TRUNCATED, CLEARTEXT):
        return "Data Decryption"
    return INITIAL_HANDSHAKE if status == "Handshake" else CONNECTION_CLOSE


class JournalFormatter(logging.Formatter):
    """Put the syslog priority journald understands before every line of a log entry."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the entry with `<n>` in front of each of its lines."""
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class BackgroundHandler(logging.Handler):
    """Write the log in a thread of its own, so that whoever reads it slowly, or not at all, holds up no connection.

    When `most` entries wait, further ones are left out, and the log says how many as soon as somebody reads again.
    """

    def __init__(self, stream: TextIO, *, most: int = 10_000) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: queue.Queue[str | None] = queue.Queue(most)
        self._left_out = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one entry."""
        try:
            text = self.format(record)
            if self._left_out:
                self._waiting.put_nowait(f"{self._left_out} log entries were left out, nobody read them in time")
                self._left_out = 0
            self._waiting.put_nowait(text)
        except queue.Full:
            self._left_out += 1
        except Exception:  # noqa: BLE001 - what every logging handler does with a bug in a log call
            self.handleError(record)

    def close(self) -> None:
        """Give what waits a second to be written."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
            self._thread.join(1.0)
        super().close()

    def _write(self) -> None:
        while (text := self._waiting.get()) is not None:
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more; connections go on
                self._stream.write(text + "\n")
                self._stream.flush()


def configure_log(stream: TextIO | None = None, *, journal: bool = False) -> BackgroundHandler:
    """Send everything the house logs to `stream` (standard error), for journald when `journal` says so.

    The caller closes the handler at the end; until then entries are written as somebody reads them.
    """
    handler = BackgroundHandler(stream or sys.stderr)
    handler.setFormatter(JournalFormatter() if journal else logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("attls")
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG)  # what is written is decided by each rule's Trace mask, not here
    log.propagate = False
    return handler
