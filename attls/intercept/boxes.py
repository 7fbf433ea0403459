"""Boxes: what a packet filter rule asks, as ranges of a few numbers, sorted out so that one look-up does for many.

A packet is a point with a number on each axis (ports, addresses, a user id), a rule is a box around the points that
it takes. Two questions are answered here, both without comparing every box with every other one:
- which rules may change places? Only overlapping boxes with different verdicts have an order (`levels`);
- which boxes may share one interval set of the kernel? It takes no two that overlap (`disjoint`).

`Shelf` finds an overlap by tables of aligned blocks: on each axis a range of some width lies in one or two blocks of
the next larger size, so two boxes that overlap have, at the size of the larger of them, a block in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

# One range for each axis, None where that axis is not looked at; the first axis holds what must be equal.
Box = tuple[tuple[int, int] | None, ...]

_SIZE_STEP = 2  # block sizes are powers of 2**2: fewer tables, at the price of a few more candidates
# Comparisons that one sorting may take (some seconds). Only thousands of boxes that nearly all overlap need as many.
_MOST_COMPARISONS = 3_000_000

_Axes = tuple[int, ...]
_Sizes = tuple[int, ...]
_Table = dict[tuple[int, ...], list[Box]]


def overlap(one: Box, other: Box) -> bool:
    """Say whether some point lies in both boxes."""
    return all(a is None or b is None or (a[0] <= b[1] and b[0] <= a[1]) for a, b in zip(one, other, strict=True))


def covers(outer: Box, inner: Box) -> bool:
    """Say whether every point of `inner` lies in `outer`."""
    return all(
        a is None or (b is not None and a[0] <= b[0] and b[1] <= a[1]) for a, b in zip(outer, inner, strict=True)
    )


class Patience:
    """How many comparisons are left to one sorting; shared by its shelves."""

    def __init__(self, comparisons: int = _MOST_COMPARISONS) -> None:
        self.left = comparisons


class Shelf:
    """A growing collection of boxes that knows quickly whether a further one overlaps any of them.

    When `patience` is over it answers yes without looking: that is always safe, and costs levels or lists.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._boxes: dict[_Axes, dict[_Sizes, list[Box]]] = {}
        # By axes of the boxes, axes that a query has in common with them, their sizes, and the size of the blocks.
        self._tables: dict[tuple[_Axes, _Axes, _Sizes], dict[_Sizes, _Table]] = {}
        self._common: dict[tuple[_Axes, _Sizes], set[_Axes]] = {}

    def add(self, box: Box) -> None:
        """Put one more box on the shelf."""
        axes = _axes(box)
        sizes = _sizes(box, axes)
        self._boxes.setdefault(axes, {}).setdefault(sizes, []).append(box)
        for common in self._common.get((axes, sizes), ()):
            for blocks, table in self._tables[axes, common, sizes].items():
                _file(table, box, common, blocks)

    def overlapping(self, box: Box) -> Box | None:
        """Return some box of the shelf that `box` overlaps (or may overlap, out of patience), or None."""
        own_axes = _axes(box)
        for axes, by_size in self._boxes.items():
            common = tuple(axis for axis in axes if axis in own_axes)
            if not common:
                return next(iter(by_size.values()))[0]
            own = _sizes(box, common)
            for sizes, boxes in by_size.items():
                there = _sizes(boxes[0], common)
                blocks = tuple(map(max, own, there))
                table = self._table(axes, common, sizes, blocks)
                for key in _keys(box, common, blocks):
                    candidates = table.get(key, ())
                    self._patience.left -= 1 + len(candidates)
                    if self._patience.left < 0:
                        return boxes[0]
                    for candidate in candidates:
                        if overlap(box, candidate):
                            return candidate
        return None

    def _table(self, axes: _Axes, common: _Axes, sizes: _Sizes, blocks: _Sizes) -> _Table:
        tables = self._tables.setdefault((axes, common, sizes), {})
        table = tables.get(blocks)
        if table is None:
            table = tables[blocks] = {}
            self._common.setdefault((axes, sizes), set()).add(common)
            for box in self._boxes[axes][sizes]:
                _file(table, box, common, blocks)
        return table


def _axes(box: Box) -> _Axes:
    return tuple(axis for axis, ends in enumerate(box) if ends is not None)


def _sizes(box: Box, axes: _Axes) -> _Sizes:
    # For each axis the power of two of the smallest block size that is not below the range's width.
    sizes = []
    for axis in axes:
        ends = box[axis]
        assert ends is not None
        sizes.append(-(-(ends[1] - ends[0]).bit_length() // _SIZE_STEP) * _SIZE_STEP)
    return tuple(sizes)


def _keys(box: Box, axes: _Axes, blocks: _Sizes) -> Iterable[tuple[int, ...]]:
    choices = []
    for axis, size in zip(axes, blocks, strict=True):
        ends = box[axis]
        assert ends is not None
        first, last = ends[0] >> size, ends[1] >> size
        choices.append((first,) if first == last else (first, last))
    return product(*choices)


def _file(table: _Table, box: Box, axes: _Axes, blocks: _Sizes) -> None:
    for key in _keys(box, axes, blocks):
        table.setdefault(key, []).append(box)


def levels(judged: Iterable[tuple[Sequence[Box], bool]], most: int) -> list[int | None]:
    """Say for each entry of an ordered list on which level it may stand: first match wins, lower levels first.

    An entry is some boxes and a verdict. False stands on even levels, True on odd ones; overlapping entries of
    different verdicts keep their order, all others share as few levels as that allows. There are `most` levels, an even
    number: a False that needed a higher one is left out (None), so that what it covers may come out True.
    """
    patience = Patience()
    shelves = [Shelf(patience) for _ in range(most)]
    found: list[int | None] = []
    highest = -1
    for boxes, verdict in judged:
        level = 1 if verdict else 0
        for number in range(highest, -1, -1):
            if number % 2 != level % 2 and any(shelves[number].overlapping(box) is not None for box in boxes):
                level = number + 1
                break
        if level >= most:
            found.append(None)
            continue
        highest = max(highest, level)
        for box in boxes:
            shelves[level].add(box)
        found.append(level)
    return found


def disjoint(boxes: Iterable[Box], most: int, patience: Patience | None = None) -> tuple[list[list[Box]], list[Box]]:
    """Divide boxes into at most `most` lists without overlaps; also return what did not fit into any of them.

    A box that lies within another one is left out.
    """
    patience = patience or Patience()
    lists: list[tuple[Shelf, list[Box]]] = []
    left = []
    for box in sorted(dict.fromkeys(boxes), key=_volume, reverse=True):  # the large ones first, to swallow the others
        for shelf, members in lists:
            met = shelf.overlapping(box)
            if met is None:
                shelf.add(box)
                members.append(box)
                break
            if covers(met, box):
                break
        else:
            if len(lists) < most:
                shelf = Shelf(patience)
                shelf.add(box)
                lists.append((shelf, [box]))
            else:
                left.append(box)
    return [members for _, members in lists], left


def _volume(box: Box) -> int:
    volume = 1
    for ends in box:
        if ends is not None:
            volume *= ends[1] - ends[0] + 1
    return volume
