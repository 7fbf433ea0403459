"""Steering with the real kernel: connections between private namespaces, taken and relayed by a proxy of the tests."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from attls.errors import LOOP
from attls.intercept import nft
from attls.model import Direction, Endpoint
from tests.intercept.turning_proxy import EVERYTHING, Rule, rule, turned, turning_proxy
from tests.namespaces import Namespace, Sniffer, join, namespace, needs_namespaces, sysctl, wait_until

pytestmark = [pytest.mark.scene, needs_namespaces]

PORT = 7000
SECRET = b"a secret that must not be seen"
VERSIONS = [4, 6]
OUTBOUND = rule(port=PORT, direction=Direction.OUTBOUND)
INBOUND = rule(port=PORT, direction=Direction.INBOUND)


@dataclass
class Stage:
    """Two hosts on one wire: `client` connects to `server`."""

    client: Namespace
    server: Namespace

    def host(self, direction: Direction) -> Namespace:
        """The host that a rule of this direction concerns."""
        return self.client if direction is Direction.OUTBOUND else self.server


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with namespace("client") as client, namespace("server") as server:
        join(client, server)
        yield Stage(client, server)


@pytest.fixture
def wire(stage: Stage) -> Iterator[Sniffer]:
    sniffer = Sniffer(stage.server, "veth1b")
    yield sniffer
    sniffer.close()


@contextlib.contextmanager
def connected(
    stage: Stage, version: int = 4, *, address: str | None = None, timeout: float = 5.0
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connect a client to a server on the other host; yields both programs' sockets."""
    with stage.server.listen(stage.server.addresses[version], PORT) as listener:
        listener.settimeout(timeout)
        with stage.client.connect(address or stage.server.addresses[version], PORT, timeout=timeout) as near:
            far, _ = listener.accept()
            with far:
                far.settimeout(timeout)
                yield near, far


def receive(sock: socket.socket, count: int) -> bytes:
    """Receive exactly `count` bytes, or fewer where the other side ends."""
    data = b""
    while len(data) < count and (more := sock.recv(count - len(data))):
        data += more
    return data


def grown(things: list[int], size: int) -> bool:
    """Whether a list has become longer than `size`."""
    return len(things) > size


def exchange(near: socket.socket, far: socket.socket, direction: Direction | None) -> None:
    """Send the secret both ways; the side without a proxy speaks what the network speaks."""
    on_wire = SECRET if direction is None else turned(SECRET)
    near_says = on_wire if direction is Direction.INBOUND else SECRET
    far_says = on_wire if direction is Direction.OUTBOUND else SECRET
    near.sendall(near_says)
    assert far_says == receive(far, len(SECRET))
    far.sendall(far_says)
    assert near_says == receive(near, len(SECRET))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("direction", list(Direction))
def test_both_programs_see_each_others_address(stage: Stage, wire: Sniffer, version: int, direction: Direction) -> None:
    """A steered connection shows either program the other's real address, and the wire shows nothing in clear."""
    with (
        turning_proxy(stage.host(direction), rule(port=PORT, direction=direction)) as proxy,
        connected(stage, version) as (near, far),
    ):
        exchange(near, far, direction)
        client, server = stage.client.addresses[version], stage.server.addresses[version]
        assert (server, PORT) == near.getpeername()[:2]
        assert client == far.getpeername()[0]
        assert (server, PORT) == far.getsockname()[:2]
        (flow,) = proxy.flows
        opener, destination = Endpoint.of(near.getsockname()), Endpoint.of((server, PORT))
        assert (opener, destination) == (
            (flow.local, flow.remote) if direction is Direction.OUTBOUND else (flow.remote, flow.local)
        )
        assert "root" == (proxy.owners[0] and proxy.owners[0].user)
        near.shutdown(socket.SHUT_WR)
        assert b"" == far.recv(1)
        far.sendall(SECRET if direction is Direction.INBOUND else turned(SECRET))  # half-closed, not closed
        assert len(SECRET) == len(receive(near, len(SECRET)))
    assert SECRET not in wire.seen()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.0.1", "fd00:1::1"])
def test_loopback_is_outbound_for_one_program_and_inbound_for_the_other(stage: Stage, address: str) -> None:
    """A connection within one host passes both roles, and both programs still see each other's address."""
    with (
        turning_proxy(stage.client, OUTBOUND, INBOUND) as proxy,
        stage.client.listen(address, PORT) as listener,
        stage.client.connect(address, PORT) as near,
    ):
        listener.settimeout(5)
        far, peer = listener.accept()
        with far:
            far.settimeout(5)
            exchange(near, far, None)  # turned twice
            assert near.getsockname()[0] == peer[0]
            assert (address, PORT) == near.getpeername()[:2]
            assert [Direction.OUTBOUND, Direction.INBOUND] == [flow.direction for flow in proxy.flows]


def test_mapped_addresses_are_ipv4(stage: Stage) -> None:
    """IPv6 sockets that speak IPv4 are steered as IPv4, the flow is IPv4, and both owners are found."""
    address = stage.server.addresses[4]
    for direction in Direction:
        with (
            turning_proxy(stage.host(direction), rule(port=PORT, direction=direction)) as proxy,
            stage.server.listen("::", PORT, dualstack_ipv6=True) as listener,
            stage.client.connect(f"::ffff:{address}", PORT) as near,
        ):
            listener.settimeout(5)
            far, peer = listener.accept()
            with far:
                far.settimeout(5)
                exchange(near, far, direction)
                assert f"::ffff:{stage.client.addresses[4]}" == peer[0]
                (flow,) = proxy.flows
                assert (4, 4) == (flow.local.address.version, flow.remote.address.version)
                assert proxy.owners[0] is not None
                assert proxy.owners[0].pid is not None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("direction", list(Direction))
def test_dead_daemon_lets_nothing_through(stage: Stage, wire: Sniffer, version: int, direction: Direction) -> None:
    """With nobody at our listeners a new connection is not made at all, a living one ends, and no byte gets out."""
    with turning_proxy(stage.host(direction), rule(port=PORT, direction=direction)) as proxy:
        with connected(stage, version) as (near, far):
            exchange(near, far, direction)
            proxy.die()
            program = near if direction is Direction.OUTBOUND else far
            with contextlib.suppress(OSError):
                for _ in range(3):
                    program.sendall(SECRET)
        with stage.server.listen(stage.server.addresses[version], PORT) as listener:
            listener.settimeout(0.3)
            with pytest.raises(TimeoutError):
                stage.client.connect(stage.server.addresses[version], PORT, timeout=0.7)
            with pytest.raises(TimeoutError):
                listener.accept()
    assert SECRET not in wire.seen()


def test_dead_listener_port_cannot_be_taken_over(stage: Stage) -> None:
    """After a crash a socket that is not transparent gets no redirected connection, even on our port."""
    with turning_proxy(stage.client, OUTBOUND) as proxy:
        proxy.die()
        with stage.client.listen("127.0.0.1", proxy.listeners.outbound_port) as thief:
            thief.settimeout(0.3)
            with pytest.raises(TimeoutError):
                stage.client.connect(stage.server.addresses[4], PORT, timeout=0.7)
            with pytest.raises(TimeoutError):
                thief.accept()


@pytest.mark.parametrize("version", VERSIONS)
def test_other_traffic_is_not_touched(stage: Stage, version: int) -> None:
    """Connections that no rule can match go straight through, down to the port numbers."""
    others = [rule(port=PORT + 1, direction=direction) for direction in Direction]
    with turning_proxy(stage.client, *others) as one, turning_proxy(stage.server, *others) as two:
        with connected(stage, version) as (near, far):
            exchange(near, far, None)
            assert near.getsockname()[:2] == far.getpeername()[:2]
        assert [] == one.flows + two.flows


def test_rule_without_tls_comes_first(stage: Stage) -> None:
    """An earlier rule that switches TLS off keeps its connections away from a later rule that steers."""
    off = rule(port=PORT, direction=Direction.OUTBOUND, enabled=False)
    with turning_proxy(stage.client, off, OUTBOUND) as proxy:
        with connected(stage) as (near, far):
            exchange(near, far, None)
        assert [] == proxy.flows


@pytest.mark.parametrize("version", VERSIONS)
def test_older_connections_are_not_touched(stage: Stage, version: int) -> None:
    """A connection that existed before the table goes on as it was, also when conntrack is flushed."""
    with (
        connected(stage, version) as (near, far),
        turning_proxy(stage.client, OUTBOUND) as one,
        turning_proxy(stage.server, INBOUND) as two,
    ):
        exchange(near, far, None)
        for host in (stage.client, stage.server):
            host.run("conntrack", "-F")
        exchange(near, far, None)
        assert [] == one.flows + two.flows


@pytest.mark.parametrize("direction", list(Direction))
def test_reload_leaves_living_connections_alone(stage: Stage, wire: Sniffer, direction: Direction) -> None:
    """New rules do not move a steered connection, not even rules without it; a new connection follows them."""
    with turning_proxy(stage.host(direction), rule(port=PORT, direction=direction)) as proxy:
        with connected(stage) as (near, far):
            exchange(near, far, direction)
            proxy.load([])
            exchange(near, far, direction)
            proxy.load([rule(port=PORT, direction=direction, enabled=False)])
            exchange(near, far, direction)
            stage.host(direction).run("conntrack", "-F")  # the memory of steered connections survived as well
            exchange(near, far, direction)
        assert SECRET not in wire.seen()
        with connected(stage) as (near, far):
            exchange(near, far, None)
        assert 1 == len(proxy.flows)


def test_forwarded_traffic_is_not_touched() -> None:
    """A router under AT-TLS steers its own connections only, not those that pass through."""
    with namespace("near") as near, namespace("router") as router, namespace("far") as far:
        join(near, router, 1)
        left = dict(router.addresses)
        join(router, far, 2)
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            sysctl(router, setting, 1)
        for version, flag in ((4, "-4"), (6, "-6")):
            near.run("ip", flag, "route", "add", "default", "via", left[version])
            far.run("ip", flag, "route", "add", "default", "via", router.addresses[version])
        with turning_proxy(router, EVERYTHING) as proxy:
            for version in VERSIONS:
                with connected(Stage(near, far), version) as (one, two):
                    exchange(one, two, None)
                    assert one.getsockname()[:2] == two.getpeername()[:2]
            assert [] == proxy.flows


CLIENT_PROGRAM = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
sock.sendall(b"x")
sock.recv(1)
"""


def test_user_filter_looks_at_the_owner_of_the_socket(stage: Stage) -> None:
    """A rule for one user steers that user's connections and nobody else's."""
    only = rule(port=PORT, direction=Direction.OUTBOUND, user="NOBODY")
    address = stage.server.addresses[4]
    with turning_proxy(stage.client, only) as proxy, stage.server.listen(address, PORT) as listener:
        listener.settimeout(5)
        for user in ("nobody", "daemon"):
            program = stage.client.popen(["python3", "-c", CLIENT_PROGRAM, address, str(PORT)], user=user)
            far, _ = listener.accept()
            far.close()
            program.wait(5)
        assert ["nobody"] == [owner and owner.user for owner in proxy.owners]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("speaker", ["program", "network"])
def test_forgetful_conntrack_leaks_nothing(
    stage: Stage, wire: Sniffer, version: int, direction: Direction, speaker: str
) -> None:
    """After `conntrack -F` the connection goes on, whoever speaks first, and no clear byte reaches the network."""
    with (
        turning_proxy(stage.host(direction), rule(port=PORT, direction=direction)),
        connected(stage, version, timeout=1.0) as (near, far),
    ):
        exchange(near, far, direction)
        program, network = (near, far) if direction is Direction.OUTBOUND else (far, near)
        stage.host(direction).run("conntrack", "-F")
        if speaker == "network":
            network.sendall(turned(SECRET))
            assert SECRET == receive(program, len(SECRET))
        for _ in range(3):
            exchange(near, far, direction)
    assert PORT in wire.asked_for()
    assert turned(SECRET) in wire.seen()
    assert SECRET not in wire.seen()


@pytest.mark.parametrize("direction", list(Direction))
def test_conntrack_that_refuses_leaks_nothing(stage: Stage, wire: Sniffer, direction: Direction) -> None:
    """Where conntrack calls packets invalid and keeps no mark for them, the connection goes on, steered as before."""
    host = stage.host(direction)
    with turning_proxy(host, rule(port=PORT, direction=direction)):
        sysctl(host, "netfilter/nf_conntrack_tcp_loose", 0)  # no pick-up in mid-stream: invalid
        try:
            with connected(stage) as (near, far):
                exchange(near, far, direction)
                host.run("conntrack", "-F")
                for _ in range(3):
                    exchange(near, far, direction)
        finally:
            sysctl(host, "netfilter/nf_conntrack_tcp_loose", 1)
    assert SECRET not in wire.seen()


@pytest.mark.parametrize("version", VERSIONS)
def test_lost_routing_rule_leaks_nothing(stage: Stage, wire: Sniffer, version: int) -> None:
    """If somebody deletes our routing rule, a program's answers are dropped instead of leaving in clear."""
    with turning_proxy(stage.server, INBOUND) as proxy, connected(stage, version, timeout=0.5) as (near, far):
        exchange(near, far, Direction.INBOUND)
        with stage.server.inside():
            proxy.routes.remove()
        far.sendall(SECRET)
        with pytest.raises(TimeoutError):
            near.recv(1)
        with stage.server.inside():
            proxy.routes.install()
        wait_until(lambda: near.recv(len(SECRET)) == turned(SECRET))  # retransmitted, the right way
    assert SECRET not in wire.seen()


def test_untracked_connections_are_refused(stage: Stage) -> None:
    """Without conntrack a connection could not be protected, so a `notrack` rule of the host's ends it."""
    stage.client.run("nft", "add table inet other; add chain inet other out { type filter hook output priority raw; }")
    stage.client.run("nft", f"add rule inet other out tcp dport {PORT} notrack")
    try:
        with turning_proxy(stage.client, OUTBOUND), pytest.raises(TimeoutError), connected(stage, timeout=0.5):
            pass
    finally:
        stage.client.run("nft", "delete table inet other")


def test_somebody_elses_nat_comes_after_ours(stage: Stage) -> None:
    """A redirect of another table does not take a steered connection away."""
    stage.client.run("nft", "add table ip other; add chain ip other out { type nat hook output priority -100; }")
    stage.client.run("nft", f"add rule ip other out tcp dport {PORT} redirect to :9")
    try:
        with turning_proxy(stage.client, OUTBOUND) as proxy:
            # Our own leg is nobody's business but theirs: it meets their redirect as any program would.
            with stage.client.listen("127.0.0.1", 9) as theirs:
                theirs.settimeout(5)
                with stage.client.connect(stage.server.addresses[4], PORT) as near:
                    far, _ = theirs.accept()
                    with far:
                        far.settimeout(5)
                        exchange(near, far, Direction.OUTBOUND)
            assert 1 == len(proxy.flows)
    finally:
        stage.client.run("nft", "delete table ip other")


@pytest.mark.parametrize("version", VERSIONS)
def test_syn_cookies_do_not_open_a_way_around(stage: Stage, version: int) -> None:
    """A handshake by SYN cookie, whose last ACK has no socket to go to, still ends at our listener."""
    sysctl(stage.server, "ipv4/tcp_syncookies", 2)
    try:
        with turning_proxy(stage.server, INBOUND) as proxy, connected(stage, version) as (near, far):
            exchange(near, far, Direction.INBOUND)
            assert 1 == len(proxy.flows)
    finally:
        sysctl(stage.server, "ipv4/tcp_syncookies", 1)


@pytest.mark.parametrize("rules", [(), (EVERYTHING,)])
def test_direct_connection_to_our_port_is_a_loop(stage: Stage, rules: tuple[Rule, ...]) -> None:
    """A program that connects to one of our own ports is told apart from a steered connection."""
    with turning_proxy(stage.client, *rules) as proxy:
        for address in ("127.0.0.1", "::1"):
            for port in (proxy.listeners.outbound_port, proxy.listeners.inbound_port):
                with stage.client.connect(address, port) as sock:
                    assert b"" == sock.recv(1)
        assert [LOOP] * 4 == proxy.refused


@pytest.mark.parametrize("version", VERSIONS)
def test_nobody_listens(stage: Stage, version: int) -> None:
    """An inbound connection to a port without a program is recognised, so that it can be reset at once."""
    with turning_proxy(stage.server, INBOUND) as proxy:
        with (
            pytest.raises(ConnectionResetError),
            stage.client.connect(stage.server.addresses[version], PORT) as near,
        ):
            near.recv(1)
        assert 1 == len(proxy.nobody)


def test_program_leg_cannot_be_entered_from_the_network(stage: Stage) -> None:
    """A peer that uses our own port towards the program gets nowhere, and the connection inside goes on."""
    with turning_proxy(stage.server, INBOUND), connected(stage) as (near, far):
        exchange(near, far, Direction.INBOUND)
        with stage.client.inside(), socket.socket() as intruder:
            intruder.bind(far.getpeername())
            intruder.settimeout(0.5)
            with pytest.raises(TimeoutError):
                intruder.connect((stage.server.addresses[4], PORT))
        exchange(near, far, Direction.INBOUND)


def test_returning_client_meets_the_same_worker(stage: Stage) -> None:
    """Inbound connections are spread over the workers by the client's address, and by nothing else."""
    with turning_proxy(stage.server, INBOUND, workers=3) as proxy:
        met: dict[str, set[int]] = {}
        sources = [f"10.1.0.{number}" for number in range(20, 40)] + [f"fd00:1::{number}" for number in range(20, 40)]
        for source in sources:
            if ":" in source:
                stage.client.run("ip", "addr", "add", f"{source}/64", "dev", "veth1a", "nodad")
            else:
                stage.client.run("ip", "addr", "add", f"{source}/24", "dev", "veth1a")
        try:
            for version in VERSIONS:
                with stage.server.listen(stage.server.addresses[version], PORT) as listener:
                    for source in [item for item in sources if (":" in item) == (version == 6)] * 3:
                        before = len(proxy.by_worker)
                        target = stage.server.addresses[version]
                        with stage.client.connect(target, PORT, source=source):
                            wait_until(functools.partial(grown, proxy.by_worker, before))
                            met.setdefault(source, set()).add(proxy.by_worker[-1])
                            listener.accept()[0].close()
        finally:
            for source in sources:
                stage.client.run("ip", "addr", "del", source + ("/64" if ":" in source else "/24"), "dev", "veth1a")
        assert {1} == {len(workers) for workers in met.values()}
        for version in VERSIONS:
            used = {next(iter(met[source])) for source in sources if (":" in source) == (version == 6)}
            assert {0, 1, 2} == used


def test_many_connections_of_one_client(stage: Stage) -> None:
    """Two hundred connections of one client at once each get through, each with its own bytes."""
    with (
        turning_proxy(stage.server, INBOUND),
        stage.server.listen(stage.server.addresses[4], PORT, backlog=500) as listener,
        contextlib.ExitStack() as open_sockets,
    ):
        listener.settimeout(5)
        near = [open_sockets.enter_context(stage.client.connect(stage.server.addresses[4], PORT)) for _ in range(200)]
        for number, sock in enumerate(near):
            sock.sendall(turned(struct.pack("!I", number)))
        seen = set()
        for _ in near:
            far = open_sockets.enter_context(listener.accept()[0])
            far.settimeout(5)
            seen.add(struct.unpack("!I", receive(far, 4))[0])
        assert set(range(200)) == seen


def test_memory_of_a_closed_connection_fades(stage: Stage) -> None:
    """A steered connection is remembered for as long as it may live, and for ten minutes after its end."""
    with turning_proxy(stage.client, OUTBOUND):
        with connected(stage) as (near, far):
            exchange(near, far, Direction.OUTBOUND)
            port = near.getsockname()[1]
            assert re.search(
                rf"\. {port} \. .* expires 364d", stage.client.run("nft", "list", "table", "inet", "attls")
            )
        wait_until(
            lambda: re.search(
                rf"\. {port} \. .* expires (10m|9m)", stage.client.run("nft", "list", "table", "inet", "attls")
            )
        )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("direction", list(Direction))
def test_removal_ends_what_is_steered(stage: Stage, wire: Sniffer, version: int, direction: Direction) -> None:
    """When the table goes, a program that still holds a steered socket sees a reset and cannot send in clear."""
    with turning_proxy(stage.host(direction), rule(port=PORT, direction=direction)):
        with connected(stage, version) as (near, far):
            exchange(near, far, direction)
            program = near if direction is Direction.OUTBOUND else far
            with stage.host(direction).inside():
                nft.remove()
            with pytest.raises(ConnectionError):
                program.sendall(SECRET)
        assert SECRET not in wire.seen()
        with connected(stage, version) as (near, far):
            exchange(near, far, None)  # a new connection is nobody's business now


def test_table_comes_and_goes(stage: Stage) -> None:
    """Applying and removing may be repeated; `installed` tells."""
    with turning_proxy(stage.client, OUTBOUND) as proxy, stage.client.inside():
        assert nft.installed()
        nft.apply(proxy.text([INBOUND]))
        nft.remove()
        assert not nft.installed()
        nft.remove()


@pytest.mark.parametrize("version", VERSIONS)
def test_one_source_port_for_two_destinations(stage: Stage, version: int) -> None:
    """Two connections from one address and port to different servers keep their own ports, flows and owners."""
    second = {4: "10.1.0.77", 6: "fd00:1::77"}[version]
    prefix = {4: "24", 6: "64"}[version]
    stage.server.run("ip", "addr", "add", f"{second}/{prefix}", "dev", "veth1b", *(["nodad"] if version == 6 else []))
    family = {4: socket.AF_INET, 6: socket.AF_INET6}[version]
    try:
        with (
            turning_proxy(stage.client, OUTBOUND) as proxy,
            stage.server.listen({4: "0.0.0.0", 6: "::"}[version], PORT),
            contextlib.ExitStack() as open_sockets,
        ):
            with stage.client.inside():
                for target in (stage.server.addresses[version], second):
                    sock = open_sockets.enter_context(socket.socket(family))
                    sock.settimeout(5)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind((stage.client.addresses[version], 12345))
                    sock.connect((target, PORT))
            wait_until(lambda: len(proxy.owners) == 2)
            assert [12345, 12345] == [flow.local.port for flow in proxy.flows]
            assert ["root", "root"] == [owner and owner.user for owner in proxy.owners]
    finally:
        stage.server.run("ip", "addr", "del", f"{second}/{prefix}", "dev", "veth1b")


@pytest.mark.parametrize("direction", list(Direction))
def test_strict_host_settings(stage: Stage, direction: Direction) -> None:
    """Strict reverse path filters, and sockets that inherit packet marks, do not stand in the way."""
    settings = ["ipv4/conf/all/rp_filter", "ipv4/conf/lo/rp_filter", "ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect"]
    host = stage.host(direction)
    for name in settings:
        sysctl(host, name, 1)
    try:
        for version in VERSIONS:
            with (
                turning_proxy(host, rule(port=PORT, direction=direction)) as proxy,
                connected(stage, version) as (near, far),
            ):
                exchange(near, far, direction)
                assert 1 == len(proxy.flows)
    finally:
        for name in settings:
            sysctl(host, name, 0)


def test_socket_bound_to_an_interface_is_not_let_through(stage: Stage, wire: Sniffer) -> None:
    """A socket bound to a network interface cannot be turned round; no packet of it reaches the network."""
    with (
        turning_proxy(stage.client, OUTBOUND),
        stage.server.listen(stage.server.addresses[4], PORT),
        stage.client.inside(),
        socket.socket() as sock,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"veth1a")
        sock.settimeout(0.5)
        with pytest.raises(OSError):
            sock.connect((stage.server.addresses[4], PORT))
        assert PORT not in wire.asked_for()


def test_link_local_connections_are_not_let_through(stage: Stage) -> None:
    """Link-local addresses belong to an interface as well: fail closed, outbound and inbound."""
    shown = stage.server.run("ip", "-6", "addr", "show", "dev", "veth1b", "scope", "link")
    found = re.search(r"inet6 (fe80::[0-9a-f:]+)", shown)
    assert found is not None
    for direction in Direction:
        with (
            turning_proxy(stage.host(direction), rule(port=PORT, direction=direction)),
            stage.server.listen("::", PORT) as listener,
        ):
            listener.settimeout(0.5)
            with (
                pytest.raises(OSError),
                stage.client.connect(f"{found[1]}%veth1a", PORT, timeout=0.5) as near,
            ):
                near.recv(1)
            with pytest.raises(TimeoutError):
                listener.accept()
