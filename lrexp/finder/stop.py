"""When a range test has seen enough: a rule as a pure state machine.

A stop rule reads losses one by one, state in and state out, so that an engine may keep the states
of many trials side by side; `first_stop` reads a chunk of them and gives the very same answer.
The rule for trainings is in `divergence`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from lrexp.errors import ConfigError, Problem

S = TypeVar("S")

BETA = 0.9  # the smoothed loss looks back over about ten steps
SETTLE = 5  # steps before any level is believed, and losses in a row that make a rise


class StopRule(Protocol[S]):
    """Decides from the losses so far, and nothing else, whether to stop."""

    def init(self, initial: float | None = None) -> S:
        """Return the state before the first loss; `initial` is one measured before training."""
        ...

    def update(self, state: S, loss: float) -> tuple[S, bool]:
        """Return the state after one more loss, and whether to stop now."""
        ...

    def never_came_back(self, state: S, final: float | None = None) -> bool:
        """Return whether training to the end failed; `final` is a loss evaluated there."""
        ...

    def first_stop(self, losses: ArrayLike, state: S) -> tuple[S, int | None]:
        """Return the state after a chunk of losses, and the index in it that stops, or None."""
        ...

    def to_plain(self, state: S) -> dict[str, Any]:
        """Return the state as numbers, lists and None, for a checkpoint."""
        ...

    def from_plain(self, plain: Mapping[str, Any]) -> S:
        """Return the state that `to_plain` wrote, exactly."""
        ...


def first_stop(rule: StopRule[S], losses: ArrayLike, state: S) -> tuple[S, int | None]:
    """Feed losses to `rule` one by one, up to the first that stops it.

    Example:
        >>> rule = RangeTestStop()
        >>> first_stop(rule, [1.0, float("inf"), 3.0], rule.init())[1]
        1
    """
    for index, loss in enumerate(np.asarray(losses, dtype=np.float64).tolist()):
        state, stop = rule.update(state, loss)
        if stop:
            return state, index
    return state, None


class RangeTestState(NamedTuple):
    """What a range test remembers of its losses."""

    steps: int = 0
    smooth: float = 0.0  # debiased average, after `steps` losses
    first: float = 0.0  # mean of the first losses
    best: float = math.inf  # lowest smoothed loss
    wobble: float = 0.0  # sum of |loss − smoothed loss before it|
    noise: float = 0.0  # mean of the same, as of the best
    above: int = 0  # how many losses in a row have been above the bar
    stopped_at: int | None = None  # index of the loss that stopped the test


class RangeTestStop:
    """Stop a range test when its smoothed loss is far above the best it has reached.

    Stops when the smoothed loss and each of the last five losses exceed the bar
    `best + (stop_factor − 1) · max(best − floor, first − best, 2 · noise)`, and at once when a loss
    is not finite: one spike is no rise. With the floor alone the bar is the usual
    `stop_factor · best`, measured from the lowest loss there can be. The other two scales, what the
    test has gained and how much its losses scatter, take over where that fails: a best loss near
    zero (where 4 × best is within the noise), and losses without a known floor (negative ones,
    where 4 × best lies below best). None of them depends on where zero is, other than by `floor`.
    The smoothed loss is an exponential average (β = 0.9) corrected for its start.

    Args:
        stop_factor: above 1; 4 is usual.
        floor: the lowest value the loss can take (0 for cross-entropy and squared error), or None.

    Raises:
        ConfigError: `stop_factor` is not above 1, or `floor` is not finite.

    Example:
        >>> rule, state = RangeTestStop(stop_factor=4, floor=0.0), RangeTestState()
        >>> for loss in [1.0, 0.9, 0.8, 0.7, 0.7, float("nan")]:
        ...     state, stop = rule.update(state, loss)
        >>> stop, state.stopped_at
        (True, 5)
    """

    def __init__(self, stop_factor: float = 4.0, floor: float | None = None) -> None:
        problems = []
        if not (math.isfinite(stop_factor) and stop_factor > 1):
            problems.append(
                Problem("stop_factor", "must be a number above 1", stop_factor, "4 is usual.")
            )
        if floor is not None and not math.isfinite(floor):
            remedy = "Give the lowest value of the loss, or none."
            problems.append(Problem("floor", "must be finite", floor, remedy))
        if problems:
            raise ConfigError(problems)
        self.stop_factor = stop_factor
        self.floor = floor

    def init(self, initial: float | None = None) -> RangeTestState:
        """Return the state before the first loss."""
        return RangeTestState()

    def update(self, state: RangeTestState, loss: float) -> tuple[RangeTestState, bool]:
        """Return the state after `loss`, and whether to stop (and for good: it stays stopped)."""
        if state.stopped_at is not None:
            return state, True
        if not math.isfinite(loss):
            return state._replace(steps=state.steps + 1, stopped_at=state.steps), True
        after = _advance(state, loss)
        bar = self.threshold(after)
        above = state.above + 1 if loss > bar and after.steps > SETTLE else 0
        stop = above >= SETTLE and after.smooth > bar
        return after._replace(above=above, stopped_at=state.steps if stop else None), stop

    def first_stop(
        self, losses: ArrayLike, state: RangeTestState
    ) -> tuple[RangeTestState, int | None]:
        """Return the state after a chunk of losses, and the index in it that stops, or None."""
        return first_stop(self, losses, state)

    def never_came_back(self, state: RangeTestState, final: float | None = None) -> bool:
        """Return False: a range test that reaches its last LR has done its work."""
        return False

    def to_plain(self, state: RangeTestState) -> dict[str, Any]:
        """Return the state as plain values."""
        return state._asdict()

    def from_plain(self, plain: Mapping[str, Any]) -> RangeTestState:
        """Return the state that `to_plain` wrote."""
        return RangeTestState(**plain)

    def threshold(self, state: RangeTestState) -> float:
        """Return the bar: the loss above which the test stops."""
        rounding = 1e-6 * max(abs(state.first), abs(state.best))  # of a loss in single precision
        scale = max(state.first - state.best, 2.0 * state.noise, rounding)
        if self.floor is not None:
            scale = max(scale, state.best - self.floor)
        return state.best + (self.stop_factor - 1.0) * scale


def _advance(state: RangeTestState, loss: float) -> RangeTestState:
    steps = state.steps + 1
    gain = (1.0 - BETA) / (1.0 - BETA**steps)  # 1 at the first loss: the average starts there
    smooth = state.smooth + gain * (loss - state.smooth)
    wobble = state.wobble + (abs(loss - state.smooth) if state.steps else 0.0)
    first = state.first + (loss - state.first) / steps if steps <= SETTLE else state.first
    best, noise = state.best, state.noise
    if smooth < best or steps <= SETTLE:  # a best among the first few losses would be luck
        # the noise is taken at the best: a blow-up must not raise the bar for itself
        best, noise = smooth, wobble / max(1, state.steps)
    return RangeTestState(steps, smooth, first, best, wobble, noise)
