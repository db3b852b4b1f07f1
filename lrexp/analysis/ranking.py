"""Which variant did best: the ranking over all seeds, with divergence counted and never hidden.

A mean is over the seeds that finished, beside the count of those that did not; a seed that
diverged is never given a stand-in value (its initial loss, its last finite one), which would
flatter the variant. Seeds pair the variants, so differences are taken seed by seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lrexp.errors import ConfigError

Values = Mapping[str, Mapping[int, "float | None"]]  # variant -> seed -> metric
Outcomes = Mapping[str, Mapping[int, str]]  # variant -> seed -> finished | diverged | failed


@dataclass(frozen=True)
class PairedDifference:
    """Variant minus the best variant over the seeds that both finished, in the metric's unit."""

    mean: float | None
    sd: float | None  # ddof = 1; None below two pairs
    num_pairs: int


@dataclass(frozen=True)
class VariantSummary:
    """One row of the ranking. `values` has one entry per seed; None is "no value"."""

    variant: str
    rank: int  # from 1
    mean: float | None  # over the finished seeds
    sd: float | None  # ddof = 1; None below two finished seeds
    values: tuple[float | None, ...]
    outcomes: dict[str, int]
    num_finished: int
    difference: PairedDifference


def summarise(
    values: Values,
    outcomes: Outcomes,
    direction: Literal["min", "max"] = "min",
    seeds: Sequence[int] | None = None,
) -> tuple[VariantSummary, ...]:
    """Rank the variants, best first.

    The order is by the share of seeds that diverged or failed (any divergence ranks below none),
    then by the mean over the finished seeds, then by the order of `values`; variants that differ in
    the last alone share a rank. A finished seed whose
    metric is not finite counts as diverged; one without an outcome has not run yet and counts in
    nothing.

    Args:
        values: variant -> seed -> final metric, in config order.
        outcomes: variant -> seed -> `finished`, `diverged` or `failed`.
        direction: `min` where lower is better (a loss), `max` for an accuracy.
        seeds: the order of `VariantSummary.values`; all that occur, sorted, if None.

    Raises:
        ConfigError: `direction` is neither.

    Example:
        >>> ranking = summarise(
        ...     {"high": {0: None, 1: 0.1}, "low": {0: 0.5, 1: 0.7}},
        ...     {"high": {0: "diverged", 1: "finished"}, "low": {0: "finished", 1: "finished"}},
        ... )
        >>> [(row.variant, row.mean) for row in ranking]
        [('low', 0.6), ('high', 0.1)]
    """
    if direction not in {"min", "max"}:
        raise ConfigError.single("direction", "must be min or max", direction, "A loss has min.")
    counted = {name: judged(values[name], outcomes.get(name, {})) for name in values}
    if seeds is None:
        seeds = sorted({seed for by_seed in counted.values() for seed in by_seed})
    keys = {name: _rank_key(counted[name], direction) for name in counted}
    order = sorted(counted, key=keys.__getitem__)  # stable
    rank = {name: 1 + sum(other < key for other in keys.values()) for name, key in keys.items()}
    best = _finished(counted[order[0]]) if order else {}
    return tuple(_row(name, rank[name], counted[name], seeds, best) for name in order)


Judged = dict[int, "tuple[str, float | None]"]  # seed -> outcome, value


def judged(values: Mapping[int, float | None], outcomes: Mapping[int, str]) -> Judged:
    """Return outcome and value of every seed that has an outcome."""
    judged: Judged = {}
    for seed, outcome in outcomes.items():
        value = values.get(seed)
        usable = outcome == "finished" and value is not None and math.isfinite(value)
        if outcome == "finished" and not usable:
            outcome = "diverged"  # noqa: PLW2901
        judged[seed] = (outcome, float(value) if usable and value is not None else None)
    return judged


def _finished(judged: Judged) -> dict[int, float]:
    return {seed: value for seed, (_, value) in judged.items() if value is not None}


def _rank_key(judged: Judged, direction: str) -> tuple[float, float]:
    finished = list(_finished(judged).values())
    if not finished:
        return 1.0, math.inf
    mean = float(np.mean(finished))
    return 1.0 - len(finished) / len(judged), mean if direction == "min" else -mean


def _row(
    name: str, rank: int, judged: Judged, seeds: Sequence[int], best: Mapping[int, float]
) -> VariantSummary:
    finished = _finished(judged)
    mean, sd = _mean_sd([finished[seed] for seed in sorted(finished)])
    pairs = [finished[seed] - best[seed] for seed in sorted(finished) if seed in best]
    return VariantSummary(
        variant=name,
        rank=rank,
        mean=mean,
        sd=sd,
        values=tuple(finished.get(seed) for seed in seeds),
        outcomes=dict(Counter(outcome for outcome, _ in judged.values())),
        num_finished=len(finished),
        difference=PairedDifference(*_mean_sd(pairs), num_pairs=len(pairs)),
    )


def _mean_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    mean = float(np.mean(values)) if values else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None
