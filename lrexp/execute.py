"""Executing a plan: a run directory, an engine that trains into it, and how it ended."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from lrexp.config import resolved_tree, to_yaml
from lrexp.engine import ENGINES, Choice, Record, choose, preserved_rng
from lrexp.errors import ConfigError, InterruptedRunError, RunError
from lrexp.order import Order
from lrexp.plan import Plan
from lrexp.record import Recorder
from lrexp.report.progress import observe, waiting
from lrexp.store import RunWriter, create_run_directory, describe_environment
from lrexp.workers.pool import run_in_processes
from lrexp.workers.sendable import refuse_processes, why_not_processes


@dataclass(frozen=True)
class Destination:
    """Where a run goes: `out` itself, or a new directory inside `runs_dir`."""

    out: Path | None
    runs_dir: Path


@contextmanager
def recorded_run(
    order: Order, plan: Plan, choice: Choice, destination: Destination
) -> Iterator[RunWriter]:
    """Create the run directory, describe the run in it, and note how it ended."""
    config, lengths, command = plan.config, order.lengths(plan), order.command
    path = create_run_directory(
        config.experiment.name, command, out=destination.out, runs_dir=destination.runs_dir
    )
    writer = RunWriter(
        path,
        {
            "command": command,
            "name": config.experiment.name,
            "variants": list(dict.fromkeys(trial.variant for trial in lengths)),
            "seeds": list(dict.fromkeys(trial.seed for trial in lengths)),
            "num_trials": len(lengths),
            "total_steps": {trial.variant: steps for trial, steps in lengths.items()},
        },
    )
    try:
        writer.text("config.yaml", config.document.text)
        writer.text("resolved.yaml", to_yaml(resolved_config(plan) | _engine_used(choice)))
        writer.json("engine.json", choice.to_plain())
        writer.json("environment.json", describe_environment(plan.device))
        for name, source in plan.config.own_files().items():
            writer.text(name, source)
        yield writer
    except KeyboardInterrupt:
        writer.update_status("interrupted")
        raise InterruptedRunError(
            f"Interrupted. What was trained so far is in {path}; lrexp plot {path} draws it."
        ) from None
    except BaseException as error:
        with suppress(RunError):  # the disk may be what failed
            writer.update_status("failed", error=str(error))
        raise
    writer.update_status("complete")


def choose_engine(order: Order, plan: Plan, jobs: int | None, console: Console) -> Choice:
    """Return how the trials will be trained, and say so where it was measured.

    Args:
        order: what was asked for.
        plan: made from it.
        jobs: worker processes; 1 is this process, None leaves it to the config's engine.
        console: where the choice is shown.

    Raises:
        ConfigError: what was asked for cannot be had.
    """
    check_jobs(order, jobs)
    tasks = list(order.tasks(plan, order.lengths(plan)))
    engine = plan.config.experiment.engine
    with waiting(console, "Measuring how to train"):
        try:
            choice = choose(tasks, engine, jobs, lambda: why_not_processes(order), _places(plan))
        except ConfigError as error:
            raise error.placed(plan.config.document.place_of) from None
    for reason in choice.reasons:
        console.print(f"[dim]Engine: {escape(reason)}.[/]", highlight=False, soft_wrap=True)
    return choice


def train(
    order: Order,
    plan: Plan,
    choice: Choice,
    writer: RunWriter,
    console: Console,
) -> Recorder:
    """Train the trials into the run directory and show how it goes.

    Args:
        order: what was asked for.
        plan: made from it.
        choice: which engine trains which trials.
        writer: of the run directory.
        console: where progress is shown.
    """
    digits = 17 if plan.config.experiment.precision == "fp64" else 9
    # A comparison's rule stops what diverged; a range test ends like that as a rule.
    recorder = Recorder(writer, stop_is_outcome=order.command == "compare", loss_digits=digits)
    with (
        observe(order.lengths(plan), console) as observer,
        preserved_rng(plan.device),
        closing(_records(order, plan, choice)) as records,
    ):
        recorder.write_all(records, observer)
    return recorder


def check_jobs(order: Order, jobs: int | None) -> None:
    """Refuse a number of processes that cannot be had.

    Raises:
        ConfigError: it is below 1, or the order cannot be sent to another process.
    """
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        what = "must be a whole number from 1"
        raise ConfigError.single("jobs", what, jobs, "1 trains in this process.")
    if jobs is not None and jobs > 1:
        refuse_processes(order, jobs)


def _records(order: Order, plan: Plan, choice: Choice) -> Generator[Record, None, None]:
    """Train here, or in other processes, unit by unit."""
    if choice.jobs > 1:
        devices = _devices(plan)
        yield from run_in_processes(order, choice.units, choice.jobs, devices=devices)
        return
    for unit in choice.units:
        yield from ENGINES[unit.engine](order.tasks(plan, unit.trials))


def _places(plan: Plan) -> int | None:
    """Return how many trials can be trained side by side; None leaves it to the cores."""
    return len(_devices(plan) or ("one",)) if plan.device.type == "cuda" else None


def _devices(plan: Plan) -> list[str] | None:
    """Return the GPUs for workers to share; None where there is one, or one was asked for."""
    asked, count = plan.config.experiment.device, torch.cuda.device_count()
    if plan.device.type != "cuda" or asked not in ("auto", "cuda") or count < 2:
        return None
    return [f"cuda:{index}" for index in range(count)]


def _engine_used(choice: Choice) -> dict[str, str]:
    """Return the engine that repeats the run, where one name says it.

    Engines differ in rounding, and an unstable training makes much of that.
    """
    names = {unit.engine for unit in choice.units}
    return {"engine": names.pop()} if len(names) == 1 else {}


def resolved_config(plan: Plan) -> dict[str, Any]:
    """Return the config with every default filled in and every duration in steps."""
    clocks = {name: variant.clock for name, variant in plan.variants.items()}
    return resolved_tree(plan.config, clocks)
