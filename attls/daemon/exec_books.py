"""What is known of one program's connections under `attls exec`: their true names, their records, a line for people."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from attls.daemon.exec_control import Board
from attls.daemon.exec_law import Law
from attls.daemon.secondary import Primary
from attls.errors import Reason
from attls.intercept.unprivileged_owner import command_of
from attls.model import Direction, Endpoint, Flow, Owner, Verdict
from attls.observe import Ledger, Record
from attls.observe.messages import printable
from attls.relay import Reactor

_MOST_TRUTHS = 65536

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Truth:
    """What the program is to see of a socket that is really connected to us; `record` is its connection.

    `interface` is the one that a link-local address belongs to.
    """

    local: Endpoint
    remote: Endpoint
    record: Record
    interface: int = 0


class Books:
    """The law, the ledger, and the truths by socket cookie. `report` gets a line for people about each connection."""

    def __init__(self, law: Law, ledger: Ledger, reactor: Reactor, report: Report | None) -> None:
        self.law = law
        self.ledger = ledger
        self.board = Board(law, ledger, reactor)
        self._report = report
        self._truths: OrderedDict[int, Truth] = OrderedDict()

    # Truths outlive their connections, for the program may still ask for names then. Cookies are never used twice.

    def truth(self, cookie: int) -> Truth | None:
        """Return what the program is to see of the socket `cookie`, None where that is what the kernel says."""
        return self._truths.get(cookie)

    def learn(self, cookie: int, truth: Truth) -> None:
        """Note the truth about a socket, forgetting the oldest of very many."""
        self._truths[cookie] = truth
        self._truths.move_to_end(cookie)
        while len(self._truths) > _MOST_TRUTHS:
            self._truths.popitem(last=False)

    def forget(self, cookie: int) -> None:
        """Take the kernel's word for a socket from now on."""
        self._truths.pop(cookie, None)

    @property
    def is_attentive(self) -> bool:
        """Whether a connection that no rule covers matters: it is reported, or may follow a primary."""
        return self._report is not None or bool(self.board.primaries)

    @property
    def has_truths(self) -> bool:
        """Whether the truth about any socket is not what the kernel says."""
        return bool(self._truths)

    @property
    def wants_source(self) -> bool:
        """Whether a decision about a connect needs to know where it would come from."""
        return self.law.asks_source or bool(self.board.primaries)

    def judge(self, flow: Flow, owner: Owner) -> tuple[Owner, Verdict]:
        """Return whose a connection is and what policy says; one that follows a primary has the primary's user."""
        verdict = self.law.match(flow, owner)
        primary = self._primary(flow, owner, verdict)
        if primary is None:
            return owner, verdict
        return replace(owner, user=primary.user), self.law.rule(primary.rule).verdict

    def _primary(self, flow: Flow, owner: Owner, verdict: Verdict) -> Primary | None:
        """Return the primary that a connection follows (SecondaryMap), None where it does not."""
        found = self.board.primaries.find(owner.pid, flow.local.address, flow.remote.address)
        if found is None:
            return None
        if verdict.rule is not None and self.law.rule(verdict.rule).priority >= self.law.rule(found.rule).priority:
            return None
        return found

    def open(self, flow: Flow, owner: Owner, verdict: Verdict) -> Record:
        """Open the record of a connection that we carry."""
        record = self.ledger.open(flow, owner, verdict, generation=0)
        settings = verdict.settings
        if settings is not None and settings.secondary_map and verdict.rule is not None and owner.pid is not None:
            followed = self._primary(flow, owner, self.law.match(flow, owner))
            if followed is not None:
                record.follow(self.ledger.records.get(followed.connid))
            else:
                ends = flow.local.address, flow.remote.address
                self.board.primaries.add(
                    Primary(record.worker, record.connid, owner.pid, *ends, verdict.rule, owner.user)
                )
        self.board.admitted(record)
        return record

    def turn_away(self, flow: Flow, owner: Owner, verdict: Verdict, reason: Reason, detail: str) -> None:
        """Note a connection that policy covers and we do not carry."""
        record = self.ledger.open(flow, owner, verdict, generation=0)
        record.close(reason, detail)
        self.say(record)

    def say(self, record: Record) -> None:
        """Report a connection under a rule: secured, waiting for its program to ask, or failed."""
        if self._report is None:
            return
        if record.reason is not None:
            outcome = f"failed: {record.reason.text}" + (f" ({record.detail})" if record.detail else "")
        elif record.protocol is not None:
            outcome = f"{record.protocol} {record.cipher}" + (" resumed" if record.resumed else "")
        else:
            outcome = "in clear until the program asks for TLS"
        self._say(record.flow, record.owner, record.verdict, outcome)

    def say_clear(self, flow: Flow, owner: Owner, verdict: Verdict) -> None:
        """Report a connection that is left alone."""
        if self._report is not None:
            self._say(flow, owner, verdict, "in clear, TTLSEnabled Off" if verdict.rule else "in clear")

    def _say(self, flow: Flow, owner: Owner, verdict: Verdict, outcome: str) -> None:
        assert self._report is not None
        arrow = "->" if flow.direction is Direction.OUTBOUND else "<-"
        here = f"{flow.local} " if flow.local.port else ""  # not known before a connect that is left to the kernel
        rule = f"rule {verdict.rule}" if verdict.rule is not None else "no rule"
        who = f"{command_of(owner.pid)}[{owner.pid}]" if owner.pid is not None else "?"
        self._report(printable(f"{who} {here}{arrow} {flow.remote} {rule}: {outcome}"))
