"""Locks of other processes: one that lives, and one that was killed while it held its lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lrexp.runs.lock import LEASE_SECONDS

HOLD = """\
import sys, time
from filelock import SoftFileLease
lease = SoftFileLease(sys.argv[1], lease_duration=float(sys.argv[2]))
lease.acquire()
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def held_by_another(lock: Path) -> Iterator[int]:
    """Let another process hold a lock; give its number."""
    words = [sys.executable, "-c", HOLD, str(lock), str(LEASE_SECONDS)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process.pid
        finally:
            process.kill()


def left_behind(lock: Path) -> None:
    """Leave a lock as a process does that was killed."""
    with held_by_another(lock) as pid:
        os.kill(pid, signal.SIGKILL)
    assert lock.exists()
