"""Durations with a unit, and how they become whole optimizer steps.

`500st` steps, `10ep` epochs, `2e6tok` tokens (samples × sequence length), `64000sa` samples, `5%`
of the training; a bare whole number is steps. Arithmetic is exact (fractions, no floats) and
rounds down once, at the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from lrexp.errors import ConfigError

UNITS = {"st": "steps", "ep": "epochs", "tok": "tokens", "sa": "samples", "%": "of training"}
# Bounded on purpose: Fraction("1e999999999") would not fit into memory.
DURATION_PATTERN = r"([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})([eE][-+]?[0-9]{1,2})? ?([a-z]+|%)"
_DURATION = re.compile(DURATION_PATTERN)
_REMEDY = "Write steps as 500 or 500st, or 10ep, 2e6tok, 64000sa, 5%."
_MAX_STEPS = 10**15


@dataclass(frozen=True)
class Duration:
    """An exact amount of a unit of `UNITS`."""

    amount: Fraction
    unit: str


def parse_duration(value: object) -> Duration:
    """Return the duration that a config value means.

    Raises:
        ConfigError: with key "", when it is neither a whole number >= 0 nor a number with a unit.

    Example:
        >>> parse_duration("2.5ep")
        Duration(amount=Fraction(5, 2), unit='ep')
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ConfigError.single("", "must not be negative", value, _REMEDY)
        return Duration(Fraction(value), "st")
    if not isinstance(value, str):
        what = "must be a whole number of steps or text with a unit"
        raise ConfigError.single("", what, value, _REMEDY)
    match = _DURATION.fullmatch(value)
    if not match:
        raise ConfigError.single("", "is no duration", value, _remedy_for(value))
    unit = match[4]
    if unit not in UNITS:
        known = ", ".join(f"{unit} ({meaning})" for unit, meaning in UNITS.items())
        raise ConfigError.single("", f"has the unknown unit {unit!r}", value, f"Units: {known}.")
    return Duration(Fraction(match[1] + (match[3] or "")), unit)


@dataclass(frozen=True)
class Clock:
    """What one training knows about time; turns durations into whole steps.

    Args:
        total_steps: the training's length in optimizer steps; None before it is known.
        steps_per_epoch: optimizer steps in one pass over the data; None without a length.
        samples_per_step: batch size × micro-batches per step.
        tokens_per_sample: sequence length; None where samples are no token sequences.

    Example:
        >>> Clock(total_steps=1000, steps_per_epoch=22).steps("5%")
        50
    """

    total_steps: int | None = None
    steps_per_epoch: int | None = None
    samples_per_step: int | None = None
    tokens_per_sample: int | None = None

    def steps(self, duration: object, *, at_least: int = 0) -> int:
        """Return the duration in whole steps, rounded down.

        Raises:
            ConfigError: with key "", when the text is no duration, when the unit means nothing
                here, or when it comes to fewer than `at_least` steps.
        """
        parsed = parse_duration(duration)
        exact = parsed.amount * self._steps_per(parsed.unit, duration)
        steps = floor(exact)
        if steps < at_least:
            given = "" if exact == steps else f" ({float(exact):.3g} rounded down)"
            what = f"comes to {steps} steps{given}, and at least {at_least} is needed"
            raise ConfigError.single("", what, duration, "Raise it.")
        if steps > _MAX_STEPS:
            what = f"is more than {_MAX_STEPS:.0e} steps"
            raise ConfigError.single("", what, duration, "Lower it.")
        return steps

    def _steps_per(self, unit: str, given: object) -> Fraction:
        """Return how many steps one of the unit is."""
        if unit == "st":
            return Fraction(1)
        if unit == "%":
            total = self._need(self.total_steps, "the length of training is not known here", given)
            return Fraction(total, 100)
        if unit == "ep":
            return Fraction(self._need(self.steps_per_epoch, "the data has no length", given))
        samples = self._need(self.samples_per_step, "the batch size is not known here", given)
        if unit == "sa":
            return Fraction(1, samples)
        tokens = self._need(self.tokens_per_sample, "the data is not made of tokens", given)
        return Fraction(1, samples * tokens)

    def _need(self, number: int | None, why: str, given: object) -> int:
        if number is None:
            raise ConfigError.single("", why, given, "Give steps, e.g. 500st.")
        return number


def _remedy_for(text: str) -> str:
    if re.fullmatch(r"\s*[0-9]+\s*", text):
        return f"Write {int(text[:20])} without quotes, or {int(text[:20])}st."
    return _REMEDY
