"""A whole dataset before it is split, how large it is, and what it is split into.

Sizes are known without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrexp.errors import ConfigError
from lrexp.workloads.splits import Split, no_columns, num_val_of, split_rows

if TYPE_CHECKING:
    import torch


BATCH_SIZE = 64  # where none is said, of data that has none of its own


@dataclass(frozen=True)
class Size:
    """Training data as durations see it."""

    batch_size: int  # samples in every training batch
    batches_per_epoch: int | None  # None of an iterable without length
    seq_len: int | None = None  # tokens in a sample; None where samples are no sequences


def no_full_batch(num_samples: int | None, batch_size: int) -> ConfigError:
    """Return the error where the training samples do not make one batch."""
    return ConfigError.single(
        "data.batch_size",
        f"must not exceed the number of training samples ({num_samples})",
        batch_size,
        "Lower it, lower data.val_fraction, or give more data.",
    )


@dataclass(frozen=True)
class Rows:
    """How many samples a table has: what is told of it before it is made.

    Example:
        >>> Rows(1797).num_train(0.2)
        1438
    """

    count: int
    seq_len: int | None = None  # rows are no sequences

    def num_train(self, val_fraction: float, split: Split | None = None) -> int:
        """Return the samples that a split leaves for training.

        Raises:
            ConfigError: as `split_rows`.
        """
        if split is not None and split.by_column:
            raise no_columns(split, "this data")
        return self.count - num_val_of(self.count, val_fraction, "samples")


@dataclass(frozen=True, eq=False)
class Parts:
    """The two sides of a split, as tensors."""

    train: tuple[torch.Tensor, ...]
    val: tuple[torch.Tensor, ...] | None
    num_classes: int | None = None
    vocab_size: int | None = None
    original: Callable[[torch.Tensor], torch.Tensor] | None = None  # see `Data.original`
    done: dict[str, str] | None = None  # see `Data.done`


@dataclass(frozen=True)
class OriginalUnit:
    """Takes standardised numbers back: x·sd + mean, and then exp where their log was taken.

    Example:
        >>> import torch
        >>> OriginalUnit((10.0,), (2.0,))(torch.tensor([[0.0], [1.0]])).flatten()
        tensor([10., 12.])
    """

    mean: tuple[float, ...]  # of each target
    sd: tuple[float, ...]
    is_log: bool = False

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return outputs or targets, (samples,) or (samples, targets), in the original unit."""
        found: torch.Tensor
        if len(self.mean) == 1:
            found = values * self.sd[0] + self.mean[0]
        else:
            found = values * values.new_tensor(self.sd) + values.new_tensor(self.mean)
        return found.exp() if self.is_log else found


@dataclass(frozen=True, eq=False)
class Table:
    """Inputs and targets of all samples, and what is still to be done to them.

    Example:
        >>> import torch
        >>> table = Table(torch.arange(10.0).view(10, 1), torch.zeros(10, 1))
        >>> len(table.split(0.2).val[0])
        2
    """

    inputs: torch.Tensor  # (samples, ...)
    targets: torch.Tensor  # (samples,) int64 classes, or (samples, targets) floating
    num_classes: int | None = None
    standardise_inputs: bool = False
    standardise_targets: bool = False

    def split(self, val_fraction: float, split: Split | None = None) -> Parts:
        """Return the training and the validation part, standardised by the training part."""
        if split is not None and split.by_column:
            raise no_columns(split, "this data")
        inputs, targets = self.inputs, self.targets
        original: OriginalUnit | None = None
        labels = None if targets.is_floating_point() else targets
        train_rows, val_rows = split_rows(len(inputs), val_fraction, split, labels=labels)
        if self.standardise_inputs:
            inputs = standardised(inputs, train_rows)[0]
        if self.standardise_targets:
            targets, mean, sd = standardised(targets, train_rows)
            original = OriginalUnit(tuple(mean.tolist()), tuple(sd.tolist()))
        train, val = ((inputs[rows], targets[rows]) for rows in (train_rows, val_rows))
        return Parts(train, val if len(val_rows) else None, self.num_classes, original=original)


def standardised(
    values: torch.Tensor, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (values - mean) / sd by column, mean and sd; both of `rows` only.

    A constant column is shifted: its sd is 1.

    Example:
        >>> import torch
        >>> standardised(torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([0, 1]))[0].flatten()
        tensor([-1.,  1.,  7.])
    """
    import torch

    chosen = values[rows]
    mean = chosen.mean(0)
    sd = chosen.std(0, correction=0)
    # A constant column has a rounding error for a deviation; dividing by it would make noise.
    constant = chosen.amax(0) == chosen.amin(0)
    sd = torch.where(constant, torch.ones_like(sd), sd)
    return (values - mean) / sd, mean, sd
