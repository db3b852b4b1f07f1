"""Panels of losses over steps: what a picture of one run and an overlay of several share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lrexp.report.curves import (
    FEW_POINTS,
    Line,
    LossCurves,
    Spread,
    loss_curves,
    measure_curves,
    shared_epoch,
    steps_per_epoch,
)
from lrexp.report.style import (
    INK,
    MUTED,
    NOTE_BOX,
    Mark,
    Seen,
    clipped_view,
    drawable,
    dress,
    loss_view,
    marker_look,
    pad_x,
    panel_title,
    set_loss_axis,
    step_axis,
    view_of_lost,
    wants_log,
)
from lrexp.report.text import measure_text, number_text
from lrexp.runs.reader import Run, TrialRecord

PANEL_TITLES = {"loss": "training loss", "train_loss": "training loss, mean between evaluations"}
DENSE = 1_000  # points of a raw curve from which it fills an area
MAX_LABELS = 6  # of variants that leave the picture; more would cover the others
LABEL_HEIGHT = 0.05  # of the panel


@dataclass(frozen=True)
class XAxis:
    """The unit of the x axis, and the updates in an epoch where all curves agree on it."""

    unit: str  # "step" | "epoch"
    steps_per_epoch: float | None


@dataclass(frozen=True, eq=False)
class Variant:
    """One variant on its way onto a sheet."""

    name: str
    trials: tuple[TrialRecord, ...]
    mark: Mark
    curves: LossCurves
    scale: float  # x axis units in a step


def x_axis(runs: Sequence[Run]) -> XAxis:
    """Return the x axis that the runs can share: steps, but epochs where these differ in length."""
    found = [shared_epoch(run) for run in runs]
    lengths = {length for length, _ in found}
    if len(lengths) <= 1 and all(shared for _, shared in found):
        return XAxis("step", found[0][0] if found else None)
    return XAxis("step" if None in lengths else "epoch", None)


def load_variant(name: str, trials: tuple[TrialRecord, ...], look: Mark, axis: XAxis) -> Variant:
    """Read the curves of one variant."""
    length = steps_per_epoch(trials) if axis.unit == "epoch" else None
    return Variant(name, trials, look, loss_curves(trials), 1 / length if length else 1.0)


def handle(look: Mark) -> Line2D:
    """Return a line for a legend."""
    return Line2D(
        [0], [0], color=look.color, linestyle=look.dashes, linewidth=2.2,
        marker=look.marker or None, markersize=5.0,
    )  # fmt: skip


def draw_panels(
    figure: Figure, variants: Sequence[Variant], measures: Sequence[str], axis: XAxis
) -> None:
    """Draw a panel of the training loss and one for each evaluated measure."""
    panels = figure.subplots(1, 1 + len(measures), squeeze=False)[0]
    last = max((_end(variant) for variant in variants), default=0.0)
    spreads = [_draw_training(panels[0], variants)]
    spreads += [
        _draw_measure(ax, variants, measure)
        for ax, measure in zip(panels[1:], measures, strict=True)
    ]
    losses = [
        view for view, name in zip(spreads, ["loss", *measures], strict=True) if "loss" in name
    ]
    leavers = _leavers(variants, spreads[0][1], name_width=12 if len(panels) > 2 else 20)
    log = any(wants_log(*view) for view in losses) and all(low > 0 for low, _ in losses)
    for ax, measure, view in zip(panels, ["loss", *measures], spreads, strict=True):
        dress(ax)
        pad_x(ax, 0.0, last)
        room = 1.1 * LABEL_HEIGHT * min(MAX_LABELS, len(leavers)) if measure == "loss" else 0.0
        set_loss_axis(ax, *view, log=log and "loss" in measure, head=0.06 + room)
        title = PANEL_TITLES.get(measure) or measure_text(measure)
        panel_title(ax, drawable(title, 60))
        step_axis(ax, unit=axis.unit, steps_per_epoch=axis.steps_per_epoch)
        if not ax.lines:
            ax.text(0.5, 0.5, "no steps yet", transform=ax.transAxes, ha="center", color=MUTED)
    _label(panels[0], leavers)


def _draw_training(ax: Axes, variants: Sequence[Variant]) -> tuple[float, float]:
    """Draw raw losses faint, the smoothed median strong, seeds as a band; return the view."""
    for v in variants:
        raw = v.curves.kept_raw + v.curves.diverged_raw
        for line in raw:
            faint = max(0.1, (0.3 if len(line.x) < DENSE else 0.2) / len(raw))
            ax.plot(line.x * v.scale, line.y, color=v.mark.color, alpha=faint, linewidth=0.6)
    for v in variants:
        if v.curves.smooth is not None:
            _draw_spread(ax, v, v.curves.smooth)
        for line in v.curves.diverged:
            _draw_line(ax, v, line, width=1.3)
    return loss_view([v.curves for v in variants])


def _draw_measure(ax: Axes, variants: Sequence[Variant], measure: str) -> tuple[float, float]:
    """Draw what was evaluated, the median of the seeds in a band; return the view."""
    seen, lost_values = [], []
    for v in variants:
        kept, lost = measure_curves(v.trials, measure)
        if kept is not None:
            _draw_spread(ax, v, kept)
            low, high = float(kept.low.min()), float(kept.high.max())
            seen.append(Seen(low, high, float(kept.middle[0]), float(kept.middle[-1])))
        for line in lost:
            _draw_line(ax, v, line, width=1.3)
            lost_values.append(line.y)
    if not seen:
        return view_of_lost(lost_values)
    if "loss" not in measure:
        return min(s.low for s in seen), max(s.high for s in seen)
    # the first value of an unstable variant may be its blow-up: all begin where most of them do
    start = float(np.median([s.start for s in seen]))
    return clipped_view([replace(s, start=start) for s in seen])


def _leavers(variants: Sequence[Variant], top: float, name_width: int) -> list[tuple[Variant, str]]:
    """Return the variants that leave the picture for good, and a text about each."""
    rows = []
    for v in variants:
        name = drawable(v.name, name_width)
        if v.curves.diverged_at:
            rows.append((v, f"{name} diverged at {_diverged_steps(v)}"))
        if v.curves.smooth is not None and v.curves.smooth.middle[-1] > top:
            end = number_text(float(v.curves.smooth.middle[-1]), 2)
            rows.append((v, f"{name} ends above, at {end}"))
    return rows


def _label(ax: Axes, leavers: Sequence[tuple[Variant, str]]) -> None:
    """List below the top edge which variants leave the picture; mark where they diverged."""
    shown = leavers if len(leavers) <= MAX_LABELS else leavers[: MAX_LABELS - 1]
    rows = [(text, v.mark.color) for v, text in shown]
    if len(leavers) > len(shown):
        rows.append((f"and {len(leavers) - len(shown)} more", "white"))
    for row, (text, color) in enumerate(rows):
        at = (0.03, 0.965 - LABEL_HEIGHT * row)
        ax.annotate(
            text, at, xycoords="axes fraction", xytext=(8, 0), textcoords="offset points",
            va="center", fontsize=9.5, color=INK, bbox=NOTE_BOX, parse_math=False, zorder=5,
        )  # fmt: skip
        ax.plot(*at, transform=ax.transAxes, **_cross(color))
    for v, _ in shown:
        if v.curves.diverged_at:
            x = min(v.curves.diverged_at) * v.scale
            ax.plot(x, 1.0, transform=ax.get_xaxis_transform(), **_cross(v.mark.color))


def _cross(color: str) -> dict[str, Any]:
    look = {"marker": "X", "markersize": 8, "color": color, "markeredgecolor": "white"}
    return {**look, "linestyle": "none", "clip_on": False, "zorder": 6}


def _diverged_steps(v: Variant) -> str:
    first, last = min(v.curves.diverged_at), max(v.curves.diverged_at)
    steps = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
    num_lost, num_seeds = len(v.curves.diverged_at), len(v.trials)
    share = f"all {num_seeds}" if num_lost == num_seeds else f"{num_lost} of {num_seeds}"
    seeds = f" ({share} seeds)" if num_seeds > 1 else ""
    return steps + seeds


def _draw_spread(ax: Axes, v: Variant, spread: Spread) -> None:
    x = spread.x * v.scale
    if spread.seeds > 1:
        ax.fill_between(x, spread.low, spread.high, color=v.mark.color, alpha=0.16, linewidth=0)
    _draw_line(ax, v, Line(spread.x, spread.middle))


def _draw_line(ax: Axes, v: Variant, line: Line, width: float = 2.2) -> None:
    few: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(line.x) <= FEW_POINTS else {}
    ax.plot(
        line.x * v.scale, line.y, color=v.mark.color, linestyle=v.mark.dashes, linewidth=width,
        label=v.name, **(few | marker_look(v.mark, len(line.x))),
    )  # fmt: skip


def _end(v: Variant) -> float:
    """Return where the curves of a variant end, in units of the x axis."""
    columns = [trial.steps["step"] for trial in v.trials] + [t.evals["step"] for t in v.trials]
    return max((float(steps[-1]) for steps in columns if len(steps)), default=0.0) * v.scale
