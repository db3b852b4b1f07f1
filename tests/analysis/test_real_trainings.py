"""Real range tests are answered, and their answer trains about as well as the best of a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from lrexp.analysis.range_curve import Curve
from lrexp.analysis.stopping import RangeTestStop, ramp
from lrexp.analysis.suggest import Suggestion, suggest

STEPS = 120  # of a training
GRID = 10.0 ** np.arange(-4.5, 1.0, 0.5)


@dataclass(frozen=True)
class Workload:
    """A small problem: data, model, loss and optimizer."""

    data: Callable[[], tuple[Tensor, Tensor]]
    sizes: tuple[int, ...]
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[..., torch.optim.Optimizer]

    def model(self, seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        return nn.Sequential(*layers[:-1])


def standardised(values: np.ndarray) -> Tensor:
    scaled = (values - values.mean(0)) / (values.std(0) + 1e-8)
    return torch.tensor(scaled, dtype=torch.float32)


@cache
def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


@cache
def diabetes() -> tuple[Tensor, Tensor]:
    data = load_diabetes()
    return standardised(data.data), standardised(data.target)[:, None]


@cache
def breast_cancer() -> tuple[Tensor, Tensor]:
    data = load_breast_cancer()
    return standardised(data.data), torch.tensor(data.target)


def momentum(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)


DIGITS = (64, 64, 10)
WORKLOADS = {
    "digits, SGD": Workload(digits, DIGITS, cross_entropy, momentum),
    "digits, Adam": Workload(digits, DIGITS, cross_entropy, torch.optim.Adam),
    "digits, AdamW": Workload(digits, (64, 64, 64, 10), cross_entropy, torch.optim.AdamW),
    "diabetes, SGD": Workload(diabetes, (10, 32, 1), mse_loss, momentum),
    "diabetes, Adam": Workload(diabetes, (10, 32, 1), mse_loss, torch.optim.Adam),
    "breast_cancer, SGD": Workload(breast_cancer, (30, 32, 2), cross_entropy, momentum),
    "breast_cancer, AdamW": Workload(breast_cancer, (30, 32, 2), cross_entropy, torch.optim.AdamW),
}


def losses(work: Workload, seed: int, lrs: Iterator[float], model: nn.Module) -> Iterator[float]:
    x, y = work.data()
    optimizer = work.optimizer(model.parameters())
    order = torch.Generator().manual_seed(seed)
    train = torch.arange(len(x)) % 5 != 0
    x, y = x[train], y[train]
    for lr in lrs:
        batch = torch.randint(len(x), (32,), generator=order)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = work.loss(model(x[batch]), y[batch])
        yield loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def held_out(work: Workload, model: nn.Module) -> float:
    x, y = work.data()
    rest = torch.arange(len(x)) % 5 == 0
    with torch.no_grad():
        value = work.loss(model(x[rest]), y[rest]).item()
    return value if math.isfinite(value) else math.inf


def range_test(work: Workload, seed: int, steps: int = 100) -> Curve:
    schedule, rule = ramp(1e-7, 10.0, steps), RangeTestStop(4.0, floor=0.0)
    state, lrs, values = rule.init(), [], []
    rates = [schedule(step) for step in range(steps)]
    for lr, loss in zip(rates, losses(work, seed, iter(rates), work.model(seed)), strict=False):
        lrs.append(lr)
        values.append(loss)
        state, stop = rule.update(state, loss)
        if stop:
            break
    return Curve(lrs, values)


@cache
def suggestion(name: str) -> Suggestion:
    return suggest([range_test(WORKLOADS[name], seed) for seed in range(3)])


def trained(work: Workload, lr: float, seed: int = 100) -> float:
    model = work.model(seed)
    for loss in losses(work, seed, iter([lr] * STEPS), model):
        if not math.isfinite(loss):
            return math.inf
    return held_out(work, model)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_suggestion_trains_about_as_well_as_the_best_of_a_grid(name: str) -> None:
    work, found = WORKLOADS[name], suggestion(name)
    assert found.reason is None
    assert found.suggested_lr is not None
    untrained = held_out(work, work.model(100))
    best = min(min(trained(work, float(lr)), untrained) for lr in GRID)
    regret = (trained(work, found.suggested_lr) - best) / (untrained - best)
    assert regret < 0.2


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_ends_of_the_cycle_are_ordered_and_the_peak_does_not_explode(name: str) -> None:
    found = suggestion(name)
    assert found.base_lr is not None
    assert found.max_lr is not None
    assert found.suggested_lr is not None
    assert found.base_lr <= found.suggested_lr <= found.max_lr
    work = WORKLOADS[name]
    assert trained(work, found.max_lr) < held_out(work, work.model(100))


def test_permuted_targets_of_a_frozen_model_give_no_suggestion() -> None:
    # nothing can be learned when no parameter moves: the noise of the batches is all there is
    work = Workload(digits, DIGITS, cross_entropy, momentum)

    def frozen(seed: int) -> Curve:
        schedule = ramp(1e-7, 10.0, 100)
        model, (x, y) = work.model(seed), work.data()
        order = torch.Generator().manual_seed(seed)
        values = []
        for _ in range(100):
            batch = torch.randint(len(x), (32,), generator=order)
            values.append(cross_entropy(model(x[batch]), y[batch]).item())
        return Curve([schedule(step) for step in range(100)], values)

    found = suggest([frozen(seed) for seed in range(3)])
    assert found.suggested_lr is None
    assert "stayed flat" in str(found.reason)
