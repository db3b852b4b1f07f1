"""Executors: they start `lrexp worker` somewhere, and see to it that groups get their results.

What an executor must keep is in `tests/conformance/`. Workers share out the groups by leases; one
that dies takes only what it was at down, a trial or a stack, whose trials get one more try, each
alone.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from lrexp.config.config import Config
from lrexp.errors import NOTHING, ConfigError, Problem, RunError, WorkerDiedError, did_you_mean
from lrexp.records import Group, TrialId
from lrexp.runs.checkpoint import remove_checkpoint
from lrexp.runs.files import disk_errors, trial_path, write_json, write_whole
from lrexp.runs.lock import claimant, claimed, is_silent
from lrexp.runs.spec import RunSpec
from lrexp.runs.stages import read_stages
from lrexp.runs.trial_files import failure
from lrexp.runs.worker import (
    DONE,
    FAILED,
    OBJECTS,
    READY,
    STOPPED,
    WRONG,
    WorkerOptions,
    lease_path,
    one_by_one_path,
)
from lrexp.runs.writer import STEPS_HEADER
from lrexp.schedules.signatures import check_arguments

ATTEMPTS = 2  # of a trial whose worker dies, and of the only worker to start
LAST_SECONDS = 10.0  # for a worker to end by itself when all is done
LOOK_SECONDS = 0.5  # between two looks at whether one more worker is needed
POLL_SECONDS = 0.05  # between two looks at workers and results
MOST_SECONDS = 1.0  # where looking takes long
# Not `-m`: that would put the working directory first, where a user's `queue.py` may lie.
_START = "import sys; sys.path[:] = {path!r}; from lrexp.cli import main; main()"
_printing = threading.Lock()  # lines of several workers do not mix


@dataclass
class StopSignal:
    """Tells an executor when to stop; `ask` may be called from any thread."""

    ask: Callable[[], bool] = lambda: False  # whether workers should end at a checkpoint
    at_once: bool = False  # kill them


class Executor(Protocol):
    """Trains groups of a run in workers, wherever these are.

    One whose workers may die and be replaced has a mapping `deaths`: for each trial, how the
    workers ended that died while they trained it. One that keeps workers from stage to stage has a
    method `close()`; one that has something to tell, an attribute `say`, which is set to a function
    of a line; one that may not be had here, a static method `require(options)`, which raises a
    ConfigError before anything is written.
    """

    def run(self, run: Path, groups: Sequence[Group], stop: StopSignal) -> None:
        """Train groups until every trial has its result.json, or until it is told to stop.

        Nothing trains them any more when it returns, but for jobs of a cluster that go on by
        themselves after a stop. A trial whose worker died twice gets a result that says so.

        Raises:
            RunError: no worker can be started, or none can plan the run.
        """


LOCAL, PROCESSES = "local", "processes"
JOBS = "jobs.json"  # in the run directory: what outlives who started it, such as jobs of a cluster
EXECUTORS: dict[str, Callable[..., Executor]] = {}
# Modules that register one of the same name; each says which extra it needs when it is made.
INTEGRATED = {"ray": "lrexp.integrations.ray", "slurm": "lrexp.integrations.slurm"}
_FILLED = {"jobs": "--jobs", "spec": "the command", "force": "--force", "devices": "device"}
_Factory = TypeVar("_Factory", bound=Callable[..., Executor])


def register_executor(name: str) -> Callable[[_Factory], _Factory]:
    """Register what makes an executor, under the name that a config and `--executor` give it.

    It is called as `make(jobs, spec, force=..., devices=..., **options)`: how many groups to train
    at a time, the `RunSpec`, whether workers need `--force`, the GPUs of this machine that they may
    share (or None), and the keys that stand beside `name` in the config's section `executor`.

    Example:
        >>> @register_executor("mine")
        ... class Mine:
        ...     def __init__(self, jobs, spec, *, queue="short", **_): ...
        ...     def run(self, run_dir, groups, stop): ...  # starts `lrexp worker RUN TRIAL...`
        >>> del EXECUTORS["mine"]
    """

    def register(make: _Factory) -> _Factory:
        EXECUTORS[name] = make
        return make

    return register


def executor_changes(given: Any) -> list[tuple[str, Any, str]]:
    """Return how the argument `executor` changes a config; an object is none of its values."""
    if given is None or hasattr(given, "run"):
        return []
    key = "executor.name" if isinstance(given, str) else "executor"
    return [(key, given, "--executor")]


def chosen_executor(given: Any, config: Config) -> Executor | dict[str, Any]:
    """Return the object that was given, or the section `executor` with what was given in its place.

    Raises:
        ConfigError: nothing of this name is registered, or it does not take these options.
    """
    if hasattr(given, "run"):
        executor: Executor = given
        return executor
    section: dict[str, Any] = config.experiment.executor.model_dump()
    section |= {"name": given} if isinstance(given, str) else {}
    section = dict(given) if isinstance(given, Mapping) else section
    name, options = section.get("name"), {k: v for k, v in section.items() if k != "name"}
    if name in INTEGRATED and name not in EXECUTORS:
        importlib.import_module(INTEGRATED[name])
    if name not in EXECUTORS:
        known = did_you_mean(str(name), {*EXECUTORS, *INTEGRATED})
        problem = Problem("executor.name", "is not the name of an executor", name, known)
        raise ConfigError([problem]).placed(config.document.place_of)
    found = check_arguments(EXECUTORS[name], options, title=f"the executor {name}", filled=_FILLED)
    if found:
        raise ConfigError(found).under("executor").placed(config.document.place_of)
    try:
        getattr(EXECUTORS[name], "require", lambda options: None)(options)
    except ConfigError as error:
        raise error.under("executor").placed(config.document.place_of) from None
    return section


def why_not_processes(spec: RunSpec) -> str | None:
    """Return why a run cannot be trained in worker processes, None where it can."""
    if not sys.executable:
        return "this program contains its own Python interpreter"
    objects = spec.objects
    if not objects.sections and not objects.registered:
        return None
    try:
        _dump(objects, _Nowhere())
    except Exception as error:  # an object's own __reduce__ may raise anything
        metrics = [f"the metric {metric.words}" for metric in objects.registered.values()]
        names = " or ".join([*sorted(objects.sections), *metrics])
        return f"{names} cannot be sent to another process ({str(error) or type(error).__name__})"
    return None


def pickled_objects(spec: RunSpec) -> bytes | None:
    """Return the Python objects of a run for its workers; None where it was given none.

    Raises:
        ConfigError: they cannot be sent.
    """
    if (why := why_not_processes(spec)) is not None:
        remedy = "Use local, which then trains in this process, or define them in a module."
        raise ConfigError.single("executor", f"can start no processes: {why}", NOTHING, remedy)
    if not spec.objects.sections and not spec.objects.registered:
        return None
    buffer = io.BytesIO()
    _dump(spec.objects, buffer)
    return buffer.getvalue()


def _dump(objects: Any, file: Any) -> None:
    import cloudpickle

    cloudpickle.CloudPickler(file).dump(objects)


def send_objects(run: Path, spec: RunSpec, options: WorkerOptions) -> WorkerOptions:
    """Write the Python objects of a run where its workers find them; return the options with that.

    Raises:
        ConfigError: they cannot be sent.
    """
    if (objects := pickled_objects(spec)) is None:
        return options
    write_whole(run / OBJECTS, objects)
    return replace(options, objects=hashlib.sha256(objects).hexdigest())


class _Nowhere(io.RawIOBase):
    """A file for nothing: a trial needs no copy of the data."""

    def write(self, data: Any) -> int:
        """Count."""
        return memoryview(data).nbytes


@register_executor(LOCAL)
@register_executor(PROCESSES)
class LocalProcesses:
    """At most `jobs` worker processes on this machine; `local` needs none for one job.

    Python objects travel in a file of the run directory. Worker i trains on
    `devices[i % len(devices)]`, by default on the config's. With another number of `threads` sums
    may be split differently, and so differ in their last bits.
    """

    def __init__(
        self,
        jobs: int,
        spec: RunSpec,
        *,
        devices: Sequence[str] | None = None,
        threads: int = 1,
        force: bool = False,
    ) -> None:
        self._limit, self._spec = jobs, spec
        self._starts = ATTEMPTS  # of the last worker that may still fail
        self._devices = devices or (None,)
        self._options = WorkerOptions(
            threads=threads, trust=spec.trust, force=force, parent=os.getpid()
        )
        self._workers: dict[int, _Worker] = {}  # by slot
        self._looked = -math.inf  # when it was last asked whether one more is needed
        self.deaths: dict[TrialId, list[str]] = {}

    def run(self, run: Path, groups: Sequence[Group], stop: StopSignal) -> None:
        """Train groups; see `Executor`."""
        left = groups
        try:
            self._write_objects(run)
            while not stop.at_once:
                begin = time.monotonic()
                if not (left := undone(run, left)):
                    break
                looked = time.monotonic() - begin  # at a thousand trials, a while
                if stop.ask():
                    self._stop(stop)
                    return
                for slot, worker in list(self._workers.items()):
                    if worker.has_ended():
                        del self._workers[slot]
                        self._after(worker, run, left)
                self._start_missing(run, left)
                time.sleep(max(POLL_SECONDS, min(10 * looked, MOST_SECONDS)))
            if not stop.at_once:
                self._let_end()
        finally:
            for worker in self._workers.values():
                worker.kill()
            self._workers.clear()
            with suppress(OSError):
                (run / OBJECTS).unlink(missing_ok=True)

    def _write_objects(self, run: Path) -> None:
        self._options = send_objects(run, self._spec, self._options)

    def _stop(self, stop: StopSignal) -> None:
        """Let every worker end at a checkpoint."""
        for worker in self._workers.values():
            worker.terminate()
        while not stop.at_once and not all(w.has_ended() for w in self._workers.values()):
            time.sleep(POLL_SECONDS)

    def _let_end(self) -> None:
        """Let the workers close what user code opened; those that found nothing to do have none."""
        for worker in self._workers.values():
            if worker.is_ready:
                worker.wait(LAST_SECONDS)

    def _start_missing(self, run: Path, left: Sequence[Group]) -> None:
        """Start workers while there are more groups to train than workers that look for one."""
        now = time.monotonic()
        if len(self._workers) >= self._limit or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        seekers = sum(not worker.is_ready for worker in self._workers.values())
        free = sum(self._is_free(lease_path(run, group)) for group in left)
        names = [group.trials[0].name for group in left]  # of each group, one says which it is
        for _ in range(min(self._limit - len(self._workers), free - seekers)):
            self._start(run, names)

    def _is_free(self, lease: Path) -> bool:
        """Return whether nobody trains a group; the lease of a process that is gone is removed."""
        holder = claimant(lease)
        if holder is None or any(worker.pid == holder for worker in self._workers.values()):
            return holder is None
        if is_silent(lease):  # of another host; a worker waits a while before it takes it over
            return True
        with claimed(lease) as ours:
            return ours is not None

    def _start(self, run: Path, names: Sequence[str]) -> None:
        slot = next(i for i in count() if i not in self._workers)
        device = self._devices[slot % len(self._devices)]
        try:
            self._workers[slot] = _Worker(run, names, replace(self._options, device=device))
        except OSError as error:
            self._go_on_with_fewer(f"The system refuses: {error}")

    def _go_on_with_fewer(self, why: str) -> None:
        """Train in the workers that there are: one more has no room beside them."""
        if self._limit > 1:
            self._limit -= 1
            return
        self._starts -= 1
        if self._starts == 0:
            raise RunError(f"No worker process can be started. {why}. Try --jobs 1.")

    def _after(self, worker: _Worker, run: Path, left: Sequence[Group]) -> None:
        """Give the trials that a dead worker had not ended another try, or up."""
        code, told = worker.end()
        if code == WRONG:
            raise RunError(told)
        if not worker.is_ready and code != STOPPED:
            self._go_on_with_fewer(f"The last one {ending(code)}")
        if code in (DONE, FAILED, STOPPED):
            return
        for group in left:
            lease = lease_path(run, group)
            if claimant(lease) == worker.pid:
                with claimed(lease) as ours:
                    if ours is not None:  # else another one trains it by now
                        note_death(run, group, ending(code), self.deaths)


class _Worker:
    """A worker process that may train the groups of the named trials."""

    def __init__(self, run: Path, names: Sequence[str], options: WorkerOptions) -> None:
        self.is_ready = False  # it has made its plan
        self._told = b""
        self._process = subprocess.Popen(
            worker_command(run, names, options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **thread_settings(options.threads)},
            start_new_session=True,  # Ctrl-C reaches the parent only, which then ends its workers
        )
        self.pid = self._process.pid
        self._threads = [
            threading.Thread(target=listen, daemon=True) for listen in (self._hear, self._show)
        ]
        for thread in self._threads:
            thread.start()

    def has_ended(self) -> bool:
        """Return whether the process is gone."""
        return self._process.poll() is not None

    def terminate(self) -> None:
        """Let it end at a checkpoint, as soon as it can."""
        with suppress(OSError):
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Wait a while for its end."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self) -> None:
        """Kill it and what it started, and wait until it is gone."""
        with suppress(OSError):
            if hasattr(os, "killpg"):  # it leads a group of its own
                os.killpg(self.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join(1.0)

    def end(self) -> tuple[int, str]:
        """Return the exit code of one that has ended, and what it said; kill what it started."""
        self.kill()
        try:
            told = str(json.loads(self._told)["error"])
        except (ValueError, KeyError, TypeError):
            told = "A worker process failed."
        return self._process.returncode, told

    def _hear(self) -> None:
        """Take in what it says: a line when it begins to train, or what went wrong."""
        with _pipe(self._process.stdout) as pipe:
            for line in pipe:
                if line == READY:
                    self.is_ready = True
                else:
                    self._told += line

    def _show(self) -> None:
        """Print what it prints where this process shows its messages."""
        with _pipe(self._process.stderr) as pipe:
            for line in pipe:
                with _printing, suppress(OSError, ValueError):
                    sys.stderr.write(line.decode(errors="replace"))


def worker_command(run: Path, names: Sequence[str], options: WorkerOptions) -> list[str]:
    """Return the words that start a worker with this Python and these packages."""
    start = _START.format(path=[entry for entry in sys.path if isinstance(entry, str)])
    warnings = [f"-W{option}" for option in sys.warnoptions]
    words = ["worker", *options.words(), str(run.absolute()), *names]
    return [sys.executable, *warnings, "-c", start, *words]


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def thread_settings(threads: int) -> dict[str, str]:
    """Return what must be in the environment before torch is imported."""
    count = str(threads)
    # Threads that spin while they wait take the cores from the other workers.
    return {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OMP_WAIT_POLICY": "PASSIVE"}


def ending(code: int) -> str:
    """Return how a process ended, in words that follow it: `was killed (...)`."""
    if code >= 0:
        return f"ended with exit code {code}"
    known = {number.value: number.name for number in signal.Signals}
    return f"was killed (signal {-code}, {known.get(-code, 'unknown')})"


def note_death(run: Path, group: Group, how: str, deaths: dict[TrialId, list[str]]) -> None:
    """Note how the worker of a group died, while its lease is ours: give its trials up, or on."""
    left = [trial for trial in group.trials if not _has_result(run, trial)]
    alone = one_by_one_path(run, group)
    if group.engine == "vectorized" and not alone.exists():
        # Alone, so that a trial takes no other one down. It may then differ from what the stack
        # would have given in its last bits.
        write_whole(alone, "")
        remove_checkpoint(run, group.trials[0])
    else:  # they are trained in order
        left = left[:1]
    for trial in left:
        endings = [*deaths.get(trial, ()), how]
        if len(endings) >= ATTEMPTS:
            _give_up(run, trial, endings)
        deaths[trial] = endings  # now, not before: who sees it looks for a result, too


def undone(run: Path, groups: Sequence[Group]) -> list[Group]:
    """Return the groups with a trial that has no result."""
    return [group for group in groups if not all(_has_result(run, t) for t in group.trials)]


def _has_result(run: Path, trial: TrialId) -> bool:
    return (trial_path(run, trial.variant, trial.seed) / "result.json").exists()


def _give_up(run: Path, trial: TrialId, deaths: Sequence[str]) -> None:
    """Write the result of a trial whose workers died: there is nobody else to write it."""
    folder = trial_path(run, trial.variant, trial.seed)
    steps = folder / "steps.csv"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not steps.exists():
            write_whole(steps, ",".join(STEPS_HEADER) + "\n")
        rows = steps.read_bytes().count(b"\n") - 1
    kinds = {t.id: t.kind for record in read_stages(run) for t in record.stage.trials}
    named = {"variant": trial.variant, "seed": trial.seed, "kind": kinds[trial]}
    facts = {"outcome": "failed", "steps": max(0, rows), **failure(_died(trial, deaths), trial)}
    write_json(folder / "result.json", {**named, **facts, "final": {}, "best": {}})


def _died(trial: TrialId, deaths: Sequence[str]) -> WorkerDiedError:
    first, last = deaths[0], deaths[-1]
    how = f"{last}, twice" if first == last else f"{first}, and at the second try {last}"
    hint = ""
    if "SIGKILL" in last:
        hint = "; the usual reason is a lack of memory. Try fewer processes (--jobs)"
    elif "signal" in last:
        hint = "; the reason is a fault in compiled code"
    return WorkerDiedError(
        f"variant {trial.variant}, seed {trial.seed}: its worker process {how}{hint}."
    )
