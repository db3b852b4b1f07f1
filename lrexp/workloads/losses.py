"""Losses: fitting a loss function to what a model puts out, and counting right answers.

Decided once, on the first batch, so that the training step calls plain functions: token logits
(batch, time, vocabulary) are flattened for losses that want (items, classes), and shapes that
would silently broadcast, such as (64, 1) against (64,), are refused.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import CellType, FunctionType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lrexp.errors import ConfigError, UserCodeError
from lrexp.records import TrialId
from lrexp.workloads.batches import moved, placed
from lrexp.workloads.broadcasts import pairs_all
from lrexp.workloads.labels import Convert, Labels, described
from lrexp.workloads.loss_calls import LossCall, first_call

LossFunction: TypeAlias = Callable[..., Tensor]  # (output, target[, weight]) -> scalar

# By kind, see `_kind`: `mse` is mse_loss and nn.MSELoss. These compare element by element and
# broadcast when the shapes differ.
ELEMENTWISE = {
    "mse", "l1", "smoothl1", "huber", "binarycrossentropy", "binarycrossentropywithlogits",
    "kldiv", "poissonnll", "softmargin",
}  # fmt: skip

# These compare the outputs of two or three inputs, and of a batch the model gets one alone.
OF_SEVERAL_OUTPUTS = {
    "tripletmargin",
    "tripletmarginwithdistance",
    "cosineembedding",
    "marginranking",
}

NON_NEGATIVE = ELEMENTWISE - {"kldiv", "poissonnll"} | {
    "crossentropy", "multimargin", "multilabelmargin", "multilabelsoftmargin",
}  # fmt: skip


@dataclass(frozen=True)
class FittedLoss:
    """A loss, and how it takes what a model and a batch give.

    Args:
        loss: as it was given.
        convert: makes labels what the loss takes; None where they are.
        is_tokens: whether output is (batch, time, classes) and flattened over time.
        is_sum: whether the loss is a sum over samples.
        ignored: class number of targets that do not count.
    """

    loss: LossFunction
    convert: Convert | None = None
    is_tokens: bool = False
    is_sum: bool = False
    ignored: int | None = None

    @property
    def plain(self) -> LossFunction:
        """The loss of targets that are converted."""
        return over_tokens(self.loss) if self.is_tokens else self.loss

    def __call__(self, output: Any, target: Any, *weight: Any) -> Tensor:
        """Return the loss."""
        if self.convert is not None:
            target = self.convert(target)
        return self.plain(output, target, *weight)


def fit_loss(
    loss: LossFunction, output: Any, target: Any, *weight: Any, known: Tensor | None = None
) -> FittedLoss:
    """Return how a loss takes an output and a target; flattened where that is (batch, time, ...).

    Args:
        loss: may keep a state, and is called a few times.
        output, target, weight: of the first batch.
        known: all targets there are; None where nobody knows them.

    Raises:
        ConfigError: with key "" when this output does not fit the loss.
    """
    if weight and _kind(loss) in OF_SEVERAL_OUTPUTS:
        raise _misfit(_name(loss), output, target, "it compares outputs with one another")
    name, call = _name(loss), first_call(loss, output, target, *weight)
    passes_on = call is not None and call.arguments.get("target") is target
    convert = None
    if call is not None and passes_on and isinstance(output, Tensor):
        _require_real(name, call.arguments.get("weight"))
        convert = Labels(call.name, output, target, known, call.ignored).conversion()
    elif call is not None:
        _require_classes(call)
    fitted_target = target if convert is None else convert(target)
    fitted = FittedLoss(
        loss,
        convert,
        is_tokens=is_token_logits(output, fitted_target),
        ignored=None if call is None else call.ignored,
    )
    if _kind(loss) in ELEMENTWISE and _shape(output) != _shape(fitted_target):
        raise _misfit(name, output, target, "the two shapes must be equal")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of a broadcast: it is refused below
            value = fitted(output, target, *weight)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise _misfit(name, output, target, str(error).split("\n", maxsplit=1)[0]) from error
    if not isinstance(value, Tensor) or value.dim() != 0 or value.is_complex():
        what = f"{name} must return one number (a real tensor of shape ())"
        raise ConfigError.single("", what, described(value), "Take its mean().")
    if pairs_all(fitted.plain, output, fitted_target, *weight):
        raise ConfigError.single("", *_broadcast(loss, output, fitted_target))
    return replace(fitted, is_sum=_is_sum(call, fitted, output, target, *weight))


def _require_real(name: str, weight: Any) -> None:
    if isinstance(weight, Tensor) and not weight.is_floating_point():
        what, remedy = f"{name} takes floating weights", "Give weight.float()."
        raise ConfigError.single("", what, f"weight of {described(weight)}", remedy)


def _require_classes(call: LossCall) -> None:
    """Refuse one output per sample where a function of the user's own calls cross_entropy."""
    if call.name != "cross_entropy":
        return
    output, target = call.arguments["input"], call.arguments["target"]
    if output.dim() == 2 and output.shape[1] == 1:
        Labels(call.name, output, target).conversion()


def _is_sum(call: LossCall | None, fitted: FittedLoss, *arguments: Any) -> bool:
    """Return whether a loss is a sum over samples: twice the samples, twice the loss."""
    if call is not None and call.arguments.get("reduction", "mean") in ("mean", "batchmean"):
        return False
    try:
        twice = tree_map(lambda value: torch.cat([value, value]), arguments)
        with torch.no_grad():
            one, two = fitted(*arguments).item(), fitted(*twice).item()
    except Exception:  # of user code
        return False
    return one != 0 and abs(two - 2 * one) <= 1e-3 * abs(one)


def torch_name(loss: Any) -> str | None:
    """Return which function of torch.nn.functional a loss of torch's is; None for one's own.

    Example:
        >>> torch_name(torch.nn.MSELoss()), torch_name(partial(torch.nn.functional.mse_loss))
        ('mse_loss', 'mse_loss')
    """
    inner: Any = loss
    while isinstance(inner, partial):
        inner = inner.func
    module = str(getattr(inner, "__module__", ""))
    if not module.startswith(("torch.nn.functional", "torch.nn.modules")):
        return None
    call = first_call(loss, torch.zeros(2, 1), torch.zeros(2, 1))
    return None if call is None else call.name


def placed_loss(loss: LossFunction, device: torch.device, dtype: torch.dtype) -> LossFunction:
    """Return a loss with its tensors on a device; real floating ones get `dtype`."""
    if isinstance(loss, nn.Module):
        return placed(loss, device, dtype)
    if isinstance(loss, partial):
        keywords = {k: moved(v, device, dtype) for k, v in loss.keywords.items()}
        return partial(placed_loss(loss.func, device, dtype), *loss.args, **keywords)
    return loss


def wrong_loss(loss: LossFunction, value: Any, trial: TrialId) -> UserCodeError | None:
    """Return what is wrong with a loss that has no gradient, None where it is not its fault.

    The loss fitted on the first batch; a function of the user's own may return what it likes later.
    """
    if not isinstance(value, Tensor):
        what = f"returned {type(value).__name__} where a tensor is needed"
    elif value.dim() != 0:
        what = f"must return one number, got a tensor of shape {tuple(value.shape)}"
    elif not value.requires_grad:
        what = "returned a loss without a gradient: something detached it"
    else:
        return None
    code = getattr(loss, "__code__", None)
    place = f"{code.co_filename}:{code.co_firstlineno}: " if code else ""
    whose = f"variant {trial.variant}, seed {trial.seed}"
    error = UserCodeError(f"{whose}: {place}the loss {_name(loss)} {what}.")
    error.kind = "wrong loss"
    return error


def over_tokens(loss: LossFunction) -> LossFunction:
    """Return the loss of (batch, time, classes) logits and (batch, time) tokens."""

    def token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
        return loss(logits.flatten(0, 1), tokens.flatten())  # (batch · time, classes)

    token_loss.__name__ = _name(loss)
    token_loss.__wrapped__ = loss  # type: ignore[attr-defined]  # where its state is looked for
    return token_loss


def copy_loss(loss: Any, depth: int = 3) -> Any:
    """Return a copy of a loss with all that it keeps; deepcopy takes functions as they are."""
    try:
        if depth == 0 or not isinstance(loss, FunctionType) or not loss.__closure__:
            return copy.deepcopy(loss)
        cells = tuple(CellType(copy_loss(c.cell_contents, depth - 1)) for c in loss.__closure__)
    except (TypeError, ValueError, RuntimeError):  # an open file, a graph's tensor: share it
        return loss
    twin = FunctionType(loss.__code__, loss.__globals__, loss.__name__, loss.__defaults__, cells)
    twin.__kwdefaults__ = loss.__kwdefaults__
    inner = getattr(loss, "__wrapped__", None)
    for own, copied in zip(loss.__closure__, cells, strict=True):
        if inner is not None and own.cell_contents is inner:
            twin.__wrapped__ = copied.cell_contents  # type: ignore[attr-defined]
    return twin


def loss_floor(loss: LossFunction) -> float | None:
    """Return 0 for losses that cannot be negative, None for those that can or are unknown."""
    return 0.0 if _kind(loss) in NON_NEGATIVE else None


def is_token_logits(output: Any, target: Any) -> bool:
    """Return whether these are (batch, time, classes) logits of (batch, time) classes."""
    return (
        isinstance(output, Tensor)
        and isinstance(target, Tensor)
        and output.dim() == 3
        and target.dim() == 2
        and not target.is_floating_point()
        and output.shape[:2] == target.shape
    )


def _name(loss: LossFunction) -> str:
    while isinstance(loss, partial):
        loss = loss.func
    return str(getattr(loss, "__name__", type(loss).__name__))


def _kind(loss: LossFunction) -> str:
    """Return the same word for a function of torch.nn.functional and its class in torch.nn."""
    return _kind_of(_name(loss))


def _kind_of(name: str) -> str:
    word = name.lower().replace("_", "").removesuffix("loss")
    return word.replace("bce", "binarycrossentropy")


def _misfit(name: str, output: Any, target: Any, why: str) -> ConfigError:
    return ConfigError.single(
        "",
        f"{name} does not fit the model's output {described(output)} and the target "
        f"{described(target)}: {why}",
        name,
        _of_argument(why) or _remedy(name, output, target),
    )


def _of_argument(why: str) -> str | None:
    """Return what to do where torch refuses another argument than output and target."""
    if "weight tensor should be defined" in why:
        return "Give its weight as a list, a number for each class."
    named = re.search(r"argument '(\w+)'", why)
    if named is None or named[1] in ("input", "target", "self"):
        return None
    return f"Change its argument {named[1]}; for a tensor write a number, or a list of numbers."


def _broadcast(loss: LossFunction, output: Any, target: Any) -> tuple[str, str, str]:
    """Return what is wrong with a loss that pairs each output with each target."""
    what = "pairs each output with each target, because their shapes differ"
    shapes = f"{tuple(output.shape)} and {tuple(target.shape)}"
    return (
        f"{_name(loss)} {what}",
        shapes,
        "Give one the shape of the other: target.view_as(output).",
    )


class ShapesGuard:
    """Notices batches whose output and target differ in shape, where they are not as the first.

    A loss is fitted on the first batch. Validation data, a last batch of one sample, or a collate
    function may give others, and `(output - target) ** 2` broadcasts without a word.
    """

    def __init__(self) -> None:
        self._known: set[object] = set()  # what only saves time: it is no state of a training

    def __call__(self, loss: LossFunction, output: Any, target: Any, *weight: Any) -> None:
        """Refuse a batch that the loss would broadcast.

        Raises:
            UserCodeError: it would.
        """
        if not isinstance(output, Tensor) or not isinstance(target, Tensor):
            return
        shapes = (output.shape, target.shape)
        if shapes in self._known:
            return
        if output.shape == target.shape:
            broadcasts = False
        elif _kind(loss) in ELEMENTWISE:
            broadcasts = max(output.numel(), target.numel()) > 1
        else:
            broadcasts = pairs_all(copy_loss(loss), output, target, *weight)
        if broadcasts:
            what, given, remedy = _broadcast(loss, output, target)
            error = UserCodeError(f"the loss {what} (got {given}). {remedy}")
            error.kind = "wrong loss"
            raise error
        self._known.add(shapes)


def _remedy(name: str, output: Any, target: Any) -> str:
    if (kind := _kind_of(name)) in OF_SEVERAL_OUTPUTS:
        several = "three" if kind.startswith("triplet") else "two"
        return f"It takes {several} outputs: write a step, (model, batch) -> loss, in its place."
    if _shape(output) and _shape(output) == (*(_shape(target) or ()), 1):
        return "Give the target a column: y[:, None]."
    if _shape(output) and (*(_shape(output) or ()), 1) == _shape(target):
        return "Give the target as y[:, 0], or the model's output as output[:, None]."
    if isinstance(target, Tensor) and not target.is_floating_point():
        return "For classes use cross_entropy and a model with one output per class."
    if name in ("cross_entropy", "CrossEntropyLoss"):
        return "For numbers use mse_loss and a model with one output per target."
    return "Change the loss, or give the model as many outputs as the target has."


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
