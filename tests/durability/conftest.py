"""Commands in processes of their own, for the torture tests."""

from __future__ import annotations

import pytest
from starting import Starter

from .torture import Commands


@pytest.fixture(scope="session")
def commands(starter: Starter) -> Commands:
    """Run commands in processes of their own."""
    return Commands(starter)
