"""The two ways to data: by a name or import path with its arguments, and from Python objects.

A fingerprint says later whether the data is still the same: data in memory is hashed as a whole, up
to a bound; of other data the first sample or batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset

from lrexp.errors import ConfigError
from lrexp.schedules.signatures import Count, Natural, checked
from lrexp.workloads.batches import Batches, Data, Facts, example_of, facts_of, is_tensor, size_of
from lrexp.workloads.builtin_data import DATASETS
from lrexp.workloads.loaders import IterableBatches, LoaderBatches, resident_loader
from lrexp.workloads.sources import Source, is_map_style, recognised
from lrexp.workloads.splits import Split, parse_split
from lrexp.workloads.streaming import StreamingBatches
from lrexp.workloads.table import BATCH_SIZE, no_full_batch
from lrexp.workloads.tensors import (
    ResidentBatches,
    collected,
    fits_in_memory,
    is_of_arrays,
    readable,
    require_alike,
    resident,
    rows_of,
)
from lrexp.workloads.torchvision_data import TorchvisionDataset

MAX_BYTES = 2**26  # of each tensor in memory; about 0.1 s


@runtime_checkable
class Peekable(Protocol):
    """Batches that show their first one without starting to load."""

    def peek(self) -> tuple[Any, Any] | None:
        """Return the first batch."""


def fingerprint(data: Data) -> dict[str, Any] | None:
    """Return sizes and a hash of the data; None where it raises, which training will tell.

    Example:
        >>> fingerprint(load_data(DATASETS["digits"], {}))  # doctest: +SKIP
        {'train': {'samples': 1438, 'batch_size': 64, 'sha256': '5c1f...'}, 'val': {...}}
    """
    try:
        sides = {"train": data.train, "val": data.val}
        return {name: _of_side(side) for name, side in sides.items() if side is not None}
    except Exception:  # of user code
        return None


def start_of_zero(data: Data) -> float:
    """Return the mean square of the targets in memory that are numbers, 0 of all others.

    Example:
        >>> made = (torch.zeros(2, 1), torch.full((2, 1), 300.0))
        >>> start_of_zero(data_from_objects(made, batch_size=2))
        90000.0
    """
    if not isinstance(data.train, ResidentBatches):
        return 0.0
    _, target = example_of(data.train.data)
    is_given = is_tensor(target) and target is not data.train.data and target.is_floating_point()
    return float(target.double().square().mean()) if is_given else 0.0


def _of_side(batches: Batches) -> dict[str, Any]:
    digest = hashlib.sha256()
    for sample in _samples(batches):
        _add(digest, sample)
    size, samples = batches.batch_size, batches.num_samples
    return {"samples": samples, "batch_size": size, "sha256": digest.hexdigest()}


def _samples(batches: Batches) -> Iterator[Any]:
    if isinstance(batches, ResidentBatches):
        for tensor in tree_leaves(batches.source):
            row = max(1, tensor[:1].numel() * tensor.element_size())
            yield tensor[: max(1, MAX_BYTES // row)]
    elif isinstance(batches, Peekable):
        yield batches.peek()


def _add(digest: Any, value: Any) -> None:
    if is_tensor(value):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        for key in value:
            digest.update(str(key).encode())
            _add(digest, value[key])
    elif isinstance(value, tuple | list):
        for entry in value:
            _add(digest, entry)
    elif isinstance(value, str | int | float | bool | None):
        digest.update(repr(value).encode())


InMemory = Literal["auto"] | bool


def load_data(
    factory: Callable[..., Any],
    args: Mapping[str, Any],
    *,
    batch_size: int | None = None,
    val_fraction: float | None = None,
    workers: int = 0,
    in_memory: InMemory = "auto",
    split: Any = None,
    directory: Path | None = None,
) -> Data:
    """Return the data that `factory(**args)` makes.

    Args:
        factory: of DATASETS, from `torchvision_dataset`, or the user's own.
        args: its arguments.
        batch_size: samples in every training batch; None is 64, or a DataLoader's own.
        val_fraction: in [0, 1), of a source that has no validation set of its own; None is 0.2,
            and nothing for DataLoaders and iterables, which cannot be split.
        workers: loading processes for data that is not in memory.
        in_memory: keep all samples as tensors; `auto` decides by what the data is.
        split: random, stratified, last, {column: NAME} or {groups: NAME}; None leaves it to the
            data.
        directory: that relative paths of built-in data start from; a user's factory gets its
            arguments as they are.

    Raises:
        ConfigError: with keys `data.…`, for anything that a change of the config can mend.
        RunError: if a download is not possible.

    Example:
        >>> data = load_data(DATASETS["digits"], {}, batch_size=64)
        >>> data.facts.num_classes, data.train.batches_per_epoch
        (10, 22)
    """
    return data_from_objects(
        factory(**_located(factory, args, directory)),
        batch_size=batch_size,
        val_fraction=val_fraction,
        workers=workers,
        in_memory=in_memory,
        split=split,
    )


@checked("data")
def data_from_objects(
    made: Any,
    *,
    batch_size: Count | None = None,
    val_fraction: float | None = 0.0,
    workers: Natural = 0,
    in_memory: InMemory = "auto",
    split: Any = None,
) -> Data:
    """Return the data that Python objects give: (train, val) or train.

    Each is a pair (inputs, targets) of tensors or arrays, or any nesting of tuples and dicts of
    them, a TensorDataset, a map-style or iterable dataset, or a DataLoader, used as it is.

    Args:
        made: the objects.
        batch_size: as for `load_data`.
        val_fraction: as for `load_data`.
        workers: as for `load_data`.
        in_memory: as for `load_data`.
        split: as for `load_data`.

    Raises:
        ConfigError: with keys `data.…`.

    Example:
        >>> import torch
        >>> data = data_from_objects((torch.zeros(8, 3), torch.zeros(8, 1)), batch_size=4)
        >>> data.facts.in_features
        3
    """
    source = recognised(made, val_fraction, _split_of(split))
    options = _Options(batch_size, workers, _is_kept(source, in_memory), in_memory)
    train = _batched(source.train, source, options)
    if train.batches_per_epoch == 0:
        raise no_full_batch(train.num_samples, train.batch_size)
    # A validation set never gives training batches, so the size of a DataLoader's is its own.
    val_options = replace(options, batch_size=train.batch_size)
    val = None if source.val is None else _batched(source.val, source, val_options, is_val=True)
    if isinstance(train, ResidentBatches) and isinstance(val, ResidentBatches):
        require_alike(train.source, val.source)
    data = Data(train, val, _facts(source, train, val))
    parts = source.parts
    return data if parts is None else replace(data, original=parts.original, done=parts.done)


def _split_of(given: object) -> Split | None:
    try:
        return None if given is None else parse_split(given)
    except ConfigError as error:
        raise error.under("data.split") from None


@dataclass(frozen=True)
class _Options:
    batch_size: int | None
    workers: int
    is_kept: bool  # datasets are read once and kept as tensors
    in_memory: InMemory


def _batched(
    data: Any, source: Source, options: _Options, *, is_val: bool = False
) -> ResidentBatches | StreamingBatches | IterableBatches | LoaderBatches:
    if isinstance(data, DataLoader):
        return _of_loader(data, replace(options, batch_size=None) if is_val else options)
    size, workers = options.batch_size or BATCH_SIZE, options.workers
    if is_of_arrays(data) and options.in_memory is not False:
        return resident(data, size)
    if is_of_arrays(data):
        data = _Rows(data)
    if not is_map_style(data):
        if options.in_memory is True:
            what = f"must not be true: a {type(data).__name__} has no length to reserve memory for"
            raise ConfigError.single("data.in_memory", what, True, "Leave it out.")
        return IterableBatches(data, size, workers)
    if options.is_kept:
        once = StreamingBatches(
            data, min(256, len(data)), workers=workers, collate=source.collate, dtype=None
        )
        with readable(data) if source.may_be_kept else nullcontext():
            whole = collected(once.in_order(), data)
        return resident(whole, size)
    return StreamingBatches(data, size, workers=workers, collate=source.collate)


@dataclass(frozen=True)
class _Rows(Dataset[Any]):
    """The samples of nested tensors, one by one."""

    data: Any

    def __len__(self) -> int:
        return size_of(self.data)

    def __getitem__(self, index: int) -> Any:
        return rows_of(self.data, index)


def _of_loader(loader: DataLoader[Any], options: _Options) -> ResidentBatches | LoaderBatches:
    is_free = options.in_memory is not False  # to keep the samples in memory
    batches = (resident_loader(loader) if is_free else None) or LoaderBatches(loader)
    batch_size = options.batch_size
    if batch_size is not None and batch_size != batches.batch_size:
        raise ConfigError.single(
            "data.batch_size",
            f"must be that of the DataLoader ({batches.batch_size})",
            batch_size,
            f"Set it to {batches.batch_size}, or give the dataset instead of a DataLoader.",
        )
    return batches


def _is_kept(source: Source, in_memory: InMemory) -> bool:
    if in_memory != "auto":
        return in_memory
    sides = [side for side in (source.train, source.val) if side is not None]
    return source.may_be_kept and fits_in_memory(*sides)


def _facts(source: Source, train: Any, val: Batches | None) -> Facts:
    known = source.num_classes
    complete = isinstance(train, ResidentBatches)
    if isinstance(val, ResidentBatches):  # a class that only the validation set has counts too
        known = facts_of(*example_of(val.data), num_samples=None, num_classes=known).num_classes
    first = train.data if complete else train.peek()
    if first is None:
        what = "must give at least one sample"
        raise ConfigError.single("data.name", what, "an empty iterable", "Give it samples.")
    return facts_of(
        *example_of(first),
        num_samples=train.num_samples,
        num_classes=known,
        vocab_size=source.vocab_size,
        complete=complete,
    )


def _located(
    factory: Callable[..., Any], args: Mapping[str, Any], directory: Path | None
) -> dict[str, Any]:
    """Return the arguments; relative paths of built-in data start from `directory`."""
    is_ours = isinstance(factory, TorchvisionDataset) or factory in DATASETS.values()
    if not is_ours:
        return dict(args)
    base = directory or Path()
    return {
        name: str(base / Path(value).expanduser()) if _is_path(name, value) else value
        for name, value in args.items()
    }


def _is_path(name: str, value: object) -> bool:
    return name in {"path", "root"} and isinstance(value, str | Path) and bool(str(value).strip())
