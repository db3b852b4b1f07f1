"""A server that starts commands for the torture tests of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .torture import Starter, starter


@pytest.fixture(scope="module")  # other tests count the children of this process
def commands() -> Iterator[Starter]:
    """Start commands in processes of their own."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork and SIGKILL")
    with starter() as server:
        yield server
