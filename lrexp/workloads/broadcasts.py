"""Whether a loss pairs each output with each target: (N, 1) with (N,) makes (N, N).

Such a broadcast goes away once the target has the output's shape, and the value changes. It is
asked of numbers made up here, for those of a batch may hide it: one sample pairs with itself alone,
and with outputs that are all the same, as of weights that begin at 0, the mean is no other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SAMPLES = 3  # in place of one


def pairs_all(loss: Callable[..., Tensor], output: Any, target: Any, *weight: Any) -> bool:
    """Return whether a loss makes more pairs of outputs and targets than there are of either.

    Args:
        loss: of (output, target); it is called a few times, so give a copy of one with a state.
        output, target, weight: of a batch; only shapes and types count.

    Example:
        >>> pairs_all(lambda o, t: (o - t).square().mean(), torch.zeros(4, 1), torch.zeros(4))
        True
    """
    tensors = (output, target, *weight)
    if not all(isinstance(tensor, Tensor) and tensor.dim() for tensor in tensors):
        return False
    if output.shape == target.shape or output.numel() != target.numel():
        return False
    try:
        made = [_made_up(tensor, falls=i == 1) for i, tensor in enumerate(tensors)]
        return _differs(loss, *made)
    except Exception:  # it takes the target as it is only
        return False


def _made_up(like: Tensor, *, falls: bool) -> Tensor:
    """Return numbers from 0 to 1, or whole ones, in the shape of a tensor with several samples."""
    shape = (SAMPLES if like.shape[0] == 1 else like.shape[0], *like.shape[1:])
    size = torch.Size(shape).numel()
    with torch.no_grad():
        if not like.is_floating_point() and not like.is_complex():
            return (torch.arange(size, device=like.device) % 2).to(like.dtype).view(shape)
        rising = torch.linspace(0.1, 0.8, size, device=like.device)
        return (0.9 - rising**2 if falls else rising).to(like.dtype).view(shape)


def _differs(loss: Callable[..., Tensor], output: Tensor, target: Tensor, *weight: Tensor) -> bool:
    with (
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")  # torch's, of a broadcast
        with _Broadcasts(output.shape, target.shape) as as_given:
            value = loss(output, target, *weight)
        with _Broadcasts(output.shape) as alike:
            other = loss(output, target.view_as(output), *weight)
    return as_given.seen and not alike.seen and not bool(torch.isclose(value, other))


class _Broadcasts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes whether an operation makes a larger tensor of two that have these shapes as they are.

    Those that were given a dimension for it are meant to.
    """

    def __init__(self, *shapes: torch.Size) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = False
        self._shapes = set(shapes)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        found = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        shapes = {leaf.shape for leaf in found}  # one alone is what torch's own losses expand
        if found and isinstance(result, Tensor) and shapes <= self._shapes:
            self.seen |= result.numel() > max(leaf.numel() for leaf in found)
        return result
