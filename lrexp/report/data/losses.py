"""The losses of a comparison over its steps, and those of several runs in one picture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lrexp.records import column_of
from lrexp.report.data.curves import (
    Line,
    LossCurves,
    Spread,
    loss_curves,
    measure_curves,
    outcome,
    shared_epoch,
    steps_per_epoch,
)
from lrexp.report.data.picture import (
    NAME_WIDTH,
    NUM_COLORS,
    NUM_DASHES,
    Array,
    Band,
    Entry,
    Look,
    Mark,
    Marks,
    Note,
    Panel,
    Picture,
    Scale,
    View,
    look,
    mark,
    of_run,
    step_axis,
    value_axis,
    wants_log,
)
from lrexp.report.text import (
    changed_keys,
    compared_text,
    count_text,
    lost_texts,
    measure_text,
    num_seeds,
    number_text,
    ranking_note,
    run_subtitle,
    shortened,
    told_apart,
)
from lrexp.runs.reader import Run, TrialRecord

PANEL_TITLES = {"loss": "training loss", "train_loss": "training loss, mean between evaluations"}
LOSSES = ("loss", *PANEL_TITLES, "val_loss")  # that may have a logarithmic axis
MAX_LABELS = 6  # of variants that leave the picture; more would cover the others
LABEL_HEIGHT = 0.05  # of the panel
SHADED = 5  # variants that differ in one number, from which shades tell them apart
SHADED_LOG = 10.0  # of the largest to the smallest number, from which shades are those of its log
PER_PICTURE = 3  # metrics, beside each other
BLOW_UP = 4.0  # times the fall of the best curve, that a curve in view may rise above its start
RUN_WIDTH, VARIANT_WIDTH = 16, 24  # characters of a legend
_BEGAN = re.compile(r"\d{8}-\d{6}(?=-)")  # how a folder begins that no --out has named


class Variant:
    """One variant on its way into a picture."""

    def __init__(self, name: str, trials: Sequence[TrialRecord], look: Look, unit: str) -> None:
        length = steps_per_epoch(trials) if unit == "epoch" else None
        self.scale = 1 / length if length else 1.0  # x axis units in a step
        self.name, self.trials, self.look = name, trials, look
        self.curves = loss_curves(trials)
        columns = [rows["step"] for trial in trials for rows in (trial.steps, trial.evals)]
        self.end = max((float(s[-1]) for s in columns if len(s)), default=0.0) * self.scale
        lrs = sorted((trial.steps["lr"] for trial in trials), key=len)
        same = all(np.array_equal(lr, lrs[-1][: len(lr)]) for lr in lrs)
        self.lrs = lrs[-1] if lrs and same and len(lrs[-1]) else None

    def lr_at(self, steps: Array) -> Array | None:
        """Return the LR at these steps, the last one after the end; None where seeds differ."""
        if self.lrs is None:
            return None
        return self.lrs[np.clip(np.rint(steps), 0, len(self.lrs) - 1).astype(np.intp)]


@dataclass(frozen=True)
class Seen:
    """What one variant would have shown."""

    low: float
    high: float
    start: float
    end: float


def loss_picture(run: Run, metrics: Sequence[str] = ()) -> Picture:
    """Return the losses of a comparison, or metrics; the legend in the order of the ranking."""
    unit, length = _unit([run])
    scale, looks = looks_of(run)
    variants = {
        name: Variant(name, trials, looks[name], unit) for name, trials in run.variants.items()
    }
    measures = metrics or evaluated(run)
    rows = _ranking(run)
    others = {name: progress_note(run, name) for name in variants if name not in rows}
    notes = {name: ranking_note(row) for name, row in rows.items() if name in variants} | others
    metric = str((run.summary or {}).get("metric", ""))
    what = measure_text(metric or (measures or ["train_loss"])[-1])
    what = "metrics" if metrics else what
    compared = compared_text(len(variants), changed_keys(run))
    hides = _equal_to(list(variants.values()), list(variants))
    panels = _panels(list(variants.values()), measures, unit, length)
    return of_run(
        run,
        f"{what} of {compared}, {count_text(num_seeds(run), 'seed')}",
        panels[bool(metrics) :],
        caption="" if metrics else _caption(list(variants.values()), panels),  # about losses
        entries=[
            Entry("loss.median", name, _noted(note, hides.get(name)), looks[name])
            for name, note in notes.items()
        ],
        legend_title=f"ranked by {measure_text(metric)}" if metric else "variants",
        scale=scale,
    )


def looks_of(run: Run) -> tuple[Scale | None, dict[str, Look]]:
    """Return the look of each variant: by its number where many differ in one number alone."""
    settings = _settings(run)
    keys = {key for own in settings.values() for key in own}
    values = [value for own in settings.values() for value in own.values()]
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    differ = len(keys) == 1 and len(set(numbers)) == len(run.variants) == len(settings)
    if not differ or len(numbers) < SHADED:
        return None, {name: look(i) for i, name in enumerate(run.variants)}
    [key], low, high = keys, min(numbers), max(numbers)
    scale = Scale(key, low, high, log=low > 0 and high >= SHADED_LOG * low)
    return scale, {
        # colour and dashes stay, for what draws no shades
        name: replace(look(i), shade=scale.look(settings[name][key]).shade)
        for i, name in enumerate(run.variants)
    }


def overlaid_loss_picture(runs: Sequence[Run]) -> Picture:
    """Return the losses of several comparisons: a colour for each run, dashes for its variants.

    Where that is not enough, every curve has a look of its own.
    """
    unit, length = _unit(runs)
    widest = max(len(run.variants) for run in runs)
    by_run = len(runs) <= NUM_COLORS and widest <= NUM_DASHES
    entries: list[Entry] = []
    variants: list[Variant] = []
    labels = told_apart(run_labels(runs), RUN_WIDTH)
    for i, (run, label) in enumerate(zip(runs, labels, strict=True)):
        names = told_apart(list(run.variants), VARIANT_WIDTH)
        notes = {name: ranking_note(row) for name, row in _ranking(run).items()}
        for j, (name, trials) in enumerate(run.variants.items()):
            its = Look(i, j) if by_run else look(len(variants))
            variants.append(Variant(name, trials, its, unit))
            note = notes.get(name, "") or progress_note(run, name)
            entries.append(Entry("loss.median", f"{label} · {names[j]}", note, its))
    hides = _equal_to(variants, [entry.name for entry in entries])
    entries = [replace(e, note=_noted(e.note, hides.get(e.name))) for e in entries]
    measures = list(dict.fromkeys(m for run in runs for m in evaluated(run)))
    panels = _panels(variants, measures, unit, length)
    return of_runs(
        runs,
        measure_text((measures or ["train_loss"])[-1]),
        panels,
        caption=_caption(variants, panels),
        entries=entries,
        name_width=max(NAME_WIDTH, RUN_WIDTH + VARIANT_WIDTH + 3),
    )


def _settings(run: Run) -> Mapping[str, Mapping[str, Any]]:
    """Return what each variant sets; of a run without a summary as far as its config tells."""
    if ranking := _ranking(run):
        return {name: row.get("settings") or {} for name, row in ranking.items()}
    section = run.config.get("compare") or {}
    grid = section.get("grid") or {}
    if len(grid) == 1:
        [(key, values)] = grid.items()
        return {name: {key: v} for name, v in zip(run.variants, values, strict=False)}
    return {name: own or {} for name, own in (section.get("variants") or {}).items()}


def _equal_to(variants: Sequence[Variant], names: Sequence[str]) -> dict[str, str]:
    """Return whose curve each of several equal ones lies on; the legend says so."""
    first: dict[bytes, str] = {}
    found: dict[str, str] = {}
    for v, name in zip(variants, names, strict=True):
        lines = v.curves.kept_raw + v.curves.diverged_raw
        if lines:
            points = b"".join(line.x.tobytes() + line.y.tobytes() for line in lines)
            other = first.setdefault(points, name)
            found |= {name: other} if other != name else {}
    return found


def _noted(note: str, other: str | None) -> str:
    return note if other is None else f"{note}, same curve as {shortened(other, 20)}".lstrip(", ")


def evaluated(run: Run) -> list[str]:
    """Return the measures that get a panel: validation loss, and the metric that ranks.

    Training loss, evaluated, is a mean over many batches: beside the batch losses it gets a panel
    only where it ranks, and where there is a curve of it.
    """
    metric = _ranking_metric(run)
    most = {
        measure: max((np.isfinite(t.evals.get(measure, [])).sum() for t in run.trials), default=0)
        for measure in ("val_loss", metric)
    }
    return [measure for measure, count in most.items() if count > (measure == "train_loss")]


def _ranking_metric(run: Run) -> str:
    return column_of(str((run.summary or run.config.get("compare") or {}).get("metric", "")))


def metric_pictures(run: Run) -> dict[str, Picture]:
    """Return pictures of the metrics that were asked for and that the losses' picture lacks."""
    listed = run.config.get("metrics")
    asked = [column_of(str(name)) for name in listed] if isinstance(listed, list) else []
    columns = {column for trial in run.trials for column in trial.evals}
    left = [c for c in dict.fromkeys(asked) if c in columns and c not in evaluated(run)]
    parts = [left[i : i + PER_PICTURE] for i in range(0, len(left), PER_PICTURE)]
    names = ["metrics", *(f"metrics-{number}" for number in range(2, len(parts) + 1))]
    return {name: loss_picture(run, part) for name, part in zip(names, parts, strict=False)}


def progress_note(run: Run, name: str) -> str:
    """Return how far a variant is: seeds that ended, diverged, failed; empty when all went well."""
    outcomes = Counter(outcome(trial) for trial in run.variants[name])
    planned = max(num_seeds(run), outcomes.total())
    ended = outcomes.total() - outcomes["open"]
    if not outcomes:
        return "not begun"
    progress = "not ended" if planned == 1 else f"{ended} of {planned} ended"
    return ", ".join([*([progress] if ended < planned else []), *lost_texts(outcomes, planned)])


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


def of_runs(runs: Sequence[Run], what: str, panels: Sequence[Panel], **more: Any) -> Picture:
    """Return a picture that says of which runs it is, and what they have in common."""
    names = list(dict.fromkeys(shortened(run.name, 40) for run in runs))
    listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    title = f"{listed}: {what} of {count_text(len(runs), 'run')}"
    told = [run_subtitle(run).split(" · ") for run in runs]
    shared = " · ".join(part for part in told[0] if all(part in other for other in told))
    return Picture(title, panels, subtitle=shared, legend_title="runs", **more)


def _ranking(run: Run) -> dict[str, Mapping[str, Any]]:
    return {row["variant"]: row for row in (run.summary or {}).get("ranking") or ()}


def _caption(variants: Sequence[Variant], panels: Sequence[Panel]) -> str:
    """Return how to read the lines."""
    marks = [mark for panel in panels for mark in panel.marks if isinstance(mark, Mark)]
    ring = " Ring: best evaluation." * any(mark.kind == "loss.best" for mark in marks)
    if max((len(v.trials) for v in variants), default=0) > 1:
        return (
            "Line: median of the seeds, training loss smoothed. Band: lowest to highest seed. "
            f"Faint: raw loss of every step.{ring}"
        )
    return f"Training loss: smoothed strong, raw loss of every step faint.{ring}"


def _unit(runs: Sequence[Run]) -> tuple[str, float | None]:
    """Return the unit of x that the runs can share, and the updates in an epoch where all agree.

    The unit is the step, but the epoch where epochs differ in length.
    """
    found = [shared_epoch(run) for run in runs]
    lengths = {length for length, _ in found}
    if len(lengths) <= 1 and all(shared for _, shared in found):
        return "step", found[0][0] if found else None
    return "step" if None in lengths else "epoch", None


def _panels(
    variants: Sequence[Variant], measures: Sequence[str], unit: str, length: float | None
) -> list[Panel]:
    """Return a panel of the training loss and one for each evaluated measure."""
    x = step_axis(max((v.end for v in variants), default=0.0), unit, length)
    shown = {"loss": _training(variants)} | {m: _evaluated(variants, m) for m in measures}
    views = [view for name, (_, view) in shown.items() if name in LOSSES]
    log = any(wants_log(*view) for view in views) and all(low > 0 for low, _ in views)
    leaving = _leavers(variants, shown["loss"][1][1], name_width=12 if len(shown) > 2 else 20)
    panels = []
    for name, (marks, view) in shown.items():
        room = 1.1 * LABEL_HEIGHT * min(MAX_LABELS, len(leaving)) if name == "loss" else 0.0
        y = value_axis(*view, 0.06, 0.06 + room, log=log and name in LOSSES)
        empty = [] if marks else [Note("loss.empty", "no steps yet", 0.5, 0.5, "xy", "center")]
        labels = _labels(leaving) if name == "loss" else []
        title = shortened(PANEL_TITLES.get(name) or measure_text(name), 60)
        panels.append(Panel(x, y, [*marks, *empty, *labels], title))
    return panels


def _training(variants: Sequence[Variant]) -> tuple[Marks, View]:
    """Return raw losses, the smoothed median, its band, seeds that diverged; and the view."""
    marks: Marks = []
    for v in variants:
        raw = v.curves.kept_raw + v.curves.diverged_raw
        marks += [_line("loss.raw", v, line) for line in raw]
    for v in variants:
        marks += _spread(v, v.curves.smooth)
        marks += [_line("loss.lost", v, line) for line in v.curves.diverged]
    return marks, loss_view([v.curves for v in variants])


def _evaluated(variants: Sequence[Variant], measure: str) -> tuple[Marks, View]:
    """Return what was evaluated, the median of the seeds in a band; and the view."""
    marks: Marks = []
    seen, lost_values = [], []
    for v in variants:
        kept, lost = measure_curves(v.trials, measure)
        marks += _spread(v, kept)
        if kept is not None:
            first = 1 if measure not in LOSSES and len(kept.x) > 2 else 0  # not before training
            low, high = float(kept.low[first:].min()), float(kept.high[first:].max())
            seen.append(Seen(low, high, float(kept.middle[0]), float(kept.middle[-1])))
            best = int(np.argmin(kept.middle))
            if measure == "val_loss" and best < len(kept.x) - 1:
                at = Line(kept.x[[best]], kept.middle[[best]])
                marks.append(_line("loss.best", v, at))
        marks += [_line("loss.lost", v, line) for line in lost]
        lost_values += [line.y for line in lost]
    if not seen:
        return marks, _view_of_lost(lost_values)
    if measure not in LOSSES:
        return marks, (min(s.low for s in seen), max(s.high for s in seen))
    # the first value of an unstable variant may be its blow-up: all begin where most of them do
    start = float(np.median([s.start for s in seen]))
    return marks, clipped_view([replace(s, start=start) for s in seen])


def _line(kind: str, v: Variant, line: Line) -> Mark:
    return Mark(kind, line.x * v.scale, line.y, v.look, v.name, lr=v.lr_at(line.x))


def _spread(v: Variant, spread: Spread | None) -> Marks:
    if spread is None:
        return []
    median = _line("loss.median", v, Line(spread.x, spread.middle))
    if spread.seeds == 1:
        return [median]
    band = Band(spread.x * v.scale, spread.low, spread.high, v.look, v.name)
    return [band, *(_line("loss.seed", v, line) for line in spread.lines), median]


def _leavers(variants: Sequence[Variant], top: float, name_width: int) -> list[tuple[Variant, str]]:
    """Return the variants that leave the picture for good, and a text about each."""
    rows = []
    for v in variants:
        name = shortened(v.name, name_width)
        if v.curves.diverged_at:
            rows.append((v, f"{name} diverged at {_diverged_steps(v)}"))
        if v.curves.smooth is not None and v.curves.smooth.middle[-1] > top:
            end = number_text(float(v.curves.smooth.middle[-1]), 2)
            rows.append((v, f"{name} ends above, at {end}"))
    return rows


def _diverged_steps(v: Variant) -> str:
    first, last = min(v.curves.diverged_at), max(v.curves.diverged_at)
    steps = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
    lost, total = len(v.curves.diverged_at), len(v.trials)
    share = f"all {total}" if lost == total else f"{lost} of {total}"
    return f"{steps} ({share} seeds)" if total > 1 else steps


def _labels(leavers: Sequence[tuple[Variant, str]]) -> Marks:
    """List below the top edge which variants leave the picture; mark where they diverged."""
    shown = leavers if len(leavers) <= MAX_LABELS else leavers[: MAX_LABELS - 1]
    texts = [text for _, text in shown]
    if len(leavers) > len(shown):
        texts.append(f"and {len(leavers) - len(shown)} more")
    heights = [0.965 - LABEL_HEIGHT * row for row in range(len(texts))]
    marks: Marks = [
        Note("loss.leaver", text, 0.03, y, "xy") for text, y in zip(texts, heights, strict=True)
    ]
    for (v, _), y in zip(shown, heights, strict=False):
        marks.append(mark("loss.leaver", [0.03], [y], v.look, "xy"))
        if v.curves.diverged_at:
            at = min(v.curves.diverged_at) * v.scale
            marks.append(mark("loss.leaver", [at], [1.0], v.look, "y"))
    return marks


def loss_view(curves: Sequence[LossCurves]) -> View:
    """Return the lowest and the highest loss to show.

    Seeds that diverged have no say, unless all did; nor do rare peaks of the raw losses, nor
    losses of exactly 0 (a loss that underflows), which no logarithmic axis could show.
    """
    seen = []
    for curve in curves:
        if curve.smooth is not None:
            raw = np.concatenate([line.y for line in curve.kept_raw])
            start = float(np.median([line.y[0] for line in curve.kept_raw if len(line.y)]))
            low, high = (float(loss) for loss in np.percentile(raw, [1, 99]))
            middle = curve.smooth.middle
            lowest = float(middle.min(where=middle != 0.0, initial=middle.max()))
            low = lowest if low == 0.0 == raw.min() else min(low, lowest)
            seen.append(Seen(low, high, start, float(middle[-1])))
    if seen:
        return clipped_view(seen)
    return _view_of_lost([line.y for curve in curves for line in curve.diverged])


def clipped_view(seen: Sequence[Seen]) -> View:
    """Return the range that holds all curves but for their blow-ups.

    A curve may rise above its start by a few times what the best curve falls below it; the end of
    the best curve is always in view.
    """
    low = min(s.low for s in seen)
    tops = [s.start + BLOW_UP * ((s.start - low) or abs(s.start)) for s in seen]
    best_end = min(s.end for s in seen)
    high = max(max(min(s.high, top), s.start) for s, top in zip(seen, tops, strict=True))
    return low, max(high, best_end + 0.5 * (best_end - low))


def _view_of_lost(losses: Sequence[Array]) -> View:
    """Return the view where every seed diverged: around the losses that they began with."""
    losses = [loss for loss in losses if len(loss)]
    if not losses:
        return 0.0, 1.0
    start = float(np.median([loss[0] for loss in losses]))
    low = min(float(loss.min()) for loss in losses)
    high = max(float(loss.max()) for loss in losses)
    return low, min(high, start + 10 * max(start - low, abs(start)))
