"""Handing a caught connection to the worker that carries the one it follows, so that it can resume its session.

Sessions and ticket keys live inside one worker's TLS library and cannot leave it. The kernel picks a worker by the
address a connection comes from, and a data connection may come from the other end than its control connection did (FTP
in active mode). So each worker has an inbox for sockets, which all others may put into. The supervisor holds both ends
(see mailroom): what waits for a worker that has died is taken by its successor.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence

from attls.model import Direction

_WORDS = {direction: direction.value.encode() for direction in Direction}
_DIRECTIONS = {word: direction for direction, word in _WORDS.items()}
_LONGEST = 16


class Handover:
    """One worker's `inbox`, and the `outlets` into every worker's, by worker; all are ours to keep for good."""

    def __init__(self, inbox: socket.socket, outlets: Sequence[socket.socket]) -> None:
        self.inbox = inbox
        self._outlets = outlets
        inbox.setblocking(False)

    def give(self, worker: int, direction: Direction, accepted: socket.socket) -> bool:
        """Hand over and close a socket that came to our listener of `direction`; False when it stays with us."""
        descriptor = array.array("i", [accepted.fileno()])
        try:
            self._outlets[worker].sendmsg(
                [_WORDS[direction]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)], socket.MSG_DONTWAIT
            )
        except OSError:
            return False  # the other one has more than it can take
        accepted.close()
        return True

    def take(self) -> tuple[Direction, socket.socket] | None:
        """Return the next socket that was handed to us, non-blocking, or None when there is none.

        One for which there is no descriptor left is closed by the kernel and passed over.
        """
        while True:
            try:
                word, ancillary, _, _ = self.inbox.recvmsg(
                    _LONGEST, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return None
            for _, _, data in ancillary:
                accepted = socket.socket(fileno=array.array("i", data)[0])
                accepted.setblocking(False)
                return _DIRECTIONS[word], accepted
