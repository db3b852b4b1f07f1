"""Training many trials at once as one stacked model. Start reading at `loop.py`.

`grouping` finds out what may share a stack, `copies` lays the tensors of K models side by side,
`stack` makes one step of them, `program` turns that into a straight line of operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from lrexp.engine.sequential import is_due_to_stop
from lrexp.engine.state import MisfitError, misfit
from lrexp.engine.task import Ended, Interrupted, Record, Task
from lrexp.engine.vectorized.apart import go_on_apart, is_apart, taken_apart
from lrexp.engine.vectorized.copies import NotStackable
from lrexp.engine.vectorized.grouping import Family, families
from lrexp.engine.vectorized.loop import train_stack, trials_of

__all__ = ["Family", "NotStackable", "families", "run_vectorized", "train_stack"]


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
    if family.reason is not None:
        _require_new(block, family.reason)
        yield from taken_apart(block, f"not as part of a stack: {family.reason}")
        return
    assert family.facts is not None
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
