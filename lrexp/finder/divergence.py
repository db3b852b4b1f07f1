"""When a training has diverged: not finite, or far above its start for good.

A rule that fires on a training which would have recovered falsifies a comparison; one that fires
late costs a little time. So it asks for a lot: early explosions by many orders of magnitude do
come back (adaptive optimizers and decaying schedules bring them), and are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lrexp.errors import ConfigError, Problem
from lrexp.finder.stop import first_stop

FIRST = 3  # losses whose median is the start: one that is lucky or has exploded does not matter
KEPT = 0.9  # weight kept per step by the average that tells a recovery
STAY = 4  # an excursion counts as for good when it fills the last 1/4 of the training so far


class DivergenceState(NamedTuple):
    """What the rule remembers of the losses of a training."""

    steps: int = 0
    first: tuple[float, ...] = ()  # the first three losses, one before training included
    lowest: float = math.inf
    above: int = 0  # how many losses in a row have been far above the start
    smooth: float = 0.0  # average over this excursion
    peak: float = 0.0  # highest value of that average since it last halved
    stopped_at: int | None = None  # index of the loss that stopped the training
    excursion: int = 0  # how many losses in a row, halvings of their average included


class DivergenceStop:
    """Stop a training whose loss is not finite, or far above its start for good.

    Far above: `loss > start + factor · max(|start|, start − lowest)`, with `start` the median of
    the first three losses and `lowest` the lowest so far. For good: every single loss of the last
    `max(patience, steps/4)` was, and their average did not halve meanwhile. Noise (batches of one
    included) drops below the bar again and again, a spike or a warmup transient comes back, and
    the scale is that of the losses themselves, be they negative or tiny: none of these fires.

    Args:
        factor: how many times its own size the loss must have risen; positive.
        patience: losses in a row, at least 1.

    Raises:
        ConfigError: `factor` or `patience` is out of range.

    Example:
        >>> rule, state = DivergenceStop(patience=3), DivergenceState()
        >>> for loss in [1.0, 0.9, 0.8, 70.0, 80.0, 90.0]:
        ...     state, stop = rule.update(state, loss)
        >>> stop, state.stopped_at
        (True, 5)
    """

    def __init__(self, factor: float = 10.0, patience: int = 100) -> None:
        problems = []
        if not (math.isfinite(factor) and factor > 0):
            problems.append(Problem("factor", "must be a positive number", factor, "Try 10."))
        if patience < 1:
            problems.append(Problem("patience", "must be at least 1", patience, "Try 100."))
        if problems:
            raise ConfigError(problems)
        self.factor = factor
        self.patience = patience

    def init(self, initial: float | None = None) -> DivergenceState:
        """Return the state before the first loss.

        Args:
            initial: a loss measured before training, if there is one. It counts among the first
                three, so that an explosion in the very first updates cannot pass for the start.
        """
        known = initial is not None and math.isfinite(initial)
        return DivergenceState(first=(initial,) if known and initial is not None else ())

    def update(self, state: DivergenceState, loss: float) -> tuple[DivergenceState, bool]:
        """Return the state after `loss`, and whether to stop (and for good: it stays stopped)."""
        steps, first, lowest, above, smooth, peak, stopped_at, excursion = state
        if stopped_at is not None:
            return state, True
        if not math.isfinite(loss):
            return state._replace(steps=steps + 1, stopped_at=steps), True
        lowest = min(lowest, loss)
        if len(first) < FIRST:
            return DivergenceState(steps + 1, (*first, loss), lowest), False
        bar, start = self._bar(first, lowest)
        if loss <= bar:
            return DivergenceState(steps + 1, first, lowest), False
        smooth = KEPT * smooth + (1.0 - KEPT) * loss if above else loss
        above += 1
        if smooth - start < 0.5 * (peak - start):
            above, peak = 1, smooth  # it halved: a recovery is under way, and gets its time
        peak = max(peak, smooth)
        stop = above >= self.patience and STAY * above >= steps + 1
        stopped_at = steps if stop else None
        after = DivergenceState(
            steps + 1, first, lowest, above, smooth, peak, stopped_at, excursion + 1
        )
        return after, stop

    def never_came_back(self, state: DivergenceState, final: float | None = None) -> bool:
        """Return whether a training that ran to its end was far above its start at that end.

        It was for its last tenth (losses that fall from an explosion get time to come back, but
        not more than the training has), or as `final`, a loss measured over many samples, says.
        """
        if final is not None and len(state.first) == FIRST:
            bar, _ = self._bar(state.first, state.lowest)
            if math.isnan(final) or final > bar:
                return True
        return state.excursion > 0 and 10 * state.excursion >= state.steps

    def first_stop(
        self, losses: ArrayLike, state: DivergenceState
    ) -> tuple[DivergenceState, int | None]:
        """Return the state after a chunk of losses, and the index in it that stops, or None.

        A chunk that never comes near the bar, as nearly all do, takes one pass of numpy.
        """
        chunk = np.asarray(losses, dtype=np.float64)
        if len(chunk) and len(state.first) == FIRST and state.stopped_at is None:
            bar, _ = self._bar(state.first, state.lowest)  # within the chunk it can only rise
            low, high = float(chunk.min()), float(chunk.max())
            if high <= bar and math.isfinite(low):  # nan compares false
                lowest = min(state.lowest, low)
                return DivergenceState(state.steps + len(chunk), state.first, lowest), None
        return first_stop(self, chunk, state)

    def to_plain(self, state: DivergenceState) -> dict[str, Any]:
        """Return the state as plain values."""
        return {**state._asdict(), "first": list(state.first)}

    def from_plain(self, plain: Mapping[str, Any]) -> DivergenceState:
        """Return the state that `to_plain` wrote."""
        return DivergenceState(**{**plain, "first": tuple(plain["first"])})

    def _bar(self, first: tuple[float, ...], lowest: float) -> tuple[float, float]:
        start = sorted(first)[1]
        return start + self.factor * max(abs(start), start - lowest), start
