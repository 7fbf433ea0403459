"""The run directory: who holds it, its pid file, and the places of its sockets.

A lock on `attls.lock` says that a daemon lives here; the kernel drops it with the process, so nothing left behind by a
killed daemon (pid file, sockets) is ever mistaken for a running one.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from pathlib import Path

from attls.errors import DaemonError

DEFAULT = "/run/attls"

_log = logging.getLogger("attls.daemon")


def default_run_dir() -> Path:
    """Return the run directory that commands use when none is given: `ATTLS_RUN_DIR`, else /run/attls."""
    return Path(os.environ.get("ATTLS_RUN_DIR") or DEFAULT)


class RunDirectory:
    """Places inside a run directory; `path` need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.lock = self.path / "attls.lock"
        self.pid = self.path / "attls.pid"
        self.admin = self.path / "admin.sock"
        self.control = self.path / "control.sock"

    def is_held(self) -> bool:
        """Tell whether a daemon holds this directory now."""
        try:
            descriptor = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


class HeldRunDirectory(RunDirectory):
    """A run directory that this process holds until `release`.

    Raises DaemonError when the directory cannot be written to or another daemon holds it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            if not self.path.is_dir():
                self.path.mkdir(parents=True)
                self.path.chmod(0o755)  # whatever the umask: programs must reach the control socket
            self._descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise DaemonError(
                f"cannot use the run directory {self.path}: {error.strerror}; choose another with --run-dir"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise DaemonError(
                f"another attls daemon ({self._other()}) holds {self.path}; stop it with `attls stop --run-dir "
                f"{self.path}`, or choose another directory with --run-dir"
            ) from None
        if self.path.stat().st_mode & 0o022:
            _log.warning("others may write to %s; whoever does can pose as this daemon. Run: chmod go-w", self.path)
        # What a killed daemon left behind; nobody listens there, the lock says so.
        for leftover in (self.pid, self.admin, self.control):
            leftover.unlink(missing_ok=True)

    def write_pid(self) -> None:
        """Write our process number, in one step."""
        temporary = self.pid.with_suffix(".pid.new")
        temporary.write_text(f"{os.getpid()}\n")
        temporary.chmod(0o644)
        temporary.replace(self.pid)

    def release(self) -> None:
        """Remove what we put here and let the directory go; the lock file itself stays."""
        for ours in (self.pid, self.admin, self.control):
            with contextlib.suppress(OSError):
                ours.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _other(self) -> str:
        try:
            return f"process {int(self.pid.read_text())}"
        except (OSError, ValueError):
            return "still starting"
