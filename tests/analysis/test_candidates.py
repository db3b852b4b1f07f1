from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrexp.analysis.race import Candidate, candidate_of, rounded_lr


@given(st.integers(1, 10**8), st.floats(1e-30, 1e6))
def test_a_name_says_all(horizon: int, lr: float) -> None:
    candidate = Candidate(horizon, rounded_lr(lr))
    assert candidate_of(candidate.name) == candidate


@pytest.mark.parametrize(
    "name",
    ["range_test", "race-40-lr-", "race-0-lr-0.1", "race-40-lr-0.10", "race-40-lr-0", "race-40-lr-inf",
     "race-40-lr-0.123456", "race-40-lr-1.2.3", "race--4-lr-0.1", "race-40-lr-0.1/../x", "race-40-lr-1e999"],
)  # fmt: skip
def test_other_names_are_nobodys(name: str) -> None:
    assert candidate_of(name) is None


def test_names_are_safe_for_folders() -> None:
    assert Candidate(7, rounded_lr(3.16227e-7)).name == "race-7-lr-3.162e-07"
