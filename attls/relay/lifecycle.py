"""The life of a relayed connection as a table: what may happen in which state, and what the relay then does.

Two ends: `app` is the program's socket, always plain; `net` is the network's, TLS where policy asks for it. An orderly
end travels in each direction on its own (close_notify ↔ FIN), so a program may finish sending and still listen.
Whatever is not in the table cannot happen; failures are not in it because they mean the same in every state: both ends
are reset and the record is closed with the reason.

    outbound:  NEW → DIALING → HANDSHAKE → OPEN → APP_DONE or NET_DONE → CLOSED
    inbound:   NEW → HANDSHAKE → DIALING → OPEN …   (the program hears of nobody who has not proven himself)
    HANDSHAKE is followed by JUDGING where the peer's certificates have to be asked about before anything else.
    in clear:  NEW → DIALING → OPEN …
    on demand: NEW → HANDSHAKE → OPEN …   (the program has asked for TLS on a connection that is open already)
"""

from __future__ import annotations

# The enumerations are integers because every step looks up a pair of them, and other members hash in Python code.
import enum
from collections.abc import Mapping


class State(enum.IntEnum):
    """Where a connection is in its life."""

    NEW = enum.auto()
    DIALING = enum.auto()
    HANDSHAKE = enum.auto()
    JUDGING = enum.auto()
    OPEN = enum.auto()
    APP_DONE = enum.auto()
    NET_DONE = enum.auto()
    CLOSED = enum.auto()


class Event(enum.IntEnum):
    """What happened."""

    STARTED = enum.auto()
    DIALED = enum.auto()
    PROVEN = enum.auto()
    SECURED = enum.auto()
    APP_CLOSED = enum.auto()
    NET_CLOSED = enum.auto()


class Command(enum.IntEnum):
    """What the relay is to do now."""

    DIAL = enum.auto()
    SHAKE_HANDS = enum.auto()
    JUDGE = enum.auto()
    RELAY = enum.auto()
    END_NET = enum.auto()
    END_APP = enum.auto()
    FINISH_NET = enum.auto()
    FINISH_APP = enum.auto()


Moves = Mapping[tuple[State, Event], tuple[State, Command]]

# `END_…` ends one direction and keeps the other; `FINISH_…` ends the last one, after which the connection is over.
_CLOSING: Moves = {
    (State.OPEN, Event.APP_CLOSED): (State.APP_DONE, Command.END_NET),
    (State.OPEN, Event.NET_CLOSED): (State.NET_DONE, Command.END_APP),
    (State.APP_DONE, Event.NET_CLOSED): (State.CLOSED, Command.FINISH_APP),
    (State.NET_DONE, Event.APP_CLOSED): (State.CLOSED, Command.FINISH_NET),
}

OUTBOUND: Moves = {
    (State.NEW, Event.STARTED): (State.DIALING, Command.DIAL),
    (State.DIALING, Event.DIALED): (State.HANDSHAKE, Command.SHAKE_HANDS),
    (State.HANDSHAKE, Event.SECURED): (State.OPEN, Command.RELAY),
    (State.HANDSHAKE, Event.PROVEN): (State.JUDGING, Command.JUDGE),
    (State.JUDGING, Event.SECURED): (State.OPEN, Command.RELAY),
    **_CLOSING,
}

INBOUND: Moves = {
    (State.NEW, Event.STARTED): (State.HANDSHAKE, Command.SHAKE_HANDS),
    (State.HANDSHAKE, Event.SECURED): (State.DIALING, Command.DIAL),
    (State.HANDSHAKE, Event.PROVEN): (State.JUDGING, Command.JUDGE),
    (State.JUDGING, Event.SECURED): (State.DIALING, Command.DIAL),
    (State.DIALING, Event.DIALED): (State.OPEN, Command.RELAY),
    **_CLOSING,
}

CLEAR: Moves = {
    (State.NEW, Event.STARTED): (State.DIALING, Command.DIAL),
    (State.DIALING, Event.DIALED): (State.OPEN, Command.RELAY),
    **_CLOSING,
}

CONTROLLED: Moves = {
    (State.NEW, Event.STARTED): (State.HANDSHAKE, Command.SHAKE_HANDS),
    (State.HANDSHAKE, Event.SECURED): (State.OPEN, Command.RELAY),
    (State.HANDSHAKE, Event.PROVEN): (State.JUDGING, Command.JUDGE),
    (State.JUDGING, Event.SECURED): (State.OPEN, Command.RELAY),
    **_CLOSING,
}


class Lifecycle:
    """One connection's place in its table; `advance` is the only way to move.

    `moves` is one of OUTBOUND, INBOUND, CLEAR and CONTROLLED.
    """

    __slots__ = ("moves", "state")

    def __init__(self, moves: Moves) -> None:
        self.moves = moves
        self.state = State.NEW

    def advance(self, event: Event) -> Command:
        """Take the step that `event` asks for and return what is to be done.

        Raises KeyError for an event that cannot happen in this state: a bug of ours, which ends the connection.
        """
        self.state, command = self.moves[self.state, event]
        return command
