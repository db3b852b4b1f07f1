"""What a plan is: every variant checked, and all that is needed to make the task of any seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from lrexp.analysis.stopping import DivergenceStop
from lrexp.config.config import Config
from lrexp.config.metric_names import named_metrics
from lrexp.config.names import PLAIN
from lrexp.config.schema import ExperimentConfig
from lrexp.config.units import Clock
from lrexp.engine.device import pick_device
from lrexp.engine.task import Task
from lrexp.errors import NOTHING, ConfigError, Problem
from lrexp.records import METRICS, Direction, Metric, TrialId, column_of
from lrexp.runs.builder import Objects, TrialBuilder
from lrexp.runs.lengths import (
    Problems,
    check_momentum,
    clock_of,
    declared_direction,
    eval_every,
    for_every_variant,
    full_name,
    length_of,
    make_schedule,
)
from lrexp.schedules.schedule import Controller, Schedule
from lrexp.workloads.batches import Data
from lrexp.workloads.metrics import Asked, Baseline, Metrics, direction_of
from lrexp.workloads.objectives import Objective, is_of_parts

TRACED = 10_000  # steps of a longer schedule that its mean is taken of


@dataclass(frozen=True)
class VariantPlan:
    """One variant, ready to give the task of any seed."""

    name: str
    settings: ExperimentConfig
    device: torch.device
    data: Data
    clock: Clock
    schedule: Schedule | Controller
    eval_every: int
    build: Callable[[int], tuple[nn.Module, Optimizer]] = field(repr=False)
    make_objective: Callable[[], Objective]
    make_eval_objective: Callable[[], Objective] | None = None
    count_correct: Any = None
    metrics: Metrics = field(default_factory=Metrics)
    baseline: Baseline = field(default_factory=Baseline)
    asked: Asked = field(default_factory=Asked)
    timed_as: str = ""
    is_searched: bool = False  # trainings of several LRs follow the range test

    @property
    def total_steps(self) -> int:
        """Return the training's length in optimizer updates."""
        assert self.clock.total_steps is not None
        return self.clock.total_steps

    @property
    def mean_frac(self) -> float:
        """Return the mean LR of its schedule as a share of the peak."""
        return mean_frac(self.schedule, self.total_steps)

    def task(self, seed: int) -> Task:
        """Return the task of one seed."""
        train = self.settings.train
        return Task(
            trial=TrialId(self.name, seed),
            build=lambda: self.build(seed),
            objective=self.make_objective(),
            eval_objective=self.make_eval_objective and self.make_eval_objective(),
            train=self.data.train,
            val=self.data.val,
            count_correct=self.count_correct,
            metrics=self.metrics,
            schedule=self.schedule,
            base_lr=self.settings.optimizer.lr,
            part_lrs=tuple(part.lr for part in self.settings.optimizer.parts),
            total_steps=self.total_steps,
            eval_every=self.eval_every,
            accumulate=train.accumulate,
            grad_clip=train.grad_clip,
            autocast=self.settings.precision == "bf16",
            stop=divergence_stop(self.total_steps),
            device=self.device,
            kind=self._kind,
            timed_as=self.timed_as,
        )

    @property
    def _kind(self) -> str:
        """What tasks share that compute the same: see `Task.kind`."""
        tree = self.settings.model_dump(mode="json")
        parts = [tree[key] for key in ("model", "data", "loss", *PLAIN, "precision")]
        return json.dumps([*parts, *self.metrics.functions])


@dataclass(frozen=True)
class Plan:
    """All variants of a config, ready to be trained."""

    config: Config
    device: torch.device
    variants: dict[str, VariantPlan]
    known: Mapping[str, Metric] = field(default_factory=lambda: METRICS)

    @property
    def directions(self) -> dict[str, Direction]:
        """Return which values of each metric are better, by column, where that is known."""
        names: dict[str, str] = {column: column for column in self.known}
        for variant in self.variants.values():
            names |= variant.asked.names
            names |= {column: f"step:{name}" for column, name in variant.metrics.numbers.items()}
        declared = declared_direction(self.config.experiment)
        found = {c: direction_of(name, self.known, declared) for c, name in names.items()}
        return {column: direction for column, direction in found.items() if direction is not None}

    @property
    def of_parts(self) -> list[str]:
        """Return the variants whose step returns a loss for each optimizer."""
        return [name for name, v in self.variants.items() if is_of_parts(v.make_objective())]

    def tasks(self, seeds: Sequence[int]) -> Iterator[Task]:
        """Yield a task per trial, seed by seed, so that one seed's initial weights are shared."""
        for seed in seeds:
            for variant in self.variants.values():
                yield variant.task(seed)


def divergence_stop(total_steps: int) -> DivergenceStop:
    """Return the rule that ends a diverged training of this length.

    "For good" is at least its last quarter: 100 steps, fewer in a training of under 400.
    """
    return DivergenceStop(patience=min(100, max(10, total_steps // 4)))


def mean_frac(schedule: Schedule | Controller, total_steps: int) -> float:
    """Return the mean LR of a schedule as a share of its highest, in (0, 1].

    It is 1 of what follows a loss, since its LR is not known ahead.

    Example:
        >>> mean_frac(Schedule(lambda step: 0.1 * (1 - step / 100)), 101)
        0.5
    """
    if not isinstance(schedule, Schedule):
        return 1.0
    steps = np.linspace(0, total_steps - 1, min(total_steps, TRACED)).round()
    lrs = np.array([schedule.lr(int(step)) for step in steps])
    share = round(float(lrs.mean() / lrs.max()), 6) if lrs.max() > 0 else 1.0  # 1 of a constant LR
    return share if 0 < share <= 1 else 1.0


def lr_groups(config: Config) -> list[dict[float, str]]:
    """Return the sets of variants that differ in nothing but their LR: LR -> name of each."""
    groups: dict[str, dict[float, str]] = {}
    for name, settings in config.variants.items():
        exclude: dict[str, Any] = {"lr": True}
        if settings.optimizer.parts:
            exclude["parts"] = {0: {"lr"}}
        rest = settings.model_dump(exclude={"compare": True, "optimizer": exclude})
        groups.setdefault(repr(rest), {}).setdefault(settings.optimizer.lr, name)
    return [by_lr for by_lr in groups.values() if len(by_lr) > 1]


def ignored_lrs(plan: Plan) -> list[str]:
    """Return a warning for each set of variants that their schedule gives the same LRs."""
    return [
        ignored_lr(list(by_lr.values()), plan.config)
        for by_lr in lr_groups(plan.config)
        if len({_sampled(plan.variants[name]) for name in by_lr.values()}) < len(by_lr)
    ]


def _sampled(variant: VariantPlan) -> object:
    """Return LRs of a schedule; of what follows a loss, the variant: nothing is known ahead."""
    if not isinstance(variant.schedule, Schedule):
        return variant.name
    last = variant.total_steps - 1
    return tuple(variant.schedule.lr(i) for i in np.linspace(0, last, 100).astype(int).tolist())


def ignored_lr(names: Sequence[str], config: Config) -> str:
    """Return a warning that variants train with the same LRs, and which key sets them."""
    section = config.variants[names[0]].schedule
    given = {f"args.{key}" for key in section.params.get("args") or ()} | {*section.params}
    keys = [f"schedule.{key}" for key in sorted(given) if key.endswith("max_lr")]
    keys = keys or [f"schedule.{key}" for key in sorted(given) if key.endswith("lr")]
    sets = " and ".join(keys) or f"the schedule {section.name}"
    instead = f"Compare values of {keys[0]}, or leave it out" if keys else "Compare other keys"
    return (
        f"{', '.join(names)} train with the same LRs, though optimizer.lr differs: {sets} sets "
        f"them. {instead}."
    )


def make_plan(config: Config, objects: Objects | None = None, *, validates: bool = True) -> Plan:
    """Return the plan of every variant of a config.

    Args:
        config: as loaded.
        objects: Python objects in place of sections.
        validates: whether the trials are evaluated, so that what ranks or steers them must exist.

    Raises:
        ConfigError: every problem of every variant that shows before training.
        UserCodeError: the user's own data, model or loss raised.
    """
    try:
        device = pick_device(config.experiment.device)
    except ConfigError as error:
        raise error.placed(config.document.place_of) from None
    if device.type == "mps" and config.experiment.precision == "fp64":
        what, remedy = "does not exist on Apple GPUs", "Use fp32, or device: cpu."
        refused = ConfigError.single("precision", what, "fp64", remedy)
        raise refused.placed(config.document.place_of)
    objects = objects or Objects()
    builder = TrialBuilder(config, objects, device)
    _check_given(config, objects)
    places = {name: _asked_by(settings, validates) for name, settings in config.variants.items()}
    names: dict[str, str] = {}
    for _, metric in (place for asked in places.values() for place in asked):
        names.setdefault(column_of(metric), metric)
    if validates:
        names |= {column_of(m): m for m in map(_in_its_unit, config.variants.values()) if m}

    def plan(name: str, settings: ExperimentConfig) -> VariantPlan:
        return _plan_variant(name, settings, config, builder, Asked(names, places[name], validates))

    return Plan(config, device, for_every_variant(config, plan), objects.known_metrics)


# Losses of a target that is standardised, and what tells the same in the unit of the file.
_IN_UNIT = {"mse_loss": "rmse"} | dict.fromkeys(("l1_loss", "smooth_l1_loss", "huber_loss"), "mae")


def _in_its_unit(settings: ExperimentConfig) -> str | None:
    """Return what a CSV's target is measured by where no metric is asked for."""
    data, loss = settings.data, settings.loss.name if settings.loss else ""
    is_told = settings.metrics or data.args.get("target_transform") == "none"
    is_number = data.name == "csv" and data.args.get("task") != "classification"
    return _IN_UNIT.get(loss) if is_number and data.val_fraction and not is_told else None


def plan_one(config: Config, objects: Objects | None, name: str) -> Plan:
    """Return the plan of the config itself, as a range test needs it: `compare` is left aside."""
    alone = replace(config, variants={name: config.experiment}, overrides={name: {}})
    return make_plan(alone, objects, validates=False)


def _check_given(config: Config, objects: Objects) -> None:
    """Refuse variants of what was given as a Python object: they would all train the same."""
    named = {"data": ("data.name", "data.args"), "optimizer": ("optimizer.name",)}
    fixed = [key for section in objects.sections for key in named.get(section, (section,))]
    problems = [
        Problem(
            f"compare.variants.{name}.{key}",
            "cannot differ: it was given as a Python object",
            value,
            "Give none, or name each variant's by import path.",
        )
        for name, changes in config.overrides.items()
        for key, value in changes.items()
        if key in objects.sections or any(key == own or key.startswith(f"{own}.") for own in fixed)
    ]
    if problems:
        raise ConfigError(problems).placed(config.document.place_of)


def _asked_by(settings: ExperimentConfig, validates: bool) -> list[tuple[str, str]]:
    """Return key and name of the metrics of one variant that its trials are to measure."""
    found = named_metrics(settings.model_dump())
    if validates:
        return found
    follows = not settings.find_lr.is_range_test  # its trainings are under the config's schedule
    return [(key, name) for key, name in found if follows and key == "schedule.monitor"]


def _plan_variant(
    name: str, settings: ExperimentConfig, config: Config, builder: TrialBuilder, asked: Asked
) -> VariantPlan:
    data = builder.data(settings)
    clock = clock_of(settings, data.size)  # nothing below makes sense without a length
    is_searched = not asked.ranks and not settings.find_lr.is_range_test
    if is_searched and clock.steps_per_epoch is None and settings.find_lr.spends is None:
        is_searched = _has_length(settings, clock)
    if not asked.ranks and not is_searched and clock.steps_per_epoch is None:
        settings = _as_long_as_its_test(settings)
    clock = replace(clock, total_steps=length_of(settings, clock))
    problems = Problems()
    parts: dict[str, Any] = {"asked": asked}
    known = builder.known_metrics
    with problems:
        parts["schedule"] = make_schedule(settings, clock, config, known)
        check_momentum(parts["schedule"], settings, builder.optimizers)
    with problems:
        parts["eval_every"] = eval_every(settings, clock)
    with problems:
        _require_validation(asked, data)
    with problems:
        if asked.ranks:
            _check_direction(settings, known)
    with problems:
        build = builder.build_of(settings, data)
        parts["build"] = build
        parts |= builder.probe(settings, data, build, asked)
        parts["timed_as"] = builder.timed_as(settings, data)
    problems.raise_any()
    device = builder.device
    parts["is_searched"] = is_searched
    return VariantPlan(name=name, settings=settings, device=device, data=data, clock=clock, **parts)


def _has_length(settings: ExperimentConfig, clock: Clock) -> bool:
    """Return whether the length of a training is known though that of an epoch is not."""
    try:
        length_of(settings, clock)
    except ConfigError:
        return False
    return True


def _as_long_as_its_test(settings: ExperimentConfig) -> ExperimentConfig:
    """Return the settings with the length of the range test: alone, it asks for no other."""
    steps = settings.find_lr.steps
    train = settings.train.model_copy(update={"duration": steps, "eval_every": steps})
    return settings.model_copy(update={"train": train})


def _require_validation(asked: Asked, data: Data) -> None:
    share = "set data.val_fraction above 0, " if data.train.num_samples is not None else ""
    problems = [
        Problem(
            key,
            "needs validation data, and there is none",
            name,
            f"Give (train, val), {share}or use train_loss.",
        )
        for key, name in asked.places
        if column_of(name) != "train_loss" and data.val is None
    ]
    if problems:
        raise ConfigError(problems)


def _check_direction(settings: ExperimentConfig, known: Mapping[str, Metric]) -> None:
    """Refuse a ranking by what nobody knows the better values of, or by the worse ones."""
    metric, given = settings.compare.metric, settings.compare.direction
    direction = direction_of(full_name(settings, metric), known)
    if direction is None and given is None:
        what = f"is needed: nobody knows which values of {metric} are better"
        raise ConfigError.single("compare.direction", what, NOTHING, "Add it: min or max.")
    if None not in (direction, given) and direction != given:
        better = "higher" if direction == "max" else "lower"
        what = f"contradicts compare.metric: {better} values of {metric} are better"
        raise ConfigError.single("compare.direction", what, given, "Leave it out.")
