"""Training a run: stage after stage, here or in worker processes, until it is done or stopped."""

from __future__ import annotations

import shlex
import warnings
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lrexp.config.config import Config
from lrexp.engine.choice import Choice
from lrexp.engine.rng import preserved_rng
from lrexp.engine.stop import Pause, may_be_of_loader
from lrexp.errors import (
    FailedTrialsError,
    InterruptedRunError,
    LrexpError,
    Problem,
    RunError,
    is_interruption,
    user_error,
)
from lrexp.records import (
    Ended,
    Failed,
    Interrupted,
    NoCheckpoint,
    Record,
    Reporter,
    Sink,
    Started,
    Trial,
    TrialId,
)
from lrexp.runs.builder import Objects
from lrexp.runs.checkpoint import (
    CHECKPOINTS,
    Remaining,
    forget_failed,
    peek_checkpoint,
    read_remaining,
)
from lrexp.runs.choosing import (
    RunOptions,
    check_jobs,
    choose_engine,
    devices_of,
    extended,
    is_local,
)
from lrexp.runs.executor import EXECUTORS, JOBS, Executor, chosen_executor, why_not_processes
from lrexp.runs.files import read_json, remove_directory, remove_temporary_files
from lrexp.runs.follow import followed
from lrexp.runs.listing import read_status
from lrexp.runs.live_page import LivePage, last_page
from lrexp.runs.lock import locked, still_ours
from lrexp.runs.plan import Plan
from lrexp.runs.reader import Run
from lrexp.runs.resume import (
    changed_settings,
    changed_surroundings,
    noted_surroundings,
    read_spec,
    refuse,
    require_plain_files,
)
from lrexp.runs.signals import pausing
from lrexp.runs.spec import (
    Origin,
    RunSpec,
    column_lines,
    describe_again,
    describe_run,
    resolved_text,
    run_facts,
    surroundings,
    with_looks,
    with_registered,
    with_seeds,
)
from lrexp.runs.stages import (
    Findings,
    Stage,
    StageRecord,
    read_stages,
    require_same,
    stages,
    write_stages,
)
from lrexp.runs.summary import conclude
from lrexp.runs.trackers import TrackerSink, tell_where, trackers_of
from lrexp.runs.trial_files import readable_error
from lrexp.runs.worker import train_groups
from lrexp.runs.writer import RunWriter, create_run, resumed

BEGIN_ANEW = "begin_anew"  # in status.json: trials that had no checkpoint, and why
NAMED = 8  # trials, in a message


@dataclass
class Session:
    """A run while this process trains it."""

    spec: RunSpec
    plan: Plan
    options: RunOptions
    writer: RunWriter  # of the top-level files
    pause: Pause  # asks for checkpoints, and for an end of the training at one of them
    records: list[StageRecord]  # of the stages that have begun
    findings: Findings = field(default_factory=Findings)
    failures: dict[TrialId, LrexpError] = field(default_factory=dict)
    outcomes: dict[TrialId, str] = field(default_factory=dict)
    unsaved: dict[TrialId, str] = field(default_factory=dict)  # why there is no checkpoint
    executor: Any = None  # one that keeps its workers from stage to stage
    trackers: list[TrackerSink] = field(default_factory=list)
    pages: list[LivePage] = field(default_factory=list)  # one, or none

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.writer.directory

    def raise_failures(self) -> None:
        """Raise one FailedTrialsError that lists every failed trial, if there is one."""
        if self.failures:
            first, *_ = self.failures.values()
            lines = "\n".join(dict.fromkeys(map(str, self.failures.values())))
            of = f"{len(self.failures)} of {len(self.outcomes)} trials failed."
            raise FailedTrialsError(f"{lines}\n{of} The run is in {self.run}.", self.run) from first


def noted(session: Session) -> Sink:
    """Return the sink that keeps what the end of a run needs, and counts in status.json."""

    def note(record: Record) -> None:
        if isinstance(record, Started):
            session.outcomes.pop(record.trial, None)
            session.failures.pop(record.trial, None)
        elif isinstance(record, Ended | Failed):
            outcome = "failed"
            if isinstance(record, Failed):
                session.failures[record.trial] = readable_error(record.error, record.trial)
            else:
                kinds = {t.id: t for r in session.records for t in r.stage.trials}
                diverged = record.stopped_at is not None and kinds[record.trial].is_training
                outcome = "diverged" if diverged else "finished"
            session.outcomes[record.trial] = outcome
            session.writer.note_counts(Counter(session.outcomes.values()))
        elif isinstance(record, NoCheckpoint | Interrupted) and record.why is not None:
            session.unsaved |= dict.fromkeys(record.trials, record.why)

    return note


class GuardedSink:
    """A sink that a failure of its own ends, and nothing else."""

    def __init__(self, sink: Sink, reporter: Reporter) -> None:
        self._sink: Sink | None = sink
        self._reporter = reporter

    def __call__(self, record: Record) -> None:
        """Pass a record on."""
        if self._sink is not None:
            try:
                self._sink(record)
            except Exception as error:
                name = getattr(self._sink, "__qualname__", type(self._sink).__qualname__)
                what = f"{type(error).__name__}: {error}"
                self._sink = None
                text = f"The sink {name} gets no more records: {what}"
                self._reporter.say(text, "yellow")
                warnings.warn(text, RuntimeWarning, stacklevel=2)  # a console is shown to few


def start_run(
    spec: RunSpec, plan: Plan, options: RunOptions, *, out: Path | None, runs_dir: Path
) -> Run:
    """Make a run directory, train the run into it, and return it; errors are of `api.compare`."""
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
        earlier = read_status(path)
        for line in column_lines(plan):
            options.reporter.say(line)
        writer = RunWriter(path, {}, earlier, require_ours=still_ours(path, lease))
        session = Session(spec, plan, options, writer, Pause(options.stop), records)
        return _train_and_finish(session)


def resume_run(
    path: Path,
    objects: Objects,
    trust: Sequence[str],
    options: RunOptions,
    *,
    seeds: int | None = None,
    looks: Sequence[int] | None = None,
) -> tuple[Config, Run]:
    """Go on with a run, with more seeds if asked; return its config and itself, as `api.resume`."""
    reporter = options.reporter
    require_plain_files(path)
    with locked(path) as lease:
        with reporter.waiting("Loading data and model"):
            spec, forced = read_spec(path, objects, trust, force=options.force)
            config = spec.config()
            spec = with_registered(spec, config)
            plan = spec.plan(config)
            records = read_stages(path)
            forced += _changed(path, spec, plan, records, options)
        if not (path / JOBS).exists():  # they may be writing
            remove_temporary_files(path)
        if looks is not None:
            spec = with_looks(spec, looks)
        if seeds is not None:
            spec = with_seeds(spec, plan, seeds)
        plan = replace(plan, config=(config := spec.config()))
        first = next(stages(spec, plan, path, Findings()))
        begun, records[0] = records[0], extended(spec, plan, records[0], first, options)
        if records[0] is not begun or looks is not None:
            describe_again(path, spec, plan, records[0].choice)
            write_stages(path, records)
        require_same(records[0], first, path)
        forget_failed(path, [trial.id for record in records for trial in record.stage.trials])
        groups = [group for record in records for group in record.choice.groups]
        left = read_remaining(path, groups, peek_checkpoint)
        reporter.say(f"Resuming {path}: {left}.")
        for problem in forced:
            reporter.say(f"Forced: {problem}")
        earlier = read_status(path)
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
        if Origin.from_plain(read_json(path / "order.json")).folder != spec.directory:
            describe_again(path, spec, plan, records[0].choice)
        session = Session(spec, plan, options, writer, Pause(options.stop), records)
        return config, _train_and_finish(session)


def _changed(
    path: Path, spec: RunSpec, plan: Plan, records: Sequence[StageRecord], options: RunOptions
) -> list[Problem]:
    """Return what a run was begun with and is not so here, if forced; note what may not matter."""
    check_jobs(options.jobs)
    chosen_executor(options.executor, plan.config)  # refuses what is none
    trackers_of(plan.config, options.log, path)
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


def _train_and_finish(session: Session) -> Run:
    """Train all stages and write what they come to; note in the run how it ended."""
    writer = session.writer
    session.trackers = trackers_of(session.plan.config, session.options.log, session.run)
    session.pages = [LivePage(session.options.page, session.run)] if session.options.page else []
    try:
        _train_stages(session)
        run = conclude(session)
    except KeyboardInterrupt as stop:
        lost = stop.begin_anew if isinstance(stop, _Stopped) else {}
        writer.update_status("interrupted", **({BEGIN_ANEW: lost} if lost else {}))
        path = session.run
        last_page(session.options, path)
        raise InterruptedRunError(
            f"Interrupted. What was trained so far is in {path}; lrexp plot {path} draws it.\n"
            f"{why_anew(lost)}To go on: {_how_to_resume(session)}",
            path,
        ) from None
    except BaseException as error:
        with suppress(RunError):  # the disk may be what failed
            writer.update_status("failed", error=str(error))
        last_page(session.options, session.run)
        raise
    finally:
        if session.executor is not None:
            session.executor.close()
        for tracker in session.trackers:
            tell_where(tracker, session.options.reporter)
    writer.update_status("complete")
    run = replace(run, status=read_status(session.run))
    last_page(session.options, run)
    return run


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
        stages(
            session.spec,
            session.plan,
            session.run,
            session.findings,
            lambda: session.writer.seconds,
        )
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


def _train_stage(session: Session, stage: StageRecord) -> None:
    """Train the trials of a stage that have no result, and tell every sink how it goes."""
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
                *(GuardedSink(sink, options.reporter) for sink in session.trackers),
                *(GuardedSink(page, options.reporter) for page in session.pages),
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
    options, run, spec, plan = session.options, session.run, session.spec, session.plan
    groups, trials = stage.choice.groups, stage.stage.trials
    jobs = options.jobs or stage.choice.jobs
    executor = chosen_executor(options.executor, plan.config)
    is_here = is_local(executor)
    if is_here and (jobs == 1 or why_not_processes(spec) is not None):
        yield from train_groups(run, plan, trials, groups, session.pause, waits=True)
        return
    undone = [trial for trial in trials if trial.id in left.trials]
    try:
        if isinstance(executor, dict):
            executor = _made(session, executor, jobs)
        if hasattr(executor, "say"):
            executor.say = options.reporter.say
        yield from followed(executor, run, undone, groups, left=left, pause=session.pause)
    except LrexpError:
        raise
    except Exception as error:
        if is_here:
            raise
        raise user_error(error, "executor") from error


def _made(session: Session, section: Mapping[str, Any], jobs: int) -> Executor:
    """Return the executor of a section of the config."""
    if session.executor is not None:
        kept: Executor = session.executor
        return kept
    given = {key: value for key, value in section.items() if key != "name"}
    given |= {"devices": devices_of(session.plan), "force": session.options.force}
    executor = EXECUTORS[section["name"]](jobs, session.spec, **given)
    if hasattr(executor, "close"):
        session.executor = executor
    return executor


def _lost(session: Session, stage: StageRecord) -> dict[str, str]:
    """Return why trials that have begun would begin anew: no checkpoint could be taken of them."""
    begun = read_remaining(session.run, stage.choice.groups, peek_checkpoint).begun
    return {
        trial.name: why
        for trial, why in session.unsaved.items()
        if trial not in session.outcomes and trial not in begun
    }
