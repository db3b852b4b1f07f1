"""Which losses a panel shows: all that training did, but not the blow-ups on its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from lrexp.report.curves import Array, LossCurves
from lrexp.report.style import log_limits, number_axis

BLOW_UP = 4.0  # times the fall of the best curve, that a curve in view may rise above its start


@dataclass(frozen=True)
class Seen:
    """What one variant would have shown."""

    low: float
    high: float
    start: float
    end: float


def loss_view(curves: Sequence[LossCurves]) -> tuple[float, float]:
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
    return view_of_lost([line.y for curve in curves for line in curve.diverged])


def clipped_view(seen: Sequence[Seen]) -> tuple[float, float]:
    """Return the range that holds all curves but for their blow-ups.

    A curve may rise above its start by a few times what the best curve falls below it; the end of
    the best curve is always in view.
    """
    low = min(s.low for s in seen)
    tops = [s.start + BLOW_UP * ((s.start - low) or abs(s.start)) for s in seen]
    best_end = min(s.end for s in seen)
    high = max(max(min(s.high, top), s.start) for s, top in zip(seen, tops, strict=True))
    return low, max(high, best_end + 0.5 * (best_end - low))


def set_loss_axis(ax: Axes, low: float, high: float, *, log: bool, head: float = 0.06) -> None:
    """Set the y axis; `head` is the room above the highest loss, as a fraction of the range."""
    if log:
        ax.set_ylim(*log_limits(low, high, 0.06, head))
    else:
        span = (high - low) or abs(high) or 1.0
        ax.set_ylim(low - 0.06 * span, high + head * span)
    number_axis(ax, "y", log=log)


def view_of_lost(losses: Sequence[Array]) -> tuple[float, float]:
    """Return the view where every seed diverged: around the losses that they began with."""
    losses = [loss for loss in losses if len(loss)]
    if not losses:
        return 0.0, 1.0
    start = float(np.median([loss[0] for loss in losses]))
    low = min(float(loss.min()) for loss in losses)
    high = max(float(loss.max()) for loss in losses)
    return low, min(high, start + 10 * max(start - low, abs(start)))
