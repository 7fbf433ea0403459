"""Netstat text: labels that existing scripts scrape, tables, groups, status."""

from __future__ import annotations

import re
from typing import Any

from attls.model import (
    Direction,
    Endpoint,
    Flow,
    HandshakeRole,
    Owner,
    Protocol,
    TlsSettings,
    Verdict,
    canonical_address,
)
from attls.observe import Ledger, Record, display
from attls.observe.metrics import Counts, prometheus

SETTINGS = TlsSettings(HandshakeRole.SERVER, "payroll/RING", frozenset({Protocol.TLSV1_3}))


def record(remote: str = "9.42.103.99", group: str | None = "grp_act1") -> Record:
    flow = Flow(
        Direction.INBOUND, Endpoint(canonical_address("9.42.104.21"), 1026), Endpoint(canonical_address(remote), 1234)
    )
    verdict = Verdict("ftp_serv_21", True, group, "env_act_serv", None, 0, SETTINGS)
    return Ledger(0, first=0xB2).open(flow, Owner(user="ftp", job="USER15A"), verdict, generation=0)


def secure_snapshot(remote: str = "9.42.103.99") -> dict[str, Any]:
    entry = record(remote)
    entry.status = "Secure"
    entry.protocol, entry.cipher4, entry.cipher = "TLSv1.2", "C02F", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    return entry.snapshot()


def test_the_connection_block_has_the_published_layout() -> None:
    """The report of one connection is, line for line, the one operators know."""
    expected = """\
ConnID: 000000B2
  JobName:      USER15A
  LocalSocket:  9.42.104.21..1026
  RemoteSocket: 9.42.103.99..1234
  SecLevel:     TLS Version 1.2
  Cipher:       C02F TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
  KeyShare:     N/A
  CertUserID:   N/A
  MapType:      Primary
  FIPS140:      Off
TTLSRule: ftp_serv_21
  TTLSGrpAction:  grp_act1
  TTLSEnvAction:  env_act_serv
  TTLSConnAction: N/A"""
    assert expected == display.connection(secure_snapshot())


def test_a_scraping_script_finds_its_fields() -> None:
    """SecLevel starts at or after column 16; code and suite are words 2 and 3 of the Cipher line."""
    lines = display.connection(secure_snapshot("2001:db8::9"), detail=True).splitlines()
    level = next(line for line in lines if "SecLevel:" in line)
    cipher = next(line for line in lines if "Cipher:" in line)
    assert level.index("TLS Version") >= 15
    assert ["C02F", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"] == cipher.split()[1:]
    assert "  RemoteSocket: 2001:db8::9..1234" in lines


def test_a_connection_without_tls_is_not_called_secure() -> None:
    """Before the handshake is over the level says so instead of naming a protocol."""
    assert "SecLevel:     Not Secure" in display.connection(record().snapshot())


def test_the_contract_keys_are_in_every_snapshot() -> None:
    """`netstat --json` has the keys that programs rely on."""
    keys = {
        "connid",
        "direction",
        "local",
        "remote",
        "user",
        "job",
        "pid",
        "rule",
        "group",
        "environment",
        "connection",
        "status",
        "role",
        "protocol",
        "cipher",
        "cipher4",
        "key_share",
        "resumed",
        "peer_subject",
        "cert_user",
        "map_type",
        "bytes_in",
        "bytes_out",
    }
    assert set() == keys - record().snapshot().keys()


def test_groups_stay_listed_while_in_force_or_used() -> None:
    """A group without connections is listed while policy has it, a replaced one while it has connections."""
    entries = display.group_entries(
        [record(group="gone").snapshot()],
        ["VIRTELGROUP"],
        group_identifiers={"VIRTELGROUP": 2},
        environment_identifiers={"env_act_serv": 1},
    )
    assert [("gone", "00000000", 1), ("VIRTELGROUP", "00000002", 0)] == [
        (entry["name"], entry["id"], entry["connections"]) for entry in entries
    ]
    lines = display.groups(entries).splitlines()
    assert ["VIRTELGROUP", "00000002", "0"] == lines[2].split()
    assert ["2 OF 2 RECORDS DISPLAYED", "END OF THE REPORT"] == lines[-2:]
    assert "    EnvID:        00000001" in display.groups(entries, detail=True).splitlines()


def test_the_table_marks_stale_connections() -> None:
    """A star and a closing line tell which connections a refresh left behind."""
    entry = record()
    entry._ledger.is_stale = lambda _: True
    text = display.connections([entry.snapshot()])
    assert "ftp_serv_21*" in text
    assert "* = the rule or an action of it was changed" in text


def test_prometheus_text_is_well_formed() -> None:
    """Every line is a comment or a sample, and labels are escaped."""
    counts = Counts()
    counts.opened['odd"rule\\'] += 3
    counts.closed["web", "done"] += 1
    text = prometheus(counts, live=2, workers=1, generation=4)
    sample = re.compile(r'^[a-z_]+(\{([a-z]+="([^"\\]|\\.)*",?)+\})? \d+$')
    assert [] == [line for line in text.splitlines() if not line.startswith("# ") and not sample.match(line)]
    assert 'attls_connections_opened_total{rule="odd\\"rule\\\\"} 3' in text
    assert "attls_connections 2" in text
