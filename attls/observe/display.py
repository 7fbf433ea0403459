"""Snapshots to text: the netstat reports and the status page.

Everything here takes plain JSON values (what `Record.snapshot` returns, what the admin socket carries) and returns
text. The labels of the connection block are those that existing scripts scrape from NETSTAT TTLS: `LocalSocket:`,
`RemoteSocket:`, `SecLevel:` with its value from column 16 on, and `Cipher:` followed by code and name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Snapshot = Mapping[str, Any]

_LEVELS = {
    "SSLv2": "SSL Version 2",
    "SSLv3": "SSL Version 3",
    "TLSv1": "TLS Version 1",
    "TLSv1.0": "TLS Version 1",
    "TLSv1.1": "TLS Version 1.1",
    "TLSv1.2": "TLS Version 1.2",
    "TLSv1.3": "TLS Version 1.3",
}


def security_level(snapshot: Snapshot) -> str:
    """Name the protocol as netstat does (`TLS Version 1.3`), or say how far the connection has come."""
    if snapshot["status"] != "Secure":
        return str(snapshot["status"])
    return _LEVELS.get(snapshot["protocol"] or "", str(snapshot["protocol"]))


def _socket(text: str) -> str:
    """Turn `192.0.2.1:443` or `[2001:db8::1]:443` into netstat's `192.0.2.1..443`."""
    address, _, port = text.rpartition(":")
    return f"{address.strip('[]')}..{port}"


def _shown(value: object) -> str:
    if value is None or value == "":
        return "N/A"
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def connection(snapshot: Snapshot, *, detail: bool = False) -> str:
    """Return the report of one connection; `detail` adds who owns it, what passed and the rule's effective values."""
    cipher = f"{snapshot['cipher4']} {snapshot['cipher']}" if snapshot["cipher4"] else "N/A"
    lines = [
        f"ConnID: {snapshot['connid']}",
        f"  JobName:      {_shown(snapshot['job'])}",
        f"  LocalSocket:  {_socket(snapshot['local'])}",
        f"  RemoteSocket: {_socket(snapshot['remote'])}",
        f"  SecLevel:     {security_level(snapshot)}",
        f"  Cipher:       {cipher}",
        f"  KeyShare:     {_shown(snapshot['key_share'])}",
        f"  CertUserID:   {_shown(snapshot['cert_user'])}",
        f"  MapType:      {_shown(snapshot['map_type'])}",
        "  FIPS140:      Off",
    ]
    if detail:
        lines += [
            f"  Direction:    {_shown(snapshot['direction']).capitalize()}",
            f"  Status:       {_shown(snapshot['status'])}",
            f"  Role:         {_shown(snapshot['role'])}",
            f"  Resumed:      {_shown(snapshot['resumed'])}",
            f"  PeerSubject:  {_shown(snapshot['peer_subject'])}",
            f"  UserID:       {_shown(snapshot['user'])}",
            f"  PID:          {_shown(snapshot['pid'])}",
            f"  JobSource:    {_shown(snapshot['job_source'])}",
            f"  BytesIn:      {snapshot['bytes_in']}",
            f"  BytesOut:     {snapshot['bytes_out']}",
            f"  Worker:       {snapshot['worker']}",
        ]
    stale = "  (stale)" if snapshot["stale"] else ""
    lines += [
        f"TTLSRule: {_shown(snapshot['rule'])}{stale}",
        f"  TTLSGrpAction:  {_shown(snapshot['group'])}",
        f"  TTLSEnvAction:  {_shown(snapshot['environment'])}",
        f"  TTLSConnAction: {_shown(snapshot['connection'])}",
    ]
    if detail and snapshot.get("effective"):
        lines.append("Effective:")
        lines += [f"  {name + ':':<28} {_listed(value)}" for name, value in snapshot["effective"].items()]
    return "\n".join(lines)


def _listed(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_shown, value)) or "N/A"
    return _shown(value)


def connections(snapshots: Sequence[Snapshot]) -> str:
    """Return the table of many connections, one line each."""
    rows = [
        (
            snapshot["connid"],
            str(snapshot["direction"]),
            _socket(snapshot["local"]),
            _socket(snapshot["remote"]),
            _shown(snapshot["user"]),
            _shown(snapshot["job"]),
            _shown(snapshot["rule"]) + ("*" if snapshot["stale"] else ""),
            str(snapshot["status"]),
            _shown(snapshot["protocol"]),
            _shown(snapshot["cipher"]),
        )
        for snapshot in snapshots
    ]
    heading = ("ConnID", "Dir", "Local", "Remote", "User", "Job", "Rule", "Status", "Protocol", "Cipher")
    lines = _table(heading, rows)
    lines.append(f"{len(rows)} OF {len(rows)} RECORDS DISPLAYED")
    if any(snapshot["stale"] for snapshot in snapshots):
        lines.append(
            "* = the rule or an action of it was changed or deleted since; the connection keeps what it was born with"
        )
    return "\n".join(lines)


def groups(entries: Sequence[Mapping[str, Any]], *, detail: bool = False) -> str:
    """Return the table of group actions; `entries` are `name`, `id`, `connections` and `environments` of each."""
    rows = [(str(entry["name"]), str(entry["id"]), str(entry["connections"])) for entry in entries]
    heading = ("TTLSGRPACTION", "GROUP ID", "CONNS")
    if not detail:
        lines = _table(heading, rows)
    else:
        lines = []
        for entry in entries:
            lines += [
                f"TTLSGrpAction: {_shown(entry['name'])}",
                f"  GroupID:      {entry['id']}",
                f"  GroupConns:   {entry['connections']}",
            ]
            for environment in entry["environments"]:
                lines += [
                    f"  TTLSEnvAction: {_shown(environment['name'])}",
                    f"    EnvID:        {environment['id']}",
                    f"    EnvConns:     {environment['connections']}",
                ]
    lines += [f"{len(rows)} OF {len(rows)} RECORDS DISPLAYED", "END OF THE REPORT"]
    return "\n".join(lines)


def group_entries(
    snapshots: Iterable[Snapshot],
    in_force: Iterable[str],
    *,
    group_identifiers: Mapping[str, int],
    environment_identifiers: Mapping[str, int],
) -> list[dict[str, Any]]:
    """Return one entry per group action that is `in_force` or still has connections, in order of its number.

    The identifiers are the numbers messages show as GRPID and ENVID; a name without one counts as 0.
    """
    totals: dict[str, int] = dict.fromkeys(in_force, 0)
    tallies: dict[str, dict[str, int]] = {}
    for snapshot in snapshots:
        group = snapshot["group"]
        if not group:
            continue
        totals[group] = totals.get(group, 0) + 1
        environment = snapshot["environment"]
        if environment:
            tally = tallies.setdefault(group, {})
            tally[environment] = tally.get(environment, 0) + 1
    return [
        {
            "name": name,
            "id": f"{group_identifiers.get(name, 0):08X}",
            "connections": totals[name],
            "environments": [
                {"name": inner, "id": f"{environment_identifiers.get(inner, 0):08X}", "connections": count}
                for inner, count in sorted(tallies.get(name, {}).items())
            ],
        }
        for name in sorted(totals, key=lambda name: (group_identifiers.get(name, 0), name))
    ]


def finding(diagnostic: Mapping[str, Any]) -> str:
    """Return a diagnostic as one line for the log, `PATH:LINE:COL: error: sentence`."""
    place = "{file}:{line}:{column}: {severity}: {message}".format_map(diagnostic)
    hint = diagnostic.get("hint")
    return f"{place} ({hint})" if hint else place


def status(values: Mapping[str, Any]) -> str:
    """Return the status page of a running daemon."""
    counts = values["counts"]
    refused = sum(count for _, count in counts["refused"])
    closed: dict[str, int] = {}
    for _, word, count in counts["closed"]:
        closed[word] = closed.get(word, 0) + count
    ended = ", ".join(f"{count} {word}" for word, count in sorted(closed.items(), key=lambda item: -item[1]))
    lines = [
        f"State:        {values['state']}",
        f"PID:          {values['pid']}",
        f"Version:      {values['version']}",
        f"RunDirectory: {values['run_dir']}",
        f"Policy:       {values['policy']} ({values['rules']} rules, defaults {values['defaults']})",
        f"Generation:   {values['generation']} since {values['generation_since']}",
        f"Keyrings:     {values['keyrings']}",
        f"Workers:      {values['workers']} ({values['restarts']} replaced)",
        f"Connections:  {values['connections']} ({values['stale']} stale, {values['handshakes']} in handshake)",
        f"Opened:       {sum(count for _, count in counts['opened'])}",
        f"Ended:        {ended or 'none'}",
        f"Refused:      {refused}",
        f"Steering:     {'on' if values['steering'] else 'off'}",
    ]
    if values.get("last_error"):
        lines.append(f"LastRefresh:  failed: {values['last_error']}")
    return "\n".join(lines)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (heading, *rows)) for column in range(len(heading))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heading, *rows)
    ]
