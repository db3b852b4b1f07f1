"""Optimizers: who trains which parameters, the fused kernels, setting the LR of a step."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.errors import NOTHING, ConfigError

# One kernel for all parameters where torch has one for CPU and CUDA: several times cheaper on
# small models than a loop over parameters, equal up to rounding.
FUSED = {"SGD", "Adam", "AdamW", "Adagrad"}
_CHOICES_OF_KERNEL = {"fused", "foreach", "differentiable", "capturable"}


@dataclass(frozen=True)
class Part:
    """An optimizer of some parameters.

    Args:
        cls: its class.
        lr: of the parameters that no group takes.
        args: its other arguments.
        groups: parameters with arguments of their own, each with any of `match` (a regular
            expression at the start of a name), `ndim` and `module` (the name of a class of modules
            that own the parameter), and what they train with: `lr_scale`, a factor of `lr`, and
            arguments of the optimizer. A parameter belongs to the first group that takes it.
        chosen: `match`, `ndim` and `module` of its parameters; nothing takes all.
    """

    cls: type[Optimizer]
    lr: float
    args: Mapping[str, Any] = field(default_factory=dict)
    groups: Sequence[Mapping[str, Any]] = ()
    chosen: Mapping[str, Any] = field(default_factory=dict)


def make_optimizer(
    cls: type[Optimizer],
    model: nn.Module,
    *,
    lr: float,
    args: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]] = (),
) -> Optimizer:
    """Return the optimizer of all trainable parameters of a model; see `Part`.

    Raises:
        ConfigError: a group takes no parameter, or torch refuses the arguments; keys are relative
            to the `optimizer` section.
    """
    return _made(Part(cls, lr, args, groups), model, _trainable(model))


def make_parts(model: nn.Module, parts: Sequence[Part]) -> Optimizer:
    """Return the optimizers of a model as one; a parameter belongs to the first part that takes it.

    Raises:
        ConfigError: a part takes no parameter, a parameter has no part, or torch refuses arguments;
            keys are relative to the `optimizer` section.
    """
    *taken, rest = _shared_out(model, _trainable(model), [part.chosen for part in parts], "part")
    if rest:
        what = f"leave parameters without an optimizer: {', '.join(rest)}"
        remedy = "Add a last part without match, ndim and module: it takes the rest."
        raise ConfigError.single("parts", what, NOTHING, remedy)
    pairs = enumerate(zip(parts, taken, strict=True))
    return Parts([_part(i, part, model, own) for i, (part, own) in pairs])


def _part(
    number: int, part: Part, model: nn.Module, named: Mapping[str, nn.Parameter]
) -> Optimizer:
    try:
        return _made(part, model, named)
    except ConfigError as error:
        raise error.under(f"parts[{number}]") from None


class Parts(Optimizer):
    """Several optimizers as one, each with parameters of its own."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = tuple(parts)
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.gather()

    def gather(self) -> None:
        """Take the groups of the parts, which torch makes anew when it loads a state."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Let each make its update."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.gather()

    def train(self) -> None:
        """Put the parts that have modes into that of training."""
        for part in self.parts:
            set_mode(part, "train")

    def eval(self) -> None:
        """Put the parts that have modes into that of evaluation."""
        for part in self.parts:
            set_mode(part, "eval")


def parts_of(optimizer: Optimizer) -> tuple[Optimizer, ...]:
    """Return the optimizers that an optimizer is made of; as a rule it is the only one."""
    return optimizer.parts if isinstance(optimizer, Parts) else (optimizer,)


def d_of(optimizer: Optimizer) -> float | None:
    """Return the distance that Prodigy and D-Adaptation estimate: they train with d times the LR.

    Source: Defazio and Mishchenko, Learning-Rate-Free Learning by D-Adaptation, arXiv 2301.07733.
    """
    d = optimizer.param_groups[0].get("d")
    return float(d) if isinstance(d, float | Tensor) else None


def _made(part: Part, model: nn.Module, named: Mapping[str, nn.Parameter]) -> Optimizer:
    """Return the optimizer of these parameters, in the mode of training where it has modes."""
    name, args = getattr(part.cls, "__name__", type(part.cls).__name__), dict(part.args)
    if name == "Muon" and any(parameter.ndim != 2 for parameter in named.values()):
        others = ", ".join(key for key, parameter in named.items() if parameter.ndim != 2)
        what = f"takes parameters of two dimensions alone, and there are others: {others}"
        remedy = "Write optimizer.parts: [{ndim: 2, name: Muon, ...}, {name: AdamW, lr: 3e-4}]."
        raise ConfigError.single("name", what, name, remedy)
    parameters = _grouped(part, model, named)
    lr: dict[str, Any] = (
        {"lr": part.lr} if _takes_lr(part.cls) else {}
    )  # else that of the groups counts
    try:
        optimizer: Any = part.cls(parameters, **lr, **args)
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"{name} refused them: {error}"
        raise ConfigError.single("args", what, args, "Change the argument.") from error
    if not isinstance(optimizer, Optimizer):
        what, remedy = "must give a torch.optim.Optimizer", "Return one of the parameters."
        raise ConfigError.single("name", what, type(optimizer).__name__, remedy)
    if not _CHOICES_OF_KERNEL & args.keys():
        fuse(optimizer)
    set_mode(optimizer, "train")
    return optimizer


def _takes_lr(make: Any) -> bool:
    try:
        known = inspect.signature(make).parameters
    except (TypeError, ValueError):
        return True
    return "lr" in known or any(p.kind is p.VAR_KEYWORD for p in known.values())


def check_own(given: Any) -> None:
    """Refuse what cannot make an optimizer for each trial.

    Raises:
        ConfigError: its key is `optimizer`.
    """
    if isinstance(given, Optimizer) or not callable(given):
        what = "must be a class, or a function of the parameters: each trial makes one of its own"
        raise ConfigError.single("optimizer", what, type(given).__name__, "Give e.g. its class.")
    if isinstance(given, type) and needs_closure(given):
        what = "needs a closure that evaluates the loss again, which trials do not have"
        raise ConfigError.single("optimizer", what, given.__name__, "Use another optimizer.")


def set_mode(optimizer: Optimizer, mode: Literal["train", "eval"]) -> None:
    """Put an optimizer that has modes into one: those of schedulefree evaluate other weights."""
    change = getattr(optimizer, mode, None)
    if callable(change):
        change()


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _grouped(
    part: Part, model: nn.Module, named: Mapping[str, nn.Parameter]
) -> list[dict[str, Any]]:
    """Return torch parameter groups: the parameters that no group takes first, then each group."""
    *taken, rest = _shared_out(model, named, part.groups, "group")
    own = [
        {"params": [*p.values()], "lr": part.lr * group.get("lr_scale", 1.0), **_arguments(group)}
        for p, group in zip(taken, part.groups, strict=True)
    ]
    return ([{"params": [*rest.values()], "lr": part.lr}] if rest else []) + own


def _shared_out(
    model: nn.Module,
    named: Mapping[str, nn.Parameter],
    choices: Sequence[Mapping[str, Any]],
    what: str,
) -> list[dict[str, nn.Parameter]]:
    """Return the parameters by the first choice that takes them, then those of none."""
    taken: list[dict[str, nn.Parameter]] = [{} for _ in (*choices, None)]
    for name, parameter in named.items():
        hits = (i for i, choice in enumerate(choices) if _takes(choice, model, name, parameter))
        taken[next(hits, -1)][name] = parameter
    for i, choice in enumerate(choices):
        if not taken[i]:
            chosen = {key: choice[key] for key in CHOOSING if choice.get(key) is not None}
            raise ConfigError.single(
                ".".join([f"{what}s[{i}]", *list(chosen)[:1]]),
                f"matches no trainable parameter that an earlier {what} left",
                next(iter(chosen.values()), NOTHING) if len(chosen) < 2 else chosen,
                f"The parameters are: {', '.join(name for name, _ in model.named_parameters())}.",
            )
    return taken


CHOOSING = ("match", "ndim", "module")  # keys that say which parameters are meant


def _takes(choice: Mapping[str, Any], model: nn.Module, name: str, parameter: Tensor) -> bool:
    match, ndim, module = (choice.get(key) for key in CHOOSING)
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
    """Set the momentum of every group that has one: `momentum`, or the first of `betas`."""
    for group in optimizer.param_groups:
        if "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        elif "momentum" in group:
            group["momentum"] = momentum


def has_momentum(cls: Any) -> bool:
    """Return whether a schedule can cycle this optimizer's momentum; a function may make any."""
    if not isinstance(cls, type):
        return True
    return bool({"momentum", "betas"} & set(inspect.signature(cls).parameters))


def needs_closure(cls: type) -> bool:
    """Return whether its steps evaluate the loss themselves, as those of LBFGS."""
    step = getattr(cls, "step", None)
    closure = inspect.signature(step).parameters.get("closure") if callable(step) else None
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
        for part in parts_of(optimizer):
            for group in part.param_groups:
                group["fused"] = part.defaults.get("fused")
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
