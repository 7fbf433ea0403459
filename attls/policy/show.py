"""A policy as its reader understood it: effective values in the layout and with the labels of `pasearch -t`.

Environment actions are shown with every parameter, defaults included; connection actions with what they code. Scripts
and people who know the original report find the same labels in the same order; `as_json` has the same facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

from attls.model import AddressRange, Conditions, Defaults, Direction, PortRange, TimeCondition
from attls.policy import codes, language
from attls.policy.language import Kind, Parameter, Value
from attls.policy.match import address_text
from attls.policy.resolve import combine
from attls.policy.rules import Action, Rule

_SCOPES = {
    "TTLSGroupAction": "Group",
    "TTLSEnvironmentAction": "Environment",
    "TTLSConnectionAction": "Connection",
}
# The blocks of each action in the order of the report.
_BLOCKS = {
    "TTLSGroupAction": ("TTLSGroupAction", "TTLSGroupAdvancedParms"),
    "TTLSEnvironmentAction": (
        "TTLSEnvironmentAction",
        "TTLSKeyringParms",
        "TTLSEnvironmentAdvancedParms",
        "TTLSSignatureParms",
        "TTLSCipherParms",
        "TTLSGskAdvancedParms",
        "TTLSGskLdapParms",
        "TTLSGskHttpCdpParms",
        "TTLSGskOcspParms",
    ),
    "TTLSConnectionAction": (
        "TTLSConnectionAction",
        "TTLSConnectionAdvancedParms",
        "TTLSSignatureParms",
        "TTLSCipherParms",
    ),
}
# What the report shows whether coded or not, in its order. Everything else is shown, behind these, when it is coded.
_ALWAYS = {
    name: place
    for place, name in enumerate(
        (
            "TTLSEnabled",
            "HandshakeRole",
            "CtraceClearText",
            "Trace",
            "FIPS140",
            "SuiteBProfile",
            "SecondaryMap",
            "SyslogFacility",
            "Keyring",
            "SSLv2",
            "SSLv3",
            "TLSv1",
            "TLSv1.1",
            "TLSv1.2",
            "TLSv1.3",
            "MiddleBoxCompatMode",
            "ApplicationControlled",
            "HandshakeTimeout",
            "ClientAuthType",
            "ResetCipherTimer",
            "TruncatedHMAC",
            "CertValidationMode",
            "ServerMaxSSLFragment",
            "ClientMaxSSLFragment",
            "ServerHandshakeSNI",
            "ClientHandshakeSNI",
            "ClientExtendedMasterSecret",
            "ServerExtendedMasterSecret",
            "Renegotiation",
            "RenegotiationIndicator",
            "RenegotiationCertCheck",
            "3DesKeyCheck",
            "ClientEDHGroupSize",
            "ServerEDHGroupSize",
            "PeerMinCertVersion",
            "PeerMinDHKeySize",
            "PeerMinDsaKeySize",
            "PeerMinECCKeySize",
            "PeerMinRsaKeySize",
            "ServerScsv",
            "ClientECurves",
            "ClientKeyShareGroups",
            "ServerKeyShareGroups",
            "ServerKexECurves",
            "SignaturePairs",
            "GSK_V3_SESSION_TIMEOUT",
            "GSK_V3_SIDCACHE_SIZE",
            "GSK_SESSION_TICKET_CLIENT_ENABLE",
            "GSK_SESSION_TICKET_CLIENT_MAXSIZE",
            "GSK_SESSION_TICKET_SERVER_ENABLE",
            "GSK_SESSION_TICKET_SERVER_ALGORITHM",
            "GSK_SESSION_TICKET_SERVER_COUNT",
            "GSK_SESSION_TICKET_SERVER_KEY_REFRESH",
            "GSK_SESSION_TICKET_SERVER_TIMEOUT",
            "HttpCdpEnable",
            "HttpCdpProxyServerPort",
            "HttpCdpResponseTimeout",
            "HttpCdpMaxResponseSize",
            "HttpCdpCacheSize",
            "HttpCdpCacheEntryMaxsize",
            "OcspAiaEnable",
            "OcspProxyServerPort",
            "OcspRetrieveViaGet",
            "OcspUrlPriority",
            "OcspRequestSigalg",
            "OcspClientCacheSize",
            "OcspCliCacheEntryMaxsize",
            "OcspNonceGenEnable",
            "OcspNonceCheckEnable",
            "OcspNonceSize",
            "OcspResponseTimeout",
            "OcspMaxResponseSize",
            "OcspServerStapling",
        )
    )
}
# Shown at every level below the group, because that is where they come from.
_INHERITED = {"TTLSEnvironmentAction": ("Trace",), "TTLSConnectionAction": ("CtraceClearText", "Trace")}
# Standing in the environment although the group has them.
_GROUP_ONLY = ("CtraceClearText", "SecondaryMap")
_DEEPER = ("TTLSGskLdapParms", "TTLSGskHttpCdpParms", "TTLSGskOcspParms")
_SECRET = ("KeyringPw", "GSK_LDAP_USER_PW")


def as_value(name: str, value: Value) -> object:
    """Turn an effective value into one that JSON can hold, passwords left out, groups as four digits."""
    if name in _SECRET:
        return "********"
    if isinstance(value, tuple):
        return [f"{item:04}" if isinstance(item, int) else item for item in value]
    return value


def as_json(effective: dict[str, Value]) -> dict[str, object]:
    """Turn effective parameters into a JSON object."""
    return {name: as_value(name, value) for name, value in effective.items()}


def conditions_json(conditions: Conditions) -> dict[str, object]:
    """Turn the conditions of a rule into a JSON object, with the names that policy has for them."""
    both = len(conditions.directions) > 1
    return {
        "Direction": "Both" if both else next(iter(conditions.directions)).value.capitalize(),
        "LocalAddr": [address_text(item) for item in conditions.local_addresses] or "All",
        "RemoteAddr": [address_text(item) for item in conditions.remote_addresses] or "All",
        "LocalPortRange": [_ports(item) for item in conditions.local_ports] or "All",
        "RemotePortRange": [_ports(item) for item in conditions.remote_ports] or "All",
        "Jobname": conditions.job,
        "Userid": conditions.user,
        "IpTimeCondition": [_time_json(condition) for condition in conditions.times],
    }


def heading_lines(product: str, image: str, changed: datetime, now: datetime) -> Iterator[str]:
    """Write what a report begins with: who made it, for which stack, when, and the instance of the policy."""
    yield f"{'TCP/IP pasearch ' + product:<42}Image Name: {image}"
    yield _two("  ", "Date:", f"{now:%m/%d/%Y}", "Time:", f"{now:%H:%M:%S}")
    yield _at("  ", "TTLS Instance Id:", str(int(changed.timestamp())), 24)


def rule_lines(
    rule: Rule, actions: list[Action], defaults: Defaults, *, changed: datetime, utc_offset: timedelta
) -> Iterator[str]:
    """Write one rule and its actions (group, environment, connection) the way `pasearch -t` does.

    `changed` is when the text was last changed, `utc_offset` what local time is ahead of UTC.
    """
    yield _at("", "policyRule:", rule.name, 24)
    yield _at("  ", "Rule Type:", "TTLS", 24)
    yield _two("  ", "Version:", "3", "Status:", "Active")
    yield _two("  ", "Weight:", str(rule.priority), "ForLoadDist:", "False")
    yield _two("  ", "Priority:", str(rule.priority), "Sequence Actions:", "Don't Care")
    yield _at("  ", "No. Policy Action:", str(len(actions)), 24)
    for action in actions:
        yield _at("  ", "policyAction:", action.name, 24)
        yield _at("   ", "ActionType:", f"TTLS {_SCOPES[action.statement]}", 24)
        yield _at("   ", "Action Sequence:", "0", 24)
    for condition in rule.conditions.times or (TimeCondition(),):
        yield from _time_lines(condition, utc_offset)
    yield from _condition_lines(rule.conditions)
    yield from _changed_lines("  ", changed)
    for level, action in enumerate(actions, 1):
        yield ""
        # Each action shows what holds at its level: what a connection action overrides still stands in the environment.
        yield from action_lines(action, combine([above.coded for above in actions[:level]], defaults), changed=changed)


def action_lines(action: Action, effective: dict[str, Value], *, changed: datetime) -> Iterator[str]:
    """Write one action; `effective` are the parameters that hold at its level, `changed` is as for a rule."""
    yield _at("  ", "TTLS Action:", action.name, 32)
    for label, value in (("Version:", "3"), ("Status:", "Active"), ("Scope:", _SCOPES[action.statement])):
        yield _at("    ", label, value, 32)
    inherited = _INHERITED.get(action.statement, ())
    last: list[str] = []  # the user instance ends the report of an action
    for block in _BLOCKS[action.statement]:
        own = block == action.statement
        indent = "    " if own else "      " if block in _DEEPER else "     "
        lines: list[str] = []
        shown = [
            parameter
            for parameter in language.STATEMENTS[block].parameters
            if parameter.name in action.coded or parameter.name in inherited or _always(action.statement, parameter)
        ]
        for parameter in sorted(shown, key=lambda parameter: _ALWAYS.get(parameter.name, len(_ALWAYS))):
            if parameter.name in effective:
                to = last if parameter.name.endswith("UserInstance") else lines
                to.extend(_parameter_lines(indent, parameter, effective[parameter.name]))
        if lines and not own:
            yield f"{indent[:-1]}{block}:"
        yield from lines
    yield from last
    yield from _changed_lines("    ", changed)


def _always(statement: str, parameter: Parameter) -> bool:
    if statement == "TTLSConnectionAction":
        return False
    return parameter.name in _ALWAYS and (statement == "TTLSGroupAction" or parameter.name not in _GROUP_ONLY)


def action_effective(action: Action, defaults: Defaults) -> dict[str, Value]:
    """Work out the parameters of an action on its own, as if the other actions said nothing."""
    return combine([action.coded], defaults)


def _parameter_lines(indent: str, parameter: Parameter, value: Value) -> Iterator[str]:
    column = 48 if parameter.name.startswith("GSK_") else 32
    if not isinstance(value, tuple) and parameter.kind is not Kind.PAIR:
        yield _at(indent, f"{parameter.name}:", str(as_value(parameter.name, value)), column)
        return
    items = value if isinstance(value, tuple) else (str(value),)
    if not items:
        if not parameter.name.startswith("V"):  # an empty cipher list needs no line
            yield _at(indent, f"{parameter.name}:", "the library's own list", column)
        return
    if items == ("Any",):
        yield _at(indent, f"{parameter.name}:", "Any", column)
        return
    if parameter.kind in (Kind.LABEL, Kind.HOST, Kind.NAME_AND_LABEL, Kind.TEXT):
        yield from (_at(indent, f"{parameter.name}:", str(item), column) for item in items)
        return
    names = {
        Kind.V2_CIPHERS: codes.V2_CIPHERS,
        Kind.CIPHERS: codes.CIPHERS,
        Kind.PAIRS: codes.SIGNATURE_PAIRS,
        Kind.PAIR: codes.SIGNATURE_PAIRS,
    }.get(parameter.kind)
    label = "v3CipherSuites" if parameter.name == "V3CipherSuites" else parameter.name
    yield f"{indent}{label}:"
    for item in items:
        if isinstance(item, int):
            yield f"{indent} {item:04}  {codes.GROUPS[item]}"
        else:
            yield f"{indent} {item}  {names[item]}" if names else f"{indent} {item}"


def _changed_lines(indent: str, changed: datetime) -> Iterator[str]:
    # Policy lives in files here, which remember only their last change.
    yield f"{indent}Policy created: {changed.ctime()}"
    yield f"{indent}Policy updated: {changed.ctime()}"


def _time_lines(condition: TimeCondition, utc_offset: timedelta) -> Iterator[str]:
    yield "  Time Periods:"
    yield "   Day of Month Mask:"
    yield _at("   ", "First to Last:", _mask(condition.days_from_first), 24)
    yield _at("   ", "Last to First:", _mask(condition.days_from_last), 24)
    yield _at("   ", "Month of Yr Mask:", _mask(condition.months), 24)
    yield _at("   ", "Day of Week Mask:", f"{_mask(condition.weekdays)}  (Sunday - Saturday)", 24)
    yield _at("   ", "Start Date Time:", f"{condition.begins:%Y-%m-%d %H:%M:%S}" if condition.begins else "None", 24)
    yield _at("   ", "End Date Time:", f"{condition.ends:%Y-%m-%d %H:%M:%S}" if condition.ends else "None", 24)
    for start, end in condition.daily:
        yield _two("   ", "Fr TimeOfDay:", _clock(start), "To TimeOfDay:", _clock(end))
        utc = [_clock((minutes - utc_offset // timedelta(minutes=1)) % (24 * 60)) for minutes in (start, end)]
        yield _two("   ", "Fr TimeOfDay UTC:", utc[0], "To TimeOfDay UTC:", utc[1])
    yield _at("   ", "TimeZone:", "Local", 24)


def _condition_lines(conditions: Conditions) -> Iterator[str]:
    yield _two("  ", "TTLS Condition Summary:", "", "NegativeIndicator:", "Off")
    for side, ranges in (("Local", conditions.local_addresses), ("Remote", conditions.remote_addresses)):
        yield f"   {side} Address:"
        # A list that is not one range is summed up from its lowest to its highest address, then listed.
        yield _at("    ", "FromAddr:", _address(min(ranges), last=False) if ranges else "All", 24)
        yield _at("    ", "ToAddr:", _address(max(ranges), last=True) if ranges else "All", 24)
        if len(ranges) > 1:
            for item in ranges:
                yield _at("     ", "Addr:", address_text(item), 24)
    for side, ports in (("Local", conditions.local_ports), ("Remote", conditions.remote_ports)):
        first, last = (ports[0].first, ports[-1].last) if ports else (0, 0)
        yield _two("   ", f"{side}PortFrom:", str(first), f"{side}PortTo:", str(last))
        if len(ports) > 1:
            for stretch in ports:
                yield _at("     ", "Port:", _ports(stretch), 24)
    yield _two("   ", "JobName:", conditions.job or "", "UserId:", conditions.user or "")
    both = len(conditions.directions) > 1
    inbound = Direction.INBOUND in conditions.directions
    yield _at("   ", "ServiceDirection:", "Both" if both else "Inbound" if inbound else "Outbound", 24)


def _at(indent: str, label: str, value: str, column: int) -> str:
    # A label and a value that starts at a fixed column.
    return f"{indent + label + ' ':<{column}}{value}".rstrip()


def _two(indent: str, label: str, value: str, second: str, other: str) -> str:
    return f"{_at(indent, label, value, 24):<42}{second:<19}{other}".rstrip()


def _address(item: AddressRange, *, last: bool) -> str:
    kind = IPv4Address if item.version == 4 else IPv6Address
    return str(kind(item.last if last else item.first))


def _ports(item: PortRange) -> str:
    return str(item.first) if item.first == item.last else f"{item.first}-{item.last}"


def _mask(mask: tuple[bool, ...]) -> str:
    return "".join("1" if bit else "0" for bit in mask)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _time_json(condition: TimeCondition) -> dict[str, object]:
    return {
        "ConditionTimeRange": None
        if condition.begins is None or condition.ends is None
        else f"{condition.begins:%Y%m%d%H%M%S}:{condition.ends:%Y%m%d%H%M%S}",
        "MonthOfYearMask": _mask(condition.months),
        "DayOfMonthMask": _mask(condition.days_from_first + condition.days_from_last),
        "DayOfWeekMask": _mask(condition.weekdays),
        "TimeOfDayRange": [f"{_clock(start)}-{_clock(end)}" for start, end in condition.daily],
    }
