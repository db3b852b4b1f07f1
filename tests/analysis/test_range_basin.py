"""The basin has the planted sides, and `auto` follows its formula."""

from __future__ import annotations

import numpy as np
import pytest
from analysis.planted_curves import parabola_valley, ramp_lrs, seeds_of

from lrexp.analysis.range_curve import Basin, Curve, basin, combine
from lrexp.analysis.rules import auto

LR = ramp_lrs()


def trapezium(lr: np.ndarray, *corners: float) -> np.ndarray:
    """Fall from 1 to 0 between the first two log10 LRs, rise to 3 between the last two."""
    return np.asarray(np.interp(np.log10(lr), corners, [1.0, 0.0, 0.0, 3.0]))


def found_in(losses: np.ndarray, lr: np.ndarray = LR) -> Basin:
    found = basin(combine([Curve(lr, losses)]))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("corners", "low", "high"),
    [
        ((-5.0, -3.0, -2.0, 1.0), -4.0, -1.5),  # half of the fall; a sixth of the rise
        ((-5.0, -4.0, -1.0, 0.5), -4.5, -0.75),
        ((-4.0, -1.0, -0.5, 0.1), -2.5, -0.4),
    ],
)
@pytest.mark.parametrize("steps", [100, 1000])
def test_the_sides_are_where_half_of_the_drop_is_crossed(
    corners: tuple[float, ...], low: float, high: float, steps: int
) -> None:
    lr = ramp_lrs(steps)
    found = found_in(trapezium(lr, *corners), lr)
    assert found.low == pytest.approx(low, abs=0.1)
    assert found.high == pytest.approx(high, abs=0.1)
    assert found.middle == pytest.approx((low + high) / 2, abs=0.1)


def test_a_side_that_was_not_reached_is_the_end_of_the_test() -> None:
    lr = ramp_lrs(high=-2.0)
    assert found_in(parabola_valley(lr, 1e-2), lr).high == pytest.approx(-2.0)


@pytest.mark.parametrize("losses", [np.ones(100), np.exp(np.linspace(0, 9, 100)), np.ones(2)])
def test_a_curve_that_never_falls_has_none(losses: np.ndarray) -> None:
    curve = combine([Curve(LR[: len(losses)], losses)])
    assert basin(curve) is None
    assert auto(curve) is None


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ((-3.0, -2.8, -1.3, -1.0), -2.9),  # low, of -3.1, -2.9 and -2.1
        ((-6.0, -3.0, -2.0, -1.0), -3.8),  # bottom / 10, of -4.5, -3.8 and -2.8
        ((-3.0, -2.4, -2.3, -2.0), -3.2),  # high / 10 of a basin narrower than a decade
    ],
)
def test_auto_is_the_median_of_three_readings(corners: tuple[float, ...], expected: float) -> None:
    curve = combine([Curve(LR, trapezium(LR, *corners))])
    sides, bottom, lr = basin(curve), basin(curve, 0.75), auto(curve)
    assert sides is not None
    assert bottom is not None
    assert lr is not None
    readings = [sides.low, bottom.middle - 1, sides.high - 1]
    assert np.log10(lr) == pytest.approx(np.median(readings))
    assert np.log10(lr) == pytest.approx(expected, abs=0.15)


def test_auto_is_steadier_than_the_lowest_point() -> None:
    # a flat bottom over three decades: its lowest point lies anywhere on it
    loss = trapezium(LR, -5, -4, -1, 0)
    curves = [combine(seeds_of(LR, loss, 0.1, first=3 * k)) for k in range(20)]
    answers = [np.log10(lr) for curve in curves if (lr := auto(curve))]
    lowest = [np.log10(curve.lr[np.argmin(curve.smooth)]) for curve in curves]
    assert np.std(answers) < np.std(lowest) / 3
