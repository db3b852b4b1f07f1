"""A whole dataset as two tensors, before it is split: what the built-in sources return.

How many rows it has, a source tells without making it. Standardisation belongs here because it
comes after the split: mean and standard deviation are of the training rows alone, or the validation
loss would know its own data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lrexp.data.split import num_val_of, split_rows

if TYPE_CHECKING:
    import torch


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
