"""What all tests share: how long the property tests search, and who may run scenes."""

from __future__ import annotations

import os

import hypothesis
import pytest

# ATTLS_TEST_PROFILE=deep searches fifty times longer; timing is not a property on a shared machine, so no deadline.
hypothesis.settings.register_profile("fast", deadline=None, max_examples=100)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=5_000)
hypothesis.settings.load_profile(os.environ.get("ATTLS_TEST_PROFILE", "fast"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip scenes, saying why, where the machine does not let us make network namespaces."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("scene"):
            item.add_marker(pytest.mark.skip(reason="a scene makes network namespaces of its own, which needs root"))
