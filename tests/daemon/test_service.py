"""A worker's service from accept to the relay, with a street, owners and a relay of the test's own."""

from __future__ import annotations

import dataclasses
import errno
import gc
import os
import socket
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing

from attls import errors
from attls.daemon.generation import Generation, load, renew
from attls.daemon.handover import Handover
from attls.daemon.mailroom import Mailroom
from attls.daemon.service import Service
from attls.errors import InterceptError, KeyringError, Reason
from attls.keyring import Keyring, Store
from attls.model import Defaults, Direction, Endpoint, Flow, Owner, canonical_address
from attls.observe import Ledger, Record
from attls.relay import Reactor
from attls.tls import Environment
from tests.scenes.daemons import rule

OWNER = Owner(uid=1000, user="srv", inode=7)


def flow(port: int = 7000, direction: Direction = Direction.INBOUND) -> Flow:
    here, there = Endpoint(canonical_address("10.0.0.1"), port), Endpoint(canonical_address("10.0.0.2"), 50000)
    return Flow(direction, here, there) if direction is Direction.INBOUND else Flow(direction, there, here)


class FakeReactor:
    """Keeps what it is given to carry."""

    def __init__(self) -> None:
        self.connections: dict[int, Any] = {}
        self.carried: list[tuple[Record, Environment | None]] = []
        self.watched: dict[int, Callable[[int], None]] = {}
        self.aborted: Reason | None = None

    def carry(
        self,
        accepted: socket.socket,
        record: Record,
        *,
        dial: Any,
        environment: Environment | None,
        controlled: bool = False,
    ) -> None:
        self.carried.append((record, environment))
        accepted.close()

    def watch_listener(self, sock: FakeListener, handler: Callable[[int], None]) -> None:
        self.watched[sock.fileno()] = handler

    def unwatch(self, descriptor: int) -> None:
        self.watched.pop(descriptor, None)

    def abort_all(self, reason: Reason) -> None:
        self.aborted = reason
        self.connections.clear()

    async def run(self) -> None:
        await trio.sleep_forever()


class FakeListener:
    """A listening socket that accepts what the test queues; errors are raised."""

    def __init__(self) -> None:
        self.queue: list[socket.socket | OSError] = []
        self.flow: Flow | Exception = flow()
        self.closed = False
        self.direction = Direction.INBOUND

    @property
    def sock(self) -> Any:
        return self

    def fileno(self) -> int:
        return 99

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.queue:
            raise BlockingIOError
        item = self.queue.pop(0)
        if isinstance(item, OSError):
            raise item
        return item, None

    def close(self) -> None:
        self.closed = True

    def intercepted(self, accepted: socket.socket) -> Flow:
        if isinstance(self.flow, Exception):
            raise self.flow
        return self.flow

    def dial(self, flow: Flow) -> socket.socket:
        raise AssertionError("nobody dials here")


class FakeOwners:
    """Answers with one owner and counts how often it had to look through /proc."""

    def __init__(self) -> None:
        self.owner: Owner | Exception | None = OWNER
        self.completed = 0

    def of_outbound(self, flow: Flow, *, complete: bool = False) -> Owner:
        found = self.of_listener(flow, complete=complete)
        assert found is not None
        return found

    def of_listener(self, flow: Flow, *, complete: bool = False) -> Owner | None:
        if isinstance(self.owner, Exception):
            raise self.owner
        self.completed += complete
        return self.owner

    def complete(self, owner: Owner) -> Owner:
        self.completed += 1
        return owner


class House:
    """A service with everything around it."""

    def __init__(self, store: Path, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.reactor = FakeReactor()
        self.listener = FakeListener()
        self.owners = FakeOwners()
        self.ledger = Ledger()
        self.asked: list[tuple[str, str]] = []
        self.answer: Keyring | Exception = KeyringError("no such ring")
        self.service = Service(
            self.ledger,
            cast(Reactor, self.reactor),
            self.owners,
            listeners=[self.listener],
            ask_ring=self._ask_ring,
            clock=trio.current_time,
            now=lambda: datetime(2024, 1, 1, 12),
        )

    async def _ask_ring(self, generation: int, reference: str, user: str) -> Keyring:
        self.asked.append((reference, user))
        await trio.sleep(0.1)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def generation(self, policy: str, number: int = 1) -> Generation:
        path = self.folder / "attls.policy"
        path.write_text(policy)
        return load(path, self.store, defaults=Defaults.MODERN, number=number)

    async def enforce(self, policy: str, number: int = 1) -> None:
        assert await self.service.prepare(self.generation(policy, number)) == []
        self.service.commit(number)
        self.service.open()

    def knock(self) -> socket.socket:
        """Make one connection come in; return the client's end."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname(), timeout=5)
            accepted, _ = server.accept()
        self.listener.queue.append(accepted)
        handler = self.reactor.watched.get(99)
        if handler is not None:
            handler(1)
        return client

    def refused(self) -> dict[str, int]:
        return dict(self.ledger.counts.refused)


@pytest.fixture
async def house(rings: Path, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[House]:
    house = House(rings, tmp_path)
    await nursery.start(house.service.run)
    yield house
    for item in house.listener.queue:
        if isinstance(item, socket.socket):
            item.close()


def is_reset(client: socket.socket) -> bool:
    with client:
        try:
            client.recv(1)
        except ConnectionResetError:
            return True
    return False


async def test_a_matching_connection_is_carried_under_its_rule(house: House) -> None:
    """The relay gets the record, opened under the verdict, and the rule's environment."""
    await house.enforce(rule("web"))
    house.knock().close()
    ((record, environment),) = house.reactor.carried
    assert (record.verdict.rule, record.generation, record.owner) == ("web", 1, OWNER)
    assert environment is not None
    assert environment.settings == record.verdict.settings


@pytest.mark.parametrize(
    ("policy", "port", "matched"),
    [
        (rule("web"), 7009, None),
        (rule("web", enabled=False), 7000, "web"),
        (rule("web", extra="ApplicationControlled On"), 7000, "web"),
    ],
)
async def test_what_needs_no_tls_now_is_carried_in_clear(
    house: House, policy: str, port: int, matched: str | None
) -> None:
    """No rule, a rule with TTLSEnabled Off, and a program that will ask for TLS itself: no environment."""
    await house.enforce(policy)
    house.listener.flow = flow(port)
    house.knock().close()
    ((record, environment),) = house.reactor.carried
    assert (record.verdict.rule, environment) == (matched, None)


async def test_what_follows_nothing_any_more_is_not_passed_in_clear(house: House, tmp_path: Path) -> None:
    """A connection that another worker handed over, whose primary has ended on the way, is reset."""
    room = Mailroom(tmp_path / "control.sock", 2)
    inbox, *outlets = (socket.socket(fileno=os.dup(each)) for each in room.handover(0))
    house.service.handover = Handover(inbox, outlets)
    await house.enforce(rule("web", extra="SecondaryMap On"))
    house.listener.flow = flow(7009)
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    assert house.service.handover.give(0, Direction.INBOUND, accepted)
    house.service.accept_waiting()
    assert is_reset(client)
    assert ([], {"stopped": 1}) == (house.reactor.carried, house.refused())
    for sock in (inbox, *outlets):
        sock.close()
    room.close()


async def test_without_a_policy_everything_is_refused(house: House) -> None:
    """Before the first commit a connection is reset, not passed."""
    house.service.open()
    assert is_reset(house.knock())
    assert house.refused() == {"stopped": 1}


@pytest.mark.parametrize(
    ("owner", "found", "word"),
    [
        (None, flow(), "no-listener"),
        (ZeroDivisionError("bug"), flow(), "internal"),
        (OWNER, InterceptError("made to attls itself"), "loop"),
        (OWNER, OSError(errno.ENOTCONN, "gone"), "program-reset"),
    ],
)
async def test_what_goes_wrong_ends_one_connection(house: House, owner: Any, found: Any, word: str) -> None:
    """It is reset and counted, and the next one is carried."""
    await house.enforce(rule("web"))
    house.owners.owner, house.listener.flow = owner, found
    assert is_reset(house.knock())
    assert house.refused() == {word: 1}
    house.owners.owner, house.listener.flow = OWNER, flow()
    house.knock().close()
    assert len(house.reactor.carried) == 1


async def test_processes_are_looked_for_only_when_it_matters(house: House) -> None:
    """A Jobname condition that could match or Trace 4 costs a look through /proc; anything else does not."""
    job = rule("job", port=7001, trace=2).replace("Direction", "Jobname REDIS*\n  Direction")
    await house.enforce(rule("web", trace=2) + job + rule("traced", port=7002, trace=4))
    looks = []
    for port in (7000, 7001, 7002):
        house.listener.flow = flow(port)
        house.owners.completed = 0
        house.knock().close()
        looks.append(house.owners.completed)
    assert looks == [0, 1, 1]


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "RemotePortRange 50000",
        "RemoteAddr 10.0.0.2",
        "Userid SRV",
        "Jobname REDIS*",
        "IpTimeCondition { TimeOfDayRange 11:00-12:30 }",
    ],
)
async def test_what_was_decided_before_is_what_policy_says_now(house: House, condition: str) -> None:
    """Each of many connections, most of them like an earlier one, is judged as the policy judges it alone."""
    ours = rule("web").replace("Direction", condition.replace("{", "\n{\n").replace("}", "\n}") + "\n  Direction")
    await house.enforce(ours + rule("out", direction="Outbound"))
    law = house.service.law
    assert law is not None
    first = flow()
    flows = [
        first,
        flow(7001),
        flow(direction=Direction.OUTBOUND),
        dataclasses.replace(first, remote=dataclasses.replace(first.remote, port=50001)),
        dataclasses.replace(first, remote=dataclasses.replace(first.remote, address=canonical_address("10.0.0.3"))),
        dataclasses.replace(first, local=dataclasses.replace(first.local, address=canonical_address("10.0.0.4"))),
    ]
    owners = [OWNER, Owner(), Owner(user="other"), Owner(user="srv", job="REDIS-1"), Owner(user="SRV", job="NGINX")]
    moments = [datetime(2024, 1, 1, 12), datetime(2024, 1, 1, 13)]
    asked = [(flow, owner, now) for now in moments for owner in owners for flow in flows] * 2
    expected = [law.generation.policy.match(flow, owner, now) for flow, owner, now in asked]
    assert expected == [law.judge(flow, owner, lambda now=now: now) for flow, owner, now in asked]  # type: ignore[misc]


async def test_what_is_remembered_of_the_past_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many hosts come by, few verdicts are kept, and none from before a refresh."""
    monkeypatch.setattr("attls.daemon.service.MOST_VERDICTS", 2)
    await house.enforce(rule("web"))
    law = house.service.law
    assert law is not None
    kept = []
    for last in range(5):
        other = Flow(Direction.INBOUND, flow().local, Endpoint(canonical_address(f"10.0.1.{last}"), 50000))
        assert "web" == law.judge(other, OWNER, datetime.now).rule
        kept.append(len(law.verdicts))
    assert [1, 2, 1, 2, 1] == kept
    await house.enforce(rule("other"), 2)
    assert house.service.law is not None
    assert "other" == house.service.law.judge(flow(), OWNER, datetime.now).rule


async def test_the_ring_of_a_user_is_asked_for_once(house: House, autojump_clock: trio.testing.MockClock) -> None:
    """Connections of one user wait for the same answer, and later ones need none."""
    house.answer = Store(house.store).ring("SRV/RING")
    await house.enforce(rule("own", ring="RING"))
    for _ in range(3):
        house.knock().close()
    assert house.reactor.carried == []
    await trio.sleep(1)
    house.knock().close()
    await trio.sleep(1)
    assert house.asked == [("RING", "srv")]
    assert len(house.reactor.carried) == 4
    assert len({id(environment) for _, environment in house.reactor.carried}) == 1


async def test_the_ring_of_a_user_keeps_its_environment(house: House, autojump_clock: trio.testing.MockClock) -> None:
    """A refresh asks for the ring again; sessions stay unless it has changed, or the settings have."""
    ring = house.answer = Store(house.store).ring("SRV/RING")
    changed = dataclasses.replace(ring, entries=tuple(each for each in ring.entries if each.private_key is not None))
    own, other = rule("own", ring="RING"), rule("own", ring="RING", extra="HandshakeTimeout 3")
    for number, (text, answer) in enumerate([(own, ring), (own, ring), (own, changed), (other, changed)], 1):
        house.answer = answer
        await house.enforce(text, number)
        house.knock().close()
        await trio.sleep(1)
    one, two, three, four = (environment for _, environment in house.reactor.carried)
    assert (True, False, False) == (one is two, two is three, three is four)
    assert 4 == len(house.asked)


async def test_a_user_without_ring_is_refused(house: House, autojump_clock: trio.testing.MockClock) -> None:
    """The connection is reset with reason `environment`; for a while nobody asks again, then somebody does."""
    await house.enforce(rule("own", ring="RING"))
    clients = [house.knock() for _ in range(3)]
    await trio.sleep(1)
    assert all(map(is_reset, clients))
    assert dict(house.ledger.counts.closed) == {("own", "environment"): 3}
    assert len(house.asked) == 1
    await trio.sleep(10)
    house.answer = Store(house.store).ring("SRV/RING")
    house.knock().close()
    await trio.sleep(1)
    assert len(house.reactor.carried) == 1


async def test_an_owner_who_is_not_known_has_no_ring(house: House, autojump_clock: trio.testing.MockClock) -> None:
    """Nobody is asked; the connection is reset."""
    house.owners.owner = Owner()
    await house.enforce(rule("own", ring="RING"))
    client = house.knock()
    await trio.sleep(1)
    assert is_reset(client)
    assert house.asked == []


async def test_a_roll_back_puts_the_old_policy_in_force_again(house: House) -> None:
    """Between commit and roll-back the new one counts, afterwards the old one, and its records are not stale."""
    await house.enforce(rule("web"), 1)
    house.knock().close()
    await house.enforce(rule("new"), 2)
    house.knock().close()
    house.service.roll_back(2)
    house.knock().close()
    records = [record for record, _ in house.reactor.carried]
    assert [(record.verdict.rule, record.stale) for record in records] == [
        ("web", False),
        ("new", True),
        ("web", False),
    ]


CONNECTION = """TTLSConnectionAction web-con
{
  ConnectionUserInstance 1
}
"""
BASE = rule("web").replace(
    "  TTLSEnvironmentActionRef", "  TTLSConnectionActionRef web-con\n  TTLSEnvironmentActionRef"
)
BASE = BASE.replace("TTLSEnabled On\n", "TTLSEnabled On\n  GroupUserInstance 1\n") + CONNECTION


@pytest.mark.parametrize(
    ("policy", "stale"),
    [
        (BASE, False),
        (BASE + rule("more", port=7001), False),
        (BASE.replace("LocalPortRange 7000", "LocalPortRange 7005"), False),
        ("# the same in other words\n" + BASE.replace("TTLSEnabled On", "ttlsenabled  ON"), False),
        (BASE.replace("Trace 7", "Trace 6"), True),
        (BASE.replace("GroupUserInstance 1", "GroupUserInstance 2"), True),
        (BASE.replace("ConnectionUserInstance 1", "ConnectionUserInstance 2"), True),
        (BASE.replace("HandshakeRole Server\n", "HandshakeRole Server\n  EnvironmentUserInstance 1\n"), True),
        (BASE.replace("HandshakeRole Server\n", "HandshakeRole ServerWithClientAuth\n"), True),
        (
            BASE.replace("TTLSEnabled On\n", "TTLSEnabled On\n  TTLSGroupAdvancedParms\n{\nSyslogFacility Auth\n}\n"),
            True,
        ),
        (BASE.replace("  TTLSConnectionActionRef web-con\n", ""), True),
        (BASE.replace("web-con", "other-con"), True),
        (BASE.replace("TTLSRule web", "TTLSRule other"), True),
    ],
)
async def test_what_changes_about_its_actions_makes_a_connection_stale(house: House, policy: str, stale: bool) -> None:
    """Changed or deleted rules and actions do; a refresh that leaves them as they are, wherever else, does not."""
    await house.enforce(BASE, 1)
    house.knock().close()
    ((record, _),) = house.reactor.carried
    await house.enforce(policy, 2)
    assert (record.stale, record.snapshot()["stale"]) == (stale, stale)
    await house.enforce(BASE, 3)
    assert not record.stale


async def test_a_ring_that_is_read_again_leaves_no_connection_stale(house: House) -> None:
    """New certificates are for new connections; the actions of the old ones are what they were."""
    await house.enforce(rule("web"), 1)
    house.knock().close()
    ((record, _),) = house.reactor.carried
    assert house.service.law is not None
    generation, problems = renew(house.service.law.generation, house.store, number=2)
    assert (problems, await house.service.prepare(generation)) == ((), [])
    house.service.commit(2)
    assert not record.stale


async def test_keys_of_rules_that_are_gone_leave_the_process(house: House) -> None:
    """A worker that has settled for a new policy keeps neither the old environments nor what was read for them."""
    await house.enforce(rule("web") + rule("own", port=7001, ring="OWN"))
    house.answer = Store(house.store).ring("SRV/RING")
    house.listener.flow = flow(7001)
    house.knock().close()
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(1)
    house.listener.flow = flow()
    house.knock().close()
    environments = [weakref.ref(environment) for _, environment in house.reactor.carried if environment is not None]
    assert len(environments) == 2
    house.reactor.carried.clear()
    gc.collect()
    assert None not in [reference() for reference in environments]
    await house.enforce(rule("other", port=7003, direction="Outbound"), number=2)
    house.service.settle()
    gc.collect()
    assert [None, None] == [reference() for reference in environments]


async def test_a_generation_that_cannot_be_built_is_never_in_force(house: House) -> None:
    """Each rule that cannot be served is named, and commit has nothing to put in force."""
    problems = await house.service.prepare(house.generation(rule("web", ring="CLI/RING") + rule("two", port=1)))
    assert len(problems) == 1
    assert problems[0].startswith("rule web: ")
    with pytest.raises(KeyError):
        house.service.commit(1)


async def test_what_a_refresh_does_not_change_keeps_its_environment(house: House) -> None:
    """The same settings over the same ring keep their sessions; changed settings get an environment of their own."""
    await house.enforce(rule("web"), 1)
    house.knock().close()
    await house.enforce(rule("web") + rule("two", port=1), 2)
    house.knock().close()
    await house.enforce(rule("web", extra="HandshakeTimeout 3"), 3)
    house.knock().close()
    one, two, three = (environment for _, environment in house.reactor.carried)
    assert one is two
    assert two is not three


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_accept_backs_off_when_the_kernel_has_no_more(
    house: House, autojump_clock: trio.testing.MockClock, number: int
) -> None:
    """The listener rests for a moment instead of spinning, and is then watched again."""
    await house.enforce(rule("web"))
    house.listener.queue.append(OSError(number, "none left"))
    house.reactor.watched[99](1)
    assert house.reactor.watched == {}
    await trio.sleep(0.2)
    house.knock().close()
    assert len(house.reactor.carried) == 1


async def test_an_aborted_connection_does_not_stop_accepting(house: House) -> None:
    """ECONNABORTED is about one connection; the one behind it is taken in the same batch."""
    await house.enforce(rule("web"))
    house.listener.queue.append(OSError(errno.ECONNABORTED, "aborted"))
    house.knock().close()
    assert len(house.reactor.carried) == 1


async def test_a_flood_of_handshakes_is_refused(house: House) -> None:
    """One source gets a quarter of the room, all together half of it; others are still served meanwhile."""
    house.service._most_handshakes, house.service._most_handshakes_of_one = 4, 2
    await house.enforce(rule("web"))

    def come_from(address: str) -> None:
        inbound = flow()
        house.listener.flow = Flow(inbound.direction, inbound.local, Endpoint(canonical_address(address), 1))
        house.knock().close()
        for record in house.ledger.records.values():
            record.status = "Handshake"

    for _ in range(5):
        come_from("10.0.0.2")
    assert (len(house.reactor.carried), house.refused()) == (2, {"overload": 3})
    for number in range(5):
        come_from(f"10.0.1.{number}")
    assert (len(house.reactor.carried), house.refused()) == (4, {"overload": 6})
    for record in list(house.ledger.records.values()):
        record.close(errors.HANDSHAKE_SILENT)
    come_from("10.0.0.2")
    assert len(house.reactor.carried) == 5


async def test_draining_waits_for_the_last_connection(house: House, autojump_clock: trio.testing.MockClock) -> None:
    """The backlog is still taken, then the listener closes; the drain ends when nobody is left."""
    await house.enforce(rule("web"))
    house.reactor.connections[1] = object()
    house.reactor.watched.clear()
    house.knock().close()
    house.service.stop_accepting()
    assert len(house.reactor.carried) == 1
    assert house.listener.closed
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.service.drain, 30.0)
        await trio.sleep(5)
        house.reactor.connections.clear()
    assert 5 <= trio.current_time() - started < 6
    house.reactor.connections[1] = object()
    await house.service.drain(7.0)
    assert trio.current_time() - started >= 12
    assert house.reactor.aborted == errors.STOPPED


async def test_a_report_explains_connections_of_an_older_policy(house: House) -> None:
    """Detail shows effective values of the policy a connection was born under, and the process behind it."""
    await house.enforce(rule("web", extra="HandshakeTimeout 3"), 1)
    house.knock().close()
    await house.enforce(rule("web"), 2)
    report = await house.service.report(connections=True, connid=None, detail=True)
    (snapshot,) = report["snapshots"]
    assert snapshot["effective"]["HandshakeTimeout"] == 3
    assert (report["connections"], report["stale"], snapshot["stale"]) == (1, 1, True)
    connid = house.reactor.carried[0][0].connid
    found: Sequence[int] = [
        len((await house.service.report(connections=False, connid=number, detail=False))["snapshots"])
        for number in (connid, connid + 1)
    ]
    assert found == [1, 0]
