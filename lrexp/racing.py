"""Running a race: rung after rung is decided by the results so far, trained, and read back.

What is decided depends on files alone: a race that was interrupted finds its rungs again in the
results of its trials, and how they are trained in race.json, and goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from lrexp.engine import Choice, Pause, TrialId
from lrexp.errors import ConfigError, RunError
from lrexp.execute import choose_engine, train
from lrexp.finder import is_buried
from lrexp.finder.trials import UNTRAINED
from lrexp.finish import finish_range_tests, suggestion_of
from lrexp.left import RACE, again_untrained, read_left, read_rungs, read_units, untrained_units
from lrexp.order import Order
from lrexp.plan import RANGE_TEST, Plan, can_have
from lrexp.race import Course, Outset, Raced, Rung, next_rung, outset, read_raced
from lrexp.record import Recorder
from lrexp.report import Draw
from lrexp.report.progress import waiting
from lrexp.report.text import lr_text
from lrexp.store import RunWriter, load_run
from lrexp.summary import race_summary
from lrexp.tested import curves_of, finished_tests


def finish_find_lr(
    order: Order,
    plan: Plan,
    writer: RunWriter,
    recorder: Recorder,
    console: Console,
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
        console: where progress is shown.
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
        _look_again(order, plan, writer, console, jobs=jobs, pause=pause)
        run = load_run(writer.directory)
        suggestion = suggestion_of(plan, run)
        if settings.race:
            begin = outset(curves_of(finished_tests(run)), suggestion)
    if begin is None:
        finish_range_tests(writer, recorder, plan, console, draw=draw)
        return
    course = _course(plan, begin)
    done = _race(order, plan, writer, course, console, jobs=jobs, pause=pause)
    with waiting(console, "Drawing"):
        summary = race_summary(suggestion, _seeds(plan), course, done, _tested(writer))
        notes = [note for note in (begin.note, summary["note"]) if note]
        writer.summary({**summary, "note": " ".join(notes) or None})
        draw(load_run(writer.directory))


def _look_again(
    order: Order,
    plan: Plan,
    writer: RunWriter,
    console: Console,
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
        console.print(text, highlight=False, soft_wrap=True)
        choice = Choice(left.units, jobs_before if jobs is None else jobs)
        recorder = train(order, plan, choice, writer, console, pause=pause, left=left)
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
    console: Console,
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
            _announce(rung, course, console)
            choice = choose_engine(order, plan, jobs, console, trials)
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
            recorder = train(order, plan, rest, writer, console, pause=pause, left=left)
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


def _announce(rung: Rung, course: Course, console: Console) -> None:
    lrs = ", ".join(lr_text(lr) for lr in rung.lrs)
    seeds = f" × {len(rung.seeds)} seeds" if len(rung.seeds) > 1 else ""
    length = f"{rung.horizon:,} of {course.total_steps:,} steps"
    console.print(f"Race: LR {lrs}{seeds}, {length} each.", highlight=False, soft_wrap=True)


def _plain(course: Course, rungs: Sequence[Rung], choices: Sequence[Choice]) -> dict[str, Any]:
    return {
        "budget_steps": course.budget_steps,
        "rungs": [
            {**asdict(rung), "engine": choice.to_plain()}
            for rung, choice in zip(rungs, choices, strict=True)
        ],
    }
