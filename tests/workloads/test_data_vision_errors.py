"""What goes wrong with torchvision's datasets: arguments, files, the network, torchvision itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from starting import Starter
from workloads.sample_files import load, write_images, write_mnist

from lrexp.errors import ConfigError, RunError
from lrexp.workloads.torchvision_data import torchvision_dataset


@pytest.mark.parametrize(
    ("name", "args", "key", "words"),
    [
        ("MNIST", {}, "data.args.root", "is needed by MNIST"),
        ("MNIST", {"root": 3}, "data.args.root", "must be text or a path (got 3)"),
        ("MNIST", {"root": ".", "rot": 1}, "data.args.rot", "Did you mean 'root'?"),
        ("MNIST", {"root": ".", "train": True}, "data.args.train", "is not a parameter of MNIST"),
        ("MNIST", {"root": ".", "download": "yes"}, "data.args.download", "true or false"),
        ("MNIST", {"root": ".", "size": 0}, "data.args.size", "at least 1"),
        ("MNIST", {"root": ".", "transform": "ToTensor"}, "data.args.transform", "a function"),
        ("MNIST", {"root": "."}, "data.args.root", "Set data.args.download: true, or put"),
        ("MNIST", {"root": "."}, "data.args.root", "MNIST/raw"),
        ("CIFAR10", {"root": "."}, "data.args.root", "cifar-10-batches-py"),
        ("ImageFolder", {"root": "none"}, "data.args.root", "Put the files into"),
        ("ImageFolder", {"root": "."}, "data.args.root", "no usable files of ImageFolder"),
        (
            "ImageFolder",
            {"root": ".", "download": True},
            "data.args.download",
            "is not a parameter of ImageFolder",
        ),
        ("EMNIST", {"root": "."}, "data.args.split", "is needed by EMNIST"),
        (
            "FakeData",
            {"image_size": 3},
            "data.args.image_size",
            "must be a list of 3: a whole number",
        ),
    ],
)
def test_wrong_arguments(
    name: str, args: dict[str, Any], key: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        next(load(name, tmp_path, **args).train.epoch(0, 0))
    assert caught.value.problems[0].key == key
    assert words in str(caught.value)


def test_damaged_files_are_told(cifar10: Path, tmp_path: Path) -> None:
    (cifar10 / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"cut")
    with pytest.raises(ConfigError, match=r"data\.args\.root: .* not found or corrupted"):
        load("CIFAR10", cifar10, root=".")
    write_mnist(tmp_path)
    labels = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:20])
    for download in (False, True):
        with pytest.raises(ConfigError, match=r"data\.args\.root: has files of MNIST .* be read"):
            load("MNIST", tmp_path, root=".", download=download)
    write_images(tmp_path / "pets", [(12, 12)])
    for name in ("0.png", "3.png"):  # the first is read before the others
        (tmp_path / "pets" / "cat" / name).write_bytes(b"no image")
        with pytest.raises(ConfigError, match=rf"data\.name: .* cannot be read.*cat/{name}"):
            load("ImageFolder", tmp_path, root="pets")
        write_images(tmp_path / "pets", [(12, 12)])


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "SVHN"])
def test_a_download_that_is_not_possible(
    name: str, no_network: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "SVHN":
        pytest.importorskip("scipy")
    with pytest.raises(RunError) as caught:
        load(name, tmp_path, root="data", download=True)
    assert caught.value.exit_code == 3
    assert "Temporary failure in name resolution" in str(caught.value)
    assert str(tmp_path / "data") in str(caught.value)
    assert capsys.readouterr().out == ""  # stdout belongs to results


def test_files_that_are_there_are_not_downloaded(no_network: None, tmp_path: Path) -> None:
    write_mnist(tmp_path)
    assert load("MNIST", tmp_path, root=".", download=True).train.num_samples == 40


@pytest.mark.parametrize("name", ["VOCDetection", "CocoDetection"])
def test_a_missing_package_or_folder_is_told(name: str, tmp_path: Path) -> None:
    args = {"annFile": "a.json"} if name == "CocoDetection" else {}
    with pytest.raises(ConfigError):
        load(name, tmp_path, root=".", **args)


@pytest.mark.parametrize(
    "raised",
    [
        'RuntimeError("operator torchvision::nms does not exist")',
        'ImportError("undefined symbol: _ZN3c10")',
        'AttributeError("partially initialized module")',
    ],
)
def test_a_torchvision_that_does_not_fit_torch(
    raised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise {raised}\n")
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        torchvision_dataset("MNIST")
    message = str(caught.value)
    assert message.startswith("data.name: needs torchvision")
    assert torch.__version__ in message
    assert raised.split('"')[1] in message
    assert "pip install" in message


def test_nothing_else_imports_torchvision(starter: Starter) -> None:
    program = (
        "import sys; from lrexp.workloads import builtin_data as d, loading, models as m; "
        "loading.load_data(d.DATASETS['digits'], {}, batch_size=8, val_fraction=0); "
        "m.MODELS['cnn'](1, 2); "
        "assert not [n for n in sys.modules if n.startswith('torchvision')]"
    )
    assert starter.start(["-c", program]).wait(200) == 0
