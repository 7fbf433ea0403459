"""A sniffer on the wire looks for the program's bytes while processes of `attls exec` are killed around it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import pytest

from tests.exec.conftest import stage
from tests.exec.stage import Peer, Stage, environment, outbound
from tests.namespaces import Sniffer, join, namespace, needs_namespaces, wait_until

__all__ = ["stage"]
pytestmark = [pytest.mark.scene, needs_namespaces]

MARKER = b"TOP-SECRET-PAYROLL-0123456789"
# Three threads that never give up until they were refused forty times; says how often it was served, then refused.
CHATTER = """
import os, socket, sys, threading, time
place, marker = (sys.argv[1], int(sys.argv[2])), sys.argv[3].encode()
served = refused = 0
print(os.getppid(), flush=True)
def run():
    global served, refused
    while refused < 40:
        try:
            with socket.create_connection(place, 1) as sock:
                sock.settimeout(1)
                for _ in range(5):
                    sock.sendall(marker)
                    if not sock.recv(100):
                        break
                    served += 1
        except OSError:
            refused += 1
            time.sleep(0.01)
threads = [threading.Thread(target=run) for _ in range(3)]
for each in threads: each.start()
for each in threads: each.join()
print(served, refused)
"""


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("victim", ["helper", "front"])
def test_when_a_process_of_ours_is_killed(stage: Stage, victim: str, version: int) -> None:
    """The program speaks on and on; not one of its bytes crosses the wire in clear, before or afterwards."""
    with namespace("here") as here, namespace("there") as there:
        join(here, there)
        with contextlib.closing(Sniffer(there, "veth1b")) as sniffer, contextlib.ExitStack() as stack:
            with there.inside():
                peer = stack.enter_context(Peer(stage.server_context(), host=there.addresses[version]))
            policy = stage.policy(outbound(peer.port))
            words = (sys.executable, "-c", CHATTER, there.addresses[version], str(peer.port), MARKER.decode())
            process = here.popen(stage.command(policy, *words), stdout=-1, stderr=-1, text=True, env=environment())
            assert process.stdout is not None
            helper = int(process.stdout.readline())
            wait_until(lambda: len(peer.seen) > 10, 20)
            if victim == "helper":
                os.kill(helper, signal.SIGKILL)
                output, errors = process.communicate(timeout=30)
                served, refused = map(int, output.split())
                assert (True, True) == (served > 10, refused >= 40), errors
                assert "helper process died (signal 9)" in errors
            else:
                process.kill()
                assert ("", "") == process.communicate(timeout=30)
            seen = sniffer.seen()
    assert b"\x16\x03" in seen  # the sniffer was at the right place
    assert MARKER not in seen
