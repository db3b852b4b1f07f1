"""The pictures of losses: of one comparison, and of several runs on one sheet."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lrexp.report.curves import outcome
from lrexp.report.figure import Entry, Heading, finish, new_figure
from lrexp.report.panels import Variant, draw_panels, handle, load_variant, x_axis
from lrexp.report.range_test import draw_curves, loss_view, run_curves, set_lr_limits, set_view
from lrexp.report.style import COLORS, DASHES, MARKERS, Mark, dress, mark, panel_title
from lrexp.report.text import (
    count_text,
    lr_text,
    measure_text,
    ranking_note,
    run_subtitle,
    run_title,
    seeds_of,
    shortened,
    told_apart,
)
from lrexp.runs.reader import Run


def loss_figure(run: Run) -> Figure:
    """Return the sheet of a comparison's losses, the legend in the order of the ranking."""
    axis = x_axis([run])
    variants = [
        load_variant(name, trials, mark(i), axis)
        for i, (name, trials) in enumerate(run.variants.items())
    ]
    measures = evaluated(run)
    figure = new_figure()
    draw_panels(figure, variants, measures, axis)
    metric = str((run.summary or {}).get("metric", ""))
    heading = Heading(
        title=run_title(run, measure_text(metric or (measures or ["train_loss"])[-1])),
        subtitle=run_subtitle(run),
        caption=caption(variants),
        source=run.path.name,
    )
    legend_title = f"ranked by {measure_text(metric)}" if metric else "variants"
    finish(figure, heading, _entries(run, variants), legend_title)
    return figure


def evaluated(run: Run) -> list[str]:
    """Return the measures that get a panel: validation loss, and the metric that ranks.

    Training loss, evaluated, is a mean over many batches: beside the batch losses it gets a panel
    only where it ranks, and where there is a curve of it.
    """
    metric = str((run.summary or run.config.get("compare") or {}).get("metric", ""))
    candidates = dict.fromkeys(["val_loss", metric])
    return [
        measure
        for measure in candidates
        if any(
            np.isfinite(t.evals.get(measure, np.empty(0))).sum() > (measure == "train_loss")
            for t in run.trials
        )
    ]


def caption(variants: Sequence[Variant]) -> str:
    """Return how to read the lines."""
    seeds = max((len(v.trials) for v in variants), default=0)
    if seeds > 1:
        return (
            "Line: median of the seeds, training loss smoothed. Band: lowest to highest seed. "
            "Faint: raw loss of every step."
        )
    return "Training loss: smoothed strong, raw loss of every step faint."


def progress_note(run: Run, name: str) -> str:
    """Return how far a variant is: seeds that ended, diverged, failed; empty when all went well."""
    outcomes = [outcome(trial) for trial in run.variants[name]]
    planned = max(len(seeds_of(run)), len(outcomes))
    ended = len(outcomes) - outcomes.count("open")
    if not outcomes:
        return "not begun"
    progress = "not ended" if planned == 1 else f"{ended} of {planned} ended"
    notes = [
        kind if count == planned else f"{count} of {planned} {kind}"
        for kind in ("diverged", "failed")
        if (count := outcomes.count(kind))
    ]
    return ", ".join(notes if ended == planned else [progress, *notes])


def _entries(run: Run, variants: Sequence[Variant]) -> list[Entry]:
    rows = {row["variant"]: row for row in (run.summary or {}).get("ranking") or ()}
    by_name = {v.name: v for v in variants}
    ranked = [by_name[name] for name in rows if name in by_name]
    others = [v for v in variants if v.name not in rows]
    return [
        *(Entry(handle(v.mark), v.name, ranking_note(rows[v.name])) for v in ranked),
        *(Entry(handle(v.mark), v.name, progress_note(run, v.name)) for v in others),
    ]


RUN_WIDTH, VARIANT_WIDTH = 16, 24  # characters of a legend
_BEGAN = re.compile(r"\d{8}-\d{6}(?=-)")  # how a folder begins that no --out has named


def run_labels(runs: Sequence[Run]) -> list[str]:
    """Return the names of the runs; where names are equal, when they began, or the folders."""
    names = [run.name for run in runs]
    twins = [run for run in runs if names.count(run.name) > 1]
    found = [_BEGAN.match(run.path.name) for run in twins]
    times = [match[0] for match in found if match]
    if len(set(times)) < len(twins):
        times = [run.path.name for run in twins]
    elif len({time[:9] for time in times}) == 1:
        times = [f"{time[9:11]}:{time[11:13]}:{time[13:]}" for time in times]  # of one day
    labels = dict(zip((run.path for run in twins), times, strict=True))
    return [labels.get(run.path, run.name) for run in runs]


def overlay_loss_figure(runs: Sequence[Run]) -> Figure:
    """Return the sheet of several comparisons: a colour for each run, dashes for its variants.

    Where that is not enough, every curve has a mark of its own.
    """
    axis = x_axis(runs)
    entries: list[Entry] = []
    variants: list[Variant] = []
    labels = told_apart(run_labels(runs), RUN_WIDTH)
    for i, (run, label) in enumerate(zip(runs, labels, strict=True)):
        names = told_apart(list(run.variants), VARIANT_WIDTH)
        notes = {
            row["variant"]: ranking_note(row) for row in (run.summary or {}).get("ranking") or ()
        }
        for j, (name, trials) in enumerate(run.variants.items()):
            look = _look(runs, i, j, len(variants))
            variant = load_variant(name, trials, look, axis)
            variants.append(variant)
            note = notes.get(name, "") or progress_note(run, name)
            entries.append(Entry(handle(look), f"{label} · {names[j]}", note))
    measures = list(dict.fromkeys(m for run in runs for m in evaluated(run)))
    figure = new_figure()
    draw_panels(figure, variants, measures, axis)
    what = measure_text((measures or ["train_loss"])[-1])
    heading = Heading(_title(runs, what), _subtitle(runs), caption(variants))
    finish(figure, heading, entries, "runs", RUN_WIDTH + VARIANT_WIDTH + 3)
    return figure


def overlay_range_test_figure(runs: Sequence[Run]) -> Figure:
    """Return the sheet of several range tests, each with its suggestion."""
    figure = new_figure()
    ax = figure.subplots()
    dress(ax)
    entries = []
    all_curves = [run_curves(run) for run in runs]
    for i, (run, label) in enumerate(zip(runs, run_labels(runs), strict=True)):
        draw_curves(ax, all_curves[i], mark(i))
        lr = (run.summary or {}).get("suggested_lr")
        if lr:
            ax.axvline(lr, color=mark(i).color, linestyle=(0, (4, 2)), linewidth=1.5)
        text = f"suggests {lr_text(lr)}" if lr else "no suggestion"
        entries.append(Entry(handle(mark(i)), label, text))
    set_lr_limits(ax, [curve for curves in all_curves for curve in curves])
    lows, highs = zip(*(loss_view(curves) for curves in all_curves), strict=True)
    set_view(ax, min(lows), max(highs))
    panel_title(ax, "loss before each update")
    finish(figure, Heading(_title(runs, "LR range test"), _subtitle(runs)), entries, "runs")
    return figure


def _look(runs: Sequence[Run], run: int, variant: int, index: int) -> Mark:
    widest = max(len(r.variants) for r in runs)
    if len(runs) <= len(COLORS) and widest <= len(DASHES):
        return Mark(COLORS[run], DASHES[variant], MARKERS[variant])
    return mark(index)


def _title(runs: Sequence[Run], what: str) -> str:
    names = list(dict.fromkeys(shortened(run.name, 40) for run in runs))
    listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{listed}: {what} of {count_text(len(runs), 'run')}"


def _subtitle(runs: Sequence[Run]) -> str:
    """Return what the runs have in common."""
    told = [run_subtitle(run).split(" · ") for run in runs]
    return " · ".join(part for part in told[0] if all(part in other for other in told))
