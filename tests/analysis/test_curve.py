"""Several seeds become one curve; its smoothing neither lags nor lets the blow-up leak back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from analysis.planted_curves import noisy, ramp_lrs, seeds_of, sigmoid_valley
from hypothesis import given
from hypothesis import strategies as st

from lrexp.analysis.range_curve import Curve, bandwidth_for, combine
from lrexp.analysis.suggest import suggest
from lrexp.errors import ConfigError

LR = [0.01, 0.1, 1.0, 10.0]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([[3, 2, 1, 9]], [3, 2, 1, 9]),
        ([[3, 2, 1, 9], [3, 4, 1, 7], [4, 3, 0, 8]], [3, 3, 1, 8]),
        ([[3, 2, 1, 9], [3, 4, 1, 7]], [3, 3, 1, 8]),  # of two, the mean
        # a seed that stopped counts as +inf: the median of (2, 4, inf) is 4
        ([[3, 2, 1, 9], [3, 4, 1, 7], [5]], [3, 4, 1, 9]),
        ([[3, 2, 1, 9], [3, 4], [5]], [3, 4]),  # two of three have stopped
        ([[3, 2, 1, 9], [3, 4]], [3, 3]),  # one of two is half
        ([[3, 2, 1, 9], [3, 4], [5, 6, 7], [1, 1, 1]], [3, 3, 4]),  # (1, 1, 7, inf)
        ([[3, 2, math.nan, 9]], [3, 2]),  # what comes after a nan is not part of the test
        ([[3, 2, math.inf, 9], [3, math.nan, 1, 1], [3, 4, 5, 6]], [3, 4]),
        ([[math.nan, 2, 3, 4]], []),
    ],
)
def test_median_of_the_seeds(losses: list[list[float]], expected: list[float]) -> None:
    curve = combine([Curve(LR[: len(loss)], loss) for loss in losses])
    assert curve.loss.tolist() == expected
    assert curve.lr.tolist() == LR[: len(expected)]
    assert curve.seeds == len(losses)
    for values in (curve.smooth, curve.low, curve.high, curve.noise):
        assert values.shape == curve.lr.shape


def test_the_band_spans_the_seeds_and_is_open_where_one_has_stopped() -> None:
    lr = ramp_lrs()
    base = sigmoid_valley(lr)
    curves = [Curve(lr, base), Curve(lr, base + 0.2), Curve(lr[:70], base[:70] - 0.1)]
    band = combine(curves)
    assert np.allclose(band.high[:60] - band.low[:60], 0.3, atol=1e-4)
    assert np.isinf(band.high[70:]).all()
    assert np.isfinite(band.low).all()
    inside = slice(0, 70)
    assert (band.low[inside] <= band.smooth[inside] + 1e-9).all()
    assert (band.smooth[inside] <= band.high[inside] + 1e-9).all()


@given(order=st.permutations(range(5)), ends=st.lists(st.integers(1, 40), min_size=5, max_size=5))
def test_the_order_of_the_seeds_does_not_matter(order: list[int], ends: list[int]) -> None:
    lr = ramp_lrs(40)
    rng = np.random.default_rng(0)
    curves = [Curve(lr[:end], rng.normal(size=40)[:end]) for end in ends]
    one, other = combine(curves), combine([curves[i] for i in order])
    for name in ("lr", "loss", "smooth", "low", "high", "noise"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("steps", [50, 100, 1000])
def test_smoothing_does_not_shift_the_curve(steps: int) -> None:
    lr = ramp_lrs(steps)
    exact = sigmoid_valley(lr, steepest=1e-3, edge=10.0)
    smooth = combine([Curve(lr, exact)]).smooth
    crossing = np.interp(-0.5, -smooth, np.log10(lr))
    assert crossing == pytest.approx(-3, abs=0.02)


def test_the_blow_up_does_not_reach_back_over_the_minimum() -> None:
    lr = ramp_lrs()
    exact = sigmoid_valley(lr, edge=10.0)
    blown = exact.copy()
    blown[85:] = 10.0 ** np.arange(15)
    clean, smooth = combine([Curve(lr, exact)]).smooth, combine([Curve(lr, blown)]).smooth
    # the line at a point sees half a decade, six points, to the right
    assert np.abs(smooth[:79] - clean[:79]).max() < 0.02
    assert smooth[95] > 1e6  # and it is still shown as the blow-up it is


def test_a_single_spike_leaves_no_trace() -> None:
    lr = ramp_lrs()
    exact = sigmoid_valley(lr)
    for at in (0, 1, 30, 60):
        spiked = exact.copy()
        spiked[at] += 50.0
        assert (
            np.abs(combine([Curve(lr, spiked)]).smooth - combine([Curve(lr, exact)]).smooth)[
                :80
            ].max()
            < 0.05
        )


@pytest.mark.parametrize("sd", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("steps", [100, 400])
def test_the_stated_error_is_the_error(sd: float, steps: int) -> None:
    lr = ramp_lrs(steps, high=-1.5)
    exact = sigmoid_valley(lr)
    ratios = []
    for seed in range(20):
        curve = combine([Curve(lr, noisy(exact, sd, seed))])
        middle = slice(steps // 6, steps // 3)  # flat: no bias from a bend
        ratios.append(
            np.mean((curve.smooth - exact)[middle] ** 2) / np.mean(curve.noise[middle] ** 2)
        )
    assert np.sqrt(np.mean(ratios)) == pytest.approx(1.0, abs=0.25)


def test_rounding_is_no_change_and_what_overflows_stays_what_it_is() -> None:
    lr = [0.1, 1.0, 10.0, 100.0]
    moved = Curve(lr, [2.0, 2.0 + 1e-7, 2.0 - 1e-7, 1.9]).without_rounding()
    assert moved.loss.tolist() == [2.0, 2.0, 2.0, 1.9]
    for losses in ([2.3, np.inf, np.inf, np.inf], [np.inf] * 4, [2.3, np.nan, 1.0, 2.3]):
        same = Curve(lr, losses).without_rounding()
        assert np.array_equal(same.loss, np.array(losses), equal_nan=True)
    reason = suggest([Curve(lr, [2.3, np.inf, np.inf, np.inf])] * 3).reason
    assert "diverged from the start" in str(reason)


def test_noise_falls_with_seeds_and_steps() -> None:
    def noise(steps: int, count: int) -> float:
        lr = ramp_lrs(steps)
        return float(np.median(combine(seeds_of(lr, np.ones(steps), 0.3, count)).noise))

    assert noise(400, 1) < 0.6 * noise(100, 1)
    assert noise(100, 9) < 0.6 * noise(100, 1)


@pytest.mark.parametrize(
    ("low", "high", "steps", "expected"),
    [(-7, 1, 100, 0.2), (-7, 1, 1000, 0.2), (-3, -1, 100, 0.1), (-7, 1, 11, 0.8)],
)
def test_the_bandwidth_belongs_to_the_range(
    low: int, high: int, steps: int, expected: float
) -> None:
    assert bandwidth_for(np.linspace(low, high, steps)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("curves", "key"),
    [
        (lambda: combine([]), "curves"),
        (lambda: combine([Curve([1, 2], [1, 1]), Curve([1, 3], [1, 1])]), "curves"),
        (lambda: Curve([1, 2], [1]), "loss"),
        (lambda: Curve([[1, 2]], [[1, 1]]), "loss"),
        (lambda: Curve([0, 1], [1, 1]), "lr"),
        (lambda: Curve([2, 1], [1, 1]), "lr"),
        (lambda: Curve([1, math.nan], [1, 1]), "lr"),
    ],
)
def test_bad_curves(curves: object, key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        curves()  # type: ignore[operator]
    assert [problem.key for problem in raised.value.problems] == [key]
