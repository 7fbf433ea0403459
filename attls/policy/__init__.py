"""The law of the house: reads AT-TLS policy and says which rule fits a connection.

`load` is the door. It turns a policy file, a Policy Agent main or image file, or a directory into a `PolicySet`, or
raises `PolicyError` with every diagnostic at once. Matching is a pure function of the connection, its owner and the
time; `explain` is the same walk in words. This room touches no network and no key ring.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from attls.errors import Diagnostic, PolicyError
from attls.model import NO_RULE, Defaults, Flow, Owner, Verdict
from attls.policy import checks, files, match, times
from attls.policy.files import Stamp
from attls.policy.language import Value
from attls.policy.match import Matcher, Question, Step
from attls.policy.resolve import Resolver, combine
from attls.policy.rules import Action, Rule, Stack
from attls.policy.text import Findings, render

__all__ = ["Action", "Explanation", "PolicySet", "Question", "Rule", "Stack", "Step", "load", "render"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a connection gets what it gets: each rule looked at up to the one that fits, and what that rule says.

    `effective` holds every parameter of the rule's actions by its AT-TLS name, empty where no rule fits.
    """

    verdict: Verdict
    trace: tuple[Step, ...]
    effective: dict[str, Value]


@dataclass(frozen=True, slots=True)
class PolicySet:
    """A policy that has been understood: its rules in search order, and the warnings met on the way.

    `files` are what it was read from, as they were then; `stack` is what Policy Agent files say besides.
    Immutable, and it pickles: workers get the set that the supervisor loaded.
    """

    rules: tuple[Rule, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    defaults: Defaults = Defaults.MODERN
    actions: dict[tuple[str, str], Action] = field(default_factory=dict)
    matcher: Matcher = field(default_factory=lambda: Matcher(()), compare=False, repr=False)
    files: dict[Path, Stamp] = field(default_factory=dict)
    stack: Stack = field(default_factory=Stack)

    def match(self, flow: Flow, owner: Owner, now: datetime) -> Verdict:
        """Return what policy says of a connection at `now` (local time, or with a time zone)."""
        index = self.matcher.find(Question.of(flow), owner, times.local(now))
        return NO_RULE if index is None else self.rules[index].verdict

    def explain(self, flow: Flow | Question, owner: Owner, now: datetime) -> Explanation:
        """Return the same verdict with the walk that leads to it; a `Question` may leave facts open."""
        question = Question.of(flow) if isinstance(flow, Flow) else flow
        trace = tuple(match.explain(self.rules, question, owner, now))
        if not trace or not trace[-1].matched:
            return Explanation(NO_RULE, trace, {})
        verdict = self.rules[len(trace) - 1].verdict
        return Explanation(verdict, trace, self.effective(verdict))

    def effective(self, verdict: Verdict) -> dict[str, Value]:
        """Return every effective parameter of a verdict's actions by its AT-TLS name, defaults included."""
        coded = [action.coded for action in self.actions_of(verdict)]
        return combine(coded, self.defaults) if coded else {}

    def actions_of(self, verdict: Verdict) -> list[Action]:
        """Return the actions of this policy that a verdict names: group, environment, connection."""
        names = (
            ("TTLSGroupAction", verdict.group),
            ("TTLSEnvironmentAction", verdict.environment),
            ("TTLSConnectionAction", verdict.connection),
        )
        return [self.actions[key] for key in names if key in self.actions]

    def files_now(self) -> dict[Path, Stamp]:
        """Return the files of this policy as they are now; they equal `files` while nobody has changed any."""
        return {path: files.stamp(path) for path in self.files}

    @property
    def changed(self) -> datetime:
        """When the newest of its files was last changed, in local time with its zone."""
        moments = [stamp[2] for stamp in self.files.values() if stamp is not None]
        return datetime.fromtimestamp(max(moments, default=0) // 1_000_000_000).astimezone()

    def next_change(self, now: datetime) -> datetime | None:
        """Return when, within a week from `now`, some rule starts or stops being in force; None if none does."""
        now = times.local(now)
        moments = [times.next_change(rule.conditions.times, now) for rule in self.rules if rule.conditions.times]
        return min((moment for moment in moments if moment is not None), default=None)


def load(
    path: Path,
    defaults: Defaults = Defaults.MODERN,
    *,
    datasets: Mapping[str, Path] | None = None,
    thorough: bool = False,
    now: datetime | None = None,
) -> PolicySet:
    """Read the policy at `path`: a policy file, a Policy Agent main or image file, or a directory of `*.policy`.

    `datasets` says which file stands for an MVS data set name (`HLQ.NAME(MEMBER)`, without slashes and quotes).
    `thorough` adds warnings about what is allowed but hardly meant, such as rules that can never match; `now`
    (default: the clock) is the moment by which it judges times that are over.
    Raises PolicyError, with warnings and errors of all files in one pass, when anything is wrong.
    """
    # Loading makes many small objects that all live on; looking for garbage among them doubles its time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _load(path, defaults, datasets or {}, times.local(now or datetime.now()) if thorough else None)
    finally:
        if collecting:
            gc.enable()


def _load(path: Path, defaults: Defaults, datasets: Mapping[str, Path], thorough_at: datetime | None) -> PolicySet:
    findings = Findings()
    resolver = Resolver(findings, defaults)
    reader = files.Reader(findings, datasets)
    for statements in reader.collect(path):
        resolver.read(statements)
    resolver.check()
    if findings.failed:
        raise PolicyError(findings.in_file_order())
    rules = resolver.rules()
    if findings.failed:
        raise PolicyError(findings.in_file_order())
    matcher = Matcher(rules)
    if not rules:
        findings.of_file(str(path), "no-rules", "the policy has no rules, so it protects nothing", severity="warning")
    if thorough_at is not None:
        checks.examine(resolver, rules, matcher, thorough_at)
    return PolicySet(
        rules,
        findings.in_file_order(),
        defaults,
        resolver.actions(),
        matcher,
        files=reader.files,
        stack=reader.stack,
    )
