"""The wire between the supervisor and a worker: the orders that go down, and frames over a socket pair.

A frame is a length and a body. The supervisor speaks pickle, because it is trusted and sends whole policies; a
worker, which parses what strangers send, may only answer in JSON. Whoever takes over a worker thus gains nothing over
the supervisor.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import trio

from attls.daemon.secondary import Primary
from attls.keyring import Keyring
from attls.model import Endpoint

_LENGTH = struct.Struct("!I")
LARGEST_FRAME = 512 * 1024 * 1024
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Configure:
    """First order: who the worker is, the descriptors of its listeners, where its connection numbers start.

    `control` are the descriptors of its part of the control channel, as `Mailroom.numbers` orders them, `handover`
    those of the inboxes for connections; `workers` is how many there are. Numbers are the supervisor's, -1 is none.
    """

    worker: int
    first: int
    listeners: tuple[int, ...]
    journal: bool
    control: tuple[int, ...] = ()
    handover: tuple[int, ...] = ()
    workers: int = 1

    def descriptors(self) -> set[int]:
        """Return all descriptors it names."""
        return {number for number in (*self.listeners, *self.control, *self.handover) if number >= 0}

    def with_descriptors(self, ours: Mapping[int, int]) -> Configure:
        """Return the order with the worker's own descriptor for each of the supervisor's."""

        def own(numbers: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(ours[number] if number >= 0 else number for number in numbers)

        return replace(self, listeners=own(self.listeners), control=own(self.control), handover=own(self.handover))


@dataclass(frozen=True, slots=True)
class Commit:
    """Judge every new connection by the prepared generation `number` from now on; answered by `committed`."""

    number: int


@dataclass(frozen=True, slots=True)
class RollBack:
    """Forget generation `number`, prepared or committed; what was in force before is in force again."""

    number: int


@dataclass(frozen=True, slots=True)
class Settle:
    """Generation `number` will not be rolled back any more: forget the one before, and its keys."""

    number: int


@dataclass(frozen=True, slots=True)
class RingReply:
    """The key ring a worker asked for with `request`, or why there is none."""

    request: int
    keyring: Keyring | None
    problem: str = ""
    code: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """Tell about connections and counters; answered by `report` with the same `request`.

    `connid` asks for one connection; `connections` for all. `detail` adds effective values.
    """

    request: int
    connections: bool = False
    connid: int | None = None
    detail: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """Tell about the connection whose program's socket has these ends; answered by `query` with the same `request`."""

    request: int
    local: Endpoint
    remote: Endpoint


@dataclass(frozen=True, slots=True)
class Introduce:
    """Remember primaries that connections may follow, of all workers; answered by `introduced` with `request`."""

    request: int
    primaries: tuple[Primary, ...]


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Forget a worker's primary, or all of them where `connid` is None."""

    worker: int
    connid: int | None


@dataclass(frozen=True, slots=True)
class Known:
    """Every worker knows primary `connid` of the worker that introduced it."""

    connid: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop accepting (answered by `draining`), wait up to `seconds` for live connections, reset the rest, and end."""

    seconds: float


class ChannelClosedError(Exception):
    """The other end is gone, or sent what is no frame."""


class Channel:
    """Messages both ways over `stream`; one task may receive while many send."""

    def __init__(
        self, stream: trio.abc.Stream, *, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]
    ) -> None:
        self._stream = stream
        self._encode = encode
        self._decode = decode
        self._sending = trio.StrictFIFOLock()
        self._buffer = bytearray()

    async def send(self, message: object) -> None:
        """Send one message; raises ChannelClosedError. Cancelled in the middle of it, the channel is closed."""
        body = self._encode(message)
        async with self._sending:
            await trio.lowlevel.checkpoint_if_cancelled()
            try:
                await self._stream.send_all(_LENGTH.pack(len(body)) + body)
            except trio.Cancelled:
                # Half a frame may be out, and whatever came behind it would be taken for its rest.
                await trio.aclose_forcefully(self._stream)
                raise
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ChannelClosedError("the other process is gone") from error

    async def receive(self) -> Any:
        """Return the next message; raises ChannelClosedError at the end."""
        (length,) = _LENGTH.unpack(await self._exactly(_LENGTH.size))
        if length > LARGEST_FRAME:
            raise ChannelClosedError(f"a frame of {length} bytes is too large")
        body = await self._exactly(length)
        try:
            return self._decode(body)
        except (ValueError, RecursionError) as error:
            raise ChannelClosedError(f"the other process sent what is no message: {error}") from error

    async def aclose(self) -> None:
        """Close our end."""
        await self._stream.aclose()

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            try:
                chunk = await self._stream.receive_some(_CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ChannelClosedError("the other process is gone") from error
            if not chunk:
                raise ChannelClosedError("the other process is gone")
            self._buffer += chunk
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def supervisor_end(stream: trio.abc.Stream) -> Channel:
    """Return the end that sends pickle and understands JSON only."""
    return Channel(stream, encode=pickle.dumps, decode=json.loads)


def worker_end(stream: trio.abc.Stream) -> Channel:
    """Return the end that sends JSON and trusts the pickle of its parent."""
    return Channel(stream, encode=_json, decode=pickle.loads)


def _json(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()
