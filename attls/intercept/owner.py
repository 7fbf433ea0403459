"""Who is behind a connection: uid, user, process and job of the program, for outbound and inbound connections.

Rule of the house: what the kernel says of the socket (uid, cgroup) comes first, for no program can choose it. The
process is found afterwards and may be gone: then it is simply not known, which is a value. Cheap and costly are apart:
`of_outbound` and `of_listener` cost one netlink request; `complete` looks through /proc for the pid, and for the
executable's name where the cgroup tells no job.

A pid is found by looking for the socket among the open files of the processes of the socket's uid, those first that
owned sockets before. For listening sockets every other process is tried as well, since daemons open their port as root
and then change their user, and of several holders (a master and its forked workers) the oldest is taken.
"""

from __future__ import annotations

import errno
import functools
import math
import os
import pwd
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from attls.intercept.netlink import SocketDiagnosis, SocketFacts
from attls.model import UNKNOWN_OWNER, Endpoint, Flow, JobSource, Owner

CGROUP_ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
USER_NAME_SECONDS = 60.0
LISTENER_SECONDS = 1.0  # how long the process behind a listener is taken to be alive
MOST_LISTENERS = 4096
MOST_NAMES = 4096
MOST_RECENT = 64

# --------------------------------------------------------------------------------------------------------------------
# Names, read from text

INTERPRETERS = re.compile(
    r"(python|pypy|perl|ruby|node|nodejs|php|php-cgi|lua|tclsh|bash|dash|sh|ksh|zsh|java|guile|Rscript)[\d.]*(-\d.*)?"
)
# Options that take the next argument along, so that it is not mistaken for the script.
OPTIONS_WITH_VALUE = {
    "python": ("-W", "-X", "--check-hash-based-pycs"),
    "pypy": ("-W", "-X"),
    "java": ("-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules"),
    "perl": ("-I",),
    "ruby": ("-I", "-r", "-C"),
    "node": ("-r", "--require", "--import", "--loader"),
    "php": ("-c", "-d"),
    "sh": ("-o", "+o"),
    "bash": ("-o", "+o", "-O", "+O", "--rcfile", "--init-file"),
}
OPTIONS_THAT_NAME = {"python": "-m", "pypy": "-m", "java": "-jar"}
CONTAINER = re.compile(r"(?:machine-|lxc\.payload\.|lxc-)(?P<name>.+?)(?:\.scope)?$")


def job_of_cgroup(path: str) -> tuple[str, JobSource] | None:
    r"""Read the job name from a cgroup path: the innermost systemd service, or a container that has a name there.

    `/system.slice/vsftpd.service` is VSFTPD, `/system.slice/system-pg.slice/pg@15-main.service` is PG-15-MAIN. Login
    sessions, and containers that show an id instead of a name (it changes with every start), give None.
    """
    parts = [part for part in path.split("/") if part]
    for index in range(len(parts) - 1, -1, -1):
        part = _unescaped(parts[index])
        if part.endswith(".service"):
            unit = part.removesuffix(".service")
            template, at, instance = unit.partition("@")
            if template == "user":
                return None  # the user's own manager: what runs below it without a unit is a session
            return (f"{template}-{instance}" if at and instance else template).upper(), JobSource.UNIT
        container = CONTAINER.fullmatch(part)
        if container:
            return container["name"].upper(), JobSource.CONTAINER
        if index and parts[index - 1] == "lxc":
            return part.upper(), JobSource.CONTAINER
        if part.endswith(".scope"):
            return None
    return None


def _unescaped(text: str) -> str:
    r"""Undo systemd's escapes, such as `\x2d` for a dash in a machine's name (systemd-escape(1))."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)


def job_of_command(executable: str, arguments: Sequence[str]) -> str | None:
    """Name a job after the executable file, or after the script where the executable is an interpreter.

    `executable` is the target of /proc/PID/exe, `arguments` the command line. The name that a process gives itself
    (comm, argv[0]) is never looked at.
    """
    name = Path(executable.removesuffix(" (deleted)")).name
    if not name:
        return None
    interpreter = INTERPRETERS.fullmatch(name)
    script = _script(interpreter[1], arguments[1:]) if interpreter else None
    return (script or name).upper()


def _script(interpreter: str, arguments: Sequence[str]) -> str | None:
    with_value = OPTIONS_WITH_VALUE.get(interpreter, ())
    naming = OPTIONS_THAT_NAME.get(interpreter)
    rest = iter(arguments)
    for argument in rest:
        if argument == naming:
            return Path(next(rest, "")).name or None
        if argument in with_value:
            next(rest, None)
        elif argument in ("-c", "-e", "-") or not argument:
            return None  # the program came on the command line or on standard input
        elif not argument.startswith(("-", "+")):
            return Path(argument).name or None
    return None


def local_uids(user: str) -> frozenset[int]:
    """Return the uids of the local accounts that are called `user`, ignoring case.

    Of several names for one uid only the first counts, as in `Owner.user`.
    """
    wanted = user.upper()
    found = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_name.upper() == wanted}
    return frozenset(uid for uid in found if (user_name(uid) or "").upper() == wanted)


def user_name(uid: int) -> str | None:
    """Return the account name of `uid`, or None where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def socket_inodes(links: Iterable[str]) -> Iterator[int]:
    """Read the socket inodes out of link targets of /proc/PID/fd, such as `socket:[4711]`."""
    for link in links:
        if link.startswith("socket:[") and link.endswith("]") and link[8:-1].isdecimal():
            yield int(link[8:-1])


def start_ticks(stat: str) -> int:
    """Read a process's start time, in clock ticks since boot, out of the text of /proc/PID/stat (proc(5), field 22).

    The process's name comes before it in parentheses and may hold anything, parentheses and blanks included.
    """
    return int(stat.rpartition(")")[2].split()[19])


# --------------------------------------------------------------------------------------------------------------------
# Looking at this host


class Cgroups:
    """Turns the kernel's cgroup ids into paths; an id is the inode number of the cgroup's directory."""

    def __init__(self, roots: Sequence[Path] = CGROUP_ROOTS) -> None:
        self._root = next((root for root in reversed(roots) if (root / "cgroup.controllers").exists()), None)
        self._paths: dict[int, str | None] = {}

    def path(self, number: int) -> str | None:
        """Return the path of cgroup `number` below the hierarchy's root, or None where it cannot be told."""
        if number not in self._paths and self._root is not None:
            gone = {known: None for known, path in self._paths.items() if path is None}
            self._paths = {**gone, **dict(self._walk(self._root))}
            self._paths.setdefault(number, None)  # ids are never used again, so a removed cgroup stays unknown
        return self._paths.get(number)

    @staticmethod
    def _walk(root: Path) -> Iterator[tuple[int, str]]:
        for folder, _, _ in os.walk(root):
            try:
                yield Path(folder).stat().st_ino, f"/{Path(folder).relative_to(root)}".replace("/.", "/")
            except OSError:
                continue  # removed while we looked


_NO_NAMES: tuple[float, None, None, JobSource] = (-math.inf, None, None, JobSource.UNKNOWN)


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    start_time: float


class Owners:
    """Finds owners and remembers what it needs to be quick; use it from one thread, close it at the end."""

    def __init__(self, cgroups: Cgroups | None = None) -> None:
        self._kernel = SocketDiagnosis()
        self._cgroups = cgroups if cgroups is not None else Cgroups()
        # What a uid and a cgroup are called, and when that was found out.
        self._names: dict[tuple[int, int | None], tuple[float, str | None, str | None, JobSource]] = {}
        self._listeners: dict[int, tuple[float, Owner]] = {}
        self._recent: dict[int, None] = {}

    def close(self) -> None:
        """Close the netlink socket."""
        self._kernel.close()

    def of_outbound(self, flow: Flow, *, complete: bool = False) -> Owner:
        """Return the program that opened `flow`; UNKNOWN_OWNER where its socket is gone.

        Raises OSError where we could not look: a rule for that program must not be missed for want of a descriptor.
        """
        facts = self._kernel.connection(flow.local, flow.remote)
        if facts is None:
            return UNKNOWN_OWNER
        owner = self._owner(facts)
        return self.complete(owner) if complete else owner

    def of_listener(self, flow: Flow, *, complete: bool = False) -> Owner | None:
        """Return the program that listens where `flow` wants to go, or None where nobody does (errors.NO_LISTENER).

        Raises OSError where we could not look, as `of_outbound` does.
        """
        facts = self._kernel.listener(flow.local)
        if facts is None:
            return None
        now = time.monotonic()
        checked, known = self._listeners.get(facts.cookie, (-LISTENER_SECONDS, UNKNOWN_OWNER))
        if now - checked < LISTENER_SECONDS:
            return known
        if not _still_runs(known):
            known = self._owner(facts)
            if not complete:
                return known
            known = self._completed(known, everybody=True)
        if len(self._listeners) >= MOST_LISTENERS:
            self._listeners.clear()
        self._listeners[facts.cookie] = (now, known)
        return known

    def cookie(self, local: Endpoint, remote: Endpoint) -> int | None:
        """Return the kernel's number for the socket with these ends, None where there is none; raises OSError."""
        facts = self._kernel.connection(local, remote)
        return None if facts is None else facts.cookie

    def complete(self, owner: Owner) -> Owner:
        """Return `owner` with pid, start time and job filled in as far as they can be told."""
        return self._completed(owner, everybody=False)

    def _owner(self, facts: SocketFacts) -> Owner:
        if not facts.inode and not facts.uid:
            # Nobody holds the socket any more. Kernels before 6.17 then say uid 0 whoever it was.
            return UNKNOWN_OWNER
        now = time.monotonic()
        checked, user, job, source = self._names.get((facts.uid, facts.cgroup), _NO_NAMES)
        if now - checked > USER_NAME_SECONDS:
            path = None if facts.cgroup is None else self._cgroups.path(facts.cgroup)
            job, source = (path and job_of_cgroup(path)) or (None, JobSource.UNKNOWN)
            user = user_name(facts.uid)
            if len(self._names) >= MOST_NAMES:
                self._names.clear()
            self._names[facts.uid, facts.cgroup] = (now, user, job, source)
        return Owner(uid=facts.uid, user=user, job=job, job_source=source, inode=facts.inode or None)

    def _completed(self, owner: Owner, *, everybody: bool) -> Owner:
        inode = owner.inode
        if owner.pid is not None or inode is None or owner.uid is None:
            return owner
        process = self._holder(inode, owner.uid, everybody=everybody)
        if process is None:
            return owner
        self._recent.pop(process.pid, None)
        self._recent[process.pid] = None
        while len(self._recent) > MOST_RECENT:
            del self._recent[next(iter(self._recent))]
        owner = replace(owner, pid=process.pid, start_time=process.start_time)
        if owner.job is None:
            job = _job_of_process(process.pid)
            if job is not None and _holds(process.pid, inode):  # it was this process that we looked at
                owner = replace(owner, job=job, job_source=JobSource.EXECUTABLE)
        return owner

    def _candidates(self, uid: int) -> Iterator[int]:
        yield from list(reversed(self._recent))
        yield from _processes(uid)  # the costly part: only when none of the recent ones will do

    def _holder(self, inode: int, uid: int, *, everybody: bool) -> _Process | None:
        """Find a process that holds the socket; with `everybody` the oldest one, of any uid if need be."""
        if not everybody:
            return next(filter(None, (_process(pid, inode) for pid in self._candidates(uid))), None)
        for wanted in (uid, None):
            holders = [found for pid in _processes(wanted) if (found := _process(pid, inode))]
            if holders:
                return min(holders, key=lambda found: (found.start_time, found.pid))
        return None


def _processes(uid: int | None) -> list[int]:
    """List the processes of `uid` (None: all), newest first; pids grow, but for the wrap-around."""
    found = []
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdecimal():
                try:
                    if uid is None or entry.stat().st_uid == uid:
                        found.append(int(entry.name))
                except OSError:
                    continue  # ended while we looked
    return sorted(found, reverse=True)


def _holds(pid: int, inode: int) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return inode in socket_inodes(_links(folder))
    except OSError as error:
        _raise_if_exhausted(error)
        return False  # ended, or not ours to look at


def _links(folder: str) -> Iterator[str]:
    for name in reversed(os.listdir(folder)):  # noqa: PTH208 - this runs per connection; newest descriptors first
        try:
            yield os.readlink(f"{folder}/{name}")  # noqa: PTH115
        except OSError as error:
            _raise_if_exhausted(error)
            continue  # closed while we looked


def _raise_if_exhausted(error: OSError) -> None:
    """Tell "it is gone" from "we could not look": the second must end the connection, not find it without an owner."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
        raise error


def _process(pid: int, inode: int) -> _Process | None:
    if not _holds(pid, inode):
        return None
    started = _start_time(pid)
    # Between the two looks the pid may have passed to somebody else, who does not hold the socket.
    return _Process(pid, started) if started is not None and _holds(pid, inode) else None


def _start_time(pid: int) -> float | None:
    """Read when a process started; psutil reads /proc/stat anew for it every time, which takes 0.5 ms."""
    try:
        return _boot_time() + start_ticks(Path(f"/proc/{pid}/stat").read_text(errors="replace")) / _TICKS
    except OSError as error:
        _raise_if_exhausted(error)
        return None


_TICKS = os.sysconf("SC_CLK_TCK")


@functools.cache
def _boot_time() -> float:
    return psutil.boot_time()


def _still_runs(owner: Owner) -> bool:
    return owner.pid is not None and _start_time(owner.pid) == owner.start_time


def _job_of_process(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        executable = process.exe()
        if not executable:
            return None
        interpreted = INTERPRETERS.fullmatch(Path(executable).name)
        return job_of_command(executable, process.cmdline() if interpreted else ())
    except psutil.Error:
        return None
