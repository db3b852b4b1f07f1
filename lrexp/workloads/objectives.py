"""What training minimises: an objective, (model, batch) -> (loss, output).

The engines know nothing else of a training. A loss of (output, target), a model that returns its
loss and a step of the user's own are three ways to make one. Which entries of a batch go where is
decided once, on the first batch, so that the training step calls plain functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.errors import NOTHING, ConfigError
from lrexp.workloads.batches import TARGETS, size_of
from lrexp.workloads.labels import Convert, described
from lrexp.workloads.loss_calls import Count, LossCall, LossCalls
from lrexp.workloads.losses import (
    LossFunction,
    ShapesGuard,
    copy_loss,
    fit_loss,
    over_tokens,
    torch_name,
)
from lrexp.workloads.optimizers import parts_of

Step: TypeAlias = Callable[[nn.Module, Any], Any]  # (model, batch) -> loss, or a dict with it
Split: TypeAlias = Callable[[Any], tuple[tuple[Any, ...], dict[str, Any], tuple[Any, ...]]]


class Objective(Protocol):
    """What training minimises.

    Attributes:
        loss: the function or module that makes the loss, and that may keep a state; None where the
            model makes it.
    """

    @property
    def loss(self) -> Any:
        """Return what makes the loss."""

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Return the mean loss of the batch, a scalar, and the output that metrics look at."""

    def measure(self, model: nn.Module, batch: Any) -> tuple[Tensor, Count, Any]:
        """Return the mean loss of the batch, how much it counts in that of a split, the output."""

    def target(self, batch: Any) -> Any:
        """Return what the output is compared with, None where the batch does not tell."""


@dataclass(frozen=True)
class Supervised:
    """A loss of (output, target) or of (output, target, weight).

    Args:
        loss: that function.
        split: batch -> positional arguments of the model, its keywords, and what the loss is given
            beside the output: (target,) or (target, weight).
        of_logits: the loss is given the logits of an output that holds them beside other things.
        is_sum: whether the loss is a sum over samples; a split has its mean.
        ignored: class number of targets that count neither in the loss nor in accuracy.
        guard: looks at the shapes of each batch.
    """

    loss: LossFunction
    split: Split
    of_logits: bool = False
    is_sum: bool = False
    ignored: int | None = None
    guard: ShapesGuard | None = None

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Return (loss, output)."""
        args, keywords, compared = self.split(batch)
        output = model(*args, **keywords)
        logits = logits_of(output)
        seen = logits if self.of_logits else output
        if self.guard is not None:
            self.guard(self.loss, seen, *compared)
        return self.loss(seen, *compared), logits

    def measure(self, model: nn.Module, batch: Any) -> tuple[Tensor, Count, Any]:
        """Return (mean loss, what it is over, output)."""
        args, keywords, compared = self.split(batch)
        output = model(*args, **keywords)  # outside: a mode takes fast paths away
        logits, size = logits_of(output), size_of(batch)
        seen = logits if self.of_logits else output
        if self.guard is not None:
            self.guard(self.loss, seen, *compared)
        with LossCalls() as calls:
            loss = self.loss(seen, *compared)
        return (loss / size, size, logits) if self.is_sum else (loss, calls.count(size), logits)

    def target(self, batch: Any) -> Any:
        """Return the target."""
        return self.split(batch)[2][0]


@dataclass(frozen=True)
class OfModel:
    """The loss that the model itself returns: `output.loss` or `output["loss"]`."""

    split: Split
    ignored: int | None = None
    shifts: bool = False  # it predicts something else than the target beside each input
    loss: None = None

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Return (loss, output)."""
        args, keywords, _ = self.split(batch)
        output = model(*args, **keywords)
        loss: Tensor = own_loss(output)
        return loss, logits_of(output)

    def measure(self, model: nn.Module, batch: Any) -> tuple[Tensor, Count, Any]:
        """Return (mean loss, what it is over, output)."""
        return _measured(self, model, batch)

    def target(self, batch: Any) -> Any:
        """Return the entry that is named as a target, if that is what is predicted."""
        return None if self.shifts else _named_target(batch)


@dataclass(frozen=True)
class OwnStep:
    """A step of the user's own.

    Args:
        loss: (model, batch) -> loss, or a dict with `loss` and further numbers, which are measured
            at each evaluation. Of several optimizers it may return a list with a loss for each,
            or a dict with that as `losses`.
        is_of_parts: whether it returns a loss for each optimizer.
    """

    loss: Step
    is_of_parts: bool = False

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
        """Return (loss, the further numbers)."""
        made = self.loss(model, batch)
        return shown_loss(made), numbers_of(made)

    def of_parts(self, model: nn.Module, batch: Any) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the loss that is shown, and that of each optimizer."""
        made = self.loss(model, batch)
        return shown_loss(made), losses_of(made) or ()

    def measure(self, model: nn.Module, batch: Any) -> tuple[Tensor, Count, Any]:
        """Return (mean loss, what it is over, the further numbers)."""
        return _measured(self, model, batch)

    def target(self, batch: Any) -> None:
        """Return None: only the step knows."""


def is_of_parts(objective: Objective) -> bool:
    """Return whether an objective is a step that returns a loss for each optimizer."""
    return isinstance(objective, OwnStep) and objective.is_of_parts


def losses_of(made: Any) -> Sequence[Any] | None:
    """Return the losses of several optimizers that a step returned, None where it returned one."""
    found = made.get("losses") if isinstance(made, Mapping) else made
    return found if isinstance(found, list | tuple) else None


def shown_loss(made: Any) -> Any:
    """Return the loss that is recorded: that of the step, or the sum of several."""
    if isinstance(made, Mapping) and "loss" in made:
        return made["loss"]
    losses = losses_of(made)
    return made if not losses else sum(losses)


def numbers_of(made: Any) -> dict[str, Any]:
    """Return what a step returned beside its loss."""
    found = made if isinstance(made, Mapping) else {}
    return {name: value for name, value in found.items() if name not in ("loss", "losses")}


def check_step(
    name: str, made: Any, *, trains: bool, model: nn.Module, optimizer: Optimizer
) -> None:
    """Refuse what is neither a loss, nor one for each optimizer, nor a dict that holds one.

    Args:
        name: of the step, for the message.
        made: what it returned for a first batch.
        trains: whether losses need a gradient.
        model: that it was called with.
        optimizer: of the model, perhaps of several parts.

    Raises:
        ConfigError: with that name as its key.
    """
    losses = losses_of(made)
    if losses is not None and all(isinstance(loss, Tensor) and loss.dim() == 0 for loss in losses):
        _check_losses(name, losses, parts_of(optimizer), model, trains=trains)
    loss = None if losses is not None and not losses else shown_loss(made)
    if not isinstance(loss, Tensor) or loss.dim() != 0 or loss.is_complex():
        what = "must return one number (a real tensor of shape ()), or a dict with it as `loss`"
        given = _given(loss if isinstance(loss, Tensor) else made)
        remedy = (
            "Return the mean loss of the batch. Losses of several optimizers: add them up, or "
            "return them as a list, one for each optimizer."
        )
        raise ConfigError.single(name, what, given, remedy)
    if trains and losses is None and not loss.requires_grad:
        what, remedy = "returns a loss without a gradient", "Compute it from the model's output."
        raise ConfigError.single(name, what, _given(made), remedy)
    for key, value in {"loss": loss, **numbers_of(made)}.items():
        if not isinstance(key, str) or not _is_number(value):
            what, remedy = f"must return numbers to log, and {key!r} is none", "Return its mean."
            raise ConfigError.single(name, what, _given(value), remedy)


def _check_losses(
    name: str,
    losses: Sequence[Tensor],
    parts: Sequence[Optimizer],
    model: nn.Module,
    *,
    trains: bool,
) -> None:
    """Refuse losses that are not those of the optimizers, one for each."""
    if len(losses) != len(parts):
        what = f"must return a loss for each optimizer: there {_are(len(parts))}"
        remedy = (
            "Add the losses up, or give an optimizer for each, in their order: a list, in a config "
            "optimizer.parts."
        )
        raise ConfigError.single(name, what, f"{len(losses)} losses", remedy)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for i, (loss, part) in enumerate(zip(losses, parts, strict=True) if trains else ()):
        own = [p for group in part.param_groups for p in group["params"]]
        if loss.requires_grad:
            found = torch.autograd.grad(loss, own, retain_graph=True, allow_unused=True)
            if any(gradient is not None for gradient in found):
                continue
        what = f"returns a loss {i} that depends on no parameter of the optimizer {i}"
        remedy = "Losses come in the order of the optimizers; what is detached gets no gradient."
        raise ConfigError.single(name, what, names.get(id(own[0]), NOTHING), remedy)


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex()
    return isinstance(value, Real)


def _given(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {described(value)}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"a dict of {', '.join(map(str, value))}" if isinstance(value, Mapping) else repr(value)


def _named_target(batch: Any) -> Any:
    return batch.get(_target_key(batch)) if isinstance(batch, Mapping) else None


def _target_key(batch: Mapping[str, Any]) -> str | None:
    return next((key for key in TARGETS if key in batch), None)


def _measured(objective: Objective, model: nn.Module, batch: Any) -> tuple[Tensor, Count, Any]:
    with LossCalls() as calls:
        loss, output = objective(model, batch)
    return loss, calls.count(size_of(batch)), output


AnyObjective = TypeVar("AnyObjective", bound=Objective)


def copy_objective(objective: AnyObjective) -> AnyObjective:
    """Return the objective with a copy of its loss, and all that this keeps."""
    copied: AnyObjective = replace(objective, loss=copy_loss(objective.loss))  # type: ignore[type-var]
    return copied


def own_loss(output: Any) -> Any:
    """Return the loss that a model's output holds, None where it holds none."""
    if isinstance(output, Mapping):
        return output.get("loss")
    return None if isinstance(output, Tensor) else getattr(output, "loss", None)


def logits_of(output: Any) -> Any:
    """Return the logits of an output that holds them beside other things, else the output."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return getattr(output, "logits", output)


def of_pairs(loss: LossFunction) -> Supervised:
    """Return the objective of batches (inputs, target) and a loss of (output, target).

    Example:
        >>> import torch
        >>> objective = of_pairs(nn.functional.mse_loss)
        >>> loss, _ = objective(nn.Identity(), (torch.tensor([1.0]), torch.tensor([3.0])))
        >>> loss
        tensor(4.)
    """
    return Supervised(loss, _of_pair)


def _of_pair(pair: Any) -> tuple[tuple[Any, ...], dict[str, Any], tuple[Any, ...]]:
    return (pair[0],), {}, (pair[1],)


def layout(model: nn.Module, batch: Any, loss: Any) -> Split:
    """Return how a batch is split between a model and a loss.

    - a tensor: it is the model's argument and the target, as for an autoencoder;
    - a tuple: its last entry is the target, the others are the model's arguments; where the loss
      takes (output, target, weight), the last two are target and weight;
    - a dict: the model's keywords; the first of `labels`, `label`, `targets`, `target` and `y` is
      the target, and goes to the model as well where its signature names it.

    A single argument that is a dict goes as keywords where the model's signature takes them.

    Raises:
        ConfigError: with key "model" when the model cannot be called with that.
    """
    if getattr(model.forward, "__name__", "") == "_forward_unimplemented":
        what, remedy = (
            "has no forward",
            "Give it one, or give a step of your own, (model, batch) -> loss.",
        )
        raise ConfigError.single("model", what, type(model).__name__, remedy)
    split = _layout(model, batch, loss)
    args, keywords, _ = split(batch)
    try:
        inspect.signature(model.forward).bind(*args, **keywords)
    except TypeError as error:
        what = f"cannot be called with what a batch gives besides its target: {error}"
        given = f"{len(args)} inputs" if args else ", ".join(keywords)
        remedy = "Let forward take these, or let the data give what it takes."
        raise ConfigError.single("model", what, given, remedy) from error
    except ValueError:  # it has no signature
        pass
    return split


def _layout(model: nn.Module, batch: Any, loss: Any) -> Split:
    if isinstance(batch, Mapping):
        return _of_dict(model, batch)
    if not isinstance(batch, tuple | list):
        return lambda x: ((x,), {}, (x,))
    if len(batch) == 1:
        return lambda batch: ((batch[0],), {}, (batch[0],))
    num_compared = 2 if len(batch) > 2 and takes(loss, 3) else 1
    num_inputs = len(batch) - num_compared
    if num_inputs == 1 and isinstance(batch[0], Mapping) and _accepts(model, **batch[0]):
        return lambda batch: ((), batch[0], tuple(batch[1:]))
    if len(batch) == 2:
        return _of_two(model, batch, loss)
    return lambda batch: (tuple(batch[:num_inputs]), {}, tuple(batch[num_inputs:]))


def _of_two(model: nn.Module, batch: Any, loss: Any) -> Split:
    """Return how (inputs, target) is split, where each of them may hold several entries."""
    inputs, target = batch
    several = isinstance(inputs, tuple | list) and not _accepts(model, inputs)
    weighted = isinstance(target, tuple | list) and len(target) == 2 and takes(loss, 3)
    if not several and not weighted:
        return _of_pair  # the usual one, and the quickest

    def split(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], tuple[Any, ...]]:
        inputs, target = batch
        return (*inputs,) if several else (inputs,), {}, (*target,) if weighted else (target,)

    return split


def _of_dict(model: nn.Module, batch: Mapping[str, Any]) -> Split:
    target = _target_key(batch)
    named = _parameters(model.forward)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in named)
    names = {p.name for p in named}
    keys = [key for key in batch if key in names or (takes_all and key != target)]
    if not keys:  # a model of one argument that is the dict, or its only other entry
        others = [key for key in batch if key != target]
        if len(others) == 1:
            return lambda batch: ((batch[others[0]],), {}, (batch.get(target),))
        return lambda batch: ((batch,), {}, (batch.get(target),))
    return lambda batch: ((), {key: batch[key] for key in keys}, (batch.get(target),))


def _accepts(model: nn.Module, *args: Any, **keywords: Any) -> bool:
    """Return whether a model's forward can be called with these; one without a signature can."""
    try:
        inspect.signature(model.forward).bind(*args, **keywords)
    except TypeError:
        return False
    except ValueError:
        pass
    return True


def takes(function: Any, count: int) -> bool:
    """Return whether a function needs so many positional arguments."""
    needed = [
        p
        for p in _parameters(function.forward if isinstance(function, nn.Module) else function)
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    return len(needed) == count


def _parameters(function: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def fit_objective(
    make_loss: Callable[[], LossFunction] | None,
    batch: Any,
    output: Any,
    split: Split,
    *,
    known: Tensor | None = None,
    call: LossCall | None = None,
) -> Callable[[], Objective]:
    """Return what makes the objective of a model that gave this output for a first batch.

    Args:
        make_loss: makes the loss: one that keeps a state begins afresh in every trial. None where
            the model makes it.
        batch: the first one, output: what the model gave for it.
        split: how it is split.
        known: all targets there are; None where nobody knows them.
        call: the loss of torch's that the model itself called.

    Raises:
        ConfigError: with key "" when the output does not fit the loss, or there is no loss.
    """
    if make_loss is None:
        if not isinstance(own_loss(output), Tensor):
            raise ConfigError.single(
                "",
                "is needed: the model returns none",
                f"an output of type {type(output).__name__}",
                "Name a loss, or let the model return an output with `.loss`.",
            )
        return lambda: OfModel(split, None if call is None else call.ignored, _shifts(call, batch))
    target, *weight = split(batch)[2]
    loss = copy_loss(make_loss())
    # a loss of the user's own may want the whole output
    of_logits = torch_name(loss) is not None
    seen = logits_of(output) if of_logits else output
    fitted = fit_loss(loss, seen, target, *weight, known=known)
    split = _converting(split, fitted.convert)
    wrapped = over_tokens if fitted.is_tokens else lambda loss: loss
    return lambda: Supervised(
        wrapped(make_loss()), split, of_logits, fitted.is_sum, fitted.ignored, ShapesGuard()
    )


def _shifts(call: LossCall | None, batch: Any) -> bool:
    """Return whether a model compares its output with other targets than the batch's.

    As language models do, which predict the next token.
    """
    target = _named_target(batch)
    used = None if call is None else call.arguments.get("target")
    if not isinstance(target, Tensor) or not isinstance(used, Tensor):
        return False
    return not torch.equal(target.flatten(), used.flatten())


def _converting(split: Split, convert: Convert | None) -> Split:
    """Return the split with labels made what the loss takes."""
    if convert is None:
        return split

    def converting(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], tuple[Any, ...]]:
        args, keywords, (target, *weight) = split(batch)
        return args, keywords, (convert(target), *weight)

    return converting
