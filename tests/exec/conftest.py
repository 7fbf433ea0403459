"""The stage is built once for all tests of `attls exec`, here and in the scenes."""

from __future__ import annotations

import pytest

from tests.exec import stage as stages


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> stages.Stage:
    """Rings, keys and a place for policies."""
    return stages.build(tmp_path_factory.mktemp("exec"))
