"""Loading policy and rings as one whole."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from attls.daemon.generation import Generation, GenerationError, load
from attls.errors import PolicyError
from attls.model import Defaults
from tests.scenes.daemons import rule


def loaded(tmp_path: Path, rings: Path, policy: str, previous: Generation | None = None) -> Generation:
    path = tmp_path / "attls.policy"
    path.write_text(policy)
    number = previous.number + 1 if previous else 1
    return load(path, rings, defaults=Defaults.MODERN, number=number, previous=previous)


def test_every_ring_is_read_once_and_bare_names_are_left(tmp_path: Path, rings: Path) -> None:
    """Two rules over one ring read it once; the ring of a connection's own user cannot be read beforehand."""
    policy = rule("a") + rule("b", port=7001) + rule("c", port=7002, ring="OWN")
    generation = loaded(tmp_path, rings, policy)
    assert [key[0] for key in generation.rings] == ["SRV/RING"]
    assert generation.groups == ("a-grp", "b-grp", "c-grp")


def test_it_travels_to_workers(tmp_path: Path, rings: Path) -> None:
    """A generation is equal to itself after pickling, private keys included."""
    generation = loaded(tmp_path, rings, rule("a"))
    copy = pickle.loads(pickle.dumps(generation))
    assert generation.rings == copy.rings
    assert generation.policy.rules == copy.policy.rules


def test_all_missing_rings_are_named_at_once(tmp_path: Path, rings: Path) -> None:
    """One sentence for each ring, with the rule that asks for it and the System SSL code."""
    policy = rule("a", ring="NO/ONE") + rule("b", port=7001, ring="NO/TWO") + rule("c", port=7002, ring="NO/TWO")
    with pytest.raises(GenerationError) as caught:
        loaded(tmp_path, rings, policy)
    first, second = caught.value.problems
    assert "rule a: " in first
    assert "rule b: " in second
    assert "(code 202)" in first


def test_policy_errors_come_before_rings(tmp_path: Path, rings: Path) -> None:
    """A policy that does not read is a PolicyError with its diagnostics."""
    with pytest.raises(PolicyError):
        loaded(tmp_path, rings, rule("a", ring="NO/ONE").replace("Server", "Sever"))


def test_a_policy_path_that_cannot_be_read_is_a_sentence(
    tmp_path: Path, rings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is missing or forbidden, nobody sees a traceback."""
    with pytest.raises(PolicyError):
        load(tmp_path / "missing.policy", rings, defaults=Defaults.MODERN, number=1)

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("attls.policy.load", forbidden)
    with pytest.raises(GenerationError, match=r"cannot read the policy .*: Permission denied"):
        loaded(tmp_path, rings, rule("a"))


def test_actions_keep_their_numbers_across_refreshes(tmp_path: Path, rings: Path) -> None:
    """GRPID and ENVID in the log mean the same action before and after, also when it was away for a while."""
    first = loaded(tmp_path, rings, rule("a") + rule("b", port=7001))
    second = loaded(tmp_path, rings, rule("b", port=7001) + rule("c", port=7002), first)
    third = loaded(tmp_path, rings, rule("a") + rule("c", port=7002), second)
    assert first.group_identifiers == {"a-grp": 1, "b-grp": 2}
    assert third.group_identifiers == {"a-grp": 1, "b-grp": 2, "c-grp": 3}
    assert third.groups == ("a-grp", "c-grp")
