"""What an engine is given: a `Task` per trial, with all that one training needs.

An engine turns tasks into a stream of records and does nothing else: no files, no YAML, no screen.
Another engine may train many tasks at once; the records of each trial must be the same up to
rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.analysis.stopping import StopRule
from lrexp.engine.stop import Pace, Pause
from lrexp.records import (
    Record,
    TrialId,
)
from lrexp.schedules.schedule import Controller, Schedule
from lrexp.workloads.batches import Batches
from lrexp.workloads.metrics import Metrics
from lrexp.workloads.objectives import Objective


@dataclass(frozen=True)
class Task:
    """One trial, ready to be trained.

    Args:
        trial: which trial this is.
        build: returns a model on `device` (a deep copy of the seed's initial weights and buffers)
            and an optimizer whose groups' `lr` are each group's own base LR.
        objective: (model, batch) -> (scalar mean loss, output).
        eval_objective: that of evaluations; None is the same.
        count_correct: (output, target) -> number of right predictions per prediction made, as
            (right, made); None where accuracy means nothing.
        metrics: what is measured besides.
        train: training batches on `device`, val: validation batches or None.
        schedule: LR of the optimizer's base LR for every step; groups are scaled by it.
        base_lr: the base LR η that the schedule was built with.
        part_lrs: of several optimizers, the base LR of each.
        lead: the number of the optimizer that the schedule is of; the others keep their ratio to
            it. others_stay: they stay at their own base LRs instead.
        total_steps: optimizer updates; eval_every: updates between evaluations, 0 for none.
        accumulate: micro-batches per update.
        grad_clip: largest gradient norm, or None.
        autocast: run forward and loss in `autocast_dtype`.
        make_scaler: returns what scales the loss, for gradients that float16 could not hold.
        stop: the rule that ends the training early.
        kind: tasks of equal kind compute the same: model code and arguments, data and loss. They
            may differ in initial weights, and in all that is a field here or an optimizer's number.
        timed_as: tasks of equal text take equally long on one machine; "" where nobody knows.
        pause: when to yield a `Checkpoint`, and whether to stop after it; None for never.
        state: of a `Checkpoint` of the group that this task belongs to, to go on from there; all
            tasks of a stack carry the same. None begins at the first step.
        is_over: the trial has its result, and nothing is recorded of it. It is computed all the
            same where others of its stack go on: their bits may depend on how many rows it has.
        pace: how often losses are read back; that of a stack's first task counts.
    """

    trial: TrialId
    build: Callable[[], tuple[nn.Module, Optimizer]]
    objective: Objective
    train: Batches
    schedule: Schedule | Controller
    base_lr: float
    total_steps: int
    stop: StopRule[Any]
    device: torch.device
    val: Batches | None = None
    eval_objective: Objective | None = None
    count_correct: Callable[[Any, Any], tuple[Tensor, Tensor | int]] | None = None
    metrics: Metrics = field(default_factory=Metrics)
    eval_every: int = 0
    accumulate: int = 1
    grad_clip: float | None = None
    autocast: bool = False
    autocast_dtype: torch.dtype = torch.bfloat16
    make_scaler: Callable[[], torch.amp.GradScaler] | None = None
    kind: str = ""
    timed_as: str = ""
    part_lrs: tuple[float, ...] = ()
    lead: int = 0
    others_stay: bool = False
    pause: Pause | None = None
    state: Mapping[str, Any] | None = None
    is_over: bool = False
    pace: Pace = field(default_factory=Pace)

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer updates in one pass over the training data; None where it has no length."""
        batches = self.train.batches_per_epoch
        return None if batches is None else batches // self.accumulate

    def other_lrs(self, lrs: Sequence[float]) -> dict[str, list[float]]:
        """Return the LRs of the other optimizers by their columns, given those of the schedule."""
        return {
            f"lr_{i}": [own if self.others_stay else own * (lr / self.base_lr) for lr in lrs]
            for i, own in enumerate(self.part_lrs)
            if i != self.lead
        }

    @property
    def has_loader_processes(self) -> bool:
        """Return whether other processes load its data."""
        return self.train.workers > 0 or (self.val is not None and self.val.workers > 0)

    def evaluates_after(self, steps: int) -> bool:
        """Return whether there is an evaluation after so many updates."""
        every = self.eval_every
        return bool(every) and (steps % every == 0 or steps == self.total_steps)

    @property
    def is_stop_requested(self) -> bool:
        """Return whether to train no further."""
        return self.pause is not None and self.pause.requested

    def asks_to_stop(self) -> bool:
        """Return whether to stop at the end of this step; to be called once for each."""
        return self.pause is not None and self.pause.ask()

    def is_pause_due(self, steps: int) -> bool:
        """Return whether to take a checkpoint after so many updates; after the last, never."""
        return self.pause is not None and steps < self.total_steps and self.pause.due()


class Engine(Protocol):
    """Trains tasks and yields their records; those of one trial in order, trials in any order."""

    def __call__(self, tasks: Iterable[Task]) -> Iterator[Record]:
        """Train every task."""
