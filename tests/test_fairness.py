"""One by one, equal variants of a seed are equal to the bit, whatever model, loss and data do."""

from __future__ import annotations

import itertools
import random
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import lrexp
from lrexp.errors import FailedTrialsError

SETTINGS = {
    "engine": "sequential",  # in a stack they are equal up to rounding
    "optimizer": {"name": "SGD", "lr": 0.1},
    "train": {"duration": "1ep", "eval_every": "4st"},
    "compare": {"seeds": 2, "variants": {"a": {}, "other": {"optimizer.lr": 0.01}, "b": {}}},
}


def digits() -> Any:
    bunch = load_digits()
    x, y = torch.tensor(bunch.data / 16, dtype=torch.float32), torch.tensor(bunch.target)
    return (x[:640], y[:640]), (x[640:900], y[640:900])


def mlp(*before: nn.Module) -> nn.Module:
    return nn.Sequential(*before, nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(32), nn.LazyBatchNorm1d(), nn.LazyLinear(10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class AlwaysDropout(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, 0.3, training=True)


class PythonNoise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (0.5 + random.random()) + float(np.random.rand())  # noqa: NPY002


class TiedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 64)
        self.again = nn.Linear(64, 64)
        self.again.weight = self.inner.weight
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.again(torch.tanh(self.inner(x)))))


class Counting(nn.Module):
    """A buffer that counts the calls and changes the output."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * (1 + 1 / self.calls)


class MovingLoss(nn.Module):
    """A loss with state: it is weighted by how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return functional.cross_entropy(output, target) * (1 + 1 / self.calls)


def with_weight_norm(wrap: Any = None) -> nn.Module:
    """Return a model whose layer keeps its weight as the result of its forward."""
    model = mlp(nn.Linear(64, 64))
    if wrap is not None:
        wrap(model[0])
        return model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch has another by now
        nn.utils.weight_norm(model[0])
    return model


class Cached(nn.Module):
    """Keeps its last output, graph and all, from the time when it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = mlp()
        self.last = self.layer(torch.ones(2, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.layer(x)
        return self.last


def with_spectral_norm() -> nn.Module:
    model = mlp(nn.utils.spectral_norm(nn.Linear(64, 64)))
    model(torch.ones(2, 64))
    return model


class LockedLoss(MovingLoss):
    """A class can be instantiated again for each trial where an instance cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def curves(run: lrexp.Run) -> dict[tuple[str, int], str]:
    return {
        (t.variant, t.seed): (t.path / "steps.csv").read_text() + (t.path / "evals.csv").read_text()
        for t in run.trials
    }


MODELS: dict[str, Any] = {
    "dropout": lambda: mlp(nn.Dropout(0.4)),
    "lazy": Lazy,
    "dropout-in-evaluation": lambda: mlp(AlwaysDropout()),
    "python-noise": lambda: mlp(PythonNoise()),
    "tied": TiedWeights,
    "buffer": lambda: mlp(Counting()),
    "batchnorm": lambda: mlp(nn.BatchNorm1d(64)),
    "weight-norm": with_weight_norm,
    "spectral-norm": with_spectral_norm,
    "cached": Cached,
}
LOSSES = {"pure": functional.cross_entropy, "stateful": MovingLoss()}


@pytest.mark.parametrize(
    ("make_model", "loss"),
    [  # by default each model with one of the losses, in turn
        pytest.param(
            make, loss, id=f"{model}-{kind}", marks=() if (i + j) % 2 else pytest.mark.long
        )
        for i, (model, make) in enumerate(MODELS.items())
        for j, (kind, loss) in enumerate(LOSSES.items())
    ],
)
def test_equal_variants_are_equal_to_the_bit(make_model: Any, loss: Any, tmp_path: Path) -> None:
    run = lrexp.compare(SETTINGS, model=make_model, data=digits(), loss=loss, runs_dir=tmp_path)
    found = curves(run)
    assert found["a", 0] == found["b", 0]
    assert found["a", 1] == found["b", 1]
    assert found["a", 0] != found["a", 1]
    alone = lrexp.compare(
        SETTINGS,
        model=make_model,
        data=digits(),
        loss=loss,
        overrides={"compare.variants": {"b": {}}, "compare.seeds": 1, "seed": 1},
        runs_dir=tmp_path,
    )
    assert curves(alone)["b", 1] == found["b", 1]  # the trials before it do not matter


def test_weight_norm_trains_as_torch_s_parametrization_of_it(tmp_path: Path) -> None:
    def losses(make_model: Any) -> list[Any]:
        given = {"model": make_model, "data": digits(), "loss": functional.cross_entropy}
        return [t.steps["loss"] for t in lrexp.compare(SETTINGS, **given, runs_dir=tmp_path).trials]

    old = losses(with_weight_norm)
    new = losses(lambda: with_weight_norm(nn.utils.parametrizations.weight_norm))
    np.testing.assert_allclose(old, new, rtol=1e-4)


def test_a_loss_of_a_config_that_cannot_be_copied_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(
        "import threading\nfrom torch import nn\nfrom torch.nn import functional\n"
        "class Loss(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.lock, self.calls = threading.Lock(), 0\n"
        "    def forward(self, output, target):\n        self.calls += 1\n"
        "        return functional.cross_entropy(output, target) * (1 + 1 / self.calls)\n"
    )
    monkeypatch.chdir(tmp_path)
    given = {"model": mlp, "data": digits(), "runs_dir": tmp_path}
    found = curves(lrexp.compare({**SETTINGS, "loss": "own:Loss"}, **given))
    assert found["a", 0] == found["b", 0]
    assert found == curves(lrexp.compare(SETTINGS, loss=MovingLoss(), **given))


SHARED = with_spectral_norm()
UNCOPIED = {
    "module": ({"model": with_weight_norm()}, "`0.weight` refuses: RuntimeError: Only Tensors"),
    "cached": ({"model": Cached()}, "`last` refuses: RuntimeError: Only Tensors"),
    "same again": ({"model": lambda: SHARED}, "`0.weight` refuses"),
    "loss": ({"loss": LockedLoss()}, "loss: cannot be copied: its attribute `lock` refuses: TypeE"),
}


@pytest.mark.parametrize("name", UNCOPIED)
def test_what_cannot_be_copied_is_named_with_what_to_do(name: str, tmp_path: Path) -> None:
    change, says = UNCOPIED[name]
    given = {"model": mlp, "data": digits(), "loss": functional.cross_entropy, **change}
    with pytest.raises(lrexp.ConfigError) as caught:
        lrexp.compare(SETTINGS, **given, runs_dir=tmp_path)
    assert says in str(caught.value)
    assert "Pass a function" in str(caught.value)


def test_the_finder_names_what_cannot_be_copied() -> None:
    model = with_weight_norm()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    finder = lrexp.LRFinder(model, optimizer, functional.cross_entropy)
    with pytest.raises(
        lrexp.ConfigError, match=r"^model: cannot be copied: its attribute `0\.weight`"
    ):
        finder.run(digits()[0])
    model[0] = nn.utils.parametrizations.weight_norm(nn.Linear(64, 64))  # as the message says
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    finder = lrexp.LRFinder(model, optimizer, functional.cross_entropy)
    assert len(finder.run(digits()[0], steps=20, seeds=1).curves) == 1


def test_the_trial_after_one_that_raised_is_what_it_would_have_been(tmp_path: Path) -> None:
    calls = itertools.count()

    class RaisesInTheFirstTrial(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if next(calls) == 6:
                raise ArithmeticError("once")
            return x

    def train(make_model: Any) -> dict[tuple[str, int], str]:
        # measuring would use up the calls
        settings = {**SETTINGS, "compare": {"variants": {"a": {}, "b": {}}}, "engine": "sequential"}
        given = {"model": make_model, "data": digits(), "loss": functional.cross_entropy}
        try:
            return curves(lrexp.compare(settings, **given, runs_dir=tmp_path))
        except FailedTrialsError as error:
            return curves(lrexp.load_run(error.run))

    failing = train(lambda: mlp(RaisesInTheFirstTrial()))
    sound = train(lambda: mlp(nn.Identity()))
    assert failing["a", 0] != sound["a", 0]
    assert failing["b", 0] == sound["b", 0]


def test_parts_frozen_in_evaluation_mode_stay_frozen(tmp_path: Path) -> None:
    seen: set[tuple[bool, bool]] = set()

    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(64)
            self.norm.eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.add((self.training, self.norm.training))
            return self.norm(x)

    lrexp.compare(
        SETTINGS,
        model=lambda: mlp(Frozen()),
        data=digits(),
        loss=functional.cross_entropy,
        runs_dir=tmp_path,
    )
    assert seen == {(True, False), (False, False)}


@pytest.mark.parametrize(
    "change", [{"model": "linear"}, {"loss": "multi_margin_loss"}, {"data": {"name": "spirals"}}]
)
def test_a_variant_of_what_was_given_as_an_object_is_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**SETTINGS, "compare": {"variants": {"a": {}, "b": change}}}
    with pytest.raises(lrexp.ConfigError, match="given as a Python object"):
        lrexp.compare(
            settings,
            model=mlp,
            data=digits(),
            loss=functional.cross_entropy,
            runs_dir=tmp_path / "runs",
        )


def test_the_batch_size_may_differ_on_data_given_as_objects(tmp_path: Path) -> None:
    settings = {**SETTINGS, "compare": {"variants": {"a": {}, "b": {"data.batch_size": 32}}}}
    run = lrexp.compare(
        settings, model=mlp, data=digits(), loss=functional.cross_entropy, runs_dir=tmp_path
    )
    assert [len(t.steps["loss"]) for t in run.trials] == [10, 20]
