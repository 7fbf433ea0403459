"""Listeners, the spread over workers, and dialling; what needs steering is in test_steering."""

from __future__ import annotations

import errno
import pickle
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls.errors import InterceptError
from attls.intercept.routes import Routes
from attls.intercept.sockets import (
    BUSY_PORTS,
    QUIET_PORTS,
    WorkerListeners,
    _dial_ports,
    client_spread,
    dial_inbound,
    dial_outbound,
    open_listeners,
)
from attls.model import Direction, Endpoint, Flow, canonical_address
from tests.namespaces import Namespace, namespace, needs_namespaces


@pytest.fixture(scope="module")
def private() -> Iterator[Namespace]:
    with namespace("sockets") as made:
        yield made


@given(st.ip_addresses())
def test_an_address_that_comes_back_is_the_same_address(address: IPv4Address | IPv6Address) -> None:
    """A canonical address is equal to the library's own, looks and hashes like it, and survives pickling."""
    found = canonical_address(str(address))
    mapped = getattr(address, "ipv4_mapped", None)
    expected = mapped if mapped is not None else address
    again = pickle.loads(pickle.dumps(found))
    assert [(expected, str(expected), hash(expected), expected.packed)] * 2 == [
        (each, str(each), hash(each), each.packed) for each in (found, again)
    ]


def spread(address: str, count: int) -> int:
    """Run the filter program on a packet from `address`, as the kernel would."""
    packed = ip_address(address).packed
    offset = 12 if len(packed) == 4 else 8
    accumulator = index = 0
    for operation, _, _, operand in client_spread(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, count):
        match operation:
            case 0x20:
                start = operand - 0xFFF00000 - offset
                accumulator = int.from_bytes(packed[start : start + 4], "big")
            case 0x07:
                index = accumulator
            case 0xAC:
                accumulator ^= index
            case 0x24:
                accumulator = accumulator * operand & 0xFFFFFFFF
            case 0x74:
                accumulator >>= operand
            case 0x94:
                accumulator %= operand
            case 0x16:
                return accumulator
    raise AssertionError("the program does not return")


@given(st.ip_addresses(), st.integers(1, 64))
def test_spread_names_a_worker(address: object, count: int) -> None:
    """Any client goes to one of the workers."""
    assert 0 <= spread(str(address), count) < count


@pytest.mark.parametrize("pattern", ["10.1.{}.7", "10.1.7.{}", "fd00::{:x}", "fd00:0:0:{:x}::1"])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_spread_is_even(pattern: str, count: int) -> None:
    """Neighbouring addresses are spread so that no worker has twice its share."""
    found = Counter(spread(pattern.format(number), count) for number in range(240))
    assert set(range(count)) == set(found)
    assert max(found.values()) <= 2 * 240 / count


@given(st.integers(1, 65535))
def test_dialling_keeps_away_from_the_clients_ports(port: int) -> None:
    """The first tries lie in the part of the port range where this client's own ports do not lie."""
    tries = list(_dial_ports(port))
    away = BUSY_PORTS if port in QUIET_PORTS else QUIET_PORTS
    assert all(number in away for number in tries[:12])
    assert len(tries) == 16


@needs_namespaces
@pytest.mark.scene
def test_listeners_are_inherited(private: Namespace) -> None:
    """A child process takes over the descriptors and accepts on them."""
    program = """
import sys
from attls.intercept import WorkerListeners
mine = WorkerListeners.of_numbers([int(number) for number in sys.argv[1:]])
mine.outbound6.setblocking(True)
accepted, peer = mine.outbound6.accept()
accepted.sendall(b"from the child")
"""
    with private.inside():
        found = open_listeners(2)
        numbers = found.workers[0].numbers()
        child = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, numbers)], pass_fds=[number for number in numbers if number >= 0]
        )
        found.workers[1].close()
        with socket.create_connection(("::1", found.outbound_port), timeout=10) as sock:
            assert sock.recv(100) == b"from the child"
        assert child.wait(5) == 0
        found.close()


@needs_namespaces
@pytest.mark.scene
def test_taken_ports_are_passed_over(private: Namespace) -> None:
    """A second daemon does not join the first one's listeners; when all ports are taken it says so."""
    with private.inside():
        first = open_listeners(1, ports=(1011, 1012, 1013, 1014, 1015))
        second = open_listeners(1, ports=(1011, 1012, 1013, 1014, 1015))
        assert (1011, 1012) == (first.outbound_port, first.inbound_port)
        assert (1013, 1014) == (second.outbound_port, second.inbound_port)
        with pytest.raises(InterceptError, match="two free ports are needed among 1011-1015"):
            open_listeners(1, ports=(1011, 1012, 1013, 1014, 1015))
        first.close()
        third = open_listeners(1, ports=(1011, 1012, 1013, 1014, 1015))
        assert (1011, 1012) == (third.outbound_port, third.inbound_port)
        second.close()
        third.close()


@needs_namespaces
@pytest.mark.scene
def test_failed_dial_leaves_nothing_open(private: Namespace) -> None:
    """Without a route dialling raises, and no descriptor is left behind."""
    with private.inside():
        before = len(list(Path("/proc/self/fd").iterdir()))
        local, remote = Endpoint.of(("127.0.0.1", 5)), Endpoint.of(("192.0.2.9", 6))
        with pytest.raises(OSError):
            dial_outbound(Flow(Direction.OUTBOUND, local, remote))
        with pytest.raises(OSError) as failure:
            dial_inbound(Flow(Direction.INBOUND, remote, local))
        assert failure.value.errno == errno.ENETUNREACH
        assert before == len(list(Path("/proc/self/fd").iterdir()))


@needs_namespaces
@pytest.mark.scene
def test_routes_come_and_go(private: Namespace) -> None:
    """Installing and removing may be repeated and leave what they found."""
    show = ["ip rule", "ip -6 rule", "ip route show table 2551", "ip -6 route show table 2551"]
    routes = Routes()

    def seen() -> list[str]:
        return [line for command in show for line in private.run("sh", "-c", f"{command} || true").splitlines()]

    before = seen()
    with private.inside():
        routes.install()
        installed = seen()
        routes.install()
        assert installed == seen()
        assert len(before) + 4 == len(installed)
        routes.remove()
        routes.remove()
    assert before == seen()


def test_worker_without_ipv6() -> None:
    """On a kernel without IPv6 a worker has two listeners and hands on placeholders for the others."""
    with socket.socket() as one, socket.socket() as two:
        mine = WorkerListeners(one, two)
        assert (one.fileno(), two.fileno(), -1, -1) == mine.numbers()
        assert ((one,), (two,)) == (mine.outbound, mine.inbound)
