"""torchvision's datasets, read by torchvision from files that the tests write."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets
from workloads.sample_files import load, write_images, write_mnist

from lrexp.errors import ConfigError
from lrexp.workloads.batches import Facts
from lrexp.workloads.torchvision_data import torchvision_dataset


def whole(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = zip(*batches.in_order(), strict=True)
    return torch.cat(inputs), torch.cat(targets)


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
