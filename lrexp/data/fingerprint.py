"""Whether data is still the same: sizes, and a hash of samples.

Data that lies in memory is hashed as a whole, up to a bound; of other data the first sample or
batch, for reading all of it may take longer than the training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch

from lrexp.data.batches import Batches, Data, is_tensor
from lrexp.data.resident import ResidentBatches

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


def _of_side(batches: Batches) -> dict[str, Any]:
    digest = hashlib.sha256()
    for sample in _samples(batches):
        _add(digest, sample)
    size, samples = batches.batch_size, batches.num_samples
    return {"samples": samples, "batch_size": size, "sha256": digest.hexdigest()}


def _samples(batches: Batches) -> Iterator[Any]:
    if isinstance(batches, ResidentBatches):
        for tensor in batches.source:
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
