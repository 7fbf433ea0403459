"""From the output of tools to the figures of the comparison."""

from __future__ import annotations

import json
import os
import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.loads import LOADS, Idle, Negotiated, Requests, Sample, parse_s_client, parse_wrk
from bench.network import BenchError
from bench.processes import cpu_seconds, resident_bytes
from bench.profile import top_functions
from bench.report import Figures, columns, document, number, over_bar, table

WRK = """Running 2s test @ https://127.0.0.1:18443/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.96ms    1.67ms  35.41ms   98.58%
    Req/Sec    56.87k    11.42k   64.92k    95.00%
  113142 requests in 2.00s, 16.19MB read
Requests/sec:  56446.68
Transfer/sec:      8.07MB
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
    """Requests and seconds come from wrk's summary line."""
    assert (113142.0, 2.0) == parse_wrk(WRK)


@pytest.mark.parametrize(
    "line", ["  Socket errors: connect 0, read 3, write 0, timeout 0", "  Non-2xx or 3xx responses: 7"]
)
def test_a_load_with_errors_gives_no_figure(line: str) -> None:
    """A run in which requests failed is refused: it would flatter the proxy that failed them."""
    with pytest.raises(BenchError, match=line.split()[0]):
        parse_wrk(WRK.replace("Requests/sec", f"{line}\nRequests/sec"))


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


def figures_of(load: str, costs: dict[str, list[float]]) -> Figures:
    figures = Figures()
    for proxy, samples in costs.items():
        for cost in samples:
            figures.add(load, proxy, Sample(cost, 1, 1.0))
    return figures


costs = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5)


@given(ours=costs, first=costs, second=costs)
def test_the_ratio_is_against_the_cheapest_peer(ours: list[float], first: list[float], second: list[float]) -> None:
    """No peer makes us look better than the best of them does."""
    figures = figures_of("requests", {"attls": ours, "nginx": first, "haproxy": second})
    ratio = figures.ratio("requests")
    assert ratio is not None
    expected = max(statistics.median(ours) / statistics.median(peer) for peer in (first, second))
    assert pytest.approx(expected) == ratio


def test_without_a_peer_there_is_no_ratio() -> None:
    """One proxy alone is measured, not compared."""
    figures = figures_of("requests", {"attls": [1.0]})
    assert figures.ratio("requests") is None
    assert [] == over_bar(figures, LOADS)
    assert "requests" not in table(Figures(), LOADS, {"attls": "attls"})


def test_what_is_over_its_bar_is_said() -> None:
    """A ratio above the bar is marked in the table and named in a sentence."""
    figures = figures_of("requests", {"attls": [3e-5 * Requests.bar], "nginx": [2e-5]})
    assert "OVER" in table(figures, LOADS, {"attls": "attls", "nginx": "nginx stream"})
    (sentence,) = over_bar(figures, LOADS)
    assert sentence.startswith("small request")


def test_the_document_holds_every_sample() -> None:
    """The JSON document has medians in the unit of the row, and the samples they came from."""
    figures = Figures()
    for kibibytes in (10, 30, 20):
        figures.add("idle", "nginx", Sample(kibibytes * 1024.0 * 7, 7, 2.0, base=1e6))
    (entry,) = json.loads(json.dumps(document(figures, LOADS)))
    assert (Idle.name, "KiB", None) == (entry["load"], entry["unit"], entry["ratio"])
    nginx = entry["proxies"]["nginx"]
    assert (20.0, 10.0, 30.0, 3.5, 1e6) == (
        nginx["median"],
        nginx["minimum"],
        nginx["maximum"],
        nginx["rate"],
        nginx["base_bytes"],
    )
    assert 3 == len(nginx["samples"])


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
