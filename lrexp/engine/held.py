"""What a state may hold: plain values and dense or sparse tensors, and not too many of them.

One rule for those who write a checkpoint and for those who read one, so that what was written can
be read. A file of a few hundred bytes can ask for gigabytes: for lists of lists of the same list,
or for one number that is spread over a tensor of any shape.
"""

from __future__ import annotations

import math
from typing import Any

import torch

MAX_NODES = 1_000_000  # values, each counted as often as it is referred to
MAX_DEPTH = 50
_MAX_BITS = 256  # of a whole number
_NUMBERS = (bool, int, float, complex, type(None))


def check_held(value: Any, num_bytes: float = math.inf, *, share: float = 1.0) -> None:
    """Refuse a state that holds anything else.

    Args:
        value: of plain values and tensors.
        num_bytes: a bound of what all its tensors hold.
        share: of the limits; who writes takes half, for a file holds a little more than a state.

    Raises:
        ValueError: it does, it holds too much, or it unfolds to more than `num_bytes`.
    """
    _Walk(num_bytes, share).through(value, 0)


class _Walk:
    """Counts what is gone through: shared parts again each time, as whoever copies them does."""

    def __init__(self, num_bytes: float, share: float) -> None:
        self._bytes_left, self._nodes_left = num_bytes, share * MAX_NODES
        self._max_depth = share * MAX_DEPTH

    def through(self, value: Any, depth: int) -> None:
        """Go through a value and all that it holds."""
        self._nodes_left -= 1
        _require(self._nodes_left >= 0, "it holds too many values outside of tensors")
        _require(depth <= self._max_depth, "it is nested too deeply")
        kind = type(value)
        if kind is dict:
            known = all(type(key) in (str, int, bool) for key in value)
            _require(known, "it has keys of other types")
        if kind in (dict, list, tuple):
            for item in value.values() if kind is dict else value:
                self.through(item, depth + 1)
        elif kind is torch.Tensor:
            self._tensor(value)
        elif kind is int:
            _require(value.bit_length() <= _MAX_BITS, "it holds a number of too many digits")
        else:
            _require(kind is str or kind in _NUMBERS, f"it holds a {kind.__name__}")

    def _tensor(self, tensor: Any) -> None:
        plain = tensor.device.type == "cpu" and not tensor.requires_grad
        _require(plain, "it holds a tensor of another kind")
        dense = [tensor] if tensor.layout == torch.strided else _parts_of_sparse(tensor)
        for part in dense:
            size = part.numel() * part.element_size()
            _require(size <= part.untyped_storage().nbytes(), "it holds a tensor that unfolds")
            self._bytes_left -= size
        _require(self._bytes_left >= 0, "its tensors are larger than the file")


def _parts_of_sparse(tensor: Any) -> list[Any]:
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    raise ValueError("it holds a tensor of another kind")


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)
