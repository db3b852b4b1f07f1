"""Who writes a run: a process of a host, and whether it still lives.

A process number is used again sooner or later, so the time at which the process started belongs
to it. Where the system does not tell that time, the number has to do. Processes of another host,
and of another container, cannot be seen from here: their runs show by a lock that they still live.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
