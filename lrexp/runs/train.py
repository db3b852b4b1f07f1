"""Training a run: stage after stage, here or in worker processes, until it is done or stopped."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch

from lrexp.config.config import Config
from lrexp.engine.choice import Choice, choose
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
from lrexp.records import (
    Record,
    Trial,
)
from lrexp.runs.builder import Objects
from lrexp.runs.checkpoint import CHECKPOINTS, peek_checkpoint
from lrexp.runs.environment import (
    describe_again,
    describe_run,
    resolved_text,
    run_facts,
    surroundings,
)
from lrexp.runs.executor import LocalProcesses, why_not_processes
from lrexp.runs.files import remove_directory, remove_temporary_files
from lrexp.runs.follow import followed
from lrexp.runs.lock import locked, still_ours
from lrexp.runs.plan import Plan
from lrexp.runs.reader import load_run
from lrexp.runs.remaining import Remaining, forget_failed, read_remaining
from lrexp.runs.resume import (
    changed_settings,
    changed_surroundings,
    noted_surroundings,
    read_spec,
    refuse,
    require_plain_files,
)
from lrexp.runs.session import GuardedSink, RunOptions, Session, noted
from lrexp.runs.signals import pausing
from lrexp.runs.spec import RunSpec
from lrexp.runs.stages import (
    Findings,
    Stage,
    StageRecord,
    read_stages,
    require_same,
    stages,
    write_stages,
)
from lrexp.runs.timings import Timings
from lrexp.runs.trials import task_of
from lrexp.runs.worker import train_groups
from lrexp.runs.writer import RunWriter, create_run, resumed

BEGIN_ANEW = "begin_anew"  # in status.json: trials that had no checkpoint, and why
NAMED = 8  # trials, in a message


def start_run(
    spec: RunSpec,
    plan: Plan,
    options: RunOptions,
    finish: Callable[[Session], None],
    *,
    out: Path | None,
    runs_dir: Path,
) -> Path:
    """Make a run directory, train the run into it, and return it.

    Args:
        spec: what was asked for.
        plan: made from it.
        options: how it is trained.
        finish: writes what the run comes to, once its trials have ended.
        out, runs_dir: where the run goes.

    Raises:
        LrexpError: see `api.compare`.
    """
    first = next(stages(spec, plan, Path(), Findings()))
    records = [StageRecord(first, choose_engine(spec, plan, first, options))]

    def describe(folder: Path) -> None:
        write_stages(folder, records)
        describe_run(folder, spec, plan, records[0].choice)
        RunWriter(folder, run_facts(spec, plan, first.trials))

    name = plan.config.experiment.name
    try:
        path = create_run(name, spec.command, describe, out=out, runs_dir=runs_dir)
    except KeyboardInterrupt:
        raise InterruptedRunError("Interrupted before training; nothing was written.") from None
    with _interruption_told(path), locked(path) as lease:
        earlier = load_run(path).status
        writer = RunWriter(path, {}, earlier, require_ours=still_ours(path, lease))
        session = Session(spec, plan, options, writer, Pause(options.stop), records)
        _train_and_finish(session, finish)
    return path


def resume_run(
    path: Path,
    objects: Objects,
    trust: Sequence[str],
    options: RunOptions,
    finish: Callable[[Session], None],
) -> Config:
    """Go on with a run that was interrupted, and return its config.

    Args:
        path: the run directory.
        objects: the Python objects that the run was made with.
        trust: the packages that the run was made to trust.
        options: how it is trained; with `force`, also where it does not fit what is here.
        finish: as of `start_run`.

    Raises:
        LrexpError: see `api.resume`.
    """
    reporter = options.reporter
    require_plain_files(path)
    with locked(path) as lease:
        with reporter.waiting("Loading data and model"):
            spec, forced = read_spec(path, objects, trust, force=options.force)
            config = spec.config()
            plan = spec.plan(config)
            records = read_stages(path)
            require_same(records[0], next(stages(spec, plan, path, Findings())), path)
            forced += _changed(path, spec, plan, records, options)
        remove_temporary_files(path)
        forget_failed(path, [trial.id for record in records for trial in record.stage.trials])
        groups = [group for record in records for group in record.choice.groups]
        left = read_remaining(path, groups, peek_checkpoint)
        reporter.say(f"Resuming {path}: {left}.")
        for problem in forced:
            reporter.say(f"Forced: {problem}")
        earlier = dict(load_run(path).status)
        if lost := why_anew(earlier.pop(BEGIN_ANEW, None)):
            reporter.say(lost.rstrip())
        notes = {
            **run_facts(spec, plan, spec.first_trials(plan)),
            "resumed": resumed(earlier, forced),
            "counts": dict(Counter(left.outcomes.values())),
        }
        if forced:
            notes["forced"] = [str(problem) for problem in forced]
        writer = RunWriter(path, notes, earlier, require_ours=still_ours(path, lease))
        describe_again(writer, spec, plan, records[0].choice)
        session = Session(spec, plan, options, writer, Pause(options.stop), records)
        _train_and_finish(session, finish)
    return config


def _changed(
    path: Path,
    spec: RunSpec,
    plan: Plan,
    records: Sequence[StageRecord],
    options: RunOptions,
) -> list[Problem]:
    """Return what a run was begun with and is not so here; note what may not matter.

    Raises:
        ConfigError: there is some, and it is not forced.
    """
    check_jobs(options.jobs)
    jobs_before, here = records[0].choice.jobs, surroundings(plan)
    problems = [
        *changed_settings(path, spec, resolved_text(plan, records[0].choice.groups)),
        *changed_surroundings(path, here, (jobs_before, options.jobs or jobs_before)),
    ]
    refuse(problems, force=options.force)
    for what in noted_surroundings(path, here):
        options.reporter.say(f"Note: {what}; the last bits may differ.")
    return problems


@contextmanager
def _interruption_told(path: Path) -> Iterator[None]:
    """Tell of an interruption right before a run goes on, or right after."""
    try:
        yield
    except KeyboardInterrupt:
        what = f"Interrupted. What was written so far is in {path}."
        raise InterruptedRunError(what, path) from None


def _train_and_finish(session: Session, finish: Callable[[Session], None]) -> None:
    """Train all stages and write what they come to; note in the run how it ended."""
    writer = session.writer
    try:
        _train_stages(session)
        finish(session)
    except KeyboardInterrupt as stop:
        lost = stop.begin_anew if isinstance(stop, _Stopped) else {}
        writer.update_status("interrupted", **({BEGIN_ANEW: lost} if lost else {}))
        path = session.run
        raise InterruptedRunError(
            f"Interrupted. What was trained so far is in {path}; lrexp plot {path} draws it.\n"
            f"{why_anew(lost)}To go on: {_how_to_resume(session)}",
            path,
        ) from None
    except BaseException as error:
        with suppress(RunError):  # the disk may be what failed
            writer.update_status("failed", error=str(error))
        raise
    writer.update_status("complete")


class _Stopped(KeyboardInterrupt):
    """A signal ended the training; `begin_anew` says of trials without a checkpoint why."""

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


def _how_to_resume(session: Session) -> str:
    spec, path = session.spec, session.run
    given = sorted(spec.objects.sections)
    if given:
        return f"lrexp.resume({', '.join([repr(str(path)), *(f'{n}=...' for n in given)])})"
    trust = [word for prefix in spec.trust for word in ("--trust", prefix)]
    words = shlex.join(["lrexp", "resume", str(path), *trust])
    return " ".join(filter(None, [words, session.options.again]))


def _train_stages(session: Session) -> None:
    """Train what the results ask for, until they ask for nothing more, or trials have failed."""
    known: list[Trial] = []
    for number, stage in enumerate(
        stages(session.spec, session.plan, session.run, session.findings)
    ):
        known += stage.trials
        lengths = {trial.id.variant: trial.total_steps for trial in known}
        if number == len(session.records):
            _begin(session, stage)
        require_same(session.records[number], stage, session.run)
        session.writer.update_status(num_trials=len(known), total_steps=lengths)
        _train_stage(session, session.records[number])
        if session.failures:
            break
    if (session.run / CHECKPOINTS).is_dir():
        remove_directory(session.run / CHECKPOINTS)


def _begin(session: Session, stage: Stage) -> None:
    """Find an engine for a stage, and note that it has begun."""
    options = session.options
    if stage.note:
        options.reporter.say(stage.note)
    before = session.records[0].choice
    if stage.kind == "paired_control":  # in the groups of the range tests: bit by bit the same
        control = {test.seed: test for test in (trial.id for trial in stage.trials)}
        groups = [
            replace(group, trials=tuple(control[trial.seed] for trial in group.trials))
            for group in before.groups
        ]
        choice = Choice(tuple(groups), options.jobs or before.jobs)
    else:
        jobs = options.jobs or (before.jobs if before.jobs > 1 else None)
        choice = choose_engine(session.spec, session.plan, stage, replace(options, jobs=jobs))
    session.records.append(StageRecord(stage, choice))
    write_stages(session.run, session.records)


def choose_engine(spec: RunSpec, plan: Plan, stage: Stage, options: RunOptions) -> Choice:
    """Return how the trials of a stage will be trained, and say so where it was measured.

    Raises:
        ConfigError: what was asked for cannot be had.
    """
    check_jobs(options.jobs)
    jobs = options.jobs
    if (jobs or 1) > 1 and (why := why_not_processes(spec)) is not None:
        options.reporter.say(f"Training in this process: {why}.", "yellow")
        jobs = 1
    tasks = [task_of(plan, trial) for trial in stage.trials]
    engine = plan.config.experiment.engine
    with options.reporter.waiting("Measuring how to train"):
        try:
            choice = choose(
                tasks, engine, jobs, lambda: why_not_processes(spec), _places(plan),
                machine=Timings().machine(),
            )  # fmt: skip
        except ConfigError as error:
            raise error.placed(plan.config.document.place_of) from None
    for reason in choice.reasons:
        options.reporter.say(f"Engine: {reason}.", "dim")
    return choice


def _train_stage(session: Session, stage: StageRecord) -> None:
    """Train the trials of a stage that have no result, and tell every sink how it goes.

    Raises:
        KeyboardInterrupt: the training was stopped before its end.
        UserCodeError: the function that is asked whether to stop raised.
    """
    pause, options = session.pause, session.options
    left = read_remaining(session.run, stage.choice.groups, peek_checkpoint)
    session.outcomes |= left.outcomes
    if not left.trials:
        return
    lengths = {t.id: t.total_steps for t in stage.stage.trials if t.id in left.trials}
    try:
        with (
            options.reporter.following(lengths, left.begun) as shown,
            preserved_rng(session.plan.device),
            pausing(pause),
            closing(_records(session, stage, left)) as records,
        ):
            sinks = [
                noted(session),
                shown,
                *(GuardedSink(sink, options.reporter) for sink in options.sinks),
            ]
            for record in records:
                for sink in sinks:
                    sink(record)
    except RunError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        # The processes that load data are killed by the signal, too: what they tell comes anywhere.
        is_of_signal = pause.requested and may_be_of_loader(error)
        if is_interruption(error) or is_of_signal:
            raise _Stopped(_lost(session, stage)) from error
        raise
    if pause.error is not None:
        raise user_error(pause.error, "stop") from pause.error
    if any(trial not in session.outcomes for trial in left.trials):
        raise _Stopped(_lost(session, stage))


def _records(
    session: Session, stage: StageRecord, left: Remaining
) -> Generator[Record, None, None]:
    """Train here, or in worker processes whose files are followed."""
    jobs = session.options.jobs or stage.choice.jobs
    if jobs > 1 and why_not_processes(session.spec) is not None:
        jobs = 1
    trials = stage.stage.trials
    if jobs == 1:
        yield from train_groups(
            session.run, session.plan, trials, stage.choice.groups, session.pause, waits=True
        )
        return
    workers = LocalProcesses(
        jobs,
        session.spec,
        devices=_devices(session.plan),
        force=session.options.force,
    )
    groups = stage.choice.groups
    undone = [trial for trial in trials if trial.id in left.trials]
    yield from followed(workers, session.run, undone, groups, left=left, pause=session.pause)


def _lost(session: Session, stage: StageRecord) -> dict[str, str]:
    """Return why trials that have begun would begin anew: no checkpoint could be taken of them."""
    begun = read_remaining(session.run, stage.choice.groups, peek_checkpoint).begun
    return {
        trial.name: why
        for trial, why in session.unsaved.items()
        if trial not in session.outcomes and trial not in begun
    }


def check_jobs(jobs: object) -> None:
    """Refuse a number of processes that cannot be had.

    Raises:
        ConfigError: it is no whole number from 1.
    """
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        what = "must be a whole number from 1"
        raise ConfigError.single("jobs", what, jobs, "1 trains in this process.")


def _places(plan: Plan) -> int | None:
    """Return how many trials can be trained side by side; None leaves it to the cores."""
    return len(_devices(plan) or ("one",)) if plan.device.type == "cuda" else None


def _devices(plan: Plan) -> list[str] | None:
    """Return the GPUs for workers to share; None where there is one, or one was asked for."""
    asked, count = plan.config.experiment.device, torch.cuda.device_count()
    if plan.device.type != "cuda" or asked not in ("auto", "cuda") or count < 2:
        return None
    return [f"cuda:{index}" for index in range(count)]
