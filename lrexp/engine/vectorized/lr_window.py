"""The LRs and momenta of all copies for some steps ahead, as coefficients on the device.

A schedule that knows its future is asked for hundreds of steps at once; one that reacts to what
training reports, only as far as nothing is reported in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lrexp.engine.lr_source import LrSource
from lrexp.engine.task import Task
from lrexp.engine.vectorized.stack import Stack
from lrexp.engine.vectorized.update_rules import Table
from lrexp.schedules import Schedule

AHEAD = 256  # steps


@dataclass(frozen=True)
class LrWindow:
    """Steps from `first` to before `end`.

    Args:
        lrs: of every copy, (steps, copies).
        ready: for each step, the coefficients of each parameter group, (coefficients, copies, 1).
    """

    first: int
    end: int
    lrs: list[list[float]]
    ready: list[tuple[Tensor, ...]]

    @classmethod
    def of_no_steps(cls, step: int = 0) -> LrWindow:
        """Return a window that is over at `step`."""
        return cls(step, step, [], [])

    @classmethod
    def from_sources(cls, stack: Stack, sources: Sequence[LrSource], step: int) -> LrWindow:
        """Return the window that begins at `step`; each copy has one of the sources."""
        end = _end(stack.tasks[0], sources, step)
        steps = range(step, end)
        columns: dict[int, list[float]] = {}  # seeds of a variant share a schedule
        for task, source in zip(stack.tasks, sources, strict=True):
            key = id(task.schedule) if isinstance(task.schedule, Schedule) else id(source)
            if key not in columns:
                columns[key] = list(map(source.lr, steps))
            columns[id(source)] = columns[key]
        lr = np.array([columns[id(source)] for source in sources]).T  # (steps, copies)
        base = np.array([task.base_lr for task in stack.tasks])
        momentum = _momentum(stack.tasks, steps)
        tables = []
        for group in stack.copies.groups:
            own = np.where(np.isnan(momentum), group.numbers["momentum"], momentum)
            table = group.coefficients(group.numbers["lr"] * (lr / base), own, step)
            tables.append(torch.from_numpy(table).to(group.flat).unsqueeze(-1).unbind(0))
        return cls(step, end, lr.tolist(), list(zip(*tables, strict=True)))

    def lr(self, step: int) -> list[float]:
        """Return every copy's LR."""
        return self.lrs[step - self.first]

    def coefficients(self, step: int) -> tuple[Tensor, ...]:
        """Return what the update of each parameter group is given."""
        return self.ready[step - self.first]


def _end(task: Task, sources: Sequence[LrSource], step: int) -> int:
    if any(source.wants_loss for source in sources):
        return step + 1
    end = min(step + AHEAD, task.total_steps)
    if task.eval_every and not all(source.is_known_ahead for source in sources):
        end = min(end, step - step % task.eval_every + task.eval_every)
    return end


def _momentum(tasks: Sequence[Task], steps: range) -> Table:
    """Return the momentum that schedules set, (steps, copies), NaN where they do not."""
    given: list[Callable[[int], float] | None] = [
        task.schedule.momentum if isinstance(task.schedule, Schedule) else None for task in tasks
    ]
    columns = [[np.nan if of is None else of(step) for step in steps] for of in given]
    table: Table = np.array(columns, dtype=np.float64).T
    return table
