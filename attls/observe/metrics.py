"""Counters as values: each worker counts, the supervisor adds, a display or a scraper reads.

`Counts` travels as JSON, so its keys are flat. The Prometheus text is written by hand: it is a dozen lines, and the
daemon offers no port to scrape (an operator's textfile collector reads `attls status --metrics`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Counts:
    """How many connections began, became secure, ended and were refused, and how much passed; they only grow.

    Keys: `opened` the rule (`""` for none), `secured` rule, protocol and cipher, `closed` rule and reason word,
    `refused` the reason word. The byte counts are those of closed connections.
    """

    opened: Counter[str] = field(default_factory=Counter)
    secured: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    closed: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the counters as JSON values, keys as lists."""
        return {
            "opened": [[rule, count] for rule, count in self.opened.items()],
            "secured": [[*key, count] for key, count in self.secured.items()],
            "closed": [[*key, count] for key, count in self.closed.items()],
            "refused": [[word, count] for word, count in self.refused.items()],
            "resumed": self.resumed,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Counts:
        """Read what `as_json` wrote."""
        return cls(
            opened=Counter(dict(values["opened"])),
            secured=Counter({(rule, protocol, cipher): n for rule, protocol, cipher, n in values["secured"]}),
            closed=Counter({(rule, word): count for rule, word, count in values["closed"]}),
            refused=Counter(dict(values["refused"])),
            resumed=values["resumed"],
            bytes_in=values["bytes_in"],
            bytes_out=values["bytes_out"],
        )

    def add(self, other: Counts) -> None:
        """Add the counters of `other` to these."""
        self.opened.update(other.opened)
        self.secured.update(other.secured)
        self.closed.update(other.closed)
        self.refused.update(other.refused)
        self.resumed += other.resumed
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out


def total(parts: Iterable[Counts]) -> Counts:
    """Return the sum of many workers' counters."""
    result = Counts()
    for part in parts:
        result.add(part)
    return result


def prometheus(counts: Counts, *, live: int, workers: int, generation: int) -> str:
    """Write the counters in the Prometheus text format; `live` is how many connections there are now."""
    lines: list[str] = []

    def family(name: str, kind: str, text: str, samples: Iterable[tuple[dict[str, str], int]]) -> None:
        lines.append(f"# HELP {name} {text}")
        lines.append(f"# TYPE {name} {kind}")
        for labels, value in samples:
            inside = ",".join(f'{key}="{_escape(label)}"' for key, label in labels.items())
            lines.append(f"{name}{{{inside}}} {value}" if inside else f"{name} {value}")

    family(
        "attls_connections_opened_total",
        "counter",
        "Connections admitted, by rule.",
        [({"rule": rule}, count) for rule, count in sorted(counts.opened.items())],
    )
    family(
        "attls_connections_secured_total",
        "counter",
        "Handshakes finished, by rule, protocol and cipher.",
        [
            ({"rule": rule, "protocol": protocol, "cipher": cipher}, count)
            for (rule, protocol, cipher), count in sorted(counts.secured.items())
        ],
    )
    family(
        "attls_connections_closed_total",
        "counter",
        "Connections ended, by rule and reason.",
        [({"rule": rule, "reason": word}, count) for (rule, word), count in sorted(counts.closed.items())],
    )
    family(
        "attls_connections_refused_total",
        "counter",
        "Connections turned away before they were admitted, by reason.",
        [({"reason": word}, count) for word, count in sorted(counts.refused.items())],
    )
    family("attls_sessions_resumed_total", "counter", "Handshakes that resumed a session.", [({}, counts.resumed)])
    family(
        "attls_application_bytes_total",
        "counter",
        "Application data of closed connections, by direction.",
        [({"direction": "in"}, counts.bytes_in), ({"direction": "out"}, counts.bytes_out)],
    )
    family("attls_connections", "gauge", "Connections now.", [({}, live)])
    family("attls_workers", "gauge", "Worker processes now.", [({}, workers)])
    family("attls_policy_generation", "gauge", "Number of the policy generation in force.", [({}, generation)])
    return "\n".join(lines) + "\n"


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
