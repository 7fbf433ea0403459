"""Two policies and the connections that change between them, in words.

Comparing texts says little: a rule can move, be renamed or be split and nothing changes, and one new rule can take the
connections of ten others. So each rule of either policy is asked about as a connection: a witness that fits its
conditions and nothing more goes through both policies, and what comes out is compared. Connections for which only the
rule's name differs have not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attls.model import Conditions, Direction, Owner, Verdict
from attls.policy import PolicySet, Rule
from attls.policy.checks import witness
from attls.policy.language import Value
from attls.policy.match import Question, addresses_text, ports_text
from attls.policy.show import as_value

# Names of actions and instance numbers are how a policy is organised, not what it does.
_NOT_A_CHANGE = ("Trace", "SyslogFacility", "CtraceClearText")


@dataclass(frozen=True, slots=True)
class Change:
    """Connections that get something else: which, what before, what after, and which parameters differ.

    `parameters` maps an AT-TLS name to its effective value before and after, None where it has none.
    """

    connections: str
    before: str
    after: str
    parameters: dict[str, tuple[object, object]]
    old_rule: str | None
    new_rule: str | None


def changes(old: PolicySet, new: PolicySet) -> Iterator[Change]:
    """Yield what changes for the connections that some rule of either policy is about, in the new policy's order."""
    told: set[tuple[str, str | None, str | None]] = set()
    for rule, direction in _rules_of_both(old, new):
        question, owner = witness(rule.conditions, direction)
        before, after = _verdict(old, question, owner), _verdict(new, question, owner)
        # The times of a rule are part of what it does, though not of which connections it is about.
        times_before, times_after = _times(old, before), _times(new, after)
        effective_before, effective_after = old.effective(before), new.effective(after)
        same_settings = before.settings == after.settings and before.tls == after.tls
        parameters = {} if same_settings else _differences(effective_before, effective_after, before, after)
        if same_settings and times_before == times_after:
            continue
        connections = describe(rule.conditions, direction)
        key = (connections, before.rule, after.rule)
        if key in told:
            continue
        told.add(key)
        yield Change(
            connections,
            _ruling(before, times_before),
            _ruling(after, times_after),
            parameters,
            before.rule,
            after.rule,
        )


def describe(conditions: Conditions, direction: Direction) -> str:
    """Say in words which connections of one direction conditions are about."""
    words = [f"{direction.value} connections"]
    if conditions.job is not None:
        words.append(f"of job {conditions.job}")
    if conditions.user is not None:
        words.append(f"of user {conditions.user}")
    for side, preposition, ranges, ports in (
        ("local", "on", conditions.local_addresses, conditions.local_ports),
        (
            "remote",
            "with" if direction is Direction.INBOUND else "to",
            conditions.remote_addresses,
            conditions.remote_ports,
        ),
    ):
        if ranges:
            words.append(f"{preposition} {side} address {addresses_text(ranges)}")
        if ports:
            words.append(f"{preposition if not ranges else ''} {side} port {ports_text(ports)}".strip())
    return " ".join(words) if len(words) > 1 else f"all other {words[0]}"


def _rules_of_both(old: PolicySet, new: PolicySet) -> Iterator[tuple[Rule, Direction]]:
    for policy in (new, old):
        for rule in policy.rules:
            for direction in sorted(rule.conditions.directions, key=lambda item: item.value):
                yield rule, direction


def _verdict(policy: PolicySet, question: Question, owner: Owner) -> Verdict:
    # Whatever the hour: the first rule that could ever apply.
    found = policy.matcher.find_all(question, owner, None, before=len(policy.rules))
    return policy.rules[found[0]].verdict if found else Verdict()


def _times(policy: PolicySet, verdict: Verdict) -> tuple[object, ...]:
    return next((rule.conditions.times for rule in policy.rules if rule.name == verdict.rule), ())


def _ruling(verdict: Verdict, times: tuple[object, ...]) -> str:
    if verdict.rule is None:
        return "in the clear (no rule)"
    if verdict.settings is None:
        text = f"in the clear (rule {verdict.rule}, TTLSEnabled Off)"
    else:
        settings = verdict.settings
        text = f"TLS as {settings.role.value} with key ring {settings.keyring or '(none)'} (rule {verdict.rule})"
    return f"{text}, at times" if times else text


def _differences(
    before: dict[str, Value], after: dict[str, Value], old: Verdict, new: Verdict
) -> dict[str, tuple[object, object]]:
    # Going from clear to TLS or back, every parameter "differs"; that says nothing.
    if old.settings is None or new.settings is None:
        return {}
    names = [*before, *(name for name in after if name not in before)]
    return {
        name: (_shown(name, before), _shown(name, after))
        for name in names
        if before.get(name) != after.get(name) and name not in _NOT_A_CHANGE
    }


def _shown(name: str, effective: dict[str, Value]) -> object:
    return as_value(name, effective[name]) if name in effective else None
