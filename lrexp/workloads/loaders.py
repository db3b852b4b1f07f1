"""A user's own DataLoader or iterable, used as it is.

Only its randomness is taken over: sampler and generator are seeded for each (seed, epoch), so that
every variant of a seed sees the same batches. Workers that stay alive between epochs keep their own
random numbers. An iterable keeps its own order: one pass over it is an epoch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
    get_worker_info,
)

from lrexp.errors import ConfigError, LrexpError, add_note, notes_of
from lrexp.workloads.batches import EVALUATION, batch_on, size_of
from lrexp.workloads.samples import name_asked, numbered_samples
from lrexp.workloads.seeds import derive_seed, drawn_apart
from lrexp.workloads.streaming import Failure, attempt, collated, opened
from lrexp.workloads.tensors import ResidentBatches, as_tensors, resident

MOST_BYTES = 2**30  # of tensors behind a loader that are moved to the device as a whole


class LoaderBatches:
    """Batches of a user's DataLoader.

    Args:
        loader: gives batches of any kind. A last one that is short is left out of training, as
            any other short one where nobody knows which is the last; those of a batch sampler of
            the user's own may have any size.

    Raises:
        ConfigError: if it gives no batch at all.

    Example:
        >>> dataset = torch.utils.data.TensorDataset(torch.zeros(6, 1), torch.zeros(6, 1))
        >>> batches = LoaderBatches(DataLoader(dataset, batch_size=4, shuffle=True))
        >>> batches.num_samples, batches.batches_per_epoch
        (6, 1)
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.loader = loader
        self.device = device
        self.dtype = dtype
        self._busy = False
        self.workers = loader.num_workers
        self.batch_size, self.num_samples, self.batches_per_epoch, self._last = _sizes(loader)

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield the full batches of one pass; the first `start` of them are loaded and dropped."""
        full = _full_size(self.loader) or 0
        for number, batch in enumerate(self._drawn(derive_seed(seed, "order", epoch))):
            is_last = self._last is None or number == self._last
            if is_last and size_of(batch) < full:
                continue
            if number >= start:
                yield batch_on(batch, self.device, self.dtype)

    def in_order(self) -> Iterator[Any]:
        """Yield what one pass of the loader gives, in an order that is the same every time."""
        for batch in self._drawn(derive_seed(0, EVALUATION)):
            yield batch_on(batch, self.device, self.dtype)

    def peek(self) -> Any | None:
        """Return the first batch; None if there is none."""
        first = next(self._drawn(derive_seed(0, EVALUATION)), None)
        return None if first is None else batch_on(first, None, self.dtype)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> LoaderBatches:
        """Return the same batches, each moved to `device` as it comes."""
        moved = copy.copy(self)
        moved.device, moved.dtype, moved._busy = torch.device(device), dtype, False
        return moved

    def _drawn(self, seed: int) -> Iterator[Any]:
        loader = self.loader
        if self._busy and loader.persistent_workers:
            # A second pass would reset the workers under the first; it gets its own.
            loader = copy.copy(loader)
            loader._iterator = None
        is_first, self._busy = not self._busy, True
        try:
            yield from drawn_apart(lambda: loader, seed, _generators(loader))
        except Exception as error:
            name = name_asked(loader.dataset, error.__traceback__)
            if name and not isinstance(error, LrexpError) and not notes_of(error):
                add_note(error, name)
            raise
        finally:
            self._busy = not is_first


def resident_loader(loader: DataLoader[Any]) -> ResidentBatches | None:
    """Return the batches of a DataLoader that does no more than cut and shuffle tensors.

    By index they cost a twentieth of what they cost sample by sample. None for a loader with
    anything of its own (a sampler, a collate function, workers, a generator), and for one of more
    than a gigabyte: who batches that much may not have room for it on the device.
    """
    sampler = loader.sampler
    is_plain = (
        type(loader) is DataLoader
        and type(loader.batch_sampler) is BatchSampler
        and type(sampler) in (RandomSampler, SequentialSampler)
        and loader.collate_fn is default_collate
        and loader.num_workers == 0
        and loader.generator is None
    )
    whole = as_tensors(loader.dataset) if is_plain and _holds_tensors(loader.dataset) else None
    if whole is None or loader.batch_size is None or size_of(whole) < loader.batch_size:
        return None
    if sum(tensor.nbytes for tensor in whole) > MOST_BYTES:
        return None
    if not isinstance(sampler, RandomSampler):
        return resident(whole, loader.batch_size, shuffle=False)
    if sampler.replacement or sampler.num_samples != size_of(whole):
        return None
    return resident(whole, loader.batch_size)


def _holds_tensors(dataset: object) -> bool:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return isinstance(dataset, TensorDataset)


def _sizes(loader: DataLoader[Any]) -> tuple[int, int | None, int | None, int | None]:
    """Return (batch size, samples in a pass, full batches in a pass, number of the last batch).

    The size is that of a mean batch where a sampler of the user's own makes them of any size.
    """
    if loader.batch_sampler is not None and not isinstance(loader.dataset, IterableDataset):
        # Counting what the sampler gives is right for any sampler; len(loader) counts the rest too.
        sampler = loader.batch_sampler
        counts = [len(rows) for rows in drawn_apart(lambda: sampler, 0, _generators(loader))]
        size = _full_size(loader)
        is_short = bool(size and counts and counts[-1] < size)
        mean = _some(size if size and counts else round(sum(counts) / max(len(counts), 1)))
        return mean, sum(counts), len(counts) - is_short, len(counts) - 1
    size = loader.batch_size or 0
    if loader.batch_size is None:
        first = next(drawn_apart(lambda: loader, 0, _generators(loader)), None)
        size = 0 if first is None else size_of(first)
    return _some(size), *_declared(loader, size), None


def _full_size(loader: DataLoader[Any]) -> int | None:
    """Return the size of a full batch, None where batches may be of any size."""
    if type(loader.batch_sampler) is BatchSampler:  # batch_sampler= leaves loader.batch_size None
        return int(loader.batch_sampler.batch_size)
    return loader.batch_size


def _some(size: int) -> int:
    if size > 0:
        return size
    what = "must give at least one batch"
    raise ConfigError.single("data.name", what, "an empty DataLoader", "Give it samples.")


def _declared(loader: DataLoader[Any], size: int) -> tuple[int | None, int | None]:
    """Return (samples, full batches) of a loader whose batches cannot be counted beforehand."""
    try:
        total = len(loader.dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None, None
    if loader.batch_size is None:  # every item of the dataset is a batch
        return total * size, total
    return total, total // size


def _generators(loader: DataLoader[Any]) -> list[torch.Generator]:
    """Return the generators that belong to the loader and its samplers, each once."""
    batch_sampler = loader.batch_sampler
    owners = [loader, loader.sampler, batch_sampler, getattr(batch_sampler, "sampler", None)]
    found = {id(g): g for owner in owners if (g := getattr(owner, "generator", None)) is not None}
    return list(found.values())


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

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield the full batches of one pass; the first `start` of them are loaded and dropped.

        Raises:
            ConfigError: if one pass does not fill a single batch.
        """
        one_pass = _Pass(self.dataset, self.batch_size, derive_seed(seed, "augment", epoch))
        is_empty = True
        for number, batch in enumerate(self._loaded(one_pass, self.workers)):
            is_empty = False
            if number >= start:
                yield batch_on(batch, self.device, self.dtype)
        if is_empty:
            raise ConfigError.single(
                "data.batch_size",
                "must not exceed what one pass over the data gives",
                self.batch_size,
                "Lower it; a generator that is used up must be made anew by every __iter__.",
            )

    def in_order(self) -> Iterator[Any]:
        """Yield all samples of one pass, the incomplete last batch too."""
        for batch in self._loaded(self._evaluation, self.workers):
            yield batch_on(batch, self.device, self.dtype)

    def peek(self) -> Any | None:
        """Return the first batch, read in this process; None if there is none."""
        first = next(self._loaded(self._evaluation, workers=0), None)
        return None if first is None else batch_on(first, None, self.dtype)

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
        samples = numbered_samples(iter(self.dataset), type(self.dataset).__name__)
        while batch := list(islice(samples, self.batch_size)):
            if len(batch) == self.batch_size or self.keep_rest:
                yield collated(batch)


def _as_is(batch: Any) -> Any:
    return batch
