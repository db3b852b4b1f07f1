"""User datasets that draw random numbers, raise, or have no length."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

SAMPLES = 23


class Augmented(Dataset[Any]):
    """Sample i is (i, three random numbers) from three libraries, and i mod 3."""

    classes = ("a", "b", "c")

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        drawn = torch.rand(()).item(), random.random(), np.random.rand()  # noqa: NPY002 (users do)
        return torch.tensor([float(index), *drawn], dtype=torch.float64), index % 3


class Stream(IterableDataset[Any]):
    """The same samples one after the other, shared out among workers."""

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        samples = Augmented()
        for index in range(first, SAMPLES, step):
            yield samples[index]


class SizedStream(Stream):
    def __len__(self) -> int:
        return SAMPLES


class UnpicklableError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class Raising(Dataset[Any]):
    """Raises at one index."""

    def __init__(self, error: Exception, at: int = 5) -> None:
        self.error = error
        self.at = at

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        if index == self.at:
            raise self.error
        return torch.tensor([float(index)]), 0


class RaisingStream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        for index in range(6):
            yield torch.tensor([float(index)]), 0
        raise KeyError("sample 6")


def shuffled_loader(batch_size: int = 4, workers: int = 0, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        Augmented(), batch_size=batch_size, shuffle=True, num_workers=workers, **options
    )
