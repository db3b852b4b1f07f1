"""What anybody can do without a finder: train a few LRs for a short time, take the best.

The schedule is scaled to the short trainings, and the validation loss at their end decides. The
LRs are one or two a decade around the usual ones of the optimizer, the same for every workload.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from accuracy.answer import Answer
from accuracy.grid import Cell
from accuracy.training import MIDDLE, plan_of, train, variant_of
from lrexp.records import TrialId

SHORT_LRS, SHORT_STEPS = 6, 50  # 300 updates, as lrexp's range test at its defaults
BUDGET_LRS = 8


def short_grid(cell: Cell, seeds: Sequence[int]) -> list[Answer]:
    """Return the best of one LR a decade after 50 updates, for each seed."""
    return _best(cell, seeds, SHORT_LRS, SHORT_STEPS, 1.0)


def budget_grid(cell: Cell, seeds: Sequence[int]) -> list[Answer]:
    """Return the best of two LRs a decade; all of them together cost one full training."""
    return _best(cell, seeds, BUDGET_LRS, max(1, cell.work.steps // BUDGET_LRS), 0.5)


def _best(cell: Cell, seeds: Sequence[int], number: int, steps: int, apart: float) -> list[Answer]:
    middle, half = MIDDLE[cell.optimizer], apart * (number - 1) / 2
    lrs = np.logspace(middle - half, middle + half, number)
    variants = {f"lr-{i}": variant_of(cell.schedule, float(lr)) for i, lr in enumerate(lrs)}
    begun = time.perf_counter()
    found = train(plan_of(cell.work, cell.optimizer, variants, steps), seeds, cell.work.engine)
    seconds = (time.perf_counter() - begun) / len(seeds)
    answers = []
    for seed in seeds:
        after = [found[TrialId(name, seed)].val[1] for name in variants]
        cost = sum(len(found[TrialId(name, seed)].losses) for name in variants)
        lr = float(lrs[int(np.argmin(after))]) if min(after) < math.inf else None
        answers.append(Answer(lr, cost, "" if lr else "every LR diverged", seconds))
    return answers
