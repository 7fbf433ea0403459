"""Each parameter does what it says in the TLS that comes out; the other end is the standard library's."""

from __future__ import annotations

import contextlib
import dataclasses
import ssl
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from attls import errors
from attls.errors import KeyringError, Reason, TlsError
from attls.keyring import Entry, Keyring, Trust, Usage
from attls.model import ClientAuthType, Demand, HandshakeRole, Protocol
from attls.policy import codes
from attls.tls import EngineError, Environment, WantReadError, groups, identify, reasons, verification
from attls.tls.ciphers import NAMES
from attls.tls.groups import of_client, of_server
from tests.relay.street import TLS12, TLS13, authority, client_context, der, leaf, ring, server_context, settings
from tests.tls import kinds
from tests.tls.meetings import close, meet

OLD = TLS12 | {Protocol.TLSV1_1}
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
NO_EXTENDED_MASTER_SECRET = 0x1  # an OpenSSL option that the standard library has no name for


@cache
def rsa_leaf() -> trustme.LeafCert:
    return authority().issue_cert("rsa.test", "server.test", common_name="rsa.test", key_type=trustme.KeyType.RSA)


def mixed_ring() -> Keyring:
    """Return a ring with an ECDSA and an RSA certificate."""
    plain = ring("server.test", "other.test")
    entry = Entry("TEST", "rsa", Usage.PERSONAL, False, Trust.TRUST, der(rsa_leaf().cert_chain_pems[0].bytes()),
                  rsa_leaf().private_key_pem.bytes())  # fmt: skip
    return dataclasses.replace(plain, entries=(entry, *plain.entries))


def server(*names: str, **changes: Any) -> Environment:
    return Environment(settings(**changes), ring(*(names or ("server.test",))))


def client(**changes: Any) -> Environment:
    return Environment(settings(HandshakeRole.CLIENT, **changes), ring())


def offering(curve: str, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = client_context(version)
    try:
        context.set_ecdh_curve(curve)
    except ssl.SSLError:  # Python before 3.11.4 knows the NIST curves only
        pytest.skip(f"the ssl module of this Python cannot be held to {curve}")
    return context


# Cipher suites


def test_a_server_takes_its_own_first_cipher() -> None:
    """The order of V3CipherSuites counts, not the client's."""
    context = client_context(ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256")
    for listed_ciphers in (("C02B", "C02C"), ("C02C", "C02B")):
        cipher = meet(server(ciphers=listed_ciphers), context).ours.get_cipher_name() or ""
        assert ("128" in cipher) == (listed_ciphers[0] == "C02B")


@VERSIONS
def test_a_client_offers_its_ciphers_in_order(version: ssl.TLSVersion) -> None:
    """A server without a will of its own takes the first one."""
    context = server_context(version)
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    for first, second in (("1301", "1302"), ("1302", "1301")):
        wanted = (first, second, "C02B", "C02C") if first == "1301" else (first, second, "C02C", "C02B")
        cipher = meet(client(ciphers=wanted), context).ours.get_cipher_name() or ""
        assert ("128" in cipher) == (first == "1301")


@pytest.mark.parametrize(("size", "bits"), [("Legacy", 2048), ("2048", 2048), ("Match", 2048)])
def test_dhe_suites_work_as_server(size: str, bits: int) -> None:
    """A list of nothing but TLS_DHE_RSA suites finds a Diffie-Hellman group."""
    environment = Environment(settings(ciphers=("009F",), certificate_label="rsa", server_dh_group=size), mixed_ring())
    context = client_context(ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("DHE-RSA-AES256-GCM-SHA384:@SECLEVEL=2")
    assert ("DHE-RSA-AES256-GCM-SHA384", "TLSv1.2", 256) == meet(environment, context).other.cipher()


@pytest.mark.parametrize("code", NAMES)
def test_every_suite_can_be_agreed_on(tmp_path: Path, code: str) -> None:
    """Alone in V3CipherSuites, in both roles; the suites of the oldest protocols work with the newer ones too."""
    version = ssl.TLSVersion.TLSv1_3 if code.startswith("13") else ssl.TLSVersion.TLSv1_2
    one, two = client_context(version), rsa_server_context(version)
    leaf("server.test").configure_cert(two)
    for context in (one, two):
        context.set_ciphers("ALL:NULL:@SECLEVEL=0")
    (tmp_path / "dh.pem").write_bytes(groups._FFDHE[2048])
    two.load_dh_params(str(tmp_path / "dh.pem"))
    environment = Environment(settings(ciphers=(code,), server_certificate_labels=("rsa", "server.test")), mixed_ring())
    for outcome in (meet(environment, one, name="rsa.test" if "RSA" in NAMES[code] else "server.test"),
                    meet(client(ciphers=(code,)), two)):  # fmt: skip
        assert (None, NAMES[code]) == (outcome.reason, identify(outcome.ours.get_cipher_name() or "")[1])


def test_a_suite_that_is_not_listed_is_not_used() -> None:
    """Neither end takes another one."""
    for code in ("C02C", "1302"):
        version = ssl.TLSVersion.TLSv1_3 if code == "1302" else ssl.TLSVersion.TLSv1_2
        contexts = client_context(version), server_context(version)
        other = {"C02C": "C02B", "1302": "1301"}[code]
        for context in contexts:
            context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        if code == "C02C":
            assert meet(server(ciphers=(other,)), contexts[0]).reason is not None
            assert meet(client(ciphers=(other,)), contexts[1]).reason is not None
        else:
            assert "TLS_AES_128_GCM_SHA256" == meet(server(ciphers=(other,)), contexts[0]).ours.get_cipher_name()
            assert "TLS_AES_128_GCM_SHA256" == meet(client(ciphers=(other,)), contexts[1]).ours.get_cipher_name()


@pytest.mark.parametrize(
    ("protocols", "size", "code"),
    [(TLS12, "Legacy", 410), (TLS12, "2048", 410), (OLD, "2048", 402), (OLD, "Legacy", 0)],
)
def test_a_client_refuses_small_groups(tmp_path: Path, protocols: frozenset[Protocol], size: str, code: int) -> None:
    """ClientEDHGroupSize 2048 always, Legacy unless TLS 1.0 or 1.1 is on; the server here has a group of 1024 bits."""
    path = tmp_path / "dh.pem"
    path.write_text(OAKLEY_2)
    context = rsa_server_context(ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("DHE-RSA-AES256-SHA:DHE-RSA-AES256-GCM-SHA384:@SECLEVEL=0")
    context.load_dh_params(str(path))
    reason = meet(client(protocols=protocols, client_dh_group=size), context).reason
    assert code == (reason.code if reason is not None else 0)


# Certificates


@pytest.mark.parametrize(("suite", "kind"), [("ECDHE-RSA-AES256-GCM-SHA384", "rsa.test"),
                                             ("ECDHE-ECDSA-AES256-GCM-SHA384", "server.test")])  # fmt: skip
def test_server_certificate_labels_serve_both_kinds_of_keys(suite: str, kind: str) -> None:
    """ServerCertificateLabel with an RSA and an ECDSA certificate: the one that fits the cipher is shown."""
    environment = Environment(
        settings(protocols=TLS12, server_certificate_labels=("rsa", "server.test", "other.test")), mixed_ring()
    )
    context = client_context(ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(suite)
    assert kind in meet(environment, context).certificate


# Protocols


@pytest.mark.parametrize(
    ("protocols", "expected"),
    [
        ({Protocol.TLSV1, Protocol.TLSV1_2, Protocol.TLSV1_3}, "TLSv1.3"),
        ({Protocol.TLSV1, Protocol.TLSV1_1, Protocol.TLSV1_3}, "TLSv1.3"),
        ({Protocol.TLSV1, Protocol.TLSV1_2}, "TLSv1.2"),
    ],
)
def test_a_gap_between_protocols_leaves_a_client_the_newer_ones(protocols: set[Protocol], expected: str) -> None:
    """The library by itself would offer the oldest alone, which is less than the policy asks for."""
    meeting = meet(client(protocols=frozenset(protocols)), server_context())
    assert (None, expected) == (meeting.reason, meeting.ours.get_protocol_version_name())


def test_a_gap_counts_where_there_are_suites_above_it() -> None:
    """A protocol whose list of suites is empty is off, so it makes nothing below it go away."""
    environment = client(protocols=frozenset({Protocol.TLSV1_2, Protocol.TLSV1_3}), ciphers=("C02B",))
    assert "TLSv1.2" == meet(environment, server_context()).ours.get_protocol_version_name()


# Names


@VERSIONS
@pytest.mark.parametrize("piece", [65536, 7])
def test_the_name_chooses_the_certificate(version: ssl.TLSVersion, piece: int) -> None:
    """ServerHandshakeSNI: the label beside the name is presented, however the ClientHello arrives."""
    environment = server(
        "server.test", "other.test", server_sni=(("other.test", "other.test"),), server_sni_demand=Demand.OPTIONAL
    )
    for name in ("server.test", "other.test", "OTHER.test"):
        assert {name.lower()} == meet(environment, client_context(version), name=name, piece=piece).certificate


def test_a_name_of_the_list_may_stand_for_many() -> None:
    """`*.test` in ServerHandshakeSNIList fits one level of names, and a name that is written out counts more."""
    pairs = (("*.test", "other.test"), ("server.test", "server.test"))
    environment = server("server.test", "other.test", server_sni=pairs, server_sni_demand=Demand.OPTIONAL)
    for name, expected in (("server.test", "server.test"), ("other.test", "other.test")):
        assert {expected} == meet(environment, client_context(), name=name).certificate
    strict = server(
        "other.test", server_sni=pairs[:1], server_sni_demand=Demand.OPTIONAL, server_sni_match_required=True
    )
    assert errors.UNKNOWN_SERVER_NAME is meet(strict, client_context(), name="a.other.test").reason


@VERSIONS
def test_a_client_without_a_name_is_refused_where_one_is_required(version: ssl.TLSVersion) -> None:
    """ServerHandshakeSNI Required; Optional shows the default certificate."""
    names = {"server_sni": (("server.test", "server.test"),)}
    context = client_context(version)
    refused = meet(server(**names, server_sni_demand=Demand.REQUIRED), context, name=None)
    assert errors.NO_SERVER_NAME is refused.reason
    assert "alert" in refused.complaint.lower()
    served = meet(server(**names, server_sni_demand=Demand.OPTIONAL), context, name=None)
    assert (None, "") == (served.reason, served.complaint)


@VERSIONS
def test_an_unknown_name_is_refused_where_a_match_is_required(version: ssl.TLSVersion) -> None:
    """ServerHandshakeSNIMatch Required sends the alert unrecognized_name; Optional shows the default certificate."""
    names = {"server_sni": (("other.test", "other.test"),), "server_sni_demand": Demand.OPTIONAL}
    strict = server("server.test", "other.test", **names, server_sni_match_required=True)
    refused = meet(strict, client_context(version), name="server.test")
    assert errors.UNKNOWN_SERVER_NAME is refused.reason
    assert "UNRECOGNIZED_NAME" in refused.complaint.replace(" ", "_").upper()
    assert {"other.test"} == meet(strict, client_context(version), name="other.test").certificate


def test_a_name_with_a_label_that_is_missing_is_found_at_once() -> None:
    """The environment is refused, not the first client that asks."""
    with pytest.raises(KeyringError, match="nowhere"):
        server(server_sni=(("a.test", "nowhere"),), server_sni_demand=Demand.OPTIONAL)


def test_a_client_sends_the_name_and_may_insist_on_its_confirmation() -> None:
    """ClientHandshakeSNI Required refuses a server of TLS 1.2 that does not confirm it; Optional does not."""
    heard: list[str | None] = []
    silent, confirming = server_context(ssl.TLSVersion.TLSv1_2), server_context(ssl.TLSVersion.TLSv1_2)
    confirming.sni_callback = lambda _socket, name, _context: heard.append(name)
    required = client(sni_names=("server.test",), sni_required=True)
    assert errors.UNCONFIRMED_NAME is meet(required, silent).reason
    assert None is meet(required, confirming).reason
    assert None is meet(client(sni_names=("server.test",)), silent).reason
    assert ["server.test"] == heard


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".test", "ä" * 70])
def test_a_name_that_cannot_be_sent_is_refused_or_sent(name: str) -> None:
    """No name of a policy breaks the relay later."""
    with contextlib.suppress(TlsError):
        client(sni_names=(name,)).engine(("192.0.2.1", 443), 0.0)


def test_a_warning_about_the_name_counts_where_a_match_is_required() -> None:
    """ClientHandshakeSNIMatch Required: a server that warns and goes on under another name is refused."""
    for required, expected in ((True, errors.UNCONFIRMED_NAME), (False, None)):
        environment = client(sni_names=("server.test",), sni_match_required=required, protocols=TLS12)
        engine = environment.engine(("192.0.2.1", 443), 0.0)
        engine.bio_write(bytes((21, 3, 3, 0, 2, 1, 112)))
        assert expected is _complete(environment, engine)


def _complete(environment: Environment, engine: Any) -> Reason | None:
    # Finish a client's handshake that has already heard something.
    other = server(protocols=TLS12).engine(("", 0), 0.0)
    for _ in range(6):
        for one, two in ((engine, other), (other, engine)):
            try:
                one.do_handshake()
            except WantReadError:
                pass
            except EngineError as error:
                return environment.explain(one, error)[0]
            with contextlib.suppress(WantReadError):
                two.bio_write(one.bio_read(65536))
    return None


@VERSIONS
@pytest.mark.parametrize(
    ("changes", "refused"),
    [({"host_reference_dns": "a.many.test"}, False),
     ({"host_reference_dns": "a.many.test", "host_wildcards": False}, True),
     ({"host_reference_dns": "many.test"}, True), ({"host_reference_cn": "many"}, False),
     ({"host_reference_cn": "other"}, True)],
)  # fmt: skip
def test_the_server_is_who_policy_says(version: ssl.TLSVersion, changes: dict[str, Any], refused: bool) -> None:
    """HostReferenceIdDNS and CN, with HostRefWildcardValidation; the certificate here is for *.many.test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    authority().issue_cert("*.many.test", common_name="many").configure_cert(context)
    outcome = meet(client(**changes), context)
    assert (errors.NAME_MISMATCH if refused else None) is outcome.reason


@pytest.mark.parametrize(("least", "refused"), [(1024, False), (2048, True)])
def test_small_dsa_keys_are_refused(least: int, refused: bool) -> None:
    """PeerMinDsaKeySize."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dsa")])
    key = dsa.generate_private_key(1024)
    now = datetime(2024, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    certificate = crypto.X509.from_cryptography(builder.sign(key, hashes.SHA256()))
    with pytest.raises(verification.RefusedError, match="too small") if refused else contextlib.nullcontext():
        verification.check_key(certificate, settings(peer_minimum_dsa_bits=least))


# Groups

# RFC 2409 section 6.2
OAKLEY_2 = """-----BEGIN DH PARAMETERS-----
MIGHAoGBAP//////////yQ/aoiFowjTExmKLgNwc0SkCTgiKZ8x0Agu+pjsTmyJR
Sgh5jjQE3e+VGbPNOkMbMCsKbfJfFDdP4TVtbVHCReSFtXZiXn7G9ExC6aY37WsL
/1y29Aa37e44a/taiZ+lrp8kEXxLH+ZJKGZR7OZTgf//////////AgEC
-----END DH PARAMETERS-----
"""
GROUPS = {23: "prime256v1", 24: "secp384r1", 25: "secp521r1", 29: "X25519", 30: "X448"}


@VERSIONS
@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [((24, 23), 23, "secp256r1"), ((23, 24), 24, "secp384r1"), ((25,), 25, "secp521r1"), ((29, 23), 29, "x25519"),
     ((29,), 29, "x25519"), ((24,), 23, None), ((24,), 29, None), ((29,), 23, None)],
)  # fmt: skip
def test_a_server_uses_listed_groups_only(
    version: ssl.TLSVersion, wanted: tuple[int, ...], offered: int, expected: str | None
) -> None:
    """ServerKexECurves up to TLS 1.2, ServerKeyShareGroups with TLS 1.3; what else a client offers is refused."""
    new = version is ssl.TLSVersion.TLSv1_3
    lists: dict[str, Any] = {"server_key_share_groups": wanted} if new else {"server_kex_curves": wanted}
    other: dict[str, Any] = {"server_kex_curves": (25,)} if new else {"server_key_share_groups": (25,)}
    environment = Environment(settings(**lists, **other, certificate_label="rsa"), mixed_ring())
    outcome = meet(environment, offering(GROUPS[offered], version))
    if expected is None:
        # Before TLS 1.3 there are suites without a curve.
        assert outcome.reason is not None or outcome.complaint or "DHE-RSA" in (outcome.ours.get_cipher_name() or "")
        assert "ECDHE" not in (outcome.ours.get_cipher_name() or "")
    else:
        assert (None, expected) == (outcome.reason, outcome.ours.get_group_name())


@pytest.mark.parametrize("first", [23, 24, 25])
def test_a_server_prefers_by_its_own_order(first: int) -> None:
    """A client that offers everything gets the server's first group, at the price of one more round trip."""
    environment = server(server_key_share_groups=(first, 23, 24, 25))
    outcome = meet(environment, client_context(ssl.TLSVersion.TLSv1_3))
    assert None is outcome.reason
    assert f"secp{ {23: 256, 24: 384, 25: 521}[first] }r1" == outcome.ours.get_group_name()


@VERSIONS
@pytest.mark.parametrize(
    "wanted", [(23,), (24, 25), (25, 24), (29, 23), (30,), (24, 23, 29), (19, 24), (4588, 23), (26, 27, 23), (256, 23)]
)
def test_a_client_offers_exactly_the_groups_of_policy(version: ssl.TLSVersion, wanted: tuple[int, ...]) -> None:
    """ClientECurves: these and no others, in this order; 0019 does not exist here and is left out."""
    offered = _groups_in(_first_flight(client(client_curves=wanted, protocols=_only(version))))
    # Up to TLS 1.2 there are no hybrids, and with TLS 1.3 alone no Brainpool curves.
    absent = {19, 4588} if version is ssl.TLSVersion.TLSv1_2 else {19, 26, 27}
    assert tuple(group for group in wanted if group not in absent) == offered


@pytest.mark.parametrize(
    ("wanted", "shares", "expected"),
    [((23, 24, 29), (24,), (24,)), ((23, 24, 29), (29, 23), (23, 29)), ((23, 24), (), (23,)), ((), (24, 23), (23, 24)),
     ((23, 24), (29,), (23,)), ((4588, 23), (4588, 23), (4588, 23))],
)  # fmt: skip
def test_a_client_sends_the_key_shares_of_policy(
    wanted: tuple[int, ...], shares: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """ClientKeyShareGroups: for these, as far as ClientECurves has them; else for its first."""
    flight = _first_flight(client(client_curves=wanted, client_key_share_groups=shares, protocols=TLS13))
    assert expected == _key_shares_in(flight)


def test_a_client_that_asks_for_more_than_the_server_has_is_refused() -> None:
    """A post-quantum group alone: the standard library's server has none here, and nothing weaker is taken."""
    outcome = meet(client(client_curves=(4589,)), server_context(ssl.TLSVersion.TLSv1_3))
    assert outcome.reason is not None
    assert (402, False) == (outcome.reason.code, outcome.other.cipher() is not None)


@pytest.mark.parametrize("changes", [{"client_curves": (19, 21)}, {"signature_pairs": ("0101",)}])
def test_a_list_of_what_does_not_exist_is_refused(changes: dict[str, Any]) -> None:
    """Nothing stands in for it."""
    with pytest.raises(TlsError):
        client(**changes)


def _first_flight(environment: Environment) -> bytes:
    _shake(environment.engine(("192.0.2.1", 443), 0.0), quiet := _Quiet())
    return quiet.heard


def _only(version: ssl.TLSVersion) -> frozenset[Protocol]:
    return TLS13 if version is ssl.TLSVersion.TLSv1_3 else TLS12


def _extension(flight: bytes, wanted: int) -> bytes:
    # The content of one extension of the ClientHello in `flight` (RFC 8446 section 4.1.2).
    message = b""
    while flight:
        length = int.from_bytes(flight[3:5])
        message, flight = message + flight[5 : 5 + length], flight[5 + length :]
    position = 38 + 1 + message[38]
    position += 2 + int.from_bytes(message[position : position + 2])
    position += 1 + message[position] + 2
    while position < len(message):
        kind, length = (
            int.from_bytes(message[position : position + 2]),
            int.from_bytes(message[position + 2 : position + 4]),
        )
        if kind == wanted:
            return message[position + 4 : position + 4 + length]
        position += 4 + length
    return b""


def _groups_in(flight: bytes) -> tuple[int, ...]:
    content = _extension(flight, 10)
    return tuple(int.from_bytes(content[index : index + 2]) for index in range(2, len(content), 2))


def _key_shares_in(flight: bytes) -> tuple[int, ...]:
    content, found = _extension(flight, 51)[2:], []
    while content:
        found.append(int.from_bytes(content[:2]))
        content = content[4 + int.from_bytes(content[2:4]) :]
    return tuple(found)


def _signatures_in(flight: bytes) -> list[str]:
    content = _extension(flight, 13)
    return [content[index : index + 2].hex() for index in range(2, len(content), 2)]


def test_a_post_quantum_group_is_reachable() -> None:
    """X25519MLKEM768 on both ends is what comes out."""
    engine = client(client_curves=(4588,)).engine(("192.0.2.1", 443), 0.0)
    other = server(server_key_share_groups=(4588,)).engine(("", 0), 0.0)
    _shake(engine, other)
    assert ("X25519MLKEM768",) * 2 == (engine.get_group_name(), other.get_group_name())


def _shake(engine: Any, other: Any) -> None:
    for _ in range(6):
        for one, two in ((engine, other), (other, engine)):
            with contextlib.suppress(WantReadError):
                one.do_handshake()
            with contextlib.suppress(WantReadError):
                two.bio_write(one.bio_read(65536))


def test_every_group_that_the_vocabulary_calls_available_is_known_to_the_library() -> None:
    """Each by itself makes an environment, in both roles; what it calls missing does not."""
    for group in codes.GROUPS:
        lists: dict[str, Any] = {
            "client_curves": (group,),
            "server_kex_curves": (group,),
            "server_key_share_groups": (group,),
        }
        for make in (client, server):
            with pytest.raises(TlsError) if group in codes.MISSING_GROUPS else contextlib.nullcontext():
                make(**lists)


def test_lists_of_groups_in_the_words_of_the_library() -> None:
    """A star is a key share, a slash a group that counts before all behind it."""
    assert (None, None) == (of_client((), ()), of_server(()))
    assert "secp384r1:*X25519" == of_client((24, 19, 29), (29,))
    assert "X25519/secp256r1" == of_server((29, 21, 23))


# Signatures


@pytest.mark.parametrize("pairs", [("0403", "0503"), ("0503", "0403"), ("0806", "0805", "0804"), ("0603", "0807")])
def test_a_client_offers_exactly_the_signature_pairs_of_policy(pairs: tuple[str, ...]) -> None:
    """SignaturePairs, in this order."""
    assert list(pairs) == _signatures_in(_first_flight(client(signature_pairs=pairs, protocols=TLS13)))


@VERSIONS
@pytest.mark.parametrize(("pairs", "good"), [(("0503", "0401"), False), (("0503", "0403"), True)])
def test_a_server_that_can_sign_by_no_pair_of_the_client_is_not_taken(
    version: ssl.TLSVersion, pairs: tuple[str, ...], good: bool
) -> None:
    """The server here has an ECDSA key of 256 bits alone."""
    environment = client(signature_pairs=pairs, signature_pairs_cert=("0403",))
    context = server_context(version)
    context.set_ciphers("ECDHE+ECDSA")
    outcome = meet(environment, context)
    if version is ssl.TLSVersion.TLSv1_2:
        good = True  # there the pair does not say which curve: SHA-384 with this key is fine
    assert good == (outcome.reason is None)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_signs_by_its_own_pairs_only(version: ssl.TLSVersion) -> None:
    """With an RSA key: by RSA-PSS with SHA-512 where that is what policy lists, and not at all by a pair for ECDSA."""
    for pairs, served in ((("0806",), True), (("0403",), False)):
        environment = Environment(settings(certificate_label="rsa", signature_pairs=pairs), mixed_ring())
        outcome = meet(environment, client_context(version), name="rsa.test")
        assert served == (outcome.reason is None and not outcome.complaint)


@VERSIONS
@pytest.mark.parametrize(
    ("changes", "refused"),
    [({"signature_pairs_cert": ("0403",)}, False), ({"signature_pairs_cert": ("0401", "0503")}, True),
     ({"signature_pairs": ("0403", "0804")}, False), ({"signature_pairs": ("0503", "0804", "0403")}, False),
     ({"signature_pairs": ("0804", "0503"), "signature_pairs_cert": ("0403", "0401")}, False)],
)  # fmt: skip
def test_certificates_are_signed_by_a_listed_pair(
    version: ssl.TLSVersion, changes: dict[str, Any], refused: bool
) -> None:
    """SignaturePairsCert, or else SignaturePairs; the certificates of this test are signed by ECDSA with SHA-256."""
    pairs = {"signature_pairs": ("0403", "0804", "0401"), **changes}
    for environment, context in (
        (client(**pairs), rsa_server_context(version)),
        (Environment(settings(HandshakeRole.SERVER_WITH_CLIENT_AUTH, certificate_label="rsa", **pairs), mixed_ring()),
         client_context(version, identity="client.test")),
    ):  # fmt: skip
        if not environment.is_server or "0403" in pairs["signature_pairs"]:
            outcome = meet(environment, context, name="rsa.test")
            assert (reasons.OTHER_SIGNATURE if refused else None) is outcome.reason


def rsa_server_context(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = server_context(version)
    rsa_leaf().configure_cert(context)
    context.set_ciphers("ECDHE+aRSA")
    return context


@pytest.mark.parametrize(
    ("kind", "protocols", "taken"),
    [
        ("RSA-1024", TLS12, False),
        ("RSA-1024", OLD, True),
        ("RSA-2048", TLS12, True),
        ("P-224", TLS12, False),
        ("P-224", OLD, False),
        ("P-256", TLS12, True),
    ],
)
def test_small_keys_are_refused_where_check_says_so(
    tmp_path: Path, kind: str, protocols: frozenset[Protocol], taken: bool
) -> None:
    """Whatever PeerMin…KeySize lets pass, the library has limits of its own: `codes.LEAST_RSA_BITS` and its like."""
    environment = Environment(settings(HandshakeRole.CLIENT, protocols=protocols), kinds.ring(kind, "Client"))
    context = kinds.other_end(tmp_path, kind, server=True)
    assert taken == (meet(environment, context).reason is None)


# Extensions and old habits


@pytest.mark.parametrize("role", [HandshakeRole.SERVER, HandshakeRole.CLIENT])
@pytest.mark.parametrize(
    ("demand", "other_has_it", "refused"),
    [(Demand.REQUIRED, True, False), (Demand.REQUIRED, False, True), (Demand.OPTIONAL, False, False),
     (Demand.OFF, True, False)],
)  # fmt: skip
def test_extended_master_secret(role: HandshakeRole, demand: Demand, other_has_it: bool, refused: bool) -> None:
    """Required refuses a peer of TLS 1.2 without it, before our first answer leaves."""
    if role is HandshakeRole.SERVER:
        environment, context = server(server_extended_master_secret=demand), client_context(ssl.TLSVersion.TLSv1_2)
    else:
        environment, context = client(client_extended_master_secret=demand), server_context(ssl.TLSVersion.TLSv1_2)
    if not other_has_it:
        context.options |= NO_EXTENDED_MASTER_SECRET
    outcome = meet(environment, context)
    assert refused == (outcome.reason is errors.NO_MASTER_SECRET)
    assert refused == ("alert" in outcome.complaint.lower())


def test_extended_master_secret_off_is_not_offered() -> None:
    """Off leaves the extension (type 23, no content) out of the ClientHello."""
    for demand in (Demand.OFF, Demand.OPTIONAL):
        engine = client(client_extended_master_secret=demand, protocols=TLS12).engine(("192.0.2.1", 443), 0.0)
        _shake(engine, quiet := _Quiet())
        assert (demand is Demand.OPTIONAL) == (b"\x00\x17\x00\x00" in quiet.heard)


class _Quiet:
    """An end that only listens."""

    heard = b""

    def do_handshake(self) -> None:
        return

    def bio_write(self, data: bytes) -> None:
        self.heard += data

    def bio_read(self, _size: int) -> bytes:
        return b""


@VERSIONS
def test_a_client_that_asks_for_no_short_records_is_refused_where_they_are_required(version: ssl.TLSVersion) -> None:
    """ServerMaxSSLFragment Required; the standard library never asks."""
    outcome = meet(server(server_fragment_demand=Demand.REQUIRED), client_context(version))
    assert errors.NO_FRAGMENT is outcome.reason
    assert "alert" in outcome.complaint.lower()


@pytest.mark.parametrize("indicator", ["Optional", "Client", "Server", "Both"])
def test_clients_that_indicate_secure_renegotiation_are_served(indicator: str) -> None:
    """RenegotiationIndicator counts the signalling cipher as the extension (RFC 5746 section 3.3)."""
    outcome = meet(server(renegotiation_indicator=indicator), client_context(ssl.TLSVersion.TLSv1_2))
    assert None is outcome.reason


def test_a_client_without_the_indication_is_refused() -> None:
    """RenegotiationIndicator Server; the signalling cipher is cut out of a ClientHello here."""
    for indicator, expected in (("Server", errors.NO_INDICATION), ("Client", None)):
        environment = server(renegotiation_indicator=indicator)
        quiet = _Quiet()
        _shake(client(protocols=TLS12).engine(("192.0.2.1", 443), 0.0), quiet)
        # OpenSSL 4 sends the extension, earlier ones the cipher: turn whichever it is into something unknown.
        hello = quiet.heard.replace(b"\xff\x01\x00\x01\x00", b"\xfa\xfa\x00\x01\x00").replace(b"\x00\xff", b"\x00\xfe")
        engine = environment.engine(("", 0), 0.0)
        engine.bio_write(hello)
        reason = None
        try:
            engine.do_handshake()
        except WantReadError:
            pass
        except EngineError as error:
            reason = environment.explain(engine, error)[0]
        assert expected is reason


def test_a_server_refuses_a_client_that_fell_back() -> None:
    """ServerScsv: TLS_FALLBACK_SCSV from a client that could have had TLS 1.3 (RFC 7507)."""
    # Nothing here has a switch for the client's side of it: the cipher is written into the ClientHello.
    quiet = _Quiet()
    _shake(client(protocols=TLS12, ciphers=("C02C", "C02B", "009C")).engine(("192.0.2.1", 443), 0.0), quiet)
    hello = quiet.heard.replace(b"\x00\x9c", b"\x56\x00", 1)
    engine = server(refuse_fallback=True).engine(("", 0), 0.0)
    engine.bio_write(hello)
    with pytest.raises(EngineError, match="inappropriate fallback"):
        engine.do_handshake()


def test_garbage_in_front_of_a_hearing_engine_is_refused() -> None:
    """What cannot be read as a ClientHello is not handed on unjudged."""
    environment = server(server_sni_demand=Demand.REQUIRED, server_sni=(("a.test", "server.test"),))
    for garbage in (
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\xff\xff\x01\xff",
    ):
        engine = environment.engine(("", 0), 0.0)
        engine.bio_write(garbage + bytes(70000))
        with pytest.raises(EngineError) as caught:
            engine.do_handshake()
        assert errors.BAD_HELLO is environment.explain(engine, caught.value)[0]
        assert bytes((21, 3, 3, 0, 2, 2, 50)) == engine.bio_read(100)


# Sessions


def returns(environment: Environment, version: ssl.TLSVersion, *, later: float = 0.0) -> bool:
    """Say whether a client that comes back to a server of ours resumes its session."""
    context = client_context(version)
    first = meet(environment, context)
    close(environment, first)
    return meet(environment, context, session=first.other.session, now=later).other.session_reused is True


def comes_back(environment: Environment, version: ssl.TLSVersion, *, later: float = 0.0) -> bool:
    """Say whether our client resumes its session when it comes back to a server."""
    context = server_context(version)
    close(environment, meet(environment, context))
    again = meet(environment, context, now=later)
    return again.other.session_reused is True


@VERSIONS
@pytest.mark.parametrize("changes", [{}, {"server_sni_demand": Demand.OPTIONAL}, {"server_key_share_groups": (23,)}])
def test_a_returning_client_resumes(version: ssl.TLSVersion, changes: dict[str, Any]) -> None:
    """By default sessions are kept, also where the context is settled on late."""
    assert returns(server(**changes), version)


@VERSIONS
@pytest.mark.parametrize("changes", [{"session_timeout": 0}, {"session_cache_size": 0}])
def test_nothing_is_resumed_where_nothing_is_kept(version: ssl.TLSVersion, changes: dict[str, int]) -> None:
    """GSK_V3_SESSION_TIMEOUT 0 and GSK_V3_SIDCACHE_SIZE 0, in both roles."""
    assert not returns(server(**changes), version)
    assert not comes_back(client(**changes), version)


@pytest.mark.parametrize("changes", [{"server_tickets": False}, {"server_ticket_count": 0}])
def test_tls_1_3_is_not_resumed_without_tickets(changes: dict[str, Any]) -> None:
    """GSK_SESSION_TICKET_SERVER_ENABLE Off; sessions of TLS 1.2 are kept where TLS 1.3 is off."""
    assert not returns(server(**changes), ssl.TLSVersion.TLSv1_3)
    assert returns(server(**changes, protocols=TLS12), ssl.TLSVersion.TLSv1_2)


def test_ticket_keys_are_replaced() -> None:
    """GSK_SESSION_TICKET_SERVER_KEY_REFRESH: a ticket under an old key means a full handshake."""
    assert returns(server(server_ticket_key_lifetime=60), ssl.TLSVersion.TLSv1_3, later=59)
    assert not returns(server(server_ticket_key_lifetime=60), ssl.TLSVersion.TLSv1_3, later=60)


def test_the_ticket_tells_its_lifetime() -> None:
    """GSK_SESSION_TICKET_SERVER_TIMEOUT with TLS 1.3, GSK_V3_SESSION_TIMEOUT without."""
    changes = {"server_ticket_lifetime": 120, "session_timeout": 7200}
    new = meet(server(**changes), client_context(ssl.TLSVersion.TLSv1_3)).other.session
    assert new is not None
    assert 120 == new.ticket_lifetime_hint
    old = meet(server(**changes, protocols=TLS12), client_context(ssl.TLSVersion.TLSv1_2)).other.session
    assert old is not None
    assert 7200 == old.ticket_lifetime_hint


def test_a_client_keeps_what_it_may() -> None:
    """GSK_SESSION_TICKET_CLIENT_ENABLE, _MAXCACHED and _MAXSIZE concern TLS 1.3 alone; the timeout concerns all."""
    new, old = ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2
    assert comes_back(client(), new)
    assert comes_back(client(session_timeout=60), new, later=59)
    assert not comes_back(client(session_timeout=60), new, later=61)
    for changes in ({"client_tickets": False}, {"client_tickets_kept": 0}, {"client_ticket_maximum_size": 0}):
        assert not comes_back(client(**changes), new)
        assert comes_back(client(**changes), old)


# The ring


def test_settings_without_a_ring_are_refused() -> None:
    """The sentence says what to code."""
    with pytest.raises(KeyringError, match="code Keyring"):
        server(keyring="")


def test_what_zos_has_by_default_shakes_hands() -> None:
    """The lists that z/OS has when a policy is silent leave both roles working."""
    lists = {"client_curves": (21, 23, 24, 25, 19), "client_key_share_groups": (23,),
             "server_kex_curves": (23, 24, 25, 21, 19), "server_key_share_groups": (23, 24, 25, 29, 30)}  # fmt: skip
    for protocols, version in ((TLS12, ssl.TLSVersion.TLSv1_2), (TLS13, ssl.TLSVersion.TLSv1_3)):
        assert None is meet(server(protocols=protocols, **lists), client_context(version)).reason
        assert None is meet(client(protocols=protocols, **lists), server_context(version)).reason


# Renegotiation


@pytest.mark.parametrize("auth", [ClientAuthType.PASS_THRU, ClientAuthType.FULL, ClientAuthType.REQUIRED])
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("first", "second"), [("client.test", "client.test"), ("client.test", "other.test"), (None, "client.test")]
)
def test_a_client_keeps_its_certificate(auth: ClientAuthType, check: bool, first: str | None, second: str) -> None:
    """RenegotiationCertCheck: whether On or Off, fresh keys are not the time to become somebody else."""
    environment = Environment(
        settings(HandshakeRole.SERVER_WITH_CLIENT_AUTH, protocols=TLS12, client_auth=auth, application_controlled=True,
                 renegotiation_same_certificate=check, session_timeout=0),
        ring("server.test"),
    )  # fmt: skip
    ours = environment.engine(("", 0), 0.0)
    context = SSL.Context(SSL.TLS_METHOD)
    other = SSL.Connection(context, None)
    other.set_connect_state()
    if first is None and auth is ClientAuthType.REQUIRED:
        return  # it gets nowhere
    if first is not None:
        _present(other, first)
    _shake(other, ours)
    assert (first or "None") in str(environment.peer(ours)[1])
    _present(other, second)
    environment.renew(ours)
    reason = None
    for _ in range(6):
        for one, two in ((ours, other), (other, ours)):
            try:
                one.do_handshake()
                one.recv(1)
            except WantReadError:
                pass
            except EngineError as error:
                reason = reason or environment.explain(ours, error)[0]
            with contextlib.suppress(WantReadError):
                two.bio_write(one.bio_read(65536))
    assert (None if first == second else reasons.OTHER_CERTIFICATE) is reason
    assert 1 == ours.total_renegotiations()


def _present(engine: Any, name: str) -> None:
    engine.use_certificate(x509.load_pem_x509_certificate(leaf(name).cert_chain_pems[0].bytes()))
    engine.use_privatekey(load_pem_private_key(leaf(name).private_key_pem.bytes(), None))
