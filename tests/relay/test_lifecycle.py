"""The lifecycle table, without sockets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls.relay.lifecycle import CLEAR, INBOUND, OUTBOUND, Command, Event, Lifecycle, Moves, State


def transcript(moves: Moves, *events: Event) -> list[Command]:
    """Return the commands that a run of events brings."""
    life = Lifecycle(moves)
    return [life.advance(event) for event in events]


def test_an_outbound_connection_dials_before_it_shakes_hands() -> None:
    """The program's connect leads to ours, then to the handshake, then to data."""
    assert [Command.DIAL, Command.SHAKE_HANDS, Command.RELAY] == transcript(
        OUTBOUND, Event.STARTED, Event.DIALED, Event.SECURED
    )


def test_a_program_hears_of_an_inbound_peer_only_after_the_handshake() -> None:
    """Inbound, the handshake comes before the connection to the program."""
    assert [Command.SHAKE_HANDS, Command.DIAL, Command.RELAY] == transcript(
        INBOUND, Event.STARTED, Event.SECURED, Event.DIALED
    )


@pytest.mark.parametrize("moves", [OUTBOUND, INBOUND, CLEAR])
def test_each_direction_ends_on_its_own(moves: Moves) -> None:
    """The first end keeps the other direction open; the second one finishes the connection."""
    for first, second, commands in (
        (Event.APP_CLOSED, Event.NET_CLOSED, [Command.END_NET, Command.FINISH_APP]),
        (Event.NET_CLOSED, Event.APP_CLOSED, [Command.END_APP, Command.FINISH_NET]),
    ):
        life = Lifecycle(moves)
        life.state = State.OPEN
        assert commands == [life.advance(first), life.advance(second)]
        assert life.state is State.CLOSED


@given(st.sampled_from([OUTBOUND, INBOUND, CLEAR]), st.lists(st.sampled_from(Event), max_size=12))
def test_what_is_not_in_the_table_cannot_happen(moves: Moves, events: list[Event]) -> None:
    """Any order of events either follows the table or is refused, and CLOSED is left by nothing."""
    life = Lifecycle(moves)
    for event in events:
        before = life.state
        if (before, event) in moves:
            life.advance(event)
            assert before is not State.CLOSED
        else:
            with pytest.raises(KeyError):
                life.advance(event)
            assert before is life.state
