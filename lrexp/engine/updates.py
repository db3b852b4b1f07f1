"""Batches as the training loop takes them: the micro-batches of one update after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], total_steps: int) -> Position:
        """Return the position that a checkpoint holds as a dict.

        Raises:
            ValueError: it is no place inside of a training of so many steps.
        """
        at = cls(**plain)
        are_counts = all(type(n) is int and n >= 0 for n in (at.step, at.epoch, at.epoch_start))
        if not are_counts or not at.epoch_start <= at.step < total_steps:
            raise ValueError(f"there is no {at} in {total_steps} steps")
        return at


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
