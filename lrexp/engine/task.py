"""What an engine is given (a `Task` per trial) and what it yields (records).

A task holds everything one training needs as plain callables and numbers; an engine turns tasks
into a stream of records and does nothing else: no files, no YAML, no screen. Another engine may
train many tasks at once; the records of each trial must be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.data import Batches
from lrexp.finder import StopRule
from lrexp.schedules import Controller, Schedule

LossFunction: TypeAlias = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, order=True)
class TrialId:
    """One variant × one seed."""

    variant: str
    seed: int


@dataclass(frozen=True)
class Unit:
    """Trials that one engine trains in one go; what a worker process is given at a time.

    Args:
        engine: a name in `ENGINES`.
        trials: one after the other, or as one stack where the engine is `vectorized`.
    """

    engine: str
    trials: tuple[TrialId, ...]


@dataclass(frozen=True)
class Task:
    """One trial, ready to be trained.

    Args:
        trial: which trial this is.
        build: returns a model on `device` (a deep copy of the seed's initial weights and buffers)
            and an optimizer whose groups' `lr` are each group's own base LR.
        loss: (output, target) -> scalar mean loss.
        count_correct: (output, target) -> number of right predictions per prediction made, as
            (right, made); None where accuracy means nothing.
        train: training batches on `device`, val: validation batches or None.
        schedule: LR of the optimizer's base LR for every step; groups are scaled by it.
        base_lr: the base LR η that the schedule was built with.
        total_steps: optimizer updates; eval_every: updates between evaluations, 0 for none.
        accumulate: micro-batches per update.
        grad_clip: largest gradient norm, or None.
        autocast: run forward and loss in bfloat16.
        stop: the rule that ends the training early.
        kind: tasks of equal kind compute the same: model code and arguments, data and loss. They
            may differ in initial weights, and in all that is a field here or an optimizer's number.
    """

    trial: TrialId
    build: Callable[[], tuple[nn.Module, Optimizer]]
    loss: LossFunction
    train: Batches
    schedule: Schedule | Controller
    base_lr: float
    total_steps: int
    stop: StopRule[Any]
    device: torch.device
    val: Batches | None = None
    count_correct: Callable[[Any, Any], tuple[Tensor, int]] | None = None
    eval_every: int = 0
    accumulate: int = 1
    grad_clip: float | None = None
    autocast: bool = False
    kind: str = ""

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer updates in one pass over the training data; None where it has no length."""
        batches = self.train.batches_per_epoch
        return None if batches is None else batches // self.accumulate


@dataclass(frozen=True)
class Started:
    """The trial begins; for the second time where `again` says why."""

    trial: TrialId
    again: str | None = None


@dataclass(frozen=True)
class Steps:
    """Some consecutive updates: the LR used for each and the batch loss before it."""

    trial: TrialId
    first: int
    epoch: list[int]
    lr: list[float]
    loss: list[float]


@dataclass(frozen=True)
class Evaluation:
    """Measures taken after `step` updates (0: before training)."""

    trial: TrialId
    step: int
    epoch: float
    values: dict[str, float]


@dataclass(frozen=True)
class Ended:
    """The trial is over: all steps done, or stopped by its rule at `stopped_at` (its last step)."""

    trial: TrialId
    steps: int
    stopped_at: int | None
    seconds: float


@dataclass(frozen=True)
class Failed:
    """The trial raised; the others go on."""

    trial: TrialId
    error: Exception = field(compare=False)


Record: TypeAlias = Started | Steps | Evaluation | Ended | Failed


class Engine(Protocol):
    """Trains tasks and yields their records; those of one trial in order, trials in any order."""

    def __call__(self, tasks: Iterable[Task]) -> Iterator[Record]:
        """Train every task."""
