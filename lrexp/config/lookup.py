"""Plain names by kind: built-ins first, then what torch and torchvision call by that name.

torchvision is only imported for a model or data name that is not built in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal, TypeAlias

from lrexp.config.imports import AnyCallable
from lrexp.errors import ConfigError, did_you_mean

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
    from lrexp.models import MODELS, torchvision_model

    return _built_in_or_torchvision(name, MODELS, torchvision_model, "models")


def _data(name: str) -> AnyCallable:
    from lrexp.data.registry import DATASETS

    if name in DATASETS:  # told apart first: the rest imports torch
        return DATASETS[name]
    from lrexp.data.vision import torchvision_dataset

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
    from lrexp.data.torchvision_import import torchvision_module

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
    from lrexp.schedules import SCHEDULES, known_names

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
