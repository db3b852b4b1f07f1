"""Schedules that change at steps of the calendar: `step` and `multi_step`.

Arguments and errors as in `decays.py`. Steps count from the start of training, warmup included; a
milestone inside the warmup takes effect when the warmup ends.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from lrexp.errors import NOTHING, Problem
from lrexp.schedules import checks
from lrexp.schedules.schedule import Schedule, Steps
from lrexp.schedules.warmup import warmed


def step(
    lr: float,
    total_steps: int,
    *,
    size: Steps,
    gamma: float = 0.1,
    warmup: Steps = 0,
    warmup_start: float | None = None,
    min_lr: float | None = 0.0,
    final_div_factor: float | None = None,
) -> Schedule:
    """A drop every `size` steps: `lr = max(m, η·γ^⌊s/size⌋)`.

    Args:
        size: at least 1 step.
        gamma: in (0, 1].

    Example:
        >>> [step(1.0, 6, size=2, gamma=0.5)(s) for s in range(6)]
        [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    checks.require(
        *checks.span(lr, total_steps, warmup, warmup_start),
        checks.floor(lr, min_lr, final_div_factor),
        checks.at_least("size", size, 1, "step"),
        checks.inside("gamma", gamma, 0, 1, closed="]"),
    )
    low = checks.floor_of(lr, min_lr, final_div_factor)

    def after(now: int) -> float:
        return max(low, lr * gamma ** (min(now, total_steps) // size))

    return Schedule(warmed(lr, warmup, warmup_start, after))


def multi_step(
    lr: float,
    total_steps: int,
    *,
    milestones: list[Steps],
    factors: list[float] | None = None,
    gamma: float | None = None,
    warmup: Steps = 0,
    warmup_start: float | None = None,
    min_lr: float | None = 0.0,
    final_div_factor: float | None = None,
) -> Schedule:
    """From milestone i on, `lr = η·factors[i]` (absolute), or `η·γ^(i+1)` (cumulative).

    The LR is never below m, in the warmup neither. A milestone of 0 holds from the first step, one
    after T is never reached, and of two equal ones the later factor counts (γ counts twice).

    Args:
        milestones: steps in order, at least one, each at least 0.
        factors: one per milestone, finite and at least 0, relative to η.
        gamma: instead of factors, in (0, 1]; 0.1 where neither is given.

    Example:
        >>> s = multi_step(1.0, 6, milestones=[2, 4], factors=[0.5, 0.1])
        >>> [s(i) for i in range(6)]
        [1.0, 1.0, 0.5, 0.5, 0.1, 0.1]
    """
    checks.require(
        *checks.span(lr, total_steps, warmup, warmup_start),
        checks.floor(lr, min_lr, final_div_factor),
        *_milestone_problems(milestones),
        *_factor_problems(milestones, factors, gamma),
    )
    low, starts = checks.floor_of(lr, min_lr, final_div_factor), list(milestones)
    if factors is None:
        rate = 0.1 if gamma is None else gamma
        values = [rate**count for count in range(len(starts) + 1)]
    else:
        values = [1.0, *factors]
    lrs = [max(low, lr * value) for value in values]

    def after(now: int) -> float:
        return lrs[bisect_right(starts, min(now, total_steps))]

    warm = warmed(lr, warmup, warmup_start, after)
    return Schedule(lambda now: max(low, warm(now)))


def _milestone_problems(milestones: object) -> list[Problem | None]:
    remedy = "List the steps at which the LR changes."
    if not isinstance(milestones, Sequence) or isinstance(milestones, str) or not milestones:
        return [
            Problem("milestones", "must be a list with a milestone or more", milestones, remedy)
        ]
    wrong = [
        checks.at_least(f"milestones[{i}]", milestone, 0) for i, milestone in enumerate(milestones)
    ]
    if not any(wrong) and sorted(milestones) != list(milestones):
        rule = "must be sorted"
        wrong.append(Problem("milestones", rule, list(milestones), "List them in order."))
    return wrong


def _factor_problems(milestones: object, factors: object, gamma: object) -> list[Problem | None]:
    if factors is None:
        return [None if gamma is None else checks.inside("gamma", gamma, 0, 1, closed="]")]
    if gamma is not None:
        remedy = "Give factors (relative to the peak) or gamma (relative to the last)."
        return [Problem("gamma", "cannot be given beside factors", gamma, remedy)]
    if not isinstance(factors, Sequence) or isinstance(factors, str):
        return [Problem("factors", "must be a list", factors, "Give one number per milestone.")]
    wrong = [
        checks.between(f"factors[{i}]", factor, 0, math.inf) for i, factor in enumerate(factors)
    ]
    if isinstance(milestones, Sequence) and len(factors) != len(milestones):
        rule = f"must have one factor per milestone ({len(milestones)}), has {len(factors)}"
        wrong.append(Problem("factors", rule, NOTHING, "Give as many factors as milestones."))
    return wrong
