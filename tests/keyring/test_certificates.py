"""X.509 without files: building, reading every format, chains."""

import contextlib
import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from attls.errors import KeyringError
from attls.keyring import certificates
from attls.keyring.certificates import Profile, Signer, build, extension_of, generate_key, subject_name

from .workshop import NOW


def make(
    name: str, signer: Signer | None = None, *, authority: bool = False, days: int = 10, now: datetime.datetime = NOW
) -> Signer:
    """A certificate with its key."""
    key = generate_key("ecdsa-p256")
    profile = Profile(subject=subject_name(name), days=days, is_authority=authority)
    return Signer(build(profile, key.public_key(), signer=signer, own_key=key, now=now), key)


def test_an_authority_says_all_that_verifiers_ask_for() -> None:
    """Critical constraints and usage, key identifiers, a random serial."""
    root = make("Root", authority=True).certificate
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert constraints.value.ca
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign) == (True, True)
    own = extension_of(root, x509.SubjectKeyIdentifier)
    issuer = extension_of(root, x509.AuthorityKeyIdentifier)
    assert own is not None
    assert issuer is not None
    assert own.digest == issuer.key_identifier
    assert root.serial_number.bit_length() > 64


def test_a_leaf_serves_both_roles_and_no_authority() -> None:
    """Server and client authentication, critical CA:FALSE."""
    root = make("Root", authority=True)
    leaf = make("leaf", root).certificate
    usages = extension_of(leaf, x509.ExtendedKeyUsage)
    assert usages is not None
    assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} == set(usages)
    assert not certificates.is_authority(leaf)
    assert certificates.is_issued_by(leaf, root.certificate)


@pytest.mark.parametrize("kind", certificates.KEY_TYPES)
def test_every_key_type_signs_and_is_named_as_it_was_asked_for(kind: str) -> None:
    """What --key-type makes, summary calls by the same name."""
    key = generate_key(kind)
    profile = Profile(subject=subject_name("x"), days=1)
    made = build(profile, key.public_key(), signer=None, own_key=key, now=NOW)
    assert kind == certificates.key_type(made.public_key())
    assert certificates.is_self_signed(made)
    again = certificates.load_private_key(certificates.private_key_pem(key, b"pw"), b"pw")
    assert certificates.public_key_bytes(key) == certificates.public_key_bytes(again)


def test_a_certificate_does_not_outlive_its_issuer() -> None:
    """Dates are cut to those of the authority."""
    root = make("Root", authority=True, days=5)
    leaf = make("leaf", root, days=100).certificate
    assert root.certificate.not_valid_after_utc == leaf.not_valid_after_utc
    assert root.certificate.not_valid_before_utc <= leaf.not_valid_before_utc


def test_a_leaf_cannot_sign() -> None:
    """Signing with what is no authority is refused."""
    leaf = make("leaf", make("Root", authority=True))
    with pytest.raises(KeyringError, match="no certificate authority"):
        make("below", leaf)


def test_path_length_zero_stops_further_authorities() -> None:
    """An authority of path length 0 signs leaves only."""
    key = generate_key("ecdsa-p256")
    profile = Profile(subject=subject_name("Root"), days=10, is_authority=True, path_length=0)
    root = Signer(build(profile, key.public_key(), signer=None, own_key=key, now=NOW), key)
    make("leaf", root)
    with pytest.raises(KeyringError, match="path length"):
        make("Sub", root, authority=True)


def test_a_clock_far_off_is_noticed_before_anything_is_signed() -> None:
    """1970, the far future, a clock before the authority's birth, and an expired authority each have their sentence."""
    for year in (1970, 2200, 9999):
        with pytest.raises(KeyringError, match=f"clock of this machine says {year}"):
            make("Root", authority=True, now=datetime.datetime(year, 12, 31, tzinfo=datetime.UTC))
    root = make("Root", authority=True, days=10)
    with pytest.raises(KeyringError, match="is the clock right"):
        make("leaf", root, now=NOW - datetime.timedelta(days=2))
    with pytest.raises(KeyringError, match="expired") as caught:
        make("leaf", root, now=NOW + datetime.timedelta(days=11))
    assert caught.value.code == 401


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DNS:a.example,IP:10.0.0.1,IP:fd77::2", ["DNS:a.example", "IP:10.0.0.1", "IP:fd77::2"]),
        ("dns:*.a.example, 127.0.0.1 ,b.example,::1", ["DNS:*.a.example", "IP:127.0.0.1", "DNS:b.example", "IP:::1"]),
        ("EMAIL:a@b.example,URI:spiffe://x/y", ["EMAIL:a@b.example", "URI:spiffe://x/y"]),
        ("DNS:bücher.example", ["DNS:xn--bcher-kva.example"]),
    ],
)
def test_alternative_names_are_read(text: str, expected: list[str]) -> None:
    """With and without prefix, both address families, international host names."""
    assert expected == [certificates.general_name(name) for name in certificates.alternative_names(text)]


@pytest.mark.parametrize(
    "text", ["IP:300.1.1.1", "DNS:a b", "DNS:", "EMAIL:x", "URI:x", "DNS:-a.example", "FOO:bar:baz"]
)
def test_nonsense_alternative_names_are_refused(text: str) -> None:
    """The item is named in the sentence."""
    with pytest.raises(KeyringError, match="is no alternative name"):
        certificates.alternative_names(text)


@pytest.mark.parametrize(
    ("common_name", "expected"),
    [("db.example", ["DNS:db.example"]), ("10.1.1.1", ["IP:10.1.1.1"]), ("Alice", []), ("Alice B. Jones", [])],
)
def test_a_common_name_that_is_a_host_becomes_an_alternative_name(common_name: str, expected: list[str]) -> None:
    """Verifiers look at alternative names only."""
    assert expected == [certificates.general_name(name) for name in certificates.implied_names(common_name)]


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb"])
def test_impossible_common_names_are_refused(name: str) -> None:
    """X.520 allows 64 characters."""
    with pytest.raises(KeyringError, match="1 to 64"):
        subject_name(name)


def test_subjects_put_the_common_name_last() -> None:
    """Most specific first in text means least specific first in the certificate."""
    name = subject_name("Alice", "OU=Payments,O=Example,C=DE")
    assert [attribute.oid for attribute in name] == [
        NameOID.COUNTRY_NAME,
        NameOID.ORGANIZATION_NAME,
        NameOID.ORGANIZATIONAL_UNIT_NAME,
        NameOID.COMMON_NAME,
    ]


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Garbage gives a KeyringError and nothing else."""
    for candidate in (data, b"-----BEGIN CERTIFICATE-----\n" + data + b"\n-----END CERTIFICATE-----\n", b"\x30" + data):
        with contextlib.suppress(KeyringError):
            certificates.read(candidate)


ROOT = make("Root", authority=True)


@given(st.integers(0, 2000), st.integers(0, 7))
@example(12, 0)  # a certificate of version 4
def test_a_damaged_certificate_is_read_or_refused(position: int, bit: int) -> None:
    """A flipped bit anywhere never escapes as another kind of error, not even when it is displayed."""
    data = bytearray(certificates.der(ROOT.certificate))
    data[position % len(data)] ^= 1 << bit
    try:
        found = certificates.read(bytes(data)).certificates
        for certificate in found:
            certificates.summary(certificate)
            certificates.chain(certificate, [ROOT.certificate])
    except KeyringError:
        pass


def test_a_cut_off_pem_is_told_from_an_unknown_file() -> None:
    """The sentence says what is cut off and where."""
    whole = certificates.pem(ROOT.certificate)
    with pytest.raises(KeyringError, match="cut off: the CERTIFICATE that starts at byte 0 has no end"):
        certificates.read(whole[:-20], name="x.pem")
    with pytest.raises(KeyringError, match="cut off"):
        certificates.read(whole[:-30] + whole)
    with pytest.raises(KeyringError, match="is not a certificate"):
        certificates.read(b"hello")


def test_pem_is_read_from_ebcdic() -> None:
    """A file that came from z/OS as binary is the same file."""
    ebcdic = certificates.pem(ROOT.certificate).decode().encode("cp037")
    assert [ROOT.certificate] == certificates.read(ebcdic).certificates


def test_too_many_certificates_are_refused() -> None:
    """A bundle of thousands is a mistake."""
    with pytest.raises(KeyringError, match="more than 2000"):
        certificates.read(certificates.pem(ROOT.certificate) * 2001)


def test_a_key_of_another_certificate_is_noticed() -> None:
    """Mixing up key files is the commonest mistake there is."""
    other = generate_key("ecdsa-p256")
    contents = certificates.read(certificates.pem(ROOT.certificate) + certificates.private_key_pem(other))
    with pytest.raises(KeyringError, match="does not belong") as caught:
        certificates.split_identity(contents, name="x.pem")
    assert caught.value.code == 428


def test_the_leaf_is_the_one_whose_key_is_there() -> None:
    """The order of a bundle does not matter."""
    leaf = make("leaf", ROOT)
    data = (
        certificates.pem(ROOT.certificate)
        + certificates.private_key_pem(leaf.private_key)
        + certificates.pem(leaf.certificate)
    )
    contents = certificates.read(data)
    assert contents.clear_key
    found, key, others = certificates.split_identity(contents, name="x")
    assert (leaf.certificate, [ROOT.certificate]) == (found, others)
    assert key is not None


def test_a_chain_ends_at_the_root_and_prefers_it_to_its_cross_signed_twin() -> None:
    """With root and twin both there, the path is the short one."""
    other_root = make("Other", authority=True)
    key = generate_key("ecdsa-p256")
    profile = Profile(subject=subject_name("Root"), days=10, is_authority=True)
    root = Signer(build(profile, key.public_key(), signer=None, own_key=key, now=NOW), key)
    twin = build(profile, key.public_key(), signer=other_root, own_key=None, now=NOW)
    middle = make("Middle", root, authority=True)
    leaf = make("leaf", middle)
    pool = [other_root.certificate, twin, leaf.certificate, middle.certificate]
    assert [middle.certificate, twin, other_root.certificate] == certificates.chain(leaf.certificate, pool)
    assert [middle.certificate, root.certificate] == certificates.chain(leaf.certificate, [*pool, root.certificate])


def test_intermediates_leave_out_leaf_and_root() -> None:
    """What is sent after the certificate starts at its issuer and stops before the root."""
    middle = make("Middle", ROOT, authority=True)
    leaf = make("leaf", middle)
    pool = [certificates.der(one.certificate) for one in (ROOT, leaf, middle)]
    assert (certificates.der(middle.certificate),) == certificates.intermediates(
        certificates.der(leaf.certificate), pool
    )
    assert certificates.intermediates(certificates.der(ROOT.certificate), pool) == ()


def test_a_name_alone_makes_no_issuer() -> None:
    """An authority of the same name with another key is not taken into the chain."""
    impostor = make("Root", authority=True)
    leaf = make("leaf", ROOT)
    assert certificates.chain(leaf.certificate, [impostor.certificate]) == []


@given(st.ip_addresses())
def test_addresses_survive_the_way_through_a_certificate(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Every address given as --san is the address in the certificate."""
    (name,) = certificates.alternative_names(f"IP:{address}")
    assert f"IP:{address}" == certificates.general_name(name)


def test_der_and_bare_base64_are_read() -> None:
    """Windows and z/OS tools write both."""
    body = certificates.der(ROOT.certificate)
    bare = b"".join(certificates.pem(ROOT.certificate).splitlines()[1:-1])
    assert [ROOT.certificate] == certificates.read(body).certificates == certificates.read(bare).certificates
    request = certificates.build_request(subject_name("x"), (), ROOT.private_key)
    assert [request] == certificates.read(request.public_bytes(serialization.Encoding.DER)).requests


def test_a_pkcs12_file_with_several_keys_is_refused_before_it_is_opened() -> None:
    """The library would take one of them without a word; every key has a bag of its own to count."""
    bag = bytes.fromhex("060b2a864886f70d010c0a0102")
    with pytest.raises(KeyringError, match="several private keys"):
        certificates.read(b"\x30\x82\x01\x00\x02\x01\x03" + bag + b"\x00" * 9 + bag, password=b"x")


def test_an_rsa_key_whose_numbers_are_unsound_is_refused_each_time() -> None:
    """A key that fails the proof is not remembered as proven, whatever sound keys were read before and between."""
    sound = rsa.generate_private_key(65537, 2048)
    numbers = sound.private_numbers()
    broken = rsa.RSAPrivateNumbers(
        p=numbers.p,
        q=numbers.q,
        d=numbers.d + 2,
        dmp1=numbers.dmp1,
        dmq1=numbers.dmq1,
        iqmp=numbers.iqmp,
        public_numbers=numbers.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)
    outcomes: list[object] = []
    for pem in [certificates.private_key_pem(key) for key in (sound, broken, sound, broken)]:
        try:
            outcomes.append(certificates.load_private_key(pem).public_key())
        except KeyringError as error:
            outcomes.append(error.code)
    assert [sound.public_key(), 428, sound.public_key(), 428] == outcomes
