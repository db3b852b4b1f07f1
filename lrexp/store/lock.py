"""One run, one writer: a file `lock` in the run directory names the process that writes it.

The file is created exclusively, so that of two processes one gets it. A process that was killed
leaves its lock behind; it is stale once that process is gone from this host, and is taken over.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lrexp.errors import RunError
from lrexp.store.files import disk_errors, write_whole
from lrexp.store.owner import Owner

LOCK = "lock"
_TAKE_OVER_SECONDS = 30.0  # a take-over is over in milliseconds, or its process was killed in it


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a run directory.

    Raises:
        RunError: another process holds it, or may hold it; the message names both.
    """
    path = directory / LOCK
    me = json.dumps(Owner.this().to_plain() | {"lock": secrets.token_hex(8)}) + "\n"
    with disk_errors(path):
        _acquire(path, me)
    try:
        yield
    finally:
        with suppress(OSError, RunError):  # the directory may be gone, or the disk
            if _read(path) == me:
                path.unlink()


def _acquire(path: Path, me: str) -> None:
    if _create(path, me):
        return
    held = _read(path)
    if not _is_stale(held):
        raise _refused(path, held)
    # Of several processes that find a stale lock, one may replace it: the one with this file.
    guard = path.with_name(f"{LOCK}.takeover")
    with suppress(OSError):
        if time.time() - guard.stat().st_mtime > _TAKE_OVER_SECONDS:
            guard.unlink()
    if not _create(guard, me):
        raise _refused(path, _read(guard))
    try:
        now = _read(path)
        if now is None and _create(path, me):
            return
        if now is None or now != held:
            raise _refused(path, _read(path))
        write_whole(path, me)
    finally:
        guard.unlink(missing_ok=True)


def _create(path: Path, content: str) -> bool:
    """Create a file that does not exist; return whether this call did."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, content.encode())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return True


def _read(path: Path) -> str | None:
    """Return what a lock says; one that is being created says it a moment later."""
    for _ in range(20):
        try:
            content = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        if content.endswith("\n"):
            break
        time.sleep(0.01)
    return content


def _owner(content: str | None) -> Owner | None:
    try:
        return Owner.from_plain(json.loads(content or ""))
    except ValueError:
        return None


def _is_stale(content: str | None) -> bool:
    if content is None or not content.endswith("\n"):  # killed while it was created
        return True
    owner = _owner(content)
    return owner is not None and owner.is_gone()


def _refused(path: Path, content: str | None) -> RunError:
    owner = _owner(content)
    who = "another process" if owner is None else f"process {owner.pid} on {owner.host}"
    return RunError(
        f"{path.parent}: is being written by {who}. Wait for it or stop it; if there is no such "
        f"process any more, delete {path}."
    )
