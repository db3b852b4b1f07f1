"""What the names in a config stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision

from lrexp.config.load import load_config
from lrexp.config.names import LOSSES, Names, torchvision_names
from lrexp.errors import ConfigError, UserCodeError
from lrexp.schedules.build import SCHEDULES
from lrexp.workloads.builtin_data import DATASETS
from lrexp.workloads.models import MODELS

from .good_config import GOOD


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        *(("model", name, made) for name, made in MODELS.items()),
        *(("data", name, made) for name, made in DATASETS.items()),
        *(("schedule", name, made) for name, made in SCHEDULES.items()),
        *(("loss", name, getattr(torch.nn.functional, name)) for name in LOSSES),
        ("optimizer", "SGD", torch.optim.SGD),
        ("optimizer", "AdamW", torch.optim.AdamW),
        ("schedule", "StepLR", torch.optim.lr_scheduler.StepLR),
        ("schedule", "OneCycleLR", torch.optim.lr_scheduler.OneCycleLR),
        ("optimizer", "torch.optim:Adam", torch.optim.Adam),
        ("loss", "torch.nn.functional:mse_loss", torch.nn.functional.mse_loss),
        ("loss", "torch.nn.functional:cosine_similarity", torch.nn.functional.cosine_similarity),
        ("model", "torch.nn:Linear", torch.nn.Linear),
        ("model", "torch.nn.modules.linear:Linear", torch.nn.Linear),
        ("model", "torchvision.models:resnet18", torchvision.models.resnet18),
        ("data", "torchvision.datasets:FakeData", torchvision.datasets.FakeData),
        ("data", "torch.utils.data:TensorDataset", torch.utils.data.TensorDataset),
    ],
)  # fmt: skip
def test_names_that_need_no_trust(kind: str, name: str, expected: object) -> None:
    assert Names([]).resolve(kind, name) is expected  # type: ignore[arg-type]


def test_names_of_torchvision() -> None:
    resnet, mnist = (
        Names([]).resolve("model", "resnet18"),
        Names([]).resolve("data", "MNIST"),
    )
    assert resnet(num_classes=3).fc.out_features == 3
    assert mnist.name == "MNIST"  # type: ignore[attr-defined]
    assert "resnet18" in torchvision_names("models")
    assert "CIFAR10" in torchvision_names("datasets")


def test_a_class_as_loss_is_made(write: Callable[..., Path]) -> None:
    def loss_of(names: Names, name: str, **args: Any) -> Any:
        return names.of("loss", SimpleNamespace(loss=SimpleNamespace(name=name, args=args)))

    write("class Loss:\n    def __call__(self, output, target):\n        return 7\n", "mine.py")
    found = loss_of(Names([]), "torch.nn:MSELoss")
    assert isinstance(found, torch.nn.MSELoss)
    found = loss_of(Names([Path.cwd()]), "mine:Loss")
    assert found(torch.ones(2), torch.zeros(2)) == 7
    with pytest.raises(UserCodeError, match=r"making the loss torch\.nn:Linear"):
        loss_of(Names([]), "torch.nn:Linear")
    with pytest.raises(ConfigError, match="instances cannot be called"):
        loss_of(Names([]), "torch.utils.data:Sampler")
    weighted = loss_of(Names([]), "cross_entropy", weight=[1, 3], label_smoothing=0.1)
    logits, target = torch.tensor([[0.5, 0.2]]), torch.tensor([1])
    expected = torch.nn.CrossEntropyLoss(torch.tensor([1.0, 3.0]), label_smoothing=0.1)
    assert weighted(logits, target) == expected(logits, target)


def test_a_loss_takes_output_and_target(write: Callable[..., Path]) -> None:
    write(
        "def one(output): ...\ndef two(a, b, c=1): ...\ndef three(a, b, c): ...\ndef four(a, b, c, d): ...\n",
        "mine.py",
    )
    for name in ("two", "three"):  # the third is a weight
        load_config(write(GOOD.replace("cross_entropy", f"mine:{name}")))
    for name in ("one", "four"):
        with pytest.raises(ConfigError, match=r"loss: must take two arguments, \(output, target\)"):
            load_config(write(GOOD.replace("cross_entropy", f"mine:{name}")))


def test_schedules_of_ones_own(write: Callable[..., Path]) -> None:
    write("def decay(power=1): ...\ndef factor(step): return 1.0\n", "mine.py")
    config = load_config(
        write(
            GOOD
            + """\
schedule:
  name: combined
  parts:
  - {start: 0, end: 50%, schedule: {name: lambda, function: 'mine:factor'}}
  - {start: 50%, end: 100%, schedule: 'mine:decay'}
"""
        )
    )
    first, second = config.names.schedule_params(config.experiment)["parts"]
    assert first["schedule"]["function"].__name__ == "factor"
    assert second["schedule"]["name"].__name__ == "decay"
    assert config.names.of("schedule", config.experiment) == "combined"
    text = GOOD + "schedule: {name: 'mine:decay', args: {pover: 2}}\n"
    with pytest.raises(ConfigError, match=r"exp.yaml:5: schedule.args.pover: .*'power'"):
        load_config(write(text))
    config = load_config(write(text.replace("pover", "power")))
    assert config.names.of("schedule", config.experiment).__name__ == "decay"  # type: ignore[union-attr]


def test_a_section_that_was_a_python_object() -> None:
    config = load_config(
        {"optimizer": {"name": "SGD", "lr": 1}, "data": {"batch_size": 8}, "model": {"name": "x"}},
        given={"model", "data", "loss"},
    )
    assert config.experiment.model.name == "(Python object)"
    assert config.experiment.data.batch_size == 8
    with pytest.raises(ConfigError, match=r"loss: was given as a Python object"):
        load_config(
            {**config.experiment.model_dump(), "compare": None, "model": "mlp", "data": "digits"}
        )
