"""Schedules one after the other: parts on half-open ranges [start, end) of the training.

Each part sees steps from its own start. The ranges must cover the training from step 0 without
gaps or overlaps; after the last end the last part's final value is held.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from lrexp.errors import NOTHING, ConfigError, Problem
from lrexp.schedules.schedule import Schedule, Steps, register, warmed
from lrexp.schedules.signatures import Count, Positive, Share, fits


@dataclass(frozen=True)
class Part:
    """A schedule on the steps [start, end); it sees `step - start`."""

    start: Steps
    end: Steps
    schedule: Schedule | Callable[[int], float]


Parts: TypeAlias = Annotated[
    list[Part], Field(examples=["[{start: 0, end: 50%, schedule: cosine}]"])
]


@register("combined")
def combined(
    lr: Positive,
    total_steps: Count,
    *,
    parts: Parts,
    warmup: Steps = 0,
    warmup_start: Share | None = None,
) -> Schedule:
    """The parts in turn; a warmup replaces the first W steps of the training by a rise to η.

    A config lists `parts: [{start: 0, end: 50%, schedule: cosine}, ...]`; every part has the peak η
    and a `total_steps` of its own length, and can be `combined` itself. A warmup that belongs to
    the first part is better given to that part, which then decays from its end.

    Args:
        parts: in order, from step 0.

    Example:
        >>> s = combined(1.0, 4, parts=[Part(0, 2, lambda s: 1.0), Part(2, 4, lambda s: 0.5)])
        >>> [s(i) for i in range(6)]
        [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    """
    whole = combine(parts, [f"parts[{i}]" for i in range(len(parts))])
    return Schedule(warmed(lr, warmup, warmup_start, whole.lr), whole.momentum)


def combine(parts: Sequence[Part], keys: Sequence[str]) -> Schedule:
    """Return the parts as one schedule; `keys` name them in errors.

    Where only some parts cycle the momentum, the others hold the value of the last one before them
    that does, or else of the first one after them.

    Raises:
        ConfigError: no parts, an empty range, a gap, an overlap, or a first start that is not 0.
    """
    problems = range_problems([(part.start, part.end) for part in parts], keys)
    if problems:
        raise ConfigError(problems)
    starts = [part.start for part in parts]
    given = [part.schedule for part in parts]
    curves = [curve if isinstance(curve, Schedule) else Schedule(curve) for curve in given]

    def lr(step: int) -> float:
        index = bisect_right(starts, step) - 1
        return curves[index].lr(min(step, parts[index].end) - starts[index])

    return Schedule(lr, _momentum(parts, curves))


def range_problems(ranges: Sequence[tuple[Any, Any]], keys: Sequence[str]) -> list[Problem]:
    """Return what keeps the ranges from covering the training once, each step exactly."""
    if not ranges:
        remedy = "Give one range or more, the first from step 0."
        return [Problem("parts", "must not be empty", NOTHING, remedy)]
    problems = [p for r, key in zip(ranges, keys, strict=True) if (p := _bounds(r, key))]
    if problems:
        return problems
    if ranges[0][0] != 0:
        rule = "the first range must start at step 0"
        problems.append(Problem(keys[0], rule, ranges[0], "Start it at 0."))
    for before, after, key in zip(ranges, ranges[1:], keys[1:], strict=False):
        if after[0] != before[1]:
            word = "overlaps with" if after[0] < before[1] else "leaves a gap after"
            remedy = f"Start it at {before[1]}, where the range before it ends."
            problems.append(
                Problem(key, f"{_shown(after)} {word} {_shown(before)}", NOTHING, remedy)
            )
    return problems


def _bounds(bounds: tuple[Any, Any], key: str) -> Problem | None:
    start, end = bounds
    if fits(start, int) and fits(end, int) and 0 <= start < end:
        return None
    rule = "must be a range of whole steps with 0 <= start < end"
    return Problem(key, rule, bounds, "Let it end a step or more after its start.")


def _shown(bounds: tuple[Any, Any]) -> str:
    return f"[{bounds[0]}, {bounds[1]})"


def _momentum(parts: Sequence[Part], curves: Sequence[Schedule]) -> Callable[[int], float] | None:
    cycling = [
        (part.start, part.end, curve.momentum)
        for part, curve in zip(parts, curves, strict=True)
        if curve.momentum is not None
    ]
    if not cycling:
        return None
    starts = [start for start, _, _ in cycling]

    def momentum(step: int) -> float:
        start, end, value = cycling[max(0, bisect_right(starts, step) - 1)]
        return value(min(max(step, start), end) - start)

    return momentum
