"""Schedules that rise again: `cosine_restarts`, `cyclic` and the 1cycle policy.

Arguments and errors as in `decays.py`. Cycles count from the end of the warmup, which leads to the
LR they start from, so that the LR does not jump there.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from lrexp.errors import Problem
from lrexp.schedules.decays import Curve, Span, decay, half_cosine
from lrexp.schedules.schedule import (
    Schedule,
    StepOrMore,
    Steps,
    at_most,
    blend,
    register,
    warmed,
)
from lrexp.schedules.signatures import (
    Count,
    Decay,
    Fraction,
    OneOrMore,
    Positive,
    Share,
    require,
)

CyclicMode = Literal["triangular", "triangular2", "exp_range"]


@decay("cosine_restarts")
def cosine_restarts(
    span: Span,
    *,
    cycle: StepOrMore,
    cycle_mult: Positive = 1.0,
    cycle_decay: Decay = 1.0,
    cycle_limit: Count | None = None,
) -> Curve:
    """A cosine per cycle, each starting from the peak again.

    In cycle i, x of the way through it: `lr = m + (p−m)·½(1 + cos πx)` with the peak
    `p = max(m, η·cycle_decay^i)`. Where T is the end of a cycle, the LR held after T is m: the
    restart that would follow belongs to no training.

    Args:
        cycle: length of the first cycle, at least 1 step.
        cycle_mult: length of each cycle relative to the last; below 1 cycles shorten, and one that
            would be shorter than a step is not begun: the LR stays at m.
        cycle_decay: peak of each cycle relative to the last, in (0, 1].
        cycle_limit: number of cycles, after which the LR stays at m; as many as fit by default.

    Example:
        >>> [round(cosine_restarts(1.0, 4, cycle=2, cycle_decay=0.5)(s), 3) for s in range(5)]
        [1.0, 0.5, 0.5, 0.25, 0.0]

    Source: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983
    """
    limit = cycle_limit or math.inf
    place = _cycles(cycle, cycle_mult, span.total_steps - span.warmup, limit)

    def lr(step: int) -> float:
        index, x = place(step - span.warmup)
        return blend(span.low, max(span.low, span.peak * cycle_decay**index), half_cosine(x))

    return lr


@register("cyclic")
def cyclic(
    lr: Positive,
    total_steps: Count,
    *,
    base_lr: Positive | None = None,
    step_size_up: StepOrMore | None = None,
    step_size_down: StepOrMore | None = None,
    mode: CyclicMode = "triangular",
    gamma: Decay = 1.0,
    cycle_momentum: bool = False,
    base_momentum: Fraction = 0.8,
    max_momentum: Fraction = 0.9,
    warmup: Steps = 0,
    warmup_start: Share | None = None,
) -> Schedule:
    """Triangles between `base_lr` and η, as torch's CyclicLR with max_lr = η.

    `lr = base_lr + (η−base_lr)·t·scale`, where t rises 0 → 1 in `step_size_up` steps and falls back
    in `step_size_down`; scale is 1 (triangular), ½^cycle (triangular2) or γ^(s−W) (exp_range).
    A warmup leads to `base_lr`, from which the first cycle rises.

    Args:
        base_lr: in (0, η]; η/10 by default.
        step_size_up: at least 1; an eighth of the steps after the warmup by default, which makes
            four cycles (torch's fixed 2000 steps may be longer than the training).
        step_size_down: as `step_size_up` by default.
        gamma: in (0, 1], for exp_range only.
        cycle_momentum: whether momentum goes from `max_momentum` to `base_momentum` and back while
            the LR does the contrary.

    Example:
        >>> s = cyclic(1.0, 8, base_lr=0.5, step_size_up=2)
        >>> [s(i) for i in range(6)]
        [0.5, 0.75, 1.0, 0.75, 0.5, 0.75]

    Source: Smith, https://arxiv.org/abs/1506.01186; torch.optim.lr_scheduler.CyclicLR
    """
    low = lr / 10 if base_lr is None else base_lr
    require(*at_most("base_lr", low, lr, "the peak LR"))
    up = step_size_up or max(1, (total_steps - warmup) // 8)
    height = _triangles(up, step_size_down or up, mode, gamma)

    def after(step: int) -> float:
        return blend(low, lr, height(min(step, total_steps) - warmup))

    def momentum(step: int) -> float:
        x = height(max(0, min(step, total_steps) - warmup))
        return max_momentum - (max_momentum - base_momentum) * x

    return Schedule(warmed(low, warmup, warmup_start, after), momentum if cycle_momentum else None)


def _cycles(
    length: int, mult: float, span: int, limit: float
) -> Callable[[int], tuple[int, float]]:
    """Return step -> (index of its cycle, part of it done in [0, 1]), for 0 <= step <= span."""
    if mult == 1:  # by division: a list of ends could be as long as the training

        def equal(step: int) -> tuple[int, float]:
            index, done = divmod(step, length)
            if index >= limit:
                return int(limit) - 1, 1.0
            return (index - 1, 1.0) if step == span and done == 0 else (index, done / length)

        return equal

    ends, following = [float(length)], length * mult
    while ends[-1] < span and len(ends) < limit and following >= 1:
        ends.append(ends[-1] + following)
        following = length * mult ** len(ends)

    def unequal(step: int) -> tuple[int, float]:
        # at the horizon the cycle that ends there, not the one that would start
        index = bisect_right(ends, step if step < span else span - 0.5)
        if index == len(ends):
            return index - 1, 1.0
        start = ends[index - 1] if index else 0.0
        return index, min(1.0, (step - start) / (ends[index] - start))

    return unequal


def _triangles(up: int, down: int, mode: str, gamma: float) -> Callable[[int], float]:
    """Return step -> height in [0, 1], the arithmetic of torch's CyclicLR."""
    period, ratio = up + down, up / (up + down)
    scales: dict[str, Callable[[int, int], float]] = {
        "triangular": lambda cycle, step: 1.0,
        "triangular2": lambda cycle, step: 0.5**cycle,
        "exp_range": lambda cycle, step: gamma**step,
    }
    scale = scales[mode]

    def height(step: int) -> float:
        cycle = step // period
        x = step / period - cycle
        return (x / ratio if x <= ratio else (1 - x) / (1 - ratio)) * scale(cycle, step)

    return height


AnnealStrategy = Literal["cos", "linear"]


@register("one_cycle")
def one_cycle(
    lr: Positive,
    total_steps: Count,
    *,
    pct_start: Share = 0.3,
    anneal_strategy: AnnealStrategy = "cos",
    cycle_momentum: bool = True,
    base_momentum: Fraction = 0.85,
    max_momentum: Fraction = 0.95,
    div_factor: OneOrMore = 25.0,
    final_div_factor: Positive = 1e4,
    three_phase: bool = False,
    warmup: Steps = 0,
    warmup_start: Share | None = None,
) -> Schedule:
    """Up from η/div_factor to η, then down to η/(div_factor·final_div_factor).

    As torch's OneCycleLR with max_lr = η over the N = T − W steps after the warmup: the peak lies
    at step pct_start·N − 1, the end at N − 1; the momentum mirrors the LR between `max_momentum`
    and `base_momentum`. The last value is held afterwards. It needs no warmup; one that is given
    leads to η/div_factor, from which the cycle rises.

    Args:
        pct_start: part of the steps spent rising, in [0, 1]; at most 0.5 with `three_phase`.
        anneal_strategy: cos or linear.
        div_factor: at least 1.
        final_div_factor: relative to the first LR (not to η as elsewhere); at least 1/div_factor,
            for the end to lie below the peak.
        three_phase: fall back to η/div_factor as slowly as it rose, then to the end.

    Example:
        >>> [round(one_cycle(1.0, 10, anneal_strategy="linear")(s), 2) for s in (0, 2, 9, 99)]
        [0.04, 1.0, 0.0, 0.0]

    Source: Smith and Topin, https://arxiv.org/abs/1708.07120; torch.optim.lr_scheduler.OneCycleLR
    """
    require(*_one_cycle_problems(pct_start, three_phase, div_factor, final_div_factor))
    num_steps, start = total_steps - warmup, lr / div_factor
    ends = [0, pct_start * num_steps - 1, num_steps - 1]
    lrs = [start, lr, start / final_div_factor]
    momenta = [max_momentum, base_momentum, max_momentum, max_momentum]
    if three_phase:
        ends.insert(2, 2 * pct_start * num_steps - 2)
        lrs.insert(2, start)
    anneal = _cos if anneal_strategy == "cos" else blend
    curve = _through(ends, lrs, anneal)
    mirrored = _through(ends, momenta, anneal)

    def after(step: int) -> float:
        return curve(min(step - warmup, num_steps - 1))

    def momentum(step: int) -> float:
        return mirrored(min(max(0, step - warmup), num_steps - 1))

    return Schedule(
        warmed(start, warmup, warmup_start, after), momentum if cycle_momentum else None
    )


def _through(
    ends: Sequence[float], values: Sequence[float], anneal: Callable[[float, float, float], float]
) -> Callable[[int], float]:
    """Return step -> value between the values at the ends, which need not be whole steps."""

    def value(step: int) -> float:
        index = next((i for i, end in enumerate(ends) if i and step <= end), len(ends) - 1)
        begin, length = ends[index - 1], ends[index] - ends[index - 1]
        # torch divides by zero where the rise is a single step; that step is the peak
        done = (step - begin) / length if length else 1.0
        source, target = values[index - 1], values[index]
        if source <= target:
            return anneal(source, target, done)
        return anneal(target, source, 1 - done)

    return value


def _cos(low: float, high: float, x: float) -> float:
    return blend(low, high, half_cosine(1 - x))


def _one_cycle_problems(
    pct_start: float, three_phase: bool, div_factor: float, final_div_factor: float
) -> Iterator[Problem]:
    if three_phase and pct_start > 0.5:
        what, remedy = "must be a number in [0, 0.5] with three_phase", "Lower it."
        yield Problem("pct_start", what, pct_start, remedy)
    if final_div_factor < 1 / div_factor:
        what = f"must be at least {1 / div_factor:g} (1/div_factor)"
        yield Problem("final_div_factor", what, final_div_factor, "Raise it.")
