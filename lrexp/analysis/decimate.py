"""Thinning a long curve for a plot without losing its peaks.

Every bucket of neighbouring points keeps its lowest and its highest: a plot of the thinned curve
covers the same pixels as one of the whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

KEPT_PER_BUCKET = 2


def thin(x: ArrayLike, y: ArrayLike, max_points: int) -> tuple[Array, Array]:
    """Return at most `max_points` of the points: of every bucket the lowest and the highest.

    The first and the last point are always kept, and so is the order. A bucket without a finite
    value keeps its first point, so that a gap stays a gap; +inf counts as highest, -inf as lowest.

    Args:
        x: positions, (points,).
        y: values, (points,); may hold nan and inf.
        max_points: at least 4.

    Example:
        >>> thin([0, 1, 2, 3, 4, 5, 6, 7], [0, 9, 0, 0, 0, -9, 0, 0], 6)[1].tolist()
        [0.0, 9.0, 0.0, 0.0, -9.0, 0.0]
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(xs) <= max_points:
        return xs, ys
    inner = len(xs) - 2
    num_buckets = max(1, (max_points - 2) // KEPT_PER_BUCKET)
    edges = 1 + np.linspace(0, inner, num_buckets + 1).astype(np.int64)
    starts, counts = edges[:-1], np.diff(edges)
    width = int(counts.max())
    # (buckets, width): a bucket that is one shorter repeats its last point
    index = starts[:, None] + np.minimum(np.arange(width), counts[:, None] - 1)
    values = ys[index]
    missing = np.isnan(values)
    lowest = np.where(missing, np.inf, values).argmin(axis=1)
    highest = np.where(missing, -np.inf, values).argmax(axis=1)
    rows = np.arange(num_buckets)
    kept = np.concatenate([[0], index[rows, lowest], index[rows, highest], [len(xs) - 1]])
    kept = np.unique(kept)
    return xs[kept], ys[kept]
