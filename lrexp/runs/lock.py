"""Who writes a run: a process of a host, and whether it still lives.

A process number is used again sooner or later, so the time at which the process started belongs
to it. Where the system does not tell that time, the number has to do. Processes of another host,
and of another container, cannot be seen from here: their runs show by a lock that they still live.

One run, one writer: a file `lock` in the run directory names the process that writes it.

The file is created exclusively, so that of two processes one gets it. A process that was killed
leaves its lock behind; it is stale once that process is gone from this host, and is taken over.
Whether a process of another host lives cannot be asked: while it does, it touches its lock twice
a minute, and one that was not touched for five minutes is stale, too.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from lrexp.errors import RunError
from lrexp.runs.files import disk_errors, find_bytes, write_whole


@dataclass(frozen=True)
class Owner:
    """A process.

    Args:
        host: name of its machine.
        pid: its number there.
        started: when it started, in whatever form the system has; None where that is unknown.
        namespace: what its number counts in, one per container on Linux; None where unknown.
    """

    host: str
    pid: int
    started: str | None = None
    namespace: int | None = None

    @classmethod
    def this(cls) -> Owner:
        """Return this process."""
        return cls(platform.node(), os.getpid(), _started(os.getpid()), _namespace())

    @classmethod
    def from_plain(cls, value: object) -> Owner | None:
        """Return the owner that `to_plain` wrote, None where the value is none."""
        if not isinstance(value, Mapping):
            return None
        host, pid, started = value.get("host"), value.get("pid"), value.get("process_started")
        if not isinstance(host, str) or not isinstance(pid, int) or isinstance(pid, bool):
            return None
        namespace = value.get("pid_namespace")
        return cls(
            host=host,
            pid=pid,
            started=started if isinstance(started, str) else None,
            namespace=namespace if type(namespace) is int else None,
        )

    def to_plain(self) -> dict[str, Any]:
        """Return the owner as JSON has it."""
        return {
            "host": self.host,
            "pid": self.pid,
            "process_started": self.started,
            "pid_namespace": self.namespace,
        }

    @property
    def can_be_seen(self) -> bool:
        """Whether this process can tell if it lives: it is of this host, and of this container."""
        if self.host != platform.node() or not 0 < self.pid < 2**31:
            return False
        return self.namespace is None or _namespace() in (None, self.namespace)

    def is_gone(self) -> bool:
        """Return True only where it is certain: a process of this host that no longer exists."""
        if not self.can_be_seen:
            return False
        if not _exists(self.pid):
            return True
        now = _started(self.pid)
        return now == "" or (None not in (self.started, now) and self.started != now)


def _namespace() -> int | None:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


def _exists(pid: int) -> bool:
    if sys.platform == "win32":  # where os.kill(pid, 0) would end the process instead of asking
        return _windows_start(pid) != ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it exists, but is another user's
    return True


def _started(pid: int) -> str | None:
    """Return when a process started, as the system has it; "" if it ended, None if unknown."""
    if sys.platform == "win32":
        return _windows_start(pid)
    if platform.system() == "Linux":
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The name in brackets may hold anything. The state follows it (a zombie writes nothing any
        # more); the 22nd field is the start in ticks since boot.
        fields = line.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else f"{boot} {fields[19]}"
    try:
        done = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)],
            capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _windows_start(pid: int) -> str | None:
    """Return when a process of Windows started; "" for none of that number, None if unknown."""
    if sys.platform == "win32":
        import ctypes

        invalid_parameter, still_active, may_query = 87, 259, 0x1000
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.OpenProcess.restype = ctypes.c_void_p
        handle = ctypes.c_void_p(kernel.OpenProcess(may_query, False, pid))
        if not handle.value:
            return "" if ctypes.get_last_error() == invalid_parameter else None
        try:
            code, times = ctypes.c_ulong(), [ctypes.c_ulonglong() for _ in range(4)]
            if kernel.GetExitCodeProcess(handle, ctypes.byref(code)) and code.value != still_active:
                return ""
            known = kernel.GetProcessTimes(handle, *(ctypes.byref(time) for time in times))
            return str(times[0].value) if known else None
        finally:
            kernel.CloseHandle(handle)
    return None


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
