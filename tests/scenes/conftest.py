"""What scenes of the daemon share: key rings, a host with a network, and a peer on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.namespaces import Namespace, join, namespace
from tests.scenes.daemons import Daemon, make_rings


class Stage(NamedTuple):
    """A host for the daemon and the programs, and a peer that the network leads to."""

    host: Namespace
    peer: Namespace
    daemon: Daemon
    rings: Path


@pytest.fixture(scope="session")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A keyring store, its CA as ca.pem and the server's certificate and key as server.pem."""
    store = tmp_path_factory.mktemp("keyrings")
    make_rings(store)
    return store


@pytest.fixture
def stage(tmp_path: Path, rings: Path) -> Iterator[Stage]:
    """A host at 10.1.0.1 and a peer at 10.1.0.2, IPv6 alike; every process on them ends with the scene."""
    with namespace("host") as host, namespace("peer") as peer:
        join(host, peer)
        yield Stage(host, peer, Daemon(host, tmp_path, rings=rings), rings)
