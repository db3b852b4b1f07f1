"""How much `find-lr` may spend: time, trainings, or a share of the time of one training.

`60s`, `5min` and `1h` are time, `1x` and a bare number whole trainings, counted in updates, `10%` a
share of the time that one training takes, and `0` is the range test alone.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lrexp.errors import ConfigError

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_BUDGET = re.compile(r"(\d{1,12}(?:\.\d{1,12})?|\.\d{1,12}) ?(s|min|h|x|%)?")
_REMEDY = "Write time as 60s or 5min, trainings as 1x, a share of one as 10%, or 0 for none."


@dataclass(frozen=True)
class Budget:
    """An amount of a unit: `s` seconds, `x` trainings in updates, `%` of the time of a training."""

    amount: float
    unit: str

    @property
    def reads_clock(self) -> bool:
        """Whether what it buys depends on how fast this machine is."""
        return self.unit != "x" and self.amount > 0

    def __str__(self) -> str:
        return f"{self.amount:g}{self.unit}" if self.unit != "s" else f"{self.amount:g} s"


def parse_budget(value: object) -> Budget:
    """Return what a config or a command line means by a budget.

    Raises:
        ConfigError: with key "", when it is none.

    Example:
        >>> parse_budget("5min"), parse_budget(2)
        (Budget(amount=300.0, unit='s'), Budget(amount=2.0, unit='x'))
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigError.single("", "is no budget", value, _REMEDY)
    text = value.strip() if isinstance(value, str) else f"{float(value):.12f}"
    match = _BUDGET.fullmatch(text)
    if match is None or not math.isfinite(float(match[1])):
        raise ConfigError.single("", "is no budget", value, _REMEDY)
    unit = match[2] or "x"
    if unit in SECONDS:
        return Budget(float(match[1]) * SECONDS[unit], "s")
    return Budget(float(match[1]), unit)
