"""What a plan is: for every variant, all that is needed to make the task of any seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from lrexp.config import Clock, Config, ExperimentConfig
from lrexp.data import Data
from lrexp.engine import Task, TrialId
from lrexp.engine.task import LossFunction
from lrexp.finder import DivergenceStop
from lrexp.schedules import Controller, Schedule

TRACED = 10_000  # steps of a longer schedule that its mean is taken of


@dataclass(frozen=True)
class VariantPlan:
    """One variant, ready to give the task of any seed."""

    name: str
    settings: ExperimentConfig
    device: torch.device
    data: Data
    clock: Clock
    schedule: Schedule | Controller
    eval_every: int
    build: Callable[[int], tuple[nn.Module, Optimizer]] = field(repr=False)
    make_loss: Callable[[], LossFunction]
    count_correct: Any = None

    @property
    def total_steps(self) -> int:
        """Return the training's length in optimizer updates."""
        assert self.clock.total_steps is not None
        return self.clock.total_steps

    @property
    def mean_frac(self) -> float:
        """Return the mean LR of its schedule as a share of the peak."""
        return mean_frac(self.schedule, self.total_steps)

    def task(self, seed: int) -> Task:
        """Return the task of one seed."""
        train = self.settings.train
        return Task(
            trial=TrialId(self.name, seed),
            build=lambda: self.build(seed),
            loss=self.make_loss(),
            train=self.data.train,
            val=self.data.val,
            count_correct=self.count_correct,
            schedule=self.schedule,
            base_lr=self.settings.optimizer.lr,
            total_steps=self.total_steps,
            eval_every=self.eval_every,
            accumulate=train.accumulate,
            grad_clip=train.grad_clip,
            autocast=self.settings.precision == "bf16",
            stop=divergence_stop(self.total_steps),
            device=self.device,
            kind=self._kind,
        )

    @property
    def _kind(self) -> str:
        """What tasks share that compute the same: see `Task.kind`."""
        tree = self.settings.model_dump(mode="json")
        return json.dumps([tree[key] for key in ("model", "data", "loss", "precision")])


@dataclass(frozen=True)
class Plan:
    """All variants of a config, ready to be trained."""

    config: Config
    device: torch.device
    variants: dict[str, VariantPlan]

    def tasks(self, seeds: Sequence[int]) -> Iterator[Task]:
        """Yield a task per trial, seed by seed, so that one seed's initial weights are shared."""
        for seed in seeds:
            for variant in self.variants.values():
                yield variant.task(seed)


def divergence_stop(total_steps: int) -> DivergenceStop:
    """Return the rule that ends a diverged training of this length.

    "For good" is at least its last quarter: 100 steps, fewer in a training of under 400.
    """
    return DivergenceStop(patience=min(100, max(10, total_steps // 4)))


def mean_frac(schedule: Schedule | Controller, total_steps: int) -> float:
    """Return the mean LR of a schedule as a share of its highest, in (0, 1].

    It is 1 of what follows a loss, since its LR is not known ahead.

    Example:
        >>> mean_frac(Schedule(lambda step: 0.1 * (1 - step / 100)), 101)
        0.5
    """
    if not isinstance(schedule, Schedule):
        return 1.0
    steps = np.linspace(0, total_steps - 1, min(total_steps, TRACED)).round()
    lrs = np.array([schedule.lr(int(step)) for step in steps])
    share = round(float(lrs.mean() / lrs.max()), 6) if lrs.max() > 0 else 1.0  # 1 of a constant LR
    return share if 0 < share <= 1 else 1.0
