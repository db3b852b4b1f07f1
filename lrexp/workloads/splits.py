"""Which rows are for training and which for validation: the forms of `data.split`.

The split is the same for every seed, so that seeds differ in training alone. How many rows each
part has is known without torch.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrexp.errors import ConfigError, did_you_mean
from lrexp.workloads.seeds import derive_seed

if TYPE_CHECKING:
    import torch

KEY = "data.split"
VAL_FRACTION = 0.2  # where none is said, of data that can be split
WHOLE = ("random", "stratified", "last")
_VALIDATION = ("val", "valid", "validation", "dev", "true", "yes")  # as cells of a column say it
_TRAINING = ("train", "training", "false", "no")
_TEST = "test"  # is for validation where nothing else is; otherwise it is left alone
_MOST_SHOWN = 5


@dataclass(frozen=True)
class Split:
    """How rows are split.

    Args:
        kind: random, stratified, last, column or groups.
        column: whose cells decide, of the last two.
        val: the cells of `column` that mean validation; none are found by themselves.
    """

    kind: str = "random"
    column: str | None = None
    val: tuple[str, ...] = ()

    @property
    def by_column(self) -> bool:
        """Whether the cells of a column decide."""
        return self.column is not None

    def __str__(self) -> str:
        if self.kind == "groups":
            return f"by whole groups of {self.column}"
        return f"by the column {self.column}" if self.by_column else self.kind


def parse_split(given: object) -> Split:
    """Return what `data.split` says; None is `random`.

    Raises:
        ConfigError: with key "".

    Example:
        >>> parse_split({"groups": "patient"}).kind
        'groups'
    """
    if given is None:
        return Split()
    if isinstance(given, str) and given in WHOLE:
        return Split(given)
    if isinstance(given, Mapping):
        keys = set(given)
        column = given.get("groups" if "groups" in keys else "column")
        is_name = isinstance(column, str) and column.strip()
        if is_name and keys == {"groups"}:
            return Split("groups", column)
        if is_name and keys in ({"column"}, {"column", "val"}):
            return Split("column", column, _cells(given.get("val")))
    remedy = did_you_mean(given, [*WHOLE]) if isinstance(given, str) else ""
    what = "must be random, stratified, last, {column: NAME} or {groups: NAME}"
    raise ConfigError.single("", what, given, remedy or "E.g. last, or {groups: patient}.")


def _cells(val: object) -> tuple[str, ...]:
    if val is None:
        return ()
    listed = val if isinstance(val, list | tuple) else [val]
    if not listed or not all(isinstance(entry, str | int | float) for entry in listed):
        remedy = "E.g. {column: fold, val: 4}."
        raise ConfigError.single("", "must have a cell, or a list of them, as val", val, remedy)
    return tuple(str(entry).lower() for entry in listed)


def no_columns(split: Split, what: str) -> ConfigError:
    """Return the error where a column should decide and the data has none."""
    return ConfigError.single(
        KEY,
        f"names a column, and {what} has none",
        split.column,
        "Write random, stratified or last, or give (train, val).",
    )


def num_val_of(total: int, val_fraction: float, unit: str) -> int:
    """Return how many of `total` are for validation.

    Raises:
        ConfigError: if the fraction is out of range or one of the two parts would be empty.
    """
    if not 0 <= val_fraction < 1:
        what = "must be at least 0 and below 1"
        raise ConfigError.single("data.val_fraction", what, val_fraction, "Give e.g. 0.2.")
    num_val = round(total * val_fraction)
    if val_fraction > 0 and not 0 < num_val < total:
        raise ConfigError.single(
            "data.val_fraction",
            f"must leave something for training and for validation of {total} {unit}",
            val_fraction,
            "Choose another fraction, or 0 for no validation.",
        )
    return num_val


def split_rows(
    num_samples: int,
    val_fraction: float,
    split: Split | None = None,
    *,
    labels: Any = None,
    cells: Sequence[str] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows for training and for validation, disjoint, each ascending.

    Args:
        num_samples: of the whole dataset.
        val_fraction: in [0, 1); 0 gives no validation rows.
        split: how; random where none is given.
        labels: the class of every row, for a stratified split.
        cells: of the column that decides, for the splits that have one.

    Raises:
        ConfigError: if one of the two parts would be empty, or the split needs what is not given.

    Example:
        >>> train, val = split_rows(10, 0.2)
        >>> len(train), len(val)
        (8, 2)
    """
    import torch

    split = split or Split()
    if split.by_column:
        assert cells is not None
        sides = sides_of(split, cells, val_fraction)
        chosen = ([i for i, side in enumerate(sides) if side == part] for part in ("train", "val"))
        train, val = (torch.tensor(rows, dtype=torch.int64) for rows in chosen)
        return train, val
    num_val = num_val_of(num_samples, val_fraction, "samples")
    if split.kind == "last":
        order = torch.arange(num_samples - 1, -1, -1)
    elif split.kind == "stratified" and num_val:
        order = torch.from_numpy(_stratified(num_samples, num_val, labels))
    else:
        generator = torch.Generator().manual_seed(derive_seed(0, "split"))
        order = torch.randperm(num_samples, generator=generator)
    return order[num_val:].sort().values, order[:num_val].sort().values


def _stratified(num_samples: int, num_val: int, labels: Any) -> Any:
    """Return all rows, those for validation first."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    if labels is None:
        what = "needs targets that are classes, one per sample"
        raise ConfigError.single(KEY, what, "stratified", "Write random, or last.")
    seed = derive_seed(0, "split") % 2**32
    try:
        sides = train_test_split(
            np.arange(num_samples), test_size=num_val, stratify=labels, random_state=seed
        )
    except ValueError as error:
        what = f"is not possible here: {' '.join(str(error).split())}"
        remedy = "Write random, or choose another data.val_fraction."
        raise ConfigError.single(KEY, what, "stratified", remedy) from None
    return np.concatenate(sides[::-1])


def sides_of(split: Split, cells: Sequence[str], val_fraction: float) -> list[str | None]:
    """Return `train` or `val` for every row by its cell; None of a row that is left out.

    Example:
        >>> sides_of(Split("column", "fold"), ["0", "1", "2"], 0.2)
        ['train', 'train', 'val']
    """
    known = [_plain(cell) for cell in cells]
    if split.kind == "groups":
        num_val = num_val_of(len(cells), val_fraction, "samples")
        val = _whole_groups(Counter(known), num_val, split) if num_val else set()
        return ["val" if cell in val else "train" for cell in known]
    values = set(known)
    val = {*map(_plain, split.val)} or _validation_of(values, split)
    left_out = {_TEST} - val if not split.val and val & {*_VALIDATION} else set()
    if not val or not val <= values or not values - val - left_out:
        what = f"must name a column that leaves rows for both parts; {_has(split, values)}"
        remedy = "Let its cells say train and val, or give val: {column: fold, val: 4}."
        raise ConfigError.single(KEY, what, list(split.val) or split.column, remedy)
    return [None if cell in left_out else "val" if cell in val else "train" for cell in known]


def _plain(cell: str) -> str:
    """Return a cell in small letters; 4.0 is 4, as pandas writes a column with gaps."""
    text = cell.strip().lower()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def _has(split: Split, values: Iterable[str]) -> str:
    shown = ", ".join(repr(value[:40]) for value in sorted(values)[:_MOST_SHOWN])
    return f"{split.column!r} has {shown}"


def _validation_of(values: set[str], split: Split) -> set[str]:
    """Return the cells that mean validation: words that say so, or the highest of numbers."""
    yes = values & {"true", "yes", "1"}
    if yes and len(values) == 2 and "train" in str(split.column).lower():
        no = min(values - yes)
        what = f"is not told by 'train' alone: are rows with {no} for validation?"
        remedy = f"Then write {{column: {split.column}, val: {no}}}."
        raise ConfigError.single(KEY, what, split.column, remedy)
    found = values & {*_VALIDATION} or values & {_TEST}
    unknown = values - found - {*_TRAINING, _TEST}
    if found and unknown:
        what = f"has cells that say neither train nor val; {_has(split, unknown)}"
        remedy = "Change them, or say which are for validation: {column: split, val: dev}."
        raise ConfigError.single(KEY, what, split.column, remedy)
    if found:
        return found
    try:
        return {max(values, key=float)} if len(values) > 1 else set()
    except ValueError:
        return set()


def _whole_groups(sizes: Counter[str], num_val: int, split: Split) -> set[str]:
    """Return groups, drawn at random, that have together about `num_val` rows."""
    if len(sizes) < 2:
        what = f"must name a column of at least two groups; {split.column!r} has one"
        raise ConfigError.single(KEY, what, split.column, "Choose another column.")
    names = sorted(sizes)
    random.Random(derive_seed(0, "split")).shuffle(names)
    chosen: set[str] = set()
    count = 0
    for name in names:
        is_last = len(chosen) == len(names) - 1  # one at least is for training
        if not is_last and abs(count + sizes[name] - num_val) < abs(count - num_val):
            chosen.add(name)
            count += sizes[name]
    return chosen or {min(names, key=sizes.__getitem__)}
