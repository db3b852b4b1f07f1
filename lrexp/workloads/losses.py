"""Losses: fitting a loss function to what a model puts out, and counting right answers.

Decided once, on the first batch, so that the training step calls plain functions: token logits
(batch, time, vocabulary) are flattened for losses that want (items, classes), and shapes that
would silently broadcast, such as (64, 1) against (64,), are refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from types import CellType, FunctionType
from typing import Any, TypeAlias

from torch import Tensor

from lrexp.errors import ConfigError, UserCodeError
from lrexp.records import TrialId

LossFunction: TypeAlias = Callable[..., Tensor]  # (output, target[, weight]) -> scalar

# By kind, see `_kind`: `mse` is mse_loss and nn.MSELoss. These compare element by element and
# broadcast when the shapes differ.
ELEMENTWISE = {
    "mse", "l1", "smoothl1", "huber", "binarycrossentropy", "binarycrossentropywithlogits",
    "kldiv", "poissonnll", "softmargin",
}  # fmt: skip

NON_NEGATIVE = ELEMENTWISE - {"kldiv", "poissonnll"} | {
    "crossentropy", "multimargin", "multilabelmargin", "multilabelsoftmargin",
}  # fmt: skip


def fit_loss(loss: LossFunction, output: Any, target: Any, *weight: Any) -> LossFunction:
    """Return `loss`, flattened over time when output is (batch, time, classes).

    Raises:
        ConfigError: with key "" when this output does not fit the loss.
    """
    name = _name(loss)
    fitted = over_tokens(loss) if is_token_logits(output, target) else loss
    if _kind(loss) in ELEMENTWISE and _shape(output) != _shape(target):
        raise _misfit(name, output, target, "the two shapes must be equal")
    try:
        value = fitted(output, target, *weight)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise _misfit(name, output, target, str(error).split("\n", maxsplit=1)[0]) from error
    if not isinstance(value, Tensor) or value.dim() != 0:
        shape = _shape(value) if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError.single(
            "", f"{name} must return one number (a tensor of shape ())", shape, "Take its mean()."
        )
    return fitted


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


def kind_of(loss: Any) -> str:
    """Return the kind of one of torch's losses, such as `mse`; "" of any other.

    Example:
        >>> kind_of(torch.nn.BCELoss()), kind_of(lambda output, target: 0.0)
        ('binarycrossentropy', '')
    """
    while isinstance(loss, partial) or hasattr(loss, "__wrapped__"):
        loss = loss.func if isinstance(loss, partial) else loss.__wrapped__
    module = getattr(loss, "__module__", None) or type(loss).__module__
    return _kind(loss) if str(module).startswith(("torch.", "torch._C")) else ""


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


def fit_accuracy(output: Any, target: Any) -> Callable[[Any, Any], tuple[Tensor, int]] | None:
    """Return how right answers are counted, or None where the target is not a class."""
    if not isinstance(output, Tensor) or not isinstance(target, Tensor):
        return None
    if target.is_floating_point() or output.dim() != target.dim() + 1:
        return None
    classes = -1 if is_token_logits(output, target) else 1

    def count_correct(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
        return (logits.argmax(classes) == labels).sum(), labels.numel()

    return count_correct


def _name(loss: LossFunction) -> str:
    return str(getattr(loss, "__name__", type(loss).__name__))


def _kind(loss: LossFunction) -> str:
    """Return the same word for a function of torch.nn.functional and its class in torch.nn."""
    word = _name(loss).lower().replace("_", "").removesuffix("loss")
    return word.replace("bce", "binarycrossentropy")


def _misfit(name: str, output: Any, target: Any, why: str) -> ConfigError:
    return ConfigError.single(
        "",
        f"{name} does not fit the model's output {_described(output)} and the target "
        f"{_described(target)}: {why}",
        name,
        _remedy(name, target),
    )


def _remedy(name: str, target: Any) -> str:
    if isinstance(target, Tensor) and not target.is_floating_point():
        return "For classes use cross_entropy and a model with one output per class."
    if name in ("cross_entropy", "CrossEntropyLoss"):
        return "For numbers use mse_loss and a model with one output per target."
    return "Change the loss, or give the model as many outputs as the target has."


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
