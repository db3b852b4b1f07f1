"""Run directories in which nothing is trained yet, for tests of what trains into them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrexp.engine.choice import Choice
from lrexp.engine.stop import Pause
from lrexp.records import Group, Record, Trial, TrialId
from lrexp.runs.builder import Objects
from lrexp.runs.checkpoint import read_remaining
from lrexp.runs.executor import Executor, StopSignal
from lrexp.runs.follow import followed
from lrexp.runs.plan import Plan
from lrexp.runs.spec import RunSpec, describe_run, make_spec, run_facts
from lrexp.runs.stages import Stage, StageRecord, read_stages, write_stages
from lrexp.runs.worker import train_groups
from lrexp.runs.writer import RunWriter, create_run


@dataclass(frozen=True)
class Described:
    """A run that was described and is to be trained.

    Args:
        path: its directory.
        spec: what was asked for.
        plan: made from it.
        groups: who trains with whom.
    """

    path: Path
    spec: RunSpec
    plan: Plan
    groups: tuple[Group, ...]

    @property
    def trials(self) -> list[Trial]:
        """All its trials."""
        return [trial for record in read_stages(self.path) for trial in record.stage.trials]

    def train_here(self, groups: Sequence[Group] | None = None) -> list[Record]:
        """Train in this process, and return the records."""
        groups = self.groups if groups is None else groups
        return list(train_groups(self.path, self.plan, self.trials, groups, Pause()))

    def records_of(self, executor: Executor, pause: Pause | None = None) -> Any:
        """Return the generator of the records of what an executor trains."""
        left = read_remaining(self.path, self.groups)
        trials = [trial for trial in self.trials if trial.id in left.trials]
        return followed(executor, self.path, trials, self.groups, left=left, pause=pause or Pause())

    def train_by(self, executor: Executor, pause: Pause | None = None) -> list[Record]:
        """Let an executor train, and return the records."""
        with closing(self.records_of(executor, pause)) as records:
            return list(records)


def described(
    path: Path,
    config: Any,
    groups: Sequence[Group] | None = None,
    *,
    objects: Objects | None = None,
) -> Described:
    """Describe a comparison.

    Args:
        path: of the run.
        config: a file, or a mapping.
        groups: of its trials; by default each is one.
        objects: Python objects in place of sections of the config.
    """
    spec = make_spec("compare", config, objects=objects or Objects())
    plan = spec.plan()
    trials = spec.first_trials(plan)
    groups = tuple(groups or (Group("sequential", (trial.id,)) for trial in trials))
    members = {trial for group in groups for trial in group.trials}
    stage = Stage("compare", tuple(trial for trial in trials if trial.id in members))
    record = StageRecord(stage, Choice(groups, 1))

    def describe(folder: Path) -> None:
        write_stages(folder, [record])
        describe_run(folder, spec, plan, record.choice)
        RunWriter(folder, run_facts(spec, plan, stage.trials))

    create_run("described", "compare", describe, out=path)
    return Described(path, spec, plan, groups)


def trial(name: str, seed: int = 0) -> TrialId:
    """Return the name of a trial."""
    return TrialId(name, seed)


class InThisProcess:
    """The executor that starts nothing."""

    def __init__(self, jobs: int, spec: RunSpec) -> None:
        self._spec = spec
        self.deaths: dict[TrialId, list[str]] = {}

    def run(self, run: Path, groups: Sequence[Group], stop: StopSignal) -> None:
        """Train here."""
        pause = Pause(lambda: stop.ask() or stop.at_once)
        if not pause.ask():
            trials = [trial for record in read_stages(run) for trial in record.stage.trials]
            for _ in train_groups(run, self._spec.plan(), trials, groups, pause, waits=True):
                pass
