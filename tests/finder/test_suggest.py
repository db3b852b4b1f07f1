"""The answer, its interval, and the refusals: a sentence instead of a guess."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from finder.planted import (
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

from lrexp.errors import ConfigError
from lrexp.finder import RULES, Curve, RangeTestStop, Suggestion, suggest

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
        assert found.base_lr <= low <= found.suggested_lr <= high <= found.max_lr
        assert found.base_lr <= found.max_lr / 4
        assert len(found.per_seed) == 3


def test_base_and_max_lr_enclose_the_fall() -> None:
    # falls from two decades below the minimum at 0.01 on, rises above a tenth of the drop at 0.04
    found = suggest(seeds_of(LR, parabola_valley(LR, 1e-2), 0.01))
    assert found.base_lr is not None
    assert found.max_lr is not None
    assert 7e-5 < found.base_lr < 3e-4
    assert 2e-3 < found.max_lr < 1e-2


def test_auto_keeps_its_distance_from_the_edge() -> None:
    # 5 below the rate from which a tenth of the drop is lost again: 0.01 · 10^(2·√0.1) = 0.043
    for first in range(0, 30, 3):
        found = suggest(seeds_of(LR, parabola_valley(LR, 1e-2), 0.03, first=first))
        assert found.suggested_lr is not None
        assert 5e-4 < found.suggested_lr < 0.043 / 5 * 1.3


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


def test_one_seed_has_the_usable_range_for_an_interval() -> None:
    found = suggest(seeds_of(LR, sigmoid_valley(LR), 0.02, count=1))
    assert found.interval == (found.base_lr, found.max_lr)


def test_a_loss_that_still_falls_at_the_end_gets_a_note() -> None:
    lr = ramp_lrs(high=-3)
    found = suggest(seeds_of(lr, sigmoid_valley(lr, steepest=1e-3), 0.01))
    assert found.suggested_lr is not None
    assert "Raise find_lr.max_lr" in str(found.note)
    assert suggest(seeds_of(LR, sigmoid_valley(LR), 0.01)).note is None


# --- invariants

MULTIPLES = st.floats(1e-6, 1e6)
SHIFTS = st.floats(-1e3, 1e3)


@settings(max_examples=40, deadline=None)
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


@settings(max_examples=20, deadline=None)
@given(scale=MULTIPLES, shift=SHIFTS, seed=st.integers(0, 99))
def test_scaling_and_shifting_pure_noise_does_not_make_a_signal(
    scale: float, shift: float, seed: int
) -> None:
    curves = seeds_of(LR, np.zeros(100), 1.0, first=3 * seed)
    moved = [Curve(c.lr, scale * (c.loss + shift)) for c in curves]
    assert (suggest(curves).reason is None) == (suggest(moved).reason is None)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(4)), rule=st.sampled_from(list(RULES)))
def test_the_order_of_the_seeds_does_not_matter(order: list[int], rule: str) -> None:
    curves = seeds_of(LR, sigmoid_valley(LR), 0.1, count=4)
    curves[1] = Curve(curves[1].lr[:80], curves[1].loss[:80])
    one, other = suggest(curves, rule), suggest([curves[i] for i in order], rule)
    assert one.suggested_lr == other.suggested_lr
    assert one.interval == other.interval
    assert [one.per_seed[i] for i in order] == list(other.per_seed)


# --- refusals


def refused(found: Suggestion) -> str:
    assert found.suggested_lr is None
    assert found.interval is None
    assert found.base_lr is None
    assert found.max_lr is None
    assert found.reason
    return found.reason


def one_spike(at: int, height: float) -> np.ndarray:
    loss = np.full(100, 2.3)
    loss[at] += height
    return loss


@pytest.mark.parametrize(
    ("losses", "says", "do"),
    [
        (np.full(100, 2.3), "stayed flat from 1e-07 to 10", "Raise find_lr.max_lr"),
        (np.zeros(100), "stayed flat", "gradients"),
        (np.full(100, -1e6), "stayed flat", "Raise find_lr.max_lr"),
        (2.302585 + 1e-7 * np.sin(np.arange(100.0) ** 2), "stayed flat", "Raise find_lr.max_lr"),
        (one_spike(0, 50.0), "stayed flat", ""),
        (one_spike(50, 50.0), "stayed flat", ""),
        (one_spike(99, 50.0), "stayed flat", ""),
        (one_spike(50, -50.0), "stayed flat", ""),
        (np.linspace(1, 5, 100), "diverged from the start", "lower find_lr.min_lr"),
        (np.exp(np.linspace(0, 9, 100)), "diverged from the start", "lower find_lr.min_lr"),
        (np.r_[np.ones(60), np.exp(np.linspace(0, 5, 40))], "never fell", "sign of the loss"),
        (np.r_[math.nan, np.ones(99)], "not finite at the first step", "Check the data"),
        (np.r_[1.0, math.nan, np.ones(98)], "diverged from the start", "lower find_lr.min_lr"),
        (np.r_[1.0, 3.0, 9.0, 70.0, math.inf], "diverged from the start", "lower find_lr.min_lr"),
        (np.r_[3.0, 2.0, 1.5, 1.2], "too few points (4", "raise find_lr.steps"),
        (np.empty(0), "too few points (0", "raise find_lr.steps"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("count", [1, 3])
def test_null_controls_are_refused(losses: np.ndarray, says: str, do: str, count: int) -> None:
    reason = refused(suggest([Curve(LR[: len(losses)], losses)] * count))
    assert says in reason
    assert do in reason
    assert reason.endswith(".")


NOISES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(size=n),
    "lognormal": lambda rng, n: rng.lognormal(size=n),
    "student t": lambda rng, n: rng.standard_t(3, size=n),
    "rare": lambda rng, n: (rng.uniform(size=n) < 0.1).astype(float),
}


@pytest.mark.parametrize("steps", [50, 100, 300])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("noise", NOISES)
def test_pure_noise_is_refused(noise: str, count: int, steps: int) -> None:
    rng = np.random.default_rng(0)
    lr = ramp_lrs(steps)
    answered = 0
    for _ in range(40):
        curves = [Curve(lr, NOISES[noise](rng, steps)) for _ in range(count)]
        answered += suggest(curves).reason is None
    assert answered <= 1  # about 1 in 100 is expected


def test_noise_before_a_blow_up_is_refused() -> None:
    answered = 0
    for first in range(0, 120, 3):
        loss = np.r_[np.full(80, 2.3), 2.3 + np.expm1(np.linspace(0, 6, 20))]
        answered += suggest(seeds_of(LR, loss, 0.2, first=first)).reason is None
    assert answered <= 1


def test_seeds_that_disagree_by_more_than_two_decades_are_refused() -> None:
    def curves(*minima: float) -> list[Curve]:
        return [Curve(LR, noisy(parabola_valley(LR, m), 0.01, k)) for k, m in enumerate(minima)]

    reason = refused(suggest(curves(1e-4, 1e-3, 1e-1)))
    assert "disagree by more than two decades" in reason
    assert "find_lr.seeds" in reason
    assert suggest(curves(1e-3, 1e-2, 3e-2)).reason is None


def test_a_seed_that_fails_at_once_does_not_spoil_the_others() -> None:
    curves = seeds_of(LR, sigmoid_valley(LR), 0.03)
    alone = suggest(curves).suggested_lr
    broken = [*curves, Curve(LR, np.full(100, math.nan))]
    found = suggest(broken)
    assert found.suggested_lr is not None
    assert alone is not None
    assert decades(found.suggested_lr, alone) < 0.2
    assert found.per_seed[3] is None


def test_a_rule_that_cannot_read_the_curve_says_so() -> None:
    lr = np.geomspace(1e-3, 1e-2, 100)  # one decade: no room for the window of slide
    found = suggest(seeds_of(lr, np.cos(np.linspace(0, 4, 100)), 0.01), "slide")
    assert "'slide' finds nothing to read" in refused(found)
    assert found.rules["slide"] is None
    assert found.rules["auto"] is not None


def test_an_unknown_rule_is_recognised() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'steepest'"):
        suggest([Curve(LR, LR)], rule="steepst")
