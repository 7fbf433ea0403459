"""From the output of tools to the figures of the comparison."""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.backend import Served, parse_status
from bench.loads import LOADS, Done, Negotiated, Row, Sample, parse_s_client, parse_wrk, read_wrk, together
from bench.network import BenchError
from bench.plot import RIGHT, WIDTH, Bars, chart
from bench.processes import cpu_seconds, resident_bytes
from bench.profile import top_functions
from bench.publish import BEGIN, END, TITLES, between_marks, publish
from bench.report import Fact, Figures, columns, document, fact_cells, growth, number, over_bar, table
from bench.sections import resumed_share

WRK = """Running 2m test @ https://127.0.0.1:18443/
  1 threads and 64 connections
Requests/sec:  56446.68
REPORT {"requests": 113142, "bytes": 100, "microseconds": 2000000, "errors": {"connect": 0, "read": 0, "write": 0, \
"status": 0, "timeout": 0}, "p50": 960, "p99": 1670, "p999": 5000, "max": 35410}
"""

S_CLIENT = """CONNECTED(00000003)
---
Certificate chain
 0 s:CN = bench.example
   i:CN = Bench Intermediate
   a:PKEY: id-ecPublicKey, 256 (bit); sigalg: ecdsa-with-SHA256
 1 s:CN = Bench Intermediate
   i:CN = Bench Root
---
Peer signing digest: SHA256
Peer signature type: ECDSA
Server Temp Key: X25519, 253 bits
---
SSL handshake has read 1439 bytes and written 391 bytes
Verification: OK
---
New, TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256
Server public key is 256 bit
"""


def test_wrk_report_is_read() -> None:
    """Requests, seconds and the waits, in seconds, come from the report that our script has wrk write."""
    assert Done(113142, 2.0, {"p50": 0.00096, "p99": 0.00167, "p999": 0.005, "max": 0.03541}) == parse_wrk(WRK)


@pytest.mark.parametrize("kind", ["connect", "read", "write", "status", "timeout"])
def test_a_load_with_errors_gives_no_figure(kind: str) -> None:
    """A run in which requests failed is refused: it would flatter the proxy that failed them."""
    output = WRK.replace(f'"{kind}": 0', f'"{kind}": 7')
    with pytest.raises(BenchError, match="7 requests failed"):
        parse_wrk(output)
    assert 7 == read_wrk(output)["errors"]


def test_without_a_report_there_is_no_figure() -> None:
    """What wrk says instead of a report is passed on."""
    with pytest.raises(BenchError, match="unable to connect"):
        read_wrk("unable to connect to 10.0.0.1:443 Connection refused")


def test_the_status_page_of_the_backend_is_read() -> None:
    """Connections and requests come from the page that nginx has for it; another page is an error."""
    page = """HTTP/1.1 200 OK

Active connections: 291
server accepts handled requests
 16630948 16630948 31070465
Reading: 6 Writing: 179 Waiting: 106
"""
    assert Served(291, 31070465) == parse_status(page)
    with pytest.raises(ValueError, match="404"):
        parse_status("HTTP/1.1 404 Not Found")


def test_side_by_side_the_worst_wait_counts() -> None:
    """Generators that ran side by side add up in units, not in time, and the longest wait is the wait of all."""
    parts = [Done(10, 2.0, {"p99": 0.5}), Done(20, 3.0, {"p99": 0.1})]
    assert Done(30, 3.0, {"p99": 0.5}) == together(parts)


METRICS = """# TYPE attls_connections_secured_total counter
attls_connections_secured_total{rule="a",protocol="TLSv1.3",cipher="1301"} %d
attls_connections_secured_total{rule="b",protocol="TLSv1.3",cipher="1301"} %d
attls_sessions_resumed_total %d
"""


def test_the_hit_rate_is_of_what_came_between() -> None:
    """Only handshakes between the two readings count, those of all rules."""
    assert 0.75 == resumed_share(METRICS % (10, 5, 3), METRICS % (12, 7, 6))
    assert 0.0 == resumed_share("", "")


def test_s_client_report_is_read() -> None:
    """Protocol, cipher, key exchange and the number of certificates come from s_client's report."""
    assert Negotiated("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519", 2) == parse_s_client(S_CLIENT)


def test_s_client_names_a_curve() -> None:
    """A NIST curve is named after the word ECDH."""
    answer = parse_s_client(S_CLIENT.replace("X25519, 253 bits", "ECDH, prime256v1, 256 bits"))
    assert answer is not None
    assert "prime256v1" == answer.key_exchange


def test_an_unverified_peer_is_no_answer() -> None:
    """A chain that does not verify counts as not ready."""
    assert parse_s_client(S_CLIENT.replace("Verification: OK", "Verification error: self-signed")) is None


ROWS = {row.key: row for load in LOADS for row in load.rows}
SMALL = ROWS["requests-64"]
LABELS = {"attls": "attls", "nginx": "nginx stream"}


def figures_of(costs: dict[str, list[float]], row: Row = SMALL) -> Figures:
    figures = Figures()
    for proxy, samples in costs.items():
        for cost in samples:
            figures.add(row, proxy, Sample(cost, 1, 1.0))
    return figures


costs = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5)


@given(ours=costs, first=costs, second=costs)
def test_the_ratio_is_against_the_cheapest_peer(ours: list[float], first: list[float], second: list[float]) -> None:
    """No peer makes us look better than the best of them does."""
    ratio = figures_of({"attls": ours, "nginx": first, "haproxy": second}).ratio(SMALL.key)
    assert ratio is not None
    expected = max(statistics.median(ours) / statistics.median(peer) for peer in (first, second))
    assert pytest.approx(expected) == ratio


def test_rows_have_one_name_each() -> None:
    """No two loads fill the same row, and every group has a title in the documentation."""
    assert len(ROWS) == sum(len(load.rows) for load in LOADS)
    assert {row.group for row in ROWS.values()} == set(TITLES)


def test_without_a_peer_there_is_no_ratio() -> None:
    """One proxy alone is measured, not compared."""
    figures = figures_of({"attls": [1.0]})
    assert (None, None, []) == (figures.ratio(SMALL.key), figures.is_met(SMALL), over_bar(figures))


@pytest.mark.parametrize(("factor", "word"), [(0.9, "met"), (1.1, "MISSED")])
def test_the_outcome_stands_beside_the_bar(factor: float, word: str) -> None:
    """A ratio below its bar is met, one above is missed and named in a sentence."""
    assert SMALL.bar is not None
    figures = figures_of({"attls": [2e-5 * SMALL.bar * factor], "nginx": [2e-5]})
    costs, *_ = table(figures, [SMALL], LABELS)
    assert [f"{SMALL.bar * factor:.2f}x", f"{SMALL.bar:.2f}x", word] == costs[1][-3:]
    assert (word == "MISSED") == bool(over_bar(figures))


@pytest.mark.parametrize(("value", "least", "met"), [(1.9, True, True), (1.7, True, False), (1.9, False, False)])
def test_a_fact_may_have_a_least(value: float, least: bool, met: bool) -> None:
    """The bar of a figure without peers is an upper or a lower one."""
    fact = Fact("growth", value, "x", bar=1.8, least=least)
    assert (met, met) == (fact.is_met, not over_bar(Figures(), [fact]))
    assert ["growth", "x", number(value), f"at {'least' if least else 'most'} 1.80"] == fact_cells([fact])[1][:4]


def test_growth_is_of_pairs_of_rows() -> None:
    """The rate on all cores is set against that of one worker, for proxies that have both."""
    figures = Figures()
    for name, seconds in (("one", 2.0), ("all", 1.0)):
        figures.add(ROWS[f"{name}-full"], "attls", Sample(1.0, 100, seconds))
    ((_, cells),) = growth(figures, list(figures.rows.values()), LABELS)
    assert ["new connection, full handshake, P-256", "2.00x", "-"] == cells
    assert [] == growth(figures_of({"attls": [1.0]}), [SMALL], LABELS)


def test_the_document_can_be_read_back() -> None:
    """The JSON document has medians in the unit of the row, and every sample, so that the figures can be made again."""
    figures = Figures()
    for kibibytes in (10, 30, 20):
        figures.add(ROWS["idle"], "nginx", Sample(kibibytes * 1024.0 * 7, 7, 2.0))
    entries = json.loads(json.dumps(document(figures)))
    nginx = entries[0]["proxies"]["nginx"]
    assert (20.0, 10.0, 30.0, 3.5) == (nginx["median"], nginx["minimum"], nginx["maximum"], nginx["rate"])
    assert figures == Figures.from_document(entries)


@given(st.lists(st.tuples(st.text(), st.none() | st.floats(0, 1e9), st.text()), min_size=1, max_size=4), st.text())
def test_charts_are_well_formed(bars: list[tuple[str, float | None, str]], title: str) -> None:
    """Whatever the labels and figures, a chart is an XML document in which no bar leaves the picture."""
    printable = "".join(character for character in title if character.isprintable())
    clean = [("".join(c for c in label if c.isprintable()), value, "x") for label, value, _ in bars]
    root = ElementTree.fromstring(chart(printable, "a note", [Bars("row & <heading>", clean, "1.0x")]))
    drawn = [rect for rect in root.iter("{http://www.w3.org/2000/svg}rect") if "x" in rect.attrib]
    assert len(bars) == len(drawn)
    assert [] == [rect for rect in drawn if float(rect.get("x", 0)) + float(rect.get("width", 0)) > WIDTH - RIGHT + 1]


def test_the_page_keeps_what_people_wrote(tmp_path: Path) -> None:
    """Publishing a run replaces what is between the marks, writes a chart for each group, and can be done again."""
    figures = figures_of({"attls": [2e-5], "nginx": [1e-5]})
    machine = {"processor": "a processor", "date": "a day"}
    run = {
        "machine": machine, "versions": {"nginx": "nginx/1"}, "terms": ["TLSv1.3"], "rounds": 1, "labels": LABELS,
        "figures": document(figures), "alone": {"Start": [asdict(Fact("ready after", 1.5, "s"))]},
    }  # fmt: skip
    page = tmp_path / "benchmark.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    publish(json.loads(json.dumps(run)), tmp_path)
    once = page.read_text()
    publish(run, tmp_path)
    assert once == page.read_text()
    assert (True, True, False) == (once.startswith("before\n"), once.endswith("after\n"), "old" in once)
    assert ["requests.svg"] == [path.name for path in (tmp_path / "figures").iterdir()]
    assert "| ready after | s | 1.50 |  |  |" in once
    with pytest.raises(ValueError, match="marks"):
        between_marks("a page without marks", "new")


@given(st.floats(0.01, 1e9))
def test_numbers_are_written_to_be_compared(value: float) -> None:
    """Three digits that count, never an exponent, within one percent of the value."""
    text = number(value)
    assert "e" not in text
    assert pytest.approx(value, rel=0.01, abs=0.0051) == float(text)


@given(st.lists(st.lists(st.text("abc ", max_size=6), min_size=3, max_size=3), min_size=1, max_size=5))
def test_columns_line_up(rows: list[list[str]]) -> None:
    """Every line is as wide as the widest, blanks at the end aside."""
    lines = columns(rows)
    widths = [max(len(row[index]) for row in rows) for index in range(3)]
    assert len(rows) == len(lines)
    assert all(len(line) <= sum(widths) + 4 for line in lines)


def test_cpu_time_of_a_process_is_its_cpu_clock() -> None:
    """What is read from outside is what the process itself sees, children included."""
    before = time.process_time()
    used = cpu_seconds([os.getpid()])
    after = time.process_time()
    children = os.times().children_user + os.times().children_system
    assert before <= used - children + 0.02
    assert used - children <= after + 0.02


def test_memory_of_a_process_is_not_nothing() -> None:
    """A Python interpreter holds some megabytes."""
    assert resident_bytes([os.getpid()]) > 1 << 20


def test_a_process_that_is_gone_is_named() -> None:
    """Measuring an ended process is an error, not a zero."""
    with pytest.raises(BenchError, match="4194305"):
        cpu_seconds([4194305])  # above the highest process id there can be


def test_profile_counts_own_time_and_time_below() -> None:
    """A function's own samples are those where it is innermost; a recursive one is counted once below."""
    raw = "main;pump;send 6\nmain;pump 2\nmain;pump;pump 2\n"
    lines = top_functions(raw, 2).splitlines()
    assert ["send", "60.0%", "60.0%"] == lines[1].split()
    assert ["pump", "40.0%", "100.0%"] == lines[2].split()
    assert ["main", "0.0%", "100.0%"] == top_functions(raw, 1, by_callees=True).splitlines()[1].split()
