"""What a schedule is: a pure function of the step, or a controller with explicit state.

A `Schedule` knows its LR for every step ahead of training. A `Controller` reacts to what training
reports; its state goes in and comes out as a frozen value, so a checkpoint is a few plain numbers.
LRs are absolute, for a parameter group at the base LR.

Warmup, with s = step, W = warmup steps, T = total steps:
`lr = η·(s+1)/W` for s < W (no update is wasted at LR 0), or `η·(f + (1−f)·s/W)` for a
`warmup_start` of f; f = 0 is the form of Hugging Face. Afterwards r = (s−W)/(T−W), held at 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeAlias, runtime_checkable

from lrexp.errors import ConfigError

# The annotation of a parameter that a config may give as `5%`, `10ep` or `500`; a factory receives
# whole steps.
Steps: TypeAlias = Annotated[int, "duration"]
# Steps in an epoch, None of data without length; to know it may take loading the data.
PerEpoch: TypeAlias = int | Callable[[], int | None] | None
# A controller's own frozen dataclass; opaque to everybody else.
State: TypeAlias = Any


@dataclass(frozen=True)
class Schedule:
    """The LR of every step, and the momentum where the schedule cycles it.

    Args:
        lr: step -> LR used for that update; steps count from 0.
        momentum: step -> momentum (SGD) or beta1 (Adam); None leaves the optimizer's own.

    Example:
        >>> Schedule(lambda step: 0.1 / (step + 1))(4)
        0.02
    """

    lr: Callable[[int], float]
    momentum: Callable[[int], float] | None = None

    def __call__(self, step: int) -> float:
        """Return the LR of `step`; raise `ConfigError` for a negative one."""
        if step < 0:
            raise ConfigError.single("step", "must be at least 0", step, "Steps count from 0.")
        return self.lr(step)


@runtime_checkable
class Controller(Protocol):
    """A schedule that reacts to a metric: state in, state out, nothing mutated.

    `monitor` names the metric: `loss` is the training loss of every step; `val_loss`, `train_loss`
    and `val_accuracy` arrive at every evaluation.
    """

    @property
    def monitor(self) -> str:
        """The metric that `observe` expects."""

    def init(self) -> State:
        """Return the state before training."""

    def lr(self, state: State, step: int) -> float:
        """Return the LR used for update `step`."""

    def observe(self, state: State, step: int, value: float) -> State:
        """Return the state after `value` was seen following update `step`."""

    def to_plain(self, state: State) -> dict[str, Any]:
        """Return the state as numbers, strings, lists and None, for a checkpoint."""

    def from_plain(self, plain: Mapping[str, Any]) -> State:
        """Return the state that `to_plain` wrote, exactly."""


def warmup_fraction(step: int, warmup: int, start: float | None = None) -> float:
    """Return the part of the peak that step < warmup gets.

    Example:
        >>> [warmup_fraction(s, 4) for s in range(4)]
        [0.25, 0.5, 0.75, 1.0]
        >>> [warmup_fraction(s, 4, start=0.0) for s in range(4)]
        [0.0, 0.25, 0.5, 0.75]
    """
    if start is None:
        return (step + 1) / warmup
    return start + (1 - start) * (step / warmup)


def warmed(
    peak: float, warmup: int, start: float | None, after: Callable[[int], float]
) -> Callable[[int], float]:
    """Return the function that warms up to `peak` and is `after` from step `warmup` on."""
    if warmup == 0:
        return after

    def lr(step: int) -> float:
        return peak * warmup_fraction(step, warmup, start) if step < warmup else after(step)

    return lr


def progress(step: int, warmup: int, total_steps: int) -> float:
    """Return r in [0, 1]: 0 at the end of the warmup, 1 from `total_steps` on.

    Example:
        >>> [progress(s, 4, 12) for s in (4, 8, 12, 99)]
        [0.0, 0.5, 1.0, 1.0]
    """
    return 1.0 if step >= total_steps else (step - warmup) / (total_steps - warmup)


def blend(low: float, high: float, x: float) -> float:
    """Return low + (high − low)·x without leaving [low, high], which rounding may do by an ulp."""
    return min(high, max(low, low + (high - low) * x))
