"""Schedules that go from the peak η to the floor m: functions of r = (s−W)/(T−W), or of milestones.

All take `lr` (η > 0) and `total_steps` (T >= 1) and, by keyword, `warmup` (W < T steps),
`warmup_start` (see `schedule.py`) and the floor: `min_lr` (0 <= m <= η) or `final_div_factor`
(m = η / factor, at least 1; it wins over `min_lr`, which may then be None). After T they hold the
value of s = T. Without `warmup_prefix`, timm's default, the curve begins at step 0 and the warmup
takes the place of its first W steps: r = s/T (timm's tanh warms up to the curve, not to η).
A shape that reaches 0 at r = 1 is blended to m (`fall`); one that does not is cut off there,
`max(m, ...)`. All raise `ConfigError` with every number that is out of range.
`inverse_sqrt` and `wsd` suit trainings that may be prolonged: their shape does not hang on T.
Milestones count from the start of training, warmup included.
"""

from __future__ import annotations

import inspect
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import update_wrapper
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Lt, MinLen
from pydantic import Field

from lrexp.errors import NOTHING, ConfigError, Problem
from lrexp.schedules.schedule import (
    Schedule,
    StepOrMore,
    Steps,
    blend,
    floor_of,
    progress,
    register,
    warmed,
)
from lrexp.schedules.signatures import (
    Count,
    Decay,
    Fraction,
    NonNegative,
    OneOrMore,
    Positive,
    Share,
    require,
)

Shape: TypeAlias = Callable[[float], float]  # r -> part of the way from m to η
Curve: TypeAlias = Callable[[int], float]  # step, from W to T -> LR


@dataclass(frozen=True)
class Span:
    """What a decay goes between: the peak η and the floor m, the steps W and T."""

    peak: float
    low: float
    warmup: int
    total_steps: int

    def fall(self, shape: Shape, begin: int | None = None) -> Curve:
        """Return `m + (η−m)·shape(r)`, r = 0 at `begin` (by default W) and 1 at T."""
        start = self.warmup if begin is None else begin

        def lr(step: int) -> float:
            return blend(self.low, self.peak, shape(progress(step, start, self.total_steps)))

        return lr


def decay(name: str) -> Callable[[Callable[..., Curve]], Callable[..., Schedule]]:
    """Return a decorator that registers (span, own arguments) -> curve as a schedule.

    The schedule's signature is the arguments that all decays take and the curve's own.
    """

    def decorate(curve: Callable[..., Curve]) -> Callable[..., Schedule]:
        def factory(
            lr: Positive,
            total_steps: Count,
            *,
            warmup: Steps = 0,
            warmup_start: Share | None = None,
            warmup_prefix: bool = True,
            min_lr: NonNegative | None = 0.0,
            final_div_factor: OneOrMore | None = None,
            **own: Any,
        ) -> Schedule:
            begin = warmup if warmup_prefix else 0
            span = Span(lr, floor_of(lr, min_lr, final_div_factor), begin, total_steps)
            after = curve(span, **own)
            return Schedule(warmed(lr, warmup, warmup_start, lambda s: after(min(s, total_steps))))

        *common, _ = inspect.signature(factory, eval_str=True).parameters.values()
        _, *own = inspect.signature(curve, eval_str=True).parameters.values()
        update_wrapper(factory, curve)
        factory.__signature__ = inspect.Signature([*common, *own])  # type: ignore[attr-defined]
        return register(name)(factory)

    return decorate


def half_cosine(x: float) -> float:
    """Return ½(1 + cos πx): 1 at x = 0, 0 at x = 1."""
    return 0.5 * (1 + math.cos(math.pi * x))


@register("constant")
def constant(
    lr: Positive,
    total_steps: Count,
    *,
    warmup: Steps = 0,
    warmup_start: Share | None = None,
    min_lr: NonNegative | None = 0.0,
) -> Schedule:
    """The peak, after the warmup: `lr = η`.

    A floor is checked and never reached; it is accepted so that one set of parameters can serve
    several schedules.

    Example:
        >>> [constant(0.5, 10, warmup=2)(s) for s in range(4)]
        [0.25, 0.5, 0.5, 0.5]
    """
    span = Span(lr, floor_of(lr, min_lr, None), warmup, total_steps)
    return Schedule(warmed(lr, warmup, warmup_start, span.fall(lambda r: 1.0)))


@decay("cosine")
def cosine(span: Span, *, num_cycles: Positive = 0.5, k_decay: Positive = 1.0) -> Curve:
    """Half a cosine: `lr = m + (η−m)·½(1 + cos πr)`. It stays at m after T and never rises again.

    Args:
        num_cycles: waves of the cosine, `r·2·num_cycles` for r, as in Hugging Face transformers;
            half a wave falls once, and the LR after T is that of T.
        k_decay: `r^k_decay` for r, as in timm; above 1 the LR stays high longer.

    Example:
        >>> [round(cosine(1.0, 4)(s), 3) for s in range(6)]
        [1.0, 0.854, 0.5, 0.146, 0.0, 0.0]

    Source: Loshchilov and Hutter, SGDR, https://arxiv.org/abs/1608.03983
    """
    return span.fall(lambda r: half_cosine(2 * num_cycles * r**k_decay))


@decay("linear")
def linear(span: Span) -> Curve:
    """A straight line: `lr = m + (η−m)(1−r)`.

    Example:
        >>> [linear(1.0, 4)(s) for s in range(6)]
        [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    return span.fall(lambda r: 1 - r)


@decay("exponential")
def exponential(span: Span, *, gamma: Decay | None = None) -> Curve:
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
        return span.fall(lambda r: math.exp(-3 * r) if r < 1 else 0.0)
    return lambda step: max(span.low, span.peak * gamma ** (step - span.warmup))


@decay("polynomial")
def polynomial(span: Span, *, power: Positive = 1.0, k_decay: Positive = 1.0) -> Curve:
    """`lr = m + (η−m)(1−r)^power`.

    Args:
        power: above 0; 1 is linear (the default of PyTorch and Hugging Face), 2 spends more of the
            training at small LRs, 0.9 is usual in segmentation.
        k_decay: `r^k_decay` for r, as in timm; above 1 the LR stays high longer.

    Example:
        >>> [polynomial(1.0, 4, power=2)(s) for s in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """
    return span.fall(lambda r: (1 - r**k_decay) ** power)


@decay("tanh")
def tanh(span: Span, *, lb: float = -7.0, ub: float = 3.0) -> Curve:
    """`lr = max(m, m + (η−m)·½(1 − tanh(lb(1−r) + ub·r)))`, then m from T on.

    Args:
        lb: where the tanh begins; the lower, the longer the LR stays at the peak.
        ub: where it ends, above lb; the higher, the closer the LR gets to m before T.

    Example:
        >>> [round(tanh(1.0, 4)(s), 3) for s in range(5)]
        [1.0, 1.0, 0.982, 0.269, 0.0]

    Source: Hsueh et al., https://arxiv.org/abs/1806.01593; timm's TanhLRScheduler
    """
    if lb >= ub:
        raise ConfigError.single("ub", f"must be above lb ({lb:g})", ub, "Raise it, or lower lb.")
    return span.fall(lambda r: 0.5 * (1 - math.tanh(lb + (ub - lb) * r)) if r < 1 else 0.0)


@decay("power")
def power(
    span: Span,
    *,
    exponent: Annotated[float, Lt(0)] = -0.51,
    timescale: StepOrMore | None = None,
    decay: Steps | None = None,
) -> Curve:
    """`lr = max(m, min(η, η·(s/τ)^exponent))`, then a line to m over the last `decay` steps.

    Args:
        exponent: b of LR ∝ t^b, below 0; -0.51 is that of the paper.
        timescale: τ >= 1, the step until which the LR stays at η; W where there is a warmup, else a
            hundredth of the training.
        decay: at most T − W steps; a tenth of the steps after the warmup by default.

    Example:
        >>> [round(power(1.0, 8, exponent=-1, timescale=2, decay=2)(s), 3) for s in range(9)]
        [1.0, 1.0, 1.0, 0.667, 0.5, 0.4, 0.333, 0.167, 0.0]

    Source: Shen et al., Power Scheduler, https://arxiv.org/abs/2408.13359, whose t counts tokens
    """
    room = span.total_steps - span.warmup
    steps = room // 10 if decay is None else decay
    _fits(steps, room)
    tau, begin = (
        timescale or span.warmup or max(1, span.total_steps // 100),
        span.total_steps - steps,
    )

    def lr(step: int) -> float:
        law = max(span.low, span.peak * min(1.0, (max(1, min(step, begin)) / tau) ** exponent))
        return (
            law
            if step <= begin
            else blend(span.low, law, 1 - progress(step, begin, span.total_steps))
        )

    return lr


@decay("rex")
def rex(span: Span, *, beta: Fraction = 0.5) -> Curve:
    """`lr = m + (η−m)·(1−r)/(1−βr)`: high for long, steep at the end.

    Args:
        beta: in [0, 1); 0 is linear, towards 1 the LR stays high longer.

    Example:
        >>> [round(rex(1.0, 4)(s), 3) for s in range(5)]
        [1.0, 0.857, 0.667, 0.4, 0.0]

    Source: Chen et al., REX, https://arxiv.org/abs/2107.04197
    """
    return span.fall(lambda r: (1 - r) / (1 - beta * r))


DecayType = Literal["linear", "cosine", "1-sqrt"]


@decay("inverse_sqrt")
def inverse_sqrt(span: Span, *, timescale: StepOrMore | None = None) -> Curve:
    """`lr = max(m, η/√((s+τ−W)/τ))`.

    Args:
        timescale: τ >= 1 steps; W where there is a warmup, else 10000.

    Example:
        >>> [round(inverse_sqrt(10.0, 10, warmup=2, warmup_start=0)(s), 3) for s in range(4)]
        [0.0, 5.0, 10.0, 8.165]

    Source: Vaswani et al., https://arxiv.org/abs/1706.03762; Zhai et al.,
    https://arxiv.org/abs/2106.04560; the default of τ as in Hugging Face transformers.
    """
    tau = timescale or span.warmup or 10_000
    return lambda step: max(span.low, span.peak / math.sqrt((step + tau - span.warmup) / tau))


@decay("wsd")
def wsd(span: Span, *, decay: StepOrMore | None = None, decay_type: DecayType = "linear") -> Curve:
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
    room = span.total_steps - span.warmup
    steps = decay or max(1, room // 5)
    _fits(steps, room)
    return span.fall(SHAPES[decay_type], begin=span.total_steps - steps)


SHAPES: dict[str, Shape] = {
    "linear": lambda x: 1 - x,
    "cosine": half_cosine,
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}


def _fits(decay: int, room: int) -> None:
    if decay > room:
        what, remedy = f"must fit into the {room} steps after the warmup", "Shorten decay or warmup"
        raise ConfigError.single("decay", what, decay, f"{remedy}, or train longer.")


@decay("rsqrt")
def rsqrt(
    span: Span,
    *,
    timescale: StepOrMore | None = None,
    decay: StepOrMore | None = None,
    decay_type: DecayType = "linear",
) -> Curve:
    """`inverse_sqrt` that is brought down to m over the last `decay` steps, as timm's.

    Args:
        timescale: τ >= 1 steps; W where there is a warmup, else 10000.
        decay: 1 <= decay <= T − W steps; a fifth of the steps after the warmup by default.

    Example:
        >>> [round(rsqrt(1.0, 6, warmup=1, decay=2)(s), 3) for s in range(7)]
        [1.0, 1.0, 0.707, 0.577, 0.5, 0.224, 0.0]

    Source: timm's WSDLRScheduler; Zhai et al., https://arxiv.org/abs/2106.04560
    """
    tau, room = timescale or span.warmup or 10_000, span.total_steps - span.warmup
    steps = decay or max(1, room // 5)
    _fits(steps, room)
    begin, shape = span.total_steps - steps, SHAPES[decay_type]

    def lr(step: int) -> float:
        high = max(span.low, span.peak / math.sqrt((step + tau - span.warmup) / tau))
        return blend(span.low, high, shape(progress(step, begin, span.total_steps)))

    return lr


@decay("step")
def step(span: Span, *, size: StepOrMore, gamma: Decay = 0.1) -> Curve:
    """A drop every `size` steps: `lr = max(m, η·γ^⌊s/size⌋)`.

    Args:
        size: at least 1 step.
        gamma: in (0, 1].

    Example:
        >>> [step(1.0, 6, size=2, gamma=0.5)(s) for s in range(6)]
        [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """
    return lambda now: max(span.low, span.peak * gamma ** (now // size))


Milestones: TypeAlias = Annotated[list[Steps], MinLen(1), Field(examples=["[50%, 80%]"])]


@register("multi_step")
def multi_step(
    lr: Positive,
    total_steps: Count,
    *,
    milestones: Milestones,
    factors: list[NonNegative] | None = None,
    gamma: Decay | None = None,
    warmup: Steps = 0,
    warmup_start: Share | None = None,
    min_lr: NonNegative | None = 0.0,
    final_div_factor: OneOrMore | None = None,
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
    require(*_milestone_problems(milestones, factors, gamma))
    low, starts = floor_of(lr, min_lr, final_div_factor), list(milestones)
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


def _milestone_problems(
    milestones: list[int], factors: list[float] | None, gamma: float | None
) -> Iterator[Problem]:
    if sorted(milestones) != list(milestones):
        yield Problem("milestones", "must be sorted", list(milestones), "List them in order.")
    if factors is not None and gamma is not None:
        remedy = "Give factors (relative to the peak) or gamma (relative to the last)."
        yield Problem("gamma", "cannot be given beside factors", gamma, remedy)
    elif factors is not None and len(factors) != len(milestones):
        what = f"must have one factor per milestone ({len(milestones)}), has {len(factors)}"
        yield Problem("factors", what, NOTHING, "Give as many factors as milestones.")
