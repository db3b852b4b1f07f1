"""Which way the LR should go, by what the other LRs of the same comparison came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SAME = 1.05  # LRs nearer than this factor are one


@dataclass(frozen=True)
class Tried:
    """The other LRs, seen from the one of a training.

    Args:
        best: the LR that ended lowest, as a multiple of this one.
        higher, lower: whether there are LRs above and below this one.
    """

    best: float
    higher: bool
    lower: bool

    @property
    def is_above(self) -> bool:
        """Whether a higher LR ended lowest."""
        return self.best > SAME

    @property
    def is_below(self) -> bool:
        """Whether a lower LR ended lowest."""
        return self.best < 1 / SAME

    @property
    def may_raise(self) -> bool:
        """Whether nothing tried speaks against a higher LR."""
        return self.is_above or (not self.is_below and not self.higher)

    @property
    def may_lower(self) -> bool:
        """Whether nothing tried speaks against a lower LR."""
        return self.is_below or (not self.is_above and not self.lower)

    @property
    def distance(self) -> str:
        """Return where the best one is, `the best LR tried is 6.3× higher`."""
        times, way = (self.best, "higher") if self.is_above else (1 / self.best, "lower")
        return f"the best LR tried is {float(f'{times:.2g}'):g}× {way}"


def tried(lr: float, ends: Mapping[float, float | None]) -> Tried | None:
    """Return what the LRs of a comparison say about one of them; None of fewer than two.

    Args:
        lr: of the training, ends: LR -> where it ended, None where it diverged or failed.

    Example:
        >>> tried(0.001, {0.001: 2.0, 0.01: 0.5, 0.1: None}).distance
        'the best LR tried is 10× higher'
    """
    known = {other: end for other, end in ends.items() if end is not None}
    if len(ends) < 2 or not known:
        return None
    best = min(known, key=known.__getitem__)
    return Tried(best / lr, any(o > lr * SAME for o in ends), any(o * SAME < lr for o in ends))


def lower(seen: Tried | None, words: str) -> str:
    """Return the advice to lower the LR in these words, or another where LRs tried refute it."""
    if seen is None or (seen.may_lower and not seen.is_below):
        return words
    if seen.is_below:
        return f"lower the LR ({seen.distance}), or add warmup or gradient clipping."
    above = seen.distance if seen.is_above else "lower LRs ended worse"
    return f"add warmup or gradient clipping; {above}."


def higher(seen: Tried | None, words: str) -> str:
    """Return the advice to raise the LR in these words, or another where LRs tried refute it."""
    if seen is None or (seen.may_raise and not seen.is_above):
        return words
    if seen.is_above:
        return f"raise the LR ({seen.distance}) or train longer."
    other = seen.distance if seen.is_below else "higher LRs ended worse"
    return f"train longer; {other}."


def other(seen: Tried | None) -> str:
    """Return the advice for a training that stopped falling too early."""
    if seen is None:
        return "try another LR (a third, or 3×), or a schedule that lowers it."
    if seen.is_above:
        return f"raise the LR ({seen.distance})."
    if seen.is_below:
        return f"lower the LR ({seen.distance}), or let a schedule lower it."
    return "the other LRs ended worse: try another schedule, or train longer."
