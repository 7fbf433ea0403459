"""Policies as data: what is in `valid/` means what the JSON beside it says, what is in `invalid/` is refused at the
places that the `.expected` file beside it lists, and nowhere else.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from attls import policy
from attls.errors import PolicyError
from attls.model import Defaults, Protocol
from attls.policy import envfile, language, show

HERE = Path(__file__).parent
VALID = sorted((HERE / "valid").glob("*.policy"))
INVALID = sorted((HERE / "invalid").glob("*.policy"))
assert VALID
assert INVALID


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_policy_means_what_is_written_beside_it(path: Path) -> None:
    """Rules come in search order, with the conditions and effective parameters that the JSON file lists."""
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    loaded = policy.load(path)
    rules = {rule.name: rule for rule in loaded.rules}
    assert expected["rules"] == [rule.name for rule in loaded.rules]
    for name, parameters in expected.get("effective", {}).items():
        effective = show.as_json(loaded.effective(rules[name].verdict))
        assert parameters == {key: effective.get(key) for key in parameters}
    for name, conditions in expected.get("conditions", {}).items():
        found = show.conditions_json(rules[name].conditions)
        assert conditions == {key: found[key] for key in conditions}


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_policy_is_refused_with_every_error(path: Path) -> None:
    """All errors are found in one pass, each at its line and column, with its code and the hint that helps."""
    with pytest.raises(PolicyError) as caught:
        policy.load(path)
    errors = [finding for finding in caught.value.diagnostics if finding.severity == "error"]
    found = [f"{finding.line}:{finding.column} {finding.code}" for finding in errors]
    lines = path.with_suffix(".expected").read_text(encoding="utf-8").splitlines()
    assert [" ".join(line.split(" ")[:2]) for line in lines] == found
    for line, finding in zip(lines, errors, strict=True):
        _, _, hint = line.split(" ", 1)[1].partition(" ")
        assert hint in f"{finding.message} {finding.hint}"


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_policy_set_pickles(path: Path) -> None:
    """What the supervisor loaded arrives whole at a worker."""
    loaded = policy.load(path)
    copy = pickle.loads(pickle.dumps(loaded))
    assert loaded.rules == copy.rules
    assert loaded.actions == copy.actions


def text_policy(tmp_path: Path, text: str, name: str = "p.policy") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


SILENT = """
TTLSRule r
{
  LocalPortRange 1
  Direction Inbound
  TTLSGroupActionRef g
  TTLSEnvironmentActionRef e
}
TTLSGroupAction g
{
  TTLSEnabled On
}
TTLSEnvironmentAction e
{
  HandshakeRole Server
  TTLSKeyringParms
  {
    Keyring RING
  }
}
"""


def test_a_silent_policy_under_both_defaults(tmp_path: Path) -> None:
    """Silence means TLS 1.2 and 1.3 to us, and exactly TLS 1.0 and 1.1 under `zos`."""
    path = text_policy(tmp_path, SILENT)
    modern = policy.load(path).rules[0].verdict.settings
    zos = policy.load(path, Defaults.ZOS).rules[0].verdict.settings
    assert modern is not None
    assert zos is not None
    assert {Protocol.TLSV1_2, Protocol.TLSV1_3} == modern.protocols
    assert {Protocol.TLSV1, Protocol.TLSV1_1} == zos.protocols
    assert () == modern.client_curves
    assert (21, 23, 24, 25, 19) == zos.client_curves
    assert (10, 86400, 512, 2) == (
        modern.handshake_timeout,
        modern.session_timeout,
        modern.session_cache_size,
        modern.server_ticket_count,
    )


def test_zos_lengthens_its_default_lists_for_tls_1_3(tmp_path: Path) -> None:
    """With TLSv1.3 On, X25519 and the RSA-PSS pairs follow the default lists, as a 3.1 system prints them."""
    text = SILENT.replace("Server\n", "Server\n  TTLSEnvironmentAdvancedParms\n  {\n    TLSv1.3 On\n  }\n")
    settings = policy.load(text_policy(tmp_path, text), Defaults.ZOS).rules[0].verdict.settings
    assert settings is not None
    assert (21, 23, 24, 25, 19, 29) == settings.client_curves
    assert ("0806", "0805", "0804") == settings.signature_pairs[-3:]


def test_equal_content_gives_equal_settings(tmp_path: Path) -> None:
    """Reading an identical file again, or one with other names and comments, changes no settings; an instance does."""
    first = policy.load(text_policy(tmp_path, SILENT)).rules[0].verdict.settings
    again = policy.load(text_policy(tmp_path, "# comment\n" + SILENT.replace("Server", "SERVER"))).rules[0]
    raised = SILENT.replace("HandshakeRole", "EnvironmentUserInstance 1\n  HandshakeRole")
    assert first == again.verdict.settings
    assert first != policy.load(text_policy(tmp_path, raised)).rules[0].verdict.settings


def test_the_later_of_two_definitions_counts(tmp_path: Path) -> None:
    """A name defined twice is a warning that names both places; what the later one lacks is lost, not inherited."""
    text = SILENT + "TTLSEnvironmentAction e\n{\n  HandshakeRole Client\n}\n"
    loaded = policy.load(text_policy(tmp_path, text))
    assert loaded.rules[0].verdict.settings is not None
    assert "Client" == loaded.rules[0].verdict.settings.role.value
    assert "" == loaded.rules[0].verdict.settings.keyring
    assert ["missing-parameter", "duplicate-name"] == [finding.code for finding in loaded.diagnostics]
    assert "p.policy:13" in loaded.diagnostics[1].message


def test_a_lone_star_asks_about_nothing(tmp_path: Path) -> None:
    """`Jobname *` fits a connection whose owner is unknown, too."""
    rule = policy.load(text_policy(tmp_path, SILENT.replace("Direction", "Jobname *\n  Userid *\n  Direction"))).rules[
        0
    ]
    assert (None, None) == (rule.conditions.job, rule.conditions.user)
    assert rule.needs_owner is False


def test_a_parameter_coded_twice_counts_as_coded_last(tmp_path: Path) -> None:
    """The first of two is dropped with a warning that points at the second."""
    loaded = policy.load(
        text_policy(tmp_path, SILENT.replace("LocalPortRange 1", "LocalPortRange 1\n  LocalPortRange 2"))
    )
    assert 2 == loaded.rules[0].conditions.local_ports[0].first
    assert [(5, "coded-twice")] == [(finding.line, finding.code) for finding in loaded.diagnostics]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ConditionTimeRange 20260101000000:20261231235959", "20260101000000:20261231235959"),
        ("ConditionTimeRange 20260101000000-20261231235959", "20260101000000:20261231235959"),
        ("ConditionTimeRange 20260101000000 20261231235959", "20260101000000:20261231235959"),
        ("TimeOfDayRange 6:00-20:00", ["06:00-20:00"]),
        ("TimeOfDayRange 06:00-12:00,13:00-20:00", ["06:00-12:00", "13:00-20:00"]),
        ("TimeOfDayRange 06:00-12:00, 13:00-20:00 # and so on", ["06:00-12:00", "13:00-20:00"]),
    ],
)
def test_how_times_may_be_written(tmp_path: Path, line: str, expected: object) -> None:
    """The ends of a period are joined by a colon, a dash or a blank; windows by commas, with or without blanks."""
    block = f"IpTimeCondition\n{{\n{line}\n}}\nDirection"
    rule = policy.load(text_policy(tmp_path, SILENT.replace("Direction", block))).rules[0]
    (shown,) = json.loads(json.dumps(show.conditions_json(rule.conditions)))["IpTimeCondition"]
    assert expected == shown[line.split()[0]]


def test_long_lists_keep_order_and_first_places(tmp_path: Path) -> None:
    """A list of very many lines is read as fast as others, and what is repeated keeps its first place."""
    names = [f"h{number}.example L{number}" for number in range(30_000)]
    lines = "\n".join(f"ServerHandshakeSNIList {name}" for name in (*names, *reversed(names)))
    block = f"TTLSEnvironmentAdvancedParms\n{{\nServerHandshakeSNI Optional\n{lines}\n}}\n"
    loaded = policy.load(text_policy(tmp_path, SILENT.replace("HandshakeRole", f"{block}HandshakeRole")))
    assert tuple(names) == loaded.effective(loaded.rules[0].verdict)["ServerHandshakeSNIList"]


def test_words_that_look_meant_are_not_dropped_silently(tmp_path: Path) -> None:
    """A second cipher on one line, or a label with a blank, is ignored with a warning."""
    more = """HandshakeRole Server
  TTLSCipherParms
  {
    V3CipherSuites4Char C02F C030
  }
  TTLSEnvironmentAdvancedParms
  {
    CertificateLabel MY SERVER
  }
"""
    loaded = policy.load(text_policy(tmp_path, SILENT.replace("HandshakeRole Server\n", more)))
    assert loaded.rules[0].verdict.settings is not None
    assert ("C02F",) == loaded.rules[0].verdict.settings.ciphers
    assert "MY" == loaded.rules[0].verdict.settings.certificate_label
    assert ["ignored-words", "ignored-words"] == [finding.code for finding in loaded.diagnostics]


def test_the_shipped_policies_load() -> None:
    """Every policy in `policy/` loads without a finding, alone and all together."""
    folder = HERE.parent.parent / "policy"
    files = sorted(folder.glob("*.policy"))
    assert files
    for path in files:
        assert () == policy.load(path).diagnostics
    assert () == policy.load(folder).diagnostics


def test_an_envfile_speaks_where_the_policy_is_silent(tmp_path: Path) -> None:
    """Variables of the group's Envfile count less than what an action codes and more than the defaults."""
    (tmp_path / "group.env").write_text(
        "GSK_V3_SESSION_TIMEOUT=60\nexport GSK_PROTOCOL_TLSV1_2=OFF # comment\n"
        "GSK_ODD=1\nPATH=/bin\nGSK_V3_SIDCACHE_SIZE=x\n"
    )
    text = SILENT.replace(
        "TTLSEnabled On", "TTLSEnabled On\n  TTLSGroupAdvancedParms\n  {\n    Envfile group.env\n  }"
    ).replace("Server\n", "Server\n  TTLSEnvironmentAdvancedParms\n  {\n    TLSv1.3 On\n  }\n")
    loaded = policy.load(text_policy(tmp_path, text))
    settings = loaded.rules[0].verdict.settings
    assert settings is not None
    assert 60 == settings.session_timeout
    assert {Protocol.TLSV1_3} == settings.protocols
    assert 2 == len(loaded.diagnostics)


def test_a_fragment_length_is_needed_where_fragments_are(tmp_path: Path) -> None:
    """ClientMaxSSLFragment without a length at any level is an error; the length may come from another level."""
    more = "Server\n  TTLSEnvironmentAdvancedParms\n  {\n    ClientMaxSSLFragment Optional\n  }\n"
    with pytest.raises(PolicyError) as caught:
        policy.load(text_policy(tmp_path, SILENT.replace("Server\n", more)))
    errors = [finding.code for finding in caught.value.diagnostics if finding.severity == "error"]
    assert ["missing-companion"] == errors
    longer = more.replace("Optional\n", "Optional\n    ClientMaxSSLFragmentLength 1024\n")
    settings = policy.load(text_policy(tmp_path, SILENT.replace("Server\n", longer))).rules[0].verdict.settings
    assert settings is not None
    assert 1024 == settings.client_maximum_fragment


def test_an_envfile_that_is_missing_is_a_warning(tmp_path: Path) -> None:
    """Nothing is taken from a file that is not there, and the warning says which."""
    text = SILENT.replace("TTLSEnabled On", "TTLSEnabled On\n  TTLSGroupAdvancedParms\n  {\n    Envfile no.env\n  }")
    loaded = policy.load(text_policy(tmp_path, text))
    assert ["envfile"] == [finding.code for finding in loaded.diagnostics]
    assert "no.env" in loaded.diagnostics[0].message


def test_every_environment_variable_means_a_parameter() -> None:
    """The table of variables names parameters that there are, one variable each."""
    known = {parameter.name for statement in language.STATEMENTS.values() for parameter in statement.parameters}
    meant = list(envfile.MEANS.values())
    assert [] == [name for name in meant if name not in known]
    assert len(meant) == len(set(meant))
