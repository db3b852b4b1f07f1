"""lrexp's race without its files and pictures, which would take longer than these trainings.

What is trained next, the trainings and the answer are lrexp's own; range tests are those that the
rules are read off.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from accuracy.answer import Answer
from accuracy.grid import Array, Cell
from accuracy.training import (
    SCHEDULES,
    config_of,
    objects_of,
    outcomes,
)
from accuracy.workloads import Workload
from lrexp.analysis.race import Course, Raced, Rung, next_rung, race_start, verdict
from lrexp.analysis.range_curve import Curve
from lrexp.analysis.signal import is_buried
from lrexp.analysis.suggest import Suggestion, suggest
from lrexp.config.config import Config
from lrexp.config.load import load_config
from lrexp.engine.rng import preserved_rng
from lrexp.records import Trial, TrialId
from lrexp.runs.plan import Plan, plan_one
from lrexp.runs.reader import RANGE_TEST
from lrexp.runs.trials import can_have, race_task


def looked_at(
    group: Sequence[Curve], control: Sequence[Array], rule: str, mean_frac: float
) -> tuple[Suggestion, int]:
    """Return what range tests suggest, and the steps made, with those of a second look."""
    steps = sum(len(curve.lr) for curve in group)
    if not is_buried(group):
        return suggest(group, rule, mean_frac), steps
    return suggest(group, rule, mean_frac, control), 2 * steps


def race(
    cell: Cell,
    groups: Sequence[Sequence[Curve]],
    control: Sequence[Sequence[Array]],
    seeds: Sequence[int],
) -> list[Answer]:
    """Return what races at the default budget answer, one for each group of range tests."""
    plan = planned(cell.work, cell.optimizer, cell.schedule)
    return [_race(plan, *each) for each in zip(groups, control, seeds, strict=True)]


@cache
def mean_frac(work: Workload, schedule: str) -> float:
    """Return the mean of a schedule as a share of its peak."""
    return planned(work, "SGD", schedule).variants[RANGE_TEST].mean_frac


def planned(work: Workload, optimizer: str, schedule: str) -> Plan:
    """Return the plan that `lrexp find-lr` would make of a cell."""
    objects = objects_of(work)
    tree = config_of(work, optimizer, {"only": {}}) | {"schedule": SCHEDULES[schedule]}
    return plan_one(load_config(tree, given=objects.sections), objects, RANGE_TEST)


def _race(plan: Plan, group: Sequence[Curve], control: Sequence[Array], seed: int) -> Answer:
    variant = plan.variants[RANGE_TEST]
    found, tested = looked_at(group, control, "auto", variant.mean_frac)
    begin = race_start(group, found)
    if begin is None:
        return Answer(None, tested, found.reason or "")
    course = Course(
        start_lr=begin.lr,
        least_gain=begin.least_gain,
        total_steps=variant.total_steps,
        budget=plan.config.experiment.find_lr.budget,
        seed=seed,
        can_have=lambda lr: can_have(variant, plan.config, lr),
    )
    done: list[Raced] = []
    while (rung := next_rung(course, done)) is not None:
        done.append(_train(plan, plan.config, rung))
    answer = verdict(course, done)
    steps = tested + sum(raced.rung.steps for raced in done)
    return Answer(answer.lr, steps, answer.reason or "")


def _train(plan: Plan, config: Config, rung: Rung) -> Raced:
    variant, lrs = plan.variants[RANGE_TEST], rung.lrs * len(rung.seeds)
    with preserved_rng(plan.device):
        trials = [
            Trial(TrialId(*trial), "race", rung.horizon, lr)
            for trial, lr in zip(rung.trials, lrs, strict=True)
        ]
        tasks = (race_task(variant, config, trial) for trial in trials)
        found = list(outcomes(tasks, "sequential").values())
    shape = len(rung.seeds), len(rung.lrs)
    start = np.array([outcome.val[0] for outcome in found]).reshape(shape)
    losses = np.array([outcome.val[1] for outcome in found]).reshape(shape).T
    begin = tuple(float(value) for value in np.median(start, axis=1))
    return Raced(rung, begin, tuple(tuple(map(float, row)) for row in losses))
