"""HTTP requests about revocation: real answers, none, slow ones, huge ones, garbage."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Generator
from typing import cast

import pytest
import trio
import trio.testing

from attls import errors
from attls.daemon.lookups import MOST_AT_ONCE, MOST_OF_ONE_SERVER, Lookups
from attls.errors import Reason
from attls.keyring.revocation import Answer, Standing
from attls.tls import Question, RefusedError, Reply, Staples

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Server:
    """Answers every request with `answer`, at once or never; keeps the requests."""

    def __init__(self, answer: bytes | None, *, stays: bool = False) -> None:
        self.answer = answer
        self.stays = stays
        self.requests: list[bytes] = []
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request or request.endswith(b"POSTED") is (b"POST" not in request):
            part = await stream.receive_some(65536)
            if not part:
                break
            request += part
            if b"\r\n\r\n" in request and request.startswith(b"GET"):
                break
        self.requests.append(request)
        if self.answer is None or self.stays:
            await stream.send_all(self.answer or b"")
            await trio.sleep_forever()
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(self.answer or b"")
        await stream.aclose()


@contextlib.asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        server.url = f"http://127.0.0.1:{port}/list"
        yield server
        nursery.cancel_scope.cancel()


async def ask(server: Server, *, seconds: int = 10, largest: int = 1000, body: bytes | None = None) -> Reply:
    async with serving(server):
        with trio.fail_after(15):
            return await Lookups(mark=None).fetch(Question(server.url, seconds, largest, body))
    raise AssertionError


async def test_a_list_is_fetched() -> None:
    """A plain GET, and what it brings."""
    server = Server(OK)
    assert b"hello" == await ask(server)
    assert server.requests[0].startswith(b"GET /list HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_a_responder_is_asked() -> None:
    """A POST with the media type of OCSP requests; the end of the stream may end the answer."""
    server = Server(b"HTTP/1.0 200 OK\r\n\r\nhello")
    assert b"hello" == await ask(server, body=b"POSTED")
    assert b"application/ocsp-request" in server.requests[0]
    assert server.requests[0].endswith(b"\r\n\r\nPOSTED")


@pytest.mark.parametrize(
    ("answer", "standing", "words"),
    [
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", Standing.ABSENT, "status 404"),
        (b"HTTP/1.1 302 Go\r\nLocation: http://else/\r\n\r\n", Standing.UNKNOWN, "status 302"),
        (b"HTTP/1.1 500 Oh\r\n\r\n", Standing.UNKNOWN, "status 500"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, Standing.UNKNOWN, "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", Standing.UNKNOWN, "did not answer in HTTP"),
        (b"220 smtp.example ready\r\n", Standing.UNKNOWN, "did not answer in HTTP"),
        (b"", Standing.UNKNOWN, ""),
    ],
)
async def test_what_is_no_answer_says_why(answer: bytes, standing: Standing, words: str) -> None:
    """Nothing that a server sends gets further than an Answer."""
    reply = await ask(Server(answer))
    assert isinstance(reply, Answer)
    assert (standing, True) == (reply.standing, words in reply.reason)


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"])
async def test_one_deadline_for_everything(answer: bytes | None, autojump_clock: object) -> None:
    """A server that is silent, or stops in the middle, is not waited for."""
    reply = await ask(Server(answer, stays=True), seconds=1)
    assert isinstance(reply, Answer)
    assert Standing.UNREACHABLE is reply.standing


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "https://127.0.0.1/", "http:///x", "ldap://x/y"])
async def test_who_is_not_there_is_unreachable(url: str) -> None:
    """No listener, or a place that is not asked at all."""
    reply = await Lookups(mark=None).fetch(Question(url, 5, 100))
    assert isinstance(reply, Answer)
    assert Standing.UNREACHABLE is reply.standing


async def test_a_server_with_an_address_of_ipv6() -> None:
    """Its address stands in brackets, in the request as well."""
    server = Server(OK)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(trio.serve_tcp, server.serve, 0, host="::1"))
        place = f"[::1]:{listeners[0].socket.getsockname()[1]}"
        assert b"hello" == await Lookups(mark=None).fetch(Question(f"http://{place}/x?y", 5, 100))
        nursery.cancel_scope.cancel()
    assert server.requests[0].startswith(b"GET /x?y HTTP/1.1\r\n")
    assert f"Host: {place}".encode() in server.requests[0]


async def test_equal_questions_are_asked_once() -> None:
    """A hundred connections of one peer at once cost one request."""
    server, replies = Server(OK), []

    async def one(lookups: Lookups) -> None:
        replies.append(await lookups.fetch(Question(server.url, 5, 100)))

    async with serving(server):
        lookups = Lookups(mark=None)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one, lookups)
    assert (1, [b"hello"] * 100) == (len(server.requests), replies)


async def test_a_slow_server_holds_up_those_who_ask_there(nursery: trio.Nursery) -> None:
    """However many wait for one server, another one answers at once; and the wait for a turn counts as waiting."""
    slow, quick = Server(None), Server(OK)
    lookups = Lookups(mark=None)
    late: list[Reply] = []

    async def wait(number: int, seconds: int) -> None:
        late.append(await lookups.fetch(Question(f"{slow.url}?{number}", seconds, 100)))

    async with serving(slow), serving(quick):
        for number in range(MOST_OF_ONE_SERVER):
            nursery.start_soon(wait, number, 60)
        with trio.fail_after(30):
            while len(slow.requests) < MOST_OF_ONE_SERVER:
                await trio.sleep(0.01)
            for number in range(MOST_AT_ONCE):
                nursery.start_soon(wait, MOST_OF_ONE_SERVER + number, 1)
            assert b"hello" == await lookups.fetch(Question(quick.url, 20, 100))
            while len(late) < MOST_AT_ONCE:
                await trio.sleep(0.01)
        assert (MOST_OF_ONE_SERVER, MOST_AT_ONCE) == (len(slow.requests), len(late))
        assert {Standing.UNREACHABLE} == {one.standing for one in late if isinstance(one, Answer)}


class Kept:
    """Stands for the answers of one environment: due at once, then not for an hour."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.replies: list[Reply] = []
        self.renewed = trio.Event()

    def due_in(self) -> float:
        return 3600.0 if self.replies else 0.0

    def renewal(self) -> Generator[Question, Reply, None]:
        self.replies.append((yield Question(self.url, 5, 100)))
        self.renewed.set()


async def test_answers_to_staple_are_kept_fresh_while_wanted(nursery: trio.Nursery) -> None:
    """Each is renewed when due as long as it is among the wanted; who is no more is left alone."""
    server = Server(OK)
    lookups = Lookups(mark=None)
    await nursery.start(lookups.run)
    async with serving(server):
        first, second = Kept(server.url), Kept(server.url)
        for wanted in ([first], [first, second], [second], []):
            lookups.keep(cast("list[Staples]", wanted))
            for one in wanted:
                with trio.fail_after(5):
                    await one.renewed.wait()
        first.replies.clear()  # due again, and nobody asks
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert ([], [b"hello"]) == (first.replies, second.replies)
        assert 2 == len(server.requests)


async def test_an_inquiry_ends_in_one_call(nursery: trio.Nursery) -> None:
    """With None for "go on", with the reason of a refusal, and with an internal error for a bug of ours."""
    lookups = Lookups(mark=None)
    await nursery.start(lookups.run)
    reason = Reason(431, "revoked", "revoked")

    def inquiry(ending: Exception | None) -> Generator[Question, Reply, None]:
        reply = yield Question("http://127.0.0.1:1/", 5, 100)
        assert isinstance(reply, Answer)
        if ending is not None:
            raise ending

    for ending, expected in (
        (None, (None, "")),
        (RefusedError(reason, "why"), (reason, "why")),
        (ZeroDivisionError(), (errors.INTERNAL, "")),
    ):
        seen: list[tuple[Reason | None, str]] = []
        came = trio.Event()

        def done(why: Reason | None, detail: str, seen: list[object] = seen, came: trio.Event = came) -> None:  # type: ignore[assignment]
            seen.append((why, detail))
            came.set()

        lookups.start(inquiry(ending), done)
        with trio.fail_after(5):
            await came.wait()
        assert [expected] == seen
