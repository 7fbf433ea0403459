"""Bar charts as SVG, written by hand: one group of bars for each row, one bar for each proxy, attls in colour.

Rows of one chart have different units, so each row is drawn to its own scale: its longest bar is as long as the chart
is wide, and every bar carries its figure. Shorter is better throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 760, 92, 118
BAR, GAP, HEADING, SPACE, TOP = 13, 3, 18, 14, 46
OURS_COLOUR = "#1f6feb"
PEER_COLOURS = ("#8c959f", "#a8b0b8", "#bcc3ca", "#d0d5da")


@dataclass(frozen=True, slots=True)
class Bars:
    """One row: its heading, and for each proxy a label, a length and the text at its end. `None`: nothing measured."""

    heading: str
    bars: Sequence[tuple[str, float | None, str]]
    remark: str = ""


def _text(x: float, y: float, text: str, *, anchor: str = "start", style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def chart(title: str, note: str, rows: Sequence[Bars]) -> str:
    """The chart as an SVG document; the first bar of each row is drawn as ours."""
    parts: list[str] = []
    y = TOP
    room = WIDTH - LEFT - RIGHT
    for row in rows:
        parts.append(_text(8, y + HEADING - 6, row.heading, style=' font-weight="600"'))
        if row.remark:
            parts.append(_text(WIDTH - 8, y + HEADING - 6, row.remark, anchor="end", style=' fill="#57606a"'))
        y += HEADING
        longest = max((value for _, value, _ in row.bars if value is not None), default=0.0) or 1.0
        for index, (label, value, words) in enumerate(row.bars):
            colour = OURS_COLOUR if index == 0 else PEER_COLOURS[(index - 1) % len(PEER_COLOURS)]
            middle = y + BAR - 3
            parts.append(_text(LEFT - 6, middle, label, anchor="end"))
            length = 0.0 if value is None else max(1.0, room * value / longest)
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}" rx="1"/>')
            parts.append(_text(LEFT + length + 5, middle, words))
            y += BAR + GAP
        y += SPACE
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" '
        'font-family="system-ui, sans-serif" font-size="11" fill="#1f2328" role="img" '
        f'aria-label="{escape(title, {chr(34): "&quot;"})}">'
    )
    ground = f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>'
    titles = [
        _text(8, 18, title, style=' font-size="14" font-weight="600"'),
        _text(8, 34, note, style=' fill="#57606a"'),
    ]
    return "\n".join([head, ground, *titles, *parts, "</svg>"]) + "\n"
