"""What the demo found out: claims, whether they hold, and how they are told; and the claims about a wire's bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from attls.cli import demo_capture
from attls.cli.demo_capture import Hello, Stream
from attls.errors import AttlsError

TLS_1_3 = 0x0304

Tell = Callable[[str], None]


class DemoBrokenOffError(AttlsError):
    """The play came to a stop: something that had to answer did not. The sentence says who, and what it said."""


@dataclass(frozen=True, slots=True)
class Check:
    """One claim of the demo, whether it holds, and what was found."""

    act: int
    family: str | None
    claim: str
    holds: bool
    found: str


@dataclass(slots=True)
class Report:
    """What the demo found out, in the order in which it did; `left_out` says why the story ended before its end."""

    checks: list[Check] = field(default_factory=list)
    connections: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    left_out: str | None = None

    @property
    def ok(self) -> bool:
        """Whether there was something to judge and every claim held."""
        return bool(self.checks) and all(check.holds for check in self.checks)


@dataclass(frozen=True, slots=True)
class Judge:
    """Writes claims about one conversation into the report, and tells them."""

    report: Report
    tell: Tell
    act: int
    family: str | None = None

    def __call__(self, claim: str, holds: bool, found: str) -> None:
        """Note a claim, whether it holds, and what was found."""
        self.report.checks.append(Check(self.act, self.family, claim, holds, found))
        mark = click.style("✓", fg="green") if holds else click.style("✗", fg="red", bold=True)
        self.tell(f"    {mark} {claim:40} {click.style(found, dim=True)}")


def hear_the_wire(judge: Judge, streams: Sequence[Stream], secret: str) -> Hello:
    """Judge what was seen of one conversation that is to be TLS 1.3; return what its server chose."""
    places = [stream.source for stream in streams if secret.encode() in stream.data]
    found = f"sent by {places[0]}" if places else "not found"
    judge("the secret is nowhere on the wire", bool(streams) and not places, found)

    clear = [stream.source for stream in streams if demo_capture.records_of(stream.data) is None]
    found = f"clear text from {clear[0]}" if clear else "no byte outside a TLS record"
    judge("all that crossed the wire was TLS", bool(streams) and not clear, found)

    opened = any(demo_capture.is_client_hello(stream.data) for stream in streams)
    hellos = [hello for stream in streams if (hello := demo_capture.server_hello(stream.data)) is not None]
    chosen = hellos[0] if hellos else Hello(0, 0)
    found = f"ServerHello chose version {chosen.version:#06x}, cipher {chosen.cipher:04X}"
    judge("a TLS 1.3 handshake opened it", opened and chosen.version == TLS_1_3, found)
    return chosen


def tell_wire(streams: Sequence[Stream], secret: str, tell: Tell) -> None:
    """Show what an eavesdropper reads: the place of the secret where it can be found, else how the talk begins."""
    for stream in streams:
        position = stream.data.find(secret.encode())
        if position >= 0:
            excerpt = stream.data[max(0, position - 38) :]
            before, found, after = demo_capture.printable(excerpt, 72).partition(secret)
            tell(f"    wire     {before}{click.style(found, fg='red', bold=True)}{after}")
            return
    for stream in streams[:1]:
        tell(f"    wire     {demo_capture.printable(stream.data, 72)}")


def headline(text: str) -> str:
    """Underline a heading."""
    return click.style(f"{text}\n{'─' * len(text)}", bold=True)
