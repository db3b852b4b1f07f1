"""Each rule finds what was planted, and what its definition says on sequences worked by hand."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from analysis.planted_curves import (
    decades,
    noisy,
    parabola_valley,
    quadratic_range_test,
    ramp_lrs,
    seeds_of,
    sigmoid_valley,
)
from hypothesis import given
from hypothesis import strategies as st

from lrexp.analysis.range_curve import Curve, combine
from lrexp.analysis.rules import (
    RULES,
    longest_decrease,
    minimum,
    slide,
    steepest,
    valley,
    valley_index,
)

LR = ramp_lrs()


@pytest.mark.parametrize(
    ("losses", "decrease", "index"),
    [
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], (0, 9), 4),  # s = 3: 0 + 3 + 1
        ([5, 4, 9, 3, 8], (0, 3), 1),  # 5 4 3 skips the 9; s = 1: 0 + 1 + 0
        ([3, 10, 9, 8, 2, 1, 7, 0], (1, 7), 4),  # 10 9 8 2 1 0; s = 2: 1 + 2 + 1
        ([1, 1, 1], (0, 0), 0),  # equal is no decrease
        ([1, 2, 3], (0, 0), 0),
        ([9, 7, 8, 6, 7, 5, 6, 4, 20, 30], (0, 7), 3),  # s = 7/3: 0 + 2 + 1
        ([0, 5, 4, 6, 3], (1, 4), 2),  # 5 4 3; s = 1
        ([2, 2, 1, 1, 0, 0], (0, 4), 1),  # the first of equal ones; s = 4/3: 0 + 1 + 0
    ],
)
def test_the_longest_decrease_is_a_subsequence(
    losses: list[float], decrease: tuple[int, int], index: int
) -> None:
    assert longest_decrease(losses) == decrease
    assert valley_index(losses) == index


@given(losses=st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_the_longest_decrease_against_all_subsequences(losses: list[int]) -> None:
    decreasing = {
        (chosen[0], chosen[-1], len(chosen))
        for size in range(1, len(losses) + 1)
        for chosen in combinations(range(len(losses)), size)
        if all(losses[a] > losses[b] for a, b in pairwise(chosen))
    }
    longest = max(length for _, _, length in decreasing)
    start, end = longest_decrease(losses)
    assert (start, end, longest) in decreasing
    assert end == min(last for _, last, length in decreasing if length == longest)


@pytest.mark.parametrize("planted", [1e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("sd", [0.0, 0.03])
def test_steepest_finds_the_planted_point(planted: float, sd: float) -> None:
    loss = sigmoid_valley(LR, steepest=planted, edge=1.0)
    for first in (0, 3, 6):
        found = steepest(combine(seeds_of(LR, loss, sd, first=first)))
        assert found is not None
        assert decades(found, planted) < (0.1 if sd == 0 else 0.2)


@pytest.mark.parametrize("planted", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("sd", [0.0, 0.03])
def test_minimum_is_a_tenth_of_the_planted_one(planted: float, sd: float) -> None:
    found = minimum(combine(seeds_of(LR, parabola_valley(LR, planted), sd)))
    assert found is not None
    assert decades(found, planted / 10) < (0.05 if sd == 0 else 0.3)


def test_valley_is_about_half_way_down() -> None:
    # falls from two decades below its minimum: half of a fall is ⌊s⌋ + ⌊s/2⌋ of 3 s
    found = valley(combine([Curve(LR, parabola_valley(LR, 1e-2))]))
    assert found is not None
    assert decades(found, 1e-3) < 0.25


def test_valley_is_not_drawn_down_by_a_flat_start() -> None:
    falling = [
        valley(combine(seeds_of(LR, parabola_valley(LR, 1e-2), 0.02, first=k))) for k in range(6)
    ]
    assert all(found is not None and decades(found, 1e-3) < 0.5 for found in falling)


def test_slide_ends_where_the_slopes_at_both_ends_are_equal() -> None:
    # The slopes of a parabola differ by the same amount at any two points 1.2 decades apart, so the
    # window moves left until its left end meets the flat start, two decades below the minimum;
    # there the slope at the left is 0, and no longer below the one at the right.
    found = slide(combine([Curve(LR, parabola_valley(LR, 1e-2))]))
    assert found is not None
    assert decades(found, 1e-4) < 0.2


@pytest.mark.parametrize("rule", RULES)
def test_the_first_tenth_and_the_diverging_tail_are_left_out(rule: str) -> None:
    loss = parabola_valley(LR, 1e-2)
    loss[:8] += np.linspace(3, 0, 8)  # a transient, steeper than all that follows
    loss[90:] = 100.0 - np.arange(10)  # falls again, far above
    found = RULES[rule](combine([Curve(LR, loss)]))
    assert found is not None
    assert 1e-5 < found < 2e-2


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mode", ["exp", "linear"])
def test_every_rule_stays_below_the_critical_rate_of_a_quadratic(rule: str, mode: str) -> None:
    curvatures = np.logspace(-1, 2, 10)
    lr = ramp_lrs(low=-5, high=0) if mode == "exp" else np.linspace(1e-5, 1, 1000)
    loss = quadratic_range_test(lr, curvatures)
    keep = loss < 1e6
    found = RULES[rule](combine([Curve(lr[keep], loss[keep])]))
    assert found is not None
    assert 1e-5 < found < 2 / 100  # 2/λ_max


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 5])
def test_a_curve_with_next_to_no_points_gives_nothing_or_one_of_its_lrs(
    rule: str, length: int
) -> None:
    curve = combine([Curve(LR[:length], noisy(np.zeros(length), 1.0, 0))])
    found = RULES[rule](curve)
    assert found is None or LR[0] / 10 <= found <= LR[length - 1]


@pytest.mark.parametrize("rule", ["steepest", "valley"])
def test_a_rising_curve_has_no_fall(rule: str) -> None:
    assert RULES[rule](combine([Curve(LR, np.exp(np.linspace(0, 3, 100)))])) is None


def test_a_lucky_batch_past_the_edge_is_no_minimum() -> None:
    # past the edge, weights are huge: some batches are far off and some are right by luck
    loss = parabola_valley(LR, 1e-3)
    loss[80:] = np.where(np.arange(20) % 7 < 4, 9.0, -1.0)
    found = minimum(combine([Curve(LR, loss)]))
    assert found is not None
    assert decades(found, 1e-4) < 0.05


def test_the_first_dip_of_a_noisy_start_is_no_minimum() -> None:
    # falls by half at 1e-5 within one point's noise, and rises again: the basin is at 1e-2
    found = [
        minimum(combine(seeds_of(LR, parabola_valley(LR, 1e-2), 0.5, first=k)))
        for k in range(0, 60, 3)
    ]
    assert sum(lr is not None and decades(lr, 1e-3) < 1 for lr in found) >= 19
