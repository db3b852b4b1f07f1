"""Whether a range test has a signal at all, and if not, what to tell the user.

What counts as a fall is relative to the noise and range of the curve, never an amount of loss.
Where a test shows no fall, every batch is compared with the untrained model on the same batch:
most of the scatter of a loss curve is which batch it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrexp.analysis.range_curve import (
    RESOLUTION,
    CombinedCurve,
    Curve,
    Landmarks,
    bandwidth_for,
    basin,
    combine,
    landmarks,
)
from lrexp.analysis.smoothing import local_linear_gain
from lrexp.errors import ConfigError

MIN_POINTS = 10
DEVIATIONS = 3.75  # of the rank test: what luck hardly ever reaches
GROWING = 2 / 3  # of the larger variance: the whole would refuse clear but narrow basins
NEARLY_ALL = 0.9  # of the pairs of losses, one in the basin and one before it
BLOWN_UP = 0.5  # of the pairs: with so many more the other way round, a seed has diverged already
ERRORS = 3.75  # standard errors that a fall must measure, with many points
FEW_POINTS = 10.0  # with this many, twice as many


def is_buried(curves: Sequence[Curve]) -> bool:
    """Return whether a fall may be buried in noise, so that a paired control is worth its steps.

    All seeds together show none, though the loss does not rise at once; or most of them show none
    by themselves, so that what they show together may be luck, and where it is next to nothing.
    """
    curves = [one.without_rounding() for one in curves]
    curve = combine(curves)
    if len(curve.lr) < MIN_POINTS or _rises_at_once(landmarks(curve)):
        return False
    if not _fell(curve, landmarks(curve), curves):
        return True
    alone = [no_signal(combine([one]), [one]) is None for one in curves]
    return 2 * sum(alone) < len(alone)


def no_signal(curve: CombinedCurve, curves: Sequence[Curve]) -> str | None:
    """Return why the combined curve has no usable signal, or None where it has one.

    Args:
        curve: the combined curve.
        curves: the curves that were combined.
    """
    if len(curve.lr) < MIN_POINTS:
        return _too_short(curve, curves)
    marks = landmarks(curve)
    if _rises_at_once(marks):
        return _from_the_start(curve)
    return None if _fell(curve, marks, curves) else _not_descending(curve, marks, curves)


def rises_at_once(curve: CombinedCurve) -> bool:
    """Return whether even the lowest LRs are too high."""
    return len(curve.lr) >= MIN_POINTS and _rises_at_once(landmarks(curve))


def ended_infinite(curves: Sequence[Curve]) -> bool:
    """Return whether a loss that is not finite ended the tests: the edge of stability."""
    return 2 * sum(one.num_finite < len(one.loss) for one in curves) >= len(curves)


def _rises_at_once(marks: Landmarks) -> bool:
    return marks.minimum == marks.first and marks.edge <= 2 * marks.first and marks.diverges


def _fell(curve: CombinedCurve, marks: Landmarks, curves: Sequence[Curve]) -> bool:
    """Whether the losses in the basin are lower than those before it by more than luck.

    The basin was chosen for its low losses, so luck alone brings 1.5 standard deviations, rarely
    (1 in 1000) 4. A rank test knows of no scale: noise that begins or grows on the way, as with a
    model that can learn nothing, does not look like a fall. A basin of few points cannot reach so
    much; there nearly every loss must be lower, and the fall be above the noise of the curve.
    """
    deviations, share = _lower_in_basin(curve, curves)
    if deviations > DEVIATIONS:
        return True
    needed = _needed(len(curve.lr)) * _error_of_drop(curve, marks)
    return share > NEARLY_ALL and marks.drop > needed


def _lower_in_basin(curve: CombinedCurve, curves: Sequence[Curve]) -> tuple[float, float]:
    """Return how clearly the losses in the basin are lower than those before it, seed by seed.

    In standard deviations of Mann and Whitney's statistic, and as the share of pairs in which the
    one in the basin is lower, less the share in which it is higher.
    """
    found = basin(curve)
    if found is None:
        return 0.0, 0.0
    score = pairs = exchangeable = squares = 0.0
    for one in curves:
        x, loss = np.log10(one.lr[: one.num_finite]), one.loss[: one.num_finite]
        inside = loss[(x >= found.low) & (x <= found.high)]
        before = np.sort(loss[x < found.low])
        num_higher = len(before) - np.searchsorted(before, inside, side="right")
        ahead = num_higher - np.searchsorted(before, inside, side="left")
        if float(ahead.sum()) < -BLOWN_UP * len(inside) * len(before):
            continue  # as in the median of the curves, one unlucky seed decides nothing
        score += float(ahead.sum())
        squares += float(np.sum(ahead.astype(np.float64) ** 2))
        pairs += len(inside) * len(before)
        exchangeable += len(inside) * len(before) * (len(inside) + len(before) + 1) / 3
    # of noise that grows on the way, the variance is up to three times that of equal noise
    variance = max(exchangeable, GROWING * squares)
    return (score / math.sqrt(variance), score / pairs) if pairs else (0.0, 0.0)


def _needed(num_points: int) -> float:
    """Return how many standard errors a fall must measure.

    The lowest of some twenty independent stretches of pure noise is often 2 and rarely (1 in 100)
    4 errors low; with few points the error itself is uncertain, as in Student's t.
    """
    return ERRORS * (1.0 + FEW_POINTS / num_points)


def _error_of_drop(curve: CombinedCurve, marks: Landmarks) -> float:
    """Return the standard error of start − minimum; the start is a median of what is before."""
    gain = local_linear_gain(curve.log_lr, bandwidth_for(curve.log_lr))[marks.minimum]
    noise = float(curve.noise[marks.minimum]) / float(gain)  # of one loss
    return noise * math.hypot(gain, 1.25 / math.sqrt(max(marks.fall, 3)))


def _too_short(curve: CombinedCurve, curves: Sequence[Curve]) -> str:
    lowest = max(curves, key=lambda one: len(one.lr)).lr[:1]
    at_once = sum(one.num_finite == 0 < len(one.loss) for one in curves)
    if 2 * at_once >= len(curves):
        return (
            f"The loss was not finite at the first step, before any update, in {at_once} of "
            f"{len(curves)} seeds: the LR is not the cause. Check the data for NaN and the model "
            "and loss for overflow."
        )
    if 2 * sum(_rose(one) for one in curves) > len(curves):
        return (
            f"The loss diverged from the start, within {len(curve.lr)} steps of the lowest LR "
            f"({lowest[0]:.2g}): lower find_lr.min_lr by a factor of 100."
        )
    return (
        f"The range test has too few points ({len(curve.lr)}, at least {MIN_POINTS} are needed): "
        "raise find_lr.steps, 100 is a good number."
    )


def _rose(curve: Curve) -> bool:
    """Whether the curve ends in a loss that is not finite, or higher than its first."""
    blew_up = curve.num_finite < len(curve.loss)
    return blew_up or bool(len(curve.loss) and curve.loss[-1] > curve.loss[0])


def _from_the_start(curve: CombinedCurve) -> str:
    return (
        f"The loss diverged from the start, at the lowest LRs of the test ({curve.lr[0]:.2g}): "
        "lower find_lr.min_lr by a factor of 100."
    )


def _not_descending(curve: CombinedCurve, marks: Landmarks, curves: Sequence[Curve]) -> str:
    span = f"from {curve.lr[0]:.2g} to {curve.lr[-1]:.2g}"
    more = (
        "more steps, more seeds or a larger batch (find_lr.steps, find_lr.seeds, data.batch_size)"
    )
    if curve.smooth[-1] - marks.start > _needed(len(curve.lr)) * curve.noise[-1]:
        return (
            f"The loss never fell by more than its noise before it rose (LR {span}): use {more}. "
            "If that does not help, check the sign of the loss, the targets, and that the "
            "parameters get gradients."
        )
    if ended_infinite(curves):
        return (
            f"The loss stayed flat {span}, and above that it is not finite: use {more}, and check "
            "the model and the loss for overflow and for logarithms or roots of what may be below "
            "0."
        )
    return (
        f"The loss stayed flat {span}: it moved by no more than its noise. Raise find_lr.max_lr "
        f"if that is low, else use {more}, and check that the parameters get gradients."
    )


Array = NDArray[np.float64]
WINDOW = 0.8  # decades of LR over which differences are averaged
MIN_WINDOW_POINTS = 5  # of a window
# Standard errors: of three seeds some ten windows reach it by luck 1 in 400 times.
WINDOW_DEVIATIONS = 4.0
MOST = 2 / 3  # of the seeds must fall
BLOW_UP, STAYS = 3.0, 5  # times its own size that a loss rises, losses in a row: as RangeTestStop


def paired_control(
    curves: Sequence[Curve], control: Sequence[ArrayLike] | None, *, others_train: bool = False
) -> list[Curve] | None:
    """Return each curve against the untrained model; None where that shows no fall either.

    None also where losses are missing or infinite. All begin at one level, so that their median is
    of falls, and not of which seed began lowest.

    Args:
        curves: of the range tests, one for each seed.
        control: for each of them, the losses of the untrained model on the same batches.
        others_train: the test is of one optimizer of several. In the control the others train
            alone, so that only the differences say what this one does; they end where they blow up.
    """
    try:
        before = [np.asarray(losses, dtype=np.float64) for losses in control or ()]
        level = float(np.mean([losses.mean() for losses in before])) if before else 0.0
        paired = [c.against(losses, level) for c, losses in zip(curves, before, strict=True)]
    except (ConfigError, ValueError):  # they do not fit: a model may overflow before any update
        return None
    if others_train:
        return [_until_blow_up(curve, level) for curve in paired] if before else None
    return paired if falls(curves, before) else None


def _until_blow_up(curve: Curve, level: float) -> Curve:
    """Return the curve up to where it stays far above its start, as the rule of a test would."""
    n = curve.num_finite
    loss = curve.loss[:n]
    lowest = np.minimum.accumulate(np.minimum(loss, level))
    above = loss > level + BLOW_UP * np.maximum(abs(level), level - lowest)
    stays = np.convolve(above, np.ones(STAYS), "valid") == STAYS if n >= STAYS else above[:0]
    end = int(np.argmax(stays)) + STAYS if stays.any() else len(curve.loss)
    return Curve(curve.lr[:end], curve.loss[:end])


def falls(curves: Sequence[Curve], control: Sequence[ArrayLike]) -> bool:
    """Return whether training lowered the loss anywhere by more than luck: a paired t-test.

    Over every stretch of 0.8 decades, `t = mean(d) / (sd(d) / √n)` of the differences
    `d = L(w_i; b_i) − L(w_0; b_i)` of all seeds; some `t < −4`, and two thirds of the seeds below 0
    there. Where no direction is better than the start, d is 0 or more on average, however its noise
    grows on the way.

    Args:
        curves: of the range tests; control: as of `paired_control`.

    Source: Student's t-test for pairs; see also Law, Simulation Modeling and Analysis, section
    11.2, on common random numbers.
    """
    num_points = max((len(curve.lr) for curve in curves), default=0)
    differences = np.full((len(curves), num_points), np.nan)
    for row, curve, losses in zip(differences, curves, control, strict=True):
        n = curve.num_finite
        before = np.asarray(losses, dtype=np.float64)[:n]
        moved = curve.loss[:n] - before
        row[:n] = np.where(np.abs(moved) > RESOLUTION * np.abs(before), moved, 0.0)
    longest = max(curves, key=lambda curve: len(curve.lr), default=None)
    if longest is None or num_points < MIN_WINDOW_POINTS:
        return False
    x = np.log10(longest.lr)
    ends = np.maximum(np.searchsorted(x, x + WINDOW), np.arange(num_points) + MIN_WINDOW_POINTS)
    # of windows that end at one point the widest: those at the upper end of the test have no more
    ends, firsts = np.unique(np.minimum(ends, num_points), return_index=True)
    return any(_is_lower(differences[:, i:end]) for i, end in zip(firsts, ends, strict=True))


def _is_lower(differences: Array) -> bool:
    """Return whether differences, (seeds, points), are below 0 by more than luck."""
    alive = differences[np.isfinite(differences).all(axis=1)]
    if 2 * len(alive) <= len(differences):  # as in the median of the curves: half have stopped
        return False
    error = float(alive.std(ddof=1)) / math.sqrt(alive.size)
    is_clear = float(alive.mean()) < -WINDOW_DEVIATIONS * error
    return is_clear and int((alive.mean(axis=1) < 0).sum()) >= MOST * len(differences)
