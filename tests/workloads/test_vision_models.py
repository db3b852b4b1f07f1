"""torchvision's models by name: heads that fit the data, weights, and what goes wrong with both."""

from __future__ import annotations

import inspect
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from lrexp.errors import ConfigError, RunError
from lrexp.workloads.torchvision_models import torchvision_model


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "googlenet"])
def test_a_model_has_as_many_outputs_as_classes(name: str) -> None:
    model = torchvision_model(name)(num_classes=7)
    output = model(torch.zeros(2, 3, 64, 64))
    assert output.shape == (2, 7)


def test_parameters_are_those_of_torchvision() -> None:
    torch.manual_seed(0)
    ours = torchvision_model("resnet18")(num_classes=10)
    torch.manual_seed(0)
    theirs = models.resnet18(num_classes=10)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.equal(other)


def test_a_vit_fits_the_images() -> None:
    model = torchvision_model("vit_b_32")(num_classes=3, image_size=64)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("name", ["resnet17", "ResNet", "list_models", "fasterrcnn_resnet50_fpn"])
def test_what_is_no_classifier_is_none(name: str) -> None:
    assert torchvision_model(name) is None


def test_every_name_of_torchvision_is_known() -> None:
    names = models.list_models(module=models)
    assert len(names) > 70
    assert all(torchvision_model(name) is not None for name in names)


def test_what_a_config_may_write() -> None:
    signature = inspect.signature(torchvision_model("resnet18"))
    assert [p.name for p in signature.parameters.values() if p.default is p.empty] == [
        "num_classes",
        "arguments",
    ]
    assert "image_size" in inspect.signature(torchvision_model("vit_b_16")).parameters


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for weights, and no network."""

    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize(
    ("name", "head", "num_classes"),
    [
        ("resnet18", "fc", 6),
        ("resnet18", "fc", 1000),
        ("squeezenet1_1", "classifier.1", 6),
        ("squeezenet1_1", "classifier.1", 1000),
        ("inception_v3", "fc", 6),
        pytest.param("inception_v3", "fc", 1000, marks=pytest.mark.long),  # seconds each
    ],
)
def test_weights_keep_all_but_a_head_of_another_size(
    name: str, head: str, num_classes: int, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"init_weights": False} if name == "inception_v3" else {}
    source = models.get_model_builder(name)(**options)
    weights = models.get_model_weights(name).DEFAULT
    monkeypatch.setattr(  # checked against torchvision's hash, which our file cannot have
        type(weights), "get_state_dict", lambda self, **_: source.state_dict()
    )
    model = torchvision_model(name)(num_classes=num_classes, weights="DEFAULT")
    for key, value in source.state_dict().items():
        if key.startswith("AuxLogits"):
            assert key not in model.state_dict()
        elif not key.startswith(head) or num_classes == 1000:
            assert model.state_dict()[key].equal(value), key
    assert isinstance(model.get_submodule(head), nn.Linear | nn.Conv2d)
    assert model(torch.zeros(2, 3, 80, 80)).shape == (2, num_classes)


def test_weights_that_cannot_be_downloaded(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError) as caught:
        torchvision_model("resnet18")(num_classes=3, weights="IMAGENET1K_V1")
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "Temporary failure in name resolution" in message
    assert "resnet18-f37072fd.pth" in message
    assert str(hub) in message
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "args", "key", "words"),
    [
        ("resnet18", {"num_classes": 0}, "model.args.num_classes", "at least 1"),
        ("resnet18", {"num_classes": 3, "weights": "IMAGENET"}, "model.args.weights", "IMAGENET1K"),
        ("resnet18", {"num_classes": 3, "weights": True}, "model.args.weights", "got true"),
        ("resnet18", {"num_classes": 3, "depth": 3}, "model.args", "'depth'"),
        ("vit_b_16", {"num_classes": 3, "image_size": 30}, "model.args", "indivisible"),
    ],
)
def test_wrong_arguments(name: str, args: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        torchvision_model(name)(**args)
    assert caught.value.problems[0].key == key
    assert words in str(caught.value)


def test_a_torchvision_that_does_not_fit_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")\n'
    )
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"model\.name: needs torchvision.*nms does not exist"):
        torchvision_model("resnet18")
