"""FTP under control of its programs: our client and our server, against each other and against real ones.

What FTP asks of AT-TLS: AUTH TLS on the control connection, TLS on data connections that no rule describes (they follow
by SecondaryMap, passive and active), each resuming the control connection's session, and CCC.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.namespaces import Namespace, Sniffer, wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import ROOT, Daemon, rule

pytestmark = pytest.mark.scene

SECRET = b"not for the wire "
PORT = 2121
SECONDARY = "ApplicationControlled On\n    SecondaryMap On"
SERVER = rule("ftp", port=PORT, extra=SECONDARY)
CLIENT = rule("ftp", direction="Outbound", port=PORT, extra=SECONDARY)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    (made / "big").write_bytes(SECRET * 200_000)
    return made


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def handshakes(daemon: Daemon) -> tuple[int, int]:
    """How many handshakes of a daemon were full ones, and how many resumed a session."""
    counts = daemon.status()["counts"]
    return sum(count for *_, count in counts["secured"]) - counts["resumed"], counts["resumed"]


def listening(where: Namespace) -> None:
    wait_until(lambda: f":{PORT} " in where.run("ss", "-Hltn"), 10)


def at(where: Namespace, folder: Path, *command: str, run_dir: Path | None = None) -> str:
    """Run a program to its end and return what it said."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "FTP_PASSWORD": "secret"}
    with where.inside():
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=40, check=False, cwd=folder,
            env={**environment, **({"ATTLS_RUN_DIR": str(run_dir)} if run_dir is not None else {})},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def our_server(stage: Stage, files: Path) -> None:
    """Start our server on the host, whose daemon is running."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATTLS_RUN_DIR": str(stage.daemon.run_dir)}
    stage.host.popen(
        [sys.executable, "-m", "attls.examples.ftp", "10.1.0.1", str(PORT), str(files), "7100-7109"],
        stdout=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    listening(stage.host)


def our_client(*arguments: str) -> list[str]:
    """The command line of our client."""
    *options, action, name = arguments
    return [sys.executable, "-m", "attls.examples.ftp_client", *options, "10.1.0.1", str(PORT), "ftp", action, name]


MODES: tuple[list[str], ...] = ([], ["--active"])


def test_our_client_and_our_server(stage: Stage, files: Path, tmp_path: Path) -> None:
    """Both ends without TLS; commands are clear again behind CCC, data never is, and its connections resume."""
    stage.daemon.start(SERVER)
    our_server(stage, files)
    (tmp_path / "client").mkdir()
    there = Daemon(stage.peer, tmp_path / "client", rings=stage.rings).start(CLIENT)
    sniffer = Sniffer(stage.host, "veth1a")
    for mode in MODES:
        at(stage.peer, tmp_path, *our_client(*mode, "--ccc", "get", "big"), run_dir=there.run_dir)
        assert (files / "big").read_bytes() == (tmp_path / "big").read_bytes()
        (tmp_path / "big").rename(tmp_path / "copy")
        at(stage.peer, tmp_path, *our_client(*mode, "put", "copy"), run_dir=there.run_dir)
        assert (files / "big").read_bytes() == (files / "copy").read_bytes()
        (files / "copy").unlink()
    seen = sniffer.seen()
    sniffer.close()
    assert b"RETR big" in seen
    assert SECRET not in seen
    # Control connections that meet the worker of an earlier one resume as well.
    for daemon in (there, stage.daemon):
        full, resumed = handshakes(daemon)
        assert 8 == full + resumed
        assert 4 >= full


VSFTPD = f"""\
listen=YES
listen_port={PORT}
background=NO
anonymous_enable=YES
no_anon_password=YES
ssl_enable=YES
allow_anon_ssl=YES
force_anon_data_ssl=YES
force_anon_logins_ssl=YES
require_ssl_reuse=YES
ssl_ciphers=HIGH
seccomp_sandbox=NO
connect_from_port_20=YES
"""


@pytest.fixture
def vsftpd(stage: Stage, tmp_path: Path) -> Iterator[None]:
    """vsftpd on the host, serving `big` to anybody who reuses TLS sessions."""
    with tempfile.TemporaryDirectory() as name:  # where the user ftp can go
        root = Path(name)
        root.chmod(0o755)
        (root / "big").write_bytes(SECRET * 200_000)
        (tmp_path / "empty").mkdir()
        config = tmp_path / "vsftpd.conf"
        key = stage.rings / "server.pem"
        config.write_text(f"{VSFTPD}anon_root={root}\nsecure_chroot_dir={tmp_path}/empty\nrsa_cert_file={key}\n")
        stage.host.popen(["vsftpd", str(config)])
        listening(stage.host)
        yield


@pytest.mark.skipif(shutil.which("vsftpd") is None, reason="vsftpd is not installed")
@pytest.mark.usefixtures("vsftpd")
@pytest.mark.parametrize("off", ["TLSv1.2", "TLSv1.3"])
def test_our_client_and_vsftpd(stage: Stage, tmp_path: Path, off: str) -> None:
    """vsftpd with require_ssl_reuse takes no data connection that does not resume the control connection's session."""
    (tmp_path / "client").mkdir()
    there = Daemon(stage.peer, tmp_path / "client", rings=stage.rings).start(
        rule("ftp", direction="Outbound", port=PORT, extra=f"{SECONDARY}\n    {off} Off")
    )
    sniffer = Sniffer(stage.peer, "veth1b")
    for mode in MODES:
        at(stage.peer, tmp_path, *our_client(*mode, "get", "big"), run_dir=there.run_dir)
        assert SECRET * 200_000 == (tmp_path / "big").read_bytes()
        assert " big\n" in at(stage.peer, tmp_path, *our_client(*mode, "list", ""), run_dir=there.run_dir)
    assert SECRET not in sniffer.seen()
    sniffer.close()
    full, resumed = handshakes(there)
    assert 8 == full + resumed
    assert 4 >= full


CURL = "curl -sS --ssl-reqd --cacert {ca} -u me:x ftp://10.1.0.1:2121/big -o {got}"
LFTP = (
    "set ssl:ca-file {ca}; set ftp:ssl-force yes; set ftp:ssl-protect-data yes; set ftp:passive-mode {passive};"
    " set net:timeout 10; set net:max-retries 1; open -u me,x -p 2121 10.1.0.1; get big -o {got}"
)


@pytest.mark.skipif(shutil.which("lftp") is None, reason="lftp is not installed")
def test_real_clients_and_our_server(stage: Stage, files: Path, tmp_path: Path) -> None:
    """Each client makes one full handshake; its data connections resume that session, whoever opens them."""
    stage.daemon.start(SERVER)
    our_server(stage, files)
    sniffer = Sniffer(stage.host, "veth1a")
    # curl 7.88 forgets TLS on data connections in active mode, whatever the server.
    for number, (text, passive) in enumerate([(CURL, "yes"), (LFTP, "yes"), (LFTP, "no")], 1):
        command = text.format(ca=stage.rings / "ca.pem", got=tmp_path / f"got{number}", passive=passive)
        at(stage.peer, tmp_path, *(command.split() if text is CURL else ["lftp", "-c", command]))
        assert (files / "big").read_bytes() == (tmp_path / f"got{number}").read_bytes()
        full, resumed = handshakes(stage.daemon)
        assert number == full
        assert number <= resumed
    assert SECRET not in sniffer.seen()
    sniffer.close()
