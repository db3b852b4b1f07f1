"""The ramp hits both ends and rises evenly between them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrexp.analysis.stopping import ramp
from lrexp.errors import ConfigError


@pytest.mark.parametrize(
    ("low", "high", "steps", "mode", "expected"),
    [
        (1e-7, 10.0, 9, "exp", [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0]),
        (0.25, 1.0, 3, "exp", [0.25, 0.5, 1.0]),
        (0.25, 1.0, 4, "linear", [0.25, 0.5, 0.75, 1.0]),
        (0.1, 0.2, 2, "exp", [0.1, 0.2]),
        (0.1, 0.2, 2, "linear", [0.1, 0.2]),
        (1, 100, 3, "exp", [1.0, 10.0, 100.0]),  # whole numbers are numbers
        (1e-300, 1e300, 3, "exp", [1e-300, 1.0, 1e300]),  # max/min would overflow
    ],
)
def test_values(low: float, high: float, steps: int, mode: str, expected: list[float]) -> None:
    schedule = ramp(low, high, steps, mode)
    assert [schedule(i) for i in range(steps)] == pytest.approx(expected, rel=1e-12)


@given(
    low=st.floats(1e-12, 1.0),
    ratio=st.floats(1.001, 1e12),
    steps=st.integers(2, 2000),
    mode=st.sampled_from(["exp", "linear"]),
)
def test_both_ends_are_exact_and_it_rises(low: float, ratio: float, steps: int, mode: str) -> None:
    schedule = ramp(low, low * ratio, steps, mode)
    assert schedule(0) == low
    assert schedule(steps - 1) == low * ratio
    assert schedule(steps) == schedule(10 * steps) == low * ratio  # held afterwards
    lrs = np.array([schedule(i) for i in range(steps)])
    assert (np.diff(lrs) > 0).all()
    evenness = np.diff(np.log(lrs) if mode == "exp" else lrs)
    assert evenness.max() - evenness.min() < 1e-9 * max(1.0, evenness.max())


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ({"steps": 1}, ["steps"]),
        ({"steps": True}, ["steps"]),
        ({"steps": 10.0}, ["steps"]),
        ({"min_lr": 0.0}, ["min_lr"]),
        ({"min_lr": -1e-3}, ["min_lr"]),
        ({"min_lr": math.nan}, ["min_lr"]),
        ({"max_lr": math.inf}, ["max_lr"]),
        ({"max_lr": True}, ["max_lr"]),
        ({"max_lr": "10"}, ["max_lr"]),
        ({"min_lr": 10.0}, ["min_lr"]),  # equal ends
        ({"min_lr": 11.0}, ["min_lr"]),
        ({"mode": "exponential"}, ["mode"]),
        ({"min_lr": 0, "max_lr": -1, "steps": 0, "mode": "up"}, ["min_lr", "max_lr", "steps", "mode"]),
    ],
)  # fmt: skip
def test_every_problem_is_reported_at_once(arguments: dict, keys: list[str]) -> None:
    good = {"min_lr": 1e-7, "max_lr": 10.0, "steps": 100, "mode": "exp"}
    with pytest.raises(ConfigError) as raised:
        ramp(**good | arguments)
    assert [problem.key for problem in raised.value.problems] == keys
    assert all(problem.remedy for problem in raised.value.problems)


def test_a_misspelt_mode_is_recognised() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'linear'"):
        ramp(0.1, 1.0, 10, "linaer")
