"""Checkpoints: when one is yielded, and the plain values it is made of.

A checkpoint holds tensors and numbers, nothing that would have to be executed to be read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrexp.engine.held import check_held
from lrexp.engine.pause import Pause
from lrexp.engine.task import Checkpoint, Interrupted, NoCheckpoint, Record, TrialId
from lrexp.errors import RunError

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
