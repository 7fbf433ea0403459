"""Characters to statements: the part of the reader that knows the shape of a policy text and not one keyword.

The language is line oriented: a keyword, its values, then anything (ignored). A line followed by `{` is the head of a
block. Everything that can be wrong with lines and braces is said here, and reading always goes on to the end of the
text, so that one pass finds every fault. What a keyword means, and how many of the words behind it count, is left to
`language` and `resolve`.

Columns are worked out only when something is to be said about a word: most words are never spoken of.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from attls.errors import Diagnostic

_WORD = re.compile(r'"[^"]*"(?=\s|\#|$)|[^\s\#]+', re.VERBOSE)
_REPORT = ("TCP/IP pasearch", "policyRule:")
_MOST_ON_A_LINE = 20
_WIDTH = 160  # of a source line in a message; longer ones are cut around the place that is meant
# A policy that somebody sent must not steer the terminal of whoever checks it.
_PRINTABLE = {code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) != "\t"}
_NEWLINE_EBCDIC = b"\x15"
_BLANK_EBCDIC = b"\x40"


class Source:
    """One text that was read: its name for messages and its lines for carets."""

    __slots__ = ("lines", "name")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.lines = text.split("\n")


class Statement:
    """One line of a policy, with the statements of its block where a block follows.

    `words` are the values behind the keyword, quotes already removed. `body` is None for a plain line. `closed` tells
    whether the block's `}` was found. A block that stands without a statement has the keyword "".
    """

    __slots__ = ("body", "closed", "keyword", "line", "source", "words")

    def __init__(self, source: Source, line: int, keyword: str, words: list[str]) -> None:
        self.source = source
        self.line = line
        self.keyword = keyword
        self.words = words
        self.body: list[Statement] | None = None
        self.closed = True


class Findings:
    """Collects diagnostics in the order they are found and knows how to point at a word of a statement."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self._line: tuple[Source | None, int] = (None, 0)
        self._on_line = 0
        self._failed = False

    def error(self, at: Statement, code: str, message: str, *, word: int = 0, hint: str | None = None) -> None:
        """Report an error at word `word` of `at`; 0 is the keyword, 1 the first value."""
        self._add("error", at, code, message, word, hint)

    def warning(self, at: Statement, code: str, message: str, *, word: int = 0, hint: str | None = None) -> None:
        """Report a warning at word `word` of `at`; 0 is the keyword, 1 the first value."""
        self._add("warning", at, code, message, word, hint)

    def of_file(self, name: str, code: str, message: str, *, severity: str = "error", hint: str | None = None) -> None:
        """Report something about a whole file."""
        self._failed |= severity == "error"
        self.diagnostics.append(Diagnostic(severity, name, 1, 1, code, message, hint))

    @property
    def failed(self) -> bool:
        """Whether any error was reported."""
        return self._failed

    def in_file_order(self) -> tuple[Diagnostic, ...]:
        """Return all diagnostics, file by file as first met, each file from top to bottom."""
        files: dict[str, int] = {}
        for finding in self.diagnostics:
            files.setdefault(finding.file, len(files))
        return tuple(sorted(self.diagnostics, key=lambda finding: (files[finding.file], finding.line, finding.column)))

    def _add(self, severity: str, at: Statement, code: str, message: str, word: int, hint: str | None) -> None:
        # One line can be wrong in a million ways, each of which costs as much as the line is long; a few are enough.
        if (at.source, at.line) != self._line:
            self._line, self._on_line = (at.source, at.line), 0
        self._on_line += 1
        if self._on_line > _MOST_ON_A_LINE and (severity == "warning" or self.failed):
            return
        text = at.source.lines[at.line - 1].rstrip("\r")
        self._failed |= severity == "error"
        column, length = _place(text, at.keyword, word)
        self.diagnostics.append(
            Diagnostic(severity, at.source.name, at.line, column, code, message, hint, source=text, length=length)
        )


def render(finding: Diagnostic) -> str:
    """Write a diagnostic for the person with the editor open: the place, the sentence, the line and a caret."""
    message = finding.message.translate(_PRINTABLE)
    place = f"{finding.file}:{finding.line}:{finding.column}: {finding.severity}: {message}"
    if finding.source is None:
        return place if finding.hint is None else f"{place} ({finding.hint})"
    number = f"{finding.line:>6}"
    source, column = finding.source.translate(_PRINTABLE), finding.column
    if len(source) > _WIDTH:
        start = max(0, column - _WIDTH // 2)
        source, column = source[start : start + _WIDTH], column - start
    # Tabs before the caret are kept as tabs so that it stands under the word whatever the tab width.
    indent = "".join("\t" if letter == "\t" else " " for letter in source[: column - 1])
    caret = indent + "^" * max(1, min(finding.length, len(source) - column + 1))
    hint = "" if finding.hint is None else f" {finding.hint}"
    return f"{place}\n{number} | {source}\n{' ' * len(number)} | {caret}{hint}"


def decode(data: bytes) -> str | None:
    """Turn the bytes of a policy file into text; None when they are EBCDIC, which this system does not guess at.

    UTF-8 is expected, or UTF-16 with its mark. Old files with 8-bit letters in their comments are read as Latin-1,
    which cannot fail.
    """
    if b"\n" not in data and _BLANK_EBCDIC in data:
        has_lines = _NEWLINE_EBCDIC in data or b"\x25" in data
        # A data set of fixed records has no line ends at all, and more blanks than anything else.
        if has_lines or data.count(_BLANK_EBCDIC) > max(data.count(b" "), len(data) // 4):
            return None
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        # iconv turns the line end of z/OS into NEL (U+0085), which is a blank to everybody else.
        return data.decode("utf-8-sig").replace("\x85", "\n")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_file(path: Path, name: str, findings: Findings) -> list[Statement] | None:
    """Read one policy file; None, and an error under `name`, when it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        findings.of_file(name, "unreadable", f"cannot read {path}: {error.strerror}")
        return None
    text = decode(data)
    if text is None:
        findings.of_file(
            name,
            "ebcdic",
            f"{path} is in an EBCDIC code page",
            hint="convert it first: iconv -f IBM-1047 -t UTF-8 (of fixed records without line ends: | fold -w 80)",
        )
        return None
    first = next((line.strip() for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")), "")
    if first.startswith(_REPORT):
        findings.of_file(
            name,
            "report",
            f"{path} is a report of pasearch, not a policy",
            hint="use the file that the Policy Agent read",
        )
        return None
    return read_text(Source(name, text), findings)


def read_text(source: Source, findings: Findings) -> list[Statement]:
    """Turn a text into its statements, reporting every fault of lines and braces.

    Takes time linear in the length of the text, and no recursion: blocks may be nested as deep as the text likes.
    """
    top: list[Statement] = []
    here = top
    open_blocks: list[tuple[Statement, list[Statement]]] = []  # each with the list that its `}` returns to
    head: Statement | None = None  # the line that a `{` coming next would belong to

    for number, line in enumerate(source.lines, 1):
        words = _words(line)
        if not words:
            continue
        if len(words) == 1 or ("{" not in words and "}" not in words):
            parts: Iterable[list[str]] = (words,)
        else:
            parts = _at_braces(words, source, number, findings)
        for keyword, *values in parts:
            if keyword == "{":
                if head is None:
                    head = Statement(source, number, "", [])
                    here.append(head)
                    findings.error(head, "block-without-statement", "a block starts here without a statement before it")
                head.body = []
                head.closed = False
                open_blocks.append((head, here))
                here = head.body
                head = None
            elif keyword == "}":
                head = None
                if open_blocks:
                    block, here = open_blocks.pop()
                    block.closed = True
                else:
                    stray = Statement(source, number, keyword, [])
                    findings.error(stray, "unmatched-brace", "this '}' closes nothing: no block is open here")
            else:
                head = Statement(source, number, keyword, values)
                here.append(head)

    if open_blocks:
        end = Statement(source, len(source.lines), "", [])
        while end.line > 1 and not _words(source.lines[end.line - 1]):
            end.line -= 1
        innermost = open_blocks[-1][0]
        findings.error(innermost, "unclosed-block", f"{_title(innermost)} is not closed: its '}}' is missing")
        findings.error(
            end,
            "end-in-block",
            f"the file ends inside a block: {_title(innermost)}, opened on line {innermost.line}, is not closed",
        )
    return top


def unclosed(statements: list[Statement]) -> Iterator[Statement]:
    """Yield the blocks that the end of the text left open, outermost first."""
    while statements and not statements[-1].closed:
        block = statements[-1]
        yield block
        statements = block.body or []


def _title(block: Statement) -> str:
    # How a block is called in messages: its keyword and name.
    return " ".join([f"'{block.keyword}", *block.words[:1]]) + "'" if block.keyword else "a block without a statement"


def _words(line: str) -> list[str]:
    # Almost every line has neither quotes nor comment; those take the short way.
    if '"' in line:
        return _words_with_quotes(line)
    if "#" in line:
        line = line.partition("#")[0]
    return line.split()


def _words_with_quotes(line: str) -> list[str]:
    words = []
    for match in _matches(line):
        word = match.group()
        words.append(word[1:-1] if len(word) > 1 and word[0] == word[-1] == '"' else word)
    return words


def _matches(line: str) -> Iterator[re.Match[str]]:
    # The words of a line up to its comment; a `#` inside quotes is part of the value.
    position = 0
    while match := _WORD.search(line, position):
        if "#" in line[position : match.start()]:
            return
        yield match
        position = match.end()


def _place(text: str, keyword: str, word: int) -> tuple[int, int]:
    # Column (from 1) and length of a word in a line; behind the last word when the line has fewer.
    found = list(_matches(text))
    start = next((i for i, match in enumerate(found) if match.group().strip('"') == keyword), 0)
    if start + word < len(found):
        match = found[start + word]
        return match.start() + 1, len(match.group())
    return (found[-1].end() + 1 if found else 1), 1


def _at_braces(words: list[str], source: Source, number: int, findings: Findings) -> Iterator[list[str]]:
    # A brace is meant to stand alone on its line. A `{` at the end of the head line is so common elsewhere that it
    # is read with a warning; any other company is an error, and split up only to read on sensibly.
    at = Statement(source, number, words[0], words[1:])
    if words[-1] == "{" and words.count("{") == 1 and "}" not in words:
        findings.warning(at, "brace-placement", "z/OS wants '{' alone on the next line", word=len(words) - 1)
    else:
        where = next(i for i, word in enumerate(words) if word in ("{", "}"))
        findings.error(at, "brace-placement", f"'{words[where]}' must stand alone on its line", word=where)
    part: list[str] = []
    for word in words:
        if word in ("{", "}"):
            if part:
                yield part
            yield [word]
            part = []
        else:
            part.append(word)
    if part:
        yield part
