"""The landmarks of a range test: where the loss starts to fall, is lowest, and starts to diverge.

Rules, base and max LR and the refusals all read these, so that "the loss fell" means one thing.
Every level is a share of the drop that the curve itself shows, or a multiple of its own noise:
adding a constant to the loss, or scaling it, moves no landmark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lrexp.finder.curve import CombinedCurve, start_level

Array = NDArray[np.float64]

SETTLED_SHARE = 0.1  # of the curve's decades, at its start: left out by every rule
FALL_SHARE = 0.05  # of the drop: below this level the loss has started to fall
LOST_SHARE = 0.5  # of the drop: having made as much, and lost it again, the curve is over
EDGE_SHARE = 0.1  # of the drop: this far above the minimum the loss diverges
NOISE = 3.0  # standard errors that a change must exceed to be one


@dataclass(frozen=True)
class Landmarks:
    """Indices into a combined curve, and the levels that belong to them.

    `first <= fall <= minimum <= edge`. `first` ends the first tenth; `fall` is the last point
    before the minimum at which the loss still had its starting level; `edge` is the last point
    after the minimum before the loss rises for good, and the last of the curve where it never does
    (then `diverges` is false).
    """

    first: int
    fall: int
    minimum: int
    edge: int
    diverges: bool
    start: float  # loss before any learning
    drop: float  # start − lowest smoothed loss
    noise: float  # standard error of the smoothed loss at its minimum


@lru_cache(maxsize=8)  # every rule asks for those of the same curve
def landmarks(curve: CombinedCurve) -> Landmarks:
    """Find the landmarks of a curve of at least three points.

    Example:
        >>> import numpy as np
        >>> from lrexp.finder import Curve, combine
        >>> x = np.linspace(-6, 0, 61)  # log10 LR; the loss falls from -3 to -2 and rises from -1
        >>> loss = np.interp(x, [-3, -2, -1, 0], [1.0, 0.0, 0.0, 2.0]) - 0.01 * (x + 6)
        >>> marks = landmarks(combine([Curve(10**x, loss)]))
        >>> x[[marks.fall, marks.edge]].round(1).tolist(), marks.diverges
        ([-3.2, -1.1], True)
    """
    x, smooth = curve.log_lr, curve.smooth
    first = int(np.searchsorted(x, x[0] + SETTLED_SHARE * (x[-1] - x[0])))
    minimum = _minimum(smooth, curve.noise, start_level(curve.loss), first)
    lowest, noise = float(smooth[minimum]), float(curve.noise[minimum])
    fall = _last_at_start(smooth, start_level(curve.loss), first, minimum, noise)
    # all that comes before the fall is the start: a better average than the first tenth
    start = float(np.median(curve.loss[: max(fall, 3)]))
    fall = _last_at_start(smooth, start, first, minimum, noise)
    drop = start - lowest
    after = np.flatnonzero(smooth[minimum:] > lowest + max(EDGE_SHARE * drop, NOISE * noise))
    edge = minimum + int(after[0]) - 1 if len(after) else len(x) - 1
    return Landmarks(first, fall, minimum, edge, len(after) > 0, start, drop, noise)


def _minimum(smooth: Array, noise: Array, start: float, first: int) -> int:
    """Return the lowest point before the first blow-up.

    Past it, weights are so large that a batch may by luck have a lower loss than any before. A rise
    within the noise is no blow-up: it would make a minimum of the first dip of a noisy start.
    """
    after = smooth[first:]
    so_far = np.minimum.accumulate(after)
    share = LOST_SHARE * (start - float(after.min()))
    rise = max(share, NOISE * math.sqrt(2.0) * float(np.median(noise[first:])))  # of a difference
    lost = np.flatnonzero((after - so_far > rise) & (start - so_far > share))
    return first + int(np.argmin(after[: lost[0]] if share > 0 and len(lost) else after))


def _last_at_start(smooth: Array, start: float, first: int, minimum: int, noise: float) -> int:
    """Return the last point before the minimum that still has the starting level."""
    drop = start - float(smooth[minimum])
    level = start - max(FALL_SHARE * drop, NOISE * noise)
    at_start = np.flatnonzero(smooth[first:minimum] >= level)
    return first + int(at_start[-1]) if len(at_start) else first
