"""A user's own function as a schedule: step -> factor of the peak (`lambda` in a config)."""

from __future__ import annotations

import math
from collections.abc import Callable

from lrexp.errors import Problem, UserCodeError, user_error
from lrexp.schedules import checks
from lrexp.schedules.schedule import Schedule, Steps
from lrexp.schedules.warmup import warmed


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
