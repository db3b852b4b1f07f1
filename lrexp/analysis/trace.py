"""One training reduced to the few numbers a diagnosis needs: levels, their noise, the late slope.

Levels are means over stretches of the raw losses, each with the standard error that the scatter
of the losses gives it, so that "fell" and "rose" always mean: by more than chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrexp.analysis.smooth import zero_lag

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """Numbers of the finite part of a loss curve, in the unit of the loss."""

    start: float  # mean of the first few losses
    middle: float  # mean around half of the training
    end: float  # mean of the last tenth
    lowest: float  # of the smoothed loss
    highest: float  # of the smoothed loss, over short stretches
    highest_at: int  # its step
    late_drop: float  # mean of the third quarter − mean of the last
    late_error: float  # standard error of `late_drop`
    error: float  # standard error of start − end

    @property
    def drop(self) -> float:
        """By how much the loss fell from start to end."""
        return self.start - self.end

    @property
    def range(self) -> float:
        """From the start down to the lowest smoothed loss, at least 0."""
        return max(0.0, self.start - self.lowest)

    @property
    def moved(self) -> bool:
        """Whether the end differs from the start by more than noise."""
        return abs(self.drop) > 4.0 * self.error

    @property
    def still_falling(self) -> bool:
        """Whether the last quarter fell by more than noise, and more than a 20th of the drop."""
        return self.late_drop > max(0.05 * self.drop, 3.0 * self.late_error)

    @property
    def second_half(self) -> float:
        """The share of the drop made in the second half: 0.5 for a straight line."""
        return (self.middle - self.end) / self.drop if self.drop > 0 else 0.0


def trace(losses: ArrayLike) -> Trace | None:
    """Measure a loss curve up to its first non-finite value; None where there is none before it.

    Args:
        losses: raw loss of every step, (steps,).

    Example:
        >>> measured = trace([4.0, 3.0, 2.0, 1.0])
        >>> measured.drop, measured.second_half
        (3.0, 0.5)
    """
    y = finite_part(losses)
    n = len(y)
    if not n:
        return None
    first, last = max(1, min(5, n // 20)), max(1, n // 10)
    around = y[(n - 1) // 2 - (last - 1) // 2 : n // 2 + (last - 1) // 2 + 1]
    quarter = max(1, n // 4)
    late = y[-2 * quarter :] if n >= 2 * quarter else y
    third, fourth = late[:-quarter], late[-quarter:]
    noise, late_noise = scatter(y), scatter(late)
    peaks = zero_lag(y, span=max(2.0, n / 100))
    return Trace(
        start=float(y[:first].mean()),
        middle=float(around.mean()),
        end=float(y[-last:].mean()),
        lowest=float(zero_lag(y, span=max(2.0, n / 20)).min()),
        highest=float(peaks.max()),
        highest_at=int(peaks.argmax()),
        late_drop=float(third.mean() - fourth.mean()) if len(third) else 0.0,
        late_error=late_noise * float(np.sqrt(2.0 / quarter)),
        error=noise * float(np.sqrt(1.0 / first + 1.0 / last)),
    )


def finite_part(losses: ArrayLike) -> Array:
    """Return the losses before the first that is not finite."""
    y = np.asarray(losses, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(y))
    return y[: bad[0]] if len(bad) else y


def scatter(y: Array) -> float:
    """Return the standard deviation of the noise, from second differences (a slope has none)."""
    if len(y) < 3:
        return 0.0
    return float(np.sqrt(np.mean((y[2:] - 2 * y[1:-1] + y[:-2]) ** 2) / 6))


def column(evals: Mapping[str, ArrayLike] | None, name: str) -> tuple[Array, Array]:
    """Return steps and finite values of a column of the evaluations; empty where it is absent."""
    if not evals or name not in evals:
        return np.empty(0), np.empty(0)
    values = np.asarray(evals[name], dtype=np.float64)
    steps = np.asarray(evals.get("step", np.arange(len(values))), dtype=np.float64)
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def final_loss(losses: ArrayLike, evals: Mapping[str, ArrayLike] | None = None) -> float | None:
    """Return where a training ended: the last val_loss, else train_loss, else its last losses.

    The lowest of these over the variants of a comparison is `best_final` of `diagnose`.

    Args:
        losses: raw loss of every step, (steps,); without evaluations the mean of the last tenth
            counts.
        evals: columns by name, nan where absent.

    Returns:
        A finite loss, or None where the training ended without one.
    """
    for name in ("val_loss", "train_loss"):
        if evals and name in evals and np.isfinite(np.asarray(evals[name], dtype=float)).any():
            last = float(np.asarray(evals[name], dtype=float)[-1])
            return last if np.isfinite(last) else None
    measured = trace(losses)
    whole = np.asarray(losses, dtype=np.float64)
    return measured.end if measured and np.isfinite(whole).all() else None
