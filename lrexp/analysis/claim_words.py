"""The verdict on two variants as a sentence with its numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lrexp.analysis.paired import MIN_SEEDS

if TYPE_CHECKING:
    from lrexp.analysis.claims import Comparison

BETTER, NO_DIFFERENCE, TOO_FEW = "better", "no difference detected", "too few seeds to tell"


def verdict_text(c: Comparison, needed: int) -> str:
    """Return the verdict with its numbers, in one of the three forms.

    Args:
        c: all but the verdict.
        needed: seeds that a claim takes.
    """
    if c.kind == TOO_FEW:
        # below six no number of variants would help: that is the plainer reason
        limit = MIN_SEEDS if c.n < MIN_SEEDS else needed
        return f"{TOO_FEW} (n < {limit})"
    says = f"{c.better} is better" if c.kind == BETTER else NO_DIFFERENCE
    winner, wins = (c.reference, c.losses) if c.better == c.reference else (c.variant, c.wins)
    facts = [*_size(c), f"p = {_p_text(c.p_holm)}", f"n = {c.n}", f"{winner} wins {wins}"]
    return f"{says} ({', '.join(facts)})"


def _size(c: Comparison) -> list[str]:
    """Return variant − reference and its interval, or which of the two diverged how often."""
    if c.mean is None or c.interval is None:
        counts = [(c.variant, c.diverged["variant"]), (c.reference, c.diverged["reference"])]
        both = c.diverged["both"]
        alone = [f"{name} diverged in {k} of {c.n}" for name, k in counts if k]
        together = f"both in {both}" if alone else f"both diverged in {both} of {c.n}"
        return [*alone, *([together] if both else [])]
    low, high = c.interval
    places = _decimals(high - low, max(abs(low), abs(high)))
    mean = _number(c.mean, places, "+")
    low_text, high_text = (_number(end, places) for end in (low, high))
    share = "" if c.relative is None else _share(100 * c.relative)
    return [f"Δ {mean}{share}", f"95 % interval {low_text} to {high_text}"]


def _share(percent: float) -> str:
    """Return a relative difference; none where it is 0, or so large that the numbers say more."""
    if not percent or not -99.5 < percent < 999.5:
        return ""
    return f" = {percent:+.2g} %" if abs(percent) < 99.5 else f" = {percent:+.0f} %"


def _decimals(width: float, size: float) -> int | None:
    """Return the decimals that show an interval to two or three digits; None for powers of ten."""
    if not 1e-4 <= (width or size) < 1e6:
        return None
    return max(0, 2 - math.floor(math.log10(width or size)))


def _number(value: float, places: int | None, sign: str = "") -> str:
    return f"{value:{sign}.3g}" if places is None else f"{value:{sign}.{places}f}"


def _p_text(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-3 else f"{p:.0e}".replace("e-0", "e-")
