"""Data that fits: tensors on the device, batched by index.

A batch costs one `index_select` per tensor, about twenty times less than a DataLoader. The epoch's
order is made on the CPU, so that it is the same on every device, and moved once. Images become
tensors in [0, 1] of one size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import (
    TreeSpec,
    tree_flatten,
    tree_flatten_with_path,
    tree_map,
    tree_unflatten,
)
from torch.utils.data import Subset, TensorDataset, default_collate

from lrexp.errors import ConfigError, LrexpError, notes_of
from lrexp.workloads.batches import TARGETS, Data, as_pair, is_tensor, size_of
from lrexp.workloads.samples import read_sample, sample_name
from lrexp.workloads.seeds import permutation

_MOST_TARGETS = 2**24
_MOST_BYTES = 2 * 2**30  # of images, that are kept in memory without being asked to


@dataclass(frozen=True, eq=False)
class Images:
    """A training and a validation set of images, as map-style datasets."""

    train: Any
    val: Any | None
    is_plain: bool  # no transform of the user's, which may be random: may be read once and kept


@dataclass(frozen=True)
class ImageScaling:
    """An image to a float tensor (channels, height, width) in [0, 1].

    Args:
        size: of both sides, in pixels; None keeps the image's own.
    """

    size: int | None = None

    def __call__(self, image: Any) -> torch.Tensor:
        """Return the image as a tensor."""
        from torchvision.transforms import functional

        if self.size is not None:
            image = functional.resize(image, [self.size, self.size], antialias=True)
        tensor: torch.Tensor = image if torch.is_tensor(image) else functional.to_tensor(image)
        return tensor


def stack_images(samples: list[Any]) -> Any:
    """Return a batch of (image, class) samples.

    Raises:
        ConfigError: if the images differ in size.
    """
    require_one_size({tuple(image.shape) for image, _ in samples if torch.is_tensor(image)})
    return default_collate(samples)


def require_one_size(shapes: set[tuple[int, ...]]) -> None:
    """Raise ConfigError if there is more than one shape (channels, height, width)."""
    if len(shapes) > 1:
        found = " and ".join("×".join(map(str, shape)) for shape in sorted(shapes)[:2])
        raise ConfigError.single(
            "data.args.size",
            f"must be given: the images differ in size ({found})",
            None,
            "Set data.args.size to the number of pixels of a side, e.g. 32.",
        )


@contextmanager
def readable(dataset: Any) -> Iterator[None]:
    """Turn what is raised while samples are read into a ConfigError."""
    try:
        yield
    except LrexpError:
        raise
    except Exception as error:  # image decoding raises all sorts
        name, reason = type(dataset).__name__, " ".join(str(error).split())
        which = ", ".join(["has a sample that cannot be read", *notes_of(error)])
        what = f"{which}: {type(error).__name__}: {reason}"
        remedy = "Mend or remove the file, or correct data.args."
        raise ConfigError.single("data.name", what, name, remedy) from error


def require_classes(dataset: Any) -> None:
    """Raise ConfigError unless the samples are (image, class): a detection dataset has boxes."""
    with readable(dataset):
        image, label = as_pair(read_sample(dataset, 0))
    is_label = isinstance(label, int | float) or (torch.is_tensor(label) and label.ndim == 0)
    if not torch.is_tensor(image) or not is_label:
        raise ConfigError.single(
            "data.name",
            "must give pairs (image, class); its target is of another kind",
            f"{type(dataset).__name__} with {type(image).__name__} and {type(label).__name__}",
            "Choose a dataset for classification, or write a dataset of your own.",
        )


def fits_in_memory(*datasets: Any) -> bool:
    """Return whether all images of the datasets need no more than 2 GiB, judged by the first."""
    first, _ = as_pair(datasets[0][0])
    samples = sum(len(dataset) for dataset in datasets)
    return torch.is_tensor(first) and first.nbytes * samples <= _MOST_BYTES


def as_tensors(data: object) -> Any | None:
    """Return `data` with tensors in place of its arrays if it is made of arrays, else None.

    That is an array, a tuple or dict of arrays, nested as they are, a TensorDataset, or a Subset of
    one. Tensors keep their shape, which was chosen for a loss of torch; a target that is a column
    of numbers from numpy or pandas, (samples,), becomes (samples, 1), or a mean squared error would
    broadcast against it.

    Raises:
        ConfigError: if they hold no numbers, differ in length, are empty or not finite.
    """
    if isinstance(data, Subset):
        is_of_tensors = isinstance(data.dataset, TensorDataset | Subset)
        whole = as_tensors(data.dataset) if is_of_tensors else None
        if whole is None:
            return None
        return rows_of(whole, torch.as_tensor(list(data.indices), dtype=torch.int64))
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, list) and len(data) == 2 and all(map(is_array, data)):
        data = tuple(data)
    return _checked(_converted(data)) if is_of_arrays(data) else None


def is_array(value: object) -> bool:
    """Return whether `value` is a tensor, or an array of numpy, pandas or the like."""
    return is_tensor(value) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def is_of_arrays(value: object) -> bool:
    """Return whether `value` is an array, or a tuple or dict of arrays, nested or not."""
    if isinstance(value, Mapping):
        return bool(value) and all(map(is_of_arrays, value.values()))
    if isinstance(value, tuple):
        return bool(value) and all(map(is_of_arrays, value))
    return is_array(value)


def rows_of(data: Any, rows: torch.Tensor | slice | int) -> Any:
    """Return some samples of nested tensors."""
    return tree_map(lambda tensor: tensor[rows], data)


def require_alike(train: Any, val: Any) -> None:
    """Raise ConfigError if samples of the two parts differ in shape."""
    (ours, form), (theirs, other_form) = tree_flatten(train), tree_flatten(val)
    if form != other_form:
        what = "must have entries of one kind in training and validation"
        raise _wrong(what, f"{form} and {other_form}", "Make both sets in the same way.")
    for name, one, other in zip(names_of(train), ours, theirs, strict=True):
        if one.shape[1:] != other.shape[1:]:
            what = f"must have {name} of one shape in training and validation"
            shapes = f"{tuple(one.shape[1:])} and {tuple(other.shape[1:])}"
            raise _wrong(what, shapes, "Make both sets in the same way.")


def collected(batches: Iterable[Any], dataset: Any) -> Any:
    """Return all batches of a dataset as one, of nested tensors.

    Raises:
        ConfigError: if the batches hold no tensors, or their samples differ in size.
    """
    whole: list[torch.Tensor] = []
    num_samples = len(dataset)
    form: TreeSpec | None = None
    done = 0
    for batch in batches:
        parts, form = tree_flatten(batch)
        if not parts or not all(map(is_tensor, parts)):
            kinds = " and ".join(type(part).__name__ for part in parts)
            remedy = "Set data.in_memory: false."
            raise _wrong("must be tensors to be kept in memory", kinds, remedy)
        whole = whole or [part.new_empty((num_samples, *part.shape[1:])) for part in parts]
        require_one_size({tuple(whole[0].shape[1:]), tuple(parts[0].shape[1:])})
        for part, rows in zip(whole, parts, strict=True):
            part[done : done + len(rows)] = rows
        done += len(parts[0])
    assert form is not None
    return _checked(tree_unflatten(whole, form), dataset)


def _converted(data: Any) -> Any:
    """Return nested arrays as tensors, targets as losses want them."""
    if isinstance(data, Mapping):
        return {k: (_as_column if k in TARGETS else _converted)(v) for k, v in data.items()}
    if isinstance(data, tuple):
        *inputs, target = data
        last = _as_column(target) if inputs and is_array(target) else _converted(target)
        return (*map(_converted, inputs), last)
    return _as_tensor(data)


def _as_tensor(values: Any) -> torch.Tensor:
    if is_tensor(values):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "biufc":
        remedy = "Turn text into numbers first."
        raise _wrong("must hold numbers", f"an array of {array.dtype}", remedy)
    return torch.from_numpy(np.array(array))  # a copy: arrays may be read-only or strided backwards


def _as_column(values: Any) -> torch.Tensor:
    tensor = _as_tensor(values)
    if not is_tensor(values) and tensor.ndim == 1 and tensor.is_floating_point():
        return tensor[:, None]
    is_small = tensor.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32)
    return tensor.long() if is_small else tensor


def names_of(data: Any) -> list[str]:
    """Return what the tensors of nested ones are called: inputs and targets, or by their place."""
    if isinstance(data, tuple) and len(data) == 2 and all(map(is_tensor, data)):
        return ["inputs", "targets"]
    paths = [path for path, _ in tree_flatten_with_path(data)[0]]
    return ["entry " + "".join(map(str, path)) if path else "samples" for path in paths]


def _checked(data: Any, dataset: Any = None) -> Any:
    leaves = dict(zip(names_of(data), tree_flatten(data)[0], strict=True))
    shapes = " and ".join(str(tuple(leaf.shape)) for leaf in leaves.values())
    if any(leaf.ndim == 0 for leaf in leaves.values()) or len(set(map(len, leaves.values()))) > 1:
        is_pair = list(leaves) == ["inputs", "targets"]
        what = "as many targets as inputs" if is_pair else "one row per sample in each entry"
        remedy = "Give " + ("(inputs, targets)" if is_pair else "entries") + " of one length."
        raise _wrong(f"must have {what}", shapes, remedy)
    if size_of(data) == 0:
        raise _wrong("must have at least one sample", shapes, "Give it samples.")
    for name, values in leaves.items():
        finite = torch.isfinite(values.flatten(1) if values.ndim > 1 else values[:, None]).all(1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            remedy = "Remove or fill the missing values."
            which = f"sample {row} of {len(values)}"
            if dataset is not None:  # a part of it may have been split off
                which = sample_name(dataset, row)
            raise _wrong(f"must have finite {name}", which, remedy)
    return data


def _wrong(what: str, given: object, remedy: str) -> ConfigError:
    return ConfigError.single("data.name", what, given, remedy)


class ResidentBatches:
    """Batches of nested tensors that live on one device.

    Args:
        data: tensors with a row per sample: (inputs, targets), or any nesting of tuples and dicts.
        batch_size: samples in every training batch.
        source: the data as given, where that was more precise: a later cast starts from it.
        shuffle: whether each epoch has an order of its own.

    Example:
        >>> batches = resident((torch.arange(6.0).view(6, 1), torch.zeros(6, 1)), batch_size=4)
        >>> [tuple(x.shape) for x, _ in batches.epoch(seed=0, epoch=0)]
        [(4, 1)]
        >>> sum(len(x) for x, _ in batches.in_order())
        6
    """

    workers = 0  # there is nothing to load

    def __init__(
        self, data: Any, batch_size: int, *, source: Any = None, shuffle: bool = True
    ) -> None:
        self.data, self.batch_size, self.shuffle = data, batch_size, shuffle
        self.source = data if source is None else source
        self._leaves, self._form = tree_flatten(data)
        self._is_tuple = isinstance(data, tuple) and all(map(is_tensor, data))
        self.num_samples = len(self._leaves[0])

    @property
    def batches_per_epoch(self) -> int:
        """Full batches in one pass."""
        return self.num_samples // self.batch_size

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield the training batches of one pass, without the first `start` of them."""
        size = self.batch_size
        order = self.order(seed, epoch)
        for first in range(start * size, self.batches_per_epoch * size, size):
            yield self.gather(order.narrow(0, first, size))

    def gather(self, rows: torch.Tensor) -> Any:
        """Return the batch of these rows, (batch,); or (copies, batch), a batch for each copy."""
        if rows.ndim == 1:
            found = [leaf.index_select(0, rows) for leaf in self._leaves]
        else:
            flat = rows.flatten()
            found = [
                leaf.index_select(0, flat).view(*rows.shape, *leaf.shape[1:])
                for leaf in self._leaves
            ]
        return tuple(found) if self._is_tuple else tree_unflatten(found, self._form)

    def order(self, seed: int, epoch: int) -> torch.Tensor:
        """Return the rows in the order of one pass, (num_samples,), int64, on the device."""
        device = self._leaves[0].device
        if not self.shuffle:
            return torch.arange(self.num_samples, device=device)
        order = permutation(seed, epoch, self.num_samples)
        if device.type == "cuda":  # from pageable memory, the copy would wait for all steps so far
            return order.pin_memory().to(device, non_blocking=True)
        return order.to(device)

    def in_order(self) -> Iterator[Any]:
        """Yield all samples as they lie, in chunks larger than a training batch."""
        for first in range(0, self.num_samples, self._chunk_size):
            rows = slice(first, first + self._chunk_size)
            # Copies: a forward that works in place must not change the data of later trials.
            yield tree_map(lambda leaf, rows=rows: leaf[rows].clone(), self.data)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> ResidentBatches:
        """Return the same batches with all tensors on `device`; floating ones get `dtype`."""
        moved = tree_map(lambda leaf: _cast(leaf, device, dtype), self.source)
        return ResidentBatches(moved, self.batch_size, source=self.source, shuffle=self.shuffle)

    @property
    def _chunk_size(self) -> int:
        # Without gradients four training batches need no more memory than one with them. Small
        # samples go further, up to 1024, where the calls would cost more than the arithmetic.
        numbers: int = max(1, self._leaves[0][0].numel())
        return max(4 * self.batch_size, min(1024, 2**16 // numbers))


def all_targets(data: Data, pick: Callable[[Any], Any]) -> torch.Tensor | None:
    """Return the targets of both splits; None where they are not in memory, or too many to look at.

    Args:
        data: whose they are.
        pick: batch -> its target.
    """
    sides = [side for side in (data.train, data.val) if side is not None]
    picked = [pick(side.data) for side in sides if isinstance(side, ResidentBatches)]
    found = [part for part in picked if is_tensor(part) and part.numel() <= _MOST_TARGETS]
    is_whole = len(found) == len(sides) and len({tuple(part.shape[1:]) for part in found}) == 1
    return torch.cat(found) if is_whole else None


def resident(data: Any, batch_size: int, *, shuffle: bool = True) -> ResidentBatches:
    """Return batches of nested tensors, floating ones as float32."""
    leaves, _ = tree_flatten(data)
    return ResidentBatches(data, batch_size, shuffle=shuffle).to(leaves[0].device)


def _cast(tensor: torch.Tensor, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
