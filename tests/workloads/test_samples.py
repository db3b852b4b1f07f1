"""A sample that cannot be read is named: by its path, its index, or its number in the pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from workloads.random_datasets import Raising, RaisingStream, UnpicklableError
from workloads.sample_files import write_images

from lrexp.errors import ConfigError, notes_of, user_error
from lrexp.workloads.loading import data_from_objects, load_data
from lrexp.workloads.samples import sample_name
from lrexp.workloads.torchvision_data import torchvision_dataset

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
FIRST = TensorDataset(torch.zeros(20, 1), torch.zeros(20, 1))


def raising() -> Raising:
    """Raise at index 5 of 12; a new exception for every test, as notes stay with one."""
    return Raising(ValueError("no pixel"))


class Noisy(Dataset[Any]):
    """Sample 9 is not a number."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        return torch.full((1,), float("nan") if index == 9 else 0.0), 0


class Kept:
    """A dataset that keeps what `entries` are in a list that is called as `name`."""

    def __init__(self, name: str, entries: Any, root: object = "") -> None:
        setattr(self, name, entries)
        self.root = root
        self.length = len(entries)

    def __len__(self) -> int:
        return self.length


def names_of(made: Any, **options: Any) -> list[str]:
    """Return the notes on what reading all samples raises."""
    batches = data_from_objects(made, batch_size=4, **options).train
    with pytest.raises(Exception, match=r".") as caught:
        list(batches.in_order())
    told = str(user_error(caught.value, "the data"))
    assert all(note in told for note in notes_of(caught.value))
    return notes_of(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (raising, "sample 5 of Raising"),
        (lambda: Raising(UnpicklableError("a", "b")), "sample 5 of Raising"),
        (lambda: Subset(raising(), [0, 1, 9, 5]), "sample 5 of Raising"),
        (lambda: ConcatDataset([FIRST, Subset(raising(), [5, 6])]), "sample 5 of Raising"),
        (RaisingStream, "sample 6 of RaisingStream"),
    ],
    ids=["plain", "unpicklable", "subset", "concatenated", "iterable"],
)
def test_a_sample_that_raises_is_named_as_its_own_dataset_counts(
    make: Any, name: str, workers: int
) -> None:
    assert names_of(make(), workers=workers) == [name]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_sample_behind_the_users_own_loader_is_named(shuffle: bool) -> None:
    for behind in (raising(), Subset(raising(), [9, 3, 4, 5, 6])):
        loader = DataLoader(behind, 1, shuffle=shuffle)
        with pytest.raises(ValueError, match="no pixel") as caught:
            list(data_from_objects(loader).train.in_order())
        assert notes_of(caught.value) == ["sample 5 of Raising"]


def test_samples_that_do_not_stack_are_listed() -> None:
    ragged = [(torch.zeros(2 if i == 7 else 1), 0) for i in range(10)]
    with pytest.raises(RuntimeError) as caught:
        list(data_from_objects(ragged, batch_size=10).train.in_order())
    assert notes_of(caught.value) == ["samples 0, 1, 2, 3, 4, 5, 6, 7 and 2 more of list"]


def test_a_sample_that_is_not_finite_is_named_as_its_own_dataset_counts() -> None:
    with pytest.raises(ConfigError, match=r"finite inputs \(got 'sample 9 of Noisy'\)"):
        data_from_objects(Noisy(), batch_size=4, val_fraction=0.5, in_memory=True)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_file_that_is_cut_short_is_named_by_its_path(tmp_path: Path, in_memory: bool) -> None:
    write_images(tmp_path / "pets", [(12, 12)])
    damaged = sorted((tmp_path / "pets" / "cat").iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:50])
    made = torchvision_dataset("ImageFolder")
    assert made is not None
    with pytest.raises((ConfigError, OSError)) as caught:
        data = load_data(made, {"root": str(tmp_path / "pets")}, batch_size=2, in_memory=in_memory)
        for side in (data.train, data.val):
            assert side is not None
            list(side.in_order())
    told = str(user_error(caught.value, "the data"))
    assert str(damaged) in told
    assert "sample 1 of ImageFolder" in told


def test_a_path_is_told_only_where_there_is_one_to_each_sample(tmp_path: Path) -> None:
    here, other = tmp_path / "a.png", tmp_path / "b.png"
    here.touch()
    other.touch()
    table: list[tuple[Any, str]] = [
        (Kept("samples", [(str(here), 3), ("b", 4)]), f"sample 0 of Kept, {here}"),
        (Kept("_image_files", [here, other]), f"sample 0 of Kept, {here}"),
        (Kept("paths", ["a.png", "b.png"], tmp_path), f"sample 0 of Kept, {here}"),
        (Kept("samples", ["once upon a time", "the end"]), "sample 0 of Kept"),
        (Kept("samples", ["x" * 10_000, "\0"]), "sample 0 of Kept"),
        (Kept("images", torch.zeros(2)), "sample 0 of Kept"),
        (Kept("files", []), "sample 0 of Kept"),
        (Kept("files", {0: str(here)}), "sample 0 of Kept"),
    ]
    for dataset, name in table:
        assert sample_name(dataset, 0) == name
