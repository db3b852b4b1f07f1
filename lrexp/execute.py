"""Executing a plan: a run directory, an engine that trains into it, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lrexp.config import resolved_tree, to_yaml
from lrexp.engine import ENGINES, Task, TrialId, preserved_rng
from lrexp.errors import InterruptedRunError, RunError
from lrexp.plan import Plan
from lrexp.record import Recorder
from lrexp.report.progress import observe
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
    plan: Plan,
    tasks: Iterable[Task],
    writer: RunWriter,
    lengths: Mapping[TrialId, int],
    console: Console,
    *,
    stops: bool,
) -> Recorder:
    """Train the tasks into the run directory and show how it goes.

    Args:
        plan: of the run.
        tasks: trials to train.
        writer: of the run directory.
        lengths: steps of every trial to come.
        console: where progress is shown.
        stops: whether a trial that its rule stopped counts as diverged.
    """
    experiment = plan.config.experiment
    engine = ENGINES["sequential" if experiment.engine == "auto" else experiment.engine]
    digits = 17 if experiment.precision == "fp64" else 9
    recorder = Recorder(writer, stop_is_outcome=stops, loss_digits=digits)
    with observe(lengths, console) as observer, preserved_rng(plan.device):
        recorder.write_all(engine(tasks), observer)
    return recorder


def resolved_config(plan: Plan) -> dict[str, Any]:
    """Return the config with every default filled in and every duration in steps."""
    clocks = {name: variant.clock for name, variant in plan.variants.items()}
    return resolved_tree(plan.config, clocks)
