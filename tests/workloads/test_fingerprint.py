"""Fingerprints of data: equal for the same data, different for any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lrexp.workloads.builtin_data import DATASETS
from lrexp.workloads.loading import data_from_objects, fingerprint, load_data

X, Y = torch.arange(40.0).view(10, 4), torch.arange(10)


class Samples(Dataset):
    def __init__(self, first: float = 0.0) -> None:
        self.first = first

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return {"x": X[index] + self.first, "name": "n"}, Y[index]


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        yield from zip(X, Y, strict=True)


class Broken(Samples):
    def __getitem__(self, index: int) -> Any:
        if index == 0 and torch.is_inference_mode_enabled():
            raise ValueError("no")
        return super().__getitem__(index)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (X, Y),
        lambda: ((X, Y), (X + 1, Y)),
        Samples,
        Stream,
        lambda: DataLoader(TensorDataset(X, Y), batch_size=2, shuffle=True),
    ],
)
def test_the_same_data_has_the_same_fingerprint(make: Any) -> None:
    first, second = (data_from_objects(make(), batch_size=2) for _ in range(2))
    torch.manual_seed(5)
    found = fingerprint(first)
    torch.manual_seed(6)
    assert found == fingerprint(second)
    assert found is not None
    assert found["train"]["batch_size"] == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((X, Y), (X + 1e-6, Y)),
        ((X, Y), (X.double(), Y)),
        ((X, Y), (X, Y.flip(0))),
        ((X, Y), (X[:9], Y[:9])),
        ((X, Y), (X.view(10, 2, 2), Y)),
        ((X, Y), ((X, Y), (X, Y))),
        (((X, Y), (X, Y)), ((X, Y), (X + 1, Y))),
        (Samples(), Samples(1.0)),
    ],
)
def test_other_data_has_another(one: Any, other: Any) -> None:
    prints = [fingerprint(data_from_objects(made, batch_size=2)) for made in (one, other)]
    assert prints[0] != prints[1]
    assert None not in prints


def test_data_that_raises_has_none() -> None:
    data = data_from_objects(Broken(), batch_size=2)
    with torch.inference_mode():
        assert fingerprint(data) is None


def test_a_changed_row_anywhere_in_memory_is_seen() -> None:
    data = load_data(DATASETS["digits"], {})
    before = fingerprint(data)
    data.train.source[0][-1, -1] += 1
    assert fingerprint(data) != before
