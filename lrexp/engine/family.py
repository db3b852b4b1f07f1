"""Trials that compute the same, with the engine that was found for them and what it takes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from lrexp.engine.task import Task
from lrexp.engine.vectorized.copies import NotStackable, form
from lrexp.engine.vectorized.proof import Facts, facts_of
from lrexp.records import Group
from lrexp.workloads.tensors import ResidentBatches


@dataclass(frozen=True)
class Family:
    """Trials that are declared alike: of one kind, and of optimizers of one form.

    Args:
        tasks: in the order given.
        facts: of a step of the first; None when `reason` says why they cannot be stacked.
        reason: of the engine that was found.
        raises: the reason is an exception of user code, which the trials themselves will raise.
        alone: seconds per step of a trial on its own.
        block: copies in a stack; 1 where the trials are trained one by one.
        seconds: per trial-step, by the number of copies in a stack.
        setup: seconds that each stack takes before its first step.
        bytes: of memory that a copy in a stack takes; 0 where no stack was tried.
    """

    tasks: tuple[Task, ...]
    facts: Facts | None = None
    reason: str = ""
    raises: bool = False
    alone: float = 0.0
    block: int = 1
    seconds: Mapping[int, float] = field(default_factory=dict)
    setup: float = 0.0
    bytes: int = 0

    @property
    def is_by_seed(self) -> bool:
        """Whether a stack may hold one seed only."""
        draws = self.facts is not None and (self.facts.torch_random or self.facts.eval_random)
        return draws or not isinstance(self.tasks[0].train, ResidentBatches)

    def blocks(self, size: int) -> Iterator[tuple[Task, ...]]:
        """Yield stacks of at most `size` copies, as equal in size as can be."""
        seeds: dict[int, list[Task]] = {}
        for task in self.tasks:
            seeds.setdefault(task.trial.seed if self.is_by_seed else 0, []).append(task)
        for members in seeds.values():
            parts = -(-len(members) // max(1, size))
            bounds = [len(members) * i // parts for i in range(parts + 1)]
            for start, stop in pairwise(bounds):
                yield tuple(members[start:stop])

    @property
    def engine(self) -> str:
        """Return the engine's name."""
        return "sequential" if self.block == 1 else "vectorized"

    def groups(self, jobs: int) -> list[Group]:
        """Return the groups, small enough for every process to have some."""
        if self.block == 1:
            return [Group("sequential", (task.trial,)) for task in self.tasks]
        size = min(self.block, math.ceil(len(self.tasks) / jobs))
        blocks = self.blocks(size)
        return [Group("vectorized", tuple(task.trial for task in block)) for block in blocks]

    def times(self, jobs: int) -> list[float]:
        """Return the seconds that each group takes."""
        steps = {task.trial: task.total_steps for task in self.tasks}
        found = []
        for group in self.groups(jobs):
            each = self.alone if self.block == 1 else self._seconds_of(len(group.trials))
            found.append(self.setup + each * sum(steps[trial] for trial in group.trials))
        return found

    def _seconds_of(self, copies: int) -> float:
        """Return the seconds per trial-step of a stack, from the nearest size that was tried."""
        return self.seconds[min(self.seconds, key=lambda tried: abs(tried - copies))]

    def to_plain(self) -> dict[str, Any]:
        """Return what was measured, as JSON can hold it."""
        return {
            "engine": self.engine,
            "trials": len(self.tasks),
            "reason": self.reason,
            "sequential_seconds_per_step": self.alone,
            "stacked_seconds_per_step_and_trial": {
                str(size): value for size, value in self.seconds.items()
            },
            "setup_seconds_per_stack": self.setup,
            "bytes_per_copy": self.bytes,
        }


def families(tasks: Iterable[Task]) -> list[Family]:
    """Return the tasks in families; a step of each was done, user code that raised is a reason."""
    found: dict[Hashable, list[Task]] = {}
    reasons: dict[Hashable, Family] = {}
    forms: dict[str, Hashable] = {}  # of variants: a model is built to see it
    for task in tasks:
        key: Hashable = _settings(task)
        try:
            variant = task.trial.variant
            if variant not in forms:
                forms[variant] = form(task)
            key = (key, forms[variant])
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            family = _one_by_one((task,), error, "")
            key = (key, family.reason)
            reasons[key] = family
        found.setdefault(key, []).append(task)
    return [
        Family(tuple(own), reason=reasons[key].reason, raises=reasons[key].raises)
        if key in reasons
        else _looked_at(own)
        for key, own in found.items()
    ]


def _settings(task: Task) -> Hashable:
    data = (id(task.train), id(task.val))
    length = (task.total_steps, task.eval_every, task.accumulate)
    return task.kind, data, length, task.autocast, str(task.device)


def _looked_at(tasks: Sequence[Task]) -> Family:
    try:
        return Family(tuple(tasks), facts_of(tasks[0]))
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        return _one_by_one(tasks, error, " in its first step")


def _one_by_one(tasks: Sequence[Task], error: BaseException, where: str) -> Family:
    if isinstance(error, NotStackable):
        return Family(tuple(tasks), reason=str(error))
    # of user code: the trial itself will raise it, with its place
    return Family(tuple(tasks), reason=f"{type(error).__name__} was raised{where}", raises=True)
