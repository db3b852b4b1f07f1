"""A range test as a trial: the config's own task, with a ramp as its schedule and its own end."""

from __future__ import annotations

from dataclasses import replace

from lrexp.engine import Task, loss_floor
from lrexp.finder import RangeTestStop, ramp
from lrexp.plan.variant import VariantPlan

RANGE_TEST = "range_test"  # the variant name of a range test's trials


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
