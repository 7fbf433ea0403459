"""Records and the ledger: opened once, closed once, counted once."""

from __future__ import annotations

import io
import logging
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls import errors
from attls.model import (
    Direction,
    Endpoint,
    Flow,
    HandshakeRole,
    Owner,
    Protocol,
    TlsSettings,
    Verdict,
    canonical_address,
)
from attls.observe import Ledger, messages
from attls.observe.metrics import Counts


def flow(port: int = 40000, remote: str = "192.0.2.9") -> Flow:
    return Flow(
        Direction.INBOUND, Endpoint(canonical_address("192.0.2.1"), 443), Endpoint(canonical_address(remote), port)
    )


SETTINGS = TlsSettings(HandshakeRole.SERVER, "payroll/RING", frozenset({Protocol.TLSV1_3}))
OWNER = Owner(uid=1000, user="payroll", pid=42, job="PAYJOB1")


def verdict(trace: int = 2, *, enabled: bool = True) -> Verdict:
    return Verdict("web", enabled, "g1", "e1", None, trace, SETTINGS if enabled else None)


@pytest.fixture(name="ledger")
def ledger_fixture() -> Ledger:
    ledger = Ledger(3, clock=lambda: 1000.0)
    ledger.group_identifiers = {"g1": 2}
    ledger.environment_identifiers = {"e1": 7}
    return ledger


@pytest.fixture(name="lines")
def lines_fixture(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    log = logging.getLogger("attls")
    log.setLevel(logging.DEBUG)
    log.propagate = True
    return caplog


def test_connids_carry_the_worker_in_their_high_bits(ledger: Ledger) -> None:
    """Two workers never give the same number, because the worker's own is part of it."""
    record = ledger.open(flow(), OWNER, verdict(), generation=0)
    assert "03000001" == record.snapshot()["connid"]
    assert {record.connid: record} == ledger.records


def test_connids_of_live_connections_are_not_given_again() -> None:
    """When the sequence comes round, numbers still in use are stepped over."""
    ledger = Ledger(0, first=(1 << 24) - 1)
    numbers = [ledger.open(flow(), OWNER, verdict(), generation=0).connid for _ in range(3)]
    assert [(1 << 24) - 1, 1, 2] == numbers


def test_a_record_closes_once(ledger: Ledger, lines: pytest.LogCaptureFixture) -> None:
    """The second close says nothing, counts nothing and leaves the first reason standing."""
    record = ledger.open(flow(), OWNER, verdict(), generation=0)
    record.status = "Handshake"
    record.close(errors.CLEARTEXT)
    record.close(errors.DONE)
    assert errors.CLEARTEXT == record.reason
    assert {("web", "cleartext"): 1} == dict(ledger.counts.closed)
    assert {} == ledger.records
    assert 1 == len(lines.messages)


def test_a_failed_handshake_is_reported_with_its_code(ledger: Ledger, lines: pytest.LogCaptureFixture) -> None:
    """Trace 2, the default, writes EZD1286I with rule, code, event and the reason in words."""
    record = ledger.open(flow(), OWNER, verdict(), generation=0)
    record.status = "Handshake"
    record.close(errors.CLEARTEXT)
    expected = (
        "EZD1286I TTLS Error GRPID: 00000002 ENVID: 00000007 CONNID: 03000001 LOCAL: 192.0.2.1..443 "
        "REMOTE: 192.0.2.9..40000 JOBNAME: PAYJOB1 USERID: payroll RULE: web RC: 5003 Initial Handshake "
        "- the peer sent cleartext where TLS was expected"
    )
    assert [expected] == lines.messages


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        (0, []),
        (1, ["EZD1287I"]),
        (2, ["EZD1286I"]),
        (3, ["EZD1286I", "EZD1287I"]),
        (4, ["EZD1281I"]),
        (8, ["EZD1282I"]),
        (255, ["EZD1281I", "EZD1282I", "EZD1286I", "EZD1287I"]),
    ],
)
def test_the_trace_mask_decides_what_is_written(
    ledger: Ledger, lines: pytest.LogCaptureFixture, trace: int, expected: list[str]
) -> None:
    """Each bit of Trace switches its own messages, and 0 switches all off."""
    record = ledger.open(flow(), OWNER, verdict(trace), generation=0)
    record.status = "Handshake"
    record.close(errors.PROTOCOL)
    assert expected == [line.split()[0] for line in lines.messages]


def test_an_orderly_end_is_an_event_and_no_error(ledger: Ledger, lines: pytest.LogCaptureFixture) -> None:
    """A connection that was up and ends, by close or by reset, writes no error message."""
    for reason in (errors.DONE, errors.PEER_RESET):
        record = ledger.open(flow(), OWNER, verdict(2), generation=0)
        record.status = "Handshake"
        record.status = "Secure"
        record.close(reason)
    assert [] == lines.messages


def test_handshakes_in_flight_are_counted_by_source(ledger: Ledger) -> None:
    """A handshake counts from its start until it succeeds or the connection ends."""
    first, second = (ledger.open(flow(port), OWNER, verdict(), generation=0) for port in (1, 2))
    first.status = second.status = "Handshake"
    assert (2, {"192.0.2.9": 2}) == (ledger.handshakes, dict(ledger.handshakes_by_source))
    first.status = "Secure"
    second.close(errors.HANDSHAKE_SILENT)
    first.close(errors.DONE)
    assert (0, {}) == (ledger.handshakes, dict(ledger.handshakes_by_source))


def test_a_record_is_stale_once_the_keeper_of_the_policy_says_so(ledger: Ledger) -> None:
    """Displays mark what a refresh has left behind, also of connections that were there before it."""
    record = ledger.open(flow(), OWNER, verdict(), generation=1)
    assert not record.snapshot()["stale"]
    ledger.is_stale = lambda asked: asked is record
    assert record.snapshot()["stale"]


def test_a_flood_of_refusals_writes_a_few_lines(lines: pytest.LogCaptureFixture) -> None:
    """A thousand refusals in a second are all counted, five are written, and the next second says how many were not."""
    now = 1000.0
    ledger = Ledger(clock=lambda: now)
    for _ in range(1000):
        ledger.refuse(flow(), errors.OVERLOAD)
    now = 1001.0
    ledger.refuse(flow(), errors.OVERLOAD)
    assert 1001 == ledger.counts.refused["overload"]
    assert 6 == len(lines.messages)
    assert lines.messages[-1].endswith("(and 995 more like it)")


def test_names_a_program_chose_cannot_forge_a_log_line() -> None:
    """A line feed in a job name is written as an escape."""
    owner = Owner(user="eve", job="X\nEZD1281I TTLS Map")
    text = messages.mapped(1, flow(), owner, verdict=verdict())
    assert "\n" not in text
    assert "X\\nEZD1281I" in text


def test_the_console_block_has_the_published_layout() -> None:
    """EZD1287I is five lines, return code right-justified in four columns."""
    text = messages.failed_console(
        0x1EEF1, flow(), OWNER, verdict=verdict(), identifiers=(3, 1), reason=errors.PEER_CLOSED_HANDSHAKE,
        event="Initial Handshake",
    )  # fmt: skip
    expected = [
        "EZD1287I TTLS Error RC:  406 Initial Handshake",
        "   LOCAL: 192.0.2.1..443",
        "   REMOTE: 192.0.2.9..40000",
        "   JOBNAME: PAYJOB1 RULE: web",
        "   USERID: payroll GRPID: 00000003 ENVID: 00000001 CONNID: 0001EEF1",
    ]
    assert expected == text.splitlines()


def test_journal_lines_each_carry_their_priority() -> None:
    """A block of several lines keeps its priority on every one of them."""
    entry = logging.LogRecord("attls", logging.ERROR, "", 0, "one\ntwo", None, None)
    assert "<3>one\n<3>two" == messages.JournalFormatter().format(entry)


REASONS = [value for value in vars(errors).values() if isinstance(value, errors.Reason)]


@given(st.lists(st.tuples(st.sampled_from(REASONS), st.sampled_from(["Not Secure", "Handshake", "Secure"]))))
def test_what_is_opened_is_closed_or_live(endings: list[tuple[errors.Reason, str]]) -> None:
    """Opened = closed + live, whatever the reasons, and the counters survive their journey as JSON."""
    ledger = Ledger()
    for reason, status in endings:
        record = ledger.open(flow(), OWNER, verdict(0), generation=0)
        record.status = status
        record.close(reason)
    live = ledger.open(flow(), OWNER, verdict(0), generation=0)
    assert len(endings) + 1 == ledger.counts.opened.total()
    assert len(endings) == ledger.counts.closed.total()
    assert {live.connid: live} == ledger.records
    assert 0 == ledger.handshakes
    assert ledger.counts == Counts.from_json(ledger.counts.as_json())


def test_a_reader_that_never_reads_holds_up_nobody() -> None:
    """Thousands of entries to a full pipe return at once; what is read plus what was left out is all of them."""
    reader, writer = os.pipe()
    read: list[str] = []
    with os.fdopen(reader) as source:
        with os.fdopen(writer, "w") as stream:
            handler = messages.BackgroundHandler(stream, most=100)
            entry = logging.LogRecord("attls", logging.INFO, "", 0, "x" * 1000, None, None)
            started = time.monotonic()
            for _ in range(5000):
                handler.emit(entry)
            assert time.monotonic() - started < 2
            collector = threading.Thread(target=lambda: read.extend(source))
            collector.start()
            while not handler._waiting.empty():
                time.sleep(0.001)
            handler.emit(entry)
            handler.close()
        collector.join()
    left_out = sum(int(line.split()[0]) for line in read if "left out" in line)
    assert left_out > 1000
    assert 5001 == left_out + read.count("x" * 1000 + "\n")


def test_entries_are_written_before_the_end() -> None:
    """Closing the handler waits for what is queued."""
    stream = io.StringIO()
    handler = messages.BackgroundHandler(stream)
    for number in range(100):
        handler.emit(logging.LogRecord("attls", logging.INFO, "", 0, str(number), None, None))
    handler.close()
    assert "".join(f"{number}\n" for number in range(100)) == stream.getvalue()
