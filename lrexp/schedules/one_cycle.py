"""The 1cycle policy, the LR and the momentum of torch's OneCycleLR as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from lrexp.errors import Problem
from lrexp.schedules import checks
from lrexp.schedules.decays import half_cosine
from lrexp.schedules.schedule import Schedule, Steps
from lrexp.schedules.warmup import blend, warmed

AnnealStrategy = Literal["cos", "linear"]


def one_cycle(
    lr: float,
    total_steps: int,
    *,
    pct_start: float = 0.3,
    anneal_strategy: AnnealStrategy = "cos",
    cycle_momentum: bool = True,
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
    warmup: Steps = 0,
    warmup_start: float | None = None,
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
    checks.require(
        *checks.span(lr, total_steps, warmup, warmup_start),
        _rising(pct_start, three_phase),
        checks.one_of("anneal_strategy", anneal_strategy, get_args(AnnealStrategy)),
        checks.truth("cycle_momentum", cycle_momentum),
        checks.truth("three_phase", three_phase),
        checks.inside("base_momentum", base_momentum, 0, 1, closed="["),
        checks.inside("max_momentum", max_momentum, 0, 1, closed="["),
        checks.between("div_factor", div_factor, 1, math.inf),
        _ending(final_div_factor, div_factor),
    )
    start = lr / div_factor
    phases = _phases(total_steps - warmup, pct_start, three_phase)
    anneal = _cos if anneal_strategy == "cos" else blend
    lrs = {"start": start, "peak": lr, "end": start / final_div_factor}
    momenta = {"start": max_momentum, "peak": base_momentum, "end": max_momentum}
    last = total_steps - warmup - 1

    def after(step: int) -> float:
        return _value(phases, min(step - warmup, last), lrs, anneal)

    def momentum(step: int) -> float:
        return _value(phases, min(max(0, step - warmup), last), momenta, anneal)

    return Schedule(
        warmed(start, warmup, warmup_start, after), momentum if cycle_momentum else None
    )


@dataclass(frozen=True)
class _Phase:
    """A stretch of the cycle, from one named value to another; ends need not be whole steps."""

    begin: float
    end: float
    source: str
    target: str


def _phases(num_steps: int, pct_start: float, three_phase: bool) -> tuple[_Phase, ...]:
    peak = pct_start * num_steps - 1
    if not three_phase:
        return (
            _Phase(0, peak, "start", "peak"),
            _Phase(peak, num_steps - 1, "peak", "end"),
        )
    valley = 2 * pct_start * num_steps - 2
    return (
        _Phase(0, peak, "start", "peak"),
        _Phase(peak, valley, "peak", "start"),
        _Phase(valley, num_steps - 1, "start", "end"),
    )


def _value(
    phases: tuple[_Phase, ...],
    step: int,
    values: dict[str, float],
    anneal: Callable[[float, float, float], float],
) -> float:
    phase = next((phase for phase in phases if step <= phase.end), phases[-1])
    length = phase.end - phase.begin
    # torch divides by zero where the rise is a single step; that step is the peak
    done = (step - phase.begin) / length if length else 1.0
    source, target = values[phase.source], values[phase.target]
    if source <= target:
        return anneal(source, target, done)
    return anneal(target, source, 1 - done)


def _cos(low: float, high: float, x: float) -> float:
    return blend(low, high, half_cosine(1 - x))


def _rising(pct_start: object, three_phase: object) -> Problem | None:
    high = 0.5 if three_phase is True else 1
    return checks.between("pct_start", pct_start, 0, high)


def _ending(final_div_factor: object, div_factor: object) -> Problem | None:
    low = 1 / div_factor if checks.is_number(div_factor) and div_factor >= 1 else 0
    return checks.between("final_div_factor", final_div_factor, low, math.inf)
