"""From what a verb was given to what it will train: config, spec and plan, before a run exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrexp.config.config import Config
from lrexp.config.load import Overrides, changes_of, is_of_config
from lrexp.config.names import IN_PYTHON
from lrexp.runs.builder import Objects
from lrexp.runs.choosing import RunOptions
from lrexp.runs.executor import executor_changes
from lrexp.runs.looks import Until
from lrexp.runs.plan import Plan, ignored_lrs
from lrexp.runs.reader import Run
from lrexp.runs.searches import check_budget
from lrexp.runs.spec import (
    Command,
    RunSpec,
    Source,
    make_spec,
    with_looks,
    with_registered,
    without_optimizer,
)
from lrexp.runs.summary import too_few_seeds
from lrexp.runs.trackers import trackers_of
from lrexp.runs.train import start_run
from lrexp.runs.writer import check_free
from lrexp.workloads.metrics import given_metrics


@dataclass(frozen=True)
class Planned:
    """A run that is ready to be trained."""

    spec: RunSpec
    plan: Plan
    config: Config
    options: RunOptions
    out: Path | None
    runs_dir: Path

    def train(self) -> Run:
        """Train it into its run directory."""
        out, runs_dir = self.out, self.runs_dir
        return start_run(self.spec, self.plan, self.options, out=out, runs_dir=runs_dir)


@dataclass(frozen=True)
class Asked:
    """What `compare` and `find_lr` are given alike; `flags` are by their keys in the config."""

    config: Source
    overrides: Overrides
    sections: Mapping[str, Any]  # names, or Python objects
    flags: Mapping[str, Any]
    trust: Sequence[str]
    out: str | Path | None
    runs_dir: str | Path
    metrics: Sequence[Any] | None = None

    def planned(
        self,
        command: Command,
        options: RunOptions,
        until: Until = Until(),  # noqa: B008  # frozen
    ) -> Planned:
        """Return what is to be trained; what is wrong with it is told."""
        out, reporter = None if self.out is None else Path(self.out), options.reporter
        config, sections = without_optimizer(self.config, self.sections)
        named = {key: value for key, value in sections.items() if is_of_config(value)}
        listed, functions = given_metrics(self.metrics or (), IN_PYTHON)
        given = {key: value for key, value in sections.items() if key not in named}
        if "optimizer" in named:  # its LR stays
            named["optimizer.name"] = named.pop("optimizer")
        objects = Objects(**given, metrics=functions)
        changes = changes_of(self.overrides, named, self.flags)
        changes += [("metrics", listed, "")] * (self.metrics is not None)
        changes += executor_changes(options.executor)
        check_free(out)
        with reporter.waiting("Loading data and model"):
            spec = make_spec(command, config, changes, trust=self.trust, objects=objects)
            if looks := until.looks(spec.config().experiment.compare.seeds):
                spec = with_looks(spec, looks)
            loaded = spec.config()
            spec = with_registered(spec, loaded)
            plan = spec.plan(loaded)
        trackers_of(loaded, options.log, Path())  # refuses what cannot be had
        if command == "find-lr":
            reporter.say(check_budget(plan), "dim")
        else:
            for text in filter(None, [too_few_seeds(loaded), *ignored_lrs(plan)]):
                reporter.say(text, "yellow")
        return Planned(spec, plan, loaded, options, out, Path(self.runs_dir))
