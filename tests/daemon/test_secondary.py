"""Primaries come and go, and what follows them is found by process and hosts; the packet filter steers both."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls.daemon.secondary import Primaries, Primary
from attls.intercept import nft
from attls.model import AddressRange, Conditions, Direction, PortRange, Verdict
from attls.policy import Rule
from tests.namespaces import namespace, needs_namespaces

SERVER, CLIENT = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
steps = st.lists(st.tuples(st.booleans(), st.integers(0, 1), st.integers(1, 4), st.integers(1, 3)), max_size=40)


def primary(worker: int, connid: int, pid: int) -> Primary:
    return Primary(worker, connid, pid, SERVER, CLIENT, f"rule{connid}", "user")


@given(steps)
def test_what_is_found_is_alive(steps: list[tuple[bool, int, int, int]]) -> None:
    """A primary is found from its introduction to its end, for its process only."""
    primaries = Primaries()
    alive: dict[tuple[int, int], Primary] = {}
    for add, worker, connid, pid in steps:
        alive.pop((worker, connid), None)
        if add:
            alive[worker, connid] = primary(worker, connid, pid)
            primaries.add(alive[worker, connid])
        else:
            primaries.remove(worker, connid)
    assert bool(alive) == primaries.between(SERVER, CLIENT)
    assert set(alive.values()) == set(primaries)
    for pid in range(1, 4):
        of_pid = [each for each in alive.values() if each.pid == pid]
        assert (of_pid[-1] if of_pid else None) == primaries.find(pid, SERVER, CLIENT)
    primaries.forget(0)
    assert {each for each in alive.values() if each.worker} == set(primaries)


def followed(conditions: Conditions) -> str:
    rule = Rule("ftp", 1, conditions, Verdict("ftp", True))
    return nft.render(
        [rule],
        outbound_port=1011,
        inbound_port=1012,
        own_uid=0,
        uids_of=lambda _: frozenset(),
        secondary=lambda _: True,
    )


@needs_namespaces
@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(frozenset(Direction)),
        Conditions(frozenset({Direction.INBOUND}), local_ports=(PortRange(21, 21),)),
        Conditions(
            frozenset(Direction),
            remote_addresses=(AddressRange(4, int(CLIENT), int(CLIENT) + 8), AddressRange(6, 1, 5)),
            remote_ports=(PortRange(21, 22), PortRange(990, 990)),
        ),
    ],
)
def test_the_kernel_takes_the_table(conditions: Conditions) -> None:
    """Rules with SecondaryMap load, and load again over themselves."""
    with namespace() as alone, alone.inside():
        text = followed(conditions)
        nft.check(text)
        nft.apply(text)
        nft.apply(text)


def test_only_such_rules_make_it_longer() -> None:
    """A policy without SecondaryMap pays nothing for it."""
    rule = Rule("web", 1, Conditions(frozenset(Direction)), Verdict("web", True))
    text = nft.render([rule], outbound_port=1011, inbound_port=1012, own_uid=0, uids_of=lambda _: frozenset())
    assert "@pairs" not in text
