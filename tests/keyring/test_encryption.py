"""Private keys encrypted at rest."""

from pathlib import Path

import pytest

from attls.errors import KeyringError
from attls.keyring import Store, certificates, operations

from .workshop import NOW, Workshop


@pytest.fixture
def sealed(shop: Workshop) -> Workshop:
    """The shop with its keys encrypted under "one"; its store knows no passphrase."""
    shop.store.reencrypt(b"one")
    return shop


def test_no_key_lies_in_clear(sealed: Workshop) -> None:
    """And the modes stay."""
    for path in sealed.store.key_files():
        assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_passphrase_opens_rings(sealed: Workshop) -> None:
    """Given as bytes or by a function that is asked only when it is needed."""
    expected = Store(sealed.directory, passphrase=b"one").ring("demo/SERVER").identity().private_key
    assert certificates.load_private_key(expected)
    asked = []

    def ask() -> bytes:
        asked.append(1)
        return b"one"

    store = Store(sealed.directory, passphrase=ask)
    store.ring("*AUTH*/*")
    assert asked == []
    assert expected == store.ring("demo/SERVER").identity().private_key
    assert asked == [1]


@pytest.mark.parametrize("passphrase", [b"two", b"", None])
def test_a_wrong_or_missing_passphrase_is_return_code_408(
    sealed: Workshop, passphrase: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key's file is named."""
    monkeypatch.delenv("ATTLS_PASSPHRASE_FILE", raising=False)
    with pytest.raises(KeyringError, match=r"server\..*\.key: the private key") as caught:
        Store(sealed.directory, passphrase=passphrase).ring("demo/SERVER")
    assert caught.value.code == 408


@pytest.mark.parametrize("way", ["file", "credential"])
def test_the_passphrase_comes_from_the_environment(
    sealed: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A file named by a variable, or a systemd credential; either must be closed to others."""
    path = tmp_path / "attls-passphrase"
    path.write_text("one\n")
    path.chmod(0o400)
    if way == "file":
        monkeypatch.setenv("ATTLS_PASSPHRASE_FILE", str(path))
    else:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Store(sealed.directory).ring("demo/SERVER").identity()
    path.chmod(0o444)
    with pytest.raises(KeyringError, match="chmod 600"):
        Store(sealed.directory).ring("demo/SERVER")


def test_new_keys_are_encrypted_with_the_same_passphrase_or_refused(sealed: Workshop) -> None:
    """A typing error does not give the store a second passphrase."""
    for passphrase, word in ((b"typo", "wrong"), (b"", "--passphrase-file")):
        sealed.store = Store(sealed.directory, passphrase=passphrase)
        with pytest.raises(KeyringError, match=word):
            operations.request(
                sealed.store,
                owner="demo",
                label="new",
                subject=certificates.subject_name("new"),
                alternative=(),
                key_type="ecdsa-p256",
            )
    sealed.store = Store(sealed.directory, passphrase=b"one")
    sealed.leaf("new")
    assert b"ENCRYPTED" in sealed.key_file(label="new").read_bytes()
    operations.renew(sealed.store, owner="demo", label="new", new_key=True, key_type=None, days=1, now=NOW)
    assert b"ENCRYPTED" in sealed.key_file(label="new").read_bytes()


def test_the_passphrase_can_change_and_go(sealed: Workshop) -> None:
    """The wrong old one changes nothing."""
    with pytest.raises(KeyringError):
        Store(sealed.directory, passphrase=b"two").reencrypt(b"three")
    assert Store(sealed.directory, passphrase=b"one").reencrypt(b"two") == 2
    assert Store(sealed.directory, passphrase=b"two").reencrypt(None) == 2
    assert sealed.store.ring("demo/SERVER").identity()
    assert not sealed.store.settings().encrypt_keys
