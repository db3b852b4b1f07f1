"""The rules that numbers given to a schedule must obey, one `Problem` or None per rule.

A factory lists its rules in one `require(...)`, so that a user sees every mistake at once. Nothing
is repaired: a warmup that is too long is an error, not a shorter warmup.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import TypeGuard

from lrexp.errors import ConfigError, Problem, did_you_mean


def require(*problems: Problem | None) -> None:
    """Raise one `ConfigError` that holds every problem; return when there is none."""
    found = [problem for problem in problems if problem is not None]
    if found:
        raise ConfigError(found)


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite real number; a boolean is not one."""
    if isinstance(value, bool):
        return False
    return isinstance(value, numbers.Real) and math.isfinite(value)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether `value` is an integer; neither a boolean nor 3.0 is one."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def positive(key: str, value: object) -> Problem | None:
    """Rule: a finite number above 0."""
    if is_number(value) and value > 0:
        return None
    return Problem(key, "must be a positive number", value, "Give a finite number above 0.")


def up_to(key: str, value: object, limit: object, limit_name: str) -> Problem | None:
    """Rule: a finite number above 0 and not above another one."""
    if is_number(value) and is_number(limit) and value > limit > 0:
        rule = f"must be at most {limit_name} ({limit:g})"
        return Problem(key, rule, value, f"Lower it or raise {limit_name}.")
    return positive(key, value)


def between(key: str, value: object, low: float, high: float) -> Problem | None:
    """Rule: a number in [low, high]."""
    if is_number(value) and low <= value <= high:
        return None
    rule = f"must be at least {low}" if high == math.inf else f"must lie in [{low}, {high}]"
    return Problem(key, rule, value, "Give a finite number in that range.")


def inside(key: str, value: object, low: float, high: float, *, closed: str = "") -> Problem | None:
    """Rule: a number in (low, high); `closed` is `[` or `]` for the end that belongs to it."""
    above = is_number(value) and (value > low or (closed == "[" and value == low))
    if above and is_number(value) and (value < high or (closed == "]" and value == high)):
        return None
    left, right = "[" if closed == "[" else "(", "]" if closed == "]" else ")"
    return Problem(
        key, f"must lie in {left}{low}, {high}{right}", value, "Give a number in that range."
    )


def at_least(key: str, value: object, low: int, unit: str = "") -> Problem | None:
    """Rule: a whole number of at least `low`."""
    if is_whole(value) and value >= low:
        return None
    what = f"must be a whole number of at least {low}" + (f" {unit}" if unit else "")
    return Problem(key, what, value, f"Give {low} or more.")


def one_of(key: str, value: object, known: Sequence[str]) -> Problem | None:
    """Rule: one of the known words."""
    if isinstance(value, str) and value in known:
        return None
    remedy = did_you_mean(value, known) if isinstance(value, str) else "Give one of them."
    return Problem(key, f"must be one of {', '.join(known)}", value, remedy)


def truth(key: str, value: object) -> Problem | None:
    """Rule: true or false."""
    if isinstance(value, bool):
        return None
    return Problem(key, "must be true or false", value, "Write true or false.")


def span(
    lr: object, total_steps: object, warmup: object, warmup_start: object
) -> tuple[Problem | None, ...]:
    """Rules that all schedules share: a positive LR, T >= 1, 0 <= W < T, a start in [0, 1]."""
    return (
        positive("lr", lr),
        at_least("total_steps", total_steps, 1),
        _shorter("warmup", warmup, total_steps),
        None if warmup_start is None else between("warmup_start", warmup_start, 0, 1),
    )


def _shorter(key: str, warmup: object, total_steps: object) -> Problem | None:
    if not is_whole(warmup) or warmup < 0:
        return at_least(key, warmup, 0, "steps")
    if is_whole(total_steps) and warmup >= total_steps >= 1:
        rule = f"must be shorter than training ({total_steps} steps)"
        return Problem(key, rule, warmup, "Shorten it, or train longer.")
    return None


def floor(lr: object, min_lr: object, final_div_factor: object) -> Problem | None:
    """Rule: 0 <= min_lr <= lr, unless final_div_factor replaces it, which must be at least 1."""
    if final_div_factor is not None:
        return between("final_div_factor", final_div_factor, 1, math.inf)
    if min_lr is None:
        remedy = "Give a number, or final_div_factor."
        return Problem("min_lr", "is needed without final_div_factor", None, remedy)
    if not is_number(min_lr) or min_lr < 0:
        return between("min_lr", min_lr, 0, math.inf)
    return None if min_lr == 0 else up_to("min_lr", min_lr, lr, "the peak LR")


def floor_of(lr: float, min_lr: float | None, final_div_factor: float | None) -> float:
    """Return the floor m: lr / final_div_factor where that is given, else min_lr."""
    if final_div_factor is not None:
        return lr / final_div_factor
    return 0.0 if min_lr is None else float(min_lr)
