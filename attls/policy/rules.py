"""What a policy is once it has been understood: rules in search order, and the actions that they name."""

from __future__ import annotations

from dataclasses import dataclass

from attls.model import Conditions, Verdict
from attls.policy.language import Value


@dataclass(frozen=True, slots=True)
class Rule:
    """One TTLSRule: its conditions, what it says, and where it stands in the text."""

    name: str
    priority: int
    conditions: Conditions
    verdict: Verdict
    file: str = ""
    line: int = 0

    @property
    def needs_owner(self) -> bool:
        """Whether the process behind the connection must be known to decide."""
        return self.conditions.job is not None or self.conditions.user is not None


@dataclass(frozen=True, slots=True)
class Action:
    """One action: what its statement codes, nested blocks flattened into it. `coded` is never changed."""

    statement: str
    name: str
    coded: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Stack:
    """What Policy Agent files say about a stack besides its policy.

    `purge` tells what an orderly end does with the policy: True removes it, False leaves it, None says nothing.
    `reread_seconds` is how often the files are looked at for changes, 0 for never.
    """

    name: str | None = None
    purge: bool | None = None
    reread_seconds: int = 0
