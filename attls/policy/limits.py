"""What this system cannot honour although each parameter by itself could be: it depends on the role and on the others.

The sentence for people stands on the parameter's row of the vocabulary (`instead`, with `depends` set); here is only
when it is true. Nothing is found in what a policy leaves to the defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attls.model import HandshakeRole, Protocol, Revocation, TlsSettings
from attls.policy import codes
from attls.policy.language import Value

# Pairs up to SHA-256 (first byte: the hash) and their like: as weak as the weakest that TLS 1.3 has.
_ORDINARY_PAIRS = frozenset({"0804", "0807"})


def limits(settings: TlsSettings, coded: Mapping[str, Value]) -> Iterator[tuple[str, str, bool]]:
    """Find the coded parameters that do not take effect as written: name, what exactly, and whether that is refused.

    A parameter is refused where passing over it would give less security than the policy asks for.
    """
    for name in ("V3CipherSuites",):
        missing = [codes.CIPHERS[code] for code in settings.ciphers if code not in codes.NEGOTIABLE]
        if missing:
            yield name, f"{_list(missing)} cannot be negotiated", False
    for name, pairs in (
        ("SignaturePairs", settings.signature_pairs),
        ("SignaturePairsCert", settings.signature_pairs_cert),
    ):
        if name in coded:
            yield name, "the list has no effect", not any(pair in _ORDINARY_PAIRS or pair < "05" for pair in pairs)
    yield from _client(settings, coded) if settings.role is HandshakeRole.CLIENT else _server(settings, coded)
    yield from _revocation(settings.revocation or Revocation(), coded)


def _client(settings: TlsSettings, coded: Mapping[str, Value]) -> Iterator[tuple[str, str, bool]]:
    new = Protocol.TLSV1_3 in settings.protocols
    curves = settings.client_curves
    exact = len(curves) == 1 and curves[0] in codes.SETTABLE_CURVES
    # Lists of strong groups that cannot be set are held to by refusing other outcomes.
    held = not any(group in codes.ORDINARY_GROUPS for group in curves) and not codes.SETTABLE_CURVES.issuperset(curves)
    if "ClientECurves" in coded and curves and not exact and not held:
        yield "ClientECurves", "the list is not offered as it stands", False
    if "ClientKeyShareGroups" in coded and new and not (exact and settings.client_key_share_groups == curves):
        yield "ClientKeyShareGroups", "the list has no effect", False
    if "ClientHandshakeSNI" in coded and settings.sni_required and new:
        yield "ClientHandshakeSNI", "Required has no more effect than Optional with TLS 1.3", False


def _server(settings: TlsSettings, coded: Mapping[str, Value]) -> Iterator[tuple[str, str, bool]]:
    for name, groups in (
        ("ServerKexECurves", settings.server_kex_curves),
        ("ServerKeyShareGroups", settings.server_key_share_groups),
    ):
        missing = [f"{group:04}" for group in groups if group in codes.MISSING_GROUPS]
        if name in coded and missing:
            yield name, f"{_list(missing)} cannot be used", False
    if "GSK_V3_SIDCACHE_SIZE" in coded and settings.session_cache_size:
        yield "GSK_V3_SIDCACHE_SIZE", "the number has no effect on a server", False
    if Protocol.TLSV1_3 not in settings.protocols:
        return
    older = any(Protocol.TLSV1 <= protocol < Protocol.TLSV1_3 for protocol in settings.protocols)
    if "GSK_SESSION_TICKET_SERVER_ENABLE" in coded and not settings.server_tickets and older:
        yield "GSK_SESSION_TICKET_SERVER_ENABLE", "Off has more effect than it says", False
    session, ticket = settings.session_timeout, settings.server_ticket_lifetime
    if "GSK_V3_SESSION_TIMEOUT" in coded and older and session > ticket:
        yield "GSK_V3_SESSION_TIMEOUT", f"sessions end after {ticket} seconds already", False
    if "GSK_SESSION_TICKET_SERVER_TIMEOUT" in coded and 0 < session < ticket:
        yield "GSK_SESSION_TICKET_SERVER_TIMEOUT", f"tickets end after {session} seconds already", False


def _revocation(asked: Revocation, coded: Mapping[str, Value]) -> Iterator[tuple[str, str, bool]]:
    if asked.ldap_servers:
        others = asked.ocsp_url is not None or asked.ocsp_from_certificate or asked.lists_by_http
        # Where another source answers, the directory would not have been asked; where none does, only Low goes on.
        yield "GSK_LDAP_SERVER", "the directory is not asked", not others or asked.level == "Low"
    if "RevocationSecurityLevel" in coded and asked.level == "High" and not asked.asks:
        yield "RevocationSecurityLevel", "High asks nobody by itself", False
    if "OcspNonceSize" in coded and asked.ocsp_nonce_size > codes.LARGEST_NONCE:
        yield "OcspNonceSize", f"{codes.LARGEST_NONCE} bytes are sent", False
    for name in ("OcspResponseTimeout", "OcspMaxResponseSize", "HttpCdpResponseTimeout", "HttpCdpMaxResponseSize"):
        if coded.get(name) == 0:
            yield name, "there is a limit all the same", False


def _list(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
