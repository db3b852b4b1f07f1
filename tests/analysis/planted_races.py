"""A landscape whose best LR is known, and a search over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lrexp.analysis.race import Raced, Rung
from lrexp.analysis.search import Costs, Search, next_rung

Loss = Callable[[int, float, int], float]


@dataclass(frozen=True)
class Basin:
    """Losses as a bowl over log10 LR, with a cliff on its right; the bowl drifts with the horizon.

    Args:
        best: log10 of the best LR of a whole training.
        width: decades at which half of the gain is lost.
        cliff: decades above the best LR at which training diverges.
        drift: power of the length with which the best LR moves.
    """

    best: float
    width: float = 1.0
    cliff: float = 0.8
    start: float = 2.0
    low: float = 1.0
    total_steps: int = 400
    drift: float = -0.5

    def loss(self, horizon: int, lr: float, seed: int = 0) -> float:
        """Return the loss after training."""
        x = math.log10(lr) - self.best - self.drift * math.log10(horizon / self.total_steps)
        x -= 0.02 * seed
        if x > self.cliff:
            return math.inf
        return self.start - (self.start - self.low) * 0.5 ** ((x / self.width) ** 2)

    def regret(self, lr: float) -> float:
        """Return the regret of an LR after a whole training."""
        loss = min(self.start, self.loss(self.total_steps, lr))
        return (loss - self.low) / (self.start - self.low)


def trainings(
    budget: float, total_steps: int = 400, start_lr: float = 0.01, **more: object
) -> Search:
    """Return a search whose budget is counted in whole trainings."""
    return Search(start_lr, total_steps, budget, Costs({1: 1 / total_steps}), **more)  # type: ignore[arg-type]


def searched(search: Search, loss: Loss, start: float = 2.0) -> tuple[list[Rung], list[Raced]]:
    """Return all that a search trains over a landscape, in order, and what it came to."""
    asked: list[Rung] = []
    done: list[Raced] = []
    while (rung := next_rung(search, asked, done)) is not None:
        asked.append(rung)
        done = came_to(asked, loss, start)
        assert len(asked) < 30
    return asked, done


def came_to(asked: Sequence[Rung], loss: Loss, start: float = 2.0) -> list[Raced]:
    """Return what rungs come to, one result for each horizon."""
    found = []
    for horizon in sorted({rung.horizon for rung in asked}):
        trained = {
            (lr, seed)
            for rung in asked
            if rung.horizon == horizon
            for lr in rung.lrs
            for seed in rung.seeds
        }
        lrs, seeds = (tuple(sorted(set(keys))) for keys in zip(*trained, strict=True))
        losses = tuple(
            tuple(loss(horizon, lr, s) if (lr, s) in trained else math.nan for s in seeds)
            for lr in lrs
        )
        found.append(Raced(Rung(horizon, lrs, seeds), (start,) * len(seeds), losses))
    return found
