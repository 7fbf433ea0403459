"""What this system cannot honour is said where it is coded, refused where it would weaken security, and never else."""

from __future__ import annotations

from pathlib import Path

import pytest

from attls import policy
from attls.errors import Diagnostic, PolicyError
from attls.model import Defaults
from attls.policy import codes, envfile
from attls.tls.ciphers import NAMES

PLAIN = """
TTLSGroupAction on
{
  TTLSEnabled On
}
TTLSRule one
{
  LocalPortRange 9
  Direction Both
  TTLSGroupActionRef on
  TTLSEnvironmentActionRef it
}
TTLSEnvironmentAction it
{
  HandshakeRole ROLE
  TTLSKeyringParms
  {
    Keyring A/B
  }
  BLOCK
  {
    LINES
  }
}
"""
SIGNATURE, CIPHER, GSK, MORE = (
    "TTLSSignatureParms",
    "TTLSCipherParms",
    "TTLSGskAdvancedParms",
    "TTLSEnvironmentAdvancedParms",
)
OCSP, HTTP, LDAP = "TTLSGskOcspParms", "TTLSGskHttpCdpParms", "TTLSGskLdapParms"


def found(tmp_path: Path, role: str, block: str, *lines: str, defaults: Defaults = Defaults.MODERN) -> list[Diagnostic]:
    path = tmp_path / "p.policy"
    inner = "\n".join(lines)
    if block in (OCSP, HTTP, LDAP):  # they stand in another one
        block, inner = GSK, f"{block}\n{{\n{inner}\n}}"
    text = PLAIN.replace("ROLE", role).replace("BLOCK", block).replace("LINES", inner)
    path.write_text(text, encoding="utf-8")
    try:
        said = policy.load(path, defaults=defaults).diagnostics
    except PolicyError as error:
        said = error.diagnostics
    return [finding for finding in said if finding.code == "not-supported"]


@pytest.mark.parametrize("defaults", list(Defaults))
@pytest.mark.parametrize("role", ["Client", "Server", "ServerWithClientAuth"])
def test_defaults_are_never_spoken_of(tmp_path: Path, role: str, defaults: Defaults) -> None:
    """A policy that codes nothing gets no such diagnostic, under either profile."""
    for lines in ((), ("TLSv1.2 On", "TLSv1.3 On")):
        assert [] == found(tmp_path, role, MORE, *lines, defaults=defaults)


@pytest.mark.parametrize(
    ("role", "block", "lines"),
    [
        ("Client", SIGNATURE, ("ClientECurves Any",)),
        ("Client", SIGNATURE, ("ClientECurves 0024",)),
        ("Client", SIGNATURE, ("ClientECurves 4588",)),
        ("Client", SIGNATURE, ("ClientECurves X25519MLKEM768",)),
        ("Client", SIGNATURE, ("ClientECurves 0023", "ClientKeyShareGroups 0023")),
        ("Client", SIGNATURE, ("ClientECurves 00240023", "ClientECurves 0029", "ClientKeyShareGroups 00290024")),
        ("Client", SIGNATURE, ("ClientKeyShareGroups 0023",)),
        ("Client", SIGNATURE, ("SignaturePairs 060306010806", "SignaturePairsCert 0501")),
        ("Client", SIGNATURE, ("ServerKexECurves 0019",)),
        ("Server", SIGNATURE, ("ServerKexECurves 00240023", "ServerKeyShareGroups 002900230024")),
        ("Server", SIGNATURE, ("ClientECurves 00230024",)),
        ("Server", CIPHER, ("V3CipherSuites4Char 1301C02F009F",)),
        ("Server", GSK, ("GSK_V3_SIDCACHE_SIZE 0", "GSK_V3_SESSION_TIMEOUT 300", "GSK_SESSION_TICKET_SERVER_COUNT 2")),
        ("Client", GSK, ("GSK_V3_SIDCACHE_SIZE 100", "GSK_V3_SESSION_TIMEOUT 3600")),
        ("Client", GSK, ("GSK_SESSION_TICKET_CLIENT_ENABLE Off", "GSK_SESSION_TICKET_CLIENT_MAXCACHED 5")),
        ("Client", MORE, ("ClientHandshakeSNI Optional", "ClientHandshakeSNIList a.test")),
        ("Client", MORE, ("ClientHandshakeSNI Required", "ClientHandshakeSNIList a.test", "TLSv1.3 Off")),
        ("Server", MORE, ("ServerHandshakeSNI Required", "ServerHandshakeSNIList a.test label")),
        ("Server", MORE, ("Renegotiation Disabled", "RenegotiationIndicator Both", "ServerScsv On")),
        ("Server", MORE, ("ServerExtendedMasterSecret Required", "ServerMaxSSLFragment Required")),
        ("Server", MORE, ("ServerEDHGroupSize Match", "MiddleBoxCompatMode On", "ResetCipherTimer 0")),
        ("Server", OCSP, ("OcspServerStapling EndEntity", "OcspServerStapling Off")),
        (
            "Client",
            OCSP,
            ("OcspAiaEnable On", "OcspRequestSigkeylabel x", "OcspRequestSigalg 0804", "OcspNonceSize 128"),
        ),
        ("Client", OCSP, ("OcspClientCacheSize 0", "OcspCliCacheEntryMaxsize 9", "OcspResponseSigAlgPairs 04010403")),
        ("Client", OCSP, ("OcspResponseTimeout 1", "OcspMaxResponseSize 1", "OcspRetrieveViaGet On")),
        ("Client", HTTP, ("HttpCdpEnable On", "HttpCdpCacheSize 0", "HttpCdpCacheEntryMaxsize 9")),
        ("Client", GSK, ("CrlSigAlgPairs 0401", "RevocationSecurityLevel Low", "MaxSrcRevExtLocValues 0")),
    ],
)
def test_what_is_honoured_is_not_spoken_of(tmp_path: Path, role: str, block: str, lines: tuple[str, ...]) -> None:
    """These do what they say, or concern the other role."""
    assert [] == found(tmp_path, role, block, *lines)


@pytest.mark.parametrize(
    ("role", "block", "line", "severity"),
    [
        ("Client", SIGNATURE, "ClientECurves 00190024", "warning"),
        ("Client", SIGNATURE, "ClientECurves 00190021", "error"),
        ("Client", SIGNATURE, "ClientKeyShareGroups 00230019", "warning"),
        ("Server", SIGNATURE, "ServerKexECurves 0021", "error"),
        ("Server", SIGNATURE, "ServerKexECurves 00230019", "warning"),
        ("Server", SIGNATURE, "ServerKeyShareGroups 00230021", "warning"),
        ("Server", SIGNATURE, "SignaturePairs 06010402", "warning"),
        ("Client", SIGNATURE, "SignaturePairs 0401 0203", None),
        ("Client", SIGNATURE, "SignaturePairs 02010401", "warning"),
        ("Client", SIGNATURE, "SignaturePairs 02030201", "error"),
        ("Client", SIGNATURE, "SignaturePairsCert 0101", "error"),
        ("Server", CIPHER, "V3CipherSuites 0A2F", "warning"),
        ("Server", GSK, "GSK_V3_SIDCACHE_SIZE 512", "warning"),
        ("Server", GSK, "GSK_V3_SESSION_TIMEOUT 3600", "warning"),
        ("Server", GSK, "GSK_SESSION_TICKET_SERVER_TIMEOUT 100000", "warning"),
        ("Server", GSK, "GSK_SESSION_TICKET_SERVER_ENABLE Off", "warning"),
        ("Server", GSK, "GSK_SESSION_TICKET_SERVER_COUNT 5", "warning"),
        ("Server", GSK, "GSK_SESSION_TICKET_SERVER_ALGORITHM AESCBC128", "warning"),
        ("Client", GSK, "GSK_SESSION_TICKET_CLIENT_MAXSIZE 8192", "warning"),
        ("Client", GSK, "GSK_V2_SESSION_TIMEOUT 50", "warning"),
        ("Client", MORE, "ClientHandshakeSNI Required", "warning"),
        ("Client", MORE, "PeerMinRsaKeySize 1024", "warning"),
        ("Client", MORE, "PeerMinECCKeySize 192", "warning"),
        ("ServerWithClientAuth", MORE, "PeerMinRsaKeySize 2047", "warning"),
        ("Server", MORE, "PeerMinRsaKeySize 1024", None),
        ("Client", MORE, "PeerMinRsaKeySize 2048", None),
        ("Client", MORE, "ClientMaxSSLFragment Off", None),
        ("Client", MORE, "ClientMaxSSLFragmentLength 512", "warning"),
        ("Server", MORE, "ServerMaxSSLFragment Off", "warning"),
        ("Server", MORE, "MiddleBoxCompatMode Off", "warning"),
        ("Server", MORE, "ResetCipherTimer 60", "error"),
        ("Server", MORE, "Renegotiation All", "warning"),
        ("Client", MORE, "RenegotiationIndicator Optional", "warning"),
        ("Server", MORE, "ServerScsv Off", "warning"),
        ("Server", MORE, "RenegotiationCertCheck On", None),
        ("Server", MORE, "RenegotiationCertCheck Off", "warning"),
        ("Server", MORE, "ServerEDHGroupSize Legacy", "warning"),
        ("Client", MORE, "ClientEDHGroupSize Legacy", "warning"),
        ("Client", MORE, "TruncatedHMAC Optional", "warning"),
        ("Client", MORE, "SSLv3 On", "warning"),
        ("Server", OCSP, "OcspServerStapling Any", "warning"),
        ("Client", OCSP, "OcspNonceSize 129", "warning"),
        ("Client", OCSP, "OcspResponseTimeout 0", "warning"),
        ("Client", OCSP, "OcspMaxResponseSize 0", "warning"),
        ("Client", HTTP, "HttpCdpResponseTimeout 0", "warning"),
        ("Client", HTTP, "HttpCdpMaxResponseSize 0", "warning"),
        ("Client", GSK, "RevocationSecurityLevel High", "warning"),
        ("Client", LDAP, "GSK_LDAP_SERVER ldap.test", "error"),
        ("Client", LDAP, "GSK_LDAP_SERVER_PORT 1389", "warning"),
        ("Client", LDAP, "GSK_CRL_SECURITY_LEVEL High", "warning"),
        ("Client", LDAP, "CRLCacheSize 10", "warning"),
    ],
)
def test_what_is_not_honoured_is_said(tmp_path: Path, role: str, block: str, line: str, severity: str | None) -> None:
    """One finding at the line that codes it, with what happens instead; an error where security would weaken."""
    findings = found(tmp_path, role, block, line)
    assert ([] if severity is None else [severity]) == [finding.severity for finding in findings]
    for finding in findings:
        keyword = line.split()[0]
        assert finding.source is not None
        assert keyword in finding.source
        assert policy.language.PARAMETERS[keyword].instead.split(";")[0][:40] in finding.message


@pytest.mark.parametrize(
    ("more", "severity"),
    [
        ("TTLSGskOcspParms\n{\nOcspAiaEnable On\n}", "warning"),
        ("TTLSGskHttpCdpParms\n{\nHttpCdpEnable On\n}\nRevocationSecurityLevel High", "warning"),
        ("TTLSGskOcspParms\n{\nOcspUrl http://a.test/\n}\nRevocationSecurityLevel Low", "error"),
        ("RevocationSecurityLevel Low", "error"),
    ],
)
def test_lists_in_directories_are_refused_where_they_would_be_missed(tmp_path: Path, more: str, severity: str) -> None:
    """Beside other sources Medium and High refuse what nobody answers about; Low would let pass what a list names."""
    findings = found(tmp_path, "Client", GSK, "TTLSGskLdapParms\n{\nGSK_LDAP_SERVER ldap.test\n}", more)
    assert [severity] == [finding.severity for finding in findings]


def test_a_directory_named_in_a_file_of_environment_variables_is_refused_too(tmp_path: Path) -> None:
    """The finding stands at the Envfile that names it."""
    variables = tmp_path / "variables"
    variables.write_text("GSK_LDAP_SERVER=ldap.test\n")
    path = tmp_path / "p.policy"
    text = PLAIN.replace("ROLE", "Client").replace("BLOCK", GSK).replace("LINES", "")
    path.write_text(
        text.replace(
            "TTLSEnabled On", f"TTLSEnabled On\n  TTLSGroupAdvancedParms\n  {{\n    Envfile {variables}\n  }}"
        ),
        encoding="utf-8",
    )
    with pytest.raises(PolicyError) as caught:
        policy.load(path)
    (finding,) = caught.value.diagnostics
    assert finding.source is not None
    assert "Envfile" in finding.source
    assert "GSK_LDAP_SERVER" in finding.message


def test_two_names_for_a_server_are_one_too_many(tmp_path: Path) -> None:
    """Only the first is sent, and the warning says which."""
    lines = ("ClientHandshakeSNI Optional", "ClientHandshakeSNIList a.test", "ClientHandshakeSNIList b.test")
    (finding,) = found(tmp_path, "Client", MORE, *lines)
    assert ("warning", True) == (finding.severity, "only a.test is sent" in finding.message)
    assert [] == found(tmp_path, "Server", MORE, *lines)


@pytest.mark.parametrize("block", [(MORE, "TLSv1.1 On"), (CIPHER, "V3CipherSuites4Char 003BC02F")])
def test_small_keys_are_taken_where_something_old_is_on(tmp_path: Path, block: tuple[str, str]) -> None:
    """There the library leaves the sizes of keys to the policy."""
    where, line = block
    lines = (line, "}", MORE if where != MORE else "TTLSSignatureParms", "{")
    more = ("PeerMinRsaKeySize 1024",) if where != MORE else ()
    first = () if more else ("PeerMinRsaKeySize 1024",)
    assert [] == found(tmp_path, "Client", where, *first, *lines, *more)


def test_what_a_file_of_environment_variables_sets_in_vain_is_said(tmp_path: Path) -> None:
    """Each value that is not honoured, and each that depends on others, stands at the Envfile with its line's name."""
    (tmp_path / "variables").write_text(
        "GSK_RENEGOTIATION=ALL\nGSK_PEER_RSA_MIN_KEY_SIZE=1024\nGSK_PROTOCOL_TLSV1_2=ON\nGSK_PROTOCOL_SSLV3=ON\n"
    )
    path = tmp_path / "p.policy"
    text = PLAIN.replace("ROLE", "Client").replace("BLOCK", MORE).replace("LINES", "")
    envfile = "TTLSEnabled On\n  TTLSGroupAdvancedParms\n  {\n    Envfile variables\n  }"
    path.write_text(text.replace("TTLSEnabled On", envfile), encoding="utf-8")
    findings = policy.load(path).diagnostics
    assert [7] * 3 == [finding.line for finding in findings]
    said = " ".join(finding.message for finding in findings)
    for words in ("line 1: GSK_RENEGOTIATION ALL has no effect", "line 4: GSK_PROTOCOL_SSLV3 ON", "below 2048 bits"):
        assert words in said


def test_no_variable_is_passed_over_where_its_parameter_would_be_refused() -> None:
    """Values from such a file are warned of, never refused: so none may weaken what a policy asks for."""
    rows = [policy.language.PARAMETERS[name] for name in envfile.MEANS.values()]
    assert [] == [row.name for row in rows if row.refused]


def test_the_same_line_is_spoken_of_once(tmp_path: Path) -> None:
    """However many rules lead to it."""
    path = tmp_path / "p.policy"
    text = PLAIN.replace("ROLE", "Client").replace("BLOCK", SIGNATURE).replace("LINES", "SignaturePairs 04010402")
    rule = text[text.index("TTLSRule") : text.index("TTLSEnvironmentAction it")]
    path.write_text(text + rule.replace("TTLSRule one", "TTLSRule two"), encoding="utf-8")
    assert ["not-supported"] == [finding.code for finding in policy.load(path).diagnostics]


def test_a_ring_must_have_a_name(tmp_path: Path) -> None:
    """An empty Keyring is refused where it stands."""
    path = tmp_path / "p.policy"
    text = PLAIN.replace("ROLE", "Client").replace("BLOCK", MORE).replace("LINES", "").replace("A/B", '""')
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        policy.load(path)
    assert any("Keyring" in finding.message for finding in caught.value.diagnostics)


def test_the_table_of_ciphers_is_that_of_the_tls_room() -> None:
    """What the vocabulary calls negotiable is exactly what engines can be told."""
    assert frozenset(NAMES) == codes.NEGOTIABLE


@pytest.mark.parametrize(
    ("line", "where", "said"),
    [("Trace 31", "TTLSEnabled On", []), ("Trace 223", "TTLSEnabled On", []), ("Trace 32", "TTLSEnabled On", ["Trace"]),
     ("Trace 255", "HandshakeRole Client", ["Trace"]), ("CtraceClearText On", "TTLSEnabled On", ["CtraceClearText"]),
     ("TTLSGroupAdvancedParms\n{\nSyslogFacility Auth\n}", "TTLSEnabled On", ["SyslogFacility"]),
     ("TTLSGroupAdvancedParms\n{\nSyslogFacility Daemon\n}", "TTLSEnabled On", [])],
)  # fmt: skip
def test_logging_that_is_not_done_is_said(tmp_path: Path, line: str, where: str, said: list[str]) -> None:
    """Trace bits without messages, another facility, a component trace."""
    path = tmp_path / "p.policy"
    text = PLAIN.replace("ROLE", "Client").replace("BLOCK", MORE).replace("LINES", "")
    path.write_text(text.replace(where, f"{where}\n{line}"), encoding="utf-8")
    found = [each for each in policy.load(path).diagnostics if each.code == "not-supported"]
    assert said == [(each.source or "").split()[0] for each in found]
