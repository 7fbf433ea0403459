"""Changes of the store that do not come to their end: the power goes, the disk is full."""

import contextlib
import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attls.keyring import Store, Trust, Usage, certificates, operations
from attls.keyring.inspection import inspect

from .workshop import NOW, Workshop


class PowerCutError(BaseException):
    """Nothing that catches ordinary errors runs any more."""


def renew(store: Store) -> None:
    """Give the server's certificate a new key."""
    operations.renew(store, owner="demo", label="server", new_key=True, key_type=None, days=None, now=NOW)


def bring_in(store: Store) -> None:
    """Import an identity with the authorities above it, from another store."""
    other = Workshop(store.directory.parent / "other")
    other.authority("Far")
    other.authority("Middle", sign_with="Far")
    far = other.leaf("far", sign_with="Middle")
    data = operations.export(other.store, far, form="p12", with_key=True, with_chain=True, password=b"x")
    contents = certificates.read(data, password=b"x")
    operations.import_certificate(
        store, owner="demo", label="far", contents=contents, trust=None, source="far.p12", now=NOW
    )


CHANGES: list[Callable[[Store], Any]] = [
    renew,
    bring_in,
    lambda store: store.relabel("demo", "server", "web"),
    lambda store: store.set_trust("CERTAUTH", "Root", Trust.HIGHTRUST),
    lambda store: store.delete("demo", "second"),
    lambda store: operations.rollover(store, owner="demo", label="server", new_label="second", now=NOW),
    lambda store: store.reencrypt(b"phrase"),
    lambda store: store.create_ring("demo", "MORE"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_writer_that_dies_at_any_step_leaves_a_usable_store(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Store], Any]
) -> None:
    """The ring has its identity before, after and in between; what is left behind is no more than untidy."""
    shop.leaf("second")
    shop.ring("TWO", ("demo", "second", Usage.PERSONAL, True), ("demo", "server", Usage.PERSONAL, False))
    steps = 0

    def cut_after(allowed: int, name: str) -> Callable[..., Any]:
        real = getattr(Path, name)

        def step(path: Path, *arguments: Any, **more: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > allowed:
                raise PowerCutError
            return real(path, *arguments, **more)

        return step

    for allowed in itertools.count():
        directory = tmp_path / f"after{allowed}" / "keyrings"
        shutil.copytree(shop.directory, directory)
        steps = 0
        with monkeypatch.context() as patch:
            for name in ("rename", "unlink", "mkdir"):
                patch.setattr(Path, name, cut_after(allowed, name))
            with contextlib.suppress(PowerCutError):
                change(Store(directory, passphrase=b"phrase"))
        left = Store(directory, passphrase=b"phrase")
        assert left.ring("demo/SERVER").identity().label in {"server", "web", "second"}
        assert [one for one in inspect(left, now=NOW, expiring_days=0) if one.severity == "error"] == []
        if steps <= allowed:
            break
    assert allowed > 0


FULL = """
import sys
from pathlib import Path
from click.testing import CliRunner
from attls.cli import main

store = Path(sys.argv[1]) / "keyrings"

def attls(line):
    done = CliRunner().invoke(main, [*line.split(), "--keyrings", str(store)])
    return done.exit_code, done.output.strip()

def content():
    return {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}

for line in (
    "cert create-ca --label CA --cn CA",
    "cert issue --owner demo --label server --cn server.example --sign-with CA",
    "keyring create demo/SERVER",
    "keyring connect demo/SERVER --owner demo --label server --default",
    "keyring connect demo/SERVER --owner CERTAUTH --label CA",
):
    assert attls(line)[0] == 0, attls(line)
Path("phrase").write_text("phrase")
Path("phrase").chmod(0o600)
before = content()
with (Path(sys.argv[1]) / "filler").open("wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass
for line in sys.argv[2:]:
    code, said = attls(line)
    print(code, "No space left on device; free some space and try again" in said, content() == before, line, said)
(Path(sys.argv[1]) / "filler").unlink()
print(attls("keyring verify")[1])
for line in sys.argv[2:]:
    assert attls(line)[0] == 0, attls(line)
"""


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    """On a file system without a free block every command says so, leaves every byte as it was, and works later."""
    disk = tmp_path / "disk"
    disk.mkdir()
    lines = [
        "cert issue --owner demo --label more --cn more --sign-with CA",
        "cert renew --owner demo --label server --new-key",
        "cert rename --owner demo --label server --new-label web",
        "keyring create demo/MORE",
        "keyring encrypt --new-passphrase-file phrase",
        "map add --user u --label l --subject O=E",
        "keyring grant demo/SERVER --user u",
    ]
    mount = 'mount -t tmpfs -o size=160k none "$1" && exec "$2" -c "$3" "$1" "${@:4}"'
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", mount, "bash", str(disk), sys.executable, FULL, *lines],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *answers, verified = done.stdout.splitlines()
    assert [f"3 True True {line}" for line in lines] == [answer.partition(" attls:")[0] for answer in answers]
    assert f"{disk}/keyrings: no errors, no warnings" == verified
