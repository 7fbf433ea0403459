"""Real clients of real protocols against our small controlling servers: none of the two has the other's TLS."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from attls.cli import main
from tests.namespaces import Sniffer, wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import ROOT, client_context, make_rings, rule

pytestmark = pytest.mark.scene
CONTROLLED = "ApplicationControlled On"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def example(stage: Stage, name: str, port: int, *arguments: str, policy: str = "") -> None:
    """Start the daemon with a rule for `port`, and an example server there."""
    stage.daemon.start(rule("example", port=port, extra=CONTROLLED) + policy)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATTLS_RUN_DIR": str(stage.daemon.run_dir)}
    stage.host.popen(
        [sys.executable, "-m", f"attls.examples.{name}", "10.1.0.1", str(port), *arguments],
        stdout=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    wait_until(lambda: f":{port} " in stage.host.run("ss", "-Hltn"), 10)


def at_peer(stage: Stage, *command: str, feed: str | None = None, environment: dict[str, str] | None = None) -> str:
    """Run a client on the peer and return everything it printed."""
    with stage.peer.inside():
        done = subprocess.run(
            command, input=feed, capture_output=True, text=True, timeout=40, check=False,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def has_swaks_with_tls() -> bool:
    return (
        shutil.which("swaks") is not None
        and subprocess.run(["perl", "-MNet::SSLeay", "-e1"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not has_swaks_with_tls(), reason="swaks with libnet-ssleay-perl is not installed")
def test_smtp_with_swaks(stage: Stage) -> None:
    """swaks insists on STARTTLS, verifies nothing away, and its mail crosses the wire under TLS only."""
    example(stage, "smtp", 2525)
    sniffer = Sniffer(stage.host, "veth1a")
    text = at_peer(
        stage, "swaks", "--server", "10.1.0.1", "--port", "2525", "--tls", "--to", "a@b.example",
        "--from", "c@d.example", "--body", "nobody else's business",
    )  # fmt: skip
    seen = sniffer.seen()
    sniffer.close()
    assert "TLS started with cipher TLSv1.3" in text
    assert "250 taken over TLSv1.3 1302" in text
    assert b"STARTTLS" in seen
    assert b"nobody else" not in seen


@pytest.mark.parametrize(
    ("protocol", "program", "port", "says", "hears"),
    [
        ("imap", "mailbox", 1143, "a LOGIN me secret\nb LOGOUT\n", "a OK welcome"),
        ("pop3", "mailbox", 1110, "USER me\nQUIT\n", "+OK bye"),
        ("smtp", "smtp", 2525, "DATA\n.\nQUIT\n", "250 taken over TLSv1.3 1302"),
    ],
)
def test_lines_with_openssl(stage: Stage, protocol: str, program: str, port: int, says: str, hears: str) -> None:
    """openssl s_client -starttls speaks the protocol's own negotiation and verifies the certificate."""
    example(stage, program, port)
    assert hears in at_peer(stage, *s_client(stage, protocol, port), "-ign_eof", "-crlf", "-quiet", feed=says)


def s_client(stage: Stage, protocol: str, port: int) -> list[str]:
    return [
        "openssl", "s_client", "-connect", f"10.1.0.1:{port}", "-starttls", protocol, "-CAfile",
        str(stage.rings / "ca.pem"), "-verify_return_error",
    ]  # fmt: skip


@pytest.mark.parametrize(("protocol", "port"), [("ldap", 3890), ("postgres", 5432)])
def test_messages_with_openssl(stage: Stage, protocol: str, port: int) -> None:
    """The same for protocols of binary messages; there is nothing to say in them but the end."""
    example(stage, protocol, port)
    assert "Verification: OK" in at_peer(stage, *s_client(stage, protocol, port), feed="")


def test_imap_with_curl(stage: Stage) -> None:
    """curl --ssl-reqd fetches over IMAP."""
    example(stage, "mailbox", 1143)
    text = at_peer(
        stage, "curl", "-sSv", "--ssl-reqd", "--cacert", str(stage.rings / "ca.pem"), "-u", "me:secret",
        "imap://10.1.0.1:1143/", "-X", "NOOP",
    )  # fmt: skip
    assert "OK welcome" in text


@needs("psql")
def test_postgres_with_psql(stage: Stage) -> None:
    """psql with sslmode=verify-ca; without TLS the server refuses."""
    example(stage, "postgres", 5432)
    where = f"host=10.1.0.1 user=someone dbname=x sslrootcert={stage.rings}/ca.pem"
    for version in ("TLSv1.2", "TLSv1.3"):
        line = f"{where} sslmode=verify-ca ssl_min_protocol_version={version} ssl_max_protocol_version={version}"
        assert f"someone|{version}|" in at_peer(stage, "psql", line, "-Atc", "select how()")
    with pytest.raises(AssertionError, match="sslmode=require"):
        at_peer(stage, "psql", f"{where} sslmode=disable", "-c", "select how()")


@needs("ldapsearch")
def test_ldap_with_ldapsearch(stage: Stage) -> None:
    """ldapsearch -ZZ goes on only if StartTLS works, with a verified certificate."""
    example(stage, "ldap", 3890)
    trust = {"LDAPTLS_CACERT": str(stage.rings / "ca.pem")}
    command = ("ldapsearch", "-x", "-H", "ldap://10.1.0.1:3890", "-b", "dc=example")
    assert "result: 0 Success" in at_peer(stage, *command, "-ZZ", environment=trust)
    with pytest.raises(AssertionError, match="Confidentiality required"):
        at_peer(stage, *command)


DATA = rule("data", port=7100, extra=CONTROLLED).replace("LocalPortRange 7100", "LocalPortRange 7100-7109")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    (made / "big").write_bytes(b"not for the wire" * 200_000)
    return made


def test_ftp_with_curl(stage: Stage, files: Path, tmp_path: Path) -> None:
    """curl --ssl-reqd: AUTH TLS, PROT P, a download and an upload, and CCC; no byte of the file in clear."""
    example(stage, "ftp", 2121, str(files), "7100-7109", policy=DATA)
    sniffer = Sniffer(stage.host, "veth1a")
    common = ["curl", "-sSv", "--ssl-reqd", "--cacert", str(stage.rings / "ca.pem"), "-u", "me:x"]
    at_peer(stage, *common, "ftp://10.1.0.1:2121/big", "-o", str(tmp_path / "got"))
    assert (files / "big").read_bytes() == (tmp_path / "got").read_bytes()
    at_peer(stage, *common, "-T", str(tmp_path / "got"), "ftp://10.1.0.1:2121/copy")
    assert (files / "big").read_bytes() == (files / "copy").read_bytes()
    assert b"not for the wire" not in sniffer.seen()
    text = at_peer(stage, *common, "--ftp-ssl-ccc", "--ftp-ssl-ccc-mode", "active", "ftp://10.1.0.1:2121/")
    assert "CCC" in text
    assert "big" in text
    assert b"EPSV" in sniffer.seen()
    sniffer.close()


@needs("lftp")
def test_ftp_with_lftp(stage: Stage, files: Path, tmp_path: Path) -> None:
    """lftp with forced and protected everything mirrors the directory."""
    example(stage, "ftp", 2121, str(files), "7100-7109", policy=DATA)
    commands = (
        f"set ssl:ca-file {stage.rings}/ca.pem; set ftp:ssl-force yes; set ftp:ssl-protect-data yes; "
        "set ftp:ssl-protect-list yes; set net:timeout 10; set net:max-retries 1; "
        f"open -u me,x -p 2121 10.1.0.1; ls; get big -o {tmp_path}/got; put {tmp_path}/got -o copy"
    )
    assert "big" in at_peer(stage, "lftp", "-c", commands, environment={"HOME": str(tmp_path)})
    assert (files / "big").read_bytes() == (files / "copy").read_bytes()


SECONDARY = "ApplicationControlled On\n    SecondaryMap On"


@pytest.mark.parametrize("client", ["curl", "lftp"])
def test_ftp_data_connections_follow_the_control_connection(
    stage: Stage, files: Path, tmp_path: Path, client: str
) -> None:
    """SecondaryMap: no rule for the data ports, and still not a byte of the file in clear; netstat says Secondary."""
    if shutil.which(client) is None:
        pytest.skip(f"{client} is not installed")
    stage.daemon.start(rule("ftp", port=2121, extra=SECONDARY))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATTLS_RUN_DIR": str(stage.daemon.run_dir)}
    stage.host.popen(
        [sys.executable, "-m", "attls.examples.ftp", "10.1.0.1", "2121", str(files), "7100-7109"],
        stdout=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    wait_until(lambda: ":2121 " in stage.host.run("ss", "-Hltn"), 10)
    sniffer = Sniffer(stage.host, "veth1a")
    if client == "curl":
        at_peer(
            stage, "curl", "-sS", "--ssl-reqd", "--cacert", str(stage.rings / "ca.pem"), "-u", "me:x",
            "ftp://10.1.0.1:2121/big", "-o", str(tmp_path / "got"),
        )  # fmt: skip
    else:
        commands = (
            f"set ssl:ca-file {stage.rings}/ca.pem; set ftp:ssl-force yes; set ftp:ssl-protect-data yes; "
            f"set net:timeout 10; set net:max-retries 1; open -u me,x -p 2121 10.1.0.1; get big -o {tmp_path}/got"
        )
        at_peer(stage, "lftp", "-c", commands, environment={"HOME": str(tmp_path)})
    assert (files / "big").read_bytes() == (tmp_path / "got").read_bytes()
    assert b"not for the wire" not in sniffer.seen()
    sniffer.close()
    # What nobody follows is no secondary: the example's data port, without a control connection of that peer.
    assert [] == stage.daemon.connections()


def test_a_second_connection_shows_as_secondary(stage: Stage) -> None:
    """Of the same process and between the same hosts, in either direction, as long as the primary lives."""
    stage.daemon.start(rule("first", port=7000, extra="SecondaryMap On"))
    context = client_context(stage.rings)
    with (
        stage.host.listen("10.1.0.1", 7000) as first,
        stage.host.listen("10.1.0.1", 7001) as second,
        stage.peer.listen("10.1.0.2", 7002) as back,
    ):
        with stage.peer.connect("10.1.0.1", 7001) as alone:
            program, _ = second.accept()
            with program:
                program.sendall(b"in clear, for nothing was before it")
                assert alone.recv(100) == b"in clear, for nothing was before it"
        for _ in range(4):
            with context.wrap_socket(stage.peer.connect("10.1.0.1", 7000)) as primary:
                control, _ = first.accept()
                with control, context.wrap_socket(stage.peer.connect("10.1.0.1", 7001)) as follower:
                    data, _ = second.accept()
                    # The program connects out, and is the TLS server there too, as an FTP server in active mode.
                    outgoing = stage.host.connect("10.1.0.2", 7002)
                    with data, outgoing, context.wrap_socket(back.accept()[0]) as called:
                        data.sendall(b"protected")
                        outgoing.sendall(b"protected too")
                        assert b"protected" == follower.recv(100)
                        assert b"protected too" == called.recv(100)
                        found = [(each["rule"], each["map_type"]) for each in stage.daemon.connections()]
                        assert [("first", "Primary"), ("first", "Secondary"), ("first", "Secondary")] == sorted(found)
                assert primary


def test_an_aware_server_logs_in_by_certificate(stage: Stage, tmp_path: Path) -> None:
    """SAFCheck: the user comes from the client's certificate; without a map there is no connection at all."""
    store = tmp_path / "rings"
    make_rings(store)
    for command in (
        "cert issue --owner JANE --label jane --cn Jane --sign-with CA",
        f"cert export --owner JANE --label jane --with-key --out {store}/jane.pem",
        "cert issue --owner NOONE --label noone --cn Noone --sign-with CA",
        f"cert export --owner NOONE --label noone --with-key --out {store}/noone.pem",
        "map add --user root --label janes --subject CN=Jane",
        "cert delete --owner JANE --label jane",
        "cert delete --owner NOONE --label noone",
    ):
        done = CliRunner().invoke(main, [*command.split(), "--keyrings", str(store)])
        assert done.exit_code == 0, (command, done.output)
    stage.daemon.rings = store
    stage.daemon.start(
        rule("login", port=4000, extra="ClientAuthType SAFCheck").replace(
            "HandshakeRole Server", "HandshakeRole ServerWithClientAuth"
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ATTLS_RUN_DIR": str(stage.daemon.run_dir)}
    stage.host.popen(
        [sys.executable, "-m", "attls.examples.login", "10.1.0.1", "4000"], stdout=subprocess.DEVNULL, env=environment
    )
    wait_until(lambda: ":4000 " in stage.host.run("ss", "-Hltn"), 10)
    for name, welcome in (("jane", True), ("noone", False)):
        context = client_context(store)
        context.load_cert_chain(store / f"{name}.pem")
        with stage.peer.connect("10.1.0.1", 4000) as bare:
            if welcome:
                with context.wrap_socket(bare) as tls:
                    assert tls.recv(200).lower().startswith(b"welcome root, over TLSv1.3".lower())
            else:
                with pytest.raises(OSError), context.wrap_socket(bare) as tls:
                    assert b"" == tls.recv(200)
                    raise ConnectionResetError
