"""A landscape whose best LR is known, and a race over it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lrexp.analysis.race import Course, Raced, Rung, next_rung


@dataclass(frozen=True)
class Basin:
    """Losses as a bowl over log10 LR, with a cliff on its right; the bowl drifts with the horizon.

    Args:
        best: log10 of the best LR of a full training.
        width: decades at which half of the gain is lost.
        cliff: decades above the best LR at which training diverges.
    """

    best: float
    width: float = 1.0
    cliff: float = 0.8
    start: float = 2.0
    low: float = 1.0
    total_steps: int = 400

    def loss(self, horizon: int, lr: float, seed: int = 0) -> float:
        """Return the loss after training."""
        x = math.log10(lr) - self.best - 0.5 * math.log10(self.total_steps / horizon)
        x -= 0.02 * seed
        if x > self.cliff:
            return math.inf
        return self.start - (self.start - self.low) * 0.5 ** ((x / self.width) ** 2)

    def regret(self, lr: float) -> float:
        """Return the regret of an LR after a full training."""
        loss = min(self.start, self.loss(self.total_steps, lr))
        return (loss - self.low) / (self.start - self.low)


def race(course: Course, loss: Callable[[int, float, int], float], start: float) -> list[Raced]:
    """Return all rungs of a race over a landscape."""
    done: list[Raced] = []
    while (rung := next_rung(course, done)) is not None:
        done.append(came_to(rung, loss, start))
        assert len(done) < 10
    return done


def came_to(rung: Rung, loss: Callable[[int, float, int], float], start: float) -> Raced:
    """Return what a rung comes to."""
    losses = tuple(tuple(loss(rung.horizon, lr, s) for s in rung.seeds) for lr in rung.lrs)
    return Raced(rung, (start,) * len(rung.seeds), losses)
