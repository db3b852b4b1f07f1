"""A range test inside a plain loop: as LRFinder's, and nothing is left behind."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lrexp
from lrexp.integrations.attach import Attached, RisingLr


def batches(count: int = 40, size: int = 16) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(count, size, 8, generator=g)
    return [(one, one.sum(1, keepdim=True)) for one in x]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 1))


def loop(test: Attached, model: nn.Module, optimizer: Any, data: Any, micro: int = 1) -> None:
    test.begin()
    for number, (x, y) in enumerate(data):
        loss = nn.functional.mse_loss(model(x), y)
        test.observe(loss)
        (loss / micro).backward()
        if number % micro == micro - 1:
            optimizer.step()
            optimizer.zero_grad()
        if test.is_over:
            break


def all_of(model: nn.Module, *others: Any) -> list[Any]:
    """Return copies of all that must not change."""
    return copy.deepcopy(
        [
            dict(model.state_dict()),
            [None if p.grad is None else p.grad for p in model.parameters()],
            [module.training for module in model.modules()],
            [other.state_dict() for other in others],
            torch.get_rng_state(), random.getstate(), np.random.get_state(),  # noqa: NPY002
        ]
    )  # fmt: skip


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, np.ndarray):
        assert (one == other).all()
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


@pytest.mark.parametrize("micro", [1, 2])
def test_the_curve_is_that_of_lr_finder(micro: int) -> None:
    model, data = net(), batches(80)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    given = {"min_lr": 1e-5, "max_lr": 1.0, "steps": 40}
    finder = lrexp.LRFinder(model, optimizer, nn.MSELoss(), accumulate=micro)
    wanted = finder.run(data, seeds=1, **given)
    with lrexp.attach(model, optimizer, **given) as test:
        loop(test, model, optimizer, data, micro)
    (curve,), (expected,) = test.curves, wanted.curves
    assert curve.lr == pytest.approx(expected.lr)
    assert curve.loss == pytest.approx(expected.loss, rel=1e-5)
    assert test.result().suggested_lr == pytest.approx(wanted.suggested_lr, rel=1e-3)


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_everything_is_put_back(in_file: bool, error: Any, tmp_path: Path) -> None:
    model, data = net(), batches()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    for x, y in data[:5]:  # a training that has begun, with gradients left over
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        scheduler.step()
    before = all_of(model, optimizer, scheduler)
    keep = {"cache_dir": tmp_path} if in_file else {}
    try:
        with lrexp.attach(model, optimizer, steps=30, also=[scheduler], **keep) as test:
            loop(test, model.eval(), optimizer, data[:20])
            scheduler.step()
            random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
            if error is not None:
                raise error
    except BaseException as raised:
        assert type(raised) is error  # noqa: PT017
    assert_equal(before, all_of(model, optimizer, scheduler))
    assert list(tmp_path.iterdir()) == []
    optimizer.step()  # no hook is left: an update needs no loss
    assert len(test.curves[0].lr) == 20


def test_ramps_begin_from_the_same_weights_and_are_one_test() -> None:
    model, data = net(), batches()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lrexp.attach(model, optimizer, steps=30) as test:
        for _ in range(2):
            loop(test, model, optimizer, data)
    assert test.curves[0].loss == pytest.approx(test.curves[1].loss)
    assert len(test.result().curves) == 2


def test_groups_keep_their_ratio_and_a_scheduler_has_no_say() -> None:
    model = net()
    groups = [{"params": model[0].parameters()}, {"params": model[3].parameters(), "lr": 0.5}]
    optimizer = torch.optim.SGD(groups, 0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
    used = []
    with lrexp.attach(model, optimizer, min_lr=1e-4, max_lr=1e-2, steps=5) as test:
        optimizer.register_step_pre_hook(
            lambda own, *_: used.append([group["lr"] for group in own.param_groups])
        )
        test.begin()
        for x, y in batches(5):
            loss = nn.functional.mse_loss(model(x), y)
            test.observe(loss)
            loss.backward()
            optimizer.step()
            scheduler.step()
    lrs = [1e-4 * 100 ** (i / 4) for i in range(5)]
    assert np.array(used) == pytest.approx(np.array([[lr, 5 * lr] for lr in lrs]))


def test_a_step_that_a_scaler_skips_does_not_count() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with lrexp.attach(model, optimizer, steps=10, also=[scaler]) as test:
        test.begin()
        for number, (x, y) in enumerate(batches(6)):
            loss = nn.functional.mse_loss(model(x), y)
            test.observe(loss)
            scaler.scale(loss).backward()
            if number == 2:
                model[0].weight.grad[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert len(test.curves[0].lr) == 5
    assert scaler.get_scale() == 2.0**10


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda test, optimizer: optimizer.step(), "saw no loss before an update"),
        (lambda test, optimizer: test.result(), "has seen no updates"),
    ],
)
def test_what_is_used_wrongly_is_told(use: Any, words: str) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with lrexp.attach(model, optimizer) as test:
        test.begin()
        with pytest.raises(lrexp.ConfigError, match=words):
            use(test, optimizer)


def test_no_ramp_is_refused_before_anything_is_touched() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(lrexp.ConfigError, match="min_lr: must be below max_lr"):
        lrexp.attach(model, optimizer, min_lr=1, max_lr=0.1).__enter__()
    optimizer.step()


def test_nan_ends_a_ramp() -> None:
    rising = RisingLr(1e-3, 1.0, 10)
    rising.observe(1.0)
    rising.observe(float("nan"))
    assert rising.is_over
