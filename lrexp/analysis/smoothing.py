"""Smoothing of noisy curves without lag, and thinning them without losing their peaks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrexp.errors import ConfigError

Array = NDArray[np.float64]
Moments = tuple[Array, Array, Array]
FEW = 1000  # points: of so many, a line is fitted at each
PLACES = 16  # per bandwidth at which lines are fitted of more: between them the result is a cubic
REACH = 25  # spans that a prefix must hold for its first points to be as those of the whole


def ema(values: ArrayLike, beta: float = 0.9) -> Array:
    """Return the exponential moving average, corrected for its empty start.

    `out[i] = Σ_j β^(i−j)·v_j / Σ_j β^(i−j)` over j ≤ i: the first value is `values[0]`.

    Args:
        values: the curve, (steps,).
        beta: weight kept per step, in [0, 1).

    Example:
        >>> ema([1.0, 2.0], beta=0.5).round(3).tolist()  # (0.5·1 + 2) / 1.5
        [1.0, 1.667]

    Source: Kingma & Ba, Adam, arXiv 1412.6980, section 3, for the correction.
    """
    y, weight = _weighted(values)
    if not 0 <= beta < 1:
        raise ConfigError.single("beta", "must be at least 0 and below 1", beta, "Try 0.9.")
    total, mass = _decayed_sum(weight * y, beta), _decayed_sum(weight, beta)
    return np.where(weight > 0, total / np.where(mass > 0, mass, 1.0), np.nan)


def zero_lag(values: ArrayLike, span: float) -> Array:
    """Smooth an evenly spaced curve of any length without shifting it, in linear time.

    At every point a straight line is fitted with the weights `β^|i−j|`, β = 1 − 1/span: the
    moments of those weights are sums of a forward and a backward exponential average.

    Args:
        values: the curve, (steps,).
        span: how far a point looks to each side, in steps; 1 or less leaves the curve as it is.

    Example:
        >>> zero_lag([0.0, 1.0, 2.0, 3.0], span=5).round(6).tolist()  # a line stays a line
        [0.0, 1.0, 2.0, 3.0]
    """
    y, weight = _weighted(values)
    if not span > 1:
        return np.where(weight > 0, y, np.nan)
    beta = 1.0 - 1.0 / span
    line = _line_at_zero(_two_sided(weight, beta), _two_sided(weight * y, beta))
    return np.where(weight > 0, line, np.nan)


def anchored(values: ArrayLike, span: float) -> Array:
    """Smooth like `zero_lag`, but begin at the first value itself, in linear time.

    A line fitted at the end of a curve that falls fast misses it; there, point i looks only
    `1 + i/4` steps to each side, up to `span`. It is a blend of curves smoothed with spans that
    halve; the shorter the span, the fewer first points need it.

    Args:
        values: the curve, (steps,).
        span: how far a point looks to each side, in steps, away from the start.

    Example:
        >>> anchored([4.0, 2.0, 1.0, 0.5, 0.25], span=3)[0].item()
        4.0
    """
    y = np.asarray(values, dtype=np.float64)
    out, wide = zero_lag(y, span), span
    while wide > 1:
        narrow = wide / 2 if wide > 2 else 1.0
        near = y[: math.ceil(REACH * wide)]
        grown = np.minimum(1.0 + np.arange(len(near)) / 4, wide)
        share = np.clip(np.log(grown / narrow) / math.log(wide / narrow), 0.0, 1.0)
        short = zero_lag(near, narrow)
        out[: len(near)] = np.where(
            share < 1, short + share * (out[: len(near)] - short), out[: len(near)]
        )
        wide = narrow
    return out


def local_linear(x: ArrayLike, y: ArrayLike, bandwidth: float) -> Array:
    """Smooth a curve over uneven `x` by a straight line fitted around every point.

    The weights are Gaussian, `exp(−½((x_j − x_i)/bandwidth)²)`; the value of the line at `x_i` is
    the result. A symmetric neighbourhood gives no lag, and the slope term removes the bias that a
    plain average has at the ends.

    Args:
        x: positions, (points,), in the unit of `bandwidth`.
        y: values, (points,).
        bandwidth: standard deviation of the weights; positive.

    Example:
        >>> local_linear([0.0, 1.0, 3.0], [0.0, 2.0, 6.0], bandwidth=1.0).round(6).tolist()
        [0.0, 2.0, 6.0]
    """
    position = np.asarray(x, dtype=np.float64)
    value, weight = _weighted(y)
    places = _places(position, bandwidth)
    fitted = np.empty(len(places))
    for rows, distance in _distances(position, places, bandwidth):
        kernel = np.exp(-0.5 * distance**2) * weight
        moments = _moments(kernel, distance)
        fitted[rows] = _line_at_zero(moments, _moments(kernel * value, distance))
    return np.where(weight > 0, _between(position, places, fitted), np.nan)


def local_linear_gain(x: ArrayLike, bandwidth: float) -> Array:
    """Return how much of independent noise `local_linear` lets through at every point.

    The smoothed value is a weighted sum of the values; the gain is `√Σ weight²`, so the standard
    error of the smoothed value is gain × standard deviation of the noise. It is larger at the ends.

    Example:
        >>> local_linear_gain([0.0, 1.0], bandwidth=1.0).round(6).tolist()  # a line through both
        [1.0, 1.0]
    """
    position = np.asarray(x, dtype=np.float64)
    places = _places(position, bandwidth)
    gain = np.empty(len(places))
    for rows, distance in _distances(position, places, bandwidth):
        kernel = np.exp(-0.5 * distance**2)
        s0, s1, s2 = _moments(kernel, distance)
        has_slope = _has_slope(s0, s1, s2)
        line = kernel * (s2[:, None] - s1[:, None] * distance)
        line /= np.where(has_slope, s0 * s2 - s1 * s1, 1.0)[:, None]
        weights = np.where(has_slope[:, None], line, kernel / s0[:, None])
        gain[rows] = np.sqrt(np.sum(weights**2, axis=1))
    return _between(position, places, gain)


def despike(values: ArrayLike) -> Array:
    """Return the running median of three, which removes every spike of a single point.

    A monotone curve comes out unchanged but for its two ends, which take the median of the
    outermost three. Infinite values count as large; nan counts as +inf.

    Example:
        >>> despike([1.0, 9.0, 3.0, 4.0]).tolist()
        [3.0, 3.0, 4.0, 4.0]
    """
    y = np.asarray(values, dtype=np.float64)
    y = np.where(np.isnan(y), np.inf, y)
    if len(y) < 3:
        return y
    middle = np.sort(np.stack([y[:-2], y[1:-1], y[2:]]), axis=0)[1]
    return np.concatenate([middle[:1], middle, middle[-1:]])


def _weighted(values: ArrayLike) -> tuple[Array, Array]:
    """Return the values with 0 for what is not finite, and the weights 1 and 0 beside them."""
    y = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(y)
    return np.where(finite, y, 0.0), finite.astype(np.float64)


def _decayed_sum(values: Array, beta: float) -> Array:
    # A plain loop: the closed form Σ v_j·β^(−j) overflows after some thousand steps.
    return np.fromiter(accumulate(values.tolist(), lambda s, v: beta * s + v), float, len(values))


def _one_sided(values: Array, beta: float) -> Moments:
    """Return `Σ_{j≤i} β^(i−j)·(i−j)^p·v_j` for p = 0, 1, 2."""
    # i−j grows by one with each step to the right: M1 ← β(M1 + M0), M2 ← β(M2 + 2·M1 + M0)
    zeroth = _decayed_sum(values, beta)
    first = _decayed_sum(beta * _shifted(zeroth), beta)
    return zeroth, first, _decayed_sum(beta * (_shifted(zeroth) + 2 * _shifted(first)), beta)


def _two_sided(values: Array, beta: float) -> Moments:
    """Return `Σ_j β^|i−j|·(j−i)^p·v_j` for p = 0, 1, 2."""
    left = _one_sided(values, beta)
    is_symmetric = np.array_equal(values, values[::-1])  # as the weights of a finite curve are
    mirrored = left if is_symmetric else _one_sided(values[::-1], beta)
    right = [moment[::-1] for moment in mirrored]
    return left[0] + right[0] - values, right[1] - left[1], left[2] + right[2]  # j = i once


def _shifted(values: Array) -> Array:
    """Return the value before each, 0 before the first."""
    return np.concatenate([[0.0], values[:-1]])


def _moments(kernel: Array, distance: Array) -> Moments:
    """Return `Σ_j kernel·distance^p` for p = 0, 1, 2, each (rows,)."""
    first = kernel * distance
    return kernel.sum(axis=1), first.sum(axis=1), (first * distance).sum(axis=1)


def _line_at_zero(mass: Moments, value: Moments) -> Array:
    """Return the least-squares line at distance 0, from the moments of weights and values."""
    s0, s1, s2 = mass
    t0, t1, _ = value
    has_slope = _has_slope(s0, s1, s2)
    line = (s2 * t0 - s1 * t1) / np.where(has_slope, s0 * s2 - s1 * s1, 1.0)
    mean = t0 / np.where(s0 > 0, s0, 1.0)
    return np.where(has_slope, line, mean)


def _has_slope(s0: Array, s1: Array, s2: Array) -> NDArray[np.bool_]:
    # a point without neighbours has none: its weighted mean is the value itself
    return s0 * s2 - s1 * s1 > 1e-9 * s0 * s2


def _places(x: Array, bandwidth: float) -> NDArray[np.int_]:
    """Return the indices of the points to fit lines at: all of a few, else both ends and some."""
    if len(x) <= FEW:
        return np.arange(len(x))
    found, last = [], -math.inf
    for i, position in enumerate(x.tolist()):
        if position - last >= bandwidth / PLACES or i == len(x) - 1:
            found.append(i)
            last = position
    return np.array(found, dtype=np.int_)


def _between(x: Array, places: NDArray[np.int_], values: Array) -> Array:
    """Return values known at some of the points, at all of them."""
    if len(places) == len(x):
        return values
    from scipy.interpolate import CubicSpline

    out = np.asarray(CubicSpline(x[places], values)(x), dtype=np.float64)
    out[places] = values
    return out


def _distances(
    x: Array, places: NDArray[np.int_], bandwidth: float
) -> Iterator[tuple[slice, Array]]:
    """Yield blocks of places and their distances to every point, in bandwidths, (rows, points)."""
    rows = max(1, 2_000_000 // max(1, len(x)))  # bounds the memory of long curves
    for start in range(0, len(places), rows):
        here = slice(start, start + rows)
        yield here, (x[None, :] - x[places[here], None]) / bandwidth


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
