"""What a checkpoint may hold, checked before anything is made of it.

`weights_only=True` runs no code, but a file of a few hundred bytes can still ask for gigabytes, a
bytearray of any size among them. So it may name nothing that this project's checkpoints do not
name, and what is made of it is held to what a state may hold (`engine/state.py`).

Checkpoints on disk: one file per unit of trials that are trained in one go.

A file holds an engine's state and, for each trial, how long its CSV files were at that moment and
what the recorder had noted: so rows past the checkpoint can be cut, and none is written twice.

A checkpoint may come from a stranger. It is read with `weights_only=True`, which builds tensors
and plain values and nothing else; files of any other form than `torch.save` writes today (old ones,
TorchScript, which older versions of torch would run; packed ones, which may unfold to any size)
are not even opened by torch, nor those that name anything but tensors. Two readers may find two
archives in one file, so torch is given one that was written anew from the parts that were checked.
"""

from __future__ import annotations

import io
import os
import pickletools
import re
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lrexp.errors import RunError
from lrexp.runs.files import disk_errors, write_whole

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
    from lrexp.engine.state import check_held

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


FORMAT = 1
_FIRST_BYTES = b"PK\x03\x04"
_PARTS = ("data.pkl", "byteorder", "version", ".data", ".format_version", ".storage_alignment")


@dataclass(frozen=True)
class Position:
    """How far one trial was.

    Args:
        sizes: bytes of each of its CSV files, by name.
        values: of the recorder: its final and best measures, and its steps.
    """

    sizes: Mapping[str, int]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedUnit:
    """The contents of a checkpoint file.

    Args:
        step: updates done by each of its trials.
        state: of the engine.
        trials: by "variant/seed-n".
    """

    step: int
    state: Mapping[str, Any]
    trials: Mapping[str, Position]


def save_checkpoint(path: Path, unit: SavedUnit) -> None:
    """Write a checkpoint in place of the one before it, which stays until this one is whole.

    Raises:
        RunError: the disk refuses; the old checkpoint is still whole.
    """
    import torch

    trials = {
        name: {"sizes": dict(position.sizes), "values": dict(position.values)}
        for name, position in unit.trials.items()
    }
    payload = {"format": FORMAT, "step": unit.step, "state": dict(unit.state), "trials": trials}
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    with disk_errors(path.parent):
        path.parent.mkdir(exist_ok=True)  # not its parents: a run that was deleted stays deleted
    with buffer.getbuffer() as view:  # an error that keeps it would keep the memory, too
        write_whole(path, view)


def load_checkpoint(path: Path) -> SavedUnit:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        RunError: it is damaged, or no checkpoint; its trials can begin anew without it.
    """
    import torch

    try:
        checked = _checked(path)
        payload = torch.load(checked, map_location="cpu", weights_only=True)
        if not isinstance(payload, dict) or payload.get("format") != FORMAT:
            raise ValueError(f"it has not the format {FORMAT}")
        check_payload(payload, path.stat().st_size)
    except Exception as error:  # a damaged file may break any part of the reader
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise RunError(
            f"{path}: is no checkpoint that can be read safely ({why}). Delete it: its trials then "
            "begin anew, to the same results."
        ) from error
    trials = {name: Position(p["sizes"], p["values"]) for name, p in payload["trials"].items()}
    return SavedUnit(payload["step"], payload["state"], trials)


def _checked(path: Path) -> io.BytesIO:
    """Return a file of the form that `torch.save` writes, made anew from its parts.

    Raises:
        ValueError, zipfile.BadZipFile: it has another one, or names what no checkpoint holds.
    """
    if not path.is_file():
        raise ValueError("it is no file")
    anew = io.BytesIO()
    with path.open("rb") as file:
        _check_start(file)
        with zipfile.ZipFile(file) as archive, zipfile.ZipFile(anew, "w") as copy:
            _check_parts(archive.infolist(), os.fstat(file.fileno()).st_size)
            for part in archive.infolist():
                content = archive.read(part)  # with its checksum, which torch does not compare
                if part.filename.partition("/")[2] == "data.pkl":
                    check_names(content)
                copy.writestr(part.filename, content)
    anew.seek(0)
    return anew


def _check_start(file: IO[bytes]) -> None:
    num_bytes = os.fstat(file.fileno()).st_size
    if num_bytes > _most_bytes():
        raise ValueError(f"it has {num_bytes} bytes, which this machine cannot hold")
    if file.read(len(_FIRST_BYTES)) != _FIRST_BYTES:
        raise ValueError("it is not written by torch.save")


def _most_bytes() -> int:
    """Return the size of the largest file that can be read: it is in memory twice then."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return sys.maxsize  # Windows refuses memory that it does not have
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _check_parts(parts: Sequence[zipfile.ZipInfo], num_bytes: int) -> None:
    """Refuse an archive of other parts than `torch.save` writes, or of more than its file holds."""
    if not parts or parts[0].header_offset != 0:
        raise ValueError("something lies before its first part")
    names = {part.filename for part in parts}
    if len(names) < len(parts) or sum(part.file_size for part in parts) > num_bytes:
        raise ValueError("its parts overlap")
    for part in parts:
        inside = part.filename.partition("/")[2]
        known = inside.startswith("data/") or inside.startswith(_PARTS)
        if not known or part.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"it holds {part.filename}")
