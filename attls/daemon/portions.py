"""A generation in portions: what goes to a worker is taken apart, so that reading it never keeps connections waiting.

A policy of ten thousand rules takes a worker a fifth of a second to read, and nothing moves meanwhile. In portions the
worker reads some milliseconds' worth, serves its connections, and reads on. One pickler writes all portions and one
unpickler reads them, so what is the same object here is one object there: the last portion, the generation itself, is
little more than references to what came before.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass

from attls.daemon.generation import Generation

_SIZE = 200  # rules in a portion: two to three milliseconds


@dataclass(frozen=True, slots=True)
class Prepare:
    """Order: build everything that a generation needs, without using it yet; this is one portion of it.

    Its last portion is answered by `prepared` with the generation's `number` and the problems.
    """

    number: int
    data: bytes
    is_first: bool
    is_last: bool


def portions(generation: Generation) -> list[Prepare]:
    """Take `generation` apart; `Assembly` puts it together again."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    found = []

    def cut(part: object) -> bytes:
        buffer.seek(0)
        buffer.truncate()
        pickler.dump(part)
        return buffer.getvalue()

    policy = generation.policy
    for series in (tuple(policy.actions.values()), policy.rules, *policy.matcher.pieces()):
        for start in range(0, len(series), _SIZE):
            found.append(cut(series[start : start + _SIZE]))
    found.append(cut(generation))
    last = len(found) - 1
    return [Prepare(generation.number, data, index == 0, index == last) for index, data in enumerate(found)]


class Assembly:
    """Puts a generation together from its portions, which come in order."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._unpickler: pickle.Unpickler | None = None

    def add(self, portion: Prepare) -> Generation | None:
        """Read one more portion; returns the generation when it was the last."""
        if portion.is_first or self._unpickler is None:
            self._unpickler = pickle.Unpickler(self._buffer)  # noqa: S301 - our parent wrote it
        self._buffer.seek(0)
        self._buffer.truncate()
        self._buffer.write(portion.data)
        self._buffer.seek(0)
        part = self._unpickler.load()
        if not portion.is_last:
            return None
        self._unpickler = None
        assert isinstance(part, Generation)
        return part
