"""The loss over the LR of range tests: several seeds as one curve, its landmarks and basin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrexp.analysis.smoothing import despike, local_linear, local_linear_gain
from lrexp.errors import ConfigError

Array = NDArray[np.float64]
NORMAL = 1.4826  # standard deviations in a median absolute deviation, for normal noise
RESOLUTION = 1e-6  # of a loss: what float32 arithmetic may move it by
BANDWIDTH = 0.2  # decades of LR over which a curve is smoothed; see `bandwidth_for`


@dataclass(frozen=True, eq=False)
class Curve:
    """One seed's range test: the LR of every update and the batch loss before it.

    Args:
        lr: LRs, positive and increasing, (steps,).
        loss: raw losses, (steps,); the curve ends before the first that is not finite.

    Raises:
        ConfigError: the arrays differ in length, or the LRs do not increase from above 0.

    Example:
        >>> Curve(lr=[0.1, 1.0, 10.0], loss=[2.0, 1.0, float("nan")]).num_finite
        2
    """

    lr: Array
    loss: Array

    def __init__(self, lr: ArrayLike, loss: ArrayLike) -> None:
        object.__setattr__(self, "lr", np.asarray(lr, dtype=np.float64))
        object.__setattr__(self, "loss", np.asarray(loss, dtype=np.float64))
        if self.lr.ndim != 1 or self.lr.shape != self.loss.shape:
            shapes = (self.lr.shape, self.loss.shape)
            remedy = "Give one loss for every LR."
            raise ConfigError.single("loss", "must have the shape of lr", shapes, remedy)
        if len(self.lr) and not (self.lr[0] > 0 and np.all(np.diff(self.lr) > 0)):
            remedy = "Give the LRs of a ramp, lowest first."
            raise ConfigError.single("lr", "must be positive and increase", self.lr[:3], remedy)

    @property
    def num_finite(self) -> int:
        """How many losses there are before the first that is not finite."""
        bad = np.flatnonzero(~np.isfinite(self.loss))
        return int(bad[0]) if len(bad) else len(self.loss)

    def without_rounding(self) -> Curve:
        """Return the curve with its starting level wherever rounding alone may tell the two apart.

        A model that cannot learn has the same loss on every batch, but for the last digits: they
        move with the first updates, without any noise that would give them away.
        """
        loss, n = self.loss.copy(), self.num_finite
        if n:
            start = start_level(loss[:n])
            near = np.abs(loss[:n] - start) <= RESOLUTION * abs(start)
            loss[:n] = np.where(near, start, loss[:n])
        return Curve(self.lr, loss)

    def against(self, control: ArrayLike, level: float = 0.0) -> Curve:
        """Return the curve without what makes one batch harder than another.

        `L(w_i; b_i) − L(w_0; b_i) + level`: as long as nothing is learned, a batch's loss says only
        how hard the batch is, and the untrained model says the same.

        Args:
            control: losses of the untrained model on the same batches, at least as many.
            level: where the curve begins.

        Raises:
            ConfigError: there are fewer, or one is not finite.

        Example:
            >>> Curve([0.1, 1.0], [2.0, 4.0]).against([2.0, 5.0], level=3.0).loss
            array([3., 2.])

        Source: a control variate; Owen, Monte Carlo theory, methods and examples, section 8.9.
        """
        before = np.asarray(control, dtype=np.float64)
        if len(before) < len(self.loss) or not np.isfinite(before).all():
            what = "must be finite, and as many as the curve has points"
            raise ConfigError.single("control", what, len(before), "Run all steps without an LR.")
        return Curve(self.lr, self.loss - before[: len(self.loss)] + level)


@dataclass(frozen=True, eq=False)
class CombinedCurve:
    """The range tests of several seeds as one curve, on the LRs that half of them survived.

    `loss` is the median of the raw losses, `smooth` its zero-lag smoothing over log10 LR, `low`
    and `high` the lowest and highest smoothed loss of a seed (`high` is inf where one has stopped);
    all have the shape (points,) of `lr`. `noise` is the standard error of `smooth`, (points,),
    measured on the curve itself. `scatter` is how far the loss of one batch of one seed typically
    is from that seed's own smoothed curve, (points,). `seeds` counts the curves.
    """

    lr: Array
    loss: Array
    smooth: Array
    low: Array
    high: Array
    seeds: int
    noise: Array
    scatter: Array

    @property
    def log_lr(self) -> Array:
        """log10 of the LR, (points,)."""
        return np.log10(self.lr)


def combine(curves: Sequence[Curve]) -> CombinedCurve:
    """Combine the range tests of one ramp, run with several seeds, by their median.

    Args:
        curves: one for each seed; a seed that stopped early has fewer points.

    Raises:
        ConfigError: there is no curve, or their LRs differ.

    Example:
        >>> lr = [0.01, 0.1, 1.0]
        >>> combine([Curve(lr, [3, 2, 9]), Curve(lr, [3, 1, 8]), Curve(lr[:2], [4, 1])]).loss
        array([3., 1., 9.])
    """
    lr = _shared_lr(curves)
    losses = np.full((len(curves), len(lr)), np.inf)  # (seeds, points)
    for row, curve in zip(losses, curves, strict=True):
        row[: curve.num_finite] = curve.loss[: curve.num_finite]
    # the median of an even number is the mean of the middle two: inf as soon as half have stopped
    survived = np.isinf(losses).sum(axis=0) * 2 < len(curves)
    num_points = int(np.argmin(survived)) if not survived.all() else len(lr)
    lr, losses = lr[:num_points], losses[:, :num_points]
    median = np.median(losses, axis=0) if num_points else np.empty(0)
    smooth, noise = smooth_over_log_lr(lr, median)
    each = np.full_like(losses, np.inf)  # the smoothed curves: inf where a seed has stopped
    for row, loss in zip(each, losses, strict=True):
        alive = int(np.isfinite(loss).sum())
        row[:alive] = smooth_over_log_lr(lr[:alive], loss[:alive])[0]
    distance = np.full_like(losses, np.inf)
    np.subtract(losses, each, out=distance, where=np.isfinite(losses))
    return CombinedCurve(
        lr=lr,
        loss=median,
        smooth=smooth,
        low=each.min(axis=0),
        high=each.max(axis=0),
        seeds=len(curves),
        noise=noise,
        scatter=NORMAL * np.median(np.abs(distance), axis=0),
    )


def smooth_over_log_lr(lr: Array, loss: Array) -> tuple[Array, Array]:
    """Return the smoothed loss and its standard error, both (points,).

    Spikes of one point are taken out, the blow-up is compressed (so that its huge values do not
    reach back over the minimum), and a line is fitted around every point over log10 LR.

    Args:
        lr: LRs, (points,).
        loss: finite losses, (points,).
    """
    if len(lr) < 3:
        return loss.copy(), np.zeros_like(loss)
    x = np.log10(lr)
    calm = despike(loss)
    knee, scale = _knee(calm)
    bandwidth = bandwidth_for(x)
    calm = _bend(calm, knee, scale, np.log1p)
    # at its ends a line may overshoot: below the lowest loss there is no signal
    smooth = np.clip(local_linear(x, calm, bandwidth), calm.min(), calm.max())
    # the blow-up is no noise: up to the minimum, or the middle where the minimum comes early
    until = max(int(np.argmin(smooth)) + 1, len(x) // 2, 9)
    quiet = smooth <= knee
    before = quiet & (np.arange(len(x)) < until)
    # a flat stretch without any noise, before one that has some, says nothing about the noise
    noise = noise_of(loss[before]) or noise_of(loss[quiet])
    resolution = 1e-12 * float(np.abs(calm).max())  # of the arithmetic
    error = max(noise, resolution) * local_linear_gain(x, bandwidth)
    return _bend(smooth, knee, scale, np.expm1), error


def noise_of(loss: Array) -> float:
    """Return the standard deviation of the noise of a curve, its slope and spikes left out.

    From second differences, `d_i = y_(i+k) − 2·y_i + y_(i−k)`, whose variance is six times that of
    independent noise: of the losses at k = 1, and of their running medians at k = 3, the nearest
    that share no loss. A bend of the curve or a spike raises one of the two: the lower one counts.
    The factors turn both into the deviation that acts on an average of many running medians
    (a sum of correlated values; 1 + 2·ρ1 + 2·ρ2 = 2.6 for every common distribution).
    """
    raw = 1.08 * _second_difference(loss, 1)
    median = np.sqrt(2.6) * _second_difference(despike(loss), 3)
    return float(min(raw, median) if min(raw, median) > 0 else max(raw, median))


def _second_difference(loss: Array, lag: int) -> float:
    if len(loss) <= 2 * lag:
        return 0.0
    bend = loss[2 * lag :] - 2 * loss[lag:-lag] + loss[: -2 * lag]
    return float(np.sqrt(np.mean(bend**2) / 6))


def bandwidth_for(log_lr: Array) -> float:
    """Return the width of the smoothing in decades: a property of the LRs, not of their number.

    `max(min(0.2, span/20), spacing)`: 0.2 decades, less on a ramp of under four decades, and
    never so little that a point has no neighbours.
    """
    span = float(log_lr[-1] - log_lr[0])
    return max(min(BANDWIDTH, span / 20), span / (len(log_lr) - 1))


def start_level(loss: Array) -> float:
    """Return the median loss of the first tenth (three points at least): before any learning."""
    return float(np.median(loss[: max(3, len(loss) // 10)]))


def _shared_lr(curves: Sequence[Curve]) -> Array:
    if not curves:
        raise ConfigError.single("curves", "must not be empty", [], "Run at least one seed.")
    longest = max(curves, key=lambda curve: len(curve.lr)).lr
    for curve in curves:
        if not np.allclose(curve.lr, longest[: len(curve.lr)], rtol=1e-9, atol=0.0):
            raise ConfigError.single(
                "curves", "must share the LRs of one ramp", len(curves), "Run them with one ramp."
            )
    return longest


def _knee(loss: Array) -> tuple[float, float]:
    """Return the loss above which a curve is compressed, and the scale of the compression.

    As far above the start as the lowest loss is below it: what is higher is blow-up.
    """
    start = max(start_level(loss), float(np.median(loss[: (len(loss) + 1) // 2])))
    scale = start - float(loss.min())
    return start + scale, scale if scale > 0 else float(np.ptp(loss))


def _bend(loss: Array, knee: float, scale: float, by: np.ufunc) -> Array:
    """Return the losses, those above the knee compressed (`log1p`) or expanded again (`expm1`)."""
    if scale == 0:
        return loss
    above = np.maximum(loss - knee, 0.0) / scale
    return np.where(loss > knee, knee + scale * by(above), loss)


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
