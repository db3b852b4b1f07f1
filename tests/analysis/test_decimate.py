"""Thinned curves keep what a plot would show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lrexp.analysis.smoothing import thin

CURVES = arrays.arrays(
    np.float64,
    st.integers(1, 400),
    elements=st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf]),
)


@given(y=CURVES, max_points=st.integers(4, 60))
def test_ends_extremes_and_order_survive(y: np.ndarray, max_points: int) -> None:
    x = np.arange(len(y), dtype=float)
    kept_x, kept_y = thin(x, y, max_points)
    assert len(kept_x) <= max(max_points, min(len(y), max_points))
    assert kept_x[0] == 0
    assert kept_x[-1] == len(y) - 1
    assert (np.diff(kept_x) > 0).all()
    assert np.array_equal(kept_y, y[kept_x.astype(int)], equal_nan=True)
    if not np.isnan(y).all():
        assert np.nanmax(kept_y) == np.nanmax(y)
        assert np.nanmin(kept_y) == np.nanmin(y)


@pytest.mark.parametrize("at", [1, 17, 499_999, 999_998])
def test_one_spike_in_a_million_points_is_kept(at: int) -> None:
    y = np.zeros(1_000_000)
    y[at] = 7.0
    x, thinned = thin(np.arange(len(y)), y, 2000)
    assert len(x) <= 2000
    assert x[thinned == 7.0].tolist() == [at]


def test_a_short_curve_is_left_as_it_is() -> None:
    x, y = thin([1, 2, 3], [5, 4, 6], 10)
    assert (x.tolist(), y.tolist()) == ([1, 2, 3], [5, 4, 6])


def test_infinite_values_are_peaks_and_a_gap_stays_a_gap() -> None:
    y = np.zeros(1000)
    y[[300, 700]] = [np.inf, -np.inf]
    y[400:500] = np.nan
    x, kept = thin(np.arange(1000), y, 100)
    assert {300.0, 700.0} <= set(x[np.isinf(kept)])
    assert np.isnan(kept[(x >= 420) & (x < 480)]).all()
    assert len(x) <= 100


@pytest.mark.parametrize("length", [0, 1, 4, 5, 11, 1001])
@pytest.mark.parametrize("max_points", [4, 5, 10, 1000])
def test_never_more_than_asked_for(length: int, max_points: int) -> None:
    x, _ = thin(np.arange(length), np.random.default_rng(0).normal(size=length), max_points)
    assert len(x) <= max_points
