"""Keyrings as values: identities, return codes, trust anchors."""

import pickle
from dataclasses import FrozenInstanceError

import pytest

from attls.errors import KeyringError
from attls.keyring import Keyring, Trust, Usage, certificates
from attls.keyring.store import Connection

from .workshop import Workshop


def test_a_keyring_pickles_and_compares_by_content(shop: Workshop) -> None:
    """The supervisor sends it to its workers."""
    ring = shop.store.ring("demo/SERVER")
    assert ring == pickle.loads(pickle.dumps(ring))
    assert ring == shop.store.ring("DEMO/SERVER")
    with pytest.raises(FrozenInstanceError):
        ring.name = "x"  # type: ignore[misc]


def test_no_key_shows_in_a_traceback(shop: Workshop) -> None:
    """Neither ring nor identity prints key bytes."""
    ring = shop.store.ring("demo/SERVER")
    assert "PRIVATE" not in repr(ring) + str(ring) + repr(ring.identity())


def test_only_personal_entries_carry_their_key(shop: Workshop) -> None:
    """The key of an authority stays out of processes that talk to the network."""
    assert {entry.usage: entry.private_key is not None for entry in shop.store.ring("demo/SERVER").entries} == {
        Usage.PERSONAL: True,
        Usage.CERTAUTH: False,
    }


def test_the_identity_comes_with_the_intermediates_of_the_ring(workshop: Workshop) -> None:
    """Nearest first, without the root, and only what is connected and trusted."""
    workshop.authority()
    workshop.authority("Middle", sign_with="Root")
    workshop.authority("Low", sign_with="Middle")
    workshop.leaf(sign_with="Low")
    workshop.ring(
        "R",
        ("demo", "server", Usage.PERSONAL, True),
        ("CERTAUTH", "Root", Usage.CERTAUTH, False),
        ("CERTAUTH", "Middle", Usage.CERTAUTH, False),
        ("CERTAUTH", "Low", Usage.CERTAUTH, False),
    )
    expected = [
        certificates.der(workshop.store.certificate("CERTAUTH", label).certificate) for label in ("Low", "Middle")
    ]
    assert expected == list(workshop.store.ring("demo/R").identity().chain)
    workshop.store.set_trust("CERTAUTH", "Middle", Trust.NOTRUST)
    assert expected[:1] == list(workshop.store.ring("demo/R").identity().chain)


@pytest.mark.parametrize(
    ("label", "code", "word"),
    [("nobody", 407, "no certificate labelled 'nobody'"), ("Root", 428, "connected as CERTAUTH")],
)
def test_labels_that_give_no_identity(shop: Workshop, label: str, code: int, word: str) -> None:
    """407 for a label that is not there, 428 for one that is no identity."""
    with pytest.raises(KeyringError, match=word) as caught:
        shop.store.ring("demo/SERVER").identity(label)
    assert code == caught.value.code


def test_a_ring_without_default_is_return_code_7(shop: Workshop) -> None:
    """And the sentence names both ways out."""
    shop.store.connect("demo", "SERVER", Connection("DEMO", "server", Usage.PERSONAL))
    with pytest.raises(KeyringError, match="CertificateLabel, or connect one with --default") as caught:
        shop.store.ring("demo/SERVER").identity()
    assert caught.value.code == 7
    assert shop.store.ring("demo/SERVER").identity("server").label == "server"


def test_a_missing_private_key_is_return_code_428(shop: Workshop) -> None:
    """The ring can still be used to verify peers."""
    shop.key_file().unlink()
    ring = shop.store.ring("demo/SERVER")
    assert len(ring.trust_anchors()) == 1
    with pytest.raises(KeyringError, match="no private key") as caught:
        ring.identity()
    assert caught.value.code == 428


def test_notrust_counts_for_nothing(shop: Workshop) -> None:
    """Neither as identity nor as anchor."""
    shop.store.set_trust("demo", "server", Trust.NOTRUST)
    shop.store.set_trust("CERTAUTH", "Root", Trust.NOTRUST)
    ring = shop.store.ring("demo/SERVER")
    assert ring.trust_anchors() == ()
    with pytest.raises(KeyringError, match="NOTRUST"):
        ring.identity()


def test_anchors_are_authorities_and_sites(shop: Workshop) -> None:
    """A PERSONAL certificate vouches for nobody."""
    shop.leaf("partner", owner="SITE")
    shop.store.connect("demo", "SERVER", Connection("SITE", "partner", Usage.SITE))
    expected = [shop.store.certificate("CERTAUTH", "Root"), shop.store.certificate("SITE", "partner")]
    assert (
        tuple(certificates.der(one.certificate) for one in expected) == shop.store.ring("demo/SERVER").trust_anchors()
    )


def test_one_label_of_two_owners_is_ambiguous(shop: Workshop) -> None:
    """Return code 441 rather than a guess, unless only one of them can be used."""
    shop.leaf("server", owner="alice")
    shop.store.connect("demo", "SERVER", Connection("ALICE", "server", Usage.PERSONAL))
    with pytest.raises(KeyringError, match="several") as caught:
        shop.store.ring("demo/SERVER").identity("server")
    assert caught.value.code == 441
    shop.key_file("ALICE").unlink()
    assert shop.store.ring("demo/SERVER").identity("server").owner == "demo"


def test_an_empty_ring_is_a_ring() -> None:
    """It trusts nobody and is nobody."""
    ring = Keyring("demo/EMPTY")
    assert ring.trust_anchors() == ()
    with pytest.raises(KeyringError):
        ring.identity()


def test_a_narrowed_ring_holds_only_the_keys_it_needs(shop: Workshop) -> None:
    """Everything else about it stays."""
    shop.leaf("second")
    shop.store.connect("demo", "SERVER", Connection("DEMO", "second", Usage.PERSONAL))
    ring = shop.store.ring("demo/SERVER")
    narrow = ring.narrowed([None])
    assert ring.identity() == narrow.identity()
    assert ring.trust_anchors() == narrow.trust_anchors()
    with pytest.raises(KeyringError, match="not asked for"):
        narrow.identity("second")
    assert ring.identity("second") == ring.narrowed(["second"]).identity("second")
    assert [entry for entry in ring.narrowed([]).entries if entry.private_key] == []
