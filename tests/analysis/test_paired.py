"""The pieces of a verdict against oracles: every flip by hand, SciPy, Holm by its definition."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lrexp.analysis.statistics import (
    EXACT_SEEDS,
    differences,
    holm,
    seeds_for,
    seeds_needed,
    seeds_within,
    sign_flip_p,
    t_interval,
    without_rounding,
)

INF, NAN = math.inf, math.nan


def every_flip(values: list[float]) -> float:
    """Return the p by trying all signs, in exact arithmetic; infinite ones are counted apart."""
    infinite = [int(math.copysign(1, v)) for v in values if math.isinf(v)]
    finite = [Fraction(v) for v in values if math.isfinite(v)]

    def far(signs: tuple[int, ...]) -> tuple[int, Fraction]:
        count = sum(s * v for s, v in zip(signs, infinite, strict=False))
        rest = sum(
            (s * v for s, v in zip(signs[len(infinite) :], finite, strict=True)), Fraction(0)
        )
        if count == 0:
            return 0, abs(rest)
        return abs(count), rest if count > 0 else -rest

    kept = len(infinite) + len(finite)
    observed = far((1,) * kept)
    flips = list(itertools.product((1, -1), repeat=kept))
    return sum(far(signs) >= observed for signs in flips) / len(flips)


@pytest.mark.parametrize(
    ("values", "p"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2 / 64),  # the smallest at six
        ([-1.0] * 5, 2 / 32),  # 0.0625: no claim
        ([1.0] * 6 + [-1.0], 16 / 128),
        ([0.0] * 8, 1.0),
        ([1.0] * 5 + [0.0], 2 / 32),  # a tie is no evidence
        ([1.0] * 6 + [NAN, NAN], 2 / 64),  # nor is an absent seed
        ([INF] * 6, 2 / 64),
        ([INF, 1.0, 1.0, 1.0, 1.0, 1.0], 2 / 64),
        ([INF, -1.0, -1.0, -1.0, -1.0, -1.0], 1.0),  # one lost seed weighs more than any others
        ([INF, -INF, 1.0, 1.0, 1.0, 1.0], 36 / 64),
        ([2.5], 1.0),
        ([], 1.0),
    ],
)
def test_the_sign_flip_p(values: list[float], p: float) -> None:
    assert sign_flip_p(values).tolist() == [pytest.approx(p)]


@given(
    st.lists(
        st.integers(-20, 20).map(lambda i: i / 4) | st.sampled_from([INF, -INF]),
        min_size=2, max_size=8,
    )
)  # fmt: skip
def test_the_sign_flip_p_against_every_flip(values: list[float]) -> None:
    ours = sign_flip_p(values)[0]
    assert ours == pytest.approx(every_flip(values))


@pytest.mark.parametrize("n", [6, 10])
def test_the_sign_flip_p_against_scipy(n: int) -> None:
    table = np.random.default_rng(n).normal(0.4, 1.0, (n, 5))
    ours = sign_flip_p(table)
    for column, p in zip(table.T, ours, strict=True):
        found = stats.permutation_test(
            (column, np.zeros(n)), lambda a, b: np.sum(a - b), permutation_type="samples",
            n_resamples=np.inf,
        )  # fmt: skip
        assert p == pytest.approx(found.pvalue)


def test_above_the_exact_limit_the_flips_are_random_and_the_same_each_time() -> None:
    d = np.random.default_rng(0).normal(0.45, 1.0, EXACT_SEEDS + 4)
    p = sign_flip_p(d)
    assert p == sign_flip_p(d)
    assert p[0] == pytest.approx(stats.ttest_1samp(d, 0.0).pvalue, abs=0.02)
    assert sign_flip_p(np.ones(30))[0] == pytest.approx(2 / 2**16, rel=0.01)  # never 0


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_the_interval_against_scipy(values: list[float]) -> None:
    d = np.array(values)
    low, high = t_interval(d)
    spread = d.std(ddof=1) / math.sqrt(len(d))
    if spread == 0:
        assert (low, high) == (pytest.approx(d[0]), pytest.approx(d[0]))
    else:
        theirs = stats.t.interval(0.95, len(d) - 1, loc=d.mean(), scale=spread)
        assert (low, high) == (pytest.approx(theirs[0]), pytest.approx(theirs[1]))


def test_an_interval_needs_two_finite_differences() -> None:
    assert t_interval([1.0]) is None
    assert t_interval([1.0, 2.0, INF]) is None
    assert t_interval([1.0, NAN, 2.0]) == t_interval([1.0, 2.0])


def closed_test(p: list[float], alpha: float) -> list[bool]:
    """Reject where every set of hypotheses around it is rejected by Bonferroni: Holm's origin."""
    everyone = range(len(p))
    subsets = [s for k in range(1, len(p) + 1) for s in itertools.combinations(everyone, k)]
    passed = {s for s in subsets if min(p[i] for i in s) * len(s) <= alpha}
    return [all(s in passed for s in subsets if i in s) for i in everyone]


@given(st.lists(st.integers(1, 64).map(lambda k: k / 64), min_size=1, max_size=6))
def test_holm_rejects_as_the_closed_test_does(p: list[float]) -> None:
    for alpha in (0.05, 0.11, 0.4):
        assert (holm(p) <= alpha).tolist() == closed_test(p, alpha)


@pytest.mark.parametrize(
    ("p", "family", "expected"),
    [
        ([0.01, 0.04, 0.03], None, [0.03, 0.06, 0.06]),
        ([0.2, 0.9], None, [0.4, 0.9]),
        ([0.5, 0.5, 0.5], None, [1.0, 1.0, 1.0]),
        ([], None, []),
        ([0.01, 0.02], 6, [0.06, 0.1]),  # two shown of six that were open to choice
    ],
)
def test_holm_by_hand(p: list[float], family: int | None, expected: list[float]) -> None:
    assert holm(p, family).tolist() == pytest.approx(expected)


@given(st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=8), st.integers(1, 7))
def test_a_part_of_a_family_is_corrected_at_least_as_the_whole(p: list[float], part: int) -> None:
    part = min(part, len(p))
    assert (holm(p[:part], len(p)) >= holm(p)[:part] - 1e-12).all()


def test_the_seeds_needed_are_the_first_that_can_give_a_claim() -> None:
    for family in (1, 2, 3, 7, 45, 1770):
        n = seeds_needed(family)
        assert holm([2 / 2**n], family)[0] <= 0.05
        assert n == 6 or holm([2 / 2 ** (n - 1)], family)[0] > 0.05
    assert seeds_needed(0) == seeds_needed(1) == 6


def test_rounding_is_a_tie_and_little_more_is_not() -> None:
    a, b = np.array([1.0, 1.0, INF, 0.0]), np.array([1.0 + 5e-7, 1.0 + 5e-6, 1.0, 0.0])
    kept = without_rounding(differences(a, b), a, b)
    assert kept[0] == 0.0
    assert kept[1] < 0
    assert kept[2] == INF
    assert kept[3] == 0.0


# of a paired t-test, two-sided: effect | α | seeds for a power of 80 %, as Cohen's tables have them
@pytest.mark.parametrize(
    ("effect", "alpha", "seeds"),
    [
        (0.2, 0.05, 199),
        (0.5, 0.05, 34),
        (0.8, 0.05, 15),
        (1.0, 0.05, 10),
        (0.5, 0.01, 51),
        (3.0, 0.05, 4),
    ],
)
def test_the_seeds_for_a_difference(effect: float, alpha: float, seeds: int) -> None:
    assert seeds_for(effect * 0.3, 0.3, alpha) == seeds_for(-effect, 1.0, alpha) == seeds
    rng = np.random.default_rng(0)
    draws = rng.normal(effect, 1.0, (8_000, seeds))
    power = [
        float(np.mean(stats.ttest_1samp(draws[:, :n], 0.0, axis=1).pvalue <= alpha))
        for n in (seeds - 1, seeds)
    ]
    assert power[0] < 0.815
    assert power[1] > 0.785  # the least number that has 80 %, of which 8,000 experiments know 1 %


def test_no_number_of_seeds_shows_nothing() -> None:
    assert seeds_for(0.0, 1.0) is seeds_for(1e-6, 1.0) is seeds_for(math.inf, 1.0) is None
    assert seeds_for(1.0, 0.0) == 2
    assert seeds_within(0.0, 1.0) is seeds_within(1e-9, 1.0) is None


@pytest.mark.parametrize(("margin", "sd"), [(1.0, 1.0), (0.5, 1.0), (0.03, 0.2)])
def test_the_seeds_of_a_narrow_interval(margin: float, sd: float) -> None:
    n = seeds_within(margin, sd)
    assert n is not None
    reach = [stats.t.ppf(0.975, k - 1) * sd / math.sqrt(k) for k in (n - 1, n)]
    assert reach[1] <= margin < reach[0]
