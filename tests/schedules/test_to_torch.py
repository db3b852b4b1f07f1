"""A schedule as a torch scheduler, stepped as a training loop steps it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import lrexp
from lrexp.errors import ConfigError
from lrexp.schedules.build import SCHEDULES

N = 12


def _optimizer(cls: Any = torch.optim.SGD, lrs: tuple[float, ...] = (0.1, 0.4), **args: Any) -> Any:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in lrs]
    return cls(groups, **args)


def _trained(optimizer: Any, scheduler: Any, num_steps: int) -> list[list[float]]:
    """Return the LRs that each update used."""
    used = []
    for _ in range(num_steps):
        used.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return used


SHAPES = {"cosine": {"warmup": 3}, "one_cycle": {}, "step": {"size": 2}, "power": {"warmup": 2}}


@pytest.mark.parametrize("name", SHAPES)
def test_every_group_gets_its_share(name: str) -> None:
    schedule = SCHEDULES[name](0.4, N, **SHAPES[name])
    optimizer = _optimizer(momentum=0.9)
    used = _trained(optimizer, schedule.to_torch(optimizer), N + 3)
    expected = [[schedule(step) / 4, schedule(step)] for step in range(N + 3)]
    assert used == [pytest.approx(row, rel=1e-12) for row in expected]


def test_the_momentum_cycles_too() -> None:
    schedule = SCHEDULES["one_cycle"](0.4, N)
    for cls, args in ((torch.optim.SGD, {"momentum": 0.5}), (torch.optim.AdamW, {})):
        optimizer = _optimizer(cls, **args)
        scheduler = schedule.to_torch(optimizer)
        for step in range(N):
            group = optimizer.param_groups[1]
            momentum = group["betas"][0] if "betas" in group else group["momentum"]
            assert momentum == schedule.momentum(step)
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize("order", ["made before", "made after"])
def test_a_resumed_loop_sees_the_same_lrs(order: str) -> None:
    """Whether the scheduler is made before or after the optimizer is loaded."""
    schedule = lrexp.get_lr_scheduler(max_lr=0.4, max_steps=N, warmup_steps=4, warmup_start_lr=0.01)
    whole = _optimizer(momentum=0.9)
    expected = _trained(whole, schedule.to_torch(whole), N)

    first = _optimizer(momentum=0.9)
    scheduler = schedule.to_torch(first)
    assert _trained(first, scheduler, 5) == expected[:5]
    saved, state = first.state_dict(), json.loads(json.dumps(scheduler.state_dict()))
    second = _optimizer(momentum=0.9)
    if order == "made before":
        scheduler = schedule.to_torch(second)
    second.load_state_dict(saved)
    if order == "made after":
        scheduler = schedule.to_torch(second)
    scheduler.load_state_dict(state)
    assert scheduler.get_last_lr() == expected[5]
    assert _trained(second, scheduler, N - 5) == expected[5:]


def test_a_group_at_the_optimizers_lr_is_at_the_base_lr() -> None:
    """As in a config, whose `lr_scale: 10` gives a group ten times the schedule's LR."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], **lr} for lr in ({}, {"lr": 0.4})]
    optimizer = torch.optim.SGD(groups, lr=0.04)
    schedule = SCHEDULES["cosine"](0.04, N)
    expected = [pytest.approx([schedule(step), 10 * schedule(step)]) for step in range(N)]
    assert _trained(optimizer, schedule.to_torch(optimizer), N) == expected


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no momentum in Adagrad, and the schedule cycles it"):
        SCHEDULES["one_cycle"](0.4, N).to_torch(_optimizer(torch.optim.Adagrad))
    schedule = SCHEDULES["cosine"](0.4, N)
    with pytest.raises(ConfigError, match="must have a group with an LR above 0"):
        schedule.to_torch(_optimizer(lrs=(0.0,)))
    state = schedule.to_torch(_optimizer()).state_dict()
    with pytest.raises(ConfigError, match="param_groups: must be 2 as when saved"):
        schedule.to_torch(_optimizer(lrs=(0.1,))).load_state_dict(state)


def test_an_lr_that_is_a_tensor_stays_the_same_tensor() -> None:
    lr = torch.tensor(0.4)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=lr)
    _trained(optimizer, SCHEDULES["linear"](0.4, 4).to_torch(optimizer), 2)
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == pytest.approx(0.2)
