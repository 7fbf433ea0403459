"""Certificates that an ACME client or Kubernetes puts into a directory are put in force as they put them there."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner

from attls.cli import main
from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import client_context, echo, make_rings, program, rule

pytestmark = pytest.mark.scene


class Authority:
    """A CA in a store that the daemon knows nothing of; it plays the ACME server."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.issued = 0
        make_rings(store)

    def issue(self) -> tuple[bytes, bytes]:
        """Return a new certificate and its key, PEM."""
        self.issued += 1
        label, pair = f"n{self.issued}", (self.store / "certificate", self.store / "key")
        for command in (
            f"cert issue --owner SRV --label {label} --cn n --sign-with CA --san IP:10.1.0.1",
            f"cert export --owner SRV --label {label} --out {pair[0]}",
            f"cert export --owner SRV --label {label} --with-key --out {pair[1]}",
        ):
            done = CliRunner().invoke(main, [*command.split(), "--keyrings", str(self.store)])
            assert done.exit_code == 0, done.output
        certificate = pair[0].read_bytes()
        return certificate, pair[1].read_bytes().replace(certificate, b"")


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file as these programs do."""
    path.write_bytes(content)
    path.chmod(mode)


def point(link: Path, target: str) -> None:
    """Make `link` lead to `target`, in one step."""
    new = link.with_name("..new")
    new.symlink_to(target)
    new.rename(link)


def publish(secret: Path, number: int, certificate: bytes, key: bytes) -> None:
    """Change a secret the way the kubelet does: write a generation aside, swap one link, take the old one away."""
    generation = secret / f"..2026_11_25.{number}"
    generation.mkdir()
    write(generation / "tls.crt", certificate)
    write(generation / "tls.key", key, 0o400)
    before = secret / (secret / "..data").readlink() if number > 1 else None
    point(secret / "..data", generation.name)
    for name in ("tls.crt", "tls.key"):
        if not (secret / name).is_symlink():
            (secret / name).symlink_to(f"..data/{name}")
    if before is not None:
        for file in before.iterdir():
            file.unlink()
        before.rmdir()


def archive(etc: Path, number: int, certificate: bytes, key: bytes) -> None:
    """Write what `certbot renew` has got beside what it got before; nothing leads there yet."""
    folder = etc / "archive/db"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("cert", "fullchain"):
        write(folder / f"{name}{number}.pem", certificate)
    write(folder / f"chain{number}.pem", b"")
    write(folder / f"privkey{number}.pem", key, 0o600)


def lead(etc: Path, number: int, *names: str) -> None:
    """Let the links in certbot's live directory lead to what is in its archive."""
    (etc / "live/db").mkdir(parents=True, exist_ok=True)
    for name in names or ("cert", "chain", "fullchain", "privkey"):
        point(etc / f"live/db/{name}.pem", f"../../archive/db/{name}{number}.pem")


def presented(stage: Stage, store: Path, port: int) -> bytes:
    """Connect, say hello and return the certificate (PEM) that the host presents."""
    with client_context(store).wrap_socket(stage.peer.connect("10.1.0.1", port)) as sock:
        assert b"hello" == echo(sock)
        return ssl.DER_cert_to_PEM_cert(sock.getpeercert(binary_form=True) or b"").encode()


def test_renewal(stage: Stage, tmp_path: Path) -> None:
    """The swap of a link serves the next connection; where the key does not fit, what was there before goes on.

    That is reported, and does not hold up the other directory.
    """
    authority = Authority(tmp_path / "authority")
    secret, etc = tmp_path / "secret", tmp_path / "letsencrypt"
    secret.mkdir()
    secret.chmod(0o1777)  # as the kubelet leaves it
    first = authority.issue()
    publish(secret, 1, *first)
    archive(etc, 1, *first)
    lead(etc, 1)
    policy = rule("kube", ring=str(secret)) + rule("acme", port=7001, ring=f"{etc}/live/db")
    daemon = stage.daemon.start(policy)
    with program(stage.host), program(stage.host, port=7001):
        assert [first[0]] * 2 == [presented(stage, authority.store, port) for port in (7000, 7001)]

        second = authority.issue()
        archive(etc, 2, *second)
        lead(etc, 2, "fullchain")  # and there it was killed
        publish(secret, 2, *second)
        wait_until(lambda: daemon.status()["last_error"], 10)
        assert "rule acme: the private key does not belong to the certificate 'n' in" in daemon.status()["last_error"]
        wait_until(lambda: daemon.status()["generation"] > 1, 10)
        assert [second[0], first[0]] == [presented(stage, authority.store, port) for port in (7000, 7001)]

        third = authority.issue()
        lead(etc, 2)
        publish(secret, 3, third[0], second[1])
        wait_until(lambda: "rule kube: " in (daemon.status()["last_error"] or ""), 10)
        assert [second[0]] * 2 == [presented(stage, authority.store, port) for port in (7000, 7001)]
        publish(secret, 4, *third)
        wait_until(lambda: daemon.status()["last_error"] is None, 10)
        assert [third[0], second[0]] == [presented(stage, authority.store, port) for port in (7000, 7001)]
