"""Two policies, and which connections change between them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls import policy
from attls.model import Direction, Owner
from attls.policy import compare as comparing
from attls.policy.compare import Change
from attls.policy.match import Question

SHARED = """
TTLSGroupAction on
{
  TTLSEnabled On
}
TTLSGroupAction off
{
  TTLSEnabled Off
}
TTLSEnvironmentAction server
{
  HandshakeRole Server
  TTLSKeyringParms
  {
    Keyring A/B
  }
}
"""


def rule(name: str, *lines: str, group: str = "on") -> str:
    body = "\n".join((*lines, "Direction Inbound", f"TTLSGroupActionRef {group}", "TTLSEnvironmentActionRef server"))
    return f"TTLSRule {name}\n{{\n{body}\n}}\n"


def at(*lines: str) -> tuple[str, ...]:
    return ("IpTimeCondition", "{", *lines, "}")


def compare(tmp_path: Path, old: str, new: str) -> list[Change]:
    loaded = []
    for name, text in (("old", old), ("new", new)):
        path = tmp_path / f"{name}.policy"
        path.write_text(text)
        loaded.append(policy.load(path))
    comparison = comparing.compare(*loaded)
    assert comparison.complete
    return list(comparison.changes)


def test_the_same_policy_changes_nothing(tmp_path: Path) -> None:
    """Neither order nor names nor splitting a rule in two changes what connections get."""
    old = SHARED + rule("ports", "LocalPortRange 1-2")
    new = rule("second", "LocalPortRange 2") + rule("first", "LocalPortRange 1") + SHARED
    assert [] == compare(tmp_path, old, old)
    assert [] == compare(
        tmp_path, SHARED + rule("other", "LocalPortRange 1"), new.replace(rule("second", "LocalPortRange 2"), "")
    )


def test_a_new_rule_says_what_it_takes(tmp_path: Path) -> None:
    """Connections that were in the clear are named by their conditions, with what they get now."""
    (change,) = compare(tmp_path, SHARED, SHARED + rule("new", "LocalPortRange 22", "Jobname SSHD"))
    assert "inbound connections of job SSHD on local port 22" == change.connections
    assert "in the clear (no rule)" == change.before
    assert "TLS as Server with key ring A/B (rule new)" == change.after
    assert {} == change.parameters


def test_a_changed_action_names_its_parameters(tmp_path: Path) -> None:
    """A change deep in an action is told for the connections of the rules that use it, parameter by parameter."""
    old = SHARED + rule("r", "LocalPortRange 22")
    new = old.replace("Server\n", "Server\n  TTLSEnvironmentAdvancedParms\n  {\n    TLSv1.2 Off\n  }\n")
    (change,) = compare(tmp_path, old, new)
    assert {"TLSv1.2": ("On", "Off")} == change.parameters


def test_priorities_count(tmp_path: Path) -> None:
    """Raising a priority changes the connections that two rules share, and only those."""
    old = SHARED + rule("all", "LocalPortRange 1-100", "Priority 5") + rule("one", "LocalPortRange 50", group="off")
    (change,) = compare(tmp_path, old, old.replace("LocalPortRange 50\n", "LocalPortRange 50\nPriority 6\n"))
    assert "inbound connections on local port 50" == change.connections
    assert ("all", "one") == (change.old_rule, change.new_rule)
    assert "in the clear (rule one, TTLSEnabled Off)" == change.after


def test_a_deleted_rule_says_what_is_lost(tmp_path: Path) -> None:
    """What a rule protected is in the clear after it is gone."""
    (change,) = compare(tmp_path, SHARED + rule("r", "RemoteAddr 10.0.0.0/8"), SHARED)
    assert "inbound connections with remote address 10.0.0.0/8" == change.connections
    assert "in the clear (no rule)" == change.after


def test_times_are_a_change(tmp_path: Path) -> None:
    """A rule that is in force only at times from now on has changed, and so has one whose times are others."""
    old = SHARED + rule("r", "LocalPortRange 1")
    night, evening = (at(f"TimeOfDayRange {hours}") for hours in ("01:00-02:00", "20:00-02:00"))
    (change,) = compare(tmp_path, old, SHARED + rule("r", "LocalPortRange 1", *night))
    server = "TLS as Server with key ring A/B (rule r)"
    assert (server, f"{server} at 01:00-02:00, else in the clear (no rule)") == (change.before, change.after)
    texts = [SHARED + rule("r", "LocalPortRange 1", *times) for times in (night, evening)]
    (change,) = compare(tmp_path, *texts)
    assert f"{server} at 20:00-02:00, else in the clear (no rule)" == change.after


def test_what_stands_behind_a_rule_with_times_counts(tmp_path: Path) -> None:
    """Outside the times of a rule the next one decides: losing it is a change, one that does the same is none."""
    timed = SHARED + rule("a", "LocalPortRange 1", "Priority 2", *at("DayOfWeekMask 0111110"))
    always = rule("b", "LocalPortRange 1")
    (change,) = compare(tmp_path, SHARED + rule("b", "LocalPortRange 1"), timed)
    assert change.after.endswith("(rule a) on Monday-Friday, else in the clear (no rule)")
    (change,) = compare(tmp_path, timed + rule("b", "LocalPortRange 1", group="off"), timed + always)
    assert change.before.endswith("(rule a) on Monday-Friday, else in the clear (rule b, TTLSEnabled Off)")
    assert [] == compare(tmp_path, timed + always, SHARED + always)
    second = rule("c", "LocalPortRange 1", *at("DayOfWeekMask 1000000"))
    (change,) = compare(tmp_path, timed, timed + second)
    assert "on Sunday or on Monday-Friday, else in the clear" in change.after
    wide = timed.replace("LocalPortRange 1\n", "LocalPortRange 1-3\n")
    sundays = rule("c", "LocalPortRange 1-2", *at("DayOfWeekMask 1000000"))
    (change,) = compare(tmp_path, wide, wide.replace("Priority 2", "Priority 3") + sundays)
    assert "inbound connections on local port 1-2" == change.connections


def test_instances_are_a_change(tmp_path: Path) -> None:
    """Raising a user instance rebuilds the environment, which is what whoever raised it wants to see."""
    old = SHARED + rule("r", "LocalPortRange 1")
    (change,) = compare(tmp_path, old, old.replace("Server\n", "Server\n  EnvironmentUserInstance 2\n"))
    assert {"EnvironmentUserInstance": (None, 2)} == change.parameters


def test_what_could_not_be_looked_at_is_not_called_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no time to cut a rule's connections as finely as others cut them, the comparison says so."""
    monkeypatch.setattr(comparing, "_MOST_CELLS_AT_ONCE", 4)
    monkeypatch.setattr(comparing, "_FEW_CELLS", 4)
    texts = []
    for name, group in (("old", "on"), ("new", "off")):
        exceptions = "".join(rule(f"x{port}", f"LocalPortRange {port}", "Priority 9") for port in range(1, 20, 2))
        path = tmp_path / f"{name}.policy"
        path.write_text(SHARED + exceptions + rule("wide", "LocalPortRange 1-30", group=group))
        texts.append(policy.load(path))
    assert not comparing.compare(*texts).complete
    assert comparing.compare(texts[0], texts[0]).complete


def test_only_the_part_that_changes_is_told(tmp_path: Path) -> None:
    """A range that shrinks, and a hole in a range, are told by the ports and addresses that they concern."""
    old = SHARED + rule("r", "LocalPortRange 1-100", "RemoteAddr 10.0.0.0/8")
    shrunk = SHARED + rule("r", "LocalPortRange 11-90", "RemoteAddr 10.0.0.0/8")
    (change,) = compare(tmp_path, old, shrunk)
    assert "inbound connections on local port 1-10, 91-100 with remote address 10.0.0.0/8" == change.connections
    hole = old + rule("hole", "LocalPortRange 50", "RemoteAddr 10.1.0.0/16", "Priority 2", group="off")
    (change,) = compare(tmp_path, old, hole)
    assert "inbound connections on local port 50 with remote address 10.1.0.0/16" == change.connections


def test_a_rule_with_many_exceptions_is_looked_at_in_every_part(tmp_path: Path) -> None:
    """However many other rules cut into a range, the part of it that changes is found."""
    others = "".join(rule(f"port{port}", f"LocalPortRange {port}", "Priority 2", group="off") for port in range(9, 99))
    old = SHARED + others + rule("wide", "LocalPortRange 1-65535")
    (change,) = compare(tmp_path, old, SHARED + others + rule("wide", "LocalPortRange 1-60000"))
    assert "inbound connections on local port 60001-65535" == change.connections
    assert "in the clear (no rule)" == change.after


some_rules = st.lists(
    st.tuples(st.integers(1, 20), st.integers(0, 9), st.integers(1, 3), st.sampled_from(["on", "off"])), max_size=5
).map(
    lambda several: "".join(
        rule(f"r{number}", f"LocalPortRange {first}-{first + more}", f"Priority {priority}", group=group)
        for number, (first, more, priority, group) in enumerate(several)
    )
)


@given(some_rules, some_rules)
def test_what_changes_is_told_and_nothing_else(old: str, new: str) -> None:
    """Something is told exactly where some connection gets something else."""
    with TemporaryDirectory() as directory:
        told = compare(Path(directory), SHARED + old, SHARED + new)
        policies = [policy.load(Path(directory) / f"{name}.policy") for name in ("old", "new")]
    for port in range(1, 31):
        flow = Question(Direction.INBOUND, None, port, None, None)
        before, after = (
            loaded.explain(flow, Owner(), datetime(2026, 7, 31)).verdict.tls == "on" for loaded in policies
        )
        described = any(fits(change.connections, port) for change in told)
        assert (before != after) == described


def fits(connections: str, port: int) -> bool:
    ranges = [piece.partition("-") for piece in connections.rpartition("port ")[2].split(", ")]
    return any(int(first) <= port <= int(last or first) for first, _, last in ranges)
