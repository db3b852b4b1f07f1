"""Schedules that go from the peak η to the floor m once: functions of r = (s−W)/(T−W).

All take `lr` (η > 0) and `total_steps` (T >= 1) and, by keyword, `warmup` (W < T steps),
`warmup_start` (see `warmup.py`) and the floor: `min_lr` (0 <= m <= η) or `final_div_factor`
(m = η / factor, at least 1; it wins over `min_lr`, which may then be None). After T they hold the
value of s = T. All raise `ConfigError` with every number that is out of range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lrexp.errors import Problem
from lrexp.schedules import checks
from lrexp.schedules.schedule import Schedule, Steps
from lrexp.schedules.warmup import blend, progress, warmed


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
