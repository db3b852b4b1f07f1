"""What training sees of any data: batches in an order that (seed, epoch) fixes.

Resident tensors, map-style datasets, iterables and a user's own DataLoader give them; the training
loop knows only the protocol here. `Facts` are what a model may need to know of the data; `None`
means that one does not apply, or that all data would have to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeGuard, TypeVar

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from lrexp.errors import ConfigError
from lrexp.workloads.table import Size

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Facts:
    """What is known of the training data.

    Example:
        >>> facts_of(torch.zeros(5, 3), torch.zeros(5, 1), num_samples=5).in_features
        3
    """

    num_samples: int | None = None
    in_features: int | None = None  # numbers per sample; for images all of them, C·H·W
    in_channels: int | None = None
    image_size: int | None = None  # None for images that are not square
    num_classes: int | None = None
    out_features: int | None = None  # numbers that a model must give per sample
    vocab_size: int | None = None
    seq_len: int | None = None


def facts_of(
    inputs: Any,
    targets: Any,
    *,
    num_samples: int | None,
    num_classes: int | None = None,
    vocab_size: int | None = None,
    complete: bool = True,
) -> Facts:
    """Return the facts of a batch, or of all samples.

    Args:
        inputs: (samples, features), (samples, channels, height, width), or whole numbers
            (samples, length), which are taken for tokens. Anything else gives no facts.
        targets: (samples,) whole numbers are classes; floating ones are regression.
        num_samples: of the training set.
        num_classes: where the source knows it.
        vocab_size: where the source knows it.
        complete: whether these are all samples, so that the largest label counts the classes.
    """
    if not isinstance(inputs, torch.Tensor) or inputs.ndim == 0:
        return Facts(num_samples=num_samples, num_classes=num_classes, out_features=num_classes)
    shape = inputs.shape[1:]
    is_tokens = _is_whole(inputs, ndim=2)
    is_image = len(shape) == 3
    num_classes = _classes_of_targets(targets, num_classes, complete)
    if is_tokens and vocab_size is None and complete:
        vocab_size = _largest(inputs, targets if _is_whole(targets, ndim=2) else inputs) + 1
    return Facts(
        num_samples=num_samples,
        in_features=None if is_tokens else shape.numel(),
        in_channels=shape[0] if is_image else None,
        image_size=shape[1] if is_image and shape[1] == shape[2] else None,
        num_classes=num_classes,
        out_features=_out_features(targets, num_classes),
        vocab_size=vocab_size,
        seq_len=shape[0] if is_tokens else None,
    )


def _classes_of_targets(targets: Any, known: int | None, complete: bool) -> int | None:
    if not _is_whole(targets, ndim=1):
        return None
    return max(known or 0, _largest(targets) + 1) if complete else known


def _out_features(targets: Any, num_classes: int | None) -> int | None:
    if not isinstance(targets, torch.Tensor) or not targets.is_floating_point():
        return num_classes
    return {1: 1, 2: targets.shape[-1]}.get(targets.ndim)


def _is_whole(values: Any, ndim: int) -> bool:
    if not isinstance(values, torch.Tensor) or values.ndim != ndim:
        return False
    return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)


def _largest(*tensors: torch.Tensor) -> int:
    return max(int(tensor.max()) for tensor in tensors)


# The roles of the fixed random numbers that an evaluation uses, whatever the seed of the trial.
EVALUATION = "evaluation"
COUNTED_SAMPLES = 5_000


class Batches(Protocol):
    """Training batches of exactly `batch_size` samples, and all samples in a fixed order."""

    @property
    def num_samples(self) -> int | None:
        """Samples in one pass; None for an iterable without length."""

    @property
    def batch_size(self) -> int:
        """Samples in every training batch; an incomplete last one is left out."""

    @property
    def batches_per_epoch(self) -> int | None:
        """Training batches in one pass; None for an iterable without length."""

    @property
    def workers(self) -> int:
        """Processes that load the batches; 0 where this one does."""

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield the training batches of one pass, without the first `start` of them."""

    def in_order(self) -> Iterator[Any]:
        """Yield all samples in a fixed order, for evaluation; nothing is left out."""

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Batches:
        """Return the same batches on `device`; floating tensors get `dtype`."""


@dataclass(frozen=True)
class Data:
    """Training and validation batches, and what a model may need to know about them."""

    train: Batches
    val: Batches | None
    facts: Facts
    # outputs and targets back to the unit of the file, where targets were standardised or logged
    original: Callable[[torch.Tensor], torch.Tensor] | None = None
    done: dict[str, str] | None = None  # what was made of a file and of each column, in words

    @property
    def size(self) -> Size:
        """How much training data there is, as durations see it."""
        return Size(self.train.batch_size, self.train.batches_per_epoch, self.facts.seq_len)

    @cached_property
    def counted_facts(self) -> Facts:
        """The facts with the classes counted, where only the labels of a small dataset tell them.

        That reads every sample once, so it is done when a model asks for the number, and for up
        to 5,000 samples.
        """
        size = self.train.num_samples
        if self.facts.num_classes is not None or size is None or size > COUNTED_SAMPLES:
            return self.facts
        largest = -1
        for batch in self.train.in_order():
            _, labels = example_of(batch)
            if not is_tensor(labels) or labels.ndim != 1 or labels.is_floating_point():
                return self.facts
            largest = max(largest, int(labels.max()))
        return replace(self.facts, num_classes=largest + 1, out_features=largest + 1)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Data:
        """Return the same data on `device`; floating tensors get `dtype`."""
        val = None if self.val is None else self.val.to(device, dtype)
        return replace(self, train=self.train.to(device, dtype), val=val)


def size_of(batch: Any) -> int:
    """Return how many samples a batch has: the length of its last tensor, a target as a rule.

    Raises:
        ConfigError: it holds no tensor with a dimension.

    Example:
        >>> size_of({"ids": torch.zeros(4, 7), "labels": torch.zeros(4)})
        4
    """
    last = batch[-1] if isinstance(batch, tuple | list) and batch else None
    if isinstance(last, list) or (is_tensor(last) and last.ndim):  # the usual one
        return len(last)
    if isinstance(batch, Mapping):
        return size_of(example_of(batch))
    sizes = [len(leaf) for leaf in tree_leaves(batch) if is_tensor(leaf) and leaf.ndim]
    if not sizes:
        what, remedy = "must give batches that hold tensors", "Let its collate_fn make tensors."
        raise ConfigError.single("data.name", what, type(batch).__name__, remedy)
    return sizes[-1]


def example_of(batch: Any) -> tuple[Any, Any]:
    """Return what of a batch a model sees first, and its target, as far as its form tells.

    Example:
        >>> example_of({"x": 1, "labels": 2})
        (1, 2)
    """
    if isinstance(batch, Mapping):
        target = next((batch[key] for key in TARGETS if key in batch), None)
        return next((v for k, v in batch.items() if k not in TARGETS), target), target
    if isinstance(batch, tuple | list):
        return batch[0], batch[-1]
    return batch, batch


def batch_on(batch: Any, device: torch.device | None, dtype: torch.dtype | None) -> Any:
    """Return a batch, moved and cast; targets that are small whole numbers become int64.

    Mappings of any class become dicts: what tokenizers return is one.
    """
    found = moved(batch, device, dtype)
    if isinstance(found, list):
        found = tuple(found)
    if isinstance(found, tuple) and len(found) > 1 and _is_small(found[-1]):
        return (*found[:-1], found[-1].long())  # what cross_entropy asks for
    if isinstance(found, dict):
        return {k: v.long() if k in TARGETS and _is_small(v) else v for k, v in found.items()}
    return found


def as_pair(sample: object) -> tuple[Any, Any]:
    """Return a sample or batch as (inputs, targets).

    Raises:
        ConfigError: if it is no tuple or list of two.
    """
    if isinstance(sample, tuple | list) and len(sample) == 2:
        return sample[0], sample[1]
    size = f" of {len(sample)}" if isinstance(sample, tuple | list | dict) else ""
    raise ConfigError.single(
        "data.name",
        "every sample must be a pair (inputs, target)",
        f"{type(sample).__name__}{size}",
        "Return two things from the dataset; put several inputs into a tuple or dict of their own.",
    )


def is_tensor(value: object) -> TypeGuard[torch.Tensor]:
    """Return whether `value` is a tensor."""
    return isinstance(value, torch.Tensor)


def placed(module: Module, device: torch.device, dtype: torch.dtype) -> Module:
    """Return a module on a device, cast as `moved` casts; `Module.to` makes complex ones real."""
    tensors = (*module.parameters(), *module.buffers())
    if not any(tensor.dtype.is_complex for tensor in tensors):
        return module.to(device, dtype)
    cast: Callable[..., Module] = module._apply
    return cast(lambda tensor: moved(tensor, device, dtype))


TARGETS = ("labels", "label", "targets", "target", "y")  # keys of dict batches, in this order
_SMALL_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32)


def _is_small(value: Any) -> bool:
    return is_tensor(value) and value.dtype in _SMALL_WHOLE


def moved(value: Any, device: torch.device | None, dtype: torch.dtype | None) -> Any:
    """Return nested tensors on a device; real floating ones get `dtype`, all others keep theirs."""
    if is_tensor(value):
        wanted = dtype if value.is_floating_point() else None
        return value.to(device, wanted, non_blocking=device is not None and device.type == "cuda")
    if isinstance(value, Mapping):
        return {key: moved(entry, device, dtype) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        entries = [moved(entry, device, dtype) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    return value
