"""The wire between supervisor and worker: whole messages whatever the pieces, and JSON only upwards."""

from __future__ import annotations

import json
import pickle
import struct

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from attls.daemon.channel import (
    LARGEST_FRAME,
    ChannelClosedError,
    Commit,
    Report,
    supervisor_end,
    worker_end,
)

MESSAGES = st.lists(
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()))
)


@given(MESSAGES, st.integers(1, 40))
def test_any_split_gives_the_same_messages(messages: list[dict[str, object]], size: int) -> None:
    """Frames come out as they went in, wherever the stream is cut."""

    async def run() -> list[object]:
        raw = b"".join(struct.pack("!I", len(body)) + body for body in (json.dumps(each).encode() for each in messages))
        ours, theirs = trio.testing.memory_stream_pair()
        channel = supervisor_end(theirs)
        received = []
        async with trio.open_nursery() as nursery:

            async def feed() -> None:
                for start in range(0, len(raw), size):
                    await ours.send_all(raw[start : start + size])

            nursery.start_soon(feed)
            for _ in messages:
                received.append(await channel.receive())
        return received

    assert messages == trio.run(run)


async def test_orders_go_down_and_answers_come_up() -> None:
    """An order arrives as the same value; an answer arrives as what JSON makes of it."""
    above, below = trio.testing.memory_stream_pair()
    supervisor, worker = supervisor_end(above), worker_end(below)
    await supervisor.send(Commit(7))
    await worker.send({"kind": "committed", "number": 7})
    assert Commit(7) == await worker.receive()
    assert {"kind": "committed", "number": 7} == await supervisor.receive()


async def test_many_senders_do_not_mix_their_frames() -> None:
    """Whole frames leave one after the other, however many tasks send."""
    above, below = trio.testing.memory_stream_pair()
    supervisor, worker = supervisor_end(above), worker_end(below)
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(supervisor.send, Report(number))
        numbers = {(await worker.receive()).request for _ in range(50)}
    assert set(range(50)) == numbers


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        struct.pack("!I", 5) + b"{}",
        struct.pack("!I", LARGEST_FRAME + 1),
        struct.pack("!I", 2) + b"\xff\xff",
        struct.pack("!I", 20000) + b"[" * 20000,
        (lambda body: struct.pack("!I", len(body)) + body)(pickle.dumps(Commit(1))),
    ],
)
async def test_what_a_worker_cannot_have_meant_ends_the_channel(data: bytes) -> None:
    """Nothing that a worker sends is ever unpickled or believed; the supervisor ends the conversation."""
    above, below = trio.testing.memory_stream_pair()
    await below.send_all(data)
    await below.send_eof()
    with pytest.raises(ChannelClosedError):
        await supervisor_end(above).receive()


async def test_sending_to_the_dead_is_told() -> None:
    """A closed other end is one kind of error."""
    above, below = trio.testing.memory_stream_pair()
    await below.aclose()
    with pytest.raises(ChannelClosedError):
        await supervisor_end(above).send(Commit(1))


async def test_half_a_frame_is_the_last_thing_that_is_said() -> None:
    """When sending is cancelled in the middle of a frame, the channel ends instead of passing on what follows."""
    above, below = trio.testing.lockstep_stream_pair()
    supervisor, worker = supervisor_end(above), worker_end(below)
    received: list[object] = []

    async def listen() -> None:
        try:
            while True:
                received.append(await worker.receive())
        except ChannelClosedError:
            received.append("closed")

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.send, Report(1))
            await trio.testing.wait_all_tasks_blocked()
            assert b"" != await below.receive_some(3)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    with pytest.raises(ChannelClosedError):
        await supervisor.send(Commit(7))
    await listen()
    assert ["closed"] == received
