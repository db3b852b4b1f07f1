"""What a name or a user gives, recognised and split: the step before batching.

Accepted are (train, val) or train alone, each of them arrays, as a pair or nested, a map-style
dataset, an iterable one or a DataLoader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, Subset

from lrexp.errors import ConfigError
from lrexp.workloads.batches import example_of, size_of
from lrexp.workloads.csv_file import CsvTable
from lrexp.workloads.labels import numbered
from lrexp.workloads.splits import KEY as SPLIT
from lrexp.workloads.splits import VAL_FRACTION, Split, no_columns, split_rows
from lrexp.workloads.table import Parts, Table
from lrexp.workloads.tensors import (
    Images,
    as_tensors,
    is_array,
    is_of_arrays,
    require_classes,
    rows_of,
    stack_images,
)
from lrexp.workloads.text import TextWindows


@dataclass(frozen=True, eq=False)
class Source:
    """Training and validation data, each nested tensors, a dataset or a DataLoader."""

    train: Any
    val: Any | None
    num_classes: int | None = None
    vocab_size: int | None = None
    collate: Callable[[list[Any]], Any] | None = None
    parts: Parts | None = None  # of built-in data, with what it tells of itself
    may_be_kept: bool = False  # whether reading every sample once and keeping it changes nothing


def recognised(made: object, val_fraction: float | None, split: Split | None = None) -> Source:
    """Return the training and validation data of whatever `made` is, split if it must be.

    Args:
        made: what a data callable returned.
        val_fraction: None splits 0.2 off, and nothing of a DataLoader or an iterable.
        split: how; None leaves it to the data.

    Raises:
        ConfigError: if it is nothing that can be trained on, or cannot be split.
    """
    share = VAL_FRACTION if val_fraction is None else val_fraction
    if isinstance(made, Table | CsvTable | TextWindows):
        made = made.split(share, split)
    if isinstance(made, Parts):
        return Source(made.train, made.val, made.num_classes, made.vocab_size, parts=made)
    if isinstance(made, Images):
        require_classes(made.train)
        _require_whole(made.val, split)
        train, val = (made.train, made.val) if made.val else _split(made.train, share, split)
        num_classes = _num_classes(made.train)
        plain = made.is_plain
        return Source(train, val, num_classes, None, stack_images, may_be_kept=plain)
    train, val = _sides(made)
    _require_whole(val, split)
    can_be_split = is_of_arrays(train) or is_map_style(train)
    if val is None and (can_be_split or val_fraction is not None):
        train, val = _split(train, share, split)
    return Source(train, val, _num_classes(train))


def _require_whole(val: object, split: Split | None) -> None:
    """Refuse a way to split what comes with a validation part."""
    if val is not None and split is not None:
        what = "has nothing to split: the data come with a validation part"
        raise ConfigError.single(SPLIT, what, split.kind, "Leave it out.")


def is_map_style(data: object) -> bool:
    """Return whether samples can be read by index."""
    if isinstance(data, DataLoader | IterableDataset | dict | str | bytes):
        return False
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _sides(made: object) -> tuple[Any, Any | None]:
    if isinstance(made, Mapping) and "train" in made:  # as `datasets` splits them
        made = (made["train"], made.get("val", made.get("validation")))
    if isinstance(made, tuple) and not any(is_array(part) for part in made):
        made = numbered(made)
        if len(made) != 2:
            raise _unusable(f"a tuple of {len(made)}")
        train, val = made
        return _side(train), None if val is None else _side(val)
    return _side(numbered((made,))[0]), None


def _side(data: object) -> Any:
    """Return nested tensors, or the dataset or DataLoader as it is."""
    tensors = None if is_array(data) else as_tensors(data)
    if tensors is not None:
        return tensors
    if isinstance(data, tuple | dict | str | bytes) or is_array(data):
        raise _unusable(f"a {type(data).__name__}")
    if isinstance(data, Iterator):
        raise ConfigError.single(
            "data.name",
            "must be iterable once per epoch; an iterator or generator is used up after one",
            type(data).__name__,
            "Write a class whose __iter__ starts anew, e.g. a torch.utils.data.IterableDataset.",
        )
    if is_map_style(data):
        if len(data) == 0:  # type: ignore[arg-type]
            raise _unusable(f"an empty {type(data).__name__}")
        return data
    if isinstance(data, DataLoader) or hasattr(data, "__iter__"):
        return data
    raise _unusable(f"a {type(data).__name__}")


def _split(data: Any, val_fraction: float, split: Split | None) -> tuple[Any, Any | None]:
    if split is not None and split.by_column:
        raise no_columns(split, f"a {type(data).__name__}")
    if not val_fraction:
        return data, None
    labels = _labels(data) if split is not None and split.kind == "stratified" else None
    if is_of_arrays(data):
        rows, val_rows = split_rows(size_of(data), val_fraction, split, labels=labels)
        return rows_of(data, rows), rows_of(data, val_rows) if len(val_rows) else None
    if not is_map_style(data):
        raise ConfigError.single(
            "data.val_fraction",
            f"must be 0: a {type(data).__name__} cannot be split",
            val_fraction,
            "Set it to 0, or give (train, val).",
        )
    sides = split_rows(len(data), val_fraction, split, labels=labels)
    train, val = (Subset(data, rows.tolist()) for rows in sides)
    return train, val


def _labels(data: Any) -> Any:
    """Return the class of every sample, None where it is not known without reading them all."""
    if is_of_arrays(data):
        return _classes(example_of(data)[1])
    labels = getattr(data, "targets", getattr(data, "labels", None))
    if labels is None and isinstance(data, Subset):
        whole = _labels(data.dataset)
        return None if whole is None else [whole[i] for i in data.indices]
    return labels


def _classes(labels: Any) -> Any:
    """Return targets as classes: whole numbers, bools, also as a column; None where they are none.

    Example:
        >>> import torch
        >>> _classes(torch.tensor([[0.0], [1.0]])), _classes(torch.tensor([0.5, 1.0]))
        (array([0, 1]), None)
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.is_complex():
        return None
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        return None
    return labels.long().cpu().numpy()


def _num_classes(dataset: Any) -> int | None:
    """Return the number of `dataset.classes`, also of a dataset inside a Subset or DataLoader."""
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    classes = getattr(dataset, "classes", None)
    return len(classes) if isinstance(classes, list | tuple) and classes else None


def _unusable(given: str) -> ConfigError:
    return ConfigError.single(
        "data.name",
        "must give (train, val) or train: tensors, as (inputs, targets) or nested, datasets, "
        "iterable datasets or DataLoaders",
        given,
        "Return one of these.",
    )
