"""The names of transformers and timm against these packages, stepped as a training steps them."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from schedules.torch_oracle import stepped

from lrexp.schedules.build import SCHEDULES
from lrexp.schedules.schedule import Controller

W, T, LR = 4, 20, 0.5

# name | our parameters | those of transformers' get_scheduler
TRANSFORMERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("linear", {}, {}),
    ("cosine", {}, {}),
    ("cosine", {"num_cycles": 1.25}, {"num_cycles": 1.25}),
    ("cosine_with_restarts", {"num_cycles": 3}, {"num_cycles": 3}),
    ("polynomial", {"min_lr": 0.01, "power": 2}, {"lr_end": 0.01, "power": 2}),
    ("constant_with_warmup", {}, {}),
    ("inverse_sqrt", {}, {}),
    ("inverse_sqrt", {"timescale": 7}, {"timescale": 7}),
    ("cosine_with_min_lr", {"min_lr": 0.1}, {"min_lr": 0.1}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.1}, {"min_lr_rate": 0.1}),
    ("cosine_warmup_with_min_lr", {"warmup_start": None, "min_lr": 0.1}, {"min_lr": 0.1}),
    (
        "cosine_warmup_with_min_lr",
        {"warmup_start": None, "min_lr_rate": 0.2, "warmup_lr_rate": 0.3},
        {"min_lr_rate": 0.2, "warmup_lr_rate": 0.3},
    ),
    ("warmup_stable_decay", {"num_decay_steps": 6}, {"num_decay_steps": 6}),
    (
        "warmup_stable_decay",
        {
            "num_decay_steps": 5,
            "num_stable_steps": 3,
            "decay_type": "1-sqrt",
            "min_lr_ratio": 0.1,
            "warmup_start": 0.1,
        },
        {
            "num_decay_steps": 5,
            "num_stable_steps": 3,
            "decay_type": "1-sqrt",
            "min_lr_ratio": 0.1,
        },
    ),
]


@pytest.mark.filterwarnings("ignore")  # of imports; and both lengths of a wsd are given
@pytest.mark.parametrize(("name", "params", "theirs"), TRANSFORMERS)
def test_transformers(name: str, params: dict, theirs: dict) -> None:
    optimization = pytest.importorskip("transformers.optimization")

    def make(optimizer: torch.optim.Optimizer) -> Any:
        return optimization.get_scheduler(name, optimizer, W, T, theirs)

    schedule = SCHEDULES[name](LR, T, warmup=W, **{"warmup_start": 0, **params})
    expected, _ = stepped(make, LR, T)
    assert [schedule(step) for step in range(T)] == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_every_name_of_transformers_is_known() -> None:
    trainer_utils = pytest.importorskip("transformers.trainer_utils")
    assert {kind.value for kind in trainer_utils.SchedulerType} <= SCHEDULES.keys()


GREEDY: list[dict[str, Any]] = [
    {"patience": 0, "factor": 0.5, "max_lr": 2.0, "min_lr": 0.05, "reset_start": 3},
    {"patience": 1, "factor": 0.8, "cooldown": 2, "threshold": 0.05, "threshold_mode": "rel"},
    {"patience": 0, "factor": 0.9, "smooth": True, "window_size": 4, "rise_cooldown": 3},
    {"patience": 1, "mode": "max", "factor": 0.7, "cooldown": 1, "min_lr": 0.3, "reset_start": 2},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("params", GREEDY)
def test_greedy_is_that_of_transformers(params: dict[str, Any]) -> None:
    optimization = pytest.importorskip("transformers.optimization")
    words = {"rise_cooldown": "warmup"}
    theirs = {words.get(name, name): value for name, value in params.items()}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = optimization.GreedyLR(optimizer, **theirs)
    draws = random.Random(0)
    # it falls, wavers, rises and falls again, so that every rule is reached
    trends = [-0.1] * 12 + [0.0] * 12 + [0.2] * 25 + [-0.3] * 12
    losses, loss = [], 5.0
    for trend in trends:
        loss += trend + draws.uniform(-0.06, 0.06)
        losses.append(loss)
    expected = []
    for value in losses:
        scheduler.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    assert len(set(expected)) > 3
    control = SCHEDULES["greedy"](LR, 100, **params)
    assert _followed(control, losses) == pytest.approx(expected, rel=1e-12)


# parameters | values | the LR after each, η = 0.4
RULES: list[tuple[dict[str, Any], list[float], list[float]]] = [
    ({}, [3, 2, 1], [0.8, 1.0, 1.0]),  # better each time, up to max_lr
    ({}, [3, 3, 4, 3.5], [0.8, 0.4, 0.2, 0.1]),
    ({"patience": 1}, [3, 2, 2, 2, 1], [0.4, 0.8, 0.8, 0.4, 0.4]),
    ({"threshold": 0.5}, [3, 2.6, 2.4], [0.8, 0.4, 0.8]),
    ({"mode": "max"}, [3, 4, 1], [0.8, 1.0, 0.5]),
    ({"threshold": 0.1, "threshold_mode": "rel"}, [-3, -3.2, -3.4], [0.8, 0.4, 0.8]),
    ({}, [3, float("nan"), 2], [0.8, 0.4, 0.8]),
    ({"smooth": True, "window_size": 2}, [3, float("nan"), 1, 3], [0.8, 0.4, 0.8, 0.4]),
    ({"cooldown": 1}, [3, 3, 9, 9], [0.8, 0.4, 0.4, 0.2]),
    ({"rise_cooldown": 1}, [3, 9, 9], [0.8, 0.8, 0.4]),
    ({"min_lr": 0.2, "reset_start": 2}, [3, 9, 9, 9, 9], [0.8, 0.4, 0.2, 0.4, 0.8]),
    ({"warmup": 2}, [3, 9, 4, 9], [0.4, 0.4, 0.8, 0.4]),
    ({"warmup": 0, "patience": 5}, [3, 2, 1], [0.4, 0.4, 0.4]),
]


@pytest.mark.parametrize(("params", "values", "expected"), RULES)
def test_greedy_by_hand(params: dict[str, Any], values: list[float], expected: list[float]) -> None:
    control = SCHEDULES["greedy"](
        0.4, 100, **{"factor": 0.5, "patience": 0, "max_lr": 1.0, **params}
    )
    assert _followed(control, values) == pytest.approx(expected)


def test_greedy_follows_the_training_loss_where_asked() -> None:
    assert SCHEDULES["greedy"](0.1, 9, monitor="loss").monitor == "loss"


def test_reduce_lr_on_plateau_has_torchs_defaults() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    expected = []
    for _ in range(40):
        scheduler.step(1.0)
        expected.append(optimizer.param_groups[0]["lr"])
    assert _followed(SCHEDULES["reduce_lr_on_plateau"](LR, 99), [1.0] * 40) == expected


def _followed(control: Controller, values: list[float]) -> list[float]:
    """Return the LR after each value, the state going through a checkpoint each time."""
    state, lrs = control.init(), []
    for step, value in enumerate(values):
        state = control.from_plain(control.to_plain(control.observe(state, step, value)))
        lrs.append(control.lr(state, 99))
    return lrs


# class | our name and parameters | its arguments
TIMM: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("CosineLRScheduler", "cosine", {"min_lr": 0.1}, {"lr_min": 0.1}),
    ("CosineLRScheduler", "cosine", {"k_decay": 1.5}, {"k_decay": 1.5}),
    (
        "CosineLRScheduler",
        "cosine_restarts",
        {"cycle": 5, "cycle_decay": 0.5, "min_lr": 0.05},
        {"t_initial": 5, "cycle_decay": 0.5, "lr_min": 0.05, "cycle_limit": 9},
    ),
    (
        "CosineLRScheduler",
        "cosine_restarts",
        {"cycle": 9, "cycle_mult": 0.5, "min_lr": 0.05},
        {"t_initial": 9, "cycle_mul": 0.5, "lr_min": 0.05, "cycle_limit": 4},
    ),
    (
        "CosineLRScheduler",
        "cosine_restarts",
        {"cycle": 3, "cycle_mult": 2, "cycle_limit": 2},
        {"t_initial": 3, "cycle_mul": 2, "cycle_limit": 2},
    ),
    (
        "WSDLRScheduler",
        "rsqrt",
        {"min_lr": 0.02, "decay": 7},
        {"lr_min": 0.02, "decay_t": 7, "stable_fn": "rsqrt", "decay_fn": "linear"},
    ),
    ("WSDLRScheduler", "wsd", {"decay": 7, "decay_type": "1-sqrt"}, {"decay_t": 7}),
    ("TanhLRScheduler", "tanh", {"min_lr": 0.1}, {"lr_min": 0.1}),
    ("TanhLRScheduler", "tanh", {"lb": -2, "ub": 1}, {"lb": -2, "ub": 1}),
    ("PolyLRScheduler", "poly", {}, {}),
    (
        "PolyLRScheduler",
        "poly",
        {"power": 2, "k_decay": 0.7, "min_lr": 0.1},
        {"power": 2, "k_decay": 0.7, "lr_min": 0.1},
    ),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize(("cls", "name", "params", "theirs"), TIMM)
def test_timm(cls: str, name: str, params: dict, theirs: dict, prefix: bool) -> None:
    scheduler = pytest.importorskip("timm.scheduler")
    if not prefix and (name == "tanh" or params.get("cycle_mult", 1) < 1):
        pytest.skip("timm's warmup ends on the curve there, and its cycles end before T")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    warm = {"warmup_t": W, "warmup_lr_init": 0.02, "warmup_prefix": prefix}
    if cls == "WSDLRScheduler":  # whose warmup is a prefix always
        if not prefix:
            pytest.skip("has no such argument")
        from timm.scheduler import wsd_lr as scheduler

        del warm["warmup_prefix"]
    oracle = getattr(scheduler, cls)(
        optimizer, **{"t_initial": T - W * prefix, "t_in_epochs": False, **warm, **theirs}
    )
    expected = []
    for step in range(T):
        expected.append(optimizer.param_groups[0]["lr"])
        oracle.step_update(step + 1)
    schedule = SCHEDULES[name](
        LR, T, warmup=W, warmup_start_lr=0.02, warmup_prefix=prefix, **params
    )
    assert [schedule(step) for step in range(T)] == pytest.approx(expected, rel=1e-12)
