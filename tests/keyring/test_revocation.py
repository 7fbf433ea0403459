"""CRLs and OCSP answers, judged and built; the openssl command is the other side."""

import datetime
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from attls.errors import KeyringError
from attls.keyring import certificates
from attls.keyring.certificates import Profile, Signer, build, generate_key, subject_name
from attls.keyring.revocation import (
    Answer,
    Cache,
    HeldList,
    Level,
    Revocation,
    Standing,
    answer_ocsp,
    build_crl,
    crl_urls,
    decide,
    first_definite,
    judge_crl,
    judge_ocsp,
    ocsp_request,
    ocsp_urls,
    read_crl,
    responder_profile,
)

from .workshop import NOW

DAY = datetime.timedelta(days=1)
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


def make(name: str, signer: Signer | None = None, *, authority: bool = False, profile: Profile | None = None) -> Signer:
    key = generate_key("ecdsa-p256")
    profile = profile or Profile(
        subject=subject_name(name),
        days=30,
        is_authority=authority,
        crl_urls=("http://crl.example/x.crl", "ldap://crl.example/x"),
        ocsp_urls=("http://ocsp.example/",),
    )
    return Signer(build(profile, key.public_key(), signer=signer, own_key=key, now=NOW), key)


ROOT = make("Root", authority=True)
OTHER = make("Root", authority=True)
LEAF = make("leaf", ROOT)
SERIAL = LEAF.certificate.serial_number
TAKEN_BACK = Revocation(SERIAL, NOW - DAY, x509.ReasonFlags.key_compromise)


def crl(*revoked: Revocation, signer: Signer = ROOT, now: datetime.datetime = NOW) -> x509.CertificateRevocationList:
    return build_crl(signer, revoked, now=now, lifetime=DAY, number=1)


def judged(found: x509.CertificateRevocationList, *, now: datetime.datetime = NOW) -> Answer:
    return judge_crl(LEAF.certificate, ROOT.certificate, HeldList(found), now=now)


def test_sources_are_read_from_the_certificate() -> None:
    """HTTP only: LDAP takes a library that is not here."""
    assert crl_urls(LEAF.certificate) == ["http://crl.example/x.crl"]
    assert ocsp_urls(LEAF.certificate) == ["http://ocsp.example/"]
    assert crl_urls(make("bare", ROOT, profile=Profile(subject=subject_name("x"), days=1)).certificate) == []


def test_a_crl_says_good_or_revoked_until_the_next_one() -> None:
    """With the date and reason of the revocation."""
    assert judged(crl()) == Answer(Standing.GOOD, "the CRL does not list it", NOW.replace(microsecond=0) + DAY)
    found = judged(crl(TAKEN_BACK))
    assert found.standing is Standing.REVOKED
    assert "keyCompromise" in found.reason


@pytest.mark.parametrize(
    ("found", "now", "word"),
    [
        (crl(TAKEN_BACK, signer=OTHER), NOW, "signature"),
        (crl(signer=make("Else", authority=True)), NOW, "another authority"),
        (crl(), NOW + 2 * DAY, "out of date"),
        (crl(), NOW - DAY, "from the future"),
    ],
)
def test_a_crl_that_cannot_be_believed_is_doubtful(
    found: x509.CertificateRevocationList, now: datetime.datetime, word: str
) -> None:
    """A lying, old or foreign list is neither good nor revoked."""
    answer = judged(found, now=now)
    assert answer.standing is Standing.UNKNOWN
    assert word in answer.reason


@pytest.mark.parametrize(
    ("reason", "standing"),
    [
        (x509.ReasonFlags.key_compromise, Standing.REVOKED),
        (x509.ReasonFlags.unspecified, Standing.REVOKED),
        (x509.ReasonFlags.certificate_hold, Standing.UNKNOWN),
    ],
)
def test_once_revoked_stays_revoked(reason: x509.ReasonFlags, standing: Standing) -> None:
    """A list that is out of date still counts for whom it lists, except for a hold, which may be over by now."""
    answer = judged(crl(Revocation(SERIAL, NOW - DAY, reason)), now=NOW + 2 * DAY)
    assert (standing, None) == (answer.standing, answer.until)


def test_a_list_is_verified_once_for_each_key() -> None:
    """What was found about one authority says nothing of another one of the same name."""
    held = HeldList(crl())
    for _ in range(2):
        assert [True, False] == [held.is_genuine(one.certificate) for one in (ROOT, OTHER)]
        assert Standing.GOOD is judge_crl(LEAF.certificate, ROOT.certificate, held, now=NOW).standing


def test_signatures_of_kinds_that_the_policy_does_not_list_are_doubtful() -> None:
    """A list or an answer signed otherwise than CrlSigAlgPairs or OcspResponseSigAlgPairs say counts for nothing."""
    for algorithms, standing in (
        (("0403",), Standing.GOOD),
        (("0401", "0403"), Standing.GOOD),
        (("0401",), Standing.UNKNOWN),
    ):
        found = judge_crl(LEAF.certificate, ROOT.certificate, HeldList(crl()), now=NOW, algorithms=algorithms)
        assert standing is found.standing
        assert standing is judge(respond(ask()), algorithms=algorithms).standing


def scoped(extension: x509.ExtensionType, *, critical: bool = True) -> x509.CertificateRevocationList:
    """A list with one more extension."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(ROOT.certificate.subject)
    builder = builder.last_update(NOW).next_update(NOW + DAY).add_extension(extension, critical=critical)
    return builder.sign(ROOT.private_key, certificates.signature_hash(ROOT.private_key))


def point(**scope: object) -> x509.IssuingDistributionPoint:
    settings: dict[str, object] = dict.fromkeys(
        ("only_contains_user_certs", "only_contains_ca_certs", "indirect_crl", "only_contains_attribute_certs"), False
    )
    settings |= {"full_name": None, "relative_name": None, "only_some_reasons": None} | scope
    return x509.IssuingDistributionPoint(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("extension", "standing"),
    [
        (point(only_contains_user_certs=True), Standing.GOOD),
        (point(only_contains_ca_certs=True), Standing.UNKNOWN),
        (point(indirect_crl=True), Standing.UNKNOWN),
        (point(full_name=[x509.UniformResourceIdentifier("http://crl.example/x.crl")]), Standing.GOOD),
        (point(full_name=[x509.UniformResourceIdentifier("http://crl.example/y.crl")]), Standing.UNKNOWN),
        (x509.DeltaCRLIndicator(1), Standing.UNKNOWN),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b""), Standing.UNKNOWN),
    ],
)
def test_a_crl_counts_within_its_scope_only(extension: x509.ExtensionType, standing: Standing) -> None:
    """Delta, indirect, partial, for others, or with critical parts that nobody understands: doubtful."""
    assert standing is judged(scoped(extension)).standing


def test_a_crl_signer_needs_the_usage() -> None:
    """An authority whose key usage forbids it cannot revoke."""
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    key = generate_key("ecdsa-p256")
    name = subject_name("NoCRL")
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(NOW).not_valid_after(NOW + DAY).add_extension(usage, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, certificates.signature_hash(key))
    )  # fmt: skip
    signer = Signer(made, key)
    leaf = make("leaf", signer, profile=Profile(subject=subject_name("l"), days=1))
    answer = judge_crl(leaf.certificate, made, HeldList(crl(signer=signer)), now=NOW)
    assert "key usage" in answer.reason


@given(st.binary(max_size=200))
def test_garbage_for_a_crl_is_refused(data: bytes) -> None:
    """One kind of error."""
    with pytest.raises(KeyringError):
        read_crl(data)


# OCSP


def respond(
    request: bytes,
    *,
    signer: Signer = ROOT,
    known: dict[int, Revocation | None] | None = None,
    now: datetime.datetime = NOW,
    lifetime: datetime.timedelta | None = DAY,
) -> bytes:
    known = {SERIAL: None} if known is None else known
    return answer_ocsp(request, issuer=ROOT.certificate, signer=signer, known=known, now=now, lifetime=lifetime)


def ask(nonce: bytes | None = None) -> bytes:
    return ocsp_request(LEAF.certificate, ROOT.certificate, nonce=nonce)


def judge(response: bytes, *, now: datetime.datetime = NOW, **more: object) -> Answer:
    return judge_ocsp(response, LEAF.certificate, ROOT.certificate, now=now, **more)  # type: ignore[arg-type]


APPOINTED = make("Responder", ROOT, profile=responder_profile(subject_name("Responder"), 10))


@pytest.mark.parametrize("signer", [ROOT, APPOINTED], ids=["authority", "appointed"])
def test_an_ocsp_answer_is_good_revoked_or_unknown(signer: Signer) -> None:
    """Signed by the authority or by a responder that it appointed."""
    found: list[Standing] = []
    records: list[dict[int, Revocation | None]] = [{SERIAL: None}, {SERIAL: TAKEN_BACK}, {}]
    for known in records:
        found.append(judge(respond(ask(), signer=signer, known=known)).standing)
    assert found == [Standing.GOOD, Standing.REVOKED, Standing.UNKNOWN]


@pytest.mark.parametrize(
    ("response", "now", "word"),
    [
        (lambda: respond(ask(), signer=LEAF), NOW, "did not appoint"),
        (lambda: respond(ask(), signer=OTHER), NOW, "did not appoint"),
        (
            lambda: respond(ask(), signer=make("R", OTHER, profile=responder_profile(subject_name("R"), 10))),
            NOW,
            "appoint",
        ),
        (lambda: respond(ask(), signer=APPOINTED, now=NOW + 11 * DAY), NOW + 11 * DAY, "did not appoint"),
        (lambda: respond(ask()), NOW + 2 * DAY, "out of date"),
        (lambda: respond(ask()), NOW - DAY, "from the future"),
        (lambda: respond(ask(), lifetime=None), NOW + 2 * DAY, "out of date"),
        (lambda: respond(ocsp_request(make("l", ROOT).certificate, ROOT.certificate)), NOW, "another certificate"),
        (lambda: respond(b"garbage"), NOW, "malformed"),
        (lambda: respond(ocsp_request(LEAF.certificate, OTHER.certificate)), NOW, "unauthorized"),
        (lambda: b"garbage", NOW, "damaged"),
        (lambda: b"", NOW, "damaged"),
    ],
)
def test_an_ocsp_answer_that_cannot_be_believed_is_doubtful(
    response: Callable[[], bytes], now: datetime.datetime, word: str
) -> None:
    """Wrong signer, wrong certificate, too old, too new, no answer at all."""
    answer = judge(response(), now=now)
    assert answer.standing is Standing.UNKNOWN
    assert word in answer.reason


def test_an_answer_without_end_counts_now_and_is_not_remembered() -> None:
    """It says: ask again any time."""
    answer = judge(respond(ask(), lifetime=None))
    assert (answer.standing, answer.until) == (Standing.GOOD, None)


def test_nonces_tell_fresh_answers_from_replayed_ones() -> None:
    """A wrong one is never accepted, a missing one as the policy says."""
    fresh, old, without = respond(ask(b"12345678")), respond(ask(b"87654321")), respond(ask())
    assert judge(fresh, nonce=b"12345678", nonce_required=True).standing is Standing.GOOD
    assert "replayed" in judge(old, nonce=b"12345678").reason
    assert judge(without, nonce=b"12345678").standing is Standing.GOOD
    assert judge(without, nonce=b"12345678", nonce_required=True).standing is Standing.UNKNOWN


WHOLE = respond(ask(), known={SERIAL: TAKEN_BACK})


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 7))
def test_a_damaged_revocation_never_becomes_good(position: int, bit: int) -> None:
    """No flipped bit turns "revoked" into "good", or into another kind of error."""
    data = bytearray(WHOLE)
    data[position] ^= 1 << bit
    assert judge(bytes(data)).standing is not Standing.GOOD


# Weighing

GOOD, BAD = Answer(Standing.GOOD, "good"), Answer(Standing.REVOKED, "bad")
DOUBT, GONE, NONE = (Answer(one, one.value) for one in (Standing.UNKNOWN, Standing.UNREACHABLE, Standing.ABSENT))


@pytest.mark.parametrize(
    ("answers", "low", "medium", "high"),
    [
        ((GOOD,), 0, 0, 0),
        ((BAD,), 431, 431, 431),
        ((GOOD, BAD), 431, 431, 431),
        ((GONE, GOOD), 0, 0, 0),
        ((GONE,), 0, 427, 427),
        ((GONE, DOUBT), 0, 436, 436),
        ((DOUBT,), 0, 436, 436),
        ((NONE,), 0, 0, 436),
        ((), 0, 0, 436),
    ],
)
def test_the_three_levels(answers: tuple[Answer, ...], low: int, medium: int, high: int) -> None:
    """Low goes on without an answer, medium without a list, high never."""
    for level, expected in ((Level.LOW, low), (Level.MEDIUM, medium), (Level.HIGH, high)):
        code = 0
        try:
            decide(level, answers)
        except KeyringError as error:
            code = error.code
        assert expected == code, level
    assert first_definite(answers) in {GOOD, BAD, None}


def test_the_cache_remembers_definite_answers_until_they_end() -> None:
    """Least recently used first out, doubtful ones not at all."""
    cache = Cache(2)
    ends = Answer(Standing.GOOD, "", NOW + DAY)
    for about in "ab":
        cache.put("here", about, ends)
    assert cache.get("here", "a", NOW) == ends
    cache.put("here", "c", ends)
    assert [ends, None, ends] == [cache.get("here", about, NOW) for about in "abc"]
    assert cache.get("here", "a", NOW + DAY) is None
    cache.put("here", "d", Answer(Standing.UNKNOWN, "", NOW + DAY))
    cache.put("here", "e", GOOD)
    assert [None, None] == [cache.get("here", about, NOW) for about in "de"]


def test_the_cache_is_shared_fairly() -> None:
    """No source has more than its share, however many it fills; a size of 0 remembers nothing."""
    ends = Answer(Standing.GOOD, "", NOW + DAY)
    cache = Cache(5, each=2)
    cache.put("rare", 0, ends)
    for about in range(100):
        cache.put("busy", about, ends)
        cache.put("busy", about, ends)
    assert [0] == [about for about in range(100) if cache.get("rare", about, NOW)]
    assert [98, 99] == [about for about in range(100) if cache.get("busy", about, NOW)]
    none = Cache(0)
    none.put("here", "a", ends)
    assert none.get("here", "a", NOW) is None


# The openssl command on the other side


def openssl(*words: str) -> str:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """ROOT and LEAF as files."""
    for name, one in (("ca", ROOT), ("leaf", LEAF)):
        (tmp_path / f"{name}.pem").write_bytes(certificates.pem(one.certificate))
        (tmp_path / f"{name}.key").write_bytes(certificates.private_key_pem(one.private_key))
    return tmp_path


@needs_openssl
def test_openssl_believes_our_crl(house: Path) -> None:
    """Good without, revoked with the serial number on it."""
    said = []
    for revoked in ((), (TAKEN_BACK,)):
        made = build_crl(ROOT, revoked, now=datetime.datetime.now(datetime.UTC), lifetime=DAY, number=9)
        (house / "crl.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        said.append(
            openssl(
                "verify",
                "-x509_strict",
                "-crl_check",
                "-CRLfile",
                f"{house}/crl.pem",
                "-CAfile",
                f"{house}/ca.pem",
                f"{house}/leaf.pem",
            )
        )
    assert "leaf.pem: OK" in said[0]
    assert "certificate revoked" in said[1]


@needs_openssl
@pytest.mark.parametrize(("flag", "standing"), [("V", Standing.GOOD), ("R", Standing.REVOKED)])
def test_we_believe_the_responder_of_openssl(house: Path, flag: str, standing: Standing) -> None:
    """Our request is understood, its nonce comes back, its answer is judged right."""
    when = "" if flag == "V" else "261101000000Z,keyCompromise"
    serial = f"{SERIAL:X}"
    serial = serial if len(serial) % 2 == 0 else f"0{serial}"
    (house / "index.txt").write_text(f"{flag}\t491231000000Z\t{when}\t{serial}\tunknown\t/CN=leaf\n")
    (house / "index.txt.attr").write_text("unique_subject = no\n")
    (house / "request").write_bytes(ask(b"0123456789abcdef"))
    openssl(
        "ocsp", "-index", f"{house}/index.txt", "-CA", f"{house}/ca.pem", "-rsigner", f"{house}/ca.pem", "-rkey",
        f"{house}/ca.key", "-reqin", f"{house}/request", "-respout", f"{house}/response", "-nmin", "30",
    )  # fmt: skip
    now = datetime.datetime.now(datetime.UTC)
    answer = judge((house / "response").read_bytes(), now=now, nonce=b"0123456789abcdef", nonce_required=True)
    assert standing is answer.standing, answer.reason


@needs_openssl
@pytest.mark.parametrize(("signer", "known", "word"), [(ROOT, None, "good"), (APPOINTED, TAKEN_BACK, "revoked")])
def test_openssl_believes_our_responder(house: Path, signer: Signer, known: Revocation | None, word: str) -> None:
    """From the authority itself and from an appointed one."""
    now = datetime.datetime.now(datetime.UTC)
    (house / "response").write_bytes(respond(ask(), signer=signer, known={SERIAL: known}, now=now))
    said = openssl(
        "ocsp", "-respin", f"{house}/response", "-issuer", f"{house}/ca.pem", "-cert", f"{house}/leaf.pem",
        "-CAfile", f"{house}/ca.pem", "-no_nonce",
    )  # fmt: skip
    assert "Response verify OK" in said
    assert f"leaf.pem: {word}" in said
