"""What `check` says about policies that are correct but hardly meant."""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attls import policy
from attls.errors import Diagnostic
from attls.model import AddressRange, Conditions, Direction, Owner, PortRange, TimeCondition, Verdict
from attls.policy.checks import covers, meet, witness
from attls.policy.match import Question, explain
from attls.policy.rules import Rule

NOW = datetime(2026, 7, 31, 12, 0)
ACTIONS = """
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
  TTLSEnvironmentAdvancedParmsRef both
}
TTLSEnvironmentAdvancedParms both
{
  TLSv1 Off
  TLSv1.1 Off
  TLSv1.2 On
  TLSv1.3 On
}
TTLSRule uses-all
{
  LocalPortRange 9
  Direction Inbound
  Jobname NOBODY
  TTLSGroupActionRef off
  TTLSEnvironmentActionRef server
}
TTLSRule uses-all-too
{
  LocalPortRange 9
  Direction Inbound
  Jobname NOONE
  TTLSGroupActionRef on
  TTLSEnvironmentActionRef server
}
"""


def rule(name: str, *lines: str, on: bool = True, direction: str = "Inbound") -> str:
    group = "on" if on else "off"
    body = "\n".join(
        (*lines, f"Direction {direction}", f"TTLSGroupActionRef {group}", "TTLSEnvironmentActionRef server")
    )
    return f"TTLSRule {name}\n{{\n{body}\n}}\n"


def found(tmp_path: Path, text: str) -> list[Diagnostic]:
    path = tmp_path / "p.policy"
    path.write_text(text, encoding="utf-8")
    return list(policy.load(path, thorough=True, now=NOW).diagnostics)


def codes(findings: list[Diagnostic]) -> list[str]:
    return [finding.code for finding in findings]


def test_a_clean_policy_has_no_findings(tmp_path: Path) -> None:
    """The actions that the tests here share say nothing about themselves."""
    assert [] == found(tmp_path, ACTIONS)


@pytest.mark.parametrize(
    ("upper", "lower"),
    [
        (["LocalPortRange 20-30"], ["LocalPortRange 25"]),
        (["LocalAddr 10.0.0.0/8"], ["LocalAddr 10.1.0.0/16", "LocalPortRange 1"]),
        (["Jobname PAY*"], ["Jobname PAY1*"]),
        (["Jobname PAY*"], ["Jobname PAY?", "Userid X"]),
        (["Userid *ROOT"], ["Userid ROOT"]),
        (["RemoteAddr All"], ["RemotePortRange 1"]),
        (["RemoteAddr ::/0"], ["RemoteAddr 2001:db8::1"]),
    ],
)
def test_a_shadowed_rule_is_named_with_the_one_in_front(tmp_path: Path, upper: list[str], lower: list[str]) -> None:
    """A rule all of whose connections an earlier one takes can never match, and both are named."""
    text = ACTIONS + rule("lower", *lower) + rule("upper", *upper, "Priority 2")
    shadowed = [finding for finding in found(tmp_path, text) if "'lower'" in finding.message]
    assert ["shadowed-rule"] == codes(shadowed)
    assert "'upper'" in shadowed[0].message
    assert "p.policy:" in shadowed[0].message


@pytest.mark.parametrize(
    ("upper", "lower"),
    [
        (["LocalPortRange 20-24"], ["LocalPortRange 24-25"]),
        (["LocalPortRange 1", "Jobname A"], ["LocalPortRange 1"]),
        (["Jobname PAY?"], ["Jobname PAY*"]),
        (["Jobname A?"], ["Jobname A*"]),
        (["RemoteAddr 0.0.0.0/0"], ["RemoteAddr ::/0"]),
        (["LocalPortRange 1", "IpTimeCondition", "{", "TimeOfDayRange 01:00-02:00", "}"], ["LocalPortRange 1"]),
    ],
)
def test_a_rule_that_can_still_match_is_not_called_shadowed(tmp_path: Path, upper: list[str], lower: list[str]) -> None:
    """An earlier rule that leaves some connection, or some hour, to the later one does not shadow it."""
    text = ACTIONS + rule("lower", *lower) + rule("upper", *upper, "Priority 2")
    assert "shadowed-rule" not in codes(found(tmp_path, text))


def test_one_direction_of_two_is_enough_to_match(tmp_path: Path) -> None:
    """A rule for both directions is not shadowed by one for inbound connections."""
    text = ACTIONS + rule("both", "LocalPortRange 1", direction="Both") + rule("in", "LocalPortRange 1", "Priority 2")
    assert "shadowed-rule" not in codes(found(tmp_path, text))


def test_a_rule_that_switches_off_part_of_another_is_named(tmp_path: Path) -> None:
    """TTLSEnabled Off in front of a rule that would protect some of the same connections deserves a look."""
    text = ACTIONS + rule("broad", "LocalPortRange 20-30") + rule("hole", "LocalPortRange 25", "Priority 2", on=False)
    findings = found(tmp_path, text)
    assert ["switched-off"] == codes(findings)
    assert "'hole'" in findings[0].message
    assert "'broad'" in findings[0].message


def test_names_that_nothing_uses(tmp_path: Path) -> None:
    """Each unused statement is named where it stands; one used only by a replaced definition is unused."""
    text = ACTIONS + "PortRange spare\n{\n  Port 1\n}\nIpAddr lonely\n{\n  Addr 10.0.0.1\n}\n"
    assert ["unused-name", "unused-name"] == codes(found(tmp_path, text))


def test_rules_that_are_never_in_force(tmp_path: Path) -> None:
    """Times that no calendar has, and times that are over."""
    never = rule("never", "LocalPortRange 1", "IpTimeCondition", "{", "DayOfWeekMask 0000000", "}")
    over = rule(
        "over", "LocalPortRange 2", "IpTimeCondition", "{", "ConditionTimeRange 20250101000000:20251231235959", "}"
    )
    findings = found(tmp_path, ACTIONS + never + over)
    assert ["never-in-force", "never-in-force"] == codes(findings)
    assert "2025-12-31" in findings[1].message


def client(*advanced: str, ciphers: str = "") -> str:
    lines = "\n".join(advanced)
    return f"""
TTLSRule client
{{
  RemotePortRange 1
  Direction Outbound
  TTLSGroupActionRef on
  TTLSEnvironmentActionRef client
}}
TTLSEnvironmentAction client
{{
  HandshakeRole Client
  TTLSKeyringParms
  {{
    Keyring A/B
  }}
  TTLSEnvironmentAdvancedParms
  {{
    {lines}
  }}
  {ciphers}
}}
"""


ALL_SAID = ("TLSv1 Off", "TLSv1.1 Off", "TLSv1.2 On", "TLSv1.3 On", "HostReferenceIdDNS a.example")


def test_a_client_that_checks_no_name(tmp_path: Path) -> None:
    """Every client rule without a host reference is named."""
    assert [] == codes(found(tmp_path, ACTIONS + client(*ALL_SAID)))
    assert ["no-host-name"] == codes(found(tmp_path, ACTIONS + client(*ALL_SAID[:-1])))


def test_silence_about_protocols(tmp_path: Path) -> None:
    """Where the two profiles would differ the parameters are named with what each would mean."""
    findings = found(tmp_path, ACTIONS + client("TLSv1 Off", "TLSv1.2 On", "HostReferenceIdDNS a.example"))
    assert ["profiles-differ"] == codes(findings)
    assert "TLSv1.1 Off, TLSv1.3 On" in findings[0].message
    assert "TLSv1.1 On, TLSv1.3 Off" in findings[0].message


def ciphers(*names: str) -> str:
    return "TTLSCipherParms\n{\n" + "".join(f"V3CipherSuites4Char {name}\n" for name in names) + "}\n"


@pytest.mark.parametrize(
    ("protocols", "listed", "words"),
    [
        (("TLSv1.2 Off", "TLSv1.3 Off"), (), "no handshake can succeed"),
        (("TLSv1.2 Off", "TLSv1.3 On"), ("C02F",), "nothing can be agreed on"),
        (("TLSv1.2 On", "TLSv1.3 Off"), ("1301",), "nothing can be agreed on"),
        (("TLSv1.2 On", "TLSv1.3 On"), ("C02F",), "never used"),
        (("TLSv1.2 On", "TLSv1.3 On"), ("1302",), "never used"),
    ],
)
def test_protocols_and_ciphers_that_cannot_meet(
    tmp_path: Path, protocols: tuple[str, ...], listed: tuple[str, ...], words: str
) -> None:
    """A list without ciphers for the protocols that are on ends in no handshake; the warning says which."""
    advanced = ("TLSv1 Off", "TLSv1.1 Off", *protocols, "HostReferenceIdDNS a.example")
    findings = found(tmp_path, ACTIONS + client(*advanced, ciphers=ciphers(*listed) if listed else ""))
    assert ["cannot-meet"] == codes(findings)
    assert words in findings[0].message


def test_parameters_without_their_companion(tmp_path: Path) -> None:
    """A name extension without a name does nothing; a host reference in the server role neither."""
    assert ["missing-companion"] == codes(found(tmp_path, ACTIONS + client(*ALL_SAID, "ClientHandshakeSNI Optional")))
    text = ACTIONS.replace("TLSv1 Off", "TLSv1 Off\n  HostReferenceIdCN x")
    assert ["no-effect"] == codes(found(tmp_path, text))


def test_values_that_cannot_be_honoured(tmp_path: Path) -> None:
    """What this system lacks is a warning where nothing gets weaker by it."""
    text = ACTIONS.replace("TLSv1 Off", "TLSv1 Off\n  SSLv2 On\n  TruncatedHMAC Required")
    assert ["not-supported", "not-supported"] == codes(found(tmp_path, text))


def test_rules_that_catch_revocation_traffic(tmp_path: Path) -> None:
    """A rule that puts TLS on connections to the OCSP responder breaks those who ask it in the clear."""
    revocation = "TTLSGskAdvancedParms\n{\nTTLSGskOcspParms\n{\nOcspUrl http://192.0.2.1:8080/\n}\n}\n"
    text = (
        ACTIONS
        + client(*ALL_SAID, ciphers=revocation)
        + rule("catches", "RemoteAddr 192.0.2.0/24", "Priority 3", direction="Outbound")
    )
    findings = found(tmp_path, text)
    assert ["revocation-traffic"] == codes(findings)
    assert "http://192.0.2.1:8080/" in findings[0].message


# The law behind shadowing: what `covers` claims, no connection can contradict.

ports = st.lists(
    st.tuples(st.integers(1, 12), st.integers(0, 4)).map(lambda pair: PortRange(pair[0], pair[0] + pair[1])), max_size=1
).map(tuple)
ranges = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 4)).map(lambda pair: AddressRange(4, pair[0], pair[0] + pair[1])),
    max_size=1,
).map(tuple)
patterns = st.one_of(st.none(), st.text("AB*?", min_size=1, max_size=4))
some_conditions = st.builds(
    Conditions,
    directions=st.sampled_from([frozenset({Direction.INBOUND}), frozenset(Direction)]),
    local_ports=ports,
    remote_addresses=ranges,
    job=patterns,
)


def fits(conditions: Conditions, question: Question, owner: Owner) -> bool:
    return next(explain([Rule("r", 1, conditions, Verdict("r"))], question, owner, NOW)).matched


@settings(max_examples=300, deadline=None)
@given(
    some_conditions,
    some_conditions,
    st.sampled_from(list(Direction)),
    st.integers(1, 16),
    st.integers(0, 16),
    st.one_of(st.none(), st.text("ABC", max_size=5)),
)
def test_covering_is_never_contradicted(
    wider: Conditions, narrower: Conditions, direction: Direction, port: int, address: int, job: str | None
) -> None:
    """If one set of conditions covers another, whatever fits the second fits the first; and the two meet."""
    question = Question(direction, None, port, ip_address(address), None)
    owner = Owner(job=job)
    both = fits(wider, question, owner) and fits(narrower, question, owner)
    if covers(wider, narrower) and fits(narrower, question, owner):
        assert both
    if both:
        assert meet(wider, narrower)


@given(some_conditions, some_conditions)
def test_a_covering_rule_fits_the_witness(wider: Conditions, narrower: Conditions) -> None:
    """The witness of a rule fits it and every rule that covers it, so no shadow is missed."""
    for direction in narrower.directions:
        question, owner = witness(narrower, direction)
        assert fits(narrower, question, owner)
        if covers(wider, narrower):
            assert fits(wider, question, owner)


def test_times_decide_covering() -> None:
    """A rule that is in force only sometimes covers nothing but a rule of the same times."""
    night = (TimeCondition(daily=((0, 60),)),)
    always = Conditions(frozenset(Direction))
    sometimes = Conditions(frozenset(Direction), times=night)
    assert covers(always, sometimes)
    assert covers(sometimes, sometimes)
    assert not covers(sometimes, always)
