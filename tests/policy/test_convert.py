"""A stunnel configuration to a policy that loads and says the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls import policy
from attls.model import AddressRange, ClientAuthType, Direction, HandshakeRole, PortRange, Protocol, TlsSettings
from attls.policy import codes
from attls.policy.convert import Conversion, cipher_code, from_stunnel
from attls.policy.rules import Rule


def convert(tmp_path: Path, text: str) -> tuple[Conversion, dict[str, Rule]]:
    converted = from_stunnel(Path("stunnel.conf"), text)
    path = tmp_path / "p.policy"
    path.write_text(converted.policy)
    return converted, {rule.name: rule for rule in policy.load(path).rules}


def settings(rule: Rule) -> TlsSettings:
    assert rule.verdict.settings is not None
    return rule.verdict.settings


def test_a_server_service(tmp_path: Path) -> None:
    """The rule stands on the port that clients know; certificates, versions and ciphers come along."""
    text = """
pid = /run/stunnel.pid
sslVersionMin = TLSv1.2
[telnets]
accept = 10.0.0.1:992
connect = 23
cert = /etc/telnet.pem
key = /etc/telnet.key
verify = 2
CAfile = /etc/ca.pem
ciphers = ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA
sessionCacheTimeout = 600
TIMEOUTinit = 20
"""
    converted, rules = convert(tmp_path, text)
    rule = rules["telnets"]
    assert (PortRange(992, 992),) == rule.conditions.local_ports
    assert (AddressRange(4, 0x0A000001, 0x0A000001),) == rule.conditions.local_addresses
    assert frozenset({Direction.INBOUND}) == rule.conditions.directions
    assert HandshakeRole.SERVER_WITH_CLIENT_AUTH is settings(rule).role
    assert ClientAuthType.REQUIRED is settings(rule).client_auth
    assert ("1302", "1303", "1301", "C030", "002F") == settings(rule).ciphers
    assert {Protocol.TLSV1_2, Protocol.TLSV1_3} == settings(rule).protocols
    assert (600, 20) == (settings(rule).session_timeout, settings(rule).handshake_timeout)
    assert "attls cert import --owner STUNNEL --label TELNETS /etc/telnet.pem --key /etc/telnet.key" in converted.policy
    assert () == converted.diagnostics


def test_a_client_service(tmp_path: Path) -> None:
    """The rule is about connections to the place that stunnel connected to; names are checked and sent."""
    text = """
[mail out]
client = yes
accept = 127.0.0.1:2525
connect = mail.example.com:465
checkHost = mail.example.com
verifyChain = yes
CAfile = ca.pem
sslVersion = TLSv1.3
options = NO_SSLv3
curves = X25519:P-256
OCSPaia = yes
"""
    converted, rules = convert(tmp_path, text)
    rule = rules["mail-out"]
    assert (PortRange(465, 465),) == rule.conditions.remote_ports
    assert HandshakeRole.CLIENT is settings(rule).role
    assert "mail.example.com" == settings(rule).host_reference_dns
    assert ("mail.example.com",) == settings(rule).sni_names
    assert {Protocol.TLSV1_3} == settings(rule).protocols
    assert (29, 23) == settings(rule).client_curves
    revocation = settings(rule).revocation
    assert revocation is not None
    assert revocation.ocsp_from_certificate
    assert ["host-name"] == [finding.code for finding in converted.diagnostics]


@pytest.mark.parametrize(
    ("options", "role", "authentication"),
    [
        ("", HandshakeRole.SERVER, None),
        ("verify = 0", HandshakeRole.SERVER, None),
        ("verify = 1", HandshakeRole.SERVER_WITH_CLIENT_AUTH, ClientAuthType.FULL),
        ("verify = 3", HandshakeRole.SERVER_WITH_CLIENT_AUTH, ClientAuthType.REQUIRED),
        ("verifyChain = yes", HandshakeRole.SERVER_WITH_CLIENT_AUTH, ClientAuthType.REQUIRED),
        ("verifyPeer = yes", HandshakeRole.SERVER_WITH_CLIENT_AUTH, ClientAuthType.REQUIRED),
        ("requireCert = no\nverifyChain = yes", HandshakeRole.SERVER_WITH_CLIENT_AUTH, ClientAuthType.REQUIRED),
        ("verifyChain = yes\nrequireCert = no", HandshakeRole.SERVER_WITH_CLIENT_AUTH, ClientAuthType.FULL),
        ("requireCert = yes", HandshakeRole.SERVER_WITH_CLIENT_AUTH, ClientAuthType.REQUIRED),
        ("verifyChain = yes\nrequireCert = yes", HandshakeRole.SERVER_WITH_CLIENT_AUTH, ClientAuthType.REQUIRED),
    ],
)
def test_what_a_server_demands_of_clients(
    tmp_path: Path, options: str, role: HandshakeRole, authentication: ClientAuthType | None
) -> None:
    """stunnel's levels of verification become HandshakeRole and ClientAuthType; verifyChain implies requireCert."""
    _, rules = convert(tmp_path, f"[s]\naccept = 1\ncert = c\n{options}\n")
    assert role is settings(rules["s"]).role
    if authentication is not None:
        assert authentication is settings(rules["s"]).client_auth


def test_what_cannot_be_said_is_reported(tmp_path: Path) -> None:
    """Nothing is dropped silently: options, ciphers, protocols, places, lines that are none of these."""
    text = """
nonsense
fancy = yes
[smtp]
client = yes
accept = 25
connect = 192.0.2.1:587
connect = 192.0.2.2:587
protocol = smtp
ciphers = HIGH
CRLfile = x
capath = /etc/ssl
[nowhere]
accept = high
[empty]
[smtp]
client = yes
connect = [2001:db8::1]:587
"""
    converted, rules = convert(tmp_path, text)
    assert ["smtp", "smtp-2", "smtp-3"] == sorted(rules)
    assert settings(rules["smtp"]).application_controlled
    assert (6, 0x20010DB8 << 96 | 1) == (
        rules["smtp-3"].conditions.remote_addresses[0].version,
        rules["smtp-3"].conditions.remote_addresses[0].first,
    )
    found = {finding.code for finding in converted.diagnostics}
    assert {
        "no-option",
        "unknown-option",
        "protocol",
        "unknown-cipher",
        "left-out",
        "no-place",
        "verifies-now",
    } <= found


def test_a_client_of_several_servers(tmp_path: Path) -> None:
    """Every place that stunnel connects to in turn has a rule; they share the actions."""
    text = "[c]\nclient = yes\nconnect = 192.0.2.1:465\nconnect = [2001:db8::1]:587\n"
    _, rules = convert(tmp_path, text)
    assert {"c": 465, "c-2": 587} == {name: rule.conditions.remote_ports[0].first for name, rule in rules.items()}
    assert {4, 6} == {rule.conditions.remote_addresses[0].version for rule in rules.values()}
    assert {"c"} == {rule.verdict.environment for rule in rules.values()}


def test_places_by_name(tmp_path: Path) -> None:
    """Ports that services have by name are known; a host name gets no condition, which is said, in either role."""
    text = "[pop3s]\naccept = localhost:pop3s\ncert = c\n[out]\nclient = yes\nconnect = x.example:nothing\n"
    converted = from_stunnel(Path("x"), text, port_of={"pop3s": 995}.get)
    assert ["host-name", "no-place"] == [item.code for item in converted.diagnostics]
    (tmp_path / "p.policy").write_text(converted.policy)
    (rule,) = policy.load(tmp_path / "p.policy").rules
    assert ((), (PortRange(995, 995),)) == (rule.conditions.local_addresses, rule.conditions.local_ports)


def test_services_that_add_a_server_name(tmp_path: Path) -> None:
    """`sni = service:name` becomes a certificate of that service, chosen by name; one program serves them all."""
    text = "[web]\naccept = 443\ncert = a.pem\n[two]\nsni = web:*.example.com\nconnect = 81\ncert = b.pem\n"
    converted, rules = convert(tmp_path, text)
    assert ["web"] == list(rules)
    assert (("*.example.com", "TWO"),) == settings(rules["web"]).server_sni
    assert "attls cert import --owner STUNNEL --label TWO b.pem\n" in converted.policy
    assert ["same-program"] == [item.code for item in converted.diagnostics]


def test_options_that_are_taken_back(tmp_path: Path) -> None:
    """A dash before an option of the TLS library switches it off again."""
    text = "cert = c\noptions = NO_TLSv1.2\noptions = NO_TLSv1.3\n[s]\naccept = 1\noptions = -NO_TLSv1.2\n"
    _, rules = convert(tmp_path, text)
    assert {Protocol.TLSV1_2} == settings(rules["s"]).protocols


def test_names_and_responders_that_a_policy_cannot_say(tmp_path: Path) -> None:
    """Of several names one is checked, a responder is asked by plain HTTP: both are said, and the policy loads."""
    text = "[c]\nclient = yes\nverifyChain = yes\nconnect = 1\ncheckHost = a.example\ncheckHost = b.example\n"
    converted, rules = convert(tmp_path, f"{text}OCSP = https://ocsp.example/\nsni =\n")
    assert ["several-names", "left-out"] == [item.code for item in converted.diagnostics]
    assert ("b.example", ()) == (settings(rules["c"]).host_reference_dns, settings(rules["c"]).sni_names)


def test_commands_are_safe_to_paste() -> None:
    """File names with blanks or worse are quoted for the shell, and nothing of the text ends a comment."""
    converted = from_stunnel(Path("x"), "\ufeff; mark\n[s\x85TTLSRule y]\naccept = 1\ncert = a b/$(id).pem\n")
    assert "'a b/$(id).pem'" in converted.policy
    assert "\x85" not in converted.policy
    assert () == converted.diagnostics


def test_a_file_without_services_is_an_error() -> None:
    """There is nothing to protect."""
    converted = from_stunnel(Path("x"), "pid = /run/x\n")
    assert ["no-services"] == [finding.code for finding in converted.diagnostics]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ECDHE-RSA-AES128-GCM-SHA256", "C02F"),
        ("ECDHE-ECDSA-AES256-SHA384", "C024"),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", "CCA9"),
        ("AES256-SHA", "0035"),
        ("AES128-GCM-SHA256", "009C"),
        ("DES-CBC3-SHA", "000A"),
        ("DHE-RSA-AES256-SHA256", "006B"),
        ("TLS_AES_128_GCM_SHA256", "1301"),
        ("HIGH", None),
    ],
)
def test_names_of_ciphers(name: str, expected: str | None) -> None:
    """OpenSSL's names and those of the registry lead to the same codes."""
    assert expected == cipher_code(name)


def test_every_name_of_the_registry_is_known() -> None:
    """Each suite is found by its own name."""
    assert all(code == cipher_code(name) for code, name in codes.CIPHERS.items())


@given(st.text(st.sampled_from("[]=#;ab19:.\n "), max_size=80))
def test_any_text_gives_a_conversion(text: str) -> None:
    """No configuration makes the conversion fail."""
    from_stunnel(Path("x"), f"[a]\nconnect = 1\n{text}")
