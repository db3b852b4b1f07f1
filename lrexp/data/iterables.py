"""Data without an index: one pass over an iterable is an epoch.

The order is the iterable's own. With several workers each has a copy of it, as everywhere in
torch, and it is the iterable that must share the samples out (torch.utils.data.get_worker_info).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from lrexp.data.batches import EVALUATION, pair_on
from lrexp.data.failure import Failure, attempt, opened
from lrexp.data.randomness import drawn_apart
from lrexp.data.seeds import derive_seed
from lrexp.errors import ConfigError


@dataclass(frozen=True, eq=False)
class IterableBatches:
    """Batches of an iterable that can be passed over again and again.

    Example:
        >>> samples = {(1.0, 0), (2.0, 1), (3.0, 0)}
        >>> [len(x) for x, _ in IterableBatches(samples, batch_size=2).epoch(0, 0)]
        [2]
    """

    dataset: Iterable[Any]
    batch_size: int
    workers: int = 0
    device: torch.device | None = None
    dtype: torch.dtype = torch.float32

    @property
    def num_samples(self) -> int | None:
        """Samples in one pass, if the iterable tells."""
        try:
            return len(self.dataset) if isinstance(self.dataset, Sized) else None
        except (TypeError, NotImplementedError):  # how torch's datasets say: no length
            return None

    @property
    def batches_per_epoch(self) -> int | None:
        """Full batches in one pass, if the iterable tells."""
        return None if self.num_samples is None else self.num_samples // self.batch_size

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
        """Yield the full batches of one pass; the first `start` of them are loaded and dropped.

        Raises:
            ConfigError: if one pass does not fill a single batch.
        """
        one_pass = _Pass(self.dataset, self.batch_size, derive_seed(seed, "augment", epoch))
        is_empty = True
        for number, batch in enumerate(self._loaded(one_pass, self.workers)):
            is_empty = False
            if number >= start:
                yield pair_on(batch, self.device, self.dtype)
        if is_empty:
            raise ConfigError.single(
                "data.batch_size",
                "must not exceed what one pass over the data gives",
                self.batch_size,
                "Lower it; a generator that is used up must be made anew by every __iter__.",
            )

    def in_order(self) -> Iterator[tuple[Any, Any]]:
        """Yield all samples of one pass, the incomplete last batch too."""
        for batch in self._loaded(self._evaluation, self.workers):
            yield pair_on(batch, self.device, self.dtype)

    def peek(self) -> tuple[Any, Any] | None:
        """Return the first batch, read in this process; None if there is none."""
        first = next(self._loaded(self._evaluation, workers=0), None)
        return None if first is None else pair_on(first, None, self.dtype)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> IterableBatches:
        """Return the same batches, each moved to `device` as it comes."""
        return replace(self, device=torch.device(device), dtype=dtype)

    @property
    def _evaluation(self) -> _Pass:
        return _Pass(self.dataset, self.batch_size, derive_seed(0, EVALUATION), keep_rest=True)

    def _loaded(self, one_pass: _Pass, workers: int) -> Iterator[Any]:
        loader: DataLoader[Any] = DataLoader(
            one_pass,
            batch_size=None,  # the pass makes the batches, so that a failure is not left out
            num_workers=workers,
            collate_fn=_as_is,
            pin_memory=self.device is not None and self.device.type == "cuda",
            generator=torch.Generator(),  # else each pass would draw from the caller's
        )
        return map(opened, loader)


@dataclass
class _Pass(IterableDataset[Any]):
    """One pass over the iterable in batches, with random numbers of its own."""

    dataset: Iterable[Any]
    batch_size: int
    seed: int
    keep_rest: bool = field(default=False, kw_only=True)

    def __iter__(self) -> Iterator[Any | Failure]:
        worker = get_worker_info()
        seed = derive_seed(self.seed, "worker", worker.id if worker else 0)
        batches = drawn_apart(self._batches, seed)
        while (batch := attempt(lambda: next(batches, None))) is not None:
            yield batch

    def _batches(self) -> Iterator[Any]:
        samples = iter(self.dataset)
        while batch := list(islice(samples, self.batch_size)):
            if len(batch) == self.batch_size or self.keep_rest:
                yield default_collate(batch)


def _as_is(batch: Any) -> Any:
    return batch
