"""An entrant of a race as a trial: the config's own task, with its schedule on a short horizon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from lrexp.config import Config, ExperimentConfig
from lrexp.engine import Task, TrialId
from lrexp.errors import ConfigError
from lrexp.plan.length import make_schedule
from lrexp.plan.variant import VariantPlan, divergence_stop
from lrexp.race import Entrant
from lrexp.schedules import Controller, Schedule

SAMPLES = 16  # of the whole schedule, that one step of a short one is the mean of


def race_task(variant: VariantPlan, config: Config, entrant: Entrant, seed: int) -> Task:
    """Return the short training of one LR: same weights, same batches, the schedule compressed.

    Raises:
        ConfigError: the config's schedule cannot have this LR as its base.
    """
    horizon = entrant.horizon
    whole = make_schedule(_with_lr(variant.settings, entrant.lr), variant.clock, config)
    return replace(
        variant.task(seed),
        trial=TrialId(entrant.name, seed),
        schedule=shortened(whole, variant.total_steps, horizon),
        total_steps=horizon,
        eval_every=horizon,
        stop=divergence_stop(horizon),
    )


def can_have(variant: VariantPlan, config: Config, lr: float) -> bool:
    """Return whether the config's schedule can have this LR as its base: `min_lr` may forbid it."""
    try:
        make_schedule(_with_lr(variant.settings, lr), variant.clock, config)
    except ConfigError:
        return False
    return True


def shortened(
    schedule: Schedule | Controller, total_steps: int, horizon: int
) -> Schedule | Controller:
    """Return a schedule of `total_steps` compressed to `horizon` steps.

    `lr(i)` is the mean of the whole schedule over the i-th of `horizon` equal stretches: a peak, a
    short warmup or a step that lies between two samples is not lost. A controller follows the loss
    and stays as it is.

    Example:
        >>> shortened(Schedule(lambda step: float(step)), 100, 4)(1)
        37.0
    """
    if not isinstance(schedule, Schedule) or horizon >= total_steps:
        return schedule
    momentum = schedule.momentum
    return Schedule(
        _compressed(schedule.lr, total_steps, horizon),
        None if momentum is None else _compressed(momentum, total_steps, horizon),
    )


def _compressed(
    values: Callable[[int], float], total_steps: int, horizon: int
) -> Callable[[int], float]:
    ends = np.linspace(0, total_steps, horizon + 1)
    found = []
    for low, high in pairwise(ends):
        first, last = round(low), max(round(low), round(high) - 1)
        steps = np.unique(np.linspace(first, last, SAMPLES).round().astype(int))
        found.append(float(np.mean([values(int(step)) for step in steps])))
    return lambda step: found[min(step, horizon - 1)]


def _with_lr(settings: ExperimentConfig, lr: float) -> ExperimentConfig:
    optimizer = settings.optimizer.model_copy(update={"lr": lr})
    return settings.model_copy(update={"optimizer": optimizer})
