"""A schedule from the user's own code: a factory or a function, named by its import path."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from lrexp.errors import LrexpError, Problem, UserCodeError, user_error
from lrexp.schedules import checks
from lrexp.schedules.parameters import args_problems
from lrexp.schedules.schedule import Controller, Schedule, Steps, warmed


def from_function(
    lr: float,
    total_steps: int,
    *,
    function: Callable[[int], float],
    warmup: Steps = 0,
    warmup_start: float | None = None,
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
    checks.require(
        *checks.span(lr, total_steps, warmup, warmup_start), _callable("function", function)
    )

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


def _callable(key: str, value: object) -> Problem | None:
    if callable(value):
        return None
    remedy = "Give a function step -> factor; in a config its import path, package.module:name."
    return Problem(key, "must be a function", value, remedy)


_FILLED = ("lr", "total_steps")


def custom_problems(factory: Callable[..., object], args: Mapping[str, object]) -> list[Problem]:
    """Return where `args` do not fit the factory's signature."""
    return args_problems(factory, args, filled=_FILLED)


def custom_schedule(
    lr: float,
    total_steps: int,
    factory: Callable[..., object],
    *,
    args: dict[str, Any] | None = None,
    warmup: Steps = 0,
    warmup_start: float | None = None,
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
    checks.require(
        *checks.span(lr, total_steps, warmup, warmup_start), *custom_problems(factory, args or {})
    )
    wanted = _wanted(factory, {"lr": lr, "total_steps": total_steps})
    title = getattr(factory, "__name__", str(factory))
    try:
        made = factory(**wanted, **(args or {}))
    except LrexpError:
        raise
    except Exception as error:
        raise user_error(error, title) from error
    if isinstance(made, Controller):
        checks.require(_no_warmup(warmup))
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


def _wanted(factory: Callable[..., object], offered: dict[str, object]) -> dict[str, object]:
    try:
        known = signature(factory).parameters
    except (TypeError, ValueError):
        return {}
    return {name: value for name, value in offered.items() if name in known}


def _no_warmup(warmup: int) -> Problem | None:
    if warmup == 0:
        return None
    remedy = "Leave it out, and let the controller warm up."
    return Problem("warmup", "cannot be added to a controller of your own", warmup, remedy)
