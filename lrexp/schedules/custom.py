"""A schedule from the user's own code: a factory that a config names by its import path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from lrexp.errors import LrexpError, Problem, UserCodeError, user_error
from lrexp.schedules import checks
from lrexp.schedules.from_function import user_value
from lrexp.schedules.schedule import Controller, Schedule, Steps
from lrexp.schedules.torch_args import args_problems
from lrexp.schedules.warmup import warmed

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
