"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lrexp.errors import RunError

_TEMPORARY = ".tmp"


def trial_path(run: Path, variant: str, seed: int) -> Path:
    """Return the directory of a trial in that of its run."""
    return run / "trials" / variant / f"seed-{seed}"


def write_whole(path: Path, content: str | bytes | memoryview) -> None:
    """Write a whole file: temporary file beside it, flushed to disk, renamed over the old one.

    Raises:
        RunError: the disk refuses; the old file, if any, is still whole.
    """
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
    """Remove a directory with all that is in it.

    Raises:
        RunError: the disk refuses.
    """
    with disk_errors(path):
        shutil.rmtree(path)


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


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
