"""Trainings that are checkpointed, stopped and continued, and what is compared of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
import torch

from lrexp.engine import (
    ENGINES,
    Checkpoint,
    Ended,
    Evaluation,
    Interrupted,
    Pause,
    Record,
    Steps,
    Task,
    TrialId,
)
from lrexp.engine import losses as chunks

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


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let losses be read back, and so checkpoints be taken, after every update."""
    monkeypatch.setattr(chunks, "CHUNK_STEPS", 1)


def run(engine: str, tasks: Sequence[Task], **changes: Any) -> list[Record]:
    return list(ENGINES[engine]([replace(task, **changes) for task in tasks]))


def saved(state: Any) -> Any:
    """Return a state as a file gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def checkpoints(records: Sequence[Record]) -> list[Checkpoint]:
    return [record for record in records if isinstance(record, Checkpoint)]


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


def resumed(engine: str, tasks: Sequence[Task], checkpoint: Checkpoint) -> list[Record]:
    """Go on with the trials of a checkpoint."""
    state = saved(checkpoint.state)
    remaining = [task for task in tasks if task.trial in checkpoint.trials]
    return run(engine, remaining, state=state)


def assert_continues(
    engine: str, tasks: Tasks, only: Callable[[int], bool] = lambda step: True
) -> Rows:
    """Train straight, then go on from every checkpoint, and compare all that is recorded."""
    straight = run(engine, tasks())
    expected = rows(straight)
    watched = run(engine, tasks(), pause=Always())
    assert rows(watched) == expected  # taking checkpoints changes nothing
    found = checkpoints(watched)
    assert found
    for checkpoint in found:
        if only(checkpoint.step):
            assert all(checkpoint.step < task.total_steps for task in tasks())
            rest = resumed(engine, tasks(), checkpoint)
            tail = rows(straight, checkpoint.step)
            wanted = {trial: tail[trial] for trial in checkpoint.trials}
            assert rows(rest) == wanted, checkpoint.step
    return expected
