"""Our small controlling clients against real servers that start TLS in the middle of their protocol."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.namespaces import Namespace, Sniffer, wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import ROOT, rule

pytestmark = pytest.mark.scene

POSTFIX = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
inet_interfaces = 10.1.0.2
inet_protocols = ipv4
myhostname = mail.example
maillog_file = /dev/stdout
alias_maps =
smtpd_tls_cert_file = {key}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = encrypt
"""
POSTFIX_SERVICES = """\
2525 inet n - n - - smtpd
tlsmgr unix - - n - 1 tlsmgr
anvil unix - - n - 1 anvil
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
postlog unix-dgram n - n - 1 postlogd
"""
DOVECOT = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = /dev/stderr
protocols = imap pop3
listen = 10.1.0.2
ssl = required
ssl_cert = <{key}
ssl_key = <{key}
mail_location = maildir:{folder}/mail
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = 1143
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = 1110
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
"""
SLAPD = """\
pidfile {folder}/pid
TLSCertificateFile {key}
TLSCertificateKeyFile {key}
security tls=128
"""


def postfix(folder: Path, key: Path) -> list[str]:
    """Prepare postfix and return its command line."""
    config = folder / "etc"
    for name in ("etc", "queue", "data"):
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix")
    (config / "main.cf").write_text(POSTFIX.format(folder=folder, key=key))
    (config / "master.cf").write_text(POSTFIX_SERVICES)
    return ["postfix", "-c", str(config), "start-fg"]


def dovecot(folder: Path, key: Path) -> list[str]:
    """Prepare dovecot and return its command line."""
    (folder / "dovecot.conf").write_text(DOVECOT.format(folder=folder, key=key))
    return ["dovecot", "-F", "-c", str(folder / "dovecot.conf")]


def slapd(folder: Path, key: Path) -> list[str]:
    """Prepare OpenLDAP's server and return its command line."""
    (folder / "slapd.conf").write_text(SLAPD.format(folder=folder, key=key))
    return ["slapd", "-h", "ldap://10.1.0.2:3890", "-f", str(folder / "slapd.conf"), "-d", "0"]


def postgres(folder: Path, key: Path) -> list[str]:
    """Prepare PostgreSQL, which runs as its own user only, and return its command line."""
    (programs,) = list(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    for path in (folder, key):
        shutil.chown(path, "postgres")
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data = folder / "data"
    subprocess.run(
        [*user, programs / "initdb", "-D", data, "--no-sync", "-A", "trust"], check=True, stdout=subprocess.DEVNULL
    )
    (data / "pg_hba.conf").write_text("hostssl all all all trust\n")
    options = {
        "listen_addresses": "10.1.0.2", "port": "5432", "unix_socket_directories": str(folder), "fsync": "off",
        "ssl": "on", "ssl_cert_file": str(key), "ssl_key_file": str(key),
    }  # fmt: skip
    return [*user, str(programs / "postgres"), "-D", str(data), *(f"--{name}={text}" for name, text in options.items())]


@contextmanager
def serving(
    where: Namespace, prepare: Callable[[Path, Path], list[str]], ports: list[int], pem: Path
) -> Iterator[None]:
    """Run a real server inside, with everything of its own in one folder; ended in order."""
    with tempfile.TemporaryDirectory() as name, (Path(name) / "log").open("w") as log:
        folder = Path(name)
        folder.chmod(0o755)
        key = folder / "server.pem"
        shutil.copy(pem, key)
        key.chmod(0o600)
        command = prepare(folder, key)
        process = where.popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(lambda: all(f":{port} " in where.run("ss", "-Hltn") for port in ports), 20)
            yield
        except BaseException:
            print((folder / "log").read_text())
            raise
        finally:
            process.send_signal(signal.SIGINT if prepare is postgres else signal.SIGTERM)
            process.wait(20)


SERVERS = {
    "smtp": (postfix, "/usr/sbin/postfix", 2525, "250-mail.example"),
    "imap": (dovecot, "/usr/sbin/dovecot", 1143, "AUTH=PLAIN"),
    "pop3": (dovecot, "/usr/sbin/dovecot", 1110, "SASL PLAIN"),
    "ldap": (slapd, "/usr/sbin/slapd", 3890, "anonymous bind: result code 0"),
    "postgres": (postgres, "/usr/lib/postgresql", 5432, "t TLSv1.3 TLS_AES_256_GCM_SHA384"),
}


@pytest.mark.parametrize("protocols", [["smtp"], ["imap", "pop3"], ["ldap"], ["postgres"]], ids="-".join)
def test_a_client_of_ours_starts_tls_to_a_real_server(stage: Stage, protocols: list[str]) -> None:
    """The server, which insists on TLS, sees a proper client; what is said behind the upgrade is not on the wire."""
    prepare, program, _, _ = SERVERS[protocols[0]]
    if not Path(program).exists():
        pytest.skip(f"{program} is not installed")
    ports = [SERVERS[protocol][2] for protocol in protocols]
    stage.daemon.start(
        "".join(
            rule(protocol, direction="Outbound", port=port, extra="ApplicationControlled On")
            for protocol, port in zip(protocols, ports, strict=True)
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATTLS_RUN_DIR": str(stage.daemon.run_dir)}
    with (
        serving(stage.peer, prepare, ports, stage.rings / "server.pem"),
        closing(Sniffer(stage.host, "veth1a")) as sniffer,
    ):
        for protocol in protocols:
            _, _, port, words = SERVERS[protocol]
            with stage.host.inside():
                done = subprocess.run(
                    [sys.executable, "-m", "attls.examples.ask", protocol, "10.1.0.2", str(port), "postgres"],
                    capture_output=True, text=True, env=environment, timeout=30, check=False,
                )  # fmt: skip
            assert "" == done.stderr
            assert f"TLSv1.3 1302, rule {protocol}\n" in done.stdout
            assert words in done.stdout
        seen = sniffer.seen()
    assert protocols[0] == "smtp" or all(SERVERS[protocol][3].encode() not in seen for protocol in protocols)
