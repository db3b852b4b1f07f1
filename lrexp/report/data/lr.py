"""Learning rates over the steps, as a run used them or as schedules give them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from lrexp.report.data.curves import Line, lr_traces, shared_epoch, thinned
from lrexp.report.data.losses import looks_of
from lrexp.report.data.picture import (
    NUM_DASHES,
    Array,
    Axis,
    Entry,
    Look,
    Mark,
    Panel,
    Picture,
    log_limits,
    look,
    of_run,
    step_axis,
)
from lrexp.report.text import count_text, lr_text, shortened
from lrexp.runs.reader import Run, TrialRecord

PEAK_RATIO = 10.0  # of the largest to the smallest peak, from which the axis is logarithmic
MEDIAN_RATIO = 20.0  # of a trace's peak to its median: most of it would lie on the floor
UNCHANGED = "if the loss never changed"
TAIL = 1e-3  # of the smallest peak, below which tails are cut

Traces = Mapping[str, Sequence[Line]]  # by variant: its first line, and those of seeds that differ


def lr_picture(run: Run) -> Picture:
    """Return the LRs that a run used, one line for each variant."""
    own = {"compare", "range_test"}  # a race and a control have other schedules than the config's
    shown = {
        name: trials
        for name, trials in run.variants.items()
        if own.issuperset(trial.kind for trial in trials)
    }
    traces = {
        trace_name(name, column): lr_traces(trials, column)
        for name, trials in shown.items()
        for column in ["lr", *_other_columns(trials)]
    }
    length, shared = shared_epoch(run)
    is_test = run.command == "find-lr"
    scale, shades = looks_of(run)
    looks = shades if scale and traces.keys() == shades.keys() else {}
    scale = scale if looks else None
    of_what = "the LR range test" if is_test else count_text(len(shown), "variant")
    return of_run(
        run,
        f"learning rate of {of_what}",
        [lr_panel(traces, length if shared else None, of_variants=looks)],
        entries=() if is_test else _entries(traces, of_variants=looks),
        legend_title="variants",
        scale=scale,
    )


_COLUMN = re.compile(r"(.*) \(((?:effective_)?lr(?:_\d+)?)\)", re.DOTALL)


def trace_name(variant: str, column: str) -> str:
    """Return the name of a trace: the variant's, with the column if that is another than `lr`.

    Example:
        >>> trace_name("high", "lr"), trace_name("high", "lr_1")
        ('high', 'high (lr_1)')
    """
    return variant if column == "lr" else f"{variant} ({column})"


def _other_columns(trials: Sequence[TrialRecord]) -> list[str]:
    """Return the columns of the LRs of other optimizers, and of effective LRs."""
    columns = dict.fromkeys(column for trial in trials for column in trial.steps)
    return [column for column in columns if column != "lr" and _COLUMN.fullmatch(f" ({column})")]


def _looks(names: Iterable[str]) -> dict[str, Look]:
    """Return the look of each trace: those of one variant share a colour, by other dashes."""
    found: dict[str, Look] = {}
    seen: dict[str, int] = {}  # traces of each variant so far
    for name in names:
        match = _COLUMN.fullmatch(name)
        variant = match[1] if match else name
        rank = seen[variant] = seen.get(variant, -1) + 1
        first = look(list(seen).index(variant))
        found[name] = Look(first.color, (first.dash + rank) % NUM_DASHES)
    return found


def schedule_picture(
    traces: Mapping[str, Array],
    title: str = "",
    steps_per_epoch: float | None = None,
    reactive: Collection[str] = (),
) -> Picture:
    """Return LR traces that hold one value for each step.

    Those of the `reactive` variants, which follow a loss, are what a constant loss would give.
    """
    lines = {
        name: [thinned(Line(np.arange(len(lr), dtype=np.float64), np.asarray(lr, np.float64)))]
        for name, lr in traces.items()
    }
    start = f"{shortened(title, 48)}: " if title else ""
    steps = max(map(len, traces.values()), default=0)
    variants = sum(_COLUMN.fullmatch(name) is None for name in traces)
    return Picture(
        title=f"{start}learning rate of {count_text(variants, 'variant')}",
        subtitle=f"before any training · {count_text(steps, 'step')}",
        caption=f"Thin, dashed: follows a loss, drawn as {UNCHANGED}." if reactive else "",
        panels=[lr_panel(lines, steps_per_epoch, reactive)],
        entries=_entries(lines, reactive),
        legend_title="variants",
    )


def lr_panel(
    traces: Traces,
    steps_per_epoch: float | None = None,
    reactive: Collection[str] = (),
    of_variants: Mapping[str, Look] | None = None,
) -> Panel:
    """Return LR traces on axes that fit them; looks `of_variants` go before its own."""
    looks = _looks(traces) | dict(of_variants or {})
    marks = [
        Mark("lr.seed" if rank else _kind(name, reactive), line.x, line.y, looks[name], name)
        for name, lines in traces.items()
        for rank, line in enumerate(lines)
    ]
    drawn = [mark for mark in marks if len(mark.x)]
    last = max((float(mark.x[-1]) for mark in drawn), default=1.0)
    low, high, log = lr_view([mark.y for mark in drawn])
    limits = log_limits(low, high, 0.06, 0.06) if log else (-0.015 * high, 1.06 * high)
    y = Axis(limits, scale="log" if log else "linear", numbers="lr")
    return Panel(step_axis(last, steps_per_epoch=steps_per_epoch), y, marks, "learning rate")


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


def _entries(
    traces: Traces,
    reactive: Collection[str] = (),
    of_variants: Mapping[str, Look] | None = None,
) -> list[Entry]:
    looks = _looks(traces) | dict(of_variants or {})
    return [
        Entry(
            _kind(name, reactive),
            name,
            UNCHANGED if name in reactive else _note(lines),
            looks[name],
        )
        for name, lines in traces.items()
    ]


def _kind(name: str, reactive: Collection[str]) -> str:
    return "lr.reactive" if name in reactive else "lr.trace"


def _note(lines: Sequence[Line]) -> str:
    """Return `0.01`, or `peak 0.01, end 1e-5`."""
    lr = lines[0].y if lines else np.empty(0)
    if not len(lr):
        return "not begun"
    if lr.min() == lr.max():
        return lr_text(float(lr[0]))
    return f"peak {lr_text(float(lr.max()))}, end {lr_text(float(lr[-1]))}"
