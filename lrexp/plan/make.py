"""Making a plan: every variant checked as far as that goes without training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lrexp.config import Config, ExperimentConfig
from lrexp.data import Data
from lrexp.engine import has_momentum, pick_device
from lrexp.errors import ConfigError, Problem
from lrexp.plan.length import clock_of, eval_every, length_of, make_schedule
from lrexp.plan.problems import Problems, for_every_variant
from lrexp.plan.variant import Plan, VariantPlan
from lrexp.plan.workshop import Objects, Workshop
from lrexp.schedules import Controller, Schedule


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
    workshop = Workshop(config, objects or Objects(), device)
    _check_given(config, objects or Objects())

    def plan(name: str, settings: ExperimentConfig) -> VariantPlan:
        return _plan_variant(name, settings, config, workshop, validates)

    return Plan(config, device, for_every_variant(config, plan))


def plan_one(config: Config, objects: Objects | None, name: str) -> Plan:
    """Return the plan of the config itself, as a range test needs it: `compare` is left aside."""
    alone = replace(config, variants={name: config.experiment}, overrides={name: {}})
    return make_plan(alone, objects, validates=False)


def _check_given(config: Config, objects: Objects) -> None:
    """Refuse variants of what was given as a Python object: they would all train the same."""
    named = {"model": ("model",), "data": ("data.name", "data.args"), "loss": ("loss",)}
    fixed = [key for section in objects.sections for key in named[section]]
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


def _plan_variant(
    name: str, settings: ExperimentConfig, config: Config, workshop: Workshop, validates: bool
) -> VariantPlan:
    data = workshop.data(settings)
    clock = clock_of(settings, data.size)  # nothing below makes sense without a length
    clock = replace(clock, total_steps=length_of(settings, clock))
    problems = Problems()
    parts: dict[str, Any] = {}
    followed = validates or settings.find_lr.race  # its schedule: a race trains under it, too
    with problems:
        parts["schedule"] = make_schedule(settings, clock, config)
        if followed:
            _check_monitor(parts["schedule"], data)
        _check_momentum(parts["schedule"], config.names.optimizer(settings))
    with problems:
        parts["eval_every"] = eval_every(settings, clock)
    with problems:
        if validates:
            _check_metric(settings, data)
    with problems:
        build = workshop.builder(settings, data)
        parts["build"] = build
        parts["make_loss"], parts["count_correct"] = workshop.probe(settings, data, build)
        if parts["count_correct"] is None:
            ranking = settings.compare.metric if validates else None
            _refuse_accuracy(ranking, parts.get("schedule") if followed else None)
    problems.raise_any()
    device = workshop.device
    return VariantPlan(name=name, settings=settings, device=device, data=data, clock=clock, **parts)


def _check_metric(settings: ExperimentConfig, data: Data) -> None:
    metric = settings.compare.metric
    if metric.startswith("val_") and data.val is None:
        raise ConfigError.single(
            "compare.metric",
            "needs validation data, and there is none",
            metric,
            "Give (train, val), set data.val_fraction above 0, or use train_loss.",
        )


def _refuse_accuracy(ranking: str | None, schedule: Schedule | Controller | None) -> None:
    """Refuse an accuracy, which there is none of, as what ranks and as what a schedule follows."""
    followed = schedule.monitor if isinstance(schedule, Controller) else None
    asked = {"compare.metric": ranking, "schedule.monitor": followed}
    what, remedy = "needs targets that are classes", "Use val_loss or train_loss."
    problems = [
        Problem(key, what, measure, remedy)
        for key, measure in asked.items()
        if measure == "val_accuracy"
    ]
    if problems:
        raise ConfigError(problems)


def _check_monitor(schedule: Schedule | Controller, data: Data) -> None:
    monitor = "" if isinstance(schedule, Schedule) else schedule.monitor
    if monitor.startswith("val_") and data.val is None:
        raise ConfigError.single(
            "schedule.monitor",
            "needs validation data, and there is none",
            monitor,
            "Give (train, val), set data.val_fraction above 0, or monitor train_loss.",
        )


def _check_momentum(schedule: Schedule | Controller, optimizer: Any) -> None:
    cycles = isinstance(schedule, Schedule) and schedule.momentum is not None
    if cycles and not has_momentum(optimizer):
        raise ConfigError.single(
            "schedule.cycle_momentum",
            f"needs an optimizer with momentum or betas, and {optimizer.__name__} has neither",
            True,
            "Set cycle_momentum: false.",
        )
