"""What the names of an experiment stand for.

A plain name is looked up by kind: built-ins first, then what torch and torchvision call by that
name. An import path is followed. torchvision is imported only for a name that is not built in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lrexp.config.schema import ExperimentConfig
from lrexp.config.trust import AnyCallable, import_callable, import_trusted
from lrexp.errors import ConfigError, did_you_mean, user_error

Kind: TypeAlias = Literal["model", "data", "loss", "optimizer", "schedule", "function"]
# Of torch.nn.functional: those that take (output, target) and give one number.
LOSSES = (
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
)

_NO_CLOSURE = "LBFGS"
_PICKLED = ("LSUN", "LSUNClass")


def _model(name: str) -> AnyCallable:
    from lrexp.workloads.models import MODELS
    from lrexp.workloads.torchvision_models import torchvision_model

    return _built_in_or_torchvision(name, MODELS, torchvision_model, "models")


def _data(name: str) -> AnyCallable:
    from lrexp.workloads.builtin_data import DATASETS

    if name in DATASETS:  # told apart first: the rest imports torch
        return DATASETS[name]
    from lrexp.workloads.torchvision_data import torchvision_dataset

    return _built_in_or_torchvision(name, DATASETS, torchvision_dataset, "datasets")


def _built_in_or_torchvision(
    name: str,
    built_in: Mapping[str, AnyCallable],
    from_torchvision: Callable[[str], AnyCallable | None],
    module: str,
) -> AnyCallable:
    if name in built_in:
        return built_in[name]
    if name in _PICKLED:
        what = "is refused: it opens a pickle beside the images, which could run code"
        raise ConfigError.single("", what, name, "Wrap it in a function of your own.")
    try:
        found = from_torchvision(name)
        others = torchvision_names(module)
    except ConfigError as error:
        problem = error.problems[0]
        remedy = f"{problem.remedy} Without torchvision: {', '.join(built_in)}."
        raise ConfigError.single("", problem.what, name, remedy) from error
    if found is not None:
        return found
    what = "is neither a built-in name nor one of torchvision"
    remedy = suggest(name, built_in, others)
    raise ConfigError.single("", what, name, f"{remedy} Your own: package.module:name.")


def torchvision_names(module: str) -> list[str]:
    """Return the names that `torchvision.models` or `torchvision.datasets` offers a config."""
    from lrexp.workloads.torchvision_data import torchvision_module

    found = torchvision_module(module, "")
    if module == "models":
        return list(found.list_models(module=found))
    names = (n for n in found.__all__ if inspect.isclass(getattr(found, n, None)))
    return [n for n in names if n not in _PICKLED]


def _loss(name: str) -> AnyCallable:
    import torch.nn.functional

    if name in LOSSES:
        loss: AnyCallable = getattr(torch.nn.functional, name)
        return loss
    what = "is no loss of torch.nn.functional that takes (output, target)"
    raise ConfigError.single("", what, name, suggest(name, LOSSES))


def _optimizer(name: str) -> AnyCallable:
    import torch.optim

    known = {
        n: found
        for n, found in vars(torch.optim).items()
        if isinstance(found, type)
        and issubclass(found, torch.optim.Optimizer)
        and found is not torch.optim.Optimizer
    }
    if name == _NO_CLOSURE:
        what = "needs a closure that evaluates the loss again, which trials do not have"
        raise ConfigError.single("", what, name, "Use another optimizer.")
    if name in known:
        return known[name]
    del known[_NO_CLOSURE]
    raise ConfigError.single("", "is no optimizer of torch.optim", name, suggest(name, known))


def _schedule(name: str) -> AnyCallable:
    from lrexp.schedules.build import SCHEDULES, known_names

    if name in SCHEDULES:
        return SCHEDULES[name]
    import torch.optim.lr_scheduler

    if name in known_names():
        scheduler: AnyCallable = getattr(torch.optim.lr_scheduler, name)
        return scheduler
    others = [n for n in known_names() if n not in SCHEDULES]
    raise ConfigError.single("", "is not a known schedule", name, suggest(name, SCHEDULES, others))


LOOK_UP: dict[Kind, Callable[[str], AnyCallable]] = {
    "model": _model,
    "data": _data,
    "loss": _loss,
    "optimizer": _optimizer,
    "schedule": _schedule,
}


def suggest(name: str, known: Collection[str], others: Iterable[str] = ()) -> str:
    """Return `Did you mean ...?` over all names, or the known ones when none is close.

    Case, underscores and a final 'loss' do not count: `MSELoss` and `mse` are close to `mse_loss`.

    Example:
        >>> suggest("adamw", ["Adam", "AdamW"])
        "Did you mean 'AdamW'?"
    """
    same = {_folded(candidate): candidate for candidate in [*others, *known]}
    if _folded(name) in same:
        return f"Did you mean {same[_folded(name)]!r}?"
    close = did_you_mean(name, [*known, *others])
    return close if close.startswith("Did") else did_you_mean(name, known)


def _folded(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").removesuffix("loss")


IN_PYTHON = "(Python object)"  # the name of a section that was given as an object


def resolve(
    kind: Kind, name: str, *, directories: Sequence[Path], trust: Sequence[str] = ()
) -> AnyCallable:
    """Return the callable that a name stands for.

    Args:
        kind: which section the name is from; `function` takes import paths only.
        name: a built-in name, one of torch's or torchvision's, or `package.module:attribute`.
        directories: folders whose modules are the user's own, in order.
        trust: packages that import paths may reach besides.

    Raises:
        ConfigError: with key "", when the name is unknown or refused.
        UserCodeError: the user's module raised while it was imported.

    Example:
        >>> resolve("optimizer", "AdamW", directories=[])
        <class 'torch.optim.adamw.AdamW'>
    """
    if ":" in name or kind == "function":
        found = import_callable(name, directories=directories, trust=trust)
        return _as_loss(found, name) if kind == "loss" else found
    if name == IN_PYTHON:
        what = "was given as a Python object, which no file can hold"
        raise ConfigError.single("", what, name, f"Give it in Python again: {kind}=...")
    return LOOK_UP[kind](name)


@dataclass(frozen=True)
class Names:
    """The callables behind an experiment's names.

    Args:
        directories: where the user's own modules lie: beside the config, the working directory.
        trust: packages that import paths may reach besides.
    """

    directories: tuple[Path, ...]
    trust: tuple[str, ...] = ()

    def resolve(self, kind: Kind, name: str) -> AnyCallable:
        """Return the callable of a name; see `resolve`."""
        return resolve(kind, name, directories=self.directories, trust=self.trust)

    def import_trusted(self) -> None:
        """Import what is trusted, so that it can register what it adds; see `import_trusted`."""
        import_trusted(self.trust, self.directories)

    def model(self, settings: ExperimentConfig) -> AnyCallable:
        """Return the callable that makes the model."""
        return self.resolve("model", settings.model.name)

    def data(self, settings: ExperimentConfig) -> AnyCallable:
        """Return the callable that loads the data."""
        return self.resolve("data", settings.data.name)

    def loss(self, settings: ExperimentConfig) -> AnyCallable:
        """Return the loss, a function of (output, target)."""
        return self.resolve("loss", settings.loss)

    def optimizer(self, settings: ExperimentConfig) -> Any:
        """Return the optimizer's class."""
        return self.resolve("optimizer", settings.optimizer.name)

    def schedule(self, settings: ExperimentConfig) -> str | AnyCallable:
        """Return the schedule's name, or the callable that its import path leads to."""
        name = settings.schedule.name
        return self.resolve("schedule", name) if ":" in name else name

    def schedule_params(self, settings: ExperimentConfig) -> dict[str, Any]:
        """Return the schedule's parameters, import paths in them replaced by what they name."""
        return self.with_callables(settings.schedule.params)

    def with_callables(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return a schedule's parameters with import paths replaced by callables.

        These are `function` (of `lambda`) and the names of schedules in `parts`.

        Raises:
            ConfigError: keys are relative to the parameters.
        """
        resolved = dict(params)
        if isinstance(params.get("function"), str):
            resolved["function"] = self._under("function", "function", params["function"])
        parts = params.get("parts")
        if isinstance(parts, list):
            resolved["parts"] = [self._part(part, f"parts[{i}]") for i, part in enumerate(parts)]
        return resolved

    def _part(self, part: Any, key: str) -> Any:
        """Return one of the parts of a combined schedule."""
        if not isinstance(part, Mapping) or "schedule" not in part:
            return part
        inner = part["schedule"]
        inner = {"name": inner} if isinstance(inner, str) else inner
        if not isinstance(inner, Mapping):
            return part
        try:
            made = self.with_callables(inner)
            if isinstance(inner.get("name"), str) and ":" in inner["name"]:
                made["name"] = self._under("name", "schedule", inner["name"])
        except ConfigError as error:
            raise error.under(f"{key}.schedule") from None
        return {**part, "schedule": made}

    def _under(self, key: str, kind: Kind, name: str) -> AnyCallable:
        try:
            return self.resolve(kind, name)
        except ConfigError as error:
            raise error.under(key) from None


def _as_loss(found: AnyCallable, path: str) -> AnyCallable:
    """Return a class's instance, made without arguments: `torch.nn:MSELoss` is a class."""
    if not isinstance(found, type):
        return found
    try:
        made = found()
    except Exception as error:
        raise user_error(error, f"making the loss {path}") from error
    if not callable(made):
        what = "is a class whose instances cannot be called"
        raise ConfigError.single("", what, path, "Name a function of (output, target).")
    loss: AnyCallable = made
    return loss
