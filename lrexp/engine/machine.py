"""What a choice of engines is told of this machine: how long steps take, its cores, its memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lrexp.engine.calibrate import Speed, sequential_speed, stacked_speed
from lrexp.engine.memory import free_bytes
from lrexp.engine.probing import Facts
from lrexp.engine.task import Task


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
