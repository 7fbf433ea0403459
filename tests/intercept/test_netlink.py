"""The messages to and from sock_diag, and the exchange with the real kernel."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls.intercept.netlink import ANY_COOKIE, SocketDiagnosis, SocketFacts, answer, request
from attls.model import Endpoint

HERE = Endpoint.of(("192.0.2.1", 1024))
THERE = Endpoint.of(("192.0.2.2", 443))


def test_request_is_laid_out_as_the_kernel_wants_it() -> None:
    """`struct nlmsghdr` and `struct inet_diag_req_v2`, 72 bytes together, ports and addresses in network order."""
    message = request(HERE, THERE, sequence=7, interface=1)
    assert (72, 20, 1, 7, 0) == struct.unpack_from("=IHHII", message)
    assert (socket.AF_INET, 6) == struct.unpack_from("=BB", message, 16)
    assert (1024, 443) == struct.unpack_from("!HH", message, 24)
    assert (bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])) == (message[28:32], message[44:48])
    assert (1, ANY_COOKIE) == struct.unpack_from("=IQ", message, 60)


def test_answers_to_other_questions_are_passed_over() -> None:
    """A reply that comes late, after we gave up on it, is not taken for the present one."""
    error = struct.pack("=IHHIIi", 36, 2, 0, 7, 0, -errno.ENOENT)
    assert answer(error, 7) == errno.ENOENT
    assert answer(error, 8) is None


@given(st.binary(max_size=200))
def test_attributes_are_read_or_skipped(attributes: bytes) -> None:
    """Whatever follows the fixed part, the facts before it are read."""
    body = struct.pack("=BBBB", socket.AF_INET, 1, 0, 0)
    body += struct.pack("!HH4s12x4s12x", 1024, 443, bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]))
    body += struct.pack("=IQ5I", 0, 99, 0, 0, 0, 1000, 4711)
    message = struct.pack("=IHHII", 16 + len(body) + len(attributes), 20, 0, 7, 0) + body + attributes
    facts = answer(message, 7)
    assert isinstance(facts, SocketFacts)
    assert (1, HERE, THERE, 1000, 4711, 99) == (
        facts.state,
        facts.local,
        facts.remote,
        facts.uid,
        facts.inode,
        facts.cookie,
    )


@pytest.fixture
def kernel() -> Iterator[SocketDiagnosis]:
    diagnosis = SocketDiagnosis()
    yield diagnosis
    diagnosis.close()


def test_facts_of_a_connection(kernel: SocketDiagnosis) -> None:
    """Inode, owner and cgroup of exactly the socket with these two ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        here, there = Endpoint.of(sock.getsockname()), Endpoint.of(sock.getpeername())
        facts = kernel.connection(here, there)
        assert facts is not None
        assert (here, there, os.geteuid()) == (facts.local, facts.remote, facts.uid)
        assert facts.inode == os.fstat(sock.fileno()).st_ino
        assert facts.cgroup


@pytest.mark.skipif(os.geteuid() != 0, reason="aborting sockets needs root")
def test_abort_spares_the_listener(kernel: SocketDiagnosis) -> None:
    """Abort resets the named connection only, and does nothing at all where there is none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = Endpoint.of(listener.getsockname())
        with socket.create_connection(listener.getsockname()) as sock:
            accepted, peer = listener.accept()
            with accepted:
                assert kernel.abort(here, Endpoint.of(peer))
                with pytest.raises(ConnectionError):
                    accepted.recv(1)
                with pytest.raises(ConnectionError):
                    sock.recv(1)
            assert not kernel.abort(here, Endpoint.of(peer))
        socket.create_connection(listener.getsockname()).close()
