"""A program under test: plain listeners, no TLS, no knowledge of us. `python server.py KIND PORT...`.

Each kind echoes in upper case, prefixed by what it saw of its client: the address accept gave, and whether getpeername
agrees. Ready when it has printed a line.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
from collections.abc import Callable


def serve(sock: socket.socket, name: tuple[object, ...]) -> None:
    with sock:
        sock.setblocking(True)
        told = {"accept": name, "peer": sock.getpeername(), "own": sock.getsockname(), "process": os.getpid()}
        sock.sendall(json.dumps(told).encode() + b"\n")
        while chunk := sock.recv(65536):
            sock.sendall(chunk.upper())


def listen(port: int, family: int = socket.AF_INET) -> socket.socket:
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("", port))
    listener.listen(128)
    print("ready", flush=True)
    return listener


def blocking(port: int, family: int = socket.AF_INET) -> None:
    """One thread accepts and blocks, one more for each connection."""
    listener = listen(port, family)
    while True:
        sock, name = listener.accept()
        threading.Thread(target=serve, args=(sock, name), daemon=True).start()


def dual(port: int) -> None:
    """One IPv6 listener takes both families."""
    blocking(port, socket.AF_INET6)


def edge(port: int) -> None:
    """An event loop: non-blocking, edge-triggered, accepts until there is nothing left."""
    listener = listen(port)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN | select.EPOLLET)
    while True:
        poll.poll()
        while True:
            try:
                sock, name = listener.accept()
            except BlockingIOError:
                break
            threading.Thread(target=serve, args=(sock, name), daemon=True).start()


def workers(port: int) -> None:
    """Four processes share one listener, as servers with workers do."""
    listener = listen(port)
    for _ in range(3):
        if not os.fork():
            break
    while True:
        select.select([listener], [], [])
        sock, name = listener.accept()
        serve(sock, name)


def reuse(port: int) -> None:
    """Two listeners on one port (SO_REUSEPORT), each with a thread of its own."""

    def one(listener: socket.socket) -> None:
        while True:
            sock, name = listener.accept()
            threading.Thread(target=serve, args=(sock, name), daemon=True).start()

    listeners = [socket.socket() for _ in range(2)]
    for listener in listeners:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(16)
    print("ready", flush=True)
    threading.Thread(target=one, args=(listeners[0],), daemon=True).start()
    one(listeners[1])


KINDS: dict[str, Callable[[int], None]] = {each.__name__: each for each in (blocking, dual, edge, workers, reuse)}

if __name__ == "__main__":
    KINDS[sys.argv[1]](int(sys.argv[2]))
