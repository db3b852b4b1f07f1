"""Learning rates over the steps, as a run used them or as schedules give them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrexp.analysis.race import entrant_of
from lrexp.report.curves import Array, Line, lr_traces, shared_epoch, thinned
from lrexp.report.figure import Entry, Heading, finish, new_figure
from lrexp.report.panels import handle
from lrexp.report.style import (
    Mark,
    dress,
    log_limits,
    lr_axis,
    mark,
    marker_look,
    pad_x,
    panel_title,
    step_axis,
)
from lrexp.report.text import count_text, lr_text, run_subtitle, shortened
from lrexp.runs.reader import UNTRAINED, Run

PEAK_RATIO = 10.0  # of the largest to the smallest peak, from which the axis is logarithmic
MEDIAN_RATIO = 20.0  # of a trace's peak to its median: most of it would lie on the floor
UNCHANGED = "if the loss never changed"
TAIL = 1e-3  # of the smallest peak, below which tails are cut


def lr_figure(run: Run) -> Figure:
    """Return the sheet of the LRs that a run used, one line for each variant."""
    shown = {
        n: trials for n, trials in run.variants.items() if n != UNTRAINED and entrant_of(n) is None
    }
    traces = {name: lr_traces(trials) for name, trials in shown.items()}
    length, shared = shared_epoch(run)
    is_test = run.command == "find-lr"
    of_what = "the LR range test" if is_test else count_text(len(traces), "variant")
    heading = Heading(
        title=f"{shortened(run.name, 48)}: learning rate of {of_what}",
        subtitle=run_subtitle(run),
        source=run.path.name,
    )
    return _sheet(traces, heading, length if shared else None, legend=not is_test)


def schedules_figure(
    traces: Mapping[str, Array],
    title: str = "",
    steps_per_epoch: float | None = None,
    reactive: Collection[str] = (),
) -> Figure:
    """Return the sheet of LR traces that hold one value for each step.

    Those of the `reactive` variants, which follow a loss, are what a constant loss would give.
    """
    lines = {name: [_trace(lr)] for name, lr in traces.items()}
    start = f"{shortened(title, 48)}: " if title else ""
    steps = sorted({len(lr) for lr in traces.values()})
    heading = Heading(
        title=f"{start}learning rate of {count_text(len(traces), 'variant')}",
        subtitle=f"before any training · {count_text(steps[-1] if steps else 0, 'step')}",
        caption=f"Thin, dashed: follows a loss, drawn as {UNCHANGED}." if reactive else "",
    )
    return _sheet(lines, heading, steps_per_epoch, reactive=reactive)


def draw_traces(
    ax: Axes,
    traces: Mapping[str, Sequence[Line]],
    steps_per_epoch: float | None = None,
    reactive: Collection[str] = (),
) -> None:
    """Draw LR traces on an axis that fits them; each has a first line, others are its other seeds.

    Those of `reactive` names are thin and dashed. Equal traces would hide each other: the earlier
    is the wider, and looks out on both sides.
    """
    dress(ax)
    firsts = [lines[0] if lines else None for lines in traces.values()]
    for i, (name, lines) in enumerate(traces.items()):
        look, thin = _trace_mark(i, name in reactive), name in reactive
        later = sum(_equal(firsts[i], other) for other in firsts[i + 1 :])
        for rank, line in enumerate(lines):
            ax.plot(
                line.x, line.y, color=look.color, linestyle=look.dashes, label=name,
                linewidth=1.0 if rank else 1.3 if thin else 2.2 + 2.4 * later,
                alpha=0.5 if rank else 1.0, zorder=2.5 if thin else None,
                **(marker_look(look, len(line.x)) if len(line.x) > 1 else {"marker": "o"}),
            )  # fmt: skip
    drawn = [line for lines in traces.values() for line in lines if len(line.x)]
    pad_x(ax, 0, max((float(line.x[-1]) for line in drawn), default=1.0))
    _scale(ax, [line.y for line in drawn])
    step_axis(ax, steps_per_epoch=steps_per_epoch)


def lr_view(traces: Sequence[Array]) -> tuple[float, float, bool]:
    """Return the lowest and highest LR to show, and whether on a logarithmic axis.

    It is logarithmic where a trace spends most of its time decades below its peak, as a ramp does,
    and where variants peak a decade apart. In the latter case the tails of schedules that end near
    0 are cut: they would take most of the axis.
    """
    positive = [lr[lr > 0] for lr in traces if (lr > 0).any()]
    if not positive:
        return 0.0, 1.0, False
    peaks = [float(lr.max()) for lr in positive]
    low, high = min(float(lr.min()) for lr in positive), max(peaks)
    if any(float(np.median(lr)) * MEDIAN_RATIO < lr.max() for lr in positive):
        return low, high, True
    if high > 0.999 * PEAK_RATIO * min(peaks):
        return max(low, min(peaks) * TAIL), high, True
    return 0.0, high, False


def _sheet(
    traces: Mapping[str, Sequence[Line]],
    heading: Heading,
    steps_per_epoch: float | None,
    *,
    legend: bool = True,
    reactive: Collection[str] = (),
) -> Figure:
    figure = new_figure()
    ax = figure.subplots()
    draw_traces(ax, traces, steps_per_epoch, reactive)
    panel_title(ax, "learning rate")
    entries = [
        Entry(
            handle(_trace_mark(i, name in reactive)),
            name,
            UNCHANGED if name in reactive else _note(lines),
        )
        for i, (name, lines) in enumerate(traces.items())
    ]
    finish(figure, heading, entries if legend else (), "variants")
    return figure


def _trace_mark(index: int, reactive: bool) -> Mark:
    look = mark(index)
    return replace(look, dashes=(0, (5, 3))) if reactive else look


def _scale(ax: Axes, traces: Sequence[Array]) -> None:
    low, high, log = lr_view(traces)
    ax.set_ylim(*(log_limits(low, high, 0.06, 0.06) if log else (-0.015 * high, 1.06 * high)))
    lr_axis(ax, "y", log=log)


def _trace(lr: Array) -> Line:
    values = np.asarray(lr, dtype=np.float64)
    return thinned(Line(np.arange(len(values), dtype=np.float64), values))


def _note(lines: Sequence[Line]) -> str:
    """Return `0.01`, or `peak 0.01, end 1e-5`."""
    lr = lines[0].y if lines else np.empty(0)
    if not len(lr):
        return "not begun"
    if lr.min() == lr.max():
        return lr_text(float(lr[0]))
    return f"peak {lr_text(float(lr.max()))}, end {lr_text(float(lr[-1]))}"


def _equal(one: Line | None, other: Line | None) -> bool:
    return one is not None and other is not None and np.array_equal(one.y, other.y)
