"""What a race says in the end: an LR, those probably as good, and how wrong it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lrexp.analysis.race import Course, Raced, by_horizon, center, learned, position, regrets

Array = NDArray[np.float64]
TOLERANCE = 0.05  # regret within which an LR is as good as the best
REACH = 0.25  # decades that the basin may go on beyond the last LR that was tried
LEAST = 0.05  # decades on either side that no answer is more exact than
EQUAL = 1e-6  # regret: as good as the best, but for rounding
DOUBT = 0.1  # decades: how much the answer varies from seed to seed


@dataclass(frozen=True)
class Verdict:
    """The answer of a race: LRs where `reason` is None, else why there are none.

    Args:
        lr: for a full training.
        interval: LRs within 5 % of the best in the short trainings, moved down for a full one.
        regret: that the answer is expected to have; None where the best tried is an end of all.
        reason: a sentence for the user when there is no answer.
        note: a sentence on what is not known.
    """

    lr: float | None
    interval: tuple[float, float] | None
    regret: float | None
    reason: str | None = None
    note: str | None = None


def verdict(course: Course, done: Sequence[Raced]) -> Verdict:
    """Return what the rungs say together."""
    if not done:
        return Verdict(None, None, None, "The schedule cannot have any LR near the range test's.")
    rungs = by_horizon(done)
    taught = [r for r in rungs if learned(r.start, r.losses, course.least_gain)]
    widest = max(taught or rungs, key=lambda raced: len(raced.rung.lrs))
    if not taught:
        return Verdict(None, None, None, _nothing_learned(course, widest))
    x, regret = np.log10(widest.rung.lrs), regrets(widest.start, widest.losses)
    middle = position(widest.rung.lrs, widest.start, widest.losses)
    answer = center(course, done)
    low, high = _basin(x - middle, regret)
    end = _end(regret)
    return Verdict(
        lr=float(f"{10**answer:.3g}"),
        interval=(float(f"{10 ** (answer + low):.3g}"), float(f"{10 ** (answer + high):.3g}")),
        regret=_expected(x - middle, regret) if end is None else None,
        note=None if end is None else _best_is_end(widest, end),
    )


def _end(regret: Array) -> str | None:
    """Return which end of the LRs is the best one, where one is and has no equal."""
    best = np.flatnonzero(regret <= EQUAL)
    if len(regret) == 1 or len(best) != 1:
        return None
    return {0: "lowest", len(regret) - 1: "highest"}.get(int(best[0]))


def _best_is_end(raced: Raced, end: str) -> str:
    lr = raced.rung.lrs[0 if end == "lowest" else -1]
    beyond = "below" if end == "lowest" else "above"
    return (
        f"The best LR tried, {lr:.3g}, is the {end} of all: a better one may lie {beyond} it. "
        "Compare LRs around the answer (compare.grid) to be sure."
    )


def _basin(x: Array, regret: Array) -> tuple[float, float]:
    """Return the ends of the LRs around 0 that are within the tolerance."""
    grid = np.linspace(x[0] - REACH, x[-1] + REACH, 801)
    good = grid[np.interp(grid, x, regret) <= TOLERANCE]
    low, high = (float(good.min()), float(good.max())) if len(good) else (0.0, 0.0)
    return min(low, -LEAST), max(high, LEAST)


def _expected(x: Array, regret: Array) -> float:
    """Return the mean regret of LRs around 0, as far from it as the answer may be wrong."""
    grid = DOUBT * np.linspace(-2, 2, 41)
    weight = np.exp(-0.5 * (grid / DOUBT) ** 2)
    return float(weight @ np.interp(grid, x, regret) / weight.sum())


def _nothing_learned(course: Course, last: Raced) -> str:
    low, high = last.rung.lrs[0], last.rung.lrs[-1]
    tried = f"No LR from {low:.2g} to {high:.2g} lowered the loss"
    if course.least_gain > 0:
        return (
            f"{tried} by more than luck would in {last.rung.horizon} steps, nor did the range test "
            "show a fall. Train longer (train.duration, find_lr.budget), and check the targets and "
            "that the parameters get gradients."
        )
    return (
        f"{tried} in {last.rung.horizon} steps, though "
        "the range test fell: what it learned does not carry over to the validation data. Check "
        "the targets and the split, or train longer (train.duration, find_lr.budget)."
    )
