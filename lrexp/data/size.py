"""How much training data there is: all that a duration in epochs or in tokens needs to know.

Of built-in data it is told without loading it, and without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lrexp.data.registry import OUTLINES
from lrexp.data.split import VAL_FRACTION
from lrexp.errors import ConfigError

BATCH_SIZE = 64  # where none is said, of data that has none of its own


@dataclass(frozen=True)
class Size:
    """Training data as durations see it."""

    batch_size: int  # samples in every training batch
    batches_per_epoch: int | None  # None of an iterable without length
    seq_len: int | None = None  # tokens in a sample; None where samples are no sequences


def told_size(
    name: str,
    args: Mapping[str, Any],
    *,
    batch_size: int | None = None,
    val_fraction: float | None = None,
) -> Size | None:
    """Return the size of built-in data as `load_data` would find it, None of any other.

    Args:
        name: of the data.
        args: its arguments.
        batch_size, val_fraction: as for `load_data`.

    Raises:
        ConfigError: as `load_data`, but for `workers` and `in_memory`, which are not looked at.

    Example:
        >>> told_size("digits", {}, batch_size=64)
        Size(batch_size=64, batches_per_epoch=22, seq_len=None)
    """
    if name not in OUTLINES:
        return None
    outline = OUTLINES[name](**args)
    num_samples = outline.num_train(VAL_FRACTION if val_fraction is None else val_fraction)
    size = BATCH_SIZE if batch_size is None else batch_size
    if num_samples < size:
        raise no_full_batch(num_samples, size)
    return Size(size, num_samples // size, outline.seq_len)


def no_full_batch(num_samples: int | None, batch_size: int) -> ConfigError:
    """Return the error where the training samples do not make one batch."""
    return ConfigError.single(
        "data.batch_size",
        f"must not exceed the number of training samples ({num_samples})",
        batch_size,
        "Lower it, lower data.val_fraction, or give more data.",
    )
