"""What this system cannot honour although each parameter by itself could be: it depends on the role and on the others.

The sentence for people stands on the parameter's row of the vocabulary (`instead`, with `depends` set); here is only
when it is true. Nothing is found in what a policy leaves to the defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attls.model import HandshakeRole, Protocol, Revocation, TlsSettings
from attls.policy import codes
from attls.policy.language import Value

_REPLACED_BY_SUITE_B = ("V3CipherSuites", "ClientECurves", "ServerKexECurves", "SignaturePairs", "SignaturePairsCert")
_WRITES_NOTHING = 32  # of Trace, whose two highest bits mean nothing anywhere


def limits(settings: TlsSettings, coded: Mapping[str, Value]) -> Iterator[tuple[str, str, bool]]:
    """Find the coded parameters that do not take effect as written: name, what exactly, and whether that is refused.

    A parameter is refused where passing over it would give less security than the policy asks for.
    """
    trace = coded.get("Trace", 0)
    if isinstance(trace, int) and trace & _WRITES_NOTHING:
        yield "Trace", f"bit {_WRITES_NOTHING} has no effect", False
    missing = [codes.CIPHERS[code] for code in settings.ciphers if code not in codes.NEGOTIABLE]
    if missing:
        yield "V3CipherSuites", f"{_list(missing)} cannot be negotiated", False
    for name, pairs in (
        ("SignaturePairs", settings.signature_pairs),
        ("SignaturePairsCert", settings.signature_pairs_cert),
    ):
        lacking = codes.MISSING_PAIRS if _has_old(settings) else codes.MISSING_PAIRS | codes.OLD_PAIRS
        missing = [pair for pair in pairs if pair in lacking]
        if name in coded and missing:
            yield name, f"{_list(missing)} cannot be used", len(missing) == len(pairs)
    yield from _suite_b(settings, coded)
    yield from _key_sizes(settings, coded)
    yield from _client(settings, coded) if settings.role is HandshakeRole.CLIENT else _server(settings, coded)
    yield from _revocation(settings.revocation or Revocation(), coded)


def _suite_b(settings: TlsSettings, coded: Mapping[str, Value]) -> Iterator[tuple[str, str, bool]]:
    profile = coded.get("SuiteBProfile", "Off")
    if profile == "Off":
        return
    if not settings.protocols:
        yield "SuiteBProfile", "TLSv1.2 is not on", True
    others = [name for name in _REPLACED_BY_SUITE_B if name in coded]
    others += [name for name in ("TLSv1", "TLSv1.1", "TLSv1.3") if coded.get(name) == "On"]
    if others:
        yield "SuiteBProfile", f"{_list(others)} without effect", False


def _key_sizes(settings: TlsSettings, coded: Mapping[str, Value]) -> Iterator[tuple[str, str, bool]]:
    if settings.role is HandshakeRole.SERVER:  # asks its clients for nothing
        return
    if "PeerMinECCKeySize" in coded and settings.peer_minimum_ecc_bits < codes.LEAST_ECC_BITS:
        yield "PeerMinECCKeySize", f"keys below {codes.LEAST_ECC_BITS} bits are refused all the same", False
    # Where something old is on, the library runs at its lowest level, see `Environment`.
    low = _has_old(settings) or any("NULL" in codes.CIPHERS[code] for code in settings.ciphers)
    if "PeerMinRsaKeySize" in coded and settings.peer_minimum_rsa_bits < codes.LEAST_RSA_BITS and not low:
        yield "PeerMinRsaKeySize", f"keys below {codes.LEAST_RSA_BITS} bits are refused all the same", False


def _client(settings: TlsSettings, coded: Mapping[str, Value]) -> Iterator[tuple[str, str, bool]]:
    new = Protocol.TLSV1_3 in settings.protocols
    yield from _groups("ClientECurves", settings.client_curves, coded)
    shares, curves = settings.client_key_share_groups, settings.client_curves or settings.client_key_share_groups
    without = [f"{group:04}" for group in shares if group not in curves or group in codes.MISSING_GROUPS]
    if "ClientKeyShareGroups" in coded and new and without:
        yield "ClientKeyShareGroups", f"for {_list(without)} no key share is sent", False
    if len(settings.sni_names) > 1:
        yield "ClientHandshakeSNIList", f"only {settings.sni_names[0]} is sent", False
    if "ClientHandshakeSNI" in coded and settings.sni_required and new:
        yield "ClientHandshakeSNI", "Required has no more effect than Optional with TLS 1.3", False


def _server(settings: TlsSettings, coded: Mapping[str, Value]) -> Iterator[tuple[str, str, bool]]:
    yield from _groups("ServerKexECurves", settings.server_kex_curves, coded)
    yield from _groups("ServerKeyShareGroups", settings.server_key_share_groups, coded)
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


def _groups(name: str, groups: tuple[int, ...], coded: Mapping[str, Value]) -> Iterator[tuple[str, str, bool]]:
    missing = [f"{group:04}" for group in groups if group in codes.MISSING_GROUPS]
    if name in coded and missing:
        yield name, f"{_list(missing)} cannot be used", len(missing) == len(groups)


def _has_old(settings: TlsSettings) -> bool:
    return any(Protocol.TLSV1 <= protocol < Protocol.TLSV1_2 for protocol in settings.protocols)


def _list(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")
