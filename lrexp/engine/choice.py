"""Which engine trains which trials: measured on the real model before anything is recorded.

An engine changes how long a run takes, never what it gives, so the choice may rest on a clock.
What is measured: a step of one trial on its own, the same step in stacks of growing size; worker
processes are reckoned from these. The choice and its figures are kept with the run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from lrexp.engine.calibrate import Speed, agree, sequential_speed, stacked_speed
from lrexp.engine.memory import free_bytes
from lrexp.engine.task import Task, Unit
from lrexp.engine.vectorized import Family, NotStackable, families
from lrexp.errors import ConfigError

SHORT = 1.0  # seconds of training that no choice could shorten by more than it costs
SLOW_STEP = 0.1  # seconds; on a CPU such a step is arithmetic, which stacking does not save
BLOCKS = (4, 16, 64)  # copies in a stack, as tried
MOST_COPIES = 256
WORTH = 0.9  # what another engine must reach, as a share of the time of the sequential one
START = 8.0  # seconds until a worker process trains: importing torch, making the plan
SHARED = 0.85  # speed of each of several processes, which share memory and caches
MEMORY = 0.5  # share of the free memory that stacks may fill


@dataclass(frozen=True)
class Choice:
    """How the trials of a run are trained.

    Args:
        units: in order.
        jobs: worker processes; 1 is this process.
        reasons: sentences for the user.
        figures: what was measured, plain data.
    """

    units: tuple[Unit, ...]
    jobs: int = 1
    reasons: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return the choice as JSON can hold it."""
        plain = asdict(self)
        plain["units"] = [
            {"engine": u.engine, "trials": [f"{t.variant}/seed-{t.seed}" for t in u.trials]}
            for u in self.units
        ]
        return plain


@dataclass(frozen=True)
class Part:
    """A family of trials with the engine found for it: seconds per trial-step, and its stacks."""

    family: Family
    engine: str
    seconds: float
    block: int
    reason: str
    figures: dict[str, Any]

    @property
    def total(self) -> float:
        """Seconds that all its trials take in one process."""
        return self.seconds * sum(task.total_steps for task in self.family.tasks)

    def units(self, jobs: int) -> list[Unit]:
        """Return the units, small enough for every process to have some."""
        if self.engine == "sequential":
            return [Unit("sequential", (task.trial,)) for task in self.family.tasks]
        size = min(self.block, math.ceil(len(self.family.tasks) / jobs))
        blocks = self.family.blocks(size)
        return [Unit("vectorized", tuple(task.trial for task in block)) for block in blocks]


def choose(
    tasks: Sequence[Task],
    engine: str = "auto",
    jobs: int | None = None,
    why_not_processes: Callable[[], str | None] = lambda: None,
) -> Choice:
    """Return how to train the tasks.

    Args:
        tasks: all trials of a run.
        engine: `auto`, `sequential` or `vectorized`.
        jobs: worker processes; None leaves that to `auto`, and is 1 for the others.
        why_not_processes: returns a reason against them, if there is one.

    Raises:
        ConfigError: `vectorized` was asked for and cannot be had; the key is `engine`.
    """
    if engine == "sequential":
        return Choice(tuple(Unit("sequential", (task.trial,)) for task in tasks), jobs or 1)
    if engine == "vectorized":
        return _as_stacks(tasks, jobs or 1)
    return _fastest(tasks, jobs, why_not_processes)


def _as_stacks(tasks: Sequence[Task], jobs: int) -> Choice:
    units = []
    for family in families(tasks):
        size, reason = _stack_size(family)
        if reason is not None:
            raise ConfigError.single(
                "engine",
                f"cannot train variant {family.tasks[0].trial.variant} as a stack: {reason}",
                "vectorized",
                "Use engine: auto, which takes another engine where it must.",
            )
        size = min(size, math.ceil(len(family.tasks) / jobs))
        units += [Unit("vectorized", tuple(t.trial for t in b)) for b in family.blocks(size)]
    return Choice(tuple(units), jobs)


def _stack_size(family: Family) -> tuple[int, str | None]:
    """Return how many copies a stack may have, or the reason why there can be none."""
    if family.reason is not None:
        return 0, family.reason
    try:
        return _most_copies(family, _checked_stack(family, family.tasks[:1])), None
    except NotStackable as why:
        return 0, str(why)


def _fastest(
    tasks: Sequence[Task], jobs: int | None, why_not_processes: Callable[[], str | None]
) -> Choice:
    guess = _rough_seconds(tasks) if len(tasks) > 1 else 0.0
    if guess < SHORT:
        alone = tuple(Unit("sequential", (task.trial,)) for task in tasks)
        return Choice(alone, jobs or 1, figures={"seconds_in_one_process": guess})
    parts = [_part(family) for family in families(tasks)]
    here = sum(part.total for part in parts)
    workers, why = (jobs, "as asked for") if jobs else _workers(tasks, here, why_not_processes)
    units = [unit for part in parts for unit in part.units(workers)]
    figures = {
        "families": [part.figures | {"engine": part.engine} for part in parts],
        "seconds_in_one_process": here,
        "cores": usable_cores(),
    }
    reasons = [_sentence(part, workers) for part in parts]
    if workers > 1:
        reasons.append(f"{workers} worker processes: {why}")
    return Choice(tuple(units), workers, tuple(dict.fromkeys(reasons)), figures)


def _rough_seconds(tasks: Sequence[Task]) -> float:
    """Return about how long all tasks take one by one, from a few steps of the first."""
    try:
        seconds = sequential_speed(tasks[0], most_steps=5).seconds
    except Exception:  # of user code: the trial itself will raise it, with its place
        return 0.0
    return seconds * sum(task.total_steps for task in tasks)


def _part(family: Family) -> Part:
    """Return the faster engine for a family, as far as one process goes."""
    try:
        task = min(family.tasks, key=lambda task: task.base_lr)
        own = sequential_speed(task)
    except Exception as error:  # of user code: the trial itself will raise it, with its place
        why = f"{type(error).__name__} was raised in the first steps"
        return Part(family, "sequential", 0.0, 1, why, {"reason": why})
    figures: dict[str, Any] = {"trials": len(family.tasks), "sequential_seconds": own.seconds}
    block, seconds = 1, own.seconds
    why_not = _why_one_by_one(family, own)
    if why_not is None:
        try:
            block, seconds = _best_block(family, own, task, figures)
        except NotStackable as why_never:
            why_not = str(why_never)
    if why_not is None and seconds > WORTH * own.seconds:
        why_not = f"a stack is no faster ({_times(own.seconds / seconds)})"
    if why_not is not None:
        return Part(family, "sequential", own.seconds, 1, why_not, figures | {"reason": why_not})
    reason = f"{_times(own.seconds / seconds)} as fast as one by one"
    return Part(family, "vectorized", seconds, block, reason, figures | {"reason": reason})


def _why_one_by_one(family: Family, own: Speed) -> str | None:
    """Return why a stack is not even tried."""
    total = own.seconds * sum(task.total_steps for task in family.tasks)
    if len(family.tasks) == 1:
        return "there is one trial of its kind"
    if total < SHORT:
        return f"all of it takes about {total:.1f} s"
    if family.reason is not None:
        return family.reason
    if own.seconds > SLOW_STEP and family.tasks[0].device.type == "cpu":
        return f"a step of {own.seconds:.2f} s is arithmetic, which stacks do not save"
    return None


def _best_block(
    family: Family, own: Speed, task: Task, figures: dict[str, Any]
) -> tuple[int, float]:
    """Return the size of stacks that is fastest, and its seconds per trial-step."""
    others = [other for other in family.tasks if other is not task]
    limit, found, tried = MOST_COPIES, (1, math.inf), figures.setdefault("stacked_seconds", {})
    per_seed = max(1, len(family.tasks) // len({t.trial.seed for t in family.tasks}))
    most = per_seed if family.by_seed else len(family.tasks)
    for step in (*BLOCKS, most):
        size = min(step, most, limit)
        if size in tried:
            continue
        members = [task, *others][:size]
        if family.by_seed:
            members = [t for t in (task, *others) if t.trial.seed == task.trial.seed][:size]
        speed = _checked_stack(family, members, own)
        limit = min(limit, _most_copies(family, speed))
        tried[size] = speed.seconds
        if speed.seconds > 0.95 * found[1]:
            break  # larger stacks leave the caches
        found = size, speed.seconds
        if speed.seconds > own.seconds:
            break  # arithmetic: more copies at a time are not cheaper
    return found


def _checked_stack(family: Family, members: Sequence[Task], own: Speed | None = None) -> Speed:
    """Measure a stack; refuse one whose first losses are not those of its first trial alone."""
    assert family.facts is not None
    speed = stacked_speed(members, family.facts)
    alone = own or sequential_speed(members[0])
    if not agree(alone.losses[0], speed.losses[0], members[0]):
        raise NotStackable("its losses in a stack are not those of a trial on its own")
    return speed


def _most_copies(family: Family, speed: Speed) -> int:
    room = MEMORY * free_bytes(family.tasks[0].device)
    return max(1, min(MOST_COPIES, int(room / max(1, speed.bytes))))


def _workers(
    tasks: Sequence[Task], here: float, why_not: Callable[[], str | None]
) -> tuple[int, str]:
    """Return how many worker processes to start, 1 for none, and why."""
    device = tasks[0].device
    places = torch.cuda.device_count() if device.type == "cuda" else usable_cores()
    workers = min(places, len(tasks))
    if device.type == "cpu":  # torch's threads share the work of one process already
        workers = min(workers, int(free_bytes(device) * MEMORY / 1e9) or 1)
    if workers < 2 or device.type not in ("cpu", "cuda"):
        return 1, "there is one place to train"
    if START + here / (workers * SHARED) > 0.8 * here:
        return 1, "starting them would take longer than they save"
    if (reason := why_not()) is not None:
        return 1, reason
    there = START + here * _slower_on_one_thread(tasks[0]) / (workers * SHARED)
    if there > 0.8 * here:
        return 1, "they are no faster than the threads of one process"
    return workers, f"about {there:.0f} s instead of {here:.0f} s"


def _slower_on_one_thread(task: Task) -> float:
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


def usable_cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _sentence(part: Part, workers: int) -> str:
    count = len(part.family.tasks)
    what = f"{count} trials" if count > 1 else "1 trial"
    if part.engine == "sequential":
        return f"{what} one by one: {part.reason}"
    stacks = len(part.units(workers))
    in_stacks = "one stack" if stacks == 1 else f"{stacks} stacks"
    return f"{what} in {in_stacks}: {part.reason}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}×"
