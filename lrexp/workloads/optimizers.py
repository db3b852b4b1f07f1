"""Optimizers from torch.optim: parameter groups, the fused kernels, setting the LR of a step."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

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
    groups: Sequence[tuple[str, float]] = (),
) -> Optimizer:
    """Return the optimizer of a model; group `(pattern, scale)` trains at `scale` × `lr`.

    A parameter belongs to the first group whose regular expression matches the start of its name;
    the rest train at `lr`. Frozen parameters are left out.

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
    return optimizer


def group_parameters(
    model: nn.Module, *, lr: float, groups: Sequence[tuple[str, float]]
) -> list[dict[str, Any]]:
    """Return torch parameter groups: the unmatched parameters first, then one for each pattern."""
    rest: list[nn.Parameter] = []
    matched: list[list[nn.Parameter]] = [[] for _ in groups]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            hits = (i for i, (pattern, _) in enumerate(groups) if re.match(pattern, name))
            i = next(hits, None)
            (rest if i is None else matched[i]).append(parameter)
    for i, (pattern, _) in enumerate(groups):
        if not matched[i]:
            names = ", ".join(name for name, _ in model.named_parameters())
            raise ConfigError.single(
                f"groups[{i}].match",
                "matches the name of no trainable parameter that an earlier group left",
                pattern,
                f"The parameters are: {names}.",
            )
    scaled = [
        {"params": p, "lr": lr * scale} for p, (_, scale) in zip(matched, groups, strict=True)
    ]
    return ([{"params": rest, "lr": lr}] if rest else []) + scaled


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
