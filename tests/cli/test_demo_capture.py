"""The witness of the demo: what it reads from packets, and that it cannot be talked into seeing TLS."""

from __future__ import annotations

import ipaddress
import ssl
import struct

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from attls.cli import demo_capture as capture
from attls.model import Endpoint

CLIENT = Endpoint(ipaddress.ip_address("10.77.0.1"), 40_000)
SERVER = Endpoint(ipaddress.ip_address("10.77.0.2"), 6379)
CLIENT6 = Endpoint(ipaddress.ip_address("fd77::1"), 40_000)
SERVER6 = Endpoint(ipaddress.ip_address("fd77::2"), 6379)


def tcp(source: Endpoint, target: Endpoint, payload: bytes, sequence: int = 1, flags: int = 0x10) -> bytes:
    """Build a TCP segment with a 12-byte option, as Linux sends."""
    return (
        struct.pack(">HHIIBBHHH12s", source.port, target.port, sequence, 0, 8 << 4, flags, 0, 0, 0, b"\1" * 12)
        + payload
    )


def ipv4(body: bytes, *, protocol: int = 6, fragment: int = 0, padding: bytes = b"") -> bytes:
    """Wrap a segment into IPv4, with four bytes of options."""
    addresses = CLIENT.address.packed + SERVER.address.packed
    return (
        struct.pack(">BBHHHBBH", 0x46, 0, 24 + len(body), 0, fragment, 64, protocol, 0)
        + addresses
        + b"\1" * 4
        + body
        + padding
    )


def ipv6(body: bytes, *, following: int = 6, length: int | None = None) -> bytes:
    """Wrap a segment into IPv6."""
    addresses = CLIENT6.address.packed + SERVER6.address.packed
    return struct.pack(">IHBB", 6 << 28, len(body) if length is None else length, following, 64) + addresses + body


def segment(sequence: int, payload: bytes, *, opens: bool = False) -> capture.Segment:
    """Build a segment from client to server."""
    return capture.Segment(CLIENT, SERVER, sequence % 2**32, opens, payload)


def test_an_ipv4_segment_is_read_up_to_its_stated_length() -> None:
    """Padding that Ethernet adds to short frames is no payload."""
    packet = ipv4(tcp(CLIENT, SERVER, b"GET", 7), padding=b"\0" * 9)
    assert capture.Segment(CLIENT, SERVER, 7, False, b"GET") == capture.segment_of(packet, capture.IPV4)


def test_an_ipv6_segment_is_read_behind_extension_headers() -> None:
    """Hop-by-hop and destination options are stepped over."""
    packet = ipv6(
        bytes([60, 0]) + b"\0" * 6 + bytes([6, 1]) + b"\0" * 14 + tcp(CLIENT6, SERVER6, b"GET", 7, 0x02), following=0
    )
    assert capture.Segment(CLIENT6, SERVER6, 7, True, b"GET") == capture.segment_of(packet, capture.IPV6)


def test_an_oversized_ipv6_segment_is_read_to_its_end() -> None:
    """A payload length of zero is how the kernel marks a packet longer than 65,535 bytes."""
    packet = ipv6(tcp(CLIENT6, SERVER6, b"x" * 70_000), length=0)
    found = capture.segment_of(packet, capture.IPV6)
    assert found is not None
    assert 70_000 == len(found.payload)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        ipv4(b"x" * 40, protocol=17),
        ipv4(tcp(CLIENT, SERVER, b"late"), fragment=3),
        ipv4(tcp(CLIENT, SERVER, b"")[:19]),
    ],
    ids=["empty", "udp", "fragment", "cut"],
)
def test_what_is_no_tcp_segment_is_left_out(packet: bytes) -> None:
    """Anything else on the wire is not ours to judge."""
    assert capture.segment_of(packet, capture.IPV4) is None


@given(st.binary(max_size=120), st.sampled_from([capture.IPV4, capture.IPV6, 0x0806]))
def test_any_bytes_are_a_segment_or_nothing(packet: bytes, ethertype: int) -> None:
    """No packet can make the sniffer raise."""
    capture.segment_of(packet, ethertype)


@given(
    data=st.binary(min_size=1, max_size=200),
    first=st.sampled_from([0, 1, 2**31 - 50, 2**32 - 60, 2**32 - 1]),
    pieces=st.data(),
)
def test_any_order_repetition_and_overlap_gives_the_same_stream(data: bytes, first: int, pieces: st.DataObject) -> None:
    """The bytes come out as they were written, across a wrap of the sequence numbers too."""
    spans = pieces.draw(st.lists(st.tuples(st.integers(0, len(data)), st.integers(0, len(data))), max_size=8))
    segments = [segment(first, b"", opens=True), segment(first + 1, data[: len(data) // 2])]
    segments.append(segment(first + 1 + len(data) // 2, data[len(data) // 2 :]))
    segments += [segment(first + 1 + min(span), data[min(span) : max(span)]) for span in spans]
    shuffled = pieces.draw(st.permutations(segments))
    assert [capture.Stream(CLIENT, SERVER, data, 0)] == capture.streams_of(shuffled)


def test_a_hole_in_the_capture_is_counted() -> None:
    """A stream with a hole says how many bytes are missing, so that nobody calls it clean."""
    segments = [segment(9, b"", opens=True), segment(10, b"ab"), segment(15, b"fg")]
    assert [capture.Stream(CLIENT, SERVER, b"abfg", 3)] == capture.streams_of(segments)


def test_a_stream_joined_late_begins_where_we_came_in() -> None:
    """Without a SYN the first segment seen is the beginning."""
    assert [capture.Stream(CLIENT, SERVER, b"abcd", 0)] == capture.streams_of(
        [segment(100, b"ab"), segment(102, b"cd")]
    )


def test_directions_are_kept_apart() -> None:
    """Each direction is a stream of its own, in the order in which they first spoke."""
    answer = capture.Segment(SERVER, CLIENT, 5, False, b"+OK")
    streams = capture.streams_of([segment(1, b"PING"), answer])
    assert [(CLIENT, b"PING"), (SERVER, b"+OK")] == [(stream.source, stream.data) for stream in streams]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def flights(authority: trustme.CA, version: ssl.TLSVersion) -> tuple[bytes, bytes]:
    """Let two ends of the standard library shake hands in memory; return what client and server wrote."""
    server_context, client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("server.example").configure_cert(server_context)
    authority.configure_trust(client_context)
    client_context.maximum_version = client_context.minimum_version = version
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="server.example")
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    first = to_server.read()
    to_server.write(first)
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    return first, to_client.read()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_real_handshake_is_recognised(authority: trustme.CA, version: ssl.TLSVersion) -> None:
    """Both hellos are seen, and the version is the one that was negotiated, not the one in the record."""
    from_client, from_server = flights(authority, version)
    assert capture.is_client_hello(from_client)
    hello = capture.server_hello(from_server)
    assert hello is not None
    assert int(version) == hello.version
    assert (hello.cipher >> 8 == 0x13) == (version is ssl.TLSVersion.TLSv1_3)
    assert not capture.is_client_hello(from_server)
    assert capture.server_hello(from_client) is None


def test_every_cut_of_a_handshake_is_still_records(authority: trustme.CA) -> None:
    """A capture that ends in the middle of a record is TLS as far as it goes."""
    _, from_server = flights(authority, ssl.TLSVersion.TLSv1_3)
    assert all(capture.records_of(from_server[:end]) is not None for end in range(len(from_server)))


@pytest.mark.parametrize("clear", [b"*3\r\n$3\r\nSET\r\n", b"\x17\x03\x03\x00\x02abHELLO", b"\x16\x03\x03\xff\xff"])
def test_one_byte_outside_a_record_is_not_tls(clear: bytes) -> None:
    """Clear text before, behind or instead of records is found."""
    assert capture.records_of(clear) is None


@given(st.binary(max_size=100))
def test_any_bytes_are_records_or_nothing(data: bytes) -> None:
    """No payload can make the sniffer raise."""
    capture.records_of(data)
    capture.server_hello(b"\x16\x03\x03" + len(data).to_bytes(2, "big") + data)
    capture.server_hello(b"\x16\x03\x03" + (len(data) + 4).to_bytes(2, "big") + b"\2\0\0" + bytes([len(data)]) + data)


def test_unprintable_bytes_are_shown_as_dots() -> None:
    """The excerpt is one line of plain characters, cut where asked."""
    assert "SET..k…" == capture.printable(b"SET\r\nkey", 6)
