"""One worker's service: accept, find out whose connection it is, ask policy, open the record, hand over to the relay.

The walk of one connection is `Service._admit`, top to bottom; it never waits, except for the key ring of a user seen
for the first time. What is decided there is decided once: a refresh swaps `Service.law` between two connections, and
those already carried keep what they were born with.

Whatever goes wrong ends the connection with a reset and never lets it through in clear.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import trio

from attls import errors
from attls.daemon.generation import (
    Generation,
    belongs_to_connection_user,
    ring_key,
    settings_in_use,
    with_code,
)
from attls.daemon.secondary import Primaries, Primary
from attls.errors import AttlsError, InterceptError, KeyringError, Reason, TlsError
from attls.keyring import Keyring
from attls.model import Conditions, Direction, Flow, HandshakeRole, Owner, PortRange, TlsSettings, Verdict
from attls.observe import Ledger, Record, messages
from attls.policy import PolicySet, Rule
from attls.relay import BYTE_PATH, Reactor
from attls.tls import Environment, Staples

if TYPE_CHECKING:
    from attls.daemon.handover import Handover
    from attls.daemon.switchboard import Switchboard

ACCEPT_BATCH = 8  # taken at once: each is some tenths of a millisecond that all connections wait
ASKED_BATCH = 64  # the same when a program waits for an answer about one of them
BACKLOG = 4096  # more than can wait in a listener
MOST_VERDICTS = 4096  # kept for connections that no rule could tell apart
BACK_OFF_SECONDS = 0.1
RING_WAIT_SECONDS = 10.0
REMEMBER_FAILURE_SECONDS = 5.0
DRAIN_POLL_SECONDS = 0.05
# How long one report may look for processes; what is left then shows no pid this time.
LOOKUP_SECONDS = 1.0
# Descriptors a worker keeps for what is not a connection: listeners, channel, netlink, /proc, the log.
RESERVED_DESCRIPTORS = 64
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_RESET = struct.pack("ii", 1, 0)

_log = logging.getLogger("attls.service")

AskRing = Callable[[int, str, str], Awaitable[Keyring]]


class Listener(Protocol):
    """A listening socket that caught connections come to, and what it knows of them."""

    @property
    def sock(self) -> socket.socket:
        """The listening socket, non-blocking."""

    @property
    def direction(self) -> Direction:
        """Which way the connections go that come here."""

    def intercepted(self, accepted: socket.socket) -> Flow:
        """Tell which flow `accepted` is; raises InterceptError for one that was made to attls itself."""

    def dial(self, flow: Flow) -> socket.socket:
        """Start the connection to the flow's other end and return its socket, connecting; raises OSError."""


class OwnerLookup(Protocol):
    """Finds who owns a flow: what the kernel says at once, and with `complete` what takes a look through /proc."""

    def of_outbound(self, flow: Flow, *, complete: bool = False) -> Owner:
        """Return the program that opened `flow`."""

    def of_listener(self, flow: Flow, *, complete: bool = False) -> Owner | None:
        """Return the program that listens where `flow` wants to go, None where nobody does."""

    def complete(self, owner: Owner) -> Owner:
        """Return `owner` with pid and job name added, as far as they can be found."""


@dataclass(slots=True)
class Law:
    """A generation made ready to serve: its environments, and which of its rules ask for a job name.

    `of_rule` finds the same environments by rule name: hashing whole settings for each connection would cost more than
    everything else here. `earlier` holds what the law before had of users' own rings, until it is asked for again.
    """

    generation: Generation
    environments: dict[TlsSettings, Environment] = field(default_factory=dict)
    of_rule: dict[str, Environment] = field(default_factory=dict)
    by_user: dict[tuple[TlsSettings, str], Environment] = field(default_factory=dict)
    earlier: dict[tuple[TlsSettings, str], Environment] = field(default_factory=dict)
    failures: dict[tuple[TlsSettings, str], tuple[float, AttlsError]] = field(default_factory=dict)
    asked: dict[tuple[TlsSettings, str], trio.Event] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    job_conditions: tuple[Conditions, ...] = ()
    jobs_wanted: dict[tuple[Direction, int], bool] = field(default_factory=dict)
    # Verdicts by what rules look at, for the directions in which neither the client's port nor the time counts.
    repeating: frozenset[Direction] = frozenset()
    verdicts: dict[tuple[object, ...], Verdict] = field(default_factory=dict)

    def rule(self, name: str) -> Rule:
        """Return a rule by its name; raises KeyError."""
        return self.rules[name]

    def judge(self, flow: Flow, owner: Owner, now: Callable[[], datetime]) -> Verdict:
        """Return what policy says of `flow`; the next connection of the same two hosts and owner is quick."""
        policy = self.generation.policy
        if flow.direction not in self.repeating:
            return policy.match(flow, owner, now())
        local, remote = flow.local, flow.remote
        port = local.port if flow.direction is Direction.INBOUND else remote.port
        key = (flow.direction, port, local.address, remote.address, owner.job, owner.user)
        verdict = self.verdicts.get(key)
        if verdict is None:
            if len(self.verdicts) >= MOST_VERDICTS:
                self.verdicts.clear()
            verdict = self.verdicts[key] = policy.match(flow, owner, now())
        return verdict

    def keeps(self, verdict: Verdict, before: PolicySet) -> bool:
        """Tell whether the rule and the actions that `verdict` names stand as they stood in the policy `before`."""
        policy = self.generation.policy
        if policy is before:  # only rings were read again
            return True
        rule = self.rules.get(verdict.rule or "")
        return rule is not None and rule.verdict == verdict and policy.actions_of(verdict) == before.actions_of(verdict)

    def maps_by_job(self, verdict: Verdict) -> bool:
        """Tell whether the user of a client's certificate may depend on the program's job name."""
        settings = verdict.settings
        return (
            settings is not None
            and settings.role is HandshakeRole.SERVER_WITH_CLIENT_AUTH
            and bool(self.generation.users.criteria)
        )

    def wants_job(self, flow: Flow) -> bool:
        """Tell whether some rule could match `flow` that has a Jobname condition; remembered by the server's port."""
        inbound = flow.direction is Direction.INBOUND
        port = flow.local.port if inbound else flow.remote.port
        key = (flow.direction, port)
        known = self.jobs_wanted.get(key)
        if known is None:
            known = self.jobs_wanted[key] = any(
                flow.direction in each.directions and _within(port, each.local_ports if inbound else each.remote_ports)
                for each in self.job_conditions
            )
        return known


class Service:
    """The connections of one worker, from accept to the relay.

    `ask_ring(generation, reference, user)` returns the ring of a connection's own user or raises KeyringError. Without
    a law every connection is refused. `clock` returns monotonic seconds, `now` the local time.
    """

    def __init__(
        self,
        ledger: Ledger,
        reactor: Reactor,
        owners: OwnerLookup,
        *,
        listeners: Sequence[Listener],
        ask_ring: AskRing,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.ledger = ledger
        self.reactor = reactor
        self.law: Law | None = None
        self._owners = owners
        self._listeners = listeners
        self._ask_ring = ask_ring
        self._clock = clock
        self._now = now
        self._prepared: dict[int, Law] = {}
        self._before: Law | None = None
        self._policies: dict[int, PolicySet] = {}
        self._replaced: dict[tuple[int, str], bool] = {}
        ledger.is_stale = self._is_stale
        self.primaries = Primaries()
        # Tell the other workers of a primary, and of its end; None where there are no others.
        self.introduce: Callable[[Primary], Awaitable[None]] | None = None
        self.dismiss: Callable[[int], Awaitable[None]] | None = None
        # The way to the worker of the primary; None where there are no others.
        self.handover: Handover | None = None
        # Answers the programs of our connections; told of each one. None where there is no control channel.
        self.switchboard: Switchboard | None = None
        # Keeps fresh what the environments in force staple; told whenever those change.
        self.keep_staples: Callable[[Iterable[Staples]], None] = lambda _: None
        self._waiting = 0
        self._nursery: trio.Nursery | None = None
        self._accepting = False
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most_connections = max(16, (limit - RESERVED_DESCRIPTORS) // 2)
        # A flood of silent peers may hold half of the room, one peer a quarter of it.
        self._most_handshakes = max(16, self._most_connections // 2)
        self._most_handshakes_of_one = max(16, self._most_connections // 4)

    # The law book

    async def prepare(self, generation: Generation) -> list[str]:
        """Build every environment that `generation` needs; return one sentence for each that cannot be built.

        Environments whose settings and ring did not change are taken over, and their sessions with them.
        """
        law = Law(generation, rules={rule.name: rule for rule in generation.policy.rules})
        problems = []
        in_use = settings_in_use(generation.policy.rules)
        if self.law is not None:
            known = {**self.law.earlier, **self.law.by_user}
            law.earlier = {key: environment for key, environment in known.items() if key[0] in in_use}
        for settings, rules in in_use.items():
            if belongs_to_connection_user(settings.keyring):
                continue
            try:
                environment = self._environment(settings, generation.rings[ring_key(settings)])
                law.environments[settings] = environment
                law.of_rule.update(dict.fromkeys(rules, environment))
            except AttlsError as error:
                problems.append(f"rule {rules[0]}: {with_code(error)}")
            await trio.lowlevel.checkpoint()
        conditions = [rule.conditions for rule in generation.policy.rules]
        law.job_conditions = tuple(each for each in conditions if each.job is not None)
        law.repeating = repeating(conditions)
        if not problems:
            self._prepared[generation.number] = law
        return problems

    def commit(self, number: int) -> None:
        """Put the prepared generation `number` in force, keeping the one before for `roll_back`."""
        self._before, self.law = self.law, self._prepared.pop(number)
        self._prepared.clear()
        self._announce()

    def roll_back(self, number: int) -> None:
        """Forget generation `number`; if it is in force already, the one before it is again."""
        self._prepared.pop(number, None)
        if self.law is not None and self.law.generation.number == number:
            self.law = self._before
            self._announce()

    def settle(self) -> None:
        """Forget the generation before the one in force; it cannot come back."""
        self._before = None

    def _announce(self) -> None:
        if self.law is not None:
            generation = self.law.generation
            for environment in (*self.law.environments.values(), *self.law.by_user.values()):
                environment.users = generation.users  # it may be older than this generation
            # Policies that live connections were born under are kept, so that displays can explain them.
            used = {record.generation for record in self.ledger.records.values()}
            self._policies = {number: policy for number, policy in self._policies.items() if number in used}
            self._policies[generation.number] = generation.policy
            self._replaced.clear()
            self.ledger.group_identifiers = generation.group_identifiers
            self.ledger.environment_identifiers = generation.environment_identifiers
            self._announce_staples(self.law)

    def _is_stale(self, record: Record) -> bool:
        """Tell whether a rule or action that `record` was mapped to has been changed or deleted since."""
        law, rule = self.law, record.verdict.rule
        if law is None or rule is None or record.generation == law.generation.number:
            return False
        key = (record.generation, rule)
        known = self._replaced.get(key)
        if known is None:
            before = self._policies.get(record.generation)
            known = self._replaced[key] = before is None or not law.keeps(record.verdict, before)
        return known

    def _announce_staples(self, law: Law) -> None:
        serving = (*law.environments.values(), *law.by_user.values())
        self.keep_staples(environment.staples for environment in serving if environment.staples is not None)

    def _environment(self, settings: TlsSettings, ring: Keyring) -> Environment:
        known = self.law.environments.get(settings) if self.law is not None else None
        if known is not None and known.keyring == ring:
            return known
        return Environment(settings, ring)

    # The street

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the relay until cancelled; connections are accepted between `open` and `drain`."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.reactor.run)
            task_status.started()

    def open(self) -> None:
        """Start accepting; harmless when already open."""
        if self._accepting:
            return
        self._accepting = True
        for listener in self._listeners:
            self._watch(listener)
        if self.handover is not None:
            self.reactor.watch_listener(self.handover.inbox, lambda _mask: self._take_handed_over())

    def _watch(self, listener: Listener) -> None:
        self.reactor.watch_listener(listener.sock, lambda _mask: self._accept(listener))

    def _accept(self, listener: Listener, most: int = ACCEPT_BATCH) -> None:
        for _ in range(most):
            if len(self.reactor.connections) + self._waiting >= self._most_connections:
                self._pause(listener)
                return
            try:
                accepted, _ = listener.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(listener)
                    return
                continue  # that one connection was gone before we took it (accept(2): ECONNABORTED and the like)
            accepted.setblocking(False)  # accept() does not hand that down
            self._take(listener, accepted)

    def _pause(self, listener: Listener) -> None:
        """Leave connections in the backlog for a moment; whoever is there may free what we lack."""
        self.reactor.unwatch(listener.sock.fileno())
        assert self._nursery is not None
        self._nursery.start_soon(self._resume_later, listener)

    async def _resume_later(self, listener: Listener) -> None:
        await trio.sleep(BACK_OFF_SECONDS)
        if self._accepting:
            self._watch(listener)

    def _take_handed_over(self) -> None:
        """Take the connections that other workers have handed to us, since they follow one of ours."""
        assert self.handover is not None
        while (handed := self.handover.take()) is not None:
            direction, accepted = handed
            listener = next(each for each in self._listeners if each.direction is direction)
            self._take(listener, accepted, handed_over=True)

    def _take(self, listener: Listener, accepted: socket.socket, *, handed_over: bool = False) -> None:
        flow: Flow | None = None
        try:
            flow = listener.intercepted(accepted)
            self._admit(listener, accepted, flow, handed_over=handed_over)
        except InterceptError as error:
            self._refuse(accepted, flow, errors.LOOP, str(error))
        except OSError as error:
            reason = errors.OVERLOAD if error.errno in _EXHAUSTED else errors.APP_RESET
            self._refuse(accepted, flow, reason, error.strerror or str(error))
        except Exception:  # noqa: BLE001 - a bug of ours ends this one connection, never the worker
            _log.exception("internal error while admitting %s", flow)
            self._refuse(accepted, flow, errors.INTERNAL)

    def _admit(self, listener: Listener, accepted: socket.socket, flow: Flow, *, handed_over: bool) -> None:
        law = self.law
        if law is None:
            self._refuse(accepted, flow, errors.STOPPED, "no policy is in force yet")
            return
        wants_job = law.wants_job(flow)
        owner = self._owner(flow, complete=wants_job)
        if owner is None:
            self._refuse(accepted, flow, errors.NO_LISTENER)
            return
        verdict = law.judge(flow, owner, self._now)
        followed = None
        if self.primaries.between(flow.local.address, flow.remote.address):
            owner = self._owner(flow, complete=True) or owner
            followed = self._followed(flow, owner, verdict, law)
            if followed is not None:
                if not handed_over and self._hand_to_primary(followed, listener, accepted):
                    return
                owner, verdict = replace(owner, user=followed.user), law.rule(followed.rule).verdict
        elif not wants_job and verdict.rule is not None and (verdict.trace & messages.INFO or law.maps_by_job(verdict)):
            owner = self._owner(flow, complete=True) or owner  # EZD1281I names the job, a criterion asks for it
        if handed_over and followed is None:
            # What it followed, and what protected it, ended on the way: it must not go on in clear for that.
            self._refuse(accepted, flow, errors.STOPPED, "the connection that it followed has just ended")
            return
        if verdict.enabled and self._is_overloaded(flow, owner):
            self._refuse(accepted, flow, errors.OVERLOAD, owner=owner, verdict=verdict)
            return
        record = self.ledger.open(flow, owner, verdict, generation=law.generation.number)
        if followed is not None:
            record.follow(self.ledger.records.get(followed.connid))
        if self.switchboard is not None:
            self.switchboard.admitted(record, law)
        settings = verdict.settings
        if settings is not None and settings.secondary_map and followed is None:
            assert self._nursery is not None
            self._waiting += 1
            self._nursery.start_soon(self._introduce_and_carry, law, listener, accepted, record)
        else:
            self._hand_over(law, listener, accepted, record)

    def _hand_over(self, law: Law, listener: Listener, accepted: socket.socket, record: Record) -> None:
        """Give an admitted connection to the relay, in clear, under TLS, or under control of its program."""
        verdict = record.verdict
        settings = verdict.settings
        if settings is None or settings.application_controlled:
            # An application-controlled connection stays in clear until its program asks for TLS.
            self._carry(listener, accepted, record, environment=None, controlled=settings is not None)
        elif verdict.rule in law.of_rule:
            self._carry(listener, accepted, record, environment=law.of_rule[verdict.rule])
        else:
            assert self._nursery is not None
            self._waiting += 1
            self._nursery.start_soon(self._admit_with_own_ring, law, settings, listener, accepted, record)

    # Connections that follow others

    def _followed(self, flow: Flow, owner: Owner, verdict: Verdict, law: Law) -> Primary | None:
        """Return the primary whose rule this connection gets: of the same process, and no better rule fits."""
        found = self.primaries.find(owner.pid, flow.local.address, flow.remote.address)
        if found is None or found.rule not in law.rules:
            return None
        rule = law.rule(found.rule)
        settings = rule.verdict.settings
        if settings is None or not settings.secondary_map:
            return None
        if verdict.rule is not None and law.rule(verdict.rule).priority >= rule.priority:
            return None
        return found

    def _hand_to_primary(self, primary: Primary, listener: Listener, accepted: socket.socket) -> bool:
        """Hand a connection to the worker that has its primary's TLS session, if that is another one."""
        return (
            self.handover is not None
            and primary.worker != self.ledger.worker
            and self.handover.give(primary.worker, listener.direction, accepted)
        )

    async def _introduce_and_carry(self, law: Law, listener: Listener, accepted: socket.socket, record: Record) -> None:
        """Let every worker know of a primary before its program hears of it; only then can something follow it."""
        known = False
        try:
            await self._introduce(record)
            known = True
        finally:
            self._waiting -= 1
            if not known:
                reset(accepted)
                record.close(errors.STOPPED)
        if record.reason is None:
            self._hand_over(law, listener, accepted, record)

    async def _introduce(self, record: Record) -> None:
        flow, owner = record.flow, record.owner
        if owner.pid is None:
            owner = self._owner(flow, complete=True) or owner
        if owner.pid is None or record.verdict.rule is None:
            return  # nobody can be told to belong to it
        primary = Primary(
            self.ledger.worker,
            record.connid,
            owner.pid,
            flow.local.address,
            flow.remote.address,
            record.verdict.rule,
            owner.user,
        )
        self.primaries.add(primary)
        if self.introduce is not None:
            await self.introduce(primary)

    def closed(self, record: Record) -> None:
        """Forget a primary that has ended, here and everywhere."""
        settings = record.verdict.settings
        if settings is None or not settings.secondary_map or record.map_type == "Secondary":
            return
        self.primaries.remove(self.ledger.worker, record.connid)
        if self.dismiss is not None and self._nursery is not None:
            self._nursery.start_soon(self.dismiss, record.connid)

    def _owner(self, flow: Flow, *, complete: bool) -> Owner | None:
        if flow.direction is Direction.OUTBOUND:
            return self._owners.of_outbound(flow, complete=complete)
        return self._owners.of_listener(flow, complete=complete)

    def _carry(
        self,
        listener: Listener,
        accepted: socket.socket,
        record: Record,
        *,
        environment: Environment | None,
        controlled: bool = False,
    ) -> None:
        def dial() -> socket.socket:
            sock = listener.dial(record.flow)
            if self.switchboard is not None:
                self.switchboard.dialed(record, sock)
            return sock

        try:
            self.reactor.carry(accepted, record, dial=dial, environment=environment, controlled=controlled)
        except Exception:  # noqa: BLE001 - as in _take
            _log.exception("internal error while handing over connection %08X", record.connid)
            reset(accepted)
            record.close(errors.INTERNAL)

    async def _admit_with_own_ring(
        self, law: Law, settings: TlsSettings, listener: Listener, accepted: socket.socket, record: Record
    ) -> None:
        flow = record.flow
        environment = None
        reason, detail = errors.STOPPED, ""
        try:
            environment = await self.environment_of_user(law, settings, record.owner.user)
        except (KeyringError, TlsError) as error:
            reason, detail = errors.ENVIRONMENT, with_code(error)
        except Exception:  # noqa: BLE001 - as in _take
            _log.exception("internal error while admitting %s", flow)
            reason = errors.INTERNAL
        finally:
            self._waiting -= 1
            if environment is None:
                reset(accepted)
                record.close(reason, detail)
        if environment is not None:
            self._carry(listener, accepted, record, environment=environment)

    async def environment_of_user(self, law: Law, settings: TlsSettings, user: str | None) -> Environment:
        """Return the environment over the ring of `user`, asking for the ring once, however many are waiting.

        Raises KeyringError or TlsError.
        """
        if user is None:
            raise KeyringError(
                f"Keyring {settings.keyring} means the ring of the program's user, who is not known", 202
            )
        key = (settings, user)
        while True:
            environment = law.by_user.get(key)
            if environment is not None:
                return environment
            since, failure = law.failures.get(key, (0.0, None))
            if failure is not None and self._clock() - since < REMEMBER_FAILURE_SECONDS:
                raise failure.with_traceback(None)
            pending = law.asked.get(key)
            if pending is None:
                break
            await pending.wait()
        law.asked[key] = trio.Event()
        problem: AttlsError = KeyringError(f"the ring {settings.keyring} of user {user} could not be had in time")
        try:
            with trio.move_on_after(RING_WAIT_SECONDS):
                ring = await self._ask_ring(law.generation.number, settings.keyring, user)
                earlier = law.earlier.pop(key, None)
                if earlier is not None and earlier.keyring == ring:
                    earlier.users = law.generation.users
                    law.by_user[key] = earlier
                else:
                    law.by_user[key] = Environment(settings, ring, users=law.generation.users)
                if law is self.law:
                    self._announce_staples(law)
                return law.by_user[key]
        except AttlsError as error:
            problem = error
        finally:
            if key not in law.by_user:
                law.failures[key] = (self._clock(), problem)
            law.asked.pop(key).set()
        raise problem

    def _is_overloaded(self, flow: Flow, owner: Owner) -> bool:
        ledger = self.ledger
        if ledger.handshakes < self._most_handshakes_of_one:
            return False
        if ledger.handshakes >= self._most_handshakes:
            return True
        return ledger.handshakes_of(flow, owner) >= self._most_handshakes_of_one

    def _refuse(
        self,
        accepted: socket.socket,
        flow: Flow | None,
        reason: Reason,
        detail: str = "",
        *,
        owner: Owner | None = None,
        verdict: Verdict | None = None,
    ) -> None:
        reset(accepted)
        self.ledger.refuse(flow, reason, detail, owner=owner, rule=verdict.rule if verdict is not None else None)

    def accept_waiting(self) -> None:
        """Take the connections that are there but not accepted yet: a program may ask about one at once."""
        if self._accepting:
            for listener in self._listeners:
                self._accept(listener, ASKED_BATCH)
            if self.handover is not None:
                self._take_handed_over()

    def stop_accepting(self) -> None:
        """Take what is in the backlog (it came while we were still in charge), then accept nothing more."""
        self._accepting = False
        for listener in self._listeners:
            self._accept(listener, BACKLOG)
            with contextlib.suppress(OSError, ValueError):
                self.reactor.unwatch(listener.sock.fileno())
            listener.sock.close()
        if self.handover is not None:
            self._take_handed_over()
            with contextlib.suppress(OSError, ValueError):
                self.reactor.unwatch(self.handover.inbox.fileno())

    async def drain(self, seconds: float) -> None:
        """Wait until no connection is left, at most `seconds`, then reset the rest."""
        with trio.move_on_after(seconds):
            while self.reactor.connections or self._waiting:  # noqa: ASYNC110 - a look now and then is enough here
                await trio.sleep(DRAIN_POLL_SECONDS)
        left = len(self.reactor.connections)
        if left:
            are = "connection was" if left == 1 else "connections were"
            _log.warning("%d %s reset, the time to end was over", left, are)
        self.reactor.abort_all(errors.STOPPED)

    # What displays ask

    async def report(self, *, connections: bool, connid: int | None, detail: bool) -> dict[str, Any]:
        """Return counters, and snapshots of all connections or of one, pid and job name looked up now if not before."""
        records: Iterable[Record] = ()
        if connid is not None:
            records = [self.ledger.records[connid]] if connid in self.ledger.records else []
        elif connections:
            records = list(self.ledger.records.values())
        snapshots = []
        deadline = self._clock() + LOOKUP_SECONDS
        for record in records:
            owner = record.owner
            if owner.pid is None and owner.inode is not None and self._clock() < deadline:
                if record.flow.direction is Direction.OUTBOUND:
                    record.owner = self._owners.complete(owner)
                else:
                    found = self._owners.of_listener(record.flow, complete=True)
                    if found is not None and found.inode == owner.inode:  # else it is another program by now
                        record.owner = found
                await trio.lowlevel.checkpoint()
            relay = self.reactor.connections.get(record.connid)
            if relay is not None:
                relay.describe()
            snapshot = record.snapshot()
            policy = self._policy_of(record) if detail else None
            if policy is not None:
                snapshot["effective"] = policy.effective(record.verdict)
            snapshots.append(snapshot)
        live = self.ledger.records.values()
        return {
            "counts": self.ledger.counts.as_json(),
            "connections": len(live),
            "stale": sum(record.stale for record in live),
            "handshakes": self.ledger.handshakes,
            "byte_path": BYTE_PATH,
            "snapshots": snapshots,
        }

    def _policy_of(self, record: Record) -> PolicySet | None:
        return self._policies.get(record.generation) if record.verdict.rule is not None else None


def reset(accepted: socket.socket) -> None:
    """Close a socket so that its peer sees a reset, never an orderly end."""
    with contextlib.suppress(OSError):
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    accepted.close()


# What `Law.judge` knows verdicts by, but for the client's port; whatever else a rule may ask, it cannot tell.
_TOLD = {"directions", "local_ports", "remote_ports", "local_addresses", "remote_addresses", "job", "user"}
_UNTOLD = tuple(each.name for each in fields(Conditions) if each.name not in _TOLD)


def repeating(conditions: Iterable[Conditions]) -> frozenset[Direction]:
    """Return the directions in which no rule asks for the client's port, the time, or what is not known here."""
    found = set(Direction)
    for each in conditions:
        untold = any(getattr(each, name) for name in _UNTOLD)
        for direction in each.directions:
            if untold or (each.remote_ports if direction is Direction.INBOUND else each.local_ports):
                found.discard(direction)
    return frozenset(found)


def _within(port: int, ranges: Sequence[PortRange]) -> bool:
    return not ranges or any(each.first <= port <= each.last for each in ranges)
