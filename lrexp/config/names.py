"""What the names of an experiment stand for, and whether a section's arguments fit that.

A plain name is looked up by kind: built-ins first, then what torch and torchvision call by that
name. An import path is followed. torchvision is imported only for a name that is not built in.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lrexp.config.schema import ExperimentConfig, GroupConfig
from lrexp.config.trust import AnyCallable, import_callable, import_trusted
from lrexp.errors import ConfigError, did_you_mean, user_error

Kind: TypeAlias = Literal[
    "model", "data", "loss", "step", "eval_step", "optimizer", "schedule", "function"
]
PLAIN = ("step", "eval_step")  # sections that are a name alone
PATHS_ONLY = ("step", "eval_step", "function")
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

TAKEN = {  # the arguments that a function of a section may be called with
    "loss": ("output", "target"),
    "step": ("model", "batch"),
    "eval_step": ("model", "batch"),
}
GROUP_KEYS = tuple(GroupConfig.model_fields)
_NO_CLOSURE = "LBFGS"
CLOSURE = "needs a closure that evaluates the loss again, which trials do not have"
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
        raise ConfigError.single("", CLOSURE, name, "Use another optimizer.")
    if name in known:
        return known[name]
    del known[_NO_CLOSURE]
    raise ConfigError.single("", "is no optimizer of torch.optim", name, suggest(name, known))


def _schedule(name: str) -> AnyCallable:
    from lrexp.schedules.build import SCHEDULES

    if name in SCHEDULES:
        return SCHEDULES[name]
    from lrexp.schedules.torch_adapter import torch_class, torch_class_names

    scheduler = torch_class(name)
    if scheduler is not None:
        return scheduler
    others = torch_class_names()
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


@dataclass(frozen=True)
class Names:
    """What the names of an experiment are looked up in.

    Args:
        directories: folders whose modules are the user's own, in order: beside the config, the
            working directory.
        trust: packages that import paths may reach besides.
    """

    directories: Sequence[Path]
    trust: Sequence[str] = ()

    def resolve(self, kind: Kind, name: str) -> AnyCallable:
        """Return the callable that a name stands for.

        Args:
            kind: which section the name is from; `function` takes import paths only.
            name: a built-in name, one of torch's or torchvision's, or `package.module:attribute`.

        Raises:
            ConfigError: with key "", when the name is unknown or refused.
            UserCodeError: the user's module raised while it was imported.

        Example:
            >>> Names(()).resolve("optimizer", "AdamW")
            <class 'torch.optim.adamw.AdamW'>
        """
        if ":" in name or kind in PATHS_ONLY:
            found = import_callable(name, directories=self.directories, trust=self.trust)
            return made(found, name, kind) if kind in PLAIN else found
        if name == IN_PYTHON:
            what = "was given as a Python object, which no file can hold"
            raise ConfigError.single("", what, name, f"Give it in Python again: {kind}=...")
        return LOOK_UP[kind](name)

    def import_trusted(self) -> None:
        """Import what is trusted, so that it can register what it adds; see `import_trusted`."""
        import_trusted(self.trust, self.directories)

    def of(self, kind: Kind, settings: ExperimentConfig) -> Any:
        """Return the callable of a section's name; that of a schedule without import path stays.

        A loss comes with its arguments; None where there is none: the model returns its own.
        """
        section = getattr(settings, kind)
        if section is None:
            return None
        if kind in PLAIN:
            return self.resolve(kind, section)
        name = section.name
        if kind == "schedule" and ":" not in name:
            return name
        found = self.resolve(kind, name)
        return made(found, name, kind, section.args) if kind == "loss" else found

    def optimizers(self, settings: ExperimentConfig) -> list[Any]:
        """Return the class of each optimizer."""
        return [self.resolve("optimizer", part.name) for part in settings.optimizer.each]

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


def made(
    found: AnyCallable, path: str, kind: str, args: Mapping[str, Any] | None = None
) -> AnyCallable:
    """Return a function with its arguments; a class's instance: `torch.nn:MSELoss` is a class."""
    args = args or {}
    if str(getattr(found, "__module__", "")).partition(".")[0] == "torch":
        wanted = inspect.signature(found).parameters if args else {}
        args = {
            name: _as_tensor(value, wants=name in wanted and "Tensor" in str(wanted[name]))
            for name, value in args.items()
        }
    if not isinstance(found, type):
        return functools.partial(found, **args) if args else found
    try:
        made = found(**args)
    except Exception as error:
        raise user_error(error, f"making the {kind} {path}") from error
    if not callable(made):
        what = "is a class whose instances cannot be called"
        remedy = f"Name a function of ({', '.join(TAKEN[kind])})."
        raise ConfigError.single("", what, path, remedy)
    loss: AnyCallable = made
    return loss


def _as_tensor(value: Any, *, wants: bool) -> Any:
    """Return a list of numbers, or a number where one is wanted, as torch's losses take weights."""
    import torch

    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(value, list) and not (wants and is_number):
        return value
    try:
        return torch.tensor(value, dtype=torch.float32)
    except (ValueError, TypeError):
        return value
