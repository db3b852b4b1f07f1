"""`AdaptiveCycleLR`: the adaptive_cycle controller around an optimizer, for a loop of one's own.

It touches nothing but `optimizer.param_groups[i]["lr"]`, and so needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

from lrexp.errors import ConfigError
from lrexp.schedules.adaptive_cycle import AdaptiveCycle, adaptive_cycle


class _Optimizer(Protocol):
    """What is used of a torch optimizer."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups, each with an `lr`."""


@runtime_checkable
class _Scalar(Protocol):
    """A tensor or array that holds one number."""

    def item(self) -> float:
        """Return the number."""


class AdaptiveCycleLR:
    """Sets the optimizer's LR for the next update from the loss of the last one.

    The rule is that of `AdaptiveCycle`. The parameter group with the highest LR gets the
    controller's LR, the others keep their ratio to it, so that no group exceeds `max_lr`. Making
    one sets the LRs (to the middle of the bounds, in these ratios) and changes nothing else of the
    optimizer; after a resume, load the optimizer's state, then this one's.

    Args:
        optimizer: a torch optimizer, or anything with its `param_groups`.
        base_lr: lower bound; the others are those of `adaptive_cycle`.

    Raises:
        ConfigError: a number is out of its range, or no group has an LR above 0.

    Example:
        >>> class Optimizer:
        ...     param_groups = [{"lr": 0.1}, {"lr": 0.01}]
        >>> optimizer = Optimizer()
        >>> adaptive = AdaptiveCycleLR(optimizer, base_lr=0.1, max_lr=0.3)
        >>> [round(group["lr"], 3) for group in optimizer.param_groups]
        [0.2, 0.02]
        >>> adaptive.step(2.5)["phase"]
        'explore'
    """

    def __init__(
        self,
        optimizer: _Optimizer,
        base_lr: float = 1e-4,
        max_lr: float = 1e-3,
        window_size: int = 150,
        patience: int = 600,
        *,
        improvement_threshold: float = 0.01,
        plateau_threshold: float = 0.005,
        smoothing: float = 0.99,
        escape_multiplier: float = 1.5,
        seed: int = 0,
    ) -> None:
        controller = adaptive_cycle(
            1.0,  # only the default of bounds that are given here
            1,  # a horizon that no rule looks at
            base_lr=base_lr,
            max_lr=max_lr,
            window_size=window_size,
            patience=patience,
            improvement_threshold=improvement_threshold,
            plateau_threshold=plateau_threshold,
            smoothing=smoothing,
            escape_multiplier=escape_multiplier,
            seed=seed,
        )
        self.optimizer = optimizer
        self._controller = controller
        self._state = controller.init()
        self._num_steps = 0
        self._ratios = _ratios(optimizer)
        self._set_lrs()

    def step(self, loss: float | _Scalar) -> dict[str, Any]:
        """Take the loss of the update just made, set the LR of the next, and return what was done.

        Args:
            loss: a number, or a tensor that holds one.

        Returns:
            lr (of the next update, for the group with the highest), phase (exploit, explore or
            escape), improvement (0 until the window is full), best_loss (smoothed; None before the
            first finite loss), steps_since_best.
        """
        value = float(loss.item() if isinstance(loss, _Scalar) else loss)
        self._state = self._controller.observe(self._state, self._num_steps, value)
        self._num_steps += 1
        self._set_lrs()
        return {
            "lr": self._state.lr,
            "phase": self._state.phase,
            "improvement": self._state.improvement,
            "best_loss": self._state.best_loss,
            "steps_since_best": self._state.steps_since_best,
        }

    def get_last_lr(self) -> list[float]:
        """Return the LR of each parameter group, as torch's schedulers do."""
        return [self._state.lr * ratio for ratio in self._ratios]

    def state_dict(self) -> dict[str, Any]:
        """Return settings and state as plain values, fit for JSON or a checkpoint."""
        return {
            "settings": asdict(self._controller),
            "state": self._controller.to_plain(self._state),
            "num_steps": self._num_steps,
            "ratios": list(self._ratios),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` wrote, settings included, and set the optimizer's LRs."""
        ratios, groups = list(state_dict["ratios"]), self.optimizer.param_groups
        if len(ratios) != len(groups):
            remedy = "Load it into an optimizer with the parameter groups it was saved with."
            raise ConfigError.single(
                "param_groups", f"must be {len(ratios)} as when saved", len(groups), remedy
            )
        self._controller = AdaptiveCycle(**state_dict["settings"])
        self._state = self._controller.from_plain(state_dict["state"])
        self._num_steps = state_dict["num_steps"]
        self._ratios = ratios
        self._set_lrs()

    def _set_lrs(self) -> None:
        for group, lr in zip(self.optimizer.param_groups, self.get_last_lr(), strict=True):
            if hasattr(group["lr"], "fill_"):  # a tensor (capturable optimizers) keeps its identity
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr


def _ratios(optimizer: _Optimizer) -> list[float]:
    lrs = [float(group["lr"]) for group in optimizer.param_groups]
    highest = max(lrs, default=0.0)
    if not highest > 0:
        remedy = "Give the optimizer an LR above 0; only the ratios of its groups are used."
        raise ConfigError.single("optimizer", "must have a group with an LR above 0", lrs, remedy)
    return [lr / highest for lr in lrs]
