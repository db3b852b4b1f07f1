"""The answer, its interval, and the LRs of a cycle; what moves none of them."""

from __future__ import annotations

import math

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
from hypothesis import given, settings
from hypothesis import strategies as st

from lrexp.analysis.range_curve import Curve
from lrexp.analysis.stopping import RangeTestStop
from lrexp.analysis.suggest import suggest
from lrexp.config.rule_names import RULES
from lrexp.errors import ConfigError

LR = ramp_lrs()


@pytest.mark.parametrize("rule", RULES)
def test_everything_is_ordered_and_in_range(rule: str) -> None:
    for first in range(0, 30, 3):
        found = suggest(seeds_of(LR, sigmoid_valley(LR), 0.05, first=first), rule)
        assert found.reason is None
        assert found.suggested_lr == found.rules[rule]
        assert set(found.rules) == set(RULES)
        assert found.base_lr is not None
        assert found.max_lr is not None
        low, high = found.interval or (0.0, 0.0)
        assert found.base_lr <= low <= found.suggested_lr / 2
        assert found.suggested_lr * 2 <= high
        assert found.suggested_lr <= found.max_lr
        assert found.base_lr <= found.max_lr / 4
        assert len(found.per_seed) == 3


def test_base_and_max_lr_enclose_the_fall() -> None:
    # falls from two decades below the minimum at 0.01 on; auto is a tenth of that
    found = suggest(seeds_of(LR, parabola_valley(LR, 1e-2), 0.01))
    assert found.base_lr is not None
    assert found.max_lr is not None
    assert 7e-5 < found.base_lr < 3e-4
    assert decades(found.max_lr, 2e-3) < 0.05


def test_auto_keeps_its_distance_from_the_edge() -> None:
    # a tenth of the drop is lost again at 0.01 · 10^(2·√0.1) = 0.043
    for first in range(0, 30, 3):
        found = suggest(seeds_of(LR, parabola_valley(LR, 1e-2), 0.03, first=first))
        assert found.suggested_lr is not None
        assert 4e-4 < found.suggested_lr < 0.043 / 5  # half of the drop is made at 10^(-2 - √2)


@pytest.mark.parametrize(
    ("mean_frac", "times"), [(1.0, 1.0), (0.8, 1.25), (0.5, 2.0), (0.25, 2.0), (0.01, 2.0)]
)
def test_a_schedule_that_decays_gets_a_higher_peak(mean_frac: float, times: float) -> None:
    curves = seeds_of(LR, sigmoid_valley(LR), 0.02)
    constant, decaying = suggest(curves), suggest(curves, mean_frac=mean_frac)
    assert constant.suggested_lr is not None
    assert decaying.suggested_lr == pytest.approx(times * constant.suggested_lr)
    assert decaying.interval == pytest.approx([times * end for end in constant.interval or ()])
    assert decaying.max_lr == constant.max_lr  # a peak already
    assert {**decaying.rules, "auto": 0} == {**constant.rules, "auto": 0}


@pytest.mark.parametrize("mean_frac", [0.0, -1.0, 1.1, math.nan])
def test_a_mean_that_is_no_share_of_the_peak_is_an_error(mean_frac: float) -> None:
    with pytest.raises(ConfigError, match="mean_frac"):
        suggest([Curve(LR, sigmoid_valley(LR))], mean_frac=mean_frac)


@pytest.mark.parametrize("dimensions", [1, 10])
@pytest.mark.parametrize("largest", [10.0, 100.0])
def test_a_quadratic_gets_a_rate_below_its_critical_one(dimensions: int, largest: float) -> None:
    curvatures = np.geomspace(largest, largest / 100, dimensions)
    losses = quadratic_range_test(LR, curvatures)
    rule = RangeTestStop(4.0, floor=0.0)
    stopped = rule.first_stop(losses, rule.init())[1]
    losses = losses if stopped is None else losses[: stopped + 1]
    found = suggest([Curve(LR[: len(losses)], losses)])
    critical = 2 / largest
    assert found.suggested_lr is not None
    assert found.max_lr is not None
    assert critical / 100 < found.suggested_lr < critical / 2
    assert found.max_lr < critical


def test_the_interval_grows_with_the_disagreement_of_the_seeds() -> None:
    def width(spread: float) -> float:
        curves = [
            Curve(LR, noisy(parabola_valley(LR, 1e-2 * 10.0 ** (spread * k)), 0.01, k + 1))
            for k in (-1, 0, 1)
        ]
        low, high = suggest(curves).interval or (1.0, 1.0)
        return decades(high, low)

    assert 0.2 < width(0.0) < width(0.25) < 1.5


def test_one_seed_has_an_interval_around_its_answer() -> None:
    found = suggest(seeds_of(LR, sigmoid_valley(LR), 0.02, count=1))
    assert found.suggested_lr is not None
    assert found.interval == pytest.approx((found.suggested_lr / 2, found.suggested_lr * 2))


def test_a_loss_that_still_falls_at_the_end_gets_a_note() -> None:
    lr = ramp_lrs(high=-3)
    found = suggest(seeds_of(lr, sigmoid_valley(lr, steepest=1e-3), 0.01))
    assert found.suggested_lr is not None
    assert "Raise find_lr.max_lr" in str(found.note)
    assert suggest(seeds_of(LR, sigmoid_valley(LR), 0.01)).note is None


# --- invariants

MULTIPLES = st.floats(1e-6, 1e6)
SHIFTS = st.floats(-1e3, 1e3)


@settings(max_examples=settings.default.max_examples // 2)  # each takes long
@given(scale=MULTIPLES, shift=SHIFTS, rule=st.sampled_from(list(RULES)), seed=st.integers(0, 9))
def test_scaling_and_shifting_the_loss_changes_nothing(
    scale: float, shift: float, rule: str, seed: int
) -> None:
    curves = seeds_of(LR, sigmoid_valley(LR), 0.05, first=seed)
    # the shift is in units of the curve, so that adding it does not round the curve away
    moved = [Curve(c.lr, scale * (c.loss + shift)) for c in curves]
    one, other = suggest(curves, rule), suggest(moved, rule)
    assert other.suggested_lr == pytest.approx(one.suggested_lr, rel=1e-6)
    assert other.interval == pytest.approx(one.interval, rel=1e-6)
    assert other.rules == pytest.approx(one.rules, rel=1e-6)


@given(scale=MULTIPLES, shift=SHIFTS, seed=st.integers(0, 99))
def test_scaling_and_shifting_pure_noise_does_not_make_a_signal(
    scale: float, shift: float, seed: int
) -> None:
    curves = seeds_of(LR, np.zeros(100), 1.0, first=3 * seed)
    moved = [Curve(c.lr, scale * (c.loss + shift)) for c in curves]
    assert (suggest(curves).reason is None) == (suggest(moved).reason is None)


@settings(max_examples=settings.default.max_examples // 2)  # each takes long
@given(order=st.permutations(range(4)), rule=st.sampled_from(list(RULES)))
def test_the_order_of_the_seeds_does_not_matter(order: list[int], rule: str) -> None:
    curves = seeds_of(LR, sigmoid_valley(LR), 0.1, count=4)
    curves[1] = Curve(curves[1].lr[:80], curves[1].loss[:80])
    one, other = suggest(curves, rule), suggest([curves[i] for i in order], rule)
    assert one.suggested_lr == other.suggested_lr
    assert one.interval == other.interval
    assert [one.per_seed[i] for i in order] == list(other.per_seed)
