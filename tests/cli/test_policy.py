"""`attls policy …`: what is printed, as what, and with which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from attls import policy
from attls.cli import main
from attls.cli.policy_rings import ring_findings
from attls.keyring import Store

GOOD = """
TTLSRule web
{
  LocalPortRange 443
  LocalAddr 192.0.2.1
  Userid www*
  Direction Inbound
  Priority 7
  TTLSGroupActionRef on
  TTLSEnvironmentActionRef server
}
TTLSRule late
{
  RemotePortRange 6379
  Direction Outbound
  IpTimeCondition
  {
    TimeOfDayRange 20:00-24:00
  }
  TTLSGroupActionRef off
}
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
    Keyring WEB/RING
  }
  TTLSEnvironmentAdvancedParms
  {
    TLSv1 Off
    TLSv1.1 Off
    TLSv1.2 On
    TLSv1.3 On
  }
}
"""
BAD = GOOD.replace("HandshakeRole Server", "HandshakeRole Sever")

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    def invoke(*words: object) -> Result:
        return CliRunner().invoke(main, ["policy", *(str(word) for word in words)])

    return invoke


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.policy"
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.policy"
    path.write_text(BAD)
    return path


def test_check_says_yes(run: Run, good: Path) -> None:
    """A policy without errors ends with exit code 0 and a count."""
    result = run("check", good)
    assert 0 == result.exit_code
    assert "2 rules, 0 errors, 0 warnings\n" == result.stdout


def test_check_says_no(run: Run, bad: Path) -> None:
    """An error is shown with place, source line, caret and suggestion, and ends with exit code 1."""
    result = run("check", bad)
    assert 1 == result.exit_code
    assert f"{bad}:32:17: error: HandshakeRole 'Sever' is not Client, Server or ServerWithClientAuth\n" in result.stdout
    assert "^^^^^ did you mean 'Server'?" in result.stdout


def test_check_as_json(run: Run, good: Path, bad: Path) -> None:
    """One document for all paths, with exactly the keys that editors count on."""
    result = run("check", good, bad, "--json")
    document = json.loads(result.stdout)
    assert {"ok", "rules", "diagnostics"} == set(document)
    assert (False, 2, 1) == (document["ok"], document["rules"], len(document["diagnostics"]))
    assert {
        "severity": "error",
        "file": str(bad),
        "line": 32,
        "column": 17,
        "code": "bad-choice",
        "message": "HandshakeRole 'Sever' is not Client, Server or ServerWithClientAuth",
        "hint": "did you mean 'Server'?",
    } == document["diagnostics"][0]
    assert 1 == result.exit_code
    assert json.loads(run("check", good, "--json").stdout)["ok"] is True


def test_check_of_nothing(run: Run, tmp_path: Path) -> None:
    """A path that cannot be read is no faulty policy: exit code 3; no path at all is wrong usage: 2."""
    assert 3 == run("check", tmp_path / "nothing").exit_code
    assert 3 == run("show", tmp_path / "nothing").exit_code
    assert 2 == run("check").exit_code


def test_check_with_defaults(run: Run, tmp_path: Path) -> None:
    """Only the two profiles exist."""
    assert 2 == run("check", "x", "--defaults", "old").exit_code


def test_check_maps_data_sets(run: Run, tmp_path: Path, good: Path) -> None:
    """An MVS data set is an error unless a file stands for it."""
    main_file = tmp_path / "pagent.conf"
    main_file.write_text("TTLSConfig //'SYS1.PAGENT(TTLS)'\n")
    assert 1 == run("check", main_file).exit_code
    assert 0 == run("check", main_file, "--dataset", f"SYS1.PAGENT(TTLS)={good}").exit_code
    assert 2 == run("check", main_file, "--dataset", "nonsense").exit_code


ECDSA_RING = (
    "cert create-ca --label CA --cn CA",
    "cert issue --owner WEB --label W --cn web --sign-with CA --days 90 --key-type ecdsa-p256",
    "keyring create WEB/RING",
    "keyring connect WEB/RING --owner WEB --label W --default",
)


def keep(rings: Path, words: str) -> None:
    """Run a command on the store `rings`."""
    done = CliRunner().invoke(main, [*words.split(), "--keyrings", str(rings)])
    assert 0 == done.exit_code, done.output


def test_check_looks_for_rings(run: Run, tmp_path: Path, good: Path) -> None:
    """With --keyrings a ring or label that is not there is an error; with everything in place there is none."""
    rings = tmp_path / "rings"
    result = run("check", good, "--keyrings", rings)
    assert 1 == result.exit_code
    assert "missing-ring" in run("check", good, "--keyrings", rings, "--json").stdout

    keep(rings, "cert create-ca --label CA --cn CA")
    keep(rings, "cert issue --owner WEB --label SOON --cn web --sign-with CA --days 5")
    keep(rings, "keyring create WEB/RING")
    assert "missing-label" in run("check", good, "--keyrings", rings, "--json").stdout
    keep(rings, "keyring connect WEB/RING --owner WEB --label SOON --default")
    result = run("check", good, "--keyrings", rings, "--json")
    assert 0 == result.exit_code
    assert ["expires-soon"] == [finding["code"] for finding in json.loads(result.stdout)["diagnostics"]]


def test_check_sees_every_certificate_that_ends_soon(run: Run, tmp_path: Path, good: Path) -> None:
    """Not only a server's own: the authorities that peers are verified against, and a client's default certificate."""
    rings = tmp_path / "rings"
    for words in (
        "cert create-ca --label CA --cn CA --days 20",
        "cert issue --owner WEB --label MINE --cn web --sign-with CA --days 10",
        "keyring create WEB/RING",
        "keyring connect WEB/RING --owner WEB --label MINE --default",
        "keyring connect WEB/RING --owner CERTAUTH --label CA",
    ):
        keep(rings, words)
    good.write_text(good.read_text().replace("HandshakeRole Server", "HandshakeRole Client"))
    found = json.loads(run("check", good, "--keyrings", rings, "--json").stdout)["diagnostics"]
    ends = [finding["message"] for finding in found if finding["code"] == "expires-soon"]
    assert 2 == len(ends)
    assert "authority 'CA' of CERTAUTH expires on" in ends[0]
    assert "certificate 'MINE' of WEB expires on" in ends[1]


def test_check_looks_for_rings_of_each_user(run: Run, tmp_path: Path, good: Path) -> None:
    """Of a ring that every user has one of, at least somebody must have one; those that are there are looked at."""
    rings = tmp_path / "rings"
    good.write_text(good.read_text().replace("Keyring WEB/RING", "Keyring RING"))
    assert "no user has a ring of the name 'RING'" in run("check", good, "--keyrings", rings).stdout
    keep(rings, "keyring create SUE/RING")
    result = run("check", good, "--keyrings", rings)
    assert "ring SUE/RING has no default certificate" in result.stdout
    assert 1 == result.exit_code


def test_check_sees_that_a_key_fits_no_cipher(run: Run, tmp_path: Path, good: Path) -> None:
    """An ECDSA key with nothing but RSA suites agrees with nobody; one suite for it, or TLS 1.3, is enough."""
    rings = tmp_path / "rings"
    for words in ECDSA_RING:
        keep(rings, words)
    text = good.read_text()
    for ciphers, expected in (("C030009D", ["cannot-meet"]), ("C030C02C", []), ("C0301301", [])):
        parms = f"  TTLSCipherParms\n  {{\n    V3CipherSuites4Char {ciphers}\n  }}\n"
        good.write_text(text.replace("  HandshakeRole Server\n", f"  HandshakeRole Server\n{parms}"))
        found = json.loads(run("check", good, "--keyrings", rings, "--json").stdout)["diagnostics"]
        fits = [finding["code"] for finding in found if "works with the key" in finding["message"]]
        assert (ciphers, expected) == (ciphers, fits)


def test_check_looks_at_what_revocation_needs(run: Run, tmp_path: Path, good: Path) -> None:
    """A key that cannot sign as told, nothing to staple, and a list that ended: an error where it refuses clients."""
    rings = tmp_path / "rings"
    lists = (f"cert crl --label CA --days 1 --out {tmp_path}/ca.crl", f"cert import-crl {tmp_path}/ca.crl")
    for words in (*ECDSA_RING, *lists):
        keep(rings, words)
    ocsp = "TTLSGskOcspParms\n{\nOcspServerStapling EndEntity\nOcspRequestSigkeylabel W\nOcspRequestSigalg PAIR\n}\n"
    block = f"  TTLSGskAdvancedParms\n{{\nRevocationSecurityLevel LEVEL\n{ocsp}}}\n"
    text = good.read_text().replace("  HandshakeRole Server\n", f"  HandshakeRole ServerWithClientAuth\n{block}")
    store, now = Store(rings), datetime.now(UTC)

    def found(level: str, pair: str, days: float) -> dict[str, str]:
        good.write_text(text.replace("LEVEL", level).replace("PAIR", pair))
        findings = ring_findings(policy.load(good), store, now + timedelta(days=days))
        return {finding.code: finding.severity for finding in findings}

    assert {"no-authority": "warning", "nothing-to-staple": "warning"} == found("Medium", "0403", 0)
    assert "error" == found("Medium", "0401", 0)["cannot-sign"]
    keep(rings, "keyring connect WEB/RING --owner CERTAUTH --label CA")
    assert {} == found("Medium", "0403", 0)
    assert {"useless-list": "error"} == found("Medium", "0403", 2)
    assert {"useless-list": "warning"} == found("Low", "0403", 2)


def test_show_everything_and_one_thing(run: Run, good: Path) -> None:
    """Rules are reported in search order; a name picks a rule or an action; a wrong one is answered with no."""
    everything = run("show", good).stdout
    assert everything.index("policyRule:             web") < everything.index("policyRule:             late")
    assert "policyRule:             late" not in run("show", good, "web").stdout
    assert "\n\n  TTLS Action:                  server\n" in run("show", good, "server").stdout
    wrong = run("show", good, "nothing")
    assert 1 == wrong.exit_code
    assert "no rule and no action named 'nothing'" in wrong.stderr


def test_show_as_json(run: Run, good: Path) -> None:
    """The same facts for scripts."""
    document = json.loads(run("show", good, "web", "--json").stdout)
    (rule,) = document["rules"]
    assert ("web", 7, "on") == (rule["rule"], rule["priority"], rule["tls"])
    assert ["443"] == rule["conditions"]["LocalPortRange"]
    assert "WEB/RING" == rule["effective"]["Keyring"]
    assert [] == document["actions"]


def explain(run: Run, path: Path, *words: str) -> tuple[int, dict[str, object]]:
    result = run("explain", path, "--json", *words)
    return result.exit_code, json.loads(result.stdout)


def test_explain_a_connection_that_a_rule_fits(run: Run, good: Path) -> None:
    """The rule, what it says, every rule looked at, and all effective parameters."""
    code, document = explain(
        run, good, "--direction", "inbound", "--local", "192.0.2.1:443", "--remote", "[2001:db8::1]:5", "--user", "WWW1"
    )
    assert 0 == code
    assert {"matched", "tls", "trace", "effective"} == set(document)
    assert ("web", "on") == (document["matched"], document["tls"])
    trace = document["trace"]
    assert isinstance(trace, list)
    assert [{"rule", "priority", "matched", "reason"}] == [set(step) for step in trace]
    effective = document["effective"]
    assert isinstance(effective, dict)
    assert ("Server", "WEB/RING", "On") == (effective["HandshakeRole"], effective["Keyring"], effective["TLSv1.3"])


def test_explain_a_connection_that_no_rule_fits(run: Run, good: Path) -> None:
    """Exit code 1, and each rule with its reason."""
    code, document = explain(run, good, "--direction", "outbound", "--remote", "10.0.0.1:80")
    assert (1, None, "no-rule", {}) == (code, document["matched"], document["tls"], document["effective"])
    trace = document["trace"]
    assert isinstance(trace, list)
    assert ["Direction Inbound: the connection is outbound", "RemotePortRange 6379: the remote port is 80"] == [
        step["reason"] for step in trace
    ]


def test_explain_does_not_guess(run: Run, good: Path) -> None:
    """A condition about something that was not given does not hold, and the reason says so."""
    _, document = explain(run, good, "--direction", "inbound", "--local", ":443")
    trace = document["trace"]
    assert isinstance(trace, list)
    assert "LocalAddr 192.0.2.1: the local address is not known" == trace[0]["reason"]
    _, document = explain(run, good, "--direction", "inbound", "--local", "192.0.2.1:443")
    trace = document["trace"]
    assert isinstance(trace, list)
    assert "Userid WWW*: the user is not known" == trace[0]["reason"]
    words = run("explain", good, "--direction", "inbound", "--local", "192.0.2.1:443").stdout.splitlines()[-1]
    assert words.startswith("no rule fits what is known: the connection stays in the clear, unless")
    words = run("explain", good, "--direction", "inbound", "--local", "192.0.2.1:1").stdout.splitlines()[-1]
    assert "no rule fits: the connection stays in the clear" == words


def test_explain_at_another_time(run: Run, good: Path) -> None:
    """A rule is in force at some hours only; a rule that says Off is a match."""
    flow = ("--direction", "outbound", "--remote", "10.0.0.1:6379")
    assert ("late", "off") == tuple(
        explain(run, good, *flow, "--at", "2026-07-31T21:00")[1][key] for key in ("matched", "tls")
    )
    code, document = explain(run, good, *flow, "--at", "2026-07-31T12:00")
    assert (1, None) == (code, document["matched"])
    assert 2 == run("explain", good, *flow, "--at", "noon").exit_code


def test_explain_for_people(run: Run, good: Path) -> None:
    """One line a rule, and a last line with the outcome."""
    result = run("explain", good, "--direction", "inbound", "--local", "192.0.2.1:443", "--user", "www")
    assert "rule web  priority 7     yes" in result.stdout
    assert result.stdout.endswith("TLS as Server with key ring WEB/RING, TLSv1.2, TLSv1.3\n")


@pytest.mark.parametrize("place", ["x:1", "10.0.0.1:0", "10.0.0.1:99999", "[::1", "[::1]1", "1.2.3:4"])
def test_explain_refuses_wrong_places(run: Run, good: Path, place: str) -> None:
    """An address or port that is none is wrong usage."""
    assert 2 == run("explain", good, "--direction", "inbound", "--local", place).exit_code


def test_explain_needs_a_direction(run: Run, good: Path) -> None:
    """Without it the question has no answer."""
    assert 2 == run("explain", good).exit_code


def test_commands_about_a_faulty_policy(run: Run, good: Path, bad: Path) -> None:
    """Diagnostics go to standard error, the exit code is 1, and nothing else is printed."""
    for words in (("show", bad), ("explain", bad, "--direction", "inbound"), ("diff", good, bad)):
        result = run(*words)
        assert (1, "") == (result.exit_code, result.stdout)
        assert "HandshakeRole 'Sever'" in result.stderr


def test_diff(run: Run, good: Path, tmp_path: Path) -> None:
    """Changes in words and as JSON; the exit code says "no" only where that was asked for."""
    new = tmp_path / "new.policy"
    new.write_text(GOOD.replace("TLSv1.2 On", "TLSv1.2 Off"))
    result = run("diff", good, new)
    assert 0 == result.exit_code
    assert "inbound connections of user WWW* on local address 192.0.2.1 local port 443:" in result.stdout
    assert "TLSv1.2: On → Off" in result.stdout
    assert 1 == run("diff", good, new, "--exit-code").exit_code
    document = json.loads(run("diff", good, new, "--json").stdout)
    assert (True, {"TLSv1.2": ["On", "Off"]}) == (document["changed"], document["changes"][0]["parameters"])
    assert "no connection changes\n" == run("diff", good, good, "--exit-code").stdout


def test_convert(run: Run, tmp_path: Path) -> None:
    """The policy goes to standard output or a file, remarks to standard error; the result passes `check`."""
    source = tmp_path / "stunnel.conf"
    source.write_text("[web]\naccept = 443\nconnect = 80\ncert = web.pem\nciphers = HIGH\n")
    result = run("convert", source)
    assert 0 == result.exit_code
    assert "TTLSRule                          web\n" in result.stdout
    assert "'HIGH' is not the name of one cipher suite" in result.stderr
    out = tmp_path / "web.policy"
    assert "" == run("convert", source, "--out", out).stdout
    assert 0 == run("check", out).exit_code
    assert 3 == run("convert", tmp_path / "nothing").exit_code
    assert 3 == run("convert", source, "--out", tmp_path / "no" / "where").exit_code
