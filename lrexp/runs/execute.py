"""Executing a plan: a run directory, an engine that trains into it, and how it ended."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lrexp.engine.choice import Choice, choose
from lrexp.engine.engines import ENGINES
from lrexp.engine.rng import preserved_rng
from lrexp.engine.stop import Pause, may_be_of_loader
from lrexp.errors import (
    ConfigError,
    InterruptedRunError,
    Problem,
    RunError,
    is_interruption,
    user_error,
)
from lrexp.records import Record, Reporter, TrialId
from lrexp.runs.environment import describe_again, describe_run, facts, resolved_text, surroundings
from lrexp.runs.executor import refuse_processes, run_in_processes, why_not_processes
from lrexp.runs.files import remove_directory, remove_temporary_files
from lrexp.runs.lock import LOCK, locked
from lrexp.runs.plan import Plan
from lrexp.runs.reader import RANGE_TEST, UNTRAINED, load_run
from lrexp.runs.recorder import Recorder
from lrexp.runs.remaining import (
    Left,
    again_untrained,
    read_left,
    read_rungs,
    read_units,
    tidy_checkpoints,
)
from lrexp.runs.resume import changed_settings, changed_surroundings, noted_surroundings, refuse
from lrexp.runs.signals import pausing
from lrexp.runs.spec import Order
from lrexp.runs.writer import RunWriter, create_run_directory

BEGIN_ANEW = "begin_anew"  # in status.json: trials that had no checkpoint, and why
NAMED = 8  # trials, in a message


@dataclass(frozen=True)
class Destination:
    """Where a run goes: `out` itself, or a new directory inside `runs_dir`."""

    out: Path | None
    runs_dir: Path


@contextmanager
def recorded_run(
    order: Order, plan: Plan, choice: Choice, destination: Destination, *, options: str = ""
) -> Iterator[RunWriter]:
    """Create the run directory, describe the run in it, and note how it ended.

    Args:
        order: what was asked for.
        plan: made from it.
        choice: which engine trains which trials.
        destination: where the run goes.
        options: of the command that resumes it, for the message of an interruption.
    """
    name, out, runs_dir = plan.config.experiment.name, destination.out, destination.runs_dir
    was_there = out is not None and out.exists()  # an empty folder
    path = create_run_directory(name, order.command, out=out, runs_dir=runs_dir)
    try:
        with locked(path):
            writer = _described(path, order, plan, choice, was_there=was_there)
            with _ending_noted(writer, order, options):
                yield writer
    except KeyboardInterrupt:  # right before, or right after
        what = f"Interrupted. What was written so far is in {path}."
        raise InterruptedRunError(what, path) from None


def _described(
    path: Path, order: Order, plan: Plan, choice: Choice, *, was_there: bool
) -> RunWriter:
    """Describe a run in its new directory, which is as before when that is interrupted."""
    try:
        writer = RunWriter(path, facts(order, plan))
        with _failure_noted(writer):
            describe_run(writer, order, plan, choice)
    except KeyboardInterrupt:
        with suppress(RunError, OSError):
            _take_back(path, was_there=was_there)
        raise InterruptedRunError("Interrupted before training; nothing was written.") from None
    return writer


def _take_back(path: Path, *, was_there: bool) -> None:
    if not was_there:
        remove_directory(path)
        return
    for child in path.iterdir():  # the folder itself is not ours, and the lock is held
        if child.is_dir():  # of a package of the user's
            remove_directory(child)
        elif child.name != LOCK:
            child.unlink()


def take_up(
    run: Path, order: Order, plan: Plan, jobs: int | None, *, force: bool, reporter: Reporter
) -> tuple[Choice, Left, list[Problem]]:
    """Return how the rest of a run is trained, what is left of it, and what was forced.

    Raises:
        ConfigError: it does not fit what is here, and `force` is not given.
        RunError: a file of the run is damaged.
    """
    check_jobs(order, jobs)
    units, jobs_before = read_units(run, order.lengths(plan))
    jobs = jobs or jobs_before
    rungs = read_rungs(run)
    here = surroundings(plan)
    problems = [
        *changed_settings(run, order, resolved_text(plan, units)),
        *changed_surroundings(run, here, (jobs_before, jobs)),
    ]
    refuse(problems, force=force)
    for what in noted_surroundings(run, here):
        reporter.say(f"Note: {what}; the last bits may differ.")
    more = [*again_untrained(run, units), *(unit for rung in rungs for unit in rung.units)]
    left = read_left(run, [*units, *more])
    return Choice(left.units, jobs), left, problems


@contextmanager
def resumed_run(
    run: Path,
    order: Order,
    plan: Plan,
    left: Left,
    forced: Sequence[Problem],
    *,
    reporter: Reporter,
    options: str = "",
) -> Iterator[RunWriter]:
    """Go on with a run directory that this process has locked, and note how it ended."""
    remove_temporary_files(run)
    tidy_checkpoints(run, left)
    # counted anew: what stopped the run may have stopped its last count, too
    notes: dict[str, Any] = {"counts": dict(Counter(left.outcomes.values()))}
    if forced:
        notes["forced"] = [str(problem) for problem in forced]
    earlier = dict(load_run(run).status)
    if lost := why_anew(earlier.pop(BEGIN_ANEW, None)):
        reporter.say(lost.rstrip())
    writer = RunWriter(run, facts(order, plan) | notes, earlier=earlier)
    describe_again(writer, order, plan)
    with _ending_noted(writer, order, options):
        yield writer


@contextmanager
def _ending_noted(writer: RunWriter, order: Order, options: str) -> Iterator[None]:
    """Note in the run how it ended; say of an interruption how to go on."""
    try:
        with _failure_noted(writer):
            yield
    except KeyboardInterrupt as stop:
        lost = stop.begin_anew if isinstance(stop, _Stopped) else {}
        writer.update_status("interrupted", **({BEGIN_ANEW: lost} if lost else {}))
        path = writer.directory
        raise InterruptedRunError(
            f"Interrupted. What was trained so far is in {path}; lrexp plot {path} draws it.\n"
            f"{why_anew(lost)}To go on: {_how_to_resume(path, order, options)}",
            path,
        ) from None
    writer.update_status("complete")


@contextmanager
def _failure_noted(writer: RunWriter) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        with suppress(RunError):  # the disk may be what failed
            writer.update_status("failed", error=str(error))
        raise


class _Stopped(KeyboardInterrupt):
    """A signal ended the training; `begin_anew` is as `Recorder.begin_anew`."""

    def __init__(self, begin_anew: Mapping[str, str]) -> None:
        super().__init__()
        self.begin_anew = dict(begin_anew)


def why_anew(lost: object) -> str:
    """Return lines that say which trials begin anew when a run goes on, and why.

    Args:
        lost: `BEGIN_ANEW` in status.json.

    Example:
        >>> print(why_anew({"a/seed-0": "training changes the attribute `n`"}), end="")
        Without a checkpoint, so it begins anew: a/seed-0: training changes the attribute `n`.
    """
    by_reason: dict[str, list[str]] = {}
    for trial, why in (lost if isinstance(lost, dict) else {}).items():
        by_reason.setdefault(str(why), []).append(str(trial))
    return "".join(
        f"Without a checkpoint, so {'it begins' if len(names) == 1 else 'they begin'} anew: "
        f"{', '.join(names[:NAMED])}{f' and {len(names) - NAMED} more' * (len(names) > NAMED)}: "
        f"{why}.\n"
        for why, names in by_reason.items()
    )


def _how_to_resume(path: Path, order: Order, options: str) -> str:
    given = sorted(order.objects.sections)
    if given:
        return f"lrexp.resume({', '.join([repr(str(path)), *(f'{n}=...' for n in given)])})"
    trust = [word for prefix in order.trust for word in ("--trust", prefix)]
    return " ".join(filter(None, [shlex.join(["lrexp", "resume", str(path), *trust]), options]))


def choose_engine(
    order: Order,
    plan: Plan,
    jobs: int | None,
    reporter: Reporter,
    trials: Sequence[TrialId] | None = None,
) -> Choice:
    """Return how the trials will be trained, and say so where it was measured.

    Args:
        order: what was asked for.
        plan: made from it.
        jobs: worker processes; 1 is this process, None leaves it to the config's engine.
        reporter: is told the choice.
        trials: those of a rung of a race; None is all that the order names.

    Raises:
        ConfigError: what was asked for cannot be had.
    """
    check_jobs(order, jobs)
    tasks = list(order.tasks(plan, trials or order.lengths(plan)))
    engine = plan.config.experiment.engine
    with reporter.waiting("Measuring how to train"):
        try:
            choice = choose(tasks, engine, jobs, lambda: why_not_processes(order), _places(plan))
        except ConfigError as error:
            raise error.placed(plan.config.document.place_of) from None
    for reason in choice.reasons:
        reporter.say(f"Engine: {reason}.", "dim")
    return choice


def train(
    order: Order,
    plan: Plan,
    choice: Choice,
    writer: RunWriter,
    reporter: Reporter,
    *,
    pause: Pause,
    left: Left | None = None,
) -> Recorder:
    """Train the trials into the run directory and show how it goes.

    Args:
        order: what was asked for.
        plan: made from it.
        choice: which engine trains which trials.
        writer: of the run directory.
        reporter: is told how it goes.
        pause: asks for checkpoints, and for an end of the training at one of them; Ctrl-C, SIGTERM
            and SIGHUP request that end, too.
        left: of a run that is resumed: what is left of `choice`, and where it goes on.

    Raises:
        KeyboardInterrupt: the training was stopped before its end.
        UserCodeError: the function that is asked whether to stop raised.
    """
    left = left or Left(choice.units)
    digits = 17 if plan.config.experiment.precision == "fp64" else 9
    # A training's rule stops what diverged; a range test ends like that as a rule.
    tests = (RANGE_TEST, UNTRAINED)
    stop_is_outcome = all(trial.variant not in tests for trial in left.trials)
    recorder = Recorder(writer, stop_is_outcome=stop_is_outcome, loss_digits=digits, left=left)
    lengths = {trial: order.length(plan, trial) for trial in left.trials}
    try:
        with (
            reporter.following(lengths, left.begun) as shown,
            preserved_rng(plan.device),
            pausing(pause),
            closing(_records(order, plan, choice, left, pause)) as records,
        ):
            recorder.write_all(records, shown)
    except RunError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        # The processes that load data are killed by the signal, too: what they tell comes anywhere.
        is_of_signal = pause.requested and may_be_of_loader(error)
        if is_interruption(error) or is_of_signal:
            raise _Stopped(recorder.begin_anew) from error
        raise
    if pause.error is not None:
        raise user_error(pause.error, "stop") from pause.error
    if not recorder.has_ended(left.trials):
        raise _Stopped(recorder.begin_anew)
    recorder.clear_checkpoints()
    return recorder


def check_jobs(order: Order, jobs: int | None) -> None:
    """Refuse a number of processes that cannot be had.

    Raises:
        ConfigError: it is below 1, or the order cannot be sent to another process.
    """
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        what = "must be a whole number from 1"
        raise ConfigError.single("jobs", what, jobs, "1 trains in this process.")
    if jobs is not None and jobs > 1:
        refuse_processes(order, jobs)


def _records(
    order: Order, plan: Plan, choice: Choice, left: Left, pause: Pause
) -> Generator[Record, None, None]:
    """Train here, or in other processes, unit by unit."""
    if choice.jobs > 1:
        devices = _devices(plan)
        yield from run_in_processes(
            order,
            left.units,
            choice.jobs,
            devices=devices,
            pause=pause,
            take_state=left.take_state,
        )
        return
    for unit in left.units:
        if pause.requested:
            return
        tasks = order.unit_tasks(plan, unit, pause, left.take_state(unit.trials[0]))
        yield from ENGINES[unit.engine](tasks)


def _places(plan: Plan) -> int | None:
    """Return how many trials can be trained side by side; None leaves it to the cores."""
    return len(_devices(plan) or ("one",)) if plan.device.type == "cuda" else None


def _devices(plan: Plan) -> list[str] | None:
    """Return the GPUs for workers to share; None where there is one, or one was asked for."""
    asked, count = plan.config.experiment.device, torch.cuda.device_count()
    if plan.device.type != "cuda" or asked not in ("auto", "cuda") or count < 2:
        return None
    return [f"cuda:{index}" for index in range(count)]
