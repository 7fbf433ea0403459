"""From the JSON document of a run to the documentation: `python -m bench.publish FILE [DIRECTORY]`.

Writes the tables between the two marks of `benchmark.md` in the directory (docs/) and one chart for each group beside
it, in figures/. What stands outside of the marks is written by people and stays as it is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.loads import Row
from bench.plot import Bars, chart
from bench.processes import ROOT
from bench.report import Fact, Figures, fact_cells, growth, markdown, number, table, verdict

BEGIN = "<!-- figures of one run, written by python -m bench.publish: begin -->"
END = "<!-- end of the figures -->"
TITLES = {
    "start": "Start",
    "memory": "Memory",
    "requests": "Small requests, server role",
    "connections": "New connections, server role",
    "bulk": "Bulk, server role",
    "client": "Client role",
    "plain": "No TLS",
    "cores": "One worker and all cores",
}


def bars(figures: Figures, row: Row, labels: dict[str, str]) -> Bars:
    """One row as bars, with the ratio and its bar as the remark."""
    values = {proxy: figures.median(row.key, proxy) for proxy in labels}
    ratio = figures.ratio(row.key)
    remark = "" if ratio is None else f"{ratio:.2f}x the best peer"
    if ratio is not None and row.bar is not None:
        remark += f", at most {row.bar:.2f}x: {verdict(figures.is_met(row)).lower()}"
    return Bars(
        f"{row.label} ({row.unit})",
        [(labels[proxy], value, number(value and value * row.scale)) for proxy, value in values.items()],
        remark,
    )


def plots(figures: Figures, labels: dict[str, str], where: str) -> dict[str, str]:
    """One SVG document for each group; `where` says what machine the figures are from."""
    return {
        group: chart(TITLES[group], f"shorter is better, each row to its own scale; {where}", drawn)
        for group, rows in figures.groups().items()
        if (drawn := [bars(figures, row, labels) for row in rows])
    }


def text(document: dict[str, Any], figures: Figures) -> str:
    """The tables of a run as Markdown, with what it ran on."""
    labels: dict[str, str] = document["labels"]
    facts = {**document["machine"], **document["versions"], "TLS": "; ".join(document["terms"])}
    facts["rounds"] = f"{document['rounds']}, medians"
    parts = ["\n".join(f"- {name}: {words}" for name, words in facts.items())]
    for group, rows in figures.groups().items():
        parts.append(f"### {TITLES[group]}")
        parts.append(f"![{TITLES[group]}](figures/{group}.svg)")
        parts += [markdown(cells) for cells in [*table(figures, rows, labels), *growth(figures, rows, labels)]]
    if document["alone"]:
        parts.append("### attls alone")
        facts_found = [Fact(**fact) for found in document["alone"].values() for fact in found]
        parts.append(markdown(fact_cells(facts_found)))
    return "\n\n".join(parts)


def between_marks(page: str, new: str) -> str:
    """The page with `new` between its marks; raises ValueError when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page does not have both marks, {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{new}\n\n{END}{after}"


def publish(document: dict[str, Any], directory: Path) -> None:
    """Write tables and charts."""
    figures = Figures.from_document(document["figures"])
    machine = document["machine"]
    charts = directory / "figures"
    charts.mkdir(exist_ok=True)
    for group, drawing in plots(figures, document["labels"], f"{machine['processor']}, {machine['date']}").items():
        (charts / f"{group}.svg").write_text(drawing)
    page = directory / "benchmark.md"
    page.write_text(between_marks(page.read_text(), text(document, figures)))


def main() -> int:
    """Run the command; returns the exit code."""
    if len(sys.argv) not in (2, 3):
        print("usage: python -m bench.publish FILE [DIRECTORY]", file=sys.stderr)
        return 2
    publish(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]) if len(sys.argv) == 3 else ROOT / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
