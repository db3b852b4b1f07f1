"""Training many trials at once as one stacked model. Start reading at `loop.py`.

`grouping` finds out what may share a stack, `copies` lays the tensors of K models side by side,
`stack` makes one step of them, `program` turns that into a straight line of operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from lrexp.engine.sequential import run_sequentially
from lrexp.engine.task import Record, Started, Task
from lrexp.engine.vectorized.copies import NotStackable
from lrexp.engine.vectorized.grouping import Family, families
from lrexp.engine.vectorized.loop import train_stack

__all__ = ["Family", "NotStackable", "families", "run_vectorized", "train_stack"]


def run_vectorized(tasks: Iterable[Task]) -> Iterator[Record]:
    """Train tasks in as few stacks as their forms allow.

    What cannot be stacked, or raises as a stack, is trained one by one: so every trial gets what
    it would have got on its own, be that a result or an exception with its place. `Started.again`
    says why.
    """
    for family in families(tasks):
        for block in family.blocks(len(family.tasks)):
            if family.reason is None:
                yield from _train_block(block, family)
            else:
                yield from _one_by_one(block, family.reason)


def _one_by_one(block: tuple[Task, ...], why: str) -> Iterator[Record]:
    for record in run_sequentially(block):
        if isinstance(record, Started):
            record = replace(record, again=f"not as part of a stack: {why}")  # noqa: PLW2901
        yield record


def _train_block(block: tuple[Task, ...], family: Family) -> Iterator[Record]:
    assert family.facts is not None
    try:
        yield from train_stack(block, family.facts)
    except Exception as error:  # of user code, or no memory
        cause = error if isinstance(error, NotStackable) else f"it raised {type(error).__name__}"
        yield from _one_by_one(block, str(cause))
