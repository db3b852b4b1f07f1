"""Data that fits: tensors on the device, batched by index.

A batch costs one `index_select` per tensor and no per-sample Python; a DataLoader over the same
tensors costs about twenty times as much. The epoch's order is made on the CPU, so that it is the
same on every device, and moved once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lrexp.data.seeds import permutation


@dataclass(frozen=True, eq=False)
class ResidentBatches:
    """Batches of two tensors that live on one device.

    Example:
        >>> batches = resident(torch.arange(6.0).view(6, 1), torch.zeros(6, 1), batch_size=4)
        >>> [tuple(x.shape) for x, _ in batches.epoch(seed=0, epoch=0)]
        [(4, 1)]
        >>> sum(len(x) for x, _ in batches.in_order())
        6
    """

    inputs: torch.Tensor  # (samples, ...)
    targets: torch.Tensor  # (samples, ...)
    batch_size: int
    source: tuple[torch.Tensor, torch.Tensor]  # as given: a later cast starts from full precision
    shuffle: bool = True

    @property
    def num_samples(self) -> int:
        """Samples in one pass."""
        return len(self.inputs)

    @property
    def batches_per_epoch(self) -> int:
        """Full batches in one pass."""
        return self.num_samples // self.batch_size

    def epoch(
        self, seed: int, epoch: int, start: int = 0
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the training batches of one pass, without the first `start` of them."""
        size = self.batch_size
        order = self.order(seed, epoch)
        for first in range(start * size, self.batches_per_epoch * size, size):
            rows = order.narrow(0, first, size)
            yield self.inputs.index_select(0, rows), self.targets.index_select(0, rows)

    def order(self, seed: int, epoch: int) -> torch.Tensor:
        """Return the rows in the order of one pass, (num_samples,), int64, on the device."""
        device = self.inputs.device
        if not self.shuffle:
            return torch.arange(self.num_samples, device=device)
        order = permutation(seed, epoch, self.num_samples)
        if device.type == "cuda":  # from pageable memory, the copy would wait for all steps so far
            return order.pin_memory().to(device, non_blocking=True)
        return order.to(device)

    def in_order(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all samples as they lie, in chunks larger than a training batch."""
        for first in range(0, self.num_samples, self._chunk_size):
            rows = slice(first, first + self._chunk_size)
            # Copies: a forward that works in place must not change the data of later trials.
            yield self.inputs[rows].clone(), self.targets[rows].clone()

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> ResidentBatches:
        """Return the same batches with both tensors on `device`; floating ones get `dtype`."""
        inputs, targets = (_cast(tensor, device, dtype) for tensor in self.source)
        return ResidentBatches(inputs, targets, self.batch_size, self.source, self.shuffle)

    @property
    def _chunk_size(self) -> int:
        # Without gradients four training batches need no more memory than one with them. Small
        # samples go further, up to 1024, where the calls would cost more than the arithmetic.
        numbers = max(1, self.inputs[0].numel())
        return max(4 * self.batch_size, min(1024, 2**16 // numbers))


def resident(
    inputs: torch.Tensor, targets: torch.Tensor, batch_size: int, *, shuffle: bool = True
) -> ResidentBatches:
    """Return batches of `inputs` and `targets`, floating ones as float32."""
    source = (inputs, targets)
    return ResidentBatches(inputs, targets, batch_size, source, shuffle).to(inputs.device)


def _cast(tensor: torch.Tensor, device: torch.device | str, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
