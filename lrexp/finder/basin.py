"""The basin of a range test: the LRs at which the loss has fallen by more than half.

Its two sides are where the smoothed loss crosses one and the same level, half way between the
start and the minimum. There a curve is steep, so noise moves the sides little; the minimum between
them is flat, and where on it the lowest point lies is mostly luck.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrexp.finder.curve import CombinedCurve
from lrexp.finder.landmarks import landmarks

Array = NDArray[np.float64]

DEPTH = 0.5  # of the drop: the usual level of the two sides


@dataclass(frozen=True)
class Basin:
    """The two sides, in log10 LR."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """log10 LR half way between the sides."""
        return (self.low + self.high) / 2


def basin(curve: CombinedCurve, depth: float = DEPTH) -> Basin | None:
    """Return the basin around the lowest point of a curve, None where the loss never fell.

    A side that the test did not reach is where the test begins or ends.

    Args:
        curve: the combined curve of one or more seeds.
        depth: the share of the drop that must have been made, in (0, 1).

    Example:
        >>> from lrexp.finder import Curve, combine
        >>> x = np.linspace(-6, 0, 121)  # log10 LR; the loss falls from -3 to -2 and rises from -1
        >>> loss = np.interp(x, [-3, -2, -1, 0], [1.0, 0.0, 0.0, 2.0])
        >>> found = basin(combine([Curve(10**x, loss)]))
        >>> round(found.low, 1), round(found.high, 1)
        (-2.5, -0.8)
    """
    if len(curve.lr) < 3:
        return None
    marks = landmarks(curve)
    if not marks.drop > 0:
        return None
    x, above = curve.log_lr, curve.smooth - (marks.start - depth * marks.drop)
    before = np.flatnonzero(above[marks.first : marks.minimum] > 0)
    after = np.flatnonzero(above[marks.minimum :] > 0)
    low = _crossing(x, above, marks.first + int(before[-1])) if len(before) else x[marks.first]
    high = _crossing(x, above, marks.minimum + int(after[0]) - 1) if len(after) else x[-1]
    return Basin(float(low), float(high))


def _crossing(x: Array, y: Array, i: int) -> float:
    """Return where the line from point i to point i+1, which differ in sign, is zero."""
    return float(x[i] + (x[i + 1] - x[i]) * y[i] / (y[i] - y[i + 1]))
