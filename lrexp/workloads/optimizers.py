"""Optimizers from torch.optim: parameter groups, the fused kernels, setting the LR of a step."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.errors import ConfigError

# One kernel for all parameters where torch has one for CPU and CUDA: several times cheaper on
# small models than a loop over parameters, equal up to rounding.
FUSED = {"SGD", "Adam", "AdamW", "Adagrad"}
_CHOICES_OF_KERNEL = {"fused", "foreach", "differentiable", "capturable"}


def make_optimizer(
    cls: type[Optimizer],
    model: nn.Module,
    *,
    lr: float,
    args: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]] = (),
) -> Optimizer:
    """Return the optimizer of a model, in the mode of training where it has modes.

    Args:
        cls: its class.
        model: whose trainable parameters it gets.
        lr: of the parameters that no group takes.
        args: other arguments of the optimizer.
        groups: parameters with arguments of their own, each with any of `match` (a regular
            expression at the start of a name), `ndim` and `module` (the name of a class of modules
            that own the parameter), and what they train with: `lr_scale`, a factor of `lr`, and
            arguments of the optimizer. A parameter belongs to the first group that takes it.

    Raises:
        ConfigError: a pattern matches no parameter, or torch refuses the arguments; keys are
            relative to the `optimizer` section.
    """
    parameters = group_parameters(model, lr=lr, groups=groups)
    try:
        # torch types Optimizer itself without `lr`; every one of its optimizers takes it
        optimizer = cls(parameters, lr=lr, **args)  # type: ignore[call-arg]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError.single(
            "args", f"{cls.__name__} refused them: {error}", dict(args), "Change the argument."
        ) from error
    if not _CHOICES_OF_KERNEL & args.keys():
        fuse(optimizer)
    set_mode(optimizer, "train")
    return optimizer


def set_mode(optimizer: Optimizer, mode: Literal["train", "eval"]) -> None:
    """Put an optimizer that has modes into one: those of schedulefree evaluate other weights."""
    change = getattr(optimizer, mode, None)
    if callable(change):
        change()


def group_parameters(
    model: nn.Module, *, lr: float, groups: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return torch parameter groups: the parameters that no group takes first, then each group."""
    rest: list[nn.Parameter] = []
    taken: list[list[nn.Parameter]] = [[] for _ in groups]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            i = next((i for i, g in enumerate(groups) if _takes(g, model, name, parameter)), None)
            (rest if i is None else taken[i]).append(parameter)
    for i, group in enumerate(groups):
        if not taken[i]:
            chosen = {key: group[key] for key in CHOOSING if group.get(key) is not None}
            names = ", ".join(name for name, _ in model.named_parameters())
            raise ConfigError.single(
                f"groups[{i}].{next(iter(chosen), 'match')}",
                "matches no trainable parameter that an earlier group left",
                next(iter(chosen.values()), "nothing") if len(chosen) < 2 else chosen,
                f"The parameters are: {names}.",
            )
    own = [
        {"params": parameters, "lr": lr * group.get("lr_scale", 1.0), **_arguments(group)}
        for parameters, group in zip(taken, groups, strict=True)
    ]
    return ([{"params": rest, "lr": lr}] if rest else []) + own


CHOOSING = ("match", "ndim", "module")  # keys of a group that say which parameters are its


def _takes(group: Mapping[str, Any], model: nn.Module, name: str, parameter: Tensor) -> bool:
    match, ndim, module = (group.get(key) for key in CHOOSING)
    owner = model.get_submodule(name.rpartition(".")[0])
    return (
        (match is None or re.match(match, name) is not None)
        and (ndim is None or parameter.ndim == ndim)
        and (module is None or module in {cls.__name__ for cls in type(owner).__mro__})
    )


def _arguments(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the optimizer that a group sets."""
    others = {k: v for k, v in group.items() if k not in (*CHOOSING, "lr_scale")}
    # what a config lists is a pair, as of betas
    return {k: tuple(v) if isinstance(v, list) else v for k, v in others.items()}


def set_lr(optimizer: Optimizer, base_lrs: Sequence[float], factor: float) -> None:
    """Set each group's LR to its own base LR times `factor`.

    A tensor is filled in place: a captured step reads the LR from its memory.
    """
    for group, base in zip(optimizer.param_groups, base_lrs, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(base * factor)
        else:
            group["lr"] = base * factor


def use_tensor_lrs(optimizer: Optimizer, device: torch.device) -> None:
    """Put the LR of every group into a tensor on the device, which `set_lr` then fills.

    A number would be fixed in the captured kernels. float32 is what torch's fused kernels read,
    whatever the parameters are: the LR is off by up to 6e-8 of itself.
    """
    for group in optimizer.param_groups:
        lr = float(group["lr"])
        group["lr"] = torch.full((), lr, dtype=torch.float32, device=device)


@contextmanager
def capturable_flags(optimizer: Optimizer) -> Iterator[None]:
    """Tell Adam and AdamW that they are captured on purpose.

    They refuse otherwise. Outside of a capture they would warn of the flag; with fused kernels
    it changes nothing, as their step counts are on the device already.
    """
    groups = [group for group in optimizer.param_groups if "capturable" in group]
    before = [group["capturable"] for group in groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, value in zip(groups, before, strict=True):
            group["capturable"] = value


def set_momentum(optimizer: Optimizer, momentum: float) -> None:
    """Set the momentum of every group: `momentum`, or the first of `betas`."""
    for group in optimizer.param_groups:
        if "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        else:
            group["momentum"] = momentum


def has_momentum(cls: type[Optimizer]) -> bool:
    """Return whether a schedule can cycle this optimizer's momentum."""
    return bool({"momentum", "betas"} & set(inspect.signature(cls).parameters))


def needs_closure(cls: type[Optimizer]) -> bool:
    """Return whether its steps evaluate the loss themselves, as those of LBFGS."""
    closure = inspect.signature(cls.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def fuse(optimizer: Optimizer) -> None:
    """Let an optimizer use its fused kernels, where nothing forbids it.

    Equal up to rounding. One that has been used, or whose kernels were chosen, stays as it is.
    """
    groups = optimizer.param_groups
    chosen = any(group.get(name) for group in groups for name in _CHOICES_OF_KERNEL)
    # Adagrad has a state from the start
    is_used = any(state and float(state.get("step", 1)) != 0 for state in optimizer.state.values())
    if not chosen and not is_used and _can_fuse(type(optimizer), groups):
        for group in groups:
            group["fused"] = True
        for state in filter(None, optimizer.state.values()):
            state["step"] = state["step"].to(torch.float32)  # what fused kernels read


def unfuse_if_sparse(optimizer: Optimizer) -> bool:
    """Undo `fuse` before a step with a sparse gradient, which fused kernels refuse.

    An optimizer that its author made with `fused=True` stays as it is, and torch says so.

    Returns:
        whether that is settled: a parameter without a gradient may still get a sparse one.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if any(p.grad is not None and p.grad.is_sparse for p in parameters):
        for group in optimizer.param_groups:
            group["fused"] = optimizer.defaults.get("fused")
        return True
    return all(p.grad is not None for p in parameters)


def _can_fuse(cls: type[Optimizer], groups: Sequence[dict[str, Any]]) -> bool:
    # older releases of torch refuse to make a fused Adagrad for CUDA
    devices = ("cpu",) if cls.__name__ == "Adagrad" else ("cpu", "cuda")
    return cls.__name__ in FUSED and all(
        p.is_floating_point() and p.device.type in devices
        for group in groups
        for p in group["params"]
    )
