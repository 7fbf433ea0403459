"""What a connection looks like to its program: a record → the output fields of TTLS_IOCTL and the items of version 2.

Pure: reads a record, never the connection. A record of a connection that we do not carry is a verdict only.
"""

from __future__ import annotations

import base64
import sys
from typing import Any

from attls.control.protocol import ConnectionStatus, Ioctl, Key, PolicyStatus, SecurityType
from attls.model import ClientAuthType, HandshakeRole, Protocol, TlsSettings, Verdict
from attls.observe import HANDSHAKE, SECURE, Record

_CONNECTION = {HANDSHAKE: ConnectionStatus.HS_INPROGRESS, SECURE: ConnectionStatus.SECURE}
_CLIENT_AUTH = {
    ClientAuthType.PASS_THRU: SecurityType.SRV_CA_PASS,
    ClientAuthType.FULL: SecurityType.SRV_CA_FULL,
    ClientAuthType.REQUIRED: SecurityType.SRV_CA_REQD,
    ClientAuthType.SAF_CHECK: SecurityType.SRV_CA_SAFCHK,
}
_PROTOCOLS = {
    "SSLv3": Protocol.SSLV3,
    "TLSv1": Protocol.TLSV1,
    "TLSv1.1": Protocol.TLSV1_1,
    "TLSv1.2": Protocol.TLSV1_2,
    "TLSv1.3": Protocol.TLSV1_3,
}
# OpenSSL's names of groups → IANA TLS Supported Groups.
_GROUPS = {
    "secp256r1": 23, "prime256v1": 23, "P-256": 23, "secp384r1": 24, "P-384": 24, "secp521r1": 25, "P-521": 25,
    "x25519": 29, "X25519": 29, "x448": 30, "X448": 30, "brainpoolP256r1tls13": 31, "brainpoolP384r1tls13": 32,
    "brainpoolP512r1tls13": 33, "ffdhe2048": 256, "ffdhe3072": 257, "ffdhe4096": 258, "ffdhe6144": 259,
    "ffdhe8192": 260, "MLKEM512": 512, "MLKEM768": 513, "MLKEM1024": 514, "SecP256r1MLKEM768": 4587,
    "X25519MLKEM768": 4588, "SecP384r1MLKEM1024": 4589,
}  # fmt: skip
HOST_NOT_CHECKED, HOST_MATCHED = 0, 1


# Made once: these are asked for with every query.
_NOT_SECURE, _SECURE = ConnectionStatus.NOTSECURE, ConnectionStatus.SECURE


def policy_status(verdict: Verdict) -> PolicyStatus:
    """Say what the policy of a connection is to its program."""
    if verdict.rule is None:
        return PolicyStatus.NO_POLICY
    if not verdict.enabled or verdict.settings is None:
        return PolicyStatus.NOT_ENABLED
    return PolicyStatus.APPLCNTRL if verdict.settings.application_controlled else PolicyStatus.ENABLED


def security_type(settings: TlsSettings | None) -> SecurityType:
    """Say which role, and which look at client certificates, the settings give to the local end."""
    if settings is None:
        return SecurityType.UNKNOWN
    if settings.role is HandshakeRole.CLIENT:
        return SecurityType.CLIENT
    if settings.role is HandshakeRole.SERVER:
        return SecurityType.SERVER
    return _CLIENT_AUTH[settings.client_auth]


def two_characters(cipher4: str) -> str:
    """Return the two-character name of a cipher suite, `4X` where it has none."""
    return cipher4[2:] if cipher4.startswith("00") else "4X"


def outputs(record: Record) -> Ioctl:
    """Return the output fields for a connection that we carry."""
    verdict = record.verdict
    connection = _CONNECTION.get(record.status, _NOT_SECURE)
    if connection is not _SECURE:
        return Ioctl(
            policy_status=policy_status(verdict),
            connection_status=connection,
            security_type=security_type(verdict.settings),
        )
    cipher4 = record.cipher4 or ""
    protocol = _PROTOCOLS.get(record.protocol or "", 0)
    group = _GROUPS.get(record.key_share or "", 0) if protocol == Protocol.TLSV1_3 else 0
    return Ioctl(
        policy_status=policy_status(verdict),
        connection_status=connection,
        security_type=security_type(verdict.settings),
        protocol=protocol,
        cipher=two_characters(cipher4),
        cipher4=cipher4,
        key_share=f"{group:04}" if group else "",
        user=record.cert_user or "",
    )


def verdict_only(verdict: Verdict) -> Ioctl:
    """Return the output fields for a connection that we do not carry.

    Where policy asks for TLS all the same, the connection is older than our steering: AT-TLS was off when it was made.
    """
    status = policy_status(verdict)
    if verdict.enabled:
        status = PolicyStatus.OFF
    return Ioctl(policy_status=status, connection_status=ConnectionStatus.NOTSECURE)


def items(record: Record) -> dict[int, bytes]:
    """Return what version 2 can get of a connection."""
    verdict = record.verdict
    names = {
        Key.RULE_NAME: verdict.rule,
        Key.GROUP_ACTION_NAME: verdict.group,
        Key.ENVIRONMENT_ACTION_NAME: verdict.environment,
        Key.CONNECTION_ACTION_NAME: verdict.connection,
    }
    found: dict[int, bytes] = {key: name.encode() for key, name in names.items() if name is not None}
    if record.status == SECURE:
        if record.cert_user is not None:
            found[Key.USER] = record.cert_user.encode()
        if record.peer_certificate is not None:
            found[Key.CERTIFICATE] = record.peer_certificate
        settings = verdict.settings
        if settings is not None and settings.role is HandshakeRole.CLIENT:
            # A name that does not match ends the handshake, so a secure connection has either matched or not asked.
            checked = settings.host_reference_dns is not None or settings.host_reference_cn is not None
            found[Key.HOST_STATUS] = (HOST_MATCHED if checked else HOST_NOT_CHECKED).to_bytes(4, sys.byteorder)
    return found


def names_only(verdict: Verdict) -> dict[int, bytes]:
    """Return what version 2 can get of a connection that we do not carry: the rule's name, if one fits."""
    return {Key.RULE_NAME: verdict.rule.encode()} if verdict.rule is not None else {}


def plain(record: Record) -> dict[str, Any]:
    """Return the same as JSON values, for `attls query`."""
    found = outputs(record)
    verdict = record.verdict
    certificate = record.peer_certificate if record.status == SECURE else None
    return {
        "connid": f"{record.connid:08X}",
        "direction": record.flow.direction.value,
        "local": str(record.flow.local),
        "remote": str(record.flow.remote),
        "policy": PolicyStatus(found.policy_status).name,
        "connection": ConnectionStatus(found.connection_status).name,
        "security_type": SecurityType(found.security_type).name,
        "protocol": record.protocol if record.status == SECURE else None,
        "cipher": found.cipher4 or None,
        "key_share": found.key_share or None,
        "user": found.user or None,
        "rule": verdict.rule,
        "group_action": verdict.group,
        "environment_action": verdict.environment,
        "connection_action": verdict.connection,
        "peer_subject": record.peer_subject,
        "certificate": base64.b64encode(certificate).decode() if certificate is not None else None,
    }
