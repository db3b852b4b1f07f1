"""From trained trials to a finished run: its summary and plots, and what a range test suggests."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from lrexp.config import Config, with_optimizer_lr
from lrexp.errors import ConfigError
from lrexp.finder import Suggestion, suggest
from lrexp.finder.second_look import closer_look
from lrexp.lr_finder import RangeTest
from lrexp.plan import RANGE_TEST, Plan
from lrexp.record import Recorder
from lrexp.report import Draw
from lrexp.report.damage import as_written
from lrexp.report.progress import waiting
from lrexp.store import Run, RunWriter, load_run, write_whole
from lrexp.summary import comparison_summary, range_test_summary
from lrexp.tested import curves_of, finished_tests, untrained_losses


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

    def write(self, loaded: Config, suggested_lr: float | None, console: Console) -> None:
        """Write it, if there is a suggestion."""
        if suggested_lr is not None:
            text = with_optimizer_lr(loaded.document, float(f"{suggested_lr:.3g}"))
            write_whole(self.path, text)
            _warn_of_own_lrs(loaded, console)


def finish_comparison(
    writer: RunWriter, recorder: Recorder, loaded: Config, console: Console, *, draw: Draw
) -> None:
    """Write the summary and the plots of a comparison.

    Raises:
        FailedTrialsError: trials failed.
    """
    with waiting(console, "Drawing"):
        writer.summary(comparison_summary(load_run(writer.directory), loaded))
        draw(load_run(writer.directory))
    recorder.raise_failures(writer.directory)


def finish_range_tests(
    writer: RunWriter, recorder: Recorder, plan: Plan, console: Console, *, draw: Draw
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
    with waiting(console, "Drawing"):
        draw(load_run(writer.directory))
    recorder.raise_failures(writer.directory)


def suggestion_of(plan: Plan, run: Run) -> Suggestion:
    """Return what the range tests of a run suggest for the schedule of the plan."""
    rule, mean_frac = plan.config.experiment.find_lr.rule, plan.variants[RANGE_TEST].mean_frac
    tests = finished_tests(run)
    return suggest(curves_of(tests), rule, mean_frac, untrained_losses(run, tests))


def range_test(run: Run) -> RangeTest:
    """Return what the range tests of a finished run suggest."""
    tests = finished_tests(run)
    curves = curves_of(tests)
    rule = run.config.get("find_lr", {}).get("rule", "auto")
    summary = run.summary or {}
    with as_written(str(run.path)):
        frac = float(summary.get("mean_frac", 1.0))
    suggestion = suggest(curves, rule, frac, untrained_losses(run, tests))
    if summary.get("race"):  # it had the last word
        interval = summary["interval"]
        suggestion = replace(
            suggestion,
            **{
                key: summary[key] for key in ("suggested_lr", "base_lr", "max_lr", "reason", "note")
            },
            interval=None if interval is None else (interval[0], interval[1]),
        )
    shown = tuple(closer_look(curves, untrained_losses(run, tests)) or ())
    return RangeTest(suggestion, tuple(curves), run, shown)


def _warn_of_own_lrs(config: Config, console: Console) -> None:
    """Say which variants will not use the LR that was written."""
    own = [
        name
        for name, changes in config.overrides.items()
        if {"optimizer", "optimizer.lr"} & changes.keys()
    ]
    if own and config.experiment.compare.variants is not None:
        console.print(
            f"Note: the variants {', '.join(own)} set an optimizer.lr of their own; the written "
            "one is for the others.",
            style="yellow",
            highlight=False,
            markup=False,
        )
