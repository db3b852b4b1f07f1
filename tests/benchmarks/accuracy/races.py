"""`find-lr` without its files and pictures, which would take longer than these trainings.

What is trained next, the trainings and the answer are lrexp's own; range tests are those that the
rules are read off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from accuracy.answer import Answer
from accuracy.grid import Array, Cell
from accuracy.training import (
    SCHEDULES,
    Outcome,
    config_of,
    objects_of,
    outcomes,
)
from accuracy.workloads import Workload
from lrexp.analysis.answer import verdict
from lrexp.analysis.race import Candidate, Raced, Rung, race_start
from lrexp.analysis.range_curve import Curve
from lrexp.analysis.search import Costs, next_rung
from lrexp.analysis.signal import is_buried
from lrexp.analysis.suggest import Suggestion, suggest
from lrexp.config.load import load_config
from lrexp.engine.rng import preserved_rng
from lrexp.records import TrialId
from lrexp.runs.measures import baselines
from lrexp.runs.plan import Plan, plan_one
from lrexp.runs.reader import RANGE_TEST
from lrexp.runs.searches import Means, costs_of, search_of
from lrexp.runs.stages import trials_of
from lrexp.runs.trials import race_task

DEFAULT_SECONDS = 20.0  # all of these trainings are shorter than ten times that


def looked_at(
    group: Sequence[Curve], control: Sequence[Array], rule: str, mean_frac: float
) -> tuple[Suggestion, int]:
    """Return what range tests suggest, and the steps made, with those of a second look."""
    steps = sum(len(curve.lr) for curve in group)
    if not is_buried(group):
        return suggest(group, rule, mean_frac), steps
    return suggest(group, rule, mean_frac, control), 2 * steps


def search(
    cell: Cell,
    groups: Sequence[Sequence[Curve]],
    control: Sequence[Sequence[Array]],
    seeds: Sequence[int],
    budget: str | None,
) -> list[Answer]:
    """Return what `find-lr` answers with this budget, one for each group of range tests."""
    plan = planned(cell.work, cell.optimizer, cell.schedule)
    costs = costs_of(plan) if budget is None else Costs({1: 1 / cell.work.steps})
    known = baselines(plan)[RANGE_TEST].get("val_loss")
    amount = DEFAULT_SECONDS if budget is None else float(budget.removesuffix("x"))
    means = Means(budget or "default", amount, costs, guess=known)
    each = zip(groups, control, seeds, strict=True)
    return [_search(plan, cell.work.engine, means, *given) for given in each]


@cache
def mean_frac(work: Workload, schedule: str) -> float:
    """Return the mean of a schedule as a share of its peak."""
    return planned(work, "SGD", schedule).variants[RANGE_TEST].mean_frac


def planned(work: Workload, optimizer: str, schedule: str) -> Plan:
    """Return the plan that `lrexp find-lr` would make of a cell."""
    objects = objects_of(work)
    tree = config_of(work, optimizer, {"only": {}}) | {"schedule": SCHEDULES[schedule]}
    return plan_one(load_config(tree, given=objects.sections), objects, RANGE_TEST)


def _search(
    plan: Plan,
    engine: str,
    means: Means,
    group: Sequence[Curve],
    control: Sequence[Array],
    seed: int,
) -> Answer:
    begun = time.perf_counter()
    found, tested = looked_at(group, control, "auto", plan.variants[RANGE_TEST].mean_frac)
    start = race_start(group, found)
    if start is None:
        return Answer(None, tested, found.reason or "")
    plan_search = replace(search_of(plan, start, means), seed=seed)
    asked: list[Rung] = []
    done: list[Raced] = []
    outcomes_of: dict[TrialId, Outcome] = {}
    while (rung := next_rung(plan_search, asked, done)) is not None:
        asked.append(rung)
        outcomes_of |= _train(plan, rung, engine)
        done = _came_to(asked, outcomes_of)
    answer = verdict(plan_search, done)
    return Answer(
        answer.lr,
        tested + sum(rung.steps for rung in asked),
        answer.reason or "",
        seconds=time.perf_counter() - begun,
        interval=answer.interval,
        within=answer.within,
    )


def _train(plan: Plan, rung: Rung, engine: str) -> dict[TrialId, Outcome]:
    variant = plan.variants[RANGE_TEST]
    with preserved_rng(plan.device):
        tasks = (race_task(variant, plan.config, trial) for trial in trials_of(rung))
        return outcomes(tasks, engine)


def _came_to(asked: Sequence[Rung], found: dict[TrialId, Outcome]) -> list[Raced]:
    """Return what all trainings came to, one for each horizon."""
    results = []
    for horizon in sorted({rung.horizon for rung in asked}):
        rungs = [rung for rung in asked if rung.horizon == horizon]
        lrs = tuple(sorted({lr for rung in rungs for lr in rung.lrs}))
        seeds = tuple(sorted({seed for rung in rungs for seed in rung.seeds}))
        rows = [[found.get(TrialId(Candidate(horizon, lr).name, s)) for s in seeds] for lr in lrs]
        losses = tuple(tuple(math.nan if o is None else o.val[1] for o in row) for row in rows)
        known = [[row[i] for row in rows if row[i] is not None] for i in range(len(seeds))]
        start = tuple(float(np.median([o.val[0] for o in column])) for column in known)
        results.append(Raced(Rung(horizon, lrs, seeds), start, losses))
    return results
