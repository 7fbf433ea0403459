"""Any text gives a policy or a PolicyError, and nothing else. Run longer with ATTLS_FUZZ=N (examples)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from attls import policy
from attls.errors import Diagnostic, PolicyError
from attls.model import Defaults
from attls.policy import language

EXAMPLES = int(os.environ.get("ATTLS_FUZZ", "150"))
KEYWORDS = sorted({parameter.name for item in language.STATEMENTS.values() for parameter in item.parameters})
WORDS = [
    *language.STATEMENTS,
    *KEYWORDS,
    *[
        "On",
        "Off",
        "All",
        "Any",
        "Both",
        "Server",
        "Client",
        "a",
        "b",
        "{",
        "}",
        "#",
        '"',
        "TcpImage",
        "TTLSConfig",
        "PolicyServer",
        "...",
        "<x>",
        "[y]",
        "?z?",
        "-1",
        "0",
        "443",
        "20-25",
    ],
    *[
        "10.0.0.1",
        "10.0.0.0/8",
        "::1",
        "::ffff:1.2.3.4",
        "6793",
        "1301",
        "C02F",
        "0023",
        "0401",
        "00:00-24:00",
        "//'A.B(C)'",
        "ü",
        "٠١",
        "²",
    ],
    "20260101000000:20261231235959",
]
lines = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
scrambled = st.lists(lines, max_size=40).map("\n".join)


@st.composite
def well_formed(draw: st.DrawFn) -> str:
    """A text whose blocks are in order and whose values are anything."""
    parts = []
    for _ in range(draw(st.integers(1, 5))):
        statement = draw(st.sampled_from(list(language.STATEMENTS.values())))
        values = st.one_of(st.sampled_from(WORDS), st.text(max_size=8))
        body = [
            f"  {draw(st.sampled_from(statement.parameters)).name} {draw(values)}"
            for _ in range(draw(st.integers(0, 6)))
        ]
        parts.append("\n".join([f"{statement.name} {draw(st.sampled_from('abc'))}", "{", *body, "}"]))
    return "\n".join(parts)


def load(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for defaults in Defaults:
        refused, diagnostics = findings_of(path, defaults)
        assert refused == any(finding.severity == "error" for finding in diagnostics)
        for finding in diagnostics[:50]:
            policy.render(finding)


def findings_of(path: Path, defaults: Defaults = Defaults.MODERN) -> tuple[bool, tuple[Diagnostic, ...]]:
    try:
        return False, policy.load(path, defaults, thorough=True).diagnostics
    except PolicyError as error:
        return True, error.diagnostics


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=200), scrambled, well_formed()))
@example("TTLSRule a\n{\n  Priority ²\n}")
@example("IpAddr a\n{\n  Addr 1" + "0" * 5000 + "\n}")
@example("PortRange a\n{\n  Port 1" + "0" * 5000 + "\n}")
@example("{\n" * 5000)
def test_any_text_gives_a_policy_or_diagnostics(tmp_path: Path, text: str) -> None:
    """No input makes the reader fail in any other way than by a PolicyError with at least one error."""
    load(tmp_path / "p.policy", text)


@settings(max_examples=EXAMPLES // 3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_give_a_policy_or_diagnostics(tmp_path: Path, data: bytes) -> None:
    """Bytes that are no text at all are no exception."""
    path = tmp_path / "p.policy"
    path.write_bytes(data)
    refused, diagnostics = findings_of(path)
    assert diagnostics or not refused


@pytest.mark.parametrize(
    "piece",
    [
        "Nonsense here\n",
        "TTLSRule {n}\n{{\n  Prority 5\n  TTLSGroupActionRef nothing{n}\n}}\n",
        "TTLSGroupAction a\n{{\n  TTLSEnabled On\n}}\n",
        "TTLSCipherParms c{n}\n{{\n  V3CipherSuites TLS_RSA_WITH_AES_{n}\n}}\n",
        "TTLSGroupAction g{n}\n{{\n",
    ],
)
def test_loading_takes_linear_time(tmp_path: Path, piece: str) -> None:
    """Four times the mistakes take about four times as long: suggestions must not compare everything with all."""
    took = []
    for count in (1000, 4000):
        path = tmp_path / "p.policy"
        path.write_text("".join(piece.format(n=number) for number in range(count)))
        started = time.process_time()
        findings_of(path)
        took.append(time.process_time() - started)
    assert took[1] < 10 * took[0] + 0.5
