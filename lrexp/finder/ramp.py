"""The LR ramp of a range test: from `min_lr` to `max_lr`, both ends hit exactly.

An exponential ramp spends the same number of steps on every decade of LR, so a curve over log LR
is sampled evenly; a linear one looks closely at the upper end of a narrow range.
Source: Smith, Cyclical Learning Rates for Training Neural Networks, arXiv 1506.01186, section 3.3.
"""

from __future__ import annotations

import math
from typing import Literal

from lrexp.errors import ConfigError, Problem, did_you_mean
from lrexp.schedules.schedule import Schedule

MODES = ("exp", "linear")


def ramp(
    min_lr: float, max_lr: float, steps: int, mode: Literal["exp", "linear"] = "exp"
) -> Schedule:
    """Return the schedule that raises the LR from `min_lr` at step 0 to `max_lr` at step `steps−1`.

    With f = i / (steps − 1):  exp `min_lr^(1−f) · max_lr^f` = `min_lr · (max_lr/min_lr)^f`,
    linear `min_lr + f · (max_lr − min_lr)`. After the last step it holds `max_lr`.

    Args:
        min_lr: first LR, positive and below `max_lr`.
        max_lr: last LR.
        steps: number of updates, at least 2.
        mode: `exp` or `linear`.

    Raises:
        ConfigError: with every problem found, keys `min_lr`, `max_lr`, `steps`, `mode`.

    Example:
        >>> [round(ramp(0.01, 1.0, steps=3)(i), 6) for i in range(3)]
        [0.01, 0.1, 1.0]

    Source: arXiv 1506.01186; fastai's `lr_find` for the exponential form, whose last LR falls one
    step short of the maximum.
    """
    problems = [
        *_lr_problems(min_lr, max_lr),
        *_steps_problems(steps),
        *_mode_problems(mode),
    ]
    if problems:
        raise ConfigError(problems)
    last = steps - 1

    def lr(step: int) -> float:
        frac = min(max(step, 0), last) / last  # in [0, 1]; exactly 0 and 1 at the ends
        if mode == "linear":
            return (1.0 - frac) * min_lr + frac * max_lr  # this form is exact at both ends
        # not min·(max/min)^f: the quotient can overflow, and its rounding moves the last LR
        return float(min_lr ** (1.0 - frac) * max_lr**frac)

    return Schedule(lr)


def _lr_problems(min_lr: object, max_lr: object) -> list[Problem]:
    problems = [
        Problem(key, "must be a positive, finite number", value, f"Try {example}.")
        for key, value, example in (("min_lr", min_lr, "1e-7"), ("max_lr", max_lr, "10"))
        if not _is_positive(value)
    ]
    if not problems and float(min_lr) >= float(max_lr):  # type: ignore[arg-type]
        what = f"must be below max_lr ({max_lr})"
        problems.append(Problem("min_lr", what, min_lr, "Lower min_lr or raise max_lr."))
    return problems


def _steps_problems(steps: object) -> list[Problem]:
    if isinstance(steps, int) and not isinstance(steps, bool) and steps >= 2:
        return []
    return [Problem("steps", "must be a whole number, at least 2", steps, "100 is a good start.")]


def _mode_problems(mode: object) -> list[Problem]:
    if mode in MODES:
        return []
    return [Problem("mode", "is no kind of ramp", mode, did_you_mean(str(mode), MODES))]


def _is_positive(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[arg-type,operator]
