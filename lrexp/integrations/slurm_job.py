"""What a job of Slurm does: it starts `lrexp worker`, pauses it when Slurm says so, and reports.

Slurm announces the end of a time limit, and a preemption, by SIGUSR2: the worker ends at a
checkpoint, and the job goes back into the queue. Everything else about a job stands in a file that
is named after it, since who submitted it may be gone. torch is imported by the worker alone.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lrexp.runs.files import find_json, write_json
from lrexp.runs.lock import break_lease
from lrexp.runs.worker import DONE, READY, STOPPED

MOST_IDLE = 3  # times in a row that a job goes back into the queue without having gained anything
_LOCAL_REQUEUE = 144  # the exit code that submitit's local executor understands


@dataclass(frozen=True)
class Report:
    """What a job says of itself.

    Args:
        host, pid: of its worker.
        is_ready: the worker has begun to train.
        code: with which the worker ended; None while it runs, or will run again.
        told: what went wrong.
        was_paused: Slurm asked for the end.
        idle: how often in a row that was so before anything was gained.
    """

    host: str = ""
    pid: int = 0
    is_ready: bool = False
    code: int | None = None
    told: str = ""
    was_paused: bool = False
    idle: int = 0

    @classmethod
    def read(cls, path: Path) -> Report | None:
        """Return what a file says, None where there is none; a stranger's may say anything."""
        found = find_json(path)
        if found is None:
            return None
        known: dict[str, Any] = {name: found.get(name) for name in asdict(cls())}
        code = known.pop("code")
        fits = all(type(value) is type(getattr(cls(), name)) for name, value in known.items())
        return cls(**known, code=code if type(code) is int else None) if fits else None

    def write(self, path: Path) -> None:
        """Write the file."""
        write_json(path, asdict(self))


@dataclass(frozen=True)
class WorkerJob:
    """The callable that submitit runs.

    Args:
        command: of the worker; it runs on this machine, so it is told to end with this process.
        environment: besides that of the job.
        folder: of the reports.
        run: the run directory.
        leases: of the groups that the worker may train.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    run: Path
    leases: tuple[Path, ...]

    def __call__(self) -> int:
        """Train, and return the worker's exit code."""
        job = _job_id()
        path = self.folder / f"{job}.json"
        before = Report.read(path) or Report()
        for lease in self.leases:  # of this very job, before it was requeued: it is gone
            break_lease(lease, before.host, before.pid)
        began = time.time()
        report, signals = self._train(path, Report(idle=before.idle))
        if signal.SIGUSR2 in signals and report.code == STOPPED:
            gained = report.is_ready and self._has_gained(began)
            report = replace(report, was_paused=True, idle=0 if gained else before.idle + 1)
            if report.idle < MOST_IDLE:
                replace(report, code=None).write(path)
                if not _requeued(job):
                    report.write(path)
                return STOPPED
        report.write(path)
        return DONE if report.code is None else report.code

    def _train(self, path: Path, report: Report) -> tuple[Report, list[int]]:
        """Run the worker; return how it ended, and the signals that came meanwhile."""
        signals: list[int] = []
        workers: list[subprocess.Popen[bytes]] = []

        def pause(number: int, _: object) -> None:
            signals.append(number)
            for worker in workers:
                worker.terminate()

        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, pause)
        at = self.command.index("worker") + 1
        words = [*self.command[:at], "--parent", str(os.getpid()), *self.command[at:]]
        # Slurm signals every process of a job: this one alone is to hear of SIGUSR2.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        worker = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, **self.environment},
            start_new_session=True,
        )
        workers.append(worker)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        if signals:
            worker.terminate()
        report = replace(report, host=platform.node(), pid=worker.pid)
        report.write(path)
        told = b""
        assert worker.stdout is not None
        for line in worker.stdout:
            if line == READY:
                report = replace(report, is_ready=True)
                report.write(path)
            else:
                told += line
        return replace(report, code=worker.wait(), told=_words(told)), signals

    def _has_gained(self, began: float) -> bool:
        """Return whether there is a checkpoint or a result of this time."""
        leases = [lease.with_suffix(".safetensors") for lease in self.leases]
        files = [*leases, *self.run.glob("trials/*/*/result.json")]
        return any(file.exists() and file.stat().st_mtime > began - 5 for file in files)


def _job_id() -> str:
    from submitit import JobEnvironment

    return str(JobEnvironment().job_id)


def _requeued(job: str) -> bool:
    """Put this job back into the queue; return False where Slurm does not."""
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        sys.exit(_LOCAL_REQUEUE)
    return subprocess.run(["scontrol", "requeue", job], check=False).returncode == 0


def _words(told: bytes) -> str:
    try:
        found: Any = json.loads(told)
        return str(found["error"])
    except (ValueError, KeyError, TypeError):
        return ""
