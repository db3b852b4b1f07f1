"""One run, one writer; one group of trials, one process that trains it: leases on files.

A lease names its process and is renewed while that lives. One whose process is gone from this host
is taken over at once; one of another host, when it was not renewed for `LEASE_SECONDS`.

`Owner` is who a run's status.json says writes it. A process number is used again sooner or later,
so the time at which the process started belongs to it. Processes of another host, and of another
container, cannot be seen from here: their runs show by a lock that they still live.
"""

from __future__ import annotations

import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrexp.errors import RunError
from lrexp.runs.files import disk_errors

if TYPE_CHECKING:
    from filelock import SoftFileLease

LOCK = "lock"
LEASE_SECONDS = 60.0  # without a sign of life until a lease is another's; all hosts must agree
EMPTY_SECONDS = 2.0  # after which an empty file is one that nobody is about to write
EXCHANGE_SECONDS = 1.0  # for which the file may be another's while that one tries to take it over
SILENT_SECONDS = 300.0  # file systems of a network may show a change a minute late


@contextmanager
def locked(directory: Path) -> Iterator[SoftFileLease]:
    """Hold the lock of a run directory; that another process holds it is a RunError."""
    path = directory / LOCK
    lease = _lease(path)
    if not _is_acquired(lease, path, _patience(path)):
        raise _refused(path)
    with _held(lease):
        yield lease


@contextmanager
def claimed(path: Path) -> Iterator[SoftFileLease | None]:
    """Hold the lease of a group of trials; None where another process trains it."""
    lease = _lease(path)
    with disk_errors(path):
        path.parent.mkdir(exist_ok=True)
    is_damaged = path.exists() and lease.pid is None  # filelock watches such a one for 2 s
    if not _is_acquired(lease, path, _patience(path) or 3.0 * is_damaged):
        yield None
        return
    with _held(lease):
        yield lease


def claimant(path: Path) -> int | None:
    """Return the process that a group's lease names, be it alive or killed; None without one."""
    return _lease(path).pid


def break_lease(path: Path, host: str, pid: int) -> None:
    """Remove the lease of a process, of another host say, which is known to be gone."""
    owner = _lease(path).owner
    if owner is not None and (owner.hostname, owner.pid) == (host, pid):
        path.unlink(missing_ok=True)


def still_ours(run: Path, lease: SoftFileLease) -> Callable[[], None]:
    """Return a check to be made before a run is written to, with the lease that allows it.

    A process that was suspended for long has lost its lease without hearing of it. The check
    raises a RunError, as it does where the run was deleted.
    """
    home = run.absolute()

    def check() -> None:
        if not (home / "status.json").is_file():
            raise RunError(f"{run}: was deleted while the run was writing it. Run it again.")
        if not _is_held(lease):
            who = f"process {lease.pid}" if lease.pid else "another process"
            raise RunError(
                f"{run}: was taken over by {who}, for this one gave no sign of life. The run goes "
                "on there."
            )

    return check


def _is_held(lease: SoftFileLease) -> bool:
    """Return whether the file names this hold, by its token: /proc may fail for a moment.

    Who tries to take over the lease of a process that has just died puts its own file in the place,
    and puts back what it finds to be a living one's. So what names another is looked at again.
    """
    deadline = time.monotonic() + EXCHANGE_SECONDS
    while (owner := lease.owner) is None or owner.token != lease.token:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _lease(path: Path) -> SoftFileLease:
    from filelock import SoftFileLease

    path = path.absolute()  # user code may change the working directory
    return SoftFileLease(path, lease_duration=LEASE_SECONDS, thread_local=False)


def _patience(path: Path) -> float:
    """Return for how long a lease has to be watched: an old one may be taken over."""
    return LEASE_SECONDS * 1.5 if is_silent(path) else 0.0


def _is_acquired(lease: SoftFileLease, path: Path, patience: float) -> bool:
    """Take a lease; return False where another process may hold it."""
    from filelock import LeaseSettingsMismatch, Timeout

    with disk_errors(path):
        path.parent.stat()  # filelock would make a folder that was deleted
        if patience and _stays_empty(path):  # the machine crashed; filelock waits on
            path.unlink(missing_ok=True)
        try:
            lease.acquire(timeout=patience, poll_interval=0.5)
        except Timeout:
            return False
        except LeaseSettingsMismatch:  # of a program with another `LEASE_SECONDS`
            raise _refused(path) from None
    return True


def _stays_empty(path: Path) -> bool:
    """Return whether a file is empty and nobody is about to write it: who takes a lease is."""
    seen = _state(path)
    deadline = time.monotonic() + EMPTY_SECONDS
    while seen is not None and seen[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
        if _state(path) != seen:
            return False
    return seen is not None and seen[0] == 0


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_size, found.st_ino, found.st_ctime_ns


@contextmanager
def _held(lease: SoftFileLease) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):  # the directory may be gone, or the disk
            lease.release(force=True)


def is_silent(path: Path) -> bool:
    """Return whether nobody touched a lock, or another file, for so long that nobody will."""
    silence = _silence(path)
    return silence is not None and silence > SILENT_SECONDS


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


def _refused(path: Path) -> RunError:
    pid = _lease(path).pid
    who = "another process" if pid is None else f"process {pid}"
    return RunError(
        f"{path.parent}: is being written by {who}. Wait for it or stop it; if there is no such "
        f"process any more, delete {path}."
    )


@dataclass(frozen=True)
class Owner:
    """A process."""

    host: str  # name of its machine
    pid: int  # its number there
    started: str | None = None  # when, in whatever form the system has; None where unknown
    namespace: int | None = None  # that its number counts in: of a container; None where unknown

    @classmethod
    def this(cls) -> Owner:
        """Return this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Return a process of this machine."""
        return cls(platform.node(), pid, _started(pid), _namespace())

    @classmethod
    def from_plain(cls, value: object) -> Owner | None:
        """Return the owner that `to_plain` wrote, None where the value is none."""
        if not isinstance(value, Mapping):
            return None
        host, pid, started = value.get("host"), value.get("pid"), value.get("process_started")
        if not isinstance(host, str) or not isinstance(pid, int) or isinstance(pid, bool):
            return None
        namespace = value.get("pid_namespace")
        namespace = namespace if type(namespace) is int else None
        return cls(host, pid, started if isinstance(started, str) else None, namespace)

    def to_plain(self) -> dict[str, Any]:
        """Return the owner as JSON has it."""
        own = {"process_started": self.started, "pid_namespace": self.namespace}
        return {"host": self.host, "pid": self.pid, **own}

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
