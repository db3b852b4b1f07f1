"""Panels of losses over steps: what a picture of one run and an overlay of several share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lrexp.report import words
from lrexp.report.curves import (
    Array,
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
    NOTE_BOX,
    Mark,
    drawable,
    dress,
    number_axis,
    pad_x,
    step_axis,
    wants_log,
)
from lrexp.report.text import steps_text
from lrexp.store.read import Run, TrialRecord

FEW_POINTS = 40  # of a line, that are marked one by one
MAX_LABELS = 6  # of diverged variants; more would cover the curves


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
    return Line2D([], [], color=look.color, linestyle=look.dashes, linewidth=2.2)


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
    num_lost = sum(bool(v.curves.diverged) for v in variants)
    log = any(wants_log(*view) for view in losses) and all(low > 0 for low, _ in losses)
    for ax, measure, view in zip(panels, ["train_loss", *measures], spreads, strict=True):
        dress(ax)
        pad_x(ax, 0.0, last)
        room = 0.055 * min(MAX_LABELS, num_lost) if measure == "train_loss" else 0.0
        _set_view(ax, *view, log=log and "loss" in measure, head=0.06 + room)
        title = words.measure_text(measure)
        ax.set_title(title, loc="left", fontsize=12, color=INK, pad=8, parse_math=False)
        step_axis(ax, unit=axis.unit, steps_per_epoch=axis.steps_per_epoch)
    _label_diverged(panels[0], variants)


def loss_view(curves: Sequence[LossCurves]) -> tuple[float, float]:
    """Return the lowest and the highest loss to show.

    Seeds that diverged have no say, unless all did; nor do rare peaks of the raw losses.
    """
    lows, highs = [], []
    for curve in curves:
        if curve.smooth is not None:
            raw = np.concatenate([line.y for line in curve.kept_raw])
            lows += [float(np.percentile(raw, 1)), float(curve.smooth.middle.min())]
            highs += [float(np.percentile(raw, 99)), float(curve.smooth.middle[0])]
    if lows:
        return min(lows), max(highs)
    return _view_of_lost([line.y for curve in curves for line in curve.diverged])


def _draw_training(ax: Axes, variants: Sequence[Variant]) -> tuple[float, float]:
    """Draw raw losses faint, the smoothed median strong, seeds as a band; return the view."""
    seeds = max((len(v.curves.kept_raw) for v in variants), default=1)
    for v in variants:
        for line in v.curves.kept_raw:
            faint = max(0.1, 0.3 / max(1, seeds))
            ax.plot(line.x * v.scale, line.y, color=v.mark.color, alpha=faint, linewidth=0.6)
    for v in variants:
        if v.curves.smooth is not None:
            _draw_spread(ax, v, v.curves.smooth)
        for line in v.curves.diverged:
            _draw_line(ax, v, line, width=1.3)
    return loss_view([v.curves for v in variants])


def _draw_measure(ax: Axes, variants: Sequence[Variant], measure: str) -> tuple[float, float]:
    """Draw what was evaluated, the median of the seeds in a band; return the view."""
    kept_values, lost_values = [], []
    for v in variants:
        kept, lost = measure_curves(v.trials, measure)
        if kept is not None:
            _draw_spread(ax, v, kept)
            kept_values += [kept.low, kept.high]
        for line in lost:
            _draw_line(ax, v, line, width=1.3)
            lost_values.append(line.y)
    if not kept_values:
        return _view_of_lost(lost_values)
    values = np.concatenate(kept_values)
    return float(values.min()), float(values.max())


def _label_diverged(ax: Axes, variants: Sequence[Variant]) -> None:
    """Say below the top edge which variants left the picture, and where."""
    lost = [v for v in variants if v.curves.diverged_at]
    shown = lost if len(lost) <= MAX_LABELS else lost[: MAX_LABELS - 1]
    low, high = ax.get_xlim()
    for row, v in enumerate(shown):
        x, y = min(v.curves.diverged_at) * v.scale, 0.965 - 0.05 * row
        on_the_left = x < low + 0.5 * (high - low)
        ax.plot(
            [x], [y], transform=ax.get_xaxis_transform(), clip_on=False, zorder=6,
            marker="X", markersize=8, color=v.mark.color, markeredgecolor="white", linestyle="none",
        )  # fmt: skip
        ax.annotate(
            _diverged_text(v), (x, y), xycoords=("data", "axes fraction"),
            xytext=(9 if on_the_left else -9, 0), textcoords="offset points",
            ha="left" if on_the_left else "right", va="center", fontsize=9.5, color=INK,
            parse_math=False, bbox=NOTE_BOX, zorder=5,
        )  # fmt: skip
    if len(lost) > len(shown):
        ax.text(
            0.5, 0.965 - 0.05 * len(shown), f"and {len(lost) - len(shown)} more diverged",
            transform=ax.transAxes, ha="center", va="center", fontsize=9.5, bbox=NOTE_BOX, zorder=5,
        )  # fmt: skip


def _diverged_text(v: Variant) -> str:
    first, last = min(v.curves.diverged_at), max(v.curves.diverged_at)
    steps = f"step {steps_text(first)}" if first == last else f"steps {first:,} to {last:,}"
    num_lost, num_seeds = len(v.curves.diverged_at), len(v.trials)
    share = f"all {num_seeds}" if num_lost == num_seeds else f"{num_lost} of {num_seeds}"
    seeds = f" ({share} seeds)" if num_seeds > 1 else ""
    return f"{drawable(v.name, 20)} diverged at {steps}{seeds}"


def _draw_spread(ax: Axes, v: Variant, spread: Spread) -> None:
    x = spread.x * v.scale
    if spread.seeds > 1:
        ax.fill_between(x, spread.low, spread.high, color=v.mark.color, alpha=0.16, linewidth=0)
    _draw_line(ax, v, Line(spread.x, spread.middle))


def _draw_line(ax: Axes, v: Variant, line: Line, width: float = 2.2) -> None:
    ax.plot(
        line.x * v.scale, line.y, color=v.mark.color, linestyle=v.mark.dashes, linewidth=width,
        marker="o" if len(line.x) <= FEW_POINTS else None, markersize=3.5, label=v.name,
    )  # fmt: skip


def _set_view(ax: Axes, low: float, high: float, *, log: bool, head: float = 0.06) -> None:
    """Set the y axis; `head` is the room above the highest loss, as a fraction of the range."""
    if log:
        ratio = high / low if high > low else 10.0
        ax.set_ylim(low / ratio**0.06, high * ratio**head)
    else:
        span = (high - low) or abs(high) or 1.0
        ax.set_ylim(low - 0.06 * span, high + head * span)
    number_axis(ax, "y", log=log)


def _view_of_lost(losses: Sequence[Array]) -> tuple[float, float]:
    """Return the view where every seed diverged: around the losses that they began with."""
    losses = [loss for loss in losses if len(loss)]
    if not losses:
        return 0.0, 1.0
    start = float(np.median([loss[0] for loss in losses]))
    low = min(float(loss.min()) for loss in losses)
    return low, start + max(2 * (start - low), abs(start), 1e-12)


def _end(v: Variant) -> float:
    """Return where the curves of a variant end, in units of the x axis."""
    columns = [trial.steps["step"] for trial in v.trials] + [t.evals["step"] for t in v.trials]
    return max((float(steps[-1]) for steps in columns if len(steps)), default=0.0) * v.scale
