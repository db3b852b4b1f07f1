"""Which LRs to train next, for how long and with which seeds, within a budget: pure functions.

Where several LRs can have the whole training, they get it, and the answer is measured. Else a few
are trained for a quarter of the longest horizon that the budget allows, and those around the best
of them for that horizon: two horizons tell how the best LR moves with the length. A grid whose
best LR is its end is widened; what is left of the budget goes between the best LR and its
neighbours, then to more seeds. All follows from `Search`, decided once, and from losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from lrexp.analysis.race import (
    DEPTH,
    SHORT_DEPTH,
    Raced,
    Rung,
    position,
    rounded_lr,
    shortfalls,
)

# All of these were measured: see tests/benchmarks/README.md.
GRIDS = (
    (9, 1 / 3),
    (7, 0.4),
    (6, 0.45),
    (5, 0.5),
    (4, 0.6),
)  # LRs of a first grid, and decades between
GUESS_GRIDS = ((8, 0.7), (6, 0.9))  # the same where the range test has no answer
FIRST_SHARE = 0.6  # of the budget, at most, for a first grid of whole trainings
SCOUTS, SCOUT_SPACING = 4, 0.6  # LRs of the shorter of two horizons
FINALS, FINAL_SPACING = 3, 0.45  # of the longer one
RATIO = 4  # of the two horizons
SHORTEST_RATIO = 8  # of a whole training after scouts
ABOVE = 0.3  # decades by which grids lie above what the range test suggests, which is careful
CLEARLY = 0.02  # of the loss before training: so much above it, an LR is too high
FINE = 0.26  # decades: between the best LR and its neighbours no closer ones are tried
MOST_WIDER, MOST_BLIND = 4, 2  # times that a grid is widened; where no LR learned, too
MOST_SEEDS = 5
CONTENDER = 0.15  # regret up to which an LR gets more seeds
MIN_HORIZON = 4  # steps: with fewer there is no loss after training to speak of
DRIFT, DRIFT_SD = -0.4, 0.25  # prior of the slope of log10 best LR over log10 length
MIDDLE_SD = 0.15  # decades: how well the middle of one horizon's LRs is known
LOWEST, HIGHEST = 1e-12, 1e4  # LRs that are ever tried
EVALUATIONS = 8  # of a training, at most
EVALUATION_SHARE = 0.25  # of the steps of a training that its evaluations may cost


def evaluations(horizon: int, steps_each: float) -> int:
    """Return how often a training is evaluated after steps; each costs `steps_each` of them.

    Example:
        >>> evaluations(100, 0.5), evaluations(100, 10.0), evaluations(100, 1000.0)
        (8, 2, 1)
    """
    most = EVALUATION_SHARE * horizon / steps_each if steps_each > 0 else EVALUATIONS
    return int(max(1, min(EVALUATIONS, most, horizon)))


@dataclass(frozen=True)
class Costs:
    """What training costs, in the unit of the budget.

    Args:
        step: of one copy, by the number of copies in a stack; 1 is a training on its own.
        setup: of a stack, before its first step.
        evaluation: steps that one evaluation takes as long as.

    Example:
        >>> Costs({1: 0.01, 4: 0.004}).of(4, 100)
        1.6
    """

    step: Mapping[int, float]
    setup: float = 0.0
    evaluation: float = 0.0

    def of(self, copies: int, horizon: int) -> float:
        """Return what so many trainings cost."""
        size = max((k for k in self.step if k <= copies), default=1)
        times = 1 + evaluations(horizon, self.evaluation) if self.evaluation else 0
        steps = horizon + self.evaluation * times
        return (self.setup if size > 1 else 0.0) + copies * steps * self.step[size]


@dataclass(frozen=True)
class Search:
    """What was decided once, after the range test.

    Args:
        start_lr: where it looks first.
        total_steps: of a whole training.
        budget: in the unit of the costs.
        costs: of trainings.
        seed: the first seed.
        least_gain: by how much an LR must lower the loss to count as one that learns.
        guess: loss of the best constant answer, where it is known.
        is_guess: the range test has no answer.
        steps_per_epoch: for words; None where the data has no length.
        can_have: whether the config's schedule can have an LR as its base; others are not tried.
    """

    start_lr: float
    total_steps: int
    budget: float
    costs: Costs
    seed: int = 0
    least_gain: float = 0.0
    guess: float | None = None
    is_guess: bool = False
    steps_per_epoch: int | None = None
    can_have: Callable[[float], bool] = field(default=lambda lr: True, repr=False, compare=False)

    @cached_property
    def first_grid(self) -> tuple[int, float]:
        """How many LRs a first grid of whole trainings has, and the decades between them."""
        grids = GUESS_GRIDS if self.is_guess else GRIDS
        room = FIRST_SHARE * self.budget
        fitting = (g for g in grids[:-1] if self.costs.of(g[0], self.total_steps) <= room)
        return next(fitting, grids[-1])

    @cached_property
    def horizons(self) -> tuple[int, ...]:
        """The lengths that LRs are trained for, short ones first; none where none is affordable."""
        total = self.total_steps
        count = GUESS_GRIDS[-1][0] if self.is_guess else SCOUTS
        least = GUESS_GRIDS[-1][0] if self.is_guess else 5
        if self._costs((least + 1, total)):
            return (total,)
        short = max(MIN_HORIZON, total // SHORTEST_RATIO)
        if short < total and self._costs((count, short), (FINALS, total)):
            return (short, total)
        longest = self._longest(lambda h: [(count, h // RATIO), (FINALS, h)])
        if longest // RATIO >= MIN_HORIZON:
            return (longest // RATIO, longest)
        alone = self._longest(lambda h: [(count, h)])
        return (alone,) if alone >= MIN_HORIZON else ()

    def _costs(self, *grids: tuple[int, int]) -> bool:
        """Return whether these fit into the budget."""
        return sum(self.costs.of(*grid) for grid in grids) <= self.budget * (1 + 1e-9)

    def _longest(self, grids: Callable[[int], list[tuple[int, int]]]) -> int:
        low, high = 0, self.total_steps
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._costs(*grids(middle)) else (low, middle - 1)
        return low

    def cost(self, rung: Rung) -> float:
        """Return what the trainings of a rung cost."""
        return self.costs.of(len(rung.lrs) * len(rung.seeds), rung.horizon)


def next_rung(search: Search, asked: Sequence[Rung], done: Sequence[Raced]) -> Rung | None:
    """Return what to train next; None when the search is over.

    Args:
        search: what was decided.
        asked: all that was trained, in order.
        done: what it came to, one for each horizon, short ones first.

    Example:
        >>> search = Search(0.01, 160, budget=4.0, costs=Costs({1: 1 / 160}))
        >>> next_rung(search, (), ())
        Rung(horizon=20, lrs=(0.005771, 0.02297, 0.09146, 0.3641), seeds=(0,))
    """
    left = search.budget * (1 + 1e-9) - sum(search.cost(rung) for rung in asked)
    for place, horizon in enumerate(search.horizons):
        shorter = [raced for raced in done if raced.rung.horizon < horizon]
        before = [raced for raced in shorter if learned(search, raced)]
        here = next((raced for raced in done if raced.rung.horizon == horizon), None)
        is_last = place == len(search.horizons) - 1
        # where no LR learned, longer trainings around them would tell nothing either
        is_blind = here is not None and not learned(search, here) and _too_high(here)
        later = 0 if is_last or is_blind else search.horizons[place + 1]
        room = _Room(search, horizon, left - (search.costs.of(FINALS, later) if later else 0.0))
        if here is None:
            return room.first(_first(search, horizon, before))
        rungs = [rung for rung in asked if rung.horizon == horizon]
        most = MOST_BLIND if is_blind else MOST_WIDER
        further = wider(search, here) if len(rungs) <= most else []
        if is_last and not further:
            further = between(search, here)
        if (rung := room.of(further, here)) is not None:
            return rung
        if is_last:
            return room.more_seeds(here)
    return None


@dataclass(frozen=True)
class _Room:
    """What may still be spent on one horizon."""

    search: Search
    horizon: int
    left: float

    def first(self, grid: list[float]) -> Rung | None:
        """Return a first grid: all of it, or as many of its lower LRs as can be had."""
        while grid and self.search.costs.of(len(grid), self.horizon) > self.left:
            grid = grid[:-1]
        return self._rung(grid, (self.search.seed,))

    def of(self, grid: list[float], here: Raced) -> Rung | None:
        """Return as many of these LRs as can be had; the first matter most."""
        for count in range(len(grid), 0, -1):
            rung = self._rung(grid[:count], (self.search.seed,), here.rung.lrs)
            if rung is not None and self.search.cost(rung) <= self.left:
                return rung
        return None

    def more_seeds(self, here: Raced) -> Rung | None:
        """Return the LRs that may be best, with one more seed."""
        seeds = here.rung.seeds
        short = shortfalls(here.start, here.losses, self.search.guess)
        good = (short <= CONTENDER) & ~here.failed
        lrs = tuple(lr for lr, is_good in zip(here.rung.lrs, good, strict=True) if is_good)
        if len(seeds) >= MOST_SEEDS or len(lrs) < 2:
            return None
        rung = Rung(self.horizon, lrs, (max(seeds) + 1,))
        return rung if self.search.cost(rung) <= self.left else None

    def _rung(
        self, grid: Sequence[float], seeds: tuple[int, ...], known: Sequence[float] = ()
    ) -> Rung | None:
        found = {rounded_lr(10**x) for x in grid if LOWEST <= 10**x <= HIGHEST} - set(known)
        lrs = tuple(sorted(lr for lr in found if self.search.can_have(lr)))
        return Rung(self.horizon, lrs, seeds) if lrs else None


def _first(search: Search, horizon: int, before: Sequence[Raced]) -> list[float]:
    """Return the first LRs of a horizon, log10."""
    if before:
        # between what is best now and what a whole training needs, so that both were tried
        whole = predicted(search, before, search.total_steps).middle
        middle = (predicted(search, before, horizon).middle + whole) / 2
        spacing = max(FINAL_SPACING, abs(middle - whole))
        return [middle + spacing * i for i in (-1, 0, 1)]
    if len(search.horizons) == 1 and horizon == search.total_steps:
        count, spacing = search.first_grid
    else:
        count, spacing = GUESS_GRIDS[-1] if search.is_guess else (SCOUTS, SCOUT_SPACING)
    middle = math.log10(search.start_lr) + DRIFT * math.log10(horizon / search.total_steps)
    middle += 0.0 if search.is_guess else ABOVE
    if len(search.horizons) > 1 and horizon == search.horizons[-1]:  # a shorter one told nothing
        count, spacing = FINALS, SCOUT_SPACING
    return [middle + spacing * (i - (count - 1) / 2) for i in range(count)]


def wider(search: Search, here: Raced) -> list[float]:
    """Return LRs beyond the end that is the best, log10, the nearest first; none where none is."""
    x = np.log10(here.rung.lrs)
    gap = float(np.median(np.diff(x))) if len(x) > 1 else SCOUT_SPACING
    if not learned(search, here):
        if _too_high(here):
            return [float(x[0]) - gap, float(x[0]) - 2 * gap]
        if here.failed.any():
            return []  # between too low and too high: this horizon cannot tell
        return [float(x[-1]) + gap, float(x[-1]) + 2 * gap]  # too low, or nothing to learn
    best = int(np.argmin(here.means))
    if best == 0:
        return [float(x[0]) - gap, float(x[0]) - 2 * gap]
    if best == len(x) - 1:
        return [float(x[-1]) + gap, float(x[-1]) + 2 * gap]
    return []


def _too_high(here: Raced) -> bool:
    """Return whether even the lowest LR ended clearly above the loss before training."""
    start = np.asarray(here.start)
    return bool((np.asarray(here.losses[0]) > start + CLEARLY * np.abs(start)).any())


def between(search: Search, here: Raced) -> list[float]:
    """Return LRs half way between the best and its neighbours, log10, the better side first."""
    x, means = np.log10(here.rung.lrs), here.means
    best = int(np.argmin(means))
    sides = [i for i in (best - 1, best + 1) if 0 <= i < len(x) and abs(x[i] - x[best]) > FINE]
    sides.sort(key=lambda i: float(means[i]))
    return [float(x[i] + x[best]) / 2 for i in sides] if learned(search, here) else []


def learned(search: Search, raced: Raced) -> bool:
    """Return whether any LR ended lower than before training, by more than luck, on average."""
    gain = float(np.mean(raced.start)) - float(raced.means.min())
    return gain > max(search.least_gain, 1e-6 * abs(float(np.mean(raced.start))))


@dataclass(frozen=True)
class Predicted:
    """The best LR of a length, log10, and how much of a decade it may be off on either side."""

    middle: float
    doubt: float


def predicted(search: Search, done: Sequence[Raced], length: int) -> Predicted:
    """Return the best LR of a training of this length.

    From the middle of the longest horizon's LRs along `slope · log10(length / horizon)`. The slope
    is what the horizons measure, weighed against the prior (-0.4 ± 0.25) by how exact both are.
    """
    taught = [raced for raced in done if learned(search, raced)] or list(done)
    points = [(math.log10(r.rung.horizon), middle_of(search, r)) for r in taught]
    weight, total = DRIFT_SD**-2, DRIFT * DRIFT_SD**-2
    for (near, one), (far, other) in pairwise(points):
        exact = ((far - near) / (math.sqrt(2) * MIDDLE_SD)) ** 2
        weight, total = weight + exact, total + exact * (other - one) / (far - near)
    way = math.log10(length) - points[-1][0]
    return Predicted(points[-1][1] + total / weight * way, abs(way) / math.sqrt(weight))


def middle_of(search: Search, raced: Raced) -> float:
    """Return the middle of the LRs that are good for one horizon, log10."""
    short = shortfalls(raced.start, raced.losses, search.guess)
    is_whole = raced.rung.horizon >= search.total_steps
    depth = DEPTH if is_whole else SHORT_DEPTH
    return position(raced.rung.lrs, short, depth)
