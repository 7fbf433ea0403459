"""Who is behind a connection: names read from text, and owners found on the real kernel."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attls.intercept.owner import (
    Cgroups,
    Owners,
    job_of_cgroup,
    job_of_command,
    local_uids,
    socket_inodes,
    start_ticks,
    user_name,
)
from attls.model import UNKNOWN_OWNER, Direction, Endpoint, Flow, JobSource, Owner

UNIT, CONTAINER = JobSource.UNIT, JobSource.CONTAINER


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/system.slice/vsftpd.service", ("VSFTPD", UNIT)),
        ("/system.slice/system-postgresql.slice/postgresql@15-main.service", ("POSTGRESQL-15-MAIN", UNIT)),
        ("/system.slice/pay.service/worker/1", ("PAY", UNIT)),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/pay.service", ("PAY", UNIT)),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", None),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice", None),
        ("/user.slice/user-1000.slice/session-3.scope", None),
        ("/machine.slice/machine-build\\x2dhost.scope", ("BUILD-HOST", CONTAINER)),
        ("/lxc.payload.web1", ("WEB1", CONTAINER)),
        ("/lxc/web1", ("WEB1", CONTAINER)),
        ("/lxc.payload.web1/system.slice/nginx.service", ("NGINX", UNIT)),
        ("/system.slice/docker-0123456789abcdef.scope", None),
        ("/docker/0123456789abcdef", None),
        ("/", None),
        ("", None),
    ],
)
def test_job_of_cgroup(path: str, expected: tuple[str, JobSource] | None) -> None:
    """A systemd service or a named container names the job; sessions and container ids do not."""
    assert expected == job_of_cgroup(path)


@pytest.mark.parametrize(
    ("executable", "arguments", "expected"),
    [
        ("/usr/sbin/vsftpd", ["vsftpd: LISTENER"], "VSFTPD"),
        ("/usr/bin/redis-check-rdb", ["redis-server *:6379"], "REDIS-CHECK-RDB"),
        ("/opt/pay/payd (deleted)", ["payd"], "PAYD"),
        ("/usr/bin/python3.11", ["python3", "/opt/pay/pay.py", "--port", "1"], "PAY.PY"),
        ("/usr/bin/python3.11", ["python3", "-W", "error", "-u", "pay.py"], "PAY.PY"),
        ("/usr/bin/python3.11", ["python3", "-m", "http.server", "80"], "HTTP.SERVER"),
        ("/usr/bin/python3.11", ["python3", "-c", "import this"], "PYTHON3.11"),
        ("/usr/bin/python3.11", ["python3"], "PYTHON3.11"),
        ("/usr/bin/perl", ["perl", "-w", "/usr/local/bin/report"], "REPORT"),
        ("/bin/dash", ["/bin/sh", "-e", "/etc/rc.local"], "DASH"),
        ("/usr/bin/bash", ["bash", "-o", "errexit", "/srv/nightly"], "NIGHTLY"),
        ("/usr/lib/jvm/java-17/bin/java", ["java", "-Xmx1g", "-cp", "a:b", "com.example.Pay"], "COM.EXAMPLE.PAY"),
        ("/usr/lib/jvm/java-17/bin/java", ["java", "-jar", "/opt/pay.jar"], "PAY.JAR"),
        ("/usr/bin/pythonic", ["pythonic", "script"], "PYTHONIC"),
        ("", [], None),
    ],
)
def test_job_of_command(executable: str, arguments: list[str], expected: str | None) -> None:
    """The executable file names the job, for an interpreter the script; argv[0] never does."""
    assert expected == job_of_command(executable, arguments)


@given(st.text(), st.lists(st.text()))
def test_job_of_any_command_is_a_name_or_nothing(executable: str, arguments: list[str]) -> None:
    """No command line, however strange, is an error or an empty name."""
    assert job_of_command(executable, arguments) != ""


@given(st.text())
def test_job_of_any_cgroup_is_a_name_or_nothing(path: str) -> None:
    """No cgroup path is an error."""
    job_of_cgroup(path)


def test_socket_inodes() -> None:
    """Only sockets count among a process's open files."""
    links = ["/dev/null", "socket:[4711]", "pipe:[12]", "anon_inode:[eventpoll]", "socket:[x]", "socket:[]"]
    assert [4711] == list(socket_inodes(links))


def test_start_ticks_behind_a_hostile_name() -> None:
    """A process called `x) 1 (` cannot shift the fields that follow its name."""
    stat = "7 (x) 1 () S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2 3"
    assert start_ticks(stat) == 987654


def test_local_uids() -> None:
    """Accounts are found whatever the case; a name that nobody has is nobody."""
    assert {0} == local_uids("Root")
    assert frozenset() == local_uids("NO-SUCH-USER")


def test_cgroup_paths(tmp_path: Path) -> None:
    """A cgroup's id is its directory's inode; one that appears later is found, one that is gone is not known."""
    (tmp_path / "cgroup.controllers").touch()
    (tmp_path / "system.slice" / "a.service").mkdir(parents=True)
    cgroups = Cgroups([tmp_path])
    assert cgroups.path((tmp_path / "system.slice" / "a.service").stat().st_ino) == "/system.slice/a.service"
    assert cgroups.path(tmp_path.stat().st_ino) == "/"
    (tmp_path / "b.service").mkdir()
    assert cgroups.path((tmp_path / "b.service").stat().st_ino) == "/b.service"
    assert cgroups.path(1) is None
    assert Cgroups([tmp_path / "missing"]).path(1) is None


# --------------------------------------------------------------------------------------------------------------------
# On the real kernel


@pytest.fixture
def owners() -> Iterator[Owners]:
    found = Owners()
    yield found
    found.close()


@pytest.fixture
def folder_for_all() -> Iterator[Path]:
    """A folder that other users may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def flow_of(sock: socket.socket, direction: Direction = Direction.OUTBOUND) -> Flow:
    return Flow(direction, Endpoint.of(sock.getsockname()), Endpoint.of(sock.getpeername()))


def towards(listener: socket.socket, address: str | None = None) -> Flow:
    name = listener.getsockname()
    return Flow(
        Direction.INBOUND,
        Endpoint.of((address or name[0], name[1])),
        Endpoint.of(("::1" if address == "::1" else "127.0.0.1", 9)),
    )


def is_this_process(owner: Owner | None) -> bool:
    return (
        owner is not None
        and (owner.uid, owner.user, owner.pid) == (os.geteuid(), user_name(os.geteuid()), os.getpid())
        and owner.start_time == pytest.approx(psutil.Process().create_time(), abs=0.02)
        and owner.job is not None
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_owner_of_an_outbound_connection(owners: Owners, address: str) -> None:
    """The process that holds the connecting socket is found, at once without and on demand with its pid."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.create_server((address, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as sock,
    ):
        quick = owners.of_outbound(flow_of(sock))
        assert (os.geteuid(), None, os.fstat(sock.fileno()).st_ino) == (quick.uid, quick.pid, quick.inode)
        assert is_this_process(owners.complete(quick))
        assert is_this_process(owners.of_outbound(flow_of(sock), complete=True))


def test_owner_of_a_mapped_connection(owners: Owners) -> None:
    """An IPv6 socket that speaks IPv4 is found by its IPv4 flow."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_INET6) as sock:
        sock.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
        flow = flow_of(sock)
        assert flow.local.address.version == 4
        assert is_this_process(owners.of_outbound(flow, complete=True))


def test_closed_socket_has_no_owner(owners: Owners) -> None:
    """A connection whose program is done with it belongs to nobody; it is not mistaken for root's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        flow = flow_of(sock)
        accepted, _ = listener.accept()
        sock.close()  # the peer has not closed: the kernel keeps the socket without a holder
        orphan = owners.of_outbound(flow, complete=True)
        assert (None, None, None) == (orphan.pid, orphan.job, orphan.inode)
        accepted.close()


def test_unknown_connection_has_no_owner(owners: Owners) -> None:
    """No connection, no owner; a listener on the same port does not answer for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        flow = Flow(Direction.OUTBOUND, Endpoint.of(listener.getsockname()), Endpoint.of(("192.0.2.1", 9)))
        assert owners.of_outbound(flow) == UNKNOWN_OWNER


@pytest.mark.parametrize(
    ("bound", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("::", "::1"), ("::", "127.0.0.1")],
)
def test_owner_of_a_listener(owners: Owners, bound: str, asked: str) -> None:
    """The listening process is found for specific, wildcard and dual-stack sockets."""
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.create_server((bound, 0), family=family, dualstack_ipv6=bound == "::") as listener:
        for complete in (True, False):  # the second answer comes from memory
            assert is_this_process(owners.of_listener(towards(listener, asked), complete=complete))


def test_nobody_listens(owners: Owners) -> None:
    """A port without a listener is None, also where connections from it exist; IPv6-only is not for IPv4."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sock,
        socket.create_server(("::", 0), family=socket.AF_INET6) as other,
    ):
        assert owners.of_listener(flow_of(sock, Direction.INBOUND)) is None
        assert owners.of_listener(towards(other, "127.0.0.1")) is None
    assert owners.of_listener(Flow(Direction.INBOUND, flow_of_nothing(), Endpoint.of(("127.0.0.1", 9)))) is None


def flow_of_nothing() -> Endpoint:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return Endpoint.of(gone.getsockname())


def test_oldest_holder_owns_a_listener(owners: Owners) -> None:
    """Of a master and a worker that share the listening socket, the master is the owner, and after it the worker."""
    program = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
child = os.fork()
if child:
    print(listener.getsockname()[1], child, flush=True)
sys.stdin.read()
"""
    master = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert master.stdout is not None
    assert master.stdin is not None
    port, worker = (int(word) for word in master.stdout.readline().split())
    flow = Flow(Direction.INBOUND, Endpoint.of(("127.0.0.1", port)), Endpoint.of(("127.0.0.1", 9)))
    found = owners.of_listener(flow, complete=True)
    assert found is not None
    assert found.pid == master.pid
    master.kill()
    master.wait()
    again = Owners()
    found = again.of_listener(flow, complete=True)
    again.close()
    assert found is not None
    assert found.pid == worker
    master.stdin.close()
    master.stdout.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="starts programs as other users")
def test_job_is_the_executable_not_the_name_a_program_gives_itself(owners: Owners, folder_for_all: Path) -> None:
    """A program that calls itself something else is still known by its file, and by its user."""
    program = folder_for_all / "paysvc"
    shutil.copy("/usr/bin/perl", program)
    script = "$0 = 'sshd'; use IO::Socket; $s = IO::Socket::INET->new(PeerAddr => $ARGV[0]); <STDIN>;"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = subprocess.Popen(
            [program, "-e", script, f"127.0.0.1:{listener.getsockname()[1]}"], stdin=subprocess.PIPE, user="nobody"
        )
        accepted, peer = listener.accept()
        flow = Flow(Direction.OUTBOUND, Endpoint.of(peer), Endpoint.of(listener.getsockname()))
        owner = owners.of_outbound(flow, complete=True)
        assert ("nobody", started.pid, "PAYSVC", JobSource.EXECUTABLE) == (
            owner.user,
            owner.pid,
            owner.job,
            owner.job_source,
        )
        accepted.close()
        started.communicate()


def test_threads_may_each_have_their_own(owners: Owners) -> None:
    """Two lookups in two threads with an `Owners` each do not disturb one another."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        flow = flow_of(sock)
        wrong: list[Owner] = []

        def look() -> None:
            mine = Owners()
            wrong.extend(owner for _ in range(200) if (owner := mine.of_outbound(flow)).uid != os.geteuid())
            mine.close()

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [] == wrong


def test_no_descriptor_left_is_not_a_process_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc cannot be read for want of descriptors the look-up fails, so that the connection is refused."""
    owners = Owners()

    def exhausted(_folder: str) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "listdir", exhausted)
    with pytest.raises(OSError, match="Too many"):
        owners.complete(Owner(uid=os.getuid(), user="root", inode=4711))
    owners.close()
