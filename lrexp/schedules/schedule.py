"""What a schedule is: a pure function of the step, or a controller with explicit state.

A `Schedule` knows its LR for every step ahead of training. A `Controller` reacts to what training
reports; its state goes in and comes out as a frozen value, so a checkpoint is a few plain numbers.
LRs are absolute, for a parameter group at the base LR.

Warmup, with s = step, W = warmup steps, T = total steps:
`lr = η·(s+1)/W` for s < W (no update is wasted at LR 0), or `η·(f + (1−f)·s/W)` for a
`warmup_start` of f; f = 0 is the form of Hugging Face. `warmup_start_lr` gives the same start as an
LR, as timm's `warmup_lr_init` does. Afterwards r = (s−W)/(T−W), held at 1.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import update_wrapper, wraps
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    get_args,
    runtime_checkable,
)

from annotated_types import Ge
from pydantic import Field, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator

from lrexp.errors import ConfigError, Problem
from lrexp.schedules.signatures import NonNegative, checked, with_parameter

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


def _steps(value: object, whole: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
    """A config may write `5%`, `10ep` or `500`: `info.context` turns it into steps or None."""
    if info.context is None:  # a factory is called
        return whole(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        remedy = "Give e.g. 500, 10ep or 5%."
        raise ConfigError.single("", "must be a duration", value, remedy)
    steps = info.context(value)
    return value if steps is None else whole(steps)


# The annotations of parameters that a config may give as a duration; a factory gets whole steps.
DURATION = WrapValidator(_steps)
Steps: TypeAlias = Annotated[int, Ge(0), DURATION, Field(examples=["10%"])]
StepOrMore: TypeAlias = Annotated[int, Ge(1), DURATION, Field(examples=["10%"])]
P = ParamSpec("P")
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

    def to_torch(self, optimizer: Optimizer) -> LRScheduler:
        """Return a torch scheduler that sets these LRs: call its `step()` after each update.

        A parameter group at the LR that the optimizer was given as `lr` gets the schedule's own,
        the others keep their ratio to it, as in `optimizer.groups`; where no group has that LR, the
        highest stands for it. A momentum that the schedule cycles is set too. The LR of update 0 is
        set at once.
        `state_dict()` holds the step; load it into a scheduler of the same schedule.

        Raises:
            ConfigError: no group of the optimizer has an LR above 0, or the schedule cycles a
                momentum that a group has not.

        Example:
            >>> import torch
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
            >>> scheduler = Schedule(lambda step: 0.5**step).to_torch(optimizer)
            >>> optimizer.step()
            >>> scheduler.step()
            >>> scheduler.get_last_lr()
            [0.5]
        """
        from lrexp.schedules.torch_adapter import ScheduleLR

        return ScheduleLR(optimizer, self)


@runtime_checkable
class Controller(Protocol):
    """A schedule that reacts to a metric: state in, state out, nothing mutated.

    `monitor` names the metric: `loss` is the training loss of every step; all others, such
    as `val_loss`, arrive at every evaluation.
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


Made = TypeVar("Made", bound=Schedule | Controller)
# What a config says elsewhere: parameters of factories -> the key or section they come from.
FILLED = {"lr": "optimizer.lr", "total_steps": "train.duration"}
START_LR = "warmup_start_lr"
SCHEDULES: dict[str, Callable[..., Schedule | Controller]] = {}  # what a config may name


def register(name: str) -> Callable[[Callable[P, Made]], Callable[P, Made]]:
    """Return a decorator that makes a factory a schedule of that name.

    The factory takes `lr` (η), `total_steps` (T) and, by keyword, what a config may set. Its
    signature is the schema: types and ranges come from the annotations, and `Steps` is a duration
    such as `5%`. A call with arguments that do not fit raises `ConfigError`; so does a `warmup` of
    T steps or more, and a `min_lr` above η.

    The name is known in this process only. Worker processes and `lrexp resume` start afresh: there,
    a config reaches a schedule of one's own by its import path, `package.module:factory`.

    Raises:
        ConfigError: the name is taken.

    Example:
        >>> import lrexp.schedules
        >>> from lrexp.schedules.signatures import Positive
        >>> @lrexp.schedules.register("hyperbola")
        ... def hyperbola(lr: Positive, total_steps: int, *, power: Positive = 1.0) -> Schedule:
        ...     return Schedule(lambda step: lr / (step + 1) ** power)
        >>> lrexp.get_lr_scheduler(max_lr=1.0, max_steps=9, decay_type="hyperbola", power=2)(1)
        0.25
        >>> del SCHEDULES["hyperbola"]
    """
    if name in SCHEDULES:
        raise ConfigError.single("name", "is the name of another schedule", name, "Choose another.")

    def decorate(factory: Callable[P, Made]) -> Callable[P, Made]:
        made = checked_schedule(factory)
        SCHEDULES[name] = made
        return made

    return decorate


def alias(name: str, of: str, **defaults: Any) -> None:
    """Give a registered schedule a second name, under which other defaults may hold."""
    known = SCHEDULES[of]

    def factory(*args: Any, **given: Any) -> Schedule | Controller:
        return known(*args, **{**defaults, **given})

    update_wrapper(factory, known)
    parameters = [
        p.replace(default=defaults.get(p.name, p.default))
        for p in inspect.signature(known, eval_str=True).parameters.values()
    ]
    factory.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    SCHEDULES[name] = factory


def checked_schedule(factory: Callable[P, Made]) -> Callable[P, Made]:
    """Return the factory with its arguments checked at each call.

    One that takes a `warmup_start` takes a `warmup_start_lr` as well.
    """
    return checked(rules=common_problems)(_from_start_lr(factory))


def _from_start_lr(factory: Callable[P, Made]) -> Callable[P, Made]:
    if "warmup_start" not in inspect.signature(factory).parameters:
        return factory

    @wraps(factory)
    def made(*args: Any, **given: Any) -> Made:
        start = given.pop(START_LR, None)
        schedule = factory(*args, **given)
        warmup = given.get("warmup", 0)
        if start is None or not warmup:
            return schedule
        # The last step of a warmup without a start has the LR that the warmup leads to.
        top = _lr_before_training(schedule, warmup - 1)
        problems = list(at_most(START_LR, start, top, "the LR that the warmup leads to"))
        if problems:
            raise ConfigError(problems)
        return factory(*args, **{**given, "warmup_start": start / top})

    return with_parameter(made, START_LR, NonNegative | None, None)


def _lr_before_training(schedule: Schedule | Controller, step: int) -> float:
    if isinstance(schedule, Schedule):
        return schedule(step)
    return schedule.lr(schedule.init(), step)


def common_problems(given: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what the arguments that all schedules share do wrong together: W < T, m <= η."""
    lr, total_steps, warmup = (given.get(key) for key in ("lr", "total_steps", "warmup"))
    if total_steps is not None and warmup is not None and warmup >= total_steps:
        what = f"must be shorter than training ({total_steps} steps)"
        yield Problem("warmup", what, warmup, "Shorten it, or train longer.")
    start, start_lr = given.get("warmup_start"), given.get(START_LR)
    if start is not None and start_lr is not None:
        remedy = "Give the start as an LR, or as warmup_start, a share of the peak."
        yield Problem(START_LR, "cannot be given beside warmup_start", start_lr, remedy)
    min_lr, factor = given.get("min_lr"), given.get("final_div_factor")
    if lr is not None and min_lr is not None and factor is None:
        yield from at_most("min_lr", min_lr, lr, "the peak LR")


def at_most(key: str, value: float, limit: float, name: str) -> Iterator[Problem]:
    """Yield the problem with a number above another one."""
    if value > limit:
        what = f"must be at most {name} ({limit:g})"
        yield Problem(key, what, value, f"Lower it or raise {name}.")


def floor_of(lr: float, min_lr: float | None, final_div_factor: float | None) -> float:
    """Return the floor m: lr / final_div_factor where that is given, else min_lr."""
    if final_div_factor is not None:
        return lr / final_div_factor
    if min_lr is None:
        what, remedy = "is needed without final_div_factor", "Give a number, or final_div_factor."
        raise ConfigError.single("min_lr", what, None, remedy)
    return float(min_lr)


def is_duration(annotation: Any) -> bool:
    """Return whether values are durations, or lists of them.

    Example:
        >>> is_duration(list[Steps] | None), is_duration(int)
        (True, False)
    """
    return DURATION in get_args(annotation) or any(map(is_duration, get_args(annotation)))


def warmup_fraction(step: int, warmup: int, start: float | None = None) -> float:
    """Return the part of the peak that a step gets: 1 from the step `warmup` on.

    Example:
        >>> [warmup_fraction(s, 4) for s in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
        >>> [warmup_fraction(s, 4, start=0.0) for s in range(5)]
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if step >= warmup:
        return 1.0
    return (step + 1) / warmup if start is None else start + (1 - start) * (step / warmup)


def warmed(
    peak: float, warmup: int, start: float | None, after: Callable[[int], float]
) -> Callable[[int], float]:
    """Return the function that warms up to `peak` and is `after` from step `warmup` on."""

    def lr(step: int) -> float:
        return peak * warmup_fraction(step, warmup, start) if step < warmup else after(step)

    return lr if warmup else after


def progress(step: int, begin: int, end: int) -> float:
    """Return r in [0, 1]: 0 until `begin`, 1 from `end` on.

    Example:
        >>> [progress(s, 4, 12) for s in (0, 4, 8, 12, 99)]
        [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    return min(1.0, max(0.0, (step - begin) / (end - begin)))


def blend(low: float, high: float, x: float) -> float:
    """Return low + (high − low)·x without leaving [low, high], which rounding may do by an ulp."""
    return min(high, max(low, low + (high - low) * x))


def ratios_of(lrs: Sequence[float], base: float | None = None) -> list[float]:
    """Return the LRs of an optimizer's groups as shares of `base`, or else of the highest."""
    highest = max(lrs, default=0.0) if base is None else base
    if not highest > 0:
        remedy = "Give the optimizer an LR above 0; only the ratios of its groups are used."
        what = "must have a group with an LR above 0"
        raise ConfigError.single("optimizer", what, list(lrs), remedy)
    return [lr / highest for lr in lrs]


def set_lr(group: dict[str, Any], lr: float) -> None:
    """Set the LR of a parameter group."""
    if hasattr(group["lr"], "fill_"):  # a tensor (capturable optimizers) keeps its identity
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr
