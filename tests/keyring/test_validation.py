"""The validation modes."""

import dataclasses

import pytest
from cryptography import x509

from attls.errors import KeyringError
from attls.keyring import certificates
from attls.keyring.certificates import Profile, Signer, build, generate_key, subject_name
from attls.keyring.validation import Mode, Role, check

from .workshop import NOW

KEY = generate_key("ecdsa-p256")


def make(name: str, signer: Signer | None = None, **more: object) -> Signer:
    profile = dataclasses.replace(Profile(subject=subject_name(name), days=3), **more)  # type: ignore[arg-type]
    return Signer(build(profile, KEY.public_key(), signer=signer, own_key=KEY, now=NOW), KEY)


ROOT = make("Root", is_authority=True)
MIDDLE = make("Middle", ROOT, is_authority=True)
LEAF = make("leaf", MIDDLE)


def codes(*chain: Signer, role: Role = Role.SERVER) -> dict[str, int]:
    """The return code of each mode, 0 for satisfied."""
    found = {}
    for mode in Mode:
        try:
            check([certificates.der(one.certificate) for one in chain], role, mode)
            found[mode.value] = 0
        except KeyringError as error:
            found[mode.value] = error.code
    return found


def expect(old: int, middle: int, new: int) -> dict[str, int]:
    return {"Any": old, "RFC2459": old, "RFC3280": middle, "RFC5280": new, "Max": new}


@pytest.mark.parametrize("role", list(Role))
def test_an_ordinary_chain_satisfies_every_mode(role: Role) -> None:
    """With and without the root."""
    assert codes(LEAF, MIDDLE, ROOT, role=role) == codes(LEAF, MIDDLE, role=role) == expect(0, 0, 0)


def test_the_extended_usage_counts_under_5280() -> None:
    """A client certificate is no server, except where nobody asked."""
    client = make("client", MIDDLE, purposes=("client",))
    assert codes(client, MIDDLE, ROOT) == expect(0, 0, 440)
    assert codes(client, MIDDLE, ROOT, role=Role.CLIENT) == expect(0, 0, 0)


def test_critical_extensions_that_nobody_understands_count_from_3280() -> None:
    """Wherever in the chain."""
    oid = x509.ObjectIdentifier("1.2.3.4")
    odd = x509.Extension(oid, True, x509.UnrecognizedExtension(oid, b"\x05\x00"))
    assert codes(make("odd", MIDDLE, extra=(odd,)), MIDDLE, ROOT) == expect(0, 8, 8)
    strange = make("Strange", ROOT, is_authority=True, extra=(odd,))
    assert codes(make("x", strange), strange, ROOT) == expect(0, 8, 8)


def raw(name: str, signer: Signer, *extensions: tuple[x509.ExtensionType, bool]) -> Signer:
    """A certificate that our own builder would refuse to make."""
    builder = (
        x509.CertificateBuilder().subject_name(subject_name(name)).issuer_name(signer.certificate.subject)
        .public_key(KEY.public_key()).serial_number(5).not_valid_before(NOW)
        .not_valid_after(signer.certificate.not_valid_after_utc)
    )  # fmt: skip
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Signer(builder.sign(KEY, certificates.signature_hash(KEY)), KEY)


def usage(**on: bool) -> x509.KeyUsage:
    words = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only"
    )
    return x509.KeyUsage(**{word: on.get(word, False) for word in words.split()})


def test_a_leaf_or_a_forbidden_key_cannot_be_in_the_middle() -> None:
    """In no mode."""
    assert codes(LEAF, make("leaf2", ROOT), ROOT) == expect(8, 8, 8)
    ca = x509.BasicConstraints(ca=True, path_length=None)
    forbidden = raw("F", ROOT, (ca, True), (usage(crl_sign=True), True))
    assert codes(raw("x", forbidden), forbidden, ROOT) == expect(440, 440, 440)


def test_the_path_length_counts() -> None:
    """An authority that may sign leaves only has no authorities below it."""
    short = make("Short", ROOT, is_authority=True, path_length=0)
    below = raw("Below", short, (x509.BasicConstraints(ca=True, path_length=None), True))
    assert codes(raw("x", short), short, ROOT) == expect(0, 0, 0)
    assert codes(raw("x", below), below, short, ROOT) == expect(8, 8, 8)


def test_a_key_that_may_not_be_used_for_tls_counts_from_3280() -> None:
    """One that only signs documents, say."""
    signer = raw("doc", MIDDLE, (usage(content_commitment=True), True))
    assert codes(signer, MIDDLE, ROOT) == expect(0, 440, 440)


def test_no_certificate_is_return_code_403() -> None:
    """Rather than a chain in order."""
    with pytest.raises(KeyringError) as caught:
        check([], Role.CLIENT, Mode.ANY)
    assert caught.value.code == 403
