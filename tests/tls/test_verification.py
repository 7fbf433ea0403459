"""What is asked of a peer beyond OpenSSL's own checks: users, key sizes, validation modes."""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from attls import errors
from attls.errors import KeyringError, Reason
from attls.keyring import Keyring, Trust, Usage, UserMap
from attls.keyring.mapping import Criterion, MapFilter, NameFilter, Registered
from attls.model import ClientAuthType, Direction, HandshakeRole
from attls.tls import Environment
from tests.relay.peers import Program, connect, duplex, echo, finish, in_thread
from tests.relay.street import Street, authority, client_context, der, leaf, ring, server_context, settings, street
from tests.tls.meetings import meet

VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
SERVER = HandshakeRole.SERVER_WITH_CLIENT_AUTH


def everybody(user: str = "ALICE") -> UserMap:
    """Return a map in which every certificate of the test session's CA stands for `user`."""
    certificate = x509.load_der_x509_certificate(der(leaf("alice.test").cert_chain_pems[0].bytes()))
    return UserMap(filters=(MapFilter("all", user, issuer=NameFilter.of(certificate.issuer)),))


def guarded(users: UserMap | None = None, **changes: Any) -> Environment:
    changes.setdefault("client_auth", ClientAuthType.SAF_CHECK)
    return Environment(settings(SERVER, **changes), ring("server.test"), users=users)


def speak(road: Street, context: ssl.SSLContext) -> bytes:
    with connect(road.address, context) as sock:
        return duplex(sock, b"hello")


async def refusal(environment: Environment, context: ssl.SSLContext) -> tuple[Reason | None, str, int]:
    """Connect, expecting to be refused; return the reason, the detail and how many connections the program saw."""
    with Program(echo) as program:
        async with street(program.listener, environment=environment) as road:
            with pytest.raises(OSError):
                await in_thread(speak, road, context)
            (record,) = await road.ended()
        return record.reason, record.detail, len(program.results)


@VERSIONS
async def test_the_mapped_user_reaches_the_record(version: ssl.TLSVersion) -> None:
    """A client certificate that stands for somebody is let in, and displays say for whom."""
    with Program(echo) as program:
        async with street(program.listener, environment=guarded(everybody())) as road:
            assert b"hello" == await in_thread(speak, road, client_context(version, identity="alice.test"))
            (record,) = await road.ended()
    assert ("ALICE", errors.DONE) == (record.cert_user, record.reason)


@VERSIONS
async def test_safcheck_refuses_who_stands_for_nobody(version: ssl.TLSVersion) -> None:
    """An unmapped certificate ends in the handshake with 5002, and the program hears nothing of it."""
    reason, detail, seen = await refusal(guarded(), client_context(version, identity="alice.test"))
    assert (errors.NO_USER, 0) == (reason, seen)
    assert "hostIdMappings" in detail


async def test_only_safcheck_asks_for_a_user() -> None:
    """Under Required a certificate that stands for nobody is good enough; the record has no user."""
    environment = guarded(client_auth=ClientAuthType.REQUIRED)
    with Program(echo) as program:
        async with street(program.listener, environment=environment) as road:
            assert b"hello" == await in_thread(speak, road, client_context(identity="alice.test"))
            (record,) = await road.ended()
    assert record.cert_user is None


async def test_a_certificate_that_nobody_verified_stands_for_nobody() -> None:
    """PassThru takes any certificate, so what it says of its holder is not believed."""
    environment = guarded(everybody(), client_auth=ClientAuthType.PASS_THRU)
    with Program(echo) as program:
        async with street(program.listener, environment=environment) as road:
            assert b"hello" == await in_thread(speak, road, client_context(identity="alice.test"))
            (record,) = await road.ended()
    assert record.cert_user is None


@VERSIONS
async def test_a_resumed_client_is_judged_by_the_map_of_now(version: ssl.TLSVersion) -> None:
    """Who is struck from the map does not get in by resuming a session from before."""
    environment = guarded(everybody())
    context = client_context(version, identity="alice.test")

    def twice(road: Street) -> None:
        with connect(road.address, context) as sock:
            sock.sendall(b"hello")
            assert b"hello" == sock.recv(5)
            assert isinstance(sock, ssl.SSLSocket)
            session = sock.session
            finish(sock)
        environment.users = UserMap()
        with pytest.raises(OSError), connect(road.address, context, session=session) as sock:
            duplex(sock, b"hello")

    with Program(echo) as program:
        async with street(program.listener, environment=environment) as road:
            await in_thread(twice, road)
            first, second = await road.ended(2)
    assert ("ALICE", errors.NO_USER) == (first.cert_user, second.reason)
    assert second.resumed


async def test_criteria_see_the_job() -> None:
    """The program's job name fills &APPLID."""
    users = UserMap(
        filters=tuple(
            MapFilter("multi", None, issuer=each.issuer, criteria="APPLID=&APPLID") for each in everybody().filters
        ),
        criteria=(Criterion("APPLID=PAY*", "PAYUSER"),),
    )
    environment = guarded(users)
    certificate = der(leaf("alice.test").cert_chain_pems[0].bytes())
    assert environment.users.find(certificate, job="PAYROLL").user == "PAYUSER"
    reason, _, _ = await refusal(environment, client_context(identity="alice.test"))  # the street's job is not known
    assert errors.NO_USER == reason


async def test_a_registered_certificate_marked_notrust_stands_for_nobody() -> None:
    """The reason names the step that decided."""
    certificate = x509.load_der_x509_certificate(der(leaf("alice.test").cert_chain_pems[0].bytes()))
    entry = Registered(certificate.fingerprint(hashes.SHA256()), "ALICE", "old", Trust.NOTRUST)
    reason, detail, _ = await refusal(guarded(UserMap(registered=(entry,))), client_context(identity="alice.test"))
    assert errors.NO_USER == reason
    assert "marked NOTRUST" in detail


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"peer_minimum_ecc_bits": 384}, "ECC with 256 bits"),
        ({"peer_minimum_ecc_bits": 256, "peer_minimum_rsa_bits": 4096}, ""),
        ({"peer_minimum_certificate_version": 4}, "version 3"),
    ],
)
async def test_small_keys_are_refused(changes: dict[str, Any], word: str) -> None:
    """PeerMin… sizes count for the kind of key that the peer has."""
    environment = guarded(everybody(), **changes)
    context = client_context(identity="alice.test")
    if word:
        reason, detail, _ = await refusal(environment, context)
        assert reason is not None
        assert (405, True) == (reason.code, word in detail)
        return
    with Program(echo) as program:
        async with street(program.listener, environment=environment) as road:
            assert b"hello" == await in_thread(speak, road, context)


def server_only() -> trustme.LeafCert:
    """Return a certificate whose extended key usage names servers only, from the session's CA."""
    own = authority()
    pem = leaf("server-only.test")
    certificate = x509.load_pem_x509_certificate(pem.cert_chain_pems[0].bytes())
    builder = x509.CertificateBuilder(
        issuer_name=certificate.issuer,
        subject_name=certificate.subject,
        public_key=certificate.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=certificate.not_valid_before_utc,
        not_valid_after=certificate.not_valid_after_utc,
    )
    for extension in certificate.extensions:
        if extension.oid != x509.ExtendedKeyUsage.oid:
            builder = builder.add_extension(extension.value, extension.critical)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    made = builder.sign(own._private_key, hashes.SHA256())
    return trustme.LeafCert(pem.private_key_pem.bytes(), made.public_bytes(Encoding.PEM), [])


@pytest.mark.parametrize(
    ("mode", "code"), [("Any", 440), ("RFC2459", 0), ("RFC3280", 0), ("RFC5280", 440), ("Max", 440)]
)
async def test_validation_modes_differ_in_the_extended_usage(mode: str, code: int) -> None:
    """A client whose certificate is for servers passes where policy names a standard that does not look at it."""
    context = client_context()
    server_only().configure_cert(context)
    environment = guarded(everybody(), certificate_validation=mode)
    if code:
        reason, _, seen = await refusal(environment, context)
        assert reason is not None
        assert (code, 0) == (reason.code, seen)
        return
    with Program(echo) as program:
        async with street(program.listener, environment=environment) as road:
            assert b"hello" == await in_thread(speak, road, context)


@VERSIONS
async def test_modes_pass_what_is_in_order(version: ssl.TLSVersion) -> None:
    """An ordinary server certificate satisfies the strictest mode, as a client verifies it."""
    environment = Environment(settings(HandshakeRole.CLIENT, certificate_validation="RFC5280"), ring())

    def talk(road: Street) -> bytes:
        with connect(road.address) as sock:
            return duplex(sock, b"hello")

    with Program(echo, context=server_context(version)) as program:
        async with street(program.listener, direction=Direction.OUTBOUND, environment=environment) as road:
            assert b"hello" == await in_thread(talk, road)


def test_a_site_certificate_is_trusted_as_it_is_and_nobody_else_for_its_sake() -> None:
    """Without its authority on the ring; another certificate of the same authority is refused, NOTRUST is nobody."""

    def reason(trust: Trust, presented: str) -> Reason | None:
        partner = replace(ring("server.test").entries[0], usage=Usage.SITE, trust=trust, default=False)
        environment = Environment(settings(HandshakeRole.CLIENT), Keyring("TEST/SITE", (partner,)))
        return meet(environment, server_context(name=presented)).reason

    assert reason(Trust.TRUST, "server.test") is None
    assert reason(Trust.TRUST, "other.test") is not None
    with pytest.raises(KeyringError):
        reason(Trust.NOTRUST, "server.test")
