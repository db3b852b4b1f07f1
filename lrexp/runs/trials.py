"""Each kind of trial as a task: the config's own, with another schedule and its own end.

A range test has a ramp; a race's trial has the config's schedule on a short horizon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from lrexp.analysis.race import Entrant
from lrexp.analysis.stopping import RangeTestStop, ramp
from lrexp.config.config import Config
from lrexp.config.schema import ExperimentConfig
from lrexp.engine.task import Task
from lrexp.errors import ConfigError
from lrexp.records import TrialId
from lrexp.runs.lengths import make_schedule
from lrexp.runs.plan import VariantPlan, divergence_stop
from lrexp.runs.reader import UNTRAINED
from lrexp.schedules.schedule import Controller, Schedule
from lrexp.workloads.losses import loss_floor

NEVER = 1e9  # times the best loss: no batch is so much harder than another


def range_test_task(variant: VariantPlan, seed: int) -> Task:
    """Return the range test of one seed."""
    settings = variant.settings.find_lr
    task = variant.task(seed)
    return replace(
        task,
        schedule=ramp(settings.min_lr, settings.max_lr, settings.steps, settings.mode),
        total_steps=settings.steps,
        eval_every=0,
        stop=RangeTestStop(settings.stop_factor, loss_floor(task.loss)),
    )


def untrained_task(variant: VariantPlan, seed: int) -> Task:
    """Return the batches of a seed's range test once more, at an LR of 0."""
    task = range_test_task(variant, seed)
    return replace(
        task,
        trial=TrialId(UNTRAINED, seed),
        schedule=Schedule(lambda _: 0.0),
        stop=RangeTestStop(NEVER),
    )


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
