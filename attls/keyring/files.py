"""Files that hold keys and trust: who may have touched them, how they are replaced, who may write.

Theory of operation. A key is only as secret as its file, and a trust anchor only as true as its file, so every read
goes through `read_secret` or `read_trusted`, which judge the *opened* file (no window between check and use) and the
directories above it inside the store. Every write goes to a new file that is synced and renamed over the old one: a
reader sees the old content or the new one, a full disk leaves the old one. Writers exclude each other with one
advisory lock per store; readers need none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from attls.errors import KeyringError
from attls.keyring.names import for_shell

LARGEST_FILE = 8 << 20
"""Bytes; the trust store of a distribution is about 0.25 MiB, so anything beyond this is a mistake or an attack."""

_LOCK_WAIT = 10.0
_TEMPORARY = ".new-"


def trusted_owners() -> frozenset[int]:
    """Return the user ids whose files we believe: root, ourselves, and under sudo the person who called it."""
    mine = {0, os.geteuid()}
    # Only root gets this variable from sudo; for everybody else it is a string that anyone may have set.
    caller = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and caller.isdigit():
        mine.add(int(caller))
    return frozenset(mine)


def permission_problem(path: Path, status: os.stat_result, *, secret: bool) -> str | None:
    """Say what is wrong with the owner or mode of `path` and which command mends it; None when nothing is."""
    if status.st_uid not in trusted_owners():
        return (
            f"{path} belongs to user id {status.st_uid}, neither to root nor to you; "
            f"check its content, then run: chown {os.geteuid()} {for_shell(str(path))}"
        )
    forbidden = 0o077 if secret else 0o002 if _is_private_group(status.st_gid, status.st_uid) else 0o022
    if status.st_mode & forbidden:
        mode = stat.S_IMODE(status.st_mode)
        if secret:
            wanted = "700" if stat.S_ISDIR(status.st_mode) else "600"
            return f"others may get at {path} (mode {mode:04o}); run: chmod {wanted} {for_shell(str(path))}"
        return f"others may write to {path} (mode {mode:04o}); run: chmod go-w {for_shell(str(path))}"
    return None


def _is_private_group(group: int, owner: int) -> bool:
    """Tell whether nobody but `owner` is in `group`: many systems give each user a group of her own and umask 002.

    OpenSSH as Debian ships it judges likewise. Asked only by name, since going through all users can take minutes
    where they come from a directory server.
    """
    try:
        name, entry = pwd.getpwuid(owner).pw_name, grp.getgrgid(group)
    except KeyError:
        return False
    return entry.gr_name == name and set(entry.gr_mem) <= {name}


def check_directory(path: Path, *, secret: bool) -> None:
    """Raise KeyringError unless `path` is a directory that only we and root can change (or, if `secret`, look into).

    Raises FileNotFoundError when there is none.
    """
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise KeyringError(f"{path} is not a directory")
    problem = permission_problem(path, status, secret=secret)
    if problem:
        raise KeyringError(problem, 428 if secret else 202)


def read_trusted(path: Path) -> bytes:
    """Return the content of `path`, which nobody but its owner may write to. Raises KeyringError or OSError."""
    return _read(path, secret=False)


def read_secret(path: Path) -> bytes:
    """Return the content of the secret file `path`, which only its owner may read. Raises KeyringError or OSError."""
    return _read(path, secret=True)


def read_any(path: Path) -> bytes:
    """Return the content of a file that the user named on the command line, whoever owns it.

    Raises KeyringError when it is no regular file or too large, OSError when it cannot be read.
    """
    with _opened(path) as descriptor:
        return _content(path, descriptor)


def _read(path: Path, *, secret: bool) -> bytes:
    with _opened(path) as descriptor:
        _check_regular(path, descriptor)  # first: chmod would be bad advice for a device
        problem = permission_problem(path, os.fstat(descriptor), secret=secret)
        if problem:
            raise KeyringError(problem, 428 if secret else 202)
        return _content(path, descriptor)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    # O_NONBLOCK: a FIFO put in our way must not hang the daemon.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check_regular(path: Path, descriptor: int) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise KeyringError(f"{path} is not a regular file")


def _content(path: Path, descriptor: int) -> bytes:
    _check_regular(path, descriptor)
    pieces = []
    left = LARGEST_FILE + 1
    while left > 0 and (piece := os.read(descriptor, min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise KeyringError(f"{path} is larger than {LARGEST_FILE >> 20} MiB; this is no file of certificates")
    return b"".join(pieces)


def read_password(path: Path, *, secret: bool = True) -> bytes:
    """Return the first line of a password file, without its line end.

    Raises KeyringError when the file is empty or cannot be read, and, if `secret`, when others may read it. A password
    that came along with a file to import need not be `secret`: it has served its purpose after the import.
    """
    try:
        content = read_secret(path) if secret else read_any(path)
    except OSError as error:
        raise KeyringError(f"cannot read the password file {path}: {error.strerror}", 408) from error
    password = content.split(b"\n", 1)[0].rstrip(b"\r")
    if not password:
        raise KeyringError(f"the password file {path} is empty; its first line must be the password", 408)
    if b"\0" in password:
        raise KeyringError(
            f"{path} is no text file; its first line must be the password (a gskkyman .sth cannot be used)",
            408,
        )
    return password


def make_directory(path: Path, *, secret: bool) -> None:
    """Create `path` (and what is missing above it) with mode 0700 if `secret`, else 0755; fine if it is there."""
    if path.is_dir():
        return
    make_directory(path.parent, secret=False)
    mode = 0o700 if secret else 0o755
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=mode)
        path.chmod(mode)  # the umask may have taken bits away


def replace(path: Path, content: bytes, *, mode: int) -> None:
    """Make `content` the content of `path` in one step: all of it or, on any error, none of it.

    Raises KeyringError that names the system's reason, e.g. a full disk; the old file then still stands.
    """
    replace_all([NewFile(path, content, mode)])


class NewFile(NamedTuple):
    """What a file is to become."""

    path: Path
    content: bytes
    mode: int


def replace_all(changes: Iterable[NewFile]) -> None:
    """Replace files in the given order, but none before the contents of all are safely on the disk.

    Raises KeyringError as `replace` does. Only a power cut between the renames leaves some of them old.
    """
    aside: dict[Path, Path] = {}
    path = Path()
    try:
        for path, content, mode in changes:
            aside[path] = _written_aside(path, content, mode)
        directories = dict.fromkeys(path.parent for path in aside)
        for path in list(aside):
            aside[path].rename(path)
            del aside[path]
    except OSError as error:
        raise _write_failed(path, error) from error
    finally:
        for temporary in aside.values():
            with contextlib.suppress(OSError):
                temporary.unlink()
    for directory in directories:
        sync_directory(directory)


def _written_aside(path: Path, content: bytes, mode: int) -> Path:
    temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            os.fchmod(descriptor, mode)
            left = memoryview(content)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return temporary


def remove(path: Path) -> None:
    """Remove the file `path`; fine if it is not there. Raises KeyringError when the system refuses."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _write_failed(path, error) from error
    sync_directory(path.parent)


def _write_failed(path: Path, error: OSError) -> KeyringError:
    advice = {
        errno.ENOSPC: "free some space and try again",
        errno.EDQUOT: "free some space and try again",
        errno.EFBIG: "raise the file size limit (ulimit -f) and try again",
        errno.EACCES: "you may not write there; use the account that owns the store, e.g. with sudo",
        errno.EROFS: "the file system is mounted read-only",
    }.get(error.errno or 0, "nothing was changed")
    return KeyringError(f"cannot write {path}: {error.strerror}; {advice}")


def sync_directory(path: Path) -> None:
    """Make renames and removals inside `path` survive a power cut, as far as the file system can."""
    with contextlib.suppress(OSError):  # some network file systems refuse; the rename itself has happened
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_leftover(path: Path) -> bool:
    """Tell whether `path` is a temporary file of a writer that was killed."""
    return path.name.startswith(_TEMPORARY)


@contextlib.contextmanager
def writer_lock(directory: Path, *, wait: float = _LOCK_WAIT) -> Iterator[None]:
    """Hold the store's advisory lock, waiting up to `wait` seconds for another writer to finish.

    Raises KeyringError when the other writer does not finish, or when we may not write to the store.
    """
    path = directory / ".lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _write_failed(path, error) from error
    try:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise KeyringError(
                        f"another attls command is changing {directory}; try again when it has finished"
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)  # closing lets go of the lock; the file stays, so that all writers lock the same inode
