"""Batch normalisation of (batch, channels), written out for stacked copies.

vmap runs torch's kernel over the channels of all copies in one row. Its vector instructions leave
the last few of them to another piece of code, which rounds otherwise: a copy's bits would depend
on its place and on how many others there are. Images have no such row and keep the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional


@contextmanager
def explicit_batch_norm() -> Iterator[None]:
    """Inside, `batch_norm` of a (batch, channels) tensor is written out.

    Example:
        >>> x = torch.tensor([[1.0], [3.0]])
        >>> with explicit_batch_norm():
        ...     torch.nn.BatchNorm1d(1, eps=0.0)(x).tolist()
        [[-1.0], [1.0]]
    """
    original = functional.batch_norm

    def batch_norm(  # noqa: PLR0917 - torch's signature
        input: Tensor,  # noqa: A002
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        rows = len(input)
        if input.dim() != 2 or (training and rows == 1):  # torch refuses to train on one sample
            return original(input, running_mean, running_var, weight, bias, training, momentum, eps)
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        if training:
            mean = x.mean(0)
            centered = x - mean
            var = centered.square().mean(0)
            _track(running_mean, mean, momentum)
            _track(running_var, var * (rows / (rows - 1)), momentum)  # unbiased, as torch has it
        else:
            assert running_mean is not None  # else torch's module asks for training statistics
            assert running_var is not None
            centered, var = x - running_mean, running_var
        scale = torch.rsqrt(var + eps)
        out = centered * (scale if weight is None else scale * weight)
        return (out if bias is None else out + bias).to(input.dtype)

    functional.batch_norm = batch_norm
    try:
        yield
    finally:
        functional.batch_norm = original


def _track(running: Tensor | None, value: Tensor, momentum: float) -> None:
    if running is not None:
        running.mul_(1 - momentum).add_(value.detach(), alpha=momentum)
