"""Is this value of an argument right? One `Problem`, or None, per question.

Built-in data and models ask all their questions first and raise the answers together.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import TypeGuard

from lrexp.errors import ConfigError, Problem, did_you_mean


def raise_any(*problems: Problem | None) -> None:
    """Raise one ConfigError with the problems that there are.

    Example:
        >>> raise_any(None, None)
    """
    found = [problem for problem in problems if problem is not None]
    if found:
        raise ConfigError(found)


def wrong_count(key: str, value: object, at_least: int = 1) -> Problem | None:
    """Return the problem if `value` is not a whole number of `at_least` or more.

    Example:
        >>> print(wrong_count("data.args.samples", 0))
        data.args.samples: must be a whole number of at least 1 (got 0). Give e.g. 1.
    """
    if _is_whole(value) and value >= at_least:
        return None
    what = f"must be a whole number of at least {at_least}"
    return Problem(key, what, value, f"Give e.g. {max(at_least, 1)}.")


def wrong_counts(key: str, value: object) -> Problem | None:
    """Return the problem if `value` is not a list of whole numbers of 1 or more."""
    entries = value if isinstance(value, list | tuple) else [value]
    if isinstance(value, list | tuple) and all(_is_whole(v) and v >= 1 for v in entries):
        return None
    return Problem(key, "must be a list of whole numbers of at least 1", value, "E.g. [64, 64].")


def wrong_number(
    key: str, value: object, at_least: float = -math.inf, below: float = math.inf
) -> Problem | None:
    """Return the problem if `value` is not a finite number with at_least <= value < below."""
    if _is_number(value) and abs(value) <= sys.float_info.max and at_least <= value < below:
        return None
    low = f" of at least {at_least:g}" if at_least > -math.inf else ""
    high = f" and below {below:g}" if below < math.inf else ""
    return Problem(key, f"must be a finite number{low}{high}", value, "Give such a number.")


def wrong_flag(key: str, value: object) -> Problem | None:
    """Return the problem if `value` is neither true nor false."""
    if isinstance(value, bool):
        return None
    return Problem(key, "must be true or false", value, "Write it without quotes.")


def wrong_choice(key: str, value: object, choices: Iterable[str]) -> Problem | None:
    """Return the problem if `value` is none of `choices`."""
    choices = list(choices)
    if isinstance(value, str) and value in choices:
        return None
    return Problem(key, "is not known here", value, did_you_mean(str(value), choices))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
