"""Whether a certificate carries the name that policy asks for (RFC 6125 section 6, as System SSL applies it).

SAN dNSName entries are looked at first; the subject's common name counts only where the certificate has no dNSName.
A reference that is an IP address is looked for among the iPAddress entries instead.
"""

from __future__ import annotations

import ipaddress

from cryptography import x509


def alternative_names(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the dNSName and the iPAddress entries of the certificate's subjectAltName."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return (), ()
    return tuple(found.get_values_for_type(x509.DNSName)), tuple(map(str, found.get_values_for_type(x509.IPAddress)))


def common_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the subject's common names as text."""
    return tuple(str(part.value) for part in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME))


def matches(presented: str, reference: str, *, wildcards: bool) -> bool:
    """Say whether the presented DNS name covers the reference name.

    A wildcard must be the whole leftmost label and stands for exactly one label (RFC 6125 section 6.4.3); at least two
    labels must follow it, so that `*.com` covers nothing.
    """
    presented = presented.rstrip(".").lower()
    reference = reference.rstrip(".").lower()
    if presented == reference:
        return bool(reference)
    if not wildcards or not presented.startswith("*."):
        return False
    first, _, rest = reference.partition(".")
    suffix = presented[2:]
    return bool(first) and "." in suffix and "*" not in suffix and rest == suffix


def carries(certificate: x509.Certificate, *, dns: str | None, common_name: str | None, wildcards: bool) -> bool:
    """Say whether the certificate satisfies every reference that is given (HostReferenceIdDNS, HostReferenceIdCN)."""
    names, addresses = alternative_names(certificate)
    if dns is not None and (address := _address(dns)) is not None:
        if address not in (addresses or (() if names else common_names(certificate))):
            return False
    elif dns is not None and not any(
        matches(name, dns, wildcards=wildcards) for name in names or common_names(certificate)
    ):
        return False
    return common_name is None or any(
        matches(name, common_name, wildcards=wildcards) for name in common_names(certificate)
    )


def _address(reference: str) -> str | None:
    try:
        return str(ipaddress.ip_address(reference))
    except ValueError:
        return None
