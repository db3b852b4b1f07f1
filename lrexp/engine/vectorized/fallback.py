"""Training tasks in as few stacks as their forms allow.

What cannot be stacked, or raises as a stack, is trained one by one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from lrexp.engine.family import Family, families
from lrexp.engine.sequential import is_due_to_stop, train_or_fail
from lrexp.engine.state import MisfitError, misfit
from lrexp.engine.task import Task
from lrexp.engine.vectorized.copies import NotStackable
from lrexp.engine.vectorized.loop import train_stack, trials_of
from lrexp.records import Checkpoint, Ended, Interrupted, Record, Started


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


def run_vectorized(tasks: Iterable[Task]) -> Iterator[Record]:
    """Train tasks in as few stacks as their forms allow.

    What cannot be stacked, or raises as a stack, is trained one by one: so every trial gets what
    it would have got on its own up to rounding, be that a result or an exception with its place;
    `Started.again` says why. Where a stop is requested, what has not begun by then is left out.

    Raises:
        MisfitError: the state of tasks is of something else; they have not been started.
    """
    tasks = list(tasks)
    apart = [task for task in tasks if is_apart(task.state) and not task.is_over]
    if apart:
        yield from go_on_apart(apart)
    for family in families(task for task in tasks if not is_apart(task.state)):
        for block in family.blocks(len(family.tasks)):
            for stack in _by_state(block):
                if not all(task.is_over for task in stack):
                    yield from _train_block(stack, family)


def _by_state(tasks: Sequence[Task]) -> list[list[Task]]:
    """Return the tasks that go on together, and those that begin, each as a stack."""
    stacks: dict[int, list[Task]] = {}
    for task in tasks:
        state = task.state
        is_new = state is not None and "columns" in state and task.trial not in trials_of(state)
        if is_new and task.is_over:  # by then already
            continue
        own = replace(task, state=None) if is_new else task
        stacks.setdefault(id(own.state), []).append(own)
    return list(stacks.values())


def _train_block(block: Sequence[Task], family: Family) -> Iterator[Record]:
    if block[0].is_stop_requested:
        return
    if family.facts is None:
        _require_new(block, family.reason)
        yield from taken_apart(block, f"not as part of a stack: {family.reason}")
        return
    started, left = False, [task.trial for task in block if not task.is_over]
    try:
        with closing(train_stack(block, family.facts)) as records:
            for record in records:
                started = True
                if isinstance(record, Ended):
                    left.remove(record.trial)
                yield record
    except (KeyboardInterrupt, GeneratorExit, MisfitError):
        raise
    except BaseException as error:  # of user code, or no memory
        if is_due_to_stop(block[0], error):
            why = f"{type(error).__name__} was raised while it stopped"
            yield Interrupted(tuple(left), why)
            return
        cause = error if isinstance(error, NotStackable) else f"it raised {type(error).__name__}"
        if not started:
            _require_new(block, str(cause))
        yield from taken_apart(block, f"not as part of a stack: {cause}")


def _require_new(block: Sequence[Task], why: str) -> None:
    """Refuse to begin again with trials that were to go on from a stack's checkpoint.

    Raises:
        MisfitError: that is what they were.
    """
    if block[0].state is not None:
        raise misfit(f"its trials cannot be trained as one stack any more: {why}")
