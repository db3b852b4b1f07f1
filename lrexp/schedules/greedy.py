"""`greedy`: an LR that rises while a metric improves and falls while it does not.

As GreedyLR of Hugging Face transformers, which steps it at every evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from annotated_types import Gt, Lt

from lrexp.schedules.controllers import Mode, ThresholdMode, monitored
from lrexp.schedules.schedule import Steps, at_most, register, warmup_fraction
from lrexp.schedules.signatures import Count, Natural, NonNegative, Positive, Share, require

LOWEST_LR, HIGHEST_LR = 1e-3, 1.0  # the default bounds


@register("greedy")
def greedy(
    lr: Positive,
    total_steps: Count,
    *,
    monitor: str = "val_loss",
    mode: Mode | None = None,
    factor: Annotated[float, Gt(0), Lt(1)] = 0.95,
    patience: Natural = 10,
    threshold: NonNegative = 1e-6,
    threshold_mode: ThresholdMode = "abs",
    cooldown: Natural = 0,
    rise_cooldown: Natural = 0,
    min_lr: NonNegative | None = None,
    max_lr: Positive | None = None,
    eps: NonNegative = 1e-8,
    smooth: bool = False,
    window_size: Count = 50,
    reset_start: Count = 500,
    warmup: Steps = 0,
    warmup_start: Share | None = None,
) -> Greedy:
    """`lr ← lr/factor` after more than `patience` better values in a row, `lr·factor` after worse.

    A value is better than the best by more than `threshold` (abs) or `threshold·|best|` (rel). A
    non-finite one is never better, and enters no mean. What was seen in the warmup is not judged.
    Once the LR is at `min_lr`, the fall that is the `reset_start`-th in vain starts it anew from η.

    Args:
        monitor: val_loss, train_loss or another metric, at every evaluation; loss is the training
            loss of every step, as in the paper.
        mode: min or max; follows the monitor by default.
        factor: in (0, 1).
        cooldown: values after a fall that are not counted.
        rise_cooldown: values after a rise that are not counted; Hugging Face calls it `warmup`.
        min_lr: 1e-3 by default, or η where that is lower.
        max_lr: 1 by default, or η where that is higher.
        eps: a change of at most this is not made.
        smooth: whether the mean of the last `window_size` values is judged.

    Example:
        >>> control = greedy(0.1, 100, patience=1, factor=0.5)
        >>> state = control.init()
        >>> for loss in (3.0, 2.0):
        ...     state = control.observe(state, 0, loss)
        >>> control.lr(state, 1)
        0.2

    Source: GreedyLR, https://arxiv.org/abs/2512.14527; transformers' get_greedy_schedule
    """
    low = min(LOWEST_LR, lr) if min_lr is None else min_lr
    high = max(HIGHEST_LR, lr) if max_lr is None else max_lr
    require(*at_most("min_lr", low, high, "max_lr"))
    if max_lr is not None:
        require(*at_most("optimizer.lr", lr, high, "schedule.max_lr"))
    column, mode = ("loss", mode or "min") if monitor == "loss" else monitored(monitor, mode)
    return Greedy(
        monitor=column,
        peak=float(lr),
        sign=1 if mode == "min" else -1,
        factor=factor,
        patience=patience,
        threshold=threshold,
        relative=threshold_mode == "rel",
        cooldowns=(cooldown, rise_cooldown),
        bounds=(float(low), float(high)),
        eps=eps,
        window_size=window_size if smooth else 1,
        reset_start=reset_start,
        warmup=warmup,
        warmup_start=warmup_start,
    )


@dataclass(frozen=True, slots=True)
class GreedyState:
    """What `Greedy` remembers between values."""

    lr: float
    reset_in: int
    best: float | None = None
    num_bad: int = 0
    num_good: int = 0
    cooldown_left: int = 0
    window: tuple[float, ...] = ()


@dataclass(frozen=True)
class Greedy:
    """The controller that `greedy` makes from checked numbers."""

    monitor: str
    peak: float
    sign: int  # 1: lower is better; -1: higher is better
    factor: float
    patience: int
    threshold: float
    relative: bool
    cooldowns: tuple[int, int]  # after a fall, after a rise
    bounds: tuple[float, float]
    eps: float
    window_size: int
    reset_start: int
    warmup: int
    warmup_start: float | None

    def init(self) -> GreedyState:
        """Return the state before training: the peak, nothing seen."""
        return GreedyState(self.peak, self.reset_start)

    def lr(self, state: GreedyState, step: int) -> float:
        """Return the LR used for update `step`."""
        return state.lr * warmup_fraction(step, self.warmup, self.warmup_start)

    def observe(self, state: GreedyState, step: int, value: float) -> GreedyState:
        """Return the state after `value` was seen following update `step`."""
        if step < self.warmup:
            return state
        if math.isfinite(value):
            state = replace(state, window=(*state.window, float(value))[-self.window_size :])
        if state.cooldown_left > 0:
            return replace(state, cooldown_left=state.cooldown_left - 1, num_bad=0, num_good=0)
        mean = sum(state.window) / len(state.window) if math.isfinite(value) else math.nan
        if self._is_better(mean, state.best):
            state = replace(state, best=mean, num_bad=0, num_good=state.num_good + 1)
        else:
            state = replace(state, num_bad=state.num_bad + 1, num_good=0)
        if state.num_good > self.patience:
            return self._raised(state)
        return self._lowered(state) if state.num_bad > self.patience else state

    def to_plain(self, state: GreedyState) -> dict[str, Any]:
        """Return the state as plain values."""
        return {**asdict(state), "window": list(state.window)}

    def from_plain(self, plain: Mapping[str, Any]) -> GreedyState:
        """Return the state that `to_plain` wrote."""
        return GreedyState(**{**plain, "window": tuple(plain["window"])})

    def _raised(self, state: GreedyState) -> GreedyState:
        higher = min(state.lr / self.factor, self.bounds[1])
        lr = higher if higher - state.lr > self.eps else state.lr
        left = self.cooldowns[1]
        return replace(state, lr=lr, num_good=0, cooldown_left=left, reset_in=self.reset_start)

    def _lowered(self, state: GreedyState) -> GreedyState:
        lower = max(state.lr * self.factor, self.bounds[0])
        lr = lower if state.lr - lower > self.eps else state.lr
        reset_in = state.reset_in - (lr <= self.bounds[0])
        left = self.cooldowns[0]
        if reset_in <= 0:  # transformers sets the cooldown after a reset as well
            return replace(self.init(), cooldown_left=left)
        return replace(state, lr=lr, num_bad=0, cooldown_left=left, reset_in=reset_in)

    def _is_better(self, value: float, best: float | None) -> bool:
        if not math.isfinite(value) or best is None:
            return math.isfinite(value)
        bar = best - self.sign * self.threshold * (abs(best) if self.relative else 1.0)
        return self.sign * value < self.sign * bar
