"""`AdaptiveCycleLR`: the adaptive cycle around a real optimizer, in a loop of one's own."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from lrexp.errors import ConfigError
from lrexp.schedules.build import SCHEDULES
from lrexp.schedules.public import AdaptiveCycleLR


def sgd(*lrs: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9)


def test_construction_sets_the_lr_and_nothing_else() -> None:
    optimizer = sgd(0.1, 0.01)
    optimizer.param_groups[0]["momentum"] = 0.5
    before = [{k: v for k, v in g.items() if k != "lr"} for g in optimizer.param_groups]
    step_method, state = optimizer.step, dict(optimizer.state)
    adaptive = AdaptiveCycleLR(optimizer, base_lr=0.2, max_lr=0.4)
    assert [{k: v for k, v in g.items() if k != "lr"} for g in optimizer.param_groups] == before
    assert optimizer.step == step_method
    assert dict(optimizer.state) == state
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.3, 0.03])
    assert adaptive.get_last_lr() == [g["lr"] for g in optimizer.param_groups]


@pytest.mark.parametrize("lrs", [(0.1, 0.01), (0.01, 0.1), (0.5,), (0.1, 0.0, 0.1)])
def test_groups_keep_their_ratios_and_none_exceeds_the_bound(lrs: tuple[float, ...]) -> None:
    optimizer, rng = sgd(*lrs), random.Random(1)
    adaptive = AdaptiveCycleLR(optimizer, 0.1, 1.0, window_size=6, patience=20, smoothing=0.3)
    for _ in range(200):
        info = adaptive.step(rng.random())
        now = [g["lr"] for g in optimizer.param_groups]
        assert max(now) == info["lr"] <= 1.0
        assert [x / max(now) for x in now] == pytest.approx([x / max(lrs) for x in lrs])


def test_step_tells_what_it_did() -> None:
    optimizer = sgd(1.0)
    adaptive = AdaptiveCycleLR(optimizer, window_size=4)
    info = adaptive.step(torch.tensor(2.0))
    assert info == {
        "lr": optimizer.param_groups[0]["lr"],
        "phase": "explore",
        "improvement": 0.0,
        "best_loss": 2.0,
        "steps_since_best": 0,
    }
    for loss in (1.0, 1.0, 1.0):
        info = adaptive.step(loss)
    assert info["phase"] == "exploit"
    assert info["improvement"] == pytest.approx(1 / 3)
    assert adaptive.step(math.nan)["phase"] == "escape"


@pytest.mark.parametrize(
    "loss",
    [
        torch.tensor(2.0, requires_grad=True),
        torch.tensor([2.0], requires_grad=True),
        torch.tensor(2.0, dtype=torch.bfloat16),
        np.float32(2.0),
        np.array(2.0),
        2,
    ],
)
def test_a_loss_may_be_a_tensor(loss: Any) -> None:
    assert AdaptiveCycleLR(sgd(1.0)).step(loss)["best_loss"] == 2.0


def test_it_is_the_controller_of_the_configs() -> None:
    """The LR set after k losses is the one the controller uses for update k: no step is lost."""
    rng, optimizer = random.Random(2), sgd(1.0)
    losses = [rng.random() for _ in range(100)]
    adaptive = AdaptiveCycleLR(optimizer, base_lr=0.1, max_lr=1.0, window_size=10, patience=50)
    params = {"window_size": 10, "patience": 50}
    control, used = SCHEDULES["adaptive_cycle"](1.0, 1000, **params), []
    state = control.init()
    for step, loss in enumerate(losses):
        used.append(optimizer.param_groups[0]["lr"])
        assert used[-1] == control.lr(state, step)
        state = control.observe(state, step, loss)
        adaptive.step(loss)


@pytest.mark.parametrize("split", [0, 5, 40])
def test_a_resumed_one_continues_exactly(split: int) -> None:
    rng = random.Random(3)
    losses = [rng.choice([rng.random(), math.nan]) for _ in range(80)]
    settings_: dict[str, Any] = {"window_size": 6, "patience": 20, "seed": 7}
    optimizer = sgd(0.1, 0.3)
    adaptive = AdaptiveCycleLR(optimizer, **settings_)
    for loss in losses[:split]:
        adaptive.step(loss)
    saved = json.loads(json.dumps(adaptive.state_dict(), allow_nan=False))
    optimizer_state = optimizer.state_dict()
    expected = [
        (adaptive.step(x), [g["lr"] for g in optimizer.param_groups]) for x in losses[split:]
    ]

    other = sgd(5.0, 5.0)
    other.load_state_dict(optimizer_state)
    resumed = AdaptiveCycleLR(other)  # other settings: the saved ones come back
    resumed.load_state_dict(saved)
    assert [g["lr"] for g in other.param_groups] == [
        g["lr"] for g in optimizer_state["param_groups"]
    ]
    assert [
        (resumed.step(x), [g["lr"] for g in other.param_groups]) for x in losses[split:]
    ] == expected


def test_a_tensor_lr_stays_the_same_tensor() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(0.1))
    lr = optimizer.param_groups[0]["lr"]
    AdaptiveCycleLR(optimizer, base_lr=0.25, max_lr=0.75)
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == 0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"base_lr": 2.0, "max_lr": 1.0}, r"base_lr: must be at most max_lr \(1\)"),
        ({"max_lr": -1.0}, "max_lr: must be a positive number"),
        ({"base_lr": math.nan}, "base_lr: must be a positive number"),
        ({"window_size": 1}, "window_size: must be a whole number of at least 2"),
        ({"window_size": 2.5}, "window_size: must be a whole number"),
        ({"patience": 0}, "patience: must be a whole number of at least 1"),
        ({"smoothing": 1.0}, r"smoothing: must be a number in \[0, 1\)"),
        ({"escape_multiplier": 0.5}, "escape_multiplier: must be a number of at least 1"),
        (
            {"plateau_threshold": 0.1},
            r"plateau_threshold: must be at most improvement_threshold \(0.01\)",
        ),
        ({"improvement_threshold": True}, "improvement_threshold: must be a positive number"),
        ({"seed": -1}, "seed: must be a whole number of at least 0"),
    ],
)
def test_bad_settings(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdaptiveCycleLR(sgd(0.1), **params)


def test_an_optimizer_it_cannot_scale() -> None:
    with pytest.raises(ConfigError, match="optimizer: must have a group with an LR above 0"):
        AdaptiveCycleLR(sgd(0.0))
    saved = AdaptiveCycleLR(sgd(0.1)).state_dict()
    with pytest.raises(ConfigError, match="param_groups: must be 1 as when saved"):
        AdaptiveCycleLR(sgd(0.1, 0.1)).load_state_dict(saved)
