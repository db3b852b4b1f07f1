"""The edge of stability of a range test that shows no fall: the LR above which the loss rises.

A model that learns slowly may show no fall in the few steps that a range test stays at each LR,
and yet blow up like any other. Where it does says which LRs are worth a longer training.
"""

from __future__ import annotations

import numpy as np

from lrexp.finder.curve import RESOLUTION, CombinedCurve, start_level

NOISE = 3.0  # deviations of a single loss before the rise: what lies above has risen
BELOW_EDGE = 0.05  # of the edge: the middle of the LRs that are worth a training


def stability_edge(curve: CombinedCurve) -> float | None:
    """Return the LR above which the loss stays higher than at its start.

    None where it never does, or does from the lowest LRs on: the loss must have stood still before.

    Args:
        curve: the combined curve.

    Example:
        >>> from lrexp.finder import Curve, combine
        >>> lr = np.logspace(-6, 0, 61)
        >>> loss = 2.0 + np.maximum(lr - 0.01, 0) ** 2 + 1e-3 * np.sin(np.arange(61))
        >>> round(stability_edge(combine([Curve(lr, loss)])), 2)
        0.06
    """
    if len(curve.lr) < 3:
        return None
    start = start_level(curve.loss)
    level = start + max(NOISE * deviation(curve), RESOLUTION * abs(start))
    calm = np.flatnonzero(curve.smooth <= level)
    if not len(calm) or calm[-1] == len(curve.lr) - 1:
        return None
    return float(curve.lr[calm[-1] + 1])


def deviation(curve: CombinedCurve) -> float:
    """Return the standard deviation of single losses of one seed in the first third of the test."""
    return float(np.median(curve.scatter[: max(3, len(curve.lr) // 3)]))
