"""A whole dataset before it is split, how large it is, and its split.

The split is the same for every seed, so that seeds differ in training alone. Sizes are known
without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrexp.errors import ConfigError
from lrexp.workloads.seeds import derive_seed

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


VAL_FRACTION = 0.2  # where none is said, of data that can be split


def split_rows(num_samples: int, val_fraction: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows for training and for validation, disjoint, each ascending.

    Args:
        num_samples: of the whole dataset.
        val_fraction: in [0, 1); 0 gives no validation rows.

    Raises:
        ConfigError: if one of the two parts would be empty.

    Example:
        >>> train, val = split_rows(10, 0.2)
        >>> len(train), len(val)
        (8, 2)
    """
    import torch

    num_val = num_val_of(num_samples, val_fraction, "samples")
    generator = torch.Generator().manual_seed(derive_seed(0, "split"))
    order = torch.randperm(num_samples, generator=generator)
    return order[num_val:].sort().values, order[:num_val].sort().values


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


@dataclass(frozen=True)
class Rows:
    """How many samples a table has: what is told of it before it is made.

    Example:
        >>> Rows(1797).num_train(0.2)
        1438
    """

    count: int
    seq_len: int | None = None  # rows are no sequences

    def num_train(self, val_fraction: float) -> int:
        """Return the samples that a split leaves for training.

        Raises:
            ConfigError: as `split_rows`.
        """
        return self.count - num_val_of(self.count, val_fraction, "samples")


@dataclass(frozen=True, eq=False)
class Parts:
    """The two sides of a split, as tensors."""

    train: tuple[torch.Tensor, torch.Tensor]
    val: tuple[torch.Tensor, torch.Tensor] | None
    num_classes: int | None = None
    vocab_size: int | None = None


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

    def split(self, val_fraction: float) -> Parts:
        """Return the training and the validation part, standardised by the training part."""
        train_rows, val_rows = split_rows(len(self.inputs), val_fraction)
        inputs, targets = self.inputs, self.targets
        if self.standardise_inputs:
            inputs = standardised(inputs, train_rows)
        if self.standardise_targets:
            targets = standardised(targets, train_rows)
        train, val = ((inputs[rows], targets[rows]) for rows in (train_rows, val_rows))
        return Parts(train, val if len(val_rows) else None, num_classes=self.num_classes)


def standardised(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return (values - mean) / sd by column, both of `rows` only; a constant column is shifted.

    Example:
        >>> import torch
        >>> standardised(torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([0, 1])).flatten()
        tensor([-1.,  1.,  7.])
    """
    import torch

    chosen = values[rows]
    mean = chosen.mean(0)
    sd = chosen.std(0, correction=0)
    # A constant column has a rounding error for a deviation; dividing by it would make noise.
    constant = chosen.amax(0) == chosen.amin(0)
    return (values - mean) / torch.where(constant, torch.ones_like(sd), sd)
