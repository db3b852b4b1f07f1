"""Trainings whose batches are no pairs: as a loop by hand has them, with every engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

import lrexp
from lrexp.workloads.seeds import permutation

N = 96
STEPS = 8  # 6 make an epoch
G = torch.Generator().manual_seed(0)
A, B = torch.randn(N, 3, generator=G), torch.randn(N, 2, generator=G)
CLASS = (A[:, 0] + B[:, 0] > 0).long()
NUMBER = A.sum(1, keepdim=True)
WEIGHT = torch.rand(N, 1, generator=G)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.layer(torch.cat([a, b], -1))


class WithLoss(TwoInputs):
    """As those of Hugging Face."""

    def forward(self, a: Tensor, b: Tensor, labels: Tensor | None = None) -> Any:
        logits = super().forward(a, b)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def weighted(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return ((output - target) ** 2 * weight).mean()


# data | model | loss | (model, batch) -> loss, by hand
CASES: dict[str, tuple[Any, Any, Any, Callable[[nn.Module, Any], Tensor]]] = {
    "two inputs": (
        (A, B, CLASS), TwoInputs, functional.cross_entropy,
        lambda m, batch: functional.cross_entropy(m(batch[0], batch[1]), batch[2]),
    ),
    "sample weights": (
        (A, NUMBER, WEIGHT), lambda: nn.Linear(3, 1), weighted,
        lambda m, batch: weighted(m(batch[0]), batch[1], batch[2]),
    ),
    "a dict": (
        {"a": A, "b": B, "labels": CLASS}, TwoInputs, functional.cross_entropy,
        lambda m, batch: functional.cross_entropy(m(batch["a"], batch["b"]), batch["labels"]),
    ),
    "nested": (
        ({"a": A, "b": B}, CLASS), TwoInputs, functional.cross_entropy,
        lambda m, batch: functional.cross_entropy(m(**batch[0]), batch[1]),
    ),
    "a model with its loss": (
        {"a": A, "b": B, "labels": CLASS}, WithLoss, None,
        lambda m, batch: m(**batch)["loss"],
    ),
    "an autoencoder": (
        (A,), lambda: nn.Linear(3, 3), functional.mse_loss,
        lambda m, batch: functional.mse_loss(m(batch[0]), batch[0]),
    ),
}  # fmt: skip
CONFIG = {
    "optimizer": {"name": "SGD", "lr": 0.1},
    "data": {"batch_size": 16},
    "train": {"duration": STEPS, "eval_every": 4},
    "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.02}}},
}


def rows(data: Any, index: Tensor) -> Any:
    if isinstance(data, dict):
        return {key: rows(value, index) for key, value in data.items()}
    return tuple(rows(v, index) for v in data) if isinstance(data, tuple) else data[index]


@pytest.mark.parametrize(
    ("name", "engine", "in_memory"),
    [  # by default half of the product, in which every two of the three occur together
        pytest.param(name, engine, bool(k), marks=() if (i + j + k) % 2 else pytest.mark.long)
        for i, name in enumerate(CASES)
        for j, engine in enumerate(("sequential", "vectorized"))
        for k in range(2)
    ],
)
def test_training_is_that_of_a_loop_by_hand(
    name: str, engine: str, in_memory: bool, tmp_path: Path
) -> None:
    data, make_model, loss, by_hand = CASES[name]
    config = CONFIG | {"engine": engine, "data": {"batch_size": 16, "in_memory": in_memory}}
    seen: list[nn.Module] = []

    def make() -> nn.Module:
        seen.append(make_model())
        return seen[-1]

    run = lrexp.compare(config, model=make, data=(data, data), loss=loss, runs_dir=tmp_path)
    assert engine_of(run) == engine
    initial = seen[0].state_dict()
    for trial, lr in zip(run.trials, (0.1, 0.02), strict=True):
        model = make_model()
        model.load_state_dict(initial)
        optimizer = torch.optim.SGD(model.parameters(), lr)
        order = torch.cat([permutation(0, epoch, N) for epoch in range(2)])
        losses = []
        for batch_rows in order.split(16)[:STEPS]:
            step_loss = by_hand(model, rows(data, batch_rows))
            losses.append(step_loss.item())
            optimizer.zero_grad()
            step_loss.backward()
            optimizer.step()
        np.testing.assert_allclose(trial.steps["loss"], losses, rtol=1e-5)
        whole = by_hand(model, data).item()
        assert trial.evals["val_loss"][-1] == pytest.approx(whole, rel=1e-5)


def engine_of(run: lrexp.Run) -> str:
    (stage,) = json.loads((run.path / "engine.json").read_text())["stages"]
    (engine,) = {unit["engine"] for unit in stage["units"]}
    return engine


@pytest.mark.parametrize("name", CASES)
def test_a_range_test(name: str, tmp_path: Path) -> None:
    data, make_model, loss, _ = CASES[name]
    config = {
        "optimizer": {"name": "SGD", "lr": 0.1},
        "find_lr": {"budget": 0, "seeds": 1, "steps": 20},
        "data": {"batch_size": 16},
    }
    given = {"model": make_model, "data": (data, data), "loss": loss, "runs_dir": tmp_path}
    found = lrexp.find_lr(config, **given)
    assert len(found.curves[0].loss) >= 10
    model = make_model()
    finder = lrexp.LRFinder(model, torch.optim.SGD(model.parameters(), 0.1), loss)
    assert len(finder.run(data, steps=20, seeds=1).curves[0].loss) >= 10


def test_batches_of_unequal_size_count_by_their_samples(tmp_path: Path) -> None:
    dataset = list(zip(A, NUMBER, strict=True))
    sizes = [[*range(20)], [*range(20, 25)], [*range(25, 96)]]
    loader = DataLoader(dataset, batch_sampler=sizes)
    run = lrexp.compare(
        CONFIG | {"data": {}, "train": {"duration": "1ep", "eval_every": "1ep"}},
        model=lambda: nn.Linear(3, 1), data=(loader, loader), loss=functional.mse_loss,
        runs_dir=tmp_path,
    )  # fmt: skip
    trial = run.trials[0]
    assert len(trial.steps["loss"]) == 3
    first = trial.evals["val_loss"][0]
    whole = lrexp.compare(
        CONFIG | {"data": {"batch_size": 96}, "train": {"duration": 1, "eval_every": 1}},
        model=lambda: nn.Linear(3, 1), data=((A, NUMBER), (A, NUMBER)), loss=functional.mse_loss,
        runs_dir=tmp_path,
    ).trials[0]  # fmt: skip
    assert first == pytest.approx(whole.evals["val_loss"][0], rel=1e-6)
