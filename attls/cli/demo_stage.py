"""The demo's stage: machines made of kernel namespaces, a wire between two of them, and a sniffer on the wire.

A machine is a network, process and mount namespace of its own without a name anywhere. It lives as long as somebody
holds the pipe to its first process: when we close the pipe, or die in whatever way, that process ends, the kernel ends
every other process of the machine and takes its network apart. So there is nothing to sweep up that could be
forgotten, and any number of demos can run side by side. Nothing here touches the host's own network.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from attls.cli import demo_capture
from attls.errors import AttlsError

TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "ss": "iproute2", "nft": "nftables"}

CLONE_NEWNET = 0x40000000
# From linux/if_packet.h and asm-generic/socket.h; Python's socket module does not name these.
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33
CAPTURE_BUFFER = 32 * 2**20


def missing_tools(tools: dict[str, str]) -> str | None:
    """Return a sentence naming the programs that are not installed and the packages that bring them, or None."""
    missing = {tool: package for tool, package in tools.items() if shutil.which(tool) is None}
    if not missing:
        return None
    packages = " ".join(sorted(set(missing.values())))
    return f"the demo needs {', '.join(sorted(missing))}: run `apt-get install {packages}`"


class Machine:
    """A machine of its own: nothing it does is seen outside, and all of it ends with `close`.

    Raises AttlsError when the kernel does not let us make namespaces. The maker closes it, best with `with`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[str]] = []
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
             "sh", "-c", "ip link set lo up && echo ready && exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != "ready\n":
            said = self._holder.stderr.read().strip()
            self.close()
            raise AttlsError(
                f"the kernel did not let us make the {name}'s namespaces ({said}); "
                "in a container, allow CAP_SYS_ADMIN and CAP_NET_ADMIN"
            )

    @property
    def network(self) -> str:
        """The path by which this machine's network is entered from the host."""
        return f"/proc/{self._holder.pid}/ns/net"

    @property
    def pid(self) -> int:
        """The process, seen from the host, whose network is this machine's."""
        return self._holder.pid

    def _entering(self, command: Sequence[str]) -> list[str]:
        holder = f"/proc/{self._holder.pid}"
        spaces = [f"--net={holder}/ns/net", f"--mount={holder}/ns/mnt", f"--pid={holder}/ns/pid_for_children"]
        # Entering a mount namespace leads to its own root; whoever runs us in a chroot means the chroot's.
        return ["nsenter", *spaces, f"--root={holder}/root", f"--wd={holder}/cwd", "--", *command]

    def spawn(self, *command: str, stderr: Path | None = None) -> subprocess.Popen[str]:
        """Start a program on this machine with pipes for its input and output, out of reach of the terminal's Ctrl-C.

        `stderr` is a file that its errors are added to; without it they join the output. `close` ends the program.
        """
        with contextlib.ExitStack() as stack:
            errors = subprocess.STDOUT if stderr is None else stack.enter_context(stderr.open("a"))
            process = subprocess.Popen(
                self._entering(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def run(self, *command: str, timeout: float = 15.0) -> str:
        """Run a program on this machine to its end and return its output.

        `timeout` is in seconds. Raises AttlsError with the program's own words when it fails or takes too long.
        """
        try:
            done = subprocess.run(
                self._entering(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
                start_new_session=True, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise AttlsError(f"on the {self.name}, `{' '.join(command)}` took longer than {timeout:.0f} s") from None
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise AttlsError(f"on the {self.name}, `{' '.join(command)}` failed with {done.returncode}: {said}")
        return done.stdout

    def close(self) -> None:
        """End every program of this machine and the machine itself; waits until they are gone."""
        assert self._holder.stdin is not None
        with contextlib.suppress(OSError):
            self._holder.stdin.close()
        try:
            self._holder.wait(5)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
        for pipe in (self._holder.stdout, self._holder.stderr):
            if pipe is not None:
                pipe.close()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def join(
    left: Machine, right: Machine, *, interface: str, left_addresses: Sequence[str], right_addresses: Sequence[str]
) -> None:
    """Lay a wire: one `interface` of that name on each machine, with the given addresses (`10.0.0.1/24`, `fd00::1/64`).

    Raises AttlsError with what `ip` said, for instance when the kernel knows no veth devices.
    """
    try:
        subprocess.run(
            ["nsenter", f"--net={left.network}", "ip", "link", "add", interface, "type", "veth",
             "peer", "name", interface, "netns", str(right.pid)],
            check=True, capture_output=True, text=True, timeout=15,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise AttlsError(f"the kernel did not lay a wire between the machines: {error.stderr.strip()}") from None
    for machine, addresses in ((left, left_addresses), (right, right_addresses)):
        for address in addresses:
            # Duplicate address detection would keep an IPv6 address unusable for a second; there is nobody to ask.
            machine.run("ip", "address", "add", address, "dev", interface, *(("nodad",) if ":" in address else ()))
        machine.run("ip", "link", "set", interface, "up")


class Sniffer:
    """A packet socket on one machine's interface; the kernel keeps what passes until `streams` takes it.

    Sees what the wire carries, both ways, and nothing of the machine's loopback. The maker closes it.
    """

    def __init__(self, machine: Machine, interface: str) -> None:
        self._lost = 0
        self._segments: list[demo_capture.Segment] = []
        opened: list[socket.socket | OSError] = []
        # A thread may enter another network alone and a socket belongs to the network it was made in, so this
        # thread makes it there and ends; the rest of the process never leaves home.
        thread = threading.Thread(target=lambda: opened.append(_packet_socket(machine.network, interface)))
        thread.start()
        thread.join()
        (made,) = opened
        if isinstance(made, OSError):
            raise AttlsError(f"the kernel did not let us listen on the {machine.name}'s wire: {made}")
        self._socket = made

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, (_, ethertype, *_) = self._socket.recvfrom(2**17)
                segment = demo_capture.segment_of(packet, ethertype)
                if segment is not None:
                    self._segments.append(segment)
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)  # reading it sets it back to zero
        self._lost += int.from_bytes(statistics[4:8], sys.byteorder)

    def streams(self) -> tuple[list[demo_capture.Stream], int]:
        """Return the TCP streams seen since the last call, and how many packets the kernel had to drop."""
        self._drain()
        streams, lost = demo_capture.streams_of(self._segments), self._lost
        self._segments, self._lost = [], 0
        return streams, lost

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _packet_socket(network: str, interface: str) -> socket.socket | OSError:
    """Make a packet socket inside a network namespace; for a thread that does nothing else. Errors are returned."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
    try:
        descriptor = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(descriptor, CLONE_NEWNET) != 0:
                return OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(descriptor)
        # SOCK_DGRAM: the kernel takes the link header off and says beside each packet which protocol it is.
        made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, CAPTURE_BUFFER)
        made.bind((interface, 0x0003))  # ETH_P_ALL: what comes in and what goes out
    except OSError as error:
        return error
    return made


class Conversation:
    """A line-by-line talk with a program on a machine: one command in, its answer out.

    `marker` makes the program print a line that we choose, so that we know where an answer ends.
    """

    def __init__(self, process: subprocess.Popen[str], *, marker: str) -> None:
        self._process = process
        self._marker = marker
        self._asked = 0
        self._buffer = b""

    def ask(self, command: str, timeout: float = 15.0) -> str:
        """Send one command and return what the program answered, without the last newline.

        `timeout` is in seconds. Raises AttlsError when no answer comes or the program ends.
        """
        assert self._process.stdin is not None
        self._asked += 1
        end = f"--- answer {self._asked} ends ---"
        try:
            self._process.stdin.write(f'{command}\n{self._marker} "{end}"\n')
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # why it ended is in what it printed
        answer, found, self._buffer = self._read_until(f"{end}\n".encode(), time.monotonic() + timeout)
        text = answer.decode(errors="replace").strip()
        if not found:
            raise AttlsError(f"`{command}` got no whole answer: {text or 'nothing was printed'}")
        return text

    def _read_until(self, end: bytes, deadline: float) -> tuple[bytes, bytes, bytes]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while end not in self._buffer:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            received = os.read(descriptor, 65_536) if ready else b""
            if not received:
                break
            self._buffer += received
        return self._buffer.partition(end)

    def close(self, timeout: float = 5.0) -> None:
        """End the talk: no more input; wait up to `timeout` seconds for the program to leave by itself."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)


def wait_for_line(process: subprocess.Popen[str], pattern: str, timeout: float) -> str:
    """Wait until a program prints a line that the regular expression `pattern` is found in, and return that line.

    `timeout` is in seconds. Raises AttlsError with what was printed instead when the program ends or stays silent.
    """
    assert process.stdout is not None
    deadline, seen = time.monotonic() + timeout, ""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        received = os.read(process.stdout.fileno(), 65_536).decode(errors="replace") if ready else ""
        seen += received
        for line in seen.splitlines(keepends=True):
            if line.endswith("\n") and re.search(pattern, line):
                return line.rstrip("\n")
        if not received:
            raise AttlsError(f"it never said `{pattern}`, only: {seen.strip() or 'nothing'}")
