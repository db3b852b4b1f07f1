"""A loss that pairs each output with each target is noticed on whatever batch it does so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import lrexp
from lrexp.workloads.broadcasts import pairs_all

X = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
FLAT, COLUMN = X.sum(1), X.sum(1, keepdim=True)
PAIRS = r"pairs each output with each target, because their shapes differ \(got"


def own(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


def ranks(output: Tensor, target: Tensor) -> Tensor:
    """Pairs targets with targets, as it means to."""
    order = (target.flatten()[:, None] > target.flatten()).float()
    return (order * (output.flatten() - output.flatten()[:, None])).relu().mean()


def by_columns(output: Tensor, target: Tensor) -> Tensor:
    return own(output.squeeze(-1), target)


# loss, shape of the output, shape of the target, whether it pairs them all
SHAPES: list[tuple[Callable[..., Tensor], tuple[int, ...], tuple[int, ...], bool]] = [
    (own, (4, 1), (4,), True),
    (own, (4,), (4, 1), True),
    (own, (1, 1), (1,), True),  # one sample hides it
    (own, (4, 2), (4, 2), False),
    (by_columns, (4, 1), (4,), False),
    (by_columns, (4,), (4,), False),
    (ranks, (4, 1), (4,), False),
    (nn.functional.huber_loss, (4, 1), (4,), True),
]


@pytest.mark.parametrize(("loss", "output", "target", "expected"), SHAPES)
def test_made_up_numbers_tell(
    loss: Callable[..., Tensor], output: tuple[int, ...], target: tuple[int, ...], expected: bool
) -> None:
    zeros = torch.zeros(output), torch.zeros(target)  # of a batch that hides it
    assert pairs_all(loss, *zeros) == expected


class Zero(nn.Linear):
    """Begins with outputs that are all alike: the mean of all pairs is then that of the rows."""

    def __init__(self) -> None:
        super().__init__(4, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class Odd(IterableDataset):
    """Batches of a column, but for the last one of an epoch."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from [(X[:16], COLUMN[:16]), (X[16:32], COLUMN[16:32]), (X[32:37], FLAT[32:37])]


ODD = DataLoader(Odd(), None)
RIGHT = DataLoader(TensorDataset(X, COLUMN), 16)
FLAT_SET = (X, FLAT)
# model, training data, validation data, batch size
DATA: dict[str, tuple[Callable[[], nn.Module], Any, Any, int]] = {
    "all": (lambda: nn.Linear(4, 1), FLAT_SET, FLAT_SET, 16),
    "outputs alike": (Zero, FLAT_SET, FLAT_SET, 16),
    "batches of one": (lambda: nn.Linear(4, 1), FLAT_SET, FLAT_SET, 1),
    "the last batch": (lambda: nn.Linear(4, 1), ODD, RIGHT, 16),
    "validation": (lambda: nn.Linear(4, 1), RIGHT, ODD, 16),
}


@pytest.mark.parametrize("loss", [own, nn.functional.mse_loss])
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize("case", ["the last batch", "validation"])
def test_a_comparison_notices_a_later_batch(
    case: str, engine: str, loss: Callable[..., Tensor], tmp_path: Path
) -> None:
    model, train, val, _ = DATA[case]
    config = {
        "device": "cpu",
        "engine": engine,
        "optimizer": {"name": "SGD", "lr": 0.01},
        "train": {"duration": "6st", "eval_every": "3st"},
        "compare": {"variants": {"a": {}, "b": {"optimizer.lr": 0.1}}},
    }
    with pytest.raises(lrexp.LrexpError, match=PAIRS):
        lrexp.compare(
            config, model=model, data=(train, val), loss=loss, out=tmp_path / "run", draw=None
        )


@pytest.mark.parametrize("case", ["all", "outputs alike", "batches of one"])
def test_a_config_is_refused_before_training(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def own(output, target): return ((output - target) ** 2).mean()")
    model, train, val, size = DATA[case]
    config = {
        "device": "cpu",
        "loss": "mine:own",
        "data": {"batch_size": size},
        "optimizer": {"name": "SGD", "lr": 0.01},
        "train": {"duration": "6st"},
    }
    with pytest.raises(lrexp.LrexpError, match=f"loss: own {PAIRS}"):
        lrexp.compare(config, model=model, data=(train, val), out="run", draw=None)
    assert not Path("run").exists()


@pytest.mark.parametrize("case", DATA)
def test_the_finder_notices_it(case: str) -> None:
    make, train, val, size = DATA[case]
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loader = DataLoader(TensorDataset(*train), size) if isinstance(train, tuple) else train
    with pytest.raises(lrexp.LrexpError, match=PAIRS):
        lrexp.LRFinder(model, optimizer, own).run(loader, val, steps=6, seeds=1)


def test_a_last_batch_of_one_sample_is_no_broadcast() -> None:
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    finder = lrexp.LRFinder(model, optimizer, own)
    assert finder.run(DataLoader(TensorDataset(X[:33], FLAT[:33]), 16), steps=20, seeds=1).curves
