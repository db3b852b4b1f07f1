"""Trainings that are checkpointed, stopped and continued, and what is compared of them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch

from lrexp.engine.engines import ENGINES
from lrexp.engine.stop import Pace, Pause
from lrexp.engine.task import Task
from lrexp.records import Checkpoint, Ended, Evaluation, Interrupted, Record, Steps, TrialId
from lrexp.workloads.batches import Batches

Tasks: TypeAlias = Callable[[], Sequence[Task]]
Rows: TypeAlias = dict[TrialId, list[tuple[Any, ...]]]


class Always(Pause):
    """A checkpoint wherever there can be one; at the n-th, a request to stop."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at, self.asked = stop_at, 0

    def due(self) -> bool:
        self.asked += 1
        self.requested = self.requested or self.asked == self.stop_at
        return True


class Raising:
    """Training batches, said to come from some processes; reading the n-th of them raises, once."""

    def __init__(
        self, batches: Batches, raise_: Callable[[], None], nth: float = math.inf, workers: int = 0
    ) -> None:
        self.batches_per_epoch, self.read, self.nth = batches.batches_per_epoch, 0, nth
        self._batches, self._raise, self.workers = batches, raise_, workers

    def epoch(self, seed: int, epoch: int, start: int = 0) -> Iterator[Any]:
        for batch in self._batches.epoch(seed, epoch, start):
            self.read += 1
            if self.read == self.nth:
                self._raise()
            yield batch


EVERY_STEP = Pace(chunk_steps=1)


def run(
    engine: str, tasks: Sequence[Task], pace: Pace = EVERY_STEP, **changes: Any
) -> list[Record]:
    """Train; losses are read back, and so checkpoints can be taken, after every update."""
    return list(ENGINES[engine]([replace(task, pace=pace, **changes) for task in tasks]))


def saved(state: Any) -> Any:
    """Return a state as a file gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def checkpoints(records: Sequence[Record]) -> list[Checkpoint]:
    return [record for record in records if isinstance(record, Checkpoint)]


def at_step(records: Sequence[Record], step: int) -> Checkpoint:
    """Return the checkpoint after so many updates; the first one that is due waits for one more."""
    (found,) = (checkpoint for checkpoint in checkpoints(records) if checkpoint.step == step)
    return found


def bits(value: Any) -> Any:
    return value.hex() if isinstance(value, float) else value


def rows(records: Sequence[Record], after: int = 0) -> Rows:
    """All that is recorded of each trial beyond `after` updates, apart from times."""
    found: Rows = {}
    for record in records:
        own = found.setdefault(record.trial, []) if not isinstance(record, Interrupted) else []
        if isinstance(record, Steps):
            steps = range(record.first, record.first + len(record.loss))
            parts = zip(steps, record.epoch, record.lr, record.loss, strict=True)
            own += [(s, e, bits(lr), bits(loss)) for s, e, lr, loss in parts if s >= after]
        elif isinstance(record, Evaluation) and (record.step > after or after == 0):
            values = [(name, bits(value)) for name, value in sorted(record.values.items())]
            own.append(("evaluation", record.step, bits(record.epoch), *values))
        elif isinstance(record, Ended):
            own.append(("end", record.steps, record.stopped_at))
    return {trial: own for trial, own in found.items() if own}


def resumed(
    engine: str, tasks: Sequence[Task], checkpoint: Checkpoint, pace: Pace = EVERY_STEP
) -> list[Record]:
    """Go on with the trials of a checkpoint; the others are over."""
    state = saved(checkpoint.state)
    all_of_them = [replace(task, is_over=task.trial not in checkpoint.trials) for task in tasks]
    return run(engine, all_of_them, pace, state=state)


def assert_continues(
    engine: str,
    tasks: Tasks,
    only: Callable[[int], bool] = lambda step: True,
    pace: Pace = EVERY_STEP,
) -> Rows:
    """Train straight, then go on from every checkpoint, and compare all that is recorded."""
    straight = rows(run(engine, tasks(), pace))
    assert assert_goes_on(engine, tasks, only, pace) == straight  # checkpoints change nothing
    return straight


def assert_goes_on(
    engine: str, tasks: Tasks, only: Callable[[int], bool], pace: Pace = EVERY_STEP
) -> Rows:
    """Train with checkpoints, go on from some, and compare with the rest of that training."""
    watched = run(engine, tasks(), pace, pause=Always())
    found = [checkpoint for checkpoint in checkpoints(watched) if only(checkpoint.step)]
    assert found
    for checkpoint in found:
        assert all(checkpoint.step < task.total_steps for task in tasks())
        rest = resumed(engine, tasks(), checkpoint, pace)
        tail = rows(watched, checkpoint.step)
        wanted = {trial: tail[trial] for trial in checkpoint.trials}
        assert rows(rest) == wanted, checkpoint.step
    return rows(watched)
