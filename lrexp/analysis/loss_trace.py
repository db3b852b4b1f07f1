"""What a diagnosis is made of: a loss curve reduced to a `Trace`, levels and their errors.

The start is the loss before the first update, which all variants of a seed share; the other levels
are means over stretches of the raw losses, each with the standard error that the scatter of the
losses gives it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrexp.analysis.smoothing import anchored, despike

Array = NDArray[np.float64]
HUGE = 1e100
ROUNDING = 1e-6  # of a loss: what rounding may move a mean by
SHORT = 30  # steps: below, noise is no excuse for a mean that still falls


@dataclass(frozen=True)
class Relapse:
    """The largest rise of the smoothed loss above its lowest value so far.

    Args:
        rise: by how much, low: above what, step: where it was highest.
        error: standard error of a smoothed loss.
    """

    rise: float
    low: float
    step: int
    error: float


@dataclass(frozen=True)
class Trace:
    """Numbers of the finite part of a loss curve, in the unit of the loss."""

    start: float  # the first loss: that before training, where evaluations do not speak against it
    end: float  # mean of the last tenth
    end_typical: float  # median of the last tenth
    lowest: float  # of the smoothed loss
    highest: float  # of the smoothed loss, over short stretches, without spikes of one batch
    highest_step: int  # of the raw losses about there
    num_steps: int
    relapse: Relapse
    quarters: tuple[float, ...]  # mean of each quarter
    pace: float  # share of the steps until four fifths of the drop were made
    error: float  # standard error of `end − start`
    late_noise: float  # standard deviation of a loss in the second half
    quarter_error: float  # standard error of the difference of two late quarters
    evaluated_moved: bool  # whether the evaluations changed by more than their late scatter
    evaluated: tuple[float, float] | None = None  # the first and the last of them

    @property
    def drop(self) -> float:
        """By how much the loss fell from start to end."""
        return self.start - self.end

    @property
    def range(self) -> float:
        """From the start down to the lowest smoothed loss, at least 0."""
        return max(0.0, self.start - self.lowest)

    @property
    def clear(self) -> bool:
        """Whether the loss fell or rose by more than the noise of single batches."""
        quarters = abs(self.quarters[0] - self.quarters[-1]) > 4.0 * self.quarter_error
        return abs(self.drop) > 4.0 * self.error or quarters

    @property
    def moved(self) -> bool:
        """Whether anything happened at all; evaluations show it where the batches hide it."""
        return self.clear or self.evaluated_moved

    def levels(self, sign: int) -> tuple[str, str] | None:
        """Return what fell (sign 1) or rose (-1), and from where to where; None where nothing did.

        The first loss is that of one batch: where the end is on its other side, the quarters or the
        evaluations are what shows it.
        """
        first, last = self.quarters[0], self.quarters[-1]
        found = [
            ("Training loss", self.start, self.end),
            ("Training loss, averaged over each quarter,", first, last),
            *([("The evaluated loss", *self.evaluated)] if self.evaluated else []),
        ]
        for what, begin, end in found:
            if sign * (begin - end) > ROUNDING * abs(begin):
                return what, from_to(begin, end)
        return None

    @property
    def still_falling(self) -> bool:
        """Whether the last quarter fell by more than noise, and more than a 20th of the drop."""
        late_drop = self.quarters[-2] - self.quarters[-1]
        return late_drop > max(0.05 * self.drop, 3.0 * self.quarter_error)

    @property
    def short_and_falling(self) -> bool:
        """Whether there are too few losses to tell by their noise that it stopped falling."""
        return self.num_steps < SHORT and self.quarters[-1] < self.quarters[-2]

    @property
    def steady(self) -> bool:
        """Whether it fell nearly in a straight line: over a third of the drop came at the end."""
        half = (self.quarters[0] + self.quarters[1] - self.quarters[2] - self.quarters[3]) / 2
        return half > 0.4 * self.drop  # 0.5 for a straight line


def trace(losses: ArrayLike, evaluated: ArrayLike = ()) -> Trace | None:
    """Measure a loss curve up to its first non-finite value; None where there is none before it.

    Args:
        losses: raw loss of every step, (steps,).
        evaluated: losses of the evaluations, (evaluations,): less noisy, they help to see movement.

    Example:
        >>> measured = trace([5.0, 4.0, 3.0, 2.0, 1.0])
        >>> measured.drop, measured.pace
        (4.0, 0.8)
    """
    y = np.asarray(losses, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(y))
    y = np.clip(y[: bad[0]] if len(bad) else y, -HUGE, HUGE)  # a square may overflow
    n = len(y)
    if not n:
        return None
    known = np.asarray(evaluated, dtype=np.float64)
    last = max(1, n // 10)
    late_noise = scatter(y[n // 2 :])
    start, end = float(y[0]), float(y[-last:].mean())
    quarters = _quarters(y)
    if end >= start and _ended_lowest(known):
        start = max(start, quarters[0])  # the first batch was an easy one
    smooth = anchored(y, span=max(1.0, n / 20))
    peaks = anchored(despike(y), span=max(1.0, n / 100))
    fallen = np.flatnonzero(smooth <= start - 0.8 * (start - end))
    return Trace(
        start=start,
        end=end,
        end_typical=float(np.median(y[-last:])),
        lowest=float(smooth.min()),
        highest=float(peaks.max()),
        highest_step=_highest_step(y, int(peaks.argmax())),
        num_steps=n,
        relapse=_relapse(y),
        quarters=quarters,
        pace=float(fallen[0]) / n if len(fallen) else 1.0,
        error=max(late_noise, scatter(y[: min(5, n // 20)])) * float(np.sqrt(1 + 1 / last)),
        late_noise=late_noise,
        quarter_error=late_noise * float(np.sqrt(2.0 / max(1, n // 4))),
        evaluated_moved=_has_moved(known),
        evaluated=(float(known[0]), float(known[-1])) if len(known) else None,
    )


def from_to(begin: float, end: float) -> str:
    """Return `0.671 to 0.693`, with as many digits as tell the two apart."""
    texts = ((f"{begin:.{digits}g}", f"{end:.{digits}g}") for digits in (3, 4, 5, 6))
    return " to ".join(
        next((pair for pair in texts if pair[0] != pair[1]), (f"{begin:.9g}", f"{end:.9g}"))
    )


def _quarters(y: Array) -> tuple[float, ...]:
    """Return the means of the four quarters; below four losses the last one stands in."""
    means = [float(part.mean()) for part in np.array_split(y, 4) if len(part)]
    return tuple(means + means[-1:] * (4 - len(means)))


def _ended_lowest(evaluated: Array) -> bool:
    return len(evaluated) > 1 and bool(evaluated[0] > evaluated[-1] == evaluated.min())


def _has_moved(evaluated: Array) -> bool:
    falls = -np.diff(evaluated)
    if len(falls) >= 3 and (falls > 0).all() and falls.sum() > 0.1 * abs(evaluated[0]):
        return True
    late = evaluated[len(evaluated) // 2 :]
    return len(late) >= 3 and abs(float(evaluated[0] - evaluated[-1])) > 4.0 * scatter(late)


def _relapse(y: Array) -> Relapse:
    span = max(1.0, len(y) / 20)
    smooth = anchored(despike(y), span=span)
    so_far = np.minimum.accumulate(smooth)
    step = int(np.argmax(smooth - so_far))
    rise, low = float(smooth[step] - so_far[step]), float(so_far[step])
    return Relapse(rise, low, step, scatter(y) / float(np.sqrt(span)))


def _highest_step(y: Array, about: int) -> int:
    """Return the step of the highest loss near the highest smoothed one."""
    reach = max(2, len(y) // 100)
    first = max(0, about - reach)
    return first + int(y[first : about + reach + 1].argmax())


def scatter(y: Array) -> float:
    """Return the standard deviation of the noise, from second differences (a slope has none)."""
    if len(y) < 3:
        return 0.0
    return float(np.sqrt(np.mean((y[2:] - 2 * y[1:-1] + y[:-2]) ** 2) / 6))
