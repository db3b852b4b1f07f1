"""Checkpoints: when one is yielded, and the plain values it is made of.

A state may hold plain values and dense or sparse tensors, and not too many of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrexp.engine.stop import Pause
from lrexp.errors import RunError
from lrexp.records import Checkpoint, Interrupted, NoCheckpoint, Record, TrialId

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


def outlives(what: str) -> NotCapturable:
    """Return why there is no checkpoint where training changes what other trials see as well."""
    return NotCapturable(
        f"training changes {what}, which outlives the trial: its numbers depend on what was "
        "trained before it"
    )


def checkpoint(
    pause: Pause, trials: tuple[TrialId, ...], step: int, capture: Callable[[], dict[str, Any]]
) -> Generator[Record, None, bool]:
    """Yield a checkpoint if there can be one; return whether the training is to stop here.

    Args:
        pause: that found a checkpoint due.
        trials: that are still being trained, step: updates done.
        capture: returns the state; whatever it raises means that there is no checkpoint.
    """
    begun = time.perf_counter()
    why, is_lasting = None, False
    try:
        state = capture()
        _require_readable(state)
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
