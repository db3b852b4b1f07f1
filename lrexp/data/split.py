"""The validation split: the same for every seed, so that seeds differ in training alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrexp.data.seeds import derive_seed
from lrexp.errors import ConfigError

if TYPE_CHECKING:
    import torch

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
