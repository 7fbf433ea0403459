"""The file that `Envfile` names: environment variables of System SSL, which speak where the policy is silent.

Only variables that mean the same as some parameter are taken; the policy's own word always counts more. Protocol
switches are a special case: on z/OS the policy always sets them, so here too a variable is heard only if no action
codes the switch.
"""

from __future__ import annotations

from pathlib import Path

from attls.policy import language, values
from attls.policy.language import Kind, Parameter, Value

# Variable → the parameter that means the same.
MEANS = {
    "GSK_PROTOCOL_SSLV2": "SSLv2",
    "GSK_PROTOCOL_SSLV3": "SSLv3",
    "GSK_PROTOCOL_TLSV1": "TLSv1",
    "GSK_PROTOCOL_TLSV1_1": "TLSv1.1",
    "GSK_PROTOCOL_TLSV1_2": "TLSv1.2",
    "GSK_PROTOCOL_TLSV1_3": "TLSv1.3",
    "GSK_V3_CIPHER_SPECS": "V3CipherSuites",
    "GSK_V3_CIPHER_SPECS_EXPANDED": "V3CipherSuites4Char",
    "GSK_V3_SESSION_TIMEOUT": "GSK_V3_SESSION_TIMEOUT",
    "GSK_V3_SIDCACHE_SIZE": "GSK_V3_SIDCACHE_SIZE",
    "GSK_SESSION_TICKET_CLIENT_ENABLE": "GSK_SESSION_TICKET_CLIENT_ENABLE",
    "GSK_SESSION_TICKET_CLIENT_MAXSIZE": "GSK_SESSION_TICKET_CLIENT_MAXSIZE",
    "GSK_SESSION_TICKET_SERVER_ENABLE": "GSK_SESSION_TICKET_SERVER_ENABLE",
    "GSK_SESSION_TICKET_SERVER_COUNT": "GSK_SESSION_TICKET_SERVER_COUNT",
    "GSK_SESSION_TICKET_SERVER_KEY_REFRESH": "GSK_SESSION_TICKET_SERVER_KEY_REFRESH",
    "GSK_SESSION_TICKET_SERVER_TIMEOUT": "GSK_SESSION_TICKET_SERVER_TIMEOUT",
    "GSK_SUITE_B_PROFILE": "SuiteBProfile",
    "GSK_CLIENT_ECURVE_LIST": "ClientECurves",
    "GSK_CLIENT_TLS_KEY_SHARES": "ClientKeyShareGroups",
    "GSK_SERVER_TLS_KEY_SHARES": "ServerKeyShareGroups",
    "GSK_SERVER_ALLOWED_KEX_ECURVES": "ServerKexECurves",
    "GSK_TLS_SIG_ALG_PAIRS": "SignaturePairs",
    "GSK_TLS_CERT_SIG_ALG_PAIRS": "SignaturePairsCert",
    "GSK_RENEGOTIATION": "Renegotiation",
    "GSK_EXTENDED_RENEGOTIATION_INDICATOR": "RenegotiationIndicator",
    "GSK_CERT_VALIDATION_MODE": "CertValidationMode",
    "GSK_3DES_KEYCHECK": "3DesKeyCheck",
    "GSK_PEER_DH_MIN_KEY_SIZE": "PeerMinDHKeySize",
    "GSK_PEER_DSA_MIN_KEY_SIZE": "PeerMinDsaKeySize",
    "GSK_PEER_ECC_MIN_KEY_SIZE": "PeerMinECCKeySize",
    "GSK_PEER_RSA_MIN_KEY_SIZE": "PeerMinRsaKeySize",
    "GSK_OCSP_URL": "OcspUrl",
    "GSK_OCSP_ENABLE": "OcspAiaEnable",
    "GSK_OCSP_URL_PRIORITY": "OcspUrlPriority",
    "GSK_OCSP_PROXY_SERVER_NAME": "OcspProxyServerName",
    "GSK_OCSP_PROXY_SERVER_PORT": "OcspProxyServerPort",
    "GSK_OCSP_RETRIEVE_VIA_GET": "OcspRetrieveViaGet",
    "GSK_OCSP_REQUEST_SIGKEYLABEL": "OcspRequestSigkeylabel",
    "GSK_OCSP_REQUEST_SIGALG": "OcspRequestSigalg",
    "GSK_OCSP_RESPONSE_SIGALG_PAIRS": "OcspResponseSigAlgPairs",
    "GSK_OCSP_CLIENT_CACHE_SIZE": "OcspClientCacheSize",
    "GSK_OCSP_CLIENT_CACHE_ENTRY_MAXSIZE": "OcspCliCacheEntryMaxsize",
    "GSK_OCSP_NONCE_GENERATION_ENABLE": "OcspNonceGenEnable",
    "GSK_OCSP_NONCE_CHECK_ENABLE": "OcspNonceCheckEnable",
    "GSK_OCSP_NONCE_SIZE": "OcspNonceSize",
    "GSK_OCSP_RESPONSE_TIMEOUT": "OcspResponseTimeout",
    "GSK_OCSP_MAX_RESPONSE_SIZE": "OcspMaxResponseSize",
    "GSK_SERVER_OCSP_STAPLING": "OcspServerStapling",
    "GSK_HTTP_CDP_ENABLE": "HttpCdpEnable",
    "GSK_HTTP_CDP_PROXY_SERVER_NAME": "HttpCdpProxyServerName",
    "GSK_HTTP_CDP_PROXY_SERVER_PORT": "HttpCdpProxyServerPort",
    "GSK_HTTP_CDP_RESPONSE_TIMEOUT": "HttpCdpResponseTimeout",
    "GSK_HTTP_CDP_MAX_RESPONSE_SIZE": "HttpCdpMaxResponseSize",
    "GSK_HTTP_CDP_CACHE_SIZE": "HttpCdpCacheSize",
    "GSK_HTTP_CDP_CACHE_ENTRY_MAXSIZE": "HttpCdpCacheEntryMaxsize",
    "GSK_AIA_CDP_PRIORITY": "AIACDPPriority",
    "GSK_MAX_SOURCE_REV_EXT_LOC_VALUES": "MaxSrcRevExtLocValues",
    "GSK_MAX_VALIDATION_REV_EXT_LOC_VALUES": "MaxValidRevExtLocValues",
    "GSK_REVOCATION_SECURITY_LEVEL": "RevocationSecurityLevel",
    "GSK_CRL_SIGALG_PAIRS": "CrlSigAlgPairs",
    "GSK_LDAP_SERVER": "GSK_LDAP_SERVER",
    "GSK_LDAP_SERVER_PORT": "GSK_LDAP_SERVER_PORT",
    "GSK_LDAP_USER": "GSK_LDAP_USER",
    "GSK_LDAP_PASSWORD": "GSK_LDAP_USER_PW",
}
_ON = {"1": "On", "0": "Off", "YES": "On", "NO": "Off", "ENABLE": "On", "DISABLE": "Off"}


def read(path: Path) -> tuple[dict[str, Value], list[str]]:
    """Return what a file of environment variables sets, by parameter, and a sentence for each line that is no use.

    Raises OSError when the file cannot be read.
    """
    rows: dict[str, Parameter] = {}
    for statement in language.STATEMENTS.values():
        for parameter in statement.parameters:
            rows.setdefault(parameter.name, parameter)
    set_here: dict[str, Value] = {}
    problems: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        text = line.partition("#")[0].strip().removeprefix("export ").strip()
        if not text:
            continue
        name, equals, value = text.partition("=")
        name, value = name.strip().upper(), value.strip().strip("\"'")
        if name not in MEANS or not equals or not value:
            if name.startswith("GSK_"):
                problems.append(f"line {number}: {name} is not used on this system")
            continue
        parameter = rows[MEANS[name]]
        if parameter.kind is Kind.CHOICE and parameter.choices == language.ON_OFF:
            value = _ON.get(value.upper(), value)
        try:
            parsed, _ = values.parse(parameter, [value])
        except values.BadValue as bad:
            problems.append(f"line {number}: {bad.message}")
            continue
        if parameter.instead and not parameter.depends and parsed not in parameter.honoured:
            # None of these parameters is refused in a policy (tests/policy/test_limits.py), so none weakens anything.
            problems.append(f"line {number}: {name} {value} has no effect: {parameter.instead}")
        key = "V3CipherSuites" if parameter.name == "V3CipherSuites4Char" else parameter.name
        set_here[key] = (parsed,) if parameter.many and isinstance(parsed, str) else parsed  # type: ignore[assignment]
    return set_here, problems
