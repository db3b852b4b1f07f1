"""Each kind of trial as a task: the config's own training, or that with another schedule and end.

- `compare`: the training of a variant as its config describes it.
- `range_test`: a ramp of LRs in place of the schedule, until the loss blows up.
- `paired_control`: the batches of a range test once more at an LR of 0, to compare each with.
- `race`: the config's schedule, compressed to the horizon, with a base LR of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
from torch import nn
from torch.optim import Optimizer

from lrexp.analysis.race import Candidate
from lrexp.analysis.search import evaluations
from lrexp.analysis.stopping import RangeTestStop, ramp
from lrexp.config.config import Config
from lrexp.config.schema import ExperimentConfig
from lrexp.engine.stop import Pause
from lrexp.engine.task import Task
from lrexp.errors import ConfigError, RunError
from lrexp.records import Group, Trial, TrialId
from lrexp.runs.checkpoint import SavedGroup
from lrexp.runs.lengths import make_schedule
from lrexp.runs.plan import Plan, VariantPlan, divergence_stop
from lrexp.runs.reader import CONTROL, RANGE_TEST
from lrexp.schedules.schedule import Controller, Schedule
from lrexp.workloads.losses import loss_floor
from lrexp.workloads.optimizers import parts_of

NEVER = 1e9  # times the best loss: no batch is so much harder than another


def task_of(plan: Plan, trial: Trial) -> Task:
    """Return the task of a trial.

    Raises:
        RunError: it has the name of another one, as only a file that was changed can have it.
    """
    _check_name(plan, trial)
    if trial.kind == "compare":
        return plan.variants[trial.id.variant].task(trial.id.seed)
    variant = plan.variants[RANGE_TEST]
    if trial.kind == "race":
        return race_task(variant, plan.config, trial)
    task = range_test_task(variant, trial.id.seed)
    return task if trial.kind == "range_test" else control_task(task, trial)


def _check_name(plan: Plan, trial: Trial) -> None:
    """Refuse a trial whose folder is not that of its kind: the name becomes a path."""
    known: Collection[str] = plan.variants
    if trial.kind == "paired_control":
        known = (CONTROL,)
    elif trial.kind == "race":
        known = (Candidate(trial.total_steps, trial.lr or 0.0).name,)
    if trial.id.variant not in known:
        raise RunError(f"engine.json: names a trial {trial.id.name} that the config does not have.")


def group_tasks(
    plan: Plan,
    group: Group,
    trials: Mapping[TrialId, Trial],
    pause: Pause,
    saved: Mapping[TrialId, SavedGroup],
) -> Iterator[Task]:
    """Yield what an engine is given for a group: its trials, in their stack if it has one.

    Args:
        plan: of the run.
        group: with an engine.
        trials: all that belong to it, by their names.
        pause: of the tasks.
        saved: checkpoints, by the first trial of the group that goes on from each.
    """
    found = saved.get(group.trials[0])
    state = None if found is None else found.state
    for trial in group.stack or group.trials:
        task = task_of(plan, trials[trial])
        yield replace(task, pause=pause, state=state, is_over=trial not in group.trials)


def range_test_task(variant: VariantPlan, seed: int) -> Task:
    """Return the range test of one seed."""
    settings = variant.settings.find_lr
    task = variant.task(seed)
    return replace(
        _of_part(task, variant.settings),
        schedule=ramp(settings.min_lr, settings.max_lr, settings.steps, settings.mode),
        total_steps=settings.steps,
        eval_every=0,
        # that the loss rises may be the doing of other parts, which go on at their LRs
        stop=RangeTestStop(
            settings.stop_factor if settings.part is None else NEVER,
            loss_floor(task.objective.loss),
        ),
    )


def control_task(task: Task, trial: Trial) -> Task:
    """Return the batches of a range test once more, at an LR of 0."""
    schedule = Schedule(lambda _: 0.0)
    return replace(task, trial=trial.id, schedule=schedule, stop=RangeTestStop(NEVER))


SAMPLES = 16  # of the whole schedule, that one step of a short one is the mean of


def race_task(variant: VariantPlan, config: Config, trial: Trial) -> Task:
    """Return the short training of one LR: same weights, same batches, the schedule compressed.

    Raises:
        ConfigError: the config's schedule cannot have this LR as its base.
    """
    assert trial.lr is not None
    horizon = trial.total_steps
    whole = make_schedule(_with_lr(variant.settings, trial.lr), variant.clock, config)
    return replace(
        _of_part(variant.task(trial.id.seed), variant.settings, trial.lr),
        trial=trial.id,
        schedule=shortened(whole, variant.total_steps, horizon),
        total_steps=horizon,
        eval_every=math.ceil(horizon / evaluations(horizon, evaluation_steps(variant))),
        stop=divergence_stop(horizon),
    )


EVALUATION = 1 / 3  # of a training step: an evaluation's, without a backward pass
MANY_BATCHES = 1_000.0  # as an iterable without length is taken to have


def evaluation_steps(variant: VariantPlan) -> float:
    """Return how many training steps an evaluation takes as long as; 0 without validation data."""
    val = variant.data.val
    if val is None:
        return 0.0
    return EVALUATION * (val.num_samples / val.batch_size if val.num_samples else MANY_BATCHES)


def can_have(variant: VariantPlan, config: Config, lr: float) -> bool:
    """Return whether the config's schedule can have this LR as its base: `min_lr` may forbid it."""
    try:
        make_schedule(_with_lr(variant.settings, lr), variant.clock, config)
    except ConfigError:
        return False
    return True


def shortened(
    schedule: Schedule | Controller, total_steps: int, horizon: int
) -> Schedule | Controller:
    """Return a schedule of `total_steps` compressed to `horizon` steps.

    `lr(i)` is the mean of the whole schedule over the i-th of `horizon` equal stretches: a peak, a
    short warmup or a step that lies between two samples is not lost. A controller follows the loss
    and stays as it is.

    Example:
        >>> shortened(Schedule(lambda step: float(step)), 100, 4)(1)
        37.0
    """
    if not isinstance(schedule, Schedule) or horizon >= total_steps:
        return schedule
    momentum = schedule.momentum
    return Schedule(
        _compressed(schedule.lr, total_steps, horizon),
        None if momentum is None else _compressed(momentum, total_steps, horizon),
    )


def _compressed(
    values: Callable[[int], float], total_steps: int, horizon: int
) -> Callable[[int], float]:
    ends = np.linspace(0, total_steps, horizon + 1)
    found = []
    for low, high in pairwise(ends):
        first, last = round(low), max(round(low), round(high) - 1)
        steps = np.unique(np.linspace(first, last, SAMPLES).round().astype(int))
        found.append(float(np.mean([values(int(step)) for step in steps])))
    return lambda step: found[min(step, horizon - 1)]


def _of_part(task: Task, settings: ExperimentConfig, lr: float | None = None) -> Task:
    """Return the task with its LR that of `find_lr.part`, where that is given.

    Args:
        task: whose LR is that of the first optimizer; the others keep their ratio to it.
        settings: of the experiment.
        lr: a base LR of that part alone; None lets the others stay at theirs.
    """
    part = settings.find_lr.part
    if part is None:
        return task
    if lr is None:
        return replace(task, base_lr=settings.tested_lr, lead=part, others_stay=True)
    build, factor = task.build, lr / settings.tested_lr

    def build_with_lr() -> tuple[nn.Module, Optimizer]:
        model, optimizer = build()
        for group in parts_of(optimizer)[part].param_groups:
            group["lr"] *= factor
        return model, optimizer

    return replace(task, build=build_with_lr, base_lr=lr, lead=part)


def _with_lr(settings: ExperimentConfig, lr: float) -> ExperimentConfig:
    optimizer = settings.optimizer.model_copy(update={"lr": lr})
    return settings.model_copy(update={"optimizer": optimizer})
