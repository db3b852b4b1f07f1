"""Lower the LR when a metric stops improving: the semantics of torch's ReduceLROnPlateau.

As a controller, so that its state is explicit, that it combines with a warmup, and that metrics
below zero (a log-likelihood) and non-finite ones are judged rightly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from lrexp.errors import Problem
from lrexp.schedules import checks
from lrexp.schedules.schedule import Steps
from lrexp.schedules.warmup import warmup_fraction

Monitor = Literal["val_loss", "train_loss", "val_accuracy"]
Mode = Literal["min", "max"]
ThresholdMode = Literal["rel", "abs"]

LOWEST_LR = 1e-6  # the default floor


def plateau(
    lr: float,
    total_steps: int,
    *,
    monitor: Monitor = "val_loss",
    mode: Mode | None = None,
    factor: float = 0.5,
    patience: int = 2,
    threshold: float = 1e-4,
    threshold_mode: ThresholdMode = "rel",
    cooldown: int = 0,
    min_lr: float | None = None,
    final_div_factor: float | None = None,
    eps: float = 1e-8,
    warmup: Steps = 0,
    warmup_start: float | None = None,
) -> Plateau:
    """`lr ← max(m, lr·factor)` after more than `patience` evaluations without a new best.

    A value is a new best when it is better than the best by more than `threshold·|best|` (rel) or
    `threshold` (abs). A non-finite value is never better. An evaluation during the warmup sets the
    best but never counts as bad, so the LR after the warmup is always η.

    Args:
        monitor: val_loss, train_loss or val_accuracy, at every evaluation.
        mode: min or max; follows the monitor by default.
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
    checks.require(
        *checks.span(lr, total_steps, warmup, warmup_start),
        checks.one_of("monitor", monitor, get_args(Monitor)),
        None if mode is None else checks.one_of("mode", mode, get_args(Mode)),
        checks.inside("factor", factor, 0, 1),
        checks.at_least("patience", patience, 0, "evaluations"),
        checks.between("threshold", threshold, 0, math.inf),
        checks.one_of("threshold_mode", threshold_mode, get_args(ThresholdMode)),
        checks.at_least("cooldown", cooldown, 0, "evaluations"),
        _floor(lr, min_lr, final_div_factor),
        checks.between("eps", eps, 0, math.inf),
    )
    low = min(LOWEST_LR, lr) if min_lr is None else min_lr
    return Plateau(
        monitor=monitor,
        peak=float(lr),
        sign=1 if (mode or ("max" if monitor == "val_accuracy" else "min")) == "min" else -1,
        factor=factor,
        patience=patience,
        threshold=threshold,
        relative=threshold_mode == "rel",
        cooldown=cooldown,
        low=checks.floor_of(lr, low, final_div_factor),
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
        if step < self.warmup:
            return state.lr * warmup_fraction(step, self.warmup, self.warmup_start)
        return state.lr

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


def _floor(lr: object, min_lr: object, final_div_factor: object) -> Problem | None:
    if min_lr is None and final_div_factor is None:
        return None
    return checks.floor(lr, min_lr, final_div_factor)
