"""What may be said of variants: which did best, and a verdict for each against a reference.

A mean is over the seeds that finished, beside the count of those that did not; a seed that
diverged is never given a stand-in value (its initial loss, its last finite one), which would
flatter the variant. Seeds pair the variants, so differences are taken seed by seed.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lrexp.analysis import statistics
from lrexp.analysis.statistics import ALPHA, MIN_SEEDS, Array
from lrexp.errors import ConfigError

Direction = Literal["min", "max"]
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
    direction: Direction = "min",
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
    ascending = [keys[name] for name in order]
    rank = {name: 1 + bisect_left(ascending, key) for name, key in keys.items()}
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


BETTER, NO_DIFFERENCE, UNDECIDED = "better", "no difference", "undecided"
TOO_FEW = "too few seeds to tell"
MARGIN = 0.01  # of the reference: two variants that differ by less are as good as equal
MANY_SEEDS = 1_000  # that nobody trains


def verdict_text(c: Comparison, needed: int) -> str:
    """Return the verdict with its numbers; `needed` is how many seeds a claim takes."""
    if c.kind == TOO_FEW:
        # below six no number of variants would help: that is the plainer reason
        limit = MIN_SEEDS if c.n < MIN_SEEDS else needed
        return f"{TOO_FEW} (n < {limit})"
    says = f"{c.better} is better" if c.kind == BETTER else c.kind
    facts = [*_size(c), f"p = {_p_text(c.p_holm)}"]
    if c.of_reference is not None:
        check = ""
        if c.check_p not in (None, c.p):
            check = f", Mann-Whitney p = {_p_text(c.check_p)}"
        facts.append(f"n = {c.n} and {c.of_reference}{check}")
    elif c.kind == UNDECIDED and c.wins != c.losses:
        ahead, wins = (c.variant, c.wins) if c.wins > c.losses else (c.reference, c.losses)
        facts.append(f"{ahead} ahead in {wins} of {c.n} seeds")
    else:
        winner, wins = (c.reference, c.losses) if c.better == c.reference else (c.variant, c.wins)
        facts += [f"n = {c.n}", f"{winner} wins {wins}"]
    return f"{says} ({', '.join(facts)}{_settled(c)})"


def _settled(c: Comparison) -> str:
    """Return how many seeds would settle what is undecided."""
    if c.kind != UNDECIDED or c.seeds_needed is None or c.mean is None or c.margin is None:
        return ""
    many = c.seeds_needed > MANY_SEEDS
    count = f"more than {MANY_SEEDS:,}" if many else f"about {c.seeds_needed}"
    small = abs(c.mean) < c.margin
    what = f"whether it is below {c.margin:.2g}" if small else "a difference of this size"
    return f"; {count} seeds would settle {what}"


def _size(c: Comparison) -> list[str]:
    """Return variant − reference and its interval, or which of the two diverged how often."""
    if c.mean is None or c.interval is None:
        counts = [(c.variant, c.diverged["variant"]), (c.reference, c.diverged["reference"])]
        both = c.diverged["both"]
        alone = [f"{name} diverged in {k} of {c.n}" for name, k in counts if k]
        together = f"both in {both}" if alone else f"both diverged in {both} of {c.n}"
        return [*alone, *([together] if both else [])]
    low, high = c.interval
    places = _decimals(high - low, max(abs(low), abs(high)))
    mean = _number(c.mean, places, "+")
    low_text, high_text = (_number(end, places) for end in (low, high))
    share = "" if c.relative is None else _share(100 * c.relative)
    within = ""
    if c.kind == NO_DIFFERENCE and c.margin and (low or high):
        within = f", within ±{c.margin:.2g}"
    return [f"Δ {mean}{share}", f"95 % interval {low_text} to {high_text}{within}"]


def _share(percent: float) -> str:
    """Return a relative difference; none where it is 0, or so large that the numbers say more."""
    if not percent or not -99.5 < percent < 999.5:
        return ""
    return f" = {percent:+.2g} %" if abs(percent) < 99.5 else f" = {percent:+.0f} %"


def _decimals(width: float, size: float) -> int | None:
    """Return the decimals that show an interval to two or three digits; None for powers of ten."""
    if not 1e-4 <= (width or size) < 1e6:
        return None
    return max(0, 2 - math.floor(math.log10(width or size)))


def _number(value: float, places: int | None, sign: str = "") -> str:
    return f"{value:{sign}.3g}" if places is None else f"{value:{sign}.{places}f}"


def _p_text(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-3 else f"{max(p, 1e-99):.0e}".replace("e-0", "e-")


@dataclass(frozen=True)
class Comparison:
    """One variant against the reference; differences are variant − reference, in metric units."""

    variant: str
    reference: str
    kind: str  # BETTER | NO_DIFFERENCE | UNDECIDED | TOO_FEW
    better: str | None  # which of the two
    verdict: str
    n: int  # pairs of seeds compared
    differences: tuple[float | None, ...]  # by seed; None where not finite: see `results`
    results: tuple[str | None, ...]  # win | loss | tie of the variant; None where a trial failed
    wins: int
    losses: int
    ties: int
    mean: float | None  # None where a seed diverged in one of the two
    sd: float | None
    interval: tuple[float, float] | None
    median: float | None  # a diverged seed counts as infinite
    relative: float | None  # mean, as a share of the reference's mean; losses above 0 only
    p: float
    p_holm: float
    diverged: dict[str, int]  # seeds in which only the variant, only the reference, both did
    failed: int  # seeds left out because a trial raised
    margin: float | None = None  # below which a difference counts as none
    seeds_needed: int | None = None  # that would settle what is undecided
    of_reference: int | None = None  # values of the reference, where no pairs are compared
    check_p: float | None = None  # of another test that has to agree


def compare_to(
    values: Values,
    outcomes: Outcomes,
    reference: str,
    direction: Direction = "min",
    seeds: Sequence[int] | None = None,
    *,
    family: int | None = None,
    alpha: float = ALPHA,
) -> tuple[Comparison, ...]:
    """Compare every other variant with a reference, seed by seed, and give the verdicts.

    A seed that diverged in one of the two is lost by it, by more than any finite difference: then
    there is no mean and no interval, and wins and the sign-flip p decide. A seed that diverged in
    both is a tie, and leaves no mean either. A seed that failed, its own code having raised, is
    left out and counted.

    Args:
        values: variant -> seed -> final metric.
        outcomes: variant -> seed -> `finished`, `diverged` or `failed`.
        reference: one of the variants.
        direction: `min` where lower is better.
        seeds: the order of the seeds; all that occur, sorted, if None.
        family: comparisons to correct for; as many as are made, if None. Where the reference was
            chosen by its result, that is all pairs of variants.
        alpha: the chance of error of all claims together; less at one of several looks.

    Example:
        >>> same = {seed: 1.0 + seed / 10 for seed in range(6)}
        >>> less = {seed: 0.5 + seed / 20 for seed in range(6)}
        >>> done = dict.fromkeys(range(6), "finished")
        >>> compare_to({"a": same, "b": less}, {"a": done, "b": done}, "a")[0].verdict
        'b is better (Δ -0.625 = -50 %, 95 % interval -0.723 to -0.527, p = 0.031, n = 6, b wins 6)'
    """
    known = {name: judged(values[name], outcomes.get(name, {})) for name in values}
    if seeds is None:
        seeds = sorted({seed for by_seed in known.values() for seed in by_seed})
    costs = {name: _costs(known[name], seeds, direction) for name in known}
    pairs = [
        _Pair(name, reference, costs[name], costs[reference])
        for name in values
        if name != reference
    ]
    table = np.array([pair.tested for pair in pairs]).reshape(len(pairs), len(seeds))
    p = statistics.sign_flip_p(table.T)
    corrected = statistics.holm(p, family)
    family = len(pairs) if family is None else family
    needed = statistics.seeds_needed(family, alpha)
    levels = (alpha, alpha / max(1, family))
    return tuple(
        _comparison(pair, direction, (float(p[i]), float(corrected[i])), levels, needed)
        for i, pair in enumerate(pairs)
    )


@dataclass(frozen=True, eq=False)
class _Pair:
    """The costs of two variants by seed, (seeds,) each."""

    variant: str
    reference: str
    cost: Array
    reference_cost: Array

    @property
    def difference(self) -> Array:
        return statistics.differences(self.cost, self.reference_cost)

    @property
    def tested(self) -> Array:
        """The differences, with ties where rounding explains them."""
        return statistics.without_rounding(self.difference, self.cost, self.reference_cost)


def _costs(
    known: Mapping[int, tuple[str, float | None]], seeds: Sequence[int], direction: Direction
) -> Array:
    """Return a cost for every seed, (seeds,): inf where it diverged, nan where there is none."""
    sign = 1.0 if direction == "min" else -1.0
    costs = []
    for seed in seeds:
        outcome, value = known.get(seed, ("failed", None))
        stand_in = math.inf if outcome == "diverged" else math.nan
        costs.append(stand_in if value is None else sign * value)
    return np.array(costs, dtype=np.float64)


def _comparison(
    pair: _Pair,
    direction: Direction,
    p: tuple[float, float],
    levels: tuple[float, float],
    needed: int,
) -> Comparison:
    sign = 1.0 if direction == "min" else -1.0
    tested = pair.tested
    by_seed = sign * pair.difference  # in the metric's unit
    d = by_seed[~np.isnan(by_seed)]
    lost = _diverged(pair)
    # the mean of the seeds that are left would flatter whoever diverged, and a tie is no measure
    finite = bool(len(d)) and not any(lost.values())
    mean = float(d.mean()) if finite else None
    with np.errstate(invalid="ignore"):  # the middle of -inf and inf is nowhere
        median = float(np.median(d)) if len(d) else math.nan
    interval = statistics.t_interval(d) if finite else None
    sd = float(d.std(ddof=1)) if finite and len(d) > 1 else None
    margin = margin_of(pair.reference_cost[~np.isnan(pair.difference)])
    claimed = statistics.t_interval(d, 1 - levels[0]) if finite else None
    kind, better = _judge(pair, (interval, claimed), margin, p[1] <= levels[0], needed)
    comparison = Comparison(
        variant=pair.variant,
        reference=pair.reference,
        kind=kind,
        better=better,
        verdict="",
        n=len(d),
        differences=tuple(float(x) if np.isfinite(x) else None for x in by_seed),
        results=tuple(None if np.isnan(x) else _result(x) for x in tested),
        wins=int((tested < 0).sum()),
        losses=int((tested > 0).sum()),
        ties=int((tested == 0).sum()),
        mean=mean,
        sd=sd,
        interval=interval,
        median=median if math.isfinite(median) else None,
        relative=_relative(mean, pair) if direction == "min" else None,
        p=p[0],
        p_holm=p[1],
        diverged=lost,
        failed=int(np.isnan(by_seed).sum()),
        margin=margin,
        seeds_needed=more_seeds(mean, sd, margin, levels[1], needed) if kind == UNDECIDED else None,
    )
    return replace(comparison, verdict=verdict_text(comparison, needed))


def margin_of(reference: Array) -> float | None:
    """Return below which difference two variants count as equal.

    It is the smaller of `MARGIN` of the reference's mean and the spread of its seeds.
    """
    known = reference[np.isfinite(reference)]
    if len(known) < 2:
        return None
    return min(MARGIN * abs(float(known.mean())), float(known.std(ddof=1)))


def more_seeds(
    mean: float | None, sd: float | None, margin: float | None, alpha: float, needed: int
) -> int | None:
    """Return how many seeds would settle a difference, or that there is none to speak of."""
    if mean is None or sd is None or margin is None:
        return None
    left = margin - abs(mean)
    count = statistics.seeds_within(left, sd) if left > 0 else statistics.seeds_for(mean, sd, alpha)
    return None if count is None else max(count, needed)


def _judge(
    pair: _Pair,
    intervals: tuple[tuple[float, float] | None, tuple[float, float] | None],
    margin: float | None,
    is_small: bool,
    needed: int,
) -> tuple[str, str | None]:
    """Return the kind of the verdict, and which of the two is better."""
    d = pair.tested[~np.isnan(pair.tested)]
    if len(d) < needed:
        return TOO_FEW, None
    infinite = np.isinf(d)
    total = np.sign(d[infinite]).sum() or d[~infinite].sum()  # as the test weighs them
    favoured = (pair.variant, pair.cost) if total < 0 else (pair.reference, pair.reference_cost)
    failed = bool(np.isnan(favoured[1]).any())  # else a variant could win by raising
    interval, claimed = intervals  # of 95 %, and of what a claim may err
    around_0 = claimed is not None and claimed[0] <= 0 <= claimed[1]
    if is_small and total and not (around_0 or failed):
        return BETTER, favoured[0]
    is_equal = interval is not None and not d.any()  # but for rounding
    if interval is not None and margin is not None:
        is_equal |= -margin <= interval[0] and interval[1] <= margin
    return (NO_DIFFERENCE if is_equal else UNDECIDED), None


def _diverged(pair: _Pair) -> dict[str, int]:
    """Return in how many of the seeds that count only one of the two diverged, and both."""
    counts = ~np.isnan(pair.difference)
    mine, other = np.isinf(pair.cost), np.isinf(pair.reference_cost)
    cases = {"variant": mine & ~other, "reference": other & ~mine, "both": mine & other}
    return {who: int((case & counts).sum()) for who, case in cases.items()}


def _result(difference: float) -> str:
    return "win" if difference < 0 else "loss" if difference > 0 else "tie"


def _relative(mean: float | None, pair: _Pair) -> float | None:
    """Return the mean difference as a share of the reference's mean, where all losses are > 0."""
    both = ~np.isnan(pair.difference)
    if mean is None or not (pair.cost[both] > 0).all() or not (pair.reference_cost[both] > 0).all():
        return None
    return mean / float(pair.reference_cost[both].mean())
