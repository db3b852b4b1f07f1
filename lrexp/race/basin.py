"""What the losses of a rung say: where their basin is, how wide, and how sure that is.

The best of a few noisy losses is a poor guess: it jumps between LRs that are as good as each
other, and short trainings sit at the edge of stability. So the answer is the middle of the basin,
an average of the LRs weighted by how good each is, moved down by what a longer training needs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

DEPTH = 0.2  # regret at which an LR has 1/e of the weight of the best one


def position(lrs: ArrayLike, start: ArrayLike, losses: ArrayLike) -> float:
    """Return the middle of the basin, log10 LR: `Σ w·x / Σ w`, `w = width · exp(−regret / 0.2)`.

    The width is that of the stretch between an LR's neighbours, so that two LRs close together
    count no more than one.

    Args:
        lrs: increasing, (lrs,).
        start: losses before training, (seeds,).
        losses: after it, (lrs, seeds).

    Example:
        >>> round(position([0.01, 0.1, 1.0], [2.0], [[0.5], [0.5], [9.0]]), 2)
        -1.5
    """
    x = np.log10(np.asarray(lrs, dtype=np.float64))
    weight = np.exp(-regrets(start, losses) / DEPTH) * _widths(x)
    return float(weight @ x / weight.sum())


def regrets(start: ArrayLike, losses: ArrayLike) -> Array:
    """Return `(L − L*) / (L0 − L*)` of every LR, (lrs,); 1 is no better than not training.

    A loss counts as at most that before training. Where no LR improves on it, all have 1.

    Example:
        >>> regrets([2.0], [[1.0], [1.5], [float("inf")]])
        array([0. , 0.5, 1. ])
    """
    first = np.asarray(start, dtype=np.float64)
    known = np.asarray(losses, dtype=np.float64)
    mean = np.minimum(np.where(np.isfinite(known), known, np.inf), first).mean(axis=1)
    gain = float(first.mean() - mean.min())
    return (mean - mean.min()) / gain if gain > 0 else np.ones(len(mean))


def learned(start: ArrayLike, losses: ArrayLike, least: float = 0.0) -> bool:
    """Return whether any LR ended lower than before training, by more than `least`, on average."""
    first = np.asarray(start, dtype=np.float64)
    known = np.asarray(losses, dtype=np.float64)
    known = np.where(np.isnan(known), np.inf, known)
    return bool(np.any(known.mean(axis=1) < first.mean() - least))


def _widths(x: Array) -> Array:
    """Return the stretch that each point stands for; one at an end counts as far outwards."""
    if len(x) == 1:
        return np.ones(1)
    ends = np.concatenate([[2 * x[0] - x[1]], x, [2 * x[-1] - x[-2]]])
    return np.asarray((ends[2:] - ends[:-2]) / 2)
