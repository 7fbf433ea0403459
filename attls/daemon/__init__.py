"""The landlord: a supervisor that holds policy, listeners and steering, and worker processes that carry connections.

`run` is the door; operators talk to a running daemon through `client`. Nothing here is imported before it is needed,
because `attls status` should not wait for TLS libraries.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attls.errors import DaemonError
from attls.model import Defaults


class OnExit(enum.Enum):
    """What an orderly stop does to traffic that policy matches: let it go unprotected again, or keep refusing it."""

    RELEASE = "release"
    BLOCK = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run; `drain_seconds` is how long an orderly stop waits for live connections.

    Without `on_exit`, PURGE and NOPURGE of Policy Agent files decide, and without those it is released.
    `control_mode` and `control_group` are those of the control socket's file. With `watch`, rings that change are put
    in force by themselves. `datasets` says which file stands for an MVS data set that a policy file names.
    """

    policy: Path
    keyrings: Path
    run_dir: Path
    workers: int
    defaults: Defaults = Defaults.MODERN
    on_exit: OnExit | None = None
    drain_seconds: float = 30.0
    control_mode: int = 0o666
    control_group: str | None = None
    watch: bool = True
    datasets: Mapping[str, Path] = field(default_factory=dict)


def run(options: Options) -> None:
    """Run the daemon in the foreground until it is told to stop.

    Raises PolicyError when the policy has errors, and DaemonError or InterceptError when it cannot be served; nothing
    of the host has changed then.
    """
    from attls.daemon import nest, process

    if not process.may_administer_network():
        raise DaemonError("steering connections needs root (CAP_NET_ADMIN); run attls as root")
    os.umask(0o077)
    process.forbid_dumps()
    process.raise_descriptor_limit()
    with nest.Nest(options.workers) as workers:
        from attls.daemon.supervisor import run as run_supervisor  # takes its time, and the workers take theirs

        run_supervisor(options, workers)
