"""How long a large policy takes to load, to turn into steering, and one match on it.

`python -m bench.policy [RULES]` prints the figures, `python -m bench` as its last section.

The policy is mixed on purpose: port rules, address rules, job and user rules, wide ranges, wildcards, time conditions.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path

from attls import policy
from attls.intercept import nft
from attls.model import Direction, Endpoint, Flow, Owner
from bench import report
from bench.report import Fact

RULES = 10_000
QUICK_RULES = 1_000

SHARED = """
TTLSGroupAction on
{
  TTLSEnabled On
}
TTLSEnvironmentAction client
{
  HandshakeRole Client
  TTLSKeyringParms
  {
    Keyring KEYRING
  }
}
TTLSConnectionAction new
{
  TTLSConnectionAdvancedParms
  {
    TLSv1.2 Off
  }
}
IpTimeCondition office
{
  DayOfWeekMask 0111110
  TimeOfDayRange 06:00-20:00
}
"""


EVERY_KIND = (0, 1, 2, 3, 4, 5, 6, 7)
BY_ADDRESS = (2, 3, 7)
"""The kinds that name an address of another machine, and no program: such rules leave other traffic alone."""


def conditions(number: int, chance: random.Random, kinds: Sequence[int] = EVERY_KIND) -> Iterator[str]:
    """Write the conditions of one rule, of the kinds that real policies mix."""
    kind = kinds[number % len(kinds)]
    address = IPv4Address(0x0A000000 + number * 37 % 0xFFFFFF)
    if kind in (0, 1):
        yield f"RemotePortRange {1024 + number * 7 % 60000}"
    elif kind == 2:
        yield f"RemoteAddr {address}"
        yield "RemotePortRange 443"
    elif kind == 3:
        yield f"RemoteAddr {address}/28"
        yield "LocalPortRange 1024-65535"
    elif kind == 4:
        yield f"Jobname JOB{number}"
        yield "RemotePortRange 1414-1420"
    elif kind == 5:
        yield f"Jobname P{number}*"
    elif kind == 6:
        yield f"Userid USER{number}"
        yield f"LocalAddr {address}"
    else:
        yield f"RemotePortRange {1024 + number % 500 * 100}-{1024 + number % 500 * 100 + chance.randrange(90)}"
        yield f"RemoteAddr {address}-{address + 5}"


def one_rule(number: int) -> str:
    """Write a rule by itself that fits no connection in practice; a different one for each number."""
    return f"""
TTLSRule edition
{{
  RemoteAddr 192.0.2.{1 + number % 250}
  RemotePortRange 9
  Direction Outbound
  TTLSGroupActionRef edition
}}
TTLSGroupAction edition
{{
  TTLSEnabled Off
}}
"""


def policy_text(
    rules: int, *, keyring: str = "APP/RING", kinds: Sequence[int] = EVERY_KIND, direction: str = "Outbound"
) -> str:
    """Write a policy of that many rules, with the key ring that their environment names."""
    chance = random.Random(7)
    parts = [SHARED.replace("KEYRING", keyring)]
    for number in range(rules):
        lines = list(conditions(number, chance, kinds))
        if number % 50 == 0:
            lines.append("IpTimeConditionRef office")
        if number % 3 == 0:
            lines.append("TTLSConnectionActionRef new")
        body = "\n".join(f"  {line}" for line in lines)
        parts.append(
            f"TTLSRule rule-{number}\n{{\n{body}\n  Direction {direction}\n  Priority {1 + number % 900}\n"
            "  TTLSGroupActionRef on\n  TTLSEnvironmentActionRef client\n}\n"
        )
    return "".join(parts)


def flows(count: int, rules: int) -> list[tuple[Flow, Owner]]:
    """Make connections, most of which some rule fits."""
    chance = random.Random(11)
    made = []
    for _ in range(count):
        number = chance.randrange(rules)
        remote = Endpoint(
            IPv4Address(0x0A000000 + number * 37 % 0xFFFFFF),
            chance.choice([443, 1414, 22, 1024 + number * 7 % 60000]),
        )
        flow = Flow(Direction.OUTBOUND, Endpoint(IPv4Address("10.9.9.9"), chance.randrange(32768, 60999)), remote)
        made.append((flow, Owner(user=f"user{number}", job=f"JOB{number}")))
    return made


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """What a policy of `rules` rules costs, in seconds; `matched` is the share of the connections that found a rule."""

    rules: int
    load: float
    render: float
    match: float
    matched: float

    def facts(self) -> list[Fact]:
        """The figures one by one."""
        rules = f"policy of {self.rules} rules"
        return [
            Fact(f"{rules}: loaded in", self.load, "s"),
            Fact(f"{rules}: steering table written in", self.render, "s"),
            Fact(f"{rules}: one match, of connections of which {self.matched:.0%} find a rule", self.match * 1e6, "us"),
        ]


def measure(rules: int, asked: int = 20_000) -> PolicyFigures:
    """Load a policy of `rules` rules, write its steering table, and match `asked` connections on it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bench.policy"
        path.write_text(policy_text(rules))
        started = time.perf_counter()
        loaded = policy.load(path)
        load = time.perf_counter() - started
    # A rule that asks for nothing but a job steers everything, and then there is nothing left to sort out.
    without_jobs = [rule for rule in loaded.rules if rule.conditions.job is None]
    started = time.perf_counter()
    nft.render(without_jobs, outbound_port=1011, inbound_port=1012, own_uid=0, uids_of=_uids_of)
    render = time.perf_counter() - started
    connections = flows(asked, rules)
    now = datetime(2026, 7, 31, 12, 0)
    started = time.perf_counter()
    matched = sum(loaded.match(flow, owner, now).rule is not None for flow, owner in connections)
    match = (time.perf_counter() - started) / asked
    return PolicyFigures(rules, load, render, match, matched / asked)


def _uids_of(user: str) -> frozenset[int]:
    # Every user of the policy has an account.
    return frozenset({10_000 + int(user.removeprefix("USER"))})


def main() -> None:
    """Print the figures."""
    for fact in measure(int(sys.argv[1]) if len(sys.argv) > 1 else RULES).facts():
        print(f"{fact.label}: {report.number(fact.value)} {fact.unit}")


if __name__ == "__main__":
    main()
