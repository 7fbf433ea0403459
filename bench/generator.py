"""The client side of a load, a program of its own in the client namespace.

`python -m bench.generator LOAD ADDRESS PORT COUNT` drives one load, then prints one JSON document: how many units it
got through, in how many seconds. Its own speed matters little (the proxy's CPU is what is measured), its correctness
does: anything unexpected ends it with a traceback.
`requests` is the stand-in for wrk where that is not installed.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable

from bench.sink import LENGTH

REQUEST = b"GET /small HTTP/1.1\r\nHost: bench\r\n\r\n"
LAST_REQUEST = b"GET /small HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
CHUNK = 1 << 20
CONNECTION_THREADS = 8


def client_context() -> ssl.SSLContext:
    """TLS 1.3, no resumption (no session is ever offered), no verification: the probe at the start verifies once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


CONTEXT = client_context()


def connect(address: str, port: int) -> ssl.SSLSocket:
    """A TLS connection after its full handshake."""
    connection = socket.create_connection((address, port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return CONTEXT.wrap_socket(connection, server_hostname="bench.example")


def read_small(connection: ssl.SSLSocket) -> None:
    """Read one small response; raises ValueError when it is not the backend's."""
    response = connection.recv(16384)
    while b"\r\n\r\n" not in response or not response.endswith(b"\n"):
        more = connection.recv(16384)
        if not more:
            raise ValueError(f"response cut short: {response!r}")
        response += more
    if not response.startswith(b"HTTP/1.1 200 "):
        raise ValueError(f"unexpected response: {response[:80]!r}")


def connections(address: str, port: int, count: int) -> int:
    """Open `count` connections one after the other in each of a few threads; each carries one request and closes."""
    failures: list[BaseException] = []

    def work(share: int) -> None:
        try:
            for _ in range(share):
                with connect(address, port) as connection:
                    connection.sendall(LAST_REQUEST)
                    read_small(connection)
                    if connection.recv(1):
                        raise ValueError("data after the response")
                    connection.unwrap().close()  # the proxy's close_notify has come; ours ends it in order
        except (OSError, ValueError) as error:
            failures.append(error)

    share = max(1, count // CONNECTION_THREADS)
    threads = [threading.Thread(target=work, args=(share,)) for _ in range(CONNECTION_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return share * CONNECTION_THREADS


def download(address: str, port: int, count: int) -> int:
    """Fetch the large file on one connection until `count` bytes have come; returns the bytes of the bodies."""
    buffer = memoryview(bytearray(CHUNK))
    total = 0
    with connect(address, port) as connection:
        while total < count:
            connection.sendall(REQUEST.replace(b"/small", b"/large"))
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            head, _, body = head.partition(b"\r\n\r\n")
            length = next(int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length"))
            remaining = length - len(body)
            while remaining:
                got = connection.recv_into(buffer, min(CHUNK, remaining))
                if not got:
                    raise ValueError("download cut short")
                remaining -= got
            total += length
    return total


def upload(address: str, port: int, count: int) -> int:
    """Send `count` bytes on one connection and wait for the sink's count."""
    block = memoryview(bytes(CHUNK))
    with connect(address, port) as connection:
        connection.sendall(LENGTH.pack(count))
        remaining = count
        while remaining:
            piece = block[: min(CHUNK, remaining)]
            connection.sendall(piece)
            remaining -= len(piece)
        answer = connection.recv(LENGTH.size)
        if answer != LENGTH.pack(count):
            raise ValueError(f"the sink received something else: {answer!r}")
    return count


def idle(address: str, port: int, count: int) -> int:
    """Hold `count` connections, each after one request; say so, and close them when standard input ends."""
    held = []
    for _ in range(count):
        connection = connect(address, port)
        connection.sendall(REQUEST)
        read_small(connection)
        held.append(connection)
    print("holding", flush=True)
    sys.stdin.read()
    for connection in held:
        connection.close()
    return count


def requests(address: str, port: int, seconds: int, clients: int = 64) -> int:
    """Small requests on `clients` keep-alive connections, one in flight on each, for `seconds`; returns how many."""
    poll = select.epoll()
    held: dict[int, ssl.SSLSocket] = {}
    for _ in range(clients):
        connection = connect(address, port)
        held[connection.fileno()] = connection
        poll.register(connection.fileno(), select.EPOLLIN)
    for connection in held.values():
        connection.sendall(REQUEST)
    done = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for descriptor, _ in poll.poll(1):
            read_small(held[descriptor])
            held[descriptor].sendall(REQUEST)
            done += 1
    return done


LOADS: dict[str, Callable[[str, int, int], int]] = {
    "connections": connections,
    "download": download,
    "upload": upload,
    "idle": idle,
    "requests": requests,
}


def main() -> None:
    """Run one load and print its figures."""
    name, address, port, count = sys.argv[1:]
    started = time.monotonic()
    units = LOADS[name](address, int(port), int(count))
    print(json.dumps({"units": units, "seconds": time.monotonic() - started}))


if __name__ == "__main__":
    main()
