"""Data that is read while training: map-style datasets through torch's DataLoader with workers.

The workers receive (seed, epoch, index) for every sample and seed the random numbers from it. So
the augmentation of a sample does not depend on the number of workers or on who reads it. An
exception travels out of a worker as a value and is raised again as itself, with the worker's
traceback as its cause.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from lrexp.errors import LoaderProcessError, LrexpError, add_note, notes_of
from lrexp.workloads.batches import EVALUATION, batch_on
from lrexp.workloads.samples import read_sample, samples_name
from lrexp.workloads.seeds import derive_seed, permutation, random_state_kept, reseed

T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """What a worker sends instead of a batch."""

    error: Exception
    traceback: LoaderProcessError
    notes: list[str]  # pickling may lose those of the exception


def attempt(read: Callable[[], T]) -> T | Failure:
    """Return `read()`; in a worker process, what it raises is returned as a `Failure`."""
    if get_worker_info() is None:
        return read()
    try:
        return read()
    except Exception as error:
        return Failure(_picklable(error), LoaderProcessError.of(error), notes_of(error))


def opened(value: T | Failure) -> T:
    """Return the value that a worker sent, or raise the exception that it had."""
    if not isinstance(value, Failure):
        return value
    for note in value.notes:
        if note not in notes_of(value.error):
            add_note(value.error, note)
    raise value.error from value.traceback


def _picklable(error: Exception) -> Exception:
    try:
        same = pickle.loads(pickle.dumps(error))
        if type(same) is type(error) and str(same) == str(error):
            return error
    except Exception:  # whatever a user's exception does when pickled
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")


Key = tuple[int, int, int]  # (seed, epoch, index)
_EVALUATION_SEED = derive_seed(0, EVALUATION)


class StreamingBatches:
    """Batches of a map-style dataset, loaded in the background where there are workers.

    Args:
        dataset: has `__len__` and `__getitem__`; samples are pairs (inputs, target).
        batch_size: samples in every training batch.
        workers: loading processes; 0 loads in this process.
        collate: makes a batch of a list of samples.
        device: where batches are moved to.
        dtype: of floating tensors; None leaves them as they are.

    Example:
        >>> dataset = [(torch.tensor([float(i)]), i % 2) for i in range(6)]
        >>> batches = StreamingBatches(dataset, batch_size=4)
        >>> [len(x) for x, _ in batches.epoch(seed=0, epoch=0)]
        [4]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = torch.float32,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.workers = workers
        self.collate = collate or collated
        self.device = device
        self.dtype = dtype
        self._plan = _Plan()
        self._loader: DataLoader[Any] | None = None  # kept, with its workers, from pass to pass
        self._busy = False

    @property
    def num_samples(self) -> int:
        """Samples in one pass."""
        return len(self.dataset)

    @property
    def batches_per_epoch(self) -> int:
        """Full batches in one pass."""
        return self.num_samples // self.batch_size

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield the training batches of one pass; the first `start` of them are not even loaded."""
        order = permutation(seed, epoch, self.num_samples)
        size = self.batch_size
        firsts = range(start * size, self.batches_per_epoch * size, size)
        return self._loaded(
            [(seed, epoch, index) for index in order[first : first + size].tolist()]
            for first in firsts
        )

    def in_order(self) -> Iterator[Any]:
        """Yield all samples as they lie; random augmentation is the same at every evaluation."""
        total, size = self.num_samples, self.batch_size
        return self._loaded(
            [(_EVALUATION_SEED, 0, index) for index in range(first, min(first + size, total))]
            for first in range(0, total, size)
        )

    def peek(self) -> Any:
        """Return a batch of the first sample alone, read in this process."""
        batch = _Samples(self.dataset, self.collate).read([(_EVALUATION_SEED, 0, 0)])
        return batch_on(batch, None, self.dtype)

    def to(
        self, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> StreamingBatches:
        """Return the same batches, each moved to `device` as it comes."""
        return StreamingBatches(
            self.dataset,
            self.batch_size,
            workers=self.workers,
            collate=self.collate,
            device=torch.device(device),
            dtype=dtype,
        )

    def _loaded(self, batches: Iterable[list[Key]]) -> Iterator[Any]:
        plan, loader, is_ours = self._idle_loader()
        plan.batches = batches
        self._busy = self._busy or is_ours
        try:
            for batch in map(opened, loader):
                yield batch_on(batch, self.device, self.dtype)
        except Exception:
            # Let go of the workers before a traceback holds on to them: found by the garbage
            # collector later, they are not told to stop and are waited for in vain, 5 seconds.
            self._loader = None
            del loader
            raise
        finally:
            self._busy = self._busy and not is_ours

    def _idle_loader(self) -> tuple[_Plan, DataLoader[Any], bool]:
        """Return a plan, its loader and whether it is the kept one.

        Two passes at once, such as an evaluation amid an epoch, cannot share a set of persistent
        workers: the second would reset the first. The second gets workers for itself.
        """
        if self._busy:
            plan = _Plan()
            return plan, self._new_loader(plan, keep_workers=False), False
        if self._loader is None:
            self._loader = self._new_loader(self._plan, keep_workers=self.workers > 0)
        return self._plan, self._loader, True

    def _new_loader(self, plan: _Plan, *, keep_workers: bool) -> DataLoader[Any]:
        return DataLoader(
            _Samples(self.dataset, self.collate),
            batch_sampler=plan,
            num_workers=self.workers,
            collate_fn=_as_is,
            pin_memory=self.device is not None and self.device.type == "cuda",
            persistent_workers=keep_workers,
            generator=torch.Generator(),  # else each pass would draw from the caller's
        )


@dataclass
class _Plan:
    """The batches of the next pass: a batch sampler that is filled anew every time."""

    batches: Iterable[list[Key]] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)


@dataclass(frozen=True)
class _Samples(Dataset[Any]):
    """The dataset as a worker sees it: whole batches, by (seed, epoch, index)."""

    dataset: Any
    collate: Callable[[list[Any]], Any]

    def __getitems__(self, keys: list[Key]) -> Any | Failure:
        return attempt(lambda: self.read(keys))

    def __getitem__(self, key: Key) -> Any | Failure:
        return self.__getitems__([key])

    def read(self, keys: list[Key]) -> Any:
        samples = []
        with random_state_kept():
            for seed, epoch, index in keys:
                reseed(derive_seed(seed, "augment", epoch, index))
                samples.append(read_sample(self.dataset, index))
            try:
                return self.collate(samples)
            except Exception as error:
                if not isinstance(error, LrexpError):
                    add_note(error, samples_name(self.dataset, [index for *_, index in keys]))
                raise


def collated(samples: list[Any]) -> Any:
    """Return the samples as torch's `default_collate` does, but tuples in them stay tuples."""
    return _like(samples[0], default_collate(samples))


def _like(sample: Any, batch: Any) -> Any:
    if isinstance(sample, tuple) and isinstance(batch, list):
        return tuple(map(_like, sample, batch))
    if isinstance(sample, Mapping) and isinstance(batch, Mapping):
        return {key: _like(sample[key], value) for key, value in batch.items()}
    return batch


def _as_is(batch: Any) -> Any:
    return batch
