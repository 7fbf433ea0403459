"""Every form of a policy's Keyring value."""

import os
import tempfile
from pathlib import Path

import pytest

from attls.errors import KeyringError
from attls.keyring import Store, Usage, certificates, opening, operations
from attls.keyring.tables import Settings

from .workshop import Workshop


def test_a_bare_name_is_a_ring_of_the_connections_user(shop: Workshop) -> None:
    """One policy serves many users, each with a ring of that name."""
    assert shop.store.ring("SERVER", "Demo") == shop.store.ring("demo/SERVER")
    with pytest.raises(KeyringError, match="this one has no user") as caught:
        shop.store.ring("SERVER")
    assert caught.value.code == 202


@pytest.mark.parametrize(
    ("reference", "word"),
    [
        ("demo/NONE", "it has 'SERVER'"),
        ("demo/server", "did you mean 'SERVER'"),
        ("nobody/SERVER", "it has none"),
        ("NONE", "no ring 'NONE'"),
        ("../x/y", "cannot read the keyring file"),
        ("/nonexistent.pem", "No such file"),
        ("*TOKEN*/x", "is a PKCS #11 token"),
        ("*token*/x", "is a PKCS #11 token"),
        ("*FOO*/*", "is no user name"),
        ("demo/a*", "must not contain"),
        ("", "1 to 237"),
        ("/", "there are no certificates in /"),
        ("/dev/null", "not a regular file"),
    ],
)
def test_what_cannot_be_opened_is_return_code_202(shop: Workshop, reference: str, word: str) -> None:
    """Each with a sentence that helps."""
    with pytest.raises(KeyringError, match=word) as caught:
        shop.store.ring(reference, "demo")
    assert caught.value.code == 202


def test_a_store_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A wrong --keyrings is the likeliest cause of all."""
    with pytest.raises(KeyringError, match="no keyring store at"):
        Store(tmp_path / "none").ring("demo/SERVER")
    with pytest.raises(KeyringError, match="no keyring store at"):
        Store(tmp_path / "none").ring("*AUTH*/*")


def test_virtual_rings(shop: Workshop) -> None:
    """All certificates of an owner, with the usage of its kind and no default."""
    shop.leaf("second")
    shop.leaf("partner", owner="SITE")
    own, auth, site = (shop.store.ring(reference) for reference in ("demo/*", "*AUTH*/*", "*site*/*"))
    assert [(one.label, one.usage) for one in own.entries] == [("second", Usage.PERSONAL), ("server", Usage.PERSONAL)]
    assert [(one.label, one.usage) for one in auth.entries] == [("Root", Usage.CERTAUTH)]
    assert [(one.label, one.usage) for one in site.entries] == [("partner", Usage.SITE)]
    assert own.identity("second").label == "second"
    with pytest.raises(KeyringError) as caught:
        own.identity()
    assert caught.value.code == 7


def test_the_authorities_can_be_those_of_the_system(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the store's settings say so, *AUTH*/* is the distribution's trust store, alone or beside ours."""
    bundle = shop.directory.parent / "ca-certificates.crt"
    bundle.write_bytes(certificates.pem(shop.store.certificate("CERTAUTH", "Root").certificate))
    shop.authority("Own")
    monkeypatch.setattr(opening, "_SYSTEM_TRUST", (bundle.with_name("absent"), bundle))
    found = {}
    for source in ("store", "system", "both"):
        shop.store.set_settings(Settings(virtual_auth=source))
        found[source] = [(entry.owner, entry.label) for entry in shop.store.ring("*AUTH*/*").entries]
    own = [("CERTAUTH", "Own"), ("CERTAUTH", "Root")]
    assert {"store": own, "system": [("FILE", "Root")], "both": [*own, ("FILE", "Root")]} == found
    monkeypatch.setattr(opening, "_SYSTEM_TRUST", ())
    with pytest.raises(KeyringError, match="ca-certificates"):
        shop.store.ring("*AUTH*/*")


def test_the_trust_store_of_this_system_can_be_read() -> None:
    """Old roots with odd serial numbers included."""
    if not any(path.is_file() for path in opening._SYSTEM_TRUST):
        pytest.skip("this system has no trust store")
    assert len(opening.system_trust()) > 50


def exported(shop: Workshop, path: Path, form: str, password: bytes | None = None, *, with_key: bool = True) -> Path:
    """Write the server certificate with everything to `path`, mode 0600."""
    stored = shop.store.certificate("demo", "server")
    content = operations.export(shop.store, stored, form=form, with_key=with_key, with_chain=True, password=password)
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_a_pem_bundle_is_a_ring(shop: Workshop, tmp_path: Path) -> None:
    """The certificate whose key is there is the default, authorities are trusted."""
    ring = shop.store.ring(str(exported(shop, tmp_path / "bundle.pem", "pem")))
    expected = shop.store.ring("demo/SERVER")
    assert expected.identity().certificate == ring.identity().certificate
    assert expected.trust_anchors() == ring.trust_anchors()


def test_a_bundle_with_a_clear_key_must_be_closed(shop: Workshop, tmp_path: Path) -> None:
    """The rule for keys holds outside the store too; without a key the file may be public."""
    path = exported(shop, tmp_path / "bundle.pem", "pem")
    path.chmod(0o644)
    with pytest.raises(KeyringError, match="chmod 600"):
        shop.store.ring(str(path))
    public = exported(shop, tmp_path / "public.pem", "pem", with_key=False)
    public.chmod(0o644)
    assert len(shop.store.ring(str(public)).trust_anchors()) == 1


@pytest.mark.parametrize("form", ["pem", "p12"])
def test_a_protected_file_needs_its_password(shop: Workshop, tmp_path: Path, form: str) -> None:
    """Password or stash file; a missing or wrong one is return code 408."""
    path = exported(shop, tmp_path / f"x.{form}", form, b"open sesame")
    stash = tmp_path / "stash"
    stash.write_text("open sesame\n")
    stash.chmod(0o600)
    expected = shop.store.ring("demo/SERVER").identity().private_key
    assert expected == shop.store.ring(str(path), password="open sesame").identity().private_key
    assert expected == shop.store.ring(str(path), stash_file=stash).identity().private_key
    for wrong in (None, "open", ""):
        with pytest.raises(KeyringError) as caught:
            shop.store.ring(str(path), password=wrong)
        assert caught.value.code == 408
    stash.chmod(0o644)
    with pytest.raises(KeyringError, match="chmod 600"):
        shop.store.ring(str(path), stash_file=stash)


def test_a_password_is_for_files_only(shop: Workshop) -> None:
    """On z/OS it says "this is a key database", so a ring name beside it is a mistake."""
    with pytest.raises(KeyringError, match="must be the path"):
        shop.store.ring("demo/SERVER", password="x")


def test_certificates_of_others_in_a_bundle_are_no_anchors(shop: Workshop, tmp_path: Path) -> None:
    """A server certificate without key must not become something that is trusted."""
    path = tmp_path / "x.pem"
    path.write_bytes(certificates.pem(shop.store.certificate("demo", "server").certificate))
    ring = shop.store.ring(str(path))
    assert ring.trust_anchors() == ()
    with pytest.raises(KeyringError):
        ring.identity()


def test_the_chain_of_ones_own_certificate_lets_nobody_in(shop: Workshop, tmp_path: Path) -> None:
    """An intermediate of a public authority is sent along, but is no anchor; roots and other authorities are."""
    middle = shop.authority("Middle", sign_with="Root")
    other = shop.authority("Other", sign_with="Root")
    leaf = shop.leaf("deep", sign_with="Middle")
    root = shop.store.certificate("CERTAUTH", "Root")
    path = tmp_path / "bundle.pem"
    path.write_bytes(
        certificates.private_key_pem(shop.store.private_key(leaf))
        + b"".join(certificates.pem(one.certificate) for one in (leaf, middle, root, other))
    )
    path.chmod(0o600)
    ring = shop.store.ring(str(path))
    assert ring.identity().chain == (certificates.der(middle.certificate),)
    assert ring.trust_anchors() == (certificates.der(root.certificate), certificates.der(other.certificate))


def test_a_key_database_of_gskkyman_is_told_what_to_do(shop: Workshop, tmp_path: Path) -> None:
    """It cannot be read whatever opens it and whatever it is called, and the sentence names the way out."""
    path = tmp_path / "x.kdb"
    path.write_bytes(b"\0\1\2KDB" * 100)
    for opened_with in ({}, {"password": "x"}, {"stash_file": str(tmp_path / "x.sth")}):
        with pytest.raises(KeyringError, match=f"gskkyman -e -k {path} -l LABEL") as caught:
            shop.store.ring(str(path), **opened_with)
        assert caught.value.code == 202
    path.rename(tmp_path / "database")
    with pytest.raises(KeyringError, match="export from it as PKCS#12"):
        shop.store.ring(str(tmp_path / "database"))


def test_a_key_that_we_may_not_read_is_return_code_428(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's file permissions decide: the ring opens, its identity does not."""

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("attls.keyring.files.read_secret", refused)
    ring = shop.store.ring("demo/SERVER")
    with pytest.raises(KeyringError, match=f"user id {os.geteuid()} may not read it") as caught:
        ring.identity()
    assert caught.value.code == 428


def test_another_user_gets_what_file_permissions_give() -> None:
    """Without privileges a store of root opens for verifying peers, but its keys stay closed (428)."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        shop = Workshop(Path(name) / "keyrings")
        shop.authority()
        shop.leaf()
        shop.ring("SERVER", ("demo", "server", Usage.PERSONAL, True), ("CERTAUTH", "Root", Usage.CERTAUTH, False))
        os.seteuid(65534)
        try:
            ring = shop.store.ring("demo/SERVER")
            assert len(ring.trust_anchors()) == 1
            with pytest.raises(KeyringError, match="user id 65534 may not read it") as caught:
                ring.identity()
            assert caught.value.code == 428
            assert shop.store.has_key(shop.store.certificate("demo", "server")) is None
            with pytest.raises(KeyringError, match="you may not write there"):
                shop.store.create_ring("nobody", "X")
        finally:
            os.seteuid(0)


def test_every_change_of_a_ring_happens_in_a_watched_directory(shop: Workshop, tmp_path: Path) -> None:
    """Inside the store wherever it may be, beside a file, and where the links of an ACME client lead."""
    watched = shop.store.watched(["demo/SERVER", "SERVER"])
    assert {path.parent for path in shop.directory.rglob("*")} <= set(watched)
    live, archive = tmp_path / "live", tmp_path / "archive"
    for directory in (live, archive):
        directory.mkdir()
    (archive / "fullchain1.pem").touch()
    (live / "fullchain.pem").symlink_to("../archive/fullchain1.pem")
    assert shop.store.watched([str(live)]) == (tmp_path, archive, live)
    assert shop.store.watched([str(archive / "fullchain1.pem"), "/nonexistent/x.pem"]) == (archive,)
    assert shop.store.watched([str(live / "fullchain.pem")]) == (archive, live)
    (tmp_path / "www").symlink_to("live")
    assert shop.store.watched([str(tmp_path / "www")]) == (tmp_path, tmp_path / "archive", tmp_path / "www")
