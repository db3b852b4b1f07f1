"""Statistics over seeds: paired intervals, sign-flip tests, Holm's correction, noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
ALPHA = 0.05
MIN_SEEDS = 6  # below, even six of six wins have a p above 0.05: 2 / 2⁵ = 0.0625
EXACT_SEEDS = 16  # up to which all 2ⁿ flips are tried
RANDOM_FLIPS = 2**EXACT_SEEDS
ROUNDING = 1e-6  # of a value: engines and devices differ by about a tenth of that


def differences(variant: ArrayLike, reference: ArrayLike) -> Array:
    """Return cost of the variant minus cost of the reference for every seed.

    It is ±inf where one of them diverged, 0 where both did, nan where one has no value.

    Example:
        >>> differences([1.0, np.inf, np.inf, np.nan], [3.0, 2.0, np.inf, 1.0]).tolist()
        [-2.0, inf, 0.0, nan]
    """
    a, b = np.asarray(variant, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(a) & np.isinf(b), 0.0, a - b)


def without_rounding(difference: Array, variant: ArrayLike, reference: ArrayLike) -> Array:
    """Return the differences, those that rounding explains as ties of exactly 0."""
    a, b = np.abs(np.asarray(variant)), np.abs(np.asarray(reference))
    with np.errstate(invalid="ignore"):
        tied = np.isfinite(difference) & (np.abs(difference) <= ROUNDING * np.fmax(a, b))
    return np.where(tied, 0.0, difference)


def t_interval(difference: ArrayLike, level: float = 1 - ALPHA) -> tuple[float, float] | None:
    """Return Student's interval of the mean difference; None below two, or where one is infinite.

    `mean ± t(n − 1)·sd/√n`. Over 2,000 simulated experiments an interval of 95 % held the true
    mean in 95 to 98 % where both variants scattered alike (normal, lognormal, t with 3 degrees of
    freedom; n = 6 and 10), and in 82 to 84 % where the differences themselves were lognormal.

    Args:
        difference: by seed, (seeds,); nan counts as absent.
        level: the share of experiments whose interval holds the true mean.

    Example:
        >>> [round(end, 3) for end in t_interval([1.0, 2.0, 3.0])]  # 2 ± 4.303·1/√3
        [-0.484, 4.484]
    """
    from scipy.stats import t  # a second to import: only a finished comparison waits for it

    d = np.asarray(difference, dtype=np.float64)
    d = d[~np.isnan(d)]
    if len(d) < 2 or np.isinf(d).any():
        return None
    half = float(t.ppf(0.5 + level / 2, len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d)))
    return float(d.mean()) - half, float(d.mean()) + half


def sign_flip_p(difference: ArrayLike) -> Array:
    """Return the two-sided p of the mean difference under random signs, one for each comparison.

    If the two are equally good, a seed could as well have given the opposite difference: p is the
    share of all 2ⁿ choices of signs whose mean is at least as far from 0. Exact up to
    `EXACT_SEEDS` seeds; above, over `RANDOM_FLIPS` random choices. An infinite difference is
    larger than all finite ones together (any such size gives the same p), so that the count of
    diverged seeds decides first, and among equal counts the finite differences. Absent ones (nan)
    have no say.

    Args:
        difference: (seeds, comparisons), or (seeds,) for a single one.

    Returns:
        p values, (comparisons,).

    Example:
        >>> sign_flip_p([1.0, 1.0, 2.0, 2.0, 3.0, np.inf]).tolist()  # 2 / 2⁶
        [0.03125]
    """
    from scipy.stats import permutation_test

    d = np.asarray(difference, dtype=np.float64)
    d = d[:, None] if d.ndim == 1 else d
    if len(d) < 2 or not d.shape[1]:
        return np.ones(d.shape[1])
    size = np.nansum(np.abs(d), axis=0, where=np.isfinite(d))
    larger = np.where(size > 0, 4.0 * size, 1.0)
    d = np.nan_to_num(np.where(np.isinf(d), np.sign(d) * larger, d))
    found = permutation_test(
        (d,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",  # of a single sample: flips of its signs
        vectorized=True,
        n_resamples=RANDOM_FLIPS,
        batch=max(1, 2**22 // d.size),
        axis=0,
        random_state=0,
    )
    return np.atleast_1d(np.asarray(found.pvalue, dtype=np.float64))


def holm(p: ArrayLike, family: int | None = None) -> Array:
    """Return p values corrected for the number of comparisons: none of them may err by chance.

    `max over j ≤ i of (m − j + 1)·p_(j)` in the order of the p values, at most 1. SciPy has no
    Holm (`false_discovery_control` controls another error).

    Args:
        p: p values, (comparisons,).
        family: m, where these are only some of the comparisons that were open to choice; then the
            result is at least Holm's for all of them.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    factors = (len(raw) if family is None else family) - np.arange(len(raw))
    corrected = np.empty_like(raw)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * raw[order]))
    return corrected


def num_comparisons(count: int, *, chosen_by_result: bool) -> int:
    """Return with how many comparisons a verdict shares its chance of error.

    With a reference that was declared, each other variant is compared with it; one that was chosen
    by its result could have been any of them, so all pairs count.
    """
    return count * (count - 1) // 2 if chosen_by_result else count - 1


def seeds_needed(family: int, alpha: float = ALPHA) -> int:
    """Return the seeds from which the smallest possible p, 2/2ⁿ, can pass Holm's first hurdle.

    Example:
        >>> [seeds_needed(family) for family in (1, 2, 3, 9, 45)]
        [6, 7, 7, 9, 11]
    """
    return max(MIN_SEEDS, math.ceil(1 + math.log2(max(1, family) / alpha)))


MOST_LOOKS = 5


def looks_between(first: int, most: int) -> list[int]:
    """Return the numbers of seeds at which a comparison is judged until it is decided.

    Example:
        >>> looks_between(6, 24), looks_between(6, 8), looks_between(6, 6)
        ([6, 10, 15, 20, 24], [6, 7, 8], [6])
    """
    count = min(MOST_LOOKS, most - first + 1)
    return sorted({round(n) for n in np.linspace(first, most, count).tolist()})


def look_alpha(looks: Sequence[int], seeds: int) -> float:
    """Return what a claim may spend of `ALPHA` at the look with so many seeds.

    By O'Brien and Fleming's function of the share t of the last look's seeds,
    `α(t) = 2 − 2Φ(z(1 − α/2)/√t)`: a look gets what α(t) has grown by since the one before, so all
    together spend α, whatever the test (Bonferroni over looks).

    Args:
        looks: numbers of seeds, rising; none or one spends all at once.
        seeds: of this look; one that is not listed counts as the one before it.

    Source:
        Lan and DeMets, Discrete sequential boundaries for clinical trials, Biometrika 70, 1983.

    Example:
        >>> spent = [look_alpha([6, 10, 15, 20, 24], n) for n in (6, 10, 15, 20, 24)]
        >>> [round(alpha, 5) for alpha in spent], round(sum(spent), 9)
        ([9e-05, 0.00231, 0.01077, 0.01862, 0.01821], 0.05)
    """
    from scipy.special import ndtr, ndtri

    passed = [n for n in looks if n <= seeds]
    if len(looks) < 2 or not passed:
        return ALPHA

    def spent(n: int) -> float:
        return float(2 - 2 * ndtr(ndtri(1 - ALPHA / 2) / math.sqrt(n / looks[-1])))

    return spent(passed[-1]) - (spent(passed[-2]) if len(passed) > 1 else 0.0)


def sd_of(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample (ddof = 1); None below two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


MOST_SEEDS = 10_000  # that are looked for
POWER = 0.8  # of trainings that are repeated with so many seeds, the share that shows it


def seeds_for(
    difference: float, sd: float, alpha: float = ALPHA, power: float = POWER
) -> int | None:
    """Return how many seeds show a mean difference of this size; None where none would do.

    The least n with `P(|t'| > t(1 − α/2, n − 1)) ≥ power`, t' noncentral with `√n·difference/sd`.

    Args:
        difference: mean, in the unit of the metric; its sign is no matter.
        sd: of the differences from seed to seed.
        alpha: of one comparison; divided by the number of them, where there are several.
        power: the share of such experiments that shows it.

    Example:
        >>> seeds_for(1.0, 1.0), seeds_for(0.5, 1.0), seeds_for(0.0, 1.0)  # as tables of the t-test
        (10, 34, None)
    """
    from scipy.special import nctdtr, ndtri, stdtrit

    if not difference or not math.isfinite(difference):
        return None
    effect = abs(difference) / sd if sd else math.inf

    def is_shown(n: int) -> bool:
        limit = stdtrit(n - 1, 1 - alpha / 2)
        return not nctdtr(n - 1, math.sqrt(n) * effect, limit) > 1 - power  # nan far out: it is

    normal = (ndtri(1 - alpha / 2) + ndtri(power)) / effect  # Student's t takes a few more
    return _first(is_shown, normal**2)


def seeds_within(margin: float, sd: float, level: float = 1 - ALPHA) -> int | None:
    """Return how many seeds an interval takes that reaches no further than `margin` to each side.

    The least n with `t(n − 1)·sd/√n ≤ margin`.

    Example:
        >>> seeds_within(1.0, 1.0), seeds_within(0.5, 1.0), seeds_within(0.0, 1.0)
        (7, 18, None)
    """
    from scipy.special import ndtri, stdtrit

    if margin <= 0:
        return None

    def is_within(n: int) -> bool:
        return float(stdtrit(n - 1, 0.5 + level / 2)) * sd <= margin * math.sqrt(n)

    return _first(is_within, (ndtri(0.5 + level / 2) * sd / margin) ** 2)


def _first(holds: Callable[[int], bool], least: float) -> int | None:
    """Return the first number for which something holds; None from `MOST_SEEDS` on."""
    start = max(2, math.floor(min(least, MOST_SEEDS)))
    return next((n for n in range(start, MOST_SEEDS) if holds(n)), None)


@dataclass(frozen=True)
class Floor:
    """Differences between two seeds of one variant, over all pairs of seeds."""

    mean: float
    highest: float
    num_seeds: int


def floor_of_noise(values: Sequence[float]) -> Floor | None:
    """Return how much the seeds of one variant differ from each other; None below two.

    Args:
        values: the final metric of every seed that finished.

    Example:
        >>> floor_of_noise([1.0, 1.5, 3.0])
        Floor(mean=1.3333333333333333, highest=2.0, num_seeds=3)
    """
    n = len(values)
    if n < 2:
        return None
    # The i-th smallest is the larger one of i pairs, and the smaller one of n - 1 - i.
    mean = float((2 * np.arange(n) - n + 1) @ np.sort(values)) / (n * (n - 1) / 2)
    return Floor(mean, max(values) - min(values), n)


def time_to(
    target: float, at: ArrayLike, values: ArrayLike, direction: Literal["min", "max"] = "min"
) -> float:
    """Return when an evaluation first was as good as the target, inf if none was.

    Args:
        target: a value of the metric.
        at: step or epoch of each evaluation, (evaluations,).
        values: the metric there, (evaluations,); nan where it was not taken.
        direction: `min` where lower is better.

    Example:
        >>> time_to(0.5, [0, 10, 20], [2.3, 0.6, 0.4]), time_to(0.1, [0, 10], [2.3, 0.6])
        (20.0, inf)
    """
    y = np.asarray(values, dtype=np.float64)
    slack = 1e-9 * abs(target)  # files hold twelve digits
    good = y <= target + slack if direction == "min" else y >= target - slack
    reached = np.flatnonzero(good)
    return float(np.asarray(at, dtype=np.float64)[reached[0]]) if len(reached) else math.inf


def median_with_misses(times: Sequence[float]) -> float:
    """Return the median of times of which some are inf; inf without any.

    Example:
        >>> median_with_misses([3.0, float("inf"), 5.0]), median_with_misses([3.0, float("inf")])
        (5.0, inf)
    """
    return float(np.median(times)) if len(times) else math.inf
