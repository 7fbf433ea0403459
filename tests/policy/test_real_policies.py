"""Policies that others wrote, where a collection of them lies beside the project: what loads and what is diagnosed."""

from __future__ import annotations

from pathlib import Path

import pytest

from attls import policy
from attls.errors import Diagnostic, PolicyError

FOLDER = next(
    (
        parent / "shared" / "real-policies"
        for parent in Path(__file__).resolve().parents
        if (parent / "shared" / "real-policies").is_dir()
    ),
    None,
)
pytestmark = pytest.mark.skipif(FOLDER is None, reason="no collection of real policies (shared/real-policies) here")

LOADS = ["01", "02", "04", "06", "07", "08", "09", "12", "14", "15", "21", "45", "49", "50", "54", "64"]
# Fragments: nothing is wrong but names that resolve to nothing.
FRAGMENTS = ["24", "27", "28", "30", "31", "32", "33", "34", "57"]
# Templates: placeholders, `...` lines and dangling names, nothing else.
TEMPLATES = ["36", "37", "59", "60", "65"]


def diagnostics_of(number: str) -> tuple[bool, tuple[Diagnostic, ...]]:
    """Load the text that begins with `number`; return whether it loads, and everything said about it."""
    assert FOLDER is not None
    (path,) = FOLDER.glob(f"{number}-*")
    try:
        return True, policy.load(path, thorough=True).diagnostics
    except PolicyError as error:
        return False, error.diagnostics


def errors_of(number: str) -> list[Diagnostic]:
    """Return the errors of a text that must be refused."""
    loads, diagnostics = diagnostics_of(number)
    assert not loads
    return [finding for finding in diagnostics if finding.severity == "error"]


def lines_with(number: str, *words: str) -> set[int]:
    """Return the numbers of the lines whose first word is one of `words`."""
    assert FOLDER is not None
    (path,) = FOLDER.glob(f"{number}-*")
    lines = path.read_text(encoding="utf-8").splitlines()
    return {place for place, line in enumerate(lines, 1) if line.split()[:1] and line.split()[0] in words}


@pytest.mark.parametrize("number", LOADS)
def test_loads(number: str) -> None:
    """A correct policy loads, warnings allowed."""
    assert diagnostics_of(number)[0]


@pytest.mark.parametrize("number", FRAGMENTS)
def test_a_fragment_lacks_only_names(number: str) -> None:
    """What is missing from a fragment is said, and nothing else is wrong."""
    assert {"unresolved-name"} == {finding.code for finding in errors_of(number)}


@pytest.mark.parametrize("number", TEMPLATES)
def test_a_template_has_placeholders(number: str) -> None:
    """Every error of a template is a placeholder, a line of dots or a name that nothing defines."""
    found = errors_of(number)
    allowed = {"placeholder", "unresolved-name", "unknown-parameter"}
    assert allowed >= {finding.code for finding in found}
    dots = {finding.line for finding in found if finding.code == "unknown-parameter"}
    assert lines_with(number, "...") == dots


def test_06_names_both_places_of_a_name_defined_twice() -> None:
    """Four statements are defined twice; the warning names the earlier place, the later definition counts."""
    _, found = diagnostics_of("06")
    twice = [finding for finding in found if finding.code == "duplicate-name"]
    assert [99, 104, 109, 114] == [finding.line for finding in twice]
    assert [":50 ", ":18 ", ":31 ", ":43 "] == [
        place
        for finding, place in zip(twice, (":50 ", ":18 ", ":31 ", ":43 "), strict=True)
        if place in finding.message
    ]


@pytest.mark.parametrize(("number", "name"), [("14", "ZoweInboundBroad"), ("15", "ZoweInboundMain")])
def test_14_and_15_switch_off_what_another_rule_protects(number: str, name: str) -> None:
    """The warning names the rule whose connections stay in the clear."""
    _, found = diagnostics_of(number)
    assert [name] == [name for finding in found if finding.code == "switched-off" and f"'{name}'" in finding.message]


def test_21_may_have_an_empty_label_and_29_may_not_have_one_there() -> None:
    """An empty CertificateLabel is legal where the parameter is."""
    assert diagnostics_of("21")[0]
    assert [(7, "wrong-place")] == [
        (item.line, item.code) for item in errors_of("29") if item.code != "unresolved-name"
    ]


def test_25_has_stray_prose() -> None:
    """Prose behind a policy is an error at each of its lines."""
    assert [14, 15] == [finding.line for finding in errors_of("25")]


def test_26_has_a_jobname_without_value() -> None:
    """A comment is no value."""
    assert [(9, "missing-value")] == [
        (item.line, item.code) for item in errors_of("26") if item.code != "unresolved-name"
    ]


@pytest.mark.parametrize(("number", "code"), [("38", "block-without-statement"), ("55", "missing-name")])
def test_blocks_without_statement_or_name(number: str, code: str) -> None:
    """A block needs a statement in front of it, and at file level a name."""
    assert [code] == [finding.code for finding in errors_of(number)]


@pytest.mark.parametrize("number", ["39", "66"])
def test_the_end_of_file_inside_a_block(number: str) -> None:
    """The file's end is pointed at, and the block that is open."""
    assert {"unclosed-block", "end-in-block"} <= {finding.code for finding in errors_of(number)}


@pytest.mark.parametrize(("number", "words"), [("43", ["..."]), ("44", ["???", "===section==="])])
def test_stray_lines(number: str, words: list[str]) -> None:
    """Each stray line is an error, and what stands around it is read."""
    stray = {finding.line for finding in errors_of(number) if finding.code == "unknown-statement"}
    assert lines_with(number, *words) == stray


def test_45_has_no_rules() -> None:
    """Two definitions of one name, of which the later counts, and no rule: two warnings."""
    assert {"duplicate-name", "no-rules", "unused-name"} == {finding.code for finding in diagnostics_of("45")[1]}


def test_51_has_a_parameter_that_does_not_exist() -> None:
    """The near name is offered."""
    unknown = [finding for finding in errors_of("51") if finding.code != "unresolved-name"]
    assert [(28, "did you mean 'ClientHandshakeSNI'?")] == [(finding.line, finding.hint) for finding in unknown]


@pytest.mark.parametrize("number", ["52", "53"])
def test_words_behind_values_are_ignored(number: str) -> None:
    """Arrows and remarks behind values are no errors."""
    codes = {finding.code for finding in diagnostics_of(number)[1] if finding.severity == "error"}
    assert codes <= {"unresolved-name"}


def test_56_has_image_file_lines() -> None:
    """TTLSConfig in front of a policy is said, the data set too, and the rest is read."""
    _, found = diagnostics_of("56")
    codes = {(finding.line, finding.code) for finding in found}
    assert {(2, "image-line"), (2, "data-set"), (3, "missing-file")} <= codes
    assert {10, 38} <= {finding.line for finding in found if finding.code == "unresolved-name"}


def test_58_has_parameters_at_the_wrong_level() -> None:
    """A line that begins with `*` is no comment; each parameter's error names where it belongs."""
    found = errors_of("58")
    assert "unknown-statement" == found[0].code
    assert ["wrong-place"] * 8 == [finding.code for finding in found[1:]]
    assert all("Parms" in finding.message and "TTLSEnvironmentAction" in (finding.hint or "") for finding in found[1:])


@pytest.mark.parametrize("number", ["61", "62"])
def test_a_missing_brace_points_at_the_open_block(number: str) -> None:
    """The block that was left open is pointed at, and what follows is read as if it had been closed."""
    found = [finding for finding in errors_of(number) if finding.code != "unknown-statement"]
    assert [(14, "unclosed-block"), (41, "end-in-block")] == [(finding.line, finding.code) for finding in found]


def test_63_has_a_statement_that_does_not_exist() -> None:
    """PortGroup2 without a name is no statement; PortGroup is near."""
    found = {finding.code: finding for finding in errors_of("63")}
    assert "did you mean 'PortGroup'?" == found["unknown-statement"].hint
    assert {"unknown-statement", "unresolved-name"} == set(found)


def test_67_lost_its_braces() -> None:
    """A policy without braces is diagnosed from top to bottom."""
    assert 11 == len(errors_of("67"))


@pytest.mark.parametrize(
    ("number", "path"), [("68", "pagent.TCPIP.conf"), ("69", "pagent.TTLS.policy"), ("70", "pagent.ttls.conf")]
)
def test_agent_files_name_the_paths_that_are_missing(number: str, path: str) -> None:
    """Main and image files are followed, and a path that leads nowhere is named."""
    assert [True] == [path in finding.message for finding in errors_of(number)]


def test_a_report_is_no_policy() -> None:
    """The output of `pasearch -t` is recognised, with one sentence instead of thousands."""
    assert ["report"] == [finding.code for finding in errors_of("72")]
