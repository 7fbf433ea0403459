"""What whoever types a command sees when it is not a command: one sentence, and exit code 2."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from attls.cli import main


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("policy check", "attls policy check"),
        ("--bogus", "attls"),
        ("foo", "attls"),
        ("policy explain x --direction sideways", "attls policy explain"),
        ("run --policy x", "attls run"),
    ],
)
def test_wrong_usage_is_one_sentence(words: str, place: str) -> None:
    """It says what is wrong and where help is, on standard error."""
    result = CliRunner().invoke(main, words.split(), prog_name="attls")
    assert (2, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("attls: ")
    assert result.stderr.endswith(f"; see `{place} --help`\n")
    assert 1 == result.stderr.count("\n")


@pytest.mark.parametrize("words", ["", "policy"])
def test_a_group_without_a_command_shows_its_help(words: str) -> None:
    """Nobody has to know that there is --help."""
    result = CliRunner().invoke(main, words.split(), prog_name="attls")
    assert 2 == result.exit_code
    assert "Commands:" in result.stderr
