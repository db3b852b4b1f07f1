"""How much depends on the LR: the best one, the basin of good ones, the mean loss over all.

LRs are compared on the scale (value − best) / (initial − best), 0 for the best LR and 1 for a
training that gained nothing, so that 5 % means the same on every workload.
Source: Wortsman et al., Small-scale Proxies for Large-scale Transformer Training Instabilities,
arXiv 2309.14322, section 2, for the LR sensitivity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
WITHIN = 0.05  # of the way from the initial value to the best: still a good LR
ROUNDING = 1e-6  # relative: values within it are equal
MIN_LRS = 3  # fewer make no curve


@dataclass(frozen=True)
class Basin:
    """The LRs around the best that are nearly as good; an open end is an end of what was tried."""

    low: float
    high: float
    decades: float  # log10(high / low)
    open_low: bool
    open_high: bool
    num_lrs: int  # of those tried, that lie in it


@dataclass(frozen=True)
class Sensitivity:
    """The curve over LR; all costs, lower is better.

    None where a seed diverged, where every seed failed, or where nothing fell.
    """

    lrs: tuple[float, ...]  # rising
    means: tuple[float | None, ...]
    relative: tuple[float | None, ...]  # 0 the best, 1 as before training
    best_lr: float | None  # of those at which no seed diverged
    best_is_end: str | None  # "lowest" | "highest" of the LRs
    initial: float
    basin: Basin | None
    sensitivity: float | None  # mean over LRs and seeds of min(cost, initial) − best
    sensitivity_relative: float | None  # the same, as a share of initial − best


def lr_sensitivity(lrs: Sequence[float], costs: ArrayLike, initial: Sequence[float]) -> Sensitivity:
    """Return what a comparison over LRs says of them.

    The basin reaches from the best LR to both sides as far as the mean over the seeds stays within
    5 %. Between two LRs the curve is taken as straight in log LR; next to an LR at which a seed
    diverged, it ends at the last good one. An LR without any result is as one that was not tried.
    For the sensitivity alone a diverged seed counts as its initial cost, by the definition of that
    number.

    Args:
        lrs: rising; `MIN_LRS` or more say something.
        costs: of every seed, (lrs, seeds); inf where it diverged, nan where it has none.
        initial: cost before training by seed, (seeds,).

    Example:
        >>> found = lr_sensitivity([0.01, 0.1, 1.0], [[1.0], [0.0], [np.inf]], [2.0])
        >>> found.best_lr, found.best_is_end, found.relative
        (0.1, None, (0.5, 0.0, None))
        >>> found.basin.low, found.basin.high  # 10 % of the decade between 0 and 0.5
        (0.07943282347242814, 0.1)
    """
    y = np.asarray(costs, dtype=np.float64)
    rows = np.flatnonzero(~np.isnan(y).all(axis=1)).tolist()
    if 0 < len(rows) < len(lrs):
        return _among(lrs, lr_sensitivity([lrs[row] for row in rows], y[rows], initial))
    start = np.asarray(initial, dtype=np.float64)
    counts = (~np.isnan(y)).sum(axis=1)
    sums = np.where(np.isnan(y), 0.0, y).sum(axis=1)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    finite = np.isfinite(start)
    first = float(start[finite].mean()) if finite.any() else math.nan
    where = int(np.argmin(means))
    best = float(means[where])
    if not math.isfinite(best):
        none = (None,) * len(lrs)
        return Sensitivity(tuple(lrs), none, none, None, None, first, None, None, None)
    way = first - best
    falls = math.isfinite(way) and way > 0
    relative = (means - best) / way if falls else np.full(len(means), np.nan)
    with np.errstate(invalid="ignore"):
        capped = np.fmin(y, start)  # of nan and a number the number: a failed seed comes out below
    gap = np.where(np.isnan(y), np.nan, capped) - best
    mean_gap = float(np.nanmean(gap)) if finite.all() else None
    ends = {0: "lowest", len(lrs) - 1: "highest"} if len(lrs) > 1 else {}
    # of equals the first is no better than the others, and where nothing falls no end is best
    is_alone = falls and int((means <= best + ROUNDING * way).sum()) == 1
    return Sensitivity(
        lrs=tuple(lrs),
        means=tuple(_finite(mean) for mean in means),
        relative=tuple(_finite(share) for share in relative),
        best_lr=lrs[where],
        best_is_end=ends.get(where) if is_alone else None,
        initial=first,
        basin=_basin(lrs, relative, where) if falls else None,
        sensitivity=mean_gap,
        sensitivity_relative=mean_gap / way if falls and mean_gap is not None else None,
    )


def _among(lrs: Sequence[float], found: Sensitivity) -> Sensitivity:
    """Return the curve with all LRs, None at those that it does not have."""
    known = {lr: place for place, lr in enumerate(found.lrs)}
    places = [known.get(lr) for lr in lrs]
    means, relative = (
        tuple(None if i is None else row[i] for i in places)
        for row in (found.means, found.relative)
    )
    return replace(found, lrs=tuple(lrs), means=means, relative=relative)


def _basin(lrs: Sequence[float], relative: Array, where: int) -> Basin:
    log_lr = np.log10(np.asarray(lrs, dtype=np.float64))
    low, open_low, below = _edge(log_lr, relative, range(where, -1, -1))
    high, open_high, above = _edge(log_lr, relative, range(where, len(log_lr)))
    ends = (min(10**low, lrs[where]), max(10**high, lrs[where]))  # 10^(log10 x) may miss x
    return Basin(*ends, high - low, open_low, open_high, below + above - 1)


def _edge(log_lr: Array, relative: Array, way: range) -> tuple[float, bool, int]:
    """Return where the curve leaves the basin, whether it never does, and the good LRs on it."""
    for count, (here, after) in enumerate(pairwise(way), 1):
        if relative[after] > WITHIN:
            rise = relative[after] - relative[here]  # inf next to a diverged seed: ends here
            share = (WITHIN - relative[here]) / rise
            return float(log_lr[here] + share * (log_lr[after] - log_lr[here])), False, count
    return float(log_lr[way[-1]]), True, len(way)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
