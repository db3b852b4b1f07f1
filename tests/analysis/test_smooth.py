"""Smoothing: exact on lines, unbiased at the ends, and of the stated weight everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrexp.analysis.smoothing import (
    anchored,
    despike,
    ema,
    local_linear,
    local_linear_gain,
    zero_lag,
)
from lrexp.errors import ConfigError


def fitted_lines(x: np.ndarray, y: np.ndarray, weight_of: object) -> np.ndarray:
    """The definition, point by point, through numpy's own least squares."""
    out = np.full(len(x), np.nan)
    finite = np.isfinite(y)
    for i in np.flatnonzero(finite):
        root = np.sqrt(weight_of(np.abs(x[finite] - x[i])))  # type: ignore[operator]
        design = np.stack([np.ones(finite.sum()), x[finite] - x[i]], axis=1) * root[:, None]
        out[i] = np.linalg.lstsq(design, y[finite] * root, rcond=None)[0][0]
    return out


def some_curve(n: int, gaps: bool) -> np.ndarray:
    y = np.random.default_rng(n).normal(size=n).cumsum()
    if gaps:
        y[[3, n // 2]] = [math.nan, math.inf]
    return y


@pytest.mark.parametrize(
    ("values", "beta", "expected"),
    [
        ([5.0], 0.9, [5.0]),
        ([1.0, 2.0], 0.5, [1.0, 2.5 / 1.5]),
        ([1.0, 2.0, 4.0], 0.5, [1.0, 2.5 / 1.5, (0.25 + 1 + 4) / 1.75]),
        ([1.0, 2.0, 4.0], 0.0, [1.0, 2.0, 4.0]),
        ([1.0, math.nan, 4.0], 0.5, [1.0, math.nan, (0.25 + 4) / 1.25]),
        ([math.inf, 2.0], 0.5, [math.nan, 2.0]),
        ([], 0.5, []),
    ],
)
def test_ema(values: list[float], beta: float, expected: list[float]) -> None:
    assert ema(values, beta).tolist() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("beta", [-0.1, 1.0, math.nan])
def test_ema_needs_a_beta_below_one(beta: float) -> None:
    with pytest.raises(ConfigError, match="beta"):
        ema([1.0], beta)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("span", [1.5, 6.0, 100.0])
def test_zero_lag_is_a_weighted_line_at_every_point(span: float, gaps: bool) -> None:
    y = some_curve(60, gaps)
    expected = fitted_lines(np.arange(60.0), y, lambda distance: (1 - 1 / span) ** distance)
    assert np.allclose(zero_lag(y, span), expected, equal_nan=True, atol=1e-8)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("bandwidth", [0.05, 0.5, 5.0])
def test_local_linear_is_a_weighted_line_at_every_point(bandwidth: float, gaps: bool) -> None:
    x = np.sort(np.random.default_rng(0).uniform(0, 8, 60))
    y = some_curve(60, gaps)
    # numpy's solver is not exact where a neighbour has next to no weight; compare where it is
    expected = fitted_lines(x, y, lambda d: np.exp(-0.5 * (d / bandwidth) ** 2))
    close = np.isclose(local_linear(x, y, bandwidth), expected, equal_nan=True, atol=1e-6)
    assert close.mean() > (0.9 if bandwidth < 0.1 else 0.999)


@given(
    slope=st.floats(-100, 100),
    level=st.floats(-1e4, 1e4),
    n=st.integers(2, 200),
    width=st.floats(1.1, 50),
)
def test_a_line_stays_the_line_up_to_both_ends(
    slope: float, level: float, n: int, width: float
) -> None:
    x = np.arange(float(n))
    line = level + slope * x
    size = abs(level) + abs(slope) * n + 1
    assert np.abs(zero_lag(line, width) - line).max() < 1e-6 * size
    assert np.abs(local_linear(x, line, width) - line).max() < 1e-6 * size


def test_a_step_is_not_shifted() -> None:
    y = np.r_[np.zeros(500), np.ones(500)]
    for smooth in (zero_lag(y, 30), local_linear(np.arange(1000.0), y, 30)):
        assert np.interp(0.5, smooth[400:600], np.arange(400, 600)) == pytest.approx(
            499.5, abs=0.01
        )
    assert np.interp(0.5, ema(y, 1 - 1 / 30), np.arange(1000)) > 515  # causal: it trails


def test_the_anchored_curve_begins_at_the_first_value() -> None:
    steps = np.arange(400)
    fast = 0.2 + 2.0 * np.exp(-steps / 4) + 0.03 * np.random.default_rng(0).normal(size=400)
    smooth, fitted = anchored(fast, 10), zero_lag(fast, 10)
    assert smooth[0] == fast[0]
    assert abs(smooth - fast)[:10].max() < 0.25 < abs(fitted - fast)[0]
    assert np.array_equal(smooth[40:], fitted[40:])  # elsewhere nothing has changed
    assert smooth[80:].std() < 0.4 * fast[80:].std()


@pytest.mark.parametrize("span", [1.0, 1.5, 2.0, 7.0, 90.0])
def test_an_anchored_line_stays_the_line(span: float) -> None:
    line = 3.0 - 0.5 * np.arange(200.0)
    assert np.allclose(anchored(line, span), line)
    line[[0, 5]] = math.nan
    assert np.allclose(anchored(line, span), line, equal_nan=True)
    assert not len(anchored([], span))


def test_the_gain_is_that_of_the_weights() -> None:
    x = np.linspace(0, 8, 80)
    weights = np.stack([local_linear(x, unit, 0.3) for unit in np.eye(80)])  # (from, to)
    assert np.allclose(local_linear_gain(x, 0.3), np.sqrt((weights**2).sum(axis=0)))


def test_long_curves_are_smoothed_in_blocks() -> None:
    x, y = np.arange(3000.0), some_curve(3000, gaps=False)
    near = local_linear(x[:900], y[:900], 5.0)
    assert np.allclose(local_linear(x, y, 5.0)[:800], near[:800])


@pytest.mark.parametrize("spacing", ["even", "uneven"])
def test_dense_curves_are_fitted_at_some_points_only(spacing: str) -> None:
    draw = np.random.default_rng(1)
    x = np.linspace(0, 8, 4000) if spacing == "even" else np.log10(np.linspace(1e-6, 1e2, 4000))
    y = np.sin(3 * x) + draw.normal(0, 0.5, 4000)
    y[[0, 70, 2000]] = np.nan  # what has no value gets none, and takes none from its neighbours
    some = local_linear(x, y, 0.2)
    for i in range(10, 4000, 25):
        kernel = np.exp(-0.5 * ((x - x[i]) / 0.2) ** 2) * np.isfinite(y)
        line = np.polynomial.Polynomial.fit(x - x[i], np.nan_to_num(y), 1, w=np.sqrt(kernel))
        assert some[i] == pytest.approx(line(0.0), abs=1e-4)
    assert np.isnan(some[[0, 70, 2000]]).all()
    assert np.isfinite(np.delete(some, [0, 70, 2000])).all()


def test_a_dense_line_stays_the_line() -> None:
    x = np.linspace(-7, 1, 5000)
    assert np.allclose(local_linear(x, 3 * x - 2, 0.2), 3 * x - 2, atol=1e-9)
    gain = local_linear_gain(x, 0.2)
    assert gain[2500] == pytest.approx((2 * np.sqrt(np.pi) * 0.2 / (8 / 4999)) ** -0.5, rel=1e-3)


def test_huge_values_do_not_reach_far() -> None:
    y = np.ones(2000)
    y[500] = 1e30
    assert np.abs(zero_lag(y, 3)[1500:] - 1).max() < 1e-9


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 9, 3, 4], [3, 3, 4, 4]),
        ([1, 1, 50, 1, 1], [1, 1, 1, 1, 1]),
        ([50, 1, 2], [2, 2, 2]),
        ([1, 2, 3, 4], [2, 2, 3, 3]),
        ([1, math.nan, 2, 3], [2, 2, 3, 3]),
        ([1, 2], [1, 2]),
        ([], []),
    ],
)
def test_despike(values: list[float], expected: list[float]) -> None:
    assert despike(values).tolist() == expected
