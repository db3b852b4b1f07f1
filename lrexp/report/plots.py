"""Drawing pictures: those of runs into files, those for notebooks on axes.

In a notebook a picture is drawn on the caller's axes, or on a new figure that shows itself: only
there is pyplot used. matplotlib takes a third of a second to import; it is imported by the function
that draws, so that tables, which share this package, do not wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrexp.errors import ConfigError, RunError
from lrexp.report.data import overlays, pictures
from lrexp.report.data.curves import Line
from lrexp.report.data.lr import lr_panel, schedule_picture
from lrexp.report.data.picture import Array, Entry, Picture, look
from lrexp.report.data.range_test import RangeCurves, key, range_test_panels
from lrexp.runs.files import as_written
from lrexp.runs.reader import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lrexp.analysis.range_curve import Curve
    from lrexp.analysis.suggest import Suggestion


PLOTS = "LREXP_PLOTS"  # in the environment: leaves the pictures of trained runs to `lrexp plot`
OFF = ("0", "false", "no", "off")  # when it says one of these
FACTS = ("suggested_lr", "interval", "base_lr", "max_lr", "rules", "reason")
MAX_POINTS = 20_000  # that a schedule is asked for, unless the caller says how many


def draw_unless_off(run: Run) -> list[Path]:
    """Draw a run that has just ended, unless the environment says `LREXP_PLOTS=0`."""
    return [] if is_off() else draw_run(run)


def is_off() -> bool:
    """Return whether the environment leaves pictures and pages to the commands for them."""
    return os.environ.get(PLOTS, "").lower() in OFF


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


def plot_lr_schedule(  # noqa: PLR0917 (the order of the arguments is public)
    schedule: Callable[[int], float] | Mapping[str, Callable[[int], float]],
    total_steps: int,
    title: str | None = None,
    figsize: tuple[float, float] = (12, 6),
    point_interval: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the LR of every step of a schedule, or of several schedules on one axis.

    Args:
        schedule: a function of the step, or several by name.
        total_steps: number of updates, at least 1; steps 0 … total_steps − 1 are drawn.
        title: what stands above the picture.
        figsize: width and height of a new figure, in inches.
        point_interval: steps from one point to the next; None takes every step of a schedule of up
            to 20,000 steps, and 20,000 points of a longer one. The last step is drawn always.
        ax: where to draw; None makes a new pyplot figure.

    Returns:
        The Axes; its axis of LRs is logarithmic where that is easier to read.

    Raises:
        ConfigError: `schedule` is not callable, a number is not a whole one from 1, or `ax` is no
            Axes.

    Example:
        >>> schedule = lrexp.get_lr_scheduler(             # doctest: +SKIP
        ...     max_lr=1e-4, min_lr=1e-6, warmup_steps=1000, max_steps=50_000
        ... )
        >>> plot_lr_schedule(schedule, total_steps=50_000)  # doctest: +SKIP
    """
    from lrexp.report.figure import draw_panel

    _check_axes(ax)
    steps = _steps(total_steps, point_interval)
    schedules = dict(schedule) if isinstance(schedule, Mapping) else {"": schedule}
    traces = {name: [Line(steps, _values(lr, steps))] for name, lr in schedules.items()}
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    draw_panel(ax, replace(lr_panel(traces), title=""))
    ax.set_ylabel("learning rate")
    ax.set_title("Learning rate" if title is None else title, loc="left", parse_math=False)
    if isinstance(schedule, Mapping) and schedules:
        named = enumerate(map(str, schedules))
        _add_legend(ax, [Entry("lr.trace", name, look=look(i)) for i, name in named])
    return ax


def plot_range_test(
    curves: Sequence[Curve], suggestion: Suggestion | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the loss over the LR, with the suggestion marked where there is one.

    Args:
        curves: one for each seed, of one ramp.
        suggestion: what `suggest` read off them.
        ax: where to draw; None makes a new pyplot figure, with a row below for each rule.

    Returns:
        The Axes with the curves.

    Raises:
        ConfigError: the curves do not share the LRs of one ramp, or `ax` is no Axes.

    Example:
        >>> finder = lrexp.LRFinder(model, optimizer, loss_fn)   # doctest: +SKIP
        >>> result = finder.run(train_loader)                    # doctest: +SKIP
        >>> plot_range_test(result.curves, result.suggestion)    # doctest: +SKIP
    """
    from lrexp.report.figure import draw_panel, draw_panels

    _check_axes(ax)
    facts = {} if suggestion is None else {name: getattr(suggestion, name) for name in FACTS}
    test = RangeCurves(curves)
    panel, strip = range_test_panels(test, facts)
    panel = replace(panel, title="")
    if ax is None:
        import matplotlib.pyplot as plt

        figure = plt.figure(figsize=(12, 6.5), layout="constrained")
        ax = draw_panels(figure, [panel], strip)
    else:
        draw_panel(ax, panel)
    ax.set_ylabel("loss")
    _add_legend(ax, key(test, facts), fontsize="small")
    return ax


def _check_axes(ax: object) -> None:
    from matplotlib.axes import Axes

    if ax is not None and not isinstance(ax, Axes):
        remedy = "Give one from `figure, ax = plt.subplots()`, or leave it out."
        raise ConfigError.single("ax", "must be a matplotlib Axes", type(ax).__name__, remedy)


def _add_legend(ax: Axes, entries: Sequence[Entry], **look: Any) -> None:
    from lrexp.report.figure import handle
    from lrexp.report.style import drawable

    legend = ax.legend(
        [handle(entry.kind, entry.look) for entry in entries],
        ["-"] * len(entries),  # set below: a label that begins with _ would be left out
        loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, **look,
    )  # fmt: skip
    for label, entry in zip(legend.get_texts(), entries, strict=True):
        text = f"{drawable(entry.name, 40)} {entry.note}".strip()
        label.set(parse_math=False, text=text)


def _steps(total_steps: int, point_interval: int | None) -> Array:
    """Return the steps to draw, the last one among them."""
    total = _checked("total_steps", total_steps)
    usual = -(-total // MAX_POINTS)
    interval = usual if point_interval is None else _checked("point_interval", point_interval)
    return np.union1d(np.arange(0, total, interval), [total - 1]).astype(np.float64)


def _checked(key: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ConfigError.single(key, "must be a whole number, at least 1", value, "Try 1000.")


def _values(lr: object, steps: Array) -> Array:
    if not callable(lr):
        remedy = "Give a function of the step, e.g. lrexp.get_lr_scheduler(...)."
        raise ConfigError.single("schedule", "must be a function of the step", lr, remedy)
    return np.array([float(lr(int(step))) for step in steps])
