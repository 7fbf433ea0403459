"""No row of the vocabulary is forgotten: what it says is used by the rooms that make TLS, or said not to be."""

from __future__ import annotations

import ast
import dataclasses
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from attls.model import Defaults
from attls.policy.language import PARAMETERS, Kind, Parameter, Value
from attls.policy.resolve import combine, settings_of

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = ("tls", "relay", "daemon", "control", "keyring", "observe", "intercept")

# What a policy has to say beside a parameter for it to count.
COMPANIONS: dict[str, Value] = {
    "TTLSEnabled": "On",
    "HandshakeRole": "Server",
    "Keyring": "A/B",
    "ClientHandshakeSNI": "Optional",
    "ServerHandshakeSNI": "Optional",
    "ClientMaxSSLFragment": "Optional",
    "ClientMaxSSLFragmentLength": "512",
    "OcspAiaEnable": "On",
}
# Parameters whose value is no part of the settings for TLS, and where it is used instead.
ELSEWHERE = {
    "TTLSEnabled": "Verdict.enabled",
    "Trace": "Verdict.trace",
    "Envfile": "resolve: its variables become parameters",
}
# Rows that are true by themselves, and say so.
NOTHING_TO_DO = {"3DesKeyCheck": "there is no triple DES here", "PeerMinDHKeySize": "no suite here uses one"}
SAMPLES: dict[Kind, tuple[Value, ...]] = {
    Kind.TEXT: ("some.text",),
    Kind.LABEL: ("label",),
    Kind.EMPTY_LABEL: ("label",),
    Kind.HOST: ("host.test",),
    Kind.NAME_AND_LABEL: ("host.test label",),
    Kind.URL: ("http://host.test/",),
    Kind.V2_CIPHERS: (("1",),),
    Kind.CIPHERS: (("C02F",),),
    Kind.CIPHERS_4: (("C02F",),),
    Kind.GROUPS: (("0025",),),
    Kind.CLIENT_GROUPS: (("0025",),),
    Kind.PAIRS: (("0503",),),
    Kind.PAIR: ("0501",),
}


def values_of(parameter: Parameter) -> tuple[Value, ...]:
    if parameter.kind is Kind.CHOICE:
        return parameter.choices
    if parameter.kind is Kind.NUMBER:
        return parameter.low, parameter.high, (parameter.low + parameter.high) // 2
    values = SAMPLES[parameter.kind]
    return tuple((value,) if parameter.many and isinstance(value, str) else value for value in values)


def settings_with(name: str, value: Value) -> dict[str, Any]:
    effective = combine([COMPANIONS, {name: value}], Defaults.ZOS)
    found = settings_of(effective)
    return {**_fields(found), **_fields(found.revocation)}


def _fields(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    return {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.name != "revocation"}


def fields_of(parameter: Parameter) -> set[str]:
    """Return the settings that `parameter` can change."""
    name = "V3CipherSuites" if parameter.kind is Kind.CIPHERS_4 else parameter.name  # both write one list
    found = [settings_with(name, value) for value in values_of(parameter)]
    found.append(settings_with("GroupUserInstance", 0))
    return {key for one in found for key in one if any(one[key] != other.get(key) for other in found)} - (
        {"instance"} if "UserInstance" not in name else set()
    )


@cache
def used() -> frozenset[str]:
    """Return every attribute that the rooms outside of policy read."""
    found: set[str] = set()
    for room in ROOMS:
        for path in (ROOT / "attls" / room).glob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return frozenset(found)


@cache
def words_of_tests() -> frozenset[str]:
    """Return every word in the tests of those rooms and in the scenes."""
    folders = (*ROOMS, "scenes", "exec")
    texts = (path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / "tests" / folder).glob("*.py"))
    return frozenset(word for text in texts for word in re.findall(r"[A-Za-z_0-9.]+", text))


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_is_used_or_declared(name: str) -> None:
    """Its setting is read where TLS is made, and by a test there; or the row says what happens instead."""
    parameter = PARAMETERS[name]
    if name in ELSEWHERE:
        return
    if name in NOTHING_TO_DO:
        assert NOTHING_TO_DO[name] in parameter.meaning
        return
    changed = fields_of(parameter)
    honoured = {field for field in changed if field in used() or field == "instance"}
    assert honoured or (parameter.instead and not parameter.depends), f"{name} changes {changed or 'nothing'}"
    if honoured:
        assert (honoured | {name}) & words_of_tests(), f"no test looks at {name} ({', '.join(sorted(honoured))})"
