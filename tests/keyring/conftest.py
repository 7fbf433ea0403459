"""A keyring store, made fresh for each test."""

from pathlib import Path

import pytest

from attls.keyring import Usage

from .workshop import Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An empty store."""
    return Workshop(tmp_path / "keyrings")


@pytest.fixture
def shop(workshop: Workshop) -> Workshop:
    """A root, a server certificate, and the ring demo/SERVER that connects both."""
    workshop.authority()
    workshop.leaf()
    workshop.ring("SERVER", ("demo", "server", Usage.PERSONAL, True), ("CERTAUTH", "Root", Usage.CERTAUTH, False))
    return workshop
