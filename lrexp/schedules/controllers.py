"""Schedules that react to training: `plateau` and `adaptive_cycle`, with explicit state.

`plateau` has the semantics of torch's ReduceLROnPlateau, for metrics of any sign. `adaptive_cycle`
cycles between low and high LRs by the training loss: EXPLOIT (towards `base_lr`) while it falls,
EXPLORE (around the middle) while it is flat, ESCAPE (above the middle, for a bounded burst) when it
rises or sets no new best for long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from lrexp.errors import NOTHING, ConfigError
from lrexp.records import METRICS, column_of
from lrexp.schedules.schedule import (
    DURATION,
    StepOrMore,
    Steps,
    at_most,
    floor_of,
    register,
    warmup_fraction,
)
from lrexp.schedules.signatures import (
    Count,
    Fraction,
    Natural,
    NonNegative,
    OneOrMore,
    Positive,
    Share,
    require,
)

Mode = Literal["min", "max"]
ThresholdMode = Literal["rel", "abs"]
LOWEST_LR = 1e-6  # the default floor


def monitored(monitor: str, mode: Mode | None) -> tuple[str, Mode]:
    """Return the column of a metric that a controller follows, and which of its values are better.

    Raises:
        ConfigError: nobody knows which.
    """
    column = column_of(monitor)
    mode = mode or (METRICS[column].direction if column in METRICS else None)
    if mode is None:
        what = f"is needed: nobody knows which values of {column} are better"
        raise ConfigError.single("mode", what, NOTHING, "Add it: min or max.")
    return column, mode


@register("plateau")
def plateau(
    lr: Positive,
    total_steps: Count,
    *,
    monitor: str = "val_loss",
    mode: Mode | None = None,
    factor: Annotated[float, Gt(0), Lt(1)] = 0.5,
    patience: Natural = 2,
    threshold: NonNegative = 1e-4,
    threshold_mode: ThresholdMode = "rel",
    cooldown: Natural = 0,
    min_lr: NonNegative | None = None,
    final_div_factor: OneOrMore | None = None,
    eps: NonNegative = 1e-8,
    warmup: Steps = 0,
    warmup_start: Share | None = None,
) -> Plateau:
    """`lr ← max(m, lr·factor)` after more than `patience` evaluations without a new best.

    A value is a new best when it is better than the best by more than `threshold·|best|` (rel) or
    `threshold` (abs). A non-finite value is never better. An evaluation during the warmup sets the
    best but never counts as bad, so the LR after the warmup is always η.

    Args:
        monitor: train_loss, val_loss or another metric, at every evaluation.
        mode: min or max; follows the monitor by default, where it is known which is better.
        factor: in (0, 1).
        patience: evaluations, at least 0; the next bad one lowers the LR.
        cooldown: evaluations after a reduction that are not counted, at least 0.
        min_lr: m; 1e-6 by default, or η where that is lower.
        eps: a reduction of at most this is not made.

    Example:
        >>> control = plateau(1.0, 100, patience=0)
        >>> state = control.init()
        >>> for loss in (2.0, 1.0, 1.0):
        ...     state = control.observe(state, 0, loss)
        >>> control.lr(state, 1)
        0.5

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau; with |best| where torch has best, whose
    threshold has the wrong sign for a negative metric.
    """
    low = min(LOWEST_LR, lr) if min_lr is None else min_lr
    if monitor == "loss":
        what, remedy = "must be measured at evaluations", "Give val_loss, train_loss or a metric."
        raise ConfigError.single("monitor", what, monitor, remedy)
    column, mode = monitored(monitor, mode)
    return Plateau(
        monitor=column,
        peak=float(lr),
        sign=1 if mode == "min" else -1,
        factor=factor,
        patience=patience,
        threshold=threshold,
        relative=threshold_mode == "rel",
        cooldown=cooldown,
        low=floor_of(lr, low, final_div_factor),
        eps=eps,
        warmup=warmup,
        warmup_start=warmup_start,
    )


@dataclass(frozen=True, slots=True)
class PlateauState:
    """What `Plateau` remembers between evaluations."""

    lr: float
    best: float | None = None
    num_bad: int = 0
    cooldown_left: int = 0


@dataclass(frozen=True)
class Plateau:
    """The controller that `plateau` makes from checked numbers."""

    monitor: str
    peak: float
    sign: int  # 1: lower is better; -1: higher is better
    factor: float
    patience: int
    threshold: float
    relative: bool
    cooldown: int
    low: float
    eps: float
    warmup: int
    warmup_start: float | None

    def init(self) -> PlateauState:
        """Return the state before training: the peak, nothing seen."""
        return PlateauState(self.peak)

    def lr(self, state: PlateauState, step: int) -> float:
        """Return the LR used for update `step`."""
        return state.lr * warmup_fraction(step, self.warmup, self.warmup_start)

    def observe(self, state: PlateauState, step: int, value: float) -> PlateauState:
        """Return the state after an evaluation that followed update `step`."""
        better = self._is_better(value, state.best)
        best = float(value) if better else state.best
        if step < self.warmup:
            return replace(state, best=best)
        num_bad = 0 if better else state.num_bad + 1
        cooldown_left = state.cooldown_left
        if cooldown_left > 0:
            cooldown_left, num_bad = cooldown_left - 1, 0
        if num_bad <= self.patience:
            return PlateauState(state.lr, best, num_bad, cooldown_left)
        reduced = max(state.lr * self.factor, self.low)
        lr = reduced if state.lr - reduced > self.eps else state.lr
        return PlateauState(lr, best, 0, self.cooldown)

    def to_plain(self, state: PlateauState) -> dict[str, Any]:
        """Return the state as plain values."""
        return asdict(state)

    def from_plain(self, plain: Mapping[str, Any]) -> PlateauState:
        """Return the state that `to_plain` wrote."""
        return PlateauState(**plain)

    def _is_better(self, value: float, best: float | None) -> bool:
        if not math.isfinite(value) or best is None:
            return math.isfinite(value)
        if not self.relative:
            return self.sign * value < self.sign * best - self.threshold
        # the same product as torch's for a positive best; the sign turned for a negative one
        bar = best * (1 - self.sign * math.copysign(self.threshold, best))
        return self.sign * value < self.sign * bar


EXPLOIT, EXPLORE, ESCAPE = "exploit", "explore", "escape"
_LARGEST = 1e100  # a loss beyond it counts as non-finite: sums of such losses could overflow
_TINY = 1e-12  # keeps improvement finite where the older losses average 0


@register("adaptive_cycle")
def adaptive_cycle(
    lr: Positive,
    total_steps: Count,
    *,
    base_lr: Positive | None = None,
    max_lr: Positive | None = None,
    window_size: Annotated[int, Ge(2), DURATION] = 150,
    patience: StepOrMore = 600,
    improvement_threshold: Positive = 0.01,
    plateau_threshold: Positive = 0.005,
    smoothing: Fraction = 0.99,
    escape_multiplier: OneOrMore = 1.5,
    seed: Natural = 0,
    warmup: Steps = 0,
    warmup_start: Share | None = None,
) -> AdaptiveCycle:
    """`AdaptiveCycle` with max_lr = η and base_lr = min(η, max_lr)/10, unless they are given.

    A warmup leads to the LR the controller starts with; the losses seen in it are not judged.

    Args:
        base_lr: lower bound, in (0, max_lr].
        max_lr: upper bound, never exceeded.
        window_size: losses that are judged together, at least 2 steps.
        patience: steps without a new best smoothed loss before an escape, at least 1.
        improvement_threshold: relative fall of the loss that is exploited, above 0.
        plateau_threshold: relative change that counts as none, in (0, improvement_threshold].
        smoothing: part of the LR kept at each step, in [0, 1).
        escape_multiplier: of the middle LR, at least 1.
        seed: of the noise in EXPLORE.

    Example:
        >>> control = adaptive_cycle(1e-3, 1000)
        >>> round(control.lr(control.init(), 0), 6)
        0.00055
    """
    high = lr if max_lr is None else max_lr
    low = min(lr, high) / 10 if base_lr is None else base_lr
    limit = improvement_threshold
    require(
        *at_most("base_lr", low, high, "the peak LR" if max_lr is None else "max_lr"),
        *at_most("plateau_threshold", plateau_threshold, limit, "improvement_threshold"),
    )
    thresholds = (improvement_threshold, plateau_threshold, smoothing, escape_multiplier)
    rest = (seed, warmup, warmup_start)
    return AdaptiveCycle(float(low), float(high), window_size, patience, *thresholds, *rest)


@dataclass(frozen=True, slots=True)
class AdaptiveCycleState:
    """What `AdaptiveCycle` remembers between steps: plain values, copied whole at each step."""

    lr: float
    phase: str = EXPLORE
    improvement: float = 0.0
    best_loss: float | None = None
    steps_since_best: int = 0
    burst_left: int = 0
    window: tuple[float, ...] = ()
    smoothed_loss: float = 0.0
    num_losses: int = 0


@dataclass(frozen=True)
class AdaptiveCycle:
    """The controller that `adaptive_cycle` makes from checked numbers.

    After every update, over the last `window_size` losses in an older and a recent half:
    `improvement = (old − recent)/|old|`, and

    - improvement >= improvement_threshold: EXPLOIT, target base_lr;
    - |improvement| < plateau_threshold: EXPLORE, target middle = (base_lr + max_lr)/2 plus noise;
    - improvement <= −plateau_threshold, a non-finite loss, or no new best smoothed loss for
      `patience` steps: ESCAPE, target min(max_lr, middle·escape_multiplier);
    - between the thresholds the phase stays.

    `lr ← smoothing·lr + (1−smoothing)·target`, within [base_lr, max_lr].

    Where the rule leaves room:

    - It starts in EXPLORE at the middle LR and judges no improvement before the window is full.
      Both trained better, or diverged less, than a start at either bound and than judging a short
      window, which mistakes the noise of a few batches for a trend (MLP on digits, SGD and AdamW).
    - The noise is uniform within a quarter of max_lr − base_lr to either side, a hash of (seed,
      step), so that a resumed training sees the same.
    - The smoothed loss is the mean of all losses so far with weights that decay by `smoothing`.
    - A burst lasts `window_size` steps, uninterrupted, so that it is judged by its own losses
      alone; half of that trained a little worse. A loss that still rises starts the next burst;
      after one that no other follows, EXPLORE.
    - A loss that improves is exploited even if `patience` has run out.
    """

    base_lr: float
    max_lr: float
    window_size: int
    patience: int
    improvement_threshold: float
    plateau_threshold: float
    smoothing: float
    escape_multiplier: float
    seed: int
    warmup: int = 0
    warmup_start: Share | None = None
    monitor: str = "loss"

    @property
    def middle_lr(self) -> float:
        """The LR that EXPLORE wavers around and ESCAPE multiplies."""
        return (self.base_lr + self.max_lr) / 2

    def init(self) -> AdaptiveCycleState:
        """Return the state before training: the middle LR, nothing seen."""
        return AdaptiveCycleState(self.middle_lr)

    def lr(self, state: AdaptiveCycleState, step: int) -> float:
        """Return the LR used for update `step`."""
        return state.lr * warmup_fraction(step, self.warmup, self.warmup_start)

    def observe(self, state: AdaptiveCycleState, step: int, value: float) -> AdaptiveCycleState:
        """Return the state after the loss `value` of update `step`."""
        if step < self.warmup:
            return state
        finite = abs(value) <= _LARGEST  # False for nan
        window, smoothed, best = state.window, state.smoothed_loss, state.best_loss
        since_best = state.steps_since_best + 1
        if finite:
            window = (*window[-self.window_size + 1 :], value)
            smoothed += (value - smoothed) * self._weight(state.num_losses)
            if best is None or smoothed < best:
                best, since_best = smoothed, 0
        improvement = self._improvement(window)
        rising = not finite or improvement <= -self.plateau_threshold
        burst_left = max(0, state.burst_left - 1)
        if state.burst_left == 1:
            since_best = 0  # the burst is over: patience starts afresh
        phase = state.phase
        if burst_left == 0:
            phase = self._phase(state, improvement, rising, since_best, len(window))
            burst_left = self.window_size if phase == ESCAPE else 0
        return AdaptiveCycleState(
            self._next_lr(state.lr, phase, step),
            phase,
            improvement,
            best,
            since_best,
            burst_left,
            window,
            smoothed,
            state.num_losses + finite,
        )

    def to_plain(self, state: AdaptiveCycleState) -> dict[str, Any]:
        """Return the state as plain values."""
        return {**asdict(state), "window": list(state.window)}

    def from_plain(self, plain: Mapping[str, Any]) -> AdaptiveCycleState:
        """Return the state that `to_plain` wrote."""
        return AdaptiveCycleState(**{**plain, "window": tuple(plain["window"])})

    def _weight(self, num_losses: int) -> float:
        """Weight of a new loss in the mean: 1 for the first, 1 − smoothing in the long run."""
        return (1 - self.smoothing) / (1 - self.smoothing ** (num_losses + 1))

    def _improvement(self, window: tuple[float, ...]) -> float:
        if len(window) < self.window_size:
            return 0.0
        half = self.window_size // 2
        old = sum(window[:half]) / half
        recent = sum(window[half:]) / (self.window_size - half)
        return (old - recent) / max(abs(old), _TINY)

    def _phase(
        self, state: AdaptiveCycleState, improvement: float, rising: bool, since: int, seen: int
    ) -> str:
        if rising:
            return ESCAPE
        if improvement >= self.improvement_threshold:
            return EXPLOIT
        if since >= self.patience:
            return ESCAPE
        if seen < self.window_size or abs(improvement) >= self.plateau_threshold:
            return EXPLORE if state.phase == ESCAPE else state.phase
        return EXPLORE

    def _next_lr(self, lr: float, phase: str, step: int) -> float:
        quarter = (self.max_lr - self.base_lr) / 4
        target = {
            EXPLOIT: self.base_lr,
            EXPLORE: self.middle_lr + quarter * _noise(self.seed, step),
            ESCAPE: min(self.max_lr, self.middle_lr * self.escape_multiplier),
        }[phase]
        moved = self.smoothing * lr + (1 - self.smoothing) * target
        return min(self.max_lr, max(self.base_lr, moved))


def _noise(seed: int, step: int) -> float:
    """Return a number in [−1, 1) that looks random: splitmix64 of (seed, step).

    Source: https://prng.di.unimi.it/splitmix64.c
    """
    mask = 0xFFFFFFFFFFFFFFFF
    z = (seed * 0xD1342543DE82EF95 + (step + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) / 2**52 - 1
