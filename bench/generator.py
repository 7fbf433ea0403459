"""The client side of a load, a program of its own: `python -m bench.generator LOAD [options] PORT ADDRESS [ADDRESS…]`.

It drives one load, spread over the addresses, then prints one JSON document: how many units it got through, in how
many seconds. Its own speed matters little (the proxy's CPU is what is measured), its correctness does: anything
unexpected ends it with a traceback. Small requests on kept connections are not here: wrk does those.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.sink import LENGTH

REQUEST = b"GET /small HTTP/1.1\r\nHost: bench\r\n\r\n"
LAST_REQUEST = b"GET /small HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
LARGE_REQUEST = b"GET /large HTTP/1.1\r\nHost: bench\r\nRange: bytes=0-%d\r\n\r\n"
CHUNK = 1 << 20
THREADS = 8
TURN = 32
"""Reads or writes on one stream before the others have their turn."""
PATIENCE = 60.0
"""Seconds without any progress after which a load has failed."""


def client_context() -> ssl.SSLContext:
    """TLS 1.3, no verification: the probe at the start verifies once. A session is offered only where a load does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


CONTEXT = client_context()


@dataclass(frozen=True, slots=True)
class Task:
    """What to do: `count` units on `streams` connections at a time."""

    port: int
    addresses: tuple[str, ...]
    count: int
    streams: int = 1
    tls: bool = True
    resume: bool = False

    def connect(self, number: int = 0, session: ssl.SSLSession | None = None) -> socket.socket:
        """A connection to one of the addresses, with TLS after its handshake."""
        address = self.addresses[number % len(self.addresses)]
        connection = socket.create_connection((address, self.port), timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.tls:
            return connection
        return CONTEXT.wrap_socket(connection, server_hostname="bench.example", session=session)


def read_small(connection: socket.socket) -> None:
    """Read one small response; raises ValueError when it is not the backend's."""
    response = connection.recv(16384)
    while b"\r\n\r\n" not in response or not response.endswith(b"\n"):
        more = connection.recv(16384)
        if not more:
            raise ValueError(f"response cut short: {response!r}")
        response += more
    if not response.startswith(b"HTTP/1.1 200 "):
        raise ValueError(f"unexpected response: {response[:80]!r}")


def in_threads(count: int, work: Callable[[int], int]) -> int:
    """Run `work` once in each of `count` threads; returns the sum of the results, raises the first exception."""
    results: list[int] = []
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            results.append(work(number))
        except (OSError, ValueError) as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(results)


def connections(task: Task) -> dict[str, int]:
    """Open connections one after the other in each of a few threads; each carries one request and closes in order.

    With `resume` each one offers the newest session of the one before; `resumed` tells how many were taken up.
    """
    resumed: list[int] = []

    def work(number: int) -> int:
        session: ssl.SSLSession | None = None
        again = 0
        for _ in range(max(1, task.count // THREADS)):
            with task.connect(number, session) as connection:
                connection.sendall(LAST_REQUEST)
                read_small(connection)
                if connection.recv(1):
                    raise ValueError("data after the response")
                if isinstance(connection, ssl.SSLSocket):
                    again += bool(connection.session_reused)
                    session = connection.session if task.resume else None
                    connection.unwrap().close()  # the proxy's close_notify has come; ours ends it in order
        resumed.append(again)
        return max(1, task.count // THREADS)

    return {"units": in_threads(THREADS, work), "resumed": sum(resumed)}


def fetch(connection: socket.socket, count: int) -> Iterator[int]:
    """Fetch the large file or its beginning until `count` bytes have come; yields the epoll event to wait for."""
    buffer = memoryview(bytearray(CHUNK))
    while count > 0:
        connection.sendall(LARGE_REQUEST % (count - 1))
        head = b""
        while b"\r\n\r\n" not in head:
            try:
                head += connection.recv(4096)
            except (BlockingIOError, ssl.SSLWantReadError):
                yield select.EPOLLIN
        head, _, body = head.partition(b"\r\n\r\n")
        length = next(int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length"))
        remaining = length - len(body)
        turn = 0
        while remaining:
            try:
                got = connection.recv_into(buffer, min(CHUNK, remaining))
            except (BlockingIOError, ssl.SSLWantReadError):
                turn = 0
                yield select.EPOLLIN
                continue
            if not got:
                raise ValueError("download cut short")
            remaining -= got
            turn += 1
            if remaining and turn % TURN == 0:
                yield select.EPOLLIN  # a record is read whole, so none is left behind unseen
        count -= length


def send(connection: socket.socket, count: int) -> Iterator[int]:
    """Send `count` bytes and wait for the sink's count; yields the epoll event to wait for."""
    block = memoryview(bytes(CHUNK))
    connection.sendall(LENGTH.pack(count))
    remaining = count
    turn = 0
    while remaining:
        try:
            remaining -= connection.send(block[: min(CHUNK, remaining)])
        except (BlockingIOError, ssl.SSLWantWriteError):
            turn = 0
            yield select.EPOLLOUT
            continue
        turn += 1
        if turn % TURN == 0:
            yield select.EPOLLOUT
    answer = b""
    while len(answer) < LENGTH.size:
        try:
            piece = connection.recv(LENGTH.size - len(answer))
        except (BlockingIOError, ssl.SSLWantReadError):
            yield select.EPOLLIN
            continue
        if not piece:
            raise ValueError("the sink closed before its answer")
        answer += piece
    if answer != LENGTH.pack(count):
        raise ValueError(f"the sink received something else: {answer!r}")


def bulk(task: Task, stream: Callable[[socket.socket, int], Iterator[int]]) -> dict[str, int]:
    """Carry `count` bytes in all, an equal share on each of the streams at once."""
    share = task.count // task.streams
    poll = select.epoll()
    running: dict[int, tuple[socket.socket, Iterator[int]]] = {}
    for number in range(task.streams):
        connection = task.connect(number)
        connection.setblocking(False)
        running[connection.fileno()] = connection, stream(connection, share)
        poll.register(connection.fileno(), select.EPOLLIN | select.EPOLLOUT)
    while running:
        events = poll.poll(PATIENCE)
        if not events:
            raise ValueError(f"{len(running)} streams stand still")
        for descriptor, _ in events:
            connection, steps = running[descriptor]
            event = next(steps, None)
            if event is None:
                poll.unregister(descriptor)
                running.pop(descriptor)[0].close()
            else:
                poll.modify(descriptor, event)
    return {"units": share * task.streams}


def download(task: Task) -> dict[str, int]:
    """Fetch large files."""
    return bulk(task, fetch)


def upload(task: Task) -> dict[str, int]:
    """Send to the sink."""
    return bulk(task, send)


def idle(task: Task) -> dict[str, int]:
    """Hold connections, each after one request; say so. Each line on standard input has all of them ask again.

    They are closed when standard input ends.
    """
    held: list[socket.socket] = []

    def work(number: int) -> int:
        for _ in range(number, task.count, THREADS):
            connection = task.connect(number)
            connection.sendall(REQUEST)
            read_small(connection)
            held.append(connection)
        return 0

    in_threads(min(THREADS, task.count), work)
    print("holding", flush=True)
    for _ in sys.stdin:
        for connection in held:
            connection.sendall(REQUEST)
            read_small(connection)
        print("alive", flush=True)
    for connection in held:
        connection.close()
    return {"units": len(held)}


def waits(task: Task) -> dict[str, int]:
    """Keep `streams` connections busy, one request in flight on each, and watch how long each of them waits.

    Each line on standard input is answered with the longest wait since the last one; they are closed when it ends.
    """
    poll = select.epoll()
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    sent: dict[int, float] = {}
    held = {}
    for number in range(task.streams):
        connection = task.connect(number)
        held[connection.fileno()] = connection
        poll.register(connection.fileno(), select.EPOLLIN)
    print("holding", flush=True)
    for descriptor, connection in held.items():
        sent[descriptor] = time.monotonic()
        connection.sendall(REQUEST)
    longest, done = 0.0, 0
    while True:
        for descriptor, _ in poll.poll(PATIENCE):
            if descriptor == sys.stdin.fileno():
                if not sys.stdin.readline():
                    return {"units": done}
                now = time.monotonic()
                longest = max(longest, *(now - then for then in sent.values()))
                print(json.dumps({"longest": longest, "requests": done}), flush=True)
                longest = 0.0
                continue
            read_small(held[descriptor])
            now = time.monotonic()
            longest = max(longest, now - sent[descriptor])
            done += 1
            sent[descriptor] = now
            held[descriptor].sendall(REQUEST)


LOADS: dict[str, Callable[[Task], dict[str, int]]] = {
    "connections": connections,
    "download": download,
    "upload": upload,
    "idle": idle,
    "waits": waits,
}


def main() -> None:
    """Run one load and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.generator", description=__doc__)
    parser.add_argument("load", choices=LOADS)
    parser.add_argument("port", type=int)
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="no TLS")
    parser.add_argument("--resume", action="store_true", help="offer the session of the connection before")
    options = parser.parse_args()
    task = Task(
        options.port, tuple(options.addresses), options.count, options.streams, not options.plain, options.resume
    )
    started = time.monotonic()
    figures = LOADS[options.load](task)
    print(json.dumps({**figures, "seconds": time.monotonic() - started}))


if __name__ == "__main__":
    main()
