"""Inbound: a plain server under `attls exec`, TLS clients on loopback, and the many ways to accept."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.exec.conftest import stage
from tests.exec.stage import ROOT, Stage, free_port, inbound

__all__ = ["stage"]
SERVER = ROOT / "tests" / "exec" / "server.py"


@contextlib.contextmanager
def server(stage: Stage, kind: str, *, covered: bool = True) -> Iterator[int]:
    """Run a server of that kind under the policy; yield its port once it listens."""
    port = free_port()
    policy = stage.policy(inbound(port if covered else 1))
    with stage.start(policy, sys.executable, SERVER, kind, str(port)) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        yield port


def ask(stage: Stage, port: int, host: str = "127.0.0.1", word: bytes = b"hello") -> dict[str, object]:
    """Connect with TLS, read what the server says of us, and check its echo and an orderly end."""
    with socket.create_connection((host, port), timeout=30) as raw:
        own, there = raw.getsockname()[:2], raw.getpeername()[:2]
        with stage.client_context().wrap_socket(raw, server_hostname="localhost") as sock:
            file = sock.makefile("rb")
            told: dict[str, object] = json.loads(file.readline())
            sock.sendall(word)
            told["answer"] = file.read(len(word)).decode()
            told["as it is"] = list(own), list(own), list(there)
            with contextlib.suppress(ssl.SSLError):
                sock.unwrap()
    return told


def names(told: dict[str, object]) -> tuple[object, ...]:
    """Return the addresses told, as host and port, IPv4-mapped ones shortened."""

    def short(name: object) -> list[object]:
        assert isinstance(name, list)
        return [str(name[0]).removeprefix("::ffff:"), name[1]]

    return short(told["accept"]), short(told["peer"]), short(told["own"])


@pytest.mark.parametrize("kind", ["blocking", "edge", "reuse"])
def test_a_server_sees_its_tls_clients_as_they_are(stage: Stage, kind: str) -> None:
    """Ten clients at once: each is served, and accept, getpeername and getsockname tell its true addresses."""
    told: list[dict[str, object]] = []
    with server(stage, kind) as port:
        clients = [threading.Thread(target=lambda: told.append(ask(stage, port))) for _ in range(10)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert ["HELLO"] * 10 == [one["answer"] for one in told]
    for one in told:
        assert one["as it is"] == names(one)


def test_one_listener_takes_both_families(stage: Stage) -> None:
    """An IPv6 listener that takes IPv4 too shows IPv4 clients mapped, as ever."""
    with server(stage, "dual") as port:
        four, six = ask(stage, port), ask(stage, port, "::1")
    for told in (four, six):
        assert ("HELLO", told["as it is"]) == (told["answer"], names(told))
    assert str(four["accept"][0]).startswith("::ffff:")  # type: ignore[index]


def test_workers_share_a_listener(stage: Stage) -> None:
    """Processes forked after listen accept side by side, whoever of them began the handshake."""
    told: list[dict[str, object]] = []
    with server(stage, "workers") as port:
        clients = [threading.Thread(target=lambda: told.append(ask(stage, port))) for _ in range(12)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert ["HELLO"] * 12 == [one["answer"] for one in told]


def test_strangers_are_not_heard_of(stage: Stage) -> None:
    """A client in clear, a silent one and one that leaves never reach the program, nor hold up the next."""
    with server(stage, "blocking") as port:
        silent = socket.create_connection(("127.0.0.1", port))
        socket.create_connection(("127.0.0.1", port)).close()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as clear:
            clear.sendall(b"GET / HTTP/1.0\r\n\r\n")
            try:
                answer = clear.recv(100)
            except ConnectionResetError:
                answer = b""
        # OpenSSL may answer with an alert; what must not come is a word of the program, which would begin with "{".
        assert not answer.startswith(b"{")
        assert "HELLO" == ask(stage, port)["answer"]
        silent.close()


def test_an_uncovered_port_is_the_kernels_own(stage: Stage) -> None:
    """No rule for the port: the client's own connection, in clear, with nobody in between."""
    with server(stage, "blocking", covered=False) as port, socket.create_connection(("127.0.0.1", port)) as sock:
        file = sock.makefile("rwb")
        told = json.loads(file.readline())
        own = list(sock.getsockname())
        assert (own, own, ["127.0.0.1", port]) == names(told)


def test_a_listener_is_free_again_when_its_program_ends(stage: Stage) -> None:
    """A server that is stopped while it waits in accept leaves its port to its successor."""
    port = free_port()
    policy = stage.policy(inbound(port))
    for _ in range(2):
        with stage.start(policy, sys.executable, SERVER, "blocking", str(port)) as process:
            assert process.stdout is not None
            assert "ready\n" == process.stdout.readline()
            assert "HELLO" == ask(stage, port)["answer"]
            process.terminate()
            assert -15 == process.wait(20)
