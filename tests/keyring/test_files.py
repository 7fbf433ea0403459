"""Permissions, atomic replacement and the writer's lock."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from attls.errors import KeyringError
from attls.keyring import files


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_may_read_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    """The sentence names the chmod."""
    path = tmp_path / "key"
    path.write_text("secret")
    path.chmod(mode)
    with pytest.raises(KeyringError, match=f"chmod 600 {path}") as caught:
        files.read_secret(path)
    assert caught.value.code == 428


def test_a_trusted_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Readable by all is fine for a certificate, writable is not."""
    path = tmp_path / "ring"
    path.write_text("x")
    path.chmod(0o644)
    assert files.read_trusted(path) == b"x"
    path.chmod(0o666)
    with pytest.raises(KeyringError, match="chmod go-w"):
        files.read_trusted(path)


def test_the_group_may_write_where_it_is_the_owners_own(tmp_path: Path) -> None:
    """A clone made under umask 002 works; a group with other people in it does not."""
    path = tmp_path / "ring"
    path.write_text("x")
    path.chmod(0o664)
    assert files._is_private_group(os.getegid(), os.geteuid())
    assert files.read_trusted(path) == b"x"
    if os.geteuid() != 0:
        pytest.skip("giving a file to another group takes root")
    os.chown(path, -1, 100)
    with pytest.raises(KeyringError, match="chmod go-w"):
        files.read_trusted(path)


def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Neither root's nor ours: whoever owns a file can change it."""
    path = tmp_path / "key"
    path.write_text("secret")
    path.chmod(0o600)
    if os.geteuid() != 0:
        pytest.skip("giving a file away takes root")
    os.chown(path, 12345, -1)
    with pytest.raises(KeyringError, match=r"belongs to user id 12345.*chown"):
        files.read_secret(path)


def test_under_sudo_the_callers_files_are_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An administrator who calls sudo in a clone of her own is not sent away."""
    if os.geteuid() != 0:
        pytest.skip("giving a file away takes root")
    path = tmp_path / "ring"
    path.write_text("x")
    os.chown(path, 12345, -1)
    monkeypatch.setenv("SUDO_UID", "12345")
    assert files.read_trusted(path) == b"x"


def test_a_gigantic_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    """A sparse terabyte must not end up in memory."""
    path = tmp_path / "huge.pem"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(KeyringError, match="larger than"):
        files.read_any(path)


def test_a_pipe_does_not_hang_the_reader(tmp_path: Path) -> None:
    """A FIFO in place of a certificate is an error, not a wait."""
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    with pytest.raises(KeyringError, match="not a regular file"):
        files.read_secret(path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    """Where the system stops a write half-way, as on a full disk, the old content still stands."""
    path = tmp_path / "key"
    files.replace(path, b"old", mode=0o600)
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from attls.keyring import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    files.replace(Path(sys.argv[1]), b'x' * 5000, mode=0o600)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"KeyringError cannot write {path}: File too large")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says what to do about it."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyringError, match="No space left on device; free some space"):
        files.replace(tmp_path / "x", b"x", mode=0o644)
    assert list(tmp_path.iterdir()) == []


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    """Neither a lax nor a strict umask changes what is written."""
    before = os.umask(0)
    try:
        files.make_directory(tmp_path / "a" / "private", secret=True)
        files.replace(tmp_path / "a" / "private" / "key", b"", mode=0o600)
        os.umask(0o077)
        files.make_directory(tmp_path / "b", secret=False)
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/private", "a/private/key", "b")]
    assert modes == [0o755, 0o700, 0o600, 0o755]


def test_a_second_writer_waits_and_then_gives_up(tmp_path: Path) -> None:
    """Two writers at once: the second one is told, the first one is not disturbed."""
    with (
        files.writer_lock(tmp_path),
        pytest.raises(KeyringError, match="another attls command"),
        files.writer_lock(tmp_path, wait=0.05),
    ):
        pass
    with files.writer_lock(tmp_path, wait=0.0):
        pass


@pytest.mark.parametrize(("content", "password"), [(b"abc\n", b"abc"), (b"a b\r\nmore", b"a b"), (b"x", b"x")])
def test_a_password_is_the_first_line(tmp_path: Path, content: bytes, password: bytes) -> None:
    """Line ends of either kind do not belong to it."""
    path = tmp_path / "pw"
    path.write_bytes(content)
    path.chmod(0o600)
    assert password == files.read_password(path)


@pytest.mark.parametrize("content", [b"", b"\nx", b"a\0b"])
def test_what_is_no_password_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """An empty or binary file is not taken for an empty password."""
    path = tmp_path / "pw"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyringError) as caught:
        files.read_password(path)
    assert caught.value.code == 408
