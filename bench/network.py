"""A small network of the benchmark's own: one client namespace, and for each proxy a server namespace on a veth.

Each proxy gets a server namespace to itself because steering is a property of a namespace: a packet filter and its
connection tracking, loaded for one proxy, would otherwise tax the traffic of the others. Nothing of the host changes
except the names under /run/netns, which carry our process id and are removed again.

Every server has several addresses, and the route to each of them starts at a client address of its own: whoever
connects to all of them looks like several clients. A proxy that picks the worker by the client's address needs that.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREFIX = "attls-bench"
_stages = itertools.count()  # a section may set up networks of its own beside those of the comparison
CLIENTS = 4
"""Addresses on each side of a link."""


class BenchError(Exception):
    """The benchmark cannot go on; the text is one sentence for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Network:
    """One server namespace as seen from the client: names for `ip netns exec`, and the addresses of the veth.

    Whoever connects from the client namespace to `server_addresses[n]` comes from `client_addresses[n]`.
    """

    client: str
    server: str
    client_addresses: tuple[str, ...]
    server_addresses: tuple[str, ...]

    @property
    def client_address(self) -> str:
        """The client's first address."""
        return self.client_addresses[0]

    @property
    def server_address(self) -> str:
        """The server's first address."""
        return self.server_addresses[0]


def plan(client: str, server: str, number: int) -> Network:
    """Name the addresses of link `number`."""
    here, there = (tuple(f"10.203.{number}.{first + n}" for n in range(CLIENTS)) for first in (1, 101))
    return Network(client, server, here, there)


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


def _join(network: Network, number: int) -> None:
    """Lay the veth of a network, with all its addresses and routes."""
    link = f"veth{number}"
    _ip("-n", network.client, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", network.server)
    for namespace, device, addresses in (
        (network.client, link, network.client_addresses),
        (network.server, "eth0", network.server_addresses),
    ):
        for address in addresses:
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", device)
        _ip("-n", namespace, "link", "set", device, "up")
    for here, there in zip(network.client_addresses, network.server_addresses, strict=True):
        _ip("-n", network.client, "route", "add", f"{there}/32", "dev", link, "src", here)


@contextmanager
def networks(names: list[str]) -> Iterator[dict[str, Network]]:
    """Make one network per name and remove all of them at the end.

    Raises BenchError when a namespace cannot be made. Processes inside must be gone before the end: a namespace lives
    as long as its last process.
    """
    _sweep()
    stem = f"{PREFIX}-{os.getpid()}-{next(_stages)}"
    client = f"{stem}-client"
    made: list[str] = []
    try:
        made.append(client)
        _make(client)
        result: dict[str, Network] = {}
        for number, name in enumerate(names):
            network = plan(client, f"{stem}-{name}", number)
            made.append(network.server)
            _make(network.server)
            _join(network, number)
            result[name] = network
        yield result
    finally:
        for namespace in reversed(made):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)
