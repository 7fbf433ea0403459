"""Private network namespaces for tests and the programs that run in them; nothing of the host's network is touched.

with namespace() as one, namespace() as two:
    join(one, two)                     # veth, IPv4 and IPv6
    with one.inside():                 # this thread: sockets opened here live in `one`
        ...
    one.popen(["redis-server", ...])   # ended together with the namespace
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CLONE_NEWNET = 0x40000000
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("nft") is None,
    reason="network namespaces need root, ip and nft",
)


@dataclass
class Namespace:
    """One network namespace; `addresses` are filled in by `join`."""

    name: str
    addresses: dict[int, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Move the calling thread into the namespace for a while; children started meanwhile live there."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set(there)
            try:
                yield
            finally:
                _set(before)
        finally:
            os.close(there)
            os.close(before)

    def run(self, *command: str, **options: Any) -> str:
        """Run a program inside, wait, return its standard output; CalledProcessError on failure."""
        with self.inside():
            done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr or done.stdout}")
        return str(done.stdout)

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program inside; it is killed when the namespace goes."""
        with self.inside():
            process = subprocess.Popen(command, **options)
        self.processes.append(process)
        return process

    def listen(self, address: str, port: int = 0, **options: Any) -> socket.socket:
        """Open a plain listening socket inside; the caller closes it."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.inside():
            return socket.create_server((address, port), family=family, **options)

    def connect(self, address: str, port: int, *, source: str | None = None, timeout: float = 5.0) -> socket.socket:
        """Open a connection from inside; the caller closes it."""
        with self.inside():
            return socket.create_connection((address, port), timeout, (source, 0) if source else None)


def _set(number: int) -> None:
    if _libc.setns(number, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def namespace(label: str = "") -> Iterator[Namespace]:
    """Make a namespace with `lo` up; at the end its processes are killed and it is removed."""
    made = Namespace(f"attls-{os.getpid()}-{next(_numbers)}{label and '-' + label}")
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        for process in made.processes:
            process.kill()
        for process in made.processes:
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        _kill_orphans(made)
        subprocess.run(["ip", "netns", "del", made.name], check=True)


def _kill_orphans(where: Namespace) -> None:
    # What a program of ours started and left behind when it was killed, such as the workers of nginx.
    listed = subprocess.run(["ip", "netns", "pids", where.name], capture_output=True, text=True, check=True).stdout
    for pid in map(int, listed.split()):
        if pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def join(one: Namespace, two: Namespace, network: int = 1) -> None:
    """Connect two namespaces by a veth pair: 10.`network`.0.1 and .2, fd00:`network`::1 and ::2."""
    names = [f"veth{network}a", f"veth{network}b"]
    subprocess.run(
        ["ip", "link", "add", names[0], "netns", one.name, "type", "veth", "peer", names[1], "netns", two.name],
        check=True,
    )
    for host, (where, device) in enumerate(zip((one, two), names, strict=True), start=1):
        where.addresses = {4: f"10.{network}.0.{host}", 6: str(ipaddress.ip_address(f"fd00:{network}::{host}"))}
        where.run("ip", "addr", "add", f"{where.addresses[4]}/24", "dev", device)
        where.run("ip", "addr", "add", f"{where.addresses[6]}/64", "dev", device, "nodad")
        where.run("ip", "link", "set", device, "up")


def wait_until(holds: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for a state, looking every 10 ms; AssertionError when it does not come."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"still not so after {seconds} s")
        time.sleep(0.01)


def sysctl(where: Namespace, name: str, value: object) -> None:
    """Set a network sysctl such as `ipv4/tcp_syncookies` inside a namespace."""
    with where.inside():
        Path(f"/proc/sys/net/{name}").write_text(str(value))


class Sniffer:
    """Everything that crosses one interface of a namespace, to look for bytes that must not be there."""

    def __init__(self, where: Namespace, device: str) -> None:
        with where.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))  # ETH_P_ALL
            self._socket.bind((device, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024 * 1024)
        self._socket.setblocking(False)
        self._frames: list[bytes] = []

    def seen(self) -> bytes:
        """Return every frame so far, one after the other."""
        return b"".join(self._all())

    def asked_for(self) -> list[int]:
        """Return the destination port of every TCP connection that somebody tried to open so far."""
        return [port for frame in self._all() if (port := _port_of_syn(frame)) is not None]

    def _all(self) -> list[bytes]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._frames.append(self._socket.recv(262144))
        return self._frames

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _port_of_syn(frame: bytes) -> int | None:
    # The destination port of an Ethernet frame that opens a TCP connection; None for any other frame.
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\x00" and packet[9] == socket.IPPROTO_TCP:
        segment = packet[(packet[0] & 15) * 4 :]
    elif kind == b"\x86\xdd" and packet[6] == socket.IPPROTO_TCP:
        segment = packet[40:]
    else:
        return None
    syn, ack = segment[13] & 2, segment[13] & 16
    return int.from_bytes(segment[2:4], "big") if syn and not ack else None
