"""Who runs in a race: one learning rate over one horizon, told by the name of its trials.

The name says all there is to know about a trial besides its seed, so that a worker process, or a
command that resumes the run, can make it from the config alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"race-([1-9]\d{0,8})-lr-(\d[\d.]*(?:e[+-]\d\d\d?)?)")


@dataclass(frozen=True)
class Entrant:
    """One learning rate, trained over a horizon.

    Args:
        horizon: updates of the training, at least 1.
        lr: the base LR, to be rounded by `rounded_lr`.

    Example:
        >>> Entrant(40, 0.0316).name
        'race-40-lr-0.0316'
    """

    horizon: int
    lr: float

    @property
    def name(self) -> str:
        """The variant's name in the run directory."""
        return f"race-{self.horizon}-lr-{self.lr:.4g}"


def entrant_of(name: str) -> Entrant | None:
    """Return the entrant of a variant's name; None where the name is no entrant's.

    Example:
        >>> entrant_of("race-40-lr-0.0316"), entrant_of("range_test")
        (Entrant(horizon=40, lr=0.0316), None)
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        found = Entrant(int(match[1]), float(match[2]))
    except ValueError:
        return None
    return found if found.name == name and found.lr > 0 else None


def rounded_lr(lr: float) -> float:
    """Return an LR with the four digits that a name has.

    Example:
        >>> rounded_lr(0.0316227766)
        0.03162
    """
    return float(f"{lr:.4g}")
