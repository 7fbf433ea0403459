"""The documentation page of the policy language, written from the vocabulary itself.

`python -m attls.policy.document > docs/policy-language.md` brings the page up to date; a test says when that is due.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from attls.policy import codes, language
from attls.policy.language import Kind, Parameter, Statement, Value

_INTRODUCTION = """# The policy language

This page is generated from the vocabulary in `attls/policy/language.py`; do not edit it. For a first policy see
`policy-guide.md`.

## How a policy is written

- One keyword with its values a line; `#` starts a comment. Words behind a value are ignored.
- A statement is its keyword, its name, and a block: `{` and `}` stand alone on their lines.
- Keywords and words such as `On` may be written in any case. Names may not: `Web` and `web` are two names.
- A name has 1 to 32 characters without blanks. Each kind of statement has names of its own.
- A block inside another needs no name. Instead of the block, its keyword with `Ref` names one that stands outside.
- A value with blanks is put in double quotes.
- Ranges of ports are written `20-25`, `20:25` or `20 25`; ranges of addresses only `10.0.0.1-10.0.0.9`.
- In `Jobname` and `Userid`, `*` is any run of characters and `?` any one, anywhere; a lone `*` asks about nothing.
- A bare number is no address; IPv4 addresses in IPv6 dress (`::ffff:…`) are written as IPv4, and fit both.
- The order of statements does not matter. Of two with the same name the later one counts, with a warning.
- A parameter that is coded twice counts as coded last, with a warning. Lists (marked *repeatable*) grow instead.

What a connection action says counts more than its environment action, which counts more than the group action, which
counts more than the default. A connection's cipher list replaces the environment's as a whole.

Defaults are those of z/OS; where our own profile (`--defaults modern`, the default) differs, it says so. *Since* is
the z/OS release that brought the parameter; everything is understood here whatever the release.

## Statements
"""

_AGENT = """
## Policy Agent files

`--policy` may also name a main or image file of the z/OS Policy Agent; relative paths in it count from its own place.

| line | meaning |
|---|---|
"""


def page() -> str:
    """Return the whole page as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    for statement in language.STATEMENTS.values():
        yield from _statement(statement)
    yield _AGENT.rstrip("\n")
    for form, meaning in language.AGENT_LINES.values():
        yield f"| `{form.replace('|', chr(92) + '|')}` | {meaning} |"
    yield ""
    yield "An MVS data set name (`//'HLQ.NAME(MEMBER)'`) cannot be opened here: the option"
    yield "`--dataset 'HLQ.NAME(MEMBER)=FILE'` says which file stands for it. Other statements of these files are"
    yield "ignored with a warning; AT-TLS policy from a policy server is an error."
    yield ""
    yield from _codes()


def _statement(statement: Statement) -> Iterator[str]:
    yield f"### {statement.name}"
    yield ""
    yield statement.meaning
    if statement.inside:
        places = " or ".join(f"`{place}`" for place in statement.inside)
        yield f"Stands on its own with a name, or inside {places}."
    yield ""
    yield "| parameter | value | default | since | meaning |"
    yield "|---|---|---|---|---|"
    for parameter in statement.parameters:
        cells = (f"`{parameter.name}`", _value(parameter), _default(parameter), parameter.since, _meaning(parameter))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _value(parameter: Parameter) -> str:
    kind = parameter.kind
    if kind is Kind.BLOCK:
        text = f"block, see [{parameter.target}](#{parameter.target.lower()})"
    elif kind is Kind.REF:
        text = f"name of a [{parameter.target}](#{parameter.target.lower()})"
    elif kind is Kind.CHOICE:
        text = " \\| ".join(f"`{choice}`" for choice in parameter.choices)
    elif kind is Kind.NUMBER:
        text = f"{parameter.low} to {parameter.high}"
    else:
        text = kind.value
    if parameter.unit:
        text += f" ({parameter.unit})"
    return f"{text}; *repeatable*" if parameter.many else text


def _default(parameter: Parameter) -> str:
    if parameter.required:
        return "required"
    if parameter.default is None:
        return ""
    text = _written(parameter.default)
    if parameter.modern is not None:
        text += f" (modern: {_written(parameter.modern)})"
    return text


def _written(value: Value) -> str:
    if isinstance(value, tuple):
        return " ".join(f"{item:04}" if isinstance(item, int) else item for item in value) or "the library's own list"
    return str(value)


def _meaning(parameter: Parameter) -> str:
    if not parameter.instead:
        return parameter.meaning
    if parameter.depends:
        return f"{parameter.meaning} Where that makes a difference, `check` says so: {parameter.instead}."
    others = " or ".join(f"`{value}`" for value in parameter.honoured)
    when = f"Other than {others}" if others else "Here"
    consequence = "an error" if parameter.refused else "a warning"
    return f"{parameter.meaning} {when}, {consequence}: {parameter.instead}."


def _codes() -> Iterator[str]:
    yield "## Codes"
    yield ""
    yield "Cipher suites: the 2-character code of a suite that begins with 00 is its second half."
    yield ""
    yield "| code | name |"
    yield "|---|---|"
    yield from (f"| {code} | {name} |" for code, name in codes.CIPHERS.items())
    yield ""
    yield "Curves and groups (decimal numbers of the IANA registry, four digits):"
    yield ""
    yield "| code | name |"
    yield "|---|---|"
    yield from (f"| {number:04} | {name} |" for number, name in codes.GROUPS.items())
    yield ""
    yield "Signature pairs:"
    yield ""
    yield "| code | name |"
    yield "|---|---|"
    yield from (f"| {code} | {name} |" for code, name in codes.SIGNATURE_PAIRS.items())
    yield ""
    yield "Ciphers of SSL 2 (`V2CipherSuites`), recognised and never used:"
    yield ""
    yield "| code | name |"
    yield "|---|---|"
    yield from (f"| {code} | {name} |" for code, name in codes.V2_CIPHERS.items())


if __name__ == "__main__":
    sys.stdout.write(page())
