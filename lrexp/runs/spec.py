"""What a command was asked to do, complete enough to be done elsewhere.

Whoever has the run directory makes the same plan from its order.json as the process that wrote it.
The config travels as its text: the file may have been edited meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lrexp.config.checks import CHECKED, TRAINED
from lrexp.config.config import Config
from lrexp.config.document import document_from_dict, document_from_text, read_document, to_yaml
from lrexp.config.load import load_config
from lrexp.config.reader import read_yaml
from lrexp.records import Trial, TrialId
from lrexp.runs.builder import Objects
from lrexp.runs.plan import Plan, make_plan, plan_one
from lrexp.runs.reader import RANGE_TEST

Source: TypeAlias = str | Path | Mapping[str, Any]
Change: TypeAlias = tuple[str, Any] | tuple[str, Any, str]
Command: TypeAlias = Literal["compare", "find-lr"]


@dataclass(frozen=True)
class RunSpec:
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
        >>> spec = make_spec("compare", "configs/quickstart.yaml")
        >>> plan = spec.plan()
        >>> spec.first_trials(plan)[0].total_steps
        220
    """

    command: Command
    text: str
    name: str | None
    directory: str
    changes: tuple[Change, ...] = ()
    trust: tuple[str, ...] = ()
    objects: Objects = field(default_factory=Objects)

    def config(self, checked: Collection[str] = CHECKED) -> Config:
        """Return the config, with these sections checked against code.

        Raises:
            ConfigError, UserCodeError: as `load_config`.
        """
        document = document_from_text(self.text, self.name, Path(self.directory))
        given = self.objects.sections
        return load_config(document, self.changes, trust=self.trust, given=given, checked=checked)

    def plan(self, config: Config | None = None) -> Plan:
        """Return the plan of the config, which is loaded unless it is given.

        A worker needs no rule for range tests, and may not know one that its caller registered.

        Raises:
            ConfigError, UserCodeError: as `make_plan`.
        """
        config = config or self.config(TRAINED)
        if self.command == "find-lr":
            return plan_one(config, self.objects, RANGE_TEST)
        return make_plan(config, self.objects)

    def first_trials(self, plan: Plan) -> tuple[Trial, ...]:
        """Return the trials that it begins with, seed by seed: initial weights are shared.

        Those of a race are not among them: which there are, the results decide.
        """
        experiment = plan.config.experiment
        is_test = self.command == "find-lr"
        count = experiment.find_lr.seeds if is_test else experiment.compare.seeds
        return tuple(
            Trial(
                TrialId(name, seed),
                "range_test" if is_test else "compare",
                experiment.find_lr.steps if is_test else variant.total_steps,
            )
            for seed in range(experiment.seed, experiment.seed + count)
            for name, variant in plan.variants.items()
        )

    def to_plain(self) -> dict[str, Any]:
        """Return the spec as JSON has it: values as YAML, Python objects as their sections."""
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
    def from_plain(cls, plain: Mapping[str, Any], objects: Objects | None = None) -> RunSpec:
        """Return the spec that `to_plain` wrote, with the objects that it cannot hold.

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


def make_spec(
    command: Command,
    source: Source,
    changes: Sequence[Change] = (),
    *,
    trust: Sequence[str] = (),
    objects: Objects | None = None,
) -> RunSpec:
    """Return the spec of a command; the config's file is read here and never again.

    Raises:
        ConfigError: the file cannot be read, or is no YAML mapping.
    """
    name = None
    if isinstance(source, Mapping):
        document = document_from_dict(source)
    else:
        document = read_document(source)
        name = document.name
    return RunSpec(
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
