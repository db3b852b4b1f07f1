"""The trials of a stack that raised, trained one by one.

That is how they go on after an interruption, too: whether a stack raises depends on who is in it,
and those that are over by then would be missing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from lrexp.engine.sequential import train_or_fail
from lrexp.engine.task import Checkpoint, Interrupted, Record, Started, Task


def taken_apart(tasks: Sequence[Task], why: str) -> Iterator[Record]:
    """Begin again with every task on its own.

    Args:
        tasks: of the stack; those that are over stay so.
        why: what `Started.again` says.
    """
    fresh = [replace(task, state=None) for task in tasks if not task.is_over]
    for task in fresh:
        yield Started(task.trial, again=why)
    if fresh[0].pause is not None:
        trials = tuple(task.trial for task in fresh)
        yield Checkpoint(trials, 0, _state(None))
    yield from _one_by_one(fresh)


def is_apart(state: Mapping[str, Any] | None) -> bool:
    """Return whether a state is of trials whose stack has raised."""
    return state is not None and "apart" in state


def go_on_apart(tasks: Sequence[Task]) -> Iterator[Record]:
    """Go on with tasks whose states say that their stack has raised.

    Raises:
        MisfitError: a state is of something else; no task has been started.
    """
    resumed = []
    for number, task in enumerate(tasks):
        assert task.state is not None
        own = task.state["apart"] if number == 0 else None  # the others had not begun
        is_own = own is not None and own["trial"] == [task.trial.variant, task.trial.seed]
        resumed.append(replace(task, state=own if is_own else None))
    others = [Started(task.trial) for task in resumed if task.state is None]
    if resumed[0].state is None:
        yield from others
    with closing(_one_by_one(resumed)) as records:
        for record in records:
            yield record
            if isinstance(record, Started):  # the first one, once its state was found to fit
                yield from others


def _one_by_one(tasks: Sequence[Task]) -> Generator[Record, None, None]:
    """Train the tasks; their checkpoints are of all that are not over yet."""
    for number, task in enumerate(tasks):
        trials = tuple(task.trial for task in tasks[number:])
        if task.is_stop_requested:
            yield Interrupted(trials)
            return
        for record in train_or_fail(task):
            if isinstance(record, Checkpoint):
                yield replace(record, trials=trials, state=_state(record.state))
            elif isinstance(record, Interrupted):
                yield replace(record, trials=trials)
                return
            else:
                yield record


def _state(own: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"engine": "vectorized", "apart": own}
