"""What a schedule is: a pure function of the step, or a controller with explicit state.

A `Schedule` knows its LR for every step ahead of training. A `Controller` reacts to what training
reports; its state goes in and comes out as a frozen value, so that a checkpoint is a few plain
numbers (the pattern of equinox and diffrax). LRs are absolute, for a parameter group at the base
LR; whoever trains scales them for the other groups.
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
