"""Making what trials are made of, once for all that share it: data, initial weights, the loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from lrexp.config.config import Config
from lrexp.config.names import IN_PYTHON, PLAIN, Kind
from lrexp.config.schema import ExperimentConfig
from lrexp.engine.rng import preserved_rng, seed_everything
from lrexp.errors import NOTHING, ConfigError, user_code
from lrexp.records import METRICS, Metric
from lrexp.schedules.signatures import check_arguments
from lrexp.workloads.answers import fit_answers
from lrexp.workloads.batches import Data, Facts, example_of, placed
from lrexp.workloads.labels import CLASSES, facts_for, task_of
from lrexp.workloads.loading import data_from_objects, load_data
from lrexp.workloads.loss_calls import LossCalls
from lrexp.workloads.losses import LossFunction, placed_loss, torch_name
from lrexp.workloads.metrics import Asked, Baseline, fit_metrics
from lrexp.workloads.models import copy_of, fill_facts
from lrexp.workloads.objectives import (
    Objective,
    OwnStep,
    Step,
    check_step,
    fit_objective,
    layout,
    logits_of,
    losses_of,
    numbers_of,
)
from lrexp.workloads.optimizers import Part, make_optimizer, make_parts
from lrexp.workloads.seeds import derive_seed
from lrexp.workloads.tensors import all_targets

Build: TypeAlias = Callable[[int], tuple[nn.Module, Optimizer]]
Probed: TypeAlias = tuple[Callable[[], Objective], Any, Any]  # it, a batch, the output for it
NOT_COPIED = "Pass a function that makes the model anew and returns it, or remove what it keeps."


@dataclass(frozen=True)
class Objects:
    """Python objects that stand in for sections of the config, as in a notebook.

    Args:
        model: a function or class that gives the model, or a module to start every seed from.
        data: what a data function would return.
        loss: a function of (output, target), or of (output, target, weight).
        step: a function (model, batch) -> loss, or a dict with it; eval_step: that of evaluations.
        optimizer: a class, or a function of (params) or (params, lr, ...) that gives an optimizer.
        metrics: those that were given as functions, by column.
        registered: those that the config names and `register_metric` made known, by column; they
            are no section, and travel to worker processes all the same.
    """

    model: Callable[..., nn.Module] | nn.Module | None = None
    data: Any = None
    loss: LossFunction | None = None
    step: Step | None = None
    eval_step: Step | None = None
    metrics: Mapping[str, Metric] | None = None
    registered: Mapping[str, Metric] = field(default_factory=dict)
    optimizer: Callable[..., Optimizer] | None = None

    @property
    def sections(self) -> frozenset[str]:
        """Return the names of the sections that are given as objects."""
        names = {f.name for f in fields(self)} - {"registered"}
        return frozenset(name for name in names if getattr(self, name) is not None)

    @property
    def known_metrics(self) -> dict[str, Metric]:
        """Return every metric that has been declared, by column."""
        return METRICS | dict(self.metrics or {})


class TrialBuilder:
    """Makes the parts of trials for one config on one device."""

    def __init__(self, config: Config, objects: Objects, device: torch.device) -> None:
        self._config, self._names = config, config.names
        self._objects, self.device = objects, device
        self.known_metrics = objects.known_metrics
        self._data: dict[str, Data] = {}
        self._initial: dict[str, nn.Module] = {}
        self._initial_seed: int | None = None

    def data(self, settings: ExperimentConfig) -> Data:
        """Return the data on the device; variants with equal data settings share it."""
        spec = settings.data
        loss = self._torch_loss(settings)
        task = task_of(loss) if settings.data.name == "csv" else None
        key = json.dumps([spec.name, spec.args, spec.options, settings.precision, task])
        if key not in self._data:
            with preserved_rng(self.device), user_code(f"data {spec.name}"):
                seed_everything(derive_seed(0, "data"))
                loaded = self._load(settings, task)
            self._data[key] = loaded.to(self.device, dtype_of(settings))
        data = self._data[key]
        known = all_targets(data, lambda whole: example_of(whole)[1])
        return replace(data, facts=facts_for(data.facts, loss, known))

    def _torch_loss(self, settings: ExperimentConfig) -> str | None:
        """Return which of torch's losses the loss is, or calls; None where that does not show."""
        with suppress(ConfigError):  # it is reported where the loss is
            return torch_name(self._objects.loss or self._names.of("loss", settings))
        return None

    def optimizers(self, settings: ExperimentConfig) -> list[Any]:
        """Return the class of each optimizer; the object that was given makes the only one."""
        if self._objects.optimizer is None:
            return self._names.optimizers(settings)
        return [self._objects.optimizer]

    def build_of(self, settings: ExperimentConfig, data: Data) -> Build:
        """Return what makes a seed's model (a deep copy of its initial weights) and optimizer."""
        specs = settings.optimizer.each
        parts = [
            Part(cls, s.lr, s.args, [g.model_dump() for g in s.groups], s.model_dump())
            for cls, s in zip(self.optimizers(settings), specs, strict=True)
        ]

        def build(seed: int) -> tuple[nn.Module, Optimizer]:
            model = self._copied_model(settings, data, seed)
            model = placed(model, self.device, dtype_of(settings))
            try:
                if settings.optimizer.parts:
                    return model, make_parts(model, parts)
                [only] = parts
                with user_code("the optimizer"):
                    return model, make_optimizer(
                        only.cls, model, lr=only.lr, args=only.args, groups=only.groups
                    )
            except ConfigError as error:
                raise error.under("optimizer") from None

        return build

    def probe(
        self, settings: ExperimentConfig, data: Data, build: Build, asked: Asked
    ) -> dict[str, Any]:
        """Run one batch through a copy of the model; return what of a `VariantPlan` fits it."""
        trained = self._objective(settings, data, build)
        evaluated = self._eval_step(settings, data, build)
        return {
            "make_objective": trained[0],
            "make_eval_objective": None if evaluated is None else evaluated[0],
            **self._metrics(settings, data, evaluated or trained, asked),
        }

    def _objective(self, settings: ExperimentConfig, data: Data, build: Build) -> Probed:
        """Return what makes the objective that fits a first batch, this batch, and its output.

        The objective comes as a function that makes it: a loss that keeps state (an exponential
        average, learned weights) begins afresh in every trial.
        """
        step = self._objects.step or self._names.of("step", settings)
        if step is not None:
            if self._objects.loss is not None or settings.loss is not None:
                what, remedy = "is not used: the step makes the loss", "Leave one of them out."
                raise ConfigError.single("loss", what, NOTHING, remedy)
            return self._own_step("step", step, settings, data, build)
        pristine = self._objects.loss or self._names.of("loss", settings)

        def fresh() -> LossFunction:
            assert pristine is not None
            loss = self._copied("loss", pristine, settings)
            return placed_loss(loss, self.device, dtype_of(settings))

        bfloat = settings.precision == "bf16"
        with preserved_rng(self.device):
            model, _ = build(settings.seed)
            if not model.training:
                model.train()
            with user_code(f"data {settings.data.name}"):
                batch = next(iter(data.train.epoch(settings.seed, 0)))
            split = layout(model, batch, pristine)
            args, keywords, _ = split(batch)
            known = all_targets(data, lambda whole: split(whole)[2][0])
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat):
                with user_code(f"model {settings.model.name}"), _noting(pristine) as calls:
                    output = model(*args, **keywords)
                _check_outputs(output, data.facts, known)
                try:
                    with user_code(f"loss {settings.loss.name if settings.loss else None}"):
                        make_objective = fit_objective(
                            fresh if pristine else None,
                            batch,
                            output,
                            split,
                            known=known,
                            call=calls.only() if calls else None,
                        )
                except ConfigError as error:
                    raise error.under("loss") from None
                _check_counted(known, output, settings, self._torch_loss(settings))
        return make_objective, batch, logits_of(output)

    def _metrics(
        self, settings: ExperimentConfig, data: Data, probed: Probed, asked: Asked
    ) -> dict[str, Any]:
        """Return how right answers are counted, what is measured besides, and what guessing is."""
        make_objective, batch, output = probed
        objective, loss = make_objective(), self._torch_loss(settings)
        target = objective.target(batch)
        answers = fit_answers(output, target, loss, getattr(objective, "ignored", None))
        functions = {}
        for column, name in asked.names.items():
            metric = self.known_metrics.get(column)
            if metric is not None and metric.function is not None:
                functions[column] = metric.function
            elif ":" in name:
                functions[column] = self._names.resolve("function", name)
        metrics = fit_metrics(asked, functions, answers, output, target)
        counts = answers is not None and answers.kind != "numbers"
        return {
            "count_correct": answers.count_correct if answers is not None and counts else None,
            "metrics": replace(metrics, original=getattr(data, "original", None)),
            "baseline": Baseline(answers, loss, tuple(getattr(output, "shape", ()))),
        }

    def _eval_step(self, settings: ExperimentConfig, data: Data, build: Build) -> Probed | None:
        """Return a step of evaluations, None where it is that of training."""
        step = self._objects.eval_step or self._names.of("eval_step", settings)
        if step is None:
            return None
        return self._own_step("eval_step", step, settings, data, build)

    def _own_step(
        self, kind: Kind, step: Step, settings: ExperimentConfig, data: Data, build: Build
    ) -> Probed:
        """Take a step of the user's own once, and return what makes an objective of it."""

        with preserved_rng(self.device):
            model, optimizer = build(settings.seed)
            model.train(kind == "step")
            with user_code(f"data {settings.data.name}"):
                batch = next(iter(data.train.epoch(settings.seed, 0)))
            bfloat = settings.precision == "bf16"
            with (
                torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat),
                torch.set_grad_enabled(kind == "step"),
                user_code(kind),
            ):
                made = self._copied(kind, step, settings)(model, batch)
                check_step(kind, made, trains=kind == "step", model=model, optimizer=optimizer)
        is_of_parts = losses_of(made) is not None

        def fresh() -> Objective:
            return OwnStep(self._copied(kind, step, settings), is_of_parts)

        return fresh, batch, numbers_of(made)

    def _materialised(self, model: nn.Module, settings: ExperimentConfig, data: Data) -> nn.Module:
        """Return the model with the weights of its lazy modules, if any, drawn here and now.

        Left to the first training step, each copy would draw its own.
        """
        if any(map(is_lazy, _tensors(model))):
            model = placed(model, self.device, dtype_of(settings))
            was_training = model.training
            batch = next(iter(data.train.epoch(settings.seed, 0)))
            args, keywords, _ = layout(model, batch, None)(batch)
            with torch.no_grad():
                model.eval()(*args, **keywords)
            model.train(was_training)
        return model

    def timed_as(self, settings: ExperimentConfig, data: Data) -> str:
        """Return what a step's time depends on: the config's sections, and what the model is."""
        tree = settings.model_dump(mode="json")
        sections = ("model", "data", "loss", *PLAIN, "precision", "optimizer", "train", "device")
        model = self._initial_model(settings, data, settings.seed)
        shapes = [(name, list(value.shape)) for name, value in model.named_parameters()]
        return json.dumps([{key: tree[key] for key in sections}, repr(model), shapes], default=str)

    def _load(self, settings: ExperimentConfig, task: str | None) -> Data:
        spec = settings.data
        if self._objects.data is not None:
            return data_from_objects(self._objects.data, **spec.options)
        directory = self._config.document.directory
        args = spec.args if task is None else {"task": task, **spec.args}
        return load_data(
            self._names.of("data", settings), args, directory=directory, **spec.options
        )

    def _initial_model(self, settings: ExperimentConfig, data: Data, seed: int) -> nn.Module:
        """Return the seed's initial model on the CPU; only the current seed's are kept."""
        if seed != self._initial_seed:
            self._initial, self._initial_seed = {}, seed
        key = json.dumps([settings.model.model_dump(mode="json"), repr(data.facts)])
        if key not in self._initial:
            self._initial[key] = self._new_model(settings, data, seed)
        return self._initial[key]

    def _copied_model(self, settings: ExperimentConfig, data: Data, seed: int) -> nn.Module:
        """Return a copy of the seed's initial model.

        Where deepcopy refuses, as with the tensor that `torch.nn.utils.weight_norm` keeps, another
        is made and gets the same weights and buffers.

        Raises:
            ConfigError: it was given as a module, or the function gives the same one again.
        """
        initial = self._initial_model(settings, data, seed)
        try:
            return copy_of(initial, "model", NOT_COPIED)
        except ConfigError:
            if isinstance(self._objects.model, nn.Module):
                raise
            model = self._new_model(settings, data, seed)
            if {id(tensor) for tensor in _tensors(model)} & {id(t) for t in _tensors(initial)}:
                raise  # else the trials would train each other's weights
        with user_code(f"model {settings.model.name}"):
            model.load_state_dict(initial.state_dict())
        return model

    def _copied(self, kind: Kind, pristine: Any, settings: ExperimentConfig) -> Any:
        """Return a copy of a loss or a step or, where it cannot be copied, another of its class."""
        try:
            return copy_of(pristine, kind, "Pass a function, or a class that can be copied.")
        except ConfigError:
            again = None if getattr(self._objects, kind) else self._names.of(kind, settings)
            if again is None or again is pristine:
                raise
            return again

    def _new_model(self, settings: ExperimentConfig, data: Data, seed: int) -> nn.Module:
        with preserved_rng(self.device), user_code(f"model {settings.model.name}"):
            seed_everything(derive_seed(seed, "init"))
            return self._materialised(_checked(self._made(settings, data)), settings, data)

    def _made(self, settings: ExperimentConfig, data: Data) -> object:
        """Return what the model section, or the object in its place, gives."""
        given = self._objects.model
        if isinstance(given, nn.Module):
            return copy_of(given, "model", NOT_COPIED)
        factory = given or self._names.of("model", settings)
        try:
            args = fill_facts(factory, settings.model.args, data.facts)
        except ConfigError:
            args = fill_facts(factory, settings.model.args, data.counted_facts)
        problems = check_arguments(factory, args, title="the model")
        if problems:  # a factory given as an object has not been checked with the config
            raise ConfigError(problems).under("model.args")
        return factory(**args)


@contextmanager
def _noting(loss: Any) -> Iterator[LossCalls | None]:
    """Note the losses of torch's that a model calls, where it makes its loss itself."""
    if loss is not None:
        yield None
        return
    with LossCalls() as calls:
        yield calls


def dtype_of(settings: ExperimentConfig) -> torch.dtype:
    """Return the type of weights and inputs; bf16 keeps float32 and casts inside the step."""
    return torch.float64 if settings.precision == "fp64" else torch.float32


def _checked(model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        what, remedy = "must give an nn.Module", "Name a class or function that returns the model."
        raise ConfigError.single("model.name", what, type(model).__name__, remedy)
    if not any(is_lazy(parameter) or parameter.requires_grad for parameter in model.parameters()):
        what, remedy = "has no parameter to train", "Give it a layer, or set requires_grad."
        raise ConfigError.single("model.name", what, type(model).__name__, remedy)
    return model


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    yield from (*model.parameters(), *model.buffers())


def _check_counted(
    known: torch.Tensor | None, output: Any, settings: ExperimentConfig, loss: str | None
) -> None:
    """Refuse labels from 1 where the outputs were counted by them: class 0 would never occur."""
    if loss not in CLASSES or known is None or known.dim() != 1 or known.is_floating_point():
        return
    found, outputs = torch.unique(known), output.shape[1]
    counted = settings.model.name != IN_PYTHON and outputs not in settings.model.args.values()
    if counted and found[0] == 1 and len(found) == outputs - 1 == found[-1]:
        what = f"{loss} takes classes from 0, and the labels run from 1 to {outputs - 1}"
        raise ConfigError.single("loss", what, NOTHING, "Subtract 1: y - 1.")


def _check_outputs(output: Any, facts: Facts, known: torch.Tensor | None) -> None:
    """Refuse a model with fewer outputs than the data has classes: its loss would index past it."""
    if not isinstance(output, torch.Tensor) or output.dim() != 2 or facts.num_classes is None:
        return
    if known is not None and known.min() == 1 and output.shape[1] == facts.num_classes - 1:
        return  # they run from 1: the loss says so
    if 1 < output.shape[1] < facts.num_classes:
        what = f"gives {output.shape[1]} outputs, and the data has {facts.num_classes} classes"
        raise ConfigError.single("model", what, NOTHING, "Give it one output per class.")
