"""From samples to figures: medians, the ratio against the best peer, tables for people and a document for programs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.loads import Row, Sample

OURS = "attls"


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure about attls that has no peer. `bar` is what it may be, at most or, with `least`, at least."""

    label: str
    value: float
    unit: str
    bar: float | None = None
    least: bool = False

    @property
    def allowed(self) -> str:
        """The bar in words; nothing where there is none."""
        return "" if self.bar is None else f"at {'least' if self.least else 'most'} {number(self.bar)}"

    @property
    def is_met(self) -> bool:
        """Whether the figure keeps its bar; true where there is none."""
        if self.bar is None:
            return True
        return self.value >= self.bar if self.least else self.value <= self.bar


@dataclass(slots=True)
class Figures:
    """All samples of a run, by row and by proxy, in the order they were first added."""

    rows: dict[str, Row] = field(default_factory=dict)
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)

    def add(self, row: Row, proxy: str, sample: Sample) -> None:
        """Keep one sample."""
        self.rows[row.key] = row
        self.samples.setdefault(row.key, {}).setdefault(proxy, []).append(sample)

    @classmethod
    def from_document(cls, entries: Iterable[dict[str, Any]]) -> Figures:
        """Read what `document` wrote."""
        figures = cls()
        for entry in entries:
            row = Row(**entry["row"])
            for proxy, found in entry["proxies"].items():
                for sample in found["samples"]:
                    figures.add(row, proxy, Sample(**sample))
        return figures

    def groups(self) -> dict[str, list[Row]]:
        """The rows that were measured, by group."""
        result: dict[str, list[Row]] = {}
        for row in self.rows.values():
            result.setdefault(row.group, []).append(row)
        return result

    def median(self, key: str, proxy: str) -> float | None:
        """Median cost per unit in seconds or bytes; None when nothing was measured."""
        samples = self.samples.get(key, {}).get(proxy)
        return statistics.median(sample.per_unit for sample in samples) if samples else None

    def rate(self, key: str, proxy: str) -> float | None:
        """Median units per second on the clock."""
        samples = self.samples.get(key, {}).get(proxy)
        return statistics.median(sample.units / sample.seconds for sample in samples) if samples else None

    def system_share(self, key: str, proxy: str) -> float | None:
        """Median share of the CPU time that the kernel spent on the proxy's behalf; None for what is not CPU."""
        samples = self.samples.get(key, {}).get(proxy, [])
        shares = [sample.system / sample.cost for sample in samples if sample.system is not None and sample.cost]
        return statistics.median(shares) if shares else None

    def best_peer(self, key: str) -> tuple[str, float] | None:
        """The peer with the lowest median, and that median; None when no peer was measured."""
        medians = [
            (median, proxy)
            for proxy in self.samples.get(key, {})
            if proxy != OURS and (median := self.median(key, proxy)) is not None
        ]
        if not medians:
            return None
        median, proxy = min(medians)
        return proxy, median

    def ratio(self, key: str) -> float | None:
        """Our median against the best peer's; None when one of them is missing."""
        ours, best = self.median(key, OURS), self.best_peer(key)
        return ours / best[1] if ours is not None and best is not None else None

    def is_met(self, row: Row) -> bool | None:
        """Whether attls keeps the bar of a row; None where there is no bar or no ratio."""
        ratio = self.ratio(row.key)
        return None if ratio is None or row.bar is None else ratio <= row.bar


def number(value: float | None) -> str:
    """Three significant digits, without an exponent; a dash for nothing."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of aligned text: the first column to the left, the others to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def verdict(met: bool | None) -> str:
    """A bar's outcome in a word; nothing where there is no bar."""
    return {True: "met", False: "MISSED", None: ""}[met]


def table(figures: Figures, rows: Iterable[Row], labels: dict[str, str]) -> list[list[list[str]]]:
    """Rows as up to three tables of cells: costs with ratio and bar, rates, the kernel's share of the CPU time.

    `labels` names the proxies to show, in order, with their column headings.
    """
    costs = [["cost per unit", "unit", *labels.values(), "ratio", "bar", ""]]
    rates = [["rate, for the record", "unit", *labels.values()]]
    shares = [["share of the CPU time spent in the kernel", "unit", *labels.values()]]
    for row in rows:
        medians = [figures.median(row.key, proxy) for proxy in labels]
        ratio = figures.ratio(row.key)
        costs.append(
            [
                row.label,
                row.unit,
                *(number(None if median is None else median * row.scale) for median in medians),
                "-" if ratio is None else f"{ratio:.2f}x",
                "" if row.bar is None else f"{row.bar:.2f}x",
                verdict(figures.is_met(row)),
            ]
        )
        if row.rate_unit:
            values = [figures.rate(row.key, proxy) for proxy in labels]
            cells = [number(None if value is None else value * row.rate_scale) for value in values]
            rates.append([row.label, row.rate_unit, *cells])
        parts = [figures.system_share(row.key, proxy) for proxy in labels]
        if any(part is not None for part in parts):
            shares.append([row.label, "%", *(number(None if part is None else 100 * part) for part in parts)])
    return [cells for cells in (costs, rates, shares) if len(cells) > 1]


def growth(figures: Figures, rows: Iterable[Row], labels: dict[str, str]) -> list[list[list[str]]]:
    """A table of how much faster all cores are than one: rows whose keys begin with `one-` and `all-` are pairs.

    No table where there are none. Whoever shares the cores with the load generator cannot double.
    """
    cells = [["growth of the rate from one worker to all cores", *labels.values()]]
    for row in rows:
        one = row.key.removeprefix("one-")
        if one == row.key or f"all-{one}" not in figures.rows:
            continue
        pairs = [(figures.rate(row.key, proxy), figures.rate(f"all-{one}", proxy)) for proxy in labels]
        ratios = ["-" if before is None or after is None else f"{after / before:.2f}x" for before, after in pairs]
        cells.append([row.label.rpartition(", ")[0], *ratios])
    return [cells] if len(cells) > 1 else []


def fact_cells(facts: Iterable[Fact]) -> list[list[str]]:
    """Figures without peers as a table of cells."""
    cells = [["attls alone", "unit", "figure", "bar", ""]]
    for fact in facts:
        outcome = verdict(fact.is_met if fact.bar is not None else None)
        cells.append([fact.label, fact.unit, number(fact.value), fact.allowed, outcome])
    return cells


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """A table of cells as Markdown."""
    head, *body = cells
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def over_bar(figures: Figures, facts: Iterable[Fact] = ()) -> list[str]:
    """One sentence for each figure that misses its bar."""
    sentences = [
        f"{row.label}: {figures.ratio(row.key):.2f} times the best peer, at most {row.bar:.2f} allowed"
        for row in figures.rows.values()
        if figures.is_met(row) is False
    ]
    sentences += [
        f"{fact.label}: {number(fact.value)} {fact.unit}, {fact.allowed} wanted" for fact in facts if not fact.is_met
    ]
    return sentences


def document(figures: Figures) -> list[dict[str, object]]:
    """The figures as plain data: one entry per row, medians in the row's unit, every sample below."""
    result: list[dict[str, object]] = []
    for key, row in figures.rows.items():
        proxies: dict[str, object] = {}
        for proxy, samples in figures.samples[key].items():
            values = [sample.per_unit * row.scale for sample in samples]
            rate = figures.rate(key, proxy)
            assert rate is not None
            proxies[proxy] = {
                "median": statistics.median(values),
                "minimum": min(values),
                "maximum": max(values),
                "rate": rate * row.rate_scale if row.rate_unit else None,
                "system_share": figures.system_share(key, proxy),
                "samples": [asdict(sample) for sample in samples],
            }
        best = figures.best_peer(key)
        result.append(
            {
                "row": asdict(row),
                "proxies": proxies,
                "best_peer": best[0] if best else None,
                "ratio": figures.ratio(key),
                "met": figures.is_met(row),
            }
        )
    return result
