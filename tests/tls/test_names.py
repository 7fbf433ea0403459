"""RFC 6125 name matching."""

from __future__ import annotations

import pytest
import trustme
from cryptography import x509

from attls.tls.names import carries, matches


@pytest.mark.parametrize(
    ("presented", "reference", "wildcards", "expected"),
    [
        ("mq.example.com", "mq.example.com", True, True),
        ("MQ.Example.com", "mq.example.COM.", True, True),
        ("*.example.com", "mq.example.com", True, True),
        ("*.example.com", "mq.example.com", False, False),
        ("*.example.com", "a.b.example.com", True, False),
        ("*.example.com", "example.com", True, False),
        ("*.com", "example.com", True, False),
        ("m*.example.com", "mq.example.com", True, False),
        ("*.*.com", "a.b.com", True, False),
        ("", "", True, False),
        ("*.example.com", ".example.com", True, False),
    ],
)
def test_a_presented_name_covers_a_reference(presented: str, reference: str, wildcards: bool, expected: bool) -> None:
    """Whole left-most wildcard labels only, case and trailing dot ignored."""
    assert expected == matches(presented, reference, wildcards=wildcards)


def certificate(*names: str, common_name: str | None = None) -> x509.Certificate:
    issued = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert(*names, common_name=common_name)
    return x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())


@pytest.mark.parametrize(
    ("names", "common_name", "expected"),
    [
        (("192.0.2.7",), None, True),
        (("192.0.2.8",), "192.0.2.7", False),
        (("mq.example.com",), "192.0.2.7", False),
        (("*.0.2.7",), None, False),
        ((), "192.0.2.7", True),
        (("mq.example.com", "192.0.2.7"), None, True),
    ],
)
def test_a_reference_may_be_an_address(names: tuple[str, ...], common_name: str | None, expected: bool) -> None:
    """It must be an iPAddress entry, and never falls under a wildcard; the common name is the last resort again."""
    found = certificate(*names, common_name=common_name)
    assert expected == carries(found, dns="192.0.2.7", common_name=None, wildcards=True)


def test_addresses_of_ipv6_are_compared_by_value() -> None:
    """However they are written."""
    found = certificate("2001:db8::7")
    assert carries(found, dns="2001:DB8:0:0::7", common_name=None, wildcards=True)
    assert not carries(found, dns="2001:db8::8", common_name=None, wildcards=True)


def test_the_common_name_counts_only_without_dns_names() -> None:
    """RFC 6125 section 6.4.4: CN is a last resort."""
    with_dns = certificate("san.example.com", common_name="cn.example.com")
    without = certificate("192.0.2.1", common_name="cn.example.com")
    assert not carries(with_dns, dns="cn.example.com", common_name=None, wildcards=True)
    assert carries(with_dns, dns="san.example.com", common_name=None, wildcards=True)
    assert carries(without, dns="cn.example.com", common_name=None, wildcards=True)


def test_both_references_must_hold() -> None:
    """HostReferenceIdDNS and HostReferenceIdCN are two demands, not alternatives."""
    both = certificate("san.example.com", common_name="cn.example.com")
    assert carries(both, dns="san.example.com", common_name="cn.example.com", wildcards=True)
    assert not carries(both, dns="san.example.com", common_name="other.example.com", wildcards=True)
