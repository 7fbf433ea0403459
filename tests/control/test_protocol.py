"""The codec: bytes and fields are two views of one thing, and every rule that needs no connection is kept."""

from __future__ import annotations

import contextlib
import errno
import re
import struct
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls.c import DIRECTORY
from attls.control import protocol
from attls.control.protocol import (
    HEADER_SIZE,
    IOCTL_SIZE,
    QUADRUPLET_SIZE,
    VERSION1,
    VERSION2,
    Ioctl,
    Junior,
    Key,
    MalformedError,
    RefusalError,
    Reply,
    Request,
)

words = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126))
ioctls = st.builds(
    Ioctl,
    version=st.integers(0, 0xFFFF),
    request=st.integers(0, 0xFFFF),
    policy_status=st.integers(0, 255),
    connection_status=st.integers(0, 255),
    protocol=st.integers(0, 0xFFFF),
    cipher=st.sampled_from(["", "2F", "4X"]),
    security_type=st.integers(0, 255),
    user=words.map(lambda text: text[:8]),
    fips140=st.integers(0, 255),
    flags=st.integers(0, 255),
    buffer=st.integers(0, 2**64 - 1),
    buffer_length=st.integers(0, 2**32 - 1),
    certificate_length=st.integers(0, 2**32 - 1),
    cipher4=st.sampled_from(["", "C02F", "1301"]),
    key_share=st.sampled_from(["", "0029"]),
)


def refusal(packet: bytes) -> tuple[int, int]:
    with pytest.raises(RefusalError) as caught:
        protocol.parse_request(packet)
    return caught.value.errno, caught.value.junior


def outcome(packet: bytes) -> int:
    try:
        protocol.parse_request(packet)
    except RefusalError as error:
        return error.errno
    return 0


def version2(gets: tuple[int, ...], *, length: int = 4096, request: int = 0, sets: int = 0) -> bytes:
    header = bytearray(protocol.build_header(gets))
    struct.pack_into("=II", header, 20, sets, len(gets) - sets)
    return Ioctl(version=2, request=request, buffer=1, buffer_length=length).pack() + bytes(header)


@given(ioctls)
def test_fields_survive_the_wire(ioctl: Ioctl) -> None:
    """Packing and unpacking give the same fields, in 56 bytes."""
    packed = ioctl.pack()
    assert 56 == len(packed) == IOCTL_SIZE
    assert ioctl == Ioctl.unpack(packed)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_refusal(packet: bytes) -> None:
    """Whatever a program sends is understood or refused with an errno; nothing else is raised."""
    assert outcome(packet) in (0, errno.EINVAL, errno.EPERM)


@given(st.sampled_from([1, 2]), st.integers(0, 255), st.binary(max_size=200))
def test_any_contents_are_a_request_or_a_refusal(version: int, request: int, contents: bytes) -> None:
    """The same for packets whose structure is right."""
    packet = Ioctl(version=version, request=request, buffer=1, buffer_length=200).pack() + contents
    assert outcome(packet) in (0, errno.EINVAL, errno.EPERM)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_reply_or_malformed(packet: bytes) -> None:
    """Clients survive whatever comes back."""
    with contextlib.suppress(MalformedError):
        protocol.read_header(protocol.parse_reply(packet).contents)


@given(ioctls, st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1), st.binary(max_size=64))
def test_replies_survive_the_wire(ioctl: Ioctl, number: int, junior: int, contents: bytes) -> None:
    """A reply read is the reply written."""
    reply = Reply(number, junior, ioctl, contents)
    assert reply == protocol.parse_reply(reply.pack())


@given(
    st.lists(st.sampled_from(list(Key)), max_size=8, unique=True),
    st.dictionaries(st.sampled_from(list(Key)), st.binary(max_size=100)),
    st.integers(HEADER_SIZE, 2000),
)
def test_what_fits_comes_back_whole_and_what_does_not_says_how_much_it_needs(
    gets: list[Key], items: dict[int, bytes], capacity: int
) -> None:
    """Either every available item is in the buffer, or the number of bytes that would have been enough is."""
    packet = Ioctl(version=2, buffer=1, buffer_length=max(capacity, HEADER_SIZE + QUADRUPLET_SIZE * len(gets))).pack()
    call = protocol.parse_request(packet + protocol.build_header(gets))
    contents, fits = protocol.fill_header(call, items)
    assert len(contents) <= call.capacity
    if fits:
        assert {key: items[key] for key in gets if key in items} == protocol.read_header(contents)
        assert 0 == protocol.bytes_needed(contents)
    else:
        needed = protocol.bytes_needed(contents)
        assert needed > call.capacity
        enough = Ioctl(version=2, buffer=1, buffer_length=needed).pack() + protocol.build_header(gets)
        assert protocol.fill_header(protocol.parse_request(enough), items)[1]


@pytest.mark.parametrize("user", ["nine-byte", "backup-operator", "f\u00fcnfzig\u00e4\u00f6"])
def test_a_user_id_is_whole_or_left_out(user: str) -> None:
    """A name that is cut to eight bytes may be another user's."""
    assert ("", "eight-by") == (
        Ioctl.unpack(Ioctl(user=user).pack()).user,
        Ioctl.unpack(Ioctl(user="eight-by").pack()).user,
    )


def test_names_end_with_a_zero_byte() -> None:
    """A C program prints a name with %s."""
    call = protocol.parse_request(version2((Key.RULE_NAME, Key.GROUP_ACTION_NAME)))
    contents, _ = protocol.fill_header(call, {Key.RULE_NAME: b"four", Key.GROUP_ACTION_NAME: b"x"})
    offset = struct.unpack_from("=IIII", contents, HEADER_SIZE)[1]
    assert b"four\0" == contents[offset : offset + 5]


@pytest.mark.parametrize("version", [0, 3, 255])
def test_the_version_is_1_or_2(version: int) -> None:
    """A zeroed structure is refused: its version is 0."""
    assert (errno.EINVAL, Junior.INVALID_VERSION) == refusal(Ioctl(version=version).pack())


@pytest.mark.parametrize("size", [0, 1, 55])
def test_a_structure_has_56_bytes(size: int) -> None:
    """A shorter argument is refused."""
    assert (errno.EINVAL, Junior.SOCKET_CALL_PARAMETER) == refusal(Ioctl().pack()[:size])


def test_version_1_has_nothing_behind_the_structure() -> None:
    """A longer argument is refused."""
    assert (errno.EINVAL, Junior.SOCKET_CALL_PARAMETER) == refusal(Ioctl().pack() + b"\0")


@pytest.mark.parametrize("bit", [0x0100, 0x0200, 0x8000])
def test_unknown_request_bits_are_refused(bit: int) -> None:
    """Request bits that mean nothing are an error, not ignored."""
    assert (errno.EINVAL, Junior.SOCKET_CALL_PARAMETER) == refusal(Ioctl(request=bit).pack())


@pytest.mark.parametrize(
    ("request_bits", "buffer", "length", "allowed"),
    [
        (Request.QUERY_ONLY, 0, 0, True),
        (Request.QUERY_ONLY, 1, 0, False),
        (Request.QUERY_ONLY, 0, 10, False),
        (Request.INIT_CONNECTION, 1, 10, False),
        (Request.RETURN_CERTIFICATE, 1, 10, True),
        (Request.RETURN_CERTIFICATE, 0, 10, False),
        (Request.RETURN_CERTIFICATE, 1, 0, False),
        (Request.RETURN_CERTIFICATE | Request.INIT_CONNECTION, 1, 10, True),
    ],
)
def test_version_1_has_a_buffer_for_a_certificate_only(
    request_bits: Request, buffer: int, length: int, allowed: bool
) -> None:
    """Pointer and length go with RETURN_CERTIFICATE, and only with it."""
    packet = Ioctl(version=VERSION1, request=request_bits, buffer=buffer, buffer_length=length).pack()
    if allowed:
        assert request_bits == protocol.parse_request(packet).request
    else:
        assert (errno.EINVAL, Junior.SOCKET_CALL_PARAMETER) == refusal(packet)


def test_version_2_may_have_no_buffer() -> None:
    """A plain control request of version 2 is accepted with pointer and length zero."""
    call = protocol.parse_request(Ioctl(version=VERSION2, request=Request.INIT_CONNECTION).pack())
    assert (Request.INIT_CONNECTION, None) == (call.request, call.gets)


@pytest.mark.parametrize(
    "packet",
    [
        version2((), request=Request.RETURN_CERTIFICATE),
        version2((99,)),
        version2((Key.RULE_NAME,), sets=1),
        version2((Key.RULE_NAME,), length=20),
        version2((Key.RULE_NAME,))[:-1],
        version2(()).replace(b"TTLSHDR ", b"ttlshdr "),
        Ioctl(version=2, buffer=1).pack(),
        Ioctl(version=2, buffer_length=10).pack(),
        Ioctl(version=2).pack() + b"x",
        version2(tuple([Key.RULE_NAME] * 65)),
    ],
    ids=["certificate", "key", "set", "length", "cut", "ident", "no length", "no pointer", "contents", "many"],
)
def test_version_2_buffers_follow_the_rules(packet: bytes) -> None:
    """A buffer that is no TTLSHeader, or asks for what does not exist, is refused."""
    assert (errno.EINVAL, Junior.SOCKET_CALL_PARAMETER) == refusal(packet)


ALONE = [Request.INIT_CONNECTION, Request.STOP_CONNECTION]
OTHERS = [Request.RESET_SESSION, Request.RESET_CIPHER, Request.RESET_WRITE_CIPHER, Request.SEND_SESSION_TICKET]


@pytest.mark.parametrize("request_bits", [a | b for a in ALONE for b in OTHERS] + [ALONE[0] | ALONE[1]])
def test_what_excludes_each_other_is_refused(request_bits: Request) -> None:
    """Start, stop and refresh do not go together."""
    assert (errno.EPERM, Junior.INVALID_PARAMETERS) == refusal(Ioctl(request=request_bits).pack())


@pytest.mark.parametrize("others", [Request(0), *OTHERS, Request.STOP_CONNECTION])
def test_allow_hstimeout_modifies_init_only(others: Request) -> None:
    """ALLOW_HSTIMEOUT without INIT_CONNECTION is refused."""
    assert errno.EPERM == refusal(Ioctl(request=others | Request.ALLOW_HSTIMEOUT).pack())[0]
    protocol.parse_request(Ioctl(request=Request.INIT_CONNECTION | Request.ALLOW_HSTIMEOUT).pack())


@pytest.mark.parametrize("pair", list(combinations(OTHERS, 2)))
def test_refreshing_requests_go_together(pair: tuple[Request, Request]) -> None:
    """No rule forbids to forget the session and renew the keys at once."""
    assert pair[0] | pair[1] == protocol.parse_request(Ioctl(request=pair[0] | pair[1]).pack()).request


def test_a_certificate_that_does_not_fit_says_its_length() -> None:
    """ENOBUFS leaves the status valid and Cert_Len says what is needed."""
    packet = Ioctl(request=Request.RETURN_CERTIFICATE, buffer=1, buffer_length=10).pack()
    outputs = Ioctl(policy_status=4, connection_status=3)
    reply = protocol.parse_reply(
        protocol.answer(protocol.parse_request(packet), outputs, certificate=b"certificate, too long")
    )
    assert (errno.ENOBUFS, Junior.BUFFER_TOO_SMALL, b"") == (reply.errno, reply.junior, reply.contents)
    assert (4, 3, 21) == (reply.ioctl.policy_status, reply.ioctl.connection_status, reply.ioctl.certificate_length)


def test_c_and_python_agree_on_every_value() -> None:
    """The header's macros have the values that this module uses."""
    found = {
        name: int(value, 0)
        for name, value in re.findall(
            r"^#\s*define (\w+) (0x[0-9A-Fa-f]+|\d+)U?\b", Path(DIRECTORY, "ezbztlsc.h").read_text(), re.M
        )
    }
    expected = {f"TTLS_{bit.name}": bit.value for bit in Request}
    expected |= {"TTLS_QUERY_ONLY": 0, "SIOCTTLSCTL": protocol.SIOCTTLSCTL, "EMVSERR": protocol.EMVSERR}
    expected |= {f"TTLS_POL_{each.name}": each for each in protocol.PolicyStatus}
    expected |= {f"TTLS_CONN_{each.name}": each for each in protocol.ConnectionStatus}
    expected |= {f"TTLS_SEC_{each.name}": each for each in protocol.SecurityType}
    expected |= {"TTLS_WAIT": protocol.FLAG_WAIT, "TTLS_FTPDATACONN": protocol.FLAG_FTP_DATA_CONNECTION}
    expected |= {
        "TTLSK_TTLSRuleName": Key.RULE_NAME,
        "TTLSK_TTLSGroupActionName": Key.GROUP_ACTION_NAME,
        "TTLSK_TTLSEnvironmentActionName": Key.ENVIRONMENT_ACTION_NAME,
        "TTLSK_TTLSConnectionActionName": Key.CONNECTION_ACTION_NAME,
        "TTLSK_Certificate": Key.CERTIFICATE,
        "TTLSK_Host_Status": Key.HOST_STATUS,
    }
    assert expected == {name: found.get(name) for name in expected}
    juniors = {value for name, value in found.items() if name.startswith("JR")}
    assert {each.value for each in Junior} == juniors


def test_every_errno_has_a_sentence() -> None:
    """Nobody is told just a number."""
    assert "ApplicationControlled" in protocol.reason(errno.EACCES, Junior.DENIED_BY_POLICY)
    assert "ENOMEM" in protocol.reason(errno.ENOMEM, 0)
