"""What a command was asked to do, complete enough to be done elsewhere.

A worker process gets an order and makes the same plan from it as the process that wrote it. The
config travels as its text: the file may have been edited meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lrexp.analysis.race import entrant_of
from lrexp.config.config import Config
from lrexp.config.document import document_from_dict, document_from_text, read_document, to_yaml
from lrexp.config.load import load_config
from lrexp.config.reader import read_yaml
from lrexp.engine.stop import Pause
from lrexp.engine.task import Task
from lrexp.records import TrialId, Unit
from lrexp.runs.builder import Objects
from lrexp.runs.plan import Plan, make_plan, plan_one
from lrexp.runs.reader import RANGE_TEST, UNTRAINED
from lrexp.runs.trials import race_task, range_test_task, untrained_task

Source: TypeAlias = str | Path | Mapping[str, Any]
Change: TypeAlias = tuple[str, Any] | tuple[str, Any, str]
Command: TypeAlias = Literal["compare", "find-lr"]


@dataclass(frozen=True)
class Order:
    """Which config, changed how, for which command.

    Args:
        command: what the trials are: trainings of every variant, or range tests.
        text: the config as it was given, YAML.
        name: of the file, as messages call it; None for a config that was made in Python.
        directory: where relative paths and import paths start.
        changes: (dotted key, value) or (dotted key, value, label), in order; see `load_config`.
        trust: packages that import paths may reach.
        objects: Python objects in place of sections. The only part that is not plain data.

    Example:
        >>> order = make_order("compare", "configs/quickstart.yaml")
        >>> plan = order.plan()
        >>> next(iter(order.lengths(plan).items()))
        (TrialId(variant='standard', seed=0), 220)
    """

    command: Command
    text: str
    name: str | None
    directory: str
    changes: tuple[Change, ...] = ()
    trust: tuple[str, ...] = ()
    objects: Objects = field(default_factory=Objects)

    def config(self) -> Config:
        """Return the checked config.

        Raises:
            ConfigError, UserCodeError: as `load_config`.
        """
        document = document_from_text(self.text, self.name, Path(self.directory))
        given = self.objects.sections
        return load_config(document, self.changes, trust=self.trust, given=given)

    def plan(self, config: Config | None = None) -> Plan:
        """Return the plan of the config, which is loaded unless it is given.

        Raises:
            ConfigError, UserCodeError: as `make_plan`.
        """
        config = config or self.config()
        if self.command == "find-lr":
            return plan_one(config, self.objects, RANGE_TEST)
        return make_plan(config, self.objects)

    def lengths(self, plan: Plan) -> dict[TrialId, int]:
        """Return the steps of every trial, seed by seed: a seed's initial weights are shared.

        Those of a race are not among them: which there are, its results decide.
        """
        experiment = plan.config.experiment
        is_test = self.command == "find-lr"
        count = experiment.find_lr.seeds if is_test else experiment.compare.seeds
        trials = [
            TrialId(name, seed)
            for seed in range(experiment.seed, experiment.seed + count)
            for name in plan.variants
        ]
        return {trial: self.length(plan, trial) for trial in trials}

    def tasks(
        self,
        plan: Plan,
        trials: Iterable[TrialId],
        pause: Pause | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Iterator[Task]:
        """Yield the tasks of these trials; for `pause` and `state` see `Task`."""
        for trial in trials:
            yield replace(self._task(plan, trial), pause=pause, state=state)

    def unit_tasks(
        self, plan: Plan, unit: Unit, pause: Pause, state: Mapping[str, Any] | None = None
    ) -> Iterator[Task]:
        """Yield what an engine is given for a unit: its trials, in their stack if it has one."""
        for task in self.tasks(plan, unit.stack or unit.trials, pause, state):
            yield replace(task, is_over=task.trial not in unit.trials)

    def length(self, plan: Plan, trial: TrialId) -> int:
        """Return the steps of one trial, be it of a race."""
        if self.command == "compare":
            return plan.variants[trial.variant].total_steps
        entrant = entrant_of(trial.variant)
        return plan.config.experiment.find_lr.steps if entrant is None else entrant.horizon

    def _task(self, plan: Plan, trial: TrialId) -> Task:
        if self.command == "compare":
            return plan.variants[trial.variant].task(trial.seed)
        variant, entrant = plan.variants[RANGE_TEST], entrant_of(trial.variant)
        if trial.variant == UNTRAINED:
            return untrained_task(variant, trial.seed)
        if entrant is None:
            return range_test_task(variant, trial.seed)
        return race_task(variant, plan.config, entrant, trial.seed)

    def to_plain(self) -> dict[str, Any]:
        """Return the order as JSON has it: values as YAML, Python objects as their sections."""
        return {
            "command": self.command,
            "name": self.name,
            "directory": self.directory,
            "changes": [[key, _yaml(value), *label] for key, value, *label in self.changes],
            "trust": list(self.trust),
            "objects": sorted(self.objects.sections),
            "text": self.text,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], objects: Objects | None = None) -> Order:
        """Return the order that `to_plain` wrote, with the objects that it cannot hold.

        Raises:
            ValueError, KeyError, TypeError: it is damaged.
        """
        if plain["command"] not in ("compare", "find-lr"):
            raise ValueError(f"there is no command {plain['command']!r}")
        name = plain["name"]
        return cls(
            command=plain["command"],
            text=str(plain["text"]),
            name=None if name is None else str(name),
            directory=str(plain["directory"]),
            changes=tuple(_change(*change) for change in plain["changes"]),
            trust=tuple(str(prefix) for prefix in plain["trust"]),
            objects=objects or Objects(),
        )


def make_order(
    command: Command,
    source: Source,
    changes: Sequence[Change] = (),
    *,
    trust: Sequence[str] = (),
    objects: Objects | None = None,
) -> Order:
    """Return the order of a command; the config's file is read here and never again.

    Raises:
        ConfigError: the file cannot be read, or is no YAML mapping.
    """
    name = None
    if isinstance(source, Mapping):
        document = document_from_dict(source)
    else:
        document = read_document(source)
        name = document.name
    return Order(
        command=command,
        text=document.text,
        name=name,
        directory=str(document.directory),
        changes=tuple(changes),
        trust=tuple(trust),
        objects=objects or Objects(),
    )


def _yaml(value: Any) -> str:
    """Return a value of a change as YAML, which unlike JSON has every number."""
    return to_yaml(document_from_dict({"value": value}).data)


def _change(key: str, value: str, *label: str) -> Change:
    read, _ = read_yaml(value, key)
    if not isinstance(read, dict):
        raise TypeError(f"the value of {key!r} cannot be read")
    change = (key, read["value"])
    return (*change, label[0]) if label else change
