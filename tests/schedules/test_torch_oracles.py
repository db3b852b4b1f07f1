"""The built-in schedules against torch's classes, stepped and, where there is one, in closed form."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedules.torch_oracle import stepped
from torch.optim import lr_scheduler as torch_lr

from lrexp.schedules.build import SCHEDULES

N = 60  # steps compared

# built-in name | its parameters | torch's class | its arguments
PAIRS: list[tuple[str, dict[str, Any], type, dict[str, Any]]] = [
    ("step", {"size": 7, "gamma": 0.3}, torch_lr.StepLR, {"step_size": 7, "gamma": 0.3}),
    ("step", {"size": 1, "gamma": 0.9}, torch_lr.StepLR, {"step_size": 1, "gamma": 0.9}),
    (
        "multi_step",
        {"milestones": [0, 5, 20, 20, 41], "gamma": 0.5},
        torch_lr.MultiStepLR,
        {"milestones": [0, 5, 20, 20, 41], "gamma": 0.5},
    ),
    ("exponential", {"gamma": 0.93}, torch_lr.ExponentialLR, {"gamma": 0.93}),
    ("polynomial", {"power": 1.7}, torch_lr.PolynomialLR, {"total_iters": N, "power": 1.7}),
    ("linear", {}, torch_lr.PolynomialLR, {"total_iters": N}),
    (
        "linear",
        {"min_lr": 0.05},
        torch_lr.LinearLR,
        {"start_factor": 1, "end_factor": 0.1, "total_iters": N},
    ),
    ("cosine", {}, torch_lr.CosineAnnealingLR, {"T_max": N}),
    ("cosine", {"min_lr": 0.02}, torch_lr.CosineAnnealingLR, {"T_max": N, "eta_min": 0.02}),
    ("cosine_restarts", {"cycle": 9}, torch_lr.CosineAnnealingWarmRestarts, {"T_0": 9}),
    (
        "cosine_restarts",
        {"cycle": 4, "cycle_mult": 2, "min_lr": 0.01},
        torch_lr.CosineAnnealingWarmRestarts,
        {"T_0": 4, "T_mult": 2, "eta_min": 0.01},
    ),
    (
        "cosine_restarts",
        {"cycle": 1, "cycle_mult": 3},
        torch_lr.CosineAnnealingWarmRestarts,
        {"T_0": 1, "T_mult": 3},
    ),
]
CYCLES: list[dict[str, Any]] = [
    {},
    {"mode": "triangular2"},
    {"mode": "exp_range", "gamma": 0.97},
    {"step_size_down": 3},
    {"step_size_down": 11, "mode": "triangular2"},
    {"base_momentum": 0.7, "max_momentum": 0.95, "mode": "exp_range", "gamma": 0.99},
]
ONE_CYCLES: list[dict[str, Any]] = [
    {},
    {"anneal_strategy": "linear"},
    {"three_phase": True},
    {"three_phase": True, "anneal_strategy": "linear", "pct_start": 0.45},
    {"pct_start": 0.0},
    {"pct_start": 1.0},
    {"pct_start": 0.01},
    {"div_factor": 5.0, "final_div_factor": 20.0},
    {"base_momentum": 0.6, "max_momentum": 0.9},
]


@pytest.mark.parametrize(
    ("name", "params", "torch_class", "args"),
    [pytest.param(*row, id=f"{i}-{row[0]}") for i, row in enumerate(PAIRS)],
)
def test_same_as_torch_stepped(
    name: str, params: dict[str, Any], torch_class: type, args: dict[str, Any]
) -> None:
    expected, _ = stepped(lambda optimizer: torch_class(optimizer, **args), 0.5, N)
    schedule = SCHEDULES[name](0.5, N, **params)
    # torch multiplies step after step, we evaluate the formula: they part by rounding alone
    assert [schedule(s) for s in range(N)] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "params", "torch_class", "args"),
    [pytest.param(*row, id=f"{i}-{row[0]}") for i, row in enumerate(PAIRS)],
)
def test_same_as_torch_in_closed_form(
    name: str, params: dict[str, Any], torch_class: type, args: dict[str, Any]
) -> None:
    schedule = SCHEDULES[name](0.5, N, **params)
    made: list[Any] = []
    stepped(lambda optimizer: made.append(torch_class(optimizer, **args)) or made[0], 0.5, 1)
    if not hasattr(made[0], "_get_closed_form_lr"):
        assert name == "cosine_restarts"
        return
    for step in range(N):
        made[0].last_epoch = step
        (expected,) = made[0]._get_closed_form_lr()
        assert schedule(step) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("params", CYCLES, ids=str)
def test_cyclic_is_torchs(params: dict[str, Any]) -> None:
    lrs, momenta = stepped(
        lambda o: torch_lr.CyclicLR(o, base_lr=0.05, max_lr=0.5, step_size_up=5, **params), 9.0, N
    )
    schedule = SCHEDULES["cyclic"](
        0.5, N, base_lr=0.05, step_size_up=5, cycle_momentum=True, **params
    )
    assert [schedule(s) for s in range(N)] == pytest.approx(lrs, rel=1e-9)
    assert [schedule.momentum(s) for s in range(N)] == pytest.approx(momenta, rel=1e-9)


@pytest.mark.parametrize("total", [2, 3, 10, N])
@pytest.mark.parametrize("params", ONE_CYCLES, ids=str)
def test_one_cycle_is_torchs(params: dict[str, Any], total: int) -> None:
    lrs, momenta = stepped(
        lambda o: torch_lr.OneCycleLR(o, max_lr=0.5, total_steps=total, **params), 9.0, total
    )
    schedule = SCHEDULES["one_cycle"](0.5, total, **params)
    assert [schedule(s) for s in range(total)] == pytest.approx(lrs, rel=1e-9)
    assert [schedule.momentum(s) for s in range(total)] == pytest.approx(momenta, rel=1e-9)


def test_one_cycle_where_torch_divides_by_zero() -> None:
    """A rise of a single step, 0.1 of 10: that step is the peak."""
    with pytest.raises(ZeroDivisionError):
        stepped(lambda o: torch_lr.OneCycleLR(o, 1.0, total_steps=10, pct_start=0.1), 1.0, 1)
    assert SCHEDULES["one_cycle"](1.0, 10, pct_start=0.1)(0) == 1.0


@given(
    total=st.integers(2, 80),
    pct_start=st.floats(0, 0.5),
    three_phase=st.booleans(),
    strategy=st.sampled_from(["cos", "linear"]),
)
def test_one_cycle_is_torchs_for_any_length(
    total: int, pct_start: float, three_phase: bool, strategy: str
) -> None:
    params: dict[str, Any] = {
        "pct_start": pct_start,
        "three_phase": three_phase,
        "anneal_strategy": strategy,
    }
    schedule = SCHEDULES["one_cycle"](0.5, total, **params)
    ours = [schedule(s) for s in range(total)]
    try:
        lrs, _ = stepped(
            lambda o: torch_lr.OneCycleLR(o, max_lr=0.5, total_steps=total, **params), 9.0, total
        )
    except ZeroDivisionError:
        return
    assert ours == pytest.approx(lrs, rel=1e-6, abs=1e-9)
