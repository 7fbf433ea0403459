"""The steering table as text: what is steered, what is left alone, and that the kernel's tool takes every table."""

from __future__ import annotations

import ipaddress
import itertools
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from attls.errors import InterceptError
from attls.intercept import nft
from attls.model import AddressRange, Conditions, Direction, PortRange, TimeCondition
from tests.namespaces import Namespace, namespace, needs_namespaces

ACCOUNTS = {"PAYROLL": frozenset({1000}), "WEB": frozenset({33, 1001})}
INBOUND, OUTBOUND = Direction.INBOUND, Direction.OUTBOUND
BOTH = frozenset(Direction)


@dataclass(frozen=True)
class Ruling:
    enabled: bool


@dataclass(frozen=True)
class Rule:
    name: str
    conditions: Conditions
    verdict: Ruling


def on(conditions: Conditions) -> Rule:
    return Rule("on", conditions, Ruling(True))


def off(conditions: Conditions) -> Rule:
    return Rule("off", conditions, Ruling(False))


def uids_of(user: str) -> frozenset[int]:
    return ACCOUNTS.get(user, frozenset())


def lines(direction: Direction, *rules: Rule) -> list[str]:
    return list(nft.rule_lines(rules, direction, uids_of))


def network(text: str) -> AddressRange:
    found = ipaddress.ip_network(text)
    return AddressRange(found.version, int(found[0]), int(found[-1]))


def port(number: int, last: int | None = None) -> PortRange:
    return PortRange(number, number if last is None else last)


# Few different values, so that random rules and packets meet each other.
PORTS = st.sampled_from([0, 1, 21, 22, 443, 1023, 1024, 65535])
ADDRESSES4 = st.sampled_from([int(ipaddress.ip_address(t)) for t in ("0.0.0.0", "10.0.0.1", "10.0.0.9", "192.0.2.255")])
ADDRESSES6 = st.sampled_from([0, 1, 0xFD << 120 | 1, 0xFD << 120 | 9, 2**128 - 1])


def ranges(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, int]]:
    ends = st.lists(numbers, min_size=1, max_size=2).map(sorted)
    return ends.map(lambda found: (found[0], found[-1]))


PORT_RANGES = st.lists(ranges(PORTS).map(lambda r: PortRange(*r)), max_size=3).map(tuple)
ADDRESS_RANGES = st.lists(
    st.one_of(
        ranges(ADDRESSES4).map(lambda r: AddressRange(4, *r)),
        ranges(ADDRESSES6).map(lambda r: AddressRange(6, *r)),
        st.just(AddressRange(4, 0, 2**32 - 1)),
        st.just(AddressRange(6, 0, 2**128 - 1)),
    ),
    max_size=3,
).map(tuple)
CONDITIONS = st.builds(
    Conditions,
    directions=st.sampled_from([BOTH, frozenset({INBOUND}), frozenset({OUTBOUND})]),
    local_addresses=ADDRESS_RANGES,
    remote_addresses=ADDRESS_RANGES,
    local_ports=PORT_RANGES,
    remote_ports=PORT_RANGES,
    job=st.sampled_from([None, None, "FTPD", "F*"]),
    user=st.sampled_from([None, None, "PAYROLL", "WEB", "W*", "NOBODYHERE"]),
    times=st.sampled_from([(), (), (TimeCondition(),)]),
)
NAMES = st.text(max_size=150)
RULES = st.lists(st.builds(Rule, NAMES, CONDITIONS, st.builds(Ruling, st.booleans())), max_size=8)


@dataclass(frozen=True)
class Packet:
    """A first packet and the truth about its owner."""

    direction: Direction
    version: int
    local: int
    remote: int
    local_port: int
    remote_port: int
    uid: int
    job: str


REAL_PORTS = PORTS.filter(bool)


def packets(version: int, addresses: st.SearchStrategy[int]) -> st.SearchStrategy[Packet]:
    return st.builds(
        Packet,
        st.sampled_from(list(Direction)),
        st.just(version),
        addresses,
        addresses,
        REAL_PORTS,
        REAL_PORTS,
        st.sampled_from([0, 33, 1000, 1001]),
        st.sampled_from(["FTPD", "OTHER"]),
    )


PACKETS = packets(4, ADDRESSES4) | packets(6, ADDRESSES6)


def fits(packet: Packet, conditions: Conditions) -> bool:
    """Whether all conditions hold that a packet shows: direction, addresses, ports."""

    def address_fits(wanted: tuple[AddressRange, ...], address: int) -> bool:
        return not wanted or any(r.version == packet.version and r.first <= address <= r.last for r in wanted)

    def port_fits(wanted: tuple[PortRange, ...], number: int) -> bool:
        return not wanted or any(r.first <= number <= r.last for r in wanted)

    return (
        packet.direction in conditions.directions
        and address_fits(conditions.local_addresses, packet.local)
        and address_fits(conditions.remote_addresses, packet.remote)
        and port_fits(conditions.local_ports, packet.local_port)
        and port_fits(conditions.remote_ports, packet.remote_port)
    )


def user_fits(packet: Packet, pattern: str | None) -> bool:
    if pattern is None:
        return True
    wildcard = {"W*": ACCOUNTS["WEB"]}
    return packet.uid in wildcard.get(pattern, uids_of(pattern))


def is_steered(packet: Packet, rules: list[Rule], uids_of: Callable[[str], frozenset[int]] = uids_of) -> bool:
    """What the table does, walked step by step: its look-ups of many, then the lines of their own."""

    def within(ranges: nft.Ranges | None, number: int) -> bool:
        return ranges is None or any(first <= number <= last for first, last in ranges)

    values = {name: getattr(packet, "uid" if name == "uids" else name.removesuffix("s")) for name in nft.FIELDS}
    for step in nft.steps(rules, packet.direction, uids_of):
        lookups, lines_of_their_own = nft.lookups(step)
        for lookup in lookups:
            found = [values[name] for name in lookup.fields]
            if lookup.version in (None, packet.version) and any(
                all(first <= value <= last for (first, last), value in zip(element, found, strict=True))
                for element in lookup.elements
            ):
                return step.steers
        for match in lines_of_their_own:
            if (
                match.version in (None, packet.version)
                and within(match.local, packet.local)
                and within(match.remote, packet.remote)
                and within(match.local_ports, packet.local_port)
                and within(match.remote_ports, packet.remote_port)
                and (match.uids is None or packet.uid in match.uids)
            ):
                return step.steers
    return False


@given(PACKETS, RULES)
def test_whatever_policy_protects_is_steered(packet: Packet, rules: list[Rule]) -> None:
    """If the full rules, owner and all, ask for TLS now or at another hour, the table steers the connection."""
    for hour_fits in (True, False):
        for rule in rules:
            conditions = rule.conditions
            job = conditions.job is None or packet.job == "FTPD"
            time_fits = hour_fits or not conditions.times
            if fits(packet, conditions) and user_fits(packet, conditions.user) and job and time_fits:
                if rule.verdict.enabled:
                    assert is_steered(packet, rules)
                break


@given(PACKETS, RULES)
def test_table_is_the_ordered_walk_over_what_packets_show(packet: Packet, rules: list[Rule]) -> None:
    """Joining ranges and rules changes no decision of the naive walk."""
    expected = False
    for rule in rules:
        conditions = rule.conditions
        visible_user = conditions.user if packet.direction is OUTBOUND and uids_of(conditions.user or "") else None
        if not fits(packet, conditions) or not user_fits(packet, visible_user):
            continue
        exact = conditions.job is None and not conditions.times and conditions.user == visible_user
        if rule.verdict.enabled or exact:
            expected = rule.verdict.enabled
            break
    assert expected == is_steered(packet, rules)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda t: (t[0], t[0] + t[1])), max_size=8))
def test_union_keeps_the_numbers(found: list[tuple[int, int]]) -> None:
    """`union` covers the same numbers by sorted ranges with gaps between them."""
    joined = nft.union(found)
    assert {n for first, last in found for n in range(first, last + 1)} == {
        n for first, last in joined for n in range(first, last + 1)
    }
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(joined))


def test_outbound_reads_local_as_source() -> None:
    """Outbound, the local end sends the SYN; inbound, it receives it."""
    conditions = Conditions(
        BOTH,
        local_addresses=(network("10.0.0.0/8"),),
        remote_addresses=(network("192.0.2.1/32"),),
        local_ports=(port(1024, 65535),),
        remote_ports=(port(21), port(443)),
    )
    assert [
        "ip daddr 192.0.2.1 ip saddr 10.0.0.0/8 tcp dport { 21, 443 } tcp sport 1024-65535"
        ' goto outbound_steer comment "on"'
    ] == lines(OUTBOUND, on(conditions))
    assert [
        "ip saddr 192.0.2.1 ip daddr 10.0.0.0/8 tcp sport { 21, 443 } tcp dport 1024-65535"
        ' goto inbound_steer comment "on"'
    ] == lines(INBOUND, on(conditions))


def test_both_families_are_steered() -> None:
    """A rule without addresses is one line for IPv4 and IPv6; a rule with both kinds is a line for each."""
    assert ['tcp dport 23 goto outbound_steer comment "on"'] == lines(
        OUTBOUND, on(Conditions(BOTH, remote_ports=(port(23),)))
    )
    found = lines(OUTBOUND, on(Conditions(BOTH, remote_addresses=(network("10.0.0.0/8"), network("fd00::/8")))))
    assert [
        'ip daddr 10.0.0.0/8 goto outbound_steer comment "on"',
        'ip6 daddr fd00::/8 goto outbound_steer comment "on"',
    ] == found


def test_families_that_exclude_each_other_match_nothing() -> None:
    """An IPv4 local address and an IPv6 remote address never meet in one connection."""
    conditions = Conditions(BOTH, local_addresses=(network("10.0.0.0/8"),), remote_addresses=(network("fd00::/8"),))
    assert [] == lines(OUTBOUND, on(conditions))


def test_rule_without_tls_returns_only_where_it_is_exact() -> None:
    """Off returns early for what packets show; with a job, a time or an inbound user it leaves the choice to others."""
    ports = (port(23),)
    assert ['tcp sport 23 return comment "off"'] == lines(OUTBOUND, off(Conditions(BOTH, local_ports=ports)))
    assert ['tcp sport 23 meta skuid 1000 return comment "off"'] == lines(
        OUTBOUND, off(Conditions(BOTH, local_ports=ports, user="PAYROLL"))
    )
    for conditions in (
        Conditions(BOTH, local_ports=ports, job="FTPD"),
        Conditions(BOTH, local_ports=ports, times=(TimeCondition(),)),
        Conditions(BOTH, local_ports=ports, user="P*"),
        Conditions(BOTH, local_ports=ports, user="NOBODYHERE"),
    ):
        assert [] == lines(OUTBOUND, off(conditions))
    assert [] == lines(INBOUND, off(Conditions(BOTH, local_ports=ports, user="PAYROLL")))


def test_rule_with_tls_steers_more_rather_than_less() -> None:
    """On ignores what packets do not show: job, time, wildcard users, users without an account, inbound users."""
    expected = ['tcp sport 23 goto outbound_steer comment "on"']
    for conditions in (
        Conditions(BOTH, local_ports=(port(23),), job="FTPD", times=(TimeCondition(),)),
        Conditions(BOTH, local_ports=(port(23),), user="P?YROLL"),
        Conditions(BOTH, local_ports=(port(23),), user="NOBODYHERE"),
    ):
        assert expected == lines(OUTBOUND, on(conditions))
    assert ['tcp dport 23 goto inbound_steer comment "on"'] == lines(
        INBOUND, on(Conditions(BOTH, local_ports=(port(23),), user="PAYROLL"))
    )


def test_nothing_follows_a_rule_for_everything() -> None:
    """Behind a rule that takes every packet no line is rendered."""
    everything = on(Conditions(BOTH))
    assert ['goto outbound_steer comment "on"'] == lines(
        OUTBOUND, everything, off(Conditions(BOTH, remote_ports=(port(1),)))
    )


def test_exact_values_share_one_hash_set() -> None:
    """Rules that name single addresses and ports become one look-up, however many they are."""
    rules = [
        on(Conditions(BOTH, remote_addresses=(network(f"10.0.0.{n}/32"),), remote_ports=(port(1000 + n),)))
        for n in range(3)
    ]
    assert [
        "meta nfproto ipv4 meta l4proto tcp tcp dport . ip daddr"
        " { 1000 . 10.0.0.0, 1001 . 10.0.0.1, 1002 . 10.0.0.2 } goto outbound_steer"
    ] == lines(OUTBOUND, *rules)


def test_comment_cannot_break_out() -> None:
    """A rule's name is text for people; quotes and line ends in it do no harm."""
    rule = Rule('x" drop\n}', Conditions(BOTH, remote_ports=(port(1),)), Ruling(True))
    assert ['tcp dport 1 goto outbound_steer comment "x_ drop__"'] == lines(OUTBOUND, rule)


# --------------------------------------------------------------------------------------------------------------------
# With the real tool


def render(rules: list[Rule]) -> str:
    return nft.render(rules, outbound_port=1011, inbound_port=1012, own_uid=0, uids_of=uids_of)


@pytest.fixture(scope="module")
def private() -> Iterator[Namespace]:
    with namespace("nft") as made:
        yield made


@needs_namespaces
@pytest.mark.scene
@given(rules=RULES)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(rules=[])
@example(rules=[off(Conditions(BOTH, remote_ports=(port(0),)))])
@example(rules=[on(Conditions(BOTH))])
def test_every_table_is_accepted(private: Namespace, rules: list[Rule]) -> None:
    """Whatever the rules, the kernel would take the rendered table."""
    with private.inside():
        nft.check(render(rules))


def varied(number: int) -> Conditions:
    """One of many rules: ports, networks, hosts, ranges, users, and combinations of them."""
    address = 0x7F000000 + number * 3779 % 0xFFFFFF
    host = AddressRange(4, address, address)
    network24 = AddressRange(4, address & ~255, address | 255)
    low = 1024 + number % 500 * 100
    ports = (port(low, low + number % 90),)
    return (
        Conditions(BOTH, remote_ports=(port(1024 + number * 7 % 60000),)),
        Conditions(BOTH, remote_addresses=(host,), remote_ports=(port(443),)),
        Conditions(BOTH, remote_addresses=(network24,), local_ports=(port(1024, 65535),)),
        Conditions(BOTH, remote_addresses=(AddressRange(4, address, address + 5),), remote_ports=ports),
        Conditions(BOTH, local_addresses=(host,), user=f"USER{number}"),
        Conditions(BOTH, remote_addresses=(network24,), remote_ports=(port(1000, 2000 + number % 50),), user="PAYROLL"),
        Conditions(BOTH, remote_addresses=(network("fd00::/64"),), remote_ports=ports),
    )[number % 7]


@needs_namespaces
@pytest.mark.scene
@pytest.mark.parametrize("without_tls", [10_001, 7, 3])
def test_ten_thousand_rules_load_in_time(private: Namespace, without_tls: int) -> None:
    """Ten thousand mixed rules render and load within seconds, and a connection is compared with few lines."""
    rules = [(off if number % without_tls == 1 else on)(varied(number)) for number in range(10_000)]

    def uids(user: str) -> frozenset[int]:
        return frozenset({1000 + int(user[4:])}) if user.startswith("USER") else uids_of(user)

    start = time.monotonic()
    text = nft.render(rules, outbound_port=1011, inbound_port=1012, own_uid=0, uids_of=uids)
    with private.inside():
        nft.check(text)
        nft.apply(text)
        nft.apply(text)
        nft.remove()
    assert text.count("\n") < 700
    assert time.monotonic() - start < 30  # some 3 s alone; the machine may be busy


@needs_namespaces
@pytest.mark.scene
def test_kernel_steers_what_the_steps_say(private: Namespace) -> None:
    """Real connections to loopback addresses: those that should be steered find nobody, the others are refused."""
    uids = {**ACCOUNTS, "ROOT": frozenset({0})}
    rules = []
    for number in range(400):
        conditions = varied(number)
        user = None if conditions.user is None else ("ROOT", "PAYROLL")[number % 2]
        rules.append((off if number % 5 == 1 else on)(replace(conditions, user=user)))
    table = nft.render(rules, outbound_port=1011, inbound_port=1012, own_uid=4711, uids_of=lambda user: uids[user])
    steered = []
    with private.inside():
        nft.apply(table)
        for number in range(0, 400, 6):
            wanted = rules[number].conditions
            address = wanted.remote_addresses[0].last if wanted.remote_addresses else 0x7F000001
            if address >= 0x7FFFFFFF:
                continue
            remote_port = wanted.remote_ports[0].last if wanted.remote_ports else 22
            packet = Packet(OUTBOUND, 4, 0x7F000001, address, 40000 + number, remote_port, 0, "")
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", packet.local_port))
                sock.setblocking(False)
                sock.connect_ex((str(ipaddress.ip_address(address)), remote_port))
                refused = bool(select.select([], [sock], [], 0.05)[1])
            expected = is_steered(packet, rules, lambda user: uids[user])
            assert expected == (not refused), packet
            steered.append(expected)
        nft.remove()
    assert {True, False} == set(steered)


@needs_namespaces
@pytest.mark.scene
def test_refused_table_changes_nothing(private: Namespace) -> None:
    """A table that the kernel refuses is one sentence, and the one in force stays."""
    with private.inside():
        nft.apply(render([on(Conditions(BOTH))]))
        before = private.run("nft", "list", "ruleset")
        with pytest.raises(InterceptError, match="nft refused the table"):
            nft.apply(render([]).replace("tproxy", "tprxy"))
        assert before == private.run("nft", "list", "ruleset")
        nft.remove()


def test_missing_tool_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """Without nft the error says which package to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InterceptError, match="install the package nftables"):
        nft.check("")


def test_tool_that_hangs_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An nft that does not come back is ended, and the error says so."""
    tool = tmp_path / "nft"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(nft, "NFT_SECONDS", 0.2)
    with pytest.raises(InterceptError, match="'nft' did not finish within"):
        nft.check("")


@pytest.mark.skipif(os.geteuid() != 0, reason="drops privileges in a child")
def test_missing_permission_is_one_sentence() -> None:
    """Without root the error says so."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.setuid(65534)
        try:
            nft.apply(render([]))
        except InterceptError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "cannot steer connections: this needs root (CAP_NET_ADMIN); run attls as root"
