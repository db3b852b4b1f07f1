"""What a checkpoint may hold, checked before anything is made of it.

`weights_only=True` runs no code, but a file of a few hundred bytes can still ask for gigabytes, a
bytearray of any size among them. So it may name nothing that this project's checkpoints do not
name, and what is made of it is held to what a state may hold (`engine/held.py`).
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Mapping
from typing import Any

MAX_INSTRUCTIONS = 20_000_000  # some twenty for each value that a state may hold

_NAMES = re.compile(
    r"torch\._utils _rebuild_(tensor_v[23]|sparse_tensor)|torch\.serialization _get_layout"
    r"|torch \w+Storage|torch\.storage UntypedStorage|torch u?int\d+|torch b?float\d+\w*"
    r"|torch Size|collections OrderedDict|(__builtin__|builtins) complex"
)
_BUILDING = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "EXT1", "EXT2", "EXT4"}
_SETTINGS = {"final", "best", "steps"}


def check_names(pickled: bytes) -> None:
    """Refuse a pickle that names anything but tensors, or asks for any object.

    Raises:
        ValueError: it does, or it is damaged.
    """
    for count, (code, argument, _) in enumerate(pickletools.genops(pickled)):
        if code.name in _BUILDING:
            raise ValueError(f"it holds an object ({code.name})")
        if code.name == "GLOBAL" and not _NAMES.fullmatch(str(argument)):
            raise ValueError(f"it names {argument}")
        if count > MAX_INSTRUCTIONS:
            raise ValueError("it is longer than any checkpoint")


def check_payload(payload: Any, num_bytes: int) -> None:
    """Refuse a payload of other parts than `save_checkpoint` writes.

    Args:
        payload: as loaded.
        num_bytes: of the file, a bound of what all its tensors hold.

    Raises:
        ValueError, TypeError, KeyError: it has other parts, or unfolds to more than the file.
    """
    from lrexp.engine.held import check_held

    check_held(payload, num_bytes)
    step, state, trials = payload["step"], payload["state"], payload["trials"]
    _require(_is_count(step), "its step is no number of steps")
    _require(isinstance(state, dict), "its state is no mapping")
    _require(isinstance(state.get("engine", ""), str), "its engine has no name")
    for own in (state, state.get("apart")):  # `apart`: of one trial of a stack that fell apart
        if isinstance(own, dict) and "generators" in own:
            _check_generators(own["generators"])
    _require(isinstance(trials, dict), "its trials are no mapping")
    for name, position in trials.items():
        _require(isinstance(name, str) and isinstance(position, dict), "its trials have no names")
        _check_position(position)


def _check_position(position: Mapping[str, Any]) -> None:
    sizes, values = position["sizes"], position["values"]
    _require(isinstance(sizes, dict) and isinstance(values, dict), "a position is no mapping")
    for name, size in sizes.items():
        _require(isinstance(name, str) and _is_count(size), "its sizes are no numbers of bytes")
    _require(values.keys() <= _SETTINGS, "its values are not those of a trial")
    _require(_is_count(values.get("steps", 0)), "its steps are no number of steps")
    for measures in (values.get("final", {}), values.get("best", {})):
        _require(isinstance(measures, dict), "its measures are no mapping")
        for name, value in measures.items():
            is_measure = isinstance(name, str) and type(value) in (int, float, type(None))
            _require(is_measure, "its measures are no numbers")


def _check_generators(states: Any) -> None:
    """Refuse states of random generators of another size: some libraries take them unchecked."""
    import torch

    words, bits = torch.int64, torch.uint8
    python, numpy = states["python"], states.get("numpy")
    sizes = [_is_vector(states["torch"], bits, torch.get_rng_state().numel())]
    sizes += [_are_words(python["words"][:-1], 624), _is_vector(python["words"], words, 625)]
    sizes += [0 <= int(python["words"][-1]) <= 624, type(python["gauss"]) in (float, type(None))]
    sizes += [type(python["version"]) is int]
    if numpy is not None:
        kind, key, place, has_gauss, gauss = numpy
        sizes += [kind == "MT19937", _are_words(key, 624), _is_count(place) and place <= 624]
        sizes += [has_gauss in (0, 1), type(gauss) is float]
    sizes += [_is_small(states[name]) for name in ("cuda", "mps") if name in states]
    _require(all(sizes), "its random generators have other states")


def _is_vector(value: Any, dtype: Any, size: int) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and (value.dtype, value.shape) == (dtype, (size,))


def _are_words(value: Any, size: int) -> bool:
    import torch

    known = _is_vector(value, torch.int64, size)
    return known and int(value.min()) >= 0 and int(value.max()) < 2**32


def _is_small(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and value.numel() < 10_000


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _require(holds: bool, else_what: str) -> None:
    if not holds:
        raise ValueError(else_what)
