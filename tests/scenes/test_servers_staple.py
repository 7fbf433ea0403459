"""A server staples what its responder said, so that clients need not ask: `openssl s_client -status` sees it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.namespaces import wait_until
from tests.scenes.authority import RESPONDER, Authority
from tests.scenes.conftest import Stage
from tests.scenes.daemons import program, rule

pytestmark = pytest.mark.scene
BLOCK = f"""  TTLSGskAdvancedParms
  {{
    TTLSGskOcspParms
    {{
      OcspServerStapling EndEntity
      OcspUrl http://10.1.0.2:{RESPONDER}/
      OcspResponseTimeout 2
    }}
  }}
"""


def shown(authority: Authority, version: str) -> str:
    """Connect as a client that asks for the answer; return what the openssl command says of it."""
    with authority.stage.peer.inside():
        done = subprocess.run(
            ["openssl", "s_client", "-connect", "10.1.0.1:7000", "-CAfile", str(authority.store / "ca.pem"), "-status",
             version],
            input="", capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    assert "Verify return code: 0 (ok)" in done.stdout, done.stdout + done.stderr
    return done.stdout


def test_the_answer_comes_with_the_certificate(stage: Stage, tmp_path: Path) -> None:
    """Fetched in the background, past a rule that catches everything, and there when the responder is gone."""
    authority = Authority(stage, tmp_path)
    responder = authority.serve_ocsp()
    catch_all = rule("all", direction="Outbound", port=1).replace("Range 1\n", "Range 1-65535\n")
    daemon = stage.daemon.start(rule("stapling").replace("Server\n", f"Server\n{BLOCK}") + catch_all)
    with program(stage.host):
        wait_until(lambda: "Cert Status: good" in shown(authority, "-tls1_3"), 10)
        authority.stop_on_peer(responder, RESPONDER)
        for version in ("-tls1_2", "-tls1_3"):
            said = shown(authority, version)
            assert "OCSP Response Status: successful" in said
            assert "Cert Status: good" in said
    assert "no OCSP answer" not in daemon.log


def test_handshakes_do_not_wait_for_it(stage: Stage, tmp_path: Path) -> None:
    """While the responder says nothing, clients get in without an answer, and the log says what is missing."""
    authority = Authority(stage, tmp_path)
    with stage.peer.listen("0.0.0.0", RESPONDER), program(stage.host):
        daemon = stage.daemon.start(rule("stapling").replace("Server\n", f"Server\n{BLOCK}"))
        assert "OCSP response: no response sent" in shown(authority, "-tls1_3")
        wait_until(lambda: "no OCSP answer to staple for 'server' of SRV/RING" in daemon.log, 10)
        assert "did not answer within 2 s" in daemon.log
        assert "OCSP response: no response sent" in shown(authority, "-tls1_3")
