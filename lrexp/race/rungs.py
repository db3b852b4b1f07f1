"""Which learning rates are trained next, and for how long: a pure function of the results so far.

A race opens with three LRs on a log grid around what the range test suggests, for a quarter of a
full training; a fourth is placed where their losses ask for one. With more budget the losing half
drops out, and the other two are trained for twice as long, a little lower. All start from the same
weights and see the same batches. What a rung comes to is weighed in `basin`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lrexp.errors import ConfigError
from lrexp.race.basin import learned, position, regrets
from lrexp.race.entrants import Entrant, rounded_lr

# All of these were measured: see tests/benchmarks/README.md.
OPENING = 3  # LRs of the first rung; with the one beside the best of them it costs 4 trainings
SPACING = 0.6  # decades between them: more is learned from few, far apart, than from many
ABOVE = 0.3  # decades by which they lie above what the range test suggests, which is careful
PAIR = 2.0  # budget from which two LRs are trained for twice as long, after the four
DRIFT = 0.4  # power of the length of a training with which the best LR falls
TRUST = 0.7  # weight of longer trainings against the shorter ones before them
MIN_HORIZON = 4  # steps: with fewer there is no loss after training to speak of


@dataclass(frozen=True)
class Course:
    """What a race starts from.

    Args:
        start_lr: what the range test suggests.
        total_steps: of a full training.
        budget: of all trainings together; 1 is a full training.
        seed: the first seed.
        least_gain: by how much an LR must lower the loss to count as one that learns.
        can_have: whether the config's schedule can have an LR as its base; others are not tried.

    Raises:
        ConfigError: the budget is too small for a race, with the key `find_lr.budget`.
    """

    start_lr: float
    total_steps: int
    budget: float
    seed: int = 0
    least_gain: float = 0.0
    can_have: Callable[[float], bool] = field(default=lambda lr: True, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.horizons[0] < MIN_HORIZON:
            trainings = 2 * (OPENING + 1) if self.budget >= PAIR else OPENING + 1
            raise ConfigError.single(
                "find_lr.budget",
                f"leaves less than {MIN_HORIZON} steps for each training of a race "
                f"(a full training has {self.total_steps})",
                self.budget,
                f"Give at least {trainings * MIN_HORIZON / self.total_steps:.2g}, "
                "or raise train.duration.",
            )

    @property
    def budget_steps(self) -> int:
        """How many updates may be made."""
        return math.floor(self.budget * self.total_steps + 1e-9)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of every LR: another one for every `PAIR` of budget."""
        return tuple(self.seed + i for i in range(max(1, int(self.budget / PAIR))))

    @property
    def horizons(self) -> tuple[int, ...]:
        """The steps of the trainings of the first two rungs, and of the pair after them, if any.

        Rounded down, and never more than a full training: a budget is never exceeded.
        """
        if self.budget < PAIR:
            return (min(self.total_steps, self.budget_steps // (OPENING + 1)),)
        each = self.budget_steps // len(self.seeds)
        short = each // (2 * (OPENING + 1))  # half of the budget for the four, half for the pair
        return (min(self.total_steps, short), min(self.total_steps, 2 * short))


@dataclass(frozen=True)
class Rung:
    """Some LRs, trained over one horizon with the same seeds.

    Args:
        horizon: updates of each training.
        lrs: increasing.
        seeds: of each LR.
    """

    horizon: int
    lrs: tuple[float, ...]
    seeds: tuple[int, ...]

    @property
    def trials(self) -> tuple[tuple[str, int], ...]:
        """Variant and seed of every training, seed by seed."""
        return tuple((Entrant(self.horizon, lr).name, s) for s in self.seeds for lr in self.lrs)

    @property
    def steps(self) -> int:
        """Updates of all trainings together."""
        return self.horizon * len(self.lrs) * len(self.seeds)


@dataclass(frozen=True)
class Raced:
    """LRs trained over one horizon, and what they came to.

    Args:
        rung: what was trained.
        start: loss before training, (seeds,).
        losses: after it, inf where it diverged, (lrs, seeds).
    """

    rung: Rung
    start: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]


def next_rung(course: Course, done: Sequence[Raced]) -> Rung | None:
    """Return the rung to train next; None when the race is over.

    Example:
        >>> next_rung(Course(start_lr=0.01, total_steps=160, budget=1.0), ())
        Rung(horizon=40, lrs=(0.007096, 0.02825, 0.1125), seeds=(0,))
    """
    tried = [raced.rung.horizon for raced in done]
    short = course.horizons[0]
    if not tried:
        middle = math.log10(course.start_lr) + drift(course, short) + ABOVE
        return _rung(course, short, [middle + SPACING * (i - 1) for i in range(OPENING)])
    if tried == [short]:
        beside = _rung(course, short, [beside_best(done[0])])
        if beside is not None and not set(beside.lrs) & set(done[0].rung.lrs):
            return beside
    if course.horizons[-1] in tried:
        return None
    long = course.horizons[-1]
    lower = drift(course, short) - drift(course, long)
    stay = survivors(by_horizon(done)[0])
    return _rung(course, long, [math.log10(lr) - lower for lr in stay])


def beside_best(raced: Raced) -> float:
    """Return where one more LR says most, log10: past the best one, where that is the last.

    Else halfway to the better of its neighbours. Where no LR learns, all are too high.
    """
    x = np.log10(raced.rung.lrs)
    if not learned(raced.start, raced.losses):
        return float(x[0]) - 2 * SPACING
    regret = regrets(raced.start, raced.losses)
    best = int(np.argmin(regret))
    if best == 0:
        return float(x[0]) - SPACING
    if best == len(x) - 1:
        return float(x[-1]) + SPACING
    other = best - 1 if regret[best - 1] < regret[best + 1] else best + 1
    return float(x[best] + x[other]) / 2


def by_horizon(done: Sequence[Raced]) -> list[Raced]:
    """Return the rungs, those of one horizon as one, LRs increasing."""
    merged: dict[int, Raced] = {}
    for raced in done:
        before = merged.get(raced.rung.horizon)
        merged[raced.rung.horizon] = raced if before is None else _merged(before, raced)
    return [merged[horizon] for horizon in sorted(merged)]


def survivors(raced: Raced) -> tuple[float, ...]:
    """Return the better half of the LRs of a rung, rounded up; the others drop out."""
    order = np.argsort(regrets(raced.start, raced.losses), kind="stable")
    return tuple(raced.rung.lrs[i] for i in sorted(order[: math.ceil(len(order) / 2)]))


def center(course: Course, done: Sequence[Raced]) -> float:
    """Return log10 of the LR that looks best for a full training so far.

    The middle of the basin of each horizon, moved down by the drift to a full training. A longer
    horizon counts 0.7 against the shorter one.
    """
    short, *longer = (
        position(raced.rung.lrs, raced.start, raced.losses) - drift(course, raced.rung.horizon)
        for raced in by_horizon(done)
    )
    return TRUST * longer[0] + (1 - TRUST) * short if longer else short


def drift(course: Course, horizon: int) -> float:
    """Return by how many decades the best LR of a shorter training lies above that of a full one.

    `0.4 · log10(T / horizon)`: 0.4 decades for a tenth of the length.
    """
    return DRIFT * math.log10(course.total_steps / horizon)


def _rung(course: Course, horizon: int, grid: Sequence[float]) -> Rung | None:
    lrs = sorted({lr for lr in (rounded_lr(10**x) for x in grid) if course.can_have(lr)})
    return Rung(horizon, tuple(lrs), course.seeds) if lrs else None


def _merged(one: Raced, other: Raced) -> Raced:
    rows = {**dict(zip(one.rung.lrs, one.losses, strict=True))}
    rows |= dict(zip(other.rung.lrs, other.losses, strict=True))
    lrs = tuple(sorted(rows))
    rung = Rung(one.rung.horizon, lrs, one.rung.seeds)
    return Raced(rung, one.start, tuple(rows[lr] for lr in lrs))
