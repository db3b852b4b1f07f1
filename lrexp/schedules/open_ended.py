"""Schedules whose shape does not hang on the horizon: for trainings that may be prolonged.

`inverse_sqrt` never needs T; `wsd` needs it only for its last stretch, so that one long stable run
can feed many decays. Arguments, floor and errors as in `decays.py`.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from lrexp.errors import Problem
from lrexp.schedules import checks
from lrexp.schedules.decays import half_cosine
from lrexp.schedules.schedule import Schedule, Steps
from lrexp.schedules.warmup import blend, progress, warmed

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
