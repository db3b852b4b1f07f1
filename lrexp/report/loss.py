"""The picture of a comparison: training loss, and beside it what was evaluated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lrexp.report.curves import outcome
from lrexp.report.figure import Entry, Heading, finish, new_figure
from lrexp.report.panels import Variant, draw_panels, handle, load_variant, x_axis
from lrexp.report.style import mark
from lrexp.report.words import measure_text, ranking_note, run_subtitle, run_title, seeds_of
from lrexp.store.read import Run


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
