"""Schedules for a training loop of one's own, by plain arguments.

`get_lr_scheduler` and its like return pure functions of the step; `AdaptiveCycleLR` wraps an
optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from math import ceil, floor
from typing import Any, Protocol, runtime_checkable

from lrexp.errors import ConfigError, Problem, did_you_mean
from lrexp.schedules.build import SCHEDULES
from lrexp.schedules.combine import Part, combine
from lrexp.schedules.controllers import AdaptiveCycle, adaptive_cycle
from lrexp.schedules.decays import multi_step
from lrexp.schedules.schedule import Schedule, ratios_of, set_lr
from lrexp.schedules.signatures import (
    Natural,
    NonNegative,
    Positive,
    Share,
    checked,
    fits,
    named_parameters,
    require,
)


def get_lr_scheduler(
    max_lr: float,
    min_lr: float | None = 0.0,
    warmup_steps: int = 0,
    *,
    max_steps: int,
    decay_type: str = "cosine",
    warmup_start: float | None = None,
    warmup_start_lr: float | None = None,
    final_div_factor: float | None = None,
    **parameters_of_type: Any,
) -> Schedule:
    """Warmup, then a decay from `max_lr` to `min_lr` at `max_steps`: a pure function of the step.

    Args:
        max_lr: the peak η, above 0.
        min_lr: the floor, in [0, max_lr]; may be None where `final_div_factor` is given.
        warmup_steps: W < max_steps; `lr = max_lr·(s+1)/W` before it.
        max_steps: T, at least 1; the last value is held from there on.
        decay_type: cosine, linear, constant, exponential, ...: any name of a pure schedule.
        warmup_start: part of the peak that the warmup starts from, for `lr = 0` at step 0.
        warmup_start_lr: the same as an LR.
        final_div_factor: the floor as max_lr / final_div_factor; wins over `min_lr`.
        parameters_of_type: what that schedule takes beside these, e.g. `power=2`; durations in
            steps.

    Raises:
        ConfigError: a number is out of its range, or a name is not known.

    Example:
        >>> schedule = get_lr_scheduler(max_lr=1.0, min_lr=0.01, warmup_steps=4, max_steps=12)
        >>> [round(schedule(s), 4) for s in (0, 3, 8, 12)]
        [0.25, 1.0, 0.505, 0.01]
    """
    if decay_type not in SCHEDULES:
        remedy = did_you_mean(str(decay_type), SCHEDULES)
        raise ConfigError.single("decay_type", "is not a known schedule", decay_type, remedy)
    factory = SCHEDULES[decay_type]
    params = dict(parameters_of_type)
    if final_div_factor is not None:
        params["final_div_factor"] = final_div_factor
    # A schedule without a floor refuses one that is asked for, and is not bothered by the default.
    common = {"warmup": warmup_steps, "warmup_start": warmup_start, "min_lr": min_lr}
    if warmup_start_lr is not None:
        params["warmup_start_lr"] = warmup_start_lr
    known = named_parameters(factory)
    params |= {n: value for n, value in common.items() if n in known or value not in (None, 0)}
    words = {"lr": "max_lr", "total_steps": "max_steps", "warmup": "warmup_steps"}
    try:
        schedule = factory(max_lr, max_steps, **params)
    except ConfigError as error:
        raise _renamed(error, words) from None
    if not isinstance(schedule, Schedule):
        what = "is not a schedule of this kind: it reacts to training"
        raise ConfigError.single("decay_type", what, decay_type, "Use it in a config.")
    return schedule


def get_combined_lr_scheduler(
    schedules: Mapping[tuple[int, int], Schedule | Callable[[int], float]],
) -> Schedule:
    """The schedules in turn on half-open ranges [start, end), each from its own step 0.

    Args:
        schedules: (start, end) -> a schedule or any function step -> LR, in any order; together
            they cover the steps from 0 without gaps or overlaps. The last value is held after the
            last end.

    Raises:
        ConfigError: a gap, an overlap, an empty range, or no range that starts at 0.

    Example:
        >>> s = get_combined_lr_scheduler({(0, 2): lambda s: 1.0, (2, 4): lambda s: 0.5 - 0.1 * s})
        >>> [s(i) for i in range(4)]
        [1.0, 1.0, 0.5, 0.4]
    """
    keys = schedules if isinstance(schedules, Mapping) else [None]
    if not all(isinstance(key, tuple) and fits(key, tuple[int, int]) for key in keys):
        what, remedy = "must map (start, end) to schedules", "Give {(0, 1000): a, (1000, 5000): b}."
        raise ConfigError.single("schedules", what, schedules, remedy)
    ranges = sorted(schedules)
    what, remedy = "must be a schedule", "Give a function step -> LR."
    wrong = [bounds for bounds in ranges if not callable(schedules[bounds])]
    require(*(Problem(str(bounds), what, schedules[bounds], remedy) for bounds in wrong))
    parts = [Part(start, end, schedules[start, end]) for start, end in ranges]
    return combine(parts, [str(bounds) for bounds in ranges])


@checked()
def get_multi_step_lr_scheduler(
    max_lr: Positive,
    warmup_steps: Natural,
    total_tokens: Positive,
    tokens_per_step: Positive,
    *,
    step_milestones: Sequence[Share] = (0.8, 0.9),
    step_factors: Sequence[NonNegative] = (0.316, 0.1),
    min_lr: NonNegative | None = None,
    warmup_start: Share | None = None,
    warmup_start_lr: NonNegative | None = None,
) -> Schedule:
    """Warmup, then max_lr × a factor from each milestone on, given as parts of a token budget.

    The training has T = ⌈total_tokens / tokens_per_step⌉ steps, and milestone i lies at step
    ⌊step_milestones[i]·T⌋ (exactly: 0.29 of 100 steps is step 29).

    Args:
        max_lr: the peak η, above 0.
        warmup_steps: W < T; wins over a milestone inside it.
        total_tokens: above 0, and `tokens_per_step` too.
        step_milestones: parts of the training in [0, 1], rising.
        step_factors: one per milestone, relative to max_lr (not cumulative).
        min_lr: where given, the LR is never below it.

    Raises:
        ConfigError: a number is out of its range, unsorted milestones, lengths that differ.

    Example:
        >>> schedule = get_multi_step_lr_scheduler(
        ...     max_lr=1.0, warmup_steps=2, total_tokens=1000, tokens_per_step=100,
        ...     step_milestones=[0.5, 0.8, 0.9], step_factors=[0.5, 0.1, 0.01],
        ... )
        >>> [schedule(s) for s in range(10)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.1, 0.01]

    Source: the schedule of DeepSeek LLM, https://arxiv.org/abs/2401.02954, whose milestones and
    factors are the default.
    """
    parts = list(step_milestones)
    if sorted(set(parts)) != parts:
        raise ConfigError.single("step_milestones", "must rise", parts, "List them in order.")
    total_steps = ceil(_exact(total_tokens) / _exact(tokens_per_step))
    words = {"lr": "max_lr", "warmup": "warmup_steps", "factors": "step_factors"}
    words["milestones"] = "step_milestones"
    try:
        return multi_step(
            max_lr,
            total_steps,
            milestones=[floor(_exact(part) * total_steps) for part in parts],
            factors=list(step_factors),
            warmup=warmup_steps,
            warmup_start=warmup_start,
            **({} if warmup_start_lr is None else {"warmup_start_lr": warmup_start_lr}),
            min_lr=0.0 if min_lr is None else min_lr,
        )
    except ConfigError as error:
        raise _renamed(error, words) from None


def _exact(value: float) -> Fraction:
    """Return the number as it is written: 0.29 is 29/100, not the float below it."""
    return Fraction(str(value))


def _renamed(error: ConfigError, words: Mapping[str, str]) -> ConfigError:
    """Return the error with the names of the arguments that the caller used."""

    def rename(key: str) -> str:
        head, bracket, rest = key.partition("[")
        return words.get(head, head) + bracket + rest

    return ConfigError([replace(p, key=rename(p.key)) for p in error.problems])


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
        self.optimizer = optimizer
        self._controller = adaptive_cycle(
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
        self._state = self._controller.init()
        self._num_steps = 0
        self._ratios = ratios_of([float(group["lr"]) for group in optimizer.param_groups])
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
        names = ("lr", "phase", "improvement", "best_loss", "steps_since_best")
        return {name: getattr(self._state, name) for name in names}

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
            set_lr(group, lr)
