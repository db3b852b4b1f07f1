"""How soon a training reached a target, where some never do.

A miss takes infinitely long: it is part of the median, and never refilled with the last step. A
training that diverged is a miss even if it passed the target on its way.
Source: Dahl et al., Benchmarking Neural Network Training Algorithms, arXiv 2306.07179.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike


def time_to(
    target: float, at: ArrayLike, values: ArrayLike, direction: Literal["min", "max"] = "min"
) -> float:
    """Return when an evaluation first was as good as the target, inf if none was.

    Args:
        target: a value of the metric.
        at: step or epoch of each evaluation, (evaluations,).
        values: the metric there, (evaluations,); nan where it was not taken.
        direction: `min` where lower is better.

    Example:
        >>> time_to(0.5, [0, 10, 20], [2.3, 0.6, 0.4]), time_to(0.1, [0, 10], [2.3, 0.6])
        (20.0, inf)
    """
    y = np.asarray(values, dtype=np.float64)
    slack = 1e-9 * abs(target)  # files hold twelve digits
    good = y <= target + slack if direction == "min" else y >= target - slack
    reached = np.flatnonzero(good)
    return float(np.asarray(at, dtype=np.float64)[reached[0]]) if len(reached) else math.inf


def median_with_misses(times: Sequence[float]) -> float:
    """Return the median of times of which some are inf; inf without any.

    Example:
        >>> median_with_misses([3.0, float("inf"), 5.0]), median_with_misses([3.0, float("inf")])
        (5.0, inf)
    """
    return float(np.median(times)) if len(times) else math.inf
