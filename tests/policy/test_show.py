"""The report of a policy: labels and order of `pasearch -t`, and the same facts as JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from attls import policy
from attls.model import Defaults
from attls.policy import show

POLICY = """
TTLSRule telnet
{
  LocalAddr 10.0.0.0/8
  LocalPortRange 992
  RemotePortGroupRef high
  Jobname TN*
  Direction Inbound
  Priority 255
  TTLSGroupActionRef group
  TTLSEnvironmentActionRef environment
  TTLSConnectionActionRef connection
  IpTimeCondition
  {
    ConditionTimeRange 20260101000000:20261231235959
    TimeOfDayRange 06:00-20:00
  }
}
PortGroup high
{
  PortRange
  {
    Port 5000
  }
  PortRange
  {
    Port 6000-6009
  }
}
TTLSGroupAction group
{
  TTLSEnabled On
  Trace 255
}
TTLSEnvironmentAction environment
{
  HandshakeRole ServerWithClientAuth
  EnvironmentUserInstance 4
  TTLSKeyringParms
  {
    Keyring START1/TN3270
    KeyringPw hunter2
  }
  TTLSEnvironmentAdvancedParms
  {
    TLSv1.2 On
    HandshakeTimeout 3
  }
}
TTLSConnectionAction connection
{
  TTLSConnectionAdvancedParms
  {
    HandshakeTimeout 5
    ServerCertificateLabel "NIST ECC"
  }
  TTLSCipherParms
  {
    V3CipherSuites TLS_RSA_WITH_AES_256_CBC_SHA256
  }
  TTLSSignatureParms
  {
    ClientECurves Any
  }
}
"""

CHANGED = datetime(2024, 12, 23, 4, 52, 19, tzinfo=UTC)
EXPECTED_HEADING = """\
TCP/IP pasearch attls 1.0                 Image Name: TCPIP
  Date:                 12/24/2024        Time:              18:00:00
  TTLS Instance Id:     1734929539"""

EXPECTED_RULE = """\
policyRule:             telnet
  Rule Type:            TTLS
  Version:              3                 Status:            Active
  Weight:               255               ForLoadDist:       False
  Priority:             255               Sequence Actions:  Don't Care
  No. Policy Action:    3
  policyAction:         group
   ActionType:          TTLS Group
   Action Sequence:     0
  policyAction:         environment
   ActionType:          TTLS Environment
   Action Sequence:     0
  policyAction:         connection
   ActionType:          TTLS Connection
   Action Sequence:     0
  Time Periods:
   Day of Month Mask:
   First to Last:       1111111111111111111111111111111
   Last to First:       1111111111111111111111111111111
   Month of Yr Mask:    111111111111
   Day of Week Mask:    1111111  (Sunday - Saturday)
   Start Date Time:     2026-01-01 00:00:00
   End Date Time:       2026-12-31 23:59:59
   Fr TimeOfDay:        06:00             To TimeOfDay:      20:00
   Fr TimeOfDay UTC:    08:30             To TimeOfDay UTC:  22:30
   TimeZone:            Local
  TTLS Condition Summary:                 NegativeIndicator: Off
   Local Address:
    FromAddr:           10.0.0.0
    ToAddr:             10.255.255.255
   Remote Address:
    FromAddr:           All
    ToAddr:             All
   LocalPortFrom:       992               LocalPortTo:       992
   RemotePortFrom:      5000              RemotePortTo:      6009
     Port:              5000
     Port:              6000-6009
   JobName:             TN*               UserId:
   ServiceDirection:    Inbound
  Policy created: Mon Dec 23 04:52:19 2024
  Policy updated: Mon Dec 23 04:52:19 2024

  TTLS Action:                  group
    Version:                    3
    Status:                     Active
    Scope:                      Group
    TTLSEnabled:                On
    CtraceClearText:            Off
    Trace:                      255
    FIPS140:                    Off
    TTLSGroupAdvancedParms:
     SecondaryMap:              Off
     SyslogFacility:            Daemon
    Policy created: Mon Dec 23 04:52:19 2024
    Policy updated: Mon Dec 23 04:52:19 2024

  TTLS Action:                  environment
    Version:                    3
    Status:                     Active
    Scope:                      Environment
    HandshakeRole:              ServerWithClientAuth
    Trace:                      255
    SuiteBProfile:              Off
    TTLSKeyringParms:
     Keyring:                   START1/TN3270
     KeyringPw:                 ********
    TTLSEnvironmentAdvancedParms:
     SSLv2:                     Off
     SSLv3:                     Off
     TLSv1:                     On
     TLSv1.1:                   On
     TLSv1.2:                   On
     TLSv1.3:                   Off
     MiddleBoxCompatMode:       Off
     ApplicationControlled:     Off
     HandshakeTimeout:          3
     ClientAuthType:            Required
     ResetCipherTimer:          0
     TruncatedHMAC:             Off
     CertValidationMode:        Any
"""

EXPECTED_CONNECTION = """\
  TTLS Action:                  connection
    Version:                    3
    Status:                     Active
    Scope:                      Connection
    CtraceClearText:            Off
    Trace:                      255
    TTLSConnectionAdvancedParms:
     HandshakeTimeout:          5
     ServerCertificateLabel:    NIST ECC
    TTLSSignatureParms:
     ClientECurves:             Any
    TTLSCipherParms:
     v3CipherSuites:
      003D  TLS_RSA_WITH_AES_256_CBC_SHA256
    Policy created: Mon Dec 23 04:52:19 2024
    Policy updated: Mon Dec 23 04:52:19 2024"""


def report(tmp_path: Path) -> str:
    path = tmp_path / "p.policy"
    path.write_text(POLICY)
    loaded = policy.load(path, Defaults.ZOS)
    actions = [
        loaded.actions[kind, name]
        for kind, name in (
            ("TTLSGroupAction", "group"),
            ("TTLSEnvironmentAction", "environment"),
            ("TTLSConnectionAction", "connection"),
        )
    ]
    behind = timedelta(hours=-2, minutes=-30)
    return "\n".join(show.rule_lines(loaded.rules[0], actions, Defaults.ZOS, changed=CHANGED, utc_offset=behind))


def test_a_report_says_which_policy_it_is_about() -> None:
    """The heading names the stack, the moment, and the policy by when it was last changed."""
    assert EXPECTED_HEADING == "\n".join(
        show.heading_lines("attls 1.0", "TCPIP", CHANGED, datetime(2024, 12, 24, 18, 0, tzinfo=UTC))
    )


def test_a_rule_is_reported_the_way_pasearch_does(tmp_path: Path) -> None:
    """Labels, order and columns are those of the original; environments show every default."""
    assert report(tmp_path).startswith(EXPECTED_RULE)


def test_a_connection_action_shows_only_what_it_codes(tmp_path: Path) -> None:
    """What it does not say is not repeated; trace masks are shown as inherited."""
    assert report(tmp_path).endswith(EXPECTED_CONNECTION)


def test_codes_are_shown_with_their_names(tmp_path: Path) -> None:
    """Curves and signature pairs are lists of code and name, tickets stand in their own column."""
    text = report(tmp_path)
    assert "     ClientECurves:\n      0021  secp224r1\n      0023  secp256r1\n" in text
    assert "     SignaturePairs:\n      0601  TLS_SIGALG_SHA512_WITH_RSA\n" in text
    assert "     GSK_V3_SESSION_TIMEOUT:                    86400\n" in text
    assert "      OcspRequestSigalg:\n       0401  TLS_SIGALG_SHA256_WITH_RSA\n" in text
    assert "    EnvironmentUserInstance:    4\n" in text


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    """Neither the report nor JSON nor the settings' representation give a password away."""
    path = tmp_path / "p.policy"
    path.write_text(POLICY)
    loaded = policy.load(path)
    assert "hunter2" not in report(tmp_path)
    assert "********" == show.as_json(loaded.effective(loaded.rules[0].verdict))["KeyringPw"]
    assert "hunter2" not in repr(loaded.rules[0].verdict)
