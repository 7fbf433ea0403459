"""The way back: routing rules that turn a program's packets round to us instead of sending them to the network.

Packets of a steered program, and a program's answers to a client whose address we borrowed, are addressed to a foreign
host. nft.py marks them, and here marked packets are looked up in a table that calls every address local.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from attls.errors import InterceptError
from attls.intercept.marks import MARKS, Marks

FAMILIES = (socket.AF_INET, socket.AF_INET6)
WITHOUT_IPV6 = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP)


class Routes:
    """The routing rules and routes of this network namespace; all calls may be repeated at will."""

    def __init__(self, marks: Marks = MARKS) -> None:
        self.marks = marks

    def get_ready(self) -> None:
        """Import what the other calls need: best done while something else is waited for."""
        import pyroute2  # type: ignore[import-untyped]  # noqa: F401

    def install(self) -> None:
        """Add what is missing, IPv4 and IPv6, and bring `lo` up; raises InterceptError."""
        with _netlink() as link:
            try:
                loopback = link.link_lookup(ifname="lo")[0]
                link.link("set", index=loopback, state="up")
                for family in FAMILIES:
                    try:
                        link.route("replace", **self._route(family, loopback))
                        if not self._has_rule(link, family):
                            link.rule("add", **self._rule(family))
                    except Exception as error:
                        if family == socket.AF_INET6 and _code(error) in WITHOUT_IPV6:
                            continue  # a kernel without IPv6 has nothing to steer there
                        raise
            except Exception as error:
                raise _sentence("could not set up the routes for steered connections", error) from error

    def remove(self) -> None:
        """Take everything away that is there; each step is tried, then the first failure raises InterceptError."""
        failures: list[Exception] = []
        with _netlink() as link:
            loopback = link.link_lookup(ifname="lo")[0]
            for family in FAMILIES:
                for kind, wanted in (("rule", self._rule(family)), ("route", self._route(family, loopback))):
                    try:
                        getattr(link, kind)("del", **wanted)
                    except Exception as error:  # noqa: BLE001 - one failed step must not keep the next from being tried
                        if _code(error) not in (errno.ENOENT, errno.ESRCH, *WITHOUT_IPV6):
                            failures.append(error)
        if failures:
            raise _sentence("could not remove the routes for steered connections", failures[0]) from failures[0]

    def _route(self, family: int, loopback: int) -> dict[str, Any]:
        return {
            "family": family,
            "dst": "0.0.0.0/0" if family == socket.AF_INET else "::/0",
            "type": "local",
            "scope": "host" if family == socket.AF_INET else "universe",
            "proto": "static",  # network managers leave static routes alone
            "oif": loopback,
            "table": self.marks.table,
        }

    def _rule(self, family: int) -> dict[str, Any]:
        return {
            "family": family,
            "priority": self.marks.priority,
            "fwmark": self.marks.home,
            "fwmask": self.marks.mask,
            "table": self.marks.table,
        }

    def _has_rule(self, link: Any, family: int) -> bool:
        return any(
            (rule.get("fwmark"), rule.get("fwmask"), rule.get("table"))
            == (self.marks.home, self.marks.mask, self.marks.table)
            for rule in link.get_rules(family=family)
        )


def _netlink() -> Any:
    # Imported here: only the supervisor needs it, and it takes 100 ms and 20 MB. It brings no types.
    from pyroute2 import IPRoute

    return IPRoute()


def _code(error: Exception) -> int | None:
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else getattr(error, "errno", None)


def _sentence(what: str, error: Exception) -> InterceptError:
    if _code(error) in (errno.EPERM, errno.EACCES):
        return InterceptError(f"{what}: this needs root (CAP_NET_ADMIN); run attls as root")
    return InterceptError(f"{what}: the kernel said: {error}")
