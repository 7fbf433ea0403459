"""A program under test: plain sockets, no TLS, no knowledge of us. `python client.py CHECK PORT...` prints JSON.

It runs under `attls exec`, so it says what it saw and judges nothing.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def talk(sock: socket.socket, word: bytes = b"hello") -> str:
    sock.sendall(word)
    return sock.recv(100).decode()


def number(error: BaseException) -> str:
    return errno.errorcode.get(getattr(error, "errno", 0) or 0, repr(error))


def blocking(port: int) -> dict[str, Any]:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        took = time.monotonic() - began
        found = {"peer": sock.getpeername(), "own": sock.getsockname(), "answer": talk(sock), "took": took}
        sock.shutdown(socket.SHUT_WR)
        return {**found, "rest": sock.recv(10).decode()}


def nonblocking(port: int) -> dict[str, Any]:
    with socket.socket() as sock:
        sock.setblocking(False)
        poll = select.epoll()
        poll.register(sock, select.EPOLLOUT | select.EPOLLIN | select.EPOLLET)
        poll.poll(0)  # a socket that was never connected says HUP
        first = sock.connect_ex(("127.0.0.1", port))
        early = poll.poll(0.15)
        second = sock.connect_ex(("127.0.0.1", port))
        began = time.monotonic()
        events = poll.poll(10)
        took = time.monotonic() - began
        status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        third = sock.connect_ex(("127.0.0.1", port))
        sock.setblocking(True)
        return {
            "first": errno.errorcode[first],
            "early": early,
            "second": errno.errorcode[second],
            "writable": bool(events[0][1] & select.EPOLLOUT),
            "broken": bool(events[0][1] & select.EPOLLERR),
            "status": status,
            "third": third,
            "took": took,
            "peer": sock.getpeername(),
            "answer": talk(sock),
        }


def failing(port: int) -> dict[str, Any]:
    """Connect in both ways where it cannot work; tell the errno each way brings, and whether one may try again."""
    found: dict[str, Any] = {}
    with socket.socket() as sock:
        for name in ("blocking", "again"):
            try:
                sock.connect(("127.0.0.1", port))
                found[name] = "connected"
            except OSError as error:
                found[name] = number(error)
        found["left"] = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    with socket.socket() as sock:
        sock.setblocking(False)
        found["first"] = errno.errorcode[sock.connect_ex(("127.0.0.1", port))]
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        poll.poll(10_000)
        found["status"] = errno.errorcode.get(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "0")
        found["status again"] = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return found


def families(port: int, port6: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with socket.create_connection(("::1", port6)) as sock:
        found["ipv6"] = [talk(sock), sock.getpeername()[:2]]
    with socket.socket(socket.AF_INET6) as sock:
        sock.connect(("::ffff:127.0.0.1", port))
        found["mapped"] = [talk(sock), sock.getpeername()[:2]]
    with socket.socket() as sock:
        sock.connect(("0.0.0.0", port))
        found["any"] = [talk(sock), sock.getpeername()]
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        bound = sock.getsockname()
        sock.connect(("127.0.0.1", port))
        found["bound"] = [talk(sock), sock.getsockname() == bound]
    return found


def sharing(port: int) -> dict[str, Any]:
    """Use one connection through dup, fork, exec and descriptor passing."""
    found: dict[str, Any] = {}
    sock = socket.create_connection(("127.0.0.1", port))
    other = sock.dup()
    found["dup"] = [talk(other), other.getpeername() == ("127.0.0.1", port)]
    if not os.fork():
        sock.sendall(b"child")
        os._exit(0)
    os.wait()
    found["fork"] = sock.recv(100).decode()
    left, right = socket.socketpair()
    socket.send_fds(left, [b"x"], [sock.fileno()])
    _, descriptors, _, _ = socket.recv_fds(right, 1, 1)
    with socket.socket(fileno=descriptors[0]) as passed:
        found["passed"] = [talk(passed), passed.getpeername() == ("127.0.0.1", port)]
    with sock:
        number = sock.fileno()
        code = f"import socket; s = socket.socket(fileno={number}); s.sendall(b'executed'); print(s.getpeername())"
        output = subprocess.run([sys.executable, "-c", code], pass_fds=[number], capture_output=True, check=True).stdout
        found["exec"] = [output.decode().strip(), sock.recv(100).decode()]
    return found


def threads(port: int, count: int = 24) -> dict[str, Any]:
    answers: list[str] = []

    def one(index: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            answers.append(talk(sock, b"thread %d" % index))

    workers = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"answers": sorted(answers), "took": time.monotonic() - began}


def signals(slow: int) -> dict[str, Any]:
    """A signal during a held connect: EINTR where the handler says so, and the connect goes on."""
    libc = __import__("ctypes").CDLL(None, use_errno=True)
    get_errno = __import__("ctypes").get_errno
    caught: list[float] = []
    began = time.monotonic()
    signal.signal(signal.SIGALRM, lambda *_: caught.append(time.monotonic() - began))
    signal.siginterrupt(signal.SIGALRM, True)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    address = struct.pack("=H2s4s8x", socket.AF_INET, slow.to_bytes(2, "big"), socket.inet_aton("127.0.0.1"))
    with socket.socket() as sock:
        interrupted = libc.connect(sock.fileno(), address, 16), errno.errorcode.get(get_errno(), "0")
        took = time.monotonic() - began
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        events = poll.poll(10_000)
        answer = talk(sock)
    signal.siginterrupt(signal.SIGALRM, False)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    with socket.socket() as sock:
        restarted = libc.connect(sock.fileno(), address, 16)
        again = talk(sock)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 100_000))
        late = libc.connect(sock.fileno(), address, 16), errno.errorcode.get(get_errno(), "0")
    return {
        "interrupted": interrupted,
        "took": took,
        "caught": len(caught),
        "writable": events[0][1] & select.POLLOUT != 0,
        "answer": answer,
        "restarted": restarted,
        "again": again,
        "late": late,
    }


def others(port: int, path: str) -> dict[str, Any]:
    """UDP and Unix sockets, bad addresses, bad descriptors: the kernel's own answers."""
    libc = __import__("ctypes").CDLL(None, use_errno=True)
    get_errno = __import__("ctypes").get_errno
    found: dict[str, Any] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        found["udp"] = sock.getpeername() == ("127.0.0.1", port)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as sock:
        server.bind(path)
        server.listen()
        sock.connect(path)
        accepted, _ = server.accept()
        sock.sendall(b"unix")
        found["unix"] = accepted.recv(10).decode()
        accepted.close()
    with socket.socket() as sock:
        for name, address, length in (
            ("fault", 1, 16),
            ("short", b"\x02\0" + b"\0" * 14, 4),
            ("negative", b"\x02\0" + b"\0" * 14, -1),
            ("family", b"\x63\0" + b"\0" * 14, 16),
        ):
            pointer = __import__("ctypes").c_void_p(address) if isinstance(address, int) else address
            libc.connect(sock.fileno(), pointer, length)
            found[name] = errno.errorcode[get_errno()]
        listener = socket.create_server(("127.0.0.1", 0))
        sock.connect(listener.getsockname())
        found["uncovered"] = sock.getpeername() == listener.getsockname()
        found["own"] = sock.getsockname() == listener.accept()[1]
    libc.connect(999, b"\x02\0" + b"\0" * 14, 16)
    found["descriptor"] = errno.errorcode[get_errno()]
    libc.connect(0, b"\x02\0" + b"\0" * 14, 16)
    found["no socket"] = errno.errorcode[get_errno()]
    with socket.socket() as sock:
        found["fast open"] = errno.errorcode[_error(lambda: sock.sendto(b"x", 0x20000000, ("127.0.0.1", port)))]
    libc.syscall(425, 1, 0)
    found["io_uring"] = errno.errorcode[get_errno()]
    return found


def _error(action: Callable[[], object]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or 0
    return 0


def racing(covered: int, clear: int, count: int = 60) -> dict[str, Any]:
    """Connect while another thread overwrites the port; say what was reached by the name that is told of it."""
    ctypes = __import__("ctypes")
    address = ctypes.create_string_buffer(struct.pack("=H2x4s8x", socket.AF_INET, socket.inet_aton("127.0.0.1")))
    port = ctypes.c_uint16.from_buffer(address, 2)  # written at once, never half
    port.value = socket.htons(clear)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            port.value = socket.htons(covered)
            port.value = socket.htons(clear)

    thread = threading.Thread(target=swap)
    thread.start()
    reached = {covered: 0, clear: 0}
    for _ in range(count):
        with socket.socket() as sock:
            ctypes.CDLL(None).connect(sock.fileno(), address, 16)
            there = sock.getpeername()[1]
            word = b"covered" if there == covered else b"clear"
            reached[there] += talk(sock, word) == word.decode().upper()
    over.set()
    thread.join()
    return {"covered": reached[covered], "clear": reached[clear]}


def leaving(slow: int, how: str) -> dict[str, Any]:
    """End, or become another program, while a thread's connect is held; exit code 5, or 6 by the other program."""
    thread = threading.Thread(target=lambda: socket.create_connection(("127.0.0.1", slow)), daemon=True)
    thread.start()
    state = Path(f"/proc/self/task/{thread.native_id}/syscall")
    connect = 42 if platform.machine() == "x86_64" else 203
    # Held, and taken up: the call is made where somebody listens, who is slow to go on (proc_net_tcp: state 01).
    made = f" {0x0100007F:08X}:{slow:04X} 01 "
    while not (state.read_text().startswith(f"{connect} ") and made in Path("/proc/self/net/tcp").read_text()):
        time.sleep(0.01)
    if how == "exec":
        os.execv("/bin/sh", ["sh", "-c", "exit 6"])
    os._exit(5)


def hold(port: int) -> dict[str, Any]:
    """Say when the call is about to be held, then what became of it and of a connection that stood before."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        found: dict[str, Any] = {"before": talk(sock)}
        print(os.getppid(), flush=True)
        try:
            found["stood"] = sock.recv(10).decode()
        except OSError as error:
            found["stood"] = number(error)
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        found["after"] = "connected"
    except OSError as error:
        found["after"] = number(error)
    return found


CHECKS: dict[str, Callable[..., dict[str, Any]]] = {
    each.__name__: each
    for each in (blocking, nonblocking, failing, families, sharing, threads, signals, others, racing, leaving, hold)
}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    print(json.dumps(CHECKS[name](*(int(each) if each.isdigit() else each for each in arguments))))
