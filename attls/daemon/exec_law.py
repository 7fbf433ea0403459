"""What `attls exec` goes by: one policy, read once, and the key rings that the caller may read.

A policy may be the whole host's and name rings of many users. A ring that cannot be read fails those connections that
need it, not the start; only where no rule could be served at all is there nothing to start for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from attls import policy
from attls.daemon.generation import GenerationError, belongs_to_connection_user, labels_in_use, settings_in_use
from attls.errors import AttlsError, KeyringError
from attls.intercept.seccomp import Call
from attls.keyring import Store, UserMap
from attls.model import (
    Address,
    AddressRange,
    Conditions,
    Defaults,
    Direction,
    Endpoint,
    Flow,
    HandshakeRole,
    Owner,
    PortRange,
    TlsSettings,
    Verdict,
)
from attls.policy import PolicySet, Rule
from attls.tls import Environment, Staples


class Law:
    """The policy in force and its TLS environments, each built once.

    Raises PolicyError when the policy has errors, GenerationError when none of its rules can be served. `problems` has
    a sentence for each ring that cannot be used.
    """

    def __init__(self, path: Path, keyrings: Path, *, defaults: Defaults) -> None:
        self.policy: PolicySet = policy.load(path, defaults)
        self._store = Store(keyrings)
        # All environments but those over the ring of a connection's own user, which are in `_own`.
        self.environments: dict[TlsSettings, Environment] = {}
        self._own: dict[tuple[TlsSettings, str | None], Environment] = {}
        self.of_rule: dict[str, Environment] = {}  # the same by name, for hashing whole settings takes its time
        self.problems: list[str] = []
        # Keeps fresh what is stapled; told with each environment that is made.
        self.keep_staples: Callable[[Iterable[Staples]], None] = lambda _: None
        in_use = settings_in_use(self.policy.rules)
        self._users = UserMap()
        if any(settings.role is HandshakeRole.SERVER_WITH_CLIENT_AUTH for settings in in_use):
            try:
                self._users = self._store.user_map()
            except (KeyringError, OSError) as error:
                raise GenerationError([f"the map from certificates to users cannot be read: {error}"]) from error
        for settings, rules in in_use.items():
            if belongs_to_connection_user(settings.keyring):
                continue
            try:
                environment = self.environment(settings, None)
                self.of_rule.update(dict.fromkeys(rules, environment))
            except AttlsError as error:
                self.problems.append(f"rule {rules[0]}: {error}")
        if self.problems and len(self.problems) == len(in_use):
            raise GenerationError(self.problems)
        conditions = [rule.conditions for rule in self.policy.rules]
        self.directions = frozenset(direction for each in conditions for direction in each.directions)
        self._rules = {rule.name: rule for rule in self.policy.rules}
        self._jobs = tuple(each for each in conditions if each.job is not None)
        outbound = [each for each in conditions if Direction.OUTBOUND in each.directions]
        self.destinations = Destinations(self.policy.rules)
        self.asks_source = any(each.local_addresses for each in outbound)
        self.asks_source_port = any(_narrows(each.local_ports) for each in outbound)

    def calls(self) -> tuple[Call, ...]:
        """Return the system calls that have to be held: where no rule speaks of a direction, it is left alone."""
        found: list[Call] = []
        if Direction.OUTBOUND in self.directions:
            found += (Call.CONNECT, Call.GETSOCKOPT)
        if Direction.INBOUND in self.directions:
            found += (Call.LISTEN, Call.ACCEPT, Call.ACCEPT4)
        if found:
            found += (Call.GETPEERNAME, Call.GETSOCKNAME)
        return (*found, Call.IOCTL)

    def may_cover(self, listener: Endpoint) -> bool:
        """Tell whether some rule could match what comes in at `listener`."""
        flow = Flow(Direction.INBOUND, listener, Endpoint(listener.address, 0))
        return any(could_match(rule.conditions, flow) for rule in self.policy.rules)

    def wants_job(self, flow: Flow) -> bool:
        """Tell whether some rule that has a Jobname condition could match `flow`."""
        return any(could_match(conditions, flow) for conditions in self._jobs)

    def rule(self, name: str) -> Rule:
        """Return a rule by its name."""
        return self._rules[name]

    def match(self, flow: Flow, owner: Owner) -> Verdict:
        """Return what policy says of a connection now."""
        return self.policy.match(flow, owner, datetime.now())

    def environment_of(self, verdict: Verdict, user: str | None) -> Environment:
        """Return the TLS environment that `verdict` asks for; `user` owns the connection. Raises as `environment`."""
        assert verdict.settings is not None
        known = self.of_rule.get(verdict.rule or "")
        return known if known is not None else self.environment(verdict.settings, user)

    def environment(self, settings: TlsSettings, user: str | None) -> Environment:
        """Return the TLS environment for `settings`; `user` owns the connection. Raises KeyringError or TlsError."""
        own = belongs_to_connection_user(settings.keyring)
        if own and user is None:
            raise KeyringError(f"Keyring {settings.keyring} means the ring of the program's user, who is not known")
        known = self._own.get((settings, user)) if own else self.environments.get(settings)
        if known is not None:
            return known
        try:
            ring = self._store.ring(
                settings.keyring,
                user if own else None,
                password=settings.keyring_password,
                stash_file=settings.keyring_stash_file,
            )
        except OSError as error:
            raise KeyringError(f"cannot read the ring {settings.keyring}: {error}") from error
        environment = Environment(settings, ring.narrowed(labels_in_use(settings)), users=self._users)
        if own:
            self._own[settings, user] = environment
        else:
            self.environments[settings] = environment
        self.keep_staples(self.staples())
        return environment

    def staples(self) -> list[Staples]:
        """Return what the environments made so far staple."""
        made = (*self.environments.values(), *self._own.values())
        return [environment.staples for environment in made if environment.staples is not None]


class Destinations:
    """Where a connection has to go for some rule to put it under TLS, whoever makes it and when."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._conditions = [
            rule.conditions
            for rule in rules
            if rule.verdict.enabled and Direction.OUTBOUND in rule.conditions.directions
        ]
        everywhere = (PortRange(0, 65535),)
        ports = chain.from_iterable(each.remote_ports or everywhere for each in self._conditions)
        # Where a walk along all ports gets into one that matters, and out of it again, by turns.
        self._boundaries: list[int] = []
        for each in sorted(ports, key=lambda ports: ports.first):
            if self._boundaries and each.first <= self._boundaries[-1]:
                self._boundaries[-1] = max(self._boundaries[-1], each.last + 1)
            else:
                self._boundaries += (each.first, each.last + 1)

    def __contains__(self, destination: Endpoint) -> bool:
        return bisect_right(self._boundaries, destination.port) % 2 == 1 and any(
            _within(destination.port, each.remote_ports) and _reaches(each.remote_addresses, destination.address)
            for each in self._conditions
        )


def could_match(conditions: Conditions, flow: Flow) -> bool:
    """Tell whether direction and ports allow a match: cheap, and wrong in one direction only."""
    return (
        flow.direction in conditions.directions
        and _within(flow.local.port, conditions.local_ports)
        and _within(flow.remote.port, conditions.remote_ports)
    )


def _within(port: int, ranges: Sequence[Any]) -> bool:
    return not ranges or not port or any(each.first <= port <= each.last for each in ranges)


def _narrows(ranges: Collection[Any]) -> bool:
    return bool(ranges) and not any(each.first <= 1 and each.last >= 65535 for each in ranges)


def _reaches(ranges: Sequence[AddressRange], address: Address) -> bool:
    number, version = int(address), address.version
    return not ranges or any(each.version == version and each.first <= number <= each.last for each in ranges)
