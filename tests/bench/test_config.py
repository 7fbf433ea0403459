"""The configuration files of the benchmark: they render, and the programs they are for accept them."""

from __future__ import annotations

import shutil
import subprocess
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from attls.model import UNKNOWN_OWNER, Direction, Endpoint, Flow, Protocol, canonical_address
from attls.policy import load
from bench import backend, certificates, policy, ports
from bench.__main__ import choose
from bench.loads import LOADS
from bench.network import plan
from bench.proxies import PROXIES, Attls, Envoy, HAProxy, Job, Nginx, Proxy, Stunnel
from bench.sections import SECTIONS, many_rules
from bench.templates import CONFIG, render

NETWORK = plan("client", "server", 0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"), list(NETWORK.server_addresses))


@pytest.fixture
def peer(request: pytest.FixtureRequest, tmp_path: Path, files: certificates.Certificates) -> Proxy:
    kind: type[Proxy] = request.param
    if sentence := kind.missing():
        pytest.skip(sentence)
    return kind(NETWORK, tmp_path, files)


@pytest.mark.parametrize("kind", [Nginx, HAProxy, Stunnel, Envoy], ids=lambda kind: str(kind.name))
def test_every_value_that_a_configuration_names_is_given(
    kind: type[Proxy], tmp_path: Path, files: certificates.Certificates
) -> None:
    """A rendered configuration has no placeholder left and listens where clients are sent, for every job."""
    peer = kind(NETWORK, tmp_path, files)
    peer.command()
    (written,) = (path for path in tmp_path.iterdir() if (CONFIG / path.name).exists())
    text = written.read_text()
    assert "${" not in text
    assert [] == [job for job, port in peer.ports.items() if str(port) not in text]


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


@pytest.mark.parametrize("peer", [Envoy], indirect=True, ids=["envoy"])
def test_envoy_accepts_its_configuration(peer: Proxy) -> None:
    """Envoy's own check finds no error."""
    command = [*peer.command(), "--mode", "validate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
@pytest.mark.parametrize("config", ["backend.conf", "remote.conf"])
def test_nginx_accepts_what_stands_behind(config: str, tmp_path: Path, files: certificates.Certificates) -> None:
    """The web servers behind every proxy check as well."""
    large = Path("/dev/null")
    values = backend.backend_values(large) | backend.remote_values(files.servers["p256"], large)
    written = render(config, {**values, "directory": tmp_path, "open_files": 1024}, tmp_path / config)
    command = ["nginx", "-p", str(tmp_path), "-e", "stderr", "-c", str(written), "-t"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr


def test_keys_are_private(files: certificates.Certificates) -> None:
    """Files that hold a private key can be read by their owner only."""
    secret = [path for server in files.servers.values() for path in (server.key, server.bundle)]
    assert [0o600] * 6 == [path.stat().st_mode & 0o777 for path in secret]


def test_a_network_has_as_many_clients_as_servers() -> None:
    """Each server address is reached from a client address of its own."""
    assert len(NETWORK.client_addresses) == len(NETWORK.server_addresses)
    assert not set(NETWORK.client_addresses) & set(NETWORK.server_addresses)
    assert [] == [text for text in NETWORK.server_addresses if not ip_address(text).is_private]


def test_only_narrows_one_sort_at_a_time() -> None:
    """Naming proxies keeps all that is measured, naming what is measured keeps all proxies; both narrow both."""
    assert ([Nginx], list(LOADS), list(SECTIONS)) == choose(["nginx"])
    assert (list(PROXIES), list(LOADS), list(SECTIONS)) == choose([])
    kinds, loads, sections = choose(["attls,nginx", "upload-1", "refresh"])
    assert ([Attls, Nginx], ["upload-1"], ["refresh"]) == (kinds, [x.name for x in loads], [x.name for x in sections])
    assert {"bulk"} == {load.group for load in choose(["bulk"])[1]}
    with pytest.raises(ValueError, match="squid"):
        choose(["squid"])


def flow(direction: Direction, *, local: int = 40_000, remote: int = 40_000) -> Flow:
    here, there = (
        Endpoint(canonical_address(text), port)
        for text, port in ((NETWORK.server_address, local), (NETWORK.client_address, remote))
    )
    return Flow(direction, here, there)


def test_the_policy_means_what_the_peers_are_told(tmp_path: Path, files: certificates.Certificates) -> None:
    """attls is configured for the same jobs as the peers: TLS 1.3 only, one cipher, without any remark."""
    rules = load(Attls(NETWORK, tmp_path, files).write_policy())
    assert () == tuple(rules.diagnostics)
    rings = {
        Job.REQUEST: "p256",
        Job.UPLOAD: "p256",
        Job.RSA2048: "rsa2048",
        Job.RSA4096: "rsa4096",
        Job.CLIENT: "trust",
        Job.CLIENT_FULL: "trust",
        Job.CLIENT_UPLOAD: "trust",
    }
    for job, ring in rings.items():
        port = Attls.ports[job]
        asked = flow(Direction.OUTBOUND, remote=port) if job.is_client else flow(Direction.INBOUND, local=port)
        settings = rules.match(asked, UNKNOWN_OWNER, datetime.now()).settings
        assert settings is not None
        assert (f"BENCH/{ring}", ("1301",), frozenset({Protocol.TLSV1_3})) == (
            settings.keyring,
            settings.ciphers,
            settings.protocols,
        )
    assert [Job.PLAIN, Job.PLAIN_UPLOAD] == [job for job in Attls.ports if job not in rings]


def test_many_rules_leave_the_traffic_of_the_benchmark_alone(tmp_path: Path, files: certificates.Certificates) -> None:
    """The rules that only make a policy large are accepted and fit no connection of the loads."""
    attls = Attls(NETWORK, tmp_path, files)
    few = load(attls.write_policy())
    attls.more_rules = many_rules(200, mark=3)
    many = load(attls.write_policy())
    assert [] == [str(found) for found in many.diagnostics if found.severity == "error"]
    assert len(few.rules) + 201 == len(many.rules)
    asked = [flow(Direction.INBOUND, local=port) for port in (*ports.BACKEND_WEB, *ports.BACKEND_SINK)]
    asked += [flow(Direction.OUTBOUND, remote=port) for port in (ports.REMOTE_FULL, ports.REMOTE_UPLOAD)]
    for each in asked:
        before, after = (rules.match(each, UNKNOWN_OWNER, datetime.now()).rule for rules in (few, many))
        assert before == after


def test_an_edition_is_a_change() -> None:
    """Two editions of the same rules differ, so that a refresh between them has something to do."""
    assert policy.one_rule(0) != policy.one_rule(1)
