"""The rules that read one LR off a range test, each a function of the curve.

They see the combined, smoothed curve over log10 LR without its first tenth and its diverging
tail, and return an LR or None where the curve has nothing to read. The table of them is that of
the config; `register_rule` adds to it. The edge of stability is for curves that show no fall.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrexp.analysis.range_curve import RESOLUTION, CombinedCurve, basin, landmarks, start_level
from lrexp.config.rule_names import RULES, Rule
from lrexp.errors import ConfigError, UserCodeError, user_error

NOISE = 3.0  # deviations of a single loss before the rise: what lies above has risen
BELOW_EDGE = 0.05  # of the edge: the middle of the LRs that are worth a training


def stability_edge(curve: CombinedCurve) -> float | None:
    """Return the LR above which the loss stays higher than at its start.

    None where it never does, or does from the lowest LRs on: the loss must have stood still before.

    Args:
        curve: the combined curve.

    Example:
        >>> from lrexp.analysis.range_curve import Curve, combine
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


Array = NDArray[np.float64]
POINTS_PER_DECADE = 99 / 8  # of the usual test, 100 steps over 1e-7 … 10
MARGIN = 1.0  # decades: a test stays for few steps at each LR, and shows late that one is too high
BOTTOM = 0.75  # of the drop: the level of the middle of the bottom
SLIDE_INTERVAL = 15  # points of that test: 1.2 decades
SLIDE_THRESHOLD = 0.03  # share of the curve's range, per decade


def steepest(curve: CombinedCurve) -> float | None:
    """Return the LR at which the smoothed loss falls fastest, `argmin dL / d log10 lr`.

    Example:
        >>> from lrexp.analysis.range_curve import Curve, combine
        >>> lr = [10.0 ** (k / 4 - 4) for k in range(17)]
        >>> loss = [2 - 1 / (1 + (0.01 / x) ** 2) for x in lr]
        >>> round(steepest(combine([Curve(lr, loss)])), 4)
        0.01
    """
    region = _region(curve)
    if region is None:
        return None
    x, smooth = region
    slope = np.gradient(smooth, x)
    lowest = int(np.argmin(slope))
    return float(10 ** x[lowest]) if slope[lowest] < 0 else None


def minimum(curve: CombinedCurve) -> float | None:
    """Return a tenth of the LR at which the smoothed loss is lowest."""
    region = _region(curve)
    if region is None:
        return None
    x, smooth = region
    return float(10 ** (x[np.argmin(smooth)] - 1))


def valley(curve: CombinedCurve) -> float | None:
    """Return the LR at about half of the longest decrease; see `valley_index`.

    The decrease is looked for from where the loss starts to fall: ripples of a flat start also
    hold decreasing values, and would draw its beginning down by decades.

    Source: fastai's `valley`, the default of its `lr_find`.
    """
    region = _region(curve, from_fall=True)
    if region is None:
        return None
    x, smooth = _even(*region)
    if not np.any(np.diff(smooth) < 0):
        return None
    return float(10 ** x[valley_index(smooth)])


def slide(curve: CombinedCurve) -> float | None:
    """Return the LR at which a window, slid in from the right, first finds equal slopes.

    The window spans 15 points (1.2 decades). It moves left while the slopes at its two ends differ
    by more than 0.03 of the curve's range per decade, and its left end is the answer.

    Source: fastai's `slide`, whose threshold of 0.005 is in units of the loss.
    """
    region = _region(curve)
    if region is None:
        return None
    x, smooth = _even(*region)
    if len(x) <= SLIDE_INTERVAL:
        return None
    slope = np.gradient(smooth, x)
    threshold = SLIDE_THRESHOLD * float(np.ptp(smooth))
    left = len(x) - 1 - SLIDE_INTERVAL
    # signed: the difference starts positive, and where it changes sign the slopes were equal
    while left > 0 and slope[left + SLIDE_INTERVAL] - slope[left] > threshold:
        left -= 1
    return float(10 ** x[left])


def auto(curve: CombinedCurve) -> float | None:
    """Return the median of three readings of the curve: `median(low, bottom / 10, high / 10)`.

    `low` and `high` are the sides of the basin, the LRs at which the smoothed loss crosses the
    level half way between its start and its minimum; `bottom` is the middle, in log LR, of where
    three quarters of the drop are made. The LR suits a constant schedule; under one that decays to
    zero the peak may be twice as high (see `suggest`).

    - `low` is fast enough: here half of what the test learned was learned.
    - `bottom / 10` is the rule of thumb, a tenth of the LR of the lowest loss. Where on a flat
      bottom the lowest point lies is luck; its middle is not.
    - `high / 10` is stable: a test stays for few steps at each LR, so it passes LRs that are too
      high for a training before the loss shows it.
    - Each fails in its own way: on a fall in two steps, on a lopsided bottom, where nothing
      diverges. No one of them can spoil the median alone.

    It sees how fast the loss falls and where training becomes unstable; it cannot see that a model
    with few data overfits, where less training, so a lower LR, has the better validation loss.

    Example:
        >>> from lrexp.analysis.range_curve import Curve, combine
        >>> x = np.linspace(-6, 0, 121)  # log10 LR; the loss falls from -3 to -2 and rises from -1
        >>> loss = np.interp(x, [-3, -2, -1, 0], [1.0, 0.0, 0.0, 2.0])
        >>> f"{np.log10(auto(combine([Curve(10**x, loss)]))):.1f}"  # of -2.5, -2.6 and -1.8
        '-2.5'

    Source: the accuracy benchmark, tests/benchmarks/README.md, which also has what else was tried.
    """
    found = readings(curve)
    return float(np.median(list(found.values()))) if found is not None else None


def readings(curve: CombinedCurve) -> dict[str, float] | None:
    """Return the three LRs whose median is `auto`, by name; None where the loss never fell."""
    sides, bottom = basin(curve), basin(curve, BOTTOM)
    if _region(curve) is None or sides is None or bottom is None:
        return None
    return {
        "low": float(10**sides.low),
        "bottom / 10": float(10 ** (bottom.middle - MARGIN)),
        "high / 10": float(10 ** (sides.high - MARGIN)),
    }


RULES.update(auto=auto, steepest=steepest, minimum=minimum, valley=valley, slide=slide)


def register_rule(name: str) -> Callable[[Rule], Rule]:
    """Return a decorator that makes a function of the curve a rule of that name.

    The rule gets a `CombinedCurve`: `lr` and the smoothed loss `smooth`, (points,) each, and
    more. It returns an LR, or None where the curve has nothing to read. `find_lr.rule` can name it
    from then on, and every range test reports what it says.

    The name is known in this process. A command imports the modules that its config names and those
    that `--trust` names: one of them has to register the rule.

    Raises:
        ConfigError: the name is that of a rule of another module.

    Example:
        >>> @register_rule("last")
        ... def last(curve):
        ...     return curve.lr[-1]
        >>> from lrexp.analysis.range_curve import Curve, combine
        >>> RULES["last"](combine([Curve([0.1, 0.2], [1.0, 2.0])]))
        0.2
        >>> del RULES["last"]
    """

    def decorate(rule: Rule) -> Rule:
        if RULES.get(name, rule).__module__ != rule.__module__:  # it may be imported anew
            what = "is the name of another rule"
            raise ConfigError.single("name", what, name, "Choose another.")
        RULES[name] = _checked(name, rule)
        return rule

    return decorate


def _checked(name: str, rule: Rule) -> Rule:
    """Return the rule; what it raises, and what is no LR, is an error that names it."""

    @functools.wraps(rule)
    def checked(curve: CombinedCurve) -> float | None:
        try:
            found: Any = rule(curve)
        except Exception as error:
            raise user_error(error, f"the rule {name}") from error
        if found is None:
            return None
        is_number = isinstance(found, Real) and not isinstance(found, bool)
        lr = float(found) if is_number else math.nan
        if 0 < lr < math.inf:
            return lr
        raise UserCodeError(f"the rule {name} must return an LR above 0 or None, got {found!r}.")

    return checked


def valley_index(loss: ArrayLike) -> int:
    """Return `start + ⌊s⌋ + ⌊s/2⌋`, s = (end − start)/3, of the longest decreasing subsequence.

    Example:
        >>> valley_index([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])  # start 0, end 9, s = 3
        4
    """
    start, end = longest_decrease(loss)
    third = (end - start) / 3
    return start + int(third) + int(third / 2)


def longest_decrease(loss: ArrayLike) -> tuple[int, int]:
    """Return the first and last index of the longest strictly decreasing subsequence.

    A subsequence may skip points: a bump does not end a decrease. Of several longest ones it is
    the one that ends first, and there the one whose members come first.

    Example:
        >>> longest_decrease([5.0, 4.0, 9.0, 3.0, 8.0])
        (0, 3)
    """
    y = np.asarray(loss, dtype=np.float64)
    length = np.ones(len(y), dtype=int)
    origin = np.arange(len(y))  # where the longest decrease that ends here starts
    for i in range(1, len(y)):
        reach = np.where(y[:i] > y[i], length[:i], 0)
        best = int(np.argmax(reach))
        if reach[best]:
            length[i], origin[i] = reach[best] + 1, origin[best]
    end = int(np.argmax(length))
    return int(origin[end]), end


def _region(curve: CombinedCurve, *, from_fall: bool = False) -> tuple[Array, Array] | None:
    """Return log10 LR and smoothed loss without the first tenth and the diverging tail."""
    if len(curve.lr) < 3:
        return None
    marks = landmarks(curve)
    here = slice(marks.fall if from_fall else marks.first, marks.edge + 1)
    return (curve.log_lr[here], curve.smooth[here]) if marks.edge - here.start >= 2 else None


def _even(x: Array, y: Array) -> tuple[Array, Array]:
    """Resample to an even log10 LR grid of the usual density: counts of points become decades."""
    num_points = max(3, 1 + round((x[-1] - x[0]) * POINTS_PER_DECADE))
    grid = np.linspace(x[0], x[-1], num_points)
    return grid, np.interp(grid, x, y)
