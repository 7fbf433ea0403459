"""From samples to figures: medians, the ratio against the best peer, a table for people and a document for programs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.loads import Load, Sample

OURS = "attls"


@dataclass(slots=True)
class Figures:
    """All samples of a run, by load and by proxy, in the order they were first added."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)

    def add(self, load: str, proxy: str, sample: Sample) -> None:
        """Keep one sample."""
        self.samples.setdefault(load, {}).setdefault(proxy, []).append(sample)

    def median(self, load: str, proxy: str) -> float | None:
        """Median cost per unit in seconds or bytes; None when nothing was measured."""
        samples = self.samples.get(load, {}).get(proxy)
        return statistics.median(sample.per_unit for sample in samples) if samples else None

    def rate(self, load: str, proxy: str) -> float | None:
        """Median units per second on the clock."""
        samples = self.samples.get(load, {}).get(proxy)
        return statistics.median(sample.units / sample.seconds for sample in samples) if samples else None

    def base(self, load: str, proxy: str) -> float | None:
        """Median memory before the first connection, in bytes; None where a load does not measure it."""
        bases = [sample.base for sample in self.samples.get(load, {}).get(proxy, []) if sample.base is not None]
        return statistics.median(bases) if bases else None

    def system_share(self, load: str, proxy: str) -> float | None:
        """Median share of the CPU time that the kernel spent on the proxy's behalf; None for memory."""
        samples = self.samples.get(load, {}).get(proxy, [])
        shares = [sample.system / sample.cost for sample in samples if sample.system is not None and sample.cost]
        return statistics.median(shares) if shares else None

    def best_peer(self, load: str) -> tuple[str, float] | None:
        """The peer with the lowest median, and that median; None when no peer was measured."""
        medians = [
            (median, proxy)
            for proxy in self.samples.get(load, {})
            if proxy != OURS and (median := self.median(load, proxy)) is not None
        ]
        if not medians:
            return None
        median, proxy = min(medians)
        return proxy, median

    def ratio(self, load: str) -> float | None:
        """Our median against the best peer's; None when one of them is missing."""
        ours, best = self.median(load, OURS), self.best_peer(load)
        return ours / best[1] if ours is not None and best is not None else None


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


def table(figures: Figures, loads: Iterable[Load], labels: dict[str, str]) -> str:
    """The comparison as text; `labels` names the proxies to show, in order, with their column headings."""
    loads = [load for load in loads if load.name in figures.samples]
    cost = [["cost per unit", "unit", *labels.values(), "ratio", "bar"]]
    rate = [["rate, for the record", "unit", *labels.values()]]
    kernel = [["share of CPU time in the kernel", "", *labels.values()]]
    for load in loads:
        ratio = figures.ratio(load.name)
        verdict = "-" if ratio is None else f"{ratio:.2f}x"
        medians = (figures.median(load.name, proxy) for proxy in labels)
        cells = [number(None if median is None else median * load.scale) for median in medians]
        over = ratio is not None and ratio > load.bar
        cost.append([load.label, load.unit, *cells, verdict, f"{load.bar:.2f}x{' OVER' if over else ''}"])
        rates = (figures.rate(load.name, proxy) for proxy in labels)
        rate.append([load.label, load.rate_unit, *(number(None if r is None else r * load.rate_scale) for r in rates)])
        shares = [figures.system_share(load.name, proxy) for proxy in labels]
        if any(share is not None for share in shares):
            kernel.append([load.label, "%", *(number(None if s is None else 100 * s) for s in shares)])
        bases = [figures.base(load.name, proxy) for proxy in labels]
        if any(base is not None for base in bases):
            mebibytes = [number(None if base is None else base / (1 << 20)) for base in bases]
            cost.append(["memory before the first connection", "MiB", *mebibytes, "", ""])
    return "\n".join([*columns(cost), "", *columns(rate), "", *columns(kernel)])


def over_bar(figures: Figures, loads: Iterable[Load]) -> list[str]:
    """One sentence for each load where attls costs more than its bar allows."""
    return [
        f"{load.label}: {ratio:.2f} times the best peer, at most {load.bar:.2f} allowed"
        for load in loads
        if (ratio := figures.ratio(load.name)) is not None and ratio > load.bar
    ]


def document(figures: Figures, loads: Iterable[Load]) -> list[dict[str, object]]:
    """The figures as plain data: one entry per load, medians in the load's unit, every sample below."""
    result: list[dict[str, object]] = []
    for load in loads:
        if load.name not in figures.samples:
            continue
        proxies: dict[str, object] = {}
        for proxy, samples in figures.samples[load.name].items():
            values = [sample.per_unit * load.scale for sample in samples]
            rate = figures.rate(load.name, proxy)
            assert rate is not None
            proxies[proxy] = {
                "median": statistics.median(values),
                "minimum": min(values),
                "maximum": max(values),
                "rate": rate * load.rate_scale,
                "base_bytes": figures.base(load.name, proxy),
                "system_share": figures.system_share(load.name, proxy),
                "samples": [{"cost": s.cost, "units": s.units, "seconds": s.seconds} for s in samples],
            }
        best = figures.best_peer(load.name)
        result.append(
            {
                "load": load.name,
                "label": load.label,
                "unit": load.unit,
                "rate_unit": load.rate_unit,
                "proxies": proxies,
                "best_peer": best[0] if best else None,
                "ratio": figures.ratio(load.name),
                "bar": load.bar,
            }
        )
    return result
