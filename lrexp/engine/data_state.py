"""What a user's dataset, sampler and collate function keep to themselves: does training change it?

A random generator of its own, a counter of passes: no checkpoint holds such, and it outlives the
trial. The look at it is a light one, for data can be large: containers by their ends, large
arrays and tensors by which they are.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from lrexp.engine.state import NotCapturable, outlives
from lrexp.engine.task import Task
from lrexp.engine.vectorized.fingerprint import (
    Fingerprint,
    Same,
    attributes,
    first_difference,
    generator_state,
    is_own,
    references,
    references_of_class,
    version,
)
from lrexp.workloads.batches import Batches
from lrexp.workloads.loaders import IterableBatches, LoaderBatches
from lrexp.workloads.streaming import StreamingBatches

_WIDEST = 1024  # entries of a container that are looked at
_MOST = 50_000  # values
_LARGE = 4096  # bytes that are compared as such
_OPEN = ("torch", "torchvision", "functools", "lrexp")  # their objects hold those of the user


class DataState:
    """The data of a task as they are when its training begins."""

    def __init__(self, task: Task) -> None:
        self._parts = [*_parts(task.train), *_parts(task.val)]
        self._why = _why_unseen(task.train) or _why_unseen(task.val)
        self._before = _fingerprint(self._parts)

    def require_unchanged(self) -> None:
        """Let a checkpoint be complete.

        Raises:
            NotCapturable: something of the data has changed, or that cannot be seen.
        """
        if self._why is not None:
            raise NotCapturable(self._why)
        if found := first_difference(self._before, _fingerprint(self._parts)):
            raise outlives(f"`{found[1]}` of its {found[0]}" if found[1] else f"its {found[0]}")


def _parts(batches: Batches | None) -> Iterator[tuple[str, Any]]:
    """Yield names and objects of the user's own."""
    if isinstance(batches, StreamingBatches):
        yield from (("dataset", batches.dataset), ("collate function", batches.collate))
    elif isinstance(batches, IterableBatches):
        yield "dataset", batches.dataset
    elif isinstance(batches, LoaderBatches):
        loader = batches.loader
        yield from (("dataset", loader.dataset), ("sampler", loader.sampler))
        yield from (("sampler", loader.batch_sampler), ("collate function", loader.collate_fn))


def _why_unseen(batches: Batches | None) -> str | None:
    """Return why it cannot be seen from here whether the data have changed."""
    if isinstance(batches, StreamingBatches) and batches.workers:
        for part, value in _parts(batches):
            look = _Look()
            look(value)
            if look.saw_generator:
                return (
                    f"its {part} keeps random numbers of its own, in processes that live on: take "
                    "them from torch, numpy.random or random, or set data.workers: 0"
                )
    if not isinstance(batches, LoaderBatches) or not batches.loader.persistent_workers:
        return None
    if _is_of_tensors(batches.loader.dataset):
        return None
    return (
        "the processes of its DataLoader live on, and with them their random numbers: leave "
        "persistent_workers out"
    )


def _is_of_tensors(dataset: object) -> bool:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return isinstance(dataset, TensorDataset)


def _fingerprint(parts: list[tuple[str, Any]]) -> Fingerprint:
    look, seen = _Look(), Fingerprint()
    for part, value in parts:
        is_object = hasattr(value, "__dict__") and not isinstance(value, FunctionType | MethodType)
        for name, held in _inside(value) if is_object else [("", value)]:
            seen.setdefault((part, name), []).append(look(held))
    return seen


class _Look:
    """Turns a value into something that can be compared later."""

    def __init__(self) -> None:
        self.saw_generator = False
        self._left = _MOST
        self._been: dict[int, Any] = {}  # held, so that their ids are not given away

    def __call__(self, value: Any) -> Any:
        self._left -= 1
        if (state := generator_state(value)) is not None:
            self.saw_generator = True
            return state
        if isinstance(value, bool | int | float | complex | None):
            return type(value), repr(value)  # NaN is equal to itself this way
        if isinstance(value, str | bytes | Tensor | np.ndarray | np.generic):
            return _itself(value)
        if self._left <= 0 or id(value) in self._been or isinstance(value, _OPAQUE):
            return type(value)
        self._been[id(value)] = value
        return self._inside(value)

    def _inside(self, value: Any) -> Any:
        if isinstance(value, dict):
            ends = _ends(list(value.items()))
            return type(value), len(value), [(self(key), self(held)) for key, held in ends]
        if isinstance(value, list | tuple | deque):
            return type(value), len(value), [self(held) for held in _ends(value)]
        if isinstance(value, set | frozenset):
            is_small = len(value) <= _WIDEST
            return type(value), len(value), set(map(repr, value)) if is_small else None
        return type(value), [(name, self(held)) for name, held in _inside(value)]


def _itself(value: Any) -> Any:
    """Return a text or an array if it is small, and else which one it is."""
    if isinstance(value, Tensor):
        return Same(value, (value.shape, version(value)))
    if isinstance(value, str | bytes):
        return value if len(value) <= _LARGE else Same(value)
    is_small = value.nbytes <= _LARGE and not value.dtype.hasobject
    return value.tobytes() if is_small else Same(value, value.shape)


_OPAQUE = (ModuleType, type, logging.Logger)


def _inside(value: Any) -> list[tuple[str, Any]]:
    """Return what an object refers to; of a library's own, only its random generators."""
    if isinstance(value, FunctionType | MethodType):
        return list(references(value))
    held = attributes(value)
    package = type(value).__module__
    if not is_own(package) and package.split(".", maxsplit=1)[0] not in _OPEN:
        return [(name, inner) for name, inner in held if generator_state(inner) is not None]
    return [*held, *references_of_class(type(value))]


def _ends(items: Any) -> list[Any]:
    if len(items) <= _WIDEST:
        return list(items)
    half = _WIDEST // 2
    return [items[i] for i in (*range(half), *range(len(items) - half, len(items)))]
