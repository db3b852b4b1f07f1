"""What makes LR finders err, one test each that ours does not.

The causes are those found in the sources of fastai, torch-lr-finder and Lightning.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from analysis.planted_curves import decades, parabola_valley, ramp_lrs, seeds_of, sigmoid_valley

from lrexp.analysis.range_curve import Curve, combine
from lrexp.analysis.rules import RULES, longest_decrease, steepest
from lrexp.analysis.smoothing import ema
from lrexp.analysis.stopping import RangeTestStop
from lrexp.analysis.suggest import suggest

LR = ramp_lrs()


def test_the_gradient_is_taken_in_log_lr() -> None:
    # two equal falls, at 1e-5 (gentle) and 1e-2 (twice as steep in log LR): per unit of LR the
    # first is hundreds of times steeper
    x = np.log10(LR)
    loss = 2 - 1 / (1 + np.exp(-(x + 5) / 0.4)) - 1 / (1 + np.exp(-(x + 2) / 0.2))
    found = steepest(combine([Curve(LR, loss)]))
    assert found is not None
    assert decades(found, 1e-2) < 0.1
    wrong = LR[np.argmin(np.gradient(loss, LR))]
    assert decades(wrong, 1e-2) > 2


def test_smoothing_has_no_lag() -> None:
    loss = sigmoid_valley(LR, steepest=1e-3, edge=1.0)
    found = steepest(combine([Curve(LR, loss)]))
    assert found is not None
    assert decades(found, 1e-3) < 0.1
    lagging = LR[np.argmin(np.gradient(ema(loss, 0.98), np.log10(LR)))]
    assert decades(lagging, 1e-3) > 0.3  # what an exponential average does to the same curve


def test_the_average_is_corrected_for_its_empty_start() -> None:
    # uncorrected it starts at 0, and every later value is far above the "best"
    rule = RangeTestStop(4.0, floor=0.0)
    assert rule.first_stop(np.full(100, 2.3), rule.init())[1] is None
    assert ema(np.full(5, 2.3), 0.98).tolist() == pytest.approx([2.3] * 5)


def test_a_nan_stops_the_test_and_ends_its_curve() -> None:
    loss = sigmoid_valley(LR, edge=1.0)
    loss[85:] = math.nan
    rule = RangeTestStop(4.0, floor=0.0)
    assert rule.first_stop(loss, rule.init())[1] == 85
    whole, cut = suggest([Curve(LR, loss)]), suggest([Curve(LR[:85], loss[:85])])
    assert whole.suggested_lr == cut.suggested_lr is not None


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("rule", RULES)
def test_thresholds_are_relative(rule: str, scale: float) -> None:
    one = suggest([Curve(LR, parabola_valley(LR))], rule).suggested_lr
    other = suggest([Curve(LR, scale * parabola_valley(LR))], rule).suggested_lr
    assert one == pytest.approx(other, rel=1e-9)


def test_a_decrease_may_skip_a_bump() -> None:
    assert longest_decrease([9, 8, 7, 20, 6, 5, 4]) == (0, 6)


def test_the_number_of_steps_does_not_matter() -> None:
    found: dict[str, list[float]] = {rule: [] for rule in RULES}
    for steps in (50, 70, 100, 300, 1000):
        lr = ramp_lrs(steps)
        answers = suggest([Curve(lr, sigmoid_valley(lr, 1e-3, 1e-1))]).rules  # of every rule
        for rule, answer in answers.items():
            assert answer is not None, rule
            found[rule].append(answer)
    for rule, lrs in found.items():
        assert np.ptp(np.log10(lrs)) < 0.15, rule


@pytest.mark.parametrize(
    "lengths", [(50, 100, 300), pytest.param((50, 100, 300, 1000), marks=pytest.mark.long)]
)
def test_the_number_of_steps_does_not_matter_with_noise(lengths: tuple[int, ...]) -> None:
    found = []
    for steps in lengths:
        lr = ramp_lrs(steps)
        loss = sigmoid_valley(lr, 1e-3, 1e-1)
        answers = [suggest(seeds_of(lr, loss, 0.03, first=k)).suggested_lr for k in (0, 3, 6)]
        assert None not in answers
        found.append(np.mean(np.log10(np.array(answers, dtype=float))))
    assert np.ptp(found) < 0.15


@pytest.mark.parametrize("times", [10, pytest.param(20, marks=pytest.mark.long)])
def test_several_seeds_are_steadier_than_one(times: int) -> None:
    def spread(count: int) -> float:
        answers = [
            suggest(seeds_of(LR, sigmoid_valley(LR), 0.15, count, first=100 * k)).suggested_lr
            for k in range(times)
        ]
        return float(np.std(np.log10([lr for lr in answers if lr is not None])))

    assert spread(9) < 0.7 * spread(1)


def test_one_bad_seed_of_three_does_not_move_the_answer() -> None:
    good = seeds_of(LR, sigmoid_valley(LR), 0.02, count=2)
    bad = Curve(LR, np.r_[np.full(40, 1.0), np.exp(np.linspace(0, 20, 60))])
    with_it, without = suggest([*good, bad]).suggested_lr, suggest(good).suggested_lr
    assert with_it is not None
    assert without is not None
    assert decades(with_it, without) < 0.3


@pytest.mark.parametrize("shift", [-0.5, -1.0, -50.0])
def test_negative_losses(shift: float) -> None:
    one = suggest([Curve(LR, sigmoid_valley(LR))])
    other = suggest([Curve(LR, sigmoid_valley(LR) + shift)])
    assert one.suggested_lr == pytest.approx(other.suggested_lr, rel=1e-6)


def test_losses_that_reach_zero() -> None:
    x = np.log10(LR)
    loss = 10 ** -np.clip(3 * (x + 4), 0, 9) + np.where(x > 0, 10 ** (4 * x) - 1, 0)  # 1 to 1e-9
    found = suggest([Curve(LR, loss)])
    assert found.suggested_lr is not None
    assert 1e-4 < found.suggested_lr < 0.3
