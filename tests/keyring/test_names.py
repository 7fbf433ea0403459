"""Owners, labels and ring names, and the file names they become."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls.errors import KeyringError
from attls.keyring import names


@given(st.text(max_size=300))
def test_a_label_is_refused_or_becomes_one_harmless_file_name(label: str) -> None:
    """Whatever is given as label, it is refused, or encoded as one path component from which it can be read back."""
    try:
        checked = names.check_label(label)
    except KeyringError:
        return
    encoded = names.file_name(checked)
    assert PurePosixPath(encoded).parts == (encoded,)
    assert encoded not in {".", ".."}
    assert not encoded.startswith(".")
    assert len(encoded.encode()) <= 255 - len(".0123456789abcdef.key")
    assert names.from_file_name(encoded) == label


@given(st.text(max_size=80))
def test_an_owner_is_refused_or_folded_once(owner: str) -> None:
    """An owner that is accepted has one canonical spelling, whatever its case."""
    try:
        canonical = names.check_owner(owner)
    except KeyringError:
        return
    assert canonical == names.check_owner(owner.lower()) == names.check_owner(canonical)
    assert "/" not in names.file_name(canonical)


@pytest.mark.parametrize("owner", ["", "..", ".", "../etc", "a/b", "*", "a b", "-x", "naïve", "a\nb", "x" * 65, "a\0"])
def test_impossible_owners_are_refused(owner: str) -> None:
    """Path traversal, wildcards, blanks and control characters are no user names."""
    with pytest.raises(names.InvalidNameError):
        names.check_owner(owner)


@pytest.mark.parametrize("label", ["", " x", "x ", "a\nTrust: HIGHTRUST", "\x1b[2J", "x" * 65, "ü" * 60])
def test_impossible_labels_are_refused(label: str) -> None:
    """Labels that could break a file or a terminal, or would not fit a file name, are refused."""
    with pytest.raises(names.InvalidNameError):
        names.check_label(label)


@pytest.mark.parametrize("reference", ["SERVER", "demo/", "/SERVER", "demo/a/b", "demo/*", "../../etc/x", "demo/..\n"])
def test_impossible_ring_names_are_refused(reference: str) -> None:
    """A ring to create or change is USER/RING, nothing else."""
    with pytest.raises(names.InvalidNameError):
        names.split_ring(reference)


def test_reserved_users_are_the_two_groups() -> None:
    """RACF's internal owners mean CERTAUTH and SITE."""
    assert [names.check_owner("irrcerta"), names.check_owner("IRRSITEC")] == ["CERTAUTH", "SITE"]
