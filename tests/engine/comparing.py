"""What two engines, or two stacks, gave for the same tasks, compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lrexp.engine.engines import ENGINES
from lrexp.engine.task import Task
from lrexp.records import Ended, Evaluation, Started, Steps, TrialId


def train(engine: str, tasks: Sequence[Task]) -> dict[TrialId, list[Any]]:
    """Return the records of every trial; all end well, and no stack is trained one by one."""
    records: dict[TrialId, list[Any]] = {task.trial: [] for task in tasks}
    for record in ENGINES[engine](list(tasks)):
        records[record.trial].append(record)
    for own in records.values():
        assert [type(own[0]), type(own[-1])] == [Started, Ended]
        assert sum(isinstance(record, Started) for record in own) == 1
    return records


def losses(records: Sequence[Any]) -> list[float]:
    return [x for record in records if isinstance(record, Steps) for x in record.loss]


def numbers(records: Sequence[Any]) -> list[float]:
    """All numbers of one trial apart from its time: LRs, losses, evaluations, its end."""
    values: list[float] = []
    for record in records:
        if isinstance(record, Evaluation):
            values += [record.step, record.epoch, *dict(sorted(record.values.items())).values()]
        elif isinstance(record, Ended):
            values += [record.steps, -1 if record.stopped_at is None else record.stopped_at]
    steps = [record for record in records if isinstance(record, Steps)]
    lrs = [x for chunk in steps for x in chunk.lr]
    epochs = [x for chunk in steps for x in chunk.epoch]
    return values + lrs + epochs + losses(steps)


def keys(records: Sequence[Any]) -> list[list[str]]:
    return [sorted(record.values) for record in records if isinstance(record, Evaluation)]


def assert_close(one: Sequence[Any], other: Sequence[Any], rel: float, what: object = None) -> None:
    """Compare all that two trainings of a trial gave: rounding is all that may differ."""
    assert keys(one) == keys(other)
    expected = pytest.approx(numbers(other), rel=rel, abs=1e-300, nan_ok=True)
    assert numbers(one) == expected, what


def assert_equal(tasks: Sequence[Task], rel: float = 1e-9) -> dict[TrialId, list[Any]]:
    """Train the tasks with both engines and compare all that they yield."""
    alone, stacked = train("sequential", tasks), train("vectorized", tasks)
    for trial, records in alone.items():
        assert_close(stacked[trial], records, rel, trial)
    return stacked
