"""How much worse than the best LR a suggested one is: 0 is the best, 1 is not having trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from accuracy.grid import Array, Measured, clipped


@dataclass(frozen=True, eq=False)
class Landscape:
    """The mean loss over log10 LR, on the points of a grid.

    Args:
        log_lr: increasing, (lrs,).
        loss: after training, at most `start`, (lrs,).
        start: of the untrained model.

    Example:
        >>> land = Landscape(np.array([-2.0, -1.0, 0.0]), np.array([3.0, 1.0, 5.0]), 5.0)
        >>> land.regret(0.1), land.regret(1.0), land.regret(10 ** -1.5)
        (0.0, 1.0, 0.25)
    """

    log_lr: Array
    loss: Array
    start: float

    @property
    def best(self) -> int:
        return int(np.argmin(self.loss))

    @property
    def best_lr(self) -> float:
        return float(10 ** self.log_lr[self.best])

    @property
    def learns(self) -> bool:
        """Whether any LR of the grid is better than not training; without that, no regret."""
        return bool(self.loss[self.best] < self.start)

    @property
    def is_interior(self) -> bool:
        """Whether the best LR is not at an end of the grid, so that there is none beyond it."""
        return 0 < self.best < len(self.loss) - 1

    def regret(self, lr: float | None) -> float:
        """Return (L(lr) − L*) / (L0 − L*), L interpolated in log LR.

        An LR outside of the grid counts as the grid's end; None, no suggestion, as 1.
        """
        if lr is None or not (math.isfinite(lr) and lr > 0):
            return 1.0
        lowest = self.loss[self.best]
        loss = np.interp(math.log10(lr), self.log_lr, self.loss)
        return float((loss - lowest) / (self.start - lowest))

    def share_within(self, low: float, high: float, within: float) -> float:
        """Return the share of the LRs from low to high whose loss is within that of the best."""
        x = np.linspace(math.log10(low), math.log10(high), 21)
        best = float(self.loss[self.best])
        losses = np.interp(x, self.log_lr, self.loss)
        return float(np.mean(losses <= best + within * abs(best)))

    def good(self, tolerance: float = 0.05) -> tuple[float, float]:
        """Return the ends of the LRs around the best one whose regret is within `tolerance`."""
        bar = self.loss[self.best] + tolerance * (self.start - self.loss[self.best])
        low = high = self.best
        while low > 0 and self.loss[low - 1] <= bar:
            low -= 1
        while high < len(self.loss) - 1 and self.loss[high + 1] <= bar:
            high += 1
        return float(10 ** self.log_lr[low]), float(10 ** self.log_lr[high])


def landscape(grid: Measured, *, of_training: bool = False) -> Landscape:
    """Return the validation loss over LR, or the training loss.

    Both begin at the validation loss of the untrained model: it never saw either set, and a batch
    or two say little.
    """
    loss = clipped(grid.train if of_training else grid.val, grid.start)
    return Landscape(np.log10(grid.lrs), loss, float(grid.start.mean()))
