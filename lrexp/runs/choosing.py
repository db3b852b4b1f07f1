"""How the trials of a stage are trained: the options of a command, the engine, the places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lrexp.engine.choice import ALONE, Choice, choose
from lrexp.engine.stop import Stop
from lrexp.errors import ConfigError
from lrexp.records import Reporter, Sink
from lrexp.runs.executor import LOCAL, Executor, chosen_executor, why_not_processes
from lrexp.runs.plan import Plan
from lrexp.runs.reader import Draw, Run
from lrexp.runs.spec import RunSpec
from lrexp.runs.stages import Stage, StageRecord
from lrexp.runs.timings import Timings
from lrexp.runs.trials import task_of


@dataclass(frozen=True)
class RunOptions:
    """How a run is trained and followed; what it trains is in its `RunSpec`."""

    reporter: Reporter  # is told how it goes
    draw: Draw = lambda run: None  # once its trials have ended
    page: Callable[[Run | Path, float | None], object] | None = None  # see `LivePage`
    jobs: int | None = None  # 1 is this process, None leaves it to the config's engine
    stop: Stop | None = None  # is asked at the end of every step whether to stop there
    sinks: Sequence[Sink] = ()  # get every record as it comes; one that raises is dropped
    log: Sequence[str | Mapping[str, Any]] | None = None  # trackers, in place of the config's
    executor: Any = None  # in place of the config's: a name, a mapping, or an `Executor`
    force: bool = False  # go on with a run that does not fit what is here
    again: str = ""  # options of the command that resumes it, for the message of an interruption


def check_jobs(jobs: object) -> None:
    """Refuse a number of processes that cannot be had."""
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        what = "must be a whole number from 1"
        raise ConfigError.single("jobs", what, jobs, "1 trains in this process.")


def choose_engine(
    spec: RunSpec, plan: Plan, stage: Stage, options: RunOptions, engine: str | None = None
) -> Choice:
    """Return how the trials of a stage will be trained, and say so."""
    choice = choice_of(spec, plan, stage, options, engine)
    for reason in choice.reasons:
        if reason.endswith(ALONE):
            continue
        options.reporter.say(f"Engine: {reason}.", "dim")
    return choice


def choice_of(
    spec: RunSpec, plan: Plan, stage: Stage, options: RunOptions, engine: str | None = None
) -> Choice:
    """Return how the trials of a stage will be trained.

    Args:
        spec, plan: of the run.
        stage: with the trials.
        options: of the command.
        engine: in place of the config's.
    """
    check_jobs(options.jobs)
    executor = chosen_executor(options.executor, plan.config)
    is_here = is_local(executor)
    slots = executor.get("slots") if isinstance(executor, dict) else None  # of a cluster
    jobs = options.jobs or slots

    def why_not() -> str | None:  # another executor finds its own way to send objects
        return why_not_processes(spec) if is_here else None

    if (jobs or 1) > 1 and (why := why_not()) is not None:
        options.reporter.say(f"Training in this process: {why}.", "yellow")
        jobs = 1
    tasks = [task_of(plan, trial) for trial in stage.trials]
    engine = engine or plan.config.experiment.engine
    with options.reporter.waiting("Measuring how to train"):
        try:
            machine = Timings().machine()
            return choose(tasks, engine, jobs, why_not, _places(plan), machine=machine)
        except ConfigError as error:
            raise error.placed(plan.config.document.place_of) from None


def extended(
    spec: RunSpec,
    plan: Plan,
    begun: StageRecord,
    stage: Stage,
    options: RunOptions,
) -> StageRecord:
    """Return what has begun, with the trials of more seeds that a comparison is now asked for.

    The engine of the others trains them: engines differ in rounding, and only the same one gives
    what a comparison with as many seeds from the start would have given.
    """
    count = len(begun.stage.trials)
    lacking = stage.trials[count:]
    if not lacking or stage.kind != "compare" or stage.trials[:count] != begun.stage.trials:
        return begun
    engines = {group.engine for group in begun.choice.groups}
    engine = engines.pop() if len(engines) == 1 else None
    options = replace(options, jobs=options.jobs or begun.choice.jobs)
    choice = choose_engine(spec, plan, replace(stage, trials=lacking), options, engine)
    groups = begun.choice.groups + choice.groups
    return StageRecord(stage, replace(begun.choice, groups=groups, jobs=choice.jobs))


def is_local(executor: Executor | dict[str, Any]) -> bool:
    """Return whether an executor is that of worker processes on this machine."""
    return isinstance(executor, dict) and executor["name"] == LOCAL


def _places(plan: Plan) -> int | None:
    """Return how many trials can be trained side by side; None leaves it to the cores."""
    return len(devices_of(plan) or ("one",)) if plan.device.type == "cuda" else None


def devices_of(plan: Plan) -> list[str] | None:
    """Return the GPUs for workers to share; None where there is one, or one was asked for."""
    asked, count = plan.config.experiment.device, torch.cuda.device_count()
    if plan.device.type != "cuda" or asked not in ("auto", "cuda") or count < 2:
        return None
    return [f"cuda:{index}" for index in range(count)]
