"""Drawing pictures: which ones, and into which files.

matplotlib takes a third of a second to import; it is imported by the function that draws, so that
tables, which share this package, do not wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lrexp.analysis.race import entrant_of
from lrexp.errors import RunError
from lrexp.runs.files import as_written
from lrexp.runs.reader import Run

if TYPE_CHECKING:
    import numpy as np


PLOTS = "LREXP_PLOTS"  # in the environment: leaves the pictures of trained runs to `lrexp plot`
OFF = ("0", "false", "no", "off")  # when it says one of these


def draw_unless_off(run: Run) -> list[Path]:
    """Draw a run that has just ended, unless the environment says `LREXP_PLOTS=0`."""
    return [] if os.environ.get(PLOTS, "").lower() in OFF else draw_run(run)


def draw_nothing(run: Run) -> list[Path]:
    """Leave the pictures of a run to `lrexp plot`."""
    return []


def draw_run(run: Run, out: Path | None = None) -> list[Path]:
    """Draw the pictures of one run from its files: loss.png, lr.png, and those of find-lr.

    These are range_test.png, and race.png where a race followed.

    A finished comparison also has verdicts.png, where there is one against a reference over
    several seeds, and lr_sensitivity.png, where three LRs or more were compared.

    Args:
        run: finished, running or interrupted.
        out: folder for the pictures; None is the run's own plots/.

    Raises:
        RunError: a file of the run is damaged, or the disk refuses.

    Example:
        >>> [path.name for path in draw_run(load_run("runs/..."))]  # doctest: +SKIP
        ['loss.png', 'lr.png']
    """
    from lrexp.report.differences import differences_figure
    from lrexp.report.figure import save
    from lrexp.report.loss import loss_figure
    from lrexp.report.lr import lr_figure
    from lrexp.report.race import race_figure
    from lrexp.report.range_test import range_test_figure, range_test_loss_figure
    from lrexp.report.sensitivity import sensitivity_figure
    from lrexp.report.style import house_style

    if run.command == "find-lr":
        figures = {
            "range_test": range_test_figure,
            "loss": range_test_loss_figure,
            "lr": lr_figure,
        }
        if any(entrant_of(name) for name in run.variants):
            figures["race"] = race_figure
    else:
        figures = {"loss": loss_figure, "lr": lr_figure}
        summary = run.summary or {}  # that of an older version has no verdicts
        if summary.get("comparisons") and len(summary["seeds"]) > 1:
            figures["verdicts"] = differences_figure
        if summary.get("lr_sensitivity"):
            figures["lr_sensitivity"] = sensitivity_figure
    folder = run.path / "plots" if out is None else out
    if out is None and folder.is_symlink():
        what = "is a link, which may lead out of the run"
        raise RunError(f"{folder}: {what}. Remove it, or give another folder with --out.")
    with house_style(), _of_what_runs_write(run):
        return [save(draw(run), folder / f"{name}.png") for name, draw in figures.items()]


def draw_overlay(runs: Sequence[Run], out: Path) -> list[Path]:
    """Draw several runs on one sheet: overlay-loss.png, and overlay-range-test.png of find-lr.

    Args:
        runs: at least one; comparisons and range tests go onto different sheets, and one that is
            alone of its kind is drawn as by itself.
        out: folder for the pictures.
    """
    from lrexp.report.figure import save
    from lrexp.report.loss import loss_figure, overlay_loss_figure, overlay_range_test_figure
    from lrexp.report.range_test import range_test_figure
    from lrexp.report.style import house_style

    tests = [run for run in runs if run.command == "find-lr"]
    comparisons = [run for run in runs if run.command != "find-lr"]
    paths = []
    with house_style(), _of_what_runs_write(*runs):
        if comparisons:
            alone = len(comparisons) == 1
            figure = loss_figure(comparisons[0]) if alone else overlay_loss_figure(comparisons)
            paths.append(save(figure, out / "overlay-loss.png"))
        if tests:
            alone = len(tests) == 1
            figure = range_test_figure(tests[0]) if alone else overlay_range_test_figure(tests)
            paths.append(save(figure, out / "overlay-range-test.png"))
    return paths


@contextmanager
def _of_what_runs_write(*runs: Run) -> Iterator[None]:
    """Turn what no run writes into a RunError, such as the logarithm of an LR below 0."""
    import numpy as np

    names = ", ".join(str(run.path) for run in runs)
    with as_written(names), np.errstate(invalid="raise", divide="raise"):
        yield


def draw_schedules(
    traces: Mapping[str, np.ndarray],
    path: Path,
    title: str = "",
    steps_per_epoch: float | None = None,
    reactive: Collection[str] = (),
) -> Path:
    """Draw LR traces, one value for each step, into one PNG file and return its path.

    Args:
        traces: by variant, (steps,) each; their lengths may differ.
        path: the file.
        title: name of the experiment.
        steps_per_epoch: gives the picture an axis of epochs.
        reactive: names of the variants whose LR follows a loss; their traces, as they would be if
            the loss never changed, are thin and dashed.
    """
    from lrexp.report.figure import save
    from lrexp.report.lr import schedules_figure
    from lrexp.report.style import house_style

    with house_style():
        return save(schedules_figure(traces, title, steps_per_epoch, reactive), path)
