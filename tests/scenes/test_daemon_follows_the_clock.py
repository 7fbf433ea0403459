"""A rule with a time condition begins and ends by the clock, without a refresh."""

from __future__ import annotations

import ssl
import time
from datetime import datetime, timedelta

import pytest

from attls.daemon.timetable import MARGIN
from tests.namespaces import wait_until
from tests.scenes.conftest import Stage
from tests.scenes.daemons import client_context, echo, program, rule

pytestmark = pytest.mark.scene


def timed(text: str, begins: datetime, seconds: float) -> str:
    """Give the rule in `text` a period of its own."""
    name = text.split()[1]
    period = f"{begins:%Y%m%d%H%M%S}:{begins + timedelta(seconds=seconds):%Y%m%d%H%M%S}"
    return (
        text.replace("  Direction", f"  IpTimeConditionRef {name}-time\n  Direction")
        + f"IpTimeCondition {name}-time\n{{\n  ConditionTimeRange {period}\n}}\n"
    )  # fmt: skip


def test_a_rule_counts_while_its_period_lasts(stage: Stage) -> None:
    """In clear before, TLS from the first second to the last, in clear after; steered shortly before and not after."""
    begins = datetime.now().replace(microsecond=0) + timedelta(seconds=9)
    later = begins + timedelta(seconds=MARGIN)
    daemon = stage.daemon.start(timed(rule("soon"), begins, 4) + timed(rule("later", port=7001), later, 4))
    context = client_context(stage.rings)

    def table() -> str:
        return stage.host.run("nft", "list", "chain", "inet", "attls", "inbound_rules")

    def is_clear() -> bool:
        with stage.peer.connect("10.1.0.1", 7000) as sock:
            return echo(sock) == b"hello"

    def is_protected() -> bool:
        try:
            with context.wrap_socket(stage.peer.connect("10.1.0.1", 7000, timeout=1)) as sock:
                return echo(sock) == b"hello"
        except (ssl.SSLError, OSError):
            return False

    with program(stage.host):
        assert "7000" in table()
        assert is_clear()
        if datetime.now() < begins - timedelta(seconds=2):
            assert "7001" not in table()  # two minutes away and some seconds
        time.sleep((begins - datetime.now()).total_seconds() + 0.1)
        assert is_protected()
        wait_until(lambda: "7001" in table(), 5)
        wait_until(lambda: "7000" not in table(), 10)
        assert is_clear()
        assert daemon.status()["generation"] == 1
