"""Strict mode: reading a ring takes a grant."""

import os
import pwd

import pytest

from attls.errors import KeyringError
from attls.keyring import Usage
from attls.keyring.grants import Access
from attls.keyring.store import Connection
from attls.keyring.tables import Settings

from .workshop import Workshop


@pytest.fixture
def strict(shop: Workshop) -> Workshop:
    """The shop with grants asked for, and a certificate of CERTAUTH and one of alice on demo's ring."""
    shop.leaf("hers", owner="alice")
    shop.leaf("group", owner="SITE")
    for owner, label in (("ALICE", "hers"), ("SITE", "group")):
        shop.store.connect("demo", "SERVER", Connection(owner, label, Usage.PERSONAL))
    shop.store.set_settings(Settings(grants=True))
    return shop


def keys(shop: Workshop, user: str, reference: str = "demo/SERVER") -> list[str]:
    """The labels whose private key `user` gets."""
    return [entry.label for entry in shop.store.ring(reference, user).entries if entry.private_key]


def test_without_the_setting_grants_do_not_matter(shop: Workshop) -> None:
    """Whoever loads the policy decides."""
    assert shop.store.ring("demo/SERVER", "mallory").identity()
    assert shop.store.ring("demo/SERVER").identity()


@pytest.mark.parametrize("user", ["mallory", ""])
def test_a_ring_without_grant_is_return_code_202(strict: Workshop, user: str | None) -> None:
    """Also when nobody knows who wants to read it."""
    with pytest.raises(KeyringError) as caught:
        strict.store.ring("demo/SERVER", user)
    assert caught.value.code == 202


def test_without_a_connection_the_one_who_runs_the_process_needs_the_grant(strict: Workshop) -> None:
    """A daemon that reads rings when it loads its policy; each user is asked about when a connection comes."""
    with pytest.raises(KeyringError, match="may not read ring") as caught:
        strict.store.ring("demo/SERVER")
    assert caught.value.code == 202
    strict.store.set_grant("demo/SERVER", pwd.getpwuid(os.geteuid()).pw_name, Access.UPDATE)
    assert strict.store.ring("demo/SERVER").identity().label == "server"
    strict.store.check_access("demo/SERVER", "Demo")
    with pytest.raises(KeyringError, match="bob may not read"):
        strict.store.check_access("demo/SERVER", "bob")
    strict.store.set_settings(Settings())
    strict.store.check_access("demo/SERVER", "bob")


def test_the_owner_reads_his_ring_and_his_keys(strict: Workshop) -> None:
    """Keys of others on it take more; the sentence says what, as return code 428."""
    assert keys(strict, "Demo") == ["server"]
    with pytest.raises(KeyringError, match="DEMO needs UPDATE access to ring demo/SERVER") as caught:
        strict.store.ring("demo/SERVER", "demo").identity("hers")
    assert caught.value.code == 428


@pytest.mark.parametrize(
    ("access", "expected"),
    [
        (Access.READ, ["hers"]),
        (Access.UPDATE, ["server", "hers"]),
        (Access.CONTROL, ["server", "hers", "group"]),
    ],
)
def test_each_level_hands_out_more_keys(strict: Workshop, access: Access, expected: list[str]) -> None:
    """One's own, those of other users, those of the groups."""
    strict.store.set_grant("DEMO/SERVER", "Alice", access)
    assert sorted(expected) == sorted(keys(strict, "alice"))


def test_a_grant_is_for_one_ring_or_all_of_an_owner(strict: Workshop) -> None:
    """And can be taken back."""
    strict.ring("OTHER")
    strict.store.set_grant("demo/SERVER", "bob", Access.READ)
    with pytest.raises(KeyringError):
        strict.store.ring("demo/OTHER", "bob")
    strict.store.set_grant("demo/*", "bob", Access.READ)
    assert strict.store.ring("demo/OTHER", "bob").entries == ()
    assert keys(strict, "bob", "demo/*") == []
    for reference in ("demo/*", "demo/SERVER"):
        strict.store.set_grant(reference, "bob", None)
    with pytest.raises(KeyringError):
        strict.store.ring("demo/SERVER", "bob")
    with pytest.raises(KeyringError, match="no grant"):
        strict.store.set_grant("demo/SERVER", "bob", None)


def test_virtual_rings_of_the_groups_take_a_grant_too(strict: Workshop) -> None:
    """READ on *AUTH*/* is enough to verify peers."""
    with pytest.raises(KeyringError):
        strict.store.ring("*AUTH*/*", "bob")
    strict.store.set_grant("*auth*/*", "bob", Access.READ)
    assert len(strict.store.ring("*AUTH*/*", "bob").trust_anchors()) == 1


@pytest.mark.parametrize("reference", ["x", "../x/y", "*FOO*/*", "demo/a*"])
def test_nonsense_cannot_be_granted(strict: Workshop, reference: str) -> None:
    """A grant that could never count is refused."""
    with pytest.raises(KeyringError):
        strict.store.set_grant(reference, "bob", Access.READ)


def test_a_damaged_grant_file_opens_nothing(strict: Workshop) -> None:
    """Fail closed, with the path."""
    (strict.directory / "grants.toml").write_text('[[grant]]\nring = "demo/SERVER"\nuser = "bob"\naccess = "all"\n')
    with pytest.raises(KeyringError, match=r"grants\.toml is damaged"):
        strict.store.ring("demo/SERVER", "bob")
