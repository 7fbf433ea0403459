"""Tables of the store: whatever a hand or a disk made of them, and whatever names they hold."""

import contextlib
import datetime
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from attls.errors import KeyringError
from attls.keyring import Store, certificates
from attls.keyring.mapping import MapFilter, NameFilter

ONE_STORE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

_SPELLINGS = """
    owner name label usage default entry ring user access grant criteria criterion trust subject issuer serial when
    reason revoked virtual_auth encrypt_keys grants host_names lists
"""
_KEYS = st.sampled_from(_SPELLINGS.split())
_WORDS = st.sampled_from(["demo", "TRUST", "personal", "READ", "store", "O=E", "1F", "superseded", "a/b", "*", ""])
_MOMENTS = st.sampled_from([datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), datetime.datetime(2026, 1, 1)])
_VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-9, 9), _WORDS, st.text(max_size=5), _MOMENTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=4)),
    max_leaves=8,
)


def toml(value: object) -> str:
    """Write a value as TOML does inside a line."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(toml(item) for item in value)}]"
        case dict():
            return f"{{{', '.join(f'{key} = {toml(item)}' for key, item in value.items())}}}"
        case datetime.datetime():
            return value.isoformat()
    return str(value)


@ONE_STORE
@given(st.dictionaries(_KEYS, _VALUES, max_size=6))
def test_any_table_is_read_or_refused_with_its_path(tmp_path: Path, content: dict[str, object]) -> None:
    """There is one kind of error, and it says which file to correct."""
    text = "".join(f"{key} = {toml(value)}\n" for key, value in content.items())
    store = Store(tmp_path / "k")
    readers: dict[str, Callable[[], object]] = {
        "store.toml": store.settings,
        "grants.toml": store.grants,
        "criteria.toml": store.criteria,
        "rings/DEMO/R.toml": lambda: store.definition("demo", "R"),
        "maps/DEMO/m.toml": store.filters,
        "revoked/CERTAUTH/CA.toml": lambda: store.revocations("CERTAUTH", "CA"),
    }
    for name, read in readers.items():
        path = store.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        try:
            read()
        except KeyringError as error:
            assert str(path) in str(error)


_ATTRIBUTES = st.sampled_from(
    [NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.DOMAIN_COMPONENT, x509.ObjectIdentifier("1.2.3.4")]
)
_NAMES = st.lists(
    st.dictionaries(_ATTRIBUTES, st.text(min_size=1, max_size=12), min_size=1, max_size=2), min_size=1, max_size=4
).map(
    lambda parts: x509.Name(
        [
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(oid, value, _validate=False) for oid, value in part.items()]
            )
            for part in parts
        ]
    )
)


@ONE_STORE
@given(_NAMES, _NAMES)
@example(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ' a"\n\\\x7f\u2028 ')]), x509.Name([]))
def test_a_filter_with_any_name_of_a_certificate_is_kept_as_it_is(
    tmp_path: Path, subject: x509.Name, issuer: x509.Name
) -> None:
    """Names of a model certificate come from its maker: no character of them may break the map or be lost."""
    store = Store(tmp_path / "k")
    entry = MapFilter(
        "m", "demo", NameFilter.of(subject) if subject.rdns else None, NameFilter.of(issuer) if issuer.rdns else None
    )
    store.add_filter(entry)
    try:
        assert store.filters() == [entry]
    finally:
        store.delete_filter("demo", "m")


@given(st.one_of(st.none(), st.text(max_size=70)), st.one_of(st.none(), st.text(max_size=30)))
@example(None, "CN=\\")
def test_any_subject_is_built_or_refused(common_name: str | None, others: str | None) -> None:
    """What a user types as a distinguished name is a name or a sentence."""
    with contextlib.suppress(KeyringError):
        assert certificates.subject_name(common_name, others).rdns


@given(st.text(max_size=30))
@example("OID.1..2=x")
@example("CN=a+")
def test_any_filter_text_is_read_or_refused(text: str) -> None:
    """And what was read is written so that it reads the same."""
    try:
        read = NameFilter.read(text)
    except KeyringError:
        return
    assert NameFilter.from_items(read.items()) == read


@pytest.mark.parametrize("text", ["OID.1.=x", "OID.=x", "OID.9.9=x"])
def test_an_object_identifier_that_cannot_be_is_no_attribute(text: str) -> None:
    """It could match nothing."""
    with pytest.raises(KeyringError):
        NameFilter.read(text)
