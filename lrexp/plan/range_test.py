"""A range test as a trial: the config's own task, with a ramp as its schedule and its own end."""

from __future__ import annotations

from dataclasses import replace

from lrexp.engine import Task, TrialId, loss_floor
from lrexp.finder import RangeTestStop, ramp
from lrexp.finder.trials import RANGE_TEST, UNTRAINED
from lrexp.plan.variant import VariantPlan
from lrexp.schedules import Schedule

__all__ = ["RANGE_TEST", "UNTRAINED", "range_test_task", "untrained_task"]

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
