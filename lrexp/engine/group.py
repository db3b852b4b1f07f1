"""Trials that compute the same, with the engine that was found for them and what it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lrexp.engine.vectorized.copies import Family
from lrexp.records import Unit


@dataclass(frozen=True)
class Part:
    """A family of trials with the engine found for it.

    Args:
        seconds: per trial-step, by the number of copies in a stack; alone: one by one.
        block: copies in a stack; 1 where the trials are trained one by one.
        setup: seconds that each stack takes before its first step.
    """

    family: Family
    alone: float
    reason: str
    block: int = 1
    seconds: Mapping[int, float] = field(default_factory=dict)
    setup: float = 0.0

    @property
    def engine(self) -> str:
        """Return the engine's name."""
        return "sequential" if self.block == 1 else "vectorized"

    def units(self, jobs: int) -> list[Unit]:
        """Return the units, small enough for every process to have some."""
        if self.block == 1:
            return [Unit("sequential", (task.trial,)) for task in self.family.tasks]
        size = min(self.block, math.ceil(len(self.family.tasks) / jobs))
        blocks = self.family.blocks(size)
        return [Unit("vectorized", tuple(task.trial for task in block)) for block in blocks]

    def times(self, jobs: int) -> list[float]:
        """Return the seconds that each unit takes."""
        steps = {task.trial: task.total_steps for task in self.family.tasks}
        found = []
        for unit in self.units(jobs):
            copies = len(unit.trials)
            each = self.alone if self.block == 1 else self._seconds_of(copies)
            found.append(self.setup + each * sum(steps[trial] for trial in unit.trials))
        return found

    def _seconds_of(self, copies: int) -> float:
        """Return the seconds per trial-step of a stack, from the nearest size that was tried."""
        return self.seconds[min(self.seconds, key=lambda tried: abs(tried - copies))]

    def to_plain(self) -> dict[str, Any]:
        """Return what was measured, as JSON can hold it."""
        return {
            "engine": self.engine,
            "trials": len(self.family.tasks),
            "reason": self.reason,
            "sequential_seconds_per_step": self.alone,
            "stacked_seconds_per_step_and_trial": {
                str(size): value for size, value in self.seconds.items()
            },
            "setup_seconds_per_stack": self.setup,
        }
