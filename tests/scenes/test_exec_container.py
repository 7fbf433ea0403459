"""`attls exec` in a container: namespaces of its own, no capability at all, and a security profile over its calls.

The container is bubblewrap's, made as whoever runs the tests: user, process, mount, network and other namespaces, an
empty capability set, no_new_privs. The profiles are written here as far as they matter to us: what Docker and Podman
deny of the calls that reach into other processes to a container without CAP_SYS_PTRACE.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping

import pytest

from tests.exec.conftest import stage
from tests.exec.stage import Done, Stage, environment, free_port, inbound, outbound

__all__ = ["stage"]
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls are named by their x86_64 numbers")

PTRACE, PROCESS_VM_READV, PROCESS_VM_WRITEV, KCMP = 101, 310, 311, 312
SECCOMP, PIDFD_OPEN, PIDFD_GETFD = 317, 434, 438
IO_URING = (425, 426, 427)
DOCKER = dict.fromkeys((PIDFD_GETFD, KCMP, *IO_URING), errno.EPERM)
PODMAN = {
    **dict.fromkeys((PTRACE, PROCESS_VM_READV, PROCESS_VM_WRITEV, KCMP), errno.EPERM),
    **dict.fromkeys(IO_URING, errno.ENOSYS),
}
# A server and a client in one program: what lies between them is TLS, and neither knows. Then what it may do here.
BOTH = """
import socket, sys, threading
port = int(sys.argv[1])
listener = socket.create_server(("127.0.0.1", port))
def serve():
    sock, name = listener.accept()
    sock.sendall(sock.recv(100).upper() + str(name[1]).encode())
    sock.close()
thread = threading.Thread(target=serve)
thread.start()
sock = socket.create_connection(("127.0.0.1", port))
sock.sendall(b"hello")
print(sock.recv(100).decode() == f"HELLO{sock.getsockname()[1]}")
thread.join()
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd"))))
try:
    socket.create_connection(("192.0.2.1", 9))
except OSError as error:
    print(error.errno)
"""


@contextlib.contextmanager
def profile(denied: Mapping[int, int]) -> Iterator[int]:
    """Yield a descriptor to read a filter from that lets each of `denied` fail with its errno and allows the rest."""
    code = [(0x20, 0, 0, 0)]  # load the number of the call
    for number, error in denied.items():
        code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | error)]
    code.append((0x06, 0, 0, 0x7FFF0000))
    descriptor = os.memfd_create("profile")
    try:
        os.write(descriptor, b"".join(struct.pack("=HBBI", *each) for each in code))
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def contained(command: list[str], denied: Mapping[int, int], *, proc: bool = True) -> Done:
    """Run `command` in a container with that profile."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    with profile(denied) as descriptor:
        words = ["bwrap", "--unshare-all", "--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--die-with-parent"]
        words += ["--ro-bind", "/", "/", "--dev", "/dev", *(("--proc", "/proc") if proc else ("--tmpfs", "/proc"))]
        words += ["--seccomp", str(descriptor)]
        done = subprocess.run(
            [*words, "--", *command], capture_output=True, text=True, timeout=60, env=environment(), check=False,
            pass_fds=[descriptor],
        )  # fmt: skip
    if done.stderr.startswith("bwrap: ") and "namespace" in done.stderr:
        pytest.skip(f"no container can be made here: {done.stderr.strip()}")
    return Done(done.returncode, done.stdout, done.stderr)


def both_roles(stage: Stage, *, options: tuple[str, ...] = ()) -> list[str]:
    port = free_port()
    policy = stage.policy(inbound(port), outbound(port))
    return stage.command(policy, *stage.python, "-c", BOTH, str(port), options=options)


@pytest.mark.parametrize("denied", [{}, PODMAN], ids=["none", "podman"])
def test_it_works_in_a_container(stage: Stage, denied: Mapping[int, int]) -> None:
    """Without a capability, without a network but loopback, without process_vm_readv: TLS in both roles."""
    done = contained(both_roles(stage, options=("--verbose",)), denied)
    nothing = "0" * 16
    assert (0, ["True", f"{nothing} {nothing}", str(errno.ENETUNREACH)]) == (done.code, done.output.splitlines()), done
    lines = [line for line in done.errors.splitlines() if ": TLSv1.3 TLS_" in line]
    assert {"->", "<-"} == {arrow for line in lines for arrow in ("->", "<-") if arrow in line}


REASONS = {
    "docker": (DOCKER, "(pidfd_getfd: Operation not permitted)"),
    "pidfd_getfd": ({PIDFD_GETFD: errno.ENOSYS}, "(pidfd_getfd: Function not implemented)"),
    "pidfd_open": ({PIDFD_OPEN: errno.EPERM}, "(pidfd_open: Operation not permitted)"),
    "seccomp": ({SECCOMP: errno.EPERM}, "forbids seccomp filters here"),
}


@pytest.mark.parametrize("case", REASONS)
def test_where_a_profile_forbids_it_nothing_is_started(stage: Stage, case: str) -> None:
    """Exit code 3 and one sentence that names the call and, for Docker, the option; the program has not run."""
    denied, reason = REASONS[case]
    done = contained(both_roles(stage), denied)
    assert (3, "", 1) == (done.code, done.output, len(done.errors.splitlines())), done
    assert done.errors.startswith("attls: ")
    assert reason in done.errors
    assert ("--cap-add SYS_PTRACE" in done.errors) == (case in ("docker", "pidfd_open"))


def test_without_proc_it_says_so(stage: Stage) -> None:
    """A container that has no /proc: exit code 3 and one sentence."""
    done = contained(both_roles(stage), {}, proc=False)
    assert (3, "") == (done.code, done.output), done
    assert done.errors.startswith("attls: attls exec needs /proc, which is not mounted here")
