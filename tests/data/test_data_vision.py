"""torchvision's datasets, read by torchvision from files that the tests write."""

from __future__ import annotations

import inspect
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from data.sample_files import write_cifar10, write_images, write_mnist
from torchvision import datasets

from lrexp.data import Data, Facts, load_data, torchvision_dataset
from lrexp.errors import ConfigError, RunError


def load(name: str, folder: Path, **args: Any) -> Data:
    options = {"batch_size": 4, "val_fraction": 0.25, "directory": folder}
    options |= {key: args.pop(key) for key in ("in_memory", "workers", "batch_size") if key in args}
    return load_data(torchvision_dataset(name), args, **options)


def whole(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = zip(*batches.in_order(), strict=True)
    return torch.cat(inputs), torch.cat(targets)


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with our CIFAR-10, and torchvision expecting our checksums in place of theirs."""
    md5 = write_cifar10(tmp_path)
    cls = datasets.CIFAR10
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(cls, name, [[file, md5[file]] for file, _ in getattr(cls, name)])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5["batches.meta"]})
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_mnist_files(name: str, tmp_path: Path) -> None:
    pixels = write_mnist(tmp_path, name)
    data = load(name, tmp_path, root=".")
    inputs, targets = whole(data.train)
    assert torch.allclose(inputs[:, 0], torch.from_numpy(pixels).float() / 255)
    assert targets.tolist() == [i % 10 for i in range(40)]
    assert data.val.num_samples == 12  # the test set, whatever val_fraction says
    assert data.facts == Facts(40, 784, 1, 28, 10, 10)
    assert type(data.train).__name__ == type(data.val).__name__ == "ResidentBatches"


def test_cifar_files(cifar10: Path) -> None:
    data = load("CIFAR10", cifar10, root=".")
    assert data.facts == Facts(30, 3072, 3, 32, 10, 10)
    assert data.val.num_samples == 6
    first = np.random.default_rng(1).integers(0, 256, 6 * 3072, dtype=np.uint8)
    inputs, targets = whole(data.train)
    expected = torch.from_numpy(first.reshape(6, 3, 32, 32)).float() / 255
    assert torch.allclose(inputs[:6], expected)
    assert targets[:6].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("in_memory", ["auto", False])
def test_an_image_folder(in_memory: Any, tmp_path: Path) -> None:
    write_images(tmp_path / "pets", [(12, 12)])
    data = load("ImageFolder", tmp_path, root="pets", in_memory=in_memory)
    assert data.facts == Facts(6, 432, 3, 12, 2, 2)
    assert data.val.num_samples == 2
    inputs, targets = whole(data.train)
    red, blue = inputs[:, 0, 0, 0], inputs[:, 2, 0, 0]
    assert red.equal((targets == 0).float())
    assert blue.equal((targets == 1).float())
    assert (type(data.train).__name__ == "StreamingBatches") is (in_memory is False)


def test_images_are_resized(tmp_path: Path) -> None:
    write_images(tmp_path, [(12, 12), (10, 14)])
    data = load("ImageFolder", tmp_path, root=".", size=8)
    assert data.facts.image_size == 8
    assert whole(data.train)[0].shape == (6, 3, 8, 8)


@pytest.mark.parametrize("options", [{}, {"in_memory": False}, {"workers": 1}])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_images_of_different_sizes_are_told(options: dict[str, Any], tmp_path: Path) -> None:
    write_images(tmp_path, [(12, 12), (10, 14)])
    with pytest.raises(ConfigError, match=r"data\.args\.size: .* \(3×12×12 and 3×14×10\)"):
        next(load("ImageFolder", tmp_path, root=".", **options).train.epoch(0, 0))


def test_an_absolute_root_and_one_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    for root in (str(tmp_path / "data"), "~/data"):
        assert load("MNIST", Path("/nowhere"), root=root).train.num_samples == 40


def test_an_own_transform_is_streamed_and_drawn_anew_in_every_epoch(tmp_path: Path) -> None:
    from torchvision import transforms

    write_mnist(tmp_path)
    crop = transforms.Compose([transforms.RandomCrop(20), transforms.ToTensor()])
    data = load("MNIST", tmp_path, root=".", transform=crop)
    assert type(data.train).__name__ == "StreamingBatches"
    assert data.facts.image_size == 20
    first, again, other = (next(data.train.epoch(0, epoch))[0] for epoch in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


def test_fake_data_has_a_size_of_its_own() -> None:
    data = load("FakeData", Path(), size=12, image_size=[3, 16, 16], num_classes=4, resize=8)
    assert data.facts.image_size == 8
    assert (data.train.num_samples, data.val.num_samples) == (9, 3)


class Recorder:
    """Stands in for the files of a dataset with splits: records what it is asked for."""

    splits: tuple[str, ...] = ()

    def __init__(self, root: str, split: str = "train", transform: Any = None) -> None:
        if split not in self.splits:
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are ...")
        self.split = split
        self.transform = transform

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return torch.full((1, 2, 2), float(self.splits.index(self.split))), 0


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "test"), 1),
        (("train", "val", "test"), 1),
        (("train", "test", "val"), 2),
        (("train", "extra"), None),
    ],
)
def test_the_validation_split(
    splits: tuple[str, ...], expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "SVHN", type("SVHN", (Recorder,), {"splits": splits}))
    data = load("SVHN", Path(), root="x")
    if expected is None:  # split by val_fraction
        assert (data.train.num_samples, data.val.num_samples) == (6, 2)
    else:
        assert whole(data.val)[0].unique().tolist() == [expected]
    with pytest.raises(ConfigError, match=r"data\.args\.split: is no split of SVHN.*got 'dev'"):
        load("SVHN", Path(), root="x", split="dev")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("MNIST", ["root", "transform", "target_transform", "download", "size"]),
        ("ImageFolder", ["root", "transform", "target_transform", "allow_empty", "size"]),
        ("EMNIST", ["split", "root", "transform", "target_transform", "download", "size"]),
    ],
)
def test_what_a_config_may_write(name: str, parameters: list[str]) -> None:
    signature = inspect.signature(torchvision_dataset(name))
    assert sorted(signature.parameters) == sorted(parameters)


@pytest.mark.parametrize("name", ["MNISTT", "digits", "VisionDatasets", "folder", "__doc__"])
def test_what_is_no_dataset_is_none(name: str) -> None:
    assert torchvision_dataset(name) is None


@pytest.mark.parametrize(
    ("name", "args", "key", "words"),
    [
        ("MNIST", {}, "data.args.root", "MNIST needs it"),
        ("MNIST", {"root": 3}, "data.args.root", "must be the path of a folder"),
        ("MNIST", {"root": ".", "rot": 1}, "data.args.rot", "Did you mean 'root'?"),
        ("MNIST", {"root": ".", "train": True}, "data.args.train", "is no argument of MNIST"),
        ("MNIST", {"root": ".", "download": "yes"}, "data.args.download", "true or false"),
        ("MNIST", {"root": ".", "size": 0}, "data.args.size", "at least 1"),
        ("MNIST", {"root": ".", "transform": "ToTensor"}, "data.args.transform", "a function"),
        ("MNIST", {"root": "."}, "data.args.root", "Set data.args.download: true, or put"),
        ("MNIST", {"root": "."}, "data.args.root", "MNIST/raw"),
        ("CIFAR10", {"root": "."}, "data.args.root", "cifar-10-batches-py"),
        ("ImageFolder", {"root": "none"}, "data.args.root", "Put the files into"),
        ("ImageFolder", {"root": "."}, "data.args.root", "no usable files of ImageFolder"),
        ("ImageFolder", {"root": ".", "download": True}, "data.args.download", "is no argument"),
        ("EMNIST", {"root": "."}, "data.args.split", "EMNIST needs it"),
        ("FakeData", {"image_size": 3}, "data.name", "cannot be read"),
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


def test_nothing_else_imports_torchvision(tmp_path: Path) -> None:
    import subprocess

    program = (
        "import sys, lrexp.data as d, lrexp.models as m; "
        "d.load_data(d.DATASETS['digits'], {}, batch_size=8, val_fraction=0); "
        "m.MODELS['cnn'](1, 2); "
        "assert not [n for n in sys.modules if n.startswith('torchvision')]"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root, timeout=120)
