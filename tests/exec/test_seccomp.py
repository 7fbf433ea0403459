"""The filter, run by a small machine of ours, and the messages and addresses, which are plain bytes."""

from __future__ import annotations

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls.intercept import seccomp
from attls.intercept.seccomp import ARCHITECTURES, MSG_FASTOPEN, SIOCTTLSCTL, Call
from attls.model import Endpoint, canonical_address

ALLOW, NOTIFY, ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
X86 = ARCHITECTURES["x86_64"]
EVERY_CALL = tuple(Call)


def verdict(program: bytes, number: int, *arguments: int, audit: int = X86.audit) -> int:
    """Run a filter as the kernel would and return what it says of a call."""
    data = struct.pack("=iIQ6Q", number, audit, 0, *arguments, *(0,) * (6 - len(arguments)))
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = place = 0
    while True:
        opcode, true, false, value = code[place]
        place += 1
        if opcode == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif opcode == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[opcode]
            place += true if holds else false


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_filter_holds_its_calls_and_nothing_else(name: str) -> None:
    """On every machine: ioctl is held only with its one command, getsockopt with one option; all others run on."""
    machine = ARCHITECTURES[name]
    program = seccomp.program(machine, EVERY_CALL)
    held = {number for call, number in machine.calls.items() if call not in (Call.IOCTL, Call.GETSOCKOPT)}
    option = machine.calls[Call.GETSOCKOPT]
    assert NOTIFY == verdict(program, option, 3, socket.SOL_SOCKET, socket.SO_ERROR, audit=machine.audit)
    assert ALLOW == verdict(program, option, 3, socket.IPPROTO_TCP, socket.SO_ERROR, audit=machine.audit)
    ioctl = machine.calls[Call.IOCTL]
    for number in range(600):
        expected = NOTIFY if number in held else ALLOW
        if number == machine.io_uring_setup:
            expected = ERRNO | errno.ENOSYS
        assert expected == verdict(program, number, audit=machine.audit), number
    assert NOTIFY == verdict(program, ioctl, 3, SIOCTTLSCTL, audit=machine.audit)
    # The kernel takes the command as 32 bits: what is above them does not hide it.
    assert NOTIFY == verdict(program, ioctl, 3, 0xFFFFFFFF_00000000 | SIOCTTLSCTL, audit=machine.audit)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_fast_open_is_switched_off(name: str) -> None:
    """A send with MSG_FASTOPEN, which would connect, is told that there is no such thing; others run on."""
    machine = ARCHITECTURES[name]
    program = seccomp.program(machine, EVERY_CALL)
    for number, place in machine.sends.items():
        arguments = [0] * 6
        assert ALLOW == verdict(program, number, *arguments, audit=machine.audit)
        arguments[place] = MSG_FASTOPEN | 0x4000
        assert ERRNO | errno.EOPNOTSUPP == verdict(program, number, *arguments, audit=machine.audit)


def test_other_modes_of_the_processor_are_no_way_around() -> None:
    """A 32-bit connect or socketcall is held (to be refused), x32 and unknown modes have no calls at all."""
    program = seccomp.program(X86, EVERY_CALL)
    assert {NOTIFY} == {verdict(program, number, audit=0x40000003) for number in (102, 359, 362, 364, 425)}
    assert ALLOW == verdict(program, 4, audit=0x40000003)
    assert ERRNO | errno.ENOSYS == verdict(program, 0x40000000 | 42)
    assert ERRNO | errno.ENOSYS == verdict(program, 42, audit=0xC00000B7)


def test_a_direction_without_rules_is_not_held() -> None:
    """Only the calls asked for are held; the closed roads stay closed."""
    program = seccomp.program(X86, (Call.ACCEPT, Call.ACCEPT4))
    assert ALLOW == verdict(program, X86.calls[Call.CONNECT])
    assert NOTIFY == verdict(program, X86.calls[Call.ACCEPT4])


def test_a_notification_is_read_back() -> None:
    """Identifier, thread, number, mode and six registers; an int argument has its sign."""
    raw = struct.pack("=QIIiIQ6Q", 7, 8, 0, 42, X86.audit, 9, 0xFFFFFFFF, 2, 3, 4, 5, 6)
    found = seccomp.parse(raw)
    assert seccomp.NOTIFICATION_SIZE == len(raw) == 80
    assert (7, 8, 42, X86.audit) == (found.identifier, found.thread, found.number, found.audit)
    assert (-1, 2) == (found.signed(0), found.signed(1))
    assert (struct.pack("=QqiI", 7, 0, -104, 0), struct.pack("=QqiI", 7, 5, 0, 0)) == (
        seccomp.response(7, value=3, error=104),
        seccomp.response(7, value=5),
    )


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(lambda found: canonical_address(str(found)))


@given(address=addresses, port=st.integers(0, 65535))
def test_a_sockaddr_names_the_endpoint_it_was_made_from(address: object, port: int) -> None:
    """Whatever the endpoint, in a socket of either family that can hold it."""
    place = Endpoint(canonical_address(str(address)), port)
    families = (socket.AF_INET, socket.AF_INET6) if place.address.version == 4 else (socket.AF_INET6,)
    for family in families:
        raw = seccomp.address(place, family, interface=3)
        assert place == seccomp.endpoint(raw)
        assert (3 if family == socket.AF_INET6 else 0) == seccomp.scope(raw)


@given(st.binary(max_size=40))
def test_any_bytes_are_an_endpoint_or_none(raw: bytes) -> None:
    """A program may pass what it likes."""
    found = seccomp.endpoint(raw)
    assert found is None or raw[:2] in (struct.pack("=H", socket.AF_INET), struct.pack("=H", socket.AF_INET6))
