"""The supervisor: loads the policy, holds listeners and steering, keeps the workers running, obeys the operator.

It parses nothing that comes from the network. What it guards is order:
- start: workers ready with the policy → steering applied in one transaction → pid file, `ready`. A failed start
  changes nothing, and steering that a killed daemon left behind stays until ours replaces it.
- refresh: everything loaded, checked and prepared aside → workers judge by the new policy → steering swapped. Never
  is a newly steered connection judged by the old policy, which might let it pass in clear. Any error before or in
  the swap leaves the old policy in force everywhere.
- stop: steering ends first (or stays, with `--on-exit block`), then live connections get their deadline.
- a dead worker is replaced; its listeners are ours too, so connections in their backlog wait for the successor.
- our own death takes the workers along (the kernel sees to it) and leaves the steering: refused, not passed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import trio

import attls
from attls.daemon import OnExit, Options, admin, process
from attls.daemon.channel import (
    Channel,
    ChannelClosedError,
    Commit,
    Configure,
    Dismiss,
    Drain,
    Introduce,
    Known,
    Query,
    Report,
    RingReply,
    RollBack,
    Settle,
    supervisor_end,
)
from attls.daemon.generation import (
    Generation,
    GenerationError,
    belongs_to_connection_user,
    labels_in_use,
    load,
    renew,
    settings_in_use,
)
from attls.daemon.mailroom import Mailroom
from attls.daemon.nest import Nest, give
from attls.daemon.portions import Prepare, portions
from attls.daemon.rundir import HeldRunDirectory
from attls.daemon.secondary import Primaries, Primary
from attls.daemon.street import HostStreet
from attls.daemon.timetable import Timetable
from attls.daemon.watching import Watch
from attls.errors import AttlsError, DaemonError, KeyringError, PolicyError
from attls.keyring import Store
from attls.model import Endpoint, canonical_address
from attls.observe import display
from attls.observe.messages import configure_log
from attls.observe.metrics import Counts, prometheus, total
from attls.policy import Rule

START_SECONDS = 60.0
PREPARE_SECONDS = 60.0
REPORT_SECONDS = 10.0
KILL_SECONDS = 5.0
# A worker that lived this long died of something new; one that did not is started again ever more slowly.
HEALTHY_SECONDS = 10.0
LONGEST_BACK_OFF = 10.0
TICK_SECONDS = 1.0
RETRY_SECONDS = 5.0

_log = logging.getLogger("attls.daemon")


class Street(Protocol):
    """What the supervisor asks of interception; every method may block and raises InterceptError."""

    def open(self, workers: int) -> Sequence[tuple[int, ...]]:
        """Open all listeners; return the descriptors of each worker's, -1 for one that does not exist."""

    def check(self, rules: Sequence[Rule]) -> None:
        """Have the kernel's tool check the steering that `rules` need, without applying it."""

    def steer(self, rules: Sequence[Rule]) -> None:
        """Steer what `rules` could match, and nothing else, in one transaction."""

    def stop_steering(self) -> None:
        """Steer no new connection; those that are carried go on."""

    def close(self) -> None:
        """Close our listeners; what is still steered to them is refused from then on."""

    def release(self) -> None:
        """Remove everything we put on the host; every step is tried on its own."""

    async def keep_claim(self) -> None:
        """Show other daemons that this network is taken, until cancelled."""

    def leave(self) -> None:
        """Let another daemon have this network."""


class WorkerGoneError(Exception):
    """The worker ended before it answered."""


class WorkerHandle:
    """A running worker as the supervisor sees it: its process, its channel, and the answers still to come."""

    def __init__(self, number: int, child: subprocess.Popen[bytes], channel: Channel) -> None:
        self.number = number
        self.child = child
        self.channel = channel
        self.gone = trio.Event()
        self.counts = Counts()
        self._requests = 0
        self._awaited: dict[tuple[str, int], tuple[trio.Event, list[Mapping[str, Any]]]] = {}

    async def ask(self, order: object, key: tuple[str, int]) -> Mapping[str, Any]:
        """Send `order` and return the answer called `key`; raises WorkerGoneError."""
        if self.gone.is_set():
            raise WorkerGoneError(f"worker {self.number} has ended")
        came, answers = self._awaited[key] = (trio.Event(), [])
        try:
            await self.channel.send(order)
            await came.wait()
        except ChannelClosedError as error:
            raise WorkerGoneError(f"worker {self.number} has ended") from error
        finally:
            del self._awaited[key]
        if not answers:
            raise WorkerGoneError(f"worker {self.number} has ended")
        return answers[0]

    async def prepare(self, orders: Sequence[Prepare]) -> list[str]:
        """Hand over a generation, portion by portion; return the problems the worker has with it."""
        try:
            for order in orders[:-1]:
                await self.channel.send(order)
        except ChannelClosedError as error:
            raise WorkerGoneError(f"worker {self.number} has ended") from error
        answer = await self.ask(orders[-1], ("prepared", orders[-1].number))
        return list(answer["problems"])

    async def report(self, **wishes: Any) -> Mapping[str, Any]:
        """Return a worker's report and remember its counters, for the day it is gone."""
        self._requests += 1
        request = self._requests
        report = await self.ask(Report(request, **wishes), ("report", request))
        self.counts = Counts.from_json(report["counts"])
        return report

    async def introduce(self, primaries: Sequence[Primary]) -> None:
        """Return when the worker knows `primaries`."""
        self._requests += 1
        await self.ask(Introduce(self._requests, tuple(primaries)), ("introduced", self._requests))

    async def query(self, local: Endpoint, remote: Endpoint) -> Mapping[str, Any] | None:
        """Return what the program of one connection would learn of it, None where it is not this worker's."""
        self._requests += 1
        answer = await self.ask(Query(self._requests, local, remote), ("query", self._requests))
        found = answer["connection"]
        return found if isinstance(found, dict) else None

    def answered(self, key: tuple[str, int], message: Mapping[str, Any]) -> None:
        """Hand an answer to whoever waits for it."""
        awaited = self._awaited.get(key)
        if awaited is not None:
            came, answers = awaited
            answers.append(message)
            came.set()

    def has_gone(self) -> None:
        """Tell everybody who waits that no answer will come."""
        self.gone.set()
        for came, _ in self._awaited.values():
            came.set()


class Supervisor:
    """The daemon's first process; `run` does everything.

    `street` is the interception; `nest` has the first workers, and its owner ends those that we leave there.
    `announce` gets the one line that says we are ready. `clock` returns seconds since the epoch; by it steering follows
    the rules' time conditions.
    """

    def __init__(
        self,
        options: Options,
        street: Street,
        nest: Nest,
        *,
        announce: Callable[[str], None],
        journal: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._options = options
        self._street = street
        self._nest = nest
        self._announce = announce
        self._journal = journal
        self._clock = clock
        self._steered_rules: tuple[Rule, ...] = ()
        self._looked, self._look_again = 0.0, 0.0  # between these moments of `clock` the steering needs no look
        self._store = Store(options.keyrings)
        self._state = "starting"
        self._steering = False
        self._generation: Generation | None = None
        self._next: Generation | None = None
        self._packed: list[Prepare] = []
        self._workers: dict[int, WorkerHandle] = {}
        self._listeners: Sequence[tuple[int, ...]] = ()
        self._mailroom: Mailroom | None = None
        self._primaries = Primaries()
        self._incarnations: dict[int, int] = {}
        self._restarts = 0
        self._retired = Counts()
        self._last_error = ""
        self._ring_error = ""
        self._steered = False
        self._change = trio.Lock()
        self._numbers = 0
        self._stop = trio.Event()
        self._stop_now = trio.CancelScope()

    async def run(self) -> None:
        """Run until told to stop.

        Raises PolicyError, DaemonError (GenerationError) or InterceptError when starting fails; nothing has changed
        then.
        """
        with trio.open_signal_receiver(signal.SIGHUP, signal.SIGTERM, signal.SIGINT) as signals:
            self._generation = await self._load()
            for finding in self._generation.policy.diagnostics:
                _log.warning("%s", display.finding(asdict(finding)))
            directory = HeldRunDirectory(self._options.run_dir)
            try:
                await self._live(directory, signals)
            finally:
                self._leave_street()
                directory.release()

    async def _live(self, directory: HeldRunDirectory, signals: AsyncIterator[int]) -> None:
        failure: AttlsError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey_signals, signals, nursery)
            try:
                with self._stop_now:
                    await self._serve(directory, nursery)
            except AttlsError as error:
                failure = error  # raised below: here it would come out wrapped in a group
            finally:
                self._kill_workers()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _serve(self, directory: HeldRunDirectory, nursery: trio.Nursery) -> None:
        options, generation = self._options, self._generation
        assert generation is not None
        self._listeners = self._street.open(options.workers)
        self._mailroom = Mailroom(
            directory.control, options.workers, mode=options.control_mode, group=options.control_group
        )
        nursery.start_soon(self._street.keep_claim)
        await _together(partial(self._check, generation), partial(self._start_workers, nursery))
        operators = admin.listen(directory)
        with operators:
            if self._stop.is_set():
                return
            await self._steer(generation)
            self._steering = self._steered = True
            self._state = "running"
            nursery.start_soon(admin.serve, operators, self._answer)
            nursery.start_soon(self._follow_the_clock)
            nursery.start_soon(self._follow_the_files)
            if options.watch:
                nursery.start_soon(self._watch_rings)
            directory.write_pid()
            count = len(generation.policy.rules)
            self._announce(
                f"ready policy={options.policy} rules={count} workers={options.workers} run-dir={directory.path}"
            )
            process.notify_service_manager(f"READY=1\nMAINPID={os.getpid()}\nSTATUS={count} rules in force")
            await self._stop.wait()
            await self._shut_down()

    async def _load(self) -> Generation:
        options = self._options
        self._numbers += 1
        number, previous = self._numbers, self._generation
        return await trio.to_thread.run_sync(
            lambda: load(
                options.policy,
                options.keyrings,
                defaults=options.defaults,
                number=number,
                previous=previous,
                datasets=options.datasets,
            )
        )

    async def _check(self, generation: Generation) -> None:
        await trio.to_thread.run_sync(self._street.check, generation.policy.rules)

    # Signals

    async def _obey_signals(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            if number != signal.SIGHUP:
                if self._stop.is_set():
                    _log.warning("told to stop a second time: stopping at once")
                    self._stop_now.cancel()
                self._stop.set()
                if self._state == "starting":
                    self._stop_now.cancel()
            elif self._state == "running" and not self._change.statistics().tasks_waiting:
                # Not awaited, for the next signal may be the one to stop. A refresh that still waits for its turn will
                # read the files as they are then, so no second one needs to wait behind it.
                nursery.start_soon(self.refresh)

    # Workers

    async def _start_workers(self, nursery: trio.Nursery) -> None:
        problems: dict[str, None] = {}
        async with trio.open_nursery() as starting:

            async def start(number: int) -> None:
                first: list[str] = await nursery.start(self._keep_worker, number)
                problems.update(dict.fromkeys(first))

            for number in range(self._options.workers):
                starting.start_soon(start, number)
        if problems:
            raise GenerationError(problems)

    async def _keep_worker(self, number: int, *, task_status: trio.TaskStatus[list[str]]) -> None:
        """Keep worker `number` running for as long as the daemon lives; report what kept the first from starting."""
        first = True
        delay = 0.0
        while True:
            started = trio.current_time()
            problems = await self._one_worker(number, task_status if first else None)
            if first and problems:
                task_status.started(problems)
                return
            first = False
            if self._state == "draining":
                return
            self._restarts += 1
            lived = trio.current_time() - started
            delay = 0.0 if lived > HEALTHY_SECONDS else min(max(delay * 2, 0.1), LONGEST_BACK_OFF)
            _log.error(
                "worker %d ended after %.1f s; its connections were reset, a new one starts in %.1f s%s",
                number,
                lived,
                delay,
                ": " + "; ".join(problems) if problems else "",
            )
            await trio.sleep(delay)

    async def _one_worker(self, number: int, task_status: trio.TaskStatus[list[str]] | None) -> list[str]:
        """Run one worker process from birth to death; return what kept it from serving, if anything did."""
        try:
            worker, configuration = self._spawn(number)
        except OSError as error:
            return [f"cannot start a worker process: {error.strerror}"]
        problems = [f"worker {number} ended while it started; the log above says why"]
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, worker, nursery)
                try:
                    with trio.fail_after(START_SECONDS):
                        await worker.ask(configuration, ("ready", 0))
                    async with self._change:  # never in the middle of a refresh
                        with trio.fail_after(START_SECONDS):
                            problems = await self._install(worker)
                        if not problems:
                            self._workers[number] = worker
                except (WorkerGoneError, trio.TooSlowError):
                    pass
                if not problems:
                    if task_status is not None:
                        task_status.started([])
                    await worker.gone.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._workers.pop(number, None)
            self._retired.add(worker.counts)
            worker.has_gone()
            worker.child.kill()
            with trio.CancelScope(shield=True):
                await self._dismiss(number, None)
                await worker.channel.aclose()
                await _reap(worker.child)
        return problems

    def _spawn(self, number: int) -> tuple[WorkerHandle, Configure]:
        """Take a worker process and give it its descriptors; returns it with its first order. Raises OSError."""
        configuration = self._configuration(number)
        hatchling = self._nest.take()
        try:
            give(hatchling.ours, configuration.descriptors())
        except OSError:  # it has ended already; whoever asks it next finds out
            _log.error("worker %d ended before it could start", number)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(hatchling.ours))
        return WorkerHandle(number, hatchling.child, supervisor_end(stream)), configuration

    def _configuration(self, number: int) -> Configure:
        incarnation = self._incarnations.get(number, 0)
        self._incarnations[number] = incarnation + 1
        # A successor starts its connection numbers elsewhere, so that the log does not name two connections alike.
        return Configure(
            number,
            first=(incarnation << 18 & 0xFFFFFF) + 1,
            listeners=self._listeners[number],
            journal=self._journal,
            control=self._mailroom.numbers(number) if self._mailroom is not None else (),
            handover=self._mailroom.handover(number) if self._mailroom is not None else (),
            workers=self._options.workers,
        )

    async def _install(self, worker: WorkerHandle) -> list[str]:
        """Put the generation in force into one worker; return the problems it has with it."""
        generation = self._generation
        assert generation is not None
        problems = await worker.prepare(await self._portions(generation))
        if not problems:
            await worker.introduce(tuple(self._primaries))
            await worker.ask(Commit(generation.number), ("committed", generation.number))
        return problems

    async def _portions(self, generation: Generation) -> list[Prepare]:
        """Take a generation apart, once for all workers."""
        if not self._packed or self._packed[0].number != generation.number:
            self._packed = await trio.to_thread.run_sync(portions, generation)
        return self._packed

    async def _listen(self, worker: WorkerHandle, nursery: trio.Nursery) -> None:
        """Take what a worker says until it is gone."""
        try:
            while True:
                message = await worker.channel.receive()
                kind = message["kind"]
                if kind == "ring":
                    nursery.start_soon(self._answer_ring, worker, message)
                elif kind in ("prepared", "committed"):
                    worker.answered((kind, message["number"]), message)
                elif kind == "primary":
                    nursery.start_soon(self._introduce, worker, _primary(worker.number, message))
                elif kind == "primary-gone":
                    nursery.start_soon(self._dismiss, worker.number, int(message["connid"]))
                elif kind in ("report", "query", "introduced"):
                    worker.answered((kind, message["request"]), message)
                else:
                    worker.answered((kind, 0), message)
        except ChannelClosedError:
            pass
        except (KeyError, TypeError, ValueError) as error:
            _log.error("worker %d said what is no message (%r); it is replaced", worker.number, error)
        worker.has_gone()

    async def _answer_ring(self, worker: WorkerHandle, message: Mapping[str, Any]) -> None:
        """Read the ring of a connection's own user; only rings that the policy in force names so are given out."""
        reference, user = message["reference"], message["user"]
        # In the middle of a refresh workers judge by the next generation while it is not yet in force here.
        rules = [rule for each in (self._generation, self._next) if each is not None for rule in each.policy.rules]
        naming = [settings for settings in settings_in_use(rules) if settings.keyring == reference]
        labels = {label for settings in naming for label in labels_in_use(settings)}
        if not naming or not belongs_to_connection_user(reference):
            reply = RingReply(message["request"], None, f"the policy in force names no ring {reference}", 202)
        else:
            try:
                ring = await trio.to_thread.run_sync(self._store.ring, reference, user)
                reply = RingReply(message["request"], ring.narrowed(labels))
            except KeyringError as error:
                reply = RingReply(message["request"], None, str(error), error.code)
            except OSError as error:
                problem = f"cannot read the ring {reference} of {user}: {error}"
                reply = RingReply(message["request"], None, problem, 202)
            except Exception:  # noqa: BLE001 - a bug of ours costs this connection, never the daemon
                _log.exception("internal error while reading ring %s of %s", reference, user)
                reply = RingReply(message["request"], None, "an internal error; see the log of the daemon", 202)
        try:
            await worker.channel.send(reply)
        except ChannelClosedError:
            return

    # Primaries, which the connections that follow them may meet in any worker

    async def _introduce(self, worker: WorkerHandle, primary: Primary) -> None:
        self._primaries.add(primary)

        async def tell(other: WorkerHandle) -> None:
            if other is not worker:
                with contextlib.suppress(WorkerGoneError):
                    await other.introduce((primary,))

        await _all(tell, list(self._workers.values()))
        with contextlib.suppress(ChannelClosedError):
            await worker.channel.send(Known(primary.connid))

    async def _dismiss(self, number: int, connid: int | None) -> None:
        if connid is None:
            self._primaries.forget(number)
        else:
            self._primaries.remove(number, connid)

        async def tell(other: WorkerHandle) -> None:
            if other.number != number:
                with contextlib.suppress(ChannelClosedError):
                    await other.channel.send(Dismiss(number, connid))

        await _all(tell, list(self._workers.values()))

    def _kill_workers(self) -> None:
        for worker in self._workers.values():
            worker.child.kill()

    # Refresh

    async def refresh(self) -> dict[str, Any]:
        """Put in force what policy and ring files say now, or change nothing; return what an operator reads."""
        async with self._change:
            if self._state != "running":
                return {"ok": False, "problems": [f"the daemon is {self._state}"], "diagnostics": []}
            process.notify_service_manager(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                reply = await self._replace(self._load)
                self._last_error = _failure(reply)
                if reply["ok"]:
                    self._ring_error = ""
                return reply
            finally:
                process.notify_service_manager("READY=1")

    async def _replace(self, load_next: Callable[[], Awaitable[Generation | None]]) -> dict[str, Any]:
        """Put in force what `load_next` returns, unless it is None; on any failure nothing has changed."""
        try:
            generation = await load_next()
            if generation is None:
                return {"ok": True}
            await self._swap(generation)
        except PolicyError as error:
            return self._refresh_failed([], [asdict(finding) for finding in error.diagnostics])
        except GenerationError as error:
            return self._refresh_failed(error.problems, [])
        except AttlsError as error:
            return self._refresh_failed([str(error)], [])
        except Exception:  # noqa: BLE001 - a bug of ours keeps the policy in force, and everybody connected
            _log.exception("internal error while refreshing; the policy in force stays")
            return self._refresh_failed(["an internal error; see the log of the daemon"], [])
        diagnostics = generation.policy.diagnostics
        _log.info("refreshed: generation %d, %d rules", generation.number, len(generation.policy.rules))
        return {
            "ok": True,
            "problems": [],
            "diagnostics": [asdict(finding) for finding in diagnostics],
            "generation": generation.number,
            "rules": len(generation.policy.rules),
        }

    # Rings that change by themselves

    async def _watch_rings(self) -> None:
        """Put changed rings in force, without being asked, for as long as the daemon lives."""
        try:
            watch = Watch()
        except OSError as error:
            _log.warning("changes of rings will not be noticed (%s); use `attls refresh`", error.strerror)
            return
        with watch:
            while True:
                is_new = watch.follow(await trio.to_thread.run_sync(self._ring_directories))
                if not is_new:
                    await watch.changed()
                async with self._change:
                    if self._state == "running":
                        unread: list[str] = []
                        reply = await self._replace(partial(self._renew, unread, first=is_new))
                        self._ring_error = _failure(reply) or "; ".join(unread)

    def _ring_directories(self) -> tuple[Path, ...]:
        generation = self._generation
        assert generation is not None
        in_use = settings_in_use(generation.policy.rules)
        references = {settings.keyring for settings in in_use}
        references |= {settings.keyring_stash_file for settings in in_use if settings.keyring_stash_file}
        # The store is watched in any case: it also says which certificate stands for which user.
        return self._store.watched([*references, "*AUTH*/*"])

    async def _renew(self, unread: list[str], *, first: bool) -> Generation | None:
        """Return a generation with the rings as they are now, None where nothing has come of the change.

        Adds to `unread` a sentence for each ring that cannot be read and so stays as it was.
        Rings of connections' own users are not in a generation; when something has changed, not at the `first` look,
        theirs may have, so workers have to ask for them again.
        """
        now = self._generation
        assert now is not None
        self._numbers += 1
        number = self._numbers
        then, problems = await trio.to_thread.run_sync(lambda: renew(now, self._options.keyrings, number=number))
        for problem in problems:
            _log.error("%s; until this is mended, what was there before stays in force", problem)
        unread += problems
        of_users = any(belongs_to_connection_user(each.keyring) for each in settings_in_use(now.policy.rules))
        if (then.rings, then.users) == (now.rings, now.users) and (first or not of_users):
            self._numbers -= 1
            return None
        return then

    async def _swap(self, generation: Generation) -> None:
        """Workers first, then the steering; whatever fails, everything is as it was. Raises AttlsError."""
        number = generation.number
        workers = list(self._workers.values())
        problems: dict[str, None] = {}

        async def prepare(worker: WorkerHandle) -> None:
            try:
                problems.update(dict.fromkeys(await worker.prepare(packed)))
            except WorkerGoneError as error:
                problems[f"{error} while it prepared the new policy"] = None

        async def prepare_all() -> None:
            await _all(prepare, workers)
            if problems:
                raise GenerationError(problems)

        async def commit(worker: WorkerHandle) -> None:
            try:
                await worker.ask(Commit(number), ("committed", number))
            except WorkerGoneError:
                return  # its successor will install what is in force

        async def roll_back(worker: WorkerHandle) -> None:
            with contextlib.suppress(ChannelClosedError):
                await worker.channel.send(RollBack(number))

        async def settle(worker: WorkerHandle) -> None:
            with contextlib.suppress(ChannelClosedError):
                await worker.channel.send(Settle(number))

        packed = await self._portions(generation)
        self._next = generation
        try:
            with trio.fail_after(PREPARE_SECONDS):
                await _together(partial(self._check, generation), prepare_all)
                await _all(commit, workers)
            await self._steer(generation)
        except BaseException as error:
            self._packed = []  # keys that are not in force have no business here
            with trio.CancelScope(shield=True):
                await _all(roll_back, workers)
            if isinstance(error, trio.TooSlowError):
                raise DaemonError("the workers did not take the new policy in time") from error
            raise
        finally:
            self._next = None
        self._generation = generation
        await _all(settle, workers)

    def _refresh_failed(self, problems: Sequence[str], diagnostics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        for finding in diagnostics:
            _log.error("%s", display.finding(finding))
        for problem in problems:
            _log.error("%s", problem)
        assert self._generation is not None
        _log.error("refresh failed; generation %d stays in force", self._generation.number)
        return {"ok": False, "problems": list(problems), "diagnostics": list(diagnostics)}

    # Time

    async def _steer(self, generation: Generation, *, always: bool = True) -> None:
        """Steer the rules of `generation` that are in force now or soon; raises InterceptError.

        Unless `always`, nothing is done when those are steered already.
        """
        moment = self._clock()
        rules, again = await trio.to_thread.run_sync(Timetable(generation.policy.rules).at, moment)
        if always or rules != self._steered_rules:
            await trio.to_thread.run_sync(self._street.steer, rules)
            if not always:
                _log.info("the steering follows the clock: %d rules are in force now or soon", len(rules))
        self._steered_rules, self._looked, self._look_again = rules, moment, again

    async def _follow_the_clock(self) -> None:
        """Change the steering when rules begin or stop to be in force.

        Looks at the clock every second instead of sleeping until then, for it may be set, and the machine suspended.
        """
        while True:
            await trio.sleep(TICK_SECONDS)
            if self._looked <= self._clock() < self._look_again:
                continue
            async with self._change:
                if self._state != "running":
                    return
                assert self._generation is not None
                try:
                    await self._steer(self._generation, always=False)
                    continue
                except AttlsError as error:
                    self._last_error = str(error)
                    _log.error("the steering could not follow the clock and is tried again: %s", error)
                except Exception:  # noqa: BLE001 - a bug of ours leaves what is steered as it is
                    _log.exception("internal error while the steering followed the clock; it is tried again")
            await trio.sleep(RETRY_SECONDS)

    # Policy files

    async def _follow_the_files(self) -> None:
        """Refresh when a policy file has changed, looking as often as Policy Agent lines ask for."""
        tried: object = None  # what does not load is said once
        while True:
            assert self._generation is not None
            await trio.sleep(self._generation.policy.stack.reread_seconds or TICK_SECONDS)
            policy = self._generation.policy
            if not policy.stack.reread_seconds:
                continue
            now = await trio.to_thread.run_sync(policy.files_now)
            if now not in (policy.files, tried):
                tried = now
                await self.refresh()

    # Stop

    def _on_exit(self) -> OnExit:
        if self._options.on_exit is not None or self._generation is None:
            return self._options.on_exit or OnExit.RELEASE
        return OnExit.BLOCK if self._generation.policy.stack.purge is False else OnExit.RELEASE

    async def _shut_down(self) -> None:
        """Steer nothing new, let live connections end, at most for the drain time."""
        options = self._options
        async with self._change:
            self._state = "draining"
        process.notify_service_manager("STOPPING=1")
        if self._on_exit() is OnExit.RELEASE:
            try:
                await trio.to_thread.run_sync(self._street.stop_steering)
                self._steering = False
            except AttlsError as error:
                _log.error("%s", error)
        workers = list(self._workers.values())

        async def drain(worker: WorkerHandle) -> None:
            try:
                await worker.ask(Drain(options.drain_seconds), ("draining", 0))
            except WorkerGoneError:
                return

        async def wait(worker: WorkerHandle) -> None:
            await worker.gone.wait()

        with trio.move_on_after(options.drain_seconds + KILL_SECONDS):
            await _all(drain, workers)
            self._street.close()  # the workers have emptied the backlog; from here on nobody would
            await _all(wait, workers)

    def _leave_street(self) -> None:
        """Close what is ours; steering is undone only where we put it and the operator wants it undone."""
        self._street.close()
        if self._mailroom is not None:
            self._mailroom.close()
        # Only an orderly stop releases: when a bug of ours ends the daemon, what it protected stays refused.
        if self._on_exit() is OnExit.RELEASE and self._steered and self._stop.is_set():
            try:
                self._street.release()
            except AttlsError as error:
                _log.error("%s", error)
        self._street.leave()

    # Operators

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        command = request.get("command")
        if command == "status":
            return await self._status()
        if command == "refresh":
            return await self.refresh()
        if command == "stop":
            self._stop.set()
            return {"ok": True, "drain_seconds": self._options.drain_seconds + KILL_SECONDS}
        if command == "query":
            return await self._query(_endpoint(request.get("local")), _endpoint(request.get("remote")))
        if command == "netstat":
            connid = request.get("connid")
            if connid is not None and not isinstance(connid, int):
                raise ValueError("connid is no number")
            return await self._netstat(connid, detail=bool(request.get("detail")), group=bool(request.get("group")))
        raise ValueError(f"unknown command {command!r}")

    async def _query(self, local: Endpoint, remote: Endpoint) -> dict[str, Any]:
        found: list[Mapping[str, Any]] = []

        async def query(worker: WorkerHandle) -> None:
            with contextlib.suppress(WorkerGoneError):
                answer = await worker.query(local, remote)
                if answer is not None:
                    found.append(answer)

        with trio.move_on_after(REPORT_SECONDS):
            await _all(query, list(self._workers.values()))
        return {"ok": True, "connection": found[0] if found else None}

    async def _reports(self, **wishes: Any) -> list[Mapping[str, Any]]:
        reports: dict[int, Mapping[str, Any]] = {}

        async def report(worker: WorkerHandle) -> None:
            try:
                reports[worker.number] = await worker.report(**wishes)
            except WorkerGoneError:
                return

        with trio.move_on_after(REPORT_SECONDS):
            await _all(report, list(self._workers.values()))
        return [reports[number] for number in sorted(reports)]

    async def _status(self) -> dict[str, Any]:
        reports = await self._reports()
        options, generation = self._options, self._generation
        assert generation is not None
        counts = total([self._retired, *(worker.counts for worker in self._workers.values())])
        live = sum(report["connections"] for report in reports)
        values = {
            "ok": True,
            "state": self._state,
            "pid": os.getpid(),
            "version": attls.__version__,
            "run_dir": str(options.run_dir.absolute()),
            "policy": str(options.policy),
            "keyrings": str(options.keyrings),
            "defaults": options.defaults.value,
            "on_exit": self._on_exit().value,
            "rules": len(generation.policy.rules),
            "generation": generation.number,
            "generation_since": datetime.fromtimestamp(generation.loaded).astimezone().isoformat(timespec="seconds"),
            "workers": len(self._workers),
            "worker_processes": {str(number): worker.child.pid for number, worker in sorted(self._workers.items())},
            "silent_workers": len(self._workers) - len(reports),
            "restarts": self._restarts,
            "steering": self._steering,
            "byte_path": sorted({str(report["byte_path"]) for report in reports}),
            "connections": live,
            "stale": sum(report["stale"] for report in reports),
            "handshakes": sum(report["handshakes"] for report in reports),
            "last_error": "; ".join(filter(None, (self._last_error, self._ring_error))) or None,
            "counts": counts.as_json(),
        }
        values["metrics"] = prometheus(counts, live=live, workers=len(self._workers), generation=generation.number)
        return values

    async def _netstat(self, connid: int | None, *, detail: bool, group: bool) -> dict[str, Any]:
        reports = await self._reports(connections=connid is None, connid=connid, detail=detail)
        snapshots = [snapshot for report in reports for snapshot in report["snapshots"]]
        reply: dict[str, Any] = {"ok": True, "missing": len(self._workers) - len(reports)}
        if group:
            generation = self._generation
            assert generation is not None
            reply["groups"] = display.group_entries(
                snapshots,
                generation.groups,
                group_identifiers=generation.group_identifiers,
                environment_identifiers=generation.environment_identifiers,
            )
        else:
            reply["connections"] = snapshots
        return reply


def _primary(worker: int, message: Mapping[str, Any]) -> Primary:
    """Read what a worker says of a primary; raises KeyError, TypeError or ValueError."""
    return Primary(
        worker,
        int(message["connid"]),
        int(message["pid"]),
        canonical_address(str(message["local"])),
        canonical_address(str(message["remote"])),
        str(message["rule"]),
        None if message["user"] is None else str(message["user"]),
    )


def _failure(reply: Mapping[str, Any]) -> str:
    """Say in one line what could not be put in force, nothing when all was."""
    if reply["ok"]:
        return ""
    errors = sum(finding["severity"] == "error" for finding in reply["diagnostics"])
    return "; ".join(reply["problems"]) or f"the policy has {errors} errors"


def _endpoint(text: object) -> Endpoint:
    """Read `192.0.2.1:21` or `[2001:db8::1]:21`; raises ValueError."""
    address, _, port = str(text).rpartition(":")
    return Endpoint(canonical_address(address.removeprefix("[").removesuffix("]")), int(port))


async def _together(*works: Callable[[], Awaitable[None]]) -> None:
    """Do all of `works` at once and to their ends; then raise the first AttlsError, not wrapped in a group."""
    failures: list[AttlsError] = []

    async def do(work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except AttlsError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for work in works:
            nursery.start_soon(do, work)
    if failures:
        raise failures[0]


async def _all(work: Callable[[WorkerHandle], Awaitable[None]], workers: Sequence[WorkerHandle]) -> None:
    async with trio.open_nursery() as nursery:
        for worker in workers:
            nursery.start_soon(work, worker)


async def _reap(child: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a process that was killed, without blocking the others."""
    if child.poll() is None:
        descriptor = os.pidfd_open(child.pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        child.wait()


def run(options: Options, nest: Nest) -> None:
    """Run the daemon in this process, which `attls.daemon.run` has prepared; see there."""
    journal = "JOURNAL_STREAM" in os.environ
    process.collect_rarely()
    with contextlib.closing(configure_log(journal=journal)):
        trio.run(Supervisor(options, HostStreet(), nest, announce=_say_ready, journal=journal).run)


def _say_ready(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError:
        _log.warning("nobody reads standard output; the daemon is ready all the same")
