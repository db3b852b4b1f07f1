"""Pictures for notebooks: drawn on the caller's axes, or on a new figure that shows itself.

Only here is pyplot used. As in `plots`, matplotlib is imported by the function that draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lrexp.errors import ConfigError
from lrexp.report.data.curves import Line
from lrexp.report.data.lr import lr_panel
from lrexp.report.data.picture import Array, Entry, look
from lrexp.report.data.range_test import key, range_curves, range_test_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lrexp.analysis.range_curve import Curve
    from lrexp.analysis.suggest import Suggestion


FACTS = ("suggested_lr", "interval", "base_lr", "max_lr", "rules", "reason")
MAX_POINTS = 20_000  # that a schedule is asked for, unless the caller says how many


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
    from lrexp.report.panel import draw_panel

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
    from lrexp.report.panel import draw_panel, draw_panels

    _check_axes(ax)
    facts = {} if suggestion is None else {name: getattr(suggestion, name) for name in FACTS}
    test = range_curves(curves)
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
    from lrexp.report.panel import handle
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
    if point_interval is None:
        interval = -(-total // MAX_POINTS)
    else:
        interval = _checked("point_interval", point_interval)
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
