"""Warmup, and the clock that follows it: where training stands between W and T.

With s = step, W = warmup steps, T = total steps:
`lr = η·(s+1)/W` for s < W (no update is wasted at LR 0), or `η·(f + (1−f)·s/W)` for a
`warmup_start` of f; f = 0 is the form of Hugging Face. Afterwards r = (s−W)/(T−W), held at 1.
"""

from __future__ import annotations

from collections.abc import Callable


def warmup_fraction(step: int, warmup: int, start: float | None = None) -> float:
    """Return the part of the peak that step < warmup gets.

    Example:
        >>> [warmup_fraction(s, 4) for s in range(4)]
        [0.25, 0.5, 0.75, 1.0]
        >>> [warmup_fraction(s, 4, start=0.0) for s in range(4)]
        [0.0, 0.25, 0.5, 0.75]
    """
    if start is None:
        return (step + 1) / warmup
    return start + (1 - start) * (step / warmup)


def warmed(
    peak: float, warmup: int, start: float | None, after: Callable[[int], float]
) -> Callable[[int], float]:
    """Return the function that warms up to `peak` and is `after` from step `warmup` on."""
    if warmup == 0:
        return after

    def lr(step: int) -> float:
        return peak * warmup_fraction(step, warmup, start) if step < warmup else after(step)

    return lr


def progress(step: int, warmup: int, total_steps: int) -> float:
    """Return r in [0, 1]: 0 at the end of the warmup, 1 from `total_steps` on.

    Example:
        >>> [progress(s, 4, 12) for s in (4, 8, 12, 99)]
        [0.0, 0.5, 1.0, 1.0]
    """
    return 1.0 if step >= total_steps else (step - warmup) / (total_steps - warmup)


def blend(low: float, high: float, x: float) -> float:
    """Return low + (high − low)·x without leaving [low, high], which rounding may do by an ulp."""
    return min(high, max(low, low + (high - low) * x))
