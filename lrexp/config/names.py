"""What the names of an experiment stand for, and whether a section's arguments fit that.

A plain name is looked up by kind: built-ins first, then what torch and torchvision call by that
name. An import path is followed. torchvision is imported only for a name that is not built in.
Each section is checked as it stands in the file, whether or not the schema found something wrong,
so that one reading finds every problem.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lrexp.config.rule_names import RULES
from lrexp.config.schema import ExperimentConfig
from lrexp.config.trust import AnyCallable, import_callable, import_trusted
from lrexp.errors import ConfigError, Problem, did_you_mean, user_error
from lrexp.schedules.signatures import check_arguments, one_of, under

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
            return _instance(found, name, kind) if kind in PLAIN else found
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
        return _instance(found, name, kind, section.args) if kind == "loss" else found

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


def _instance(
    found: AnyCallable, path: str, kind: str, args: Mapping[str, Any] | None = None
) -> AnyCallable:
    """Return a function with its arguments; a class's instance: `torch.nn:MSELoss` is a class."""
    args = args or {}
    if str(getattr(found, "__module__", "")).partition(".")[0] == "torch":
        args = {name: _as_tensor(value) for name, value in args.items()}
    if not isinstance(found, type):
        return functools.partial(found, **args) if args else found
    try:
        made = found(**args)
    except Exception as error:
        raise user_error(error, f"making the {kind} {path}") from error
    if not callable(made):
        what = "is a class whose instances cannot be called"
        remedy = f"Name a function of ({', '.join(_TAKEN[kind])})."
        raise ConfigError.single("", what, path, remedy)
    loss: AnyCallable = made
    return loss


def _as_tensor(value: Any) -> Any:
    """Return a list of numbers as torch's losses take weights; anything else as it is."""
    import torch

    try:
        return torch.tensor(value, dtype=torch.float32) if isinstance(value, list) else value
    except (ValueError, TypeError):
        return value


Section: TypeAlias = Mapping[str, Any]


def section_problems(section: str, value: object, names: Names) -> list[Problem]:
    """Return what is wrong with one section, keys from the top of the config.

    Raises:
        UserCodeError: the user's own module raised while it was imported.

    Example:
        >>> section_problems("loss", {"name": "mse"}, Names(()))[0].remedy
        "Did you mean 'mse_loss'?"
    """
    if section in PLAIN:
        is_name = isinstance(value, str) and value
        return _check_step(section, str(value), names) if is_name else []
    if section == "find_lr":
        return _check_rule(value, names) if isinstance(value, Mapping) else []
    if section not in _CHECKS or not isinstance(value, Mapping):
        return []
    name = value.get("name")
    if not isinstance(name, str) or not name:
        return []  # the schema's business
    try:
        return _CHECKS[section](name, value, names)
    except ConfigError as error:
        key = section if section == "loss" else f"{section}.name"
        return under(key, error.problems)


def _check_model(name: str, section: Section, names: Names) -> list[Problem]:
    from lrexp.workloads.models import FACTS, FILLED

    function = names.resolve("model", name)
    automatic = () if ":" in name else FILLED  # a model of one's own is told with $in_features
    return _args("model", function, section, facts=FACTS, automatic=automatic)


def _check_data(name: str, section: Section, names: Names) -> list[Problem]:
    return _args("data", names.resolve("data", name), section)


def _check_optimizer(name: str, section: Section, names: Names) -> list[Problem]:
    function = names.resolve("optimizer", name)
    filled = {"lr": "optimizer.lr", "params": "the model"}
    # torch compares with <, which NaN passes
    problems = _args("optimizer", function, section, filled=filled, finite=True)
    if problems or ":" in name:
        return problems
    return _refused_by_torch(function, section)


def _check_schedule(name: str, section: Section, names: Names) -> list[Problem]:
    from lrexp.schedules.build import check_schedule

    found = names.resolve("schedule", name)
    written = {key: value for key, value in section.items() if key != "name"}
    try:
        params = names.with_callables(written)
    except ConfigError as error:
        return under("schedule", error.problems)
    return under("schedule", check_schedule(found if ":" in name else name, params))


_TAKEN = {  # the arguments that a function of a section may be called with
    "loss": ("output", "target"),
    "step": ("model", "batch"),
    "eval_step": ("model", "batch"),
}


def _check_step(section: Any, name: str, names: Names) -> list[Problem]:
    try:
        function = names.resolve(section, name)
    except ConfigError as error:
        return under(section, error.problems)
    with suppress(ValueError):  # no signature to be had
        if not _takes(inspect.signature(function), 2):
            what = f"must take two arguments, ({', '.join(_TAKEN[section])})"
            return [Problem(section, what, name, "Give its other parameters defaults.")]
    return []


def _check_loss(name: str, section: Section, names: Names) -> list[Problem]:
    found = names.resolve("loss", name)
    args = section.get("args", {})
    if not isinstance(args, Mapping):
        return []
    compared = {} if isinstance(found, type) else dict.fromkeys(_compared(found), "the batch")
    problems = _args("loss", found, section, filled=compared) if args else []
    if problems:
        return problems
    function = _instance(found, name, "loss", args)
    with suppress(ValueError):  # no signature to be had
        signature = inspect.signature(function)
        if not any(_takes(signature, count) for count in (2, 3)):
            what = "must take two arguments, (output, target), or three with a weight"
            return [Problem("loss", what, name, "Give its other parameters defaults.")]
    return []


def _check_rule(section: Section, names: Names) -> list[Problem]:
    rule = section.get("rule")
    if not isinstance(rule, str) or not rule:
        return []  # the schema's business
    if rule not in RULES:
        names.import_trusted()
    problem = one_of("find_lr.rule", rule, RULES)
    if problem is None:
        return []
    own = "Your own: @lrexp.register_rule, in a module that the config or --trust names."
    return [replace(problem, remedy=f"{problem.remedy} {own}")]


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _compared(function: AnyCallable) -> list[str]:
    """Return the parameters that are given the output and the target."""
    try:
        return list(inspect.signature(function).parameters)[:2]
    except (TypeError, ValueError):
        return []


_CHECKS: dict[str, Callable[[str, Section, Names], list[Problem]]] = {
    "model": _check_model,
    "data": _check_data,
    "loss": _check_loss,
    "optimizer": _check_optimizer,
    "schedule": _check_schedule,
}

TRAINED = ("model", "data", "loss", *PLAIN, "optimizer", "schedule")
CHECKED = (*TRAINED, "find_lr")  # last: the modules that the others name may register its rule


def _args(section: str, function: AnyCallable, value: Section, **options: Any) -> list[Problem]:
    args = value.get("args", {})
    if not isinstance(args, Mapping):
        return []
    problems = check_arguments(function, args, title=str(value["name"]), **options)
    return under(f"{section}.args", problems)


def _refused_by_torch(cls: AnyCallable, section: Section) -> list[Problem]:
    """Try the settings on one small parameter: torch checks ranges when it makes an optimizer."""
    import torch

    lr, args = section.get("lr"), section.get("args", {})
    usable = isinstance(lr, int | float) and not isinstance(lr, bool) and 0 < lr < float("inf")
    if not usable or not isinstance(args, Mapping):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the engine makes it again, and warns then
            cls([torch.nn.Parameter(torch.zeros(1, 1))], lr=lr, **args)
    except (ValueError, TypeError, RuntimeError) as error:
        said = str(error).split("\n", maxsplit=1)[0]
        what = f"is refused by {section['name']}: {said}"
        return [Problem("optimizer.args", what, dict(args), "Change the argument.")]
    return []
