"""Source that is written for z/OS compiles with another include path and another `ioctl`, and gets the same answers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from attls.c import DIRECTORY
from attls.model import HandshakeRole
from tests.control.exchange import SECONDS, Exchange, controlled, in_thread
from tests.control.test_barrier import Wire
from tests.relay.street import der, leaf, server_context

SOURCE = Path(__file__).with_name("zos_style.c")
CERTIFICATE = der(leaf("server.test").cert_chain_pems[0].bytes())
EXPECTED = f"""\
sizeof 56 44
version 0: rc -1 errno EINVAL errno2 03ed
query: application controlled, not secure
allow alone: rc -1 errno EPERM errno2 00a9
reset before init: rc -1 errno EPROTO errno2 0000
init: application controlled, secure
init again: rc -1 errno EALREADY errno2 0497
certificate into 10 bytes: rc -1 errno ENOBUFS errno2 006b
certificate: application controlled, secure
certificate of {len(CERTIFICATE)} bytes begins with 30 82
protocol 3.4 cipher 4X 1302 key share 0029 type 1 user length 0 fips 1
names: application controlled, secure
rule rule
group action group
environment action environment
connection action missing
item into nothing: rc -1 errno ENOBUFS errno2 006b
fits then: 1
item: application controlled, secure
the same certificate: 1
stop: application controlled, not secure
stop again: rc -1 errno EALREADY errno2 0497
"""


@pytest.mark.parametrize(
    "compiler",
    [["gcc", "-std=c89", "-pedantic", "-D_DEFAULT_SOURCE"], ["gcc", "-std=gnu17"]],
    ids=["c89", "gnu17"],
)
def test_a_source_in_the_style_of_zos(tmp_path: Path, compiler: list[str]) -> None:
    """Versions 1 and 2, quadruplets, certificates, errno and errno-junior, and not a warning."""
    program_file = tmp_path / "program"
    options = ["-Wall", "-Wextra", "-Werror", "-c"]
    subprocess.run(
        [*compiler, *options, "-DATTLS_REPLACE_IOCTL", f"-I{DIRECTORY}", SOURCE, "-o", tmp_path / "program.o"],
        check=True, timeout=60,
    )  # fmt: skip
    subprocess.run(["gcc", *options, DIRECTORY / "attls_ioctl.c", "-o", tmp_path / "client.o"], check=True, timeout=60)
    subprocess.run(["gcc", tmp_path / "program.o", tmp_path / "client.o", "-o", program_file], check=True, timeout=60)
    with Exchange(tmp_path, controlled(HandshakeRole.CLIENT)) as exchange, exchange.outbound() as (program, peer):
        program.setblocking(True)

        def play() -> None:
            wire = Wire(peer, server_context(), server=True)
            wire.shake()
            wire.end()

        playing = in_thread(play)
        done = subprocess.run(
            [program_file, str(program.fileno())],
            pass_fds=[program.fileno()], env={"ATTLS_RUN_DIR": str(exchange.run_dir)},
            capture_output=True, text=True, check=False, timeout=SECONDS,
        )  # fmt: skip
        assert EXPECTED == done.stdout
        playing()
