"""The demo's machines: private while they live, gone when their maker is, however it went."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attls.cli.demo_stage import Conversation, Machine, Sniffer, join, wait_for_line
from attls.errors import AttlsError

pytestmark = pytest.mark.scene


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    with Machine("left") as left, Machine("right") as right:
        join(
            left,
            right,
            interface="wire",
            left_addresses=["10.77.0.1/24", "fd77::1/64"],
            right_addresses=["10.77.0.2/24", "fd77::2/64"],
        )
        yield left, right


def exists(pid: int) -> bool:
    """Tell whether a process is there and not just a name waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> bool:
    """Give a process five seconds to be gone."""
    deadline = time.monotonic() + 5
    while exists(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not exists(pid)


def test_two_pairs_of_machines_do_not_meet(machines: tuple[Machine, Machine]) -> None:
    """The same addresses and interface names serve two demos at the same time, and the host sees neither."""
    with Machine("left") as left, Machine("right") as right:
        join(left, right, interface="wire", left_addresses=["10.77.0.1/24"], right_addresses=["10.77.0.2/24"])
        assert "wire" in left.run("ip", "-o", "link")
    assert "wire" not in [name for _, name in socket.if_nameindex()]
    assert "wire" in machines[0].run("ip", "-o", "link")


@pytest.mark.parametrize("address", ["10.77.0.2", "fd77::2"])
def test_the_sniffer_hears_both_ways_and_nothing_local(machines: tuple[Machine, Machine], address: str) -> None:
    """What crosses the wire is captured whole, in both directions; what stays on the machine is not."""
    left, right = machines
    sniffer = Sniffer(right, "wire")
    try:
        listener = right.spawn("nc", "-l", "-N", address, "4000")
        while ":4000" not in right.run("ss", "-H", "-ltn"):
            time.sleep(0.01)
        caller = left.spawn("nc", "-N", address, "4000")
        assert caller.stdin is not None
        assert listener.stdin is not None
        caller.stdin.write("question\n")
        caller.stdin.flush()
        assert wait_for_line(listener, "^question$", 5) == "question"
        listener.stdin.write("answer\n")
        listener.stdin.flush()
        assert wait_for_line(caller, "^answer$", 5) == "answer"
        streams, lost = sniffer.streams()
        assert [b"question\n", b"answer\n"] == [stream.data for stream in streams]
        assert 0 == lost
        right.run("sh", "-c", "echo local | nc -l -N 127.0.0.1 4001 & sleep 0.2; nc -d 127.0.0.1 4001")
        assert ([], 0) == sniffer.streams()
    finally:
        sniffer.close()


def test_closing_a_machine_ends_its_programs() -> None:
    """Daemons and their children end with the machine, seen from the host."""
    with Machine("lonely") as machine:
        process = machine.spawn("sh", "-c", "trap '' TERM HUP; sleep 1000 & setsid sleep 1001 & echo up; wait")
        wait_for_line(process, "up", 5)
        programs = [int(pid) for pid in subprocess.check_output(["pgrep", "-f", "^sleep 100[01]$"]).split()]
        home = Path(machine.network).readlink()
        mine = [pid for pid in programs if Path(f"/proc/{pid}/ns/net").readlink() == home]
        assert len(mine) == 2
    assert all(wait_until_gone(pid) for pid in mine)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_machine_does_not_outlive_its_maker(how: signal.Signals) -> None:
    """A maker that dies without a word takes its machines along, and everything that runs on them."""
    script = (
        "import sys, time\nfrom attls.cli.demo_stage import Machine, wait_for_line\n"
        "machine = Machine('orphan')\nprocess = machine.spawn('sh', '-c', 'echo up; sleep 1000')\n"
        "wait_for_line(process, 'up', 5)\nprint(machine.pid, process.pid, flush=True)\ntime.sleep(60)\n"
    )
    maker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    pids = [int(pid) for pid in maker.stdout.readline().split()]
    assert len(pids) == 2
    maker.send_signal(how)
    maker.wait(5)
    maker.stdout.close()
    assert all(wait_until_gone(pid) for pid in pids)


def test_a_failing_program_is_named_with_its_words(machines: tuple[Machine, Machine]) -> None:
    """The sentence names the machine and the command, and repeats what the command said."""
    with pytest.raises(AttlsError, match=r"on the left, `ip link set nonesuch up` failed with 1: .*nonesuch"):
        machines[0].run("ip", "link", "set", "nonesuch", "up")


def test_a_talk_ends_where_the_program_ends() -> None:
    """When the program leaves in the middle of an answer, what it said last is in the error."""
    with Machine("talker") as machine:
        talk = Conversation(machine.spawn("sh"), marker="echo")
        assert "3" == talk.ask("expr 1 + 2")
        with pytest.raises(AttlsError, match="no whole answer: goodbye"):
            talk.ask("echo goodbye; exit")
        talk.close()
