"""Taking requests from `control.sock` and from other workers, and answering them; what they mean is not known here.

Theory of operation. All workers share one listening socket; whoever is first accepts. A request is one packet with
exactly one descriptor, the program's own TCP socket: holding it is the permission. A worker that does not carry the
connection passes packet, descriptor and the client itself on to the next worker, through a socket pair of which the
supervisor keeps both ends, so that a worker's death loses nothing. The last one asked answers.

A desk is an epoll set of its own. It is served between any two batches of relay events, so that a query does not queue
behind the traffic, and it handles a bounded number of events at a time, so that traffic does not queue behind queries.

Nobody is trusted: a client has one request at a time, a deadline to make it in and a share of the descriptors; an
answer it does not take is dropped with it. Every descriptor that came along is closed in the same call that received
it, or belongs to a `Petition`, which is closed exactly once.
"""

from __future__ import annotations

import array
import contextlib
import errno
import logging
import os
import select
import socket
import stat
import struct
import sys
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

from attls.control.protocol import (
    EMVSERR,
    FLAG_WAIT,
    LARGEST_REQUEST,
    Call,
    Junior,
    RefusalError,
    parse_request,
    refuse,
)
from attls.model import Address, Endpoint, canonical_address

IDLE_SECONDS = 30.0  # how long a client may hold a connection without a request in hand
_EVENTS_AT_ONCE = 16
_MOST_DESCRIPTORS = 4  # room for what a client should not send; the kernel drops what does not fit
_CREDENTIALS = struct.Struct("3i")
_SO_COOKIE = 57
# A passed-on request: a word to know it by, and how many workers it has seen.
_PASSED = struct.Struct("=4sH")
_WORD = b"ATLS"
# Put together once: the constants of `socket` are enums, whose arithmetic costs more than a system call.
_RECEIVE = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_SEND = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_CUT = int(socket.MSG_CTRUNC | socket.MSG_TRUNC)
_ROOM = LARGEST_REQUEST + _PASSED.size + 1
_ANCILLARY_ROOM = socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4)
_log = logging.getLogger("attls.control")


class Petition:
    """One request: what is asked, the program's socket, and the way to answer. Closed by `answer` or `close`.

    `local` and `remote` are the ends of the program's socket as it sees them; `cookie` is the kernel's number for it,
    never used twice. `waits` says whether the program waits for the outcome: its socket is a blocking one, or it says
    so. `when_abandoned` is called when the client hangs up before it has its answer.
    """

    __slots__ = (
        "_client", "_desk", "call", "cookie", "local", "packet", "remote", "seen", "sock", "waits", "when_abandoned",
    )  # fmt: skip

    def __init__(self, desk: Desk, client: _Client, packet: bytes, call: Call, sock: socket.socket, seen: int) -> None:
        self._desk = desk
        self._client: _Client | None = client
        self.packet = packet
        self.call = call
        self.sock = sock
        self.seen = seen
        self.local = _endpoint(*sock.getsockname()[:2])
        self.remote = _endpoint(*sock.getpeername()[:2])
        self.cookie = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)
        # The flag belongs to the open file, which the program and we share. socket.socket does not know of it.
        self.waits = bool(call.ioctl.flags & FLAG_WAIT) or os.get_blocking(sock.fileno())
        self.when_abandoned: Callable[[], None] | None = None

    def take_socket(self) -> socket.socket:
        """Return the program's socket, which the caller then owns."""
        return socket.socket(fileno=os.dup(self.sock.fileno()))

    def answer(self, packet: bytes) -> None:
        """Send the reply and let everything go."""
        client, self._client = self._client, None
        self.sock.close()
        if client is not None:
            self._desk._reply(client, packet)

    def refuse(self, number: int, junior: int = Junior.OK) -> None:
        """Answer with an errno and no output."""
        self.answer(refuse(self.packet, RefusalError(number, junior)))

    def let_socket_go(self) -> None:
        """Close our copy of the program's socket before the answer: it must not outlive the program's own."""
        self.sock.close()

    def pass_on(self, *, rounds: int = 1) -> bool:
        """Hand the request to the next worker; False when all have seen it `rounds` times."""
        desk, client = self._desk, self._client
        if client is None or desk._neighbour is None or self.seen + 1 >= rounds * desk._count:
            return False
        header = _PASSED.pack(_WORD, self.seen + 1)
        descriptors = array.array("i", [self.sock.fileno(), client.sock.fileno()])
        try:
            desk._neighbour.sendmsg(
                [header + self.packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)], socket.MSG_DONTWAIT
            )
        except OSError as error:
            _log.warning("cannot pass a request on to another worker: %s", error.strerror)
            self.refuse(errno.EAGAIN, Junior.UNEXPECTED_ERROR)
            return True
        self._client = None
        client.petition = None
        self.sock.close()
        desk._drop(client)
        return True

    def _abandoned(self) -> None:
        self._client = None
        self.sock.close()
        if self.when_abandoned is not None:
            self.when_abandoned()


class _Client:
    __slots__ = ("busy", "closed", "deadline", "petition", "sock", "uid")

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self.sock = sock
        self.deadline = deadline
        self.busy = False
        self.closed = False
        self.petition: Petition | None = None
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.uid: int = _CREDENTIALS.unpack(credentials)[1]


class Desk:
    """The control clients of one worker; `handle` gets each petition and must answer, pass on or close it.

    `listener` is the shared listening socket. The `count` workers form a ring: `inbox` is where requests come in that
    the worker before us had no connection for, `neighbour` leads to the inbox of the next one. `clock` returns
    monotonic seconds. Closes all of them.
    """

    def __init__(
        self,
        handle: Callable[[Petition], None],
        *,
        listener: socket.socket,
        inbox: socket.socket | None,
        neighbour: socket.socket | None,
        count: int = 1,
        clock: Callable[[], float],
        most_clients: int = 1024,
    ) -> None:
        self._handle = handle
        self._listener = listener
        self._inbox = inbox
        self._neighbour = neighbour
        self._count = count
        self._clock = clock
        self._most_clients = most_clients
        self._most_of_one = max(1, most_clients // 2)
        self._clients: dict[int, _Client] = {}
        self._of_user: Counter[int] = Counter()
        self._epoll = select.epoll()
        for sock in (listener, inbox):
            if sock is not None:
                sock.setblocking(False)
                self._epoll.register(sock, select.EPOLLIN)
        if neighbour is not None:
            neighbour.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to do."""
        return self._epoll.fileno()

    def __len__(self) -> int:
        return len(self._clients)

    def serve(self) -> None:
        """Handle what is ready, at most a few events; the rest keeps `fileno` readable."""
        for descriptor, mask in self._epoll.poll(0, _EVENTS_AT_ONCE):
            if descriptor == self._listener.fileno():
                self._accept()
            elif self._inbox is not None and descriptor == self._inbox.fileno():
                self._take_passed_on()
            else:
                client = self._clients.get(descriptor)
                if client is None:
                    continue
                if client.busy or mask & select.EPOLLERR:
                    self._drop(client)  # gone, or asking again before it has its answer
                else:
                    self._take_request(client)

    def expire(self) -> None:
        """Let clients go that have had nothing to ask for too long."""
        now = self._clock()
        for client in [each for each in self._clients.values() if not each.busy and each.deadline <= now]:
            self._drop(client)

    def close(self) -> None:
        """Let everybody go."""
        for client in list(self._clients.values()):
            self._drop(client)
        for sock in (self._listener, self._inbox, self._neighbour):
            if sock is not None:
                sock.close()
        self._epoll.close()

    def stop_accepting(self) -> None:
        """Take no new clients; those that are here, and what others pass on, are still answered."""
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(self._listener)

    # Clients

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return  # another worker was quicker, or there are no descriptors left and the client has to wait
        client = self._adopt(accepted)
        if client is not None:
            self._take_request(client)  # a client asks at once; if not, we shall be told

    def _adopt(self, sock: socket.socket) -> _Client | None:
        try:
            sock.setblocking(False)
            client = _Client(sock, self._clock() + IDLE_SECONDS)
            if self._of_user[client.uid] >= self._most_of_one or len(self._clients) >= self._most_clients:
                self._make_room(client.uid)
            # Asking again before the answer has come is a fault, and so an event; hanging up always is one.
            self._epoll.register(sock, select.EPOLLIN)
        except OSError:
            sock.close()
            return None
        self._clients[sock.fileno()] = client
        self._of_user[client.uid] += 1
        return client

    def _make_room(self, uid: int) -> None:
        """Drop a client that only holds its place, of the same user if that one holds too many."""
        of_one = self._of_user[uid] >= self._most_of_one
        candidates = [each for each in self._clients.values() if not of_one or each.uid == uid]
        idle = next((each for each in candidates if not each.busy), None)
        if idle is None and not of_one:
            idle = next((each for each in self._clients.values() if not each.busy), None)
        self._drop(idle or candidates[0])

    def _drop(self, client: _Client) -> None:
        if client.closed:
            return
        client.closed = True
        del self._clients[client.sock.fileno()]
        # Closing is not enough: where the client was passed on, another worker keeps its open file alive.
        self._epoll.unregister(client.sock)
        self._of_user[client.uid] -= 1
        if not self._of_user[client.uid]:
            del self._of_user[client.uid]
        client.sock.close()
        petition, client.petition = client.petition, None
        if petition is not None:
            petition._abandoned()

    def _reply(self, client: _Client, packet: bytes) -> None:
        if client.closed:
            return
        client.busy = False
        client.petition = None
        client.deadline = self._clock() + IDLE_SECONDS
        try:
            client.sock.send(packet, _SEND)
        except OSError:
            self._drop(client)  # it does not read its answers

    # Requests

    def _take_request(self, client: _Client) -> None:
        try:
            packet, descriptors, truncated = _receive(client.sock)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if not packet:
            for descriptor in descriptors:
                os.close(descriptor)
            self._drop(client)
            return
        self._open(client, packet, descriptors, truncated=truncated, seen=0)

    def _take_passed_on(self) -> None:
        assert self._inbox is not None
        try:
            packet, descriptors, truncated = _receive(self._inbox)
        except OSError:
            return
        if len(packet) < _PASSED.size or len(descriptors) != 2 or not packet.startswith(_WORD):
            for descriptor in descriptors:
                os.close(descriptor)
            return
        _, seen = _PASSED.unpack_from(packet)
        client = self._adopt(socket.socket(fileno=descriptors.pop()))
        if client is None:
            os.close(descriptors[0])
            return
        self._open(client, packet[_PASSED.size :], descriptors, truncated=truncated, seen=seen)

    def _open(self, client: _Client, packet: bytes, descriptors: list[int], *, truncated: bool, seen: int) -> None:
        client.busy = True
        petition = None
        try:
            sock = _program_socket(descriptors, truncated=truncated)
            try:
                petition = Petition(self, client, packet, parse_request(packet), sock, seen)
                client.petition = petition
            except RefusalError:
                sock.close()
                raise
            except OSError:
                sock.close()
                raise RefusalError(errno.ENOTCONN, Junior.GET_CONNECTION) from None
            self._handle(petition)
        except RefusalError as refusal:
            if petition is not None:
                petition.sock.close()
            self._reply(client, refuse(packet, refusal))
        except Exception:  # noqa: BLE001 - a bug of ours ends this request, never the worker
            _log.exception("internal error while answering a program")
            if petition is not None:
                petition.sock.close()
            self._reply(client, refuse(packet, RefusalError(EMVSERR, Junior.UNEXPECTED_ERROR)))


@lru_cache(maxsize=1024)
def _address(text: str) -> Address:
    return canonical_address(text)


def _endpoint(address: str, port: int) -> Endpoint:
    return Endpoint(_address(address), port)


def _receive(sock: socket.socket) -> tuple[bytes, list[int], bool]:
    """Receive one packet and the descriptors that came along; they are the caller's to close."""
    packet, ancillary, flags, _ = sock.recvmsg(_ROOM, _ANCILLARY_ROOM, _RECEIVE)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % 4])
    return packet, list(descriptors), bool(int(flags) & _CUT)


def _program_socket(descriptors: list[int], *, truncated: bool) -> socket.socket:
    """Return the one socket among `descriptors`, or close them all and raise RefusalError."""
    if len(descriptors) != 1 or truncated:
        for descriptor in descriptors:
            os.close(descriptor)
        if not descriptors:
            raise RefusalError(errno.EBADF)
        raise RefusalError(errno.EINVAL, Junior.SOCKET_CALL_PARAMETER)
    (descriptor,) = descriptors
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise RefusalError(errno.ENOTSOCK)
        sock = socket.socket(fileno=descriptor)
    except RefusalError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        raise RefusalError(errno.EPROTOTYPE) from None
    if (
        sock.family not in (socket.AF_INET, socket.AF_INET6)
        or sock.type != socket.SOCK_STREAM
        or sock.proto != socket.IPPROTO_TCP
    ):
        sock.close()
        raise RefusalError(errno.EPROTOTYPE)
    return sock
