"""`executor: slurm`: groups of trials as arrays of jobs, submitted by submitit on a shared folder.

Jobs need nobody who waits for them. The command follows their files; when it is interrupted, they
go on, and `lrexp resume` collects what has ended since. Their ids stand in the run directory, so
that none is submitted twice; leases keep two workers from one group in any case.
"""

from __future__ import annotations

import heapq
import os
import re
import secrets
import shlex
import signal
import sys
import time as clock
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from lrexp.errors import RunError
from lrexp.integrations.sbatch import ENDED, MOST_JOBS, asked, minutes, most_jobs, refusal, require
from lrexp.integrations.slurm_job import Report, WorkerJob
from lrexp.records import Group, TrialId
from lrexp.runs.executor import (
    ATTEMPTS,
    JOBS,
    LAST_SECONDS,
    MOST_SECONDS,
    POLL_SECONDS,
    StopSignal,
    ending,
    note_death,
    register_executor,
    send_objects,
    thread_settings,
    undone,
    worker_command,
)
from lrexp.runs.files import disk_errors, find_json, write_json
from lrexp.runs.lock import Owner, break_lease, claimant, claimed, is_silent
from lrexp.runs.spec import RunSpec
from lrexp.runs.stages import read_stages
from lrexp.runs.worker import DONE, FAILED, OBJECTS, STOPPED, WRONG, WorkerOptions, lease_path

QUEUE_SECONDS = 2.0  # between two questions to Slurm
END_SECONDS = 0.3  # between two looks at whether jobs have ended
SETTLE_SECONDS = 5.0  # until a file that a job wrote shows on another machine
LOG_LINES = 5  # of a job that did not begin
NO_LIMIT = 365 * 24 * 60  # minutes, of a job on this machine
_JOB = re.compile(r"\d+(_\d+)?")
_TOKEN = re.compile(r"[0-9a-f]{8}")


@dataclass
class _Job:
    """A job that was submitted and is not known to have ended."""

    id: str
    names: tuple[str, ...]  # of the first trial of each of its groups
    folder: Path
    owner: Owner | None = None  # its process, where it is one of this machine
    is_ours: bool = True  # of this command, not of an earlier one
    gone: float | None = None  # since when Slurm knows it no more
    handle: Any = None  # submitit's, of a process that this one started

    @property
    def report(self) -> Report:
        """What it says of itself."""
        return Report.read(self.folder / f"{self.id}.json") or Report()

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        owner = self.owner.to_plain() if self.owner else None
        return {"names": list(self.names), "folder": self.folder.name, "owner": owner}


@register_executor("slurm")
class SlurmJobs:
    """Jobs in arrays, each with a group to train, or with several.

    Args:
        jobs: how many run at a time where `local` is set and `slots` is not.
        spec: of the run.
        devices: none is passed on: a job sees the GPUs that Slurm gives it.
        force: whether workers go on with a run that does not fit what is there.
        partition: of the cluster; None is its default.
        time: limit of a job, minutes or as Slurm has it, `2-12:00:00`; None is the partition's. A
            job that reaches it pauses and is queued again.
        cpus: of a job; torch has as many threads.
        gpus: of a job.
        memory: of a job, `16G`.
        array: jobs in an array at most.
        slots: jobs that share the groups out, by their steps; None is a job for each group.
        folder: for logs; None is a folder in the run.
        local: run jobs on this machine, without Slurm.
        detach: let jobs go on when the command is interrupted; else they end at checkpoints.
        grace: seconds before the end of the time limit at which jobs pause.
        options: more of sbatch's, `{account: physics}`.
    """

    def __init__(
        self,
        jobs: int,
        spec: RunSpec,
        *,
        devices: Sequence[str] | None = None,
        force: bool = False,
        partition: str | None = None,
        time: int | str | None = None,
        cpus: Annotated[int, Ge(1)] = 1,
        gpus: Annotated[int, Ge(0)] = 0,
        memory: str | None = None,
        array: Annotated[int, Ge(1)] = 1000,
        slots: Annotated[int, Ge(1)] | None = None,
        folder: str | None = None,
        local: bool = False,
        detach: bool = True,
        grace: Annotated[int, Ge(1)] = 90,
        options: dict[str, str | int | bool] | None = None,
    ) -> None:
        given = {"time": time, "memory": memory, "options": options, "partition": partition}
        require({**given, "local": local})
        self._spec, self._limit = spec, slots or (jobs if local else None)
        self._array, self._folder = array, folder
        self._is_local, self._detaches = local, detach
        self._minutes = None if time is None else minutes(time)
        device = {True: "cuda", False: "cpu"}[gpus > 0] if _is_auto(spec) else None
        self._options = WorkerOptions(device, threads=cpus, trust=spec.trust, force=force)
        more = {"requeue": True, "signal": f"USR2@{grace}", "mem": memory, **(options or {})}
        self._parameters: dict[str, Any] = {
            "job_name": "lrexp", "partition": partition, "time": self._minutes, "wckey": None,
            "cpus_per_task": cpus, "gpus_per_node": gpus or None,
            "srun_args": [f"--cpus-per-task={cpus}"],  # srun does not take over that of sbatch
            "additional_parameters": {k: v for k, v in more.items() if v not in (None, False)},
        }  # fmt: skip
        self._local_parameters = {
            "timeout_min": self._minutes or NO_LIMIT, "signal_delay_s": grace,
            "gpus_per_node": gpus,
        }  # fmt: skip
        self._jobs: dict[str, _Job] = {}
        self._folders: set[Path] = set()  # of this command's jobs
        self._failed_starts: dict[str, int] = {}
        self._asked = 0.0
        self.deaths: dict[TrialId, list[str]] = {}
        self.say: Callable[[str], object] = lambda text: None

    require = staticmethod(require)

    def run(self, run: Path, groups: Sequence[Group], stop: StopSignal) -> None:
        """Train groups; see `Executor`."""
        left = groups
        try:
            self._options = send_objects(run, self._spec, self._options)
            self._jobs = {job.id: job for job in self._earlier(run)}
            while not stop.at_once:
                begin = clock.monotonic()
                if not (left := undone(run, left)):
                    break
                looked = clock.monotonic() - begin
                if stop.ask():
                    break
                self._look(run, left)
                self._submit_missing(run, left)
                clock.sleep(max(POLL_SECONDS, min(10 * looked, MOST_SECONDS)))
        except BaseException:
            self._end(at_once=lambda: True)
            raise
        if not left:
            self._close(run)
        elif self._detaches:
            self._leave(run)
        else:
            self._end(at_once=lambda: stop.at_once)

    def _look(self, run: Path, left: Sequence[Group]) -> None:
        """See to the jobs that have ended; Slurm is asked now and then only."""
        now = clock.monotonic()
        if not self._jobs or now - self._asked < (
            POLL_SECONDS if self._is_local else QUEUE_SECONDS
        ):
            return
        states = self._states()
        self._asked = clock.monotonic()
        if states is None:  # no answer: nothing is known to have ended
            return
        for job in list(self._jobs.values()):
            state = states.get(job.id, "")
            if state and state not in ENDED:
                job.gone = None
                continue
            job.gone = job.gone or now
            if job.report.code is not None or self._is_local or now - job.gone > SETTLE_SECONDS:
                del self._jobs[job.id]
                self._after(job, state, run, left)

    def _states(self) -> dict[str, str] | None:
        """Return the state of each job that is known; None where Slurm does not answer."""
        if self._is_local:
            for job in self._jobs.values():
                if job.handle is not None:
                    job.handle.done()  # it would stay a zombie
            alive = [job for job in self._jobs.values() if job.owner and not job.owner.is_gone()]
            return {job.id: "RUNNING" for job in alive}
        ids = ",".join(sorted({job.partition("_")[0] for job in self._jobs}))
        words = [
            "squeue",
            "--noheader",
            "--array",
            "--states=all",
            "--format=%i|%T",
            f"--jobs={ids}",
        ]
        done = asked(words)
        if done.returncode and "Invalid job id" not in done.stderr:
            return None
        lines = [line.partition("|") for line in done.stdout.split()]
        return {job: state for job, _, state in lines}

    def _after(self, job: _Job, state: str, run: Path, left: Sequence[Group]) -> None:
        """Give the trials of a job that has ended too early another try, or up."""
        report = job.report
        if report.code == WRONG and job.is_ours:
            raise RunError(report.told or f"Job {job.id} failed. {_log(job)}")
        groups = [group for group in left if group.trials[0].name in job.names]
        leases = {group: lease_path(run, group) for group in groups}
        held = [g for g in groups if report.pid and claimant(leases[g]) == report.pid]
        for group in held:
            break_lease(leases[group], report.host, report.pid)
        is_excused = report.was_paused and report.idle == 0
        if report.code in (DONE, FAILED, WRONG) or state == "PREEMPTED" or is_excused:
            return
        how = _how(report, state)
        if not report.is_ready:
            self._note_failed_start(job, how)
        for group in (held or groups[:1]) if report.is_ready else []:
            with claimed(leases[group]) as ours:
                if ours is not None:  # else another one trains it by now
                    note_death(run, group, how, self.deaths)

    def _note_failed_start(self, job: _Job, how: str) -> None:
        count = self._failed_starts.get(job.names[0], 0) + 1
        self._failed_starts[job.names[0]] = count
        if count >= ATTEMPTS and job.is_ours:
            raise RunError(
                f"Job {job.id} {how} before it began to train, {job.names[0]}. {_log(job)}"
            )

    def _submit_missing(self, run: Path, left: Sequence[Group]) -> None:
        """Submit jobs for the groups that have none, unless somebody else trains them."""
        named = {name for job in self._jobs.values() for name in job.names}
        missing = [group for group in left if group.trials[0].name not in named]
        free = self._limit - len(self._jobs) if self._limit else len(missing)
        if free < 1 or not (missing := [g for g in missing if _is_free(lease_path(run, g))]):
            return
        packs = packed(missing, self._sizes(run), free)
        size = min(self._array, MOST_JOBS if self._is_local else most_jobs())
        for at in range(0, len(packs), size):
            self._submit(run, packs[at : at + size])

    def _sizes(self, run: Path) -> dict[TrialId, int]:
        """Return the steps of each trial."""
        stages = [record.stage for record in read_stages(run)] if self._limit else []
        return {trial.id: trial.total_steps for stage in stages for trial in stage.trials}

    def _submit(self, run: Path, packs: Sequence[Sequence[Group]]) -> None:
        """Submit an array with a job for each pack of groups."""
        folder = self._base(run) / secrets.token_hex(4)
        with disk_errors(folder):
            folder.mkdir(parents=True)
        self._folders.add(folder)
        names = [tuple(group.trials[0].name for group in pack) for pack in packs]
        jobs = [
            WorkerJob(
                tuple(worker_command(run, pack_names, self._options)),
                thread_settings(self._options.threads),
                folder,
                run.absolute(),
                tuple(lease_path(run.absolute(), group) for group in pack),
            )
            for pack_names, pack in zip(names, packs, strict=True)
        ]
        try:
            sent = self._sent(folder, jobs)
        except Exception as error:
            raise refusal(error) from error
        for link in folder.iterdir():
            if link.is_symlink():  # a run holds none
                link.unlink()
        for handle, pack_names in zip(sent, names, strict=True):
            job = str(handle.job_id)
            owner = Owner.of(int(job)) if self._is_local else None
            self._jobs[job] = _Job(job, pack_names, folder, owner, handle=handle)
        write_json(run / JOBS, {"jobs": {job.id: job.to_plain() for job in self._jobs.values()}})
        if not self._is_local:
            ids = [str(handle.job_id) for handle in sent]
            self.say(f"Slurm: {_named(ids)} submitted. Logs: {folder}")

    def _sent(self, folder: Path, jobs: Sequence[WorkerJob]) -> list[Any]:
        """Hand jobs to submitit and return what it knows them by."""
        import submitit

        python = f"env PYTHONSAFEPATH=1 {shlex.quote(sys.executable)}"
        if self._is_local:
            executor: Any = submitit.LocalExecutor(folder, python=python)
            executor.update_parameters(**self._local_parameters)
        else:
            executor = submitit.SlurmExecutor(folder, python=python)
            executor.update_parameters(**self._parameters, array_parallelism=len(jobs))
        with _deaf_to_interrupts(), executor.batch():
            return [executor.submit(job) for job in jobs]

    def _earlier(self, run: Path) -> Iterator[_Job]:
        """Yield the jobs of an earlier command, as its file has them; it may be a stranger's."""
        found = (find_json(run / JOBS) or {}).get("jobs")
        for job, about in found.items() if isinstance(found, dict) else ():
            if not isinstance(about, dict) or not _JOB.fullmatch(job):
                continue
            token, names = str(about.get("folder")), about.get("names")
            owner = Owner.from_plain(about.get("owner"))
            if (
                _TOKEN.fullmatch(token)
                and isinstance(names, list)
                and (owner is None) != self._is_local
            ):
                yield _Job(
                    job, tuple(map(str, names)), self._base(run) / token, owner, is_ours=False
                )

    def _base(self, run: Path) -> Path:
        return Path(self._folder or run / "slurm").absolute()

    def _leave(self, run: Path) -> None:
        """Let jobs go on, and say how to look after them."""
        if self._jobs:
            stop = (
                f"kill {' '.join(self._jobs)}"
                if self._is_local
                else f"scancel {' '.join(_main(self._jobs))}"
            )
            self.say(
                f"{_named(self._jobs)} {'goes' if len(self._jobs) == 1 else 'go'} on without this "
                f"command. To look: lrexp runs, lrexp plot {run}. To collect what has ended and go "
                f"on: lrexp resume {run}. To stop: {stop}."
            )

    def _end(self, *, at_once: Callable[[], bool]) -> None:
        """Let every job end at a checkpoint, or at once, and wait for that."""
        asked = 0.0
        while self._jobs:
            if (states := self._states()) is not None:
                alive = {job for job, state in states.items() if state not in ENDED}
                self._jobs = {job: about for job, about in self._jobs.items() if job in alive}
            if self._jobs and clock.monotonic() - asked > 10 * END_SECONDS:
                asked = clock.monotonic()
                self._cancel(at_once=at_once())
            clock.sleep(POLL_SECONDS if self._is_local else END_SECONDS)

    def _cancel(self, *, at_once: bool) -> None:
        """Send what ends jobs; one that is only just starting may not hear of it."""
        if not self._is_local:
            asked(["scancel", *(["--signal=KILL"] if at_once else []), *self._jobs])
            return
        for job in self._jobs.values():
            with suppress(OSError):
                if at_once and job.report.pid:
                    os.killpg(job.report.pid, signal.SIGKILL)
            with suppress(OSError):
                os.kill(int(job.id), signal.SIGTERM)

    def _close(self, run: Path) -> None:
        """All is done: let workers close what user code opened, and remove what jobs needed."""
        deadline = clock.monotonic() + LAST_SECONDS
        folders = {job.folder for job in self._jobs.values()} | self._folders
        while clock.monotonic() < deadline and any(map(_is_closing, self._jobs.values())):
            clock.sleep(POLL_SECONDS)
        if not self._is_local:  # Slurm takes its time to forget one that has ended
            self._jobs = {j: job for j, job in self._jobs.items() if job.report.code is None}
        self._end(at_once=lambda: True)
        for path in (run / JOBS, run / OBJECTS, *(p for f in folders for p in f.glob("*.pkl"))):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _is_closing(job: _Job) -> bool:
    report = job.report
    return report.is_ready and report.code is None


def _is_free(lease: Path) -> bool:
    """Return whether nobody trains a group; the lease of a process that is gone is removed."""
    if claimant(lease) is None or is_silent(lease):
        return True
    with claimed(lease) as ours:
        return ours is not None


def packed(groups: Sequence[Group], steps: Mapping[TrialId, int], count: int) -> list[list[Group]]:
    """Return groups in at most so many packs of about as many steps.

    Example:
        >>> trials = [TrialId(name, 0) for name in "abc"]
        >>> groups = [Group("sequential", (trial,)) for trial in trials]
        >>> steps = dict(zip(trials, (5, 9, 5)))
        >>> [[g.trials[0].variant for g in pack] for pack in packed(groups, steps, 2)]
        [['b'], ['a', 'c']]
    """
    sizes = {group: sum(steps.get(trial, 1) for trial in group.trials) for group in groups}
    packs: list[list[Group]] = [[] for _ in range(min(count, len(groups)))]
    heap = [(0, number) for number in range(len(packs))]
    for group in sorted(groups, key=lambda group: -sizes[group]):
        size, number = heapq.heappop(heap)
        packs[number].append(group)
        heapq.heappush(heap, (size + sizes[group], number))
    return packs


def _is_auto(spec: RunSpec) -> bool:
    return spec.config().experiment.device == "auto"


def _how(report: Report, state: str) -> str:
    """Return how a job ended that was to go on, in words that follow it."""
    if state == "CANCELLED":
        return "was cancelled"
    if state == "OUT_OF_MEMORY" or report.code == -signal.SIGKILL:
        return "was killed, most often for a lack of memory: executor.memory asks for more"
    if report.was_paused or state == "TIMEOUT":
        return "ran into its time limit before a checkpoint: executor.time and executor.grace"
    if report.code not in (None, STOPPED):
        return ending(report.code)
    return f"ended as {state}" if state else "is known to Slurm no more"


def _log(job: _Job) -> str:
    """Return where a job's log is, and how it ends."""
    path = job.folder / f"{job.id}_0_log.err"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"It has no log {path}: is that folder on a disk which all nodes share?"
    return "\n".join([f"Its log is {path}:", *lines[-LOG_LINES:]])


def _named(ids: Iterable[str]) -> str:
    """Return jobs in words, arrays together.

    Example:
        >>> _named(["12_0", "12_1", "13_0"]), _named(["14"])
        ('3 jobs (12, 13)', '1 job (14)')
    """
    count = len(list(ids))
    return f"{count} job{'s' * (count != 1)} ({', '.join(_main(ids))})"


def _main(ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(job.partition("_")[0] for job in ids))


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let what is started meanwhile not hear of Ctrl-C, which reaches all that a terminal runs."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
