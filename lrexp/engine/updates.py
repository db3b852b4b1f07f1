"""Batches as the training loop takes them: the micro-batches of one update after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lrexp.data import Batches


@dataclass(frozen=True)
class Position:
    """How far a training has come: `step` updates, of which `epoch` began after `epoch_start`.

    `epoch` is that of the last update, even where it was the last one of its epoch: data without
    a length shows that only when it is asked for more.
    """

    step: int = 0
    epoch: int = 0
    epoch_start: int = 0


def updates(
    batches: Batches, seed: int, accumulate: int, begin: Position | None = None
) -> Iterator[tuple[int, list[Any]]]:
    """Yield (epoch, its micro-batches) for each update after `begin`, epoch after epoch.

    Every epoch starts afresh: micro-batches that do not fill an update are left out.
    """
    begin = begin or Position()
    epoch, done = begin.epoch, begin.step - begin.epoch_start  # updates of this epoch
    while True:
        pending: list[Any] = []
        empty = done == 0
        for batch in batches.epoch(seed, epoch, done * accumulate):
            pending.append(batch)
            if len(pending) == accumulate:
                yield epoch, pending
                pending, empty = [], False
        if empty:
            raise RuntimeError(f"the training data gave no full update in epoch {epoch}")
        epoch, done = epoch + 1, 0
