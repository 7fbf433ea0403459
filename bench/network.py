"""A small network of the benchmark's own: one client namespace, and for each proxy a server namespace on a veth.

Each proxy gets a server namespace to itself because steering is a property of a namespace: a packet filter and its
connection tracking, loaded for one proxy, would otherwise tax the traffic of the others. Nothing of the host changes
except the names under /run/netns, which carry our process id and are removed again.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREFIX = "attls-bench"


class BenchError(Exception):
    """The benchmark cannot go on; the text is one sentence for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Network:
    """One server namespace as seen from the client: names for `ip netns exec`, and the two addresses of the veth."""

    client: str
    server: str
    client_address: str
    server_address: str


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"ip {' '.join(arguments)} failed: {done.stderr.strip() or 'no reason given'} (are you root?)")


def _make(namespace: str) -> None:
    """Add a namespace with loopback up and the kernel's own settings.

    The range of client ports stays as it is: attls dials programs from the ports outside of it, where the same
    four-tuple as a client's cannot come up.
    """
    _ip("netns", "add", namespace)
    _ip("-n", namespace, "link", "set", "lo", "up")


def _sweep() -> None:
    """Remove what a killed benchmark left behind: namespaces whose name carries a process id that is gone."""
    listing = Path("/run/netns")
    for entry in sorted(listing.glob(f"{PREFIX}-*")) if listing.is_dir() else ():
        owner = entry.name.removeprefix(f"{PREFIX}-").partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            subprocess.run(["ip", "netns", "delete", entry.name], capture_output=True, check=False)


@contextmanager
def networks(names: list[str]) -> Iterator[dict[str, Network]]:
    """Make one network per name and remove all of them at the end.

    Raises BenchError when a namespace cannot be made. Processes inside must be gone before the end: a namespace lives
    as long as its last process.
    """
    _sweep()
    client = f"{PREFIX}-{os.getpid()}-client"
    made: list[str] = []
    try:
        made.append(client)
        _make(client)
        result: dict[str, Network] = {}
        for number, name in enumerate(names):
            server = f"{PREFIX}-{os.getpid()}-{name}"
            network = Network(client, server, f"10.203.{number}.1", f"10.203.{number}.2")
            made.append(server)
            _make(server)
            link = f"veth{number}"
            _ip("-n", client, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", server)
            _ip("-n", client, "address", "add", f"{network.client_address}/30", "dev", link)
            _ip("-n", server, "address", "add", f"{network.server_address}/30", "dev", "eth0")
            _ip("-n", client, "link", "set", link, "up")
            _ip("-n", server, "link", "set", "eth0", "up")
            result[name] = network
        yield result
    finally:
        for namespace in reversed(made):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)
