"""Trainings of several LRs from the same weights, and how good each is against the best.

They may have other horizons than the whole training, and more seeds where it matters. Where they
begin is read off the range test; `search` says which come next, `answer` what they say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrexp.analysis.range_curve import RESOLUTION, CombinedCurve, Curve, combine
from lrexp.analysis.rules import BELOW_EDGE, deviation, stability_edge
from lrexp.analysis.signal import rises_at_once
from lrexp.analysis.suggest import Suggestion

Array = NDArray[np.float64]
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
BELOW_TOP = 100.0  # times below the highest LR tested, where nothing showed an effect


@dataclass(frozen=True)
class RaceStart:
    """What the trainings begin with.

    Args:
        lr: where they look first.
        least_gain: by how much an LR must lower the loss to count as one that learns.
        note: a sentence for the user where the range test has no answer.
        is_guess: the range test has no answer, so that LRs far from `lr` are tried too.
    """

    lr: float
    least_gain: float = 0.0
    note: str | None = None
    is_guess: bool = False


def race_start(
    curves: Sequence[Curve], suggestion: Suggestion, *, others_train: bool = False
) -> RaceStart | None:
    """Return where trainings begin after these range tests, None where all LRs were too high.

    Args:
        curves: of the range tests, one for each seed.
        suggestion: what they suggest.
        others_train: one optimizer of several was tested. Where its LR shows no effect, that
            losses fall is the doing of the others, and trainings would say nothing of it.

    Example:
        >>> import numpy as np
        >>> from lrexp.analysis.suggest import suggest
        >>> lr = np.logspace(-7, 1, 100)
        >>> curve = Curve(lr, 2.0 + np.maximum(lr - 0.1, 0) ** 2)  # nothing falls, it blows up
        >>> found = race_start([curve], suggest([curve]))
        >>> round(found.lr, 3), found.is_guess
        (0.002, True)
    """
    if suggestion.suggested_lr is not None:
        return RaceStart(suggestion.suggested_lr)
    together = suggestion.rules["auto"]
    if together is not None:  # there is a fall, but the seeds disagree about it, or another rule
        because = str(suggestion.reason).partition(":")[0]
        note = f"{because}: LRs around {together:.2g}, what `auto` reads off all seeds, were tried."
        return RaceStart(together, note=note, is_guess=True)
    combined = combine(curves)
    if not len(combined.lr) or rises_at_once(combined):
        return None
    return _without_a_fall(combined, suggestion.peak_share, others_train=others_train)


def _without_a_fall(
    combined: CombinedCurve, peak_share: float, *, others_train: bool
) -> RaceStart | None:
    least = max(LEAST_GAIN * deviation(combined), RESOLUTION * abs(float(combined.loss[0])))
    edge = stability_edge(combined)
    if edge is None:
        note = "The range test shows no effect of the LR; trainings of several LRs decided."
        low = float(combined.lr[-1]) / BELOW_TOP
        return None if others_train else RaceStart(low, least, note, is_guess=True)
    if edge * BELOW_EDGE * ROOM < combined.lr[0]:
        return None
    note = f"The range test saw no fall, only a rise above LR {edge:.2g}: LRs below were tried."
    return RaceStart(edge * BELOW_EDGE / peak_share, least, note, is_guess=True)


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
    """All LRs trained over one horizon, and what they came to; nan where a seed was not trained.

    Args:
        rung: what was trained.
        start: loss before training, (seeds,).
        losses: after it, inf where it diverged, (lrs, seeds).
        best: the lowest of all evaluations, (lrs, seeds); empty where only the end was evaluated.
        best_at: after how many updates, (lrs, seeds).
    """

    rung: Rung
    start: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    best: tuple[tuple[float, ...], ...] = ()
    best_at: tuple[tuple[float, ...], ...] = ()

    @property
    def means(self) -> Array:
        """Loss of every LR, (lrs,): a mean over seeds, as if all had trained with all of them."""
        return mean_losses(self.start, self.losses)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which LRs diverged with a seed, or ended above the loss before training, (lrs,)."""
        known = np.asarray(self.losses, dtype=np.float64)
        above = known > np.asarray(self.start) + 1e-6 * np.abs(np.asarray(self.start))
        return np.asarray(above.any(axis=1))


def mean_losses(start: ArrayLike, losses: ArrayLike) -> Array:
    """Return the mean loss of every LR, (lrs,); a loss counts as at most that before training.

    An LR that lacks a seed is compared with the others over the seeds that it has: what the LRs
    with all seeds say of how much a seed shifts the loss is taken off.

    Args:
        start: (seeds,).
        losses: (lrs, seeds), nan where not trained.

    Example:
        >>> mean_losses([2.0, 2.0], [[1.0, 1.2], [0.8, float("nan")]]).round(2)
        array([1.1, 0.9])
    """
    first = np.asarray(start, dtype=np.float64)
    given = np.asarray(losses, dtype=np.float64)
    known = np.where(np.isnan(given), np.nan, np.minimum(given, first))
    whole = known[~np.isnan(known).any(axis=1)]
    shift = whole.mean(axis=0) - whole.mean() if len(whole) else np.zeros(len(first))
    return np.asarray(np.nanmean(known - shift, axis=1))


# Measured: see tests/benchmarks/README.md.
DEPTH = 0.05  # regret at which an LR has 1/e of the weight of the best one, after whole trainings
SHORT_DEPTH = 0.2  # after shorter ones
RELATIVE = 0.25  # regret that a loss twice as high as the best counts as, at least


def regrets(start: ArrayLike, losses: ArrayLike, guess: float | None = None) -> Array:
    """Return `(L − L*) / (L0 − L*)` of every LR, (lrs,); 1 is no better than not training.

    L0 is the loss before training, or that of a constant guess where it is lower. Where no LR
    improves on the start, all have 1.

    Example:
        >>> regrets([2.0], [[1.0], [1.5], [float("inf")]])
        array([0. , 0.5, 1. ])
    """
    mean = mean_losses(start, losses)
    first, best = float(np.mean(np.asarray(start, dtype=np.float64))), float(mean.min())
    if not first > best:
        return np.ones(len(mean))
    top = guess if guess is not None and best < guess < first else first
    return np.minimum((mean - best) / (top - best), 1.0)


def shortfalls(start: ArrayLike, losses: ArrayLike, guess: float | None = None) -> Array:
    """Return how far each LR is from the best one, (lrs,), as a position weighs them.

    That is its regret, or `0.25 · (L / L* − 1)` where that is more: where losses come far down,
    one that is half as high again is a small share of the way and no small matter.
    """
    regret, mean = regrets(start, losses, guess), mean_losses(start, losses)
    best = float(mean.min())
    return np.maximum(regret, RELATIVE * (mean / best - 1)) if best > 0 else regret


def position(lrs: ArrayLike, regret: ArrayLike, depth: float = DEPTH) -> float:
    """Return the middle of the basin, log10 LR: `Σ w·x / Σ w`, `w = width · exp(−regret / depth)`.

    The width is that of the stretch between an LR's neighbours, so that two LRs close together
    count no more than one.

    Args:
        lrs: increasing, (lrs,).
        regret: of each, (lrs,).

    Example:
        >>> round(position([0.01, 0.1, 1.0], [0.0, 0.0, 1.0]), 2)
        -1.5
    """
    x = np.log10(np.asarray(lrs, dtype=np.float64))
    weight = np.exp(-np.asarray(regret, dtype=np.float64) / depth) * _widths(x)
    return float(weight @ x / weight.sum())


def _widths(x: Array) -> Array:
    """Return the stretch that each point stands for; one at an end counts as far outwards."""
    if len(x) == 1:
        return np.ones(1)
    ends = np.concatenate([[2 * x[0] - x[1]], x, [2 * x[-1] - x[-2]]])
    return np.asarray((ends[2:] - ends[:-2]) / 2)
