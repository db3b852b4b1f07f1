"""Checkpoints: what they hold, when one is yielded, and whether it can be gone on from.

State is what torch says it is: `state_dict()` of the model, its optimizer and its loss, and of data
that have one. What else an object keeps is out of contract; a copy that is restored and takes the
next step shows whether that mattered in this step, and not whether it will in a later one.

A state may hold plain values and dense or sparse tensors, and not too many of them.
"""

from __future__ import annotations

import inspect
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lrexp.engine.stop import Pause
from lrexp.engine.task import Task
from lrexp.errors import RunError
from lrexp.records import Checkpoint, Interrupted, NoCheckpoint, Record, TrialId
from lrexp.workloads.optimizers import Parts

MAX_NODES = 1_000_000  # values, each counted as often as it is referred to
MAX_DEPTH = 50
_MAX_BITS = 256  # of a whole number
_NUMBERS = (bool, int, float, complex, type(None))


def check_held(value: Any, num_bytes: float = math.inf, *, share: float = 1.0) -> None:
    """Refuse a state that holds anything else.

    Args:
        value: of plain values and tensors.
        num_bytes: a bound of what all its tensors hold.
        share: of the limits; who writes takes half, for a file holds a little more than a state.

    Raises:
        ValueError: it does, it holds too much, or it unfolds to more than `num_bytes`.
    """
    _Walk(num_bytes, share).through(value, 0)


class _Walk:
    """Counts what is gone through: shared parts again each time, as whoever copies them does."""

    def __init__(self, num_bytes: float, share: float) -> None:
        self._bytes_left, self._nodes_left = num_bytes, share * MAX_NODES
        self._max_depth = share * MAX_DEPTH

    def through(self, value: Any, depth: int) -> None:
        """Go through a value and all that it holds."""
        self._nodes_left -= 1
        _require(self._nodes_left >= 0, "it holds too many values outside of tensors")
        _require(depth <= self._max_depth, "it is nested too deeply")
        kind = type(value)
        if kind is dict:
            known = all(type(key) in (str, int, bool) for key in value)
            _require(known, "it has keys of other types")
        if kind in (dict, list, tuple):
            for item in value.values() if kind is dict else value:
                self.through(item, depth + 1)
        elif kind is torch.Tensor:
            self._tensor(value)
        elif kind is int:
            _require(value.bit_length() <= _MAX_BITS, "it holds a number of too many digits")
        else:
            _require(kind is str or kind in _NUMBERS, f"it holds a {kind.__name__}")

    def _tensor(self, tensor: Any) -> None:
        plain = tensor.device.type == "cpu" and not tensor.requires_grad
        _require(plain, "it holds a tensor of another kind")
        dense = [tensor] if tensor.layout == torch.strided else _parts_of_sparse(tensor)
        for part in dense:
            size = part.numel() * part.element_size()
            _require(size <= part.untyped_storage().nbytes(), "it holds a tensor that unfolds")
            self._bytes_left -= size
        _require(self._bytes_left >= 0, "its tensors are larger than the file")


def _parts_of_sparse(tensor: Any) -> list[Any]:
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    raise ValueError("it holds a tensor of another kind")


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


ON_HOST = "on_host"  # marks a tensor on the CPU in a training that runs elsewhere


class NotCapturable(Exception):  # noqa: N818 - an answer, not a failure
    """A training has no checkpoint; the message says why."""


class NotYetCapturable(NotCapturable):
    """A training has no checkpoint at this moment."""


class MisfitError(RunError):
    """A checkpoint is not of the training that is to go on with it."""


def checkpoint(  # noqa: PLR0917 - the last two go together
    pause: Pause,
    trials: tuple[TrialId, ...],
    step: int,
    capture: Callable[[], dict[str, Any]],
    check: SelfCheck | None = None,
    step_ahead: Callable[[], object] = lambda: None,
) -> Generator[Record, None, bool]:
    """Yield a checkpoint if there can be one; return whether the training is to stop here.

    Args:
        pause: that found a checkpoint due.
        trials: that are still being trained, step: updates done.
        capture: returns the state; whatever it raises means that there is no checkpoint.
        check: that it has to pass; the first one waits for the next step.
        step_ahead: takes that step where the training stops here, and lets `check` compare.
    """
    begun = time.perf_counter()
    why, is_lasting = None, False
    try:
        _require_passed(check)
        state = capture()
        _require_readable(state)
        if check is not None and not check.is_over:
            check.state = state
            if not pause.requested:
                return False
            step_ahead()
            _require_passed(check)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # objects of the user's code may raise anything when looked at
        is_ours = isinstance(error, NotCapturable)
        is_lasting = not isinstance(error, NotYetCapturable)
        why = str(error) if is_ours else f"{type(error).__name__}: {error}"
    else:
        yield Checkpoint(trials, step, state)
    pause.done(time.perf_counter() - begun)  # it is written while this generator waits
    if pause.requested:
        yield Interrupted(trials, why)
        return True
    if why is not None and is_lasting:
        yield NoCheckpoint(trials, why)
    return False


def _require_passed(check: SelfCheck | None) -> None:
    if check is not None and check.why is not None:
        raise NotCapturable(check.why)


def _require_readable(state: dict[str, Any]) -> None:
    try:
        check_held(state, share=0.5)
    except ValueError as error:
        raise NotCapturable(f"its state cannot be read again: {error}") from None


def plain(value: Any, device: torch.device | None = None) -> Any:
    """Return a copy of `value` that a file can hold without code; tensors are on the CPU.

    Args:
        value: numbers, strings, None, tensors, and tuples, lists and dicts of them.
        device: where tensors are as a rule; others are marked, for `revived`.

    Raises:
        NotCapturable: there is something else in it.
    """
    if value is None or type(value) in (bool, str, int, float, complex):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, str | int | float):  # a subclass would be saved as code
        return str.__str__(value) if isinstance(value, str) else value.real
    if isinstance(value, Tensor):
        on_host = device is not None and value.device.type != device.type
        return {ON_HOST: copied(value)} if on_host else copied(value)
    if type(value) in (list, tuple):
        return type(value)(plain(item, device) for item in value)
    if isinstance(value, Mapping) and all(isinstance(key, str | int) for key in value):
        return {plain(key): plain(item, device) for key, item in value.items()}
    raise NotCapturable(f"a checkpoint cannot hold a {type(value).__name__}")


def revived(value: Any, device: torch.device) -> Any:
    """Return a copy of what `plain` returned, with tensors where they were."""
    if isinstance(value, Tensor):
        return value.to(device, copy=True)
    if isinstance(value, list | tuple):
        return type(value)(revived(item, device) for item in value)
    if isinstance(value, dict):
        if value.keys() == {ON_HOST}:
            return value[ON_HOST].clone()
        return {key: revived(item, device) for key, item in value.items()}
    return value


def misfit(what: str) -> MisfitError:
    """Return the error of a state that is not of this training."""
    return MisfitError(
        f"The checkpoint does not fit: {what}. Undo the change, or start a new run instead."
    )


@contextmanager
def fitting() -> Iterator[None]:
    """Turn what a damaged state raises, where something is missing, into a MisfitError."""
    try:
        yield
    except MisfitError:
        raise
    except Exception as error:
        raise misfit(f"{type(error).__name__}: {error}") from error


def require_made_by(engine: str, state: Mapping[str, Any]) -> None:
    """Refuse the state of another engine.

    Raises:
        MisfitError: it is one.
    """
    if state["engine"] != engine:
        raise misfit(f"it is of the {state['engine']} engine, and this is the {engine} one")


def copied(tensor: Tensor) -> Tensor:
    """Return the tensor's numbers on the CPU, in memory of their own.

    Raises:
        NotCapturable: it is of a class that would have to be executed to be read.
    """
    detached = tensor.detach()
    if type(detached) is not Tensor:
        raise NotCapturable(f"a checkpoint cannot hold a {type(detached).__name__}")
    # a clone, for the next update changes it, and a view would be saved with all it is a part of
    return detached.clone() if detached.device.type == "cpu" else detached.cpu()


# What is captured of objects: what they say themselves, by `state_dict()`.


def is_stateful(value: object) -> bool:
    """Return whether an object declares its state, as torch's `Stateful` does."""
    return all(callable(getattr(value, name, None)) for name in ("state_dict", "load_state_dict"))


def capture_objects(task: Task, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Return the states of a model, its optimizer and its loss.

    Raises:
        NotCapturable: one holds something else than tensors and plain values.
    """
    loss = inspect.unwrap(task.objective.loss)
    return {
        "parameters": [name for name, _ in model.named_parameters()],
        "model": _state_of(model, task.device),
        "loss": _state_of(loss, task.device) if is_stateful(loss) else None,
        "optimizer": plain(optimizer.state_dict(), task.device),
    }


def restore_objects(
    task: Task, model: nn.Module, optimizer: Optimizer, saved: Mapping[str, Any]
) -> None:
    """Put back what `capture_objects` returned.

    Raises:
        MisfitError: the model, the loss or the optimizer is another one now.
    """
    names = [name for name, _ in model.named_parameters()]
    if names != list(saved["parameters"]):
        was, now = (", ".join(names) for names in (saved["parameters"], names))
        raise misfit(f"the parameters were {was}, and are {now}")
    _load(model, saved["model"], task.device)
    loss = inspect.unwrap(task.objective.loss)
    if is_stateful(loss) != (saved["loss"] is not None):
        raise misfit("the loss is another one now")
    if saved["loss"] is not None:
        _load(loss, saved["loss"], task.device)
    _load_optimizer(optimizer, revived(saved["optimizer"], task.device))


def _state_of(value: Any, device: torch.device) -> dict[str, Any]:
    state = value.state_dict()
    # modules read the versions of their own formats from it
    return {"values": plain(state, device), "versions": plain(getattr(state, "_metadata", {}))}


def _load(value: Any, saved: Mapping[str, Any], device: torch.device) -> None:
    state = revived(saved["values"], device)
    if isinstance(value, nn.Module):
        state = OrderedDict(state)
        state._metadata = dict(saved["versions"])  # type: ignore[attr-defined]
        _make_room(value, state)
    value.load_state_dict(state)


def _make_room(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Give a fresh module the buffers that training makes, or makes anew in another shape."""
    own = module.state_dict(keep_vars=True)
    for name, value in state.items():
        now = own.get(name)
        if not isinstance(value, Tensor) or name.endswith("_extra_state"):
            continue
        fits = now is not None and (now.shape, now.dtype) == (value.shape, value.dtype)
        if isinstance(now, nn.Parameter):
            if not fits:
                was, is_now = (f"{tuple(t.shape)} {t.dtype}" for t in (value, now))
                raise misfit(f"{name} was {was} and is {is_now}")
        elif now is None or not fits or 0 in now.stride():  # an expanded one cannot be written to
            path, _, own_name = name.rpartition(".")
            module.get_submodule(path)._buffers[own_name] = value.clone()


def _load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    if isinstance(optimizer, Parts):
        for part, own_state in zip(optimizer.parts, state["parts"], strict=True):
            _load_optimizer(part, own_state)
        optimizer.gather()
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if type(optimizer).load_state_dict is not Optimizer.load_state_dict:
        optimizer.load_state_dict(state)
        return
    own = {i: held for i, held in state["state"].items() if type(i) is int and i < len(parameters)}
    for index, held in own.items():
        _check_state(optimizer, parameters[index], held)
    optimizer.load_state_dict(state)
    for index, held in own.items():  # it casts states to the type of their parameter
        optimizer.state[parameters[index]].update(held)


_OF_OTHER_SHAPES = ("Adafactor", "LBFGS")  # optimizers of torch, all in Python
_NUMBERS_OF_STATES = ("step", "eta", "mu", "mu_product")  # states that are one number


def _check_state(optimizer: Optimizer, parameter: Tensor, state: Mapping[str, Any]) -> None:
    """Refuse tensors that the optimizer's kernels, which ask no questions, would read beyond.

    Raises:
        MisfitError: one has neither the parameter's form nor that of a number.
    """
    is_known = type(optimizer).__module__.startswith("torch.optim.")
    if not is_known or type(optimizer).__name__ in _OF_OTHER_SHAPES:
        return
    for name, saved in state.items():
        if not isinstance(saved, Tensor) or (name in _NUMBERS_OF_STATES and saved.ndim == 0):
            continue
        if (saved.shape, saved.dtype) != (parameter.shape, parameter.dtype):
            form, own = (f"{tuple(t.shape)} {t.dtype}" for t in (saved, parameter))
            raise misfit(f"the optimizer's {name} is {form}, and its parameter {own}")


class SelfCheck:
    """Whether a copy that is restored from a state takes the step that the original takes.

    The first checkpoint that is due waits for one step: the copy takes it, then the original, and
    their numbers are compared. What a copy cannot show is a state that matters later.

    Attributes:
        state: that is to be checked by the next step; is_over: one was.
        why: the copy took another step; None as long as that is not known.
    """

    def __init__(self) -> None:
        self.state: Mapping[str, Any] | None = None
        self.why: str | None = None
        self.is_over = False
        self._numbers: Mapping[str, Tensor] | None = None

    def rehearse(self, replay: Callable[..., Mapping[str, Tensor]], *step: Any) -> None:
        """Let a copy take the step that the original is about to take.

        `replay(state, *step)` returns the numbers of a copy after it, by name; it must leave
        everything else as it is. Kept here, it would keep the processes that load data.
        """
        state, self.state, self.is_over = self.state, None, True
        try:
            self._numbers = replay(state, *step)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except (MemoryError, torch.OutOfMemoryError):
            pass  # there is no room for a copy; the state is right by all we know
        except BaseException as error:  # objects of the user's code may raise anything
            cause = error.__cause__ or error if isinstance(error, MisfitError) else error
            reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
            self.why = f"a copy could not be restored from its state_dict() ({reason})"

    def compare(self, numbers: Mapping[str, Tensor]) -> None:
        """Compare the numbers of the original, after that step, with those of the copy."""
        copied, self._numbers = self._numbers, None
        if copied is None:
            return
        for name in dict.fromkeys((*numbers, *copied)):
            ours, theirs = numbers.get(name), copied.get(name)
            if ours is None or theirs is None or not same_bits(ours, theirs):
                self.why = (
                    f"a copy restored from its state_dict() took another step ({name} differs): "
                    "something that it keeps is not in its state_dict()"
                )
                return


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal, NaN to NaN."""
    if (one.shape, one.dtype, one.layout) != (other.shape, other.dtype, other.layout):
        return False
    one, other = one.detach(), other.detach()
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    return bool(((one == other) | (one.isnan() & other.isnan())).all())
