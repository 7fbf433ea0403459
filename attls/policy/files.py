"""From a path to the statements of one policy: policy files, directories, and the Policy Agent's own files.

The agent's main file names stacks (`TcpImage`) and their image files, an image file names the policy (`TTLSConfig`),
and main, image and policy may be one and the same file. This system has one stack, so the first `TcpImage` is it.
Paths are relative to the file that names them. MVS data sets cannot be opened here; the caller may say which file
stands for one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from attls.policy import language
from attls.policy.rules import Stack
from attls.policy.text import Findings, Statement, read_file

_DATA_SET = re.compile(r"//'?([^']+)'?")
_OPTIONS = frozenset({"flush", "noflush", "purge", "nopurge"})
_LONGEST_INTERVAL = 4294967295  # seconds; the largest number of the language
_NAME_POLICY = frozenset({"tcpimage", "pepinstance", "commonttlsconfig", "ttlsconfig"})


Stamp = tuple[int, int, int] | None


def stamp(path: Path) -> Stamp:
    """Return what changes when a file or directory does: inode, size, and modification in nanoseconds."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


class Reader:
    """Reads the files of one policy, each at most once, and remembers which they were.

    `files` are those it has read, with their stamps from before, `stack` is what agent lines said about the stack; both
    are complete when `collect` has come to its end.
    """

    def __init__(self, findings: Findings, datasets: Mapping[str, Path]) -> None:
        self.files: dict[Path, Stamp] = {}
        self.stack = Stack()
        self._findings = findings
        self._datasets = {name.upper(): target for name, target in datasets.items()}
        self._seen: set[str] = set()
        self._common: Statement | None = None

    def collect(self, path: Path) -> Iterator[list[Statement]]:
        """Yield the policy statements of every file that `path` leads to, in the order in which they are read."""
        if not path.is_dir():
            yield from self._main(path)
            return
        self.files[path] = stamp(path)  # a file that comes or goes changes the policy too
        parts = sorted(path.glob("*.policy"), key=lambda part: part.name)
        if not parts:
            self._findings.of_file(str(path), "no-files", f"{path} holds no *.policy files")
        for part in parts:
            statements = self._read(part)
            if statements is not None:
                yield _without_agent_lines(statements, self._findings)

    def _read(self, path: Path) -> list[Statement] | None:
        self.files[path] = stamp(path)
        return read_file(path, str(path), self._findings)

    def _main(self, path: Path) -> Iterator[list[Statement]]:
        self._seen.add(_real(path))
        statements = self._read(path)
        if statements is None:
            return
        lines, policy = self._sort_out(statements, path)
        images = [line for line in lines if line.keyword.lower() in ("tcpimage", "pepinstance")]
        for line in lines:
            if line.keyword.lower() == "commonttlsconfig":
                self._common = line
                yield from self._policy_file(line, line.words[:1], path)
        for line in images[1:]:
            self._findings.warning(
                line,
                "second-stack",
                f"this system has one TCP/IP stack: the image of line {images[0].line} is used, this one is not",
            )
        image = self._image_file(images[0], path) if images else None
        if image is None:
            yield from self._image_lines(lines, path)  # this file is the image file as well
        else:
            for line in lines:
                if line.keyword.lower() == "ttlsconfig":
                    self._findings.warning(
                        line, "wrong-file", f"TTLSConfig does not count here: {image} is the image file of the stack"
                    )
            yield from self._image(images[0], image)
        if policy:
            yield policy

    def _image_file(self, line: Statement, main: Path) -> Path | None:
        # The image file that a TcpImage line names; None when it names none, or the main file itself.
        if not line.words:
            self._findings.error(line, "missing-value", f"{line.keyword} needs the name of a stack")
            return None
        self.stack = replace(self.stack, name=line.words[0])
        words = [word for word in line.words[1:2] if not _is_option(word)]
        self._options(line, 1 + len(words), with_seconds=True)
        if not words:
            return None
        target = self._locate(line, words[0], main, word=2)
        return None if target is None or _real(target) in self._seen else target

    def _image(self, line: Statement, target: Path) -> Iterator[list[Statement]]:
        self._seen.add(_real(target))
        statements = self._open(line, target, word=2)
        if statements is None:
            return
        lines, policy = self._sort_out(statements, target)
        for stray in lines:
            if stray.keyword.lower() in ("tcpimage", "pepinstance", "commonttlsconfig"):
                self._findings.warning(stray, "wrong-file", f"{stray.keyword} counts in the main file only")
        yield from self._image_lines(lines, target)
        if policy:
            yield policy

    def _image_lines(self, lines: list[Statement], path: Path) -> Iterator[list[Statement]]:
        configured = [line for line in lines if line.keyword.lower() == "ttlsconfig"]
        if not configured and self._common is not None:
            self._findings.warning(
                self._common,
                "no-ttlsconfig",
                f"{path} has no TTLSConfig, so on z/OS the stack would get no AT-TLS policy; here the common one "
                "counts all the same",
                hint="code TTLSConfig without a path there",
            )
        for line in configured[:-1]:
            self._findings.warning(
                line, "coded-twice", f"TTLSConfig is coded again on line {configured[-1].line}; only the last counts"
            )
            self._say_data_set(line)
        for line in configured[-1:]:
            words = [word for word in line.words[:1] if not _is_option(word)]
            self._options(line, len(words), with_seconds=False)
            if words:  # without a path only the common file counts
                yield from self._policy_file(line, words, path)

    def _policy_file(self, line: Statement, words: list[str], named_in: Path) -> Iterator[list[Statement]]:
        if not words:
            self._findings.error(line, "missing-value", f"{line.keyword} needs the path of a policy file")
            return
        target = self._locate(line, words[0], named_in, word=1)
        if target is None or _real(target) in self._seen:
            return
        self._seen.add(_real(target))
        statements = self._open(line, target, word=1)
        if statements is not None:
            yield _without_agent_lines(statements, self._findings)

    def _open(self, line: Statement, target: Path, *, word: int) -> list[Statement] | None:
        if not target.is_file():
            what = "is a directory" if target.is_dir() else "does not exist"
            self._findings.error(line, "missing-file", f"{line.keyword}: the file {target} {what}", word=word)
            return None
        return self._read(target)

    def _options(self, line: Statement, first: int, *, with_seconds: bool) -> None:
        # The words behind a path. What the more specific line says, which is read later, counts.
        for number, word in enumerate(line.words[first:], first + 1):
            lower = word.lower()
            if lower == "noflush":
                self._findings.warning(
                    line,
                    "not-supported",
                    "NOFLUSH has no effect: what the files no longer say is gone after start and refresh",
                    word=number,
                )
            elif lower in ("purge", "nopurge"):
                self.stack = replace(self.stack, purge=lower == "purge")
            elif with_seconds and word.isascii() and word.isdigit():
                if self._number(line, number, 0, _LONGEST_INTERVAL):
                    self.stack = replace(self.stack, reread_seconds=int(word))
            elif lower != "flush":
                self._findings.warning(
                    line, "ignored-words", f"{line.keyword}: '{word[:60]}' is no option of it and ignored", word=number
                )

    def _locate(self, line: Statement, text: str, named_in: Path, *, word: int) -> Path | None:
        data_set = _DATA_SET.fullmatch(text)
        if data_set is None:
            return named_in.parent / text
        target = self._datasets.get(data_set[1].upper())
        if target is None:
            self._findings.error(
                line,
                "data-set",
                f"{line.keyword}: {text} is an MVS data set, which cannot be opened on this system",
                word=word,
                hint=f"copy it to a file and name that, or map it: --dataset '{data_set[1]}=FILE'",
            )
        return target

    def _say_data_set(self, line: Statement) -> None:
        if line.words and _DATA_SET.fullmatch(line.words[0]):
            self._findings.warning(
                line, "data-set", f"{line.words[0]} is an MVS data set, which cannot be opened on this system", word=1
            )

    def _sort_out(self, statements: list[Statement], path: Path) -> tuple[list[Statement], list[Statement]]:
        # Agent lines, and the policy statements among which they stand.
        lines, policy = _split(statements)
        for line in lines:
            keyword = line.keyword.lower()
            if keyword == "loglevel":
                self._number(line, 1, 0, 511)
            elif keyword == "policyserver" and _asks_for_ttls(line):
                self._findings.error(
                    line,
                    "policy-server",
                    "AT-TLS policy from a policy server cannot be had on this system",
                    hint="copy the policy here and name it with TTLSConfig",
                )
            elif keyword in language.OTHER_AGENT_STATEMENTS:
                self._findings.warning(line, "not-used", f"{line.keyword} has nothing to do with AT-TLS here; ignored")
        if policy and any(line.keyword.lower() == "ttlsconfig" for line in lines):
            first = next(line for line in lines if line.keyword.lower() == "ttlsconfig")
            self._findings.warning(
                first,
                "image-line",
                "TTLSConfig is a line of an image file, and this file holds policy too; both are read",
            )
        return lines, policy

    def _number(self, line: Statement, place: int, low: int, high: int) -> bool:
        word = line.words[place - 1] if line.words[place - 1 :] else ""
        good = word.isascii() and word.isdigit() and len(word) < 11 and low <= int(word) <= high
        if not good:
            self._findings.error(
                line, "bad-value", f"{line.keyword} '{word[:60]}' is not a number from {low} to {high}", word=place
            )
        return good


def _is_option(word: str) -> bool:
    return word.lower() in _OPTIONS or word.isdigit()


def _real(path: Path) -> str:
    # What tells files apart; unlike Path.resolve this does not mind links in a circle, which reading then reports.
    return os.path.realpath(path)


def _split(statements: list[Statement]) -> tuple[list[Statement], list[Statement]]:
    lines: list[Statement] = []
    policy: list[Statement] = []
    for statement in statements:
        keyword = statement.keyword.lower()
        agent = keyword in language.AGENT_LINES or keyword in language.OTHER_AGENT_STATEMENTS
        (lines if agent else policy).append(statement)
    return lines, policy


def _without_agent_lines(statements: list[Statement], findings: Findings) -> list[Statement]:
    # In a file that another one names as policy, agent lines lead nowhere: following them could go in circles.
    lines, policy = _split(statements)
    for line in lines:
        # Dropping one that names more policy would leave connections unprotected that should be.
        report = findings.error if line.keyword.lower() in _NAME_POLICY else findings.warning
        report(line, "wrong-file", f"{line.keyword} belongs in a main or image file, not in a policy file")
    return policy


def _asks_for_ttls(block: Statement) -> bool:
    return any(
        line.keyword.lower() == "policytype" and any(word.upper() == "TTLS" for word in line.words[:1])
        for line in block.body or ()
    )
