"""What `attls exec` need not look at: destinations that no rule can put under TLS."""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from attls.daemon.exec_law import Destinations
from attls.model import Address, AddressRange, Conditions, Direction, Endpoint, Flow, Owner, PortRange, Verdict
from attls.policy import PolicySet, Rule
from attls.policy.match import Matcher

NOW = datetime(2026, 8, 3, 12, 0)
numbers = st.integers(0, 12)
ports = st.builds(lambda first, more: PortRange(first, first + more), st.integers(1, 12), st.integers(0, 4))
spans = st.builds(
    lambda version, first, more: AddressRange(version, first, first + more), st.sampled_from([4, 6]), numbers, numbers
)
conditions = st.builds(
    Conditions,
    directions=st.sampled_from([frozenset(Direction), *(frozenset([each]) for each in Direction)]),
    remote_addresses=st.lists(spans, max_size=2).map(tuple),
    remote_ports=st.lists(ports, max_size=3).map(tuple),
)
rules = st.lists(st.tuples(conditions, st.booleans()), max_size=6).map(
    lambda pairs: tuple(
        Rule(f"r{index}", 100 - index, each, Verdict(rule=f"r{index}", enabled=enabled))
        for index, (each, enabled) in enumerate(pairs)
    )
)


def address(version: int, number: int) -> Address:
    return IPv4Address(number) if version == 4 else IPv6Address(number)


places = st.builds(
    lambda version, number, port: Endpoint(address(version, number), port),
    st.sampled_from([4, 6]),
    numbers,
    st.integers(1, 18),
)


@given(rules=rules, place=places)
def test_a_destination_is_looked_at_when_some_rule_could_protect_it(rules: tuple[Rule, ...], place: Endpoint) -> None:
    """A destination is in exactly if one of the protecting rules, asked alone, puts a connection to it under TLS."""
    flow = Flow(Direction.OUTBOUND, Endpoint(address(place.address.version, 1), 1), place)
    alone = [PolicySet((rule,), matcher=Matcher((rule,))) for rule in rules]
    expected = any(policy.match(flow, Owner(), NOW).enabled for policy in alone)
    assert expected == (place in Destinations(rules))


def test_conditions_that_are_not_known_beforehand_do_not_matter() -> None:
    """Whose connection it is, where it comes from and the time of day decide later: the destination is looked at."""
    far = Endpoint(IPv4Address("192.0.2.1"), 7)
    for more in (
        Conditions(frozenset(Direction), local_ports=(PortRange(5, 5),)),
        Conditions(frozenset(Direction), local_addresses=(AddressRange(4, 1, 1),)),
        Conditions(frozenset(Direction), job="OTHER"),
        Conditions(frozenset(Direction), user="OTHER"),
    ):
        assert far in Destinations([Rule("r", 1, more, Verdict(rule="r", enabled=True))])
