"""Verdicts where no seed pairs the variants: Welch's t, and Mann-Whitney as a check.

Results of other programs are paired only if a seed fixes the initial weights and the order of the
batches in every variant. Without pairs a difference is that of two means, and takes more trainings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lrexp.analysis import statistics
from lrexp.analysis.claims import (
    BETTER,
    NO_DIFFERENCE,
    TOO_FEW,
    UNDECIDED,
    Comparison,
    Direction,
    margin_of,
    more_seeds,
    verdict_text,
)
from lrexp.analysis.statistics import ALPHA, Array


def compare_groups(
    values: Mapping[str, Sequence[float]],
    reference: str,
    direction: Direction = "min",
    *,
    family: int | None = None,
) -> tuple[Comparison, ...]:
    """Compare every other variant with a reference, without pairs, and give the verdicts.

    One is better where Welch's p, corrected by Holm, is at most 0.05, its interval leaves out 0 and
    Mann-Whitney's p is at most 0.05, too. A value that is not finite is a training that diverged:
    there is no mean then, and Mann-Whitney alone decides, which ranks it behind all others.

    Args:
        values: variant -> one value per training.
        reference: one of the variants.
        direction: `min` where lower is better.
        family: comparisons to correct for; as many as are made, if None.

    Example:
        >>> found = compare_groups({"a": [1.0, 1.1, 0.9, 1.0], "b": [2.0, 2.2, 2.1, 1.9]}, "a")
        >>> found[0].kind, found[0].better
        ('better', 'a')
    """
    sign = 1.0 if direction == "min" else -1.0
    costs = {name: _costs(row, sign) for name, row in values.items()}
    others = [name for name in values if name != reference]
    p = np.array([_p_of(costs[name], costs[reference]) for name in others]).reshape(-1, 2)
    corrected = statistics.holm(p[:, 0], family)
    family = len(others) if family is None else family
    return tuple(
        _comparison(
            (name, reference), (costs[name], costs[reference]), sign,
            (float(p[i, 0]), float(corrected[i]), float(p[i, 1])), ALPHA / max(1, family),
        )
        for i, name in enumerate(others)
    )  # fmt: skip


def least_p(n: int, of_reference: int) -> float:
    """Return the smallest two-sided p that Mann-Whitney can give, `2 / C(n + m, n)`.

    Example:
        >>> least_p(3, 3), least_p(4, 4)
        (0.1, 0.02857142857142857)
    """
    return min(1.0, 2 / math.comb(n + of_reference, n))


def _costs(row: Sequence[float], sign: float) -> Array:
    found = sign * np.asarray(row, dtype=np.float64)
    return np.where(np.isfinite(found), found, np.inf)


def _p_of(cost: Array, other: Array) -> tuple[float, float]:
    """Return the p of Welch's t and of Mann-Whitney; the second for both where one diverged."""
    from scipy.stats import mannwhitneyu, ttest_ind

    if min(len(cost), len(other)) < 2:
        return 1.0, 1.0
    ranks = float(mannwhitneyu(cost, other).pvalue)
    if not (np.isfinite(cost).all() and np.isfinite(other).all()):
        return ranks, ranks
    if np.ptp(cost) == np.ptp(other) == 0:  # t has no size for two constants
        return float(cost[0] == other[0]), ranks
    return float(ttest_ind(cost, other, equal_var=False).pvalue), ranks


def _interval(cost: Array, other: Array) -> tuple[float, float] | None:
    """Return Welch's 95 % interval of the difference of means."""
    from scipy.special import stdtrit

    a, b = (row.var(ddof=1) / len(row) for row in (cost, other))
    mean = float(cost.mean() - other.mean())
    if not a + b:
        return mean, mean
    freedom = (a + b) ** 2 / (a**2 / (len(cost) - 1) + b**2 / (len(other) - 1))
    half = float(stdtrit(freedom, 1 - ALPHA / 2)) * math.sqrt(a + b)
    return mean - half, mean + half


def _comparison(
    names: tuple[str, str], costs: tuple[Array, Array], sign: float,
    p: tuple[float, float, float], alpha: float,
) -> Comparison:  # fmt: skip
    cost, other = costs
    lost = [int(np.isinf(row).sum()) for row in costs]
    finite = not any(lost) and min(map(len, costs)) > 1
    mean = float(cost.mean() - other.mean()) if finite else None
    sd = math.sqrt(cost.var(ddof=1) + other.var(ddof=1)) if finite else None
    interval = _interval(cost, other) if finite else None
    margin = margin_of(other)
    kind = _kind(costs, interval, margin, p, alpha)
    ahead = names[_is_behind(cost, other)]
    needed = next(n for n in range(2, 99) if least_p(n, n) <= alpha)
    ends = None if interval is None else sorted(sign * end + 0.0 for end in interval)
    reference_mean = float(other.mean()) if finite else 0.0
    all_above_0 = sign > 0 and finite and bool((cost > 0).all() and (other > 0).all())
    found = Comparison(
        variant=names[0],
        reference=names[1],
        kind=kind,
        better=ahead if kind == BETTER else None,
        verdict="",
        n=len(cost),
        differences=(),
        results=(),
        wins=int((cost[:, None] < other).sum()),
        losses=int((cost[:, None] > other).sum()),
        ties=int((cost[:, None] == other).sum()),
        mean=None if mean is None else sign * mean + 0.0,  # 0 has no sign
        sd=sd,
        interval=None if ends is None else (ends[0], ends[1]),
        median=None,
        relative=mean / reference_mean if mean is not None and all_above_0 else None,
        p=p[0],
        p_holm=p[1],
        diverged={"variant": lost[0], "reference": lost[1], "both": 0},
        failed=0,
        margin=margin,
        seeds_needed=more_seeds(mean, sd, margin, alpha, needed) if kind == UNDECIDED else None,
        of_reference=len(other),
        check_p=p[2],
    )
    text = verdict_text(found, needed)
    if kind == TOO_FEW:
        text = f"{TOO_FEW} (n = {len(cost)} and {len(other)}; each takes {needed})"
    return replace(found, verdict=text)


def _is_behind(cost: Array, other: Array) -> bool:
    """Return whether the reference is ahead: by means, or by ranks where one diverged."""
    if np.isfinite(cost).all() and np.isfinite(other).all():
        return bool(cost.mean() > other.mean())
    return bool((cost[:, None] > other).sum() > (cost[:, None] < other).sum())


def _kind(
    costs: tuple[Array, Array],
    interval: tuple[float, float] | None,
    margin: float | None,
    p: tuple[float, float, float],
    alpha: float,
) -> str:
    if least_p(*map(len, costs)) > alpha:
        return TOO_FEW
    around_0 = interval is not None and interval[0] <= 0 <= interval[1]
    if p[1] <= ALPHA and p[2] <= ALPHA and not around_0:
        return BETTER
    if interval is None or margin is None:
        return UNDECIDED
    return NO_DIFFERENCE if -margin <= interval[0] and interval[1] <= margin else UNDECIDED
