"""What a step costs here, measured: the same updates one trial at a time, and as a stack.

`Machine` tells a choice of engines how long steps take, its cores and its memory.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from lrexp.engine.device import free_bytes
from lrexp.engine.sequential import evaluate
from lrexp.engine.task import Task
from lrexp.engine.training import LrSource
from lrexp.engine.vectorized.loop import LrWindow, stacked_updates
from lrexp.engine.vectorized.proof import COMPARED, Alone, Facts, undisturbed
from lrexp.engine.vectorized.stack import Masks, Stack
from lrexp.workloads.batches import Batches
from lrexp.workloads.metrics import Metrics
from lrexp.workloads.objectives import copy_objective

WARM_UP = {"cpu": 2, "cuda": 6}  # steps not timed: they allocate, choose kernels, are captured
SECONDS = 0.1  # of timed steps
MOST_STEPS = 50
ROUGH_STEPS = 5  # of a first guess


@dataclass(frozen=True)
class Speed:
    """What training costs.

    Args:
        seconds: per trial and step, the median of some.
        setup: seconds before that: building the model, compiling a program.
        bytes: of memory per copy, as far as a stack knows it.
        losses: of short evaluations and the first steps, a list for each copy; to be compared.
    """

    seconds: float
    setup: float
    bytes: int
    losses: list[list[float]]


def sequential_speed(task: Task, most_steps: int = MOST_STEPS) -> Speed:
    """Measure the step of one trial on its own.

    Raises:
        Exception: what the user's code raises.
    """
    begun = time.perf_counter()
    with undisturbed(task):
        alone = Alone(_evaluated_briefly(task))
        first = _evaluations(alone.task, partial(_measured, alone))
        setup = time.perf_counter() - begun
        seconds, losses = _timed(alone.step, task, most_steps)
    return Speed(seconds, setup, 0, _joined(first, losses))


def _measured(alone: Alone) -> list[dict[str, float]]:
    assert alone.task.val is not None
    return [evaluate(alone.model, alone.task.val, alone.task)]


def stacked_speed(tasks: Sequence[Task], facts: Facts) -> Speed:
    """Measure the step of these tasks as one stack.

    Raises:
        NotStackable: vmap cannot run them.
    """
    begun = time.perf_counter()
    tasks = [
        replace(_evaluated_briefly(task), objective=copy_objective(task.objective))
        for task in tasks
    ]
    with undisturbed(tasks[0]):
        stack = Stack(tasks, facts)
        masks, batches = Masks(stack, facts), stacked_updates(stack)
        sources = [LrSource(task) for task in tasks]
        window = LrWindow.of_no_steps()

        def step(number: int) -> Tensor:
            nonlocal window
            if number == window.end:
                window = LrWindow.from_sources(stack, sources, number)
            losses = stack.update(next(batches)[1], masks.draw(number), window.coefficients(number))
            if sources[0].wants_loss:
                for source, loss in zip(sources, losses.tolist(), strict=True):
                    source.observe(number, loss)
            return losses

        evaluated = _evaluations(tasks[0], stack.evaluate)
        first = step(0).detach().clone()
        setup = time.perf_counter() - begun
        seconds, losses = _timed(step, tasks[0], first=first)
    tensors = sum(group.flat.nbytes * (2 + len(group.states)) for group in stack.copies.groups)
    size = (tensors + stack.activation_bytes()) // len(stack.tasks)
    stack.close()
    return Speed(seconds / len(tasks), setup, size, _joined(evaluated, losses))


@dataclass(frozen=True)
class _FirstBatches:
    """The first of the batches that another gives."""

    batches: Batches

    def in_order(self) -> Iterator[Any]:
        yield from islice(self.batches.in_order(), COMPARED)


def _evaluated_briefly(task: Task) -> Task:
    val = task.val if task.eval_every else None
    return replace(
        task, metrics=Metrics(), val=None if val is None else cast(Batches, _FirstBatches(val))
    )


def _evaluations(task: Task, evaluate: Callable[[], list[dict[str, float]]]) -> list[list[float]]:
    """Return the losses of two short evaluations, a list for each copy; none without any data."""
    if task.val is None:
        return []
    both = [evaluate() for _ in range(2)]  # code that counts them gives itself away
    return [[values["val_loss"] for values in copy] for copy in zip(*both, strict=True)]


def _joined(evaluated: list[list[float]], losses: list[list[float]]) -> list[list[float]]:
    return [a + b for a, b in zip(evaluated, losses, strict=True)] if evaluated else losses


def _timed(
    step: Callable[[int], Tensor],
    task: Task,
    most_steps: int = MOST_STEPS,
    first: Tensor | None = None,  # the loss of step 0, where that was done
) -> tuple[float, list[list[float]]]:
    """Return the median seconds of a step, and the first losses of every copy."""
    losses, taken, warm_up = [], [], WARM_UP.get(task.device.type, 2)
    if first is not None:
        losses.append(first.reshape(-1))
    begun = time.perf_counter()
    for number in range(len(losses), min(most_steps, task.total_steps)):
        before = time.perf_counter()
        loss = step(number)
        if task.device.type != "cpu":
            loss.sum().item()  # wait for the device
        now = time.perf_counter()
        taken.append(now - before)
        if number < COMPARED:
            losses.append(loss.detach().reshape(-1).clone())
        if number >= warm_up and now - begun > SECONDS:
            break
    timed = taken[warm_up:] or taken[-1:]
    return statistics.median(timed) if timed else 0.0, torch.stack(losses, dim=1).tolist()


def usable_cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def slower_on_one_thread(task: Task) -> float:
    """Return by how much a step takes longer where torch has one thread, as in each worker."""
    threads = torch.get_num_threads()
    if threads == 1 or task.device.type != "cpu":
        return 1.0
    many = sequential_speed(task).seconds
    torch.set_num_threads(1)
    try:
        return sequential_speed(task).seconds / many
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Machine:
    """Where figures come from: clock, processor and memory, unless others are given.

    Args:
        alone: (task, most steps) -> the speed of a trial on its own.
        stacked: (tasks, facts) -> that of a stack of them.
        cores: how many processes can train side by side.
        memory: (device) -> its free bytes.
        slowdown: (task) -> how much longer a step takes with one thread of torch.
    """

    alone: Callable[[Task, int], Speed] = sequential_speed
    stacked: Callable[[Sequence[Task], Facts], Speed] = stacked_speed
    cores: Callable[[], int] = usable_cores
    memory: Callable[[torch.device], int] = free_bytes
    slowdown: Callable[[Task], float] = slower_on_one_thread
