"""How long steps took on this machine, kept from run to run.

An engine is chosen by the clock, and a clock reads differently on a busy machine. So that the same
command gives the same numbers whatever the load, what was measured once for a kind of training is
used again: a small file in the user's cache directory, which `lrexp --forget-timings` removes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrexp.errors import RunError
from lrexp.runs.files import find_json, write_json

if TYPE_CHECKING:
    import torch

    from lrexp.engine.calibrate import Machine, Speed
    from lrexp.engine.task import Task
    from lrexp.engine.vectorized.proof import Facts

CACHE = "LREXP_CACHE"  # in the environment: the directory, in place of the user's
MOST_ENTRIES = 1_000  # the oldest are dropped
LEAST_ROOM = 0.5  # of the memory that was free once; with less, what is free now counts


def timings_path() -> Path:
    """Return the file, as each system has it: `~/.cache/lrexp/timings.json` on Linux."""
    if given := os.environ.get(CACHE):
        return Path(given) / "timings.json"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "lrexp" / "timings.json"


def forget_timings() -> bool:
    """Remove what was measured; return whether there was anything."""
    path = timings_path()
    was_there = path.exists()
    path.unlink(missing_ok=True)
    return was_there


class Timings:
    """Figures by what they were measured of; new ones are written at once.

    A file that cannot be read or written is no reason to stop: figures are then measured anew.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or timings_path()
        self._known = self._read()

    def _read(self) -> dict[str, Any]:
        with suppress(RunError):
            return find_json(self._path) or {}
        return {}

    def get(self, *what: object) -> float | None:
        """Return the figure of this, None where it was never measured."""
        value = self._known.get(_key(what))
        return float(value) if isinstance(value, int | float) else None

    def keep(self, value: float, *what: object) -> float:
        """Return the figure that was kept of this, or keep `value`."""
        if (known := self.get(*what)) is not None:
            return known
        with suppress(RunError, OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            latest = self._read()  # another run may have written meanwhile
            theirs = latest.get(_key(what))
            value = float(theirs) if isinstance(theirs, int | float) else value
            self._known = dict([*latest.items(), (_key(what), value)][-MOST_ENTRIES:])
            write_json(self._path, self._known)
        self._known[_key(what)] = value
        return value

    def of_step(self, tasks: Iterable[Task], copies: int) -> float | None:
        """Return the kept seconds per trial and step of these tasks, None if unknown.

        Args:
            tasks: that are declared alike; one of them was timed for all.
            copies: of their stack, 0 for none; the nearest size that was tried counts.
        """
        from lrexp.engine.calibrate import MOST_STEPS, ROUGH_STEPS
        from lrexp.engine.choice import BLOCKS

        sizes = sorted({copies, 2, *BLOCKS}, key=lambda size: abs(size - copies))
        tries = [("stack", size) for size in sizes] if copies else []
        tries = tries or [("alone", steps) for steps in (MOST_STEPS, ROUGH_STEPS)]
        kinds = [kind for kind in dict.fromkeys(task.timed_as for task in tasks) if kind]
        found = (self.get(*way, "seconds", kind) for way in tries for kind in kinds)
        return next((seconds for seconds in found if seconds is not None), None)

    def machine(self) -> Machine:
        """Return this machine as a choice of engines is told of it."""
        from lrexp.engine.calibrate import (
            Machine,
            sequential_speed,
            slower_on_one_thread,
            stacked_speed,
        )
        from lrexp.engine.device import free_bytes

        def alone(task: Task, most_steps: int) -> Speed:
            return self._kept(sequential_speed(task, most_steps), task, "alone", most_steps)

        def stacked(tasks: Sequence[Task], facts: Facts) -> Speed:
            return self._kept(stacked_speed(tasks, facts), tasks[0], "stack", len(tasks))

        def memory(device: torch.device) -> int:
            free = free_bytes(device)
            kept = self.keep(float(free), "memory", str(device))
            return int(kept) if free > LEAST_ROOM * kept else free

        def slowdown(task: Task) -> float:
            if not task.timed_as:
                return slower_on_one_thread(task)
            known = self.get("slowdown", task.timed_as)
            if known is not None:
                return known
            return self.keep(slower_on_one_thread(task), "slowdown", task.timed_as)

        return Machine(alone=alone, stacked=stacked, memory=memory, slowdown=slowdown)

    def _kept(self, speed: Speed, task: Task, *what: object) -> Speed:
        """Return a speed with the seconds that were measured first; its losses are of now."""
        if not task.timed_as:
            return speed
        seconds = self.keep(speed.seconds, *what, "seconds", task.timed_as)
        setup = self.keep(speed.setup, *what, "setup", task.timed_as)
        return replace(speed, seconds=seconds, setup=setup)


def _key(what: Sequence[object]) -> str:
    """Return the name of a figure: of this machine, since a home may be that of many."""
    import torch

    threads = torch.get_num_threads()
    here = (platform.node(), platform.machine(), os.cpu_count(), torch.__version__, threads)
    text = json.dumps([*map(str, here), *map(str, what)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
