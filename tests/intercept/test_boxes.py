"""Sorting boxes: nothing about which points they take may change, whatever shares a level or a list."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from attls.intercept import boxes
from attls.intercept.boxes import Box

NUMBERS = st.integers(0, 40) | st.integers(0, 2**32 - 1)
RANGES = st.tuples(NUMBERS, NUMBERS).map(lambda ends: (min(ends), max(ends)))
BOXES = st.tuples(st.none() | RANGES, st.none() | RANGES, st.none() | RANGES)
POINTS = st.tuples(NUMBERS, NUMBERS, NUMBERS).map(lambda point: tuple((number, number) for number in point))
ENTRIES = st.lists(st.tuples(st.lists(BOXES, min_size=1, max_size=2), st.booleans()), max_size=12)


@given(st.lists(BOXES, max_size=15), BOXES)
def test_shelf_finds_an_overlap_if_there_is_one(stored: list[Box], asked: Box) -> None:
    """What the tables of blocks answer is what comparing with every box answers, whenever the box was added."""
    shelf = boxes.Shelf(boxes.Patience())
    for number, box in enumerate(stored):
        found = shelf.overlapping(asked)
        assert any(boxes.overlap(asked, other) for other in stored[:number]) == (found is not None)
        assert found is None or boxes.overlap(asked, found)
        shelf.add(box)


def first_match(entries: list[tuple[list[Box], bool]], point: Box) -> bool:
    return next((verdict for some, verdict in entries if any(boxes.overlap(box, point) for box in some)), False)


def by_level(entries: list[tuple[list[Box], bool]], most: int) -> list[tuple[list[Box], bool]]:
    levels = boxes.levels(entries, most)
    kept = [(level, entry) for level, entry in zip(levels, entries, strict=True) if level is not None]
    assert all(level < most and level % 2 == verdict for level, (_, verdict) in kept)
    return [entry for _, entry in sorted(kept, key=lambda item: item[0])]


@given(ENTRIES, POINTS)
def test_levels_keep_every_decision(entries: list[tuple[list[Box], bool]], point: Box) -> None:
    """The first match by level has the verdict of the first match by order."""
    assert first_match(entries, point) == first_match(by_level(entries, 100), point)


@given(ENTRIES, POINTS)
def test_too_few_levels_only_say_yes_too_often(entries: list[tuple[list[Box], bool]], point: Box) -> None:
    """With two levels for whatever order there is, whoever had True still has it."""
    assert first_match(by_level(entries, 2), point) or not first_match(entries, point)


@given(st.lists(BOXES, max_size=15), st.integers(1, 3), POINTS, st.integers(0, 20))
def test_disjoint_lists_take_the_same_points(found: list[Box], most: int, point: Box, patience: int) -> None:
    """No two boxes of a list overlap, and lists and rest together take the points of all boxes; so out of patience."""
    lists, left = boxes.disjoint(found, most, boxes.Patience(patience) if patience else None)
    assert len(lists) <= most
    for members in lists:
        assert not any(boxes.overlap(one, other) for one, other in itertools.combinations(members, 2))
    kept = [*left, *itertools.chain.from_iterable(lists)]
    assert any(boxes.overlap(box, point) for box in found) == any(boxes.overlap(box, point) for box in kept)


def test_different_verdicts_share_two_levels_where_nothing_overlaps() -> None:
    """A thousand boxes that take turns with their verdicts, but never overlap, need no order."""
    entries = [([((number * 10, number * 10 + 9), None)], number % 2 == 0) for number in range(1000)]
    assert {0, 1} == set(boxes.levels(entries, 100))
