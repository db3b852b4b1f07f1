"""Batches as the training loop takes them: the micro-batches of one update after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lrexp.data import Batches


def updates(batches: Batches, seed: int, accumulate: int) -> Iterator[tuple[int, list[Any]]]:
    """Yield (epoch, its micro-batches) for each update, epoch after epoch.

    Every epoch starts afresh: micro-batches that do not fill an update are left out.
    """
    epoch = 0
    while True:
        pending: list[Any] = []
        empty = True
        for batch in batches.epoch(seed, epoch):
            pending.append(batch)
            if len(pending) == accumulate:
                yield epoch, pending
                pending, empty = [], False
        if empty:
            raise RuntimeError(f"the training data gave no full update in epoch {epoch}")
        epoch += 1
