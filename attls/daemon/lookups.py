"""Carrying out inquiries about revocation: HTTP requests as trio tasks, beside the reactor and never in its way.

The sockets carry our network mark, so that steering leaves them alone; nothing that is asked here can come to ask
about itself. A request has one deadline for everything from its turn to the last byte, and a largest size. Equal
questions that are under way are asked once, and no server takes all our attention: a slow one holds up those who ask
there. Redirects are not followed, and only plain http is spoken: answers are signed, and a question about a certificate
cannot wait for another one.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from urllib.parse import urlsplit

import h11
import trio

from attls import errors
from attls.errors import Reason
from attls.keyring.revocation import Answer, Standing
from attls.tls import Inquiry, Question, RefusedError, Reply, Staples

MOST_AT_ONCE = 48  # a worker keeps some descriptors free for what is not a connection
MOST_OF_ONE_SERVER = 16
LONGEST_SLEEP = 60.0  # the time of day may jump while we sleep; look again after so many seconds
_CHUNK = 65536

_log = logging.getLogger("attls.lookups")

Done = Callable[[Reason | None, str], None]


class Lookups:
    """Carries out inquiries while `run` runs; `mark` is the SO_MARK of its sockets, None for none.

    `wake` is called when tasks are waiting to start: the reactor then gives way to them.
    """

    def __init__(self, *, mark: int | None, wake: Callable[[], None] = lambda: None) -> None:
        self._mark = mark
        self._wake = wake
        self._nursery: trio.Nursery | None = None
        self._limit = trio.CapacityLimiter(MOST_AT_ONCE)
        self._of_server: dict[tuple[str, int], trio.CapacityLimiter] = {}
        self._under_way: dict[Question, tuple[trio.Event, list[Reply]]] = {}
        self._kept: dict[Staples, trio.CancelScope] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry out inquiries until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    def start(self, inquiry: Inquiry, done: Done) -> None:
        """Carry out `inquiry` and call `done` with None, or with the reason and detail of a refusal."""
        assert self._nursery is not None
        self._nursery.start_soon(self._carry_out, inquiry, done)
        self._wake()

    def keep(self, staples: Iterable[Staples]) -> None:
        """Keep the answers of exactly these `staples` fresh from now on, those of others no more."""
        assert self._nursery is not None
        wanted = set(staples)
        for one in self._kept.keys() - wanted:
            self._kept.pop(one).cancel()
        for one in wanted - self._kept.keys():
            scope = self._kept[one] = trio.CancelScope()
            self._nursery.start_soon(self._renew, one, scope)
            self._wake()

    async def _renew(self, staples: Staples, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                seconds = staples.due_in()
                if seconds:
                    await trio.sleep(min(seconds, LONGEST_SLEEP))
                    continue
                try:
                    await self._converse(staples.renewal())
                except Exception:  # noqa: BLE001 - a bug of ours costs the stapling, never the worker
                    _log.exception("internal error while renewing what is stapled")
                    await trio.sleep(LONGEST_SLEEP)

    async def _converse(self, inquiry: Inquiry) -> None:
        with contextlib.suppress(StopIteration):
            question = next(inquiry)
            while True:
                question = inquiry.send(await self.fetch(question))

    async def _carry_out(self, inquiry: Inquiry, done: Done) -> None:
        reason: Reason | None = None
        detail = ""
        try:
            await self._converse(inquiry)
        except RefusedError as error:
            reason, detail = error.reason, error.detail
        except Exception:  # noqa: BLE001 - a bug of ours ends this one connection, never the worker
            _log.exception("internal error while asking about revocation")
            reason = errors.INTERNAL
        done(reason, detail)

    async def fetch(self, question: Question) -> Reply:
        """Return what the answer to `question` holds, or why there is none."""
        while question in self._under_way:
            came, replies = self._under_way[question]
            await came.wait()
            if replies:
                return replies[0]
        came, replies = self._under_way[question] = (trio.Event(), [])
        try:
            replies.append(await self._ask(question))
        finally:
            del self._under_way[question]
            came.set()
        return replies[0]

    async def _ask(self, question: Question) -> Reply:
        url = question.url
        try:
            host, port, target = _place(question)
        except ValueError as error:
            return Answer(Standing.UNREACHABLE, f"{url} is not asked: {error}")
        try:
            with trio.fail_after(question.seconds):
                async with self._turn(host, port):
                    return await self._exchange(question, host, port, target)
        except trio.TooSlowError:
            return Answer(Standing.UNREACHABLE, f"{url} did not answer within {question.seconds} s")
        except (OSError, trio.BrokenResourceError) as error:
            why = getattr(error, "strerror", None) or str(error) or "the connection broke"
            return Answer(Standing.UNREACHABLE, f"{url} cannot be reached ({why})")
        except (h11.RemoteProtocolError, h11.LocalProtocolError, ValueError) as error:
            return Answer(Standing.UNKNOWN, f"{url} did not answer in HTTP ({error})")

    @contextlib.asynccontextmanager
    async def _turn(self, host: str, port: int) -> AsyncIterator[None]:
        """Wait until there is room for one more request, to this server and in all."""
        limit = self._of_server.setdefault((host, port), trio.CapacityLimiter(MOST_OF_ONE_SERVER))
        try:
            async with limit, self._limit:
                yield
        finally:
            usage = limit.statistics()
            if not usage.borrowed_tokens and not usage.tasks_waiting:
                self._of_server.pop((host, port), None)

    async def _exchange(self, question: Question, host: str, port: int, target: str) -> Reply:
        authority = urlsplit(question.url).netloc.rpartition("@")[2]
        headers = [("Host", authority), ("User-Agent", "attls"), ("Connection", "close")]
        if question.body is not None:
            headers += [("Content-Type", "application/ocsp-request"), ("Content-Length", str(len(question.body)))]
        http = h11.Connection(h11.CLIENT)
        method = "GET" if question.body is None else "POST"
        request = http.send(h11.Request(method=method, target=target, headers=headers))
        body = http.send(h11.Data(question.body)) if question.body is not None else b""
        http.send(h11.EndOfMessage())
        async with await self._connect(host, port, question.seconds) as stream:
            await stream.send_all((request or b"") + (body or b""))
            return await _answer(http, stream, question)

    async def _connect(self, host: str, port: int, seconds: int) -> trio.SocketStream:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        problem: OSError = OSError("no address")
        for family, kind, protocol, _, address in found:
            sock = trio.socket.socket(family, kind, protocol)
            try:
                if self._mark is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
                with trio.fail_after(seconds / len(found)):  # an address that leads nowhere leaves time for the others
                    await sock.connect(address)
            except trio.TooSlowError:
                sock.close()
                problem = OSError("no answer")
            except OSError as error:
                sock.close()
                problem = error
            except BaseException:
                sock.close()
                raise
            else:
                return trio.SocketStream(sock)
        raise problem


def _place(question: Question) -> tuple[str, int, str]:
    """Return the host and port to connect to, and what to ask for there. Raises ValueError for what is not asked."""
    parts = urlsplit(question.url)
    if parts.scheme.lower() != "http" or not parts.hostname:
        raise ValueError("only http is spoken")
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    if question.proxy:
        return *question.proxy, f"http://{parts.netloc}{target}"
    return parts.hostname, parts.port or 80, target


async def _answer(http: h11.Connection, stream: trio.SocketStream, question: Question) -> Reply:
    content = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            # The end of the stream may be what ends the answer; h11 knows whether that is in order.
            http.receive_data(await stream.receive_some(_CHUNK))
        elif isinstance(event, h11.Response):
            if event.status_code != 200:
                standing = Standing.ABSENT if event.status_code in (404, 410) else Standing.UNKNOWN
                return Answer(standing, f"{question.url} answered with status {event.status_code}")
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > question.largest:
                return Answer(Standing.UNKNOWN, f"{question.url} answered with more than {question.largest} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return bytes(content)
        elif isinstance(event, h11.ConnectionClosed):
            return Answer(Standing.UNKNOWN, f"{question.url} closed the connection without an answer")
