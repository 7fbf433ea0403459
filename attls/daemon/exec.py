"""`attls exec`: one program under AT-TLS, with no privileges. Three processes, and who watches whom.

    front    what the user started and waits for: passes signals on, ends as the program ended
    helper   its child: loads nothing, knows everything; answers held calls and carries the connections
    program  the helper's child: under the filter before it is executed, with all that it starts

The helper has to be the program's ancestor, for some kernels let only ancestors look into a process (Yama), and it has
to outlive the program if that leaves others behind (a daemon that forks); hence the front, which does not. Whoever of
the program's children loses its parent becomes the helper's (PR_SET_CHILD_SUBREAPER).

Fail closed. The descriptor of held calls is the helper's alone: when the helper dies, the kernel fails each of them
with ENOSYS, and every socket that programs hold is reset, because ours linger with time zero. When the front is killed,
the helper kills the program and ends. The program cannot leave the filter.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import json
import logging
import os
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

import trio

from attls.daemon import process
from attls.daemon.exec_calls import Calls
from attls.daemon.exec_law import Law
from attls.daemon.lookups import Lookups
from attls.errors import AttlsError, DaemonError, InterceptError
from attls.intercept import reach, unprivileged
from attls.intercept.reach import Programs
from attls.intercept.seccomp import Architecture
from attls.intercept.unprivileged import Notifications
from attls.model import Defaults
from attls.observe import Ledger
from attls.observe.messages import configure_log
from attls.relay import Reactor
from attls.relay.lifecycle import State

NOT_DONE = 3
_SETTLE_SECONDS = 2.0
_LONGEST_MESSAGE = 65536
_SIGINFO = struct.Struct("=IiiI112x")  # struct signalfd_siginfo: number, errno, code, sender; then what we do not need
# Signals that are not passed on: those that cannot be caught, those that mean a fault of our own, and our child's.
_OURS = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCHLD,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGABRT,
    signal.SIGSYS,
}
_PASSED_ON = signal.valid_signals() - _OURS
_libc = ctypes.CDLL(None, use_errno=True)
_log = logging.getLogger("attls.exec")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOptions:
    """How to run a program: `command` is its name and arguments; `log` gets what we write, None keeps us silent.

    `verbose` prints a line for each connection on standard error.
    """

    policy: Path
    keyrings: Path
    command: Sequence[str]
    defaults: Defaults = Defaults.MODERN
    log: Path | None = None
    verbose: bool = False


def run(options: ExecOptions) -> NoReturn:
    """Run the program and end this process as the program ends, by the same signal if need be.

    Raises PolicyError when the policy has errors, DaemonError or InterceptError when the program could not be started
    under it; it has not run then.
    """
    machine = unprivileged.architecture()
    law = Law(options.policy, options.keyrings, defaults=options.defaults)
    log = _open_log(options.log)
    if options.verbose:
        for problem in law.problems:
            print(f"attls: {problem}", file=sys.stderr, flush=True)
    inherited = _inherited_descriptors()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON | {signal.SIGCHLD})
    unprivileged.become_subreaper()
    ours, helpers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    sys.stderr.flush()
    helper = os.fork()
    if not helper:
        ours.close()
        _in_child(lambda: _Helper(options, machine, law, helpers, inherited, mask, log).run())
    helpers.close()
    front = _Front(ours, helper)
    front.wait_for_start()
    process.forbid_dumps()
    _let_go_of(inherited)
    _silence((0, 1))
    front.wait()


def _in_child(work: Any) -> NoReturn:
    """Run `work` in a process just forked, which must never return into the code of its parent."""
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc()
    finally:
        os._exit(code)


# --------------------------------------------------------------------------------------------------------------------
# The front


class _Front:
    """The process the user sees. The helper tells it the program's pidfd and, at the end, how it ended."""

    def __init__(self, helpers: socket.socket, helper: int) -> None:
        self._helpers = helpers
        self._helper = helper
        self._program = -1
        self._pidfd = -1

    def wait_for_start(self) -> None:
        """Wait until the program runs. Raises what the helper could not do."""
        data, descriptors, _, _ = socket.recv_fds(self._helpers, _LONGEST_MESSAGE, 1)
        message: dict[str, Any] = (
            json.loads(data) if data else {"problem": "the helper process ended before the program was started"}
        )
        if "problem" in message:
            os.waitpid(self._helper, 0)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON | {signal.SIGCHLD})
            kind = InterceptError if message.get("kind") == "intercept" else DaemonError
            raise kind(message["problem"])
        self._program = int(message["program"])
        self._pidfd = descriptors[0]

    def wait(self) -> NoReturn:
        """Pass signals on until the program has ended, then end in the same way."""
        signals = _signal_descriptor(_PASSED_ON)
        poll = select.poll()
        poll.register(signals, select.POLLIN)
        poll.register(self._helpers, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == signals:
                    self._pass_on(os.read(signals, _SIGINFO.size))
                    continue
                data = self._helpers.recv(_LONGEST_MESSAGE)
                if not data:
                    poll.unregister(self._helpers)
                    self._helper_died(signals)
                message = json.loads(data)
                if "stopped" in message:
                    os.kill(os.getpid(), signal.SIGSTOP)  # our shell is to see it; it wakes us up again as well
                    self._send(signal.SIGCONT)
                else:
                    _end_like(message["status"])

    def _pass_on(self, information: bytes) -> None:
        number, _, code, _ = _SIGINFO.unpack(information)
        if code <= 0:  # sent by a process; what the terminal sends, it sends to the program as well
            self._send(number)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _helper_died(self, signals: int) -> NoReturn:
        """Wait for the program, which is our child now: it has lost the network, but may put its affairs in order."""
        _, status = os.waitpid(self._helper, 0)
        print(
            f"attls: the helper process died ({_in_words(status)}): the program's connections are reset, and new ones "
            "fail",
            file=sys.stderr,
            flush=True,
        )
        poll = select.poll()
        poll.register(signals, select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == signals:
                    self._pass_on(os.read(signals, _SIGINFO.size))
                else:
                    _, status = os.waitpid(self._program, 0)
                    _end_like(status)


def _signal_descriptor(signals: Any) -> int:
    mask = bytearray(128)
    for number in signals:
        mask[(number - 1) // 8] |= 1 << (number - 1) % 8
    descriptor = _libc.signalfd(-1, bytes(mask), os.O_CLOEXEC)
    if descriptor < 0:
        raise DaemonError(f"cannot receive signals: {os.strerror(ctypes.get_errno())}")
    return int(descriptor)


def _in_words(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def _end_like(status: int) -> NoReturn:
    """End this process as the wait status says, without writing a second core file."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        os._exit(128 + number)
    os._exit(os.waitstatus_to_exitcode(status))


# --------------------------------------------------------------------------------------------------------------------
# The helper


class _Helper:
    """The process that answers held calls. `mask` is the signal mask that the program is to have."""

    def __init__(
        self,
        options: ExecOptions,
        machine: Architecture,
        law: Law,
        front: socket.socket,
        inherited: Sequence[int],
        mask: set[int | signal.Signals],
        log: TextIO | None,
    ) -> None:
        self._options = options
        self._machine = machine
        self._law = law
        self._front = front
        self._inherited = inherited
        self._mask = mask
        self._log = log
        self._program = 0
        self._status: int | None = None
        self._reported = False
        self._front_is_gone = False

    def run(self) -> None:
        """Start the program and serve until no process is left under the filter and nothing is to be delivered."""
        try:
            notifications, start, pidfd = self._prepare()
            process.raise_descriptor_limit()
            process.forbid_dumps()
            self._launch(start)
        except (AttlsError, OSError) as error:
            kind = "intercept" if isinstance(error, InterceptError) else "daemon"
            self._tell({"problem": str(error), "kind": kind})
            return
        socket.send_fds(self._front, [json.dumps({"program": self._program}).encode()], [pidfd])
        os.close(pidfd)
        _let_go_of(self._inherited)
        _silence((0, 1) if self._options.verbose else (0, 1, 2))
        os.setsid()  # what is typed at the terminal is for the program
        os.chdir("/")
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        handler = configure_log(self._log) if self._log is not None else None  # it has a thread, so not before a fork
        for problem in self._law.problems:
            _log.warning("%s", problem)
        gc.collect()
        gc.freeze()  # what start-up has left behind lives as long as we do; collections need not walk it
        process.collect_rarely()
        try:
            trio.run(self._serve, notifications)
        finally:
            if handler is not None:
                handler.close()

    def _prepare(self) -> tuple[Notifications, socket.socket, int]:
        """Make the process that will be the program, put it under the filter, and find out whether we may look into it.

        Returns the held calls' descriptor, the socket on which the process waits to be let go, and its pidfd.
        """
        unprivileged.become_subreaper()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._program = os.fork()
        if not self._program:
            ours.close()
            self._front.close()
            _in_child(lambda: self._become_program(theirs))
        with theirs:
            data, descriptors, _, _ = socket.recv_fds(ours, _LONGEST_MESSAGE, 1)
            if not descriptors:
                raise InterceptError(data.decode() if data else "the process for the program ended too early")
            with contextlib.closing(Programs(self._machine)) as programs:
                reach.probe(programs, self._program, theirs.fileno())
        return Notifications(descriptors[0]), ours, os.pidfd_open(self._program)

    def _become_program(self, supervisor: socket.socket) -> None:
        """Install the filter, hand its descriptor up, wait to be let go, and execute the program. In the child."""
        command = list(self._options.command)
        try:
            listener = unprivileged.install(self._machine, self._law.calls())
        except InterceptError as error:
            supervisor.send(str(error).encode())
            return
        socket.send_fds(supervisor, [b"filter"], [listener])
        os.close(listener)
        if not supervisor.recv(1):
            return
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores them, and its children would inherit that
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        try:
            os.execvp(command[0], command)  # noqa: S606 - it is what the user asked for
        except OSError as error:
            supervisor.send(str(error.errno).encode())

    def _launch(self, start: socket.socket) -> None:
        """Let the program go. Raises DaemonError when it cannot be executed."""
        with start:
            start.send(b"!")
            problem = start.recv(64)  # closed by a successful exec
        if problem:
            name = self._options.command[0]
            number = int(problem)
            if number == errno.ENOENT:
                raise DaemonError(f"there is no program {name}; check the name, or give its path")
            raise DaemonError(f"cannot execute {name}: {os.strerror(number)}")

    async def _serve(self, notifications: Notifications) -> None:
        reactor = Reactor()
        calls = Calls(
            self._machine,
            notifications,
            self._law,
            ledger=Ledger(),
            reactor=reactor,
            report=self._report if self._options.verbose or self._options.log else None,
        )
        lookups = Lookups(mark=None, wake=reactor.give_way)
        reactor.start_inquiry = lookups.start
        async with trio.open_nursery() as nursery:
            await nursery.start(lookups.run)
            self._law.keep_staples = lookups.keep
            lookups.keep(self._law.staples())
            nursery.start_soon(reactor.run)
            nursery.start_soon(calls.run)
            nursery.start_soon(self._reap, calls, reactor)
            nursery.start_soon(self._watch_front)
            await calls.deserted.wait()
            while reactor.connections or not self._reported:  # noqa: ASYNC110 - it is over soon
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    async def _watch_front(self) -> None:
        """Kill all that runs under the filter when the front is gone before its time: who killed it means them."""
        await trio.lowlevel.wait_readable(self._front)
        self._front_is_gone = True
        if not self._reported:
            self._kill_all()

    @staticmethod
    def _kill_all() -> NoReturn:
        """Kill all processes below us, and end. Each one killed leaves us its children, until none is left."""
        with contextlib.suppress(ChildProcessError):
            while True:
                for child in process.children():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)  # ours alone to reap, so the number is still its own
                os.waitpid(-1, 0)
        os._exit(NOT_DONE)

    async def _reap(self, calls: Calls, reactor: Reactor) -> None:
        """Collect whoever ended below us, and tell the front about the program."""
        with trio.open_signal_receiver(signal.SIGCHLD) as received:
            while True:
                self._collect()
                if self._status is not None and not self._reported:
                    with trio.move_on_after(_SETTLE_SECONDS):
                        await self._settle(calls, reactor)
                    self._tell({"status": self._status})
                    self._reported = True
                await received.__anext__()

    def _collect(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid != self._program:
                continue
            if os.WIFSTOPPED(status):
                self._tell({"stopped": os.WSTOPSIG(status)})
            else:
                self._status = status

    async def _settle(self, calls: Calls, reactor: Reactor) -> None:
        """Wait until what the program wrote before it ended is on its way, unless it left others behind."""
        done = (State.APP_DONE, State.CLOSED)
        await trio.lowlevel.checkpoint()
        while any(relay.life.state not in done or not relay.drained() for relay in reactor.connections.values()):
            if not calls.deserted.is_set():
                await trio.sleep(0.002)
                if not calls.deserted.is_set():
                    return
            await trio.sleep(0.002)

    def _tell(self, message: dict[str, Any]) -> None:
        if not self._front_is_gone:
            with contextlib.suppress(OSError):
                self._front.send(json.dumps(message).encode())

    def _report(self, line: str) -> None:
        if self._options.log is not None:
            _log.info("%s", line)
        if self._options.verbose:
            with contextlib.suppress(OSError):
                os.write(2, f"attls: {line}\n".encode())


# --------------------------------------------------------------------------------------------------------------------
# Descriptors


def _open_log(path: Path | None) -> TextIO | None:
    """Open the log; where there is none, see to it that nothing is written."""
    log = logging.getLogger("attls")
    log.handlers[:] = [logging.NullHandler()]
    log.propagate = False
    if path is None:
        return None
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise DaemonError(f"cannot write the log {path}: {error.strerror}") from error


def _inherited_descriptors() -> list[int]:
    """Return the descriptors beyond the usual three that we were given for the program: ours are closed on exec."""
    found = []
    try:
        names = os.listdir("/proc/self/fd")  # noqa: PTH208 - numbers, not paths
    except OSError as error:
        raise DaemonError(f"attls exec needs /proc, which is not mounted here ({error.strerror})") from error
    for number in map(int, names):
        with contextlib.suppress(OSError):
            if number > 2 and not fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                found.append(number)
    return found


def _let_go_of(descriptors: Sequence[int]) -> None:
    """Close what only the program is to hold, so that whoever waits for its end does not wait for ours."""
    for number in descriptors:
        with contextlib.suppress(OSError):
            os.close(number)


def _silence(numbers: Sequence[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for number in numbers:
        os.dup2(null, number, inheritable=False)
    os.close(null)
