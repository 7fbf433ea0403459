"""Revocation is asked about for real: a list from nginx, `openssl ocsp` as responder, and what goes wrong there."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.namespaces import wait_until
from tests.scenes.authority import HTTP, LEVELS, OCSP, PROXY, RESPONDER, WEB, Authority, attls
from tests.scenes.conftest import Stage
from tests.scenes.daemons import Daemon, client_context, echo, make_rings, program, rule

pytestmark = pytest.mark.scene
NONCE = "      OcspNonceGenEnable On\n      OcspNonceCheckEnable On\n"


@pytest.fixture
def authority(stage: Stage, tmp_path: Path) -> Authority:
    """An authority of the scene's own."""
    return Authority(stage, tmp_path)


@contextlib.contextmanager
def programs(stage: Stage) -> Iterator[None]:
    """Run a program behind each of the three levels."""
    with contextlib.ExitStack() as stack:
        for port in LEVELS.values():
            stack.enter_context(program(stage.host, port=port))
        yield


def with_ocsp(more: str) -> str:
    return OCSP.replace("      OcspAiaEnable On\n", f"      OcspAiaEnable On\n{more}")


def entering(authority: Authority, name: str = "good") -> list[str]:
    """Return the levels at which a client gets in."""
    return [level for level, port in LEVELS.items() if authority.enters(name, port)]


def told(daemon: Daemon, code: int, words: str, before: str) -> None:
    """Wait until the log says of two refusals, since it was `before`, with which code and why."""
    wait_until(lambda: daemon.log[len(before) :].count(f"RC:  {code} ") >= 2, 10)
    assert words in daemon.log[len(before) :]


def test_a_list_from_a_web_server(authority: Authority) -> None:
    """Who is on the list is refused with 431 before the program hears of him; the others get in."""
    authority.publish(authority.crl())
    authority.serve_web()
    daemon = authority.start(HTTP, level="High")
    with program(authority.stage.host) as server:
        assert authority.enters("good")
        assert not authority.enters("bad")
        wait_until(lambda: "RC:  431 Initial Handshake - a certificate of the peer is revoked" in daemon.log)
        assert "keyCompromise" in daemon.log
        assert 1 == len(server.peers)


def test_whatever_is_wrong_with_a_list(authority: Authority, tmp_path: Path) -> None:
    """Low goes on without an answer, Medium without a list that is not there, High never; whom it lists none takes."""
    other = tmp_path / "other"
    make_rings(other)
    daemon = authority.start_levels(HTTP)
    with programs(authority.stage):
        before = daemon.log
        assert ["Low"] == entering(authority)  # there is no web server
        told(daemon, 427, "cannot be reached", before)
        authority.serve_web()
        assert ["Low", "Medium"] == entering(authority)  # there is no list
        for content, words in (
            (authority.crl(days_ago=20), "out of date"),
            (authority.crl(days_ago=-2), "from the future"),
            (authority.crl(store=other), "the signature of the CRL is wrong"),
            (authority.crl()[:-1], "damaged"),
            (b"<html>404</html>", "no CRL"),
            (bytes(300_000), "more than 204800 bytes"),
        ):
            authority.publish(content)
            before = daemon.log
            assert ["Low"] == entering(authority), words
            told(daemon, 436, words, before)
        authority.publish(authority.crl())
        assert list(LEVELS) == entering(authority)
        assert [] == entering(authority, "bad")


@pytest.mark.parametrize("get", ["On", "Off"])
def test_openssl_answers(authority: Authority, get: str) -> None:
    """`openssl ocsp` says good of one and revoked of the other, asked by GET and by POST, with a nonce."""
    authority.serve_ocsp()
    daemon = authority.start(with_ocsp(f"      OcspRetrieveViaGet {get}\n{NONCE}"), level="High")
    with program(authority.stage.host):
        assert authority.enters("good"), daemon.log
        assert not authority.enters("bad")
        wait_until(lambda: "RC:  431 " in daemon.log)


def test_whatever_is_wrong_with_a_responder(authority: Authority) -> None:
    """It is away, says nothing, lies, repeats itself, or is not itself: Low goes on, Medium and High refuse."""
    daemon = authority.start_levels(with_ocsp(NONCE))
    with programs(authority.stage):
        before = daemon.log
        assert ["Low"] == entering(authority)
        told(daemon, 427, "cannot be reached", before)
        before = daemon.log
        with authority.stage.peer.listen("0.0.0.0", RESPONDER):  # the kernel takes the connection, and nobody answers
            assert ["Low"] == entering(authority)
        told(daemon, 427, "did not answer within 1 s", before)
        before = daemon.log
        wrong = authority.serve_ocsp(authority.store / "bad.pem")
        assert ["Low"] == entering(authority)
        told(daemon, 436, "whom the authority did not appoint", before)
        authority.stop_on_peer(wrong, RESPONDER)
        for status, answer, words in (
            (200, authority.ocsp_answer(), "it may be replayed"),
            (200, bytes.fromhex("30030a0103"), "try_later"),
            (200, b"<html>", "damaged"),
            (200, bytes(30_000), "more than 20480 bytes"),
            (503, b"", "status 503"),
        ):
            before = daemon.log
            canned = authority.serve_canned(status, answer)
            assert ["Low"] == entering(authority), words
            told(daemon, 436, words, before)
            authority.stop_on_peer(canned, RESPONDER)
        authority.serve_ocsp()
        assert list(LEVELS) == entering(authority)
        assert [] == entering(authority, "bad")


def test_an_answer_of_yesterday(authority: Authority) -> None:
    """Without a nonce an old answer can only be told by its dates; one that is still good is good."""
    daemon = authority.start_levels(OCSP)
    with programs(authority.stage):
        canned = authority.serve_canned(200, authority.ocsp_answer(days_ago=2))
        before = daemon.log
        assert ["Low"] == entering(authority)
        told(daemon, 436, "out of date", before)
        authority.stop_on_peer(canned, RESPONDER)
        authority.serve_canned(200, authority.ocsp_answer())
        assert list(LEVELS) == entering(authority)
        assert ["Low"] == entering(authority, "bad")  # the answer is about somebody else


def test_the_next_source_helps_out(authority: Authority) -> None:
    """A responder that is down does not matter where the list answers."""
    authority.publish(authority.crl())
    authority.serve_web()
    authority.start(OCSP + HTTP, level="High")
    with program(authority.stage.host):
        assert authority.enters("good")
        assert not authority.enters("bad")


def test_signed_requests_by_way_of_a_proxy(authority: Authority, tmp_path: Path) -> None:
    """Lookups go by way of the proxies of the policy, and `openssl ocsp` answers what is signed as well."""
    attls(authority.store, "cert issue --owner SRV --label asker --cn asker --sign-with CA --key-type rsa-2048")
    attls(authority.store, "keyring connect SRV/RING --owner SRV --label asker")
    authority.serve_web()  # which has no list, so that the responder is asked after it
    authority.serve_ocsp()
    proxy = f"ProxyServerName 10.1.0.2\n      {{0}}ProxyServerPort {PROXY}\n"
    ocsp = with_ocsp(f"      OcspRequestSigkeylabel asker\n      Ocsp{proxy.format('Ocsp')}")
    http = HTTP.replace("HttpCdpEnable On\n", f"HttpCdpEnable On\n      HttpCdp{proxy.format('HttpCdp')}")
    authority.start(f"    AIACDPPriority Off\n{ocsp}{http}", level="High")
    with program(authority.stage.host):
        assert authority.enters("good")
        assert not authority.enters("bad")
    asked = re.findall(r'"(\S+ \S+) HTTP/1.1" (\d+)', (tmp_path / "proxy.log").read_text())
    assert [(f"GET http://10.1.0.2:{WEB}/ca.crl", "404"), (f"POST http://10.1.0.2:{RESPONDER}/", "200")] * 2 == asked


def test_a_slow_responder_holds_up_nobody_else(authority: Authority) -> None:
    """While one connection waits for an answer that does not come, others work as ever, and the wait has an end."""
    stage = authority.stage
    slow = OCSP.replace("Timeout 1", "Timeout 4")
    daemon = authority.start(slow, beside=rule("beside", port=7001))
    results: list[bool] = []
    waiting = threading.Thread(target=lambda: results.append(authority.enters("good")))
    # It listens and takes no connection: the kernel does, and nobody ever answers.
    with program(stage.host), program(stage.host, port=7001), stage.peer.listen("0.0.0.0", RESPONDER):
        waiting.start()
        wait_until(lambda: [each["status"] for each in daemon.connections()] == ["Handshake"], 10)
        for _ in range(20):  # on both workers
            started = time.monotonic()
            with client_context(authority.store).wrap_socket(stage.peer.connect("10.1.0.1", 7001)) as sock:
                assert b"hello" == echo(sock)
            assert time.monotonic() - started < 1
        assert [] == results
        waiting.join(20)
        assert [False] == results
        wait_until(lambda: "did not answer within 4 s" in daemon.log)
        assert "RC:  427 " in daemon.log
