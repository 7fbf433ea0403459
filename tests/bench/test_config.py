"""The configuration files of the benchmark: they render, and the programs they are for accept them."""

from __future__ import annotations

import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from attls.model import UNKNOWN_OWNER, Direction, Endpoint, Flow, Protocol, canonical_address
from attls.policy import load
from bench import certificates
from bench.__main__ import choose
from bench.network import Network
from bench.proxies import PROXIES, Attls, HAProxy, Nginx, Proxy, Stunnel
from bench.templates import CONFIG, render

NETWORK = Network("client", "server", "192.0.2.1", "192.0.2.2")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"), [NETWORK.server_address])


@pytest.fixture
def peer(request: pytest.FixtureRequest, tmp_path: Path, files: certificates.Certificates) -> Proxy:
    kind: type[Proxy] = request.param
    if sentence := kind.missing():
        pytest.skip(sentence)
    return kind(NETWORK, tmp_path, files)


@pytest.mark.parametrize("peer", [Nginx, HAProxy, Stunnel], indirect=True, ids=lambda kind: str(kind.name))
def test_every_value_that_a_configuration_names_is_given(peer: Proxy, tmp_path: Path) -> None:
    """A rendered configuration has no placeholder left and listens where clients are sent."""
    peer.command()
    (written,) = (path for path in tmp_path.iterdir() if (CONFIG / path.name).exists())
    text = written.read_text()
    assert "${" not in text
    assert f"0.0.0.0:{peer.request_port}" in text
    assert f"0.0.0.0:{peer.upload_port}" in text


@pytest.mark.parametrize("peer", [HAProxy], indirect=True, ids=["haproxy"])
def test_haproxy_accepts_its_configuration(peer: Proxy) -> None:
    """HAProxy's own check finds no error."""
    command = [*peer.command(), "-c"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, "".join(x for x in done.stderr.splitlines() if "[ALERT]" in x))


@pytest.mark.parametrize("peer", [Nginx], indirect=True, ids=["nginx"])
def test_nginx_accepts_its_configuration(peer: Proxy) -> None:
    """nginx's own check finds no error."""
    done = subprocess.run([*peer.command(), "-t"], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_accepts_the_backend(tmp_path: Path) -> None:
    """The web server behind every proxy checks as well."""
    values: dict[str, object] = {"directory": tmp_path, "request_port": 18080, "large": "/dev/null", "open_files": 1024}
    config = render("backend.conf", values, tmp_path / "backend.conf")
    command = ["nginx", "-p", str(tmp_path), "-e", "stderr", "-c", str(config), "-t"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr


def test_keys_are_private(files: certificates.Certificates) -> None:
    """Files that hold the private key can be read by their owner only."""
    assert [0o600, 0o600] == [path.stat().st_mode & 0o777 for path in (files.key, files.bundle)]


def test_only_narrows_one_sort_at_a_time() -> None:
    """Naming a proxy keeps all loads, naming a load keeps all proxies, naming both narrows both."""
    assert [Nginx] == choose(["nginx"])[0]
    assert len(choose([])[1]) == len(choose(["nginx"])[1])
    assert list(PROXIES) == choose(["requests"])[0]
    kinds, loads = choose(["attls,nginx", "upload"])
    assert ([Attls, Nginx], ["upload"]) == (kinds, [load.name for load in loads])
    with pytest.raises(ValueError, match="squid"):
        choose(["squid"])


def test_the_policy_means_what_the_peers_are_told(tmp_path: Path) -> None:
    """attls is configured for the same job as the peers: inbound, TLS 1.3 only, one cipher, without any remark."""
    values: dict[str, object] = {"first_port": 8080, "last_port": 8081, "keyring": Attls.keyring}
    policy = load(render("attls.policy", values, tmp_path / "attls.policy"))
    assert () == tuple(policy.diagnostics)
    here, there = (
        Endpoint(canonical_address(text), port) for text, port in (("192.0.2.2", 8081), ("192.0.2.1", 40000))
    )
    verdict = policy.match(Flow(Direction.INBOUND, here, there), UNKNOWN_OWNER, datetime.now())
    assert verdict.settings is not None
    assert ("BENCH/BENCHRING", ("1301",)) == (verdict.settings.keyring, verdict.settings.ciphers)
    assert frozenset({Protocol.TLSV1_3}) == verdict.settings.protocols
