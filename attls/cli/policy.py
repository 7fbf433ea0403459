"""`attls policy`: check a policy, show what it says, explain what it would do with a connection.

Each command loads the policy, asks the policy room one thing, prints the answer and ends with the exit code that says
yes (0) or no (1). Diagnostics are the answer of `check` and go to standard output there; elsewhere to standard error.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

import attls
from attls import policy as law
from attls.cli.output import dataset_option, diagnostic_text, json_option, print_diagnostics, print_json
from attls.cli.policy_rings import ring_findings
from attls.errors import AttlsError, Diagnostic, PolicyError
from attls.keyring import Store
from attls.model import Address, Defaults, Direction, JobSource, Owner, canonical_address
from attls.policy import compare, convert
from attls.policy import show as display
from attls.policy.rules import Action

_UNREADABLE = "unreadable"


class _Place(click.ParamType):  # type: ignore[type-arg]
    # ADDRESS:PORT, [ADDRESS]:PORT, ADDRESS, :PORT; what is left out or `*` is not known.
    name = "ADDRESS:PORT"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Address | None, int | None]:
        text = str(value)
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            port = rest.removeprefix(":")
            if not bracket or (rest and not rest.startswith(":")):
                self.fail("write an IPv6 address as [ADDRESS]:PORT", param, ctx)
        elif text.count(":") > 1:
            host, port = text, ""
        else:
            host, _, port = text.partition(":")
        try:
            address = None if host in ("", "*") else canonical_address(host)
        except ValueError:
            self.fail(f"{host!r} is not an IP address; write ADDRESS:PORT", param, ctx)
        if port in ("", "*"):
            return address, None
        if not (port.isascii() and port.isdigit() and 1 <= int(port[:9]) <= 65535):
            self.fail(f"{port!r} is not a port from 1 to 65535", param, ctx)
        return address, int(port)


def _defaults(_context: click.Context, _parameter: click.Parameter, value: str) -> Defaults:
    return Defaults(value)


_defaults_option = click.option(
    "--defaults",
    type=click.Choice([defaults.value for defaults in Defaults]),
    default=Defaults.MODERN.value,
    show_default=True,
    callback=_defaults,
    help="What a silent policy means: TLS 1.2 and 1.3, or exactly what z/OS does.",
)


@click.group()
def policy() -> None:
    """Check, show and explain AT-TLS policies."""


@policy.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--keyrings",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also look whether the rings and labels that rules name are in this directory.",
)
@_defaults_option
@dataset_option
@json_option
def check(
    paths: tuple[Path, ...],
    keyrings: Path | None,
    defaults: Defaults,
    datasets: tuple[tuple[str, Path], ...],
    as_json: bool,
) -> None:
    """Say everything that is wrong with policies; each PATH is a policy of its own."""
    diagnostics: list[Diagnostic] = []
    rules = 0
    for path in paths:
        try:
            loaded = law.load(path, defaults, datasets=dict(datasets), thorough=True)
        except PolicyError as error:
            diagnostics += error.diagnostics
        else:
            rules += len(loaded.rules)
            diagnostics += loaded.diagnostics
            if keyrings is not None:
                diagnostics += ring_findings(loaded, Store(keyrings), datetime.now(UTC))
    errors = sum(finding.severity == "error" for finding in diagnostics)
    if as_json:
        print_json(
            {"ok": errors == 0, "rules": rules, "diagnostics": [_diagnostic_json(finding) for finding in diagnostics]}
        )
    else:
        for finding in diagnostics:
            click.echo(diagnostic_text(finding))
        warnings = len(diagnostics) - errors
        click.echo(f"{_count(rules, 'rule')}, {_count(errors, 'error')}, {_count(warnings, 'warning')}")
    sys.exit(_exit_code(diagnostics, paths) if errors else 0)


@policy.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("name", metavar="[RULE|ACTION]", required=False)
@_defaults_option
@dataset_option
@json_option
def show(
    path: Path, name: str | None, defaults: Defaults, datasets: tuple[tuple[str, Path], ...], as_json: bool
) -> None:
    """Print effective values the way `pasearch -t` does: of all rules, or of one rule or action."""
    loaded = _load(path, defaults, datasets)
    rules = [rule for rule in loaded.rules if name is None or rule.name == name]
    actions = [action for action in loaded.actions.values() if name is None or action.name == name]
    if name is not None and not rules and not actions:
        click.echo(f"{path} has no rule and no action named {name!r}", err=True)
        sys.exit(1)
    if as_json:
        print_json(
            {
                "rules": [_rule_json(loaded, rule) for rule in rules],
                "actions": [
                    {
                        "type": action.statement,
                        "name": action.name,
                        "coded": display.as_json(action.coded),
                        "effective": display.as_json(display.action_effective(action, defaults)),
                    }
                    for action in actions
                ],
            }
        )
        return
    now, changed = datetime.now().astimezone(), loaded.changed
    offset = now.utcoffset() or timedelta(0)
    parts = [display.heading_lines(f"attls {attls.__version__}", loaded.stack.name or "TCPIP", changed, now)]
    parts += [
        display.rule_lines(rule, _actions_of(loaded, rule), defaults, changed=changed, utc_offset=offset)
        for rule in rules
    ]
    parts += [
        display.action_lines(action, display.action_effective(action, defaults), changed=changed)
        for action in (actions if name is not None else ())
    ]
    for lines in parts:
        click.echo("\n".join(lines) + "\n")


@policy.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--direction",
    required=True,
    type=click.Choice([direction.value for direction in Direction], case_sensitive=False),
    help="Who opens the connection: inbound is accepted by the program, outbound made by it.",
)
@click.option("--local", type=_Place(), default="*", help="The program's end; a part left out is not known.")
@click.option("--remote", type=_Place(), default="*", help="The peer's end; a part left out is not known.")
@click.option("--user", help="User that owns the socket; not known if left out.")
@click.option("--job", help="Job name of the program; not known if left out.")
@click.option("--at", "moment", help="When, as ISO 8601, local time unless it has an offset.  [default: now]")
@_defaults_option
@dataset_option
@json_option
def explain(
    path: Path,
    direction: str,
    local: tuple[Address | None, int | None],
    remote: tuple[Address | None, int | None],
    user: str | None,
    job: str | None,
    moment: str | None,
    defaults: Defaults,
    datasets: tuple[tuple[str, Path], ...],
    as_json: bool,
) -> None:
    """Walk a connection through the rules and say which one fits, which did not and why.

    What is not given is not known, and a condition about it does not hold. Exit code 1: no rule fits.
    """
    try:
        now = datetime.now() if moment is None else datetime.fromisoformat(moment)
    except ValueError:
        raise click.BadParameter(f"{moment!r} is not a time such as 2026-07-31T22:15", param_hint="--at") from None
    loaded = _load(path, defaults, datasets)
    question = law.Question(Direction(direction), *local, *remote)
    source = JobSource.GIVEN if job is not None else JobSource.UNKNOWN
    explanation = loaded.explain(question, Owner(user=user, job=job, job_source=source), now)
    verdict = explanation.verdict
    if as_json:
        print_json(
            {
                "matched": verdict.rule,
                "tls": verdict.tls,
                "trace": [
                    {"rule": step.rule, "priority": step.priority, "matched": step.matched, "reason": step.reason}
                    for step in explanation.trace
                ],
                "effective": display.as_json(explanation.effective),
            }
        )
    else:
        width = max((len(step.rule) for step in explanation.trace), default=0)
        for step in explanation.trace:
            answer = click.style("yes", fg="green") if step.matched else "no "
            click.echo(f"  rule {step.rule:<{width}}  priority {step.priority:<5} {answer}  {step.reason}")
        click.echo(_ruling(explanation))
    sys.exit(0 if verdict.rule is not None else 1)


@policy.command()
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--exit-code", is_flag=True, help="End with exit code 1 when connections change.")
@_defaults_option
@dataset_option
@json_option
def diff(
    old: Path,
    new: Path,
    exit_code: bool,
    defaults: Defaults,
    datasets: tuple[tuple[str, Path], ...],
    as_json: bool,
) -> None:
    """Say in words which connections change between two policies, and how."""
    comparison = compare.compare(_load(old, defaults, datasets), _load(new, defaults, datasets))
    found = comparison.changes
    if as_json:
        print_json(
            {
                "changed": bool(found),
                "complete": comparison.complete,
                "changes": [
                    {
                        "connections": change.connections,
                        "before": change.before,
                        "after": change.after,
                        "old_rule": change.old_rule,
                        "new_rule": change.new_rule,
                        "parameters": {name: list(pair) for name, pair in change.parameters.items()},
                    }
                    for change in found
                ],
            }
        )
    else:
        for change in found:
            click.echo(f"{change.connections}:")
            click.echo(f"  {click.style('-', fg='red')} {change.before}")
            click.echo(f"  {click.style('+', fg='green')} {change.after}")
            for name, (before, after) in change.parameters.items():
                click.echo(f"      {name}: {_shown(before)} → {_shown(after)}")
        if comparison.complete:
            click.echo(f"{_count(len(found), 'change')}" if found else "no connection changes")
        else:
            click.echo(f"{_count(len(found), 'change')} found; the rules are too many to look at every connection")
    sys.exit(1 if found and exit_code else 0)


@policy.command("convert")
@click.argument("stunnel_conf", metavar="STUNNEL.CONF", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the policy here, not to the terminal."
)
def convert_stunnel(stunnel_conf: Path, out: Path | None) -> None:
    """Write a policy for the services of a stunnel.conf; what it cannot say goes to standard error."""
    try:
        text = stunnel_conf.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise AttlsError(f"cannot read {stunnel_conf}: {error.strerror}") from error
    converted = convert.from_stunnel(stunnel_conf, text, port_of=_port_of)
    print_diagnostics(converted.diagnostics)
    if out is None:
        click.echo(converted.policy, nl=False)
    else:
        try:
            out.write_text(converted.policy, encoding="utf-8")
        except OSError as error:
            raise AttlsError(f"cannot write {out}: {error.strerror}") from error
    sys.exit(1 if any(finding.severity == "error" for finding in converted.diagnostics) else 0)


def _port_of(service: str) -> int | None:
    try:
        return socket.getservbyname(service, "tcp")
    except OSError:
        return None


def _ruling(explanation: law.Explanation) -> str:
    # The last line of an explanation: what comes of it all.
    verdict = explanation.verdict
    if verdict.rule is None:
        if any(step.reason.endswith("is not known") for step in explanation.trace):
            return (
                "no rule fits what is known: the connection stays in the clear, unless one fits when more is given "
                "(--local, --remote, --user, --job)"
            )
        return "no rule fits: the connection stays in the clear"
    if verdict.settings is None:
        return f"rule {verdict.rule} says TTLSEnabled Off: the connection stays in the clear"
    settings = verdict.settings
    protocols = [
        name for name in ("SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3") if explanation.effective.get(name) == "On"
    ]
    actions = " / ".join(name for name in (verdict.group, verdict.environment, verdict.connection) if name)
    controlled = "; in the clear until the program asks for TLS" if settings.application_controlled else ""
    return (
        f"rule {verdict.rule} → {actions}: TLS as {settings.role.value} with key ring {settings.keyring or '(none)'}, "
        f"{', '.join(protocols) or 'no protocol at all'}{controlled}"
    )


def _load(path: Path, defaults: Defaults, datasets: Iterable[tuple[str, Path]]) -> law.PolicySet:
    # For commands whose answer is not the diagnostics: print them to standard error and end when there are errors.
    try:
        return law.load(path, defaults, datasets=dict(datasets))
    except PolicyError as error:
        print_diagnostics(error.diagnostics)
        click.echo(f"{error}: {path}", err=True)
        sys.exit(_exit_code(error.diagnostics, (path,)))


def _exit_code(diagnostics: Iterable[Diagnostic], paths: tuple[Path, ...]) -> int:
    # A path on the command line that cannot be read is not a faulty policy, it is no policy.
    names = {str(path) for path in paths}
    return 3 if any(found.code == _UNREADABLE and found.file in names for found in diagnostics) else 1


def _actions_of(loaded: law.PolicySet, rule: law.Rule) -> list[Action]:
    verdict = rule.verdict
    names = (
        ("TTLSGroupAction", verdict.group),
        ("TTLSEnvironmentAction", verdict.environment),
        ("TTLSConnectionAction", verdict.connection),
    )
    return [loaded.actions[kind, name] for kind, name in names if name is not None]


def _rule_json(loaded: law.PolicySet, rule: law.Rule) -> dict[str, object]:
    return {
        "rule": rule.name,
        "priority": rule.priority,
        "file": rule.file,
        "line": rule.line,
        "tls": rule.verdict.tls,
        "conditions": display.conditions_json(rule.conditions),
        "group": rule.verdict.group,
        "environment": rule.verdict.environment,
        "connection": rule.verdict.connection,
        "effective": display.as_json(loaded.effective(rule.verdict)),
    }


def _diagnostic_json(finding: Diagnostic) -> dict[str, object]:
    return {
        "severity": finding.severity,
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "code": finding.code,
        "message": finding.message,
        "hint": finding.hint,
    }


def _shown(value: object) -> str:
    if value is None:
        return "(nothing)"
    if isinstance(value, list):
        return " ".join(str(item) for item in value) or "(empty)"
    return str(value)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


COMMANDS = (policy,)
