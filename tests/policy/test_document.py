"""The documentation page of the language and the table it is written from."""

from __future__ import annotations

from pathlib import Path

from attls.policy import document, language
from attls.policy.language import Kind

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_page_is_current() -> None:
    """`docs/policy-language.md` is what the vocabulary says: run `python -m attls.policy.document` if it is not."""
    assert document.page() == (ROOT / "docs" / "policy-language.md").read_text(encoding="utf-8")


def test_every_row_is_whole() -> None:
    """Each parameter has a meaning, choices where it is a choice, a target where it leads somewhere."""
    for statement in language.STATEMENTS.values():
        assert statement.meaning.endswith(".")
        for parameter in statement.parameters:
            assert parameter.meaning.endswith("."), parameter.name
            assert (parameter.kind is Kind.CHOICE) == bool(parameter.choices), parameter.name
            if parameter.kind in (Kind.BLOCK, Kind.REF):
                assert parameter.target in language.STATEMENTS
                assert parameter.slot
            if parameter.choices and parameter.default is not None:
                assert parameter.default in parameter.choices
            if parameter.kind is Kind.NUMBER and isinstance(parameter.default, int):
                assert parameter.low <= parameter.default <= parameter.high


def test_the_guide_shows_a_policy_that_loads(tmp_path: Path) -> None:
    """The first policy of the guide can be copied as it stands."""
    from attls import policy

    guide = (ROOT / "docs" / "policy-guide.md").read_text(encoding="utf-8")
    path = tmp_path / "guide.policy"
    path.write_text(guide.split("```")[1])
    assert () == policy.load(path, thorough=True).diagnostics
