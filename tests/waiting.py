"""Waiting for other processes, without an end only where they hang."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

MOST_SECONDS = 200.0


def wait_for(condition: Callable[[], object], process: Any = None) -> None:
    """Wait until something is so; a process that is given must live until then."""
    deadline = time.monotonic() + MOST_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Return whether a process is there and has not ended."""
    words = ["ps", "-o", "stat=", "-p", str(pid)]
    state = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    return bool(state) and not state.startswith("Z")
