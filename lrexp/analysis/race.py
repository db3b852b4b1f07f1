"""A race: short trainings that verify what a range test suggests, decided by pure functions.

A race opens with three LRs on a log grid around the suggestion, or below the edge of stability,
for a quarter of a full training; a fourth is placed where their losses ask for one. With more
budget the losing half drops out, and the other two train twice as long, a little lower. The best of
a few noisy losses jumps between LRs that are as good as each other, so a rung's answer is the
middle of its basin: an average of the LRs weighted by how good each is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrexp.analysis.range_curve import RESOLUTION, Curve, combine
from lrexp.analysis.rules import BELOW_EDGE, deviation, stability_edge
from lrexp.analysis.suggest import Suggestion
from lrexp.errors import ConfigError

_NAME = re.compile(r"race-([1-9]\d{0,8})-lr-(\d[\d.]*(?:e[+-]\d\d\d?)?)")


@dataclass(frozen=True)
class Candidate:
    """One learning rate, trained over a horizon.

    Args:
        horizon: updates of the training, at least 1.
        lr: the base LR, to be rounded by `rounded_lr`.

    Example:
        >>> Candidate(40, 0.0316).name
        'race-40-lr-0.0316'
    """

    horizon: int
    lr: float

    @property
    def name(self) -> str:
        """The variant's name in the run directory."""
        return f"race-{self.horizon}-lr-{self.lr:.4g}"


def candidate_of(name: str) -> Candidate | None:
    """Return the candidate of a variant's name; None where the name is no candidate's.

    Example:
        >>> candidate_of("race-40-lr-0.0316"), candidate_of("range_test")
        (Candidate(horizon=40, lr=0.0316), None)
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        found = Candidate(int(match[1]), float(match[2]))
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


# Measured: see tests/benchmarks/README.md.
ROOM = 0.1  # of where it begins: so low must the range test have begun, else the edge is none
LEAST_GAIN = 0.25  # of the deviation of a batch loss: an LR that lowers the loss by less is luck


@dataclass(frozen=True)
class RaceStart:
    """What a race begins with.

    Args:
        lr: where it looks first.
        least_gain: by how much an LR must lower the loss to count as one that learns.
        note: a sentence for the user where the range test has no answer.
    """

    lr: float
    least_gain: float = 0.0
    note: str | None = None


def race_start(curves: Sequence[Curve], suggestion: Suggestion) -> RaceStart | None:
    """Return where a race begins after these range tests, None where it would be a blind guess.

    Args:
        curves: of the range tests, one for each seed.
        suggestion: what they suggest.

    Example:
        >>> import numpy as np
        >>> from lrexp.analysis.suggest import suggest
        >>> lr = np.logspace(-7, 1, 100)
        >>> curve = Curve(lr, 2.0 + np.maximum(lr - 0.1, 0) ** 2)  # nothing falls, it blows up
        >>> found = race_start([curve], suggest([curve]))
        >>> round(found.lr, 3)
        0.002
    """
    if suggestion.suggested_lr is not None:
        return RaceStart(suggestion.suggested_lr)
    together = suggestion.rules["auto"]
    if together is not None:  # there is a fall, but the seeds disagree about it, or another rule
        because = str(suggestion.reason).partition(":")[0]
        note = f"{because}: the race looked around {together:.2g}, what `auto` reads off all seeds."
        return RaceStart(together, note=note)
    combined = combine(curves)
    edge = stability_edge(combined)
    if edge is None or edge * BELOW_EDGE * ROOM < combined.lr[0]:
        return None
    note = (
        f"The range test saw no fall, only that the loss rises above LR {edge:.2g}: the race "
        "looked below that."
    )
    least = max(LEAST_GAIN * deviation(combined), RESOLUTION * abs(float(combined.loss[0])))
    return RaceStart(edge * BELOW_EDGE / suggestion.peak_share, least, note)


Array = NDArray[np.float64]
DEPTH = 0.2  # regret at which an LR has 1/e of the weight of the best one


def position(lrs: ArrayLike, start: ArrayLike, losses: ArrayLike) -> float:
    """Return the middle of the basin, log10 LR: `Σ w·x / Σ w`, `w = width · exp(−regret / 0.2)`.

    The width is that of the stretch between an LR's neighbours, so that two LRs close together
    count no more than one.

    Args:
        lrs: increasing, (lrs,).
        start: losses before training, (seeds,).
        losses: after it, (lrs, seeds).

    Example:
        >>> round(position([0.01, 0.1, 1.0], [2.0], [[0.5], [0.5], [9.0]]), 2)
        -1.49
    """
    x = np.log10(np.asarray(lrs, dtype=np.float64))
    weight = np.exp(-regrets(start, losses) / DEPTH) * _widths(x)
    return float(weight @ x / weight.sum())


def regrets(start: ArrayLike, losses: ArrayLike) -> Array:
    """Return `(L − L*) / (L0 − L*)` of every LR, (lrs,); 1 is no better than not training.

    A loss counts as at most that before training. Where no LR improves on it, all have 1.

    Example:
        >>> regrets([2.0], [[1.0], [1.5], [float("inf")]])
        array([0. , 0.5, 1. ])
    """
    first = np.asarray(start, dtype=np.float64)
    known = np.asarray(losses, dtype=np.float64)
    mean = np.minimum(np.where(np.isfinite(known), known, np.inf), first).mean(axis=1)
    gain = float(first.mean() - mean.min())
    return (mean - mean.min()) / gain if gain > 0 else np.ones(len(mean))


def learned(start: ArrayLike, losses: ArrayLike, least: float = 0.0) -> bool:
    """Return whether any LR ended lower than before training, by more than `least`, on average."""
    first = np.asarray(start, dtype=np.float64)
    known = np.asarray(losses, dtype=np.float64)
    known = np.where(np.isnan(known), np.inf, known)
    return bool(np.any(known.mean(axis=1) < first.mean() - least))


def _widths(x: Array) -> Array:
    """Return the stretch that each point stands for; one at an end counts as far outwards."""
    if len(x) == 1:
        return np.ones(1)
    ends = np.concatenate([[2 * x[0] - x[1]], x, [2 * x[-1] - x[-2]]])
    return np.asarray((ends[2:] - ends[:-2]) / 2)


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
        return tuple((Candidate(self.horizon, lr).name, s) for s in self.seeds for lr in self.lrs)

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
        Rung(horizon=40, lrs=(0.008726, 0.03474, 0.1383), seeds=(0,))
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


TOLERANCE = 0.05  # regret within which an LR is as good as the best
REACH = 0.25  # decades that the basin may go on beyond the last LR that was tried
LEAST = 0.05  # decades on either side that no answer is more exact than
EQUAL = 1e-6  # regret: as good as the best, but for rounding
DOUBT = 0.1  # decades: how much the answer varies from seed to seed


@dataclass(frozen=True)
class Verdict:
    """The answer of a race: LRs where `reason` is None, else why there are none.

    Args:
        lr: for a full training.
        interval: LRs within 5 % of the best in the short trainings, moved down for a full one.
        regret: that the answer is expected to have; None where the best tried is an end of all.
        reason: a sentence for the user when there is no answer.
        note: a sentence on what is not known.
    """

    lr: float | None
    interval: tuple[float, float] | None
    regret: float | None
    reason: str | None = None
    note: str | None = None


def verdict(course: Course, done: Sequence[Raced]) -> Verdict:
    """Return what the rungs say together."""
    if not done:
        return Verdict(None, None, None, "The schedule cannot have any LR near the range test's.")
    rungs = by_horizon(done)
    taught = [r for r in rungs if learned(r.start, r.losses, course.least_gain)]
    widest = max(taught or rungs, key=lambda raced: len(raced.rung.lrs))
    if not taught:
        return Verdict(None, None, None, _nothing_learned(course, widest))
    x, regret = np.log10(widest.rung.lrs), regrets(widest.start, widest.losses)
    middle = position(widest.rung.lrs, widest.start, widest.losses)
    answer = center(course, done)
    low, high = _basin(x - middle, regret)
    end = _end(regret)
    return Verdict(
        lr=float(f"{10**answer:.3g}"),
        interval=(float(f"{10 ** (answer + low):.3g}"), float(f"{10 ** (answer + high):.3g}")),
        regret=_expected(x - middle, regret) if end is None else None,
        note=None if end is None else _best_is_end(widest, end),
    )


def _end(regret: Array) -> str | None:
    """Return which end of the LRs is the best one, where one is and has no equal."""
    best = np.flatnonzero(regret <= EQUAL)
    if len(regret) == 1 or len(best) != 1:
        return None
    return {0: "lowest", len(regret) - 1: "highest"}.get(int(best[0]))


def _best_is_end(raced: Raced, end: str) -> str:
    lr = raced.rung.lrs[0 if end == "lowest" else -1]
    beyond = "below" if end == "lowest" else "above"
    return (
        f"The best LR tried, {lr:.3g}, is the {end} of all: a better one may lie {beyond} it. "
        "Compare LRs around the answer (compare.grid) to be sure."
    )


def _basin(x: Array, regret: Array) -> tuple[float, float]:
    """Return the ends of the LRs around 0 that are within the tolerance."""
    grid = np.linspace(x[0] - REACH, x[-1] + REACH, 801)
    good = grid[np.interp(grid, x, regret) <= TOLERANCE]
    low, high = (float(good.min()), float(good.max())) if len(good) else (0.0, 0.0)
    return min(low, -LEAST), max(high, LEAST)


def _expected(x: Array, regret: Array) -> float:
    """Return the mean regret of LRs around 0, as far from it as the answer may be wrong."""
    grid = DOUBT * np.linspace(-2, 2, 41)
    weight = np.exp(-0.5 * (grid / DOUBT) ** 2)
    return float(weight @ np.interp(grid, x, regret) / weight.sum())


def _nothing_learned(course: Course, last: Raced) -> str:
    low, high = last.rung.lrs[0], last.rung.lrs[-1]
    tried = f"No LR from {low:.2g} to {high:.2g} lowered the loss"
    if course.least_gain > 0:
        return (
            f"{tried} by more than luck would in {last.rung.horizon} steps, nor did the range test "
            "show a fall. Train longer (train.duration, find_lr.budget), and check the targets and "
            "that the parameters get gradients."
        )
    return (
        f"{tried} in {last.rung.horizon} steps, though "
        "the range test fell: what it learned does not carry over to the validation data. Check "
        "the targets and the split, or train longer (train.duration, find_lr.budget)."
    )
