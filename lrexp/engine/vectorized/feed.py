"""What the copies of a stack are fed: every seed's batches and dropout masks.

One seed gives one batch for all copies. With several, each copy gets its seed's batch: rows of
the same resident tensors, gathered for all copies in one go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lrexp.data import ResidentBatches
from lrexp.engine.dropout import draw_masks
from lrexp.engine.probing import Facts
from lrexp.engine.rng import Reseed
from lrexp.engine.updates import Position, updates
from lrexp.engine.vectorized.stack import Stack


def stacked_updates(stack: Stack, begin: Position | None = None) -> Iterator[tuple[int, list[Any]]]:
    """Yield (epoch, micro-batches) for each update after `begin`, epoch after epoch."""
    first, begin = stack.tasks[0], begin or Position()
    if len(stack.seeds) == 1:
        yield from updates(first.train, stack.seeds[0], first.accumulate, begin)
        return
    batches = first.train
    assert isinstance(batches, ResidentBatches)  # others are stacked seed by seed
    size, epoch, done = batches.batch_size, begin.epoch, begin.step - begin.epoch_start
    span = size * first.accumulate
    while True:
        order = torch.stack(
            [batches.order(seed, epoch) for seed in stack.seeds]
        )  # (seeds, samples)
        for start in range(done * span, batches.num_samples - span + 1, span):
            own = order[:, start : start + span].index_select(0, stack.seed_rows)
            yield epoch, [_rows(batches, rows) for rows in torch.split(own, size, dim=1)]
        epoch, done = epoch + 1, 0


def _rows(batches: ResidentBatches, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the samples of rows (copies, batch)."""
    inputs, targets = (
        tensor.index_select(0, rows.flatten()).view(*rows.shape, *tensor.shape[1:])
        for tensor in (batches.inputs, batches.targets)
    )
    return inputs, targets


class Masks:
    """Dropout masks of every step, the same that the sequential engine draws for each seed."""

    def __init__(self, stack: Stack, facts: Facts) -> None:
        # A model that also draws other random numbers draws all of them itself, in its own order;
        # it is in stacks of one seed, where one draw is right for all copies.
        self._shapes = () if facts.torch_random else facts.dropouts * stack.tasks[0].accumulate
        self._device = stack.device
        self._reseed = [Reseed(seed, stack.device) for seed in stack.seeds]

    def draw(self, step: int) -> list[Tensor]:
        """Seed the generator for a step; with several seeds, return its masks, (seeds, ...) each.

        With one seed the stack draws them itself, so that they can be part of a CUDA graph.
        """
        by_seed = []
        for reseed in self._reseed:
            reseed(step)
            if self._shapes and len(self._reseed) > 1:
                by_seed.append(draw_masks(self._shapes, self._device))
        return [torch.stack(masks) for masks in zip(*by_seed, strict=True)]
