"""Data given as arrays: two tensors, one row per sample."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset, TensorDataset

from lrexp.data.batches import is_tensor
from lrexp.data.images import require_one_size
from lrexp.errors import ConfigError

Pair = tuple[torch.Tensor, torch.Tensor]


def as_tensors(data: object) -> Pair | None:
    """Return (inputs, targets) if `data` is made of arrays, else None.

    That is a pair of tensors or arrays, a TensorDataset of two, or a Subset of one. Tensors keep
    their shape, which was chosen for a loss of torch; a column of numbers from numpy or pandas,
    (samples,), becomes (samples, 1), or a mean squared error would broadcast against it.

    Raises:
        ConfigError: if they hold no numbers, differ in length, are empty or not finite.
    """
    if isinstance(data, Subset):
        is_of_tensors = isinstance(data.dataset, TensorDataset | Subset)
        whole = as_tensors(data.dataset) if is_of_tensors else None
        if whole is None:
            return None
        rows = torch.as_tensor(list(data.indices), dtype=torch.int64)
        return _checked(whole[0][rows], whole[1][rows])
    if isinstance(data, TensorDataset):
        data = data.tensors
        if len(data) != 2:
            what = "must hold a pair of tensors, inputs and targets"
            raise _wrong(what, f"TensorDataset of {len(data)}", "Give it two.")
    if not isinstance(data, tuple | list) or len(data) != 2 or not all(map(is_array, data)):
        return None
    inputs, targets = data
    return _checked(_as_tensor(inputs), _as_column(targets))


def is_array(value: object) -> bool:
    """Return whether `value` is a tensor, or an array of numpy, pandas or the like."""
    return is_tensor(value) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def require_alike(train: Pair, val: Pair) -> None:
    """Raise ConfigError if samples of the two parts differ in shape."""
    for name, ours, theirs in zip(("inputs", "targets"), train, val, strict=True):
        if ours.shape[1:] != theirs.shape[1:]:
            what = f"must have {name} of one shape in training and validation"
            shapes = f"{tuple(ours.shape[1:])} and {tuple(theirs.shape[1:])}"
            raise _wrong(what, shapes, "Make both sets in the same way.")


def collected(batches: Iterable[tuple[Any, Any]], num_samples: int) -> Pair:
    """Return all batches as one pair of tensors.

    Raises:
        ConfigError: if the batches are no tensors, or their samples differ in size.
    """
    whole: list[torch.Tensor] = []
    done = 0
    for batch in batches:
        if not all(map(is_tensor, batch)):
            kinds = " and ".join(type(part).__name__ for part in batch)
            remedy = "Set data.in_memory: false."
            raise _wrong("must be tensors to be kept in memory", kinds, remedy)
        whole = whole or [part.new_empty((num_samples, *part.shape[1:])) for part in batch]
        require_one_size({tuple(whole[0].shape[1:]), tuple(batch[0].shape[1:])})
        for part, rows in zip(whole, batch, strict=True):
            part[done : done + len(rows)] = rows
        done += len(batch[0])
    return _checked(*whole)


def _as_tensor(values: Any) -> torch.Tensor:
    if is_tensor(values):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        remedy = "Turn text into numbers first."
        raise _wrong("must hold numbers", f"an array of {array.dtype}", remedy)
    return torch.from_numpy(np.array(array))  # a copy: arrays may be read-only or strided backwards


def _as_column(values: Any) -> torch.Tensor:
    tensor = _as_tensor(values)
    if not is_tensor(values) and tensor.ndim == 1 and tensor.is_floating_point():
        return tensor[:, None]
    is_small = tensor.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32)
    return tensor.long() if is_small else tensor


def _checked(inputs: torch.Tensor, targets: torch.Tensor) -> Pair:
    shapes = f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
        remedy = "Give (inputs, targets) with one row per sample in each."
        raise _wrong("must have as many targets as inputs", shapes, remedy)
    if len(inputs) == 0:
        raise _wrong("must have at least one sample", shapes, "Give it samples.")
    for name, values in (("inputs", inputs), ("targets", targets)):
        finite = torch.isfinite(values.flatten(1) if values.ndim > 1 else values[:, None]).all(1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            remedy = "Remove or fill the missing values."
            raise _wrong(f"must have finite {name}", f"sample {row} of {len(values)}", remedy)
    return inputs, targets


def _wrong(what: str, given: object, remedy: str) -> ConfigError:
    return ConfigError.single("data.name", what, given, remedy)
