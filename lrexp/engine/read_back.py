"""Losses on their way from the device into records.

Losses are read back in chunks, because a read-back per step stalls the GPU. `Pace` says how often
an engine looks up from its steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lrexp.engine.blame import blame
from lrexp.engine.task import Task
from lrexp.records import Ended, Steps

NO_MORE: Mapping[str, float] = {}  # columns of a step
CHUNK_SECONDS = 0.25  # how often losses are read back, shown and written


@dataclass
class Losses:
    """Losses on their way from the device: held back, read in chunks, cut at the stopping step."""

    task: Task
    num_steps: int = 0  # already handed out
    stopped_at: int | None = None
    _epochs: list[int] = field(default_factory=list)
    _lrs: list[float] = field(default_factory=list)
    _more: dict[str, list[float]] = field(default_factory=dict)
    _held: list[Tensor] = field(default_factory=list)
    _slots: Slots | None = None  # where they are held on a GPU
    _read: list[float] = field(default_factory=list)
    _flushed: float = field(default_factory=time.perf_counter)
    _sum: float = 0.0
    _count: int = 0

    def __post_init__(self) -> None:
        self.begin(None)
        self.is_finite = True  # the last loss that was handed out

    def ended(self, seconds: float) -> Ended:
        """Return the record of the end."""
        cause = "" if self.is_finite else blame(self.task, self.num_steps - 1)
        return Ended(self.task.trial, self.num_steps, self.stopped_at, seconds, cause)

    def begin(self, initial: float | None) -> None:
        """Tell the stop rule a loss measured before training, if there is one."""
        self._rule_state = self.task.stop.init(initial)

    def add(self, epoch: int, lr: float, loss: Tensor, more: Mapping[str, float] = NO_MORE) -> None:
        """Hold the loss of one more step; on a GPU a copy of it, for it may be overwritten."""
        self._epochs.append(epoch)
        self._lrs.append(lr)
        for name, value in more.items():
            self._more.setdefault(name, []).append(value)
        if loss.is_cuda:
            if self._slots is None:
                size = min(self.task.pace.chunk_steps, self.task.total_steps)
                self._slots = Slots(size, loss.device)
            self._slots.add(loss)
        else:
            self._held.append(loss)

    def due(self) -> bool:
        """Return whether it is time to hand out what is held."""
        return is_chunk_due(self.task, len(self._epochs), self._flushed)

    @property
    def pending(self) -> bool:
        """Whether there are steps that were not handed out yet."""
        return bool(self._held or self._read or (self._slots and self._slots.count))

    def read_back(self) -> float:
        """Read the held losses from the device, ask the stop rule, and return the last one."""
        losses = self._read_held()
        self._judge(losses)
        return self._read[-1]

    def take(self, epochs: list[int], lrs: list[float], losses: list[float]) -> None:
        """Add steps whose losses were read elsewhere; what follows a stopping step is dropped."""
        self._epochs += epochs
        self._lrs += lrs
        self._judge(losses)

    def _judge(self, losses: list[float]) -> None:
        self._rule_state, stop = self.task.stop.first_stop(losses, self._rule_state)
        self._read += losses if stop is None else losses[: stop + 1]
        if stop is not None:
            self.stopped_at = self.num_steps + len(self._read) - 1

    def _read_held(self) -> list[float]:
        if self._slots is not None:
            return self._slots.read()
        losses: list[float] = torch.stack(self._held).tolist()
        self._held = []
        return losses

    def end(self, final: float | None) -> None:
        """Ask the rule about a training that ran to its end; `final` is a loss evaluated there."""
        if self.stopped_at is None and self.task.stop.never_came_back(self._rule_state, final):
            self.stopped_at = self.num_steps - 1

    def flush(self) -> Steps:
        """Hand out all steps since the last flush, up to the stopping one."""
        if self._held or (self._slots and self._slots.count):
            self.read_back()
        n = len(self._read)
        self.is_finite = not n or math.isfinite(self._read[-1])
        lrs = self._lrs[:n]
        more = {**self.task.other_lrs(lrs), **{k: seen[:n] for k, seen in self._more.items()}}
        chunk = Steps(self.task.trial, self.num_steps, self._epochs[:n], lrs, self._read, more)
        self.num_steps += n
        for loss in self._read:  # one by one: the sum must not depend on the size of chunks
            self._sum += loss
        self._count += n
        self._epochs, self._lrs, self._read, self._more = [], [], [], {}
        self._flushed = time.perf_counter()
        return chunk

    def mean_since_last(self) -> float:
        """Return the mean loss of the steps since the last call."""
        mean = self._sum / self._count if self._count else math.nan
        self._sum, self._count = 0.0, 0
        return mean

    def to_plain(self) -> dict[str, Any]:
        """Return what is remembered of the losses; all of them must have been handed out."""
        assert not self.pending
        return {
            "num_steps": self.num_steps,
            "stopped_at": self.stopped_at,
            "rule": self.task.stop.to_plain(self._rule_state),
            "sum": self._sum,
            "count": self._count,
        }

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Go on from what `to_plain` gave.

        Raises:
            ValueError: it is of no training that goes on.
        """
        steps, stopped_at = plain["num_steps"], plain["stopped_at"]
        if not isinstance(steps, int) or steps < 0 or stopped_at is not None:
            raise ValueError(f"{steps!r} steps, stopped at {stopped_at!r}")
        self.num_steps = steps
        self._rule_state = self.task.stop.from_plain(plain["rule"])
        self._sum, self._count = plain["sum"], plain["count"]


def is_chunk_due(task: Task, steps: int, since: float) -> bool:
    """Return whether it is time to hand out so many steps, held since then."""
    pace = task.pace
    seconds = CHUNK_SECONDS if pace.chunk_seconds is None else pace.chunk_seconds
    return steps >= pace.chunk_steps or time.perf_counter() - since > seconds


class Slots:
    """Losses in memory of a GPU: one asynchronous copy for each, one read-back for all."""

    def __init__(self, size: int, device: torch.device) -> None:
        # float64 holds the losses of every precision exactly
        self._losses = torch.empty(size, dtype=torch.float64, device=device)
        self._slots = self._losses.unbind()  # indexing costs more than the copy
        self.count = 0

    def add(self, loss: Tensor) -> None:
        """Copy one loss, which may be overwritten afterwards."""
        self._slots[self.count].copy_(loss)
        self.count += 1

    def read(self) -> list[float]:
        """Return all since the last call."""
        losses: list[float] = self._losses[: self.count].tolist()
        self.count = 0
        return losses
