"""Training groups of trials, given a run directory and their names: `lrexp worker RUN TRIAL...`.

Whoever trains a group holds its lease, writes the folders of its trials, and reads nothing but the
run directory. It can be killed and started again: what has its result is passed over, what has a
checkpoint goes on from there. Several processes that are given the same names share them out.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrexp.errors import ConfigError, LrexpError, RunError
from lrexp.runs.signals import SIGNALS

if TYPE_CHECKING:
    from lrexp.engine.stop import Pause
    from lrexp.records import Group, Record, Trial
    from lrexp.runs.builder import Objects
    from lrexp.runs.plan import Plan

OBJECTS = "objects.pkl"  # in the run directory: what was given as Python objects
DONE, WRONG, FAILED, STOPPED = 0, 2, 3, 130  # exit codes
READY = b"ready\n"  # on stdout, when it begins to train
_WATCH_SECONDS = 0.5  # between two looks at who started this process
_LAST_SECONDS = 20.0  # to reach a checkpoint once that is gone
_BUSY_SECONDS = 0.2  # between two looks at a group that another process trains


def train_groups(
    run: Path,
    plan: Plan,
    trials: Iterable[Trial],
    groups: Sequence[Group],
    pause: Pause,
    *,
    waits: bool = False,
    watched: bool = False,
) -> Generator[Record, None, None]:
    """Train what is left of these groups, in order, into the run directory; yield the records.

    Args:
        waits: wait for a group that another process trains: one that was orphaned ends soon. Else
            it is passed over.
        watched: leave a group whose process has died to who started that one: it counts.
    """
    from lrexp.engine.engines import ENGINES
    from lrexp.runs.checkpoint import read_remaining
    from lrexp.runs.lock import claimant, claimed, is_silent, still_ours
    from lrexp.runs.spec import hardware
    from lrexp.runs.trial_files import TrialFiles
    from lrexp.runs.trials import group_tasks

    known = {trial.id: trial for trial in trials}
    digits = 17 if plan.config.experiment.precision == "fp64" else 9
    for group in groups:
        lease_file = lease_path(run, group)
        while not _is_stopped(pause):
            if watched and claimant(lease_file) is not None and not is_silent(lease_file):
                break
            with claimed(lease_file) as lease:
                if lease is not None:
                    left = read_remaining(run, parts(run, group))
                    files = TrialFiles(
                        run, known.values(), left,
                        digits=digits, require_ours=still_ours(run, lease),
                        directions=plan.directions, hardware=hardware(plan.device),
                    )  # fmt: skip
                    with closing(files):
                        for part in left.groups:
                            if _is_stopped(pause):
                                return
                            tasks = group_tasks(plan, part, known, pause, left.saved)
                            for record in ENGINES[part.engine](tasks):
                                files(record)
                                yield record
            if lease is not None or not waits:
                break
            time.sleep(_BUSY_SECONDS)


def _is_stopped(pause: Pause) -> bool:
    return pause.requested


def lease_path(run: Path, group: Group) -> Path:
    """Return the file that says who trains a group."""
    return _beside_checkpoint(run, group, ".lease")


def one_by_one_path(run: Path, group: Group) -> Path:
    """Return the file that says that a group is no stack any more: the process of one died."""
    return _beside_checkpoint(run, group, ".one-by-one")


def _beside_checkpoint(run: Path, group: Group, suffix: str) -> Path:
    from lrexp.runs.checkpoint import checkpoint_path

    return checkpoint_path(run, group.trials[0]).with_suffix(suffix)


def parts(run: Path, group: Group) -> list[Group]:
    """Return a group, or each of its trials alone: one takes no other down then."""
    if not one_by_one_path(run, group).exists():
        return [group]
    return [replace(group, engine="sequential", trials=(t,), stack=()) for t in group.trials]


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is told besides its run and its trials; no number depends on it."""

    device: str | None = None  # in place of the config's
    threads: int = 1  # of torch
    trust: tuple[str, ...] = ()  # packages that the config may reach: it may be a stranger's
    force: bool = False  # train although files or versions differ from those of the beginning
    objects: str | None = None  # digest of objects.pkl, which is opened only if it has this one
    parent: int | None = None  # a process whose end ends this one, at a checkpoint

    def words(self) -> list[str]:
        """Return them as the command line has them."""
        names = ("device", "threads", "objects", "parent")
        pairs = [(f"--{name}", getattr(self, name)) for name in names]
        pairs += [("--trust", prefix) for prefix in self.trust]
        words = [str(word) for pair in pairs if pair[1] is not None for word in pair]
        return words + ["--force"] * self.force


def work(run: Path, names: Sequence[str], options: WorkerOptions) -> int:
    """Train these trials and return the exit code; what else went wrong is JSON on stdout."""
    told = _private_stdout()
    try:
        from lrexp.engine.stop import Pause
        from lrexp.records import Failed
        from lrexp.runs.signals import quiet_loaders

        pauses: list[Pause] = []
        _stop_when_told(pauses, options.parent)
        with _silence():
            plan, groups, trials = prepare(run, names, options)
        pauses.append(pause := Pause())
        told.write(READY)
        told.flush()
        failed = False
        with quiet_loaders(pause), dying_with_loaders():
            watched = options.parent is not None
            for record in train_groups(run, plan, trials, groups, pause, watched=watched):
                failed |= isinstance(record, Failed)
        if pause.requested:
            return STOPPED
        return FAILED if failed else DONE
    except BaseException as error:  # user code may raise anything
        known = isinstance(error, LrexpError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        with suppress(OSError):
            told.write(json.dumps({"error": text}).encode())
            told.flush()
        return WRONG


def prepare(
    run: Path, names: Sequence[str], options: WorkerOptions
) -> tuple[Plan, list[Group], list[Trial]]:
    """Return the plan of the run, and the groups and trials that were named."""
    from lrexp.records import METRICS, TrialId
    from lrexp.runs.resume import changed_versions, read_spec, refuse
    from lrexp.runs.stages import read_stages

    _set_torch(run, options.threads)
    objects = _objects(run, options.objects)
    METRICS.update(objects.registered)
    refuse(changed_versions(run), force=options.force)
    spec, _ = read_spec(run, objects, options.trust, force=options.force)
    if options.device is not None:
        spec = replace(spec, changes=(*spec.changes, ("device", options.device, "--device")))
    wanted = {TrialId.of(name) for name in names}
    records = read_stages(run)
    trials = [t for record in records for t in record.stage.trials if t.id in wanted]
    if missing := wanted - {trial.id for trial in trials}:
        named = ", ".join(sorted(trial.name for trial in missing))
        raise RunError(f"{run}: has no trials {named}. See its engine.json.")
    every = [group for record in records for group in record.choice.groups]
    groups = [group for group in every if wanted & set(group.trials)]
    members = {trial for group in groups for trial in group.trials}
    trials = [t for record in records for t in record.stage.trials if t.id in members]
    return spec.plan(), groups, trials


def _set_torch(run: Path, threads: int) -> None:
    """Give torch the settings that numbers depend on, as the run began with them."""
    import torch

    from lrexp.runs.files import read_json

    said = read_json(run / "environment.json")
    torch.set_num_threads(threads)
    dtype = getattr(torch, str(said.get("default_dtype")).removeprefix("torch."), None)
    if isinstance(dtype, torch.dtype):
        torch.set_default_dtype(dtype)
    torch.use_deterministic_algorithms(
        bool(said.get("deterministic_algorithms")),
        warn_only=bool(said.get("deterministic_warn_only")),
    )
    matmul = said.get("matmul_precision")
    if matmul in ("highest", "high", "medium") and matmul != torch.get_float32_matmul_precision():
        torch.set_float32_matmul_precision(matmul)


def _objects(run: Path, digest: str | None) -> Objects:
    """Return the Python objects of a run: a pickle runs code, so only the one that is meant."""
    import cloudpickle

    from lrexp.runs.builder import Objects

    if digest is None:
        return Objects()
    path = run / OBJECTS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error}.") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise RunError(f"{path}: is not the file that this worker was started for.")
    try:
        objects = cloudpickle.loads(data)
    except BaseException as error:
        raise ConfigError.single(
            "jobs",
            f"cannot be made again in a worker process ({type(error).__name__}: {error})",
            "model, data or loss",
            "Put what is given as a Python object into a module, or use 1.",
        ) from error
    assert isinstance(objects, Objects)
    return objects


def _stop_when_told(pauses: Sequence[Pause], parent: int | None) -> None:
    """Let SIGTERM, and the end of the process that started this one, stop it at a checkpoint.

    While `pauses` is empty, it trains nothing yet and ends at once. Ctrl-C reaches every process of
    a job: what starts workers says when they stop. SIGTERM is handled, not ignored: what this
    process starts would ignore it, too.
    """

    def stop(*_: object) -> None:
        if not pauses:
            os._exit(STOPPED)
        pauses[0].requested = True

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in SIGNALS[1:]:
        signal.signal(number, stop)
    if hasattr(os, "register_at_fork"):  # SIG_DFL lets a DataLoader end its processes
        os.register_at_fork(after_in_child=lambda: list(map(_end_by, SIGNALS[1:])))
    if parent is not None:
        threading.Thread(target=_outlived, args=(parent, stop), daemon=True).start()


def _outlived(parent: int, stop: Any) -> None:
    """Stop when the process that started this one is gone, at once if no checkpoint comes.

    It need not be the parent: a launcher may stand between them, as in Python's own on Windows.
    """
    from lrexp.runs.lock import Owner

    starter, is_child = Owner(platform.node(), parent), os.getppid() == parent
    while os.getppid() == parent if is_child and os.name != "nt" else not starter.is_gone():
        time.sleep(_WATCH_SECONDS)
    stop()
    time.sleep(_LAST_SECONDS)
    os._exit(STOPPED)


def _end_by(number: signal.Signals) -> None:
    with suppress(ValueError):  # forked by another thread than the main one
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def dying_with_loaders() -> Iterator[None]:
    """End where torch tells between two steps that a process which loads data was killed."""
    try:
        yield
    except RuntimeError as error:
        from lrexp.engine.stop import is_of_loader

        if not is_of_loader(error):
            raise
        os._exit(1)


def _private_stdout() -> Any:
    """Return stdout; what user code prints there goes to stderr, and its stdin is empty."""
    private = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return os.fdopen(private, "wb")


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what is printed meanwhile: who started the run has made its plan and shown it all."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nothing, number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number in (1, 2):
            os.dup2(kept, number)
        os.close(kept)
        os.close(nothing)
