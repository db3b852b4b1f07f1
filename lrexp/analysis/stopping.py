"""The ramp of a range test, and rules that stop a training, as pure state machines.

A stop rule reads losses one by one, state in and state out, so that an engine may keep the states
of many trials side by side; `first_stop` reads a chunk of them and gives the very same answer. A
rule that fires on a training which would have recovered falsifies a comparison, so the rule of
divergence asks for a lot.
Source: Smith, Cyclical Learning Rates for Training Neural Networks, arXiv 1506.01186, section 3.3.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from annotated_types import Ge
from numpy.typing import ArrayLike

from lrexp.errors import Problem
from lrexp.schedules.schedule import Schedule
from lrexp.schedules.signatures import Count, Positive, checked, require


def _rising(given: Mapping[str, Any]) -> Iterator[Problem]:
    low, high = given.get("min_lr"), given.get("max_lr")
    if low is not None and high is not None and low >= high:
        yield Problem(
            "min_lr", f"must be below max_lr ({high})", low, "Lower min_lr or raise max_lr."
        )


@checked(rules=_rising)
def ramp(
    min_lr: Positive,
    max_lr: Positive,
    steps: Annotated[int, Ge(2)],
    mode: Literal["exp", "linear"] = "exp",
) -> Schedule:
    """Return the schedule that raises the LR from `min_lr` at step 0 to `max_lr` at step `steps−1`.

    With f = i / (steps − 1):  exp `min_lr^(1−f) · max_lr^f` = `min_lr · (max_lr/min_lr)^f`,
    linear `min_lr + f · (max_lr − min_lr)`. After the last step it holds `max_lr`.

    Args:
        min_lr: first LR, positive and below `max_lr`.
        max_lr: last LR.
        steps: number of updates, at least 2.
        mode: `exp` or `linear`.

    Raises:
        ConfigError: with every problem found, keys `min_lr`, `max_lr`, `steps`, `mode`.

    Example:
        >>> [round(ramp(0.01, 1.0, steps=3)(i), 6) for i in range(3)]
        [0.01, 0.1, 1.0]

    Source: arXiv 1506.01186; fastai's `lr_find` for the exponential form, whose last LR falls one
    step short of the maximum.
    """
    last = steps - 1

    def lr(step: int) -> float:
        frac = min(max(step, 0), last) / last  # in [0, 1]; exactly 0 and 1 at the ends
        if mode == "linear":
            return (1.0 - frac) * min_lr + frac * max_lr  # this form is exact at both ends
        # not min·(max/min)^f: the quotient can overflow, and its rounding moves the last LR
        return float(min_lr ** (1.0 - frac) * max_lr**frac)

    return Schedule(lr)


S = TypeVar("S", bound=NamedTuple)


class StopRule(ABC, Generic[S]):
    """Decides from the losses so far, and nothing else, whether to stop."""

    @abstractmethod
    def init(self, initial: float | None = None) -> S:
        """Return the state before the first loss; `initial` is one measured before training."""

    @abstractmethod
    def update(self, state: S, loss: float) -> tuple[S, bool]:
        """Return the state after `loss`, and whether to stop (and for good: it stays stopped)."""

    def never_came_back(self, state: S, final: float | None = None) -> bool:
        """Return whether training to the end failed; `final` is a loss evaluated there."""
        return False

    def first_stop(self, losses: ArrayLike, state: S) -> tuple[S, int | None]:
        """Return the state after a chunk of losses, and the index in it that stops, or None.

        Example:
            >>> rule = RangeTestStop()
            >>> rule.first_stop([1.0, float("inf"), 3.0], rule.init())[1]
            1
        """
        for index, loss in enumerate(np.asarray(losses, dtype=np.float64).tolist()):
            state, stop = self.update(state, loss)
            if stop:
                return state, index
        return state, None

    def to_plain(self, state: S) -> dict[str, Any]:
        """Return the state as numbers, lists and None, for a checkpoint."""
        return state._asdict()

    @abstractmethod
    def from_plain(self, plain: Mapping[str, Any]) -> S:
        """Return the state that `to_plain` wrote, exactly."""


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


class DivergenceStop(StopRule[DivergenceState]):
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

    @checked()
    def __init__(self, factor: Positive = 10.0, patience: Count = 100) -> None:
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
        return super().first_stop(chunk, state)

    def to_plain(self, state: DivergenceState) -> dict[str, Any]:
        """Return the state as plain values."""
        return {**state._asdict(), "first": list(state.first)}

    def from_plain(self, plain: Mapping[str, Any]) -> DivergenceState:
        """Return the state that `to_plain` wrote."""
        return DivergenceState(**{**plain, "first": tuple(plain["first"])})

    def _bar(self, first: tuple[float, ...], lowest: float) -> tuple[float, float]:
        start = sorted(first)[1]
        return start + self.factor * max(abs(start), start - lowest), start


BETA = 0.9  # the smoothed loss looks back over about ten steps
SETTLE = 5  # steps before any level is believed, and losses in a row that make a rise


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


class RangeTestStop(StopRule[RangeTestState]):
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
            what = "must be a number above 1"
            problems.append(Problem("stop_factor", what, stop_factor, "4 is usual."))
        if floor is not None and not math.isfinite(floor):
            remedy = "Give the lowest value of the loss, or none."
            problems.append(Problem("floor", "must be finite", floor, remedy))
        require(*problems)
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
