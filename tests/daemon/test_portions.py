"""A generation in portions: whole again at the other end, and no portion is more than a small part of it."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path

from attls.daemon.generation import Generation, load
from attls.daemon.portions import Assembly, Prepare, portions
from attls.model import Defaults, Direction, Endpoint, Flow, Owner
from tests.scenes.daemons import rule

RULES = 3000


def generation(tmp_path: Path, rings: Path, rules: int, number: int = 1) -> Generation:
    """A generation of so many rules, one for each port from 7000 on."""
    path = tmp_path / "attls.policy"
    path.write_text("".join(rule(f"rule{each}", port=7000 + each) for each in range(rules)))
    return load(path, rings, defaults=Defaults.MODERN, number=number)


def assembled(orders: list[Prepare], assembly: Assembly | None = None) -> list[Generation]:
    """What comes out at the other end."""
    assembly = assembly or Assembly()
    return [whole for order in orders if (whole := assembly.add(order)) is not None]


def distinct(whole: Generation) -> int:
    """How many objects stand for the settings of its rules."""
    return len({id(each.verdict.settings) for each in whole.policy.rules})


def test_what_is_taken_apart_comes_together_again(tmp_path: Path, rings: Path) -> None:
    """The same values, the same objects where they were the same, and the same verdicts."""
    ours = generation(tmp_path, rings, RULES)
    (theirs,) = assembled(portions(ours))
    assert ours == theirs
    assert distinct(ours) == distinct(theirs)
    flow = Flow(
        Direction.INBOUND,
        Endpoint(IPv4Address("192.0.2.1"), 7000 + RULES - 1),
        Endpoint(IPv4Address("192.0.2.2"), 40000),
    )
    assert f"rule{RULES - 1}" == theirs.policy.match(flow, Owner(), datetime(2026, 7, 31)).rule


def test_every_portion_is_small(tmp_path: Path, rings: Path) -> None:
    """Rules, the index over them and the rest are spread over portions none of which holds a fifth of all bytes."""
    sizes = [len(order.data) for order in portions(generation(tmp_path, rings, RULES))]
    assert max(sizes) < sum(sizes) / 5


def test_what_was_not_finished_does_not_count(tmp_path: Path, rings: Path) -> None:
    """A generation whose first portion comes after half of another one is put together from its own."""
    half, whole = generation(tmp_path, rings, 500, 1), generation(tmp_path, rings, 400, 2)
    assembly = Assembly()
    left = portions(half)
    assert [] == assembled(left[: len(left) // 2], assembly)
    assert [whole] == assembled(portions(whole), assembly)
