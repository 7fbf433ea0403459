"""The words behind a keyword to a value: one small parser for each kind that the vocabulary knows.

A parser takes the words of a line (never empty) and the row of the vocabulary, and returns the value and how many
words it used; what is wrong with them it raises as `BadValue`. Words that are left over are ignored, as z/OS does;
`resolve` warns when they look as if somebody had meant them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from datetime import datetime

from attls.model import AddressRange, PortRange, TimeCondition
from attls.policy import codes
from attls.policy.language import Kind, Parameter

Parsed = tuple[object, int]

_PLACEHOLDER = re.compile(r"<.*|\[.*\]|\?[^*?]+\?|\.\.\.")
_PATTERN = re.compile(r"[\w.@:$*?~+\\-]{1,255}")
_NAME = re.compile(r"[^\s{}<>\[\]?*\"]{1,32}")
_HOST = re.compile(r"(\*\.)?[\w-]{1,63}(\.[\w-]{1,63})*\.?|[0-9A-Fa-f:.]+")
_PORTS = re.compile(r"(\d{1,10})(?:([-:])(\d{1,10}))?", re.ASCII)
_TIME = re.compile(r"(\d\d?):(\d\d)-(\d\d?):(\d\d)", re.ASCII)
_DAY = 24 * 60
_ADDRESS_KINDS = (Kind.ADDRESSES, Kind.ADDRESS, Kind.ADDRESS_PREFIX, Kind.ADDRESS_RANGE)


class BadValue(Exception):  # noqa: N818 - a verdict about a text, told to `resolve`, never to a caller
    """What is wrong with a value: a sentence, the word that is to blame, and a hint."""

    def __init__(self, message: str, *, word: int = 1, hint: str | None = None, code: str = "bad-value") -> None:
        super().__init__(message)
        self.message = message
        self.word = word
        self.hint = hint
        self.code = code


def parse(parameter: Parameter, words: list[str]) -> Parsed:
    """Turn `words` into the value of `parameter` and the number of words used; raises BadValue."""
    word = words[0]
    if word[0:1] == '"' and word != '"':
        raise BadValue(f"the double quote before {parameter.name} '{word[1:61]}' is not closed")
    # Placeholders of a template are the one mistake worth recognising whatever is expected in their place.
    if word[0:1] in ("<", "[", "?", ".") and _PLACEHOLDER.fullmatch(word) and _is_placeholder(parameter, word):
        raise BadValue(
            f"{word} is a placeholder, not a value", hint=f"put the {parameter.name} here", code="placeholder"
        )
    return _PARSERS[parameter.kind](parameter, words)


def check_name(name: str, statement: str) -> None:
    """Raise BadValue unless `name` can be the name of a statement: 1 to 32 characters without blanks and brackets."""
    if name[0:1] in ("<", "[", "?", ".") and _PLACEHOLDER.fullmatch(name):
        raise BadValue(f"{name} is a placeholder, not a name", code="placeholder")
    if not _NAME.fullmatch(name):
        if len(name) > 32:
            raise BadValue(f"the name of a {statement} has at most 32 characters, this one {len(name)}", code="name")
        raise BadValue(f"'{name}' cannot be the name of a {statement}", code="name")


def merge_addresses(ranges: Iterable[AddressRange]) -> tuple[AddressRange, ...]:
    """Sort address ranges and join those that touch or overlap."""
    merged: list[AddressRange] = []
    for item in sorted(ranges):
        last = merged[-1] if merged else None
        if last is not None and last.version == item.version and item.first <= last.last + 1:
            if item.last > last.last:
                merged[-1] = AddressRange(last.version, last.first, item.last)
        else:
            merged.append(item)
    return tuple(merged)


def merge_ports(ranges: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """Sort port ranges and join those that touch or overlap."""
    merged: list[PortRange] = []
    for item in sorted(ranges):
        if merged and item.first <= merged[-1].last + 1:
            if item.last > merged[-1].last:
                merged[-1] = PortRange(merged[-1].first, item.last)
        else:
            merged.append(item)
    return tuple(merged)


def time_condition(parts: dict[str, object]) -> TimeCondition:
    """Put the parsed lines of one IpTimeCondition together."""
    condition: dict[str, object] = {}
    if "ConditionTimeRange" in parts:
        condition["begins"], condition["ends"] = parts["ConditionTimeRange"]  # type: ignore[misc]
    if "MonthOfYearMask" in parts:
        condition["months"] = _mask(parts["MonthOfYearMask"])
    if "DayOfMonthMask" in parts:
        days = _mask(parts["DayOfMonthMask"])
        condition["days_from_first"] = days[:31]
        # 31 digits say nothing about days from the end; read as "all" they would make the mask useless.
        condition["days_from_last"] = days[31:] or (False,) * 31
    if "DayOfWeekMask" in parts:
        condition["weekdays"] = _mask(parts["DayOfWeekMask"])
    if "TimeOfDayRange" in parts:
        condition["daily"] = parts["TimeOfDayRange"]
    return TimeCondition(**condition)  # type: ignore[arg-type]


def _mask(digits: object) -> tuple[bool, ...]:
    return tuple(digit == "1" for digit in str(digits))


def _is_placeholder(parameter: Parameter, word: str) -> bool:
    # `?AB?` is a fair pattern for a job name, and `[::1]` an address as it is written elsewhere.
    if parameter.kind is Kind.PATTERN:
        return not word.startswith("?")
    return not (parameter.kind in _ADDRESS_KINDS and word.startswith("[") and ":" in word)


def _one_of(choices: Iterable[str]) -> str:
    *first, last = choices
    return f"{', '.join(first)} or {last}" if first else last


def _choice(parameter: Parameter, words: list[str]) -> Parsed:
    word = words[0]
    if word in parameter.choices:
        return word, 1
    lower = word.lower()
    for choice in parameter.choices:
        if choice.lower() == lower:
            return choice, 1
    raise BadValue(f"{parameter.name} '{word}' is not {_one_of(parameter.choices)}", code="bad-choice")


def _number(parameter: Parameter, words: list[str]) -> Parsed:
    word = words[0]
    digits = word[1:] if word.startswith("-") and parameter.low < 0 else word
    if not (digits.isascii() and digits.isdigit()):
        raise BadValue(f"{parameter.name} '{word}' is not a number")
    # A number of a thousand digits is out of every range; int() would refuse it with an error of its own.
    value = int(word) if len(digits.lstrip("0")) <= 10 else parameter.high + 1
    if not parameter.low <= value <= parameter.high:
        raise BadValue(f"{parameter.name} {word} is not between {parameter.low} and {parameter.high}")
    return value, 1


def _address(text: str, parameter: Parameter) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if text.isascii() and text.isdigit():
        hint = "an address has dots or colons; a port belongs in a PortRange parameter"
        if len(text) <= 10 and int(text) < 1 << 32:
            hint = f"z/OS would read it as {ipaddress.IPv4Address(int(text))}; a port belongs in a PortRange parameter"
        raise BadValue(f"{parameter.name} '{text}' is a number, not an IP address", hint=hint, code="bare-number")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        brackets = "an address stands here without brackets" if text[0:1] == "[" else None
        raise BadValue(
            f"{parameter.name} '{text[:60]}' is not an IP address", hint=brackets, code="bad-address"
        ) from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise BadValue(f"{parameter.name} '{text}': an address in a policy has no zone", code="bad-address")
        if address.ipv4_mapped is not None:
            raise BadValue(
                f"{parameter.name} '{text}' is an IPv4 address in IPv6 dress",
                hint=f"write {address.ipv4_mapped}; it fits both kinds of sockets",
                code="bad-address",
            )
        if 1 < int(address) < 1 << 32:
            raise BadValue(f"{parameter.name} '{text}' lies in ::/96, which no TCP connection uses", code="bad-address")
    return address


def _prefix(text: str, parameter: Parameter) -> AddressRange:
    base, _, length = text.partition("/")
    address = _address(base, parameter)
    bits = address.max_prefixlen
    if not (length.isascii() and length.isdigit()) or len(length) > 3 or int(length) > bits:
        raise BadValue(
            f"{parameter.name} '{text[:60]}': the prefix length is a number from 0 to {bits}", code="bad-address"
        )
    host_bits = bits - int(length)
    first = int(address) >> host_bits << host_bits
    return AddressRange(address.version, first, first + (1 << host_bits) - 1)


def _range(text: str, parameter: Parameter) -> AddressRange:
    first_text, _, last_text = text.partition("-")
    first, last = _address(first_text, parameter), _address(last_text, parameter)
    if first.version != last.version:
        raise BadValue(f"{parameter.name} '{text[:100]}' mixes IPv4 and IPv6", code="bad-address")
    if int(first) > int(last):
        raise BadValue(f"{parameter.name} '{text}' ends before it begins", code="bad-address")
    return AddressRange(first.version, int(first), int(last))


def _no_range_with_blanks(parameter: Parameter, words: list[str]) -> None:
    # Silently dropping the second end would change which connections are meant.
    if len(words) > 1:
        following = words[1].lstrip("-:")
        try:
            ipaddress.ip_address(following or (words[2] if len(words) > 2 else ""))
        except ValueError:
            return
        raise BadValue(
            f"{parameter.name}: a range of addresses is written first-last, with a dash and no blanks",
            word=2,
            code="bad-address",
        )


def _addresses(parameter: Parameter, words: list[str]) -> Parsed:
    text = words[0]
    if text.lower() == "all":
        return (), 1
    _no_range_with_blanks(parameter, words)
    if "/" in text:
        return (_prefix(text, parameter),), 1
    if "-" in text:
        return (_range(text, parameter),), 1
    address = _address(text, parameter)
    return (AddressRange(address.version, int(address), int(address)),), 1


def _single_address(parameter: Parameter, words: list[str]) -> Parsed:
    _no_range_with_blanks(parameter, words)
    if "/" in words[0] or "-" in words[0]:
        raise BadValue(
            f"{parameter.name} is one address", hint="a prefix or range belongs in an IpAddrSet", code="bad-address"
        )
    address = _address(words[0], parameter)
    return (AddressRange(address.version, int(address), int(address)),), 1


def _address_prefix(parameter: Parameter, words: list[str]) -> Parsed:
    if "/" not in words[0]:
        raise BadValue(f"{parameter.name} '{words[0][:60]}' is not address/prefix", code="bad-address")
    return (_prefix(words[0], parameter),), 1


def _address_range(parameter: Parameter, words: list[str]) -> Parsed:
    _no_range_with_blanks(parameter, words)
    if "-" not in words[0]:
        raise BadValue(f"{parameter.name} '{words[0][:60]}' is not first-last", code="bad-address")
    return (_range(words[0], parameter),), 1


def _ports(parameter: Parameter, words: list[str]) -> Parsed:
    text, used = words[0], 1
    if text.lower() == "all":
        return (), 1
    match = _PORTS.fullmatch(text)
    if match is None:
        raise BadValue(
            f"{parameter.name} '{text[:60]}' is not a port or a range of ports such as 20-25", code="bad-port"
        )
    first, last = match[1], match[3]
    if len(words) > 1:
        if last is None and words[1].isascii() and words[1].isdigit():
            last, used = words[1][:11], 2
        elif words[1][0:1] in ("-", ":"):
            raise BadValue(
                f"{parameter.name}: the ends of a range are joined by a dash, a colon or a blank, not by several",
                word=2,
                code="bad-port",
            )
    low = int(first)
    high = low if last is None else int(last)
    for number in (low, high):
        if not 1 <= number <= 65535:
            raise BadValue(f"{parameter.name} {number} is not between 1 and 65535", code="bad-port")
    if low > high:
        raise BadValue(f"{parameter.name} {low}-{high} ends before it begins", code="bad-port")
    return (PortRange(low, high),), used


def _pattern(parameter: Parameter, words: list[str]) -> Parsed:
    if not _PATTERN.fullmatch(words[0]):
        raise BadValue(f"{parameter.name} '{words[0][:60]}' is no name with * and ? as wildcards")
    return words[0].upper(), 1


def _text(parameter: Parameter, words: list[str]) -> Parsed:
    if not words[0]:
        raise BadValue(f"{parameter.name} is empty")
    if parameter.high < len(words[0]):
        raise BadValue(f"{parameter.name} has at most {parameter.high} characters")
    return words[0], 1


def _label(parameter: Parameter, words: list[str]) -> Parsed:
    if not words[0]:
        raise BadValue(f"{parameter.name} is empty")
    return _empty_label(parameter, words)


def _empty_label(parameter: Parameter, words: list[str]) -> Parsed:
    if len(words[0]) > 127:
        raise BadValue(f"{parameter.name} has at most 127 characters")
    return words[0], 1


def is_host(text: str) -> bool:
    """Say whether `text` can stand where a policy wants a host name, which may begin with `*.`, or an address."""
    return len(text) <= 255 and _HOST.fullmatch(text) is not None


def _host(parameter: Parameter, words: list[str]) -> Parsed:
    if not is_host(words[0]):
        raise BadValue(f"{parameter.name} '{words[0][:60]}' is not a host name")
    return words[0], 1


def _name_and_label(parameter: Parameter, words: list[str]) -> Parsed:
    # How z/OS writes the pair is not known to us; blank, comma and slash are all read.
    name, label, used = words[0], words[1] if len(words) > 1 else "", 2
    for separator in ",/":
        if separator in name:
            name, _, label = name.partition(separator)
            used = 1
            break
    if not label:
        raise BadValue(
            f"{parameter.name} wants a host name and a certificate label", hint="for example www.example.com WEB"
        )
    _host(parameter, [name])
    return f"{name} {label}", used


def _url(parameter: Parameter, words: list[str]) -> Parsed:
    if not words[0].lower().startswith("http://") or len(words[0]) == 7:
        raise BadValue(f"{parameter.name} '{words[0][:60]}' does not begin with http:// and a host")
    return _text(parameter, words)


def _pieces(parameter: Parameter, text: str, size: int, table: dict[str, str], what: str) -> tuple[str, ...]:
    # A string of codes of one size, every one of which must be known.
    if len(text) % size:
        raise BadValue(
            f"{parameter.name} '{text[:60]}' is no known name, and not a row of {size}-character codes",
            code="bad-code",
        )
    pieces = tuple(text[i : i + size].upper() for i in range(0, len(text), size))
    for piece in pieces:
        if piece not in table:
            raise BadValue(f"{parameter.name}: '{piece}' is no {what}", code="bad-code")
    return pieces


_CIPHER_BY_NAME = {name: code for code, name in codes.CIPHERS.items()}
_CIPHER_BY_SHORT = {code[2:]: name for code, name in codes.CIPHERS.items() if code.startswith("00")}
_V2_BY_NAME = {name: code for code, name in codes.V2_CIPHERS.items()}
_GROUP_BY_NAME = {name.upper(): number for number, name in codes.GROUPS.items()}
_GROUP_BY_CODE = {f"{number:04}": name for number, name in codes.GROUPS.items()}
_PAIR_BY_NAME = {name: code for code, name in codes.SIGNATURE_PAIRS.items()}


def _hexadecimal(text: str) -> bool:
    return not text.strip("0123456789ABCDEFabcdef")


def _not_hexadecimal(parameter: Parameter, text: str, what: str) -> BadValue:
    return BadValue(f"{parameter.name} '{text[:60]}' is no {what}", code="bad-code")


def _v2_ciphers(parameter: Parameter, words: list[str]) -> Parsed:
    code = _V2_BY_NAME.get(words[0].upper())
    if code is not None:
        return (code,), 1
    if not _hexadecimal(words[0]):
        raise _not_hexadecimal(parameter, words[0], "SSL 2 cipher")
    return _pieces(parameter, words[0], 1, codes.V2_CIPHERS, "SSL 2 cipher"), 1


def _ciphers(parameter: Parameter, words: list[str]) -> Parsed:
    code = _CIPHER_BY_NAME.get(words[0].upper())
    if code is not None:
        return (code,), 1
    if not _hexadecimal(words[0]):
        raise _not_hexadecimal(parameter, words[0], "cipher suite")
    short = _pieces(parameter, words[0], 2, _CIPHER_BY_SHORT, "2-character cipher code")
    return tuple(f"00{code}" for code in short), 1


def _ciphers_4(parameter: Parameter, words: list[str]) -> Parsed:
    code = _CIPHER_BY_NAME.get(words[0].upper())
    if code is not None:
        return (code,), 1
    if not _hexadecimal(words[0]):
        raise _not_hexadecimal(parameter, words[0], "cipher suite")
    return _pieces(parameter, words[0], 4, codes.CIPHERS, "4-character cipher code"), 1


def _groups(parameter: Parameter, words: list[str]) -> Parsed:
    number = _GROUP_BY_NAME.get(words[0].upper())
    if number is not None:
        return (number,), 1
    if not (words[0].isascii() and words[0].isdigit()):
        raise _not_hexadecimal(parameter, words[0], "curve or group")
    return tuple(int(code) for code in _pieces(parameter, words[0], 4, _GROUP_BY_CODE, "curve or group")), 1


def _client_groups(parameter: Parameter, words: list[str]) -> Parsed:
    if words[0].lower() == "any":
        return ("Any",), 1
    return _groups(parameter, words)


def _pairs(parameter: Parameter, words: list[str]) -> Parsed:
    code = _PAIR_BY_NAME.get(words[0].upper())
    if code is not None:
        return (code,), 1
    if not _hexadecimal(words[0]):
        raise _not_hexadecimal(parameter, words[0], "signature pair")
    return _pieces(parameter, words[0], 4, codes.SIGNATURE_PAIRS, "signature pair"), 1


def _pair(parameter: Parameter, words: list[str]) -> Parsed:
    value, used = _pairs(parameter, words)
    if not isinstance(value, tuple) or len(value) != 1:
        raise BadValue(f"{parameter.name} is one signature pair", code="bad-code")
    return value[0], used


def _digits(*lengths: int) -> Callable[[Parameter, list[str]], Parsed]:
    def read(parameter: Parameter, words: list[str]) -> Parsed:
        if len(words[0]) not in lengths or words[0].strip("01"):
            wanted = " or ".join(str(length) for length in lengths)
            raise BadValue(
                f"{parameter.name} '{words[0][:70]}' is not {wanted} digits 0 or 1 (it has {len(words[0])} characters)",
                code="bad-mask",
            )
        return words[0], 1

    return read


def _daily(parameter: Parameter, words: list[str]) -> Parsed:
    windows = []
    text, used = words[0], 1
    while text.endswith(",") and used < len(words):  # a blank behind the comma is no end of the list
        text += words[used]
        used += 1
    for part in text.split(","):
        match = _TIME.fullmatch(part)
        if match is None:
            raise BadValue(f"{parameter.name} '{part[:60]}' is not hh:mm-hh:mm", code="bad-time")
        start = int(match[1]) * 60 + int(match[2])
        end = int(match[3]) * 60 + int(match[4])
        if int(match[2]) > 59 or int(match[4]) > 59 or start >= _DAY or end > _DAY:
            raise BadValue(f"{parameter.name} '{part}' is no time of day from 00:00 to 24:00", code="bad-time")
        if start == end:
            raise BadValue(
                f"{parameter.name} '{part}' is an empty window", hint="all day is 00:00-24:00", code="bad-time"
            )
        windows.append((start, end))
    return tuple(windows), used


def _period(parameter: Parameter, words: list[str]) -> Parsed:
    begin, joined, end = words[0].replace("-", ":", 1).partition(":")
    used = 1
    if not joined and len(words) > 1:  # a colon, a dash or a blank joins the ends
        end, used = words[1], 2
    moments = []
    for text in (begin, end):
        if len(text) != 14 or not (text.isascii() and text.isdigit()):
            raise BadValue(f"{parameter.name} '{words[0][:60]}' is not yyyymmddhhmmss:yyyymmddhhmmss", code="bad-time")
        try:
            moments.append(
                datetime(
                    int(text[:4]), int(text[4:6]), int(text[6:8]), int(text[8:10]), int(text[10:12]), int(text[12:])
                )
            )
        except ValueError:
            raise BadValue(f"{parameter.name}: {text} is no date and time", code="bad-time") from None
    if moments[1] < moments[0]:
        raise BadValue(f"{parameter.name} '{words[0]}' ends before it begins", code="bad-time")
    return (moments[0], moments[1]), used


_PARSERS: dict[Kind, Callable[[Parameter, list[str]], Parsed]] = {
    Kind.CHOICE: _choice,
    Kind.NUMBER: _number,
    Kind.ADDRESSES: _addresses,
    Kind.ADDRESS: _single_address,
    Kind.ADDRESS_PREFIX: _address_prefix,
    Kind.ADDRESS_RANGE: _address_range,
    Kind.PORTS: _ports,
    Kind.PATTERN: _pattern,
    Kind.TEXT: _text,
    Kind.LABEL: _label,
    Kind.EMPTY_LABEL: _empty_label,
    Kind.HOST: _host,
    Kind.NAME_AND_LABEL: _name_and_label,
    Kind.URL: _url,
    Kind.V2_CIPHERS: _v2_ciphers,
    Kind.CIPHERS: _ciphers,
    Kind.CIPHERS_4: _ciphers_4,
    Kind.GROUPS: _groups,
    Kind.CLIENT_GROUPS: _client_groups,
    Kind.PAIRS: _pairs,
    Kind.PAIR: _pair,
    Kind.MONTHS: _digits(12),
    Kind.DAYS: _digits(31, 62),
    Kind.WEEKDAYS: _digits(7),
    Kind.DAILY: _daily,
    Kind.PERIOD: _period,
}
