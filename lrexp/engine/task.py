"""What an engine is given (a `Task` per trial) and what it yields (records).

A task holds everything one training needs as plain callables and numbers; an engine turns tasks
into a stream of records and does nothing else: no files, no YAML, no screen. Another engine may
train many tasks at once; the records of each trial must be the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.data import Batches
from lrexp.engine.pace import Pace
from lrexp.engine.pause import Pause
from lrexp.finder import StopRule
from lrexp.schedules import Controller, Schedule

LossFunction: TypeAlias = Callable[[Any, Any], Tensor]


@dataclass(frozen=True, order=True)
class TrialId:
    """One variant × one seed.

    Example:
        >>> TrialId("high", 3).name
        'high/seed-3'
    """

    variant: str
    seed: int

    @property
    def name(self) -> str:
        """The trial as files write it."""
        return f"{self.variant}/seed-{self.seed}"

    @classmethod
    def of(cls, name: str) -> TrialId:
        """Return the trial of a name.

        Raises:
            ValueError: it is none.
        """
        variant, _, seed = name.rpartition("/seed-")
        return cls(variant, int(seed))


@dataclass(frozen=True)
class Unit:
    """Trials that one engine trains in one go; what a worker process is given at a time.

    Args:
        engine: a name in `ENGINES`.
        trials: one after the other, or as one stack where the engine is `vectorized`.
        stack: of a stack that goes on, all trials that it began with, in order; those not among
            `trials` have their results. Empty where it is `trials`.
    """

    engine: str
    trials: tuple[TrialId, ...]
    stack: tuple[TrialId, ...] = ()


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
        pause: when to yield a `Checkpoint`, and whether to stop after it; None for never.
        state: of a `Checkpoint` of the unit that this task belongs to, to go on from there; all
            tasks of a stack carry the same. None begins at the first step.
        is_over: the trial has its result, and nothing is recorded of it. It is computed all the
            same where others of its stack go on: their bits may depend on how many rows it has.
        pace: how often losses are read back; that of a stack's first task counts.
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
    pause: Pause | None = None
    state: Mapping[str, Any] | None = None
    is_over: bool = False
    pace: Pace = field(default_factory=Pace)

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer updates in one pass over the training data; None where it has no length."""
        batches = self.train.batches_per_epoch
        return None if batches is None else batches // self.accumulate

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
    error: BaseException = field(compare=False)


@dataclass(frozen=True)
class Checkpoint:
    """All that a unit needs to go on, bit for bit, after `step` updates.

    Args:
        trials: those of the unit that are still being trained; all are at the same step.
        step: updates done; the records of each trial up to there came before this one.
        state: for `Task.state`; nested dicts with str keys, lists, tensors on the CPU, numbers,
            strings and None, so that `torch.load` reads it with `weights_only=True`.
    """

    trials: tuple[TrialId, ...]
    step: int
    state: dict[str, Any] = field(compare=False, repr=False)

    @property
    def trial(self) -> TrialId:
        """The first of its trials."""
        return self.trials[0]


@dataclass(frozen=True)
class NoCheckpoint:
    """A checkpoint was due, and there can be none: these trials go on, but begin anew if stopped.

    Args:
        trials: those of the unit that are still being trained.
        why: a clause, such as "training changes the attribute `x`".
    """

    trials: tuple[TrialId, ...]
    why: str

    @property
    def trial(self) -> TrialId:
        """The first of its trials."""
        return self.trials[0]


@dataclass(frozen=True)
class Interrupted:
    """The unit stopped because its `Pause` asked for it; nothing more comes of these trials.

    They go on from the unit's last checkpoint; where it has none, at their first step.

    Args:
        trials: those that were still being trained.
        why: why no checkpoint could be taken right before this; None where one was.
    """

    trials: tuple[TrialId, ...]
    why: str | None = None

    @property
    def trial(self) -> TrialId:
        """The first of its trials."""
        return self.trials[0]


Record: TypeAlias = (
    Started | Steps | Evaluation | Ended | Failed | Checkpoint | NoCheckpoint | Interrupted
)


class Engine(Protocol):
    """Trains tasks and yields their records; those of one trial in order, trials in any order."""

    def __call__(self, tasks: Iterable[Task]) -> Iterator[Record]:
        """Train every task."""
