"""Which questions are asked about a peer's certificates, in which order, and what the answers come to; no network."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Mapping

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from attls.errors import KeyringError
from attls.keyring import Identity, certificates
from attls.keyring.certificates import Profile, Signer
from attls.keyring.revocation import Answer, Revocation, Standing, answer_ocsp, build_crl
from attls.model import Revocation as Settings
from attls.tls import Inquiry, Question, RefusedError, Reply
from attls.tls.inquiry import Inquiries

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
WEEK = datetime.timedelta(days=7)
AIA, CDP, FIXED = "http://aia.test/ocsp", "http://cdp.test/ca.crl", "http://fixed.test/ocsp"
BOTH = Settings(ocsp_from_certificate=True, lists_by_http=True)
SILENT = Answer(Standing.UNREACHABLE, "nobody there")


@functools.cache
def family() -> tuple[Signer, x509.Certificate]:
    """Return an authority and a certificate of its that names a responder and a list."""
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = certificates.build(
        Profile(subject=certificates.subject_name("Root"), days=1000, is_authority=True),
        root_key.public_key(),
        signer=None,
        own_key=root_key,
        now=NOW,
    )
    signer = Signer(root, root_key)
    leaf = certificates.build(
        Profile(subject=certificates.subject_name("leaf"), days=100, ocsp_urls=(AIA,), crl_urls=(CDP,)),
        key.public_key(),
        signer=signer,
        own_key=None,
        now=NOW,
    )
    return signer, leaf


def chain() -> tuple[bytes, ...]:
    signer, leaf = family()
    return certificates.der(leaf), certificates.der(signer.certificate)


def crl(*, revoked: bool = False, now: datetime.datetime = NOW) -> bytes:
    signer, leaf = family()
    entries = [Revocation(leaf.serial_number, now)] if revoked else []
    made = build_crl(signer, entries, now=now, lifetime=WEEK, number=1)
    return made.public_bytes(Encoding.DER)


def responder(*, revoked: bool = False, now: datetime.datetime = NOW) -> Callable[[Question], bytes]:
    """Return a responder that answers whatever it is asked in a body."""

    def answer(question: Question) -> bytes:
        signer, leaf = family()
        assert question.body is not None
        known = {leaf.serial_number: Revocation(leaf.serial_number, now) if revoked else None}
        return answer_ocsp(question.body, issuer=signer.certificate, signer=signer, known=known, now=now, lifetime=WEEK)

    return answer


class Network:
    """Answers questions by their address, and keeps what it was asked."""

    def __init__(self, places: Mapping[str, Reply | Callable[[Question], Reply]]) -> None:
        self.places = places
        self.asked: list[str] = []

    def carry_out(self, inquiry: Inquiry) -> None:
        """Run an inquiry to its end; raises RefusedError."""
        try:
            question = next(inquiry)
            while True:
                self.asked.append(question.url)
                place = self.places.get(question.url, SILENT)
                question = inquiry.send(place(question) if callable(place) else place)
        except StopIteration:
            return


def inquiries(settings: Settings, *lists: bytes) -> Inquiries:
    return Inquiries(settings, clock=lambda: NOW, lists=lists)


def code_of(settings: Settings, network: Network, staple: bytes = b"", lists: tuple[bytes, ...] = ()) -> int:
    """Return the code of the refusal, 0 when there is none."""
    try:
        network.carry_out(inquiries(settings, *lists).ask(chain(), staple))
    except RefusedError as error:
        return error.reason.code
    return 0


def test_the_first_definite_answer_counts() -> None:
    """A responder that says good spares the list; one that cannot be reached does not."""
    network = Network({AIA: responder(), CDP: crl()})
    assert 0 == code_of(BOTH, network)
    assert [AIA] == network.asked
    network = Network({CDP: crl()})
    assert 0 == code_of(BOTH, network)
    assert [AIA, CDP] == network.asked


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        (Settings(ocsp_url=FIXED, ocsp_from_certificate=True, lists_by_http=True), [FIXED, AIA, CDP]),
        (Settings(ocsp_url=FIXED, ocsp_from_certificate=True, ocsp_url_first=False), [AIA, FIXED]),
        (Settings(ocsp_from_certificate=True, lists_by_http=True, ocsp_first=False), [CDP, AIA]),
        (Settings(lists_by_http=True), [CDP]),
        (Settings(ldap_servers=("ldap.test",)), []),
    ],
)
def test_sources_are_asked_in_the_order_of_the_policy(settings: Settings, asked: list[str]) -> None:
    """OcspUrlPriority and AIACDPPriority; what is not switched on is not asked."""
    network = Network({})
    assert 427 == code_of(settings, network)
    assert asked == network.asked


@pytest.mark.parametrize(
    ("places", "low", "medium", "high"),
    [
        ({AIA: responder(revoked=True)}, 431, 431, 431),
        ({CDP: crl(revoked=True)}, 431, 431, 431),
        ({}, 0, 427, 427),
        ({AIA: b"garbage", CDP: b"garbage"}, 0, 436, 436),
        ({AIA: responder(now=NOW - 10 * WEEK), CDP: crl(now=NOW - 10 * WEEK)}, 0, 436, 436),
        ({AIA: Answer(Standing.ABSENT, "404"), CDP: Answer(Standing.ABSENT, "404")}, 0, 436, 436),
    ],
)
def test_levels_weigh_what_is_missing(places: dict[str, Reply], low: int, medium: int, high: int) -> None:
    """Revoked is refused by all; silence, garbage and answers of yesterday as RevocationSecurityLevel says."""
    for level, code in (("Low", low), ("Medium", medium), ("High", high)):
        settings = Settings(ocsp_from_certificate=True, lists_by_http=True, level=level)
        assert code == code_of(settings, Network(places)), level


def test_a_list_that_does_not_exist_is_no_fault_under_medium() -> None:
    """As decide says: Medium goes on without a list, High does not."""
    places = {CDP: Answer(Standing.ABSENT, "404")}
    assert 0 == code_of(Settings(lists_by_http=True), Network(places))
    assert 436 == code_of(Settings(lists_by_http=True, level="High"), Network(places))


def test_answers_and_lists_are_remembered() -> None:
    """The second connection asks nobody; a cache of size 0 asks each time, and so does a nonce."""
    for settings, times in (
        (Settings(ocsp_from_certificate=True), 1),
        (Settings(lists_by_http=True), 1),
        (Settings(ocsp_from_certificate=True, ocsp_cache_size=0), 2),
        (Settings(lists_by_http=True, list_cache_size=0), 2),
        (Settings(lists_by_http=True, list_cache_largest=10), 2),
        (Settings(ocsp_from_certificate=True, ocsp_nonce=True, ocsp_nonce_required=True), 2),
    ):
        network, both = Network({AIA: responder(), CDP: crl()}), inquiries(settings)
        for _ in range(2):
            network.carry_out(both.ask(chain()))
        assert times == len(network.asked), settings


def test_requests_look_as_policy_wants() -> None:
    """Short requests go by GET where it says so; time, size and proxy come from the policy, zero is not for ever."""
    settings = Settings(
        ocsp_from_certificate=True, ocsp_by_get=True, ocsp_proxy="proxy.test", ocsp_timeout=0, ocsp_maximum_size=99
    )
    question = next(inquiries(settings).ask(chain()))
    assert question.url.startswith(AIA + "/MF")
    assert (None, ("proxy.test", 80), 60, 99) == (question.body, question.proxy, question.seconds, question.largest)


def test_proxies_and_limits_of_answers_and_lists_come_from_the_policy() -> None:
    """OcspProxyServerPort, and HttpCdpProxyServerName, its port, HttpCdpResponseTimeout and HttpCdpMaxResponseSize."""
    for settings in (
        Settings(ocsp_from_certificate=True, ocsp_proxy="proxy.test", ocsp_proxy_port=3128, ocsp_timeout=7,
                 ocsp_maximum_size=99),
        Settings(lists_by_http=True, http_proxy="proxy.test", http_proxy_port=3128, http_timeout=7,
                 http_maximum_size=99),
    ):  # fmt: skip
        question = next(inquiries(settings).ask(chain()))
        assert (("proxy.test", 3128), 7, 99) == (question.proxy, question.seconds, question.largest)


def test_a_staple_is_as_good_as_an_answer() -> None:
    """A good one spares the question, a bad one ends the connection, an old one does not count."""
    asked = next(inquiries(Settings(ocsp_from_certificate=True)).ask(chain()))
    for staple, code, questions in (
        (responder()(asked), 0, []),
        (responder(revoked=True)(asked), 431, []),
        (responder(now=NOW - 10 * WEEK)(asked), 0, [AIA]),
        (b"garbage", 0, [AIA]),
    ):
        network = Network({AIA: responder()})
        assert code == code_of(Settings(ocsp_from_certificate=True), network, staple)
        assert questions == network.asked


def test_the_anchor_is_not_asked_about() -> None:
    """What is on the ring is trusted as it is; and who sent nothing cannot be asked about."""
    network = Network({})
    for short in ((), chain()[:1]):
        network.carry_out(inquiries(Settings(ocsp_url=FIXED, level="High")).ask(short))
    assert [] == network.asked


# Lists on the ring


@pytest.mark.parametrize(
    ("found", "low", "medium", "high"),
    [
        (crl(), 0, 0, 0),
        (crl(revoked=True), 431, 431, 431),
        (crl(now=NOW - 2 * WEEK), 0, 436, 436),
        (crl(revoked=True, now=NOW - 2 * WEEK), 431, 431, 431),
        (None, 0, 0, 436),
    ],
)
def test_a_list_on_the_ring_needs_no_network(found: bytes | None, low: int, medium: int, high: int) -> None:
    """It answers by itself, at every level; what is out of date says nothing good any more."""
    for level, code in (("Low", low), ("Medium", medium), ("High", high)):
        network = Network({})
        assert code == code_of(Settings(level=level), network, lists=(found,) if found else ()), level
        assert [] == network.asked


def test_a_list_on_the_ring_and_other_sources() -> None:
    """What it lists is refused at once; for "good" the sources of the policy are asked first, and it helps out."""
    network = Network({AIA: responder()})
    assert 431 == code_of(BOTH, network, lists=(crl(revoked=True),))
    assert [] == network.asked
    network = Network({AIA: responder(revoked=True)})
    assert 431 == code_of(BOTH, network, lists=(crl(),))
    network = Network({})
    assert 0 == code_of(BOTH, network, lists=(crl(),))
    assert [AIA, CDP] == network.asked
    staple = responder()(next(inquiries(BOTH).ask(chain())))
    assert 431 == code_of(BOTH, Network({}), staple, (crl(revoked=True),))


def test_a_list_of_somebody_else_is_none() -> None:
    """An authority of the same name with another key has its own list, which says nothing about this one."""
    key = ec.generate_private_key(ec.SECP256R1())
    profile = Profile(subject=certificates.subject_name("Root"), days=1000, is_authority=True)
    other = Signer(certificates.build(profile, key.public_key(), signer=None, own_key=key, now=NOW), key)
    entry = Revocation(family()[1].serial_number, NOW)
    foreign = build_crl(other, [entry], now=NOW, lifetime=WEEK, number=1).public_bytes(Encoding.DER)
    assert 0 == code_of(Settings(), Network({}), lists=(foreign,))
    assert 436 == code_of(Settings(level="High"), Network({}), lists=(foreign,))


# How it is asked


def test_whoever_insists_on_the_nonce_sends_one() -> None:
    """OcspNonceCheckEnable alone is enough: without a nonce in the request there would be nothing to insist on."""
    settings = Settings(ocsp_from_certificate=True, ocsp_nonce_required=True, ocsp_nonce_size=256)
    question = next(inquiries(settings).ask(chain()))
    assert question.body is not None
    nonce = ocsp.load_der_ocsp_request(question.body).extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    assert 128 == len(nonce)
    assert 0 == code_of(settings, Network({AIA: responder()}))
    plain = next(inquiries(Settings(ocsp_from_certificate=True)).ask(chain()))
    assert 436 == code_of(settings, Network({AIA: responder()(plain)}))  # an answer without a nonce, perhaps an old one


def test_no_responder_fills_the_cache() -> None:
    """OcspCliCacheEntryMaxsize answers of each are kept, the newest."""
    both = inquiries(Settings(ocsp_url=FIXED, ocsp_cache_size_each=1))
    signer, _ = family()
    chains = []
    for number in range(2):
        key = ec.generate_private_key(ec.SECP256R1())
        profile = Profile(subject=certificates.subject_name(f"leaf {number}"), days=100)
        made = certificates.build(profile, key.public_key(), signer=signer, own_key=None, now=NOW)
        chains.append((certificates.der(made), certificates.der(signer.certificate)))

    def answer(question: Question) -> bytes:
        assert question.body is not None
        known = {ocsp.load_der_ocsp_request(question.body).serial_number: None}
        return answer_ocsp(question.body, issuer=signer.certificate, signer=signer, known=known, now=NOW, lifetime=WEEK)

    network = Network({FIXED: answer})
    for one in (0, 1, 1, 0):
        network.carry_out(both.ask(chains[one]))
    assert 3 == len(network.asked)


@pytest.mark.parametrize("by_get", [False, True])
def test_requests_are_signed_where_policy_says_so(by_get: bool) -> None:
    """With the key of OcspRequestSigkeylabel, in the way of OcspRequestSigalg; one that does not fit is 428."""
    signer, leaf = family()
    key = ec.generate_private_key(ec.SECP256R1())
    profile = Profile(subject=certificates.subject_name("who asks"), days=100)
    certificate = certificates.build(profile, key.public_key(), signer=signer, own_key=None, now=NOW)
    identity = Identity("U", "who asks", certificates.der(certificate), certificates.private_key_pem(key))
    settings = Settings(
        ocsp_from_certificate=True, ocsp_by_get=by_get, ocsp_signer="who asks", ocsp_signer_algorithm="0403"
    )
    question = next(Inquiries(settings, identity=identity, clock=lambda: NOW).ask(chain()))
    assert question.body is not None  # too long for GET
    assert certificates.der(certificate) in question.body
    assert leaf.serial_number == ocsp.load_der_ocsp_request(question.body).serial_number
    with pytest.raises(KeyringError) as caught:
        Inquiries(Settings(ocsp_url=FIXED, ocsp_signer="who asks"), identity=identity)
    assert 428 == caught.value.code


@pytest.mark.parametrize(
    ("each", "in_all", "asked"), [(1, 0, [FIXED, AIA]), (0, 1, [FIXED]), (0, 0, [FIXED, AIA, CDP])]
)
def test_only_so_many_places_are_tried(each: int, in_all: int, asked: list[str]) -> None:
    """MaxSrcRevExtLocValues counts those of one extension, MaxValidRevExtLocValues all of them; 0 is no limit."""
    settings = Settings(
        ocsp_url=FIXED,
        ocsp_from_certificate=True,
        lists_by_http=in_all == each,
        places_each=each,
        places_in_all=in_all,
    )
    network = Network({})
    code_of(settings, network)
    assert asked == network.asked
