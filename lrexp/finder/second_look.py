"""A second look at range tests that show no fall: every batch against the untrained model.

Most of what a loss curve scatters by is which batch it was. The untrained model, on the same
batches, says how hard each is; what is left is what the steps before it have done. As long as
they were small it is tiny, and so is its noise: a fall shows decades before it would in the loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrexp.errors import ConfigError
from lrexp.finder.curve import RESOLUTION, Curve

Array = NDArray[np.float64]

WINDOW = 0.8  # decades of LR over which differences are averaged
MIN_POINTS = 5  # of a window
DEVIATIONS = 4.0  # standard errors: of three seeds some ten windows reach it by luck 1 in 400 times
MOST = 2 / 3  # of the seeds must fall


def closer_look(
    curves: Sequence[Curve], untrained: Sequence[ArrayLike] | None
) -> list[Curve] | None:
    """Return each curve against the untrained model; None where that shows no fall either.

    None also where losses are missing or infinite. All begin at one level, so that their median is
    of falls, and not of which seed began lowest.

    Args:
        curves: of the range tests, one for each seed.
        untrained: for each of them, the losses of the untrained model on the same batches.
    """
    try:
        before = [np.asarray(losses, dtype=np.float64) for losses in untrained or ()]
        level = float(np.mean([losses.mean() for losses in before])) if before else 0.0
        closer = [c.against(losses, level) for c, losses in zip(curves, before, strict=True)]
    except (ConfigError, ValueError):  # they do not fit: a model may overflow before any update
        return None
    return closer if falls(curves, before) else None


def falls(curves: Sequence[Curve], untrained: Sequence[ArrayLike]) -> bool:
    """Return whether training lowered the loss anywhere by more than luck: a paired t-test.

    Over every stretch of 0.8 decades, `t = mean(d) / (sd(d) / √n)` of the differences
    `d = L(w_i; b_i) − L(w_0; b_i)` of all seeds; some `t < −4`, and two thirds of the seeds below 0
    there. Where no direction is better than the start, d is 0 or more on average, however its noise
    grows on the way.

    Args:
        curves: of the range tests; untrained: as of `closer_look`.

    Source: Student's t-test for pairs; see also Law, Simulation Modeling and Analysis, section
    11.2, on common random numbers.
    """
    num_points = max((len(curve.lr) for curve in curves), default=0)
    differences = np.full((len(curves), num_points), np.nan)
    for row, curve, losses in zip(differences, curves, untrained, strict=True):
        n = curve.num_finite
        before = np.asarray(losses, dtype=np.float64)[:n]
        moved = curve.loss[:n] - before
        row[:n] = np.where(np.abs(moved) > RESOLUTION * np.abs(before), moved, 0.0)
    longest = max(curves, key=lambda curve: len(curve.lr), default=None)
    if longest is None or num_points < MIN_POINTS:
        return False
    x = np.log10(longest.lr)
    ends = np.maximum(np.searchsorted(x, x + WINDOW), np.arange(num_points) + MIN_POINTS)
    # of windows that end at one point the widest: those at the upper end of the test have no more
    ends, firsts = np.unique(np.minimum(ends, num_points), return_index=True)
    return any(_is_lower(differences[:, i:end]) for i, end in zip(firsts, ends, strict=True))


def _is_lower(differences: Array) -> bool:
    """Return whether differences, (seeds, points), are below 0 by more than luck."""
    alive = differences[np.isfinite(differences).all(axis=1)]
    if 2 * len(alive) <= len(differences):  # as in the median of the curves: half have stopped
        return False
    error = float(alive.std(ddof=1)) / math.sqrt(alive.size)
    is_clear = float(alive.mean()) < -DEVIATIONS * error
    return is_clear and int((alive.mean(axis=1) < 0).sum()) >= MOST * len(differences)
