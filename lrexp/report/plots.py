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

from lrexp.errors import RunError
from lrexp.report.data import overlays, pictures
from lrexp.report.data.lr import schedule_picture
from lrexp.report.data.picture import Picture
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
    """Draw the pictures of one run from its files; see `lrexp.report.data.pictures`.

    Args:
        run: finished, running or interrupted.
        out: folder for the pictures; None is the run's own plots/.

    Raises:
        RunError: a file of the run is damaged, or the disk refuses.

    Example:
        >>> [path.name for path in draw_run(load_run("runs/..."))]  # doctest: +SKIP
        ['loss.png', 'lr.png']
    """
    folder = run.path / "plots" if out is None else out
    if out is None and folder.is_symlink():
        what = "is a link, which may lead out of the run"
        raise RunError(f"{folder}: {what}. Remove it, or give another folder with --out.")
    with _of_what_runs_write(run):
        return _draw({folder / f"{name}.png": made for name, made in pictures(run).items()})


def draw_overlay(runs: Sequence[Run], out: Path) -> list[Path]:
    """Draw several runs into one picture: overlay-loss.png, and overlay-range-test.png of find-lr.

    Args:
        runs: at least one; comparisons and range tests go into different pictures, and one that is
            alone of its kind is drawn as by itself.
        out: folder for the pictures.
    """
    with _of_what_runs_write(*runs):
        return _draw({out / f"{name}.png": made for name, made in overlays(runs).items()})


def _draw(pictures: Mapping[Path, Picture]) -> list[Path]:
    from lrexp.report.figure import draw, save
    from lrexp.report.style import house_style

    with house_style():
        return [save(draw(picture), path) for path, picture in pictures.items()]


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
    return _draw({path: schedule_picture(traces, title, steps_per_epoch, reactive)})[0]
