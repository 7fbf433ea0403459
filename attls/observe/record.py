"""One record per connection, opened when it is admitted and closed exactly once, and the ledger that keeps them.

A `Record` is the only mutable noun of the house: the relay adds bytes to it as they pass and writes down what the
handshake brought, displays read it, and closing it writes the log line and moves the counters. All of that happens
on one thread (a worker's), so nothing here is locked.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from attls.errors import DONE, Reason
from attls.model import Direction, Flow, Owner, Verdict
from attls.observe import messages
from attls.observe.metrics import Counts

NOT_SECURE, HANDSHAKE, SECURE = "Not Secure", "Handshake", "Secure"

_SEQUENCE_BITS = 24
_SEQUENCE_MASK = (1 << _SEQUENCE_BITS) - 1

_log = logging.getLogger("attls.connection")


class Record:
    """What is known of one connection; every attribute may be read at any time, even after it was closed.

    `connid` is unique among the live connections of all workers. `bytes_in` counts application data that came from the
    network, `bytes_out` what the program sent. `status` is `Not Secure`, `Handshake` or `Secure`. `cipher` is the IANA
    name, `cipher4` its four hex digits, `peer_certificate` the DER encoding. `opened` and `closed` are seconds since
    the epoch. `reason` is None while the connection lives.
    """

    __slots__ = (
        "_ledger",
        "_status",
        "bytes_in",
        "bytes_out",
        "cert_user",
        "cipher",
        "cipher4",
        "closed",
        "connid",
        "detail",
        "flow",
        "generation",
        "key_share",
        "map_type",
        "opened",
        "owner",
        "peer_certificate",
        "peer_subject",
        "primary",
        "protocol",
        "reason",
        "resumed",
        "role",
        "source",
        "verdict",
        "worker",
    )

    def __init__(
        self,
        ledger: Ledger,
        connid: int,
        *,
        flow: Flow,
        owner: Owner,
        verdict: Verdict,
        generation: int,
        source: str,
        opened: float,
    ) -> None:
        self._ledger = ledger
        self._status = NOT_SECURE
        self.connid = connid
        self.flow = flow
        self.owner = owner
        self.verdict = verdict
        self.generation = generation
        self.worker = ledger.worker
        self.source = source
        self.opened = opened
        self.closed: float | None = None
        self.role: str | None = verdict.settings.role.value if verdict.settings is not None else None
        self.protocol: str | None = None
        self.cipher: str | None = None
        self.cipher4: str | None = None
        self.key_share: str | None = None
        self.resumed = False
        self.peer_subject: str | None = None
        self.peer_certificate: bytes | None = None
        self.cert_user: str | None = None
        self.map_type = "Primary"
        self.primary: Record | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.reason: Reason | None = None
        self.detail = ""

    @property
    def status(self) -> str:
        """The security status: `Not Secure`, `Handshake` or `Secure`."""
        return self._status

    @status.setter
    def status(self, status: str) -> None:
        if status == self._status:
            return
        before, self._status = self._status, status
        if self.reason is None:
            self._ledger._moved(self, before, status)
            if self._ledger.on_change is not None:
                self._ledger.on_change(self)

    def follow(self, primary: Record | None) -> None:
        """Become a secondary connection; `primary` is the one that it got its rule from, where we carry it."""
        self.map_type = "Secondary"
        self.primary = primary

    @property
    def stale(self) -> bool:
        """Whether the rule or an action that the connection was mapped to has been changed or deleted since."""
        return self._ledger.is_stale(self)

    def close(self, reason: Reason, detail: str = "") -> None:
        """Close the record: one log line, one step of the counters; every call after the first does nothing.

        `detail` adds to the reason's own text what is particular to this connection; it must hold no secret.
        """
        if self.reason is not None:
            return
        self.reason = reason
        self.detail = detail
        self._ledger._closed(self)
        if self._ledger.on_change is not None:
            self._ledger.on_change(self)

    def snapshot(self) -> dict[str, Any]:
        """Return what displays show, as plain JSON values."""
        flow, owner, verdict = self.flow, self.owner, self.verdict
        return {
            "connid": f"{self.connid:08X}",
            "direction": flow.direction.value,
            "local": str(flow.local),
            "remote": str(flow.remote),
            "user": owner.user,
            "uid": owner.uid,
            "job": owner.job,
            "job_source": owner.job_source.value,
            "pid": owner.pid,
            "rule": verdict.rule,
            "group": verdict.group,
            "environment": verdict.environment,
            "connection": verdict.connection,
            "tls": verdict.tls,
            "policy_status": messages.policy_status(verdict),
            "status": self._status,
            "role": self.role,
            "protocol": self.protocol,
            "cipher": self.cipher,
            "cipher4": self.cipher4,
            "key_share": self.key_share,
            "resumed": self.resumed,
            "peer_subject": self.peer_subject,
            "cert_user": self.cert_user,
            "map_type": self.map_type,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "opened": self.opened,
            "worker": self.worker,
            "generation": self.generation,
            "stale": self.stale,
        }


class Ledger:
    """All connections of one worker: opens their records, counts how they end, writes their messages.

    `worker` (0 to 255) goes into the high bits of every connid, `first` is where its sequence starts. The identifiers
    give group and environment actions (by name) the numbers that messages show; whoever swaps the policy sets them.
    `is_stale` tells of a record whether a change of policy has left it behind; without it no policy ever changes.
    `on_change` is called when the status of a connection changes and when it is closed. `clock` returns seconds since
    the epoch.
    """

    def __init__(self, worker: int = 0, *, first: int = 1, clock: Callable[[], float] = time.time) -> None:
        self.worker = worker
        self.is_stale: Callable[[Record], bool] = lambda _: False
        self.group_identifiers: Mapping[str, int] = {}
        self.environment_identifiers: Mapping[str, int] = {}
        self.records: dict[int, Record] = {}
        self.counts = Counts()
        self.on_change: Callable[[Record], None] | None = None
        self.handshakes = 0
        self.handshakes_by_source: Counter[str] = Counter()
        self._sequence = first - 1
        self._clock = clock
        self._quiet = _Throttle(clock)

    def open(self, flow: Flow, owner: Owner, verdict: Verdict, *, generation: int) -> Record:
        """Open the record of a connection that is admitted under `verdict`; write EZD1281I if its Trace asks for it."""
        record = Record(
            self,
            self._next_connid(),
            flow=flow,
            owner=owner,
            verdict=verdict,
            generation=generation,
            source=source_of(flow, owner),
            opened=self._clock(),
        )
        self.records[record.connid] = record
        self.counts.opened[verdict.rule or ""] += 1
        if verdict.rule is not None and verdict.trace & messages.INFO:
            _log.info(messages.mapped(record.connid, flow, owner, verdict=verdict))
        return record

    def refuse(
        self,
        flow: Flow | None,
        reason: Reason,
        detail: str = "",
        *,
        owner: Owner | None = None,
        rule: str | None = None,
    ) -> None:
        """Count and log a connection that was turned away before it had a record; `flow` is None if not even known.

        A flood of refusals writes at most a few lines a second for each reason, and then says how many it left out.
        """
        self.counts.refused[reason.word] += 1
        left_out = self._quiet.left_out(reason.word)
        if left_out is None:
            return
        place = (
            f"LOCAL: {messages.socket_name(flow.local)} REMOTE: {messages.socket_name(flow.remote)} " if flow else ""
        )
        user = owner.user if owner is not None else None
        text = f"connection refused {place}USERID: {user or messages.NOT_AVAILABLE} "
        text += f"RULE: {rule or messages.NOT_AVAILABLE} RC: {reason.code:4} - {reason.text}"
        if detail:
            text += f": {detail}"
        if left_out:
            text += f" (and {left_out} more like it)"
        _log.warning(messages.printable(text))

    def handshakes_of(self, flow: Flow, owner: Owner) -> int:
        """Return how many handshakes are in flight for whom `flow` is accounted to."""
        return self.handshakes_by_source[source_of(flow, owner)]

    def snapshots(self) -> list[dict[str, Any]]:
        """Return the snapshots of all live records, oldest first."""
        return [record.snapshot() for record in self.records.values()]

    def event(self, record: Record, name: str, *, code: int = 0, detail: str = "") -> None:
        """Write EZD1283I for something that happened to a connection, if its Trace asks for events."""
        if record.verdict.trace & messages.EVENT:
            _log.debug(
                messages.finished(record.connid, name, code=code, identifiers=self._numbers(record), detail=detail)
            )

    def _next_connid(self) -> int:
        while True:
            self._sequence = (self._sequence + 1) & _SEQUENCE_MASK
            connid = self.worker << _SEQUENCE_BITS | self._sequence
            if connid and connid not in self.records:
                return connid

    def _numbers(self, record: Record) -> tuple[int, int]:
        verdict = record.verdict
        return (
            self.group_identifiers.get(verdict.group or "", 0),
            self.environment_identifiers.get(verdict.environment or "", 0),
        )

    def _moved(self, record: Record, before: str, after: str) -> None:
        trace = record.verdict.trace
        if before == HANDSHAKE:
            self._handshake_over(record)
        if after == HANDSHAKE:
            self.handshakes += 1
            self.handshakes_by_source[record.source] = self.handshakes_by_source.get(record.source, 0) + 1
            if trace & (messages.EVENT | messages.FLOW):
                role = "HS-Client" if record.role == "Client" else "HS-Server"
                _log.debug(
                    messages.started(
                        record.connid,
                        messages.INITIAL_HANDSHAKE,
                        verdict=record.verdict,
                        identifiers=self._numbers(record),
                        detail=role,
                    )
                )
        elif after == SECURE:
            self.counts.secured[record.verdict.rule or "", record.protocol or "", record.cipher or ""] += 1
            if record.resumed:
                self.counts.resumed += 1
            if trace & messages.EVENT:
                detail = f"{record.protocol or ''} {record.cipher4 or ''}".strip()
                self.event(record, messages.INITIAL_HANDSHAKE, detail=detail)

    def _handshake_over(self, record: Record) -> None:
        self.handshakes -= 1
        left = self.handshakes_by_source[record.source] - 1
        if left:
            self.handshakes_by_source[record.source] = left
        else:
            del self.handshakes_by_source[record.source]

    def _closed(self, record: Record) -> None:
        reason = record.reason
        assert reason is not None
        record.closed = self._clock()
        self.records.pop(record.connid, None)
        if record._status == HANDSHAKE:
            self._handshake_over(record)
        counts = self.counts
        counts.closed[record.verdict.rule or "", reason.word] += 1
        counts.bytes_in += record.bytes_in
        counts.bytes_out += record.bytes_out
        trace = record.verdict.trace
        if reason is DONE and not trace & messages.EVENT:
            return  # it ended as it should, and nobody wants to read of that
        event = messages.event_of(reason, record.status)
        if not messages.is_failure(reason, record.status):
            self.event(record, event, code=reason.code, detail=f"- {record.detail or reason.text}")
            return
        numbers = self._numbers(record)
        if trace & messages.ERROR:
            _log.error(
                messages.failed(
                    record.connid,
                    record.flow,
                    record.owner,
                    verdict=record.verdict,
                    identifiers=numbers,
                    reason=reason,
                    event=event,
                    detail=record.detail,
                )
            )
        if trace & messages.CONSOLE_ERROR:
            _log.critical(
                messages.failed_console(
                    record.connid,
                    record.flow,
                    record.owner,
                    verdict=record.verdict,
                    identifiers=numbers,
                    reason=reason,
                    event=event,
                )
            )


def source_of(flow: Flow, owner: Owner) -> str:
    """Say whom a connection is accounted to: the peer's address if it came in, the local user if it goes out."""
    if flow.direction is Direction.INBOUND:
        return str(flow.remote.address)
    return f"uid {owner.uid}"


class _Throttle:
    """Lets through a few lines a second for each word and counts the rest."""

    LINES_A_SECOND = 5

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second: dict[str, tuple[int, int]] = {}
        self._left_out: Counter[str] = Counter()

    def left_out(self, word: str) -> int | None:
        """Return None when this line is to be left out, else how many were before it."""
        now = int(self._clock())
        second, lines = self._second.get(word, (now, 0))
        lines = lines + 1 if second == now else 1
        self._second[word] = (now, lines)
        if lines > self.LINES_A_SECOND:
            self._left_out[word] += 1
            return None
        return self._left_out.pop(word, 0)
