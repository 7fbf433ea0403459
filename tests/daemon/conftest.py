"""What the daemon's tests share: a keyring store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenes.daemons import make_rings


@pytest.fixture(scope="session")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the rings SRV/RING (server) and CLI/RING (client)."""
    store = tmp_path_factory.mktemp("keyrings")
    make_rings(store)
    return store
