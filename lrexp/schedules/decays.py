"""Schedules that go from the peak η to the floor m: functions of r = (s−W)/(T−W), or of milestones.

All take `lr` (η > 0) and `total_steps` (T >= 1) and, by keyword, `warmup` (W < T steps),
`warmup_start` (see `schedule.py`) and the floor: `min_lr` (0 <= m <= η) or `final_div_factor`
(m = η / factor, at least 1; it wins over `min_lr`, which may then be None). After T they hold the
value of s = T. All raise `ConfigError` with every number that is out of range. `inverse_sqrt` and
`wsd` suit trainings that may be prolonged: their shape does not hang on T. Milestones count from
the start of training, warmup included.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from lrexp.errors import NOTHING, Problem
from lrexp.schedules import checks
from lrexp.schedules.schedule import Schedule, Steps, blend, progress, warmed


def constant(
    lr: float,
    total_steps: int,
    *,
    warmup: Steps = 0,
    warmup_start: float | None = None,
    min_lr: float | None = 0.0,
) -> Schedule:
    """The peak, after the warmup: `lr = η`.

    A floor is checked and never reached; it is accepted so that one set of parameters can serve
    several schedules.

    Example:
        >>> [constant(0.5, 10, warmup=2)(s) for s in range(4)]
        [0.25, 0.5, 0.5, 0.5]
    """
    return _decay(
        lambda r: 1.0,
        lr,
        total_steps,
        warmup=warmup,
        warmup_start=warmup_start,
        min_lr=min_lr,
        final_div_factor=None,
    )


def cosine(
    lr: float,
    total_steps: int,
    *,
    warmup: Steps = 0,
    warmup_start: float | None = None,
    min_lr: float | None = 0.0,
    final_div_factor: float | None = None,
) -> Schedule:
    """Half a cosine: `lr = m + (η−m)·½(1 + cos πr)`. It stays at m after T and never rises again.

    Example:
        >>> [round(cosine(1.0, 4)(s), 3) for s in range(6)]
        [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]

    Source: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983
    """
    return _decay(
        half_cosine,
        lr,
        total_steps,
        warmup=warmup,
        warmup_start=warmup_start,
        min_lr=min_lr,
        final_div_factor=final_div_factor,
    )


def linear(
    lr: float,
    total_steps: int,
    *,
    warmup: Steps = 0,
    warmup_start: float | None = None,
    min_lr: float | None = 0.0,
    final_div_factor: float | None = None,
) -> Schedule:
    """A straight line: `lr = m + (η−m)(1−r)`.

    Example:
        >>> [linear(1.0, 4)(s) for s in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    return _decay(
        lambda r: 1 - r,
        lr,
        total_steps,
        warmup=warmup,
        warmup_start=warmup_start,
        min_lr=min_lr,
        final_div_factor=final_div_factor,
    )


def exponential(
    lr: float,
    total_steps: int,
    *,
    gamma: float | None = None,
    warmup: Steps = 0,
    warmup_start: float | None = None,
    min_lr: float | None = 0.0,
    final_div_factor: float | None = None,
) -> Schedule:
    """`lr = m + (η−m)·e^(−3r)`, then m from T on; with `gamma`, `lr = max(m, η·γ^(s−W))`.

    Args:
        gamma: factor per step in (0, 1]; counted from the end of the warmup, where the LR is η.

    Example:
        >>> [round(exponential(1.0, 4)(s), 3) for s in range(5)]
        [1.0, 0.472, 0.223, 0.105, 0.0]
        >>> [exponential(1.0, 100, gamma=0.5)(s) for s in range(3)]
        [1.0, 0.5, 0.25]
    """
    if gamma is None:
        # e^(−3) is not the floor; the fall to m at T is part of the formula.
        return _decay(
            lambda r: math.exp(-3 * r) if r < 1 else 0.0,
            lr,
            total_steps,
            warmup=warmup,
            warmup_start=warmup_start,
            min_lr=min_lr,
            final_div_factor=final_div_factor,
        )
    checks.require(
        *checks.span(lr, total_steps, warmup, warmup_start),
        checks.floor(lr, min_lr, final_div_factor),
        checks.inside("gamma", gamma, 0, 1, closed="]"),
    )
    low = checks.floor_of(lr, min_lr, final_div_factor)

    def after(step: int) -> float:
        return max(low, lr * gamma ** (min(step, total_steps) - warmup))

    return Schedule(warmed(lr, warmup, warmup_start, after))


def polynomial(
    lr: float,
    total_steps: int,
    *,
    power: float = 1.0,
    warmup: Steps = 0,
    warmup_start: float | None = None,
    min_lr: float | None = 0.0,
    final_div_factor: float | None = None,
) -> Schedule:
    """`lr = m + (η−m)(1−r)^power`.

    Args:
        power: above 0; 1 is linear (the default of PyTorch and Hugging Face), 2 spends more of the
            training at small LRs, 0.9 is usual in segmentation.

    Example:
        >>> [polynomial(1.0, 4, power=2)(s) for s in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """
    return _decay(
        lambda r: (1 - r) ** power,
        lr,
        total_steps,
        warmup=warmup,
        warmup_start=warmup_start,
        min_lr=min_lr,
        final_div_factor=final_div_factor,
        rules=[checks.positive("power", power)],
    )


def rex(
    lr: float,
    total_steps: int,
    *,
    beta: float = 0.5,
    warmup: Steps = 0,
    warmup_start: float | None = None,
    min_lr: float | None = 0.0,
    final_div_factor: float | None = None,
) -> Schedule:
    """`lr = m + (η−m)·(1−r)/(1−βr)`: high for long, steep at the end.

    Args:
        beta: in [0, 1); 0 is linear, towards 1 the LR stays high longer.

    Example:
        >>> [round(rex(1.0, 4)(s), 3) for s in range(5)]
        [1.0, 0.857, 0.667, 0.4, 0.0]

    Source: Chen et al., REX, https://arxiv.org/abs/2107.04197
    """
    return _decay(
        lambda r: (1 - r) / (1 - beta * r),
        lr,
        total_steps,
        warmup=warmup,
        warmup_start=warmup_start,
        min_lr=min_lr,
        final_div_factor=final_div_factor,
        rules=[checks.inside("beta", beta, 0, 1, closed="[")],
    )


def half_cosine(x: float) -> float:
    """Return ½(1 + cos πx): 1 at x = 0, 0 at x = 1."""
    return 0.5 * (1 + math.cos(math.pi * x))


def _decay(
    shape: Callable[[float], float],
    lr: float,
    total_steps: int,
    *,
    warmup: int,
    warmup_start: float | None,
    min_lr: float | None,
    final_div_factor: float | None,
    rules: Sequence[Problem | None] = (),
) -> Schedule:
    """Return warmup, then `m + (η−m)·shape(r)`, once every rule holds."""
    checks.require(
        *checks.span(lr, total_steps, warmup, warmup_start),
        checks.floor(lr, min_lr, final_div_factor),
        *rules,
    )
    low = checks.floor_of(lr, min_lr, final_div_factor)

    def after(step: int) -> float:
        return blend(low, lr, shape(progress(step, warmup, total_steps)))

    return Schedule(warmed(lr, warmup, warmup_start, after))


DecayType = Literal["linear", "cosine", "1-sqrt"]


def inverse_sqrt(
    lr: float,
    total_steps: int,
    *,
    timescale: Steps | None = None,
    warmup: Steps = 0,
    warmup_start: float | None = None,
    min_lr: float | None = 0.0,
    final_div_factor: float | None = None,
) -> Schedule:
    """`lr = max(m, η/√((s+τ−W)/τ))`.

    Args:
        timescale: τ >= 1 steps; W where there is a warmup, else 10000.

    Example:
        >>> [round(inverse_sqrt(10.0, 10, warmup=2, warmup_start=0)(s), 3) for s in range(4)]
        [0.0, 5.0, 10.0, 8.165]

    Source: Vaswani et al., https://arxiv.org/abs/1706.03762; Zhai et al.,
    https://arxiv.org/abs/2106.04560; the default of τ as in Hugging Face transformers.
    """
    checks.require(
        *checks.span(lr, total_steps, warmup, warmup_start),
        checks.floor(lr, min_lr, final_div_factor),
        None if timescale is None else checks.at_least("timescale", timescale, 1, "steps"),
    )
    tau = timescale or warmup or 10_000
    low = checks.floor_of(lr, min_lr, final_div_factor)

    def after(step: int) -> float:
        return max(low, lr / math.sqrt((min(step, total_steps) + tau - warmup) / tau))

    return Schedule(warmed(lr, warmup, warmup_start, after))


def wsd(
    lr: float,
    total_steps: int,
    *,
    decay: Steps | None = None,
    decay_type: DecayType = "linear",
    warmup: Steps = 0,
    warmup_start: float | None = None,
    min_lr: float | None = 0.0,
    final_div_factor: float | None = None,
) -> Schedule:
    """Warmup, stable, decay: η until the last `decay` steps, which go to m.

    With x = (s − (T−decay))/decay in the decay: linear `1−x`, cosine `½(1 + cos πx)`, 1-sqrt
    `1−√x`.

    Args:
        decay: 1 <= decay <= T − W steps; a fifth of the steps after the warmup by default.

    Example:
        >>> [wsd(1.0, 6, decay=2)(s) for s in range(7)]
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0]

    Source: Hu et al., MiniCPM, https://arxiv.org/abs/2404.06395; 1-sqrt and the length of the decay
    from Hägele et al., https://arxiv.org/abs/2405.18392
    """
    rules = (
        *checks.span(lr, total_steps, warmup, warmup_start),
        checks.floor(lr, min_lr, final_div_factor),
        checks.one_of("decay_type", decay_type, get_args(DecayType)),
        None if decay is None else checks.at_least("decay", decay, 1, "steps"),
    )
    checks.require(*rules)
    steps = decay or max(1, (total_steps - warmup) // 5)
    checks.require(_fits(steps, total_steps - warmup))
    shape = {"linear": lambda x: 1 - x, "cosine": half_cosine, "1-sqrt": _one_minus_sqrt}
    low, fall = checks.floor_of(lr, min_lr, final_div_factor), shape[decay_type]

    def after(step: int) -> float:
        x = progress(max(step, total_steps - steps), total_steps - steps, total_steps)
        return blend(low, lr, fall(x))

    return Schedule(warmed(lr, warmup, warmup_start, after))


def _one_minus_sqrt(x: float) -> float:
    return 1 - math.sqrt(x)


def _fits(decay: int, room: int) -> Problem | None:
    if decay <= room:
        return None
    rule = f"must fit into the {room} steps after the warmup"
    return Problem("decay", rule, decay, "Shorten decay or warmup, or train longer.")


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
