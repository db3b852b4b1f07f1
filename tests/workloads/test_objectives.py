"""Which entries of a batch a model and a loss are given, and three ways to make an objective."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrexp.errors import ConfigError
from lrexp.workloads.objectives import (
    OwnStep,
    copy_objective,
    fit_objective,
    layout,
    logits_of,
    own_loss,
)


def model_of(forward: Any) -> nn.Module:
    return type("Net", (nn.Module,), {"forward": forward})()


def two(output: Any, target: Any) -> Any:
    return target


def three(output: Any, target: Any, weight: Any) -> Any:
    return target


def optional(output: Any, target: Any, weight: Any = None) -> Any:
    return target


# batch | the model's forward | the loss | arguments, keywords, what the loss is given
LAYOUTS: list[tuple[Any, Any, Any, tuple[Any, Any, Any]]] = [
    (("x", "y"), lambda self, x: x, two, (("x",), {}, ("y",))),
    (["x", "y"], lambda self, x: x, two, (("x",), {}, ("y",))),
    (("a", "b", "y"), lambda self, a, b: a, two, (("a", "b"), {}, ("y",))),
    (("a", "b", "y"), lambda self, a, b: a, optional, (("a", "b"), {}, ("y",))),
    (("x", "y", "w"), lambda self, x: x, three, (("x",), {}, ("y", "w"))),
    (("a", "b", "y", "w"), lambda self, a, b: a, three, (("a", "b"), {}, ("y", "w"))),
    ((("a", "b"), "y"), lambda self, pair: pair, two, ((("a", "b"),), {}, ("y",))),
    ((("a", "b"), "y"), lambda self, a, b: a, two, (("a", "b"), {}, ("y",))),
    ((("a", "b"), ("y", "w")), lambda self, a, b: a, two, (("a", "b"), {}, (("y", "w"),))),
    ((("a", "b"), ("y", "w")), lambda self, a, b: a, three, (("a", "b"), {}, ("y", "w"))),
    (("x", ("y", "w")), lambda self, x: x, three, (("x",), {}, ("y", "w"))),
    (({"a": 1, "b": 2}, "y"), lambda self, a, b: a, two, ((), {"a": 1, "b": 2}, ("y",))),
    (({"a": 1, "b": 2}, "y"), lambda self, x: x, two, (({"a": 1, "b": 2},), {}, ("y",))),
    ("x", lambda self, x: x, two, (("x",), {}, ("x",))),
    (("x",), lambda self, x: x, two, (("x",), {}, ("x",))),
    ({"a": 1, "b": 2, "y": 3}, lambda self, a, b: a, two, ((), {"a": 1, "b": 2}, (3,))),
    ({"a": 1, "id": 2, "y": 3}, lambda self, a: a, two, ((), {"a": 1}, (3,))),
    ({"a": 1, "labels": 3}, lambda self, a, labels: a, two, ((), {"a": 1, "labels": 3}, (3,))),
    ({"a": 1, "labels": 3}, lambda self, **kw: kw, two, ((), {"a": 1}, (3,))),
    ({"image": 1, "label": 3}, lambda self, x: x, two, ((1,), {}, (3,))),
    ({"p": 1, "q": 2, "y": 3}, lambda self, batch: batch, two, (({"p": 1, "q": 2, "y": 3},), {}, (3,))),
]  # fmt: skip


@pytest.mark.parametrize(("batch", "forward", "loss", "expected"), LAYOUTS, ids=range(len(LAYOUTS)))
def test_where_the_entries_of_a_batch_go(
    batch: Any, forward: Any, loss: Any, expected: Any
) -> None:
    assert layout(model_of(forward), batch, loss)(batch) == expected


LOSS, LOGITS = torch.tensor(2.0), torch.zeros(3)


@pytest.mark.parametrize(
    ("output", "loss", "logits"),
    [
        (LOGITS, None, LOGITS),
        ({"loss": LOSS, "logits": LOGITS}, LOSS, LOGITS),
        (SimpleNamespace(loss=LOSS, logits=LOGITS), LOSS, LOGITS),
        ({"logits": LOGITS}, None, LOGITS),
        ({"loss": LOSS}, LOSS, {"loss": LOSS}),
    ],
    ids=range(5),
)
def test_what_an_output_holds(output: Any, loss: Any, logits: Any) -> None:
    assert own_loss(output) is loss
    assert logits_of(output) is logits or logits_of(output) == logits


def test_a_loss_with_weights() -> None:
    def weighted(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return ((output - target) ** 2 * weight).mean()

    batch = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0]), torch.tensor([1.0, 0.5])
    model = nn.Identity()
    split = layout(model, batch, weighted)
    objective = fit_objective(lambda: weighted, batch, batch[0], split)()
    loss, output = objective(model, batch)
    assert loss.item() == (4 * 1 + 9 * 0.5) / 2
    assert output is batch[0]
    assert objective.target(batch) is batch[1]


def test_a_model_that_returns_its_loss() -> None:
    def forward(self: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": functional.mse_loss(x, labels), "logits": x}

    model, batch = model_of(forward), {"x": torch.ones(2), "labels": torch.zeros(2)}
    split = layout(model, batch, None)
    objective = fit_objective(None, batch, model(**batch), split)()
    loss, output = objective(model, batch)
    assert loss.item() == 1.0
    assert output is batch["x"]
    assert objective.target(batch) is batch["labels"]
    with pytest.raises(ConfigError, match="is needed: the model returns none"):
        fit_objective(None, batch, torch.ones(2), split)


def test_a_loss_of_ones_own_gets_the_whole_output_and_one_of_torch_the_logits() -> None:
    def own(output: Any, target: Tensor) -> Tensor:
        return output["extra"]

    def forward(self: nn.Module, x: Tensor) -> dict[str, Tensor]:
        return {"logits": x, "extra": x.sum()}

    model, batch = model_of(forward), (torch.ones(2), torch.zeros(2))
    split, output = layout(model, batch, own), model(batch[0])
    assert fit_objective(lambda: own, batch, output, split)()(model, batch)[0].item() == 2.0
    for loss in (functional.mse_loss, nn.MSELoss()):
        assert fit_objective(lambda loss=loss: loss, batch, output, split)()(model, batch)[0] == 1.0


def test_a_step_returns_a_loss_or_a_dict_with_it() -> None:
    plain, logging = (
        OwnStep(lambda model, x: model(x).sum()),
        OwnStep(lambda model, x: {"loss": model(x).sum(), "largest": x.max()}),
    )
    model, x = nn.Identity(), torch.tensor([1.0, 2.0])
    assert plain(model, x) == (3.0, {})
    assert logging(model, x) == (3.0, {"largest": 2.0})
    assert plain.target(x) is None


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, model: nn.Module, batch: Tensor) -> Tensor:
        self.calls += 1
        return model(batch).sum()


def test_a_copy_has_a_state_of_its_own() -> None:
    objective = OwnStep(Counting())
    copied = copy_objective(objective)
    copied(nn.Identity(), torch.ones(1))
    assert (objective.loss.calls, copied.loss.calls) == (0, 1)
