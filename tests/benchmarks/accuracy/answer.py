"""What a contender says about one cell, once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """A suggested LR, or None with the reason; `steps` are the updates that it took."""

    lr: float | None
    steps: int
    reason: str = ""
    seconds: float = 0.0
    interval: tuple[float, float] | None = None
    within: float | None = None  # of the best loss, that the LRs of the interval are said to be
