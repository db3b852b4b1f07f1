"""Executing a plan: a run directory, an engine that trains into it, and how it ended."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lrexp.config import resolved_tree, to_yaml
from lrexp.engine import ENGINES, Record, TrialId, Unit, preserved_rng
from lrexp.errors import ConfigError, InterruptedRunError, RunError
from lrexp.order import Order
from lrexp.plan import Plan
from lrexp.processes import run_in_processes
from lrexp.record import Recorder
from lrexp.report.progress import observe
from lrexp.sendable import refuse_processes
from lrexp.store import RunWriter, create_run_directory, describe_environment


@dataclass(frozen=True)
class Destination:
    """Where a run goes: `out` itself, or a new directory inside `runs_dir`."""

    out: Path | None
    runs_dir: Path


@contextmanager
def recorded_run(
    plan: Plan, command: str, destination: Destination, lengths: Mapping[TrialId, int]
) -> Iterator[RunWriter]:
    """Create the run directory, describe the run in it, and note how it ended."""
    config = plan.config
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
        writer.text("resolved.yaml", to_yaml(resolved_config(plan)))
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


def train(
    order: Order,
    plan: Plan,
    writer: RunWriter,
    lengths: Mapping[TrialId, int],
    console: Console,
    *,
    jobs: int | None = None,
) -> Recorder:
    """Train the trials into the run directory and show how it goes.

    Args:
        order: what was asked for.
        plan: made from it.
        writer: of the run directory.
        lengths: the trials to train, and the steps of each.
        console: where progress is shown.
        jobs: worker processes; 1, or None, is this process.
    """
    digits = 17 if plan.config.experiment.precision == "fp64" else 9
    # A comparison's rule stops what diverged; a range test ends like that as a rule.
    recorder = Recorder(writer, stop_is_outcome=order.command == "compare", loss_digits=digits)
    with (
        observe(lengths, console) as observer,
        preserved_rng(plan.device),
        closing(_records(order, plan, tuple(lengths), jobs or 1)) as records,
    ):
        recorder.write_all(records, observer)
    return recorder


def check_jobs(order: Order, jobs: int | None) -> None:
    """Refuse, before a run directory is made, a number of processes that cannot be had.

    Raises:
        ConfigError: it is below 1, or the order cannot be sent to another process.
    """
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        what = "must be a whole number from 1"
        raise ConfigError.single("jobs", what, jobs, "1 trains in this process.")
    if jobs is not None and jobs > 1:
        refuse_processes(order, jobs)


def _records(
    order: Order, plan: Plan, trials: tuple[TrialId, ...], jobs: int
) -> Generator[Record, None, None]:
    """Train here, or in other processes, trial by trial."""
    name = plan.config.experiment.engine
    if jobs == 1:
        engine = ENGINES["sequential" if name == "auto" else name]
        yield from engine(order.tasks(plan, trials))
    else:
        units = [Unit("sequential", (trial,)) for trial in trials]
        yield from run_in_processes(order, units, jobs)


def resolved_config(plan: Plan) -> dict[str, Any]:
    """Return the config with every default filled in and every duration in steps."""
    clocks = {name: variant.clock for name, variant in plan.variants.items()}
    return resolved_tree(plan.config, clocks)
