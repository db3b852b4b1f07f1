"""Checkpoints on disk: one file per unit of trials that are trained in one go.

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
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lrexp.errors import RunError
from lrexp.store.files import disk_errors, write_whole
from lrexp.store.payload import check_names, check_payload

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
