"""The schedules of Hugging Face transformers and timm, by the names they have there.

Those that `decays.py`, `cycles.py` and `controllers.py` have already are second names; the others
take the arguments of that library. The warmup is the one that every schedule takes (`schedule.py`):
with `warmup_start: 0` it is theirs, η·s/W. `linear`, `cosine`, `polynomial`, `inverse_sqrt`,
`constant`, `step`, `plateau` and `wsd` need no second name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lrexp.errors import NOTHING, Problem
from lrexp.schedules.decays import SHAPES, Curve, DecayType, Span, decay, half_cosine
from lrexp.schedules.schedule import (
    Schedule,
    StepOrMore,
    Steps,
    alias,
    blend,
    floor_of,
    register,
    warmed,
)
from lrexp.schedules.signatures import Count, NonNegative, OneOrMore, Positive, Share, require

alias("constant_with_warmup", "constant")
alias("multistep", "multi_step")
alias("poly", "polynomial", power=0.5)
# with torch's defaults, which are those of the Trainer
alias("reduce_lr_on_plateau", "plateau", factor=0.1, patience=10, min_lr=0.0)


@decay("cosine_with_restarts")
def cosine_with_restarts(span: Span, *, num_cycles: Count = 1) -> Curve:
    """`num_cycles` cosines of equal length, each from the peak η to m; m from T on.

    `cosine_restarts` takes the length of a cycle instead, and its cycles may grow and shrink.

    Args:
        num_cycles: at least 1; they need not be whole steps long.

    Example:
        >>> [round(cosine_with_restarts(1.0, 4, num_cycles=2)(s), 3) for s in range(5)]
        [1.0, 0.5, 1.0, 0.5, 0.0]

    Source: transformers' get_cosine_with_hard_restarts_schedule_with_warmup
    """
    return span.fall(lambda r: half_cosine(num_cycles * r % 1.0) if r < 1 else 0.0)


@decay("cosine_with_min_lr")
def cosine_with_min_lr(
    span: Span, *, min_lr_rate: Share | None = None, num_cycles: Positive = 0.5
) -> Curve:
    """`cosine` with a floor that may be a share of the peak: m = η·min_lr_rate.

    Args:
        min_lr_rate: in [0, 1], instead of `min_lr`.
        num_cycles: waves of the cosine; half a wave falls once.

    Example:
        >>> [round(cosine_with_min_lr(2.0, 2, min_lr_rate=0.5)(s), 3) for s in range(3)]
        [2.0, 1.5, 1.0]

    Source: transformers' get_cosine_with_min_lr_schedule_with_warmup
    """
    low = _low(span.peak, span.low, min_lr_rate, "min_lr_rate")
    return replace(span, low=low).fall(lambda r: half_cosine(2 * num_cycles * r))


@register("cosine_warmup_with_min_lr")
def cosine_warmup_with_min_lr(
    lr: Positive,
    total_steps: Count,
    *,
    min_lr: NonNegative | None = 0.0,
    min_lr_rate: Share | None = None,
    final_div_factor: OneOrMore | None = None,
    warmup_lr_rate: Share | None = None,
    num_cycles: Positive = 0.5,
    warmup: Steps = 0,
    warmup_start: Share | None = None,
) -> Schedule:
    """As `cosine_with_min_lr`, a step ahead: r = (s−W+1)/(T−W), so that step T − 1 has m.

    Args:
        min_lr_rate: in [0, 1], instead of `min_lr`.
        warmup_lr_rate: f of a warmup `η·(f + (1−f)·s/(W−1))`, which reaches the peak in its last
            step; in place of `warmup_start`.
        num_cycles: waves of the cosine; half a wave falls once.

    Example:
        >>> [round(cosine_warmup_with_min_lr(1.0, 4, warmup=2)(s), 3) for s in range(5)]
        [0.5, 1.0, 0.5, 0.0, 0.0]

    Source: transformers' get_cosine_with_min_lr_schedule_with_warmup_lr_rate
    """
    require(*_start_problems(warmup_lr_rate, warmup_start))
    low = _low(lr, floor_of(lr, min_lr, final_div_factor), min_lr_rate, "min_lr_rate")

    def after(step: int) -> float:
        r = min(1.0, (step - warmup + 1) / (total_steps - warmup))
        return blend(low, lr, half_cosine(2 * num_cycles * r))

    if warmup_lr_rate is None or warmup < 2:
        start = warmup_lr_rate if warmup and warmup_lr_rate is not None else warmup_start
        return Schedule(warmed(lr, warmup, start, after))
    rising = warmed(lr, warmup - 1, warmup_lr_rate, lambda step: lr)
    return Schedule(lambda step: rising(step) if step < warmup else after(step))


@decay("warmup_stable_decay")
def warmup_stable_decay(
    span: Span,
    *,
    num_decay_steps: StepOrMore,
    num_stable_steps: Steps | None = None,
    decay_type: DecayType = "cosine",
    min_lr_ratio: Share | None = None,
) -> Curve:
    """`wsd` with Hugging Face's arguments: η, then a decay to m, then m.

    With `warmup_start` the same as `min_lr_ratio` the warmup is theirs too, for `warmup_type:
    linear`.

    Args:
        num_decay_steps: at least 1, after which the LR is m.
        num_stable_steps: steps at η after the warmup; by default all but those of the decay.
        min_lr_ratio: m as a share of the peak in [0, 1], instead of `min_lr`.

    Example:
        >>> args = {"num_stable_steps": 1, "num_decay_steps": 2, "decay_type": "linear"}
        >>> [warmup_stable_decay(1.0, 6, **args)(s) for s in range(6)]
        [1.0, 1.0, 0.5, 0.0, 0.0, 0.0]

    Source: transformers' get_wsd_schedule
    """
    room = span.total_steps - span.warmup
    stable = room - num_decay_steps if num_stable_steps is None else num_stable_steps
    if stable < 0 or stable + num_decay_steps > room:
        what = f"must fit into the {room} steps after the warmup, with those of num_stable_steps"
        remedy = "Shorten it, or train longer."
        require(Problem("num_decay_steps", what, num_decay_steps, remedy))
    begin = span.warmup + stable
    low = _low(span.peak, span.low, min_lr_ratio, "min_lr_ratio")
    ended = replace(span, low=low, total_steps=begin + num_decay_steps)
    return ended.fall(SHAPES[decay_type], begin)


def _low(peak: float, low: float, rate: float | None, key: str) -> float:
    """Return the floor, where it may be given as a share of the peak."""
    if rate is None:
        return low
    if low > 0:
        remedy = "Give one of the two."
        require(Problem(key, "cannot be given beside min_lr or final_div_factor", rate, remedy))
    return peak * rate


def _start_problems(rate: float | None, start: float | None) -> Iterator[Problem]:
    if rate is not None and start is not None:
        remedy = "Give one of the two."
        yield Problem("warmup_lr_rate", "cannot be given beside warmup_start", NOTHING, remedy)
