"""Writing files so that a reader never sees half of one, and reading them within bounds.

A run may come from a stranger: a pipe in a file's place is waited for by nobody, and what is
larger, deeper or greater than any run writes is refused before it fills memory or the stack.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lrexp.errors import LrexpError, RunError

MAX_BYTES = 20_000_000  # of a text; as JSON it takes twenty times that in memory
MAX_DEPTH = 100  # of JSON; a config, which it may quote, has half of that
_TEMPORARY = ".tmp"
_RESTORE = "Restore it, or run the config anew."


def trial_path(run: Path, variant: str, seed: int) -> Path:
    """Return the directory of a trial in that of its run."""
    return run / "trials" / variant / f"seed-{seed}"


def write_whole(path: Path, content: str | bytes | memoryview) -> None:
    """Write a whole file: temporary file beside it, flushed to disk, renamed over the old one."""
    data = content.encode() if isinstance(content, str) else content
    with disk_errors(path):
        temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_directory(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def sync_directory(path: Path) -> None:
    """Flush the names in a directory to disk, where a system can: a rename is one of them."""
    if os.name == "nt":
        return
    with suppress(OSError):  # some network file systems refuse
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_temporary_files(directory: Path) -> None:
    """Remove what writers that were killed in the middle of a file left behind."""
    for path in directory.rglob(f".*{_TEMPORARY}"):
        with disk_errors(path):
            path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as everyone can read it: non-finite numbers become null."""
    write_whole(path, to_json(value) + "\n")


def to_json(value: Any) -> str:
    """Return indented JSON; a non-finite number is `null`.

    Example:
        >>> to_json({"loss": float("nan")})
        '{\\n  "loss": null\\n}'
    """
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def remove_directory(path: Path) -> None:
    """Remove a directory with all that is in it."""
    with disk_errors(path):
        shutil.rmtree(path)


def find_bytes(path: Path, most: int = MAX_BYTES) -> bytes | None:
    """Return the content of a file of a run, None for none; RunError for more than `most` bytes."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise RunError(f"{path}: is a pipe or a device, and no file. Remove it.")
            if found.st_size > most:
                what = f"is damaged: it is larger than {most} bytes"
                raise RunError(f"{path}: {what}. Restore it, or remove it.")
            return file.read(found.st_size)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise RunError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}.") from error


def find_text(path: Path, most: int = MAX_BYTES) -> str | None:
    """Return the text of a file of a run, None where there is none; see `find_bytes`."""
    content = find_bytes(path, most)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: is damaged: {error}. {_RESTORE}") from error


def find_json(path: Path) -> dict[str, Any] | None:
    """Return the object that a JSON file of a run holds, None where there is none.

    Raises:
        RunError: as `find_text`, or it holds what `write_json` never writes: deep nesting, a number
            that no float can hold, or half of a character.
    """
    text = find_text(path)
    if text is None:
        return None
    try:
        value = json.loads(text)
        _check_plain(value)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is damaged: {error}. {_RESTORE}") from error
    return value if isinstance(value, dict) else None


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file of a run holds; that there is none is a RunError."""
    value = find_json(path)
    if value is None:
        raise RunError(f"{path}: is damaged: it is missing, or holds no object. {_RESTORE}")
    return value


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into a RunError that names the file and what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "Free some space and resume the run, or choose" if full else "Choose"
        raise RunError(
            f"{path}: cannot be written: {error.strerror or error}. {remedy} another folder with "
            "--out or --runs-dir."
        ) from error


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for who would write into it, if it is a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_plain(value: Any) -> None:
    """Refuse JSON that who goes through it, or computes with it, would stumble over."""
    level = [value]
    for _ in range(MAX_DEPTH):
        for item in level:
            if isinstance(item, int | float) and not abs(item) <= sys.float_info.max:
                raise ValueError("it holds a number that is too large, or none")
            if isinstance(item, str):
                item.encode()  # half of a surrogate pair cannot be written again
        inner = [_parts(item) for item in level]
        level = [item for items in inner for item in items]
    if level:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


_OF_OTHER_VALUES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@contextmanager
def as_written(what: str) -> Iterator[None]:
    """Turn what goes wrong with values of another kind than expected into a RunError.

    To check every value of a stranger's file before it is shown would say each of them twice.
    """
    try:
        yield
    except LrexpError:
        raise
    except _OF_OTHER_VALUES as error:
        said = f"{type(error).__name__}: {error}"
        raise RunError(f"{what}: is damaged: it holds what no run writes ({said}).") from error
