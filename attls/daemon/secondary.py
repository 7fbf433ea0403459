"""SecondaryMap: connections that follow a primary one of the same process between the same two hosts.

An FTP data connection cannot be described by a rule, for nobody knows its ports beforehand. So the process, the two
addresses and the rule of every connection mapped by a rule with SecondaryMap On are remembered as long as it lives, in
every worker, and a later connection that no rule of at least that priority matches gets the same rule, environment and
user. Source: z/OS Communications Server, "Secondary connection application model".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attls.model import Address


@dataclass(frozen=True, slots=True)
class Primary:
    """A live connection that others may follow; `worker` and `connid` name it."""

    worker: int
    connid: int
    pid: int
    local: Address
    remote: Address
    rule: str
    user: str | None


class Primaries:
    """All primaries that a process knows of."""

    def __init__(self) -> None:
        self._by_pair: dict[tuple[Address, Address], dict[tuple[int, int], Primary]] = {}
        self._pairs: dict[tuple[int, int], tuple[Address, Address]] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[Primary]:
        return iter([primary for of_pair in self._by_pair.values() for primary in of_pair.values()])

    def add(self, primary: Primary) -> None:
        """Remember a primary."""
        name, pair = (primary.worker, primary.connid), (primary.local, primary.remote)
        self.remove(*name)
        self._by_pair.setdefault(pair, {})[name] = primary
        self._pairs[name] = pair

    def remove(self, worker: int, connid: int) -> None:
        """Forget a primary that has ended; harmless when it is not known."""
        pair = self._pairs.pop((worker, connid), None)
        if pair is not None:
            of_pair = self._by_pair[pair]
            del of_pair[worker, connid]
            if not of_pair:
                del self._by_pair[pair]

    def forget(self, worker: int) -> None:
        """Forget all primaries of a worker that has died."""
        for name in [name for name in self._pairs if name[0] == worker]:
            self.remove(*name)

    def between(self, local: Address, remote: Address) -> bool:
        """Tell whether there is any primary between two hosts: the cheap question, before a process is looked for."""
        return bool(self._by_pair) and (local, remote) in self._by_pair

    def find(self, pid: int | None, local: Address, remote: Address) -> Primary | None:
        """Return the newest primary of a process between two hosts."""
        of_pair = self._by_pair.get((local, remote), {})
        return next((each for each in reversed(of_pair.values()) if each.pid == pid), None)
