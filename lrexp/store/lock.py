"""One run, one writer: a file `lock` in the run directory names the process that writes it.

The file is created exclusively, so that of two processes one gets it. A process that was killed
leaves its lock behind; it is stale once that process is gone from this host, and is taken over.
Whether a process of another host lives cannot be asked: while it does, it touches its lock twice
a minute, and one that was not touched for five minutes is stale, too.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from lrexp.errors import RunError
from lrexp.store.files import disk_errors, find_bytes, write_whole
from lrexp.store.owner import Owner

LOCK = "lock"
BEAT_SECONDS = 30.0
SILENT_SECONDS = 300.0  # file systems of a network may show a change a minute late
_MAX_BYTES = 10_000
_TAKE_OVER_SECONDS = 30.0  # a take-over is over in milliseconds, or its process was killed in it


@contextmanager
def locked(directory: Path, *, beat_seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Hold the lock of a run directory.

    Args:
        directory: of the run.
        beat_seconds: between signs of life, for processes of other hosts.

    Raises:
        RunError: another process holds it, or may hold it; the message names both.
    """
    path = directory / LOCK
    me = json.dumps(Owner.this().to_plain() | {"lock": secrets.token_hex(8)}) + "\n"
    with disk_errors(path):
        _acquire(path, me)
    path = path.absolute()  # user code may change the working directory
    ended = Event()
    beats = Thread(
        target=_beat, args=(path, me, ended, beat_seconds), name="lrexp-lock", daemon=True
    )
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join(2.0)  # a file system that hangs does not keep it for ever
        with suppress(OSError, RunError):  # the directory may be gone, or the disk
            if _read(path) == me:
                path.unlink()


def holder(directory: Path) -> Owner | None:
    """Return the process that a directory's lock names; None where there is none to be read."""
    with suppress(RunError):
        return _owner(_read(directory / LOCK))
    return None


def is_silent(path: Path) -> bool:
    """Return whether nobody touched a lock, or another file, for so long that nobody will."""
    silence = _silence(path)
    return silence is not None and silence > SILENT_SECONDS


def _beat(path: Path, me: str, ended: Event, seconds: float) -> None:
    while not ended.wait(seconds):
        with suppress(OSError, RunError):
            if _read(path) == me:
                os.utime(path)


def _silence(path: Path) -> float | None:
    """Return the seconds since a file was touched; None where there is no file.

    The clock is that of its file system: those of two hosts may be hours apart.
    """
    clock = path.with_name(f".clock.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        touched = path.stat().st_mtime
        try:
            os.close(os.open(clock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            now = clock.stat().st_mtime
        except OSError:  # who may only read has only his own clock
            now = time.time()
    except OSError:
        return None
    finally:
        with suppress(OSError):
            clock.unlink(missing_ok=True)
    return max(0.0, now - touched)


def _acquire(path: Path, me: str) -> None:
    if _create(path, me):
        return
    held = _read(path)
    if not _is_stale(path, held):
        raise _refused(path, held)
    # Of several processes that find a stale lock, one may replace it: the one with this file.
    guard = path.with_name(f"{LOCK}.takeover")
    _remove_left_behind(guard)
    if not _create(guard, me):
        raise _refused(path, _read(guard))
    try:
        now = _read(path)
        if now is None and _create(path, me):
            return
        if now is None or now != held or not _is_stale(path, now):  # its owner may have woken up
            raise _refused(path, _read(path))
        write_whole(path, me)
    finally:
        guard.unlink(missing_ok=True)


def _remove_left_behind(guard: Path) -> None:
    """Remove the guard of a process that was killed in the middle of a take-over."""
    found = _read(guard)
    if found is None:
        return
    if _is_stale(guard, found) or (_silence(guard) or 0.0) > _TAKE_OVER_SECONDS:
        aside = _beside(guard)  # of several that remove it, one gets it
        with suppress(FileNotFoundError):
            guard.rename(aside)
            if _read(aside) != found:  # it is another's by now
                _link(aside, guard)
            aside.unlink()


def _create(path: Path, content: str) -> bool:
    """Create a file that does not exist, with its content at once; return whether this call did."""
    whole = _beside(path)
    try:
        whole.write_text(content, encoding="utf-8")
        if (is_linked := _link(whole, path)) is not None:
            return is_linked
    finally:
        with suppress(OSError):
            whole.unlink(missing_ok=True)
    return _create_in_place(path, content)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _link(path: Path, name: Path) -> bool | None:
    """Give a file one more name; return False where that exists, None where there are no links."""
    try:
        os.link(path, name)
    except FileExistsError:
        return False
    except OSError:
        return None
    return True


def _create_in_place(path: Path, content: str) -> bool:
    """Create a file where there are no links: who is killed in it leaves it torn."""
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
        content = find_bytes(path, _MAX_BYTES)
        if content is None or content.endswith(b"\n"):
            break
        time.sleep(0.01)
    return None if content is None else content.decode(errors="replace").replace("\r\n", "\n")


def _owner(content: str | None) -> Owner | None:
    try:
        return Owner.from_plain(json.loads(content or ""))
    except (ValueError, RecursionError):
        return None


def _is_stale(path: Path, content: str | None) -> bool:
    if content is None or not content.endswith("\n"):  # killed while it was created
        return True
    owner = _owner(content)
    if owner is not None and owner.can_be_seen:
        return owner.is_gone()
    return is_silent(path)


def _refused(path: Path, content: str | None) -> RunError:
    owner = _owner(content)
    who = "another process" if owner is None else f"process {owner.pid} on {owner.host}"
    what = f"{path.parent}: is being written by {who}"
    wait = f"Wait for it or stop it; if there is no such process any more, delete {path}"
    if owner is not None and owner.can_be_seen:
        return RunError(f"{what}. {wait}.")
    last = f"which gave its last sign of life {_silence(path) or 0.0:.0f} s ago"
    return RunError(f"{what}, {last}. {wait}, or wait until that was {SILENT_SECONDS:.0f} s ago.")
