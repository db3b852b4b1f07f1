"""From a checked config to tasks: load data, resolve units, build schedules, probe the model.

Everything that can be found wrong before training is found here, for all variants at once. What
variants share is made once: data that several use is loaded once, and within a seed every variant
with the same model starts from a deep copy of the same initial weights.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lrexp.config import Clock, Config, ExperimentConfig, Names
from lrexp.data import Data, data_from_objects, derive_seed, load_data
from lrexp.engine import (
    StopRule,
    Task,
    TrialId,
    fit_accuracy,
    fit_loss,
    has_momentum,
    make_optimizer,
    pick_device,
    preserved_rng,
    seed_everything,
)
from lrexp.engine.task import LossFunction
from lrexp.errors import ConfigError, LrexpError, Problem, user_error
from lrexp.finder import DivergenceStop
from lrexp.models import fill_facts
from lrexp.schedules import Controller, Schedule, build_schedule


@dataclass(frozen=True)
class Objects:
    """Python objects that stand in for sections of the config, as in a notebook."""

    model: Callable[..., nn.Module] | nn.Module | None = None
    data: Any = None
    loss: LossFunction | None = None

    @property
    def sections(self) -> frozenset[str]:
        """Return the names of the sections that are given as objects."""
        return frozenset(n for n in ("model", "data", "loss") if getattr(self, n) is not None)


@dataclass(frozen=True)
class VariantPlan:
    """One variant, ready to give the task of any seed."""

    name: str
    settings: ExperimentConfig
    device: torch.device
    data: Data
    clock: Clock
    loss: LossFunction
    count_correct: Any
    schedule: Schedule | Controller[Any]
    build: Callable[[int], tuple[nn.Module, Optimizer]] = field(repr=False)
    eval_every: int = 0
    stop: StopRule = field(default_factory=DivergenceStop)

    @property
    def total_steps(self) -> int:
        """Return the training's length in optimizer updates."""
        assert self.clock.total_steps is not None
        return self.clock.total_steps

    def task(self, seed: int) -> Task:
        """Return the task of one seed."""
        train = self.settings.train
        return Task(
            trial=TrialId(self.name, seed),
            build=lambda: self.build(seed),
            loss=self.loss,
            train=self.data.train,
            val=self.data.val,
            count_correct=self.count_correct,
            schedule=self.schedule,
            base_lr=self.settings.optimizer.lr,
            total_steps=self.total_steps,
            eval_every=self.eval_every,
            accumulate=train.accumulate,
            grad_clip=train.grad_clip,
            autocast=self.settings.precision == "bf16",
            stop=self.stop,
            device=self.device,
        )


@dataclass(frozen=True)
class Plan:
    """All variants of a config, ready to be trained."""

    config: Config
    device: torch.device
    variants: dict[str, VariantPlan]

    def tasks(self, seeds: Sequence[int]) -> Iterator[Task]:
        """Yield a task per trial, seed by seed, so that one seed's initial weights are shared."""
        for seed in seeds:
            for variant in self.variants.values():
                yield variant.task(seed)


def make_plan(config: Config, names: Names, objects: Objects | None = None) -> Plan:
    """Return the plan of every variant of a config.

    Raises:
        ConfigError: every problem of every variant that shows before training.
        UserCodeError: the user's own data or model raised.
    """
    device = pick_device(config.experiment.device)
    planner = _Planner(config, names, objects or Objects(), device)
    variants: dict[str, VariantPlan] = {}
    problems: list[Problem] = []
    for name, settings in config.variants.items():
        try:
            variants[name] = planner.variant(name, settings)
        except ConfigError as error:
            problems += config.locate(name, error).problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return Plan(config, device, variants)


def plan_one(
    config: Config, names: Names, objects: Objects | None = None, name: str = "base"
) -> tuple[VariantPlan, torch.device]:
    """Return the plan of the config itself, its `compare` section left aside."""
    alone = replace(config, variants={name: config.experiment}, overrides={name: {}})
    plan = make_plan(alone, names, objects)
    return plan.variants[name], plan.device


class _Planner:
    """Makes variant plans; keeps what they share."""

    def __init__(
        self, config: Config, names: Names, objects: Objects, device: torch.device
    ) -> None:
        self._config, self._names, self._objects, self._device = config, names, objects, device
        self._data: dict[str, Data] = {}
        self._initial: dict[tuple[str, int], nn.Module] = {}
        self._initial_seed: int | None = None

    def variant(self, name: str, settings: ExperimentConfig) -> VariantPlan:
        data = self.data(settings)
        clock = make_clock(settings, data)
        problems = _Problems()
        with problems:
            clock = replace(clock, total_steps=_steps(clock, settings, "train.duration"))
        problems.stop()  # nothing below makes sense without a length
        plan: dict[str, Any] = {}
        with problems:
            plan["eval_every"] = _steps(clock, settings, "train.eval_every")
        with problems:
            plan["schedule"] = make_schedule(settings, clock, self._names)
        with problems:
            _check_metric(settings, data)
        build = self._builder(settings, data)
        with problems:
            plan["loss"], plan["count_correct"] = self._probe(settings, data, build)
        problems.stop()
        _check_momentum(plan["schedule"], self._names.optimizer(settings))
        return VariantPlan(
            name=name,
            settings=settings,
            device=self._device,
            data=data,
            clock=clock,
            build=build,
            **plan,
        )

    def data(self, settings: ExperimentConfig) -> Data:
        """Return the data on the device; variants with equal data settings share it."""
        spec = settings.data
        key = json.dumps([spec.model_dump(mode="json"), settings.precision], sort_keys=True)
        if key not in self._data:
            options = {
                "batch_size": spec.batch_size,
                "val_fraction": spec.val_fraction,
                "workers": spec.workers,
                "in_memory": spec.in_memory,
            }
            with preserved_rng(self._device):
                seed_everything(derive_seed(0, "data"))
                if self._objects.data is not None:
                    loaded = data_from_objects(self._objects.data, **options)
                else:
                    factory = self._names.data(settings)
                    args = self._names.data_args(settings)
                    with _user_code(f"data {spec.name}"):
                        loaded = load_data(factory, args, **options)
            self._data[key] = loaded.to(self._device, _dtype(settings))
        return self._data[key]

    def _builder(
        self, settings: ExperimentConfig, data: Data
    ) -> Callable[[int], tuple[nn.Module, Optimizer]]:
        optimizer_class = self._names.optimizer(settings)
        spec = settings.optimizer
        groups = [(group.match, group.lr_scale) for group in spec.groups]

        def build(seed: int) -> tuple[nn.Module, Optimizer]:
            model = copy.deepcopy(self._initial_model(settings, data, seed))
            model = model.to(self._device, _dtype(settings))
            optimizer = make_optimizer(
                optimizer_class, model, lr=spec.lr, args=spec.args, groups=groups
            )
            return model, optimizer

        return build

    def _initial_model(self, settings: ExperimentConfig, data: Data, seed: int) -> nn.Module:
        """Return the seed's initial model on the CPU; only the current seed's are kept."""
        if seed != self._initial_seed:
            self._initial, self._initial_seed = {}, seed
        key = (json.dumps([settings.model.model_dump(mode="json"), repr(data.facts)]), seed)
        if key not in self._initial:
            given = self._objects.model
            if isinstance(given, nn.Module):
                return given
            with preserved_rng(self._device):
                seed_everything(derive_seed(seed, "init"))
                factory = given or self._names.model(settings)
                args = fill_facts(factory, settings.model.args, data.facts)
                with _user_code(f"model {settings.model.name}"):
                    model = factory(**args)
            if not isinstance(model, nn.Module):
                raise ConfigError.single(
                    "model.name",
                    "must give an nn.Module",
                    type(model).__name__,
                    "Name a class or function that returns the model.",
                )
            self._initial[key] = model
        return self._initial[key]

    def _probe(
        self,
        settings: ExperimentConfig,
        data: Data,
        build: Callable[[int], tuple[nn.Module, Optimizer]],
    ) -> tuple[LossFunction, Any]:
        """Run one batch through a copy of the model and fit the loss to what comes out."""
        loss = self._objects.loss or self._names.loss(settings)
        with preserved_rng(self._device):
            try:
                model, _ = build(settings.seed)
            except ConfigError as error:
                at_optimizer = all(p.key.startswith(("args", "groups", "name")) for p in error.problems)
                raise error.under("optimizer") if at_optimizer else error from None
            with _user_code("the data"):
                inputs, targets = next(iter(data.train.epoch(settings.seed, 0)))
            model.train()
            cast = settings.precision == "bf16"
            with torch.autocast(self._device.type, torch.bfloat16, enabled=cast):
                with _user_code(f"model {settings.model.name}"):
                    output = model(inputs)
                try:
                    fitted = fit_loss(loss, output, targets)
                except ConfigError as error:
                    raise error.under("loss") from None
        return fitted, fit_accuracy(output, targets)


def make_clock(settings: ExperimentConfig, data: Data) -> Clock:
    """Return the clock that turns this variant's durations into steps; its length is not set."""
    train, accumulate = data.train, settings.train.accumulate
    per_epoch = None if train.batches_per_epoch is None else train.batches_per_epoch // accumulate
    if per_epoch == 0:
        raise ConfigError.single(
            "train.accumulate",
            f"needs more batches than the {train.batches_per_epoch} of one epoch",
            accumulate,
            "Lower it, or lower data.batch_size.",
        )
    return Clock(
        total_steps=None,
        steps_per_epoch=per_epoch,
        samples_per_step=train.batch_size * accumulate,
        tokens_per_sample=data.facts.seq_len,
    )


def make_schedule(
    settings: ExperimentConfig, clock: Clock, names: Names
) -> Schedule | Controller[Any]:
    """Return the schedule of one variant; problems have keys under `schedule`."""
    assert clock.total_steps is not None
    try:
        return build_schedule(
            settings.schedule.name,
            names.schedule_params(settings),
            lr=settings.optimizer.lr,
            total_steps=clock.total_steps,
            to_steps=clock.steps,
            steps_per_epoch=clock.steps_per_epoch,
        )
    except ConfigError as error:
        raise error.under("schedule") from None


def _steps(clock: Clock, settings: ExperimentConfig, key: str) -> int:
    try:
        return clock.steps(getattr(settings.train, key.removeprefix("train.")), at_least=1)
    except ConfigError as error:
        raise error.under(key) from None


def _check_metric(settings: ExperimentConfig, data: Data) -> None:
    metric = settings.compare.metric
    if metric.startswith("val_") and data.val is None:
        raise ConfigError.single(
            "compare.metric",
            "needs validation data, and there is none",
            metric,
            "Set data.val_fraction above 0, or use train_loss.",
        )


def _check_momentum(schedule: Schedule | Controller[Any], optimizer: type[Optimizer]) -> None:
    cycles = isinstance(schedule, Schedule) and schedule.momentum is not None
    if cycles and not has_momentum(optimizer):
        raise ConfigError.single(
            "schedule.cycle_momentum",
            f"needs an optimizer with momentum or betas, which {optimizer.__name__} has not",
            True,
            "Set cycle_momentum: false.",
        )


def _dtype(settings: ExperimentConfig) -> torch.dtype:
    return torch.float64 if settings.precision == "fp64" else torch.float32


class _Problems:
    """Collects ConfigErrors of independent checks, to report them together."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, ConfigError):
            self.found += error.problems
            return True
        return False

    def stop(self) -> None:
        """Raise what was collected, if anything."""
        if self.found:
            raise ConfigError(self.found)


class _user_code:  # noqa: N801 (reads as a statement: with _user_code("model mlp"):)
    """Turn an exception of the user's code into a UserCodeError with its file and line."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, LrexpError):
            raise user_error(error, self._doing) from error


def describe_overrides(overrides: Mapping[str, object]) -> dict[str, object]:
    """Return what a variant changes, for the summary."""
    return dict(overrides)
