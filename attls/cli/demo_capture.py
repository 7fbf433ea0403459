"""What the demo's sniffer saw: packets in, the TCP byte streams and what kind of talk they are out.

Pure functions over bytes, on purpose independent of our TLS engine and of any TLS library: this file is the witness
who must not share the defendant's code. It reads IPv4, IPv6 and TCP headers (RFC 9293), puts payloads back in order,
and tells TLS records (RFC 8446, section 5.1) from anything else. Taking the packets off a wire is `demo_stage`'s part.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from attls.model import Endpoint

IPV4 = 0x0800  # EtherType, as AF_PACKET reports it beside each packet
IPV6 = 0x86DD

TCP = 6
IPV6_EXTENSIONS = frozenset({0, 43, 60})  # hop-by-hop, routing, destination options: all "next header, length"
SYN = 0x02

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
RECORD_TYPES = frozenset({CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA})
RECORD_VERSIONS = frozenset({0x0301, 0x0302, 0x0303})  # TLS 1.3 keeps writing 0x0303, and 0x0301 in its first record
RECORD_LIMIT = 2**14 + 256
CLIENT_HELLO, SERVER_HELLO = 1, 2
SUPPORTED_VERSIONS = 43


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP segment: who sent it to whom, its sequence number, whether it opened the stream, and its payload."""

    source: Endpoint
    target: Endpoint
    sequence: int
    opens: bool
    payload: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """One direction of one connection: the payload in order; `missing` counts bytes that were never seen."""

    source: Endpoint
    target: Endpoint
    data: bytes
    missing: int


@dataclass(frozen=True, slots=True)
class Hello:
    """A ServerHello: the protocol version that the server chose, and the cipher suite, as numbers on the wire."""

    version: int
    cipher: int


def segment_of(packet: bytes, ethertype: int) -> Segment | None:
    """Read one IP packet; None for anything that is not a whole TCP segment (ARP, UDP, fragments, cut headers)."""
    if ethertype == IPV4:
        if len(packet) < 20 or packet[9] != TCP or int.from_bytes(packet[6:8], "big") & 0x3FFF:
            return None
        header, end = (packet[0] & 0x0F) * 4, int.from_bytes(packet[2:4], "big")
        source, target = packet[12:16], packet[16:20]
    elif ethertype == IPV6:
        if len(packet) < 40:
            return None
        length, header, following = int.from_bytes(packet[4:6], "big"), 40, packet[6]
        while following in IPV6_EXTENSIONS and len(packet) >= header + 8:
            following, header = packet[header], header + 8 * (packet[header + 1] + 1)
        if following != TCP:
            return None
        end = 40 + length if length else len(packet)  # 0: longer than 65,535, which the kernel may hand us whole
        source, target = packet[8:24], packet[24:40]
    else:
        return None
    tcp = packet[header:end]  # up to the length in the header: short frames are padded
    if len(tcp) < 20 or len(tcp) < (tcp[12] >> 4) * 4:
        return None
    return Segment(
        Endpoint(ipaddress.ip_address(source), int.from_bytes(tcp[0:2], "big")),
        Endpoint(ipaddress.ip_address(target), int.from_bytes(tcp[2:4], "big")),
        int.from_bytes(tcp[4:8], "big"),
        bool(tcp[13] & SYN),
        tcp[(tcp[12] >> 4) * 4 :],
    )


def streams_of(segments: Iterable[Segment]) -> list[Stream]:
    """Put the payloads of every direction in order, whatever order, repetition or overlap they were sent in.

    A stream whose opening SYN was not seen begins with the first segment that was. Streams without data are left out.
    """
    directions: dict[tuple[Endpoint, Endpoint], list[Segment]] = {}
    for segment in segments:
        directions.setdefault((segment.source, segment.target), []).append(segment)
    assembled = (_assemble(source, target, parts) for (source, target), parts in directions.items())
    return [stream for stream in assembled if stream.data]


def _assemble(source: Endpoint, target: Endpoint, parts: list[Segment]) -> Stream:
    opening = next((part for part in parts if part.opens), parts[0])
    first = opening.sequence + (1 if opening.opens else 0)  # a SYN takes one number of its own

    def offset(part: Segment) -> int:
        distance = (part.sequence + part.opens - first) % 2**32
        return distance if distance < 2**31 else distance - 2**32  # sequence numbers wrap; keep what lies just before

    data, missing = bytearray(), 0
    for part in sorted(parts, key=offset):
        ahead = offset(part) - len(data) - missing
        if ahead > 0 and part.payload:
            missing += ahead
            ahead = 0
        data += part.payload[-ahead:] if ahead < 0 else part.payload
    return Stream(source, target, bytes(data), missing)


def records_of(data: bytes) -> list[tuple[int, bytes]] | None:
    """Cut a stream into TLS records (type, content); None as soon as one byte is anything else.

    A last record that is still under way is kept as far as it goes.
    """
    records, position = [], 0
    while position < len(data):
        kind, version = data[position], data[position + 1 : position + 3]
        length = int.from_bytes(data[position + 3 : position + 5], "big")
        if kind not in RECORD_TYPES or (len(version) == 2 and int.from_bytes(version, "big") not in RECORD_VERSIONS):
            return None
        if length > RECORD_LIMIT:
            return None
        records.append((kind, data[position + 5 : position + 5 + length]))
        position += 5 + length
    return records


def _first_handshake_message(data: bytes, kind: int) -> bytes | None:
    """Return the body of a stream's first handshake message when it is of type `kind` and wholly there."""
    records = records_of(data)
    if records is None:
        return None
    flight = b"".join(content for _, content in itertools.takewhile(lambda record: record[0] == HANDSHAKE, records))
    length = int.from_bytes(flight[1:4], "big")
    return flight[4 : 4 + length] if flight[:1] == bytes([kind]) and len(flight) >= 4 + length else None


def is_client_hello(data: bytes) -> bool:
    """Tell whether a stream begins with a TLS ClientHello."""
    return _first_handshake_message(data, CLIENT_HELLO) is not None


def server_hello(data: bytes) -> Hello | None:
    """Return what the server chose, when the stream begins with a whole ServerHello (RFC 8446, section 4.1.3)."""
    body = _first_handshake_message(data, SERVER_HELLO)
    if body is None or len(body) < 38:
        return None
    version, position = int.from_bytes(body[0:2], "big"), 34 + 1 + body[34]
    cipher = int.from_bytes(body[position : position + 2], "big")
    position += 3 + 2  # cipher suite, compression method, length of all extensions
    while position + 4 <= len(body):
        kind, length = (
            int.from_bytes(body[position : position + 2], "big"),
            int.from_bytes(body[position + 2 : position + 4], "big"),
        )
        if kind == SUPPORTED_VERSIONS and length == 2:
            version = int.from_bytes(body[position + 4 : position + 6], "big")
        position += 4 + length
    return Hello(version, cipher)


def printable(data: bytes, limit: int) -> str:
    """Write the first `limit` bytes as a hex viewer's right-hand column does: unprintable bytes are dots."""
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data[:limit])
    return text + ("…" if len(data) > limit else "")
