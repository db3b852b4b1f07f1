"""The curves of a range test: every seed faint, their smoothed median strong, in a clipped view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from lrexp.finder.curve import CombinedCurve, Curve, combine, start_level
from lrexp.finder.second_look import closer_look
from lrexp.finder.trials import RANGE_TEST
from lrexp.report.curves import Array, outcome
from lrexp.report.style import COLORS, Mark, log_limits, lr_axis, number_axis, wants_log
from lrexp.store.read import Run
from lrexp.tested import curves_of, untrained_losses

CURVE = Mark(COLORS[0], "-")
OPEN_END = float(np.finfo(np.float32).max)  # as far up as any picture goes


def run_curves(run: Run) -> list[Curve]:
    """Return the curves of the seeds that have ended; where none has, of the one that goes on.

    After a second look they are those in which the fall was looked for.
    """
    tests = [trial for trial in run.trials if trial.variant == RANGE_TEST]
    begun = [trial for trial in tests if len(trial.steps["lr"])]
    ended = [trial for trial in begun if outcome(trial) != "open"]
    curves = curves_of(ended or begun[:1])
    return closer_look(curves, untrained_losses(run, ended)) or curves


def loss_title(run: Run) -> str:
    """Return what the curves of a range test are of."""
    tests = [trial for trial in run.trials if trial.variant == RANGE_TEST]
    is_closer = closer_look(curves_of(tests), untrained_losses(run, tests)) is not None
    against = ", less that of the untrained model on the same batch (all begin at their mean)"
    return f"loss before each update{against if is_closer else ''}"


def draw_curves(
    ax: Axes, curves: Sequence[Curve], look: Mark = CURVE, xs: Sequence[Array] | None = None
) -> CombinedCurve | None:
    """Draw the curves over their LRs, or over `xs`; return them as one, or None without any."""
    xs = [curve.lr for curve in curves] if xs is None else xs
    for x, curve in zip(xs, curves, strict=True):
        n = curve.num_finite
        ax.plot(x[:n], curve.loss[:n], color=look.color, alpha=0.35, linewidth=0.8)
    combined = combine(curves) if curves else None
    if combined is None or not len(combined.lr):
        return None
    x = max(xs, key=len)[: len(combined.lr)]
    if combined.seeds > 1:
        top = np.where(np.isfinite(combined.high), combined.high, OPEN_END)  # a seed has stopped
        ax.fill_between(x, combined.low, top, color=look.color, alpha=0.16, linewidth=0)
    ax.plot(
        x, combined.smooth, color=look.color, linestyle=look.dashes, linewidth=2.4,
        marker="o" if len(x) == 1 else None,
    )  # fmt: skip
    return combined


def loss_view(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the lowest and highest loss to show: the valley, the start, not the blow-up."""
    raw = [curve.loss[: curve.num_finite] for curve in curves if curve.num_finite]
    if not raw:
        return 0.0, 1.0
    firsts = np.concatenate([loss[: max(3, len(loss) // 2)] for loss in raw])
    combined = combine(curves)
    if not len(combined.lr):
        start = float(np.median([loss[0] for loss in raw]))
        return float(firsts.min()), start + max(abs(start), 1e-12)
    lowest = int(np.argmin(combined.smooth))
    until_lowest = float(combined.smooth[: lowest + 1].max())  # there may be a hill on the way
    noise_high = np.percentile(firsts, 99)
    dips = np.percentile(np.concatenate(raw), 2)  # the losses of a seed that goes lower
    low = min(float(combined.smooth[lowest]), float(combined.low.min()), float(dips))
    return low, max(start_level(combined.smooth), until_lowest, min(float(noise_high), OPEN_END))


def set_view(ax: Axes, low: float, high: float) -> None:
    """Set the y axis to these losses, with some of the blow-up above them."""
    if wants_log(low, high):
        ax.set_ylim(*log_limits(low, high, 0.06, 0.2))
    else:
        room = (high - low) or 0.1 * abs(high) or 1.0
        ax.set_ylim(low - 0.07 * room, high + 0.3 * room)
    number_axis(ax, "y", log=wants_log(low, high))


def set_lr_limits(ax: Axes, curves: Sequence[Curve]) -> None:
    """Make the x axis one of log LR that shows the whole ramp."""
    lrs = np.concatenate([curve.lr for curve in curves]) if curves else np.empty(0)
    low, high = (float(lrs.min()), float(lrs.max())) if len(lrs) else (1e-7, 10.0)
    ax.set_xscale("log")
    ax.set_xlim(*log_limits(low, high, 0.015, 0.015))
    lr_axis(ax, "x", log=True)
    ax.set_xlabel("learning rate")
