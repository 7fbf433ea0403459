"""Directories of ACME clients and Kubernetes as rings."""

import threading
from pathlib import Path

import pytest

from attls.errors import KeyringError
from attls.keyring import Usage, certificates, opening
from attls.keyring.store import StoredCertificate

from .workshop import Workshop

LAYOUTS = [
    ("tls.crt", "tls.key", "ca.crt"),
    ("fullchain.pem", "privkey.pem", "chain.pem"),
    ("cert.pem", "key.pem", "ca.pem"),
]


def fill(shop: Workshop, directory: Path, layout: tuple[str, str, str] = LAYOUTS[0], label: str = "server") -> None:
    """Write certificate, key and authority as `layout` names them."""
    directory.mkdir(parents=True, exist_ok=True)
    stored = shop.store.certificate("demo", label)
    root = shop.store.certificate("CERTAUTH", "Root")
    key = certificates.private_key_pem(shop.store.private_key(stored))
    contents = (certificates.pem(stored.certificate), key, certificates.pem(root.certificate))
    for name, content in zip(layout, contents, strict=True):
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600 if content is key else 0o644)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_layouts_are_rings(shop: Workshop, tmp_path: Path, layout: tuple[str, str, str]) -> None:
    """Identity by default, ca files as anchors; what ACME clients call chain.pem says nothing of trust."""
    fill(shop, tmp_path / "live", layout)
    ring, expected = shop.store.ring(str(tmp_path / "live")), shop.store.ring("demo/SERVER")
    assert expected.identity().certificate == ring.identity().certificate
    anchors = () if layout[2] == "chain.pem" else expected.trust_anchors()
    assert anchors == ring.trust_anchors()


@pytest.mark.parametrize("names", [("w.example.crt", "w.example.key"), ("fullchain.cer", "w.example.key")])
def test_files_named_by_the_host_are_a_ring(shop: Workshop, tmp_path: Path, names: tuple[str, str]) -> None:
    """As Caddy, lego and acme.sh write them; with a second key beside them nobody could tell which is meant."""
    fill(shop, tmp_path / "live", (*names, "w.example.issuer.crt"))
    (tmp_path / "live/w.example.json").write_text("{}")
    ring = shop.store.ring(str(tmp_path / "live"))
    assert (ring.identity().label, ring.trust_anchors()) == ("server", ())
    (tmp_path / "live/other.key").write_text("")
    with pytest.raises(KeyringError, match="one NAME"):
        shop.store.ring(str(tmp_path / "live"))


def generation(shop: Workshop, mount: Path, name: str, label: str) -> None:
    """Publish a new generation the way the kubelet does: write aside, swap one symbolic link."""
    fill(shop, mount / name, label=label)
    link = mount / "..new"
    link.symlink_to(name)
    link.rename(mount / "..data")
    for file in LAYOUTS[0]:
        if not (mount / file).is_symlink():
            (mount / file).symlink_to(f"..data/{file}")


def test_a_kubernetes_secret_is_read_generation_by_generation(shop: Workshop, tmp_path: Path) -> None:
    """While the link is swapped back and forth, certificate and key always belong together."""
    shop.leaf("second")
    mount = tmp_path / "secret"
    generation(shop, mount, "..2026_01", "server")
    generation(shop, mount, "..2026_02", "second")
    stop = threading.Event()

    def swap() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            link = mount / "..new"
            link.symlink_to("..2026_01" if number % 2 else "..2026_02")
            link.rename(mount / "..data")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = {opening.read_directory_ring(mount, attempts=1).identity().label for _ in range(60)}
    finally:
        stop.set()
        thread.join()
    assert seen <= {"server", "second"}


def test_a_half_written_renewal_is_read_again(shop: Workshop, tmp_path: Path) -> None:
    """An ACME client replaces certificate and key one after the other."""
    shop.leaf("second")
    live, layout = tmp_path / "live", LAYOUTS[1]
    fill(shop, live, layout)
    old_key = (live / "privkey.pem").read_bytes()
    fill(shop, live, layout, label="second")
    new_key = (live / "privkey.pem").read_bytes()
    (live / "privkey.pem").write_bytes(old_key)
    timer = threading.Timer(0.15, lambda: (live / "privkey.pem").write_bytes(new_key))
    timer.start()
    assert shop.store.ring(str(live)).identity().label == "second"
    timer.join()
    (live / "privkey.pem").write_bytes(old_key)
    with pytest.raises(KeyringError, match="does not belong"):
        opening.read_directory_ring(live, attempts=2)


def test_a_key_that_others_may_read_is_refused_here_too(shop: Workshop, tmp_path: Path) -> None:
    """Through the symbolic link, with the chmod for the real file."""
    generation(shop, tmp_path / "secret", "..2026_01", "server")
    key = tmp_path / "secret/..2026_01/tls.key"
    key.chmod(0o644)
    with pytest.raises(KeyringError, match=f"chmod 600 {key}") as caught:
        shop.store.ring(str(tmp_path / "secret"))
    assert caught.value.code == 428
    key.chmod(0o600)
    key.parent.chmod(0o777)
    with pytest.raises(KeyringError, match="chmod go-w"):
        shop.store.ring(str(tmp_path / "secret"))


def test_a_directory_may_carry_trust_only(shop: Workshop, tmp_path: Path) -> None:
    """A client that presents nothing needs ca.crt alone."""
    fill(shop, tmp_path / "t")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / "t" / name).unlink()
    ring = shop.store.ring(str(tmp_path / "t"))
    assert len(ring.trust_anchors()) == 1
    with pytest.raises(KeyringError) as caught:
        ring.identity()
    assert caught.value.code == 7


def test_a_key_without_certificate_or_unknown_names_are_refused(shop: Workshop, tmp_path: Path) -> None:
    """The sentence lists the names that are known."""
    fill(shop, tmp_path / "t")
    for name in ("tls.crt", "ca.crt"):
        (tmp_path / "t" / name).unlink()
    for path in (tmp_path / "t", tmp_path):
        with pytest.raises(KeyringError, match=r"tls\.crt, tls\.key, ca\.crt; fullchain\.pem, privkey\.pem; cert"):
            shop.store.ring(str(path))


def test_a_chain_in_the_certificate_file_is_sent(shop: Workshop, tmp_path: Path) -> None:
    """As certbot's fullchain.pem has it."""
    middle: StoredCertificate = shop.authority("Middle", sign_with="Root")
    leaf = shop.leaf("deep", sign_with="Middle")
    fill(shop, tmp_path / "live", LAYOUTS[1], label="deep")
    (tmp_path / "live/fullchain.pem").write_bytes(
        certificates.pem(leaf.certificate) + certificates.pem(middle.certificate)
    )
    ring = shop.store.ring(f"{tmp_path}/live/")
    assert (certificates.der(middle.certificate),) == ring.identity().chain
    assert ring.trust_anchors() == ()


def test_a_self_signed_peer_can_be_trusted_by_name(shop: Workshop, tmp_path: Path) -> None:
    """A ca.crt that holds no authority is a partner that is trusted as it is."""
    fill(shop, tmp_path / "t")
    (tmp_path / "t/ca.crt").write_bytes(certificates.pem(shop.leaf("peer").certificate))
    assert Usage.SITE in [entry.usage for entry in shop.store.ring(str(tmp_path / "t")).entries]
