"""From certificate to user."""

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from attls.errors import KeyringError
from attls.keyring import Trust, Way, certificates, mapping, names
from attls.keyring.mapping import Criterion, MapFilter, NameFilter, UserMap
from attls.keyring.store import StoredCertificate
from attls.keyring.tables import Settings

from .workshop import NOW, Workshop

SUBJECT = "OU=Pay,O=Example,C=DE"


@pytest.fixture
def guest(shop: Workshop) -> StoredCertificate:
    """A certificate CN=guest.OU=Pay.O=Example.C=DE that is no longer registered."""
    made = shop.leaf("guest", owner="temp", subject=SUBJECT)
    shop.store.delete("temp", "guest")
    return made


def find(shop: Workshop, stored: StoredCertificate, **more: str) -> mapping.Answer:
    return shop.store.user_map().find(certificates.der(stored.certificate), **more)


def add(
    shop: Workshop, user: str | None, label: str, subject: str | None = None, issuer: str | None = None, **more: object
) -> None:
    shop.store.add_filter(
        MapFilter(
            label,
            user,
            NameFilter.read(subject) if subject else None,
            NameFilter.read(issuer) if issuer else None,
            **more,  # type: ignore[arg-type]
        )
    )


def test_a_registered_certificate_wins_over_every_filter(shop: Workshop) -> None:
    """It stands for the user who owns it, as the user was spelled."""
    add(shop, "other", "f", "CN=server", "CN=Root")
    answer = find(shop, shop.store.certificate("demo", "server"))
    assert (answer.user, answer.way, answer.label) == ("demo", Way.REGISTERED, "server")


def test_a_registered_certificate_marked_notrust_stands_for_nobody(shop: Workshop) -> None:
    """And no filter gives it a user behind the administrator's back."""
    add(shop, "other", "f", "CN=server")
    shop.store.set_trust("demo", "server", Trust.NOTRUST)
    assert find(shop, shop.store.certificate("demo", "server")).user is None


def test_certificates_of_groups_register_nobody(shop: Workshop) -> None:
    """CERTAUTH and SITE are no users."""
    shop.leaf("partner", owner="SITE")
    assert find(shop, shop.store.certificate("SITE", "partner")).user is None
    assert find(shop, shop.store.certificate("CERTAUTH", "Root")).user is None


def test_the_most_specific_filter_wins(shop: Workshop, guest: StoredCertificate) -> None:
    """In RACF's order; taking away the winner brings up the next."""
    full, issuer = "CN=guest.OU=Pay.O=Example.C=DE", "CN=Root"
    order = [
        ("both-full", full, issuer),
        ("both-long", "OU=Pay.O=Example.C=DE", issuer),
        ("both-short", "C=DE", issuer),
        ("subject-full", full, None),
        ("subject-long", "OU=Pay.O=Example.C=DE", None),
        ("subject-short", "O=Example.C=DE", None),
        ("issuer-full", None, issuer),
    ]
    for label, subject, wanted in reversed(order):
        add(shop, f"u-{label}", label, subject, wanted)
    for label, _, _ in order:
        answer = find(shop, guest)
        assert (f"u-{label}", label) == (answer.user, answer.label)
        shop.store.delete_filter(f"u-{label}", label)
    assert find(shop, guest).user is None


def test_a_part_of_the_issuer_ranks_below_the_whole(workshop: Workshop) -> None:
    """Issuer filters come last, the longer one first."""
    key = certificates.generate_key("ecdsa-p256")
    profile = certificates.Profile(
        subject=certificates.subject_name("CA", "OU=Trust,O=Example"), days=3, is_authority=True
    )
    root = certificates.build(profile, key.public_key(), signer=None, own_key=key, now=NOW)
    filters = [
        MapFilter("short", "a", issuer=NameFilter.read("O=Example")),
        MapFilter("long", "b", issuer=NameFilter.read("OU=Trust.O=Example")),
        MapFilter("whole", "c", issuer=NameFilter.read("CN=CA.OU=Trust.O=Example")),
    ]
    for count, expected in ((3, "c"), (2, "b"), (1, "a")):
        assert expected == UserMap(filters=tuple(filters[:count])).find(certificates.der(root)).user


def test_beside_a_subject_the_issuer_must_match_as_a_whole(shop: Workshop, guest: StoredCertificate) -> None:
    """Otherwise any authority below the same organisation could name any user."""
    add(shop, "u", "f", "CN=guest.OU=Pay.O=Example.C=DE", "CN=Other")
    answer = find(shop, guest)
    assert answer.user is None
    assert "the issuer CN=Root does not end in CN=Other" in [step.reason for step in answer.steps]


def test_values_are_compared_with_case(shop: Workshop, guest: StoredCertificate) -> None:
    """Attribute names fold, values do not."""
    add(shop, "upper", "a", "o=EXAMPLE.c=DE")
    assert find(shop, guest).user is None
    add(shop, "exact", "b", "o=Example.c=DE")
    assert find(shop, guest).user == "exact"


def test_a_name_cannot_pretend_to_be_longer_than_it_is(shop: Workshop) -> None:
    """A common name that contains `.O=Example.C=DE` is one part, not three."""
    add(shop, "boss", "f", "O=Example.C=DE")
    made = shop.leaf("evil.O=Example.C=DE", owner="temp")
    shop.store.delete("temp", "evil.O=Example.C=DE")
    assert find(shop, made).user is None


def test_notrust_filters_are_passed_over(shop: Workshop, guest: StoredCertificate) -> None:
    """The next best one answers."""
    add(shop, "a", "a", "OU=Pay.O=Example.C=DE", trust=Trust.NOTRUST)
    add(shop, "b", "b", "C=DE")
    answer = find(shop, guest)
    assert answer.user == "b"
    assert any("marked NOTRUST" in step.reason for step in answer.steps)


def test_criteria_choose_the_user_by_job_and_system(shop: Workshop, guest: StoredCertificate) -> None:
    """Variables are filled in and looked up, exact before generic; no match leaves it to the next filter."""
    add(shop, None, "multi", "OU=Pay.O=Example.C=DE", criteria="APPLID=&APPLID.SYSID=&SYSID")
    add(shop, "fallback", "f", "C=DE")
    shop.store.set_criterion("APPLID=PAYJOB.SYSID=*", "generic")
    shop.store.set_criterion("APPLID=PAYJOB.SYSID=PROD", "exact")
    answers = [
        find(shop, guest, job=job, system=system).user
        for job, system in (("payjob", "prod"), ("PAYJOB", "test"), ("x", "y"))
    ]
    assert answers == ["EXACT", "GENERIC", "fallback"]
    shop.store.set_criterion("APPLID=PAYJOB.SYSID=PROD", None)
    assert find(shop, guest, job="PAYJOB", system="PROD").user == "GENERIC"
    with pytest.raises(names.MissingError):
        shop.store.set_criterion("APPLID=PAYJOB.SYSID=PROD", None)


def test_host_id_mappings_count_from_hightrust_authorities_only(shop: Workshop) -> None:
    """For this host, after registration and filters said nothing."""
    shop.store.set_settings(Settings(host_names=("here.example",)))
    extension = mapping.host_id_extension([("here.example", "carol"), ("there.example", "dave")])
    made = shop.leaf("mapped", owner="temp", extra=(extension,))
    shop.store.delete("temp", "mapped")
    assert find(shop, made).user is None
    shop.store.set_trust("CERTAUTH", "Root", Trust.HIGHTRUST)
    answer = find(shop, made)
    assert (answer.user, answer.way) == ("carol", Way.HOST_ID)
    shop.store.set_settings(Settings(host_names=("else.example",)))
    assert find(shop, made).user is None
    add(shop, "filtered", "f", "CN=mapped")
    assert find(shop, made).user == "filtered"


@given(st.binary(max_size=80))
def test_a_damaged_host_id_extension_maps_nobody(content: bytes) -> None:
    """Whatever bytes it holds."""
    extension = x509.Extension(
        certificates.HOST_ID_MAPPINGS, False, x509.UnrecognizedExtension(certificates.HOST_ID_MAPPINGS, content)
    )
    profile = certificates.Profile(subject=certificates.subject_name("x"), days=1, extra=(extension,))
    made = certificates.build(profile, KEY.public_key(), signer=None, own_key=KEY, now=NOW)
    users = UserMap(host_authorities=(certificates.der(made),), host_names=frozenset({"x"}))
    assert users.find(certificates.der(made)).way in {Way.NONE, Way.HOST_ID}


KEY = certificates.generate_key("ed25519")


@given(st.lists(st.tuples(st.text(max_size=40), st.text(max_size=200)), max_size=5))
def test_host_id_mappings_survive_encoding(pairs: list[tuple[str, str]]) -> None:
    """What is put in comes out, up to the order of a set."""
    good = [
        (host, user)
        for host, user in pairs
        if host.isascii() and host.isprintable() and user.isascii() and len(user) <= 64 and _is_owner(user)
    ]
    extension = mapping.host_id_extension(good)
    profile = certificates.Profile(subject=certificates.subject_name("x"), days=1, extra=(extension,))
    made = certificates.build(profile, KEY.public_key(), signer=None, own_key=KEY, now=NOW)
    assert sorted(good) == sorted(mapping.host_id_mappings(made))


def _is_owner(user: str) -> bool:
    try:
        names.check_owner(user)
    except KeyringError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CN=a.b.c.OU=Pay.O=Ex. Ltd.C=DE", [["CN=a.b.c"], ["OU=Pay"], ["O=Ex. Ltd"], ["C=DE"]]),
        ("OU=Pay, O=Example, Inc., C=DE", [["OU=Pay"], ["O=Example, Inc."], ["C=DE"]]),
        ("cn=x+uid=7.o=E", [["CN=x", "UID=7"], ["O=E"]]),
        ("CN=y.OID.1.2.3.4=x.C=DE", [["CN=y"], ["OID.1.2.3.4=x"], ["C=DE"]]),
        ("MAIL=a@b.example.O=E", [["MAIL=a@b.example"], ["O=E"]]),
    ],
)
def test_filters_are_read_as_racf_writes_them_or_with_commas(text: str, expected: list[list[str]]) -> None:
    """Dots and commas inside values stay where no attribute follows."""
    read = NameFilter.read(text)
    assert expected == read.items()
    assert read == NameFilter.from_items(read.items())


@pytest.mark.parametrize("text", ["", "   ", "Example", "XX=1", "CN=", "CN=a.O=", "x" * 256, "CN=\udcff", "CN=a\nb"])
def test_what_is_no_filter_is_refused(text: str) -> None:
    """An empty filter would match everybody."""
    with pytest.raises(KeyringError):
        NameFilter.read(text)


def test_a_filter_needs_a_name_and_one_target(shop: Workshop) -> None:
    """Nothing that matches everybody or leads nowhere is kept, and nothing twice."""
    for entry in (
        MapFilter("x", "u"),
        MapFilter("x", None, NameFilter.read("O=E")),
        MapFilter("x", "u", NameFilter.read("O=E"), criteria="c"),
        MapFilter("x", "CERTAUTH", NameFilter.read("O=E")),
        MapFilter("x", None, NameFilter.read("O=E"), criteria="APPLID=\udcff"),
        MapFilter("x", "u", NameFilter.read("O=E"), trust=Trust.HIGHTRUST),
    ):
        with pytest.raises(KeyringError):
            shop.store.add_filter(entry)
    add(shop, "u", "x", "O=E")
    with pytest.raises(KeyringError, match="already has a filter labelled"):
        add(shop, "U", "x", "O=F")
    with pytest.raises(KeyringError, match="already says"):
        add(shop, "v", "y", "O=E")


def test_a_damaged_filter_maps_nobody(shop: Workshop, guest: StoredCertificate) -> None:
    """The map as a whole is refused: a lost filter could make a less specific one win."""
    add(shop, "u", "x", "C=DE")
    path = shop.directory / "maps/U/x.toml"
    path.write_text(path.read_text().replace("TRUST", "MAYBE"))
    with pytest.raises(KeyringError, match="damaged"):
        find(shop, guest)


def test_a_model_certificate_gives_the_rest_of_the_name() -> None:
    """The filter starts at the given text inside the model's name."""
    name = certificates.subject_name("guest", SUBJECT)
    assert NameFilter.read("OU=Pay.O=Example.C=DE") == mapping.from_model(name, "OU=Pay")
    assert NameFilter.of(name) == mapping.from_model(name, "CN=guest.OU=Pay")
    with pytest.raises(KeyringError, match="does not occur"):
        mapping.from_model(name, "OU=Sales")


PART = st.sampled_from(["CN=a", "CN=b", "OU=x", "OU=y", "O=E", "C=DE"])


@given(st.lists(PART, min_size=1, max_size=4), st.lists(PART, min_size=1, max_size=4))
def test_matching_is_the_tail_of_the_dotted_name(name: list[str], pattern: list[str]) -> None:
    """For values without dots the structured match equals RACF's comparison of text ends."""
    expected = (".".join(name)).endswith(".".join(pattern)) and len(pattern) <= len(name)
    whole = NameFilter.read(".".join(name))
    assert expected == NameFilter.read(".".join(pattern)).matches(whole)


@given(st.text(alphabet="AB*?[].", max_size=8), st.text(alphabet="AB[].*?", max_size=8))
def test_criteria_know_two_wildcards_only(pattern: str, text: str) -> None:
    """Everything but * and ? stands for itself, brackets and dots included."""

    def fits(rest: str, left: str) -> bool:
        if not rest:
            return not left
        if rest[0] == "*":
            return any(fits(rest[1:], left[cut:]) for cut in range(len(left) + 1))
        return bool(left) and rest[0] in {"?", left[0]} and fits(rest[1:], left[1:])

    assert fits(pattern, text) == Criterion(pattern, "u").fits(text)
