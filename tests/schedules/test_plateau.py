"""`plateau` against torch's ReduceLROnPlateau, and where torch's is wrong."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrexp.schedules.build import SCHEDULES, build_schedule
from lrexp.schedules.controllers import Plateau, PlateauState

METRICS = st.lists(
    st.one_of(st.floats(0.01, 10), st.integers(1, 4).map(float), st.just(math.nan)), max_size=40
)


def torch_lrs(metrics: list[float], lr: float, **args: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **args)
    lrs = []
    for metric in metrics:
        scheduler.step(metric)
        lrs.append(optimizer.param_groups[0]["lr"])
    return lrs


def our_lrs(metrics: list[float], control: Plateau, first_step: int = 0) -> list[float]:
    state, lrs = control.init(), []
    for step, metric in enumerate(metrics, first_step):
        state = control.observe(state, step, metric)
        lrs.append(control.lr(state, step + 1))
    return lrs


@settings(max_examples=2 * settings.default.max_examples)  # they are many, and quick
@given(
    metrics=METRICS,
    mode=st.sampled_from(["min", "max"]),
    factor=st.sampled_from([0.1, 0.5, 0.9]),
    patience=st.integers(0, 4),
    threshold=st.sampled_from([0.0, 1e-4, 0.1, 0.9]),
    threshold_mode=st.sampled_from(["rel", "abs"]),
    cooldown=st.integers(0, 3),
    min_lr=st.sampled_from([0.0, 0.01, 0.3]),
)
def test_same_as_torch(metrics: list[float], **args: Any) -> None:
    control = SCHEDULES["plateau"](0.5, 100, **args)
    assert our_lrs(metrics, control) == torch_lrs(metrics, 0.5, **args)


@given(
    metrics=st.lists(st.integers(-3, 3).map(float), max_size=30),
    mode=st.sampled_from(["min", "max"]),
)
def test_same_as_torch_below_zero_with_an_absolute_threshold(
    metrics: list[float], mode: str
) -> None:
    args: dict[str, Any] = {"mode": mode, "threshold_mode": "abs", "threshold": 0.5, "patience": 1}
    control = SCHEDULES["plateau"](0.5, 100, factor=0.5, **args)
    assert our_lrs(metrics, control) == torch_lrs(metrics, 0.5, factor=0.5, **args)


@pytest.mark.parametrize(
    ("mode", "best", "value", "better"),
    [
        ("min", -10.0, -10.5, False),  # better, but by less than 10 %
        ("min", -10.0, -9.5, False),  # worse: torch calls it better
        ("min", -10.0, -11.5, True),
        ("max", -10.0, -9.5, False),
        ("max", -10.0, -10.5, False),  # worse: torch calls it better
        ("max", -10.0, -8.5, True),
        ("min", 10.0, 9.5, False),
        ("min", 10.0, 8.5, True),
        ("max", 0.0, 1e-9, True),
    ],
)
def test_a_relative_threshold_below_zero(
    mode: str, best: float, value: float, better: bool
) -> None:
    control = SCHEDULES["plateau"](1.0, 10, mode=mode, threshold=0.1, patience=0)
    assert our_lrs([best, value], control)[-1] == (1.0 if better else 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_non_finite_metric_is_bad_and_never_the_best(bad: float, mode: str) -> None:
    control = SCHEDULES["plateau"](1.0, 10, mode=mode, patience=0)
    assert our_lrs([bad, 1.0, bad], control) == [0.5, 0.5, 0.25]
    assert control.observe(control.init(), 0, bad).best is None


def test_defaults() -> None:
    control = SCHEDULES["plateau"](1.0, 100)
    assert control.monitor == "val_loss"
    # the first is the best; after two more the third bad one halves the LR
    assert our_lrs([1.0] * 8, control) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert our_lrs([1.0] * 200, control)[-1] == 1e-6


@pytest.mark.parametrize(("lr", "low"), [(1e-3, 1e-6), (1e-7, 1e-7)])
def test_the_default_floor_is_never_above_the_peak(lr: float, low: float) -> None:
    control = SCHEDULES["plateau"](lr, 100, patience=0, eps=0)
    assert our_lrs([1.0] * 50, control)[-1] == low


@pytest.mark.parametrize(
    ("monitor", "rising"), [("val_loss", 0.5), ("train_loss", 0.5), ("val_accuracy", 1.0)]
)
def test_the_mode_follows_the_monitor(monitor: str, rising: float) -> None:
    control = SCHEDULES["plateau"](1.0, 9, monitor=monitor, patience=0)
    assert our_lrs([0.1, 0.2], control)[-1] == rising


def test_with_warmup() -> None:
    """Evaluations during the warmup are never bad, and the warmup leads to the peak itself."""
    control = SCHEDULES["plateau"](1.0, 100, patience=0, warmup=4)
    state, lrs = control.init(), []
    for step, metric in enumerate([1.0, 2.0, 3.0, 2.0, 2.0, 0.5, 0.5]):
        lrs.append(control.lr(state, step))
        state = control.observe(state, step, metric)
    # the best of the warmup (1.0) counts: the 2.0 after update 4 is bad, 0.5 is better
    assert lrs == [0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.5]
    assert state.lr == 0.25


def test_state_is_plain_and_comes_back_exactly() -> None:
    control = SCHEDULES["plateau"](0.3, 100, factor=0.7, cooldown=2)
    metrics = [1.0, 0.9, 0.95, math.nan, 0.97, 0.99, 1.0, 1.1, 1.2, 0.1]
    state = control.init()
    for step, metric in enumerate(metrics):
        resumed = control.from_plain(json.loads(json.dumps(control.to_plain(state))))
        assert resumed == state
        state = control.observe(state, step, metric)
    assert isinstance(state, PlateauState)


@given(metrics=METRICS)
def test_the_torch_name_has_torchs_defaults(metrics: list[float]) -> None:
    control = build_schedule(
        "ReduceLROnPlateau",
        {"args": {"patience": 1}, "monitor": "train_loss"},
        lr=0.5,
        total_steps=100,
        to_steps=int,
        steps_per_epoch=None,
    )
    assert isinstance(control, Plateau)
    assert control.monitor == "train_loss"
    assert our_lrs(metrics, control) == torch_lrs(metrics, 0.5, patience=1)
