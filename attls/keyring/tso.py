"""TSO command text: procedures into commands, a command into operands. Knows no keyword.

z/OS keeps procedures in different wrappings: a line per command, CLIST or REXX comments, continued lines, JCL around
in-stream input, sequence numbers in columns 73 to 80. All of them are taken off here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from attls.errors import KeyringError
from attls.keyring.values import Trust

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_JCL = re.compile(r"^(?://.*|/\*[ \t]*)$", re.MULTILINE)
_SEQUENCE_NUMBER = re.compile(r"^([^\n]{72})[0-9]{8}[ \t]*$", re.MULTILINE)
_CONTINUED = re.compile(r"[ \t]*[-+][ \t]*\n\s*")


def commands(text: str) -> list[str]:
    """Split a procedure into its commands."""
    text = _SEQUENCE_NUMBER.sub(r"\1", text.replace("\r", ""))
    joined = _CONTINUED.sub(" ", _COMMENT.sub(" ", _JCL.sub("", text)))
    return [line.strip() for line in joined.splitlines() if line.strip()]


class CommandError(KeyringError):
    """A command that RACF would not understand."""


# Reading -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Operand:
    """A keyword with what stands in parentheses behind it, or a word or quoted text inside such parentheses.

    `operands` is None where there are no parentheses at all.
    """

    text: str
    quoted: bool = False
    operands: tuple[Operand, ...] | None = None

    @property
    def keyword(self) -> str:
        """The text as a keyword."""
        return self.text.upper()

    @property
    def value(self) -> str:
        """The one text inside the parentheses, e.g. `x` of `LABEL('x')`. Raises CommandError when it is not one."""
        if self.operands is None or len(self.operands) != 1 or self.operands[0].operands is not None:
            raise CommandError(f"{self.keyword} takes one value in parentheses, e.g. {self.keyword}('x')")
        return self.operands[0].text


_TOKEN = re.compile(r"\s*,?\s*(?:'((?:[^']|'')*)'|([()])|([^\s(),']+))")


def parse(line: str) -> list[Operand]:
    """Read TSO command text: keywords, parentheses, `'quoted text'` with `''` for a quote.

    A line that ends in `-` or `+` goes on in the next one. Raises CommandError with the place of the error.
    """
    text = _CONTINUED.sub(" ", line).rstrip()
    stack: list[list[Operand]] = [[]]
    position = 0
    while position < len(text.rstrip(", ")):
        match = _TOKEN.match(text, position)
        if match is None:
            raise CommandError(f"cannot read the command at column {position + 1}: a quote is not closed")
        position = match.end()
        quoted, bracket, word = match.groups()
        if bracket == "(":
            if not stack[-1] or stack[-1][-1].quoted or stack[-1][-1].operands is not None or len(stack) > 8:
                raise CommandError(f"unexpected '(' at column {position}; it follows a keyword")
            stack.append([])
        elif bracket == ")":
            if len(stack) == 1:
                raise CommandError(f"unexpected ')' at column {position}")
            inside = stack.pop()
            stack[-1][-1] = replace(stack[-1][-1], operands=tuple(inside))
        else:
            stack[-1].append(Operand(quoted.replace("''", "'"), True) if quoted is not None else Operand(word))
    if len(stack) > 1:
        raise CommandError("a parenthesis is not closed")
    return stack[0]


class Operands:
    """The operands of one function: each is asked for once, and what was not asked for is a mistake of the user."""

    def __init__(self, found: list[Operand], known: str) -> None:
        self._known = known.split()
        self._found: dict[str, Operand] = {}
        for operand in found:
            keyword = unabbreviated(operand, self._known)
            if keyword in self._found:
                raise CommandError(f"{keyword} is given twice")
            self._found[keyword] = operand

    def has(self, keyword: str) -> bool:
        """Tell whether a keyword is there."""
        return keyword in self._found

    def get(self, keyword: str) -> Operand | None:
        """Return an operand, None when it is not there."""
        return self._found.get(keyword)

    def value(self, keyword: str) -> str | None:
        """Return an operand's one value, None when it is not there."""
        operand = self._found.get(keyword)
        return None if operand is None else operand.value

    def required(self, keyword: str) -> str:
        """Return an operand's one value. Raises CommandError when it is not there."""
        value = self.value(keyword)
        if value is None:
            raise CommandError(f"{keyword}(…) is missing")
        return value

    @property
    def trust(self) -> Trust | None:
        """The trust that is asked for."""
        asked = [trust for trust in Trust if self.has(trust.value)]
        if len(asked) > 1:
            raise CommandError("TRUST, NOTRUST and HIGHTRUST exclude each other")
        return asked[0] if asked else None


def unabbreviated(operand: Operand, known: Sequence[str]) -> str:
    """Return the keyword that `operand` is or unambiguously abbreviates, as TSO allows."""
    word = operand.keyword
    if operand.quoted:
        raise CommandError(f"'{operand.text}' stands where a keyword should be")
    if word in known:
        return word
    longer = [keyword for keyword in known if keyword.startswith(word)]
    if len(longer) != 1:
        raise CommandError(
            f"{word} is not one of {', '.join(known)}" if not longer else f"{word} could be {' or '.join(longer)}"
        )
    return longer[0]
