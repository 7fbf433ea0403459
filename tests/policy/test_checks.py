"""What `check` says about policies that are correct but hardly meant."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from attls import policy
from attls.errors import Diagnostic
from attls.policy import shadows

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
    lower_ones = [finding for finding in found(tmp_path, text) if finding.message.startswith("TTLSRule 'lower'")]
    assert "shadowed-rule" not in codes(lower_ones)


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


def test_rules_that_shadow_another_together_are_all_named(tmp_path: Path) -> None:
    """Where no single rule takes all connections but several do, each of them is named with its place."""
    text = (
        ACTIONS
        + rule("whole", "LocalPortRange 20-30")
        + rule("low", "LocalPortRange 1-25", "Priority 3")
        + rule("high", "LocalPortRange 26-99", "Priority 2")
    )
    findings = [finding for finding in found(tmp_path, text) if finding.message.startswith("TTLSRule 'whole'")]
    assert ["TTLSRule 'whole' can never match: "] == [finding.message[:34] for finding in findings]
    assert all(f"'{name}' (" in findings[0].message for name in ("low", "high"))


def test_a_rule_of_two_ip_versions_can_never_match(tmp_path: Path) -> None:
    """No connection has an IPv4 address at one end and an IPv6 address at the other."""
    text = ACTIONS + rule("mixed", "LocalAddr 192.0.2.1", "RemoteAddr 2001:db8::1")
    assert ["never-matches"] == codes(found(tmp_path, text))


@pytest.mark.parametrize(
    ("protocols", "listed", "words"),
    [
        (("TLSv1.2 Off", "TLSv1.3 Off"), (), "no handshake can succeed"),
        (("TLSv1.2 Off", "TLSv1.3 On"), ("C02F",), "nothing can be agreed on"),
        (("TLSv1.2 On", "TLSv1.3 Off"), ("1301",), "nothing can be agreed on"),
        (("TLSv1.2 Off", "TLSv1.3 Off", "TLSv1 On"), ("C02F", "009C"), "nothing can be agreed on"),
        (("TLSv1.2 On", "TLSv1.3 On"), ("C02F",), "never used"),
        (("TLSv1.2 On", "TLSv1.3 On"), ("1302",), "never used"),
    ],
)
def test_protocols_and_ciphers_that_cannot_meet(
    tmp_path: Path, protocols: tuple[str, ...], listed: tuple[str, ...], words: str
) -> None:
    """A list without ciphers for the protocols that are on ends in no handshake; the warning says which."""
    silent = [] if "TLSv1 On" in protocols else ["TLSv1 Off"]
    advanced = (*silent, "TLSv1.1 Off", *protocols, "HostReferenceIdDNS a.example")
    findings = found(tmp_path, ACTIONS + client(*advanced, ciphers=ciphers(*listed) if listed else ""))
    assert ["cannot-meet"] == codes(findings)
    assert words in findings[0].message


@pytest.mark.parametrize(("middle", "expected"), [("Off", ["no-effect"]), ("On", [])])
def test_protocols_that_a_client_never_offers(tmp_path: Path, middle: str, expected: list[str]) -> None:
    """With TLS 1.0 and 1.2 on and 1.1 off a client offers the newer part alone, and check says so."""
    switches = ("TLSv1 On", f"TLSv1.1 {middle}", "TLSv1.2 On", "TLSv1.3 On", "HostReferenceIdDNS a.example")
    findings = found(tmp_path, ACTIONS + client(*switches))
    assert expected == codes(findings)
    assert all("never uses TLSv1, because" in finding.message for finding in findings)


def test_ciphers_that_nobody_here_has(tmp_path: Path) -> None:
    """A list of nothing but suites that are left out is no list at all."""
    advanced = ("TLSv1 Off", "TLSv1.1 Off", "TLSv1.2 On", "TLSv1.3 Off", "HostReferenceIdDNS a.example")
    findings = found(tmp_path, ACTIONS + client(*advanced, ciphers=ciphers("0005", "000A")))
    assert ["cannot-meet", "not-supported"] == sorted(codes(findings))


@pytest.mark.parametrize(
    ("pairs", "switch", "words"),
    [
        ("04010501", "On", "nobody can use it"),
        ("04010403", "On", "with an RSA certificate nobody can use it"),
        ("04010804", "On", None),
        ("04010501", "Off", None),
    ],
)
def test_signature_pairs_that_tls_1_3_cannot_use(tmp_path: Path, pairs: str, switch: str, words: str | None) -> None:
    """RSA keys sign TLS 1.3 handshakes by PSS alone; ends that agree on it do not fall back for want of a pair."""
    said = ("TLSv1 Off", "TLSv1.1 Off", "TLSv1.2 On", f"TLSv1.3 {switch}", "HostReferenceIdDNS a.example")
    text = ACTIONS + client(*said, ciphers=f"  TTLSSignatureParms\n  {{\n    SignaturePairs {pairs}\n  }}\n")
    findings = found(tmp_path, text)
    assert ([] if words is None else ["cannot-meet"]) == codes(findings)
    assert words is None or words in findings[0].message


def test_what_there_was_no_time_for_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy too large to compare all its rules is not called free of shadows."""
    text = ACTIONS + "".join(rule(f"r{number}", f"LocalPortRange {number}") for number in range(1, 6))
    assert "not-looked-at" not in codes(found(tmp_path, text))
    monkeypatch.setattr(shadows, "_MOST_LOOKS", 3)
    (finding,) = (each for each in found(tmp_path, text) if each.code == "not-looked-at")
    assert "too many rules to compare all" in finding.message


def test_parameters_without_their_companion(tmp_path: Path) -> None:
    """A name extension without a name does nothing; a host reference in the server role neither."""
    assert ["missing-companion"] == codes(found(tmp_path, ACTIONS + client(*ALL_SAID, "ClientHandshakeSNI Optional")))
    text = ACTIONS.replace("TLSv1 Off", "TLSv1 Off\n  HostReferenceIdCN x")
    assert ["no-effect"] == codes(found(tmp_path, text))


def test_values_that_cannot_be_honoured(tmp_path: Path) -> None:
    """What this system lacks is a warning where nothing gets weaker by it."""
    text = ACTIONS.replace("TLSv1 Off", "TLSv1 Off\n  SSLv2 On\n  TruncatedHMAC Required")
    assert ["not-supported", "not-supported"] == codes(found(tmp_path, text))


def test_no_session_is_resumed_where_certificates_are_asked_about(tmp_path: Path) -> None:
    """Parameters of sessions are without effect there, which is said; a server that asks for none resumes as ever."""
    block = "TTLSGskAdvancedParms\n{\nGSK_V3_SESSION_TIMEOUT 60\nTTLSGskHttpCdpParms\n{\nHttpCdpEnable On\n}\n}\n"
    findings = found(tmp_path, ACTIONS + client(*ALL_SAID, ciphers=block))
    assert ["no-effect"] == codes(findings)
    assert "GSK_V3_SESSION_TIMEOUT" in findings[0].message
    server = ACTIONS.replace("TTLSEnvironmentAdvancedParmsRef both", f"TTLSEnvironmentAdvancedParmsRef both\n{block}")
    assert [] == codes(found(tmp_path, server))


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


def test_rules_that_catch_traffic_to_a_proxy(tmp_path: Path) -> None:
    """Through a proxy, it is the connection to the proxy that must stay clear; whether today or on another day."""
    proxy = "OcspProxyServerName 192.0.2.9\nOcspProxyServerPort 3128\n"
    revocation = f"TTLSGskAdvancedParms\n{{\nTTLSGskOcspParms\n{{\nOcspUrl http://192.0.2.1/\n{proxy}}}\n}}\n"
    sunday = "IpTimeCondition\n{\nDayOfWeekMask 1000000\n}\n"
    text = (
        ACTIONS
        + client(*ALL_SAID, ciphers=revocation)
        + rule("past", "RemoteAddr 192.0.2.1", "Priority 3", direction="Outbound")
        + rule("catches", "RemotePortRange 3128", "Priority 3", sunday, direction="Outbound")
    )
    findings = found(tmp_path, text)
    assert ["revocation-traffic"] == codes(findings)
    assert "'catches' would put TLS on connections to the proxy 192.0.2.9 port 3128" in findings[0].message
