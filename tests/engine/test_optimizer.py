"""Optimizers, their groups and their kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lrexp.engine.device import pick_device
from lrexp.engine.rng import preserved_rng, seed_everything
from lrexp.errors import ConfigError
from lrexp.workloads.optimizers import fuse, has_momentum, make_optimizer, set_lr


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def test_groups_take_the_first_pattern_that_matches_and_the_rest_the_base_lr() -> None:
    model = net()
    groups = [{"match": "2\\.bias", "lr_scale": 5.0}, {"match": "2\\.", "lr_scale": 10.0}]
    optimizer = make_optimizer(torch.optim.Adam, model, lr=0.1, args={}, groups=groups)
    names = {id(p): n for n, p in model.named_parameters()}
    found = [(g["lr"], [names[id(p)] for p in g["params"]]) for g in optimizer.param_groups]
    assert found == [(0.1, ["0.weight", "0.bias"]), (0.5, ["2.bias"]), (1.0, ["2.weight"])]


def test_frozen_parameters_are_left_out() -> None:
    model = net()
    model[0].requires_grad_(False)  # type: ignore[index]
    optimizer = make_optimizer(torch.optim.SGD, model, lr=0.1, args={})
    assert len(optimizer.param_groups[0]["params"]) == 2


@pytest.mark.parametrize(
    ("cls", "args", "groups", "key", "message"),
    [
        (torch.optim.SGD, {}, [{"match": "head", "lr_scale": 2.0}], "groups[0].match", "0.weight"),
        (torch.optim.SGD, {"momentum": -1}, [], "args", "momentum"),
        (torch.optim.SGD, {"nesterov": True}, [], "args", "Nesterov"),
        (torch.optim.Adam, {"betas": [2, 3]}, [], "args", "beta"),
    ],
)
def test_refused_arguments(cls, args, groups, key, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as raised:
        make_optimizer(cls, net(), lr=0.1, args=args, groups=groups)
    assert raised.value.problems[0].key == key
    assert message in str(raised.value)


def test_the_fused_kernel_is_used_unless_another_is_asked_for() -> None:
    assert make_optimizer(torch.optim.SGD, net(), lr=1, args={}).param_groups[0]["fused"] is True
    chosen = make_optimizer(torch.optim.SGD, net(), lr=1, args={"foreach": True})
    assert chosen.defaults["foreach"] is True
    assert not chosen.param_groups[0]["fused"]


def test_a_learning_rate_is_set_as_a_number_or_into_the_tensor_that_holds_it() -> None:
    model = net()
    optimizer = make_optimizer(
        torch.optim.SGD, model, lr=0.5, args={}, groups=[{"match": "2", "lr_scale": 2.0}]
    )
    set_lr(optimizer, [0.5, 1.0], 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.25]
    tensors = [torch.tensor(0.0), torch.tensor(0.0)]
    for group, tensor in zip(optimizer.param_groups, tensors, strict=True):
        group["lr"] = tensor
    set_lr(optimizer, [0.5, 1.0], 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]
    assert all(g["lr"] is t for g, t in zip(optimizer.param_groups, tensors, strict=True))


def test_which_optimizers_have_a_momentum_to_cycle() -> None:
    assert has_momentum(torch.optim.SGD)
    assert has_momentum(torch.optim.AdamW)
    assert not has_momentum(torch.optim.Adagrad)


def test_generators_are_given_back_as_they_were_even_after_an_exception() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), preserved_rng(torch.device("cpu")):
        seed_everything(5)
        torch.rand(3)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_an_error_that_says_so() -> None:
    assert pick_device("auto").type in ("cpu", "mps")
    with pytest.raises(ConfigError, match="device: torch sees no CUDA device"):
        pick_device("cuda")


@pytest.mark.parametrize(
    ("make", "is_fused"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), True),
        (lambda p: torch.optim.AdamW(p, lr=0.1), True),
        (lambda p: torch.optim.SGD(p, lr=0.1, foreach=True), False),
        (lambda p: torch.optim.RMSprop(p, lr=0.1), False),
        (lambda p: torch.optim.Adagrad(p, lr=0.1), True),  # though it has a state from the start
    ],
)
def test_an_optimizer_made_elsewhere_is_fused_where_nothing_forbids_it(
    make: Any, is_fused: bool
) -> None:
    model, other = nn.Linear(3, 1), nn.Linear(3, 1)
    other.load_state_dict(model.state_dict())
    fused, plain = make(model.parameters()), make(other.parameters())
    fuse(fused)
    assert bool(fused.param_groups[0].get("fused")) == is_fused
    for _ in range(3):
        for module, optimizer in ((model, fused), (other, plain)):
            optimizer.zero_grad()
            module(torch.ones(2, 3)).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(model.weight, other.weight)
