"""The supervisor's half of what workers share: `control.sock`, and their inboxes for requests and for connections.

A worker that dies leaves its inboxes and the listening socket behind, with whatever waits there, to its successor.
"""

from __future__ import annotations

import grp
import os
import socket
from pathlib import Path

from attls.errors import DaemonError

BACKLOG = 1024


class Mailroom:
    """The listening socket at `path` and the inboxes of `workers`; closed by `close`.

    `mode` is the socket file's; `group`, where given, is the name or number of the group that owns it. Raises
    DaemonError. Holding a connection's descriptor is what permits a request, so anybody may connect by default.
    """

    def __init__(self, path: Path, workers: int, *, mode: int = 0o666, group: str | None = None) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._inboxes: list[tuple[socket.socket, socket.socket]] = []
        self._handovers: list[tuple[socket.socket, socket.socket]] = []
        try:
            self._listener.bind(str(path))  # the umask of the daemon makes it 0600 until we say otherwise
            if group is not None:
                os.chown(path, -1, _group(group))
            path.chmod(mode)
            self._listener.listen(BACKLOG)
        except OSError as error:
            self._listener.close()
            raise DaemonError(f"cannot listen on {path}: {error.strerror}") from error
        except BaseException:
            self._listener.close()
            raise
        for _ in range(workers):
            self._inboxes.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            self._handovers.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))

    def numbers(self, worker: int) -> tuple[int, ...]:
        """Return the descriptors for `worker`: the listener, its inbox, the way to the next one's."""
        following = self._inboxes[(worker + 1) % len(self._inboxes)][1]
        return (self._listener.fileno(), self._inboxes[worker][0].fileno(), following.fileno())

    def handover(self, worker: int) -> tuple[int, ...]:
        """Return the descriptors for `worker` of its inbox for connections, and of the ways into everybody's."""
        return (self._handovers[worker][0].fileno(), *(outlet.fileno() for _, outlet in self._handovers))

    def close(self) -> None:
        """Close everything; the socket's file is the run directory's business."""
        self._listener.close()
        for pair in (*self._inboxes, *self._handovers):
            for sock in pair:
                sock.close()


def _group(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise DaemonError(f"there is no group {name}; create it or give another to --control-group") from None
