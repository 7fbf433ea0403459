"""Characters to statements: lines, words, braces, comments, carets, and that no text is too much."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls.policy.text import Findings, Source, Statement, decode, read_text, render, unclosed

Shape = tuple[str, list[str], "list[Shape] | None"]


def read(text: str) -> tuple[list[Statement], Findings]:
    findings = Findings()
    return read_text(Source("t.policy", text), findings), findings


def shape(statements: list[Statement]) -> list[object]:
    return [
        (statement.keyword, statement.words, None if statement.body is None else shape(statement.body))
        for statement in statements
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("# only a comment", []),
        ("A b c", [("A", ["b", "c"], None)]),
        ("A\n{\n}\n", [("A", [], [])]),
        (
            "A n\n{\n B 1\n C\n {\n  D 2\n }\n E 3\n}\nF",
            [
                ("A", ["n"], [("B", ["1"], None), ("C", [], [("D", ["2"], None)]), ("E", ["3"], None)]),
                ("F", [], None),
            ],
        ),
        ("A\n\n# comment\n\n{ # comment\n}", [("A", [], [])]),
        ("A b#c", [("A", ["b"], None)]),
        ('A "b c" d', [("A", ["b c", "d"], None)]),
        ('A "b # c" # d', [("A", ["b # c"], None)]),
        ('A ""', [("A", [""], None)]),
        ('A "open', [("A", ['"open'], None)]),
        ("A\tb\r\n{\r\n}\r", [("A", ["b"], [])]),
        ("A {\n}", [("A", [], [])]),
    ],
)
def test_shapes(text: str, expected: list[object]) -> None:
    """Lines become statements, a `{` makes the one before it a block, whatever the words mean."""
    assert expected == shape(read(text)[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("}", ["1:1 unmatched-brace"]),
        ("{\n}", ["1:1 block-without-statement"]),
        ("A\n{\n{\n}\n}", ["3:1 block-without-statement"]),
        ("A\n{\n  B 1", ["1:1 unclosed-block", "3:3 end-in-block"]),
        ("A\n{\nB\n{\n}\n\n# end\n", ["1:1 unclosed-block", "5:1 end-in-block"]),
        ("A {\n}", ["1:3 brace-placement"]),
        ("A { B 1 }", ["1:3 brace-placement"]),
        ("A\n{\n B 1 }", ["3:6 brace-placement"]),
        ("A\n{\n} B", ["3:1 brace-placement"]),
    ],
)
def test_faults_of_lines_and_braces(text: str, expected: list[str]) -> None:
    """Every fault is reported at its place, and reading goes on."""
    found = [f"{item.line}:{item.column} {item.code}" for item in read(text)[1].diagnostics]
    assert expected == found


def test_blocks_left_open_are_known() -> None:
    """The blocks that the end of the text left open are listed from the outside in."""
    assert ["A", "C"] == [block.keyword for block in unclosed(read("A\n{\nB\n{\n}\nC\n{\n")[0])]


def test_a_diagnostic_shows_its_place() -> None:
    """The caret stands under the word, tabs or not, and the hint behind it."""
    statements, findings = read("A\n{\n\tRole  Sever # x\n}")
    assert statements[0].body is not None
    findings.error(statements[0].body[0], "bad", "Role 'Sever' is not Server", word=1, hint="did you mean 'Server'?")
    expected = (
        "t.policy:3:8: error: Role 'Sever' is not Server\n"
        "     3 | \tRole  Sever # x\n"
        "       | \t      ^^^^^ did you mean 'Server'?"
    )
    assert expected == render(findings.diagnostics[0])


def test_a_missing_word_is_pointed_at_behind_the_last_one() -> None:
    """A value that is not there has a place nonetheless: behind the keyword, never in the comment."""
    statements, findings = read("Role   # nothing here")
    findings.error(statements[0], "bad", "no value", word=1)
    assert (5, 1) == (findings.diagnostics[0].column, findings.diagnostics[0].length)


def test_diagnostics_come_in_file_order() -> None:
    """They are sorted by line within each file, and files stay in the order in which they were read."""
    findings = Findings()
    read_text(Source("b", "}\n}"), findings)
    read_text(Source("a", "}"), findings)
    findings.of_file("b", "x", "whole file")
    assert [("b", 1), ("b", 1), ("b", 2), ("a", 1)] == [(item.file, item.line) for item in findings.in_file_order()]


@given(st.text(st.sampled_from('AB {}#"\n\t\r\u00a0\ufeff'), max_size=60))
def test_any_text_gives_statements(text: str) -> None:
    """Whatever the characters, reading ends, and every diagnostic points into the text."""
    _, findings = read(text)
    lines = text.split("\n")
    for item in findings.diagnostics:
        assert 1 <= item.line <= len(lines)
        assert 1 <= item.column <= len(lines[item.line - 1]) + 1
        render(item)


def test_messages_do_not_steer_the_terminal() -> None:
    """Control characters of a text are shown as marks, in sentences and in quoted lines."""
    _, findings = read("A\x1b[31mB\tc }")
    shown = "\n".join(render(item) for item in findings.diagnostics)
    assert "\x1b" not in shown
    assert "A\ufffd[31mB\tc }" in shown


@pytest.mark.parametrize("piece", ["{\n", "}\n", "A\n{\n", "a b c\n", '"', '" ', "#", "A {", "{ } "])
def test_reading_takes_linear_time(piece: str) -> None:
    """Four times the text takes about four times as long, also where every line is a fault."""
    took = []
    for count in (2_000, 8_000):
        text = piece * count
        best = min(_timed(text) for _ in range(2))
        took.append(best)
    assert took[1] < 10 * took[0] + 0.3


def _timed(text: str) -> float:
    started = time.process_time()
    read(text)
    return time.process_time() - started


def test_decoding() -> None:
    """UTF-8 with or without a mark, UTF-16 with one, Latin-1 where it is neither, and EBCDIC is told apart."""
    assert "é" == decode("é".encode())
    assert "é" == decode("\ufeffé".encode())
    assert "é" == decode("é".encode("latin-1"))
    assert "é" == decode("é".encode("utf-16"))
    assert decode(b"\xe3\xe3\xd3\xe2\x40\x81\x15\x40") is None


def test_fixed_records_of_ebcdic_are_told_apart() -> None:
    """A data set copied as it is has no line ends at all, but far more blanks than anything else."""
    lines = ["TTLSRule one", "{", "  Direction Inbound", "}"]
    assert decode("".join(line.ljust(80) for line in lines).encode("cp037")) is None
    assert decode("".join(line.ljust(80) for line in lines).encode()) is not None


def test_the_line_ends_of_converted_files() -> None:
    """What iconv makes of the line end of z/OS ends a line here too."""
    assert "a\nb" == decode("a\x85b".encode())
    assert "a\x85b é" == decode(b"a\x85b \xe9")
