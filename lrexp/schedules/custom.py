"""A schedule from the user's own code: a factory or a function, named by its import path."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lrexp.errors import ConfigError, LrexpError, Problem, UserCodeError, user_error
from lrexp.schedules.schedule import (
    FILLED,
    Controller,
    Schedule,
    Steps,
    checked_schedule,
    register,
    warmed,
)
from lrexp.schedules.signatures import (
    Count,
    Positive,
    Share,
    check_arguments,
    named_parameters,
    require,
    under,
)


@register("lambda")
def from_function(
    lr: Positive,
    total_steps: Count,
    *,
    function: Callable[[int], float],
    warmup: Steps = 0,
    warmup_start: Share | None = None,
) -> Schedule:
    """`lr = η·function(s)`, s from the start of training; the factor of T − 1 is held after it.

    Args:
        function: pure; takes the step, returns a finite factor of at least 0.

    Raises:
        UserCodeError: on evaluation, where the function raises or returns something else.

    Example:
        >>> [from_function(0.5, 3, function=lambda s: 1 / (s + 1))(s) for s in (0, 1, 2, 9)]
        [0.5, 0.25, 0.16666666666666666, 0.16666666666666666]
    """

    def after(step: int) -> float:
        # the function may be a table of T rows: it is never asked for a step that is not trained
        now = min(step, total_steps - 1)
        return lr * user_value(function, now, "the function of a lambda schedule")

    return Schedule(warmed(lr, warmup, warmup_start, after))


def user_value(function: Callable[[int], object], step: int, what: str) -> float:
    """Return what user code gives for a step; raise `UserCodeError` where it fails."""
    try:
        value = function(step)
    except Exception as error:
        raise user_error(error, f"{what}, at step {step},") from error
    return checked_value(value, step, what)


def checked_value(value: object, step: int, what: str) -> float:
    """Return an LR or factor as a float; raise `UserCodeError` if it cannot be one."""
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number) and number >= 0:
        return number
    raise UserCodeError(
        f"{what} must return a finite number of at least 0, got {value!r} at step {step}."
    )


def title_of(factory: Callable[..., object]) -> str:
    """Return what errors call a callable."""
    return str(getattr(factory, "__name__", factory))


def custom_problems(factory: Callable[..., object], args: Mapping[str, object]) -> list[Problem]:
    """Return where `args` do not fit the factory's signature."""
    options = {"title": title_of(factory), "filled": FILLED, "finite": True}
    return under("args", check_arguments(factory, args, **options))


@checked_schedule
def custom_schedule(
    lr: Positive,
    total_steps: Count,
    factory: Callable[..., object],
    *,
    args: dict[str, Any] | None = None,
    warmup: Steps = 0,
    warmup_start: Share | None = None,
) -> Schedule | Controller:
    """What `factory(**args)` returns: a `Schedule`, a `Controller` or a function step -> LR.

    A factory with parameters `lr` (η) and `total_steps` (T) gets them. A warmup replaces the first
    W steps; a controller brings its own. The LR of step T − 1 is held from T on.

    Raises:
        ConfigError: the args do not fit, or a controller is given a warmup.
        UserCodeError: the factory raises or returns none of the three; on evaluation, it raises
            or gives no LR.

    Example:
        >>> def inverse(lr, power=1):
        ...     return lambda step: lr / (step + 1) ** power
        >>> custom_schedule(1.0, 10, inverse, args={"power": 2})(1)
        0.25
    """
    require(*custom_problems(factory, args or {}))
    offered = {"lr": lr, "total_steps": total_steps}
    wanted = {name: offered[name] for name in named_parameters(factory) if name in offered}
    title = title_of(factory)
    try:
        made = factory(**wanted, **(args or {}))
    except LrexpError:
        raise
    except Exception as error:
        raise user_error(error, title) from error
    if isinstance(made, Controller):
        if warmup:
            what = "cannot be added to a controller of your own"
            remedy = "Leave it out, and let the controller warm up."
            raise ConfigError.single("warmup", what, warmup, remedy)
        return made
    curve = made.lr if isinstance(made, Schedule) else made
    if not callable(curve):
        raise UserCodeError(
            f"{title} must return a lrexp schedule or a function step -> LR, got {made!r}."
        )

    def after(step: int) -> float:
        now = min(step, total_steps - 1)
        return user_value(curve, now, title)

    momentum = made.momentum if isinstance(made, Schedule) else None
    return Schedule(warmed(lr, warmup, warmup_start, after), momentum)
