"""The stages of find-lr: range tests, a second look at their batches, and a race.

What is decided depends on files alone. A race that was interrupted finds its rungs again in the
results of its trials, and how they are trained in race.json.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lrexp.analysis.race import Course, Outset, Raced, Rung, next_rung, outset
from lrexp.analysis.signal import is_buried
from lrexp.analysis.suggest import Suggestion, suggest
from lrexp.config.config import Config
from lrexp.config.document import with_optimizer_lr
from lrexp.engine.choice import Choice
from lrexp.engine.stop import Pause
from lrexp.errors import ConfigError, RunError
from lrexp.records import Reporter, TrialId
from lrexp.runs.execute import choose_engine, train
from lrexp.runs.files import write_whole
from lrexp.runs.plan import Plan
from lrexp.runs.reader import (
    RANGE_TEST,
    UNTRAINED,
    Draw,
    Run,
    curves_of,
    finished_tests,
    load_run,
    read_raced,
    untrained_losses,
)
from lrexp.runs.recorder import Recorder
from lrexp.runs.remaining import (
    RACE,
    again_untrained,
    read_left,
    read_rungs,
    read_units,
    untrained_units,
)
from lrexp.runs.spec import Order
from lrexp.runs.summary import comparison_summary, race_summary, range_test_summary
from lrexp.runs.trials import can_have
from lrexp.runs.writer import RunWriter


@dataclass(frozen=True)
class LrCopy:
    """A copy of the config that is to get the suggested LR.

    Args:
        path: of the file.
        force: whether it may replace one.

    Raises:
        ConfigError: at once, not after training: it cannot be written there.
    """

    path: Path
    force: bool

    def __post_init__(self) -> None:
        if self.path.exists() and not self.force:
            what, remedy = "exists already", "Give another file, or --force."
            raise ConfigError.single("--write", what, str(self.path), remedy)
        if not self.path.parent.is_dir():
            what, remedy = "lies in a folder that does not exist", "Make the folder."
            raise ConfigError.single("--write", what, str(self.path), remedy)

    @property
    def option(self) -> str:
        """The option of a command that writes it."""
        return f"--write {shlex.quote(str(self.path))}"

    def write(self, loaded: Config, suggested_lr: float | None, reporter: Reporter) -> None:
        """Write it, if there is a suggestion."""
        if suggested_lr is not None:
            text = with_optimizer_lr(loaded.document, float(f"{suggested_lr:.3g}"))
            write_whole(self.path, text)
            _warn_of_own_lrs(loaded, reporter)


def finish_comparison(
    writer: RunWriter, recorder: Recorder, loaded: Config, reporter: Reporter, *, draw: Draw
) -> None:
    """Write the summary and the plots of a comparison.

    Raises:
        FailedTrialsError: trials failed.
    """
    with reporter.waiting("Drawing"):
        writer.summary(comparison_summary(load_run(writer.directory), loaded))
        draw(load_run(writer.directory))
    recorder.raise_failures(writer.directory)


def finish_range_tests(
    writer: RunWriter, recorder: Recorder, plan: Plan, reporter: Reporter, *, draw: Draw
) -> None:
    """Write the suggestion and the plots of range tests.

    Raises:
        FailedTrialsError: trials failed.
    """
    run = load_run(writer.directory)
    tests = finished_tests(run)
    if not tests:
        recorder.raise_failures(writer.directory)
    suggestion = suggestion_of(plan, run)
    writer.summary(range_test_summary(suggestion, [test.seed for test in tests]))
    with reporter.waiting("Drawing"):
        draw(load_run(writer.directory))
    recorder.raise_failures(writer.directory)


def suggestion_of(plan: Plan, run: Run) -> Suggestion:
    """Return what the range tests of a run suggest for the schedule of the plan."""
    rule, mean_frac = plan.config.experiment.find_lr.rule, plan.variants[RANGE_TEST].mean_frac
    tests = finished_tests(run)
    return suggest(curves_of(tests), rule, mean_frac, untrained_losses(run, tests))


def _warn_of_own_lrs(config: Config, reporter: Reporter) -> None:
    """Say which variants will not use the LR that was written."""
    own = [
        name
        for name, changes in config.overrides.items()
        if {"optimizer", "optimizer.lr"} & changes.keys()
    ]
    if own and config.experiment.compare.variants is not None:
        reporter.say(
            f"Note: the variants {', '.join(own)} set an optimizer.lr of their own; the written "
            "one is for the others.",
            "yellow",
        )


def finish_find_lr(
    order: Order,
    plan: Plan,
    writer: RunWriter,
    recorder: Recorder,
    reporter: Reporter,
    *,
    jobs: int | None,
    pause: Pause,
    draw: Draw,
) -> None:
    """Write what the range tests suggest, after a race where one was asked for.

    Args:
        order: what was asked for.
        plan: made from it.
        writer: of the run directory.
        recorder: of the range tests.
        reporter: is told how it goes.
        jobs: worker processes, as `choose_engine` takes them.
        pause: as `train` takes it.
        draw: draws the finished run.

    Raises:
        FailedTrialsError: trials failed.
        ConfigError: the budget is too small for a race, or an engine cannot be had.
        KeyboardInterrupt: the race was stopped before its end.
    """
    settings = plan.config.experiment.find_lr
    if read_rungs(writer.directory):  # the range tests were done long ago
        recorder.raise_failures(writer.directory)
    begin = None
    if not recorder.failures:
        _look_again(order, plan, writer, reporter, jobs=jobs, pause=pause)
        run = load_run(writer.directory)
        suggestion = suggestion_of(plan, run)
        if settings.race:
            begin = outset(curves_of(finished_tests(run)), suggestion)
    if begin is None:
        finish_range_tests(writer, recorder, plan, reporter, draw=draw)
        return
    course = _course(plan, begin)
    done = _race(order, plan, writer, course, reporter, jobs=jobs, pause=pause)
    with reporter.waiting("Drawing"):
        summary = race_summary(suggestion, _seeds(plan), course, done, _tested(writer))
        notes = [note for note in (begin.note, summary["note"]) if note]
        writer.summary({**summary, "note": " ".join(notes) or None})
        draw(load_run(writer.directory))


def _look_again(
    order: Order,
    plan: Plan,
    writer: RunWriter,
    reporter: Reporter,
    *,
    jobs: int | None,
    pause: Pause,
) -> None:
    """Run the batches once more without learning, where no fall shows and one may be buried.

    Raises:
        FailedTrialsError: trials failed.
        KeyboardInterrupt: it was stopped before its end.
    """
    run, known = writer.directory, order.lengths(plan)
    if not is_buried(curves_of(finished_tests(load_run(run)))):
        return
    units, jobs_before = read_units(run, known)
    again = untrained_units(units)
    known |= {trial: order.length(plan, trial) for unit in again for trial in unit.trials}
    writer.update_status(
        num_trials=len(known), total_steps={trial.variant: n for trial, n in known.items()}
    )
    left = read_left(run, [*units, *again])
    if left.trials:
        text = "No fall shows: the same batches once more, without learning."
        reporter.say(text)
        choice = Choice(left.units, jobs_before if jobs is None else jobs)
        recorder = train(order, plan, choice, writer, reporter, pause=pause, left=left)
        recorder.raise_failures(run)


def check_budget(plan: Plan, given: float | None) -> None:
    """Refuse a race that its budget leaves no training for, and a budget without a race.

    Args:
        plan: of the run.
        given: the budget, if it was given for this run and not by the config.

    Raises:
        ConfigError: before anything is trained.
    """
    if not plan.config.experiment.find_lr.race:
        if given is not None:
            remedy = "Add --race, or leave it out."
            raise ConfigError.single("--budget", "is that of a race", given, remedy)
        return
    try:
        _course(plan, Outset(plan.config.experiment.optimizer.lr))
    except ConfigError as error:
        raise error.placed(plan.config.document.place_of) from None


def _race(
    order: Order,
    plan: Plan,
    writer: RunWriter,
    course: Course,
    reporter: Reporter,
    *,
    jobs: int | None,
    pause: Pause,
) -> list[Raced]:
    """Train the rungs that are not trained yet, and return what all of them came to."""
    run = writer.directory
    known, kept = order.lengths(plan), read_rungs(run)
    units = read_units(run, known)[0]
    units += again_untrained(run, units)
    known |= {trial: order.length(plan, trial) for unit in units for trial in unit.trials}
    done: list[Raced] = []
    choices: list[Choice] = []
    rungs: list[Rung] = []
    while (rung := next_rung(course, done)) is not None:
        trials = [TrialId(*trial) for trial in rung.trials]
        if len(choices) < len(kept):
            choice = kept[len(choices)]
            _check(choice, trials, run / RACE)
        else:
            _announce(rung, course, reporter)
            choice = choose_engine(order, plan, jobs, reporter, trials)
        choices.append(choice)
        rungs.append(rung)
        units += choice.units
        known |= dict.fromkeys(trials, rung.horizon)
        if len(choices) > len(kept):
            writer.json(RACE, _plain(course, rungs, choices))
        writer.update_status(
            num_trials=len(known), total_steps={trial.variant: n for trial, n in known.items()}
        )
        left = read_left(run, units)
        if left.trials:
            rest = Choice(left.units, choice.jobs)
            recorder = train(order, plan, rest, writer, reporter, pause=pause, left=left)
            recorder.raise_failures(run)
        done.append(read_raced(run, rung))
    return done


def _course(plan: Plan, begin: Outset) -> Course:
    experiment, variant = plan.config.experiment, plan.variants[RANGE_TEST]
    return Course(
        start_lr=begin.lr,
        least_gain=begin.least_gain,
        total_steps=variant.total_steps,
        budget=experiment.find_lr.budget,
        seed=experiment.seed,
        can_have=lambda lr: can_have(variant, plan.config, lr),
    )


def _seeds(plan: Plan) -> list[int]:
    experiment = plan.config.experiment
    return list(range(experiment.seed, experiment.seed + experiment.find_lr.seeds))


def _tested(writer: RunWriter) -> int:
    """Return how many steps the range tests made, with those of a second look."""
    run = load_run(writer.directory)
    tests = [*finished_tests(run), *run.variants.get(UNTRAINED, ())]
    return sum(len(test.steps["loss"]) for test in tests)


def _check(choice: Choice, trials: Sequence[TrialId], path: Path) -> None:
    named = [trial for unit in choice.units for trial in unit.trials]
    if sorted(named) != sorted(trials):
        raise RunError(
            f"{path}: does not fit the results of the trials: they were changed, or the race was "
            "begun by another version of lrexp. Run the config anew."
        )


def _announce(rung: Rung, course: Course, reporter: Reporter) -> None:
    lrs = ", ".join(f"{lr:.4g}" for lr in rung.lrs)
    seeds = f" × {len(rung.seeds)} seeds" if len(rung.seeds) > 1 else ""
    length = f"{rung.horizon:,} of {course.total_steps:,} steps"
    reporter.say(f"Race: LR {lrs}{seeds}, {length} each.")


def _plain(course: Course, rungs: Sequence[Rung], choices: Sequence[Choice]) -> dict[str, Any]:
    return {
        "budget_steps": course.budget_steps,
        "rungs": [
            {**asdict(rung), "engine": choice.to_plain()}
            for rung, choice in zip(rungs, choices, strict=True)
        ],
    }
