"""What `LRFinder` takes besides a loss: each as the loop that a user would write by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import lrexp
from lrexp.workloads.seeds import permutation

G = torch.Generator().manual_seed(0)
X = torch.randn(128, 5, generator=G)
Y = X.sum(1, keepdim=True).tanh()
RAMP = {"min_lr": 1e-4, "max_lr": 1.0, "steps": 16, "seeds": 1}
LRS = np.geomspace(1e-4, 1.0, 16)
BATCH = 32


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))


def mse(model: nn.Module, batch: Any) -> Tensor:
    return functional.mse_loss(model(batch[0]), batch[1])


def finder(loss_fn: Any = functional.mse_loss, **options: Any) -> lrexp.LRFinder:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    return lrexp.LRFinder(model, optimizer, loss_fn, **options)


def batches() -> list[tuple[Tensor, Tensor]]:
    rows = torch.cat([permutation(0, epoch, len(X)) for epoch in range(16)])
    return [(X[part], Y[part]) for part in rows.split(BATCH)]


def by_hand(
    update: Callable[[nn.Module, Any, list[Any]], float], accumulate: int = 1
) -> list[float]:
    """Return what `update` gives at each LR of the ramp."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    given, found = iter(batches()), []
    for lr in LRS:
        optimizer.param_groups[0]["lr"] = float(lr)
        optimizer.zero_grad()
        found.append(update(model, optimizer, [next(given) for _ in range(accumulate)]))
    return found


def curve(found: lrexp.RangeTest) -> list[float]:
    np.testing.assert_allclose(found.curves[0].lr, LRS[: len(found.curves[0].lr)])
    return list(found.curves[0].loss)


def run(which: lrexp.LRFinder, **options: Any) -> list[float]:
    data = TensorDataset(X, Y)
    return curve(
        which.run(DataLoader(data, BATCH, shuffle=True, drop_last=True), **RAMP, **options)
    )


def test_a_step_is_a_loss_of_the_model_and_the_batch() -> None:
    assert run(finder(None, step=mse)) == run(finder())
    assert run(finder(None, step=lambda m, b: {"loss": mse(m, b), "other": 1})) == run(finder())


def test_accumulation_and_clipping() -> None:
    def update(model: nn.Module, optimizer: Any, micro_batches: list[Any]) -> float:
        loss = sum(mse(model, batch) for batch in micro_batches) / 2
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        return loss.item()

    found = run(finder(accumulate=2, grad_clip=0.1))
    np.testing.assert_allclose(found, by_hand(update, 2)[: len(found)], rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    def update(model: nn.Module, optimizer: Any, micro_batches: list[Any]) -> float:
        with torch.autocast("cpu", dtype):
            loss = mse(model, micro_batches[0])
        loss.backward()
        optimizer.step()
        return loss.item()

    found = run(finder(autocast=dtype))
    np.testing.assert_allclose(found, by_hand(update)[: len(found)], rtol=1e-5)


def test_a_batch_that_float16_cannot_hold_is_named() -> None:
    x = X.clone()
    x[70, 0] = 1e6  # above 65504; bfloat16 holds it
    found = finder(autocast=torch.float16).run(DataLoader(TensorDataset(x, Y), BATCH), **RAMP)
    assert "Batch 2 of epoch 0 has a finite loss and no finite gradient" in str(found.reason)


def test_a_scaler_and_a_step_that_it_skips() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # too much for float16

    def update(model: nn.Module, optimizer: Any, micro_batches: list[Any]) -> float:
        while True:  # until it takes the step
            with torch.autocast("cpu", torch.float16):
                loss = mse(model, micro_batches[0])
            own.scale(loss).backward()
            own.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            before = own.get_scale()
            own.step(optimizer)
            own.update()
            optimizer.zero_grad()
            if own.get_scale() >= before:
                return loss.item()

    own = copy.deepcopy(scaler)
    found = run(finder(autocast=torch.float16, scaler=scaler, grad_clip=0.5))
    np.testing.assert_allclose(found, by_hand(update)[: len(found)], rtol=1e-4)
    assert own.get_scale() < scaler.get_scale() == 2.0**40  # a copy was used


def test_the_loss_of_validation_data() -> None:
    val = X[:40].flip(0), Y[:40].flip(0)

    def update(model: nn.Module, optimizer: Any, micro_batches: list[Any]) -> float:
        mse(model, micro_batches[0]).backward()
        optimizer.step()
        with torch.no_grad():
            return mse(model, val).item()

    found = run(finder(), val_loader=val)
    np.testing.assert_allclose(found, by_hand(update)[: len(found)], rtol=1e-5)


def of_another() -> lrexp.LRFinder:
    return lrexp.LRFinder(net(), torch.optim.SGD(net().parameters(), 0.1), functional.mse_loss)


# how the finder is made and run | what is said
WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: finder(step=mse), "^loss_fn: is not used: the step makes the loss"),
    (lambda: finder(accumulate=0), "^accumulate: must be at least 1"),
    (lambda: finder().run([]), "^train_loader: must give at least one batch"),
    (lambda: finder().run((X[:0], Y[:0])), "^train_loader: must have at least one sample"),
    (lambda: finder().run((X, Y[:7])), "^train_loader: must have as many targets as inputs"),
    (lambda: finder().run(DataLoader([])), "^train_loader: "),
    (lambda: finder().run("text"), "train_loader|the loader"),
    (lambda: finder(lambda o, y: o).run((X, Y)), "^loss_fn: .*must return one"),
    (lambda: finder(None).run((X, Y)), "^loss_fn: is needed: the model returns none"),
    (lambda: finder(None, step=lambda m, b: m(b[0])).run((X, Y)), "^step: must return one number"),
    (lambda: finder().run((X, X, Y)), "^model: cannot be called with"),
    (lambda: finder().run(iter([(X, Y)])), "^train_loader: must give its batches again and again"),
    (lambda: finder().run((X, Y), val_loader=3), "^val_loader: must give batches"),
    (of_another, "^optimizer: holds no parameter of the model"),
    (lambda: finder(nn.TripletMarginLoss()).run((X, X, X)), "^loss_fn: .*three outputs: write a step"),
    (lambda: finder(functional.cosine_embedding_loss).run((X, X, Y)), "^loss_fn: .*two outputs"),
    (lambda: finder().run([(1 / 0 for _ in "x")]), "raised an exception|must give"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "said"), WRONG, ids=range(len(WRONG)))
def test_mistakes_are_told_in_words_of_python(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(lrexp.LrexpError, match=said) as caught:
        make()
    assert "data.name" not in str(caught.value)


def test_a_frozen_model_is_told() -> None:
    model = net().requires_grad_(False)
    frozen = lrexp.LRFinder(model, torch.optim.SGD(model.parameters(), 0.1), functional.mse_loss)
    with pytest.raises(
        lrexp.ConfigError, match=r"^model: has no parameter that requires a gradient"
    ):
        frozen.run((X, Y))


def test_few_samples_are_one_batch() -> None:
    assert len(finder().run((X[:20], Y[:20]), **RAMP).curves[0].loss) > 5


@pytest.mark.parametrize(
    "change", [torch.Tensor.bfloat16, lambda t: t.clone().requires_grad_()], ids=["bf16", "grad"]
)
def test_tensors_that_numpy_does_not_take(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert len(finder().run((change(X), change(Y)), **RAMP).curves[0].loss) > 5


def test_what_a_test_says_names_arguments_of_run() -> None:
    found = finder().run((X, Y), min_lr=1e-9, max_lr=1e-8, steps=20)
    assert found.reason is not None
    assert "max_lr" in found.reason
    assert "find_lr" not in found.reason
