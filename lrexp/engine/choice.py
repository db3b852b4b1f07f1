"""Which engine trains which trials: measured on the real model before anything is recorded."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lrexp.engine.calibrate import MOST_STEPS, ROUGH_STEPS, Machine, Speed
from lrexp.engine.family import Family, families
from lrexp.engine.task import Task
from lrexp.engine.vectorized.copies import NotStackable
from lrexp.engine.vectorized.proof import COMPARED, agree, other_losses, tolerance, witnesses
from lrexp.errors import ConfigError
from lrexp.records import Group

SHORT = 1.0  # seconds of training that no choice could shorten by more than it costs
FEW_STEPS = 50
SLOW_STEP = 0.1  # seconds; on a CPU such a step is arithmetic, which stacking does not save
CHEAP_STEP = 1e-3  # seconds
TRIAL_COST = (0.15, 100.0)  # of trying a stack: seconds, and seconds per second of a step
BLOCKS = (4, 16, 64)  # copies in a stack, as tried
MOST_COPIES = 256
WORTH = 0.9  # what another engine must reach, as a share of the time of the sequential one
START = 8.0  # seconds until a worker process trains: importing torch, making the plan
SHARED = 0.85  # speed of each of several processes, which share memory and caches
WORKER_BYTES = 1e9  # of memory in a worker process, most of it torch
MEMORY = 0.5  # share of the free memory that stacks may fill


@dataclass(frozen=True)
class Choice:
    """How the trials of a run are trained.

    Args:
        groups: in order.
        jobs: worker processes; 1 is this process.
        reasons: sentences for the user.
        figures: what was measured, plain data.
    """

    groups: tuple[Group, ...]
    jobs: int = 1
    reasons: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return the choice as JSON can hold it."""
        groups = [{"engine": g.engine, "trials": [t.name for t in g.trials]} for g in self.groups]
        rest = {"jobs": self.jobs, "reasons": self.reasons, "figures": self.figures}
        return {"units": groups, **rest}


def choose(
    tasks: Sequence[Task],
    engine: str = "auto",
    jobs: int | None = None,
    why_not_processes: Callable[[], str | None] = lambda: None,
    places: int | None = None,
    *,
    machine: Machine | None = None,
) -> Choice:
    """Return how to train the tasks.

    Args:
        tasks: all trials of a run.
        engine: `auto`, `sequential` or `vectorized`.
        jobs: worker processes; None leaves that to `auto`, and is 1 for the others.
        why_not_processes: returns a reason against them, if there is one.
        places: how many trainings the devices can take side by side; None is a core each.
        machine: where the figures come from; None is this one.

    Raises:
        ConfigError: `vectorized` was asked for and cannot be had; the key is `engine`.
    """
    if engine == "vectorized":
        return _as_stacks(tasks, jobs or 1, machine or Machine())
    if engine == "sequential" or (jobs or 1) > 1:
        # Who asks for processes may want to be safe from what the model does: it is not tried here.
        return _one_by_one(tasks, jobs or 1, "as asked for")
    return _fastest(tasks, jobs, why_not_processes, places, machine or Machine())


ALONE = "there is no other"  # trial; a screen need not say so


def _one_by_one(tasks: Sequence[Task], jobs: int, why: str, **figures: float) -> Choice:
    groups = tuple(Group("sequential", (task.trial,)) for task in tasks)
    where = f" in {jobs} worker processes" if jobs > 1 else ""
    how = "on its own" if len(tasks) == 1 else "one by one"
    return Choice(groups, jobs, (f"{_count(tasks)} {how}{where}: {why}",), figures)


def _count(tasks: Sequence[Task]) -> str:
    return f"{len(tasks)} trials" if len(tasks) > 1 else "1 trial"


def _as_stacks(tasks: Sequence[Task], jobs: int, machine: Machine) -> Choice:
    groups, known = [], []
    for declared in families(tasks):
        family, reason = _as_stack(declared, machine)
        known.append(family.to_plain())
        if reason is not None and not family.raises:
            others = len({task.trial.variant for task in family.tasks}) - 1
            who = f"{family.tasks[0].trial.variant}{f' and {others} more' if others else ''}"
            remedy = "Leave it to auto, which trains such trials one by one, or in processes."
            what = f"cannot train {who} as a stack: {reason}"
            raise ConfigError.single("engine", what, "vectorized", remedy)
        size = min(family.block, math.ceil(len(family.tasks) / jobs))
        groups += [Group("vectorized", tuple(t.trial for t in b)) for b in family.blocks(size)]
    stacks = "one stack" if len(groups) == 1 else f"{len(groups)} stacks"
    why = f"{_count(tasks)} in {stacks}: as asked for"
    return Choice(tuple(groups), jobs, (why,), {"families": known})


def _as_stack(family: Family, machine: Machine) -> tuple[Family, str | None]:
    """Return the family in stacks as large as can be, or the reason why there can be none."""
    if family.facts is None:
        return family, family.reason
    first, *others = _in_order_of_trial(family)
    try:
        members = [first, *others[:1]]
        speed = _checked_stack(family, members, machine.alone(first, MOST_STEPS), machine)
        most = _most_copies(family, speed, machine)
        return replace(family, block=most, bytes=speed.bytes, reason="as asked for"), None
    except NotStackable as why:
        return family, str(why)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # of user code, or no memory: what remedy there is, is the same
        return family, f"{type(error).__name__} was raised: {error}"


def _fastest(
    tasks: Sequence[Task],
    jobs: int | None,
    why_not_processes: Callable[[], str | None],
    places: int | None,
    machine: Machine,
) -> Choice:
    if len(tasks) == 1:
        return _one_by_one(tasks, 1, ALONE)
    if _steps(tasks) < FEW_STEPS:
        return _one_by_one(tasks, 1, "a run of few steps is not measured")
    step = _rough_seconds(tasks[0], machine)
    guess = step * _steps(tasks)
    if guess < SHORT or (guess < START and _is_too_short(guess, step)):
        why = f"all of them take about {guess:.1f} s, too short to try stacks"
        return _one_by_one(tasks, 1, why, seconds_in_one_process=guess)
    parts = [_with_engine(family, machine) for family in families(tasks)]
    here = sum(sum(part.times(1)) for part in parts)
    # more than one was asked for, and was granted, before anything was tried
    workers, why = (1, "as asked for") if jobs else _workers(parts, here, places, machine)
    if jobs is None and workers > 1 and (against := why_not_processes()) is not None:
        workers, why = 1, against
    groups = [group for part in parts for group in part.groups(workers)]
    figures = {
        "families": [part.to_plain() for part in parts],
        "seconds_in_one_process": here,
        "processes": why,
        "cores": machine.cores(),
    }
    reasons = [_sentence(part, workers) for part in parts]
    if workers > 1:
        reasons.append(f"{workers} worker processes: {why}")
    return Choice(tuple(groups), workers, tuple(dict.fromkeys(reasons)), figures)


def speeds(tasks: Sequence[Task], machine: Machine) -> tuple[dict[int, float], float]:
    """Return seconds per trial-step by the copies in a stack, 1 for none, and a stack's setup.

    Args:
        tasks: of one family, as many as may be trained at a time.
    """
    step = _rough_seconds(tasks[0], machine)
    if step * _steps(tasks) < SHORT or len(tasks) == 1:
        return {1: step}, 0.0
    family = _with_engine(families(tasks)[0], machine)
    alone = family.alone or step
    return {1: alone, **(family.seconds if family.block > 1 else {})}, family.setup


def _rough_seconds(task: Task, machine: Machine) -> float:
    """Return about how long a step takes."""
    try:
        return machine.alone(task, ROUGH_STEPS).seconds
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException:  # of user code: the trial itself will raise it, with its place
        return 0.0


def _is_too_short(total: float, step: float) -> bool:
    """Return whether trying a stack would cost too much of so many seconds.

    A cheap step is all overhead, and a stack saves nearly all of it; a dear one, less surely.
    """
    times_cost = 6 if step < CHEAP_STEP else 20
    return total < times_cost * (TRIAL_COST[0] + TRIAL_COST[1] * step)


def _in_order_of_trial(family: Family) -> list[Task]:
    """Return the tasks that a stack is tried with: the tamest of two seeds, then the others."""
    first, *second = witnesses(family.tasks)
    seed = family.tasks[first].trial.seed
    others = [row for row in range(len(family.tasks)) if row not in (first, *second)]
    tasks = [family.tasks[row] for row in (first, *second, *others)]
    return [task for task in tasks if task.trial.seed == seed] if family.is_by_seed else tasks


def _with_engine(family: Family, machine: Machine) -> Family:
    """Return the family with the faster engine, as far as one process goes."""
    task = _in_order_of_trial(family)[0]
    try:
        own = machine.alone(task, MOST_STEPS)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # of user code: as above
        return replace(family, reason=f"{type(error).__name__} was raised in the first steps")
    family = replace(family, alone=own.seconds)
    why_not = _why_one_by_one(family, own)
    if why_not is not None:
        return replace(family, reason=why_not)
    try:
        return _best_stack(family, own, machine)
    except NotStackable as why_never:
        return replace(family, reason=str(why_never))
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # no memory, or user code that raises in a stack alone
        return replace(family, reason=f"a stack raised {type(error).__name__}")


def _why_one_by_one(family: Family, own: Speed) -> str | None:
    """Return why a stack is not even tried."""
    if len(family.tasks) == 1:
        return "there is one trial of its kind"
    if family.facts is None:
        return family.reason
    if own.seconds > SLOW_STEP and family.tasks[0].device.type == "cpu":
        return f"a step took {own.seconds:.2f} s when timed, too long for a stack to save much"
    total = own.seconds * _steps(family.tasks)
    if _is_too_short(total, own.seconds):
        return f"{total:.0f} s are too short to try stacks of so slow a step"
    return None


def _best_stack(family: Family, own: Speed, machine: Machine) -> Family:
    """Return the family in stacks of the fastest size, or one by one where that is faster."""
    members = _in_order_of_trial(family)
    limit, block, best = MOST_COPIES, 1, math.inf
    setup, tried = 0.0, dict[int, float]()
    for step in (*BLOCKS, len(members)):
        size = min(step, len(members), limit)
        if size in tried:
            continue
        speed = _checked_stack(family, members[:size], own, machine)
        limit = min(limit, _most_copies(family, speed, machine))
        tried[size], setup = speed.seconds, speed.setup
        family = replace(family, bytes=speed.bytes)
        if speed.seconds > 0.95 * best:
            break  # larger stacks leave the caches
        block, best = size, speed.seconds
        if speed.seconds > own.seconds:
            break  # arithmetic: more copies at a time are not cheaper
    again = machine.alone(members[0], MOST_STEPS)  # once more: clocks here are noisy
    alone = min(own.seconds, again.seconds)
    one_by_one = replace(family, alone=alone, seconds=tried)
    stacked = replace(one_by_one, block=min(block, limit), setup=setup)
    if block == 1 or sum(stacked.times(1)) > WORTH * alone * _steps(family.tasks):
        return replace(one_by_one, reason=f"a stack is no faster ({_times(alone / best)})")
    return replace(stacked, reason=f"{_times(alone / best)} as fast as one by one")


def _checked_stack(family: Family, members: Sequence[Task], own: Speed, machine: Machine) -> Speed:
    """Measure a stack; refuse one whose first losses are not those of its trials alone.

    Args:
        own: measured of the first member.
    """
    assert family.facts is not None
    speed = machine.stacked(members, family.facts)
    allowed = tolerance(next(family.facts.model.parameters()).dtype, members[0])
    for row in witnesses(members):
        (alone,) = own.losses if row == 0 else machine.alone(members[row], COMPARED).losses
        for one, other in zip(alone, speed.losses[row], strict=True):
            if not agree(one, other, allowed):
                raise NotStackable(other_losses(one, other))
    return speed


def _most_copies(family: Family, speed: Speed, machine: Machine) -> int:
    room = MEMORY * machine.memory(family.tasks[0].device)
    return max(1, min(MOST_COPIES, int(room / max(1, speed.bytes))))


def _workers(
    parts: Sequence[Family], here: float, places: int | None, machine: Machine
) -> tuple[int, str]:
    """Return how many worker processes to start, 1 for none, and why."""
    task = parts[0].tasks[0]
    trials = sum(len(part.tasks) for part in parts)
    workers = min(places or machine.cores(), trials)
    if task.device.type == "cpu":
        workers = min(workers, int(machine.memory(task.device) * MEMORY / WORKER_BYTES) or 1)
    if workers < 2 or task.device.type not in ("cpu", "cuda"):
        return 1, "there is one place to train"
    times = [seconds for part in parts for seconds in part.times(workers)]
    work = longest(times, workers) / SHARED
    if START + work > 0.8 * here:
        return 1, "starting them would take longer than they save"
    there = START + work * machine.slowdown(task)
    if there > 0.8 * here:
        return 1, "they are no faster than the threads of one process"
    return workers, f"about {there:.0f} s instead of {here:.0f} s"


def longest(times: Sequence[float], workers: int) -> float:
    """Return when the last worker is done, each taking the next group as it gets free."""
    free = [0.0] * workers
    for seconds in times:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def _steps(tasks: Sequence[Task]) -> int:
    return sum(task.total_steps for task in tasks)


def _sentence(family: Family, workers: int) -> str:
    what = _count(family.tasks)
    if family.engine == "sequential":
        each = "one by one" if workers == 1 else "each on its own"
        return f"{what} {each}: {family.reason}"
    stacks = len(family.groups(workers))
    in_stacks = "one stack" if stacks == 1 else f"{stacks} stacks"
    return f"{what} in {in_stacks}: {family.reason}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}×"
