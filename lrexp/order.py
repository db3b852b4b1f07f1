"""What a command was asked to do, complete enough to be done elsewhere.

A worker process gets an order and makes the same plan from it as the process that wrote it. The
config travels as its text: the file may have been edited meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lrexp.config import Config, document_from_dict, document_from_text, load_config, read_document
from lrexp.engine import Task, TrialId
from lrexp.plan import RANGE_TEST, Objects, Plan, make_plan, plan_one, range_test_task

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
        """Return the steps of every trial, seed by seed: a seed's initial weights are shared."""
        experiment = plan.config.experiment
        is_test = self.command == "find-lr"
        count = experiment.find_lr.seeds if is_test else experiment.compare.seeds
        return {
            TrialId(name, seed): experiment.find_lr.steps if is_test else variant.total_steps
            for seed in range(experiment.seed, experiment.seed + count)
            for name, variant in plan.variants.items()
        }

    def tasks(self, plan: Plan, trials: Iterable[TrialId]) -> Iterator[Task]:
        """Yield the tasks of these trials."""
        for trial in trials:
            variant = plan.variants[trial.variant]
            is_test = self.command == "find-lr"
            yield range_test_task(variant, trial.seed) if is_test else variant.task(trial.seed)


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
