"""Suite B (RFC 6460): a profile decides protocol, ciphers, curves and signatures, and nothing else gets through."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from attls import policy
from attls.errors import KeyringError, PolicyError
from attls.model import Protocol, TlsSettings
from attls.tls import Environment
from tests.scenes.daemons import rule
from tests.tls.kinds import other_end, ring
from tests.tls.meetings import meet

PROFILES = ("128", "128Min", "192", "192Min", "All")
TAKES = {
    "P-256": {"128", "128Min", "All"},
    "P-384": {"128Min", "192", "192Min", "All"},
    "P-521": set(),
    "RSA-2048": set(),
}
CIPHER = {"P-256": "ECDHE-ECDSA-AES128-GCM-SHA256", "P-384": "ECDHE-ECDSA-AES256-GCM-SHA384"}


def text_of(role: str, profile: str, more: str = "", extra: str = "") -> str:
    """Return a policy with one rule; `more` stands in its environment action, `extra` among the advanced parameters."""
    direction = "Outbound" if role == "Client" else "Inbound"
    text = rule("one", direction=direction, ring="A/B", extra=extra)
    return text.replace("HandshakeRole", f"SuiteBProfile {profile}\n{more}  HandshakeRole")


def settings(folder: Path, role: str, profile: str) -> TlsSettings:
    path = folder / "suite-b.policy"
    path.write_text(text_of(role, profile))
    found = policy.load(path).rules[0].verdict.settings
    assert found is not None
    return found


@pytest.mark.parametrize("role", ["Client", "Server"])
@pytest.mark.parametrize("kind", TAKES)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_takes_its_own_certificates(tmp_path: Path, role: str, kind: str, profile: str) -> None:
    """Level 128 is P-256 with AES-128, level 192 is P-384 with AES-256; anything else is refused, ours or a peer's."""
    wanted = settings(tmp_path, role, profile)
    if role == "Server" and profile not in TAKES[kind]:
        with pytest.raises(KeyringError, match="on no curve of the SuiteBProfile"):
            Environment(wanted, ring(kind, role))
        return
    environment = Environment(wanted, ring(kind, role))
    outcome = meet(environment, other_end(tmp_path, kind, server=role == "Client"))
    good = outcome.reason is None and not outcome.complaint
    assert (profile in TAKES[kind]) == good
    if good:
        assert "TLSv1.2" == outcome.ours.get_protocol_version_name()
        level = outcome.ours.get_cipher_name()
        assert (level == CIPHER[kind]) or (profile in ("128Min", "All") and level in CIPHER.values())


@pytest.mark.parametrize("role", ["Client", "Server"])
def test_a_peer_without_tls_1_2_is_refused(tmp_path: Path, role: str) -> None:
    """Suite B is TLS 1.2, whatever else the policy's defaults have on."""
    environment = Environment(settings(tmp_path, role, "128"), ring("P-256", role))
    context = other_end(tmp_path, "P-256", server=role == "Client")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    outcome = meet(environment, context)
    assert outcome.reason is not None


@pytest.mark.parametrize("profile", PROFILES)
def test_what_the_policy_lists_beside_a_profile_is_passed_over(tmp_path: Path, profile: str) -> None:
    """Every TTLSCipherParms is ignored; a warning at the profile names what has no effect."""
    more = "  TTLSCipherParms\n  {\n    V3CipherSuites4Char C02F\n  }\n"
    path = tmp_path / "suite-b.policy"
    path.write_text(text_of("Server", profile, more, "TLSv1.3 On\n    TLSv1.2 On"))
    loaded = policy.load(path)
    found = loaded.rules[0].verdict.settings
    assert found is not None
    assert {Protocol.TLSV1_2} == found.protocols
    assert {"C02B", "C02C"} >= set(found.ciphers)
    (finding,) = loaded.diagnostics
    assert ("warning", "not-supported") == (finding.severity, finding.code)
    assert "V3CipherSuites, TLSv1.3 without effect" in finding.message


def test_a_profile_without_tls_1_2_is_refused(tmp_path: Path) -> None:
    """No other protocol can be used, so the rule could protect nothing."""
    path = tmp_path / "suite-b.policy"
    path.write_text(text_of("Server", "192", extra="TLSv1.2 Off"))
    with pytest.raises(PolicyError) as caught:
        policy.load(path)
    (finding,) = (each for each in caught.value.diagnostics if each.severity == "error")
    assert "TLSv1.2 is not on" in finding.message
