"""The run directory: held by one daemon, taken over from a dead one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from attls.daemon.rundir import HeldRunDirectory, RunDirectory, default_run_dir
from attls.errors import DaemonError


def test_the_environment_names_the_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """ATTLS_RUN_DIR counts where no --run-dir is given, and an empty one does not."""
    monkeypatch.setenv("ATTLS_RUN_DIR", "/somewhere")
    assert Path("/somewhere") == default_run_dir()
    monkeypatch.setenv("ATTLS_RUN_DIR", "")
    assert Path("/run/attls") == default_run_dir()


def test_a_second_daemon_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    """One sentence names the process and what to do; after the first has gone the directory is free."""
    first = HeldRunDirectory(tmp_path / "run")
    first.write_pid()
    with pytest.raises(DaemonError, match=rf"another attls daemon \(process {os.getpid()}\) holds .*run; stop it"):
        HeldRunDirectory(tmp_path / "run")
    assert first.is_held()
    first.release()
    assert not RunDirectory(tmp_path / "run").is_held()
    HeldRunDirectory(tmp_path / "run").release()


def test_leftovers_of_a_killed_daemon_do_not_count(tmp_path: Path) -> None:
    """A pid file and sockets without a lock belong to nobody and are cleared away."""
    for name in ("attls.pid", "admin.sock", "attls.lock"):
        (tmp_path / name).write_text("1\n")
    directory = HeldRunDirectory(tmp_path)
    assert not directory.pid.exists()
    assert not directory.admin.exists()
    directory.release()


def test_a_release_leaves_only_the_lock_file(tmp_path: Path) -> None:
    """Nothing that looks like a running daemon stays behind."""
    directory = HeldRunDirectory(tmp_path)
    directory.write_pid()
    assert f"{os.getpid()}\n" == directory.pid.read_text()
    directory.release()
    assert ["attls.lock"] == [path.name for path in tmp_path.iterdir()]


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """The path and what to do are in it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DaemonError, match=r"cannot use the run directory .*/file/run: .*; choose another with --run-dir"
    ):
        HeldRunDirectory(tmp_path / "file" / "run")


def test_a_lock_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    """Nobody can have us open a file elsewhere by planting a link in a shared directory."""
    (tmp_path / "attls.lock").symlink_to("/dev/null")
    with pytest.raises(DaemonError):
        HeldRunDirectory(tmp_path)


def test_the_directory_is_open_to_programs_whatever_the_umask(tmp_path: Path) -> None:
    """Programs of every user must reach the control socket, although the daemon's umask is 077."""
    before = os.umask(0o077)
    try:
        directory = HeldRunDirectory(tmp_path / "run")
    finally:
        os.umask(before)
    assert 0o755 == (tmp_path / "run").stat().st_mode & 0o777
    assert 0o600 == directory.lock.stat().st_mode & 0o777
    directory.release()


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    """A daemon that is killed with SIGKILL holds nothing any more."""
    holder = subprocess.Popen(["flock", "-x", str(tmp_path / "attls.lock"), "sleep", "60"], start_new_session=True)
    try:
        while not (tmp_path / "attls.lock").exists() or not RunDirectory(tmp_path).is_held():
            assert holder.poll() is None
    finally:
        os.killpg(holder.pid, 9)
        holder.wait()
    while RunDirectory(tmp_path).is_held():
        pass
    HeldRunDirectory(tmp_path).release()
